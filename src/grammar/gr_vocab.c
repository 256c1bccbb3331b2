/* gr_vocab.c - building the trie of a vocabulary. */
#include "grammar/gr_vocab.h"

#include "grammar/gr_mask.h"

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

/* Where in a character of UTF-8 we are: at its beginning, before its last one, two or three bytes
 * of any kind, or before a second byte that is restricted. */
enum { AT_START, LAST_1, LAST_2, LAST_3, AFTER_E0, AFTER_ED, AFTER_F0, AFTER_F4, N_AT, BAD = N_AT };

static unsigned lead(uint8_t b) {
    if (b < 0x80) {
        return b < 0x20 || b == '"' || b == '\\' ? BAD : AT_START;
    }
    if (b < 0xc2 || b > 0xf4) {
        return BAD;
    }
    if (b < 0xe0) {
        return LAST_1;
    }
    if (b < 0xf0) {
        return b == 0xe0 ? AFTER_E0 : b == 0xed ? AFTER_ED : LAST_2;
    }
    return b == 0xf0 ? AFTER_F0 : b == 0xf4 ? AFTER_F4 : LAST_3;
}

static unsigned plain_step(unsigned at, uint8_t b) {
    static const struct {
        uint8_t lo, hi, then;
    } rows[N_AT] = {
        [LAST_1] = {0x80, 0xbf, AT_START}, [LAST_2] = {0x80, 0xbf, LAST_1},
        [LAST_3] = {0x80, 0xbf, LAST_2},   [AFTER_E0] = {0xa0, 0xbf, LAST_1},
        [AFTER_ED] = {0x80, 0x9f, LAST_1}, [AFTER_F0] = {0x90, 0xbf, LAST_2},
        [AFTER_F4] = {0x80, 0x8f, LAST_2},
    };
    if (at == AT_START) {
        return lead(b);
    }
    return b >= rows[at].lo && b <= rows[at].hi ? rows[at].then : BAD;
}

static jang_status find_plain(grammar_vocab *v, const uint32_t *parents) {
    uint8_t(*most)[N_AT] = ctx_zero(v->ctx, v->n_nodes, sizeof *most);
    if (!most) {
        return ctx_fail_memory(v->ctx, v->n_nodes * sizeof *most);
    }
    for (uint32_t i = v->n_nodes; i-- > 0;) {
        v->nodes[i].plain = most[i][AT_START];
        for (unsigned at = 0; i > 0 && at < N_AT; at++) {
            unsigned then = plain_step(at, v->nodes[i].byte);
            unsigned n = then == BAD ? GR_NOT_PLAIN : (unsigned)most[i][then] + (at == AT_START);
            uint8_t *up = &most[parents[i]][at];
            *up = (uint8_t)(n >= GR_NOT_PLAIN ? GR_NOT_PLAIN : n > *up ? n : *up);
        }
    }
    ctx_free(v->ctx, most);
    return JANG_OK;
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
    ctx_free(v->ctx, v->nodes);
    ctx_free(v->ctx, v->ids);
    ctx_free(v->ctx, v->bytes);
    ctx_free(v->ctx, v->start);
    ctx_free(v->ctx, v->end_ids);
    ctx_free(v->ctx, v);
}
