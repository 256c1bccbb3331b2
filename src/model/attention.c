/* attention.c - softmax attention with a cache: weights and forward pass. */
#include "model/attention.h"

#include <stdio.h>

enum { SLOT_Q = WORK_BLOCK, SLOT_K, SLOT_V, SLOT_OUT, SLOT_FUSED };

typedef struct attention {
    block base;
    const ops_weight *wq, *wk, *wv, *wo; // wq alone when fused; wk, wv NULL when another layer's
    qkv_layout layout;
    bool norm_after_rope, v_is_k, gate;
    norm_desc q_norm, k_norm, v_norm; // width 0: none
    rope_desc rope;                   // inv_freq NULL: none
    attention_desc desc;
    act_desc clip; // a 0: none
    int kv_layer;
} attention;

static int64_t q_width(const attention *a) {
    return (int64_t)a->desc.n_head * a->desc.kv.k_dim;
}

static int64_t kv_width(const attention *a) {
    return (int64_t)a->desc.kv.n_kv_head * a->desc.kv.k_dim;
}

/* ---- Projections ---- */

static void project_separate(const attention *a, const block_step *s, ops_mat h, ops_mat q,
                             ops_mat k, ops_mat v) {
    ops_mat wide = a->gate ? step_rows(s, SLOT_FUSED, 2 * q_width(a)) : q;
    linear_item items[3] = {{a->wq, wide, false}};
    int n = 1;
    if (a->wk) {
        items[n++] = (linear_item){a->wk, k, false};
    }
    if (a->wv) {
        items[n++] = (linear_item){a->wv, v, false};
    }
    s->t->linear(s->o, h, items, n);
    if (a->gate) {
        s->t->take_blocks(s->o, wide, 2 * a->desc.kv.k_dim, 0, a->desc.kv.k_dim, q);
    }
    if (a->v_is_k) {
        s->t->gated(s->o, &(act_desc){.kind = ACT_LINEAR, .a = 1}, k, (ops_mat){0}, v);
    }
}

/* q, k and v are then columns of one matrix, or are picked from it. */
static void project_fused(const attention *a, const block_step *s, ops_mat h, ops_mat *q,
                          ops_mat *k, ops_mat *v) {
    int64_t n_q = q_width(a), n_kv = kv_width(a), n = a->desc.kv.k_dim;
    int64_t share = a->desc.n_head / a->desc.kv.n_kv_head * n;
    ops_mat all = step_rows(s, SLOT_FUSED, n_q + 2 * n_kv);
    s->t->linear(s->o, h, &(linear_item){a->wq, all, false}, 1);
    if (a->layout == QKV_ROWS) {
        *q = ops_columns(all, 0, n_q);
        *k = ops_columns(all, n_q, n_kv);
        *v = ops_columns(all, n_q + n_kv, n_kv);
        return;
    }
    s->t->take_blocks(s->o, all, share + 2 * n, 0, share, *q);
    s->t->take_blocks(s->o, all, share + 2 * n, share, n, *k);
    s->t->take_blocks(s->o, all, share + 2 * n, share + n, n, *v);
}

/* ---- Forward pass ---- */

static void norm_qk(const attention *a, const block_step *s, ops_mat q, ops_mat k) {
    if (a->q_norm.width) {
        s->t->norm(s->o, &a->q_norm, q, q);
    }
    if (a->k_norm.width && a->wk) {
        s->t->norm(s->o, &a->k_norm, k, k);
    }
}

static void turn_qk(const attention *a, const block_step *s, ops_mat q, ops_mat k, bool has_k) {
    if (!a->rope.inv_freq) {
        return;
    }
    s->t->rope(s->o, &a->rope, s->batch, q, a->desc.n_head, a->desc.kv.k_dim);
    if (has_k) {
        s->t->rope(s->o, &a->rope, s->batch, k, a->desc.kv.n_kv_head, a->desc.kv.k_dim);
    }
}

