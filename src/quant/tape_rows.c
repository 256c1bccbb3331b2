/* tape_rows.c - operators that treat each row by itself, and their gradients. */
#include "quant/tape_impl.h"

#include <math.h>
#include <string.h>

/* ---- Norms ---- */

typedef struct norm_note {
    tape_note note;
    norm_desc d;
    ops_mat x, y;
    const float *inputs; /* [x.n_row, x.width] */
    float *g;            /* of y; becomes that of x */
} norm_note;

static float cyclic(const ops_weight *w, int64_t i) {
    return host_element(w->d.data, w->d.type, i % (w->d.n_in * w->d.n_out));
}

/* The gradient of a block of inputs in the place of that of what the norm made of it:
 * dx = f (g - mean(g) - xc f^2 sum(g xc) / n), xc = x - mean(x), where the kind says so. */
static void back_norm_block(const norm_desc *d, const float *x, float *g, int64_t at) {
    double sum = 0, squares = 0, g_sum = 0, dot = 0, n = (double)d->width;
    for (int64_t i = 0; i < d->width; i++) {
        g[i] *= d->weight ? cyclic(d->weight, at + i) + d->offset : 1;
        sum += (double)x[i];
        g_sum += (double)g[i];
    }
    if (d->kind == NORM_NONE) {
        return;
    }
    double mean = d->kind == NORM_LAYER ? sum / n : 0;
    for (int64_t i = 0; i < d->width; i++) {
        double c = (double)x[i] - mean;
        squares += c * c;
        dot += (double)g[i] * c;
    }
    double count = d->kind == NORM_L2 ? 1 : n;
    double factor = 1 / sqrt(squares / count + (double)d->eps);
    double g_mean = d->kind == NORM_LAYER ? g_sum / n : 0;
    double along = factor * factor * dot / count;
    for (int64_t i = 0; i < d->width; i++) {
        double c = (double)x[i] - mean;
        g[i] = (float)(factor * ((double)g[i] - g_mean - c * along));
    }
}

static void back_norm_rows(void *arg, int64_t first, int64_t last) {
    const norm_note *e = arg;
    for (int64_t i = first; i < last; i++) {
        for (int64_t at = 0; at < e->x.width; at += e->d.width) {
            int64_t from = i * e->x.width + at;
            back_norm_block(&e->d, e->inputs + from, e->g + from, at);
        }
    }
}

static void back_norm(tape *t, tape_note *note) {
    norm_note *e = (norm_note *)note;
    e->g = tape_take(t, e->y);
    if (e->g) {
        tape_spread(t, e->x.n_row, back_norm_rows, e);
        tape_add(t, e->x, e->g);
    }
}

static void run_norm(ops *o, const norm_desc *norm, ops_mat x, ops_mat y) {
    tape *t = tape_of(o);
    norm_note *e = tape_new_note(t, sizeof *e, back_norm);
    if (e) {
        e->d = *norm;
        e->x = x;
        e->y = y;
        e->inputs = tape_keep(t, x);
    }
    t->own->norm(o, norm, x, y);
}

/* ---- RoPE ---- */

typedef struct rope_note {
    tape_note note;
    tape *t;
    rope_desc d;
    ops_mat x;
    int n_head, head_dim;
    int32_t *positions;       /* [x.n_row] */
    const ops_weight **freqs; /* [x.n_row] */
} rope_note;

/* Turns a head back by its token's angles. */
static void turn_back(const rope_note *e, float *head, const float *turns) {
    int half = e->d.n_rot / 2;
    for (int i = 0; i < half; i++) {
        float *a = e->d.interleaved ? &head[2 * i] : &head[i];
        float *b = e->d.interleaved ? &head[2 * i + 1] : &head[i + half];
        float c = turns[2 * i], s = turns[2 * i + 1], x = *a, y = *b;
        *a = x * c + y * s;
        *b = y * c - x * s;
    }
}

static void back_rope_rows(void *arg, int64_t first, int64_t last) {
    const rope_note *e = arg;
    float turns[OPS_HEAD_MAX];
    for (int64_t i = first; i < last; i++) {
        for (int k = 0; k < e->d.n_rot / 2; k++) {
            float angle = (float)e->positions[i] * host_element(e->freqs[i]->d.data, DT_F32, k);
            turns[2 * k] = cosf(angle) * e->d.scale;
            turns[2 * k + 1] = sinf(angle) * e->d.scale;
        }
        for (int64_t h = 0; h < e->n_head; h++) {
            turn_back(e, tape_grad_row(e->t, e->x, i) + h * e->head_dim, turns);
        }
    }
}

static void back_rope(tape *t, tape_note *note) {
    rope_note *e = (rope_note *)note;
    e->t = t;
    tape_spread(t, e->x.n_row, back_rope_rows, e);
}

