/* cpu_rows.c - operators that treat each row of activations by itself: a few rows are done by the
 * calling thread, many are split. */
#include "ops/cpu/cpu_ops.h"

#include <math.h>
#include <string.h>

#define SPLIT_ELEMENTS 16384 /* steps of more elements are worth waking the other threads */

typedef struct rows_job {
    cpu_ops *c;
    void (*row)(const struct rows_job *job, int64_t t);
    int64_t n_row;
    int rows; /* of a task */
    ops_mat x, x2, y;
    const ops_weight *w;
    const ops_batch *batch;
    const int32_t *ids;
    float scale;
    const norm_desc *norm;
    const act_desc *act;
    const rope_desc *rope;
    rope_cache *cache;
    int n_head, head_dim;
    const time_step_desc *time;
    int64_t stride, from;
} rows_job;

static void rows_task(void *arg, int task, int thread) {
    const rows_job *job = arg;
    (void)thread;
    int64_t from = (int64_t)task * job->rows, to = from + job->rows;
    for (int64_t t = from; t < to && t < job->n_row; t++) {
        job->row(job, t);
    }
}

static void run_rows(rows_job *job, int64_t width) {
    if (job->n_row < 1) {
        return;
    }
    int64_t threads = pool_threads(job->c->pool);
    bool split = job->n_row * width > SPLIT_ELEMENTS && job->n_row > 1;
    job->rows = (int)(split ? (job->n_row + 4 * threads - 1) / (4 * threads) : job->n_row);
    pool_run(job->c->pool, rows_task, job, (int)((job->n_row + job->rows - 1) / job->rows));
}

static void embed_row(const rows_job *job, int64_t t) {
    float *y = host_row(job->y, t);
    weight_row_f32(y, &job->w->d, job->ids[t]);
    if (job->scale != 1.0f) {
        job->c->kernels->floats->scale(y, y, job->w->d.n_in, job->scale);
    }
}

void cpu_embed(ops *o, const ops_weight *w, embed_by by, const ops_batch *batch, float scale,
               ops_mat y) {
    rows_job job = {.c = cpu_of(o),
                    .row = embed_row,
                    .n_row = batch->n_tok,
                    .y = y,
                    .w = w,
                    .ids = host_batch_rows(batch, by),
                    .scale = scale};
    run_rows(&job, 4 * y.width);
}

/* The part of a vector that block `at` of a row meets. */
static const void *cyclic(const ops_weight *w, int64_t at) {
    if (!w) {
        return NULL;
    }
    int64_t element = at % (w->d.n_in * w->d.n_out);
    return (const uint8_t *)w->d.data + element * (int64_t)dtype_table[w->d.type].block_bytes;
}

static void norm_row(const rows_job *job, int64_t t) {
    const norm_desc *d = job->norm;
    norm_args a = {.kind = d->kind,
                   .n = d->width,
                   .w_type = d->weight ? d->weight->d.type : DT_F32,
                   .bias_type = d->bias ? d->bias->d.type : DT_F32,
                   .eps = d->eps,
                   .offset = d->offset};
    for (int64_t at = 0; at < job->x.width; at += d->width) {
        a.w = cyclic(d->weight, at);
        a.bias = cyclic(d->bias, at);
        job->c->kernels->floats->norm(host_row(job->y, t) + at, host_row(job->x, t) + at, &a);
    }
}

void cpu_norm(ops *o, const norm_desc *norm, ops_mat x, ops_mat y) {
    rows_job job = {
        .c = cpu_of(o), .row = norm_row, .n_row = x.n_row, .x = x, .y = y, .norm = norm};
    run_rows(&job, x.width);
}

/* cos and sin of a token's angles: position * inv_freq in f32, as transformers computes them. */
static void angles_row(const rows_job *job, int64_t t) {
    int half = job->rope->n_rot / 2;
    const ops_weight *freq = host_rope_freq(job->rope, job->batch, t);
    for (int i = 0; i < half; i++) {
        float angle = (float)job->batch->pos[t] * host_element(freq->d.data, DT_F32, i);
        job->cache->cosines[t * half + i] = cosf(angle) * job->rope->scale;
        job->cache->sines[t * half + i] = sinf(angle) * job->rope->scale;
    }
}

/* The angles of this step, made once for all layers. */
static rope_cache *find_angles(cpu_ops *c, const rope_desc *rope, const ops_batch *batch) {
    for (int i = 0; i < CPU_ROPE_CACHES; i++) {
        rope_cache *r = &c->ropes[i];
        if (r->batch == batch->serial && r->inv_freq == rope->inv_freq && r->n_rot == rope->n_rot &&
            r->scale == rope->scale) {
            return r;
        }
    }
    rope_cache *r = &c->ropes[c->next_rope];
    c->next_rope = (c->next_rope + 1) % CPU_ROPE_CACHES;
    r->batch = batch->serial;
    r->inv_freq = rope->inv_freq;
    r->n_rot = rope->n_rot;
    r->scale = rope->scale;
    r->sines = r->cosines + (int64_t)batch->n_tok * (rope->n_rot / 2);
    rows_job job = {
        .c = c, .row = angles_row, .n_row = batch->n_tok, .batch = batch, .rope = rope, .cache = r};
    run_rows(&job, 32 * rope->n_rot);
    return r;
}

