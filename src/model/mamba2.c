/* mamba2.c - Mamba-2's mixer. */
#include "model/mamba2.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SLOT_IN = WORK_BLOCK, SLOT_CONV, SLOT_TIME, SLOT_SCALED };

typedef struct mamba2 {
    block base;
    int64_t n_embd, n_inner, n_head, n_conv; // n_conv: x, b, c
    const ops_weight *in_proj;               // (n_inner + n_conv + n_head, n_embd): z, x, b, c, dt
    const ops_weight *out_proj;              // (n_embd, n_inner)
    float in_scale;
    norm_desc parts; // multipliers of in_proj's result; width 0: none
    causal_conv conv;
    time_step_desc time;
    ssd_desc ssd;
    mamba2_norm order;
    norm_desc norm;
    int part;
} mamba2;

/* in = linear(h), with its multipliers. */
static void project(const mamba2 *m, const block_step *s, ops_mat h, ops_mat in) {
    if (m->in_scale != 1) {
        ops_mat scaled = step_rows(s, SLOT_SCALED, m->n_embd);
        s->t->gated(s->o, &(act_desc){.kind = ACT_LINEAR, .a = m->in_scale}, h, (ops_mat){0},
                    scaled);
        h = scaled;
    }
    s->t->linear(s->o, h, &(linear_item){m->in_proj, in, false}, 1);
    if (m->parts.width) {
        s->t->norm(s->o, &m->parts, in, in);
    }
}

static void norm_and_gate(const mamba2 *m, const block_step *s, ops_mat z, ops_mat y) {
    if (m->order == MAMBA2_NORM_FIRST) {
        s->t->norm(s->o, &m->norm, y, y);
    }
    gate_run(s, ACT_SILU, z, y, y);
    if (m->order == MAMBA2_GATE_FIRST) {
        s->t->norm(s->o, &m->norm, y, y);
    }
}

static void mamba2_run(const block *base, const block_step *s, ops_mat h, ops_mat y, bool add) {
    const mamba2 *m = (const mamba2 *)base;
    int64_t n = m->n_inner, n_bc = (int64_t)m->ssd.n_group * m->ssd.n_state;
    ops_mat in = step_rows(s, SLOT_IN, n + m->n_conv + m->n_head);
    ops_mat mixed = step_rows(s, SLOT_CONV, m->n_conv), x = ops_columns(mixed, 0, n);
    ops_mat time = step_rows(s, SLOT_TIME, 2 * m->n_head);
    ops_mat dt = ops_columns(time, 0, m->n_head), decay = ops_columns(time, m->n_head, m->n_head);

    project(m, s, h, in);
    causal_conv_run(&m->conv, s, ops_columns(in, n, m->n_conv), mixed);
    s->t->time_step(s->o, &m->time, ops_columns(in, n + m->n_conv, m->n_head), dt, decay);
    s->t->ssd(s->o, &m->ssd, (state_at){s->cache->state, m->part}, s->batch, x, dt, decay,
              ops_columns(mixed, n, n_bc), ops_columns(mixed, n + n_bc, n_bc), x);
    norm_and_gate(m, s, ops_columns(in, 0, n), x);
    s->t->linear(s->o, x, &(linear_item){m->out_proj, y, add}, 1);
}

static const block_kind mamba2_kind = {.name = "mamba2", .run = mamba2_run};

/* ---- Opening ---- */

/* A number, or what transformers has come to write where JSON has none: {"__float__": "Infinity"}.
 */
static bool read_limit(double *out, const json_t *value) {
    const char *text = json_string_value(json_object_get(value, "__float__"));
    bool infinite = text && strcmp(text, "Infinity") == 0;
    *out = infinite ? INFINITY : json_number_value(value);
    return infinite || json_is_number(value);
}

jang_status mamba2_read_limits(mamba2_config *c, json_at at) {
    const json_t *limit = json_object_get(at.object, "time_step_limit");
    c->dt_min = 0;
    c->dt_max = INFINITY;
    if (!limit || json_is_null(limit)) {
        return JANG_OK;
    }
    double low, high;
    if (json_array_size(limit) != 2 || !read_limit(&low, json_array_get(limit, 0)) ||
        !read_limit(&high, json_array_get(limit, 1)) || !(low <= high)) {
        return ctx_fail(at.ctx, JANG_ERR_FORMAT,
                        "%s: time_step_limit must be two numbers, the smaller first", at.what);
    }
    c->dt_min = fmax(low, 0);
    c->dt_max = high;
    return JANG_OK;
}

typedef struct place {
    loader *l;
    const mamba2_config *c;
    char path[BLOCK_PATH_BYTES]; /* with the prefix */
} place;

