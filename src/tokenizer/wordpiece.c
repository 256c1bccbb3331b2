/* wordpiece.c - WordPiece (Schuster and Nakajima 2012, as BERT uses it) and WordLevel. */
#include "tokenizer/wordpiece.h"

#include "base/utf8.h"
#include "tokenizer/tok_ids.h"

#include <string.h>

static jang_status put_unknown(const wp_model *m, tok_ids *out) {
    if (m->unk < 0) {
        return ctx_fail(m->ctx, JANG_ERR_ARGUMENT,
                        "the text has a word that the vocabulary lacks, and the tokenizer has no "
                        "unknown token");
    }
    return tok_ids_put(m->ctx, out, m->unk);
}

static bool too_long(const wp_model *m, const char *word, size_t n) {
    int64_t n_chars = 0;
    for (size_t i = 0; i < n; i++) {
        n_chars += ((unsigned char)word[i] & 0xc0) != 0x80;
    }
    return n_chars > m->max_chars;
}

/* The longest piece at start; its id or -1. *end is where it ends. */
static int32_t longest_piece(const wp_model *m, buf *scratch, const char *word, size_t n,
                             size_t start, size_t *end) {
    size_t n_prefix = start > 0 && m->prefix ? strlen(m->prefix) : 0;
    size_t last = n - start > m->vocab->longest ? start + m->vocab->longest : n;
    while (last < n && last > start && ((unsigned char)word[last] & 0xc0) == 0x80) {
        last--;
    }
    buf_clear(scratch);
    buf_put(scratch, m->prefix, n_prefix);
    buf_put(scratch, word + start, last - start);
    if (scratch->status != JANG_OK) {
        return -1;
    }
    while (last > start) {
        int32_t id = vocab_get(m->vocab, scratch->data, n_prefix + last - start);
        if (id >= 0) {
            *end = last;
            return id;
        }
        last -= utf8_back(word, last);
    }
    return -1;
}

jang_status wp_encode(const wp_model *m, buf *scratch, tok_ids *out, const char *word, size_t n) {
    if (too_long(m, word, n)) {
        return put_unknown(m, out);
    }
    size_t before = out->n, end = 0;
    for (size_t start = 0; start < n; start = end) {
        int32_t id = longest_piece(m, scratch, word, n, start, &end);
        jang_status status = buf_status(scratch);
        if (status == JANG_OK && id < 0) {
            out->n = before;
            return put_unknown(m, out);
        }
        if (status == JANG_OK) {
            status = tok_ids_put(m->ctx, out, id);
        }
        if (status != JANG_OK) {
            return status;
        }
    }
    return JANG_OK;
}

jang_status wp_encode_word(const wp_model *m, tok_ids *out, const char *word, size_t n) {
    int32_t id = vocab_get(m->vocab, word, n);
    return id >= 0 ? tok_ids_put(m->ctx, out, id) : put_unknown(m, out);
}
