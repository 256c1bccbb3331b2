/* gguf_tokenizer.c - tokenizer.json and tokenizer_config.json from a GGUF's vocabulary.
 *
 * Two models: "gpt2", byte-level BPE, whose merges the file lists and whose way to split text into
 * words it only names (tokenizer.ggml.pre, see gguf_splits.h); and "llama", SentencePiece BPE,
 * whose merges follow from the scores: every way to cut a token into two tokens is a merge, and
 * merges rank by the score of what they make. */
#include "format/gguf_impl.h"
#include "format/gguf_splits.h"

#include <stdlib.h>
#include <string.h>

/* tokenizer.ggml.token_type */
enum { TOKEN_NORMAL = 1, TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_USER, TOKEN_UNUSED, TOKEN_BYTE };

/* Longer tokens are not cut into merges; real ones stay below 200 bytes. */
#define MERGE_MAX_BYTES 1024
/* Merges together are text of at most this size; those of 262,144 real tokens take 15 MB. Tokens of
 * one letter, each longer by one, make the square of their length. */
#define MERGES_MAX_BYTES ((size_t)128 << 20)

typedef struct token {
    const char *text;
    size_t n_bytes;
    int type;
    bool shadowed; /* a later token has the same text and gets its place */
} token;

typedef struct vocabulary {
    const gguf_file *g;
    token *tokens;
    size_t n;
    strmap by_text;
    const gguf_value *scores; /* NULL: none */
    bool add_bos, add_eos;
    token bos, eos; /* text NULL: none */
    int64_t bos_id, eos_id;
} vocabulary;

static jang_status find_split(const gguf_split **out, const gguf_file *g) {
    const char *name;
    size_t n;
    jang_status status = gguf_get_string(&name, &n, g, "tokenizer.ggml.pre");
    if (status != JANG_OK) {
        return status;
    }
    const gguf_split *found = name ? gguf_split_named(name, n) : gguf_splits;
    if (found) {
        *out = found;
        return JANG_OK;
    }
    buf known;
    buf_init(&known, g->ctx, 2048);
    for (const gguf_split *s = gguf_splits; s->name; s++) {
        buf_printf(&known, "%s%s", s > gguf_splits ? ", " : "", s->name);
    }
    status = ctx_fail(g->ctx, JANG_ERR_UNSUPPORTED,
                      "%s: tokenizer.ggml.pre \"%.*s\" is not known; known are %s", g->path,
                      (int)(n < 40 ? n : 40), name, known.data);
    buf_free(&known);
    return status;
}

/* ---- Vocabulary ---- */

static jang_status read_special(token *out, int64_t *id, const gguf_file *g, const char *key) {
    return gguf_special_token(&out->text, &out->n_bytes, id, g, key);
}

jang_status gguf_special_token(const char **text, size_t *n_bytes, int64_t *id, const gguf_file *g,
                               const char *key) {
    const gguf_value *list;
    jang_status status = gguf_get_int(id, g, key, -1, 0, UINT32_MAX);
    if (status == JANG_OK) {
        status = gguf_get_array(&list, g, "tokenizer.ggml.tokens", GGUF_STRING);
    }
    if (status != JANG_OK) {
        return status;
    }
    *text = NULL;
    *n_bytes = 0;
    if (*id == UINT32_MAX || *id < 0 || !list) { /* some files write -1 */
        return JANG_OK;
    }
    if ((uint64_t)*id >= list->n_items) {
        return ctx_fail(g->ctx, JANG_ERR_FORMAT,
                        "%s: metadata %s: token %lld, the vocabulary has %llu", g->path, key,
                        (long long)*id, (unsigned long long)list->n_items);
    }
    size_t at = 0;
    for (int64_t i = 0; i <= *id; i++) {
        *text = gguf_next_string(list, &at, n_bytes);
    }
    return JANG_OK;
}

