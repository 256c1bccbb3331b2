/* decoder.c - the common pre-norm decoder: weights, workspace, forward pass. */
#include "model/decoder.h"

#include <math.h>
#include <string.h>

typedef struct decoder_layer {
    const ops_weight *attention_norm;  // (n_embd)
    const ops_weight *wq, *wk, *wv;    // (n_head | n_kv_head * head_dim, n_embd)
    const ops_weight *wo;              // (n_embd, n_head * head_dim)
    const ops_weight *q_norm, *k_norm; // (head_dim) or NULL
    const ops_weight *mlp_norm;        // (n_embd)
    const ops_weight *gate, *up;       // (n_ff, n_embd)
    const ops_weight *down;            // (n_embd, n_ff)
    attention_desc attention;
} decoder_layer;

/* A step's activations, f32, one row a token. */
typedef struct decoder_work {
    ops_buf *x;       // (n_tok, n_embd) the residual stream
    ops_buf *h;       // (n_tok, n_embd) normed
    ops_buf *q, *att; // (n_tok, n_head * head_dim)
    ops_buf *k, *v;   // (n_tok, n_kv_head * head_dim)
    ops_buf *gate;    // (n_tok, n_ff)
    ops_buf *up;      // (n_tok, n_ff)
} decoder_work;

typedef struct decoder {
    int64_t n_embd, n_ff, q_width, kv_width;
    int n_head, n_kv_head, head_dim;
    float norm_eps;
    activation act;
    rope_desc rope;
    const ops_weight *embedding, *norm, *output;
    decoder_layer *layers; // (n_layer)
    decoder_work work;
} decoder;

/* ---- Config ---- */

static jang_status read_sizes(decoder_config *c, json_at at, const decoder_defaults *defaults) {
    const struct {
        const char *key;
        int64_t *out, fallback, max;
    } keys[] = {
        {"vocab_size", &c->n_vocab, 0, 1 << 24},
        {"hidden_size", &c->n_embd, 0, 1 << 20},
        {"intermediate_size", &c->n_ff, 0, 1 << 22},
        {"num_hidden_layers", &c->n_layer, 0, 1 << 12},
        {"num_attention_heads", &c->n_head, 0, 1 << 14},
        {"max_position_embeddings", &c->n_context, defaults->n_context, 1 << 28},
    };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        if (keys[i].fallback == 0 && !json_has(at.object, keys[i].key)) {
            return ctx_fail(at.ctx, JANG_ERR_FORMAT, "%s: %s is missing", at.what, keys[i].key);
        }
        jang_status status =
            json_get_int(keys[i].out, at, keys[i].key, keys[i].fallback, 1, keys[i].max);
        if (status != JANG_OK) {
            return status;
        }
    }
    jang_status status =
        json_get_int(&c->n_kv_head, at, "num_key_value_heads", c->n_head, 1, c->n_head);
    if (status == JANG_OK) {
        status = json_get_int(&c->head_dim, at, "head_dim",
                              defaults->head_dim ? defaults->head_dim : c->n_embd / c->n_head, 2,
                              1 << 12);
    }
    if (status != JANG_OK) {
        return status;
    }
    if (c->n_head % c->n_kv_head != 0 || c->head_dim % 2 != 0) {
        return ctx_fail(at.ctx, JANG_ERR_FORMAT,
                        "%s: %lld attention heads over %lld key-value heads of %lld: the first "
                        "must be a multiple of the second, and a head even",
                        at.what, (long long)c->n_head, (long long)c->n_kv_head,
                        (long long)c->head_dim);
    }
    return JANG_OK;
}

static jang_status read_activation(activation *out, json_at at) {
    static const struct {
        const char *name;
        activation act;
    } names[] = {
        {"silu", ACT_SILU},          {"swish", ACT_SILU},
        {"gelu", ACT_GELU},          {"gelu_pytorch_tanh", ACT_GELU_TANH},
        {"gelu_new", ACT_GELU_TANH},
    };
    const char *name;
    jang_status status = json_get_string(&name, at, "hidden_act", "silu");
    if (status != JANG_OK) {
        return status;
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(names[i].name, name) == 0) {
            *out = names[i].act;
            return JANG_OK;
        }
    }
    return ctx_fail(at.ctx, JANG_ERR_UNSUPPORTED,
                    "%s: hidden_act %s is not supported; supported are silu, swish, gelu, "
                    "gelu_new, gelu_pytorch_tanh",
                    at.what, name);
}

