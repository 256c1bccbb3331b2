/* tape_recurrent.c - Mamba's scans and the delta rule, and their gradients.
 *
 * A recurrence goes from state to state; its way back needs the state before each token, and goes
 * through the tokens from the last to the first. Not all states are kept, and none from the way
 * forward: on the way back the recurrence is gone through again, keeping the state before every
 * SPAN tokens, and then a third time, SPAN tokens at a time from the last ones on, with all states
 * of these (Griewank, Walther: Evaluating Derivatives, 2008, on checkpoints). */
#include "quant/tape_recurrent.h"

#include "base/pool.h"

#include <math.h>
#include <string.h>

#define SPAN 16     /* tokens between two states that are kept */
#define N_PARTS 16  /* that units are cut into at least, where there are as many */
#define CHANNELS 16 /* of a scan that are one unit */
#define LANES 16    /* sums side by side, so that the compiler may use vectors */

/* ---- Sums ---- */

static inline float sum_lanes(const float *lanes) {
    float sum = 0;
    for (int l = 0; l < LANES; l++) {
        sum += lanes[l];
    }
    return sum;
}

static inline float dot(const float *restrict a, const float *restrict b, int64_t n) {
    float lanes[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int l = 0; l < LANES; l++) {
            lanes[l] += a[i + l] * b[i + l];
        }
    }
    for (int l = 0; i < n; i++, l++) {
        lanes[l] += a[i] * b[i];
    }
    return sum_lanes(lanes);
}

static inline float dot3(const float *restrict a, const float *restrict b, const float *restrict c,
                         int64_t n) {
    float lanes[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int l = 0; l < LANES; l++) {
            lanes[l] += a[i + l] * b[i + l] * c[i + l];
        }
    }
    for (int l = 0; i < n; i++, l++) {
        lanes[l] += a[i] * b[i] * c[i];
    }
    return sum_lanes(lanes);
}

/* y = s x */
static inline void put_scaled(float *restrict y, float s, const float *restrict x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        y[i] = s * x[i];
    }
}

static inline void scale(float *y, float s, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        y[i] *= s;
    }
}

/* ---- Recurrences ----
 *
 * A recurrence consists of n_unit units that do not see each other: heads, or a few channels. Each
 * reads columns of its own, and columns that it shares with the other units of its group. Units of
 * a group are cut into parts, whose number does not depend on that of the threads; a part adds the
 * gradients of what is shared to numbers of its own, and these are added up in order. */

enum { MAX_OWN = 3, N_SHARED = 2 };

typedef struct recurrence recurrence;

/* A unit, as the functions of a kind of recurrence see it. */
typedef struct unit {
    int64_t at;              /* its number */
    int64_t column;          /* of the first number in a row of what it shares */
    float *shared[N_SHARED]; /* [n_tok, shared_width] gradients of that */
} unit;

/* A state is n_state numbers: what goes from token to token, and then what the way back wants to
 * know of the token that left it. */
typedef struct recurrence_kind {
    void (*forward)(const recurrence *r, const unit *u, int64_t t, const float *before,
                    float *after);
    /* grad is the gradient of after, where it goes to the next token, and becomes that of before;
     * behind that lies room for what a token needs. */
    void (*back)(const recurrence *r, const unit *u, int64_t t, const float *before,
                 const float *after, float *grad);
} recurrence_kind;

struct recurrence {
    tape_note note;
    const recurrence_kind *kind;
    union {
        scan_desc scan;
        ssd_desc ssd;
        delta_desc delta;
    } d;
    tape_input own[MAX_OWN], shared[N_SHARED];
    ops_mat y;
    int32_t *pos;
    int64_t n_tok, n_state, n_unit, n_group;
    int64_t shared_width; /* of a group */
    /* On the way back. */
    int64_t n_part; /* of a group */
    tape_rows dy;
    float *parts;   /* [n_group * n_part, N_SHARED, n_tok, shared_width] */
    float *scratch; /* [.., n_scratch] for each task or thread, whichever are fewer */
    int64_t n_scratch;
    bool by_thread;
};

/* One unit's states within a sequence. */
typedef struct states {
    float *starts;  /* [.., n_state] before each span; the first is zeros, and remains so */
    float *history; /* [SPAN + 1, n_state] within one, the state before it first */
    float *grad;    /* [n_state] */
} states;

