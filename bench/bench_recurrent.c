/* bench_recurrent.c - how long operators with a memory take for a token, in a prompt and alone.
 *
 *     bench_recurrent [backend]
 *
 * Times are medians of the calling thread's context with one thread; JANG_ISA chooses the kernels.
 * A multiply-add counts as two operations: 3 a number of state for SSD, 4 for the delta rule. */
#include "base/file.h"
#include "ops/ops.h"

#include <stdio.h>
#include <stdlib.h>

enum { PROMPT = 512, REPEAT = 15, MATS = 6 };

typedef struct bench {
    ctx_t *ctx;
    ops *o;
    ops_state *state;
    ops_batch *batch;
    ops_mat m[MATS]; /* [PROMPT, width] */
    const ops_weight *a, *d;
} bench;

static void check(const bench *b, jang_status status) {
    if (status != JANG_OK) {
        fprintf(stderr, "bench_recurrent: %s\n", jang_context_error(b->ctx));
        exit(1);
    }
}

static ops_mat new_mat(const bench *b, int64_t width, float value) {
    size_t n = (size_t)(PROMPT * width);
    float *x = malloc(n * sizeof *x);
    ops_mat m = {.stride = width, .n_row = PROMPT, .width = width};
    for (size_t i = 0; x && i < n; i++) {
        x[i] = value * (float)(1 + i % 7) / 8;
    }
    check(b, b->o->table->buf_new(&m.buf, b->o, n * sizeof *x));
    check(b, b->o->table->write(b->o, m.buf, 0, x, n * sizeof *x));
    free(x);
    return m;
}

static const ops_weight *new_weight(const bench *b, int64_t n, float value) {
    float *x = malloc((size_t)n * sizeof *x);
    ops_weight *w = NULL;
    for (int64_t i = 0; x && i < n; i++) {
        x[i] = value;
    }
    weight_desc desc = {.name = "w", .n_out = 1, .n_in = n, .type = DT_F32, .data = x};
    check(b, b->o->table->weight_new(&w, b->o, &desc));
    return w; /* x is the weight's, until the end */
}

static void set_batch(const bench *b, int32_t n_tok) {
    static int32_t ids[PROMPT], pages[2 * PROMPT];
    batch_seq seq = {.n_tok = n_tok, .n_past = PROMPT, .pages = pages};
    batch_desc desc = {.n_tok = n_tok, .ids = ids, .n_seq = 1, .seqs = &seq};
    check(b, b->o->table->batch_set(b->o, b->batch, &desc));
}

/* Sizes: Qwen3-Next, Nemotron-H 8B, Falcon-Mamba 7B. */
static const delta_desc delta = {32, 16, 128, 128};
static ssd_desc ssd = {.n_head = 128, .head_dim = 64, .n_group = 8, .n_state = 128};
static scan_desc scan = {.n_state = 16};
enum { CHANNELS = 8192 };

static void run_delta(const bench *b, const ops_mat *m, state_at at) {
    b->o->table->delta(b->o, &delta, at, b->batch, m[0], m[1], m[2], m[3], m[4], m[5]);
}

static void run_ssd(const bench *b, const ops_mat *m, state_at at) {
    b->o->table->ssd(b->o, &ssd, at, b->batch, m[2], m[3], m[4], m[0], m[1], m[5]);
}

static void run_scan(const bench *b, const ops_mat *m, state_at at) {
    b->o->table->scan(b->o, &scan, at, b->batch, m[2], m[3], m[0], m[1], m[5]);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median microseconds of a token in steps of n_tok. */
static double time_of(bench *b, void (*run)(const bench *, const ops_mat *, state_at), state_at at,
                      int32_t n_tok) {
    double times[REPEAT];
    ops_mat m[MATS];
    set_batch(b, n_tok);
    for (int i = 0; i < MATS; i++) {
        m[i] = b->m[i];
        m[i].n_row = n_tok;
    }
    for (int i = 0; i < REPEAT; i++) {
        double start = clock_seconds();
        for (int k = 0; k < PROMPT / n_tok; k++) {
            run(b, m, at);
        }
        times[i] = (clock_seconds() - start) / PROMPT * 1e6;
    }
    qsort(times, REPEAT, sizeof *times, by_value);
    return times[REPEAT / 2];
}

static void measure(bench *b, const char *name, int64_t n_state, double flops,
                    const int64_t *widths, void (*run)(const bench *, const ops_mat *, state_at)) {
    const ops_table *t = b->o->table;
    check(b, t->state_new(&b->state, b->o, &(state_desc){1, &n_state}));
    check(b, t->state_grow(b->o, b->state, 1));
    for (int i = 0; i < MATS; i++) {
        b->m[i] = new_mat(b, widths[i], i < 2 ? 0.08f : i == 2 ? 1.0f : 0.9f);
    }
    state_at at = {b->state, 0};
    double prompt = time_of(b, run, at, PROMPT), one = time_of(b, run, at, 1);
    printf("%-6s %6.1f MiB of state: prompt %7.1f us a token (%5.1f Gflop/s), alone %7.1f us "
           "(%5.1f GB/s)\n",
           name, (double)n_state * 4 / 1048576, prompt, flops / prompt / 1e3, one,
           (double)n_state * 8 / one / 1e3);
    for (int i = 0; i < MATS; i++) {
        t->buf_free(b->o, b->m[i].buf);
    }
    t->state_free(b->o, b->state);
}

int main(int argc, char **argv) {
    bench b = {0};
    jang_context_options options = jang_context_options_default();
    options.n_threads = 1;
    if (jang_context_new(&b.ctx, &options) != JANG_OK) {
        return 1;
    }
    check(&b, ops_open(&b.o, b.ctx, argc > 1 ? argv[1] : NULL, NULL));
    check(&b, b.o->table->batch_new(&b.batch, b.o));
    check(&b, b.o->table->reserve(b.o, &(ops_limits){.n_tok = PROMPT, .width = CHANNELS}));
    ssd.d = new_weight(&b, ssd.n_head, 1);
    scan.d = new_weight(&b, CHANNELS, 1);
    scan.a = new_weight(&b, CHANNELS * scan.n_state, -1);
    printf("%s\n", b.o->table->name);
    measure(&b, "delta", 32 * 128 * 128, 7.0 * 32 * 128 * 128,
            (int64_t[]){2048, 2048, 4096, 32, 32, 4096}, run_delta);
    measure(&b, "ssd", 128 * 64 * 128, 5.0 * 128 * 64 * 128,
            (int64_t[]){1024, 1024, 8192, 128, 128, 8192}, run_ssd);
    measure(&b, "scan", CHANNELS * 16, 5.0 * CHANNELS * 16,
            (int64_t[]){16, 16, CHANNELS, CHANNELS, 1, CHANNELS}, run_scan);
    return 0;
}
