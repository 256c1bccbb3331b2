/* cpu_attention.c - the cache of keys and values, and attention over it.
 *
 * A page holds [layer][kv head], each K [k_dim][64 tokens] and V [64 tokens][v_dim]: scores of 64
 * tokens come from whole vectors of K, sums of values from whole vectors of V. Of types with
 * integers, the tokens' scales and minima follow: of the keys [64] each, then of the values; such a
 * page becomes f32 in the thread's memory before its queries meet it. Its keys and values are
 * turned (host_kv_rotate): so are the queries, and the sums are turned back.
 *
 * The queries of one sequence that share a kv head, up to 64 of them, go through its pages
 * together. Positions are cut into pieces of 1024 at fixed places; each piece is an online softmax
 * of its own, and their results are merged in order. So pieces may run on different threads (as
 * they do when a step has few queries) without a change of any bit. */
#include "ops/cpu/cpu_ops.h"

#include "base/half.h"

#include <math.h>
#include <string.h>

#define PIECE_PAGES 16
#define ROWS 64                        /* queries of a task at most */
#define CONVERT_ROWS 8                 /* from here on f16 pages are converted first */
#define STATES_BYTES ((size_t)4 << 20) /* for the states of pieces run apart */
#define STORE_SPLIT 16384              /* elements from which on heads are stored by all threads */

struct ops_kv {
    kv_type type;
    host_kv_layer *layers; /* [n_layer + 1] */
    size_t page_bytes;
    int32_t n_pages;
    host_block **pages;
};

/* A thread's memory. */
typedef struct attn_thread {
    float *q;           /* [ROWS][k_dim] */
    float *acc, *total; /* [ROWS][v_dim] */
    float *k, *v;       /* a page as f32 */
    float scores[ROWS * OPS_PAGE_TOKENS];
    float max[ROWS], sum[ROWS], total_max[ROWS], total_sum[ROWS];
    int32_t from[ROWS], to[ROWS];
} attn_thread;

typedef struct attn_scratch {
    int head_dim; /* for keys and values up to this */
    attn_thread *threads;
    float *vectors; /* what the threads' pointers lead to */
    float *states;  /* [query head][piece][v_dim + 2] acc, max, sum */
} attn_scratch;

/* ---- The cache --------------------------------------------------------------------------------
 */

/* Bytes of a page before a layer. */
static size_t page_bytes(const ops_kv *kv, const host_kv_layer *l) {
    size_t bits = l->keys * (size_t)kv_key_bits(kv->type) +
                  (l->at - l->keys) * (size_t)kv_value_bits(kv->type);
    return bits / 8 + l->heads * kv_head_bytes(kv->type, 0, 0);
}

static uint8_t *keys_at(const ops_kv *kv, int32_t page, int layer, int head) {
    const host_kv_layer *l = &kv->layers[layer];
    return kv->pages[page]->data + page_bytes(kv, l) +
           (size_t)head * kv_head_bytes(kv->type, l->d.k_dim, l->d.v_dim);
}

static uint8_t *values_at(const ops_kv *kv, int32_t page, int layer, int head) {
    size_t keys = OPS_PAGE_TOKENS * (size_t)kv->layers[layer].d.k_dim;
    return keys_at(kv, page, layer, head) + keys * (size_t)kv_key_bits(kv->type) / 8;
}

/* Scales of the keys, their minima, scales of the values, their minima, as far as the type has
 * them. */
static uint16_t *params_at(const ops_kv *kv, int32_t page, int layer, int head) {
    size_t values = OPS_PAGE_TOKENS * (size_t)kv->layers[layer].d.v_dim;
    return (uint16_t *)(void *)(values_at(kv, page, layer, head) +
                                values * (size_t)kv_value_bits(kv->type) / 8);
}

static void free_attn_scratch(attn_scratch *a, ctx_t *ctx) {
    if (a) {
        ctx_free_aligned(ctx, a->threads);
        ctx_free_aligned(ctx, a->vectors);
        ctx_free_aligned(ctx, a->states);
        ctx_free(ctx, a);
    }
}

