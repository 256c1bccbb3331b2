/* decoder.c - the frame of decoder-only families: layers of blocks, forward pass, opening. */
#include "model/decoder.h"

#include <stdio.h>
#include <string.h>

/* One block of a layer and how it joins the stream. */
typedef struct layer_part {
    block *block;
    norm_desc before, after; // width 0: none
    norm_desc stream;        // of the stream, once it is added
    float scale;             // of what is added
    beside_rule beside;      // how its input stands to the part before it
} layer_part;

#define LAYER_PARTS 3

struct decoder_layer {
    layer_part parts[LAYER_PARTS];
    int n_part;
    float stream_scale;
};

typedef struct decoder_layer decoder_layer;

/* ---- Forward pass ---- */

static block_step make_step(model *m, const batch_desc *desc, const model_cache *cache) {
    const decoder *d = m->state;
    return (block_step){.o = m->o,
                        .t = m->o->table,
                        .batch = m->batch,
                        .n_tok = desc->n_tok,
                        .cache = cache,
                        .work = &d->work};
}

static ops_mat decoder_stream(model *m, int64_t n_row) {
    const decoder *d = m->state;
    return (ops_mat){
        .buf = d->work.bufs[WORK_STREAM], .stride = d->n_embd, .n_row = n_row, .width = d->n_embd};
}

static void multiply(ops *o, ops_mat x, float by) {
    if (by != 1) {
        o->table->gated(o, &(act_desc){.kind = ACT_LINEAR, .a = by}, x, (ops_mat){0}, x);
    }
}

static void add_embedding(const block_step *s, const ops_weight *w, embed_by by, ops_mat x) {
    if (w) {
        ops_mat rows = step_rows(s, WORK_INPUT, x.width);
        s->t->embed(s->o, w, by, s->batch, 1, rows);
        s->t->add(s->o, 1, rows, x);
    }
}

static void decoder_embed(model *m, const batch_desc *desc) {
    const decoder *d = m->state;
    block_step s = make_step(m, desc, NULL);
    ops_mat x = decoder_stream(m, desc->n_tok);
    s.t->embed(m->o, d->embedding, EMBED_IDS, m->batch, d->embed_scale, x);
    add_embedding(&s, d->types, EMBED_TYPES, x);
    add_embedding(&s, d->positions, EMBED_POSITIONS, x);
    if (d->embedding_norm.width) {
        s.t->norm(m->o, &d->embedding_norm, x, x);
    }
    if (d->prelude) {
        d->prelude->kind->run(d->prelude, &s, x, x, false);
    }
}

/* The part's input: the stream, normed into a slot where there is a norm. */
static ops_mat part_input(const block_step *s, const layer_part *p, ops_mat x, int slot) {
    if (!p->before.width) {
        return x;
    }
    ops_mat h = step_rows(s, slot, x.width);
    s->t->norm(s->o, &p->before, x, h);
    return h;
}

static void add_part(const block_step *s, const layer_part *p, ops_mat h, ops_mat x) {
    if (!p->after.width && p->scale == 1) {
        p->block->kind->run(p->block, s, h, x, true);
        return;
    }
    ops_mat y = step_rows(s, WORK_RESULT, x.width);
    p->block->kind->run(p->block, s, h, y, false);
    if (p->after.width) {
        s->t->norm(s->o, &p->after, y, y);
    }
    s->t->add(s->o, p->scale, y, x);
}

static void run_part(const block_step *s, const layer_part *p, ops_mat h, ops_mat x) {
    add_part(s, p, h, x);
    if (p->stream.width) {
        s->t->norm(s->o, &p->stream, x, x);
    }
}

static int decoder_n_stage(const model *m, int i) {
    const decoder *d = m->state;
    const decoder_layer *layer = &d->layers[i];
    int n = 1;
    for (int k = 1; k < layer->n_part; k++) {
        n += layer->parts[k].beside == BESIDE_NOT;
    }
    return n;
}

