/* calibrate.c - layer by layer through a model, on a backend that looks at linears' inputs.
 *
 * The backend is cpu's with its table replaced: its linear computes with a BLAS, knows which
 * weights have been quantized, and stops a stage at the input that is to be studied next. A part of
 * the sequences is run in the original model as well: their steps hold each sequence twice, first
 * as the original model sees it, then as the quantized one does; rows are independent, so all other
 * operators serve both. */
#include "quant/calibrate.h"

#include "base/file.h"
#include "base/half.h"
#include "base/pool.h"
#include "format/affine.h"
#include "model/model.h"
#include "ops/hostbuf.h"
#include "quant/blas.h"
#include "quant/gptq.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define STEP_ROWS 2048
#define PAIRED_TOKENS 32768 /* that are run in the original model as well */
#define MAX_ITEMS 8         /* weights that share an input */
#define HEAD_ROWS 16        /* logits computed at once */
#define NO_ITEM SIZE_MAX

typedef struct runner {
    ops_table table;      /* first: the backend's table pointer leads here */
    const ops_table *own; /* the backend's */
    void (*attention)(ops *o, const attention_desc *desc, const ops_kv *kv, int layer,
                      const ops_batch *batch, ops_mat q, ops_mat out);
    void (*experts)(ops *o, const ops_routes *routes, ops_mat x, const expert_item *items,
                    int n_items);
    calibration *c;
    ops *o;
    model *m;
    model_cache cache;
    float **quantized; /* [n_items] f32 of this layer's finished matrices, or NULL */
    bool *done;        /* [n_items] */
    float *weight;     /* scratch for one weight as f32 */
    size_t n_weight;
    /* The pass at hand */
    int call, target; /* number of a linear in its layer; the first that may be studied */
    bool skip;        /* the input was reached: the rest of the stage is not wanted */
    bool reached;     /* ... in some step of the pass */
    bool head;        /* the output matrix's inputs are collected */
    int64_t n_orig;   /* first rows of the step that are the original model's */
    jang_status status;
    /* What is studied */
    gptq_site site; /* h NULL: nothing yet */
    size_t items[MAX_ITEMS];
    int n_items, site_call;
    float *head_rows; /* [rows of a step, n_embd] */
    int64_t n_head_rows;
    /* Streams */
    int32_t n_step_seq, n_pages; /* sequences of a step; pages of a sequence */
    size_t n_seqs, n_paired;     /* sequences; the first so many are run in the original too */
    int32_t *order;              /* [n_seqs] which of the calibration's each one is */
    float *streams[2];           /* original [n_paired sequences, n_embd], quantized [n_seqs ...] */
    int32_t *ids, *pages, *out;
    batch_seq *seqs;
} runner;

/* ---- Weights ---- */

static size_t item_of(const runner *r, const ops_weight *w) {
    const char *name = model_weight_name(r->m, w);
    return name ? plan_find_module(r->c->plan, name) : NO_ITEM;
}

typedef struct widen_job {
    const ops_weight *w;
    float *out;
} widen_job;

#define WIDEN_ROWS 64

static void widen_rows(void *arg, int task, int thread) {
    (void)thread;
    const widen_job *j = arg;
    const weight_desc *d = &j->w->d;
    int64_t n = d->n_in, first = (int64_t)task * WIDEN_ROWS;
    int64_t last = first + WIDEN_ROWS < d->n_out ? first + WIDEN_ROWS : d->n_out;
    for (int64_t r = first; r < last; r++) {
        float *out = j->out + r * n;
        if (d->bits) {
            const uint8_t *scales = d->scales, *biases = d->biases;
            size_t at = (size_t)(r * (n / d->group)) * (d->scale_type == DT_F32 ? 4 : 2);
            affine_row_f32(out, host_affine_row(j->w, r), scales + at, biases + at, d->scale_type,
                           n, d->bits, d->group);
        } else if (d->type == DT_F32) {
            memcpy(out, (const uint8_t *)d->data + r * n * 4, (size_t)n * 4);
        } else {
            const uint8_t *data = (const uint8_t *)d->data + r * n * 2;
            for (int64_t i = 0; i < n; i++) {
                uint16_t h;
                memcpy(&h, data + 2 * i, 2);
                out[i] = d->type == DT_BF16 ? bf16_to_f32(h) : f16_to_f32(h);
            }
        }
    }
}

