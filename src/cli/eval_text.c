/* eval_text.c - reads texts to measure models on. */
#include "eval_text.h"

#include "open_model.h"
#include "read_input.h"
#include "terminal.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

typedef struct text_reader {
    jang_context *ctx;
    jang_tokenizer *tok;
    const eval_text_options *options;
    eval_set *set;
    int32_t *begin; /* [n_begin] ids before every text */
    size_t n_begin;
} text_reader;

/* ---- Windows ---- */

bool eval_set_add(eval_set *set, const int32_t *ids, size_t n) {
    if (set->n_windows == set->capacity) {
        size_t capacity = set->capacity ? set->capacity * 2 : 16;
        eval_window *windows = realloc(set->windows, capacity * sizeof *windows);
        if (!windows) {
            cli_failed("out of memory");
            return false;
        }
        set->windows = windows;
        set->capacity = capacity;
    }
    int32_t *copy = malloc(n * sizeof *copy);
    if (!copy) {
        cli_failed("out of memory");
        return false;
    }
    memcpy(copy, ids, n * sizeof *copy);
    set->windows[set->n_windows++] = (eval_window){copy, n};
    set->n_tokens += n;
    return true;
}

void eval_texts_free(eval_texts *texts) {
    for (size_t s = 0; s < texts->n_sets; s++) {
        for (size_t i = 0; i < texts->sets[s].n_windows; i++) {
            free(texts->sets[s].windows[i].ids);
        }
        free(texts->sets[s].windows);
    }
    free(texts->sets);
    *texts = (eval_texts){0};
}

/* How many of n ids the file may still bring. */
static size_t allowed(const text_reader *r, size_t n) {
    size_t max = r->options->max_tokens;
    if (max == 0) {
        return n;
    }
    size_t left = max > r->set->n_tokens ? max - r->set->n_tokens : 0;
    return n < left ? n : left;
}

/* One window of ids as they are, cut to the context. One id alone predicts nothing. */
static bool add_window(text_reader *r, const int32_t *ids, size_t n) {
    n = n < r->options->context ? n : r->options->context;
    n = allowed(r, n);
    return n < 2 || eval_set_add(r->set, ids, n);
}

/* ---- Plain text ---- */

static bool cut_text(text_reader *r, const int32_t *ids, size_t n) {
    size_t part = r->options->context - r->n_begin;
    int32_t *window = malloc(r->options->context * sizeof *window);
    bool ok = window != NULL;
    if (!ok) {
        cli_failed("out of memory");
    }
    if (ok && r->n_begin) {
        memcpy(window, r->begin, r->n_begin * sizeof *window);
    }
    for (size_t at = 0; ok && at < n && allowed(r, 2) == 2; at += part) {
        size_t k = n - at < part ? n - at : part;
        memcpy(window + r->n_begin, ids + at, k * sizeof *window);
        ok = add_window(r, window, r->n_begin + k);
    }
    free(window);
    return ok;
}

static bool read_plain(text_reader *r, const char *text, size_t n_bytes) {
    int32_t *ids = NULL;
    size_t n = 0;
    jang_status status = jang_tokenize(&ids, &n, r->tok, text, n_bytes, JANG_TOKENIZE_NO_SPECIAL);
    if (status != JANG_OK) {
        library_failed(r->ctx, status);
        return false;
    }
    bool ok = cut_text(r, ids, n);
    jang_free(r->ctx, ids);
    return ok;
}

/* ---- JSON lines ---- */

static bool add_text(text_reader *r, const char *text, size_t n_bytes) {
    int32_t *ids = NULL;
    size_t n = 0;
    jang_status status = jang_tokenize(&ids, &n, r->tok, text, n_bytes, 0);
    if (status != JANG_OK) {
        library_failed(r->ctx, status);
        return false;
    }
    bool ok = add_window(r, ids, n);
    jang_free(r->ctx, ids);
    return ok;
}

