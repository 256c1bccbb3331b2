/* gr_vocab.c - building the trie of a vocabulary. */
#include "grammar/gr_vocab.h"

#include "grammar/gr_mask.h"
#include "grammar/gr_plain.h"

#include <stdlib.h>
#include <string.h>

#define MAX_TOKEN_BYTES 4096u

bool gr_vocab_is_end(const grammar_vocab *v, int32_t id) {
    for (size_t i = 0; i < v->n_end_ids; i++) {
        if (v->end_ids[i] == id) {
            return true;
        }
    }
    return false;
}

/* ---- The tokens' bytes ---- */

static jang_status read_tokens(grammar_vocab *v, const grammar_tokens *t) {
    buf all;
    buf_init(&all, v->ctx, (size_t)1 << 30);
    for (int32_t id = 0; id < v->n_vocab; id++) {
        v->start[id] = (uint32_t)all.size;
        size_t n = 0;
        bool special = false;
        const char *bytes = gr_vocab_is_end(v, id) ? NULL : t->token(t->user, id, &n, &special);
        if (bytes && n > 0 && n < MAX_TOKEN_BYTES) {
            if (special) {
                buf_putc(&all, (char)GR_MARK);
            }
            buf_put(&all, bytes, n);
            uint32_t length = (uint32_t)n + special;
            v->longest = length > v->longest ? length : v->longest;
            v->n_tokens++;
        }
    }
    v->start[v->n_vocab] = (uint32_t)all.size;
    size_t n_bytes;
    jang_status status = buf_take(&all, &v->bytes, &n_bytes);
    buf_free(&all);
    return status;
}

typedef struct sortable {
    uint64_t head; /* its first bytes, the first one highest */
    const char *bytes;
    uint32_t n;
    int32_t id;
} sortable;

static int compare_tokens(const void *a, const void *b) {
    const sortable *x = a, *y = b;
    if (x->head != y->head) {
        return x->head > y->head ? 1 : -1;
    }
    uint32_t n = x->n < y->n ? x->n : y->n;
    int order = memcmp(x->bytes, y->bytes, n);
    if (order == 0) {
        order = x->n != y->n ? (x->n > y->n) - (x->n < y->n) : (x->id > y->id) - (x->id < y->id);
    }
    return order;
}

static uint64_t head_of(const char *bytes, uint32_t n) {
    uint64_t head = 0;
    for (uint32_t i = 0; i < 8; i++) {
        head = head << 8 | (i < n ? (unsigned char)bytes[i] : 0);
    }
    return head;
}

static sortable *sort_tokens(grammar_vocab *v) {
    sortable *list = ctx_array(v->ctx, v->n_tokens + 1, sizeof *list);
    uint32_t n = 0;
    for (int32_t id = 0; list && id < v->n_vocab; id++) {
        uint32_t n_bytes = v->start[id + 1] - v->start[id];
        if (n_bytes) {
            const char *bytes = v->bytes + v->start[id];
            list[n++] = (sortable){head_of(bytes, n_bytes), bytes, n_bytes, id};
        }
    }
    if (list && n) {
        qsort(list, n, sizeof *list, compare_tokens);
    }
    return list;
}

/* ---- Nodes ---- */

static uint32_t common_bytes(const sortable *a, const sortable *b) {
    uint32_t n = a->n < b->n ? a->n : b->n, i = 0;
    while (i < n && a->bytes[i] == b->bytes[i]) {
        i++;
    }
    return i;
}

static uint32_t count_nodes(const sortable *list, uint32_t n) {
    uint32_t total = 1;
    for (uint32_t i = 0; i < n; i++) {
        total += list[i].n - (i ? common_bytes(&list[i - 1], &list[i]) : 0);
    }
    return total;
}