/* The original weight as f32, in scratch until the next call; NULL: no memory. */
static const float *original(runner *r, const ops_weight *w) {
    size_t n = (size_t)(w->d.n_out * w->d.n_in);
    if (n > r->n_weight) {
        ctx_free(r->c->ctx, r->weight);
        r->weight = ctx_array(r->c->ctx, n, sizeof *r->weight);
        r->n_weight = r->weight ? n : 0;
        if (!r->weight) {
            r->status = ctx_fail_memory(r->c->ctx, n * sizeof *r->weight);
            return NULL;
        }
    }
    widen_job j = {w, r->weight};
    pool_run(ctx_pool(r->c->ctx), widen_rows, &j,
             (int)((w->d.n_out + WIDEN_ROWS - 1) / WIDEN_ROWS));
    return r->weight;
}

/* ---- linear ---- */

static void multiply(runner *r, const float *w, ops_mat x, int64_t first, int64_t n,
                     const linear_item *item) {
    const weight_desc *d = &item->weight->d;
    gemm_call g = {.m = n,
                   .n = d->n_out,
                   .k = d->n_in,
                   .trans_b = true,
                   .a = host_row(x, first),
                   .lda = x.stride,
                   .b = w,
                   .ldb = d->n_in,
                   .c = host_row(item->y, first),
                   .ldc = item->y.stride,
                   .alpha = 1,
                   .beta = item->accumulate ? 1.0f : 0.0f,
                   .coarse = true};
    blas_gemm_spread(r->c->ctx, &g);
    for (int64_t i = first; d->bias && i < first + n; i++) {
        float *y = host_row(item->y, i);
        for (int64_t k = 0; k < d->n_out; k++) {
            y[k] += host_element(d->bias, d->bias_type, k);
        }
    }
}

static void compute(runner *r, ops_mat x, const linear_item *item, size_t number) {
    const float *quantized = number == NO_ITEM ? NULL : r->quantized[number];
    int64_t n = quantized ? r->n_orig : x.n_row;
    if (n > 0) {
        const float *w = original(r, item->weight);
        if (!w) {
            return;
        }
        multiply(r, w, x, 0, n, item);
    }
    if (quantized) {
        multiply(r, quantized, x, n, x.n_row - n, item);
    }
}

/* Adds the squares of inputs to a matrix's importance. */
static void add_squares(runner *r, size_t number, ops_mat x) {
    float **all = r->c->importance;
    if (!all[number]) {
        all[number] = ctx_zero(r->c->ctx, (size_t)x.width, sizeof **all);
        if (!all[number]) {
            r->status = ctx_fail_memory(r->c->ctx, (size_t)x.width * sizeof **all);
            return;
        }
    }
    float *sum = all[number];
    for (int64_t i = r->n_orig; i < x.n_row; i++) {
        const float *row = host_row(x, i);
        for (int64_t k = 0; k < x.width; k++) {
            sum[k] += row[k] * row[k];
        }
    }
}

/* Takes over what an earlier, killed run finished. */
static void load_finished(runner *r, size_t number) {
    work_view v;
    const plan_item *item = &r->c->plan->items[number];
    if (r->done[number] || !work_get(&v, r->c->work, number)) {
        return;
    }
    r->quantized[number] = ctx_array(r->c->ctx, (size_t)item->part->params, sizeof(float));
    if (!r->quantized[number]) {
        r->status = ctx_fail_memory(r->c->ctx, (size_t)item->part->params * sizeof(float));
        return;
    }
    work_rows_f32(r->quantized[number], r->c->work, number);
    r->c->plan->items[number].type = v.type;
    r->done[number] = true;
}

