/* cpu_linear.c - products with weights: quantizing the input, splitting rows over the threads.
 *
 * The rows of all items that read the same form of the input are one list of work, cut into pieces
 * of similar bytes, of which each thread goes through a share (pool.h). A piece belongs to one
 * item; its results go straight to y, or through the thread's scratch when something is added to
 * them. */
#include "ops/cpu/cpu_ops.h"

#include "ops/rounding.h"

#include <string.h>

#define PIECE_BYTES 131072  /* a piece at most, for few rows of x */
#define PIECES_A_THREAD 8   /* as many pieces at least, if they are not tiny */
#define GEMM_SPLIT 32       /* for more rows of x pieces are as many panels as the cache takes */
#define GEMM_PIECES 16      /* but so many pieces a thread at least, if they are a panel or more */
#define GEMM_MOST 256       /* rows that many rows of x meet at once */
#define EXACT_ROWS 8        /* rows dequantized together */
#define QUANTIZE_SPLIT 8192 /* inputs of more elements are quantized by all threads */
#define EXPERT_PAIRS 256    /* inputs of experts rounded at once, if a step has as many */

/* ---- Scratch ----------------------------------------------------------------------------------
 */

/* Kernels may read this much beyond the last row, to no effect. */
#define Q8_SLACK 4096

static size_t round_up(size_t n, size_t to) {
    return (n + to - 1) / to * to;
}

void cpu_free_linear(cpu_ops *c) {
    ctx_t *ctx = c->host.base.ctx;
    ctx_free_aligned(ctx, c->q8.low);
    ctx_free_aligned(ctx, c->q8.scales);
    ctx_free_aligned(ctx, c->thread_bytes);
    ctx_free(ctx, c->slots);
    c->q8 = (q8_rows){0};
    c->thread_bytes = NULL;
    c->slots = NULL;
    c->n_tok = c->n_rounded = 0;
}

/* Inputs of products that are rounded at once: experts have a row a route, done in turns. */
static int64_t count_rounded(int64_t n_tok, int n_used) {
    int64_t n_route = n_tok * n_used < EXPERT_PAIRS ? n_tok * n_used : EXPERT_PAIRS;
    return n_tok > n_route ? n_tok : n_route;
}

jang_status cpu_reserve_linear(cpu_ops *c, int64_t n_tok, int64_t max_in, int n_used) {
    ctx_t *ctx = c->host.base.ctx;
    int64_t n_rounded = count_rounded(n_tok, n_used);
    if (n_tok <= c->n_tok && max_in <= c->max_in && n_rounded <= c->n_rounded && c->thread_bytes) {
        return JANG_OK;
    }
    cpu_free_linear(c);
    c->max_in = max_in > c->max_in ? max_in : c->max_in;
    c->n_used = n_used > c->n_used ? n_used : c->n_used;
    if (n_tok == 0) {
        return JANG_OK;
    }
    const affine_kernels *k = c->kernels->affine;
    size_t rows = (size_t)n_rounded, n_in = (size_t)c->max_in;
    size_t codes = round_up(n_in, Q8_PAD), groups = round_up(n_in / 32 + 1, 16);
    size_t panel = k->gemm_panel_bytes(c->max_in), exact = EXACT_ROWS * n_in * sizeof(float);
    panel = panel > k->gemm_cached ? panel : k->gemm_cached;
    size_t out_rows = GEMM_MOST;
    c->thread_out = round_up(panel > exact ? panel : exact, 64);
    c->thread_stride = round_up(c->thread_out + out_rows * rows * sizeof(float) + 64, 4096);
    c->q8.low = ctx_alloc_aligned(ctx, 2 * rows * codes + Q8_SLACK, 64);
    c->q8.scales =
        ctx_alloc_aligned(ctx, rows * groups * (2 * sizeof(float) + Q8_PICKS) + Q8_SLACK, 64);
    c->thread_bytes =
        ctx_alloc_aligned(ctx, c->thread_stride * (size_t)pool_threads(c->pool), 4096);
    c->slots = ctx_array(ctx, (size_t)n_rounded, sizeof *c->slots);
    if (!c->q8.low || !c->q8.scales || !c->thread_bytes || !c->slots) {
        cpu_free_linear(c);
        return ctx_fail_memory(ctx, rows * codes + c->thread_stride);
    }
    c->q8.high = c->q8.low + rows * codes;
    c->q8.sums = c->q8.scales + rows * groups;
    c->q8.picks = (uint8_t *)(c->q8.sums + rows * groups);
    c->n_tok = n_tok;
    c->n_rounded = n_rounded;
    return JANG_OK;
}

