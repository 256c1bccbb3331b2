/* fuzz_http_ollama.c - bodies of Ollama's chats and texts. */
#include "body_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const paths[] = {"/api/chat", "/api/generate"};
    return fuzz_body(paths, sizeof paths / sizeof paths[0], data, size);
}
