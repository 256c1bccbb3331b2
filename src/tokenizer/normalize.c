/* normalize.c - running the chain of normalizers. */
#include "tokenizer/normalize.h"

void norm_scratch_init(norm_scratch *s, ctx_t *ctx) {
    *s = (norm_scratch){0};
    buf_init(&s->text[0], ctx, BUF_NO_LIMIT);
    buf_init(&s->text[1], ctx, BUF_NO_LIMIT);
    buf_init(&s->points, ctx, BUF_NO_LIMIT);
}

void norm_scratch_free(norm_scratch *s) {
    buf_free(&s->text[0]);
    buf_free(&s->text[1]);
    buf_free(&s->points);
    tok_regex_scratch_free(&s->regex);
}

jang_status norm_run(const norm_chain *chain, norm_scratch *s, const char *text, size_t n,
                     const char **out, size_t *n_out) {
    for (int i = 0; i < chain->n_steps && n > 0; i++) {
        buf *to = &s->text[i % 2];
        buf_clear(to);
        jang_status status = chain->steps[i].run(&chain->steps[i], s, to, text, n);
        if (status == JANG_OK) {
            status = buf_status(to);
        }
        if (status != JANG_OK) {
            return status;
        }
        text = to->data;
        n = to->size;
    }
    *out = text;
    *n_out = n;
    return JANG_OK;
}
