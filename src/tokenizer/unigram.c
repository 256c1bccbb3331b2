/* unigram.c - the Unigram model.
 *
 * Viterbi over the bytes of a word: every piece that begins at a place offers its end a score, the
 * first of equals stays. A character that is no piece itself may be passed as unknown for the
 * lowest score less ten. Unknown characters in a row become one token. As in Kudo, "Subword
 * Regularization" (arXiv:1804.10959), section 3.2, and in sentencepiece's encoder. */
#include "tokenizer/unigram.h"

#include "base/utf8.h"
#include "tokenizer/tok_ids.h"

#include <math.h>
#include <stdio.h>

#define UNK_PENALTY 10.0
#define WORD_MAX ((size_t)1 << 30)

void uni_init(uni_model *m, ctx_t *ctx, tok_vocab *vocab) {
    *m = (uni_model){.ctx = ctx, .vocab = vocab, .unk = -1, .lowest = 1e308 * 10};
}

void uni_free(uni_model *m) {
    if (m->ctx) {
        ctx_free(m->ctx, m->scores);
        trie_free(&m->trie, m->ctx);
    }
    *m = (uni_model){0};
}

/* ---- Reading ---- */

jang_status uni_add(uni_model *m, const char *text, size_t n_bytes, double score) {
    if (m->n_scores == m->capacity) {
        size_t capacity = m->capacity ? m->capacity * 2 : 1024;
        double *scores = ctx_realloc(m->ctx, m->scores, capacity * sizeof *scores);
        if (!scores) {
            return ctx_fail_memory(m->ctx, capacity * sizeof *scores);
        }
        m->scores = scores;
        m->capacity = capacity;
    }
    m->lowest = score < m->lowest ? score : m->lowest;
    m->scores[m->n_scores] = score;
    jang_status status = vocab_add(m->vocab, text, n_bytes, (int32_t)m->n_scores);
    m->n_scores += status == JANG_OK;
    return status;
}

/* [piece, score] */
static jang_status read_piece(uni_model *m, jsonpull *p) {
    jsonpull_str piece = {NULL, 0};
    double score = 0;
    int n = 0;
    jang_status status = jsonpull_enter(p, '[');
    while (status == JANG_OK && jsonpull_next(p, &status)) {
        status = n == 0   ? jsonpull_string(p, &piece)
                 : n == 1 ? jsonpull_double(p, &score)
                          : jsonpull_fail(p, "a piece must be a string and a score");
        n++;
    }
    if (status == JANG_OK && (n != 2 || m->n_scores == TOK_MAX_IDS)) {
        status =
            jsonpull_fail(p, n != 2 ? "a piece must be a string and a score" : "too many pieces");
    }
    return status == JANG_OK ? uni_add(m, piece.data, piece.n_bytes, score) : status;
}

jang_status uni_read_vocab(uni_model *m, jsonpull *p) {
    jang_status status = jsonpull_enter(p, '[');
    while (status == JANG_OK && jsonpull_next(p, &status)) {
        status = read_piece(m, p);
    }
    return status;
}

jang_status uni_finish(uni_model *m, const char *what) {
    if (m->unk >= 0 && (size_t)m->unk >= m->n_scores) {
        return ctx_fail(m->ctx, JANG_ERR_FORMAT,
                        "%s: unk_id is %d, but the vocabulary has %zu pieces", what, (int)m->unk,
                        m->n_scores);
    }
    char name[8];
    for (int i = 0; i < 256; i++) {
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)i);
        m->fallback[i] = vocab_get(m->vocab, name, 6);
    }
    const tok_vocab *v = m->vocab;
    trie_word *words = ctx_array(m->ctx, (size_t)v->n_entries + 1, sizeof *words);
    if (!words) {
        return ctx_fail_memory(m->ctx, v->n_entries * sizeof *words);
    }
    size_t n = 0;
    for (uint32_t i = 0; i < v->n_entries; i++) {
        const vocab_entry *e = &v->entries[i];
        if (e->n_bytes > 0 && !isnan(m->scores[e->id])) {
            words[n++] = (trie_word){v->arena.data + e->at, e->n_bytes, e->id};
        }
    }
    jang_status status = n ? trie_build(&m->trie, m->ctx, words, n) : JANG_OK;
    ctx_free(m->ctx, words);
    return status;
}

/* ---- Encoding ---- */

void uni_scratch_free(uni_scratch *s, ctx_t *ctx) {
    ctx_free(ctx, s->nodes);
}