/* One multiplier for each column of in_proj's result. */
static jang_status make_parts(mamba2 *m, const place *p) {
    const double *scale = p->c->part_scale;
    int64_t n_bc = (int64_t)m->ssd.n_group * m->ssd.n_state;
    const int64_t widths[5] = {m->n_inner, m->n_inner, n_bc, n_bc, m->n_head};
    int64_t width = m->n_inner + m->n_conv + m->n_head, at = 0;
    float *x = ctx_array(p->l->ctx, (size_t)width, sizeof *x);
    if (!x) {
        return ctx_fail_memory(p->l->ctx, (size_t)width * sizeof *x);
    }
    for (int part = 0; part < 5; part++) {
        for (int64_t i = 0; i < widths[part]; i++) {
            x[at++] = (float)scale[part];
        }
    }
    ops_weight *w;
    jang_status status = load_computed(&w, p->l, x, width, "(multipliers)");
    ctx_free(p->l->ctx, x);
    if (status == JANG_OK) {
        m->parts = (norm_desc){.kind = NORM_NONE, .width = width, .weight = w};
    }
    return status;
}

static jang_status load_projections(mamba2 *m, const place *p) {
    const mamba2_config *c = p->c;
    ops_weight *in, *out;
    jang_status status =
        load_matrix(&in, p->l, m->n_inner + m->n_conv + m->n_head, m->n_embd,
                    c->in_bias ? BIAS_NEEDED : BIAS_NONE, INPUT_FINE, "%s.in_proj", p->path);
    if (status == JANG_OK) {
        status =
            load_matrix(&out, p->l, m->n_embd, m->n_inner, c->out_bias ? BIAS_NEEDED : BIAS_NONE,
                        INPUT_FINE, "%s.out_proj", p->path);
    }
    if (status == JANG_OK) {
        m->in_proj = in;
        m->out_proj = out;
        status = c->part_scale ? make_parts(m, p) : JANG_OK;
    }
    if (status == JANG_OK && c->norm != MAMBA2_NO_NORM) {
        const norm_config norm = {.kind = NORM_RMS, .eps = c->norm_eps};
        status = load_norm(&m->norm, p->l, &norm, m->n_inner / c->norm_groups, m->n_inner,
                           "%s.norm", p->path);
    }
    return status;
}

static jang_status load_scan(mamba2 *m, const place *p) {
    char conv[BLOCK_PATH_BYTES + 8];
    const char *names[1] = {conv};
    snprintf(conv, sizeof conv, "%s.conv1d", p->path);
    jang_status status =
        load_conv(&m->conv, p->l, p->c->n_tap, p->c->conv_bias, true, 1, &m->n_conv, names);
    if (status == JANG_OK) {
        status = load_decay(&m->time.a, p->l, 1, m->n_head, 1, "%s.A_log", p->path);
    }
    if (status == JANG_OK) {
        status = load_f32_vector(&m->time.bias, p->l, m->n_head, "%s.dt_bias", p->path);
    }
    if (status == JANG_OK) {
        status = load_f32_vector(&m->ssd.d, p->l, m->n_head, "%s.D", p->path);
    }
    return status == JANG_OK ? load_state(&m->part, p->l, m->n_inner * m->ssd.n_state) : status;
}

static jang_status check(const place *p, int64_t n_inner) {
    const mamba2_config *c = p->c;
    if (c->n_head % c->n_group == 0 &&
        (c->norm == MAMBA2_NO_NORM || n_inner % c->norm_groups == 0)) {
        return JANG_OK;
    }
    return ctx_fail(
        p->l->ctx, JANG_ERR_FORMAT, "%s: %lld Mamba heads of %lld do not divide into %lld groups",
        p->l->config.what, (long long)c->n_head, (long long)c->head_dim, (long long)c->n_group);
}

static void describe(mamba2 *m, const mamba2_config *c, int64_t n_embd) {
    m->base.kind = &mamba2_kind;
    m->n_embd = n_embd;
    m->n_head = c->n_head;
    m->n_inner = c->n_head * c->head_dim;
    m->n_conv = m->n_inner + 2 * c->n_group * c->n_state;
    m->in_scale = c->in_scale != 0 ? (float)c->in_scale : 1;
    m->time = (time_step_desc){.min = (float)fmin(c->dt_min, (double)FLT_MAX),
                               .max = (float)fmin(c->dt_max, (double)FLT_MAX)};
    m->ssd = (ssd_desc){.n_head = (int)c->n_head,
                        .head_dim = (int)c->head_dim,
                        .n_group = (int)c->n_group,
                        .n_state = (int)c->n_state};
    m->order = c->norm;
}

jang_status mamba2_make(block **out, loader *l, work *w, const mamba2_config *c, int64_t n_embd,
                        const char *prefix) {
    mamba2 *m = ctx_zero(l->ctx, 1, sizeof *m);
    if (!m) {
        return ctx_fail_memory(l->ctx, sizeof *m);
    }
    describe(m, c, n_embd);
    place p = {.l = l, .c = c};
    snprintf(p.path, sizeof p.path, "%s%s", prefix, c->path);
    jang_status status = check(&p, m->n_inner);
    if (status == JANG_OK) {
        status = load_projections(m, &p);
    }
    if (status == JANG_OK) {
        status = load_scan(m, &p);
    }
    if (status != JANG_OK) {
        ctx_free(l->ctx, m);
        return status;
    }
    work_need(w, SLOT_IN, m->n_inner + m->n_conv + m->n_head);
    work_need(w, SLOT_CONV, m->n_conv);
    work_need(w, SLOT_TIME, 2 * m->n_head);
    work_need(w, SLOT_SCALED, m->in_scale != 1 ? n_embd : 0);
    *out = &m->base;
    return JANG_OK;
}