/* ---- One piece --------------------------------------------------------------------------------
 */

/* How the items of a run read x. */
typedef enum x_form { X_F32, X_GEMV, X_GEMM } x_form;

typedef struct linear_run {
    cpu_ops *c;
    ops_mat x;
    x_form form;
    const linear_item *items[CPU_MAX_ITEMS];
    int64_t piece[CPU_MAX_ITEMS]; /* rows of a piece of this item */
    int first[CPU_MAX_ITEMS + 1]; /* number of the item's first piece */
    int n_items;
    bool alone; /* the calling thread does it all */
} linear_run;

/* Adds what the item asks for to results [n_tok][n_rows] and puts them into y. */
static void put_results(const linear_run *run, const linear_item *item, int64_t from,
                        int64_t n_rows, const float *results) {
    const weight_desc *d = &item->weight->d;
    float bias[GEMM_MOST];
    for (int64_t r = 0; r < n_rows; r++) {
        bias[r] = d->bias ? host_element(d->bias, d->bias_type, from + r) : 0;
    }
    for (int64_t t = 0; t < run->x.n_row; t++) {
        float *y = host_row(item->y, t) + from;
        for (int64_t r = 0; r < n_rows; r++) {
            float sum = results[t * n_rows + r] + bias[r];
            y[r] = item->accumulate ? y[r] + sum : sum;
        }
    }
}

void cpu_exact_rows(const cpu_ops *c, const weight_desc *d, const float *x, int64_t x_stride,
                    int64_t n_tok, int64_t from, int64_t to, float *y, int64_t y_stride,
                    float *scratch) {
    const float_kernels *k = c->kernels->floats;
    if (!d->bits) {
        k->dense(d, x, x_stride, n_tok, from, to, y, y_stride);
        return;
    }
    weight_desc dense = {.n_in = d->n_in, .type = DT_F32, .data = scratch};
    for (int64_t r = from; r < to; r += EXACT_ROWS) {
        int64_t n = to - r < EXACT_ROWS ? to - r : EXACT_ROWS;
        for (int64_t i = 0; i < n; i++) {
            weight_row_f32(scratch + i * d->n_in, d, r + i);
        }
        k->dense(&dense, x, x_stride, n_tok, 0, n, y + r - from, y_stride);
    }
}

/* Asks for rows of an affine weight in the order in which they lie, which is faster than meeting
 * them side by side, as a panel of few rows of x does. */
static void fetch_rows(const weight_desc *d, int64_t from, int64_t to) {
    int64_t row = d->n_in * d->bits / 8,
            scales = d->n_in / d->group * dtype_table[d->scale_type].block_bytes;
    for (int64_t i = from * row; i < to * row; i += 64) {
        __builtin_prefetch((const char *)d->data + i, 0, 2);
    }
    for (int64_t i = from * scales; i < to * scales; i += 64) {
        __builtin_prefetch((const char *)d->scales + i, 0, 2);
        __builtin_prefetch((const char *)d->biases + i, 0, 2);
    }
}

/* What a piece is: rows from .. end-1 of an item. */
typedef struct linear_piece {
    const linear_item *item;
    int64_t from, end;
} linear_piece;

/* A piece by its number; its item is NULL for a number below 0. */
static linear_piece piece_at(const linear_run *run, int piece) {
    int i = 0;
    if (piece < 0) {
        return (linear_piece){0};
    }
    while (piece >= run->first[i + 1]) {
        i++;
    }
    int64_t from = (piece - run->first[i]) * run->piece[i], end = from + run->piece[i];
    int64_t n_out = run->items[i]->weight->d.n_out;
    return (linear_piece){run->items[i], from, end < n_out ? end : n_out};
}

