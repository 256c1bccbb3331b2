/* fuzz_config.c - any text as one of a model directory's small JSON files. The first byte chooses
 * which. */
#include "format/checkpoint.h"
#include "input_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const names[] = {"config.json", "tokenizer_config.json",
                                        "model.safetensors.index.json", "chat_template.json"};
    static const char *const modules[] = {"model.layers.0.self_attn.q_proj", "lm_head", ""};
    ctx_t *ctx = fuzz_context();
    if (!size) {
        return 0;
    }
    for (int i = 0; i < 4; i++) {
        bool chosen = data[0] % 4 == i;
        fuzz_file(names[i], chosen ? data + 1 : (const uint8_t *)"{}", chosen ? size - 1 : 2);
    }
    checkpoint *c;
    if (checkpoint_open(&c, ctx, fuzz_directory(), 0) == JANG_OK) {
        checkpoint_close(c);
    }
    if (checkpoint_open(&c, ctx, fuzz_directory(), CHECKPOINT_TEXT_ONLY) != JANG_OK) {
        return 0;
    }
    const char *text;
    size_t n;
    int bits, group;
    jang_status status = checkpoint_chat_template(&text, &n, c);
    for (int i = 0; i < 3; i++) {
        status = checkpoint_quantization(&bits, &group, c, modules[i]);
    }
    (void)status;
    checkpoint_close(c);
    return 0;
}
