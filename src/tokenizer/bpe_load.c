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
        ctx_free(m->ctx, m->known);
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

/* ---- Adding merges, many at once ---- */

/* Merges wait in a batch until it is full; then all their look-ups run side by side, since one
 * alone waits for memory three times. */
#define BATCH 64

/* One merge: three spellings in the batch's text. Without a prefix the joined one is the two
 * others, which lie one after the other. */
typedef struct waiting_merge {
    size_t at[3], n[3]; /* left, right, joined */
    uint32_t hash[3];
    bpe_merge merge;
} waiting_merge;

struct bpe_batch {
    bpe_model *m;
    const char *what;
    buf text;
    size_t n;
    waiting_merge merges[BATCH];
};

static void look_up_all(bpe_batch *b) {
    const tok_vocab *v = b->m->vocab;
    static void (*const fetch[])(const tok_vocab *, uint32_t) = {
        vocab_fetch_slot, vocab_fetch_entry, vocab_fetch_text};
    for (size_t i = 0; i < b->n; i++) {
        waiting_merge *w = &b->merges[i];
        for (int k = 0; k < 3; k++) {
            w->hash[k] = vocab_hash(b->text.data + w->at[k], w->n[k]);
        }
    }
    for (size_t step = 0; step < sizeof fetch / sizeof *fetch; step++) {
        for (size_t i = 0; i < b->n; i++) {
            for (int k = 0; k < 3; k++) {
                fetch[step](v, b->merges[i].hash[k]);
            }
        }
    }
    for (size_t i = 0; i < b->n; i++) {
        waiting_merge *w = &b->merges[i];
        int32_t id[3];
        for (int k = 0; k < 3; k++) {
            id[k] = vocab_get_hashed(v, b->text.data + w->at[k], w->n[k], w->hash[k]);
        }
        w->merge = (bpe_merge){id[0], id[1], w->merge.rank, id[2]};
        __builtin_prefetch(&b->m->merges[bpe_pair_hash(id[0], id[1]) & b->m->mask], 1);
    }
}

/* Notes the two characters that a merge brings together. */
static void note_junction(bpe_model *m, const char *left, size_t n_left, const char *right,
                          size_t n_right) {
    size_t length;
    if (n_left > 0 && n_right > 0) {
        uint32_t a = utf8_read(left + n_left - utf8_back(left, n_left), &length);
        uint32_t at = bpe_junction(a, utf8_read(right, &length));
        m->junctions[at / 64] |= (uint64_t)1 << at % 64;
    }
}

/* Moves the waiting merges into the table. */
static jang_status flush_batch(bpe_batch *b) {
    bpe_model *m = b->m;
    jang_status status = buf_status(&b->text);
    if (status == JANG_OK) {
        status = grow(m, (size_t)m->n_merges + b->n);
    }
    if (status != JANG_OK) {
        return status;
    }
    look_up_all(b);
    for (size_t i = 0; i < b->n; i++) {
        const waiting_merge *w = &b->merges[i];
        int k = w->merge.left < 0 ? 0 : w->merge.right < 0 ? 1 : w->merge.id < 0 ? 2 : 3;
        if (k < 3) {
            return missing(m, b->what, b->text.data + w->at[k], w->n[k]);
        }
        insert(m->merges, m->mask, w->merge);
        note_junction(m, b->text.data + w->at[0], w->n[0], b->text.data + w->at[1], w->n[1]);
        m->n_merges++;
    }
    b->n = 0;
    buf_clear(&b->text);
    return JANG_OK;
}

jang_status bpe_batch_new(bpe_batch **out, bpe_model *m, const char *what, size_t n_expected) {
    bpe_batch *b = ctx_zero(m->ctx, 1, sizeof *b);
    if (!b) {
        return ctx_fail_memory(m->ctx, sizeof *b);
    }
    b->m = m;
    b->what = what;
    buf_init(&b->text, m->ctx, BUF_NO_LIMIT);
    jang_status status = grow(m, n_expected);
    if (status == JANG_OK && !m->junctions) {
        m->junctions = ctx_zero(m->ctx, (size_t)1 << BPE_JUNCTION_BITS >> 6, sizeof(uint64_t));
        status = m->junctions ? JANG_OK : ctx_fail_memory(m->ctx, (size_t)1 << BPE_JUNCTION_BITS);
    }
    if (status != JANG_OK) {
        ctx_free(m->ctx, b);
        return status;
    }
    *out = b;
    return JANG_OK;
}

void bpe_batch_free(bpe_batch *b) {
    if (b) {
        buf_free(&b->text);
        ctx_free(b->m->ctx, b);
    }
}

jang_status bpe_batch_finish(bpe_batch *b) {
    return flush_batch(b);
}