static void attention_run(const block *b, const block_step *s, ops_mat h, ops_mat y, bool add) {
    const attention *a = (const attention *)b;
    ops_mat q = step_rows(s, SLOT_Q, q_width(a)), out = step_rows(s, SLOT_OUT, q_width(a));
    ops_mat k = step_rows(s, SLOT_K, kv_width(a)), v = step_rows(s, SLOT_V, kv_width(a));
    bool has_k = a->layout != QKV_SEPARATE || a->wk;
    if (a->layout == QKV_SEPARATE) {
        project_separate(a, s, h, q, k, v);
    } else {
        project_fused(a, s, h, &q, &k, &v);
    }
    if (a->norm_after_rope) {
        turn_qk(a, s, q, k, has_k);
    }
    norm_qk(a, s, q, k);
    if (a->clip.a > 0) {
        ops_mat all[] = {q, k, v};
        for (int i = 0; i < 3; i++) {
            s->t->gated(s->o, &a->clip, all[i], (ops_mat){0}, all[i]);
        }
    }
    if (!a->norm_after_rope) {
        turn_qk(a, s, q, k, has_k);
    }
    if (has_k) {
        if (a->v_norm.width) {
            s->t->norm(s->o, &a->v_norm, v, v);
        }
        s->t->kv_store(s->o, s->cache->kv, a->kv_layer, s->batch, k, v);
    }
    s->t->attention(s->o, &a->desc, s->cache->kv, a->kv_layer, s->batch, q, out);
    if (a->gate) {
        int n = a->desc.kv.k_dim; /* the queries are used up: the gate takes their place */
        s->t->take_blocks(s->o, step_rows(s, SLOT_FUSED, 2 * q_width(a)), 2 * n, n, n, q);
        s->t->gated(s->o, &(act_desc){.kind = ACT_SIGMOID}, q, out, out);
    }
    s->t->linear(s->o, out, &(linear_item){a->wo, y, add}, 1);
}

static const block_kind attention_kind = {.name = "attention", .run = attention_run};

/* ---- Opening ---- */

static const char *or_usual(const char *name, const char *usual) {
    return name ? name : usual;
}

typedef struct place {
    loader *l;
    const attention_config *c;
    const char *prefix, *path;
    int64_t n_embd;
} place;

