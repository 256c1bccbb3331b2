/* cpu_recurrent.c - convolutions, Mamba's scans and the delta rule, split over sequences, heads and
 * blocks of columns. What a part of a slot holds:
 *
 *     conv    [n_tap - 1][width] the inputs of the tokens before, the oldest first
 *     scan    [width][n_state]
 *     ssd     [n_head][block][n_state][columns of the block]    (STATE_BLOCK)
 *     delta   [n_head][block][k_dim][columns of the block] */
#include "ops/cpu/cpu_ops.h"

#include <string.h>

#define CHANNELS 128        /* of a task of conv and scan */
#define SPLIT_NUMBERS 32768 /* operations from which on other threads are woken */

typedef struct recurrent_job {
    cpu_ops *c;
    state_at at;
    const ops_batch *batch;
    ops_mat x, step, decay, b, c_, q, k, v, beta, y;
    const conv_desc *conv;
    const scan_desc *scan;
    const ssd_desc *ssd;
    const delta_desc *delta;
    int n_blocks; /* tasks of a sequence: blocks of channels, or heads times blocks of columns */
    int n_column_blocks;
    int n_tasks, rows; /* tasks that a thread takes together */
    void (*task)(const struct recurrent_job *job, const batch_seq *seq, int block);
} recurrent_job;

static void run_tasks(void *arg, int task, int thread) {
    const recurrent_job *job = arg;
    (void)thread;
    int from = task * job->rows, to = from + job->rows;
    for (int i = from; i < to && i < job->n_tasks; i++) {
        job->task(job, &job->batch->seqs[i / job->n_blocks], i % job->n_blocks);
    }
}

/* Clears the state of sequences that begin, then runs n_blocks tasks a sequence; work is a measure
 * of the whole. */
static void run_blocks(recurrent_job *job, int n_blocks, int64_t work) {
    for (int32_t s = 0; s < job->batch->n_seq; s++) {
        (void)host_state_begin(job->at, &job->batch->seqs[s]);
    }
    job->n_blocks = n_blocks;
    job->n_tasks = n_blocks * job->batch->n_seq;
    int threads = work > SPLIT_NUMBERS ? pool_threads(job->c->pool) : 1;
    job->rows = threads == 1 ? job->n_tasks : (job->n_tasks + 4 * threads - 1) / (4 * threads);
    if (job->n_tasks > 0) {
        pool_run(job->c->pool, run_tasks, job, (job->n_tasks + job->rows - 1) / job->rows);
    }
}

static float *part_of(const recurrent_job *job, const batch_seq *seq) {
    return host_state_part(job->at.state, seq->state, job->at.part);
}

static int64_t at_most(int64_t n, int64_t limit) {
    return n < limit ? n : limit;
}

/* ---- Convolution ---- */

/* The inputs of a token's window, from the state where they are older than the step. */
static void window_of(const float **taps, const recurrent_job *job, const batch_seq *seq, int64_t i,
                      int64_t channel, int n_tap) {
    const float *past = part_of(job, seq);
    for (int j = 0; j < n_tap; j++) {
        int64_t row = i - (n_tap - 1) + j;
        taps[j] = row >= 0 ? host_row(job->x, seq->first + row) + channel
                           : past + (row + n_tap - 1) * job->x.width + channel;
    }
}

static void conv_task(const recurrent_job *job, const batch_seq *seq, int block) {
    const conv_desc *d = job->conv;
    int n_tap = (int)d->weight->d.n_out;
    int64_t from = (int64_t)block * CHANNELS, width = job->x.width;
    int64_t n = at_most(width - from, CHANNELS);
    const float *w = (const float *)d->weight->d.data + from;
    const float *bias = d->bias ? (const float *)d->bias->d.data + from : NULL,
                *taps[CONV_MAX_TAPS];
    for (int64_t i = 0; i < seq->n_tok; i++) {
        window_of(taps, job, seq, i, from, n_tap);
        job->c->kernels->floats->conv(host_row(job->y, seq->first + i) + from, taps, n_tap, w,
                                      width, bias, n, d->silu);
    }
    /* the window of the token after the step, less that token; rows move towards the front */
    window_of(taps, job, seq, seq->n_tok, from, n_tap);
    float *past = part_of(job, seq);
    for (int j = 0; j < n_tap - 1; j++) {
        memmove(past + j * width + from, taps[j], (size_t)n * sizeof *past);
    }
}

void cpu_conv(ops *o, const conv_desc *desc, state_at at, const ops_batch *batch, ops_mat x,
              ops_mat y) {
    if (desc->weight->d.n_out > CONV_MAX_TAPS) {
        host_fail(o, JANG_ERR_ARGUMENT, "conv: %lld taps; at most %d are possible",
                  (long long)desc->weight->d.n_out, CONV_MAX_TAPS);
        return;
    }
    recurrent_job job = {
        .c = cpu_of(o), .at = at, .batch = batch, .x = x, .y = y, .conv = desc, .task = conv_task};
    run_blocks(&job, (int)((x.width + CHANNELS - 1) / CHANNELS),
               x.n_row * x.width * desc->weight->d.n_out);
}

/* ---- Mamba ---- */