/* Adds a step's rows to what is known of the input. */
static void study(runner *r, const float *rows, int64_t stride, int64_t n_row, int64_t width) {
    r->reached = true;
    if (!r->site.h) {
        r->status = gptq_site_new(&r->site, r->c->ctx, width);
    }
    if (r->status == JANG_OK) {
        r->status = gptq_site_add(&r->site, r->c->ctx, rows + r->n_orig * stride,
                                  r->n_orig ? rows : NULL, stride, n_row - r->n_orig);
    }
}

static void run_linear(ops *o, ops_mat x, const linear_item *items, int n_items) {
    runner *r = (runner *)(void *)o->table;
    int call = r->call++;
    if (r->skip || r->status != JANG_OK) {
        return;
    }
    if (r->head) {
        r->items[0] = item_of(r, items[0].weight);
        r->n_items = 1;
        for (int64_t i = 0; i < x.n_row; i++, r->n_head_rows++) {
            memcpy(r->head_rows + r->n_head_rows * x.width, host_row(x, i),
                   (size_t)x.width * sizeof(float));
        }
        return;
    }
    size_t numbers[MAX_ITEMS];
    int n_pending = 0, n_known = n_items < MAX_ITEMS ? n_items : MAX_ITEMS;
    for (int i = 0; i < n_known; i++) {
        numbers[i] = item_of(r, items[i].weight);
        if (numbers[i] == NO_ITEM) {
            continue;
        }
        if (!r->c->work) {
            add_squares(r, numbers[i], x);
        } else {
            load_finished(r, numbers[i]);
            n_pending += !r->done[numbers[i]];
        }
    }
    if (n_pending && call >= r->target) {
        r->site_call = call;
        r->n_items = 0;
        for (int i = 0; i < n_known; i++) {
            if (numbers[i] != NO_ITEM && !r->done[numbers[i]]) {
                r->items[r->n_items++] = numbers[i];
            }
        }
        study(r, host_row(x, 0), x.stride, x.n_row, x.width);
        r->skip = true;
        return;
    }
    for (int i = 0; i < n_items && r->status == JANG_OK; i++) {
        compute(r, x, &items[i], i < n_known ? numbers[i] : NO_ITEM);
    }
}

static void run_attention(ops *o, const attention_desc *desc, const ops_kv *kv, int layer,
                          const ops_batch *batch, ops_mat q, ops_mat out) {
    runner *r = (runner *)(void *)o->table;
    if (!r->skip) {
        r->attention(o, desc, kv, layer, batch, q, out);
    }
}

static void run_experts(ops *o, const ops_routes *routes, ops_mat x, const expert_item *items,
                        int n_items) {
    runner *r = (runner *)(void *)o->table;
    if (r->skip || r->status != JANG_OK) {
        return;
    }
    for (int i = 0; i < n_items; i++) {
        size_t number = item_of(r, items[i].weight);
        if (number != NO_ITEM) {
            add_squares(r, number, x);
        }
    }
    r->experts(o, routes, x, items, n_items);
}

/* ---- Steps ---- */

/* Sequences of a step that begins with sequence at: each of the paired ones takes two places. */
static size_t step_seqs(const runner *r, size_t at) {
    size_t end = at < r->n_paired ? r->n_paired : r->n_seqs;
    size_t n = (size_t)r->n_step_seq / (at < r->n_paired ? 2 : 1);
    return end - at < n ? end - at : n;
}

static void copy_stream(runner *r, size_t at, size_t n_tok, bool back) {
    size_t n_embd = (size_t)model_get_facts(r->m)->n_embd, n_orig = (size_t)r->n_orig;
    ops_mat s = model_stream(r->m, (int64_t)(n_orig + n_tok));
    for (size_t i = 0; i < n_orig + n_tok; i++) {
        float *row = host_row(s, (int64_t)i);
        size_t token = at * (size_t)r->c->n_seq + (i < n_orig ? i : i - n_orig);
        float *kept = r->streams[i < n_orig ? 0 : 1] + token * n_embd;
        memcpy(back ? kept : row, back ? row : kept, n_embd * sizeof(float));
    }
}

