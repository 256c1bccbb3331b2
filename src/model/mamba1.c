/* mamba1.c - Mamba's mixer. */
#include "model/mamba1.h"

#include <math.h>
#include <stdio.h>

enum { SLOT_IN = WORK_BLOCK, SLOT_X, SLOT_PARAMS, SLOT_STEP };

typedef struct mamba1 {
    block base;
    int64_t n_inner, n_state, dt_rank;
    const ops_weight *in_proj;  // (2 * n_inner, n_embd): x, z
    const ops_weight *x_proj;   // (dt_rank + 2 * n_state, n_inner): dt, b, c
    const ops_weight *dt_proj;  // (n_inner, dt_rank)
    const ops_weight *out_proj; // (n_embd, n_inner)
    norm_desc norms[3];         // of dt, b, c; width 0: none
    causal_conv conv;
    scan_desc scan;
    int part;
} mamba1;

static void mamba1_run(const block *base, const block_step *s, ops_mat h, ops_mat y, bool add) {
    const mamba1 *m = (const mamba1 *)base;
    int64_t n = m->n_inner, n_state = m->n_state;
    ops_mat in = step_rows(s, SLOT_IN, 2 * n), x = step_rows(s, SLOT_X, n);
    ops_mat params = step_rows(s, SLOT_PARAMS, m->dt_rank + 2 * n_state);
    ops_mat dt = ops_columns(params, 0, m->dt_rank);
    ops_mat b = ops_columns(params, m->dt_rank, n_state);
    ops_mat c = ops_columns(params, m->dt_rank + n_state, n_state);
    ops_mat time = step_rows(s, SLOT_STEP, n);

    s->t->linear(s->o, h, &(linear_item){m->in_proj, in, false}, 1);
    causal_conv_run(&m->conv, s, ops_columns(in, 0, n), x);
    s->t->linear(s->o, x, &(linear_item){m->x_proj, params, false}, 1);
    ops_mat normed[3] = {dt, b, c};
    for (int i = 0; i < 3; i++) {
        if (m->norms[i].width) {
            s->t->norm(s->o, &m->norms[i], normed[i], normed[i]);
        }
    }
    s->t->linear(s->o, dt, &(linear_item){m->dt_proj, time, false}, 1);
    const time_step_desc softplus = {.min = 0, .max = INFINITY};
    s->t->time_step(s->o, &softplus, time, time, (ops_mat){0});
    s->t->scan(s->o, &m->scan, (state_at){s->cache->state, m->part}, s->batch, x, time, b, c, x);
    gate_run(s, ACT_SILU, ops_columns(in, n, n), x, x);
    s->t->linear(s->o, x, &(linear_item){m->out_proj, y, add}, 1);
}

static const block_kind mamba1_kind = {.name = "mamba", .run = mamba1_run};

/* ---- Opening ---- */

/* Where a block's weights are. */
typedef struct place {
    loader *l;
    const mamba1_config *c;
    int64_t n_embd;
    char path[BLOCK_PATH_BYTES]; /* with the prefix */
} place;

static jang_status load_projections(mamba1 *m, const place *p) {
    bias_rule bias = p->c->bias ? BIAS_NEEDED : BIAS_NONE;
    const struct {
        const ops_weight **out;
        const char *name;
        int64_t n_out, n_in;
        bias_rule bias;
    } rows[] = {
        {&m->in_proj, "in_proj", 2 * m->n_inner, p->n_embd, bias},
        {&m->x_proj, "x_proj", m->dt_rank + 2 * m->n_state, m->n_inner, BIAS_NONE},
        {&m->dt_proj, "dt_proj", m->n_inner, m->dt_rank, BIAS_NEEDED},
        {&m->out_proj, "out_proj", p->n_embd, m->n_inner, bias},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        ops_weight *w;
        jang_status status = load_matrix(&w, p->l, rows[i].n_out, rows[i].n_in, rows[i].bias,
                                         INPUT_FINE, "%s.%s", p->path, rows[i].name);
        if (status != JANG_OK) {
            return status;
        }
        *rows[i].out = w;
    }
    return JANG_OK;
}

static jang_status load_norms(mamba1 *m, const place *p) {
    static const char *const names[3] = {"dt_layernorm", "b_layernorm", "c_layernorm"};
    const int64_t widths[3] = {m->dt_rank, m->n_state, m->n_state};
    jang_status status = JANG_OK;
    for (int i = 0; i < 3 && p->c->norm != MAMBA1_NORM_NONE && status == JANG_OK; i++) {
        const norm_config norm = {
            .kind = NORM_RMS, .eps = p->c->norm_eps, .plain = p->c->norm == MAMBA1_NORM_PLAIN};
        status =
            load_norm(&m->norms[i], p->l, &norm, widths[i], widths[i], "%s.%s", p->path, names[i]);
    }
    return status;
}

static jang_status load_scan(mamba1 *m, const place *p) {
    char conv[BLOCK_PATH_BYTES + 8];
    const char *names[1] = {conv};
    snprintf(conv, sizeof conv, "%s.conv1d", p->path);
    jang_status status =
        load_conv(&m->conv, p->l, p->c->n_tap, p->c->conv_bias, true, 1, &m->n_inner, names);
    if (status == JANG_OK) {
        status = load_decay(&m->scan.a, p->l, m->n_inner, m->n_state, 1, "%s.A_log", p->path);
    }
    if (status == JANG_OK) {
        status = load_f32_vector(&m->scan.d, p->l, m->n_inner, "%s.D", p->path);
    }
    return status == JANG_OK ? load_state(&m->part, p->l, m->n_inner * m->n_state) : status;
}

jang_status mamba1_make(block **out, loader *l, work *w, const mamba1_config *c, int64_t n_embd,
                        const char *prefix) {
    mamba1 *m = ctx_zero(l->ctx, 1, sizeof *m);
    if (!m) {
        return ctx_fail_memory(l->ctx, sizeof *m);
    }
    m->base.kind = &mamba1_kind;
    m->n_inner = c->n_inner;
    m->n_state = c->n_state;
    m->dt_rank = c->dt_rank;
    m->scan.n_state = (int)c->n_state;
    place p = {.l = l, .c = c, .n_embd = n_embd};
    snprintf(p.path, sizeof p.path, "%s%s", prefix, c->path);
    jang_status status = load_projections(m, &p);
    if (status == JANG_OK) {
        status = load_norms(m, &p);
    }
    if (status == JANG_OK) {
        status = load_scan(m, &p);
    }
    if (status != JANG_OK) {
        ctx_free(l->ctx, m);
        return status;
    }
    work_need(w, SLOT_IN, 2 * c->n_inner);
    work_need(w, SLOT_X, c->n_inner);
    work_need(w, SLOT_PARAMS, c->dt_rank + 2 * c->n_state);
    work_need(w, SLOT_STEP, c->n_inner);
    *out = &m->base;
    return JANG_OK;
}
