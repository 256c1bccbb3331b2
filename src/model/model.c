/* model.c - opening a model and running steps, whatever its family. */
#include "model/model.h"

#include "model/decoder.h"
#include "model/registry.h"
#include "model/survey.h"

#include <limits.h>
#include <string.h>

/* ---- Opening ---- */

/* The config that the family reads: the text model's where there are several. */
static jang_status find_config(loader *l, const model_family *family) {
    if (!family->text_config) {
        return JANG_OK;
    }
    const json_t *text;
    jang_status status = json_get_object(&text, l->config, "text_config");
    if (status == JANG_OK && text) {
        l->config = (json_at){l->ctx, "config.json: text_config", text};
    }
    return status;
}

static jang_status open_family(model *m, loader *l, const json_t *config) {
    const char *model_type;
    l->whole = l->config = (json_at){m->ctx, "config.json", config};
    jang_status status = json_get_string(&model_type, l->config, "model_type", NULL);
    if (status == JANG_OK && !model_type) {
        status = ctx_fail(m->ctx, JANG_ERR_FORMAT, "config.json: model_type is missing");
    }
    if (status == JANG_OK) {
        status = registry_find(&m->family, m->ctx, "config.json", model_type);
    }
    if (status != JANG_OK) {
        return status;
    }
    l->aliases = m->family->aliases;
    l->own_names = m->family->own_names;
    status = loader_find_prefix(l, m->family->embedding);
    if (status == JANG_OK) {
        status = find_config(l, m->family);
    }
    if (status == JANG_OK) {
        status = m->family->open ? m->family->open(m, l) : decoder_open_family(m, l, m->family);
    }
    m->facts.state_sizes = m->states.sizes;
    m->facts.n_state = m->states.n;
    return status == JANG_OK ? l->noted : status;
}

jang_status model_reserve_logits(model *m, int32_t n) {
    if (n <= m->logit_rows) {
        return JANG_OK;
    }
    int32_t wide = m->facts.n_vocab > m->facts.n_label ? m->facts.n_vocab : m->facts.n_label;
    ops_buf *logits;
    jang_status status =
        m->o->table->buf_new(&logits, m->o, (size_t)n * (size_t)wide * sizeof(float));
    if (status == JANG_OK) {
        if (m->logits) {
            m->o->table->buf_free(m->o, m->logits);
        }
        m->logits = logits;
        m->logit_rows = n;
    }
    return status;
}

/* What a model needs to run besides its weights. */
static jang_status make_room(model *m) {
    jang_status status = m->o->table->batch_new(&m->batch, m->o);
    return status == JANG_OK ? model_reserve_logits(m, MODEL_LOGIT_ROWS) : status;
}

jang_status model_open_from(model **out, ctx_t *ctx, checkpoint *c, ops *o,
                            const tensor_source *source, model_survey *survey) {
    model *m = ctx_zero(ctx, 1, sizeof *m);
    if (!m) {
        return ctx_fail_memory(ctx, sizeof *m);
    }
    m->ctx = ctx;
    m->o = o;
    loader l = {.ctx = ctx,
                .c = c,
                .source = source,
                .survey = survey,
                .o = o,
                .weights = &m->weights,
                .totals = &m->totals,
                .states = &m->states};
    const json_t *config;
    jang_status status = checkpoint_json(&config, c, "config.json");
    if (status == JANG_OK) {
        status = open_family(m, &l, config);
    }
    if (status == JANG_OK && !survey) {
        status = make_room(m);
    }
    if (status != JANG_OK) {
        model_close(m);
        return status;
    }
    *out = m;
    return JANG_OK;
}

jang_status model_open(model **out, ctx_t *ctx, checkpoint *c, ops *o) {
    return model_open_from(out, ctx, c, o, NULL, NULL);
}

void model_close(model *m) {
    if (!m) {
        return;
    }
    if (m->body) {
        m->body->close(m);
    }
    if (m->batch) {
        m->o->table->batch_free(m->o, m->batch);
    }
    m->o->table->buf_free(m->o, m->logits);
    ctx_free(m->ctx, m->states.sizes);
    weight_list_free(&m->weights, m->ctx, m->o);
    ctx_free(m->ctx, m);
}

const model_facts *model_get_facts(const model *m) {
    return &m->facts;
}

const model_totals *model_get_totals(const model *m) {
    return &m->totals;
}

static const kept_weight *find_kept(const model *m, const ops_weight *w) {
    for (size_t i = 0; i < m->weights.n; i++) {
        if (m->weights.items[i].w == w) {
            return &m->weights.items[i];
        }
    }
    return NULL;
}

const char *model_weight_name(const model *m, const ops_weight *w) {
    const kept_weight *kept = find_kept(m, w);
    return kept ? kept->name : NULL;
}

const weight_place *model_weight_place(const model *m, const ops_weight *w) {
    const kept_weight *kept = find_kept(m, w);
    return kept && kept->place.module ? &kept->place : NULL;
}