/* The step of n sequences from at on. */
static batch_desc make_batch(runner *r, size_t at, size_t n) {
    int32_t n_seq = r->c->n_seq, times = at < r->n_paired ? 2 : 1;
    for (int32_t i = 0; i < times * (int32_t)n; i++) {
        size_t from = (size_t)r->order[at + (size_t)i % n] * (size_t)n_seq;
        memcpy(r->ids + i * n_seq, r->c->ids + from, (size_t)n_seq * sizeof *r->ids);
        r->seqs[i] = (batch_seq){
            .first = i * n_seq, .n_tok = n_seq, .pages = r->pages + i * r->n_pages, .state = i};
    }
    r->n_orig = (int64_t)(times - 1) * (int64_t)n * n_seq;
    int32_t n_rows = times * (int32_t)n * n_seq;
    return (batch_desc){.n_tok = n_rows,
                        .ids = r->ids,
                        .n_seq = times * (int32_t)n,
                        .seqs = r->seqs,
                        .n_out = n_rows,
                        .out = r->out};
}

static jang_status begin_step(runner *r, const batch_desc *b, size_t at, bool embedded) {
    jang_status status = model_begin(r->m, b);
    if (status == JANG_OK && !embedded) {
        copy_stream(r, at, (size_t)(b->n_tok - r->n_orig), false);
    }
    r->call = 0;
    r->skip = false;
    return status;
}

/* A pass over some of the sequences; their streams move on unless an input was reached. */
static jang_status run_pass(runner *r, layer_stages which, size_t from, size_t to) {
    r->reached = false;
    for (size_t at = from; at < to;) {
        size_t n = step_seqs(r, at);
        batch_desc b = make_batch(r, at, n);
        jang_status status = begin_step(r, &b, at, which.layer == 0 && which.first == 0);
        if (status != JANG_OK) {
            return status;
        }
        model_layer(r->m, which, &b, &r->cache);
        status = r->o->table->finish(r->o);
        if (status == JANG_OK) {
            status = r->status;
        }
        if (status != JANG_OK) {
            return status;
        }
        if (!r->skip) {
            copy_stream(r, at, n * (size_t)r->c->n_seq, true);
        }
        at += n;
    }
    return JANG_OK;
}

/* ---- Quantizing what was studied ---- */

static jang_status read_matrix(gptq_matrix *out, runner *r, size_t number) {
    ctx_t *ctx = r->c->ctx;
    plan_item *item = &r->c->plan->items[number];
    size_t n = (size_t)item->part->params, n_groups = n / (size_t)item->group;
    gptq_matrix m = {.w = ctx_array(ctx, n, sizeof *m.w),
                     .n_out = item->part->rows,
                     .bits = item->bits,
                     .type = item->type,
                     .codes = ctx_alloc(ctx, n),
                     .scales = ctx_array(ctx, n_groups, sizeof *m.scales),
                     .biases = ctx_array(ctx, n_groups, sizeof *m.biases)};
    *out = m; /* freed by the caller in any case */
    if (!m.w || !m.codes || !m.scales || !m.biases) {
        return ctx_fail_memory(ctx, n * 5 + n_groups * 8);
    }
    jang_status status = part_rows_f32(m.w, r->c->source, item->part, 0, item->part->rows);
    for (size_t i = 0; i < n && status == JANG_OK; i++) {
        if (!isfinite(m.w[i])) {
            status = ctx_fail(
                ctx, JANG_ERR_FORMAT, "%s: tensor %s: NaN or infinite weights in row %zu",
                checkpoint_path(r->c->source), item->part->name, i / (size_t)item->part->columns);
        }
    }
    return status;
}

/* f16 cannot hold the scales or biases of weights as large as this. */
static dtype wide_type(const gptq_matrix *m, int64_t n_in) {
    float most = 0;
    for (int64_t i = 0; i < m->n_out * n_in; i++) {
        float x = fabsf(m->w[i]);
        most = x > most ? x : most;
    }
    return most > 30000.0f ? DT_BF16 : m->type;
}

