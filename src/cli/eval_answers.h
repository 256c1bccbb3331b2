/* eval_answers.h - what models write: answers to prompts, side by side or one by one. */
#ifndef JANG_CLI_EVAL_ANSWERS_H
#define JANG_CLI_EVAL_ANSWERS_H

#include "jang.h"
#include "options.h"
#include "server/text_buf.h"

#include <jansson.h>

/* Reads prompts: of a .jsonl file rows of {"prompt": S} or {"messages": [...]}, otherwise each line
 * that is not blank. An array of such objects; NULL after having printed why. */
json_t *prompts_read(const char *path, size_t most);

typedef struct answer_options {
    size_t n_max; /* tokens */
    jang_sampling sampling;
    bool raw; /* prompts go to the model as they are, not through its chat template */
    bool (*stop)(void *user, const tbuf *text); /* NULL; true: enough was written */
    void *user;
} answer_options;

/* Generates the answer to one prompt object into out. Prints why it failed. */
bool answer_prompt(tbuf *out, jang_context *ctx, jang_session *session, jang_model *model,
                   const json_t *prompt, const answer_options *options);

/* Answers of several models to all prompts: an array of {"prompt", "answers": {MODEL: S}}. NULL
 * after having printed why. */
json_t *answers_of(jang_context *ctx, const text_list *models, const json_t *prompts, bool exact,
                   const answer_options *options);

#endif
