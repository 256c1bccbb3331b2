/* fuzz_tokenizer.c - tokenizer.json, then what it does with a text: the input is the file, a 0
 * byte, the text. Decoding a stream must equal decoding the whole. */
#include "base/buf.h"
#include "tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(ctx_t *ctx, const tok *t, const char *text, size_t n, unsigned flags) {
    tok_ids ids = {0};
    buf whole, pieces;
    buf_init(&whole, ctx, BUF_NO_LIMIT);
    buf_init(&pieces, ctx, BUF_NO_LIMIT);
    tok_stream *stream;
    if (tok_encode(t, &ids, text, n, flags) == JANG_OK &&
        tok_decode(t, &whole, ids.ids, ids.n, flags & TOK_SKIP_SPECIAL) == JANG_OK &&
        tok_stream_new(&stream, t, flags & TOK_SKIP_SPECIAL) == JANG_OK) {
        jang_status status = JANG_OK;
        for (size_t i = 0; status == JANG_OK && i < ids.n; i++) {
            status = tok_stream_push(stream, &pieces, ids.ids[i]);
        }
        if (status == JANG_OK && tok_stream_finish(stream, &pieces) == JANG_OK &&
            (whole.size != pieces.size || memcmp(whole.data, pieces.data, whole.size) != 0)) {
            abort();
        }
        tok_stream_free(stream);
    }
    for (int32_t id = 0; id < tok_size(t) && id < 300; id++) {
        buf_clear(&whole);
        if (tok_token_bytes(t, &whole, id) != JANG_OK) {
            break;
        }
    }
    buf_free(&whole);
    buf_free(&pieces);
    tok_ids_free(ctx, &ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char fixed[] = "a b  \xf0\x9f\x98\x80 1 <s>\xff\n";
    ctx_t *ctx;
    jang_context_options options = jang_context_options_default();
    options.n_threads = 1; /* a pool for each input would cost more than the input */
    if (size > 1 << 16 || jang_context_new(&ctx, &options) != JANG_OK) {
        return 0;
    }
    const char *json = (const char *)data;
    size_t n_json = size ? strnlen(json, size) : 0;
    size_t n_text = n_json < size ? size - n_json - 1 : 0;
    tok *t;
    if (tok_open(&t, ctx, "fuzz", json, n_json, NULL, 0) == JANG_OK) {
        use(ctx, t, json + size - n_text, n_text, 0);
        use(ctx, t, fixed, sizeof fixed - 1, TOK_ADD_SPECIAL | TOK_NO_SPECIAL);
        tok_close(t);
    }
    jang_context_free(ctx);
    return 0;
}
