/* tape_walk_body.h - tape_walk.h's arithmetic, written once and compiled for each instruction set.
 */
#ifndef JANG_QUANT_TAPE_WALK_BODY_H
#define JANG_QUANT_TAPE_WALK_BODY_H

#include "quant/tape_walk.h"

#include <math.h>
#include <string.h>

#define TW_LANES 16 /* rows of state are filled up to a multiple of these with zeros */
#define TW_ROWS 16  /* of a unit gone through together */
#define TW_SPAN 16  /* tokens between two states that are kept */

#define TW_INLINE static inline __attribute__((always_inline))

TW_INLINE int64_t tw_padded(const tape_walk *w) {
    return (w->n_lane + TW_LANES - 1) / TW_LANES * TW_LANES;
}

/* ---- What a token leaves: [TW_ROWS, n] states; [TW_ROWS or 1, n] decays; [TW_ROWS] inputs, and
 * of the delta rule what the state did not know. ---- */

TW_INLINE int64_t tw_decay_rows(const tape_walk *w) {
    return w->kind == WALK_SCAN ? TW_ROWS : 1;
}

TW_INLINE int64_t tw_token_size(const tape_walk *w) {
    return (TW_ROWS + tw_decay_rows(w)) * tw_padded(w) + (int64_t)2 * TW_ROWS;
}

/* Rows of a unit that are gone through together, and memory for it. */
typedef struct tw_rows {
    const tape_walk *w;
    int64_t unit, group, first, n_row; /* first of all rows */
    int64_t n;                         /* numbers of a row with what fills it up */
    float *starts;                     /* [.., TW_ROWS, n] before each span, the first all 0 */
    float *history;                    /* [TW_SPAN + 1, token_size] within one */
    float *grad;                       /* [TW_ROWS, n] of the state */
    float *b, *c, *db, *dc, *dd;       /* [n] of a token */
    float *all_db, *all_dc;            /* [n_tok, n_lane] */
} tw_rows;

TW_INLINE float *tw_decays(const tw_rows *s, float *token, int64_t row) {
    return token + (TW_ROWS + (s->w->kind == WALK_SCAN ? row : 0)) * s->n;
}

TW_INLINE float *tw_ins(const tw_rows *s, float *token) {
    return token + (TW_ROWS + tw_decay_rows(s->w)) * s->n;
}

/* ---- Rows of n numbers, a multiple of TW_LANES ---- */

/* By halves, which the compiler keeps in registers. */
TW_INLINE float tw_sum(const float *lanes) {
    float of8[8], of4[4];
    for (int l = 0; l < 8; l++) {
        of8[l] = lanes[l] + lanes[l + 8];
    }
    for (int l = 0; l < 4; l++) {
        of4[l] = of8[l] + of8[l + 4];
    }
    return (of4[0] + of4[2]) + (of4[1] + of4[3]);
}

/* y = a b; returns c'y */
TW_INLINE float tw_product_dot(float *restrict y, const float *restrict a, const float *restrict b,
                               const float *restrict c, int64_t n) {
    float lanes[TW_LANES] = {0};
    for (int64_t i = 0; i < n; i += TW_LANES) {
        for (int l = 0; l < TW_LANES; l++) {
            y[i + l] = a[i + l] * b[i + l];
            lanes[l] += c[i + l] * y[i + l];
        }
    }
    return tw_sum(lanes);
}

TW_INLINE float tw_total(const float *x, int64_t n) {
    float lanes[TW_LANES] = {0};
    for (int64_t i = 0; i < n; i += TW_LANES) {
        for (int l = 0; l < TW_LANES; l++) {
            lanes[l] += x[i + l];
        }
    }
    return tw_sum(lanes);
}

/* ---- Forward ---- */

/* Decays and inputs of a token, but for the delta rule's inputs, which the state decides. */
TW_INLINE void tw_set_token(const tw_rows *s, int64_t t, float *token) {
    const tape_walk *w = s->w;
    const float *x = tape_row(w->x.value, t) + s->first;
    float *decays = tw_decays(s, token, 0), *in = tw_ins(s, token);
    if (w->kind == WALK_SCAN) {
        const float *step = tape_row(w->step.value, t) + s->first, *a = w->a + s->first * w->n_lane;
        for (int64_t i = 0; i < s->n_row; i++) {
            in[i] = step[i] * x[i];
            for (int64_t j = 0; j < w->n_lane; j++) {
                decays[i * s->n + j] = expf(step[i] * a[i * w->n_lane + j]);
            }
        }
        return;
    }
    const float *decay = tape_row(w->decay.value, t) + (w->by_lane ? s->unit * w->n_lane : s->unit);
    for (int64_t j = 0; j < w->n_lane; j++) {
        decays[j] = decay[w->by_lane ? j : 0];
    }
    float step = tape_row(w->step.value, t)[s->unit];
    for (int64_t i = 0; i < s->n_row && w->kind == WALK_SSD; i++) {
        in[i] = step * x[i];
    }
}