/* All states of a span, which begins with token first. */
static void replay(const recurrence *r, const unit *u, const states *s, int64_t span, int64_t first,
                   int64_t n_tok) {
    memcpy(s->history, s->starts + span * r->n_state, (size_t)r->n_state * sizeof(float));
    for (int64_t i = 0; i < n_tok; i++) {
        float *before = s->history + i * r->n_state;
        r->kind->forward(r, u, first + i, before, before + r->n_state);
    }
}

static void walk_sequence(const recurrence *r, const unit *u, const states *s, int64_t first,
                          int64_t n_tok) {
    int64_t n = r->n_state, n_span = (n_tok + SPAN - 1) / SPAN, last = n_span - 1;
    memset(s->grad, 0, (size_t)n * sizeof(float));
    for (int64_t k = 0; k < last; k++) {
        replay(r, u, s, k, first + k * SPAN, SPAN);
        memcpy(s->starts + (k + 1) * n, s->history + SPAN * n, (size_t)n * sizeof(float));
    }
    for (int64_t k = last; k >= 0; k--) {
        int64_t at = first + k * SPAN, n_here = k < last ? SPAN : n_tok - k * SPAN;
        replay(r, u, s, k, at, n_here);
        for (int64_t i = n_here - 1; i >= 0; i--) {
            const float *before = s->history + i * n;
            r->kind->back(r, u, at + i, before, before + n, s->grad);
        }
    }
}

static int64_t sequence_end(const recurrence *r, int64_t first) {
    int64_t end = first + 1;
    while (end < r->n_tok && r->pos[end]) {
        end++;
    }
    return end;
}

static int64_t longest_sequence(const recurrence *r) {
    int64_t longest = 0;
    for (int64_t t = 0; t < r->n_tok; t++) {
        longest = r->pos[t] + 1 > longest ? r->pos[t] + 1 : longest;
    }
    return longest;
}

/* The first unit u with u * n_group / n_unit >= group. */
static int64_t first_unit(const recurrence *r, int64_t group) {
    return (group * r->n_unit + r->n_group - 1) / r->n_group;
}

static void walk_part(void *arg, int task, int thread) {
    const recurrence *r = arg;
    int64_t group = task / r->n_part, part = task % r->n_part;
    int64_t from = first_unit(r, group), n = first_unit(r, group + 1) - from;
    float *scratch = r->scratch + (r->by_thread ? thread : task) * r->n_scratch;
    states s = {.grad = scratch,
                .history = scratch + r->n_state,
                .starts = scratch + (SPAN + 2) * r->n_state};
    int64_t n_shared = r->n_tok * r->shared_width;
    float *shared = r->parts + task * N_SHARED * n_shared;
    unit u = {.column = group * r->shared_width, .shared = {shared, shared + n_shared}};
    for (u.at = from + n * part / r->n_part; u.at < from + n * (part + 1) / r->n_part; u.at++) {
        for (int64_t t = 0, end; t < r->n_tok; t = end) {
            end = sequence_end(r, t);
            walk_sequence(r, &u, &s, t, end - t);
        }
    }
}

static void add_parts(tape *t, const recurrence *r) {
    int64_t n = r->n_tok * r->shared_width;
    for (int64_t k = 0; k < r->n_group * r->n_part; k++) {
        for (int i = 0; i < N_SHARED; i++) {
            ops_mat m =
                ops_columns(r->shared[i].m, k / r->n_part * r->shared_width, r->shared_width);
            tape_add(t, m, r->parts + (k * N_SHARED + i) * n);
        }
    }
}

static void back_recurrence(tape *t, tape_note *note) {
    recurrence *r = (recurrence *)note;
    pool *p = ctx_pool(t->ctx);
    int64_t wanted = (N_PARTS + r->n_group - 1) / r->n_group;
    int64_t most = (r->n_unit + r->n_group - 1) / r->n_group;
    r->n_part = wanted < most ? wanted : most;
    int64_t n_tasks = r->n_group * r->n_part, n_threads = pool_threads(p);
    r->by_thread = n_threads < n_tasks;
    r->n_scratch = (SPAN + 2 + (longest_sequence(r) + SPAN - 1) / SPAN) * r->n_state;
    r->scratch = tape_floats(t, (r->by_thread ? n_threads : n_tasks) * r->n_scratch);
    r->parts = tape_floats(t, n_tasks * N_SHARED * r->n_tok * r->shared_width);
    r->dy = (tape_rows){tape_take(t, r->y), r->y.width};
    if (t->status != JANG_OK) {
        return;
    }
    for (int i = 0; i < MAX_OWN && r->own[i].m.buf; i++) {
        r->own[i].grad = tape_grad_rows(t, r->own[i].m);
    }
    pool_run(p, walk_part, r, (int)n_tasks);
    add_parts(t, r);
}