static void decoder_run_layer(model *m, layer_stages which, const batch_desc *desc,
                              const model_cache *cache) {
    const decoder *d = m->state;
    const decoder_layer *layer = &d->layers[which.layer];
    block_step s = make_step(m, desc, cache);
    ops_mat x = decoder_stream(m, desc->n_tok), next = {0};
    for (int k = 0, stage = 0; k < layer->n_part; k++) {
        const layer_part *p = &layer->parts[k], *beside = p + 1;
        stage += k > 0 && p->beside == BESIDE_NOT;
        if (stage < which.first || stage > which.last) {
            continue;
        }
        ops_mat h = next.buf ? next : part_input(&s, p, x, WORK_INPUT);
        next = (ops_mat){0};
        if (k + 1 < layer->n_part && beside->beside == BESIDE_SAME) {
            next = h;
        } else if (k + 1 < layer->n_part && beside->beside == BESIDE_OWN) {
            next = part_input(&s, beside, x, WORK_INPUT2);
        }
        run_part(&s, p, h, x);
    }
    if (which.last >= decoder_n_stage(m, which.layer) - 1) {
        multiply(m->o, x, layer->stream_scale);
    }
}

static void decoder_norm(model *m, const batch_desc *desc) {
    const decoder *d = m->state;
    const ops_table *t = m->o->table;
    ops_mat out = decoder_stream(m, desc->n_out);
    out.buf = d->work.bufs[WORK_INPUT];
    t->take_out(m->o, m->batch, decoder_stream(m, desc->n_tok), out);
    if (d->norm.width) {
        t->norm(m->o, &d->norm, out, out);
    }
}

static ops_mat decoder_hidden(model *m, int64_t first, int64_t n) {
    const decoder *d = m->state;
    ops_mat h = decoder_stream(m, n);
    h.buf = d->work.bufs[WORK_INPUT];
    h.at = first * d->n_embd;
    return h;
}

static void decoder_logits(model *m, int32_t first, ops_mat y) {
    const decoder *d = m->state;
    ops_mat h = decoder_hidden(m, first, y.n_row);
    m->o->table->linear(m->o, h, &(linear_item){d->output, y, false}, 1);
    multiply(m->o, y, d->logit_scale);
    if (d->logit_softcap > 0) {
        act_desc cap = {.kind = ACT_SOFTCAP, .a = d->logit_softcap};
        m->o->table->gated(m->o, &cap, y, (ops_mat){0}, y);
    }
}

static void decoder_labels(model *m, int32_t first, ops_mat y) {
    const decoder *d = m->state;
    ops_mat h = decoder_hidden(m, first, y.n_row);
    if (d->label_dense) {
        ops_mat dense = decoder_stream(m, y.n_row);
        dense.buf = d->work.bufs[WORK_RESULT];
        m->o->table->linear(m->o, h, &(linear_item){d->label_dense, dense, false}, 1);
        const act_desc tanh_of = {.kind = ACT_SOFTCAP, .a = 1};
        m->o->table->gated(m->o, &tanh_of, dense, (ops_mat){0}, dense);
        h = dense;
    }
    m->o->table->linear(m->o, h, &(linear_item){d->labels, y, false}, 1);
}

static jang_status decoder_reserve(model *m, int32_t n_tok) {
    decoder *d = m->state;
    return work_reserve(&d->work, m->o, n_tok);
}

/* ---- Making blocks ---- */

void decoder_prefix(char out[DECODER_PREFIX_BYTES], const decoder_config *c, int layer) {
    snprintf(out, DECODER_PREFIX_BYTES, "%s.%d.", c->layers_name ? c->layers_name : "layers",
             layer);
}

attention_config decoder_layer_attention(const decoder *d, const decoder_config *c, int layer) {
    attention_config a = c->attention;
    int rope = c->rope_of ? c->rope_of[layer] : 0;
    a.rope = rope >= 0 && d->ropes[rope].inv_freq ? &d->ropes[rope] : NULL;
    a.window = !c->sliding || c->sliding[layer] ? a.window : 0;
    a.kv_layer = layer;
    if (c->layer_attention) {
        c->layer_attention(&a, c, layer);
    }
    return a;
}