static jang_status read_tokens(vocabulary *v, const gguf_value *list, const gguf_value *types) {
    ctx_t *ctx = v->g->ctx;
    v->tokens = ctx_array(ctx, (size_t)list->n_items, sizeof *v->tokens);
    if (!v->tokens) {
        return ctx_fail_memory(ctx, (size_t)list->n_items * sizeof *v->tokens);
    }
    jang_status status = strmap_reserve(&v->by_text, (size_t)list->n_items);
    size_t at = 0;
    for (uint64_t i = 0; status == JANG_OK && i < list->n_items; i++) {
        token *t = &v->tokens[i];
        *t = (token){.type = types ? (int)gguf_item_number(types, i) : TOKEN_NORMAL};
        t->text = gguf_next_string(list, &at, &t->n_bytes);
        int32_t old = -1;
        if (memchr(t->text, 0, t->n_bytes)) {
            return ctx_fail(ctx, JANG_ERR_FORMAT,
                            "%s: tokenizer.ggml.tokens: token %llu holds a 0 byte", v->g->path,
                            (unsigned long long)i);
        }
        status = strmap_put(&v->by_text, t->text, t->n_bytes, (int32_t)i, &old);
        if (old >= 0) {
            v->tokens[old].shadowed = true;
        }
        v->n++;
    }
    return status;
}

static jang_status read_vocabulary(vocabulary *v, const gguf_value *list) {
    const gguf_file *g = v->g;
    const gguf_value *types;
    jang_status status = gguf_get_array(&types, g, "tokenizer.ggml.token_type", GGUF_I32);
    if (status == JANG_OK) {
        status = gguf_get_array(&v->scores, g, "tokenizer.ggml.scores", GGUF_F32);
    }
    if (status == JANG_OK &&
        ((types && types->n_items != list->n_items) ||
         (v->scores && v->scores->n_items != list->n_items) || list->n_items > INT32_MAX)) {
        status = ctx_fail(g->ctx, JANG_ERR_FORMAT,
                          "%s: %llu tokens, but another number of types or scores", g->path,
                          (unsigned long long)list->n_items);
    }
    if (status == JANG_OK) {
        status = read_tokens(v, list, types);
    }
    if (status == JANG_OK) {
        status = read_special(&v->bos, &v->bos_id, g, "tokenizer.ggml.bos_token_id");
    }
    if (status == JANG_OK) {
        status = read_special(&v->eos, &v->eos_id, g, "tokenizer.ggml.eos_token_id");
    }
    return status;
}

/* ---- Writing JSON ---- */

/* Control tokens are special; tokens of the user's are found in the text but are no command. */
static void put_added_tokens(buf *b, const vocabulary *v) {
    bool first = true;
    buf_puts(b, "\"added_tokens\":[");
    for (size_t i = 0; i < v->n; i++) {
        const token *t = &v->tokens[i];
        bool special = t->type == TOKEN_CONTROL || t->type == TOKEN_UNKNOWN;
        if (t->shadowed || !t->n_bytes || (!special && t->type != TOKEN_USER)) {
            continue;
        }
        buf_printf(b, "%s\n{\"id\":%zu,\"content\":", first ? "" : ",", i);
        json_write_string(b, t->text, t->n_bytes);
        buf_printf(b,
                   ",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,"
                   "\"special\":%s}",
                   special ? "true" : "false");
        first = false;
    }
    buf_puts(b, "],\n");
}

static void put_vocabulary(buf *b, const vocabulary *v) {
    bool first = true;
    buf_puts(b, "\"vocab\":{");
    for (size_t i = 0; i < v->n; i++) {
        const token *t = &v->tokens[i];
        if (!t->shadowed) {
            buf_puts(b, first ? "\n" : ",\n");
            json_write_string(b, t->text, t->n_bytes);
            buf_printf(b, ":%zu", i);
            first = false;
        }
    }
    buf_puts(b, "},\n");
}

static void put_template_item(buf *b, const token *t, int type_id) {
    buf_puts(b, "{\"SpecialToken\":{\"id\":");
    json_write_string(b, t->text, t->n_bytes);
    buf_printf(b, ",\"type_id\":%d}}", type_id);
}