void cpu_free_attention(cpu_ops *c) {
    free_attn_scratch(c->attention, c->host.base.ctx);
    c->attention = NULL;
}

/* Makes scratch for heads of head_dim; what there is stays until there is larger. */
static jang_status reserve_attention(cpu_ops *c, int head_dim) {
    ctx_t *ctx = c->host.base.ctx;
    if (c->attention && head_dim <= c->attention->head_dim) {
        return JANG_OK;
    }
    size_t n_threads = (size_t)pool_threads(c->pool);
    size_t rows = (size_t)ROWS * (size_t)head_dim;
    size_t page = (size_t)OPS_PAGE_TOKENS * (size_t)head_dim;
    size_t vectors = (3 * rows + 2 * page) * n_threads * sizeof(float);
    attn_scratch *a = ctx_zero(ctx, 1, sizeof *a);
    if (!a) {
        return ctx_fail_memory(ctx, sizeof *a);
    }
    a->threads = ctx_alloc_aligned(ctx, n_threads * sizeof *a->threads, 64);
    a->vectors = ctx_alloc_aligned(ctx, vectors, 64);
    a->states = ctx_alloc_aligned(ctx, STATES_BYTES, 64);
    if (!a->threads || !a->vectors || !a->states) {
        free_attn_scratch(a, ctx);
        return ctx_fail_memory(ctx, vectors + STATES_BYTES);
    }
    float *at = a->vectors;
    for (size_t i = 0; i < n_threads; i++) {
        attn_thread *t = &a->threads[i];
        t->q = at;
        t->acc = at + rows;
        t->total = at + 2 * rows;
        t->k = at + 3 * rows;
        t->v = t->k + page;
        at = t->v + page;
    }
    a->head_dim = head_dim;
    cpu_free_attention(c);
    c->attention = a;
    return JANG_OK;
}

static int largest_head(const kv_desc *desc) {
    int largest = 2;
    for (int i = 0; i < desc->n_layer; i++) {
        kv_layer d = desc->layers[i];
        int size = d.n_kv_head == 0 ? 0 : d.k_dim > d.v_dim ? d.k_dim : d.v_dim;
        largest = size > largest ? size : largest;
    }
    return largest;
}

jang_status cpu_kv_new(ops_kv **out, ops *o, const kv_desc *desc) {
    host_kv_layer *layers;
    jang_status status = host_kv_layout(&layers, o, desc);
    if (status) {
        return status;
    }
    ops_kv *kv = NULL;
    status = reserve_attention(cpu_of(o), largest_head(desc));
    if (!status && !(kv = ctx_zero(o->ctx, 1, sizeof *kv))) {
        status = ctx_fail_memory(o->ctx, sizeof *kv);
    }
    if (status) {
        ctx_free(o->ctx, layers);
        return status;
    }
    kv->type = desc->type;
    kv->layers = layers;
    kv->page_bytes = page_bytes(kv, &layers[desc->n_layer]);
    *out = kv;
    return JANG_OK;
}

void cpu_kv_free(ops *o, ops_kv *kv) {
    if (!kv) {
        return;
    }
    for (int32_t i = 0; i < kv->n_pages; i++) {
        host_block_free(o, kv->pages[i]);
    }
    ctx_free(o->ctx, kv->pages);
    ctx_free(o->ctx, kv->layers);
    ctx_free(o->ctx, kv);
}

jang_status cpu_kv_grow(ops *o, ops_kv *kv, int32_t n_pages) {
    if (n_pages <= kv->n_pages) {
        return JANG_OK;
    }
    host_block **pages = ctx_realloc(o->ctx, kv->pages, (size_t)n_pages * sizeof *pages);
    if (!pages) {
        return ctx_fail_memory(o->ctx, (size_t)n_pages * sizeof *pages);
    }
    kv->pages = pages;
    for (; kv->n_pages < n_pages; kv->n_pages++) {
        jang_status status = host_block_new(&pages[kv->n_pages], o, kv->page_bytes);
        if (status) {
            return status;
        }
    }
    return JANG_OK;
}

