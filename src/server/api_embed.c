/* api_embed.c - texts to vectors and to scores: OpenAI's embeddings, Ollama's embed, rerank. */
#include "api.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INPUTS_MAX 2048

typedef enum embed_kind { EMBED_OPENAI, EMBED_OLLAMA, EMBED_OLLAMA_ONE, EMBED_RERANK } embed_kind;

/* What came of each input. */
typedef struct vectors {
    embed_kind kind;
    float **rows; /* [n_rows] of n numbers each */
    size_t n_rows, n;
    size_t n_wanted; /* dimensions; 0: all */
    bool base64, return_documents;
    size_t top_n;
    int32_t choices[2]; /* rerank: yes, no */
} vectors;

static void release(reply *r) {
    vectors *v = r->own;
    for (size_t i = 0; i < v->n_rows; i++) {
        free(v->rows[i]);
    }
    free(v->rows);
}

static void on_values(answer *a, const float *values, size_t n) {
    vectors *v = a->reply->own;
    size_t i = (size_t)a->index;
    if (i < v->n_rows && !v->rows[i]) {
        v->rows[i] = malloc((n + 1) * sizeof **v->rows);
        if (v->rows[i]) {
            memcpy(v->rows[i], values, n * sizeof *values);
            v->n = n;
        }
    }
}

/* ---- Writing vectors ---- */

/* Cut to so many numbers and brought to unit length again. */
static size_t shorten(const vectors *v, float *row) {
    size_t n = v->n_wanted && v->n_wanted < v->n ? v->n_wanted : v->n;
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)row[i] * (double)row[i];
    }
    for (size_t i = 0; n < v->n && sum > 0 && i < n; i++) {
        row[i] = (float)((double)row[i] / sqrt(sum));
    }
    return n;
}

static void put_base64(jw *w, const float *row, size_t n) {
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    tbuf text = {0};
    const unsigned char *p =
        (const unsigned char *)row; /* little-endian, as all machines we run on */
    size_t n_bytes = n * sizeof *row;
    for (size_t i = 0; i < n_bytes; i += 3) {
        size_t left = n_bytes - i;
        unsigned v = (unsigned)p[i] << 16 | (left > 1 ? (unsigned)p[i + 1] << 8 : 0) |
                     (left > 2 ? p[i + 2] : 0u);
        tbuf_putc(&text, letters[v >> 18]);
        tbuf_putc(&text, letters[v >> 12 & 63]);
        tbuf_putc(&text, left > 1 ? letters[v >> 6 & 63] : '=');
        tbuf_putc(&text, left > 2 ? letters[v & 63] : '=');
    }
    jw_bytes(w, "embedding", tbuf_text(&text), text.n);
    tbuf_free(&text);
}

static void put_numbers(jw *w, const char *key, const float *row, size_t n) {
    jw_open(w, key, '[');
    for (size_t i = 0; i < n; i++) {
        jw_real(w, NULL, (double)row[i]);
    }
    jw_close(w);
}

static void write_openai(jw *w, const reply *r, vectors *v) {
    jw_text(w, "object", "list");
    jw_open(w, "data", '[');
    for (size_t i = 0; i < v->n_rows; i++) {
        size_t n = shorten(v, v->rows[i]);
        jw_open(w, NULL, '{');
        jw_text(w, "object", "embedding");
        jw_int(w, "index", (int64_t)i);
        if (v->base64) {
            put_base64(w, v->rows[i], n);
        } else {
            put_numbers(w, "embedding", v->rows[i], n);
        }
        jw_close(w);
    }
    jw_close(w);
    jw_text(w, "model", r->g.model->id);
    jw_open(w, "usage", '{');
    jw_int(w, "prompt_tokens", r->n_prompt);
    jw_int(w, "total_tokens", r->n_prompt);
    jw_close(w);
}