TW_INLINE void tw_forward(const tw_rows *s, int64_t t, const float *before, float *token) {
    const tape_walk *w = s->w;
    float *in = tw_ins(s, token), *missed = in + TW_ROWS;
    memcpy(s->b, tape_row(w->b, t) + s->group * w->n_lane, (size_t)w->n_lane * sizeof(float));
    tw_set_token(s, t, token);
    for (int64_t i = 0; i < s->n_row; i++) {
        float *state = token + i * s->n;
        float known = tw_product_dot(state, tw_decays(s, token, i), before + i * s->n, s->b, s->n);
        if (w->kind == WALK_DELTA) {
            missed[i] = tape_row(w->x.value, t)[s->first + i] - known;
            in[i] = tape_row(w->step.value, t)[s->unit] * missed[i];
        }
        tape_add_scaled(state, in[i], s->b, s->n);
    }
}

/* ---- Back ---- */

/* Through y and the sum: grad is that of the state after the token, as it goes on. Returns the
 * gradient of the row's input. */
TW_INLINE float tw_back_sum(const tw_rows *s, float *restrict grad, const float *restrict state,
                            float dy, float in) {
    const float *restrict b = s->b, *restrict c = s->c;
    float *restrict db = s->db, *restrict dc = s->dc;
    float lanes[TW_LANES] = {0};
    for (int64_t i = 0; i < s->n; i += TW_LANES) {
        for (int l = 0; l < TW_LANES; l++) {
            float g = grad[i + l] + dy * c[i + l];
            dc[i + l] += dy * state[i + l];
            db[i + l] += in * g;
            lanes[l] += b[i + l] * g;
            grad[i + l] = g;
        }
    }
    return tw_sum(lanes);
}

/* Through the decay, and by dknown, the gradient of b'D S with the sign turned, through that. */
TW_INLINE void tw_back_decay(const tw_rows *s, float *restrict grad, const float *restrict before,
                             const float *restrict decays, float dknown) {
    const float *restrict b = s->b;
    float *restrict db = s->db, *restrict dd = s->dd;
    for (int64_t i = 0; i < s->n; i++) {
        float g = grad[i] - dknown * b[i];
        db[i] -= dknown * decays[i] * before[i];
        dd[i] += g * before[i];
        grad[i] = g * decays[i];
    }
}

/* The gradients of a row's own inputs, by din, that of what it adds to the state. */
TW_INLINE void tw_back_row(const tw_rows *s, int64_t t, float *token, int64_t i, float din) {
    const tape_walk *w = s->w;
    int64_t at = s->first + i;
    float x = tape_row(w->x.value, t)[at], dy = tape_row(w->dy, t)[at];
    float *dx = &tape_row(w->x.grad, t)[at];
    if (w->kind == WALK_SCAN) {
        const float *a = w->a + at * w->n_lane, *decays = tw_decays(s, token, i);
        float dstep = x * din;
        for (int64_t j = 0; j < w->n_lane; j++) {
            dstep += s->dd[j] * decays[j] * a[j];
        }
        *dx += w->d[at] * dy + tape_row(w->step.value, t)[at] * din;
        tape_row(w->step.grad, t)[at] += dstep;
        return;
    }
    float step = tape_row(w->step.value, t)[s->unit], *dstep = &tape_row(w->step.grad, t)[s->unit];
    *dx += step * din;
    if (w->kind == WALK_SSD) {
        *dx += w->d[s->unit] * dy;
        *dstep += x * din;
    } else {
        *dstep += tw_ins(s, token)[TW_ROWS + i] * din;
    }
}

/* The gradients of what the rows share. */
TW_INLINE void tw_back_shared(const tw_rows *s, int64_t t) {
    const tape_walk *w = s->w;
    tape_add_scaled(s->all_db + t * w->n_lane, 1, s->db, w->n_lane);
    tape_add_scaled(s->all_dc + t * w->n_lane, 1, s->dc, w->n_lane);
    if (w->kind != WALK_SCAN) {
        float *ddecay = tape_row(w->decay.grad, t);
        if (w->by_lane) {
            tape_add_scaled(ddecay + s->unit * w->n_lane, 1, s->dd, w->n_lane);
        } else {
            ddecay[s->unit] += tw_total(s->dd, s->n);
        }
    }
}

