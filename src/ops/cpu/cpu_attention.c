/* cpu_attention.c - attention over the cache of keys and values (cpu_kv.h).
 *
 * The queries of one sequence that share a kv head, up to 64 of them, go through its pages
 * together, those whose own page it is through the form that it has while it is open. Positions are
 * cut into pieces of 1024 at fixed places; each piece is an online softmax of its own, and their
 * results are merged in order. So pieces may run on different threads (as they do when a step has
 * few queries) without a change of any bit. */
#include "ops/cpu/cpu_kv.h"

#include "base/half.h"

#include <math.h>
#include <string.h>

#define PIECE_PAGES 16
#define ROWS 64                        /* queries of a task at most */
#define CONVERT_ROWS 32                /* from here on pages become f32 first */
#define STATES_BYTES ((size_t)4 << 20) /* for the states of pieces run apart */

/* A thread's memory. */
typedef struct attn_thread {
    float *q;           /* [ROWS][k_dim] */
    float *acc, *total; /* [ROWS][v_dim] */
    float *k, *v;       /* a page's numbers as f32 */
    float params[2 * (OPS_HEAD_MAX + OPS_PAGE_TOKENS)], own[2 * OPS_HEAD_MAX]; /* of kv_page */
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

/* ---- Scratch ----------------------------------------------------------------------------------
 */

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

jang_status cpu_reserve_attention(cpu_ops *c, int head_dim) {
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
    int32_t self = p->seq->n_past + (p->first + r) / p->share;
    host_sight(job->d, p->seq->n_past + p->seq->n_tok, self, from, to);
}

/* What turns codes of a page of integers into keys and values, as f32 in the thread's memory. */
static void read_params(const attn_job *job, attn_thread *t, kv_place at, kv_page *view) {
    const float_kernels *f = job->c->kernels->floats;
    bool opens = kv_type_opens(at.form->type);
    int n = opens ? 2 : 1, n_k = kv_key_params(at);
    float *of_values = t->params + n * n_k;
    f->from_f16(t->params, kv_params_at(at), n * (n_k + OPS_PAGE_TOKENS));
    view->v_scale = of_values;
    if (!opens) {
        view->token_scale = t->params;
        return;
    }
    view->k_scale = t->params;
    view->k_min = t->params + n_k;
    view->v_min = of_values + OPS_PAGE_TOKENS;
    const uint16_t *own = kv_token_at(at);
    view->own = own[0] % OPS_PAGE_TOKENS;
    view->own_k = t->own;
    view->own_v = t->own + at.d.k_dim;
    f->from_f16(t->own, own + 1, at.d.k_dim + at.d.v_dim);
}

static void fetch_params(kv_place at) {
    const char *p = (const char *)kv_params_at(at);
    size_t n = (size_t)(kv_type_params(at.form->type) * (kv_key_params(at) + OPS_PAGE_TOKENS));
    for (size_t i = 0; i < n * sizeof(uint16_t); i += 64) {
        __builtin_prefetch(p + i, 0, 2);
    }
}

/* Whether n_row queries go through a page as it is: its numbers become floats first where many
 * share that, or where the kernel's vectors do not fit into its rows. */
static bool is_read_as_is(const float_kernels *f, kv_coding coding, int v_dim, int32_t n_row) {
    bool fits = coding <= KV_AS_F16 || v_dim % (coding == KV_AS_S8 ? f->lanes : 2 * f->lanes) == 0;
    return coding == KV_AS_F32 || (fits && n_row < CONVERT_ROWS);
}

/* A page as the kernel takes it for n_row queries. */
static kv_page view_page(const attn_job *job, attn_thread *t, kv_place at, kv_place next,
                         int32_t n_row) {
    static const kv_coding codings[KV_N_TYPE] = {[KV_F16] = KV_AS_F16,
                                                 [KV_F32] = KV_AS_F32,
                                                 [KV_Q8] = KV_AS_S8,
                                                 [KV_Q4] = KV_AS_U4,
                                                 [KV_Q5] = KV_AS_U6};
    const float_kernels *f = job->c->kernels->floats;
    kv_page view = {.coding = codings[at.form->type],
                    .k = kv_keys_at(at),
                    .v = kv_values_at(at),
                    .next_k = kv_keys_at(next),
                    .next_v = kv_values_at(next),
                    .own = -1};
    if (kv_type_params(at.form->type)) {
        read_params(job, t, at, &view);
        fetch_params(next);
    }
    if (is_read_as_is(f, view.coding, at.d.v_dim, n_row)) {
        return view;
    }
    if (view.coding == KV_AS_F16) {
        f->from_f16(t->k, view.k, (int64_t)OPS_PAGE_TOKENS * at.d.k_dim);
        f->from_f16(t->v, view.v, (int64_t)OPS_PAGE_TOKENS * at.d.v_dim);
    } else {
        f->unpack_kv(t->k, t->v, &view, at.d.k_dim, at.d.v_dim);
    }
    view.coding = KV_AS_F32;
    view.k = view.next_k = t->k;
    view.v = view.next_v = t->v;
    return view;
}

/* Rows [first, end) of the part through a form of a page; next is the one that comes after it. */
static void attend_form(const attn_job *job, attn_thread *t, attn_rows rows, kv_place at,
                        kv_place next, int32_t first, int32_t end) {
    if (first >= end) {
        return;
    }
    kv_page view = view_page(job, t, at, next, end - first);
    rows.n_row = end - first;
    rows.q += first * rows.k_dim;
    rows.acc += first * rows.v_dim;
    rows.max += first;
    rows.sum += first;
    rows.from += first;
    rows.to += first;
    job->c->kernels->floats->attend_page(&rows, &view);
}

/* The first of the part's queries at a position from pos on, or their number. */
static int32_t first_row_from(const attn_part *p, int32_t pos) {
    int32_t n = pos > p->seq->n_past ? pos - p->seq->n_past : 0;
    int64_t r = (int64_t)n * p->share - p->first;
    return r < 0 ? 0 : r < p->n_row ? (int32_t)r : p->n_row;
}

/* One page for the queries of the part; rows->from and to are filled here. */
static void attend_page(const attn_job *job, const attn_part *p, attn_thread *t,
                        const attn_rows *rows, int32_t page, int32_t next_page) {
    const ops_kv *kv = job->kv;
    int32_t start = page * OPS_PAGE_TOKENS, end = start + OPS_PAGE_TOKENS;
    for (int32_t r = 0; r < p->n_row; r++) {
        int32_t from, to;
        sight(job, p, r, &from, &to);
        from -= start;
        to -= start;
        t->from[r] = from < 0 ? 0 : from > OPS_PAGE_TOKENS ? OPS_PAGE_TOKENS : from;
        t->to[r] = to < 0 ? 0 : to > OPS_PAGE_TOKENS ? OPS_PAGE_TOKENS : to;
    }
    int32_t where = p->seq->pages[page];
    kv_place kept = kv_at(kv, &kv->kept, where, job->layer, p->kv_head);
    kv_place next = kv_at(kv, &kv->kept, p->seq->pages[next_page], job->layer, p->kv_head);
    if (!kv_type_opens(kv->kept.type)) {
        attend_form(job, t, *rows, kept, next, 0, p->n_row);
        return;
    }
    int32_t own = first_row_from(p, start), later = first_row_from(p, end);
    attend_form(job, t, *rows, kept, next, 0,
                job->d->whole ? own : 0); /* else they see nothing of it */
    if (own < later && kv->open.pages[where]) {
        kv_place open = kv_at(kv, &kv->open, where, job->layer, p->kv_head);
        attend_form(job, t, *rows, open, open, own, later);
    }
    attend_form(job, t, *rows, kept, next, later, p->n_row);
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
        attend_page(job, p, t, &rows, page, page + 1 < end ? page + 1 : page);
    }
}

/* Scales a query and turns it as the keys are turned. */
static void take_query(const attn_job *job, const attn_part *p, int32_t r, float *q) {
    int n = job->d->kv.k_dim;
    float scale = job->d->scale * host_temper(job->d, query_position(p, r));
    job->c->kernels->floats->scale(q, query_row(p, job->q, n, r), n, scale);
    if (kv_type_params(job->kv->kept.type)) {
        host_kv_rotate(q, n);
    }
}

/* Writes a query's result: the sum of values by its share, turned back. */
static void put_result(const attn_job *job, const attn_part *p, int32_t r, const float *total,
                       float share) {
    int n = job->d->kv.v_dim;
    float *out = query_row(p, job->out, n, r);
    job->c->kernels->floats->scale(out, total, n, share);
    if (kv_type_params(job->kv->kept.type)) {
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