static void rope_row(const rows_job *job, int64_t t) {
    int64_t at = t * (job->rope->n_rot / 2);
    for (int h = 0; h < job->n_head; h++) {
        job->c->kernels->floats->rope(host_row(job->x, t) + (int64_t)h * job->head_dim,
                                      job->cache->cosines + at, job->cache->sines + at,
                                      job->rope->n_rot, job->rope->interleaved);
    }
}

void cpu_rope(ops *o, const rope_desc *rope, const ops_batch *batch, ops_mat x, int n_head,
              int head_dim) {
    cpu_ops *c = cpu_of(o);
    if (rope->n_rot > CPU_ROPE_MAX || batch->n_tok > c->n_tok) {
        host_fail(o, JANG_ERR_ARGUMENT,
                  "rope: %d elements of %d tokens, but at most %d of the %lld that reserve said",
                  rope->n_rot, batch->n_tok, CPU_ROPE_MAX, (long long)c->n_tok);
        return;
    }
    rows_job job = {.c = c,
                    .row = rope_row,
                    .n_row = batch->n_tok,
                    .x = x,
                    .rope = rope,
                    .cache = find_angles(c, rope, batch),
                    .n_head = n_head,
                    .head_dim = head_dim};
    run_rows(&job, x.width);
}

static void gated_row(const rows_job *job, int64_t t) {
    const float *up = job->x2.buf ? host_row(job->x2, t) : NULL;
    job->c->kernels->floats->gated(host_row(job->y, t), host_row(job->x, t), up, job->y.width,
                                   job->act);
}

void cpu_gated(ops *o, const act_desc *act, ops_mat gate, ops_mat up, ops_mat y) {
    rows_job job = {.c = cpu_of(o),
                    .row = gated_row,
                    .n_row = y.n_row,
                    .x = gate,
                    .x2 = up,
                    .y = y,
                    .act = act};
    run_rows(&job, y.width);
}

static void take_blocks_row(const rows_job *job, int64_t t) {
    const float *in = host_row(job->x, t) + job->from;
    float *out = host_row(job->y, t);
    for (int64_t at = 0; at < job->x.width; at += job->stride, out += job->head_dim) {
        memcpy(out, in + at, (size_t)job->head_dim * sizeof *out);
    }
}

void cpu_take_blocks(ops *o, ops_mat x, int64_t stride, int64_t from, int64_t width, ops_mat y) {
    rows_job job = {.c = cpu_of(o),
                    .row = take_blocks_row,
                    .n_row = x.n_row,
                    .x = x,
                    .y = y,
                    .stride = stride,
                    .from = from,
                    .head_dim = (int)width};
    run_rows(&job, x.width / 4);
}

static void time_step_row(const rows_job *job, int64_t t) {
    const time_step_desc *d = job->time;
    job->c->kernels->floats->time_step(job->x2.buf ? host_row(job->x2, t) : NULL,
                                       job->y.buf ? host_row(job->y, t) : NULL, host_row(job->x, t),
                                       d->bias ? d->bias->d.data : NULL, d->a ? d->a->d.data : NULL,
                                       job->x.width, d->min, d->max);
}

void cpu_time_step(ops *o, const time_step_desc *desc, ops_mat x, ops_mat step, ops_mat decay) {
    rows_job job = {.c = cpu_of(o),
                    .row = time_step_row,
                    .n_row = x.n_row,
                    .x = x,
                    .x2 = step,
                    .y = decay,
                    .time = desc};
    run_rows(&job, 8 * x.width);
}

static void add_row(const rows_job *job, int64_t t) {
    job->c->kernels->floats->add_scaled(host_row(job->y, t), host_row(job->x, t), job->y.width,
                                        job->scale);
}

void cpu_add(ops *o, float scale, ops_mat x, ops_mat y) {
    rows_job job = {
        .c = cpu_of(o), .row = add_row, .n_row = y.n_row, .x = x, .y = y, .scale = scale};
    run_rows(&job, y.width);
}

void cpu_take_out(ops *o, const ops_batch *batch, ops_mat x, ops_mat y) {
    (void)o;
    for (int32_t i = 0; i < batch->n_out; i++) {
        memmove(host_row(y, i), host_row(x, batch->out[i]), (size_t)x.width * sizeof(float));
    }
}
