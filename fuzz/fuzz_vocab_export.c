/* fuzz_vocab_export.c - any text as the tokenizer.json of a model that is exported as GGUF: its
 * vocabulary is written, and what was written must be a file that can be read. */
#include "export/gguf_vocab.h"
#include "format/gguf.h"
#include "input_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char config[] = "{}", special[] = "{\"bos_token\":\"a\",\"eos_token\":\"b\"}";
    static const char output[] = "x.gguf";
    ctx_t *ctx = fuzz_context();
    fuzz_file("config.json", (const uint8_t *)config, sizeof config - 1);
    fuzz_file("tokenizer_config.json", (const uint8_t *)special, sizeof special - 1);
    fuzz_file("tokenizer.json", data, size);
    checkpoint *c;
    if (checkpoint_open(&c, ctx, fuzz_directory(), CHECKPOINT_TEXT_ONLY) != JANG_OK) {
        return 0;
    }
    char *path = path_join(ctx, fuzz_directory(), output);
    gguf_writer *w;
    if (!path || gguf_writer_new(&w, ctx, path) != JANG_OK) {
        abort();
    }
    if (gguf_vocab_put(w, ctx, c, 300) != JANG_OK || gguf_writer_begin(w) != JANG_OK) {
        gguf_writer_discard(w);
    } else if (gguf_writer_finish(w) == JANG_OK) {
        gguf_file *g;
        if (gguf_open(&g, ctx, path) != JANG_OK) {
            abort();
        }
        gguf_close(g);
    }
    ctx_free(ctx, path);
    checkpoint_close(c);
    return 0;
}