jang_status bpe_add_merge(bpe_batch *b, uint32_t rank, const char *left, size_t n_left,
                          const char *right, size_t n_right) {
    size_t n_prefix = b->m->prefix ? strlen(b->m->prefix) : 0;
    if (n_right < n_prefix) {
        return missing(b->m, b->what, right, n_right);
    }
    if (b->m->n_merges > UINT32_MAX - 2 * BATCH) {
        return ctx_fail_memory(b->m->ctx, SIZE_MAX);
    }
    waiting_merge *w = &b->merges[b->n++];
    size_t at = b->text.size;
    buf_put(&b->text, left, n_left);
    buf_put(&b->text, right, n_right);
    *w = (waiting_merge){.at = {at, at + n_left, at},
                         .n = {n_left, n_right, n_left + n_right},
                         .merge = {.rank = rank}};
    if (n_prefix > 0) {
        w->at[2] = b->text.size;
        w->n[2] -= n_prefix;
        buf_put(&b->text, left, n_left);
        buf_put(&b->text, right + n_prefix, n_right - n_prefix);
    }
    return b->n == BATCH ? flush_batch(b) : JANG_OK;
}

jang_status bpe_add_splits(bpe_batch *b, uint32_t rank, const char *token, size_t n_bytes) {
    const tok_vocab *v = b->m->vocab;
    size_t length;
    jang_status status = JANG_OK;
    for (size_t i = 0; status == JANG_OK && i < n_bytes; i += length) {
        utf8_read(token + i, &length);
        if (i > 0 && vocab_get(v, token, i) >= 0 && vocab_get(v, token + i, n_bytes - i) >= 0) {
            status = bpe_add_merge(b, rank, token, i, token + i, n_bytes - i);
        }
    }
    return status;
}

/* ---- Reading ---- */

/* A list's merges rank by their places. */
static uint32_t next_rank(const bpe_batch *b) {
    return b->m->n_merges + (uint32_t)b->n;
}

/* "left right": exactly one space. */
static jang_status read_old_merge(bpe_batch *b, jsonpull *p) {
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
    return bpe_add_merge(b, next_rank(b), s.data, n_left, space + 1, s.n_bytes - n_left - 1);
}

/* ["left", "right"] */
static jang_status read_new_merge(bpe_batch *b, jsonpull *p, buf *left) {
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
               ? bpe_add_merge(b, next_rank(b), s[0].data, s[0].n_bytes, s[1].data, s[1].n_bytes)
               : status;
}

jang_status bpe_read_merges(bpe_model *m, jsonpull *p) {
    buf left;
    buf_init(&left, m->ctx, BUF_NO_LIMIT);
    bpe_batch *b = NULL;
    jang_status status = bpe_batch_new(&b, m, p->what, (size_t)m->vocab->n_entries * 2);
    if (status == JANG_OK) {
        status = jsonpull_enter(p, '[');
    }
    while (status == JANG_OK && jsonpull_next(p, &status)) {
        status = jsonpull_peek(p) == '[' ? read_new_merge(b, p, &left) : read_old_merge(b, p);
    }
    if (status == JANG_OK) {
        status = bpe_batch_finish(b);
    }
    bpe_batch_free(b);
    buf_free(&left);
    return status;
}

/* ---- Cutting words ---- */

/* Finds whether no merge has a token in it that does not stand for its own characters: the unknown
 * token or a byte. Characters say nothing about where those can join. */
static jang_status check_plain(const bpe_model *m, bool *plain) {
    size_t n = (size_t)m->vocab->n_ids + 1;
    bool *odd = ctx_zero(m->ctx, n, sizeof *odd);
    if (!odd) {
        return ctx_fail_memory(m->ctx, n);
    }
    for (int i = 0; i < 256; i++) {
        odd[m->fallback[i] + 1] = m->fallback[i] >= 0; /* place 0 is for -1 */
    }
    odd[m->unk + 1] = m->unk >= 0;
    bool found = false;
    for (size_t i = 0; i <= m->mask && !found; i++) {
        const bpe_merge *e = &m->merges[i];
        found = e->rank != UINT32_MAX && (odd[e->left + 1] || odd[e->right + 1]);
    }
    ctx_free(m->ctx, odd);
    *plain = !found;
    return JANG_OK;
}

static jang_status find_known(bpe_model *m) {
    m->known = ctx_zero(m->ctx, 1024, sizeof *m->known);
    if (!m->known) {
        return ctx_fail_memory(m->ctx, 8192);
    }
    size_t length;
    for (uint32_t i = 0; i < m->vocab->n_entries; i++) {
        const vocab_entry *e = &m->vocab->entries[i];
        const char *text = m->vocab->arena.data + e->at;
        if (e->n_bytes > 0 && e->n_bytes <= 3) {
            uint32_t c = utf8_read(text, &length);
            if (length == e->n_bytes) {
                m->known[c / 64] |= (uint64_t)1 << c % 64;
            }
        }
    }
    return JANG_OK;
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
    jang_status status = m->merges ? JANG_OK : grow(m, 1);
    if (status == JANG_OK && m->junctions && !m->raw && !m->prefix && !m->suffix &&
        !m->ignore_merges) {
        status = check_plain(m, &m->cuts);
        status = status == JANG_OK ? find_known(m) : status;
    }
    return status;
}
