/* fuzz_http_anthropic.c - bodies of Anthropic's messages. */
#include "body_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const paths[] = {"/messages", "/messages/count_tokens"};
    return fuzz_body(paths, sizeof paths / sizeof paths[0], data, size);
}