jang_status decoder_attention(block **out, decoder *d, loader *l, const decoder_config *c,
                              int layer) {
    char prefix[DECODER_PREFIX_BYTES];
    decoder_prefix(prefix, c, layer);
    attention_config a = decoder_layer_attention(d, c, layer);
    if (!a.kv_is_read) {
        d->kv_layers[layer] = attention_kv(&a);
    }
    return attention_make(out, l, &d->work, &a, c->n_embd, prefix);
}

jang_status decoder_mlp(block **out, decoder *d, loader *l, const decoder_config *c, int layer) {
    char prefix[DECODER_PREFIX_BYTES];
    decoder_prefix(prefix, c, layer);
    return mlp_make(out, l, &d->work, &c->mlp, c->n_embd, prefix);
}

/* ---- Layers ---- */

static jang_status load_layer_norm(norm_desc *out, loader *l, const decoder_config *c, int layer,
                                   const char *name) {
    if (!name) {
        *out = (norm_desc){0};
        return JANG_OK;
    }
    char prefix[DECODER_PREFIX_BYTES];
    decoder_prefix(prefix, c, layer);
    return load_norm(out, l, &c->norm, c->n_embd, c->n_embd, "%s%s", prefix, name);
}

static jang_status load_part_norms(layer_part *p, loader *l, const decoder_config *c, int i,
                                   bool is_ffn) {
    const layer_norms *n = &c->norms;
    const struct {
        norm_desc *out;
        const char *name;
    } rows[] = {
        {&p->before, is_ffn ? n->ffn_before : n->mixer_before},
        {&p->after, is_ffn ? n->ffn_after : n->mixer_after},
        {&p->stream, is_ffn ? n->ffn_stream : n->mixer_stream},
    };
    jang_status status = JANG_OK;
    for (size_t k = 0; status == JANG_OK && k < sizeof rows / sizeof rows[0]; k++) {
        status = load_layer_norm(rows[k].out, l, c, i, rows[k].name);
    }
    return status;
}

static jang_status load_part(decoder_layer *layer, decoder *d, loader *l, const decoder_config *c,
                             int i, bool is_ffn) {
    layer_part *p = &layer->parts[layer->n_part];
    block_maker make =
        is_ffn ? (c->ffn ? c->ffn : decoder_mlp) : (c->mixer ? c->mixer : decoder_attention);
    jang_status status = make(&p->block, d, l, c, i);
    if (status != JANG_OK || !p->block) {
        return status;
    }
    p->scale = c->residual_scale == 0 ? 1 : (float)c->residual_scale;
    p->beside = is_ffn ? c->beside : BESIDE_NOT;
    layer->n_part++; /* from here on closing the model closes the block */
    return load_part_norms(p, l, c, i, is_ffn);
}

static jang_status add_tail(decoder_layer *layer, decoder *d, loader *l, const decoder_config *c,
                            int i) {
    layer_tail tail = {0};
    jang_status status = c->tail(&tail, d, l, c, i);
    if (status == JANG_OK && tail.block) {
        layer->parts[layer->n_part++] =
            (layer_part){.block = tail.block, .after = tail.after, .scale = 1};
    }
    layer->stream_scale = tail.stream_scale == 0 ? 1 : tail.stream_scale;
    return status;
}

static jang_status load_layer(decoder_layer *layer, decoder *d, loader *l, const decoder_config *c,
                              int i) {
    layer->stream_scale = 1;
    jang_status status = load_part(layer, d, l, c, i, false);
    if (status == JANG_OK) {
        status = load_part(layer, d, l, c, i, true);
    }
    if (status == JANG_OK && c->tail) {
        status = add_tail(layer, d, l, c, i);
    }
    return status;
}

/* ---- Ends ---- */

static const char *or_usual(const char *name, const char *usual) {
    return name ? name : usual;
}

static jang_status load_output_matrix(decoder *d, loader *l, const decoder_config *c) {
    if (c->no_output) {
        return JANG_OK;
    }
    if (c->tied) {
        d->output = d->embedding;
        return JANG_OK;
    }
    ops_weight *output;
    jang_status status = load_output(&output, l, c->n_vocab, c->n_embd, c->output_bias,
                                     or_usual(c->output_name, "lm_head"));
    if (status == JANG_OK) {
        d->output = output;
    }
    return status;
}

