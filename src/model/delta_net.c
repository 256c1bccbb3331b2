/* delta_net.c - Gated DeltaNet and Kimi Delta Attention. */
#include "model/delta_net.h"

#include <math.h>
#include <stdio.h>

enum {
    SLOT_QKV = WORK_BLOCK, /* projected */
    SLOT_CONV,             /* convolved; v becomes the result */
    SLOT_GATE,
    SLOT_BETA,
    SLOT_DECAY,
    SLOT_FUSED,
    SLOT_LOW /* inner numbers of the low-rank projections */
};

#define L2_EPS 1e-6 /* of q and k, a constant of the reference classes */

typedef struct delta_net {
    block base;
    delta_desc desc;
    int64_t key_width, width, decay_width; // of all heads' k, v, decays
    bool fused;                            // in_qkv is in_proj_qkvz, in_b in_proj_ba
    const ops_weight *in_qkv, *in_z;       // (2 * key_width + width, n_embd), (width, n_embd)
    const ops_weight *in_b, *in_a;         // (n_head, n_embd) both
    const ops_weight *in_q, *in_k, *in_v;  // Kimi's, instead of in_qkv
    const ops_weight *a_low, *z_low;       // (low, n_embd), before in_a and in_z; or NULL
    const ops_weight *out_proj;            // (n_embd, width)
    int64_t low;
    causal_conv conv;
    time_step_desc decay;
    norm_desc q_norm, k_norm, norm;
    activation gate;
    int part;
} delta_net;

/* ---- Forward pass ---- */

/* What a token's projections give. */
typedef struct projected {
    ops_mat qkv, gate, beta, decay;
} projected;

/* One matrix of q, k, v, z of each key head, another of its b and a. */
static void project_fused(const delta_net *d, const block_step *s, ops_mat h, const projected *p) {
    int64_t keys = d->desc.n_k_head, k = d->desc.k_dim, share = d->desc.n_head / keys;
    int64_t v = share * d->desc.v_dim, period = 2 * k + 2 * v;
    ops_mat all = step_rows(s, SLOT_FUSED, keys * (period + 2 * share));
    ops_mat qkvz = ops_columns(all, 0, keys * period);
    ops_mat ba = ops_columns(all, keys * period, keys * 2 * share);
    const linear_item items[] = {{d->in_qkv, qkvz, false}, {d->in_b, ba, false}};
    s->t->linear(s->o, h, items, 2);
    s->t->take_blocks(s->o, qkvz, period, 0, k, ops_columns(p->qkv, 0, d->key_width));
    s->t->take_blocks(s->o, qkvz, period, k, k, ops_columns(p->qkv, d->key_width, d->key_width));
    s->t->take_blocks(s->o, qkvz, period, 2 * k, v,
                      ops_columns(p->qkv, 2 * d->key_width, d->width));
    s->t->take_blocks(s->o, qkvz, period, 2 * k + v, v, p->gate);
    s->t->take_blocks(s->o, ba, 2 * share, 0, share, p->beta);
    s->t->take_blocks(s->o, ba, 2 * share, share, share, p->decay);
}

static void project_split(const delta_net *d, const block_step *s, ops_mat h, const projected *p) {
    const linear_item items[] = {{d->in_qkv, p->qkv, false},
                                 {d->in_z, p->gate, false},
                                 {d->in_b, p->beta, false},
                                 {d->in_a, p->decay, false}};
    s->t->linear(s->o, h, items, 4);
}

/* q, k, v by matrices of their own, decay and gate through a narrow one. */
static void project_kimi(const delta_net *d, const block_step *s, ops_mat h, const projected *p) {
    int64_t n = d->key_width;
    ops_mat low = step_rows(s, SLOT_LOW, 2 * d->low);
    ops_mat a = ops_columns(low, 0, d->low), z = ops_columns(low, d->low, d->low);
    const linear_item items[] = {{d->in_q, ops_columns(p->qkv, 0, n), false},
                                 {d->in_k, ops_columns(p->qkv, n, n), false},
                                 {d->in_v, ops_columns(p->qkv, 2 * n, d->width), false},
                                 {d->in_b, p->beta, false},
                                 {d->a_low, a, false},
                                 {d->z_low, z, false}};
    s->t->linear(s->o, h, items, 6);
    s->t->linear(s->o, a, &(linear_item){d->in_a, p->decay, false}, 1);
    s->t->linear(s->o, z, &(linear_item){d->in_z, p->gate, false}, 1);
}