static jang_status reserve_nodes(const uni_model *m, uni_scratch *s, size_t n) {
    if (n > s->capacity) {
        size_t capacity = n + n / 2;
        uni_node *nodes = ctx_realloc(m->ctx, s->nodes, capacity * sizeof *nodes);
        if (!nodes) {
            return ctx_fail_memory(m->ctx, capacity * sizeof *nodes);
        }
        s->nodes = nodes;
        s->capacity = capacity;
    }
    for (size_t i = 0; i < n; i++) {
        s->nodes[i] = (uni_node){0, 0, -1};
    }
    return JANG_OK;
}

static void offer(uni_node *to, double score, int32_t id, size_t from) {
    if (to->from < 0 || score > to->score) {
        *to = (uni_node){score, id, (int32_t)from};
    }
}

/* Offers all pieces that begin at a place; tells whether its first character is one. */
static bool offer_pieces(const uni_model *m, uni_node *nodes, const char *word, size_t n, size_t at,
                         size_t n_char) {
    bool single = false;
    const trie_node *node = m->trie.nodes ? trie_first(&m->trie, (uint8_t)word[at]) : NULL;
    for (size_t i = at + 1; node; i++) {
        if (node->value >= 0) {
            offer(&nodes[i], m->scores[node->value] + nodes[at].score, node->value, at);
            single |= i - at == n_char;
        }
        node = i < n ? trie_step(&m->trie, node, (uint8_t)word[i]) : NULL;
    }
    return single;
}

static jang_status no_unknown(const uni_model *m) {
    return ctx_fail(m->ctx, JANG_ERR_ARGUMENT,
                    "the text has a character that the vocabulary lacks, and the tokenizer has no "
                    "unknown token");
}

static jang_status find_best(const uni_model *m, uni_node *nodes, const char *word, size_t n) {
    size_t length;
    for (size_t at = 0; at < n; at += length) {
        utf8_read(word + at, &length);
        if (nodes[at].from < 0 && at > 0) {
            return no_unknown(m);
        }
        if (!offer_pieces(m, nodes, word, n, at, length)) {
            double score = m->lowest - UNK_PENALTY + nodes[at].score;
            uni_node *to = &nodes[at + length];
            if ((to->from < 0 || score > to->score) && m->unk < 0) {
                return no_unknown(m);
            }
            offer(to, score, m->unk, at);
        }
    }
    return JANG_OK;
}

/* Appends the ids of a stretch of unknown characters. */
static jang_status put_unknown(const uni_model *m, tok_ids *out, const char *text, size_t n) {
    int32_t id = vocab_get(m->vocab, text, n);
    bool fall = id < 0 && m->byte_fallback;
    for (size_t i = 0; fall && i < n; i++) {
        fall = m->fallback[(unsigned char)text[i]] >= 0;
    }
    if (!fall) {
        return tok_ids_put(m->ctx, out, id >= 0 ? id : m->unk);
    }
    jang_status status = JANG_OK;
    for (size_t i = 0; status == JANG_OK && i < n; i++) {
        status = tok_ids_put(m->ctx, out, m->fallback[(unsigned char)text[i]]);
    }
    return status;
}

/* Turns the links around, so that from says where the piece that begins here ends, and appends. */
static jang_status put_path(const uni_model *m, uni_node *nodes, tok_ids *out, const char *word,
                            size_t n) {
    int32_t end = (int32_t)n, after = -1;
    while (end > 0) {
        int32_t start = nodes[end].from;
        nodes[end].from = after;
        after = end;
        end = start;
    }
    nodes[0].from = after;
    jang_status status = JANG_OK;
    for (int32_t at = 0; status == JANG_OK && (size_t)at < n;) {
        int32_t to = nodes[at].from;
        if (m->unk >= 0 && nodes[to].id == m->unk) {
            while ((size_t)to < n && nodes[nodes[to].from].id == m->unk) {
                to = nodes[to].from;
            }
            status = put_unknown(m, out, word + at, (size_t)(to - at));
        } else {
            status = tok_ids_put(m->ctx, out, nodes[to].id);
        }
        at = to;
    }
    return status;
}

jang_status uni_encode(const uni_model *m, uni_scratch *s, tok_ids *out, const char *word,
                       size_t n) {
    if (n == 0) {
        return JANG_OK;
    }
    jang_status status = n > WORD_MAX
                             ? ctx_fail(m->ctx, JANG_ERR_ARGUMENT,
                                        "a word of %zu bytes; %zu are allowed", n, WORD_MAX)
                             : reserve_nodes(m, s, n + 1);
    if (status == JANG_OK) {
        status = find_best(m, s->nodes, word, n);
    }
    return status == JANG_OK ? put_path(m, s->nodes, out, word, n) : status;
}
