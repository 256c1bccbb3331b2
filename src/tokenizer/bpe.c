/* bpe.c - byte pair encoding of one word.
 *
 * A word starts as its characters; the neighbouring pair with the lowest rank (the leftmost of
 * equals) is merged until no pair has a merge. Short words look through all pairs for the lowest;
 * long ones keep candidates in a binary heap beside a linked list of symbols, so that a word of n
 * characters takes n log n. A candidate whose symbols have changed since is passed over when it
 * comes up. Words seen before come from a direct-mapped cache.
 *
 * Some models take a whole text as one word (SentencePiece's, which spell spaces as U+2581). Such
 * a word falls into parts wherever two characters meet that no merge brings together. */
#include "tokenizer/bpe.h"

#include "base/utf8.h"
#include "tokenizer/byte_chars.h"
#include "tokenizer/tok_ids.h"

#include <string.h>

#define CACHE_SLOTS (1u << 15)
#define SHORT_WORD 24
#define WORD_MAX ((size_t)1 << 30)

void bpe_scratch_init(bpe_scratch *s, ctx_t *ctx) {
    *s = (bpe_scratch){.ctx = ctx};
    buf_init(&s->text, ctx, BUF_NO_LIMIT);
}

void bpe_scratch_free(bpe_scratch *s) {
    if (s->ctx) {
        ctx_free(s->ctx, s->symbols);
        ctx_free(s->ctx, s->heap);
        ctx_free(s->ctx, s->cache);
        buf_free(&s->text);
    }
}

/* Room for n symbols and their candidates: one per pair at the start, two new ones per merge. */
static jang_status reserve_symbols(bpe_scratch *s, size_t n) {
    if (n <= s->capacity) {
        return JANG_OK;
    }
    size_t capacity = n + n / 2 + 64;
    bpe_symbol *symbols = ctx_realloc(s->ctx, s->symbols, capacity * sizeof *symbols);
    if (!symbols) {
        return ctx_fail_memory(s->ctx, capacity * sizeof *symbols);
    }
    s->symbols = symbols;
    bpe_candidate *heap = ctx_realloc(s->ctx, s->heap, capacity * 3 * sizeof *heap);
    if (!heap) {
        return ctx_fail_memory(s->ctx, capacity * 3 * sizeof *heap);
    }
    s->heap = heap;
    s->capacity = capacity;
    return JANG_OK;
}

/* ---- Merge table ---- */

static const bpe_merge *find_merge(const bpe_model *m, int32_t left, int32_t right) {
    for (uint32_t i = bpe_pair_hash(left, right) & m->mask;; i = (i + 1) & m->mask) {
        const bpe_merge *e = &m->merges[i];
        if (e->rank == UINT32_MAX) {
            return NULL;
        }
        if (e->left == left && e->right == right) {
            return e;
        }
    }
}

/* ---- Merging ---- */

/* Merges within a short word: looks for the lowest rank each time. Returns the symbols left. */
static size_t merge_short(const bpe_model *m, bpe_symbol *symbols, size_t n) {
    const bpe_merge *merges[SHORT_WORD];
    for (size_t i = 0; i + 1 < n; i++) {
        merges[i] = find_merge(m, symbols[i].id, symbols[i + 1].id);
    }
    for (;;) {
        size_t best = n;
        uint32_t rank = UINT32_MAX;
        for (size_t i = 0; i + 1 < n; i++) {
            if (merges[i] && merges[i]->rank < rank) {
                rank = merges[i]->rank;
                best = i;
            }
        }
        if (best == n) {
            return n;
        }
        symbols[best].id = merges[best]->id;
        for (size_t i = best + 1; i + 1 < n; i++) {
            symbols[i].id = symbols[i + 1].id;
            merges[i] = i + 2 < n ? merges[i + 1] : NULL;
        }
        n--;
        if (best > 0) {
            merges[best - 1] = find_merge(m, symbols[best - 1].id, symbols[best].id);
        }
        if (best + 1 < n) {
            merges[best] = find_merge(m, symbols[best].id, symbols[best + 1].id);
        }
    }
}

static void sift_down(bpe_candidate *heap, size_t n, size_t i) {
    bpe_candidate moving = heap[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= n) {
            break;
        }
        child += child + 1 < n && heap[child + 1].key < heap[child].key;
        if (heap[child].key >= moving.key) {
            break;
        }
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = moving;
}

static void sift_up(bpe_candidate *heap, size_t i) {
    bpe_candidate moving = heap[i];
    while (i > 0 && heap[(i - 1) / 2].key > moving.key) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = moving;
}

/* Adds the merge of the symbols at left and after it to the heap, if there is one. */
static size_t push_candidate(const bpe_model *m, bpe_scratch *s, size_t n_heap, int32_t left) {
    const bpe_symbol *a = &s->symbols[left];
    const bpe_merge *e = find_merge(m, a->id, s->symbols[a->next].id);
    if (e) {
        s->heap[n_heap] = (bpe_candidate){(uint64_t)e->rank << 32 | (uint32_t)left, e->id};
        n_heap++;
    }
    return n_heap;
}