/* Rows of an item that are multiplied at once by many rows of x. */
static int64_t gemm_step(const linear_run *run, const weight_desc *d) {
    const affine_kernels *k = run->c->kernels->affine;
    int64_t n = (int64_t)(k->gemm_cached / k->gemm_panel_bytes(d->n_in));
    if (run->x.n_row <= GEMM_SPLIT || n < 1) {
        return k->gemm_rows;
    }
    n *= k->gemm_rows;
    return n < GEMM_MOST ? n : GEMM_MOST / k->gemm_rows * k->gemm_rows;
}

/* Does a piece and takes the next one, before the last rows of this one are done: so memory can be
 * asked for the rows that come next, wherever they are. */
static linear_piece run_piece(const linear_run *run, linear_piece piece, int thread) {
    cpu_ops *c = run->c;
    const affine_kernels *k = c->kernels->affine;
    uint8_t *scratch = c->thread_bytes + (size_t)thread * c->thread_stride;
    float *held = (float *)(void *)(scratch + c->thread_out);
    const linear_item *item = piece.item;
    const weight_desc *d = &item->weight->d;
    bool direct = !d->bias && !item->accumulate;
    int64_t step = run->form == X_GEMM ? gemm_step(run, d) : CPU_OUT_ROWS;
    linear_piece next = {0};
    for (int64_t from = piece.from, to; from < piece.end; from = to) {
        to = from + step < piece.end ? from + step : piece.end;
        float *y = direct ? host_row(item->y, 0) + from : held;
        int64_t y_stride = direct ? item->y.stride : to - from;
        rows_ahead ahead = {d, to};
        if (to == piece.end) {
            next = piece_at(run, run->alone ? -1 : pool_take(c->pool, thread));
            ahead = (rows_ahead){next.item ? &next.item->weight->d : NULL, next.from};
        }
        if (run->form == X_GEMM) {
            k->gemm(d, &c->q8, from, to, ahead, y, y_stride, scratch);
        } else if (run->form == X_GEMV) {
            k->gemv(d, &c->q8, from, to, y, y_stride);
        } else {
            cpu_exact_rows(c, d, host_row(run->x, 0), run->x.stride, run->x.n_row, from, to, y,
                           y_stride, (float *)(void *)scratch);
        }
        if (!direct) {
            put_results(run, item, from, to - from, held);
        }
    }
    return next;
}

/* The work of one thread: pieces from this one on, until none is left. */
static void run_pieces(void *arg, int first, int thread) {
    const linear_run *run = arg;
    linear_piece piece = piece_at(run, first);
    if (run->form == X_GEMM && run->x.n_row <= GEMM_SPLIT) {
        int64_t to = piece.from + run->c->kernels->affine->gemm_rows;
        fetch_rows(&piece.item->weight->d, piece.from, to < piece.end ? to : piece.end);
    }
    while (piece.item) {
        piece = run_piece(run, piece, thread);
    }
}

/* ---- A run ------------------------------------------------------------------------------------
 */

void cpu_quantize(const cpu_ops *c, const q8_rows *out, int64_t row, const float *x,
                  const weight_desc *d, q8_order order) {
    float limit = rounding_limit(x, d->n_in, rounding_care_of(d));
    c->kernels->affine->quantize(out, row, x, d->n_in, d->bits, d->group, limit, order);
}

typedef struct quantize_job {
    cpu_ops *c;
    ops_mat x;
    const weight_desc *d;
    int rows; /* of a task */
    q8_order order;
} quantize_job;

static void quantize_task(void *arg, int task, int thread) {
    const quantize_job *job = arg;
    int64_t from = (int64_t)task * job->rows, to = from + job->rows;
    (void)thread;
    for (int64_t t = from; t < to && t < job->x.n_row; t++) {
        cpu_quantize(job->c, &job->c->q8, t, host_row(job->x, t), job->d, job->order);
    }
}