void cpu_kv_copy(ops *o, ops_kv *kv, int32_t from, int32_t to) {
    (void)o;
    memcpy(kv->pages[to]->data, kv->pages[from]->data, kv->pages[to]->n_bytes);
}

size_t cpu_kv_page_bytes(const ops_kv *kv) {
    return kv->page_bytes;
}

void cpu_kv_save(ops *o, const ops_kv *kv, int32_t page, void *data) {
    (void)o;
    memcpy(data, kv->pages[page]->data, cpu_kv_page_bytes(kv));
}

void cpu_kv_load(ops *o, ops_kv *kv, int32_t page, const void *data) {
    (void)o;
    memcpy(kv->pages[page]->data, data, cpu_kv_page_bytes(kv));
}

typedef struct store_job {
    cpu_ops *c;
    const ops_kv *kv;
    int layer;
    const ops_batch *batch;
    ops_mat k, v;
} store_job;

/* Code i of a row of n: in its byte; or in half of one; or the upper four of its six bits in half
 * of one and the lower two in a quarter of one of the n / 4 that follow. */
static void put_code(uint8_t *row, int i, int n, int8_t code, int bits) {
    if (bits == 8) {
        row[i] = (uint8_t)code;
        return;
    }
    int shift = i < n / 2 ? 0 : 4, high = bits == 6 ? code >> 2 : code;
    uint8_t *at = &row[i % (n / 2)];
    *at = (uint8_t)((*at & (0xf0 >> shift)) | (high << shift));
    if (bits == 6) {
        shift = i / (n / 4) * 2;
        at = &row[n / 2 + i % (n / 4)];
        *at = (uint8_t)((*at & ~(3 << shift)) | ((code & 3) << shift));
    }
}

/* Rounds one token's key and value and puts their codes and scales into the page. */
static void store_codes(const store_job *job, int head, int32_t page, int at, const float *k,
                        const float *v) {
    const ops_kv *kv = job->kv;
    kv_layer d = kv->layers[job->layer].d;
    int n_params = kv_type_params(kv->type);
    int k_bits = kv_key_bits(kv->type), v_bits = kv_value_bits(kv->type);
    uint8_t *keys = keys_at(kv, page, job->layer, head);
    uint8_t *values = values_at(kv, page, job->layer, head);
    uint16_t *params = params_at(kv, page, job->layer, head);
    int8_t codes[OPS_HEAD_MAX];
    float own[2];
    host_kv_round(codes, own, k, d.k_dim, k_bits);
    for (int i = 0; i < d.k_dim; i++) {
        put_code(keys + i * (OPS_PAGE_TOKENS * k_bits / 8), at, OPS_PAGE_TOKENS, codes[i], k_bits);
    }
    for (int i = 0; i < n_params; i++) {
        params[i * OPS_PAGE_TOKENS + at] = f32_to_f16(own[i]);
    }
    host_kv_round(codes, own, v, d.v_dim, v_bits);
    for (int i = 0; i < d.v_dim; i++) {
        put_code(values + at * (d.v_dim * v_bits / 8), i, d.v_dim, codes[i], v_bits);
    }
    for (int i = 0; i < n_params; i++) {
        params[(n_params + i) * OPS_PAGE_TOKENS + at] = f32_to_f16(own[i]);
    }
}