const char *model_get_family(const model *m) {
    return m->family->model_type;
}

/* ---- Cache ---- */

static bool keeps_kv(const model_facts *f) {
    for (int32_t i = 0; i < f->n_layer; i++) {
        if (f->kv_layers[i].n_kv_head) {
            return true;
        }
    }
    return false;
}

jang_status model_cache_new(model_cache *out, model *m, kv_type type) {
    const model_facts *f = &m->facts;
    model_cache cache = {.type = type};
    jang_status status = JANG_OK;
    if (keeps_kv(f)) {
        const kv_desc desc = {f->n_layer, f->kv_layers, type};
        status = m->o->table->kv_new(&cache.kv, m->o, &desc);
    }
    if (status == JANG_OK && f->n_state) {
        const state_desc desc = {f->n_state, f->state_sizes};
        status = m->o->table->state_new(&cache.state, m->o, &desc);
    }
    if (status != JANG_OK) {
        model_cache_free(&cache, m);
        return status;
    }
    *out = cache;
    return JANG_OK;
}

void model_cache_free(model_cache *cache, model *m) {
    if (cache->kv) {
        m->o->table->kv_free(m->o, cache->kv);
    }
    if (cache->state) {
        m->o->table->state_free(m->o, cache->state);
    }
    *cache = (model_cache){0};
}

jang_status model_cache_grow(model_cache *cache, model *m, int32_t n_pages, int32_t n_slots) {
    jang_status status = JANG_OK;
    if (cache->kv) {
        status = m->o->table->kv_grow(m->o, cache->kv, n_pages);
    }
    if (status == JANG_OK && cache->state) {
        status = m->o->table->state_grow(m->o, cache->state, n_slots);
    }
    return status;
}

jang_status model_cache_open_page(model_cache *cache, model *m, int32_t page) {
    return cache->kv ? m->o->table->kv_open(m->o, cache->kv, page) : JANG_OK;
}

void model_cache_seal_page(model_cache *cache, model *m, int32_t page) {
    if (cache->kv) {
        m->o->table->kv_seal(m->o, cache->kv, page);
    }
}

void model_cache_copy_page(model_cache *cache, model *m, int32_t from, int32_t to) {
    if (cache->kv) {
        m->o->table->kv_copy(m->o, cache->kv, from, to);
    }
}

void model_cache_copy_state(model_cache *cache, model *m, int32_t from, int32_t to) {
    if (cache->state) {
        m->o->table->state_copy(m->o, cache->state, from, to);
    }
}

void model_cache_save_page(const model_cache *cache, model *m, int32_t page, void *data) {
    if (cache->kv) {
        m->o->table->kv_save(m->o, cache->kv, page, data);
    }
}

void model_cache_load_page(model_cache *cache, model *m, int32_t page, const void *data) {
    if (cache->kv) {
        m->o->table->kv_load(m->o, cache->kv, page, data);
    }
}

size_t model_cache_page_bytes(const model_cache *cache, const model *m) {
    return cache->kv ? m->o->table->kv_page_bytes(cache->kv) : 0;
}

size_t model_cache_open_bytes(const model_cache *cache, const model *m) {
    return cache->kv ? m->o->table->kv_open_bytes(cache->kv) : 0;
}

uint64_t model_state_bytes(const model *m) {
    uint64_t n = 0;
    for (int i = 0; i < m->facts.n_state; i++) {
        n += (uint64_t)m->facts.state_sizes[i];
    }
    return n * sizeof(float);
}

/* ---- Steps ---- */

jang_status model_reserve(model *m, int32_t n_tok) {
    if (n_tok <= m->n_reserved) {
        return JANG_OK;
    }
    m->n_reserved = 0;
    jang_status status = m->body->reserve(m, n_tok);
    if (status == JANG_OK) {
        m->n_reserved = n_tok;
    }
    return status;
}

static jang_status check_batch(model *m, const batch_desc *batch) {
    if (batch->n_tok < 1 || batch->n_tok > m->n_reserved) {
        return ctx_fail(m->ctx, JANG_ERR_ARGUMENT, "a step of %d tokens; 1 to %d are allowed",
                        batch->n_tok, m->n_reserved);
    }
    for (int32_t i = 0; i < batch->n_tok; i++) {
        if (batch->ids[i] < 0 || batch->ids[i] >= m->facts.n_vocab) {
            return ctx_fail(m->ctx, JANG_ERR_ARGUMENT,
                            "token id %d is out of range; the model knows 0 to %d", batch->ids[i],
                            m->facts.n_vocab - 1);
        }
    }
    for (int32_t i = 0; batch->types && m->facts.n_type && i < batch->n_tok; i++) {
        if (batch->types[i] < 0 || batch->types[i] >= m->facts.n_type) {
            return ctx_fail(m->ctx, JANG_ERR_ARGUMENT,
                            "token type %d is out of range; the model knows 0 to %d",
                            batch->types[i], m->facts.n_type - 1);
        }
    }
    for (int32_t s = 0; m->facts.whole && s < batch->n_seq; s++) {
        if (batch->seqs[s].n_past > 0) {
            return ctx_fail(m->ctx, JANG_ERR_ARGUMENT,
                            "%s sees a sequence as a whole: it cannot go on with one",
                            m->family->model_type);
        }
    }
    for (int32_t s = 0; m->facts.bounded && s < batch->n_seq; s++) {
        if (batch->seqs[s].n_past > m->facts.n_context - batch->seqs[s].n_tok) {
            return ctx_fail(m->ctx, JANG_ERR_ARGUMENT, "a sequence of %d tokens; at most %d",
                            batch->seqs[s].n_past + batch->seqs[s].n_tok, m->facts.n_context);
        }
    }
    return JANG_OK;
}

