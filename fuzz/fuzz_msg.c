/* fuzz_msg.c - model output through every parser: no text may crash, hang or leak, and the size of
 * the pieces may not matter.
 *
 * The first byte chooses the tool format, the second the reasoning format and the flags, the third
 * the size of the pieces; the rest is the text. */
#include "server/message.h"
#include "server/parse_text.h"

#include <stdlib.h>
#include <string.h>

static const char tools[] =
    "[{\"name\": \"f\", \"parameters\": {\"properties\": {\"x\": {\"type\": "
    "\"integer\"}, \"s\": {\"type\": \"string\"}}}}, {\"name\": \"g\"}]";

static size_t count_formats(void) {
    size_t n = 0;
    while (tool_format_at(n)) {
        n++;
    }
    return n;
}

static size_t count_reasoning(void) {
    size_t n = 0;
    while (reasoning_at(n)) {
        n++;
    }
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 3 || size > 1 << 16) {
        return 0;
    }
    const tool_format *f = tool_format_at(data[0] % (count_formats() + 1));
    const reasoning_format *r = reasoning_at((data[1] >> 2) % (count_reasoning() + 1));
    char error[256];
    parse_job job = {.format = f ? f->name : NULL,
                     .reasoning = r ? r->name : NULL,
                     .tools_json = tools,
                     .n_tools_json = sizeof tools - 1,
                     .text = (const char *)data + 3,
                     .n_text = size - 3,
                     .open = data[1] & 1,
                     .forced = data[1] & 2};
    char *whole = parse_text(&job, error, sizeof error);
    job.chunk = 1 + data[2] % 64;
    char *pieces = parse_text(&job, error, sizeof error);
    if (!whole || !pieces || (!job.forced && strcmp(whole, pieces))) {
        __builtin_trap();
    }
    free(whole);
    free(pieces);
    return 0;
}
