/* fuzz_template.c - templates and contexts: no input may crash, hang or leak.
 *
 * The input is a template, a 0 byte and a JSON context; without the 0 byte the context is a
 * conversation. */
#include "template/template.h"

#include <string.h>

static const char conversation[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\","
    "\"content\": [{\"type\": \"text\", \"text\": \"x\"}], \"tool_calls\": [{\"function\":"
    "{\"name\": \"f\", \"arguments\": {\"a\": 1.5, \"b\": [1, null, true]}}}]}],"
    "\"s\": \"a <b> \\u00e9\", \"n\": 3, \"l\": [3, 1, 2], \"d\": {\"k\": \"v\"}}";

static void render(ctx_t *ctx, const char *text, size_t n, const json_t *context) {
    tmpl *t = NULL;
    if (tmpl_compile(&t, ctx, "fuzz", text, n) == JANG_OK) {
        buf out;
        buf_init(&out, ctx, BUF_NO_LIMIT);
        if (tmpl_render(t, &out, context) == JANG_OK && out.status != JANG_OK) {
            __builtin_trap();
        }
        buf_free(&out);
        tmpl_free(t);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    jang_context *ctx = NULL;
    jang_context_options options = jang_context_options_default();
    options.n_threads = 1;
    if (jang_context_new(&ctx, &options) != JANG_OK) {
        return 0;
    }
    const uint8_t *zero = size ? memchr(data, 0, size) : NULL;
    size_t n_text = zero ? (size_t)(zero - data) : size;
    const char *json = zero ? (const char *)zero + 1 : conversation;
    size_t n_json = zero ? size - n_text - 1 : sizeof conversation - 1;
    json_t *context = NULL;
    if (json_parse(&context, ctx, "context", json, n_json) == JANG_OK) {
        if (json_is_object(context)) {
            render(ctx, (const char *)data, n_text, context);
        }
        json_decref(context);
    }
    jang_context_free(ctx);
    return 0;
}