static void run_rope(ops *o, const rope_desc *rope, const ops_batch *batch, ops_mat x, int n_head,
                     int head_dim) {
    tape *t = tape_of(o);
    rope_note *e = tape_new_note(t, sizeof *e, back_rope);
    if (e) {
        e->d = *rope;
        e->x = x;
        e->n_head = n_head;
        e->head_dim = head_dim;
        e->positions = tape_alloc(t, (size_t)x.n_row, sizeof *e->positions);
        e->freqs = tape_alloc(t, (size_t)x.n_row, sizeof *e->freqs);
        for (int64_t i = 0; e->positions && e->freqs && i < x.n_row; i++) {
            e->positions[i] = batch->pos[i];
            e->freqs[i] = host_rope_freq(rope, batch, i);
        }
    }
    t->own->rope(o, rope, batch, x, n_head, head_dim);
}

/* ---- Activations ---- */

typedef struct gated_note {
    tape_note note;
    act_desc act;
    bool clamped; /* gated_clamped, by act.a (alpha) and act.b (limit) */
    ops_mat gate, up, y;
    const float *gates, *ups; /* [y.n_row, y.width]; ups NULL: there is no up */
    float *g, *d_up;
} gated_note;

/* x * cdf(x) with its slope. */
static float gelu(float x, float *slope) {
    float cdf = 0.5f * erfcf(-x * 0.70710678f);
    *slope = cdf + x * 0.39894228f * expf(-0.5f * x * x);
    return x * cdf;
}

static float gelu_tanh(float x, float *slope) {
    float s = tape_sigmoid(2 * 0.79788456f * (x + 0.044715f * x * x * x));
    *slope = s + x * s * (1 - s) * 2 * 0.79788456f * (1 + 3 * 0.044715f * x * x);
    return x * s;
}

static float xielu(float a, float b, float x, float *slope) {
    if (x > 0) {
        *slope = 2 * a * x + 0.5f;
        return a * x * x + 0.5f * x;
    }
    float low = x < -1e-6f ? x : -1e-6f;
    *slope = b * ((x < -1e-6f ? expf(x) : 0) - 1) + 0.5f;
    return b * (expm1f(low) - x) + 0.5f * x;
}

/* The activation of x and its slope there. */
static float activate(const act_desc *d, float x, float *slope) {
    *slope = 0;
    float s;
    switch (d->kind) {
    case ACT_LINEAR:
        *slope = d->a;
        return d->a * x;
    case ACT_SILU:
        s = tape_sigmoid(x);
        *slope = s * (1 + x * (1 - s));
        return x * s;
    case ACT_GELU:
        return gelu(x, slope);
    case ACT_GELU_TANH:
        return gelu_tanh(x, slope);
    case ACT_RELU:
        *slope = x > 0;
        return x > 0 ? x : 0;
    case ACT_RELU2:
        *slope = x > 0 ? 2 * x : 0;
        return x > 0 ? x * x : 0;
    case ACT_SIGMOID:
        s = tape_sigmoid(x);
        *slope = s * (1 - s);
        return s;
    case ACT_SOFTCAP:
        s = tanhf(x / d->a);
        *slope = 1 - s * s;
        return d->a * s;
    case ACT_CLAMP:
        *slope = x >= -d->a && x <= d->a;
        return x < -d->a ? -d->a : x > d->a ? d->a : x;
    case ACT_XIELU:
        return xielu(d->a, d->b, x, slope);
    }
    return NAN;
}

/* (clamp(up) + 1) g sigmoid(alpha g) by gate and up. */
static void clamped_slopes(const act_desc *d, float gate, float up, float *by_gate, float *by_up) {
    float a = gate > d->b ? d->b : gate, s = tape_sigmoid(d->a * a);
    float b = up > d->b ? d->b : up < -d->b ? -d->b : up;
    *by_gate = gate > d->b ? 0 : (b + 1) * s * (1 + d->a * a * (1 - s));
    *by_up = fabsf(up) > d->b ? 0 : a * s;
}

static void back_gated_rows(void *arg, int64_t first, int64_t last) {
    const gated_note *e = arg;
    for (int64_t i = first * e->y.width; i < last * e->y.width; i++) {
        float by_gate, by_up;
        if (e->clamped) {
            clamped_slopes(&e->act, e->gates[i], e->ups[i], &by_gate, &by_up);
        } else {
            by_up = activate(&e->act, e->gates[i], &by_gate);
            by_gate *= e->ups ? e->ups[i] : 1;
        }
        e->d_up[i] = e->g[i] * by_up;
        e->g[i] *= by_gate;
    }
}

