/* tok_added.c - added tokens.
 *
 * Matching is leftmost-longest over the raw bytes: at each byte that begins some token the trie is
 * walked as far as it goes. A token refused for its neighbours (single_word) is still passed over
 * as a whole, as the reference does. */
#include "tokenizer/tok_added.h"

#include "base/utf8.h"
#include "tokenizer/unicode.h"

#include <stdlib.h>
#include <string.h>

typedef struct added_node {
    uint32_t first_edge, n_edges;
    int32_t token; /* index of the token that ends here, -1 */
} added_node;

typedef struct added_edge {
    uint8_t byte;
    uint32_t node;
} added_edge;

void added_init(tok_added *a, ctx_t *ctx) {
    *a = (tok_added){.ctx = ctx};
    vocab_init(&a->map, ctx);
}

void added_free(tok_added *a) {
    if (!a->ctx) {
        return;
    }
    for (size_t i = 0; i < a->n; i++) {
        ctx_free(a->ctx, a->tokens[i].content);
        ctx_free(a->ctx, a->tokens[i].normalized_content);
    }
    ctx_free(a->ctx, a->tokens);
    ctx_free(a->ctx, a->by_id);
    ctx_free(a->ctx, a->plain.nodes);
    ctx_free(a->ctx, a->plain.edges);
    ctx_free(a->ctx, a->normal.nodes);
    ctx_free(a->ctx, a->normal.edges);
    vocab_free(&a->map);
    *a = (tok_added){0};
}

/* ---- Reading ---- */

static jang_status read_token(tok_added *a, jsonpull *p, added_token *token) {
    const struct {
        const char *key;
        bool *value;
    } flags[] = {{"single_word", &token->single_word},
                 {"lstrip", &token->lstrip},
                 {"rstrip", &token->rstrip},
                 {"normalized", &token->normalized},
                 {"special", &token->special}};
    jang_status status = jsonpull_enter(p, '{');
    while (status == JANG_OK && jsonpull_next(p, &status)) {
        bool *flag = NULL;
        for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
            flag = jsonpull_key_is(p, flags[i].key) ? flags[i].value : flag;
        }
        if (flag) {
            status = jsonpull_bool(p, flag);
        } else if (jsonpull_key_is(p, "content") && !token->content) {
            jsonpull_str s = {NULL, 0};
            status = jsonpull_string(p, &s);
            token->content = status == JANG_OK ? ctx_strndup(a->ctx, s.data, s.n_bytes) : NULL;
            token->n_content = s.n_bytes;
            if (status == JANG_OK && !token->content) {
                status = ctx_fail_memory(a->ctx, s.n_bytes);
            }
        } else {
            status = jsonpull_skip(p); /* "id": the place in the vocabulary decides */
        }
    }
    if (status == JANG_OK && !token->content) {
        status = jsonpull_fail(p, "an added token has no content");
    }
    return status;
}

/* Takes the token over, replacing an earlier one with the same id. */
static jang_status store(tok_added *a, added_token *token) {
    if (a->n == a->capacity) {
        size_t capacity = a->capacity ? a->capacity * 2 : 64;
        added_token *tokens = ctx_realloc(a->ctx, a->tokens, capacity * sizeof *tokens);
        if (!tokens) {
            return ctx_fail_memory(a->ctx, capacity * sizeof *tokens);
        }
        a->tokens = tokens;
        a->capacity = capacity;
    }
    if (token->id >= a->n_ids) {
        int32_t n = token->id + 1 + token->id / 2;
        n = n > TOK_MAX_IDS ? TOK_MAX_IDS : n;
        int32_t *by_id = ctx_realloc(a->ctx, a->by_id, (size_t)n * sizeof *by_id);
        if (!by_id) {
            return ctx_fail_memory(a->ctx, (size_t)n * sizeof *by_id);
        }
        for (int32_t i = a->n_ids; i < n; i++) {
            by_id[i] = -1;
        }
        a->by_id = by_id;
        a->n_ids = n;
    }
    jang_status status = vocab_add(&a->map, token->content, token->n_content, token->id);
    if (status != JANG_OK) {
        return status;
    }
    int32_t old = a->by_id[token->id];
    size_t at = old >= 0 ? (size_t)old : a->n++;
    if (old >= 0) {
        token->special |= a->tokens[at].special; /* once special, always special */
        ctx_free(a->ctx, a->tokens[at].content);
    }
    a->tokens[at] = *token;
    a->by_id[token->id] = (int32_t)at;
    *token = (added_token){0};
    return JANG_OK;
}