static jang_status finish_matrix(runner *r, size_t number, gptq_matrix *m) {
    m->type = wide_type(m, r->site.n_in);
    r->c->plan->items[number].type = m->type;
    jang_status status = gptq_quantize(&r->site, r->c->ctx, m);
    work_matrix stored = {m->codes, m->scales, m->biases, m->type};
    if (status == JANG_OK) {
        status = work_put(r->c->work, number, &stored);
    }
    if (status == JANG_OK) {
        r->done[number] = true;
        r->quantized[number] = m->w;
        m->w = NULL;
    }
    return status;
}

/* Matrices that share the input under study. */
typedef struct site_matrices {
    gptq_matrix m[MAX_ITEMS];
    double damping;
} site_matrices;

/* Reads the matrices and moves them to their targets, once the paired sequences were seen. */
static jang_status aim_site(runner *r, site_matrices *s) {
    jang_status status = JANG_OK;
    for (int i = 0; i < r->n_items && status == JANG_OK; i++) {
        status = read_matrix(&s->m[i], r, r->items[i]);
    }
    return status == JANG_OK ? gptq_aim(&r->site, r->c->ctx, s->damping, s->m, r->n_items) : status;
}

static jang_status quantize_site(runner *r, site_matrices *s) {
    int group = r->c->plan->items[r->items[0]].group;
    jang_status status = gptq_prepare(&r->site, r->c->ctx, group, s->damping, s->m, r->n_items);
    for (int i = 0; i < r->n_items && status == JANG_OK; i++) {
        status = finish_matrix(r, r->items[i], &s->m[i]);
    }
    return status;
}

static void free_site(runner *r, site_matrices *s) {
    ctx_t *ctx = r->c->ctx;
    for (int i = 0; i < MAX_ITEMS; i++) {
        ctx_free(ctx, s->m[i].w);
        ctx_free(ctx, s->m[i].codes);
        ctx_free(ctx, s->m[i].scales);
        ctx_free(ctx, s->m[i].biases);
    }
    gptq_site_free(&r->site, ctx);
}

static void forget_layer(runner *r) {
    for (size_t i = 0; i < r->c->plan->n_items; i++) {
        ctx_free(r->c->ctx, r->quantized[i]);
        r->quantized[i] = NULL;
    }
}

/* Passes over a stage of a layer: one for each input that is studied, and one that moves the
 * streams on. */
static jang_status run_stage(runner *r, layer_stages which) {
    r->target = 0;
    for (bool more = true; more;) {
        site_matrices s = {.damping = r->c->damping};
        jang_status status = run_pass(r, which, 0, r->n_paired);
        more = r->reached;
        r->target = more ? r->site_call : r->target;
        if (status == JANG_OK && more) {
            status = aim_site(r, &s);
        }
        if (status == JANG_OK) {
            status = run_pass(r, which, r->n_paired, r->n_seqs);
        }
        if (status == JANG_OK && more) {
            status = quantize_site(r, &s);
        }
        free_site(r, &s);
        if (status != JANG_OK) {
            return status;
        }
    }
    return JANG_OK;
}

static jang_status run_layer(runner *r, int layer) {
    jang_status status = JANG_OK;
    for (int i = 0; i < model_stages(r->m, layer) && status == JANG_OK; i++) {
        status = run_stage(r, (layer_stages){layer, i, i});
    }
    return status;
}

/* Computes logits of the step, whose inputs run_linear then keeps in head_rows. */
static jang_status reach_head(runner *r, const batch_desc *b) {
    size_t n_logits = (size_t)model_get_facts(r->m)->n_vocab * HEAD_ROWS;
    float *logits = ctx_array(r->c->ctx, n_logits, sizeof *logits);
    jang_status status =
        logits ? model_end(r->m, b) : ctx_fail_memory(r->c->ctx, n_logits * sizeof *logits);
    r->n_head_rows = 0;
    for (int32_t i = 0; i < b->n_tok && status == JANG_OK; i += HEAD_ROWS) {
        int32_t n = b->n_tok - i < HEAD_ROWS ? b->n_tok - i : HEAD_ROWS;
        status = model_logits(r->m, i, n, logits);
    }
    ctx_free(r->c->ctx, logits);
    return status;
}