/* Merges a long word. Removed symbols get the id -1; returns the symbols left, moved together. */
static size_t merge_long(const bpe_model *m, bpe_scratch *s, size_t n) {
    bpe_symbol *symbols = s->symbols;
    size_t n_heap = 0, n_left = 0;
    for (size_t i = 0; i < n; i++) {
        symbols[i].previous = (int32_t)i - 1;
        symbols[i].next = i + 1 < n ? (int32_t)i + 1 : -1;
    }
    for (size_t i = 0; i + 1 < n; i++) {
        n_heap = push_candidate(m, s, n_heap, (int32_t)i);
    }
    for (size_t i = n_heap / 2; i-- > 0;) {
        sift_down(s->heap, n_heap, i);
    }
    while (n_heap > 0) {
        bpe_candidate top = s->heap[0];
        s->heap[0] = s->heap[--n_heap];
        if (n_heap > 0) {
            sift_down(s->heap, n_heap, 0);
        }
        bpe_symbol *left = &symbols[(uint32_t)top.key];
        if (left->id < 0 || left->next < 0) {
            continue;
        }
        bpe_symbol *right = &symbols[left->next];
        const bpe_merge *e = find_merge(m, left->id, right->id);
        if (!e || e->id != top.id) {
            continue; /* one of the two has changed since */
        }
        left->id = e->id;
        left->next = right->next;
        right->id = -1;
        int32_t at = (int32_t)(left - symbols);
        if (left->next >= 0) {
            symbols[left->next].previous = at;
        }
        size_t before = n_heap;
        if (left->previous >= 0) {
            n_heap = push_candidate(m, s, n_heap, left->previous);
        }
        if (n_heap > before) {
            sift_up(s->heap, n_heap - 1);
            before = n_heap;
        }
        if (left->next >= 0) {
            n_heap = push_candidate(m, s, n_heap, at);
        }
        if (n_heap > before) {
            sift_up(s->heap, n_heap - 1);
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (symbols[i].id >= 0) {
            symbols[n_left++].id = symbols[i].id;
        }
    }
    return n_left;
}

static size_t merge_all(const bpe_model *m, bpe_scratch *s, size_t n) {
    if (n < 2 || m->n_merges == 0) {
        return n;
    }
    return n <= SHORT_WORD ? merge_short(m, s->symbols, n) : merge_long(m, s, n);
}

/* ---- From characters to symbols ---- */

/* The id of a character with the affixes that its place asks for. */
static int32_t character_id(const bpe_model *m, bpe_scratch *s, const char *c, size_t n, bool first,
                            bool last) {
    if ((first || !m->prefix) && (!last || !m->suffix)) {
        return vocab_get(m->vocab, c, n);
    }
    buf_clear(&s->text);
    if (!first && m->prefix) {
        buf_puts(&s->text, m->prefix);
    }
    buf_put(&s->text, c, n);
    if (last && m->suffix) {
        buf_puts(&s->text, m->suffix);
    }
    return vocab_get(m->vocab, s->text.data, s->text.size);
}

/* Appends the ids of <0xNN> for each byte of the spelling; 0 if one of them is missing. The
 * spelling is the character with its affixes. */
static size_t fallback_symbols(const bpe_model *m, bpe_scratch *s, size_t n_symbols, const char *c,
                               size_t n, bool first, bool last) {
    buf_clear(&s->text);
    if (!first && m->prefix) {
        buf_puts(&s->text, m->prefix);
    }
    buf_put(&s->text, c, n);
    if (last && m->suffix) {
        buf_puts(&s->text, m->suffix);
    }
    for (size_t i = 0; i < s->text.size; i++) {
        int32_t id = m->fallback[(unsigned char)s->text.data[i]];
        if (id < 0) {
            return 0;
        }
        s->symbols[n_symbols + i].id = id;
    }
    return s->text.size;
}

/* Room that a word of n_bytes can need as symbols: affixes count when bytes fall back. */
static size_t symbols_bound(const bpe_model *m, size_t n_bytes) {
    size_t prefix = m->prefix ? strlen(m->prefix) : 0, suffix = m->suffix ? strlen(m->suffix) : 0;
    return n_bytes * (1 + prefix) + suffix + 1;
}

/* Splits a word into the symbols of its characters. An unknown character is held as one pending
 * unknown token, so that the next one can fuse with it. */
static size_t split_characters(const bpe_model *m, bpe_scratch *s, const char *word, size_t n) {
    size_t n_symbols = 0, length;
    bool unk = false;
    for (size_t i = 0; i < n; i += length) {
        utf8_read(word + i, &length);
        bool first = i == 0, last = i + length == n;
        int32_t id = character_id(m, s, word + i, length, first, last);
        if (id >= 0) {
            if (unk) {
                s->symbols[n_symbols++].id = m->unk;
                unk = false;
            }
            s->symbols[n_symbols++].id = id;
            continue;
        }
        size_t fell =
            m->byte_fallback ? fallback_symbols(m, s, n_symbols, word + i, length, first, last) : 0;
        if (fell > 0) {
            n_symbols += fell;
        } else if (m->unk >= 0) {
            if (unk && !m->fuse_unk) {
                s->symbols[n_symbols++].id = m->unk;
            }
            unk = true;
        }
    }
    if (unk) {
        s->symbols[n_symbols++].id = m->unk;
    }
    return n_symbols;
}

/* Bytes whose character is not in the vocabulary become the unknown token or vanish. */
static size_t split_bytes(const bpe_model *m, bpe_scratch *s, const char *word, size_t n) {
    size_t n_symbols = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t id = m->byte_id[(unsigned char)word[i]];
        if (id < 0) {
            buf_clear(&s->text);
            byte_chars_put(&s->text, word, n);
            buf spelled = s->text;
            buf_init(&s->text, s->ctx, BUF_NO_LIMIT);
            n_symbols = split_characters(m, s, spelled.data, spelled.size);
            buf_free(&spelled);
            return n_symbols;
        }
        s->symbols[n_symbols++].id = id;
    }
    return n_symbols;
}