/* A note of a recurrence with its inputs, and shared of n_group groups; n_state, n_unit and d are
 * to be set. own ends with a matrix without a buffer, or after MAX_OWN. */
static recurrence *note_recurrence(tape *t, const recurrence_kind *kind, const ops_batch *batch,
                                   const ops_mat *own, const ops_mat *shared, int64_t n_group,
                                   ops_mat y) {
    recurrence *r = tape_new_note(t, sizeof *r, back_recurrence);
    if (!r) {
        return NULL;
    }
    r->kind = kind;
    for (int i = 0; i < MAX_OWN && own[i].buf; i++) {
        r->own[i] = tape_keep_input(t, own[i]);
    }
    for (int i = 0; i < N_SHARED; i++) {
        r->shared[i] = tape_keep_input(t, shared[i]);
    }
    r->y = y;
    r->pos = tape_keep_positions(t, batch);
    r->n_tok = y.n_row;
    r->n_group = n_group;
    r->shared_width = shared[0].width / n_group;
    return r;
}

/* ---- Mamba's scan. Own: x, step; shared by all: b, c. State: [CHANNELS, n_state], and of the
 * token the decays in the same order. ---- */

enum { SCAN_X, SCAN_STEP };

static int64_t scan_channels(const recurrence *r, const unit *u) {
    int64_t left = r->y.width - u->at * CHANNELS;
    return left < CHANNELS ? left : CHANNELS;
}

static void scan_forward(const recurrence *r, const unit *u, int64_t t, const float *before,
                         float *after) {
    int64_t n = r->d.scan.n_state, first = u->at * CHANNELS;
    const float *x = tape_row(r->own[SCAN_X].value, t) + first;
    const float *step = tape_row(r->own[SCAN_STEP].value, t) + first;
    const float *b = tape_row(r->shared[0].value, t), *a = tape_f32(r->d.scan.a) + first * n;
    float *decay = after + CHANNELS * n;
    for (int64_t i = 0; i < scan_channels(r, u); i++) {
        float in = step[i] * x[i];
        for (int64_t j = i * n; j < (i + 1) * n; j++) {
            decay[j] = expf(step[i] * a[j]);
        }
        for (int64_t j = 0; j < n; j++) {
            after[i * n + j] = decay[i * n + j] * before[i * n + j] + in * b[j];
        }
    }
}

static void scan_back(const recurrence *r, const unit *u, int64_t t, const float *before,
                      const float *after, float *grad) {
    int64_t n = r->d.scan.n_state, first = u->at * CHANNELS, width = r->shared_width;
    const float *x = tape_row(r->own[SCAN_X].value, t) + first;
    const float *step = tape_row(r->own[SCAN_STEP].value, t) + first;
    const float *b = tape_row(r->shared[0].value, t), *c = tape_row(r->shared[1].value, t);
    const float *a = tape_f32(r->d.scan.a) + first * n, *d = tape_f32(r->d.scan.d) + first;
    const float *decay = after + CHANNELS * n, *dy = tape_row(r->dy, t) + first;
    float *dx = tape_row(r->own[SCAN_X].grad, t) + first;
    float *dstep = tape_row(r->own[SCAN_STEP].grad, t) + first;
    for (int64_t i = 0; i < scan_channels(r, u); i++) {
        float *g = grad + i * n;
        tape_add_scaled(g, dy[i], c, n);
        tape_add_scaled(u->shared[1] + t * width, dy[i], after + i * n, n);
        tape_add_scaled(u->shared[0] + t * width, step[i] * x[i], g, n);
        float din = dot(g, b, n);
        for (int64_t j = 0; j < n; j++) {
            g[j] *= decay[i * n + j];
        }
        dx[i] += d[i] * dy[i] + step[i] * din;
        dstep[i] += x[i] * din + dot3(g, before + i * n, a + i * n, n);
    }
}