/* Writes the nodes; parents takes the parent of each. */
static void write_nodes(grammar_vocab *v, const sortable *list, uint32_t *parents) {
    uint32_t path[MAX_TOKEN_BYTES + 2] = {0}; /* the nodes of the token at hand */
    uint32_t n = 1;
    v->nodes[0] = (gr_trie_node){.plain = 0};
    for (uint32_t i = 0; i < v->n_tokens; i++) {
        v->ids[i] = list[i].id;
        uint32_t same = i ? common_bytes(&list[i - 1], &list[i]) : 0;
        for (uint32_t d = same; d < list[i].n; d++) {
            v->nodes[n] = (gr_trie_node){
                .token = i, .depth = (uint16_t)(d + 1), .byte = (uint8_t)list[i].bytes[d]};
            parents[n] = path[d];
            path[d + 1] = n++;
        }
    }
    v->nodes[n] = (gr_trie_node){.token = v->n_tokens};
    for (uint32_t i = n; i-- > 0;) { /* a child comes after its parent */
        gr_trie_node *node = &v->nodes[i];
        node->end = node->end ? node->end : i + 1;
        if (i) {
            gr_trie_node *parent = &v->nodes[parents[i]];
            parent->classes |= node->classes | (uint64_t)1 << gr_byte_class(node->byte);
            parent->end = parent->end > node->end ? parent->end : node->end;
        }
    }
}

/* ---- What is plain text in a JSON string ---- */

static jang_status find_plain(grammar_vocab *v, const uint32_t *parents) {
    uint8_t(*most)[N_AT] = ctx_zero(v->ctx, v->n_nodes, sizeof *most);
    uint8_t *at_node = ctx_zero(v->ctx, v->n_nodes, 1); /* where its path from the root ends */
    if (!most || !at_node) {
        ctx_free(v->ctx, most);
        ctx_free(v->ctx, at_node);
        return ctx_fail_memory(v->ctx, v->n_nodes * sizeof *most);
    }
    for (uint32_t i = 1; i < v->n_nodes; i++) {
        uint8_t before = at_node[parents[i]];
        at_node[i] = (uint8_t)(before == BAD ? BAD : plain_step(before, v->nodes[i].byte));
    }
    for (uint32_t i = v->n_nodes; i-- > 0;) {
        v->nodes[i].plain = most[i][AT_START];
        v->nodes[i].covered = i && at_node[i] == AT_START && most[i][AT_START] != GR_NOT_PLAIN;
        for (unsigned at = 0; i > 0 && at < N_AT; at++) {
            unsigned then = plain_step(at, v->nodes[i].byte);
            unsigned n = then == BAD ? GR_NOT_PLAIN : (unsigned)most[i][then] + (at == AT_START);
            uint8_t *up = &most[parents[i]][at];
            *up = (uint8_t)(n >= GR_NOT_PLAIN ? GR_NOT_PLAIN : n > *up ? n : *up);
        }
    }
    ctx_free(v->ctx, most);
    ctx_free(v->ctx, at_node);
    return JANG_OK;
}

/* The characters of a token that is plain text; 0 if it is not. */
static uint32_t plain_chars(const char *bytes, size_t n) {
    uint32_t n_chars = 0;
    unsigned at = AT_START;
    for (size_t i = 0; i < n && at != BAD; i++) {
        n_chars += at == AT_START;
        at = plain_step(at, (uint8_t)bytes[i]);
    }
    return at == BAD ? 0 : n_chars;
}

static jang_status sort_plain(grammar_vocab *v) {
    size_t n_words = grammar_mask_words(v->n_vocab);
    for (size_t k = 0; k < GR_PLAIN_MASKS; k++) {
        v->plain_masks[k] = ctx_zero(v->ctx, n_words, sizeof(uint64_t));
        if (!v->plain_masks[k]) {
            return ctx_fail_memory(v->ctx, n_words * sizeof(uint64_t));
        }
    }
    for (uint32_t i = 0; i < v->n_tokens; i++) {
        int32_t id = v->ids[i];
        uint32_t n = plain_chars(v->bytes + v->start[id], v->start[id + 1] - v->start[id]);
        if (n > GR_PLAIN_MASKS) {
            jang_status status = gr_grow(v->ctx, &v->long_plain, &v->long_plain_capacity,
                                         v->n_long_plain, sizeof *v->long_plain);
            if (status != JANG_OK) {
                return status;
            }
            v->long_plain[v->n_long_plain++] = (struct gr_plain_token){id, n};
        } else if (n) {
            v->plain_masks[n - 1][id >> 6] |= (uint64_t)1 << (id & 63);
        }
    }
    for (size_t k = 1; k < GR_PLAIN_MASKS; k++) {
        for (size_t i = 0; i < n_words; i++) {
            v->plain_masks[k][i] |= v->plain_masks[k - 1][i];
        }
    }
    return JANG_OK;
}