/* The id a token gets: its own, the model's, or the next free one. */
static int32_t choose_id(const tok_added *a, const tok_vocab *model, const added_token *token,
                         int32_t *next) {
    int32_t id = vocab_get(&a->map, token->content, token->n_content);
    if (id < 0) {
        id = vocab_get(model, token->content, token->n_content);
    }
    return id >= 0 ? id : (*next)++;
}

jang_status added_read(tok_added *a, jsonpull *p, const tok_vocab *model) {
    int32_t next = (int32_t)(model->n_entries < TOK_MAX_IDS ? model->n_entries : TOK_MAX_IDS);
    jang_status status = jsonpull_enter(p, '[');
    while (status == JANG_OK && jsonpull_next(p, &status)) {
        added_token token = {.normalized = false};
        status = read_token(a, p, &token);
        if (status == JANG_OK && token.n_content > 0) {
            token.id = choose_id(a, model, &token, &next);
            status =
                token.id < TOK_MAX_IDS ? store(a, &token) : jsonpull_fail(p, "too many tokens");
        }
        ctx_free(a->ctx, token.content);
    }
    return status;
}

/* ---- The trie ---- */

typedef struct trie_word {
    const char *text;
    size_t n;
    int32_t token;
} trie_word;

static int compare_words(const void *a, const void *b) {
    const trie_word *x = a, *y = b;
    size_t n = x->n < y->n ? x->n : y->n;
    int order = memcmp(x->text, y->text, n);
    return order ? order : (x->n > y->n) - (x->n < y->n);
}

/* Ranges of sorted words that still share a node, worked off first in, first out: so the edges of
 * a node come to lie together. */
typedef struct trie_range {
    uint32_t first, last, depth, node;
} trie_range;

static void expand(added_trie *trie, const trie_word *words, trie_range r, trie_range *queue,
                   uint32_t *n_queue) {
    added_node *node = &trie->nodes[r.node];
    *node = (added_node){trie->n_edges, 0, -1};
    uint32_t i = r.first;
    while (i < r.last && words[i].n == r.depth) {
        node->token = words[i++].token;
    }
    while (i < r.last) {
        uint8_t byte = (uint8_t)words[i].text[r.depth];
        uint32_t start = i;
        while (i < r.last && (uint8_t)words[i].text[r.depth] == byte) {
            i++;
        }
        uint32_t child = trie->n_nodes++;
        trie->edges[trie->n_edges++] = (added_edge){byte, child};
        node->n_edges++;
        queue[(*n_queue)++] = (trie_range){start, i, r.depth + 1, child};
    }
}

static jang_status build_trie(ctx_t *ctx, added_trie *trie, trie_word *words, size_t n) {
    size_t n_nodes = 1;
    for (size_t i = 0; i < n; i++) {
        n_nodes += words[i].n;
    }
    if (n_nodes > UINT32_MAX / 2) {
        return ctx_fail_memory(ctx, n_nodes);
    }
    qsort(words, n, sizeof *words, compare_words);
    trie->nodes = ctx_array(ctx, n_nodes, sizeof *trie->nodes);
    trie->edges = ctx_array(ctx, n_nodes, sizeof *trie->edges);
    trie_range *queue = ctx_array(ctx, n_nodes, sizeof *queue);
    if (!trie->nodes || !trie->edges || !queue) {
        ctx_free(ctx, queue);
        return ctx_fail_memory(ctx, n_nodes * sizeof *queue);
    }
    uint32_t n_queue = 1;
    queue[0] = (trie_range){0, (uint32_t)n, 0, 0};
    trie->n_nodes = 1;
    for (uint32_t i = 0; i < n_queue; i++) {
        expand(trie, words, queue[i], queue, &n_queue);
    }
    for (size_t i = 0; i < n; i++) {
        trie->first[(uint8_t)words[i].text[0]] = true;
    }
    ctx_free(ctx, queue);
    return JANG_OK;
}

