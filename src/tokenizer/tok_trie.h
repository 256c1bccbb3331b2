/* tok_trie.h - a byte trie over words, for finding those that begin at a place.
 *
 * A node's children are one run of edges in order of byte. */
#ifndef JANG_TOKENIZER_TOK_TRIE_H
#define JANG_TOKENIZER_TOK_TRIE_H

#include "base/ctx.h"

typedef struct trie_node {
    uint32_t first_edge, n_edges;
    int32_t value; /* of the word that ends here, -1 */
} trie_node;

typedef struct trie_edge {
    uint8_t byte;
    uint32_t node;
} trie_edge;

typedef struct tok_trie {
    trie_node *nodes; /* NULL: no words; the root is the first */
    trie_edge *edges;
    uint32_t n_nodes, n_edges;
    uint32_t root[256]; /* child of the root per byte, 0: none */
} tok_trie;

typedef struct trie_word {
    const char *text;
    size_t n_bytes; /* > 0 */
    int32_t value;  /* >= 0 */
} trie_word;

/* Builds over words, which get sorted; of equal words any one counts. */
JANG_MUST_CHECK jang_status trie_build(tok_trie *trie, ctx_t *ctx, trie_word *words, size_t n);
void trie_free(tok_trie *trie, ctx_t *ctx);

/* The child of a node for a byte, or NULL. */
static inline const trie_node *trie_step(const tok_trie *trie, const trie_node *node,
                                         uint8_t byte) {
    const trie_edge *edges = trie->edges + node->first_edge;
    uint32_t low = 0, high = node->n_edges;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (edges[middle].byte < byte) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < node->n_edges && edges[low].byte == byte ? &trie->nodes[edges[low].node] : NULL;
}

/* The node after the first byte, or NULL. */
static inline const trie_node *trie_first(const tok_trie *trie, uint8_t byte) {
    return trie->root[byte] ? &trie->nodes[trie->root[byte]] : NULL;
}

#endif