static jang_status load_labels(decoder *d, loader *l, const label_head *h) {
    ops_weight *dense = NULL, *labels = NULL;
    jang_status status = JANG_OK;
    if (h->n && h->dense) {
        status = load_output(&dense, l, d->n_embd, d->n_embd, h->bias, h->dense);
    }
    if (status == JANG_OK && h->n) {
        status = load_output(&labels, l, h->n, d->n_embd, h->bias, h->output);
    }
    d->label_dense = dense;
    d->labels = labels;
    return status;
}

/* What is added to the embedding, and the norm of the sum. */
static jang_status load_additions(decoder *d, loader *l, const decoder_config *c) {
    ops_weight *positions = NULL, *types = NULL;
    jang_status status = JANG_OK;
    if (c->positions_name) {
        status = load_embedding_rows(&positions, l, c->n_context, c->n_embd, c->positions_skip,
                                     c->positions_name);
    }
    if (status == JANG_OK && c->types_name) {
        status = load_embedding_rows(&types, l, c->n_type, c->n_embd, 0, c->types_name);
    }
    if (status == JANG_OK && c->embedding_norm) {
        status = load_norm(&d->embedding_norm, l, &c->norm, c->n_embd, c->n_embd, "%s",
                           c->embedding_norm);
    }
    d->positions = positions;
    d->types = types;
    return status;
}

static jang_status load_ends(decoder *d, loader *l, const decoder_config *c) {
    ops_weight *embedding;
    jang_status status =
        load_embedding(&embedding, l, c->n_vocab, c->n_embd, c->tied ? READ_ALL : READ_ROW,
                       or_usual(c->embedding_name, "embed_tokens"));
    if (status == JANG_OK) {
        d->embedding = embedding;
        status = load_additions(d, l, c);
    }
    if (status == JANG_OK && !c->no_final_norm) {
        status = load_norm(&d->norm, l, &c->norm, c->n_embd, c->n_embd, "%s",
                           or_usual(c->norm_name, "norm"));
    }
    if (status == JANG_OK) {
        status = load_output_matrix(d, l, c);
    }
    return status == JANG_OK ? load_labels(d, l, &c->labels) : status;
}

/* ---- Opening ---- */

static void decoder_close(model *m) {
    decoder *d = m->state;
    if (!d) {
        return;
    }
    work_free(&d->work, m->o);
    for (int64_t i = 0; d->layers && i < d->n_layer; i++) {
        for (int k = 0; k < d->layers[i].n_part; k++) {
            block_close(d->layers[i].parts[k].block, m->ctx);
        }
    }
    block_close(d->prelude, m->ctx);
    ctx_free(m->ctx, d->layers);
    ctx_free(m->ctx, d->kv_layers);
    ctx_free(m->ctx, d);
}

static const model_body decoder_body = {
    .close = decoder_close,
    .reserve = decoder_reserve,
    .embed = decoder_embed,
    .n_stage = decoder_n_stage,
    .layer = decoder_run_layer,
    .norm = decoder_norm,
    .stream = decoder_stream,
    .hidden = decoder_hidden,
    .logits = decoder_logits,
    .labels = decoder_labels,
};

static jang_status load_ropes(decoder *d, loader *l, const decoder_config *c) {
    jang_status status = JANG_OK;
    for (int i = 0; i < DECODER_ROPES && status == JANG_OK; i++) {
        if (c->ropes[i].inv_freq) {
            status = rope_load(&d->ropes[i], l, &c->ropes[i]);
        }
    }
    return status;
}

/* Tokens up to which a sequence keeps to the first of two sets of frequencies; 0: there is one. */
static int32_t longest_short_form(const decoder *d) {
    int32_t least = 0;
    for (int i = 0; i < DECODER_ROPES; i++) {
        const rope_desc *r = &d->ropes[i];
        if (r->long_freq && (least == 0 || r->long_from < least)) {
            least = r->long_from;
        }
    }
    return least;
}

