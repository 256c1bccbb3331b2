/* tok_tiktoken.c - tiktoken vocabularies: one token a line, in base64, and its rank.
 *
 * The rank is the id and the order of merging: two neighbours merge if their bytes together are a
 * token, the lowest rank first, so each way to put a token together is a merge with its rank. A
 * word that is a token is taken whole. Tokens are kept spelled in byte-level characters. */
#include "tokenizer/tok_impl.h"

#include "tokenizer/base64.h"
#include "tokenizer/byte_chars.h"

#include <string.h>

#define TOKEN_MAX 1024 /* bytes */

#define GPT4_PATTERN                                                                               \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"                      \
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

typedef struct tiktoken_reader {
    tok *t;
    const char *what;
    size_t line;
    buf bytes, spelled;
} tiktoken_reader;

static jang_status bad_line(const tiktoken_reader *r, const char *message) {
    return ctx_fail(r->t->ctx, JANG_ERR_FORMAT, "%s: line %zu: %s", r->what, r->line, message);
}

/* "base64 rank" */
static jang_status read_line(tiktoken_reader *r, const char *line, size_t n) {
    const char *space = memchr(line, ' ', n);
    size_t n_token = space ? (size_t)(space - line) : 0;
    int64_t rank = 0;
    buf_clear(&r->bytes);
    buf_clear(&r->spelled);
    if (n_token == 0 || !base64_decode(&r->bytes, line, n_token)) {
        return bad_line(r, "expected a token in base64, a space and its rank");
    }
    for (size_t i = n_token + 1; i < n && rank < TOK_MAX_IDS; i++) {
        rank = line[i] >= '0' && line[i] <= '9' ? rank * 10 + (line[i] - '0') : TOK_MAX_IDS;
    }
    if (n == n_token + 1 || rank >= TOK_MAX_IDS) {
        return bad_line(r, "the rank is no number or out of range");
    }
    if (r->bytes.size == 0 || r->bytes.size > TOKEN_MAX) {
        return bad_line(r, "the token is empty or too long");
    }
    byte_chars_put(&r->spelled, r->bytes.data, r->bytes.size);
    jang_status status = buf_status(&r->spelled);
    return status == JANG_OK
               ? vocab_add(&r->t->vocab, r->spelled.data, r->spelled.size, (int32_t)rank)
               : status;
}

static jang_status read_lines(tiktoken_reader *r, const char *data, size_t n) {
    jang_status status = vocab_reserve(&r->t->vocab, n / 16, n / 2);
    for (size_t at = 0; status == JANG_OK && at < n;) {
        const char *end = memchr(data + at, '\n', n - at);
        size_t length = end ? (size_t)(end - data) - at : n - at, next = at + length + 1;
        r->line++;
        while (length > 0 && (data[at + length - 1] == '\r' || data[at + length - 1] == ' ')) {
            length--;
        }
        if (length > 0) {
            status = read_line(r, data + at, length);
        }
        at = next;
    }
    if (status == JANG_OK && r->t->vocab.n_entries == 0) {
        status = ctx_fail(r->t->ctx, JANG_ERR_FORMAT, "%s: the vocabulary is empty", r->what);
    }
    return status;
}

static jang_status add_merges(tok *t, const char *what) {
    bpe_batch *batch = NULL;
    jang_status status = bpe_batch_new(&batch, &t->bpe, what, (size_t)t->vocab.n_entries * 2);
    for (uint32_t i = 0; status == JANG_OK && i < t->vocab.n_entries; i++) {
        const vocab_entry *e = &t->vocab.entries[i];
        status = bpe_add_splits(batch, (uint32_t)e->id, t->vocab.arena.data + e->at, e->n_bytes);
    }
    if (status == JANG_OK) {
        status = bpe_batch_finish(batch);
    }
    bpe_batch_free(batch);
    return status;
}

static jang_status build(tok *t, const char *what, const char *pattern, const char *config,
                         size_t n_config) {
    json_t *decoder = json_pack("{ss}", "type", "ByteLevel");
    jang_status status = decoder ? dec_read(&t->dec, t->ctx, what, decoder)
                                 : ctx_fail_memory(t->ctx, sizeof *decoder);
    json_decref(decoder);
    t->kind = TOK_BPE;
    t->bpe.ignore_merges = true;
    if (status == JANG_OK) {
        status = add_merges(t, what);
    }
    if (status == JANG_OK) {
        status = pre_add_pattern(&t->pre, t->ctx, what, pattern ? pattern : GPT4_PATTERN);
    }
    if (status == JANG_OK) {
        status = pre_add_byte_chars(&t->pre, t->ctx);
    }
    if (status == JANG_OK) {
        status = tok_take_config(t, config, n_config);
    }
    if (status == JANG_OK) {
        status = tok_set_post(t, -1, -1);
    }
    return status == JANG_OK ? tok_finish(t, what, NULL) : status;
}

jang_status tok_open_tiktoken(tok **out, ctx_t *ctx, const char *what, const char *data,
                              size_t n_data, const char *pattern, const char *config,
                              size_t n_config) {
    tok *t = NULL;
    jang_status status = tok_new(&t, ctx);
    if (status != JANG_OK) {
        return status;
    }
    tiktoken_reader r = {.t = t, .what = what};
    buf_init(&r.bytes, ctx, BUF_NO_LIMIT);
    buf_init(&r.spelled, ctx, BUF_NO_LIMIT);
    status = read_lines(&r, data, n_data);
    buf_free(&r.bytes);
    buf_free(&r.spelled);
    if (status == JANG_OK) {
        status = build(t, what, pattern, config, n_config);
    }
    if (status != JANG_OK) {
        tok_close(t);
        return status;
    }
    *out = t;
    return JANG_OK;
}