static void write_ollama(jw *w, const reply *r, vectors *v) {
    jw_text(w, "model", r->g.model->id);
    jw_open(w, "embeddings", '[');
    for (size_t i = 0; i < v->n_rows; i++) {
        put_numbers(w, NULL, v->rows[i], shorten(v, v->rows[i]));
    }
    jw_close(w);
    jw_int(w, "prompt_eval_count", r->n_prompt);
}

/* ---- Writing scores ---- */

static const char *document_text(json_t *document) {
    const char *text = json_string_value(document);
    return text ? text : json_string_value(json_object_get(document, "text"));
}

/* A classifier's scores become a number between 0 and 1: of one by the logistic function, of two
 * the second's share. Of yes and no it is one already. */
static void relate(const reply *r, vectors *v) {
    for (size_t i = 0; r->g.r.task == JANG_TASK_LABEL && i < v->n_rows; i++) {
        float *row = v->rows[i];
        double x = v->n == 2 ? (double)row[1] - (double)row[0] : (double)row[0];
        row[0] = (float)(1 / (1 + exp(-x)));
    }
}

static void write_rerank(jw *w, const reply *r, const vectors *v) {
    json_t *documents = json_object_get(r->g.body, "documents");
    bool *told = calloc(v->n_rows + 1, sizeof *told);
    jw_text(w, "id", r->id);
    jw_text(w, "model", r->g.model->id);
    jw_open(w, "results", '[');
    for (size_t k = 0; told && k < v->n_rows && k < v->top_n; k++) {
        size_t best = v->n_rows;
        for (size_t i = 0; i < v->n_rows; i++) {
            if (!told[i] && (best == v->n_rows || v->rows[i][0] > v->rows[best][0])) {
                best = i;
            }
        }
        told[best] = true;
        jw_open(w, NULL, '{');
        jw_int(w, "index", (int64_t)best);
        jw_real(w, "relevance_score", (double)v->rows[best][0]);
        if (v->return_documents) {
            jw_open(w, "document", '{');
            jw_text(w, "text", document_text(json_array_get(documents, best)));
            jw_close(w);
        }
        jw_close(w);
    }
    jw_close(w);
    jw_open(w, "usage", '{');
    jw_int(w, "total_tokens", r->n_prompt);
    jw_close(w);
    free(told);
}

static void on_finish(reply *r) {
    vectors *v = r->own;
    tbuf out = {0};
    jw w = jw_start(&out);
    for (size_t i = 0; i < v->n_rows; i++) {
        if (!v->rows[i]) {
            out.failed = true;
            api_reply_json(r->server, r->x, 503, &out);
            return;
        }
    }
    jw_open(&w, NULL, '{');
    if (v->kind == EMBED_OPENAI) {
        write_openai(&w, r, v);
    } else if (v->kind == EMBED_OLLAMA) {
        write_ollama(&w, r, v);
    } else if (v->kind == EMBED_OLLAMA_ONE) {
        put_numbers(&w, "embedding", v->rows[0], v->n);
    } else {
        relate(r, v);
        write_rerank(&w, r, v);
    }
    jw_close(&w);
    api_reply_json(r->server, r->x, 200, &out);
}

static const dialect embed_dialect = {
    .family = API_OPENAI, .values = on_values, .finish = on_finish, .release = release};
static const dialect ollama_embed_dialect = {
    .family = API_OLLAMA, .values = on_values, .finish = on_finish, .release = release};

/* ---- Reading ---- */

static bool make_room(gen_request *g, api_error *e, size_t n) {
    g->prompts = calloc(n + 1, sizeof *g->prompts);
    g->prompt_lengths = calloc(n + 1, sizeof *g->prompt_lengths);
    return (g->prompts && g->prompt_lengths) ||
           api_fail(e, 503, "out_of_memory", NULL, "out of memory");
}

static bool add_text(server *s, gen_request *g, api_error *e, const char *text, unsigned flags) {
    size_t n = 0;
    int32_t *ids = prompt_ids(s, g, e, text, strlen(text), flags, &n);
    if (ids) {
        g->prompts[g->n_prompts] = ids;
        g->prompt_lengths[g->n_prompts++] = n;
    }
    return ids != NULL;
}