jang_status decoder_read_config(decoder_config *out, json_at at, const decoder_defaults *defaults) {
    decoder_config c = {0};
    jang_status status = read_sizes(&c, at, defaults);
    if (status == JANG_OK) {
        status = json_get_double(&c.norm_eps, at, "rms_norm_eps", 1e-6);
    }
    if (status == JANG_OK) {
        status = json_get_bool(&c.tied, at, "tie_word_embeddings", defaults->tied);
    }
    if (status == JANG_OK) {
        status = read_activation(&c.act, at);
    }
    if (status == JANG_OK) {
        status = rope_read(&c.rope, at, (int)c.head_dim, c.n_context, defaults->rope_theta);
    }
    if (status == JANG_OK) {
        *out = c;
    }
    return status;
}

jang_status decoder_read_window(int64_t *out, json_at config) {
    if (json_is_null(json_object_get(config.object, "sliding_window"))) {
        *out = 0;
        return JANG_OK;
    }
    return json_get_int(out, config, "sliding_window", 4096, 1, 1 << 28);
}

jang_status decoder_read_windows(decoder_config *c, json_at config) {
    bool sliding;
    jang_status status = json_get_bool(&sliding, config, "use_sliding_window", false);
    if (status == JANG_OK && sliding) {
        status = decoder_read_window(&c->window, config);
    }
    if (status == JANG_OK) {
        status = json_get_int(&c->first_window_layer, config, "max_window_layers", 28, 0, 1 << 12);
    }
    if (status == JANG_OK) {
        status = json_get_array(&c->layer_types, config, "layer_types");
    }
    return status;
}

/* ---- Weights ---- */

static jang_status read_window(int32_t *out, loader *l, const decoder_config *c, int64_t layer) {
    bool sliding = c->window > 0 && layer >= c->first_window_layer;
    if (c->layer_types) {
        const char *type = json_string_value(json_array_get(c->layer_types, (size_t)layer));
        sliding = type && strcmp(type, "sliding_attention") == 0;
        if (!type || (!sliding && strcmp(type, "full_attention") != 0)) {
            return ctx_fail(l->ctx, JANG_ERR_UNSUPPORTED,
                            "%s: layer_types[%lld] is %s; allowed are full_attention and "
                            "sliding_attention",
                            l->config.what, (long long)layer, type ? type : "missing");
        }
        if (sliding && c->window == 0) {
            return ctx_fail(l->ctx, JANG_ERR_FORMAT,
                            "%s: layer_types has sliding_attention, but there is no "
                            "sliding_window",
                            l->config.what);
        }
    }
    *out = sliding ? (int32_t)c->window : 0;
    return JANG_OK;
}

typedef struct matrix_row {
    const ops_weight **out;
    const char *name;
    int64_t n_out, n_in;
    bias_rule bias;
    input_rule input;
} matrix_row;

typedef struct vector_row {
    const ops_weight **out;
    const char *name;
    int64_t n;
} vector_row;

static jang_status load_norms(decoder_layer *layer, loader *l, const decoder_config *c, int i) {
    const vector_row norms[] = {
        {&layer->attention_norm, "input_layernorm", c->n_embd},
        {&layer->mlp_norm, "post_attention_layernorm", c->n_embd},
        {&layer->q_norm, "self_attn.q_norm", c->qk_norm ? c->head_dim : 0},
        {&layer->k_norm, "self_attn.k_norm", c->qk_norm ? c->head_dim : 0},
    };
    for (size_t j = 0; j < sizeof norms / sizeof norms[0]; j++) {
        if (norms[j].n == 0) {
            continue;
        }
        ops_weight *w;
        jang_status status = load_vector(&w, l, norms[j].n, "layers.%d.%s", i, norms[j].name);
        if (status != JANG_OK) {
            return status;
        }
        *norms[j].out = w;
    }
    return JANG_OK;
}

static jang_status load_layer(decoder_layer *layer, loader *l, const decoder_config *c, int i) {
    int64_t q_width = c->n_head * c->head_dim, kv_width = c->n_kv_head * c->head_dim;
    const matrix_row matrices[] = {
        {&layer->wq, "self_attn.q_proj", q_width, c->n_embd, c->qkv_bias, INPUT_FINE},
        {&layer->wk, "self_attn.k_proj", kv_width, c->n_embd, c->qkv_bias, INPUT_FINE},
        {&layer->wv, "self_attn.v_proj", kv_width, c->n_embd, c->qkv_bias, INPUT_FINE},
        {&layer->wo, "self_attn.o_proj", c->n_embd, q_width, c->o_bias, INPUT_FINE},
        {&layer->gate, "mlp.gate_proj", c->n_ff, c->n_embd, c->mlp_bias, INPUT_PLAIN},
        {&layer->up, "mlp.up_proj", c->n_ff, c->n_embd, c->mlp_bias, INPUT_PLAIN},
        {&layer->down, "mlp.down_proj", c->n_embd, c->n_ff, c->mlp_bias, INPUT_PLAIN},
    };
    for (size_t j = 0; j < sizeof matrices / sizeof matrices[0]; j++) {
        const matrix_row *m = &matrices[j];
        ops_weight *w;
        jang_status status =
            load_matrix(&w, l, m->n_out, m->n_in, m->bias, m->input, "layers.%d.%s", i, m->name);
        if (status != JANG_OK) {
            return status;
        }
        *m->out = w;
    }
    jang_status status = load_norms(layer, l, c, i);
    if (status != JANG_OK) {
        return status;
    }
    layer->attention = (attention_desc){
        .n_head = (int)c->n_head,
        .n_kv_head = (int)c->n_kv_head,
        .head_dim = (int)c->head_dim,
        .scale = 1.0f / sqrtf((float)c->head_dim),
    };
    return read_window(&layer->attention.window, l, c, i);
}