static bool add_messages(text_reader *r, const json_t *row) {
    char *context = json_dumps(row, JSON_COMPACT), *prompt = NULL;
    size_t n_bytes = 0;
    if (!context) {
        cli_failed("out of memory");
        return false;
    }
    jang_status status = jang_chat_prompt(&prompt, &n_bytes, r->tok, context);
    free(context);
    if (status != JANG_OK) {
        library_failed(r->ctx, status);
        return false;
    }
    bool ok = add_text(r, prompt, n_bytes);
    jang_free(r->ctx, prompt);
    return ok;
}

static bool read_row(text_reader *r, const char *line, size_t n_bytes, size_t number) {
    json_error_t error;
    json_t *row = json_loadb(line, n_bytes, JSON_ALLOW_NUL, &error);
    const json_t *text = json_object_get(row, "text");
    bool ok = false;
    if (!row) {
        cli_failed("%s, line %zu: not JSON: %s", r->set->path, number, error.text);
    } else if (json_is_array(json_object_get(row, "messages"))) {
        ok = add_messages(r, row);
    } else if (json_is_string(text)) {
        ok = add_text(r, json_string_value(text), json_string_length(text));
    } else {
        cli_failed("%s, line %zu: not an object with \"messages\" (an array) or \"text\" (a "
                   "string)",
                   r->set->path, number);
    }
    json_decref(row);
    return ok;
}

static bool read_rows(text_reader *r, const char *text, size_t n_bytes) {
    size_t number = 1;
    for (size_t at = 0; at < n_bytes && allowed(r, 2) == 2; number++) {
        const char *end = memchr(text + at, '\n', n_bytes - at);
        size_t n = end ? (size_t)(end - text) - at : n_bytes - at;
        if (strspn(text + at, " \t\r") < n && !read_row(r, text + at, n, number)) {
            return false;
        }
        at += n + 1;
    }
    return true;
}

/* ---- Files ---- */

static bool is_jsonl(const char *path) {
    size_t n = strlen(path);
    return n > 6 && !strcmp(path + n - 6, ".jsonl");
}

static bool read_file(text_reader *r) {
    char *text = NULL;
    size_t n_bytes = 0;
    if (!read_whole(&text, &n_bytes, r->set->path)) {
        return false;
    }
    bool ok = is_jsonl(r->set->path) ? read_rows(r, text, n_bytes) : read_plain(r, text, n_bytes);
    free(text);
    if (ok && r->set->n_windows == 0) {
        cli_failed("%s: too short to measure anything: fewer than two tokens", r->set->path);
        return false;
    }
    return ok;
}

static bool find_begin(text_reader *r) {
    jang_status status =
        jang_tokenize(&r->begin, &r->n_begin, r->tok, "", 0, JANG_TOKENIZE_ADD_SPECIAL);
    if (status != JANG_OK) {
        library_failed(r->ctx, status);
        return false;
    }
    /* What is added to an empty text may have an end as well, which comes last. */
    r->n_begin = r->n_begin > 1 ? 1 : r->n_begin;
    if (r->options->context < r->n_begin + 2) {
        cli_failed("a context of %zu tokens is too short", r->options->context);
        return false;
    }
    return true;
}

bool eval_texts_read(eval_texts *out, jang_context *ctx, jang_tokenizer *tok,
                     const text_list *paths, const eval_text_options *options) {
    text_reader r = {.ctx = ctx, .tok = tok, .options = options};
    eval_texts texts = {.sets = calloc(paths->n + 1, sizeof *texts.sets)};
    if (!texts.sets) {
        cli_failed("out of memory");
        return false;
    }
    bool ok = find_begin(&r);
    for (size_t i = 0; ok && i < paths->n; i++) {
        r.set = &texts.sets[texts.n_sets++];
        r.set->path = paths->items[i];
        ok = read_file(&r);
    }
    jang_free(ctx, r.begin);
    if (!ok) {
        eval_texts_free(&texts);
        return false;
    }
    *out = texts;
    return true;
}