static bool add_ids(gen_request *g, const json_in *in, const char *key, json_t *list) {
    size_t n = json_array_size(list);
    int32_t *ids = malloc((n + 1) * sizeof *ids);
    bool ok = ids != NULL && n > 0;
    for (size_t i = 0; ok && i < n; i++) {
        json_int_t id = json_integer_value(json_array_get(list, i));
        ok = json_is_integer(json_array_get(list, i)) && id >= 0 &&
             id < jang_tokenizer_size(g->model->tok);
        ids[i] = (int32_t)id;
    }
    if (!ok) {
        free(ids);
        return in_wrong(in, key, "a text or token ids of this model", list);
    }
    g->prompts[g->n_prompts] = ids;
    g->prompt_lengths[g->n_prompts++] = n;
    return true;
}

/* Leaves n of n_ids; what the tokenizer puts behind every text stays at the end. */
static void cut(server *s, const hosted *h, int32_t *ids, size_t n_ids, size_t n) {
    int32_t *none = NULL;
    size_t n_none = 0;
    if (jang_tokenize(&none, &n_none, h->tok, "", 0, JANG_TOKENIZE_ADD_SPECIAL) == JANG_OK &&
        n_none && n && none[n_none - 1] == ids[n_ids - 1]) {
        ids[n - 1] = ids[n_ids - 1];
    }
    jang_free(s->ctx, none);
}

/* truncate: what is too long for the context is cut, not refused. */
static void read_inputs(server *s, gen_request *g, const json_in *in, const char *key,
                        bool truncate) {
    json_t *input = in_get(g->body, key);
    bool is_list = json_is_array(input) && !json_is_integer(json_array_get(input, 0));
    size_t n = is_list ? json_array_size(input) : 1;
    if (!(json_is_string(input) || json_is_array(input)) || !n || n > INPUTS_MAX) {
        in_wrong(in, key, "a text, token ids, or a list of up to 2048 of either", input);
        return;
    }
    make_room(g, in->error, n);
    size_t most = truncate ? (size_t)g->model->n_context : SIZE_MAX;
    for (size_t i = 0; !in->error->status && i < n; i++) {
        json_t *one = is_list ? json_array_get(input, i) : input;
        if (json_is_string(one) && json_string_length(one)) {
            add_text(s, g, in->error, json_string_value(one), JANG_TOKENIZE_ADD_SPECIAL);
        } else if (json_is_array(one)) {
            add_ids(g, in, key, one);
        } else {
            in_wrong(in, key, "a text, token ids, or a list of up to 2048 of either", one);
        }
        size_t *length = &g->prompt_lengths[i];
        if (!in->error->status && *length > most) {
            cut(s, g->model, g->prompts[i], *length, most);
            *length = most;
        }
    }
}

static void begin(server *s, http_exchange *x, gen_request *g, api_error *e, vectors *v) {
    bool ollama = v && (v->kind == EMBED_OLLAMA || v->kind == EMBED_OLLAMA_ONE);
    if (!v) {
        api_fail(e, 503, "out_of_memory", NULL, "out of memory");
    }
    if (v && !e->status) {
        v->n_rows = g->n_prompts;
        v->rows = calloc(g->n_prompts + 1, sizeof *v->rows);
        if (!v->rows) {
            api_fail(e, 503, "out_of_memory", NULL, "out of memory");
        }
    }
    if (e->status) {
        free(v);
        gen_request_free(g);
        api_reply_error(s, x, ollama ? API_OLLAMA : API_OPENAI, e);
        return;
    }
    g->stream = false;
    g->r.n = 1;
    reply *r = gen_start(s, x, ollama ? &ollama_embed_dialect : &embed_dialect, g, "rank-");
    if (r) {
        r->own = v;
    } else {
        free(v->rows);
        free(v);
    }
}