static void quantize_input(cpu_ops *c, ops_mat x, const weight_desc *d, q8_order order) {
    c->q8.n_row = x.n_row;
    c->q8.code_stride = (int64_t)round_up((size_t)x.width, Q8_PAD);
    c->q8.group_stride = (int64_t)round_up((size_t)(x.width / d->group), 16);
    quantize_job job = {.c = c, .x = x, .d = d, .order = order};
    bool split = x.n_row * x.width > QUANTIZE_SPLIT;
    int n = (int)c->q8.n_row;
    job.rows = split ? (order == Q8_FOR_GEMM ? c->kernels->affine->gemm_tile : 1) : n;
    pool_run(c->pool, quantize_task, &job, (n + job.rows - 1) / job.rows);
}

int64_t cpu_piece_rows(const cpu_ops *c, const ops_weight *w, size_t total_bytes) {
    size_t piece = total_bytes / ((size_t)pool_threads(c->pool) * PIECES_A_THREAD);
    piece = piece > PIECE_BYTES ? PIECE_BYTES : piece;
    int64_t rows = (int64_t)(piece / host_row_bytes(w));
    return rows < 8 ? 8 : rows / 4 * 4 + 4;
}

/* Cuts the items into pieces and lets the threads do them. */
static void run_items(linear_run *run) {
    cpu_ops *c = run->c;
    size_t total = 0;
    int64_t n_out = 0;
    for (int i = 0; i < run->n_items; i++) {
        n_out += run->items[i]->weight->d.n_out;
        total += (size_t)run->items[i]->weight->d.n_out * host_row_bytes(run->items[i]->weight);
    }
    run->alone = total * (size_t)run->x.n_row <= CPU_DIRECT_BYTES;
    for (int i = 0; i < run->n_items; i++) {
        const ops_weight *w = run->items[i]->weight;
        int64_t rows = run->alone ? w->d.n_out : cpu_piece_rows(c, w, total);
        if (run->form == X_GEMM) {
            int64_t panel = c->kernels->affine->gemm_rows;
            rows = (rows + panel - 1) / panel * panel;
            if (run->x.n_row > GEMM_SPLIT) {
                int64_t some = n_out / (GEMM_PIECES * pool_threads(c->pool)) / panel * panel;
                int64_t most = gemm_step(run, &w->d);
                rows = some < panel ? panel : some > most ? most : some;
            }
        }
        run->piece[i] = rows;
        run->first[i + 1] = run->first[i] + (int)((w->d.n_out + rows - 1) / rows);
    }
    int n_pieces = run->first[run->n_items];
    if (!run->alone) {
        pool_run(c->pool, run_pieces, run, n_pieces);
        return;
    }
    for (int i = 0; i < n_pieces; i++) {
        run_pieces(run, i, 0);
    }
}

int cpu_form_key(const cpu_ops *c, const weight_desc *d) {
    if (!d->bits || c->exact) {
        return 0;
    }
    int order = c->kernels->affine->orders[d->bits];
    return (d->group * 16 + order) * 3 + (int)rounding_care_of(d) + 1;
}

void cpu_linear(ops *o, ops_mat x, const linear_item *items, int n_items) {
    cpu_ops *c = cpu_of(o);
    if (x.n_row > c->n_tok) {
        host_fail(o, JANG_ERR_ARGUMENT, "linear: %lld rows, but reserve said %lld",
                  (long long)x.n_row, (long long)c->n_tok);
        return;
    }
    for (; n_items > CPU_MAX_ITEMS; items += CPU_MAX_ITEMS, n_items -= CPU_MAX_ITEMS) {
        cpu_linear(o, x, items, CPU_MAX_ITEMS);
    }
    bool done[CPU_MAX_ITEMS] = {false};
    for (int i = 0; i < n_items && x.n_row > 0; i++) {
        if (done[i]) {
            continue;
        }
        const weight_desc *d = &items[i].weight->d;
        linear_run run = {.c = c, .x = x};
        int key = cpu_form_key(c, d);
        for (int j = i; j < n_items; j++) {
            if (cpu_form_key(c, &items[j].weight->d) == key) {
                run.items[run.n_items++] = &items[j];
                done[j] = true;
            }
        }
        if (key) {
            run.form = x.n_row <= c->kernels->affine->gemv_max ? X_GEMV : X_GEMM;
            quantize_input(c, x, d, run.form == X_GEMV ? Q8_FOR_GEMV : Q8_FOR_GEMM);
        }
        run_items(&run);
    }
}
