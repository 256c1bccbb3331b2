/* tok_trie.c - building a byte trie breadth first, so that the edges of a node lie together. */
#include "tokenizer/tok_trie.h"

#include <stdlib.h>
#include <string.h>

static int compare_words(const void *a, const void *b) {
    const trie_word *x = a, *y = b;
    size_t n = x->n_bytes < y->n_bytes ? x->n_bytes : y->n_bytes;
    int order = memcmp(x->text, y->text, n);
    return order ? order : (x->n_bytes > y->n_bytes) - (x->n_bytes < y->n_bytes);
}

/* Sorted words that share the way to a node. */
typedef struct trie_range {
    uint32_t first, last, depth;
} trie_range;

/* Makes the edges of a node; queue[k] is what goes to node k. */
static void expand(tok_trie *trie, const trie_word *words, uint32_t number, trie_range *queue) {
    trie_range r = queue[number];
    trie_node node = {trie->n_edges, 0, -1};
    uint32_t i = r.first;
    while (i < r.last && words[i].n_bytes == r.depth) {
        node.value = words[i++].value;
    }
    while (i < r.last) {
        uint8_t byte = (uint8_t)words[i].text[r.depth];
        uint32_t start = i;
        while (i < r.last && (uint8_t)words[i].text[r.depth] == byte) {
            i++;
        }
        queue[trie->n_nodes] = (trie_range){start, i, r.depth + 1};
        trie->edges[trie->n_edges++] = (trie_edge){byte, trie->n_nodes++};
        node.n_edges++;
    }
    trie->nodes[number] = node;
}

/* One more than the bytes that each sorted word does not share with the one before. */
static size_t count_nodes(const trie_word *words, size_t n) {
    size_t n_nodes = 1;
    for (size_t i = 0; i < n; i++) {
        size_t shared = 0;
        while (i > 0 && shared < words[i].n_bytes && shared < words[i - 1].n_bytes &&
               words[i].text[shared] == words[i - 1].text[shared]) {
            shared++;
        }
        n_nodes += words[i].n_bytes - shared;
    }
    return n_nodes;
}

jang_status trie_build(tok_trie *trie, ctx_t *ctx, trie_word *words, size_t n) {
    qsort(words, n, sizeof *words, compare_words);
    size_t n_nodes = count_nodes(words, n);
    trie_range *queue = n_nodes < UINT32_MAX / 2 ? ctx_array(ctx, n_nodes, sizeof *queue) : NULL;
    trie->nodes = queue ? ctx_array(ctx, n_nodes, sizeof *trie->nodes) : NULL;
    trie->edges = queue ? ctx_array(ctx, n_nodes, sizeof *trie->edges) : NULL;
    if (!queue || !trie->nodes || !trie->edges) {
        ctx_free(ctx, queue);
        trie_free(trie, ctx);
        return ctx_fail_memory(ctx, n_nodes * sizeof *queue);
    }
    queue[0] = (trie_range){0, (uint32_t)n, 0};
    trie->n_nodes = 1;
    for (uint32_t i = 0; i < trie->n_nodes; i++) {
        expand(trie, words, i, queue);
    }
    for (uint32_t i = 0; i < trie->nodes[0].n_edges; i++) {
        trie->root[trie->edges[i].byte] = trie->edges[i].node;
    }
    ctx_free(ctx, queue);
    return JANG_OK;
}

void trie_free(tok_trie *trie, ctx_t *ctx) {
    ctx_free(ctx, trie->nodes);
    ctx_free(ctx, trie->edges);
    *trie = (tok_trie){0};
}