static void embed(server *s, http_exchange *x, embed_kind kind) {
    static const char *const encodings[] = {"float", "base64", NULL};
    bool ollama = kind != EMBED_OPENAI;
    api_error e = {0};
    json_in in = {&e, ""};
    json_t *body = api_read_body(s, x, ollama ? API_OLLAMA : API_OPENAI);
    if (!body) {
        return;
    }
    gen_request g;
    gen_request_init(&g, s, &e, body, true);
    vectors *v = calloc(1, sizeof *v);
    int encoding = 0;
    int64_t dimensions = 0;
    in_choice(&in, body, "encoding_format", encodings, &encoding);
    in_int(&in, body, "dimensions", 1, g.model->info->n_embedding, &dimensions);
    bool truncate = ollama;
    if (ollama) {
        in_bool(&in, body, "truncate", &truncate);
    }
    read_inputs(s, &g, &in, kind == EMBED_OLLAMA_ONE ? "prompt" : "input", truncate);
    g.r.task = JANG_TASK_EMBED;
    if (v) {
        v->kind = kind;
        v->base64 = encoding == 1;
        v->n_wanted = (size_t)dimensions;
    }
    begin(s, x, &g, &e, v);
}

void embed_openai(server *s, http_exchange *x, const char *rest) {
    (void)rest;
    embed(s, x, EMBED_OPENAI);
}

void embed_ollama(server *s, http_exchange *x, const char *rest) {
    (void)rest;
    embed(s, x, EMBED_OLLAMA);
}

void embed_ollama_one(server *s, http_exchange *x, const char *rest) {
    (void)rest;
    embed(s, x, EMBED_OLLAMA_ONE);
}

/* ---- Rerank: a classifier's score of the pair, or the model is asked, and the logits of yes and
 * no answer ---- */

static int32_t first_id(server *s, const hosted *h, const char *word) {
    int32_t *ids = NULL, id = -1;
    size_t n = 0;
    if (jang_tokenize(&ids, &n, h->tok, word, strlen(word), 0) == JANG_OK && n) {
        id = ids[0];
    }
    jang_free(s->ctx, ids);
    return id;
}

static bool add_question(server *s, gen_request *g, api_error *e, const char *query,
                         const char *document) {
    /* as Qwen's rerankers were trained; other models understand it too */
    static const char rule[] =
        "Judge whether the Document meets the requirements based on the Query and the Instruct "
        "provided. Note that the answer can only be \"yes\" or \"no\".";
    static const char task[] =
        "Given a web search query, retrieve relevant passages that answer the query";
    tbuf text = {0};
    tbuf_printf(&text, "<Instruct>: %s\n<Query>: %s\n<Document>: %s", task, query, document);
    gen_request q = {.model = g->model, .is_chat = true, .body = g->body};
    q.kwargs = json_pack("{s:b}", "enable_thinking", 0);
    q.messages = json_pack("[{s:s,s:s},{s:s,s:s}]", "role", "system", "content", rule, "role",
                           "user", "content", tbuf_text(&text));
    char *prompt = NULL;
    size_t n = 0;
    bool ok = true;
    if (g->model->info->has_chat_template) {
        ok = prompt_render(s, &q, e, &prompt, &n) && add_text(s, g, e, prompt, 0);
    } else {
        tbuf_puts(&text, "\n\nAnswers the document the query, yes or no? ");
        ok = add_text(s, g, e, tbuf_text(&text), JANG_TOKENIZE_ADD_SPECIAL);
    }
    free(prompt);
    json_decref(q.kwargs);
    json_decref(q.messages);
    tbuf_free(&text);
    return ok;
}

