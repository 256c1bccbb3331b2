/* mla.c - multi-head latent attention: weights and forward pass. */
#include "model/mla.h"

enum { SLOT_Q = WORK_BLOCK, SLOT_Q_LORA, SLOT_WIDE_Q, SLOT_KV, SLOT_ATT, SLOT_OUT };

typedef struct mla {
    block base;
    int64_t n_head, q_lora, kv_lora, nope_dim, rope_dim, v_dim;
    const ops_weight *q_a, *q_b, *q; // (q_lora, n_embd), (n_head * head, q_lora | n_embd)
    const ops_weight *kv_a;          // (kv_lora + rope_dim, n_embd)
    const ops_weight *embed_q;       // n_head of (kv_lora, nope_dim): K_h^T
    const ops_weight *unembed;       // n_head of (v_dim, kv_lora): V_h
    const ops_weight *o;             // (n_embd, n_head * v_dim)
    norm_desc q_norm, kv_norm;
    rope_desc rope; // inv_freq NULL: none
    attention_desc desc;
    int kv_layer;
} mla;

/* ---- Forward pass ---- */

/* A slot with a row for each head of each token, from column `from` of the heads' `head` on. */
static ops_mat head_rows(const mla *a, const block_step *s, int slot, int64_t head, int64_t from,
                         int64_t width) {
    ops_mat rows = step_rows(s, slot, a->n_head * head);
    return (ops_mat){.buf = rows.buf,
                     .at = rows.at + from,
                     .stride = head,
                     .n_row = rows.n_row * a->n_head,
                     .width = width};
}

static void project_q(const mla *a, const block_step *s, ops_mat h, ops_mat q) {
    if (!a->q_a) {
        s->t->linear(s->o, h, &(linear_item){a->q, q, false}, 1);
        return;
    }
    ops_mat low = step_rows(s, SLOT_Q_LORA, a->q_lora);
    s->t->linear(s->o, h, &(linear_item){a->q_a, low, false}, 1);
    s->t->norm(s->o, &a->q_norm, low, low);
    s->t->linear(s->o, low, &(linear_item){a->q_b, q, false}, 1);
}

/* Makes the queries that meet latent vectors: K_h^T q_h^c beside q_h^r. */
static void widen_q(const mla *a, const block_step *s, ops_routes *heads) {
    int64_t head = a->nope_dim + a->rope_dim, wide = a->kv_lora + a->rope_dim;
    ops_mat latent = head_rows(a, s, SLOT_WIDE_Q, wide, 0, a->kv_lora);
    s->t->linear_experts(s->o, heads, head_rows(a, s, SLOT_Q, head, 0, a->nope_dim),
                         &(expert_item){a->embed_q, latent}, 1);
    s->t->gated(s->o, &(act_desc){.kind = ACT_LINEAR, .a = 1},
                head_rows(a, s, SLOT_Q, head, a->nope_dim, a->rope_dim), (ops_mat){0},
                head_rows(a, s, SLOT_WIDE_Q, wide, a->kv_lora, a->rope_dim));
}

static void mla_run(const block *b, const block_step *s, ops_mat h, ops_mat y, bool add) {
    const mla *a = (const mla *)b;
    const ops_table *t = s->t;
    int head = (int)(a->nope_dim + a->rope_dim);
    ops_routes *heads = s->work->routes[WORK_HEADS].routes;
    ops_mat q = step_rows(s, SLOT_Q, a->n_head * head);
    ops_mat kv = step_rows(s, SLOT_KV, a->kv_lora + a->rope_dim);
    ops_mat c = ops_columns(kv, 0, a->kv_lora), k_rope = ops_columns(kv, a->kv_lora, a->rope_dim);
    project_q(a, s, h, q);
    t->linear(s->o, h, &(linear_item){a->kv_a, kv, false}, 1);
    t->norm(s->o, &a->kv_norm, c, c);
    if (a->rope.inv_freq) {
        t->rope(s->o, &a->rope, s->batch, ops_columns(q, a->nope_dim, q.width - a->nope_dim),
                (int)a->n_head, head);
        t->rope(s->o, &a->rope, s->batch, k_rope, 1, (int)a->rope_dim);
    }
    t->kv_store(s->o, s->cache->kv, a->kv_layer, s->batch, kv, c);
    t->route_all(s->o, s->n_tok, heads);
    widen_q(a, s, heads);
    t->attention(s->o, &a->desc, s->cache->kv, a->kv_layer, s->batch,
                 step_rows(s, SLOT_WIDE_Q, a->n_head * (a->kv_lora + a->rope_dim)),
                 step_rows(s, SLOT_ATT, a->n_head * a->kv_lora));
    ops_mat values = head_rows(a, s, SLOT_OUT, a->v_dim, 0, a->v_dim);
    t->linear_experts(s->o, heads, head_rows(a, s, SLOT_ATT, a->kv_lora, 0, a->kv_lora),
                      &(expert_item){a->unembed, values}, 1);
    ops_mat out = step_rows(s, SLOT_OUT, a->n_head * a->v_dim);
    t->linear(s->o, out, &(linear_item){a->o, y, add}, 1);
}