static void scan_task(const recurrent_job *job, const batch_seq *seq, int block) {
    const scan_desc *d = job->scan;
    int64_t from = (int64_t)block * CHANNELS, at = from * d->n_state, t = seq->first;
    scan_block s = {
        .n_tok = seq->n_tok,
        .n = at_most(job->x.width - from, CHANNELS),
        .n_state = d->n_state,
        .state = part_of(job, seq) + at,
        .a = (const float *)d->a->d.data + at,
        .d = (const float *)d->d->d.data + from,
        .x = host_row(job->x, t) + from,
        .step = host_row(job->step, t) + from,
        .b = host_row(job->b, t),
        .c = host_row(job->c_, t),
        .y = host_row(job->y, t) + from,
        .x_stride = job->x.stride,
        .step_stride = job->step.stride,
        .b_stride = job->b.stride,
        .c_stride = job->c_.stride,
        .y_stride = job->y.stride,
    };
    job->c->kernels->floats->scan(&s);
}

void cpu_scan(ops *o, const scan_desc *desc, state_at at, const ops_batch *batch, ops_mat x,
              ops_mat step, ops_mat b, ops_mat c, ops_mat y) {
    recurrent_job job = {.c = cpu_of(o),
                         .at = at,
                         .batch = batch,
                         .x = x,
                         .step = step,
                         .b = b,
                         .c_ = c,
                         .y = y,
                         .scan = desc,
                         .task = scan_task};
    run_blocks(&job, (int)((x.width + CHANNELS - 1) / CHANNELS),
               x.n_row * x.width * desc->n_state * 4);
}

/* ---- Mamba-2 ---- */

/* Which head and columns a task has. */
typedef struct column_block {
    int64_t head, from, n;
} column_block;

static column_block column_block_of(const recurrent_job *job, int block, int64_t n_column) {
    int64_t from = (int64_t)(block % job->n_column_blocks) * STATE_BLOCK;
    return (column_block){block / job->n_column_blocks, from,
                          at_most(n_column - from, STATE_BLOCK)};
}

static void ssd_task(const recurrent_job *job, const batch_seq *seq, int block) {
    const ssd_desc *d = job->ssd;
    int64_t n = d->n_state, width = d->head_dim, t = seq->first;
    column_block p = column_block_of(job, block, width);
    int64_t column = p.head * width + p.from, group = p.head * d->n_group / d->n_head;
    ssd_block s = {
        .n_tok = seq->n_tok,
        .n_row = d->n_state,
        .n_column = (int)p.n,
        .state = part_of(job, seq) + n * column,
        .x = host_row(job->x, t) + column,
        .step = host_row(job->step, t) + p.head,
        .decay = host_row(job->decay, t) + p.head,
        .b = host_row(job->b, t) + group * n,
        .c = host_row(job->c_, t) + group * n,
        .y = host_row(job->y, t) + column,
        .x_stride = job->x.stride,
        .step_stride = job->step.stride,
        .decay_stride = job->decay.stride,
        .b_stride = job->b.stride,
        .c_stride = job->c_.stride,
        .y_stride = job->y.stride,
        .d = ((const float *)d->d->d.data)[p.head],
    };
    job->c->kernels->floats->ssd(&s);
}

static void run_columns(recurrent_job *job, int n_head, int n_row, int n_column) {
    job->n_column_blocks = (n_column + STATE_BLOCK - 1) / STATE_BLOCK;
    run_blocks(job, n_head * job->n_column_blocks,
               (int64_t)job->batch->n_tok * n_head * n_row * n_column);
}

void cpu_ssd(ops *o, const ssd_desc *desc, state_at at, const ops_batch *batch, ops_mat x,
             ops_mat step, ops_mat decay, ops_mat b, ops_mat c, ops_mat y) {
    recurrent_job job = {.c = cpu_of(o),
                         .at = at,
                         .batch = batch,
                         .x = x,
                         .step = step,
                         .decay = decay,
                         .b = b,
                         .c_ = c,
                         .y = y,
                         .ssd = desc,
                         .task = ssd_task};
    run_columns(&job, desc->n_head, desc->n_state, desc->head_dim);
}

/* ---- Delta rule ---- */

static void delta_task(const recurrent_job *job, const batch_seq *seq, int block) {
    const delta_desc *d = job->delta;
    int64_t t = seq->first, width = d->v_dim;
    column_block p = column_block_of(job, block, width);
    int64_t column = p.head * width + p.from;
    int64_t key = p.head * d->n_k_head / d->n_head * d->k_dim;
    bool by_row = job->decay.width != d->n_head;
    delta_block s = {
        .n_tok = seq->n_tok,
        .n_row = d->k_dim,
        .n_column = (int)p.n,
        .state = part_of(job, seq) + d->k_dim * column,
        .q = host_row(job->q, t) + key,
        .k = host_row(job->k, t) + key,
        .v = host_row(job->v, t) + column,
        .decay = host_row(job->decay, t) + (by_row ? p.head * d->k_dim : p.head),
        .beta = host_row(job->beta, t) + p.head,
        .y = host_row(job->y, t) + column,
        .q_stride = job->q.stride,
        .k_stride = job->k.stride,
        .v_stride = job->v.stride,
        .decay_stride = job->decay.stride,
        .beta_stride = job->beta.stride,
        .y_stride = job->y.stride,
        .decay_step = by_row,
    };
    if (s.n_tok > 0) {
        job->c->kernels->floats->delta(&s);
    }
}

void cpu_delta(ops *o, const delta_desc *desc, state_at at, const ops_batch *batch, ops_mat q,
               ops_mat k, ops_mat v, ops_mat decay, ops_mat beta, ops_mat y) {
    recurrent_job job = {.c = cpu_of(o),
                         .at = at,
                         .batch = batch,
                         .q = q,
                         .k = k,
                         .v = v,
                         .decay = decay,
                         .beta = beta,
                         .y = y,
                         .delta = desc,
                         .task = delta_task};
    run_columns(&job, desc->n_head, desc->k_dim, desc->v_dim);
}
