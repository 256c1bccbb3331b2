/* tok_impl.h - the parts of a tokenizer, for the files of this folder.
 *
 * Encoding is a chain: added tokens cut the text into pieces; each piece is normalized, cut again
 * by the added tokens that match normalized text, then sent through the steps of the
 * pre-tokenizer, each of which passes parts on to the next; the last one hands words to the model.
 * Decoding is a chain of filters on token spellings (tok_decode.c). */
#ifndef JANG_TOKENIZER_TOK_IMPL_H
#define JANG_TOKENIZER_TOK_IMPL_H

#include "tokenizer/bpe.h"
#include "tokenizer/normalize.h"
#include "tokenizer/pretok.h"
#include "tokenizer/tok_added.h"
#include "tokenizer/tok_decode.h"
#include "tokenizer/tok_regex.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/unigram.h"
#include "tokenizer/wordpiece.h"

#include <pthread.h>

/* Working memory of one encoding; kept and reused, so that its cache stays warm. */
typedef struct tok_encoder {
    const tok *t;
    tok_ids *out;
    pre_scratch pre;
    norm_scratch norm;
    bpe_scratch bpe;
    uni_scratch uni;
    buf piece;    /* WordPiece's scratch */
    buf repaired; /* the text, where it was not valid UTF-8 */
    unsigned flags;
    struct tok_encoder *next;
} tok_encoder;

typedef enum tok_kind { TOK_BPE, TOK_UNIGRAM, TOK_WORDPIECE, TOK_WORDLEVEL } tok_kind;

/* One place in what the post-processor makes of two texts. */
typedef struct tok_pair_item {
    int32_t id;   /* or POST_TEXT, POST_SECOND_TEXT */
    int32_t type; /* "token type": 0 or 1 in BERT's models */
} tok_pair_item;

#define POST_TEXT (-1)
#define POST_SECOND_TEXT (-2)

typedef struct tok_pair {
    tok_pair_item *items; /* [n]; none: the two texts one after the other */
    size_t n;
    int32_t plain_type; /* the second text's where items do not count */
    bool always;        /* items count without TOK_ADD_SPECIAL too, but for their special tokens */
    bool mixed;         /* several processors that add tokens: not known for pairs */
} tok_pair;

struct tok {
    ctx_t *ctx;
    tok_vocab vocab; /* the model's */
    tok_kind kind;   /* which of the next three is the model */
    bpe_model bpe;
    uni_model uni;
    wp_model wp; /* WordLevel as well */
    tok_added added;
    norm_chain norm;
    pre_chain pre;
    dec_chain dec;
    int32_t *post; /* what the post-processor makes of one text: ids, and -1 for the text's */
    size_t n_post, n_post_texts;
    tok_pair pair;
    json_t *config;
    int32_t size; /* 1 + the largest id */
    pthread_mutex_t lock;
    tok_encoder *idle; /* encoders nobody uses */
};

/* tok_post.c: reads the post-processor (an object or NULL) into t->post. */
JANG_MUST_CHECK jang_status tok_read_post(tok *t, const char *what, const json_t *json);

/* tok_load.c: an empty tokenizer, and what any source must call last: finishes the model and the
 * added tokens, in which unk is the unknown token's spelling or NULL. */
JANG_MUST_CHECK jang_status tok_new(tok **out, ctx_t *ctx);
JANG_MUST_CHECK jang_status tok_finish(tok *t, const char *what, const char *unk);

/* tok_load.c: parses tokenizer_config.json and takes its added_tokens_decoder. */
JANG_MUST_CHECK jang_status tok_take_config(tok *t, const char *config, size_t n_config);

/* tok_post.c: puts ids around a text, -1 for none. */
JANG_MUST_CHECK jang_status tok_set_post(tok *t, int32_t before, int32_t after);

/* tok_model.c: reads the "model" object. */
JANG_MUST_CHECK jang_status tok_read_model(tok *t, jsonpull *p, char **unk);

/* tok_encode.c */
void tok_encoder_free(tok_encoder *e);

#endif
