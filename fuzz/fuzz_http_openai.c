/* fuzz_http_openai.c - bodies of OpenAI's chats and completions. */
#include "body_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const paths[] = {"/chat/completions", "/completions"};
    return fuzz_body(paths, sizeof paths / sizeof paths[0], data, size);
}
