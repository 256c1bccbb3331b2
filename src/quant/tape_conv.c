/* tape_conv.c - what recurrent layers do besides recurring, and its gradients: blocks of columns,
 * convolutions, step sizes. */
#include "quant/tape_recurrent.h"

#include <math.h>
#include <string.h>

int32_t *tape_keep_positions(tape *t, const ops_batch *batch) {
    for (int32_t s = 0; s < batch->n_seq; s++) {
        if (batch->seqs[s].n_past) {
            t->status = ctx_fail(t->ctx, JANG_ERR_UNSUPPORTED,
                                 "a recurrent layer's gradient: a sequence has %d tokens before "
                                 "the step; it must begin with it",
                                 (int)batch->seqs[s].n_past);
            return NULL;
        }
    }
    int32_t *pos = tape_alloc(t, (size_t)batch->n_tok, sizeof *pos);
    if (pos) {
        memcpy(pos, batch->pos, (size_t)batch->n_tok * sizeof *pos);
    }
    return pos;
}

/* ---- Blocks of columns ---- */

typedef struct blocks_note {
    tape_note note;
    ops_mat x, y;
    int64_t stride, from, width;
} blocks_note;

static void back_take_blocks(tape *t, tape_note *note) {
    const blocks_note *b = (const blocks_note *)note;
    const float *g = tape_take(t, b->y);
    for (int64_t i = 0; g && i < b->x.n_row; i++) {
        float *x = tape_grad_row(t, b->x, i) + b->from;
        for (int64_t k = 0; k < b->x.width / b->stride; k++) {
            tape_add_scaled(x + k * b->stride, 1, g + i * b->y.width + k * b->width, b->width);
        }
    }
}

static void run_take_blocks(ops *o, ops_mat x, int64_t stride, int64_t from, int64_t width,
                            ops_mat y) {
    tape *t = tape_of(o);
    blocks_note *b = tape_new_note(t, sizeof *b, back_take_blocks);
    if (b) {
        b->x = x;
        b->y = y;
        b->stride = stride;
        b->from = from;
        b->width = width;
    }
    t->own->take_blocks(o, x, stride, from, width, y);
}

/* ---- Convolutions ---- */

typedef struct conv_note {
    tape_note note;
    conv_desc desc;
    tape_input x;
    ops_mat y;
    int32_t *pos;
    float *sums, *g; /* [y.n_row, width] on the way back: before silu, and their gradient */
} conv_note;

/* From the gradient of silu's result to that of what it was of. */
static void back_silu(float *restrict g, const float *restrict x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        float s = tape_sigmoid(x[i]);
        g[i] *= s * (1 + x[i] * (1 - s));
    }
}

static void back_conv_silu(void *arg, int64_t first, int64_t last) {
    const conv_note *c = arg;
    int64_t n_past = c->desc.weight->d.n_out - 1, width = c->x.m.width;
    for (int64_t t = first; t < last; t++) {
        float *sum = c->sums + t * width;
        if (c->desc.bias) {
            memcpy(sum, tape_f32(c->desc.bias), (size_t)width * sizeof *sum);
        }
        for (int64_t k = 0; k <= n_past && k <= c->pos[t]; k++) {
            const float *w = tape_f32(c->desc.weight) + (n_past - k) * width;
            const float *x = tape_row(c->x.value, t - k);
            for (int64_t i = 0; i < width; i++) {
                sum[i] += w[i] * x[i];
            }
        }
        back_silu(c->g + t * width, sum, width);
    }
}

/* Each input takes its part of the sums of itself and of the tokens after it. */
static void back_conv_rows(void *arg, int64_t first, int64_t last) {
    const conv_note *c = arg;
    int64_t n_past = c->desc.weight->d.n_out - 1, width = c->x.m.width, n_tok = c->x.m.n_row;
    for (int64_t t = first; t < last; t++) {
        float *restrict dx = tape_row(c->x.grad, t);
        for (int64_t k = 0; k <= n_past && t + k < n_tok && c->pos[t + k] >= k; k++) {
            const float *restrict w = tape_f32(c->desc.weight) + (n_past - k) * width;
            const float *restrict g = c->g + (t + k) * width;
            for (int64_t i = 0; i < width; i++) {
                dx[i] += w[i] * g[i];
            }
        }
    }
}

static void back_conv(tape *t, tape_note *note) {
    conv_note *c = (conv_note *)note;
    c->g = tape_take(t, c->y);
    c->sums = tape_floats(t, c->desc.silu ? c->x.m.n_row * c->x.m.width : 0);
    if (!c->g || !c->sums) {
        return;
    }
    c->x.grad = tape_grad_rows(t, c->x.m);
    if (c->desc.silu) {
        tape_spread(t, c->x.m.n_row, back_conv_silu, c);
    }
    tape_spread(t, c->x.m.n_row, back_conv_rows, c);
}

static void run_conv(ops *o, const conv_desc *desc, state_at at, const ops_batch *batch, ops_mat x,
                     ops_mat y) {
    tape *t = tape_of(o);
    conv_note *c = tape_new_note(t, sizeof *c, back_conv);
    if (c) {
        c->desc = *desc;
        c->pos = tape_keep_positions(t, batch);
        c->y = y;
        c->x.m = x;
        if (desc->silu) {
            c->x = tape_keep_input(t, x);
        }
    }
    t->own->conv(o, desc, at, batch, x, y);
}

/* ---- Step sizes ---- */

typedef struct time_note {
    tape_note note;
    time_step_desc desc;
    tape_input x;
    ops_mat step, decay;
    const float *d_step, *d_decay; /* [x.n_row, x.width] on the way back; NULL: not written */
} time_note;

static void back_time_rows(void *arg, int64_t first, int64_t last) {
    const time_note *s = arg;
    const time_step_desc *d = &s->desc;
    int64_t width = s->x.m.width;
    for (int64_t t = first; t < last; t++) {
        const float *x = tape_row(s->x.value, t);
        float *dx = tape_row(s->x.grad, t);
        for (int64_t i = 0; i < width; i++) {
            float u = x[i] + (d->bias ? tape_f32(d->bias)[i] : 0);
            float step = u > 0 ? u + log1pf(expf(-u)) : log1pf(expf(u));
            if (step < d->min || step > d->max) {
                continue; /* cut */
            }
            float g = s->d_step ? s->d_step[t * width + i] : 0;
            if (s->d_decay) {
                float a = tape_f32(d->a)[i];
                g += s->d_decay[t * width + i] * a * expf(a * step);
            }
            dx[i] += g * tape_sigmoid(u);
        }
    }
}

static void back_time_step(tape *t, tape_note *note) {
    time_note *s = (time_note *)note;
    s->d_step = s->step.buf ? tape_take(t, s->step) : NULL;
    s->d_decay = s->decay.buf ? tape_take(t, s->decay) : NULL;
    if (t->status == JANG_OK) {
        s->x.grad = tape_grad_rows(t, s->x.m);
        tape_spread(t, s->x.m.n_row, back_time_rows, s);
    }
}

static void run_time_step(ops *o, const time_step_desc *desc, ops_mat x, ops_mat step,
                          ops_mat decay) {
    tape *t = tape_of(o);
    time_note *s = tape_new_note(t, sizeof *s, back_time_step);
    if (s) {
        s->desc = *desc;
        s->x = tape_keep_input(t, x);
        s->step = step;
        s->decay = decay;
    }
    t->own->time_step(o, desc, x, step, decay);
}

void tape_set_conv(ops_table *table) {
    table->take_blocks = run_take_blocks;
    table->conv = run_conv;
    table->time_step = run_time_step;
}