static jang_status run_head_pass(runner *r, size_t from, size_t to) {
    int64_t n_embd = model_get_facts(r->m)->n_embd;
    r->reached = false;
    for (size_t at = from; at < to;) {
        size_t n = step_seqs(r, at);
        batch_desc b = make_batch(r, at, n);
        jang_status status = begin_step(r, &b, at, false);
        if (status == JANG_OK) {
            status = reach_head(r, &b);
        }
        if (status != JANG_OK || r->items[0] == NO_ITEM || r->n_head_rows != b.n_tok) {
            return status; /* failed, not quantized, or no single product */
        }
        load_finished(r, r->items[0]);
        if (r->status == JANG_OK && !r->done[r->items[0]]) {
            study(r, r->head_rows, n_embd, b.n_tok, n_embd);
        }
        if (r->status != JANG_OK || !r->reached) {
            return r->status;
        }
        at += n;
    }
    return JANG_OK;
}

/* The output matrix: its inputs are the normed streams. A tied one is the embedding as well, whose
 * rows are inputs as they are: more damping keeps them close. */
static jang_status run_head(runner *r) {
    r->head = true;
    site_matrices s = {.damping = r->c->damping};
    jang_status status = run_head_pass(r, 0, r->n_paired);
    bool wanted = r->reached;
    if (status == JANG_OK && wanted) {
        bool tied = r->c->plan->items[r->items[0]].part->role == ROLE_EMBEDDING;
        s.damping *= tied ? 5 : 1;
        status = aim_site(r, &s);
    }
    if (status == JANG_OK && wanted) {
        status = run_head_pass(r, r->n_paired, r->n_seqs);
    }
    if (status == JANG_OK && wanted) {
        status = quantize_site(r, &s);
    }
    free_site(r, &s);
    return status;
}

/* ---- The whole ---- */

/* The sequences in the order they are run: the paired ones, spread over the text, come first. */
static void order_seqs(runner *r) {
    size_t n = r->n_seqs, n_paired = r->n_paired, at = n_paired;
    for (size_t i = 0; i < n_paired; i++) {
        r->order[i] = (int32_t)(i * n / n_paired);
    }
    for (size_t i = 0, k = 0; i < n; i++) {
        if (k < n_paired && (size_t)r->order[k] == i) {
            k++;
        } else {
            r->order[at++] = (int32_t)i;
        }
    }
}

static jang_status make_arrays(runner *r) {
    calibration *c = r->c;
    ctx_t *ctx = c->ctx;
    int32_t n_seq = c->n_seq, fit = STEP_ROWS / n_seq;
    r->n_seqs = c->n_ids / (size_t)n_seq;
    size_t paired = (PAIRED_TOKENS + (size_t)n_seq - 1) / (size_t)n_seq;
    r->n_paired = !c->work ? 0 : r->n_seqs < paired ? r->n_seqs : paired;
    r->n_step_seq = fit < 2 ? 2 : fit;
    r->n_pages = (n_seq + OPS_PAGE_TOKENS - 1) / OPS_PAGE_TOKENS;
    int32_t rows = r->n_step_seq * n_seq, n_pages = r->n_step_seq * r->n_pages;
    size_t n_embd = (size_t)model_get_facts(r->m)->n_embd, seq_bytes = n_embd * sizeof(float);
    seq_bytes *= (size_t)n_seq;
    bool made = true;
    made &= (r->streams[0] = ctx_array(ctx, r->n_paired + 1, seq_bytes)) != NULL;
    made &= (r->streams[1] = ctx_array(ctx, r->n_seqs, seq_bytes)) != NULL;
    made &= (r->order = ctx_array(ctx, r->n_seqs, sizeof *r->order)) != NULL;
    made &= (r->ids = ctx_array(ctx, (size_t)rows, sizeof *r->ids)) != NULL;
    made &= (r->out = ctx_array(ctx, (size_t)rows, sizeof *r->out)) != NULL;
    made &= (r->seqs = ctx_array(ctx, (size_t)r->n_step_seq, sizeof *r->seqs)) != NULL;
    made &= (r->pages = ctx_array(ctx, (size_t)n_pages, sizeof *r->pages)) != NULL;
    made &= (r->quantized = ctx_zero(ctx, c->plan->n_items + 1, sizeof *r->quantized)) != NULL;
    made &= (r->done = ctx_zero(ctx, c->plan->n_items + 1, sizeof *r->done)) != NULL;
    made &= (r->head_rows = ctx_array(ctx, (size_t)rows, n_embd * sizeof(float))) != NULL;
    if (!made) {
        return ctx_fail_memory(ctx, (r->n_paired + r->n_seqs) * seq_bytes);
    }
    order_seqs(r);
    for (int32_t i = 0; i < rows; i++) {
        r->out[i] = i;
    }
    for (int32_t i = 0; i < n_pages; i++) {
        r->pages[i] = i;
    }
    return JANG_OK;
}