static const block_kind mla_kind = {.name = "mla", .run = mla_run};

/* ---- Weights ---- */

static jang_status load_heads(mla *a, loader *l, const mla_config *c, const char *prefix) {
    const head_matrices m = {.keys = "self_attn.embed_q",
                             .values = "self_attn.unembed_out",
                             .fused = "self_attn.kv_b_proj",
                             .n_head = (int)c->n_head,
                             .key_dim = c->nope_dim,
                             .value_dim = c->v_dim,
                             .n_latent = c->kv_lora};
    ops_weight *keys, *values;
    jang_status status = load_head_matrices(&keys, &values, l, &m, prefix);
    if (status == JANG_OK) {
        a->embed_q = keys;
        a->unembed = values;
    }
    return status;
}

static jang_status load_all(mla *a, loader *l, const mla_config *c, int64_t n_embd,
                            const char *prefix) {
    int64_t q_width = c->n_head * (c->nope_dim + c->rope_dim);
    const struct {
        const ops_weight **out;
        const char *name;
        int64_t n_out, n_in;
        bias_rule bias;
        bool wanted;
    } rows[] = {
        {&a->q, "q_proj", q_width, n_embd, BIAS_NONE, c->q_lora == 0},
        {&a->q_a, "q_a_proj", c->q_lora, n_embd, c->a_bias, c->q_lora > 0},
        {&a->q_b, "q_b_proj", q_width, c->q_lora, BIAS_NONE, c->q_lora > 0},
        {&a->kv_a, "kv_a_proj_with_mqa", c->kv_lora + c->rope_dim, n_embd, c->a_bias, true},
        {&a->o, "o_proj", n_embd, c->n_head * c->v_dim, c->o_bias, true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (!rows[i].wanted) {
            continue;
        }
        ops_weight *w;
        jang_status status = load_matrix(&w, l, rows[i].n_out, rows[i].n_in, rows[i].bias,
                                         INPUT_FINE, "%sself_attn.%s", prefix, rows[i].name);
        if (status != JANG_OK) {
            return status;
        }
        *rows[i].out = w;
    }
    jang_status status = load_norm(&a->kv_norm, l, &c->norm, c->kv_lora, c->kv_lora,
                                   "%sself_attn.kv_a_layernorm", prefix);
    if (status == JANG_OK && c->q_lora > 0) {
        status = load_norm(&a->q_norm, l, &c->norm, c->q_lora, c->q_lora,
                           "%sself_attn.q_a_layernorm", prefix);
    }
    return status == JANG_OK ? load_heads(a, l, c, prefix) : status;
}

kv_layer mla_kv(const mla_config *c) {
    return (kv_layer){
        .n_kv_head = 1, .k_dim = (int)(c->kv_lora + c->rope_dim), .v_dim = (int)c->kv_lora};
}

static void need_work(work *w, const mla_config *c) {
    work_need(w, SLOT_Q, c->n_head * (c->nope_dim + c->rope_dim));
    work_need(w, SLOT_Q_LORA, c->q_lora);
    work_need(w, SLOT_WIDE_Q, c->n_head * (c->kv_lora + c->rope_dim));
    work_need(w, SLOT_KV, c->kv_lora + c->rope_dim);
    work_need(w, SLOT_ATT, c->n_head * c->kv_lora);
    work_need(w, SLOT_OUT, c->n_head * c->v_dim);
}

jang_status mla_make(block **out, loader *l, work *w, const mla_config *c, int64_t n_embd,
                     const char *prefix) {
    mla *a = ctx_alloc(l->ctx, sizeof *a);
    if (!a) {
        return ctx_fail_memory(l->ctx, sizeof *a);
    }
    *a = (mla){.base = {&mla_kind},
               .n_head = c->n_head,
               .q_lora = c->q_lora,
               .kv_lora = c->kv_lora,
               .nope_dim = c->nope_dim,
               .rope_dim = c->rope_dim,
               .v_dim = c->v_dim,
               .rope = c->rope ? *c->rope : (rope_desc){0},
               .desc = {.n_head = (int)c->n_head, .kv = mla_kv(c), .scale = (float)c->scale},
               .kv_layer = c->kv_layer};
    jang_status status = work_need_routes(w, l->ctx, WORK_HEADS, (int)c->n_head, (int)c->n_head);
    if (status == JANG_OK) {
        status = load_all(a, l, c, n_embd, prefix);
    }
    if (status != JANG_OK) {
        ctx_free(l->ctx, a);
        return status;
    }
    need_work(w, c);
    *out = &a->base;
    return JANG_OK;
}