/* Puts one token's keys into their column of the page, and its values into their row. */
static void store_token(const store_job *job, int head, int32_t t) {
    const ops_kv *kv = job->kv;
    int n_k = kv->layers[job->layer].d.k_dim, n_v = kv->layers[job->layer].d.v_dim;
    int32_t pos = job->batch->pos[t], at = pos % OPS_PAGE_TOKENS;
    int32_t page = job->batch->seqs[job->batch->seq_of[t]].pages[pos / OPS_PAGE_TOKENS];
    const float *k = host_row(job->k, t) + (int64_t)head * n_k;
    const float *v = host_row(job->v, t) + (int64_t)head * n_v;
    void *keys = keys_at(kv, page, job->layer, head);
    void *values = values_at(kv, page, job->layer, head);
    if (kv_type_params(kv->type)) {
        store_codes(job, head, page, at, k, v);
    } else if (kv->type == KV_F16) {
        uint16_t half[OPS_HEAD_MAX];
        job->c->kernels->floats->to_f16(half, k, n_k);
        for (int i = 0; i < n_k; i++) {
            ((uint16_t *)keys)[i * OPS_PAGE_TOKENS + at] = half[i];
        }
        job->c->kernels->floats->to_f16((uint16_t *)values + (int64_t)at * n_v, v, n_v);
    } else {
        for (int i = 0; i < n_k; i++) {
            ((float *)keys)[i * OPS_PAGE_TOKENS + at] = k[i];
        }
        memcpy((float *)values + (int64_t)at * n_v, v, (size_t)n_v * sizeof *v);
    }
}

static void store_head(void *arg, int head, int thread) {
    const store_job *job = arg;
    (void)thread;
    for (int32_t t = 0; t < job->batch->n_tok; t++) {
        store_token(job, head, t);
    }
}

void cpu_kv_store(ops *o, ops_kv *kv, int layer, const ops_batch *batch, ops_mat k, ops_mat v) {
    store_job job = {.c = cpu_of(o), .kv = kv, .layer = layer, .batch = batch, .k = k, .v = v};
    kv_layer d = kv->layers[layer].d;
    int heads = d.n_kv_head;
    if ((int64_t)batch->n_tok * heads * (d.k_dim + d.v_dim) > 2 * STORE_SPLIT) {
        pool_run(job.c->pool, store_head, &job, heads);
        return;
    }
    for (int h = 0; h < heads; h++) {
        store_head(&job, h, 0);
    }
}

/* ---- Attention --------------------------------------------------------------------------------
 */

typedef struct attn_job {
    cpu_ops *c;
    const attention_desc *d;
    const ops_kv *kv;
    int layer;
    const ops_batch *batch;
    ops_mat q, out;
    bool apart;       /* each piece is a task of its own and leaves its state in scratch */
    int32_t n_pieces; /* of the longest sequence */
} attn_job;

/* A task's share: up to ROWS queries of a sequence and kv head. Query r of the sequence is head
 * r % share of token r / share. */
typedef struct attn_part {
    const batch_seq *seq;
    int kv_head, share;
    int32_t first, n_row;
    int32_t piece; /* when apart */
} attn_part;

static int32_t piece_count(const batch_seq *seq) {
    int32_t n = PIECE_PAGES * OPS_PAGE_TOKENS;
    return (seq->n_past + seq->n_tok + n - 1) / n;
}

static int32_t slice_count(const attn_job *job, const batch_seq *seq) {
    int64_t rows = (int64_t)seq->n_tok * (job->d->n_head / job->d->kv.n_kv_head);
    return (int32_t)((rows + ROWS - 1) / ROWS);
}

static int32_t task_count(const attn_job *job, const batch_seq *seq) {
    return job->d->kv.n_kv_head * slice_count(job, seq) * (job->apart ? piece_count(seq) : 1);
}

static attn_part find_part(const attn_job *job, int32_t task) {
    attn_part p = {.seq = job->batch->seqs, .share = job->d->n_head / job->d->kv.n_kv_head};
    for (; task >= task_count(job, p.seq); p.seq++) {
        task -= task_count(job, p.seq);
    }
    /* later slices see more: they come first, so that the threads end together */
    int32_t slices = slice_count(job, p.seq), pieces = job->apart ? piece_count(p.seq) : 1;
    p.piece = task % pieces;
    p.kv_head = task / pieces % job->d->kv.n_kv_head;
    p.first = (slices - 1 - task / pieces / job->d->kv.n_kv_head) * ROWS;
    int64_t left = (int64_t)p.seq->n_tok * p.share - p.first;
    p.n_row = left < ROWS ? (int32_t)left : ROWS;
    return p;
}

