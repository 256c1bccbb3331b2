/* checkpoint_gguf.c - a GGUF file as a checkpoint: Hugging Face's names, files made of metadata. */
#include "format/checkpoint_impl.h"

#include <string.h>

jang_status checkpoint_open_gguf(checkpoint *c) {
    c->kind = CHECKPOINT_GGUF;
    jang_status status = gguf_open(&c->gguf, c->ctx, c->path);
    if (status != JANG_OK) {
        return status;
    }
    const json_t *config;
    return gguf_config(&config, c->gguf);
}

/* Names go into one block, as offsets first, since it moves while it grows. */
jang_status checkpoint_take_gguf(checkpoint *c) {
    size_t n;
    const tensor_view *list = gguf_tensors(c->gguf, &n);
    buf names;
    buf_init(&names, c->ctx, BUF_NO_LIMIT);
    jang_status status = JANG_OK;
    size_t *starts = ctx_array(c->ctx, n, sizeof *starts);
    c->tensors = ctx_array(c->ctx, n, sizeof *c->tensors);
    if (!c->tensors || !starts) {
        status = ctx_fail_memory(c->ctx, n * (sizeof *c->tensors + sizeof *starts));
        goto done;
    }
    for (size_t i = 0; status == JANG_OK && i < n; i++) {
        tensor_view t = list[i];
        size_t start = names.size;
        status = gguf_hf_name(&names, &t.row_heads, c->gguf, t.name);
        if (status == JANG_OK && names.size > start) {
            buf_putc(&names, 0);
            starts[c->n_tensors] = start;
            c->tensors[c->n_tensors++] = t;
        }
    }
    if (status == JANG_OK) {
        status = buf_take(&names, &c->names, NULL);
    }
    for (size_t i = 0; status == JANG_OK && i < c->n_tensors; i++) {
        c->tensors[i].name = c->names + starts[i];
    }
done:
    ctx_free(c->ctx, starts);
    buf_free(&names);
    return status;
}

static jang_status write_json(char **text, size_t *n, ctx_t *ctx, const json_t *json) {
    buf b;
    buf_init(&b, ctx, BUF_NO_LIMIT);
    json_write(&b, json, 2);
    buf_putc(&b, '\n');
    jang_status status = buf_take(&b, text, n);
    buf_free(&b);
    return status;
}

static jang_status copy_tokenizer(char **text, size_t *n, checkpoint *c) {
    const char *made;
    size_t n_made;
    jang_status status = gguf_tokenizer_json(&made, &n_made, c->gguf);
    if (status != JANG_OK || !made) {
        return status;
    }
    char *copy = ctx_strndup(c->ctx, made, n_made);
    if (!copy) {
        return ctx_fail_memory(c->ctx, n_made);
    }
    *text = copy;
    *n = n_made;
    return JANG_OK;
}

jang_status checkpoint_make_gguf_text(char **text, size_t *n, checkpoint *c, const char *name) {
    static const struct {
        const char *name;
        jang_status (*make)(const json_t **out, gguf_file *g);
    } makers[] = {
        {"config.json", gguf_config},
        {"generation_config.json", gguf_generation_config},
        {"tokenizer_config.json", gguf_tokenizer_config},
    };
    if (strcmp(name, "tokenizer.json") == 0) {
        return copy_tokenizer(text, n, c);
    }
    for (size_t i = 0; i < sizeof makers / sizeof makers[0]; i++) {
        if (strcmp(makers[i].name, name) == 0) {
            const json_t *json;
            jang_status status = makers[i].make(&json, c->gguf);
            return status == JANG_OK ? write_json(text, n, c->ctx, json) : status;
        }
    }
    return JANG_OK;
}
