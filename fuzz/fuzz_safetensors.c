/* fuzz_safetensors.c - any bytes as a safetensors file: its tensors must lie within it. */
#include "format/safetensors.h"
#include "input_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    ctx_t *ctx = fuzz_context();
    st_file f;
    if (st_open(&f, ctx, fuzz_file("x.safetensors", data, size)) != JANG_OK) {
        return 0;
    }
    volatile uint8_t last = 0; /* reads every byte */
    for (size_t i = 0; i < f.n_tensors; i++) {
        const tensor_view *t = &f.tensors[i];
        for (size_t j = 0; j < t->n_bytes; j++) {
            last = t->data[j];
        }
    }
    st_close(&f);
    (void)last;
    return 0;
}