jang_status model_begin(model *m, const batch_desc *batch) {
    jang_status status = check_batch(m, batch);
    if (status == JANG_OK) {
        status = m->o->table->batch_set(m->o, m->batch, batch);
    }
    if (status == JANG_OK) {
        m->body->embed(m, batch);
    }
    return status;
}

int model_stages(const model *m, int layer) {
    return m->body->n_stage(m, layer);
}

void model_layer(model *m, layer_stages which, const batch_desc *batch, const model_cache *cache) {
    m->body->layer(m, which, batch, cache);
}

ops_mat model_stream(model *m, int64_t n_tok) {
    return m->body->stream(m, n_tok);
}

jang_status model_end(model *m, const batch_desc *batch) {
    m->body->norm(m, batch);
    m->n_out = batch->n_out;
    return m->o->table->finish(m->o);
}

jang_status model_step(model *m, const batch_desc *batch, const model_cache *cache) {
    jang_status status = model_begin(m, batch);
    if (status != JANG_OK) {
        return status;
    }
    for (int i = 0; i < m->facts.n_layer; i++) {
        model_layer(m, (layer_stages){i, 0, INT_MAX}, batch, cache);
    }
    return model_end(m, batch);
}

static jang_status check_rows(model *m, int32_t first, int32_t n) {
    if (first < 0 || n < 0 || n > m->n_out || first > m->n_out - n) {
        return ctx_fail(m->ctx, JANG_ERR_ARGUMENT, "logits of rows %d..%d of %d", first, first + n,
                        m->n_out);
    }
    return JANG_OK;
}

jang_status model_hidden(model *m, int32_t first, int32_t n, float *hidden) {
    jang_status status = check_rows(m, first, n);
    if (status == JANG_OK && !m->body->hidden) {
        status = ctx_fail(m->ctx, JANG_ERR_UNSUPPORTED, "%s gives no hidden states",
                          m->family->model_type);
    }
    if (status != JANG_OK) {
        return status;
    }
    ops_mat x = m->body->hidden(m, first, n);
    for (int64_t i = 0; status == JANG_OK && i < n; i++) {
        size_t at = (size_t)(x.at + i * x.stride), width = (size_t)x.width;
        status = m->o->table->read(m->o, x.buf, at * sizeof *hidden, hidden + (size_t)i * width,
                                   width * sizeof *hidden);
    }
    return status;
}

/* A product of out rows that gives width numbers each, to the host, some rows at a time. */
static jang_status read_product(model *m, void (*product)(model *, int32_t, ops_mat), int32_t first,
                                int32_t n, int32_t width, float *out) {
    while (n > 0) {
        int32_t k = n < m->logit_rows ? n : m->logit_rows;
        ops_mat y = {m->logits, 0, width, k, width};
        product(m, first, y);
        jang_status status = m->o->table->finish(m->o);
        if (status == JANG_OK) {
            size_t n_bytes = (size_t)k * (size_t)width * sizeof *out;
            status = m->o->table->read(m->o, m->logits, 0, out, n_bytes);
        }
        if (status != JANG_OK) {
            return status;
        }
        first += k;
        n -= k;
        out += (size_t)k * (size_t)width;
    }
    return JANG_OK;
}

jang_status model_logits(model *m, int32_t first, int32_t n, float *logits) {
    jang_status status = check_rows(m, first, n);
    if (status == JANG_OK && m->facts.no_output) {
        status = ctx_fail(m->ctx, JANG_ERR_UNSUPPORTED,
                          "this %s model has no output matrix: it writes no text",
                          m->family->model_type);
    }
    return status == JANG_OK ? read_product(m, m->body->logits, first, n, m->facts.n_vocab, logits)
                             : status;
}

jang_status model_labels(model *m, int32_t first, int32_t n, float *labels) {
    jang_status status = check_rows(m, first, n);
    if (status == JANG_OK && m->facts.n_label == 0) {
        status = ctx_fail(m->ctx, JANG_ERR_UNSUPPORTED, "this %s model is no classifier",
                          m->family->model_type);
    }
    return status == JANG_OK ? read_product(m, m->body->labels, first, n, m->facts.n_label, labels)
                             : status;
}