/* begin-of-text, the text, end-of-text, for one text or for each of two. */
static void put_template(buf *b, const vocabulary *v, int n_texts) {
    buf_putc(b, '[');
    for (int i = 0; i < n_texts; i++) {
        buf_puts(b, i ? "," : "");
        if (v->add_bos) {
            put_template_item(b, &v->bos, i);
            buf_putc(b, ',');
        }
        buf_printf(b, "{\"Sequence\":{\"id\":\"%c\",\"type_id\":%d}}", 'A' + i, i);
        if (v->add_eos) {
            buf_putc(b, ',');
            put_template_item(b, &v->eos, i);
        }
    }
    buf_putc(b, ']');
}

static void put_special(buf *b, const token *t, int64_t id) {
    json_write_string(b, t->text, t->n_bytes);
    buf_puts(b, ":{\"id\":");
    json_write_string(b, t->text, t->n_bytes);
    buf_printf(b, ",\"ids\":[%lld],\"tokens\":[", (long long)id);
    json_write_string(b, t->text, t->n_bytes);
    buf_puts(b, "]}");
}

static void put_post_processor(buf *b, const vocabulary *v) {
    buf_puts(b, "\"post_processor\":");
    if (!v->add_bos && !v->add_eos) {
        buf_puts(b, "null,\n");
        return;
    }
    buf_puts(b, "{\"type\":\"TemplateProcessing\",\"single\":");
    put_template(b, v, 1);
    buf_puts(b, ",\"pair\":");
    put_template(b, v, 2);
    buf_puts(b, ",\"special_tokens\":{");
    if (v->add_bos) {
        put_special(b, &v->bos, v->bos_id);
    }
    if (v->add_eos && !(v->add_bos && v->eos_id == v->bos_id)) {
        buf_puts(b, v->add_bos ? "," : "");
        put_special(b, &v->eos, v->eos_id);
    }
    buf_puts(b, "}},\n");
}