static jang_status load_projections(attention *a, const place *p) {
    const attention_config *c = p->c;
    int64_t n_q = c->n_head * c->head_dim, n_kv = c->n_kv_head * c->head_dim;
    bool fused = c->layout != QKV_SEPARATE;
    int64_t n_first = fused ? n_q + 2 * n_kv : c->output_gate ? 2 * n_q : n_q;
    const struct {
        const ops_weight **out;
        const char *name;
        int64_t n_out, n_in;
        bias_rule bias;
        bool wanted;
    } rows[] = {
        {&a->wq, fused ? or_usual(c->qkv, "qkv_proj") : or_usual(c->q, "q_proj"), n_first,
         p->n_embd, c->q_bias, true},
        {&a->wk, or_usual(c->k, "k_proj"), n_kv, p->n_embd, c->k_bias, !fused && !c->kv_is_read},
        {&a->wv, or_usual(c->v, "v_proj"), n_kv, p->n_embd, c->v_bias,
         !fused && !c->kv_is_read && !c->v_is_k},
        {&a->wo, or_usual(c->o, "o_proj"), p->n_embd, n_q, c->o_bias, true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (!rows[i].wanted) {
            continue;
        }
        ops_weight *w;
        jang_status status = load_matrix(&w, p->l, rows[i].n_out, rows[i].n_in, rows[i].bias,
                                         INPUT_FINE, "%s%s.%s", p->prefix, p->path, rows[i].name);
        if (status != JANG_OK) {
            return status;
        }
        *rows[i].out = w;
    }
    return JANG_OK;
}

/* The weights of heads that each have a norm of their own, one after the other. */
static jang_status load_head_norms(norm_desc *out, const place *p, int64_t n_head,
                                   const char *name) {
    loader *l = p->l;
    int64_t n = p->c->head_dim;
    float *all = ctx_array(l->ctx, (size_t)(n_head * n), sizeof *all);
    jang_status status = all ? JANG_OK : ctx_fail_memory(l->ctx, (size_t)(n_head * n) * 4);
    char full[128];
    bool stacked = p->c->qk_norm == QK_NORM_STACKED;
    if (status == JANG_OK && stacked) {
        snprintf(full, sizeof full, "%s%s.%s.weight", p->prefix, p->path, name);
        status = loader_read_numbers(all, l, n_head * n, full);
    }
    for (int64_t h = 0; h < n_head && status == JANG_OK && !stacked; h++) {
        snprintf(full, sizeof full, "%s%s.%s.norms.%d.weight", p->prefix, p->path, name, (int)h);
        status = loader_read_numbers(all + h * n, l, n, full);
    }
    ops_weight *weight;
    if (status == JANG_OK) {
        status = load_computed(&weight, l, all, n_head * n, name);
    }
    if (status == JANG_OK) {
        *out = (norm_desc){.kind = p->c->norm.kind,
                           .width = n,
                           .weight = weight,
                           .eps = (float)p->c->norm.eps,
                           .offset = (float)p->c->norm.offset};
    }
    ctx_free(l->ctx, all);
    return status;
}

static jang_status load_qk_norms(attention *a, const place *p) {
    const attention_config *c = p->c;
    int64_t n = c->head_dim, n_q = c->n_head * n, n_k = c->n_kv_head * n;
    bool whole = c->qk_norm == QK_NORM_WHOLE;
    if (c->v_norm && !c->kv_is_read) {
        a->v_norm =
            (norm_desc){.kind = c->norm.kind, .width = c->head_dim, .eps = (float)c->norm.eps};
    }
    if (c->qk_norm == QK_NORM_NONE) {
        return JANG_OK;
    }
    if (c->qk_norm == QK_NORM_EACH || c->qk_norm == QK_NORM_STACKED) {
        jang_status each = load_head_norms(&a->q_norm, p, c->n_head, or_usual(c->q_norm, "q_norm"));
        return each == JANG_OK
                   ? load_head_norms(&a->k_norm, p, c->n_kv_head, or_usual(c->k_norm, "k_norm"))
                   : each;
    }
    jang_status status = load_norm(&a->q_norm, p->l, &c->norm, whole ? n_q : n, whole ? n_q : n,
                                   "%s%s.%s", p->prefix, p->path, or_usual(c->q_norm, "q_norm"));
    if (status == JANG_OK && !c->kv_is_read) {
        status = load_norm(&a->k_norm, p->l, &c->norm, whole ? n_k : n, whole ? n_k : n, "%s%s.%s",
                           p->prefix, p->path, or_usual(c->k_norm, "k_norm"));
    }
    return status;
}

static void need_work(work *w, const attention_config *c) {
    int64_t n_q = c->n_head * c->head_dim, n_kv = c->n_kv_head * c->head_dim;
    work_need(w, SLOT_Q, n_q);
    work_need(w, SLOT_K, n_kv);
    work_need(w, SLOT_V, n_kv);
    work_need(w, SLOT_OUT, n_q);
    if (c->layout != QKV_SEPARATE) {
        work_need(w, SLOT_FUSED, n_q + 2 * n_kv);
    } else if (c->output_gate) {
        work_need(w, SLOT_FUSED, 2 * n_q);
    }
}

kv_layer attention_kv(const attention_config *c) {
    return (kv_layer){(int)c->n_kv_head, (int)c->head_dim, (int)c->head_dim};
}

static attention describe(const attention_config *c) {
    return (attention){
        .base = {&attention_kind},
        .layout = c->layout,
        .norm_after_rope = c->norm_after_rope,
        .v_is_k = c->v_is_k && !c->kv_is_read,
        .gate = c->output_gate,
        .rope = c->rope ? *c->rope : (rope_desc){0},
        .kv_layer = c->kv_layer,
        .clip = {.kind = ACT_CLAMP, .a = (float)c->clip},
        .desc =
            {
                .n_head = (int)c->n_head,
                .kv = attention_kv(c),
                .scale = (float)c->scale,
                .window = (int32_t)c->window,
                .chunk = (int32_t)c->chunk,
                .softcap = (float)c->softcap,
                .temper = (float)c->temper,
                .temper_span = (int32_t)c->temper_span,
                .temper_shift = (int32_t)c->temper_shift,
                .whole = c->whole,
            },
    };
}

jang_status attention_make(block **out, loader *l, work *w, const attention_config *c,
                           int64_t n_embd, const char *prefix) {
    attention *a = ctx_alloc(l->ctx, sizeof *a);
    if (!a) {
        return ctx_fail_memory(l->ctx, sizeof *a);
    }
    *a = describe(c);
    const place p = {l, c, prefix, or_usual(c->path, "self_attn"), n_embd};
    jang_status status = load_projections(a, &p);
    if (status == JANG_OK) {
        status = load_qk_norms(a, &p);
    }
    if (status == JANG_OK && c->sinks) {
        ops_weight *sinks;
        status = load_param(&sinks, l, c->n_head, "%s%s.sinks", prefix, p.path);
        a->desc.sinks = sinks;
    }
    if (status != JANG_OK) {
        ctx_free(l->ctx, a);
        return status;
    }
    need_work(w, c);
    *out = &a->base;
    return JANG_OK;
}