static void back_gated(tape *t, tape_note *note) {
    gated_note *e = (gated_note *)note;
    e->g = tape_take(t, e->y);
    e->d_up = tape_floats(t, e->y.n_row * e->y.width);
    if (!e->g || !e->d_up) {
        return;
    }
    tape_spread(t, e->y.n_row, back_gated_rows, e);
    tape_add(t, e->gate, e->g);
    if (e->ups) {
        tape_add(t, e->up, e->d_up);
    }
}

static void note_gated(tape *t, act_desc act, bool clamped, ops_mat gate, ops_mat up, ops_mat y) {
    gated_note *e = tape_new_note(t, sizeof *e, back_gated);
    if (e) {
        e->act = act;
        e->clamped = clamped;
        e->gate = gate;
        e->up = up;
        e->y = y;
        e->gates = tape_keep(t, gate);
        e->ups = up.buf ? tape_keep(t, up) : NULL;
    }
}

static void run_gated(ops *o, const act_desc *act, ops_mat gate, ops_mat up, ops_mat y) {
    tape *t = tape_of(o);
    note_gated(t, *act, false, gate, up, y);
    t->own->gated(o, act, gate, up, y);
}

static void run_gated_clamped(ops *o, float alpha, float limit, ops_mat gate, ops_mat up,
                              ops_mat y) {
    tape *t = tape_of(o);
    note_gated(t, (act_desc){.a = alpha, .b = limit}, true, gate, up, y);
    t->own->gated_clamped(o, alpha, limit, gate, up, y);
}

/* ---- Sums and copies ---- */

typedef struct add_note {
    tape_note note;
    float scale;
    ops_mat x, y;
    const float *gates, *inputs; /* of add_gated: [n_row], [n_row, width]; else NULL */
    ops_mat gate;
} add_note;

/* y += sigmoid(gate) x */
static void back_add_gated(tape *t, const add_note *e, float *g) {
    for (int64_t i = 0; i < e->y.n_row; i++) {
        float s = tape_sigmoid(e->gates[i]), dot = 0;
        float *row = g + i * e->y.width;
        for (int64_t k = 0; k < e->y.width; k++) {
            dot += row[k] * e->inputs[i * e->y.width + k];
            row[k] *= s;
        }
        tape_grad_row(t, e->gate, i)[0] += dot * s * (1 - s);
    }
}

static void back_add(tape *t, tape_note *note) {
    const add_note *e = (const add_note *)note;
    float *g = tape_look(t, e->y);
    if (!g) {
        return;
    }
    if (e->gates) {
        back_add_gated(t, e, g);
    } else {
        for (int64_t i = 0; i < e->y.n_row * e->y.width; i++) {
            g[i] *= e->scale;
        }
    }
    tape_add(t, e->x, g);
}

static void run_add(ops *o, float scale, ops_mat x, ops_mat y) {
    tape *t = tape_of(o);
    add_note *e = tape_new_note(t, sizeof *e, back_add);
    if (e) {
        e->scale = scale;
        e->x = x;
        e->y = y;
    }
    t->own->add(o, scale, x, y);
}

static void run_add_gated(ops *o, ops_mat gate, ops_mat x, ops_mat y) {
    tape *t = tape_of(o);
    add_note *e = tape_new_note(t, sizeof *e, back_add);
    if (e) {
        e->x = x;
        e->y = y;
        e->gate = gate;
        e->gates = tape_keep(t, gate);
        e->inputs = tape_keep(t, x);
    }
    t->own->add_gated(o, gate, x, y);
}

typedef struct take_note {
    tape_note note;
    ops_mat x, y;
    int32_t *out; /* [y.n_row] */
} take_note;

static void back_take_out(tape *t, tape_note *note) {
    const take_note *e = (const take_note *)note;
    float *g = tape_take(t, e->y);
    for (int64_t i = 0; g && i < e->y.n_row; i++) {
        float *row = tape_grad_row(t, e->x, e->out[i]);
        for (int64_t k = 0; k < e->y.width; k++) {
            row[k] += g[i * e->y.width + k];
        }
    }
}

static void run_take_out(ops *o, const ops_batch *batch, ops_mat x, ops_mat y) {
    tape *t = tape_of(o);
    take_note *e = tape_new_note(t, sizeof *e, back_take_out);
    if (e) {
        e->x = x;
        e->y = y;
        e->y.n_row = batch->n_out;
        e->out = tape_alloc(t, (size_t)batch->n_out, sizeof *e->out);
        if (e->out) {
            memcpy(e->out, batch->out, (size_t)batch->n_out * sizeof *e->out);
        }
    }
    t->own->take_out(o, batch, x, y);
}

void tape_set_rows(ops_table *table) {
    table->norm = run_norm;
    table->rope = run_rope;
    table->gated = run_gated;
    table->gated_clamped = run_gated_clamped;
    table->add = run_add;
    table->add_gated = run_add_gated;
    table->take_out = run_take_out;
}
