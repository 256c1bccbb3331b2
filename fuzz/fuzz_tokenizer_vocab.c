/* fuzz_tokenizer_vocab.c - SentencePiece models (first byte even) and tiktoken vocabularies (odd).
 */
#include "base/buf.h"
#include "tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char text[] = "Hello  world 1\xc2\xa0\xef\xac\x81 \xf0\x9f\x98\x80 <s>\n";
    ctx_t *ctx;
    jang_context_options options = jang_context_options_default();
    options.n_threads = 1;
    if (size < 1 || size > 1 << 16 || jang_context_new(&ctx, &options) != JANG_OK) {
        return 0;
    }
    const char *file = (const char *)data + 1;
    tok *t = NULL;
    jang_status status = data[0] % 2
                             ? tok_open_tiktoken(&t, ctx, "fuzz", file, size - 1, NULL, NULL, 0)
                             : tok_open_sentencepiece(&t, ctx, "fuzz", file, size - 1, NULL, 0);
    tok_ids ids = {0};
    buf out;
    buf_init(&out, ctx, BUF_NO_LIMIT);
    if (status == JANG_OK &&
        tok_encode(t, &ids, text, sizeof text - 1, TOK_ADD_SPECIAL) == JANG_OK) {
        status = tok_decode(t, &out, ids.ids, ids.n, 0);
    }
    buf_free(&out);
    tok_ids_free(ctx, &ids);
    tok_close(t);
    jang_context_free(ctx);
    return 0;
}
