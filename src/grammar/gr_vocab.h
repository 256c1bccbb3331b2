/* gr_vocab.h - the tokens of a vocabulary as a trie in preorder.
 *
 * Node i is followed by what is below it, which ends at nodes[i].end; tokens are sorted the same
 * way, so that those of a subtree lie together. A walk through the trie with an automaton skips a
 * subtree by going to its end. */
#ifndef JANG_GRAMMAR_GR_VOCAB_H
#define JANG_GRAMMAR_GR_VOCAB_H

#include "grammar/gr_run.h"
#include "grammar/grammar.h"

#include <pthread.h>
#include <stdatomic.h>

#define GR_NOT_PLAIN 255u
#define GR_PLAIN_MASKS 24

typedef struct gr_trie_node {
    uint64_t classes; /* gr_byte_class of all bytes below */
    uint32_t end;     /* the node after the subtree */
    uint32_t token;   /* the first token at or below it, in sorted order */
    uint16_t depth;   /* bytes from the root */
    uint8_t byte;
    bool covered;  /* the path from the root and all that is below are plain text */
    uint8_t plain; /* most characters of what is below, where all of it is plain text in a JSON
                      string from here on, perhaps with its last character cut; else GR_NOT_PLAIN */
} gr_trie_node;

struct gr_local;

struct grammar_vocab {
    ctx_t *ctx;
    atomic_int n_owners;
    int32_t n_vocab;
    gr_trie_node *nodes; /* [n_nodes + 1]; node 0 is the root */
    uint32_t n_nodes;
    int32_t *ids; /* [n_tokens] in sorted order */
    uint32_t n_tokens;
    char *bytes; /* of all tokens, by id: bytes + start[id] up to start[id + 1] */
    uint32_t *start;
    int32_t *end_ids;
    size_t n_end_ids;
    uint32_t longest; /* bytes of the longest token */
    /* tokens that are plain text in a JSON string, by their number of characters (a last one that
     * is cut counts): masks of those of at most 1, 2 ... GR_PLAIN_MASKS, and the longer ones */
    uint64_t *plain_masks[GR_PLAIN_MASKS];
    struct gr_plain_token {
        int32_t id;
        uint32_t n_chars;
    } * long_plain;
    size_t n_long_plain, long_plain_capacity;
    /* what masks of the common rules of JSON were found (gr_mask.h) */
    pthread_mutex_t lock;
    struct gr_locals *common;
};

/* The bytes of a token, after GR_MARK if it is special; none for an id that has none. */
static inline const char *gr_vocab_token(const grammar_vocab *v, int32_t id, size_t *n_bytes) {
    if (id < 0 || id >= v->n_vocab) {
        *n_bytes = 0;
        return NULL;
    }
    *n_bytes = v->start[id + 1] - v->start[id];
    return v->bytes + v->start[id];
}

/* Adds the tokens that are plain text of at most so many characters. */
void gr_vocab_add_plain(const grammar_vocab *v, uint64_t n_chars, uint64_t *bits);

bool gr_vocab_is_end(const grammar_vocab *v, int32_t id);

#endif
