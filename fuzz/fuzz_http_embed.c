/* fuzz_http_embed.c - bodies that ask for vectors, ranks or tokens. */
#include "body_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const paths[] = {"/embeddings",     "/rerank",   "/api/embed",
                                        "/api/embeddings", "/tokenize", "/detokenize"};
    return fuzz_body(paths, sizeof paths / sizeof paths[0], data, size);
}