TW_INLINE void tw_back(const tw_rows *s, int64_t t, const float *before, float *token) {
    const tape_walk *w = s->w;
    const float *in = tw_ins(s, token), *dy = tape_row(w->dy, t) + s->first;
    const float beta = w->kind == WALK_DELTA ? tape_row(w->step.value, t)[s->unit] : 0;
    size_t n_bytes = (size_t)s->n * sizeof(float);
    memcpy(s->b, tape_row(w->b, t) + s->group * w->n_lane, (size_t)w->n_lane * sizeof(float));
    memcpy(s->c, tape_row(w->c, t) + s->group * w->n_lane, (size_t)w->n_lane * sizeof(float));
    memset(s->db, 0, n_bytes);
    memset(s->dc, 0, n_bytes);
    memset(s->dd, 0, n_bytes);
    for (int64_t i = 0; i < s->n_row; i++) {
        float *grad = s->grad + i * s->n;
        float din = tw_back_sum(s, grad, token + i * s->n, dy[i], in[i]);
        if (w->kind == WALK_SCAN) {
            memset(s->dd, 0, n_bytes);
        }
        tw_back_decay(s, grad, before + i * s->n, tw_decays(s, token, i), beta * din);
        tw_back_row(s, t, token, i, din);
    }
    tw_back_shared(s, t);
}

/* ---- Sequences ---- */

/* All states of a span, which begins with token first. */
TW_INLINE void tw_replay(const tw_rows *s, int64_t span, int64_t first, int64_t n_tok) {
    int64_t n_state = TW_ROWS * s->n, size = tw_token_size(s->w);
    memcpy(s->history, s->starts + span * n_state, (size_t)n_state * sizeof(float));
    for (int64_t i = 0; i < n_tok; i++) {
        tw_forward(s, first + i, s->history + i * size, s->history + (i + 1) * size);
    }
}

TW_INLINE void tw_sequence(const tw_rows *s, int64_t first, int64_t n_tok) {
    int64_t n_state = TW_ROWS * s->n, size = tw_token_size(s->w);
    int64_t last = (n_tok + TW_SPAN - 1) / TW_SPAN - 1;
    size_t n_bytes = (size_t)n_state * sizeof(float);
    memset(s->grad, 0, n_bytes);
    for (int64_t k = 0; k < last; k++) {
        tw_replay(s, k, first + k * TW_SPAN, TW_SPAN);
        memcpy(s->starts + (k + 1) * n_state, s->history + TW_SPAN * size, n_bytes);
    }
    for (int64_t k = last; k >= 0; k--) {
        int64_t at = first + k * TW_SPAN, n_here = k < last ? TW_SPAN : n_tok - k * TW_SPAN;
        tw_replay(s, k, at, n_here);
        for (int64_t i = n_here - 1; i >= 0; i--) {
            float *before = s->history + i * size;
            tw_back(s, at + i, before, before + size);
        }
    }
}

TW_INLINE int64_t tw_sequence_end(const tape_walk *w, int64_t first) {
    int64_t end = first + 1;
    while (end < w->n_tok && w->pos[end]) {
        end++;
    }
    return end;
}

TW_INLINE void tw_walk(const tape_walk *w, int64_t unit, float *db, float *dc, float *scratch) {
    int64_t n = tw_padded(w), first = unit * w->n_row, left = w->width - first;
    float *token = scratch + TW_ROWS * n, *history = token + 5 * n;
    tw_rows s = {.w = w,
                 .unit = unit,
                 .group = unit * w->n_group / w->n_unit,
                 .n = n,
                 .grad = scratch,
                 .b = token,
                 .c = token + n,
                 .db = token + 2 * n,
                 .dc = token + 3 * n,
                 .dd = token + 4 * n,
                 .history = history,
                 .starts = history + (TW_SPAN + 1) * tw_token_size(w),
                 .all_db = db,
                 .all_dc = dc};
    left = left < w->n_row ? left : w->n_row;
    for (int64_t row = 0; row < left; row += TW_ROWS) {
        s.first = first + row;
        s.n_row = left - row < TW_ROWS ? left - row : TW_ROWS;
        for (int64_t t = 0, end; t < w->n_tok; t = end) {
            end = tw_sequence_end(w, t);
            tw_sequence(&s, t, end - t);
        }
    }
}

#endif