static jang_status open_runner(runner *r) {
    calibration *c = r->c;
    ctx_t *ctx = c->ctx;
    const ops_options exact = {.exact = true};
    jang_status status = ops_open(&r->o, ctx, "cpu", &exact);
    if (status != JANG_OK) {
        return status;
    }
    r->own = r->o->table;
    r->table = *r->own;
    r->attention = r->table.attention;
    r->experts = r->table.linear_experts;
    r->table.linear = run_linear;
    r->table.attention = run_attention;
    r->table.linear_experts = run_experts;
    r->o->table = &r->table;
    status = model_open(&r->m, ctx, c->run, r->o);
    if (status != JANG_OK) {
        return status;
    }
    status = make_arrays(r);
    int32_t rows = r->n_step_seq * c->n_seq;
    if (status != JANG_OK) {
        return status;
    }
    status = model_reserve(r->m, rows);
    if (status == JANG_OK) {
        status = model_cache_new(&r->cache, r->m, KV_F32);
    }
    return status == JANG_OK
               ? model_cache_grow(&r->cache, r->m, r->n_step_seq * r->n_pages, r->n_step_seq)
               : status;
}

static void close_runner(runner *r) {
    ctx_t *ctx = r->c->ctx;
    if (r->quantized) {
        forget_layer(r);
    }
    gptq_site_free(&r->site, ctx);
    void *all[] = {r->streams[0], r->streams[1], r->order, r->ids,       r->out,   r->seqs,
                   r->pages,      r->quantized,  r->done,  r->head_rows, r->weight};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        ctx_free(ctx, all[i]);
    }
    if (r->m) {
        model_cache_free(&r->cache, r->m);
        model_close(r->m);
    }
    if (r->o) {
        r->o->table = r->own ? r->own : r->o->table;
        ops_close(r->o);
    }
}

static jang_status report(const runner *r, int layer, int n_layer, double start) {
    if (!r->c->on_progress) {
        return JANG_OK;
    }
    char what[64];
    snprintf(what, sizeof what, "calibrating layer %d of %d", layer + 1, n_layer);
    uint64_t total = checkpoint_bytes(r->c->source);
    jang_progress p = {what, total / (uint64_t)n_layer * (uint64_t)layer, total,
                       clock_seconds() - start};
    return r->c->on_progress(r->c->user, &p)
               ? JANG_OK
               : ctx_fail(r->c->ctx, JANG_ERR_CANCELLED, "the conversion was cancelled");
}

jang_status calibrate(calibration *c) {
    runner *r = ctx_zero(c->ctx, 1, sizeof *r);
    if (!r) {
        return ctx_fail_memory(c->ctx, sizeof *r);
    }
    r->c = c;
    double start = clock_seconds();
    jang_status status = open_runner(r);
    int n_layer = status == JANG_OK ? model_get_facts(r->m)->n_layer : 0;
    for (int i = 0; i < n_layer && status == JANG_OK; i++) {
        status = report(r, i, n_layer, start);
        if (status == JANG_OK) {
            status = run_layer(r, i);
        }
        forget_layer(r);
    }
    if (status == JANG_OK && c->work) {
        status = run_head(r);
    }
    close_runner(r);
    ctx_free(c->ctx, r);
    return status;
}
