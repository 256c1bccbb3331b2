/* engine.h - the objects behind jang.h's handles; seen by the files of engine/ only.
 *
 * A tokenizer and a model share one opened checkpoint's texts; a session is one sequence on a
 * model with pages of its own. */
#ifndef JANG_ENGINE_ENGINE_H
#define JANG_ENGINE_ENGINE_H

#include "format/checkpoint.h"
#include "format/sentence_modules.h"
#include "model/model.h"
#include "template/template.h"
#include "tokenizer/tokenizer.h"

struct jang_tokenizer {
    ctx_t *ctx;
    checkpoint *own; /* opened for this tokenizer alone; NULL when a model owns it */
    tok *tok;
    tmpl *chat;       /* NULL: no template */
    char *chat_text;  /* the template's own text; NULL: none */
    char *chat_error; /* why the template does not compile; NULL: it does */
    json_t *specials; /* bos_token, eos_token, ...: the strings that templates read */
};

struct jang_model {
    ctx_t *ctx;
    checkpoint *checkpoint;
    ops *ops;
    model *model;
    jang_tokenizer *tokenizer;        /* NULL: the model has none */
    tok_ids ends;                     /* ids that end the model's turn */
    bool exact;                       /* f32 activations, as opened */
    jang_sampling sampling;           /* generation_config.json's defaults */
    sentence_modules modules;         /* how it embeds */
    int64_t padding;                  /* id that a causal classifier does not judge by; or -1 */
    float *dense[SENTENCE_DENSE_MAX]; /* [n_out, n_in], then [n_out] of the bias; NULL: not there */
    jang_model_info info;
    char *profile; /* owned, for info */
    char *path;
};

/* Reads tokenizer and template of a checkpoint. *out is NULL, with JANG_OK, when it has none. */
JANG_MUST_CHECK jang_status text_open(jang_tokenizer **out, ctx_t *ctx, checkpoint *c);

/* Appends the rendering of the chat template with a parsed context, special tokens added to it. */
JANG_MUST_CHECK jang_status chat_render(buf *out, jang_tokenizer *t, json_t *context);

/* Collects the ids that end a turn: from the configs, and what the chat template itself writes
 * after an assistant's message. */
JANG_MUST_CHECK jang_status chat_find_ends(tok_ids *out, jang_model *m);

/* Ids below this may be drawn: models pad their vocabulary beyond what their tokenizer knows. */
int32_t model_n_drawable(const jang_model *m);

/* Appends an id unless it is there. */
JANG_MUST_CHECK jang_status ids_add(tok_ids *ids, ctx_t *ctx, int32_t id);

#endif
