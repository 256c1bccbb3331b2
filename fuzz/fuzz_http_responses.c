/* fuzz_http_responses.c - bodies of OpenAI's responses. */
#include "body_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const paths[] = {"/responses"};
    return fuzz_body(paths, sizeof paths / sizeof paths[0], data, size);
}
