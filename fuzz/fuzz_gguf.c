/* fuzz_gguf.c - any bytes as a GGUF file: metadata, the files made of it, and every weight. */
#include "format/checkpoint.h"
#include "format/gguf.h"
#include "input_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_texts(ctx_t *ctx, const char *path) {
    gguf_file *g;
    const json_t *json;
    const char *text;
    size_t n;
    if (gguf_open(&g, ctx, path) != JANG_OK) {
        return;
    }
    if (gguf_tokenizer_json(&text, &n, g) == JANG_OK && text) {
        json_t *parsed;
        if (json_parse(&parsed, ctx, "tokenizer.json", text, n) == JANG_OK) {
            json_decref(parsed);
        } else {
            abort(); /* what we write must be JSON, whatever the vocabulary */
        }
    }
    if (gguf_tokenizer_config(&json, g) != JANG_OK || gguf_generation_config(&json, g) != JANG_OK) {
        json = NULL;
    }
    gguf_close(g);
}

static void read_weights(ctx_t *ctx, const char *path) {
    checkpoint *c;
    if (checkpoint_open(&c, ctx, path, 0) != JANG_OK) {
        return;
    }
    size_t n;
    const tensor_view *list = checkpoint_tensors(c, &n);
    for (size_t i = 0; i < n; i++) {
        int64_t count = tensor_count(&list[i]);
        float *out = count < 1 << 20 ? malloc((size_t)count * 4 + 1) : NULL;
        if (out && checkpoint_rows_f32(out, c, &list[i], 0, tensor_rows(&list[i])) != JANG_OK) {
            count = 0;
        }
        free(out);
    }
    checkpoint_close(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *path = fuzz_file("x.gguf", data, size);
    read_texts(fuzz_context(), path);
    read_weights(fuzz_context(), path);
    return 0;
}