void gr_vocab_add_plain(const grammar_vocab *v, uint64_t n_chars, uint64_t *bits) {
    size_t k = n_chars < GR_PLAIN_MASKS ? (size_t)n_chars : GR_PLAIN_MASKS;
    for (size_t i = 0; k && i < grammar_mask_words(v->n_vocab); i++) {
        bits[i] |= v->plain_masks[k - 1][i];
    }
    for (size_t i = 0; i < v->n_long_plain; i++) {
        if (v->long_plain[i].n_chars <= n_chars) {
            int32_t id = v->long_plain[i].id;
            bits[id >> 6] |= (uint64_t)1 << (id & 63);
        }
    }
}

static jang_status build_trie(grammar_vocab *v) {
    jang_status status = JANG_OK;
    uint32_t *parents = NULL;
    sortable *list = sort_tokens(v);
    if (list) {
        v->n_nodes = count_nodes(list, v->n_tokens);
        v->nodes = ctx_array(v->ctx, (size_t)v->n_nodes + 1, sizeof *v->nodes);
        v->ids = ctx_array(v->ctx, v->n_tokens, sizeof *v->ids);
        parents = ctx_zero(v->ctx, (size_t)v->n_nodes, sizeof *parents);
    }
    if (!list || !v->nodes || !v->ids || !parents) {
        status = ctx_fail_memory(v->ctx, (size_t)v->n_nodes * sizeof *v->nodes);
    } else {
        write_nodes(v, list, parents);
        status = find_plain(v, parents);
    }
    if (status == JANG_OK) {
        status = sort_plain(v);
    }
    ctx_free(v->ctx, list);
    ctx_free(v->ctx, parents);
    return status;
}

/* ---- Life ---- */

static jang_status build(grammar_vocab *v, const grammar_tokens *t) {
    v->n_vocab = t->n_vocab;
    v->end_ids = ctx_array(v->ctx, t->n_end_ids, sizeof *v->end_ids);
    v->start = ctx_array(v->ctx, (size_t)t->n_vocab + 1, sizeof *v->start);
    if (!v->end_ids || !v->start) {
        return ctx_fail_memory(v->ctx, (size_t)t->n_vocab * sizeof *v->start);
    }
    for (size_t i = 0; i < t->n_end_ids; i++) {
        if (t->end_ids[i] >= 0 && t->end_ids[i] < t->n_vocab) {
            v->end_ids[v->n_end_ids++] = t->end_ids[i];
        }
    }
    jang_status status = read_tokens(v, t);
    return status == JANG_OK ? build_trie(v) : status;
}

jang_status grammar_vocab_new(grammar_vocab **out, ctx_t *ctx, const grammar_tokens *tokens) {
    if (tokens->n_vocab < 0 || tokens->n_vocab > 1 << 24) {
        return ctx_fail(ctx, JANG_ERR_ARGUMENT, "a vocabulary of %d tokens: 0 to 16777216 can be",
                        tokens->n_vocab);
    }
    grammar_vocab *v = ctx_zero(ctx, 1, sizeof *v);
    if (!v) {
        return ctx_fail_memory(ctx, sizeof *v);
    }
    v->ctx = ctx;
    atomic_init(&v->n_owners, 1);
    pthread_mutex_init(&v->lock, NULL);
    jang_status status = build(v, tokens);
    if (status == JANG_OK) {
        status = gr_locals_new(&v->common, ctx, v->n_vocab);
    }
    if (status != JANG_OK) {
        grammar_vocab_unref(v);
        return status;
    }
    *out = v;
    return JANG_OK;
}

grammar_vocab *grammar_vocab_ref(grammar_vocab *v) {
    if (v) {
        atomic_fetch_add(&v->n_owners, 1);
    }
    return v;
}

void grammar_vocab_unref(grammar_vocab *v) {
    if (!v || atomic_fetch_sub(&v->n_owners, 1) > 1) {
        return;
    }
    gr_locals_free(v->common);
    pthread_mutex_destroy(&v->lock);
    for (size_t k = 0; k < GR_PLAIN_MASKS; k++) {
        ctx_free(v->ctx, v->plain_masks[k]);
    }
    ctx_free(v->ctx, v->long_plain);
    ctx_free(v->ctx, v->nodes);
    ctx_free(v->ctx, v->ids);
    ctx_free(v->ctx, v->bytes);
    ctx_free(v->ctx, v->start);
    ctx_free(v->ctx, v->end_ids);
    ctx_free(v->ctx, v);
}