static void run_scan(ops *o, const scan_desc *desc, state_at at, const ops_batch *batch, ops_mat x,
                     ops_mat step, ops_mat b, ops_mat c, ops_mat y) {
    static const recurrence_kind kind = {scan_forward, scan_back};
    tape *t = tape_of(o);
    const ops_mat own[MAX_OWN] = {x, step}, shared[N_SHARED] = {b, c};
    recurrence *r = note_recurrence(t, &kind, batch, own, shared, 1, y);
    if (r) {
        r->d.scan = *desc;
        r->n_unit = (x.width + CHANNELS - 1) / CHANNELS;
        r->n_state = (int64_t)2 * CHANNELS * desc->n_state;
    }
    t->own->scan(o, desc, at, batch, x, step, b, c, y);
}

/* ---- Mamba-2's heads. Own: x, step, decay; shared: b, c. State: [n_state, head_dim], and of the
 * token step * x. ---- */

enum { SSD_X, SSD_STEP, SSD_DECAY };

static void ssd_forward(const recurrence *r, const unit *u, int64_t t, const float *before,
                        float *after) {
    int64_t n = r->d.ssd.n_state, width = r->d.ssd.head_dim;
    const float *b = tape_row(r->shared[0].value, t) + u->column;
    float step = tape_row(r->own[SSD_STEP].value, t)[u->at];
    float decay = tape_row(r->own[SSD_DECAY].value, t)[u->at];
    float *in = after + n * width;
    put_scaled(in, step, tape_row(r->own[SSD_X].value, t) + u->at * width, width);
    for (int64_t j = 0; j < n; j++) {
        put_scaled(after + j * width, decay, before + j * width, width);
        tape_add_scaled(after + j * width, b[j], in, width);
    }
}

static void ssd_back(const recurrence *r, const unit *u, int64_t t, const float *before,
                     const float *after, float *grad) {
    int64_t n = r->d.ssd.n_state, width = r->d.ssd.head_dim, first = u->at * width;
    const float *x = tape_row(r->own[SSD_X].value, t) + first, *dy = tape_row(r->dy, t) + first;
    const float *b = tape_row(r->shared[0].value, t) + u->column;
    const float *c = tape_row(r->shared[1].value, t) + u->column;
    float step = tape_row(r->own[SSD_STEP].value, t)[u->at];
    float decay = tape_row(r->own[SSD_DECAY].value, t)[u->at], ddecay = 0;
    const float *in = after + n * width;
    float *din = grad + n * width, *dx = tape_row(r->own[SSD_X].grad, t) + first;
    float *db = u->shared[0] + t * n, *dc = u->shared[1] + t * n;
    memset(din, 0, (size_t)width * sizeof *din);
    for (int64_t j = 0; j < n; j++) {
        float *g = grad + j * width;
        tape_add_scaled(g, c[j], dy, width);
        dc[j] += dot(after + j * width, dy, width);
        db[j] += dot(g, in, width);
        ddecay += dot(g, before + j * width, width);
        tape_add_scaled(din, b[j], g, width);
        scale(g, decay, width);
    }
    tape_add_scaled(dx, step, din, width);
    tape_add_scaled(dx, tape_f32(r->d.ssd.d)[u->at], dy, width);
    tape_row(r->own[SSD_STEP].grad, t)[u->at] += dot(din, x, width);
    tape_row(r->own[SSD_DECAY].grad, t)[u->at] += ddecay;
}

static void run_ssd(ops *o, const ssd_desc *desc, state_at at, const ops_batch *batch, ops_mat x,
                    ops_mat step, ops_mat decay, ops_mat b, ops_mat c, ops_mat y) {
    static const recurrence_kind kind = {ssd_forward, ssd_back};
    tape *t = tape_of(o);
    const ops_mat own[MAX_OWN] = {x, step, decay}, shared[N_SHARED] = {b, c};
    recurrence *r = note_recurrence(t, &kind, batch, own, shared, desc->n_group, y);
    if (r) {
        r->d.ssd = *desc;
        r->n_unit = desc->n_head;
        r->n_state = ((int64_t)desc->n_state + 1) * desc->head_dim;
    }
    t->own->ssd(o, desc, at, batch, x, step, decay, b, c, y);
}

/* ---- The delta rule. Own: v, decay, beta; shared: q, k. State: [k_dim, v_dim], and of the token
 * v - k^T S, what the state did not know. ---- */

