/* bpe_load.c - a BPE model's merge table and what encoding looks up in it.
 *
 * The list of merges is long (half a million lines), so each is read straight from the text: two
 * look-ups for its halves, one for the two together, one insertion. */
#include "tokenizer/bpe.h"

#include "base/utf8.h"
#include "tokenizer/byte_chars.h"

#include <stdio.h>
#include <string.h>

void bpe_init(bpe_model *m, ctx_t *ctx, const tok_vocab *vocab) {
    *m = (bpe_model){.ctx = ctx, .vocab = vocab, .unk = -1};
}

void bpe_free(bpe_model *m) {
    if (m->ctx) {
        ctx_free(m->ctx, m->merges);
        ctx_free(m->ctx, m->junctions);
        ctx_free(m->ctx, m->prefix);
        ctx_free(m->ctx, m->suffix);
    }
    *m = (bpe_model){0};
}

static void insert(bpe_merge *table, uint32_t mask, bpe_merge merge) {
    uint32_t i = bpe_pair_hash(merge.left, merge.right) & mask;
    while (table[i].rank != UINT32_MAX &&
           (table[i].left != merge.left || table[i].right != merge.right)) {
        i = (i + 1) & mask;
    }
    table[i] = merge; /* of equal pairs the last one counts */
}

/* Makes the table hold n merges at most half full. */
static jang_status grow(bpe_model *m, size_t n) {
    size_t n_slots = m->merges ? (size_t)m->mask + 1 : 256;
    while (n_slots / 2 < n) {
        n_slots *= 2;
    }
    if (m->merges && n_slots == (size_t)m->mask + 1) {
        return JANG_OK;
    }
    bpe_merge *table =
        n_slots <= (size_t)1 << 30 ? ctx_array(m->ctx, n_slots, sizeof *table) : NULL;
    if (!table) {
        return ctx_fail_memory(m->ctx, n_slots * sizeof *table);
    }
    memset(table, 0xff, n_slots * sizeof *table);
    for (size_t i = 0; m->merges && i <= m->mask; i++) {
        if (m->merges[i].rank != UINT32_MAX) {
            insert(table, (uint32_t)(n_slots - 1), m->merges[i]);
        }
    }
    ctx_free(m->ctx, m->merges);
    m->merges = table;
    m->mask = (uint32_t)(n_slots - 1);
    return JANG_OK;
}

static jang_status missing(bpe_model *m, const char *what, const char *text, size_t n) {
    return ctx_fail(m->ctx, JANG_ERR_FORMAT, "%s: merge %u: token '%.*s' is not in the vocabulary",
                    what, m->n_merges, (int)(n < 200 ? n : 200), text);
}

/* joined is left and right one after the other; the second one's prefix is left out. */
static jang_status add_joined(bpe_model *m, const char *what, const char *left, size_t n_left,
                              const char *right, size_t n_right, const char *joined,
                              size_t n_joined) {
    bpe_merge merge = {vocab_get(m->vocab, left, n_left), vocab_get(m->vocab, right, n_right),
                       m->n_merges, vocab_get(m->vocab, joined, n_joined)};
    if (merge.left < 0) {
        return missing(m, what, left, n_left);
    }
    if (merge.right < 0) {
        return missing(m, what, right, n_right);
    }
    if (merge.id < 0) {
        return missing(m, what, joined, n_joined);
    }
    jang_status status = grow(m, (size_t)m->n_merges + 1);
    if (status == JANG_OK) {
        insert(m->merges, m->mask, merge);
        m->n_merges++;
    }
    return status;
}

jang_status bpe_add_merge(bpe_model *m, const char *what, const char *left, size_t n_left,
                          const char *right, size_t n_right) {
    char small[256];
    size_t n_prefix = m->prefix ? strlen(m->prefix) : 0;
    if (n_right < n_prefix) {
        return missing(m, what, right, n_right);
    }
    size_t n_joined = n_left + n_right - n_prefix;
    char *joined = n_joined <= sizeof small ? small : ctx_alloc(m->ctx, n_joined);
    if (!joined) {
        return ctx_fail_memory(m->ctx, n_joined);
    }
    memcpy(joined, left, n_left);
    memcpy(joined + n_left, right + n_prefix, n_right - n_prefix);
    jang_status status = add_joined(m, what, left, n_left, right, n_right, joined, n_joined);
    if (joined != small) {
        ctx_free(m->ctx, joined);
    }
    return status;
}

/* "left right": exactly one space. */
static jang_status read_old_merge(bpe_model *m, jsonpull *p) {
    jsonpull_str s;
    jang_status status = jsonpull_string(p, &s);
    if (status != JANG_OK || (s.n_bytes >= 8 && memcmp(s.data, "#version", 8) == 0)) {
        return status;
    }
    const char *space = memchr(s.data, ' ', s.n_bytes);
    size_t n_left = space ? (size_t)(space - s.data) : 0;
    if (!space || memchr(space + 1, ' ', s.n_bytes - n_left - 1)) {
        return jsonpull_fail(p, "a merge must be two tokens with one space between");
    }
    return bpe_add_merge(m, p->what, s.data, n_left, space + 1, s.n_bytes - n_left - 1);
}

/* ["left", "right"] */
static jang_status read_new_merge(bpe_model *m, jsonpull *p, buf *left) {
    jsonpull_str s[2] = {{NULL, 0}, {NULL, 0}};
    jang_status status = jsonpull_enter(p, '[');
    int n = 0;
    while (status == JANG_OK && jsonpull_next(p, &status)) {
        if (n == 2) {
            return jsonpull_fail(p, "a merge must be two tokens");
        }
        status = jsonpull_string(p, &s[n]);
        if (status == JANG_OK && n == 0 && s[0].data == p->scratch.data) {
            buf_clear(left); /* the next string would overwrite it */
            buf_put(left, s[0].data, s[0].n_bytes);
            s[0].data = left->data;
            status = buf_status(left);
        }
        n++;
    }
    if (status == JANG_OK && n != 2) {
        status = jsonpull_fail(p, "a merge must be two tokens");
    }
    return status == JANG_OK
               ? bpe_add_merge(m, p->what, s[0].data, s[0].n_bytes, s[1].data, s[1].n_bytes)
               : status;
}

jang_status bpe_read_merges(bpe_model *m, jsonpull *p) {
    buf left;
    buf_init(&left, m->ctx, BUF_NO_LIMIT);
    jang_status status = grow(m, (size_t)m->vocab->n_entries * 2);
    if (status == JANG_OK) {
        status = jsonpull_enter(p, '[');
    }
    while (status == JANG_OK && jsonpull_next(p, &status)) {
        status = jsonpull_peek(p) == '[' ? read_new_merge(m, p, &left) : read_old_merge(m, p);
    }
    buf_free(&left);
    return status;
}

jang_status bpe_finish(bpe_model *m, bool raw) {
    char name[8];
    m->raw = raw && !m->prefix && !m->suffix;
    for (int i = 0; i < 256; i++) {
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)i);
        m->fallback[i] = vocab_get(m->vocab, name, 6);
        buf character;
        buf_init(&character, m->ctx, 8);
        buf_put_utf8(&character, byte_char((uint8_t)i));
        m->byte_id[i] = vocab_get(m->vocab, character.data, character.size);
        jang_status status = buf_status(&character);
        buf_free(&character);
        if (status != JANG_OK) {
            return status;
        }
    }
    return m->merges ? JANG_OK : grow(m, 1);
}