/* The id of a whole word, for ignore_merges; -1. */
static int32_t whole_word(const bpe_model *m, bpe_scratch *s, const char *word, size_t n) {
    if (!m->raw) {
        return vocab_get(m->vocab, word, n);
    }
    buf_clear(&s->text);
    byte_chars_put(&s->text, word, n);
    return vocab_get(m->vocab, s->text.data, s->text.size);
}

/* Encodes without the cache. */
static jang_status encode_word(const bpe_model *m, bpe_scratch *s, tok_ids *out, const char *word,
                               size_t n) {
    if (m->ignore_merges) {
        int32_t id = whole_word(m, s, word, n);
        if (id >= 0) {
            return tok_ids_put(s->ctx, out, id);
        }
    }
    jang_status status = n > WORD_MAX
                             ? ctx_fail(s->ctx, JANG_ERR_ARGUMENT,
                                        "a word of %zu bytes; %zu are allowed", n, WORD_MAX)
                             : reserve_symbols(s, symbols_bound(m, m->raw ? 2 * n : n));
    if (status != JANG_OK) {
        return status;
    }
    size_t n_symbols = m->raw ? split_bytes(m, s, word, n) : split_characters(m, s, word, n);
    n_symbols = merge_all(m, s, n_symbols);
    status = buf_status(&s->text);
    if (status == JANG_OK) {
        status = tok_ids_reserve(s->ctx, out, n_symbols);
    }
    for (size_t i = 0; status == JANG_OK && i < n_symbols; i++) {
        out->ids[out->n++] = s->symbols[i].id;
    }
    return status;
}

/* Encodes a word through the cache. */
static jang_status encode_cached(const bpe_model *m, bpe_scratch *s, tok_ids *out, const char *word,
                                 size_t n) {
    if (n > BPE_CACHE_KEY) {
        return encode_word(m, s, out, word, n);
    }
    if (!s->cache) {
        s->cache = ctx_zero(s->ctx, CACHE_SLOTS, sizeof *s->cache);
        if (!s->cache) {
            return ctx_fail_memory(s->ctx, CACHE_SLOTS * sizeof *s->cache);
        }
    }
    bpe_cached *slot = &s->cache[vocab_hash(word, n) & (CACHE_SLOTS - 1)];
    jang_status status = tok_ids_reserve(s->ctx, out, BPE_CACHE_IDS);
    if (status != JANG_OK) {
        return status;
    }
    if (slot->n_bytes == n && memcmp(slot->key, word, n) == 0) {
        memcpy(out->ids + out->n, slot->ids, sizeof slot->ids);
        out->n += slot->n_ids;
        return JANG_OK;
    }
    size_t before = out->n;
    status = encode_word(m, s, out, word, n);
    if (status == JANG_OK && out->n - before <= BPE_CACHE_IDS) {
        slot->n_bytes = (uint8_t)n;
        slot->n_ids = (uint8_t)(out->n - before);
        memcpy(slot->key, word, n);
        memcpy(slot->ids, out->ids + before, (out->n - before) * sizeof *slot->ids);
    }
    return status;
}

/* The end of the first part of a word that can be encoded by itself: between its last character
 * and the next one no merge can join, and the next one is a token, so that no run of unknown
 * characters goes on there. */
static size_t first_cut(const bpe_model *m, const char *word, size_t n) {
    size_t length, at;
    uint32_t last = utf8_read(word, &at);
    while (at < n) {
        uint32_t c = utf8_read(word + at, &length);
        uint32_t junction = bpe_junction(last, c);
        if (!(m->junctions[junction / 64] >> junction % 64 & 1) && c < 0x10000 &&
            (m->known[c / 64] >> c % 64 & 1)) {
            return at;
        }
        last = c;
        at += length;
    }
    return n;
}

jang_status bpe_encode(const bpe_model *m, bpe_scratch *s, tok_ids *out, const char *word,
                       size_t n) {
    jang_status status = JANG_OK;
    while (status == JANG_OK && n > 0) {
        size_t part = m->cuts ? first_cut(m, word, n) : n;
        status = encode_cached(m, s, out, word, part);
        word += part;
        n -= part;
    }
    return status;
}