enum { DELTA_V, DELTA_DECAY, DELTA_BETA };

/* Where a head's decays are in a row, and how far from one row of its state to the next. */
static int64_t decay_at(const recurrence *r, const unit *u, int64_t *step) {
    *step = r->own[DELTA_DECAY].m.width != r->n_unit;
    return *step ? u->at * r->d.delta.k_dim : u->at;
}

static void delta_forward(const recurrence *r, const unit *u, int64_t t, const float *before,
                          float *after) {
    int64_t k_dim = r->d.delta.k_dim, n = r->d.delta.v_dim, by;
    const float *k = tape_row(r->shared[1].value, t) + u->column;
    const float *decay = tape_row(r->own[DELTA_DECAY].value, t) + decay_at(r, u, &by);
    float beta = tape_row(r->own[DELTA_BETA].value, t)[u->at], *missed = after + k_dim * n;
    memcpy(missed, tape_row(r->own[DELTA_V].value, t) + u->at * n, (size_t)n * sizeof *missed);
    for (int64_t i = 0; i < k_dim; i++) {
        put_scaled(after + i * n, decay[i * by], before + i * n, n);
        tape_add_scaled(missed, -k[i], after + i * n, n);
    }
    for (int64_t i = 0; i < k_dim; i++) {
        tape_add_scaled(after + i * n, beta * k[i], missed, n);
    }
}

static void delta_back(const recurrence *r, const unit *u, int64_t t, const float *before,
                       const float *after, float *grad) {
    int64_t k_dim = r->d.delta.k_dim, n = r->d.delta.v_dim, by, at = decay_at(r, u, &by);
    const float *q = tape_row(r->shared[0].value, t) + u->column;
    const float *k = tape_row(r->shared[1].value, t) + u->column;
    const float *decay = tape_row(r->own[DELTA_DECAY].value, t) + at;
    const float *dy = tape_row(r->dy, t) + u->at * n, *missed = after + k_dim * n;
    float beta = tape_row(r->own[DELTA_BETA].value, t)[u->at], *dmissed = grad + k_dim * n;
    float *dq = u->shared[0] + t * k_dim, *dk = u->shared[1] + t * k_dim;
    float *ddecay = tape_row(r->own[DELTA_DECAY].grad, t) + at;
    memset(dmissed, 0, (size_t)n * sizeof *dmissed);
    for (int64_t i = 0; i < k_dim; i++) {
        float *g = grad + i * n;
        tape_add_scaled(g, q[i], dy, n);
        tape_add_scaled(dmissed, k[i], g, n);
        dq[i] += dot(after + i * n, dy, n);
        dk[i] += beta * dot(g, missed, n);
    }
    tape_row(r->own[DELTA_BETA].grad, t)[u->at] += dot(dmissed, missed, n);
    scale(dmissed, beta, n);
    tape_add_scaled(tape_row(r->own[DELTA_V].grad, t) + u->at * n, 1, dmissed, n);
    for (int64_t i = 0; i < k_dim; i++) {
        float *g = grad + i * n;
        dk[i] -= decay[i * by] * dot(before + i * n, dmissed, n);
        tape_add_scaled(g, -k[i], dmissed, n);
        ddecay[i * by] += dot(g, before + i * n, n);
        scale(g, decay[i * by], n);
    }
}

static void run_delta(ops *o, const delta_desc *desc, state_at at, const ops_batch *batch,
                      ops_mat q, ops_mat k, ops_mat v, ops_mat decay, ops_mat beta, ops_mat y) {
    static const recurrence_kind kind = {delta_forward, delta_back};
    tape *t = tape_of(o);
    const ops_mat own[MAX_OWN] = {v, decay, beta}, shared[N_SHARED] = {q, k};
    recurrence *r = note_recurrence(t, &kind, batch, own, shared, desc->n_k_head, y);
    if (r) {
        r->d.delta = *desc;
        r->n_unit = desc->n_head;
        r->n_state = ((int64_t)desc->k_dim + 1) * desc->v_dim;
    }
    t->own->delta(o, desc, at, batch, q, k, v, decay, beta, y);
}

void tape_set_recurrent(ops_table *table) {
    tape_set_conv(table);
    table->scan = run_scan;
    table->ssd = run_ssd;
    table->delta = run_delta;
}