static jang_status load_ends(decoder *d, loader *l, const decoder_config *c) {
    ops_weight *embedding, *norm, *output;
    jang_status status = load_embedding(&embedding, l, c->n_vocab, c->n_embd,
                                        c->tied ? READ_ALL : READ_ROW, "embed_tokens");
    if (status == JANG_OK) {
        status = load_vector(&norm, l, c->n_embd, "norm");
    }
    output = embedding;
    if (status == JANG_OK && !c->tied) {
        status = load_output(&output, l, c->n_vocab, c->n_embd, "lm_head");
    }
    if (status == JANG_OK) {
        d->embedding = embedding;
        d->norm = norm;
        d->output = output;
    }
    return status;
}

/* ---- Workspace ---- */

typedef struct work_row {
    ops_buf **buf;
    int64_t width;
} work_row;

#define N_WORK 8

static void list_work(work_row rows[N_WORK], decoder *d) {
    decoder_work *w = &d->work;
    const work_row all[N_WORK] = {
        {&w->x, d->n_embd},   {&w->h, d->n_embd},   {&w->q, d->q_width}, {&w->att, d->q_width},
        {&w->k, d->kv_width}, {&w->v, d->kv_width}, {&w->gate, d->n_ff}, {&w->up, d->n_ff},
    };
    memcpy(rows, all, sizeof all);
}

static void free_work(model *m, decoder *d) {
    work_row rows[N_WORK];
    list_work(rows, d);
    for (int i = 0; i < N_WORK; i++) {
        m->o->table->buf_free(m->o, *rows[i].buf);
        *rows[i].buf = NULL;
    }
}

static jang_status decoder_reserve(model *m, int32_t n_tok) {
    decoder *d = m->state;
    free_work(m, d);
    work_row rows[N_WORK];
    list_work(rows, d);
    int64_t widest = 0;
    for (int i = 0; i < N_WORK; i++) {
        size_t n_bytes = (size_t)n_tok * (size_t)rows[i].width * sizeof(float);
        jang_status status = m->o->table->buf_new(rows[i].buf, m->o, n_bytes);
        if (status != JANG_OK) {
            return status;
        }
        widest = rows[i].width > widest ? rows[i].width : widest;
    }
    return m->o->table->reserve(m->o, &(ops_limits){.n_tok = n_tok, .width = widest});
}

/* ---- Forward pass ---- */

static ops_mat rows_of(ops_buf *b, int64_t n_row, int64_t width) {
    return (ops_mat){.buf = b, .stride = width, .n_row = n_row, .width = width};
}

static void attention_block(model *m, const decoder *d, int i, ops_mat x,
                            const model_cache *cache) {
    const ops_table *t = m->o->table;
    const decoder_layer *layer = &d->layers[i];
    const decoder_work *w = &d->work;
    ops_mat h = rows_of(w->h, x.n_row, d->n_embd);
    ops_mat q = rows_of(w->q, x.n_row, d->q_width), att = rows_of(w->att, x.n_row, d->q_width);
    ops_mat k = rows_of(w->k, x.n_row, d->kv_width), v = rows_of(w->v, x.n_row, d->kv_width);

    t->rms_norm(m->o, layer->attention_norm, d->norm_eps, 0, x, h);
    const linear_item qkv[] = {{layer->wq, q, false}, {layer->wk, k, false}, {layer->wv, v, false}};
    t->linear(m->o, h, qkv, 3);
    if (layer->q_norm) {
        t->rms_norm(m->o, layer->q_norm, d->norm_eps, 0, q, q);
        t->rms_norm(m->o, layer->k_norm, d->norm_eps, 0, k, k);
    }
    t->rope(m->o, &d->rope, m->batch, q, d->n_head, d->head_dim);
    t->rope(m->o, &d->rope, m->batch, k, d->n_kv_head, d->head_dim);
    t->kv_store(m->o, cache->kv, i, m->batch, k, v);
    t->attention(m->o, &layer->attention, cache->kv, i, m->batch, q, att);
    t->linear(m->o, att, &(linear_item){layer->wo, x, true}, 1);
}