jang_status added_finish(tok_added *a) {
    trie_word *words = ctx_array(a->ctx, a->n + 1, sizeof *words);
    if (!words) {
        return ctx_fail_memory(a->ctx, a->n * sizeof *words);
    }
    jang_status status = JANG_OK;
    for (int normal = 0; status == JANG_OK && normal < 2; normal++) {
        size_t n = 0;
        for (size_t i = 0; i < a->n; i++) {
            const added_token *t = &a->tokens[i];
            bool respelled = normal && t->normalized_content;
            trie_word word = {respelled ? t->normalized_content : t->content,
                              respelled ? t->n_normalized : t->n_content, (int32_t)i};
            if (t->normalized == (normal == 1) && word.n > 0) {
                words[n++] = word;
            }
        }
        if (n > 0) {
            status = build_trie(a->ctx, normal ? &a->normal : &a->plain, words, n);
        }
    }
    ctx_free(a->ctx, words);
    return status;
}

const added_token *added_of_id(const tok_added *a, int32_t id) {
    return id >= 0 && id < a->n_ids && a->by_id[id] >= 0 ? &a->tokens[a->by_id[id]] : NULL;
}

/* ---- Matching ---- */

static const added_edge *find_edge(const added_trie *trie, const added_node *node, uint8_t byte) {
    const added_edge *edges = trie->edges + node->first_edge;
    uint32_t low = 0, high = node->n_edges;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (edges[middle].byte < byte) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < node->n_edges && edges[low].byte == byte ? &edges[low] : NULL;
}

/* The longest token at text; its index or -1. */
static int32_t longest(const added_trie *trie, const char *text, size_t n, size_t *n_token) {
    int32_t token = -1;
    const added_node *node = trie->nodes;
    for (size_t i = 0; i < n; i++) {
        const added_edge *edge = find_edge(trie, node, (uint8_t)text[i]);
        if (!edge) {
            break;
        }
        node = &trie->nodes[edge->node];
        if (node->token >= 0) {
            token = node->token;
            *n_token = i + 1;
        }
    }
    return token;
}

/* \w of the Rust crate regex, which has the two joiners as well. */
static bool is_word(uint32_t c) {
    return (unicode_byte(c) & UNICODE_WORD) || c == 0x200c || c == 0x200d;
}

static bool word_before(const char *text, size_t at) {
    size_t n;
    return at > 0 && is_word(utf8_read(text + at - utf8_back(text, at), &n));
}

static bool word_after(const char *text, size_t n_text, size_t at) {
    size_t n;
    return at < n_text && is_word(utf8_read(text + at, &n));
}

/* Widens a match over the white space that the token takes. */
static void strip_around(const added_token *t, const char *text, size_t n, size_t done,
                         added_match *m) {
    size_t length;
    while (t->lstrip && m->start > 0) {
        size_t back = utf8_back(text, m->start);
        if (!unicode_space(utf8_read(text + m->start - back, &length))) {
            break;
        }
        m->start -= back;
    }
    if (t->lstrip && m->start < done) {
        m->start = done;
    }
    while (t->rstrip && m->end < n && unicode_space(utf8_read(text + m->end, &length))) {
        m->end += length;
    }
}

bool added_next(const tok_added *a, const added_trie *trie, const char *text, size_t n,
                bool no_special, added_search *search, added_match *out) {
    if (!trie->nodes) {
        return false;
    }
    size_t at = search->at;
    while (at < n) {
        if (!trie->first[(uint8_t)text[at]]) {
            at++;
            continue;
        }
        size_t n_token = 0;
        int32_t found = longest(trie, text + at, n - at, &n_token);
        if (found < 0) {
            at++;
            continue;
        }
        const added_token *t = &a->tokens[found];
        added_match m = {at, at + n_token, t->id};
        at += n_token;
        if ((no_special && t->special) ||
            (t->single_word && (word_before(text, m.start) || word_after(text, n, m.end)))) {
            continue;
        }
        strip_around(t, text, n, search->done, &m);
        *search = (added_search){at, m.end};
        *out = m;
        return true;
    }
    search->at = n;
    return false;
}
