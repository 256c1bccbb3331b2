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
    trie_free(&a->plain, a->ctx);
    trie_free(&a->normal, a->ctx);
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

jang_status added_add(tok_added *a, added_token token) {
    token.content = ctx_strndup(a->ctx, token.content, token.n_content);
    if (!token.content) {
        return ctx_fail_memory(a->ctx, token.n_content);
    }
    jang_status status = store(a, &token);
    ctx_free(a->ctx, token.content);
    return status;
}

jang_status added_read_decoder(tok_added *a, const char *what, const json_t *json) {
    const char *key;
    json_t *entry;
    json_object_foreach((json_t *)(uintptr_t)json, key, entry) {
        json_at at = {a->ctx, what, entry};
        char *end;
        long id = strtol(key, &end, 10);
        const json_t *content = json_object_get(entry, "content");
        if (*end || end == key || id < 0 || id >= TOK_MAX_IDS || !json_is_string(content)) {
            return ctx_fail(a->ctx, JANG_ERR_FORMAT,
                            "%s: added_tokens_decoder: '%s' must be an id with a content", what,
                            key);
        }
        added_token token = {.content = (char *)(uintptr_t)json_string_value(content),
                             .n_content = json_string_length(content),
                             .id = (int32_t)id};
        jang_status status = json_get_bool(&token.special, at, "special", false);
        if (status == JANG_OK) {
            status = json_get_bool(&token.normalized, at, "normalized", !token.special);
        }
        if (status == JANG_OK) {
            status = json_get_bool(&token.single_word, at, "single_word", false);
        }
        if (status == JANG_OK) {
            status = json_get_bool(&token.lstrip, at, "lstrip", false);
        }
        if (status == JANG_OK) {
            status = json_get_bool(&token.rstrip, at, "rstrip", false);
        }
        if (status == JANG_OK && token.n_content > 0) {
            status = added_add(a, token);
        }
        if (status != JANG_OK) {
            return status;
        }
    }
    return JANG_OK;
}

/* ---- Finding ---- */

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
            if (t->normalized == (normal == 1) && word.n_bytes > 0) {
                words[n++] = word;
            }
        }
        if (n > 0) {
            status = trie_build(normal ? &a->normal : &a->plain, a->ctx, words, n);
        }
    }
    ctx_free(a->ctx, words);
    return status;
}

const added_token *added_of_id(const tok_added *a, int32_t id) {
    return id >= 0 && id < a->n_ids && a->by_id[id] >= 0 ? &a->tokens[a->by_id[id]] : NULL;
}

/* The longest token at text; its index or -1. */
static int32_t longest(const tok_trie *trie, const char *text, size_t n, size_t *n_token) {
    int32_t token = -1;
    const trie_node *node = trie_first(trie, (uint8_t)text[0]);
    for (size_t i = 1; node; i++) {
        if (node->value >= 0) {
            token = node->value;
            *n_token = i;
        }
        node = i < n ? trie_step(trie, node, (uint8_t)text[i]) : NULL;
    }
    return token;
}

static bool word_before(const char *text, size_t at) {
    size_t n;
    return at > 0 && unicode_is_word(utf8_read(text + at - utf8_back(text, at), &n));
}

static bool word_after(const char *text, size_t n_text, size_t at) {
    size_t n;
    return at < n_text && unicode_is_word(utf8_read(text + at, &n));
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

bool added_next(const tok_added *a, const tok_trie *trie, const char *text, size_t n,
                bool no_special, added_search *search, added_match *out) {
    if (!trie->nodes) {
        return false;
    }
    size_t at = search->at;
    while (at < n) {
        if (!trie->root[(uint8_t)text[at]]) {
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