/* Where query r of a part lies in q and out. */
static float *query_row(const attn_part *p, ops_mat m, int head_dim, int32_t r) {
    int32_t row = p->first + r;
    int64_t head = (int64_t)p->kv_head * p->share + row % p->share;
    return host_row(m, p->seq->first + row / p->share) + head * head_dim;
}

/* The state of a query's piece in scratch: acc [v_dim], max, sum. */
static float *state_of(const attn_job *job, const attn_part *p, int32_t r, int32_t piece) {
    int32_t row = p->first + r;
    int64_t query = (int64_t)(p->seq->first + row / p->share) * job->d->n_head +
                    p->kv_head * p->share + row % p->share;
    return job->c->attention->states + (query * job->n_pieces + piece) * (job->d->kv.v_dim + 2);
}

static int32_t query_position(const attn_part *p, int32_t r) {
    return p->seq->n_past + (p->first + r) / p->share;
}

/* What the sum of values is multiplied by, once all pieces are in: the head's sink, where there is
 * one, only makes the sum of weights larger. */
static float sum_share(const attn_job *job, const attn_part *p, int32_t r, float max, float sum) {
    const ops_weight *sinks = job->d->sinks;
    if (!sinks) {
        return 1.0f / sum;
    }
    int64_t head = (int64_t)p->kv_head * p->share + (p->first + r) % p->share;
    float sink = host_element(sinks->d.data, sinks->d.type, head), top = fmaxf(max, sink);
    float keep = expf(max - top);
    return keep / (sum * keep + expf(sink - top));
}

/* First position that query r sees, and the one after its last. */
static void sight(const attn_job *job, const attn_part *p, int32_t r, int32_t *from, int32_t *to) {
    int32_t end = p->seq->n_past + p->seq->n_tok, window = job->d->window;
    int32_t self = p->seq->n_past + (p->first + r) / p->share;
    *from = window > 0 && self >= window ? self - window + 1 : 0;
    *to = !job->d->whole ? self + 1 : window > 0 && end - self > window ? self + window : end;
    if (job->d->chunk > 0) {
        int32_t chunk = self - self % job->d->chunk;
        *from = chunk > *from ? chunk : *from;
    }
}

/* A page of integers to f32, in the thread's memory. */
static void unpack_page(const attn_job *job, const attn_part *p, attn_thread *t, int32_t page) {
    const ops_kv *kv = job->kv;
    int n = kv_type_params(kv->type);
    float params[4 * OPS_PAGE_TOKENS];
    const float_kernels *k = job->c->kernels->floats;
    k->from_f16(params, params_at(kv, page, job->layer, p->kv_head), 2 * n * OPS_PAGE_TOKENS);
    kv_codes codes = {.k = keys_at(kv, page, job->layer, p->kv_head),
                      .v = values_at(kv, page, job->layer, p->kv_head),
                      .k_scale = params,
                      .k_min = n > 1 ? params + OPS_PAGE_TOKENS : NULL,
                      .v_scale = params + n * OPS_PAGE_TOKENS,
                      .v_min = n > 1 ? params + 3 * OPS_PAGE_TOKENS : NULL,
                      .k_bits = kv_key_bits(kv->type),
                      .k_dim = job->d->kv.k_dim,
                      .v_dim = job->d->kv.v_dim};
    k->unpack_kv(t->k, t->v, &codes);
}