static void mlp_block(model *m, const decoder *d, int i, ops_mat x) {
    const ops_table *t = m->o->table;
    const decoder_layer *layer = &d->layers[i];
    ops_mat h = rows_of(d->work.h, x.n_row, d->n_embd);
    ops_mat gate = rows_of(d->work.gate, x.n_row, d->n_ff);
    ops_mat up = rows_of(d->work.up, x.n_row, d->n_ff);

    t->rms_norm(m->o, layer->mlp_norm, d->norm_eps, 0, x, h);
    const linear_item both[] = {{layer->gate, gate, false}, {layer->up, up, false}};
    t->linear(m->o, h, both, 2);
    t->gated(m->o, d->act, gate, up, gate);
    t->linear(m->o, gate, &(linear_item){layer->down, x, true}, 1);
}

static ops_mat decoder_stream(model *m, int64_t n_row) {
    const decoder *d = m->state;
    return rows_of(d->work.x, n_row, d->n_embd);
}

static void decoder_embed(model *m, const batch_desc *desc) {
    const decoder *d = m->state;
    m->o->table->embed(m->o, d->embedding, m->batch, 1.0f, decoder_stream(m, desc->n_tok));
}

static void decoder_run_layer(model *m, int i, const batch_desc *desc, const model_cache *cache) {
    const decoder *d = m->state;
    ops_mat x = decoder_stream(m, desc->n_tok);
    attention_block(m, d, i, x, cache);
    mlp_block(m, d, i, x);
}

static void decoder_norm(model *m, const batch_desc *desc) {
    const decoder *d = m->state;
    const ops_table *t = m->o->table;
    ops_mat out = rows_of(d->work.h, desc->n_out, d->n_embd);
    t->take_out(m->o, m->batch, decoder_stream(m, desc->n_tok), out);
    t->rms_norm(m->o, d->norm, d->norm_eps, 0, out, out);
}

static void decoder_logits(model *m, int32_t first, ops_mat y) {
    const decoder *d = m->state;
    ops_mat h = rows_of(d->work.h, y.n_row, d->n_embd);
    h.at = first * d->n_embd;
    m->o->table->linear(m->o, h, &(linear_item){d->output, y, false}, 1);
}

/* ---- Opening ---- */

static void decoder_close(model *m) {
    decoder *d = m->state;
    if (d) {
        free_work(m, d);
        ctx_free(m->ctx, d->layers);
        ctx_free(m->ctx, d);
    }
}

static const model_body decoder_body = {
    .close = decoder_close,
    .reserve = decoder_reserve,
    .embed = decoder_embed,
    .layer = decoder_run_layer,
    .norm = decoder_norm,
    .stream = decoder_stream,
    .logits = decoder_logits,
};

static jang_status load_all(model *m, decoder *d, loader *l, const decoder_config *c) {
    d->layers = ctx_zero(m->ctx, (size_t)c->n_layer, sizeof *d->layers);
    if (!d->layers) {
        return ctx_fail_memory(m->ctx, (size_t)c->n_layer * sizeof *d->layers);
    }
    jang_status status = load_ends(d, l, c);
    if (status == JANG_OK) {
        status = rope_load(&d->rope, l, &c->rope);
    }
    for (int i = 0; status == JANG_OK && i < c->n_layer; i++) {
        status = load_layer(&d->layers[i], l, c, i);
    }
    return status;
}

jang_status decoder_open(model *m, loader *l, decoder_config *c) {
    jang_status status = JANG_OK;
    decoder *d = ctx_zero(m->ctx, 1, sizeof *d);
    if (!d) {
        status = ctx_fail_memory(m->ctx, sizeof *d);
        goto done;
    }
    m->body = &decoder_body;
    m->state = d;
    *d = (decoder){
        .n_embd = c->n_embd,
        .n_ff = c->n_ff,
        .q_width = c->n_head * c->head_dim,
        .kv_width = c->n_kv_head * c->head_dim,
        .n_head = (int)c->n_head,
        .n_kv_head = (int)c->n_kv_head,
        .head_dim = (int)c->head_dim,
        .norm_eps = (float)c->norm_eps,
        .act = c->act,
    };
    m->facts = (model_facts){
        .n_vocab = (int32_t)c->n_vocab,
        .n_embd = (int32_t)c->n_embd,
        .n_layer = (int32_t)c->n_layer,
        .n_context = (int32_t)c->n_context,
        .n_kv_head = (int32_t)c->n_kv_head,
        .head_dim = (int32_t)c->head_dim,
    };
    status = load_all(m, d, l, c);
done:
    rope_free(&c->rope, m->ctx);
    return status;
}