static void put_model_start(buf *b, const char *unknown, size_t n_unknown, bool sentencepiece,
                            bool ignore_merges) {
    buf_puts(b, "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":");
    if (unknown) {
        json_write_string(b, unknown, n_unknown);
    } else {
        buf_puts(b, "null");
    }
    buf_printf(b,
               ",\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":%s,"
               "\"byte_fallback\":%s,\"ignore_merges\":%s,\n",
               sentencepiece ? "true" : "false", sentencepiece ? "true" : "false",
               ignore_merges ? "true" : "false");
}

static void put_merge(buf *b, bool first, const char *left, size_t n_left, const char *right,
                      size_t n_right) {
    buf_puts(b, first ? "\n[" : ",\n[");
    json_write_string(b, left, n_left);
    buf_putc(b, ',');
    json_write_string(b, right, n_right);
    buf_putc(b, ']');
}

/* Whether add_bos_token and add_eos_token put anything there. */
static jang_status read_template_flags(vocabulary *v, bool add_bos) {
    jang_status status = gguf_get_bool(&v->add_bos, v->g, "tokenizer.ggml.add_bos_token", add_bos);
    if (status == JANG_OK) {
        status = gguf_get_bool(&v->add_eos, v->g, "tokenizer.ggml.add_eos_token", false);
    }
    v->add_bos = v->add_bos && v->bos.text;
    v->add_eos = v->add_eos && v->eos.text;
    return status;
}

/* ---- Byte-level BPE ---- */

static jang_status put_listed_merges(buf *b, const gguf_file *g) {
    const gguf_value *merges;
    jang_status status = gguf_get_array(&merges, g, "tokenizer.ggml.merges", GGUF_STRING);
    if (status == JANG_OK && !merges) {
        status =
            ctx_fail(g->ctx, JANG_ERR_FORMAT, "%s: no metadata tokenizer.ggml.merges", g->path);
    }
    size_t at = 0;
    buf_puts(b, "\"merges\":[");
    for (uint64_t i = 0; status == JANG_OK && i < merges->n_items; i++) {
        size_t n;
        const char *text = gguf_next_string(merges, &at, &n);
        const char *space = n > 1 ? memchr(text + 1, ' ', n - 1) : NULL;
        if (!space || space + 1 == text + n) {
            return ctx_fail(g->ctx, JANG_ERR_FORMAT,
                            "%s: tokenizer.ggml.merges: entry %llu is not two parts with a space "
                            "between",
                            g->path, (unsigned long long)i);
        }
        put_merge(b, i == 0, text, (size_t)(space - text), space + 1,
                  n - (size_t)(space - text) - 1);
    }
    buf_puts(b, "]}}\n");
    return status;
}

static jang_status make_byte_level(buf *b, vocabulary *v) {
    const gguf_split *s = NULL;
    jang_status status = find_split(&s, v->g);
    if (status == JANG_OK) {
        status = read_template_flags(v, s->add_bos);
    }
    if (status != JANG_OK) {
        return status;
    }
    put_added_tokens(b, v);
    buf_printf(b, "\"normalizer\":%s,\n\"pre_tokenizer\":%s,\n",
               s->nfc ? "{\"type\":\"NFC\"}" : "null", s->words);
    put_post_processor(b, v);
    buf_puts(b,
             "\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,"
             "\"use_regex\":true},\n");
    put_model_start(b, NULL, 0, false, s->ignore_merges);
    put_vocabulary(b, v);
    return put_listed_merges(b, v->g);
}

/* ---- SentencePiece BPE ---- */

typedef struct merge {
    int32_t left, right, whole;
    float score;
    uint32_t n_left, n_whole; /* characters */
} merge;

/* By the score of the whole, falling; then by the lengths of the left part and of the right part in
 * characters, falling; then by id. This is the order in which transformers writes them. */
static int compare_merges(const void *a, const void *b) {
    const merge *p = a, *q = b;
    if (p->score != q->score) {
        return p->score > q->score ? -1 : 1;
    }
    if (p->n_left != q->n_left) {
        return p->n_left > q->n_left ? -1 : 1;
    }
    if (p->n_whole != q->n_whole) {
        return p->n_whole > q->n_whole ? -1 : 1;
    }
    if (p->whole != q->whole) {
        return p->whole < q->whole ? -1 : 1;
    }
    return p->left < q->left ? -1 : p->left > q->left;
}

typedef struct merge_list {
    ctx_t *ctx;
    merge *items;
    size_t n, capacity;
} merge_list;

static jang_status add_merge(merge_list *l, merge m) {
    if (l->n == l->capacity) {
        size_t capacity = l->capacity ? l->capacity * 2 : 4096;
        merge *items = ctx_realloc(l->ctx, l->items, capacity * sizeof *items);
        if (!items) {
            return ctx_fail_memory(l->ctx, capacity * sizeof *items);
        }
        l->items = items;
        l->capacity = capacity;
    }
    l->items[l->n++] = m;
    return JANG_OK;
}

static bool is_piece(const token *t) {
    return t->type == TOKEN_NORMAL || t->type == TOKEN_USER || t->type == TOKEN_UNUSED;
}

static uint32_t count_characters(const char *text, size_t n_bytes) {
    uint32_t n = 0;
    for (size_t i = 0; i < n_bytes; i++) {
        n += ((unsigned char)text[i] & 0xc0) != 0x80;
    }
    return n;
}

/* All cuts of token i into two tokens, at the borders of characters. */
static jang_status cut_token(merge_list *l, const vocabulary *v, int32_t i) {
    const token *t = &v->tokens[i];
    uint32_t n_characters = 0, n_whole = count_characters(t->text, t->n_bytes);
    if (!is_piece(t) || t->shadowed || t->n_bytes > MERGE_MAX_BYTES) {
        return JANG_OK;
    }
    for (size_t cut = 1; cut < t->n_bytes; cut++) {
        if (((unsigned char)t->text[cut] & 0xc0) == 0x80) {
            continue;
        }
        n_characters++;
        int32_t left = strmap_get(&v->by_text, t->text, cut);
        int32_t right = left < 0 ? -1 : strmap_get(&v->by_text, t->text + cut, t->n_bytes - cut);
        if (right < 0) {
            continue;
        }
        float score = v->scores ? (float)gguf_item_number(v->scores, (uint64_t)i) : -(float)i;
        merge m = {left, right, i, score == score ? score : 0.0f, n_characters, n_whole};
        jang_status status = add_merge(l, m);
        if (status != JANG_OK) {
            return status;
        }
    }
    return JANG_OK;
}

static jang_status put_scored_merges(buf *b, const vocabulary *v) {
    merge_list list = {.ctx = v->g->ctx};
    jang_status status = JANG_OK;
    for (size_t i = 0; status == JANG_OK && i < v->n; i++) {
        status = cut_token(&list, v, (int32_t)i);
    }
    if (list.n) {
        qsort(list.items, list.n, sizeof *list.items, compare_merges);
    }
    size_t at = b->size;
    buf_puts(b, "\"merges\":[");
    for (size_t i = 0; status == JANG_OK && i < list.n; i++) {
        const token *left = &v->tokens[list.items[i].left],
                    *right = &v->tokens[list.items[i].right];
        put_merge(b, i == 0, left->text, left->n_bytes, right->text, right->n_bytes);
        if (b->size - at > MERGES_MAX_BYTES) {
            status = ctx_fail(list.ctx, JANG_ERR_FORMAT,
                              "%s: tokenizer.ggml.tokens: the merges of %zu tokens take more than "
                              "%zu MiB",
                              v->g->path, v->n, MERGES_MAX_BYTES >> 20);
        }
    }
    buf_puts(b, "]}}\n");
    ctx_free(list.ctx, list.items);
    return status;
}

static jang_status make_sentencepiece(buf *b, vocabulary *v) {
    bool add_space;
    token unknown = {0};
    int64_t id;
    jang_status status = gguf_get_bool(&add_space, v->g, "tokenizer.ggml.add_space_prefix", true);
    if (status == JANG_OK) {
        status = read_special(&unknown, &id, v->g, "tokenizer.ggml.unknown_token_id");
    }
    if (status == JANG_OK) {
        status = read_template_flags(v, true);
    }
    if (status != JANG_OK) {
        return status;
    }
    put_added_tokens(b, v);
    buf_printf(b,
               "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[%s{\"type\":\"Replace\","
               "\"pattern\":{\"String\":\" \"},\"content\":\"\xe2\x96\x81\"}]},\n"
               "\"pre_tokenizer\":null,\n",
               add_space ? "{\"type\":\"Prepend\",\"prepend\":\"\xe2\x96\x81\"}," : "");
    put_post_processor(b, v);
    buf_printf(b,
               "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":"
               "{\"String\":\"\xe2\x96\x81\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},"
               "{\"type\":\"Fuse\"}%s]},\n",
               add_space ? ",{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}" : "");
    put_model_start(b, unknown.text, unknown.n_bytes, true, false);
    put_vocabulary(b, v);
    return put_scored_merges(b, v);
}

/* ---- tokenizer.json ---- */

static jang_status make_tokenizer(buf *b, vocabulary *v) {
    const char *model;
    size_t n;
    jang_status status = gguf_get_string(&model, &n, v->g, "tokenizer.ggml.model");
    if (status != JANG_OK) {
        return status;
    }
    buf_puts(b, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\n");
    if (model && n == 4 && memcmp(model, "gpt2", 4) == 0) {
        return make_byte_level(b, v);
    }
    if (model && n == 5 && memcmp(model, "llama", 5) == 0) {
        return make_sentencepiece(b, v);
    }
    return ctx_fail(v->g->ctx, JANG_ERR_UNSUPPORTED,
                    "%s: tokenizer.ggml.model \"%.*s\" is not known; gpt2 and llama are",
                    v->g->path, (int)(n < 40 ? n : 40), model ? model : "");
}

jang_status gguf_tokenizer_json(const char **text, size_t *n_bytes, gguf_file *g) {
    const gguf_value *list;
    jang_status status = gguf_get_array(&list, g, "tokenizer.ggml.tokens", GGUF_STRING);
    if (status != JANG_OK) {
        return status;
    }
    if (list && !g->tokenizer_json) {
        vocabulary v = {.g = g};
        buf b;
        buf_init(&b, g->ctx, BUF_NO_LIMIT);
        strmap_init(&v.by_text, g->ctx);
        status = read_vocabulary(&v, list);
        if (status == JANG_OK) {
            status = make_tokenizer(&b, &v);
        }
        if (status == JANG_OK) {
            status = buf_take(&b, &g->tokenizer_json, &g->n_tokenizer_json);
        }
        buf_free(&b);
        strmap_free(&v.by_text);
        ctx_free(g->ctx, v.tokens);
        if (status != JANG_OK) {
            return status;
        }
    }
    *text = g->tokenizer_json;
    *n_bytes = g->n_tokenizer_json;
    return JANG_OK;
}

/* ---- tokenizer_config.json ---- */

static jang_status set_text(json_t *config, ctx_t *ctx, const char *key, const char *text,
                            size_t n) {
    json_t *value = text ? json_stringn(text, n) : NULL;
    if (text && (!value || json_object_set_new(config, key, value) != 0)) {
        return ctx_fail_memory(ctx, n);
    }
    return JANG_OK;
}

static jang_status set_special_tokens(json_t *config, const gguf_file *g) {
    static const struct {
        const char *gguf, *hf;
    } names[] = {
        {"tokenizer.ggml.bos_token_id", "bos_token"},
        {"tokenizer.ggml.eos_token_id", "eos_token"},
        {"tokenizer.ggml.unknown_token_id", "unk_token"},
        {"tokenizer.ggml.padding_token_id", "pad_token"},
    };
    jang_status status = JANG_OK;
    for (size_t i = 0; status == JANG_OK && i < sizeof names / sizeof names[0]; i++) {
        const char *text;
        size_t n;
        int64_t id;
        status = gguf_special_token(&text, &n, &id, g, names[i].gguf);
        if (status == JANG_OK) {
            status = set_text(config, g->ctx, names[i].hf, text, n);
        }
    }
    return status;
}

static jang_status fill_tokenizer_config(json_t *config, gguf_file *g) {
    const char *text;
    size_t n;
    jang_status status = set_special_tokens(config, g);
    if (status == JANG_OK) {
        status = gguf_get_string(&text, &n, g, "tokenizer.chat_template");
    }
    if (status == JANG_OK) {
        status = set_text(config, g->ctx, "chat_template", text, n);
    }
    const json_t *model;
    if (status == JANG_OK) {
        status = gguf_config(&model, g);
    }
    json_t *longest = status == JANG_OK ? json_object_get(model, "max_position_embeddings") : NULL;
    if (status == JANG_OK && json_object_set(config, "model_max_length", longest) != 0) {
        status = ctx_fail_memory(g->ctx, 64);
    }
    return status;
}

jang_status gguf_tokenizer_config(const json_t **out, gguf_file *g) {
    if (!g->tokenizer_config) {
        json_t *config = json_pack("{s:s,s:b}", "tokenizer_class", "PreTrainedTokenizerFast",
                                   "clean_up_tokenization_spaces", 0);
        jang_status status =
            config ? fill_tokenizer_config(config, g) : ctx_fail_memory(g->ctx, 256);
        if (status != JANG_OK) {
            json_decref(config);
            return status;
        }
        g->tokenizer_config = config;
    }
    *out = g->tokenizer_config;
    return JANG_OK;
}