/* One page for the queries of the part; rows->from and to are filled here. */
static void attend_page(const attn_job *job, const attn_part *p, attn_thread *t,
                        const attn_rows *rows, int32_t page) {
    const float_kernels *k = job->c->kernels->floats;
    int32_t start = page * OPS_PAGE_TOKENS;
    for (int32_t r = 0; r < p->n_row; r++) {
        int32_t from, to;
        sight(job, p, r, &from, &to);
        from -= start;
        to -= start;
        t->from[r] = from < 0 ? 0 : from > OPS_PAGE_TOKENS ? OPS_PAGE_TOKENS : from;
        t->to[r] = to < 0 ? 0 : to > OPS_PAGE_TOKENS ? OPS_PAGE_TOKENS : to;
    }
    int32_t where = p->seq->pages[page];
    kv_page view = {.k = keys_at(job->kv, where, job->layer, p->kv_head),
                    .v = values_at(job->kv, where, job->layer, p->kv_head),
                    .half = job->kv->type == KV_F16};
    if (kv_type_params(job->kv->type)) {
        unpack_page(job, p, t, where);
        view = (kv_page){.k = t->k, .v = t->v};
    } else if (view.half && p->n_row >= CONVERT_ROWS) {
        k->from_f16(t->k, view.k, (int64_t)OPS_PAGE_TOKENS * job->d->kv.k_dim);
        k->from_f16(t->v, view.v, (int64_t)OPS_PAGE_TOKENS * job->d->kv.v_dim);
        view = (kv_page){.k = t->k, .v = t->v};
    }
    k->attend_page(rows, &view);
}

/* Adds a piece's state to the total of the pieces before it. */
static void merge_row(const attn_job *job, float *total, float *total_max, float *total_sum,
                      const float *acc, float max, float sum) {
    int n = job->d->kv.v_dim;
    if (sum == 0) {
        return; /* the query sees nothing of the piece */
    }
    if (*total_sum == 0) {
        memcpy(total, acc, (size_t)n * sizeof *total);
        *total_max = max;
        *total_sum = sum;
        return;
    }
    job->c->kernels->floats->attend_merge(total, total_max, total_sum, acc, max, sum, n);
}

static void clear_rows(float *sum, float *max, float *acc, int32_t n_row, int v_dim) {
    memset(acc, 0, (size_t)n_row * (size_t)v_dim * sizeof *acc);
    for (int32_t r = 0; r < n_row; r++) {
        max[r] = -INFINITY;
        sum[r] = 0;
    }
}

/* Runs the part's queries, already in t->q, through one piece. */
static void attend_piece(const attn_job *job, const attn_part *p, attn_thread *t, int32_t piece) {
    attn_rows rows = {.n_row = p->n_row,
                      .k_dim = job->d->kv.k_dim,
                      .v_dim = job->d->kv.v_dim,
                      .softcap = job->d->softcap,
                      .q = t->q,
                      .acc = t->acc,
                      .max = t->max,
                      .sum = t->sum,
                      .scores = t->scores,
                      .from = t->from,
                      .to = t->to};
    int32_t from, to, none;
    sight(job, p, 0, &from, &none);
    sight(job, p, p->n_row - 1, &none, &to);
    int32_t page = from / OPS_PAGE_TOKENS, end = (to + OPS_PAGE_TOKENS - 1) / OPS_PAGE_TOKENS;
    page = page > piece * PIECE_PAGES ? page : piece * PIECE_PAGES;
    end = end < (piece + 1) * PIECE_PAGES ? end : (piece + 1) * PIECE_PAGES;
    clear_rows(t->sum, t->max, t->acc, p->n_row, job->d->kv.v_dim);
    for (; page < end; page++) {
        attend_page(job, p, t, &rows, page);
    }
}

/* Scales a query and turns it as the keys are turned. */
static void take_query(const attn_job *job, const attn_part *p, int32_t r, float *q) {
    int n = job->d->kv.k_dim;
    float scale = job->d->scale * host_temper(job->d, query_position(p, r));
    job->c->kernels->floats->scale(q, query_row(p, job->q, n, r), n, scale);
    if (kv_type_params(job->kv->type)) {
        host_kv_rotate(q, n);
    }
}