/* Query and document as one text of two parts, for encoders. */
static bool add_pair(server *s, gen_request *g, api_error *e, const char *query,
                     const char *document) {
    int32_t *ids = NULL, *types = NULL;
    size_t n = 0;
    jang_status status = jang_tokenize_pair(&ids, &types, &n, g->model->tok, query, strlen(query),
                                            document, strlen(document), JANG_TOKENIZE_ADD_SPECIAL);
    if (status != JANG_OK) {
        return api_fail(e, 503, "out_of_memory", NULL, "%s", jang_context_error(s->ctx));
    }
    if (!g->prompt_types) {
        g->prompt_types = calloc(INPUTS_MAX, sizeof *g->prompt_types);
    }
    int32_t *own_ids = malloc((n + 1) * sizeof *ids), *own_types = malloc((n + 1) * sizeof *types);
    bool ok = own_ids && own_types && g->prompt_types;
    if (ok) {
        memcpy(own_ids, ids, n * sizeof *ids);
        memcpy(own_types, types, n * sizeof *types);
        g->prompts[g->n_prompts] = own_ids;
        g->prompt_types[g->n_prompts] = own_types;
        g->prompt_lengths[g->n_prompts++] = n;
    } else {
        free(own_ids);
        free(own_types);
    }
    jang_free(s->ctx, ids);
    jang_free(s->ctx, types);
    return ok || api_fail(e, 503, "out_of_memory", NULL, "out of memory");
}

static void read_documents(server *s, gen_request *g, const json_in *in) {
    const char *query = NULL;
    json_t *documents = in_array(in, g->body, "documents");
    size_t n = json_array_size(documents);
    if (!in_text(in, g->body, "query", &query)) {
        in_wrong(in, "query", "a string", NULL);
    }
    if (!n || n > INPUTS_MAX) {
        in_wrong(in, "documents", "an array of up to 2048 documents", documents);
    }
    if (in->error->status || !make_room(g, in->error, n)) {
        return;
    }
    for (size_t i = 0; !in->error->status && i < n; i++) {
        const char *text = document_text(json_array_get(documents, i));
        char key[48];
        snprintf(key, sizeof key, "documents[%zu]", i);
        if (!text) {
            in_wrong(in, key, "a string or an object with text", json_array_get(documents, i));
        } else {
            bool pairs = g->model->info->n_label > 0 && g->model->info->is_encoder;
            (void)(pairs ? add_pair(s, g, in->error, query, text)
                         : add_question(s, g, in->error, query, text));
        }
    }
}

/* Which question the engine is asked of each prompt. */
static void choose_task(server *s, gen_request *g, vectors *v, api_error *e) {
    if (g->model->info->n_label > 2) {
        api_fail(e, 422, "unsupported", NULL, "a classifier of %d labels does not rank documents",
                 (int)g->model->info->n_label);
        return;
    }
    if (g->model->info->n_label > 0) {
        g->r.task = JANG_TASK_LABEL;
        return;
    }
    v->choices[0] = first_id(s, g->model, "yes");
    v->choices[1] = first_id(s, g->model, "no");
    if (v->choices[0] < 0 || v->choices[1] < 0 || v->choices[0] == v->choices[1]) {
        api_fail(e, 422, "unsupported", NULL, "this model has no tokens for yes and no");
    }
    g->r.task = JANG_TASK_SCORE;
    g->r.choices = v->choices;
    g->r.n_choices = 2;
}

void embed_rerank(server *s, http_exchange *x, const char *rest) {
    (void)rest;
    api_error e = {0};
    json_in in = {&e, ""};
    json_t *body = api_read_body(s, x, API_OPENAI);
    if (!body) {
        return;
    }
    gen_request g;
    gen_request_init(&g, s, &e, body, true);
    int64_t top_n = INPUTS_MAX;
    vectors *v = calloc(1, sizeof *v);
    in_int(&in, body, "top_n", 1, INPUTS_MAX, &top_n);
    read_documents(s, &g, &in);
    if (v) {
        v->kind = EMBED_RERANK;
        v->top_n = (size_t)top_n;
        in_bool(&in, body, "return_documents", &v->return_documents);
        choose_task(s, &g, v, &e);
    }
    begin(s, x, &g, &e, v);
}
