/* eval_text.h - the texts that models are measured on, as windows of token ids.
 *
 * A plain text file is tokenized whole, special tokens' texts read as plain text, and cut into
 * windows of `context` ids. Of a .jsonl file each line is one window: an object with "messages",
 * which goes through the model's chat template, or with "text", taken as it is with its special
 * tokens. A window begins with what the tokenizer puts before every text (begin of text). */
#ifndef JANG_CLI_EVAL_TEXT_H
#define JANG_CLI_EVAL_TEXT_H

#include "jang.h"
#include "options.h"

typedef struct eval_window {
    int32_t *ids; /* [n], n >= 2 */
    size_t n;
} eval_window;

typedef struct eval_set {
    const char *path;
    eval_window *windows; /* [n_windows] */
    size_t n_windows, capacity;
    size_t n_tokens;
} eval_set;

typedef struct eval_texts {
    eval_set *sets; /* [n_sets], one for each file */
    size_t n_sets;
} eval_texts;

typedef struct eval_text_options {
    size_t context;    /* ids in a window at most, 2 or more */
    size_t max_tokens; /* of a file; 0: all */
} eval_text_options;

/* Prints why it failed. */
bool eval_texts_read(eval_texts *out, jang_context *ctx, jang_tokenizer *tok,
                     const text_list *paths, const eval_text_options *options);
void eval_texts_free(eval_texts *texts);

/* Adds a window; takes a copy of the ids. False when out of memory, which is printed. */
bool eval_set_add(eval_set *set, const int32_t *ids, size_t n);

#endif