/* Writes a query's result: the sum of values by its share, turned back. */
static void put_result(const attn_job *job, const attn_part *p, int32_t r, const float *total,
                       float share) {
    int n = job->d->kv.v_dim;
    float *out = query_row(p, job->out, n, r);
    job->c->kernels->floats->scale(out, total, n, share);
    if (kv_type_params(job->kv->type)) {
        host_kv_rotate(out, n);
    }
}

static void attend_task(void *arg, int task, int thread) {
    const attn_job *job = arg;
    attn_part p = find_part(job, task);
    attn_thread *t = &job->c->attention->threads[thread];
    int n = job->d->kv.v_dim;
    for (int32_t r = 0; r < p.n_row; r++) {
        take_query(job, &p, r, t->q + r * job->d->kv.k_dim);
    }
    if (job->apart) {
        attend_piece(job, &p, t, p.piece);
        for (int32_t r = 0; r < p.n_row; r++) {
            float *state = state_of(job, &p, r, p.piece);
            memcpy(state, t->acc + r * n, (size_t)n * sizeof *state);
            state[n] = t->max[r];
            state[n + 1] = t->sum[r];
        }
        return;
    }
    clear_rows(t->total_sum, t->total_max, t->total, p.n_row, n);
    for (int32_t piece = 0; piece < piece_count(p.seq); piece++) {
        attend_piece(job, &p, t, piece);
        for (int32_t r = 0; r < p.n_row; r++) {
            merge_row(job, t->total + r * n, &t->total_max[r], &t->total_sum[r], t->acc + r * n,
                      t->max[r], t->sum[r]);
        }
    }
    for (int32_t r = 0; r < p.n_row; r++) {
        float share = sum_share(job, &p, r, t->total_max[r], t->total_sum[r]);
        put_result(job, &p, r, t->total + r * n, share);
    }
}

/* Merges the pieces that ran apart, of one sequence and kv head. */
static void merge_part(const attn_job *job, attn_part p) {
    int n = job->d->kv.v_dim;
    attn_thread *t = &job->c->attention->threads[0];
    for (int32_t r = 0; r < p.n_row; r++) {
        float max = -INFINITY, sum = 0;
        for (int32_t piece = 0; piece < piece_count(p.seq); piece++) {
            const float *state = state_of(job, &p, r, piece);
            merge_row(job, t->total, &max, &sum, state, state[n], state[n + 1]);
        }
        put_result(job, &p, r, t->total, sum_share(job, &p, r, max, sum));
    }
}

void cpu_attention(ops *o, const attention_desc *desc, const ops_kv *kv, int layer,
                   const ops_batch *batch, ops_mat q, ops_mat out) {
    attn_job job = {
        .c = cpu_of(o), .d = desc, .kv = kv, .layer = layer, .batch = batch, .q = q, .out = out};
    int32_t n_tasks = 0, threads = pool_threads(job.c->pool);
    for (int32_t s = 0; s < batch->n_seq; s++) {
        int32_t pieces = piece_count(&batch->seqs[s]);
        n_tasks += task_count(&job, &batch->seqs[s]);
        job.n_pieces = pieces > job.n_pieces ? pieces : job.n_pieces;
    }
    size_t states = (size_t)batch->n_tok * (size_t)desc->n_head * (size_t)job.n_pieces;
    job.apart = job.n_pieces > 1 && n_tasks < 8 * threads &&
                states <= STATES_BYTES / sizeof(float) / (size_t)(desc->kv.v_dim + 2);
    if (!job.apart) {
        pool_run(job.c->pool, attend_task, &job, n_tasks);
        return;
    }
    n_tasks = 0;
    for (int32_t s = 0; s < batch->n_seq; s++) {
        n_tasks += task_count(&job, &batch->seqs[s]);
    }
    pool_run(job.c->pool, attend_task, &job, n_tasks);
    for (int32_t task = 0; task < n_tasks; task++) {
        attn_part p = find_part(&job, task);
        if (p.piece == 0) {
            merge_part(&job, p);
        }
    }
}