static void delta_net_run(const block *b, const block_step *s, ops_mat h, ops_mat y, bool add) {
    const delta_net *d = (const delta_net *)b;
    int64_t qkv = 2 * d->key_width + d->width;
    const projected p = {
        .qkv = step_rows(s, SLOT_QKV, qkv),
        .gate = step_rows(s, SLOT_GATE, d->width),
        .beta = step_rows(s, SLOT_BETA, d->desc.n_head),
        .decay = step_rows(s, SLOT_DECAY, d->decay_width),
    };
    if (d->in_q) {
        project_kimi(d, s, h, &p);
    } else if (d->fused) {
        project_fused(d, s, h, &p);
    } else {
        project_split(d, s, h, &p);
    }
    ops_mat mixed = step_rows(s, SLOT_CONV, qkv), q = ops_columns(mixed, 0, d->key_width);
    ops_mat k = ops_columns(mixed, d->key_width, d->key_width);
    ops_mat v = ops_columns(mixed, 2 * d->key_width, d->width);
    causal_conv_run(&d->conv, s, p.qkv, mixed);
    s->t->norm(s->o, &d->q_norm, q, q);
    s->t->norm(s->o, &d->k_norm, k, k);
    s->t->gated(s->o, &(act_desc){.kind = ACT_SIGMOID}, p.beta, (ops_mat){0}, p.beta);
    s->t->time_step(s->o, &d->decay, p.decay, (ops_mat){0}, p.decay);
    s->t->delta(s->o, &d->desc, (state_at){s->cache->state, d->part}, s->batch, q, k, v, p.decay,
                p.beta, v);
    s->t->norm(s->o, &d->norm, v, v);
    gate_run(s, d->gate, p.gate, v, v);
    s->t->linear(s->o, v, &(linear_item){d->out_proj, y, add}, 1);
}

static const block_kind delta_net_kind = {.name = "delta_net", .run = delta_net_run};

/* ---- Opening ---- */

typedef struct place {
    loader *l;
    const delta_net_config *c;
    int64_t n_embd;
    char path[BLOCK_PATH_BYTES]; /* with the prefix */
} place;

typedef struct matrix_row {
    const ops_weight **out;
    const char *name;
    int64_t n_out, n_in;
} matrix_row;

static jang_status load_rows(const place *p, const matrix_row *rows, size_t n) {
    for (size_t i = 0; i < n; i++) {
        ops_weight *w;
        jang_status status = load_matrix(&w, p->l, rows[i].n_out, rows[i].n_in, BIAS_NONE,
                                         INPUT_FINE, "%s.%s", p->path, rows[i].name);
        if (status != JANG_OK) {
            return status;
        }
        *rows[i].out = w;
    }
    return JANG_OK;
}

#define N_ROWS(rows) (sizeof(rows) / sizeof(rows)[0])

static jang_status load_projections(delta_net *d, const place *p) {
    int64_t qkv = 2 * d->key_width + d->width, n_head = d->desc.n_head;
    const matrix_row fused[] = {
        {&d->in_qkv, "in_proj_qkvz", qkv + d->width, p->n_embd},
        {&d->in_b, "in_proj_ba", 2 * n_head, p->n_embd},
        {&d->out_proj, "out_proj", p->n_embd, d->width},
    };
    const matrix_row split[] = {
        {&d->in_qkv, "in_proj_qkv", qkv, p->n_embd},
        {&d->in_z, "in_proj_z", d->width, p->n_embd},
        {&d->in_b, "in_proj_b", n_head, p->n_embd},
        {&d->in_a, "in_proj_a", n_head, p->n_embd},
        {&d->out_proj, "out_proj", p->n_embd, d->width},
    };
    return d->fused ? load_rows(p, fused, N_ROWS(fused)) : load_rows(p, split, N_ROWS(split));
}

static jang_status load_kimi_projections(delta_net *d, const place *p) {
    const matrix_row rows[] = {
        {&d->in_q, "q_proj", d->key_width, p->n_embd},
        {&d->in_k, "k_proj", d->key_width, p->n_embd},
        {&d->in_v, "v_proj", d->width, p->n_embd},
        {&d->in_b, "b_proj", d->desc.n_head, p->n_embd},
        {&d->a_low, "f_a_proj", d->low, p->n_embd},
        {&d->in_a, "f_b_proj", d->decay_width, d->low},
        {&d->z_low, "g_a_proj", d->low, p->n_embd},
        {&d->in_z, "g_b_proj", d->width, d->low},
        {&d->out_proj, "o_proj", p->n_embd, d->width},
    };
    return load_rows(p, rows, N_ROWS(rows));
}

/* Norms of q and k: no weight, but the queries' carries their scale. */
static jang_status make_qk_norms(delta_net *d, const place *p) {
    int64_t n = d->desc.k_dim;
    const norm_desc l2 = {.kind = NORM_L2, .width = n, .eps = (float)L2_EPS};
    d->q_norm = d->k_norm = l2;
    return load_constant(&d->q_norm.weight, p->l, n, 1 / sqrtf((float)n));
}

