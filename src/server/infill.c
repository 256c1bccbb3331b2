/* infill.c - filling a gap between two texts: how models mark them, by their special tokens.
 *
 * Each family was trained on files cut in three, in an order and with marks of its own: Bavarian
 * and others, "Efficient Training of Language Models to Fill in the Middle", arXiv:2207.14255. */
#include "api.h"

#include <string.h>

struct infill_marks {
    const char *families;
    const char *before, *behind, *middle; /* in front of prefix, suffix and what is to be written;
                                           * middle "": it follows without a mark */
    bool behind_first;                    /* the suffix comes first */
};

/* The first row whose marks are all special tokens is the model's. */
static const infill_marks rows[] = {
    {"Qwen coder, CodeGemma, Granite 4", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>",
     false},
    {"StarCoder, StarCoder2, Granite code, Refact", "<fim_prefix>", "<fim_suffix>", "<fim_middle>",
     false},
    {"SantaCoder, Stable Code", "<fim-prefix>", "<fim-suffix>", "<fim-middle>", false},
    {"DeepSeek coder", "<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>", false},
    {"Code Llama", "▁<PRE>", "▁<SUF>", "▁<MID>", false},
    {"Seed coder", "<[fim-prefix]>", "<[fim-suffix]>", "<[fim-middle]>", true},
    {"Codestral", "[PREFIX]", "[SUFFIX]", "", true},
};
#define N_ROWS (sizeof rows / sizeof rows[0])

/* What models write behind the filled gap. */
static const char *const ends[] = {"<|endoftext|>", "<|fim_pad|>",    "<|repo_name|>",
                                   "<|file_sep|>",  "<file_sep>",     "<|file_separator|>",
                                   "▁<EOT>",        "<|end_of_text|>"};
_Static_assert(sizeof ends / sizeof ends[0] <= sizeof((gen_request *)0)->ends / sizeof(int32_t),
               "a request has room for all ends");

/* The id of a special token; -1: the text is none. */
static int32_t special_id(jang_context *ctx, jang_tokenizer *tok, const char *text) {
    int32_t *ids = NULL, *plain = NULL, id = -1;
    size_t n = 0, n_plain = 0;
    if (jang_tokenize(&ids, &n, tok, text, strlen(text), 0) == JANG_OK &&
        jang_tokenize(&plain, &n_plain, tok, text, strlen(text), JANG_TOKENIZE_NO_SPECIAL) ==
            JANG_OK) {
        /* read as plain text it is another token, or several */
        id = n == 1 && !(n_plain == 1 && plain[0] == ids[0]) ? ids[0] : -1;
    }
    jang_free(ctx, ids);
    jang_free(ctx, plain);
    return id;
}

const infill_marks *infill_detect(jang_context *ctx, jang_tokenizer *tok) {
    for (size_t i = 0; i < N_ROWS; i++) {
        const infill_marks *m = &rows[i];
        if (special_id(ctx, tok, m->before) >= 0 && special_id(ctx, tok, m->behind) >= 0 &&
            (!*m->middle || special_id(ctx, tok, m->middle) >= 0)) {
            return m;
        }
    }
    return NULL;
}

void infill_prompt(tbuf *out, const infill_marks *marks, const char *before, const char *behind) {
    if (marks->behind_first) {
        tbuf_printf(out, "%s%s%s%s", marks->behind, behind, marks->before, before);
    } else {
        tbuf_printf(out, "%s%s%s%s", marks->before, before, marks->behind, behind);
    }
    tbuf_puts(out, marks->middle);
}

bool infill_check(const gen_request *g, api_error *e, const char *suffix) {
    if (!suffix || !*suffix || g->model->infill) {
        return true;
    }
    return api_fail(e, 422, "unsupported", "suffix",
                    "suffix: %.80s does not fill in the middle: its tokenizer has no marks for it",
                    g->model->id);
}

void infill_ends(server *s, gen_request *g) {
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        int32_t id = special_id(s->ctx, g->model->tok, ends[i]);
        if (id >= 0) {
            g->ends[g->n_ends++] = id;
        }
    }
}