static jang_status load_all(decoder *d, loader *l, const decoder_config *c) {
    d->layers = ctx_zero(l->ctx, (size_t)c->n_layer, sizeof *d->layers);
    d->kv_layers = ctx_zero(l->ctx, (size_t)c->n_layer, sizeof *d->kv_layers);
    if (!d->layers || !d->kv_layers) {
        return ctx_fail_memory(l->ctx, (size_t)c->n_layer * sizeof *d->layers);
    }
    jang_status status = load_ends(d, l, c);
    if (status == JANG_OK) {
        status = load_ropes(d, l, c);
    }
    if (status == JANG_OK && c->prelude) {
        status = c->prelude(&d->prelude, d, l, c, 0);
    }
    for (int i = 0; status == JANG_OK && i < c->n_layer; i++) {
        l->careful = i == 0 || i == c->n_layer - 1; /* see docs/kernels.md, rounded inputs */
        status = load_layer(&d->layers[i], d, l, c, i);
    }
    l->careful = false;
    return status;
}

static void need_work(decoder *d, const decoder_config *c) {
    bool result = c->norms.mixer_after || c->norms.ffn_after || c->residual_scale != 0 || c->tail ||
                  c->labels.dense;
    work_need(&d->work, WORK_STREAM, c->n_embd);
    work_need(&d->work, WORK_INPUT, c->n_embd);
    work_need(&d->work, WORK_INPUT2, c->beside == BESIDE_OWN ? c->n_embd : 0);
    work_need(&d->work, WORK_RESULT, result ? c->n_embd : 0);
}

/* What there is behind the layers. Embedding models may come without an output matrix. */
static jang_status read_ends(decoder_config *c, loader *l) {
    const char *modules = NULL;
    size_t n = 0;
    jang_status status = JANG_OK;
    if (!c->labels.output) {
        c->labels.output = "score";
        status = decoder_read_labels(&c->labels, l->whole);
        c->no_output = c->no_output || c->labels.n > 0;
    }
    if (status != JANG_OK || c->no_output || c->tied ||
        loader_has_output(l, or_usual(c->output_name, "lm_head"))) {
        return status;
    }
    c->tied = c->untold;
    if (!c->tied) {
        status = checkpoint_text(&modules, &n, l->c, "modules.json");
    }
    c->no_output = modules != NULL;
    return status;
}

static float or_one(double x) {
    return x == 0 ? 1 : (float)x;
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
        .n_layer = c->n_layer,
        .embed_scale = or_one(c->embed_scale),
        .logit_scale = or_one(c->logit_scale),
        .logit_softcap = (float)c->logit_softcap,
    };
    status = read_ends(c, l);
    need_work(d, c);
    if (status == JANG_OK) {
        status = load_all(d, l, c);
    }
    m->facts = (model_facts){
        .n_vocab = (int32_t)c->n_vocab,
        .n_embd = (int32_t)c->n_embd,
        .n_layer = (int32_t)c->n_layer,
        .n_context = (int32_t)c->n_context,
        .kv_layers = d->kv_layers,
        .bounded = c->positions_name != NULL,
        .whole = c->attention.whole,
        .no_output = !d->output,
        .n_label = (int32_t)c->labels.n,
        .n_type = (int32_t)c->n_type,
        .tied = c->tied,
        .long_from = longest_short_form(d),
    };
done:
    decoder_config_free(c, m->ctx);
    return status;
}

jang_status decoder_finish(model *m, loader *l, decoder_config *c, jang_status status) {
    if (status == JANG_OK) {
        return decoder_open(m, l, c);
    }
    decoder_config_free(c, m->ctx);
    return status;
}

jang_status decoder_open_family(model *m, loader *l, const model_family *family) {
    decoder_config c;
    jang_status status = decoder_read_config(&c, l->config, family->defaults);
    if (status != JANG_OK) {
        return status;
    }
    return decoder_finish(m, l, &c, family->adapt ? family->adapt(&c, l->config) : JANG_OK);
}