/* What both kinds have: the decays, the norm of the result, the state. */
static jang_status load_rest(delta_net *d, const place *p, const char *norm) {
    const norm_config rms = {.kind = NORM_RMS, .eps = p->c->norm_eps};
    int64_t v_dim = d->desc.v_dim;
    d->decay.min = 0;
    d->decay.max = INFINITY;
    jang_status status = make_qk_norms(d, p);
    if (status == JANG_OK) {
        status = load_decay(&d->decay.a, p->l, 1, d->desc.n_head, d->decay_width / d->desc.n_head,
                            "%s.A_log", p->path);
    }
    if (status == JANG_OK) {
        status = load_f32_vector(&d->decay.bias, p->l, d->decay_width, "%s.dt_bias", p->path);
    }
    if (status == JANG_OK) {
        status = load_norm(&d->norm, p->l, &rms, v_dim, v_dim, "%s.%s", p->path, norm);
    }
    return status == JANG_OK ? load_state(&d->part, p->l, d->width * d->desc.k_dim) : status;
}

static jang_status load_one_conv(delta_net *d, const place *p) {
    char name[BLOCK_PATH_BYTES + 8];
    const char *names[1] = {name};
    int64_t width = 2 * d->key_width + d->width;
    snprintf(name, sizeof name, "%s.conv1d", p->path);
    return load_conv(&d->conv, p->l, p->c->n_tap, false, true, 1, &width, names);
}

static jang_status load_three_convs(delta_net *d, const place *p) {
    static const char *const letters = "qkv";
    const int64_t widths[3] = {d->key_width, d->key_width, d->width};
    char texts[3][BLOCK_PATH_BYTES + 16];
    const char *names[3] = {texts[0], texts[1], texts[2]};
    for (int i = 0; i < 3; i++) {
        snprintf(texts[i], sizeof texts[i], "%s.%c_conv.conv", p->path, letters[i]);
    }
    return load_conv(&d->conv, p->l, p->c->n_tap, false, true, 3, widths, names);
}

static void need_work(work *w, const delta_net *d) {
    int64_t qkv = 2 * d->key_width + d->width;
    work_need(w, SLOT_QKV, qkv);
    work_need(w, SLOT_CONV, qkv);
    work_need(w, SLOT_GATE, d->width);
    work_need(w, SLOT_BETA, d->desc.n_head);
    work_need(w, SLOT_DECAY, d->decay_width);
    work_need(w, SLOT_FUSED, d->fused ? qkv + d->width + 2 * d->desc.n_head : 0);
    work_need(w, SLOT_LOW, 2 * d->low);
}

/* A block of these sizes, with its weights to come. */
static jang_status start(delta_net **out, place *p, const char *prefix) {
    const delta_net_config *c = p->c;
    if (c->n_head % c->n_k_head != 0) {
        return ctx_fail(p->l->ctx, JANG_ERR_FORMAT,
                        "%s: %lld value heads of linear attention over %lld key heads: the first "
                        "must be a multiple of the second",
                        p->l->config.what, (long long)c->n_head, (long long)c->n_k_head);
    }
    delta_net *d = ctx_zero(p->l->ctx, 1, sizeof *d);
    if (!d) {
        return ctx_fail_memory(p->l->ctx, sizeof *d);
    }
    d->base.kind = &delta_net_kind;
    d->desc = (delta_desc){(int)c->n_head, (int)c->n_k_head, (int)c->k_dim, (int)c->v_dim};
    d->key_width = c->n_k_head * c->k_dim;
    d->width = c->n_head * c->v_dim;
    snprintf(p->path, sizeof p->path, "%s%s", prefix, c->path);
    *out = d;
    return JANG_OK;
}

static jang_status end(block **out, work *w, delta_net *d, const place *p, jang_status status) {
    if (status != JANG_OK) {
        ctx_free(p->l->ctx, d);
        return status;
    }
    need_work(w, d);
    *out = &d->base;
    return JANG_OK;
}

jang_status delta_net_make(block **out, loader *l, work *w, const delta_net_config *c,
                           int64_t n_embd, const char *prefix) {
    place p = {.l = l, .c = c, .n_embd = n_embd};
    delta_net *d;
    jang_status status = start(&d, &p, prefix);
    if (status != JANG_OK) {
        return status;
    }
    d->decay_width = c->n_head;
    d->gate = ACT_SILU;
    d->fused = loader_tensor(l, "%s.in_proj_qkvz.weight", p.path) != NULL;
    status = load_projections(d, &p);
    if (status == JANG_OK) {
        status = load_one_conv(d, &p);
    }
    if (status == JANG_OK) {
        status = load_rest(d, &p, "norm");
    }
    return end(out, w, d, &p, status);
}

jang_status kimi_delta_make(block **out, loader *l, work *w, const delta_net_config *c,
                            int64_t n_embd, const char *prefix) {
    place p = {.l = l, .c = c, .n_embd = n_embd};
    delta_net *d;
    jang_status status = start(&d, &p, prefix);
    if (status != JANG_OK) {
        return status;
    }
    d->decay_width = d->key_width;
    d->low = c->k_dim;
    d->gate = ACT_SIGMOID;
    status = load_kimi_projections(d, &p);
    if (status == JANG_OK) {
        status = load_three_convs(d, &p);
    }
    if (status == JANG_OK) {
        status = load_rest(d, &p, "o_norm");
    }
    return end(out, w, d, &p, status);
}
