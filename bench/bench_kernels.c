/* bench_kernels.c - how fast the cpu backend's kernels are, and how fast they could be.
 *
 *     bench_kernels [--threads N] [--seconds S] [--kib N] [--match TEXT] [--fine] [--best] [--json]
 *                   [part ...]
 *
 * Parts: gemv gemm attention rows. Every figure stands beside a bound measured with the same
 * threads: the bandwidth of reading memory, or the rate of the integer dot-product instruction on
 * registers. Bound and kernel take turns, a few milliseconds each, and a share is the median over
 * these pairs: so a machine whose speed comes and goes (a virtual one, mostly) gives the same
 * shares. Times are medians; --best takes the shortest times of the kernel and of the bound. --kib
 * is the size of a gemv's matrix: up to 1024 it stays in the cache, and the figure is the cycles
 * for 128 codes. --match leaves out products without this text in their names, --fine rounds
 * their inputs as those of attention and the output are. JANG_ISA chooses the
 * kernels. */
#include "base/cpu.h"
#include "base/file.h"
#include "base/pool.h"
#include "ops/ops.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* What a kernel is compared with: run does work (bytes, operations) at the bound's rate. */
typedef struct bound {
    void (*run)(void *arg);
    void *arg;
    double work;
    const char *name;
} bound;

typedef struct bench {
    ctx_t *ctx;
    ops *o;
    bool json, first, best; /* best: the best of the runs instead of the median */
    bool fine;              /* inputs of products */
    const char *match;      /* what a product's name holds */
    size_t weight_bytes;    /* of a gemv's matrix */
    double seconds;         /* for each figure */
    bound reading, dots;    /* memory, in bytes; integer dot products, in operations */
    double read_rate;       /* of reading, measured at the start */
} bench;

static void die(const bench *b, const char *what) {
    fprintf(stderr, "bench_kernels: %s: %s\n", what, jang_context_error(b->ctx));
    exit(1);
}

/* ---- Timing -----------------------------------------------------------------------------------
 */

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef struct timing {
    double seconds;     /* of a run */
    double rate, share; /* work a second, and that over the bound's rate */
} timing;

/* Times runs of fn, each of so much work, in turns with the bound; the first does not count. */
static timing time_pairs(const bench *b, void (*fn)(void *), void *arg, double work,
                         const bound *than) {
    enum { MAX = 2000 };
    static double times[MAX], shares[MAX];
    double best_bound = INFINITY;
    int n = 0;
    fn(arg);
    for (double start = clock_seconds(); n < MAX && (n < 5 || clock_seconds() - start < b->seconds);
         n++) {
        double begin = clock_seconds();
        than->run(than->arg);
        double middle = clock_seconds(), bound_seconds = middle - begin;
        fn(arg);
        times[n] = clock_seconds() - middle;
        shares[n] = work / times[n] * (bound_seconds / than->work);
        best_bound = bound_seconds < best_bound ? bound_seconds : best_bound;
    }
    qsort(times, (size_t)n, sizeof *times, by_value);
    qsort(shares, (size_t)n, sizeof *shares, by_value);
    double seconds = times[b->best ? 0 : n / 2];
    return (timing){.seconds = seconds,
                    .rate = work / seconds,
                    .share = b->best ? work / seconds * (best_bound / than->work) : shares[n / 2]};
}

/* The bound's own rate: the median of some runs. */
static double bound_rate(const bench *b, const bound *of) {
    timing t = time_pairs(b, of->run, of->arg, of->work, of);
    return t.rate;
}

/* Median seconds of runs of fn alone, after one that does not count: for what a cache holds. */
static double time_alone(const bench *b, void (*fn)(void *), void *arg) {
    const bound itself = {fn, arg, 1, ""};
    return time_pairs(b, fn, arg, 1, &itself).seconds;
}

static bool is_wanted(const bench *b, const char *name) {
    return !b->match || strstr(name, b->match);
}

static void report(bench *b, const char *name, double value, const char *unit, double share,
                   const char *of) {
    if (b->json) {
        printf("%s\n  {\"name\": \"%s\", \"value\": %.6g, \"unit\": \"%s\", \"of\": \"%s\"",
               b->first ? "" : ",", name, value, unit, of);
        if (!isnan(share)) {
            printf(", \"share\": %.4f", share);
        }
        printf("}");
    } else {
        printf("%-34s %9.2f %-8s %5.1f%% of %s\n", name, value, unit, 100 * share, of);
    }
    b->first = false;
    fflush(stdout);
}

/* ---- Bounds -----------------------------------------------------------------------------------
 */

#define CACHED_BYTES ((size_t)1 << 20) /* a gemv's matrix that is measured in the cache */
#define BLOCK_BYTES ((size_t)256 << 20)
#define CHUNK_BYTES ((size_t)1 << 20)
#define READ_BYTES ((size_t)32 << 20) /* of one run, a different part of the block each time */

typedef struct read_job {
    pool *p;
    uint64_t *data;
    size_t at; /* bytes */
    uint64_t sums[POOL_MAX_THREADS][8];
} read_job;

static void read_chunk(void *arg, int task, int thread) {
    read_job *job = arg;
    const uint64_t *p = job->data + (job->at + (size_t)task * CHUNK_BYTES) / 8;
    uint64_t a = 0, c = 0, d = 0, e = 0;
    for (size_t i = 0; i < CHUNK_BYTES / 8; i += 8) {
        __builtin_prefetch(p + i + 384);
        a += p[i] + p[i + 1];
        c += p[i + 2] + p[i + 3];
        d += p[i + 4] + p[i + 5];
        e += p[i + 6] + p[i + 7];
    }
    job->sums[thread][0] += a + c + d + e;
}

static void read_some(void *arg) {
    read_job *job = arg;
    pool_run(job->p, read_chunk, job, (int)(READ_BYTES / CHUNK_BYTES));
    job->at = (job->at + READ_BYTES) % BLOCK_BYTES;
}

static void make_reading(bench *b) {
    static read_job job;
    job.p = ctx_pool(b->ctx);
    job.data = aligned_alloc(CHUNK_BYTES * 2, BLOCK_BYTES);
    if (!job.data) {
        die(b, "memory");
    }
    memset(job.data, 1, BLOCK_BYTES);
    b->reading = (bound){read_some, &job, (double)READ_BYTES, "read bandwidth"};
}

#define DOT_ROUNDS 100000

#if defined(__x86_64__)
__attribute__((target("avx512f,avx512vnni"))) static void dot_rounds(void *arg, int task,
                                                                     int thread) {
    __m512i acc[12], a = _mm512_set1_epi8(1), c = _mm512_set1_epi8((char)task);
    (void)thread;
    for (int i = 0; i < 12; i++) {
        acc[i] = _mm512_setzero_si512();
    }
    for (int i = 0; i < DOT_ROUNDS; i++) {
#pragma GCC unroll 12
        for (int j = 0; j < 12; j++) {
            acc[j] = _mm512_dpbusd_epi32(acc[j], a, c);
        }
        __asm__ volatile("" : "+v"(a));
    }
    for (int i = 1; i < 12; i++) {
        acc[0] = _mm512_add_epi32(acc[0], acc[i]);
    }
    ((volatile int *)arg)[16 * task] = _mm512_reduce_add_epi32(acc[0]);
}

static void dot_all(void *arg) {
    static int sink[16 * 4 * POOL_MAX_THREADS];
    pool_run(arg, dot_rounds, sink, 4 * pool_threads(arg));
}
#else
static void dot_all(void *arg) {
    (void)arg;
}
#endif

/* Without the instruction there is nothing to compare with: the work is NaN, and so are shares. */
static void make_dots(bench *b) {
    pool *p = ctx_pool(b->ctx);
    double work = 4.0 * pool_threads(p) * DOT_ROUNDS * 12 * 64 * 2;
    bool there = cpu_has(CPU_AVX512);
    b->dots = there ? (bound){dot_all, p, work, "vpdpbusd peak"}
                    : (bound){read_some, b->reading.arg, NAN, "vpdpbusd peak"};
}

/* ---- Products ---------------------------------------------------------------------------------
 */

static uint64_t noise(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 11;
}

/* A random affine weight; *memory is freed by the caller. */
static ops_weight *make_weight(bench *b, uint8_t **memory, int64_t n_out, int64_t n_in, int bits,
                               int group) {
    size_t codes = (size_t)(n_out * n_in * bits / 8), scales = (size_t)(n_out * n_in / group) * 2;
    uint8_t *p = malloc(codes + 2 * scales + 8);
    uint64_t state = 1;
    for (size_t i = 0; i < codes; i += 8) {
        uint64_t r = noise(&state) * 0x9e3779b97f4a7c15u;
        memcpy(p + i, &r, sizeof r);
    }
    for (size_t i = codes; i < codes + 2 * scales; i += 2) {
        uint16_t h = (uint16_t)(0x2000 + (noise(&state) & 0x8fff)); /* f16 of 2^-7 .. 2^-3 */
        memcpy(p + i, &h, sizeof h);
    }
    weight_desc d = {.name = "bench",
                     .n_out = n_out,
                     .n_in = n_in,
                     .bits = bits,
                     .group = group,
                     .fine = b->fine,
                     .scale_type = DT_F16,
                     .data = p,
                     .scales = p + codes,
                     .biases = p + codes + scales};
    ops_weight *w;
    if (b->o->table->weight_new(&w, b->o, &d)) {
        die(b, "weight");
    }
    *memory = p;
    return w;
}

static ops_mat make_mat(bench *b, int64_t n_row, int64_t width) {
    ops_mat m = {.stride = width, .n_row = n_row, .width = width};
    size_t n = (size_t)(n_row * width);
    float *data = malloc(n * sizeof *data);
    uint64_t state = 3;
    for (size_t i = 0; i < n; i++) {
        float sum = 0; /* nearly normal: outliers cost (ops/rounding.h) */
        for (int j = 0; j < 12; j++) {
            sum += (float)(noise(&state) % 1001) / 1000.0f - 0.5f;
        }
        data[i] = sum;
    }
    if (b->o->table->buf_new(&m.buf, b->o, n * sizeof *data) ||
        b->o->table->write(b->o, m.buf, 0, data, n * sizeof *data)) {
        die(b, "buffer");
    }
    free(data);
    return m;
}

/* Inputs take turns, so that the processor cannot learn by heart which of their high parts are
 * there; in a model each is met once. */
#define INPUTS 8

typedef struct linear_job {
    ops *o;
    ops_mat x; /* INPUTS times as many rows */
    int turn;
    linear_item item;
} linear_job;

static void run_linear(void *arg) {
    linear_job *job = arg;
    ops_mat x = job->x;
    x.n_row /= INPUTS;
    x.at += job->turn++ % INPUTS * x.n_row * x.stride;
    job->o->table->linear(job->o, x, &job->item, 1);
}

/* Bytes of an affine weight. */
static double affine_bytes(int64_t n_out, int64_t n_in, int bits, int group) {
    return (double)(n_out * n_in) * bits / 8 + 4.0 * (double)(n_out * n_in / group);
}

/* A product, compared with a bound that does so much work. */
static timing time_linear(bench *b, int64_t n_tok, int64_t n_out, int64_t n_in, int bits, int group,
                          double work, const bound *than) {
    uint8_t *memory;
    linear_job job = {.o = b->o, .x = make_mat(b, INPUTS * n_tok, n_in)};
    ops_weight *w = make_weight(b, &memory, n_out, n_in, bits, group);
    job.item = (linear_item){.weight = w, .y = make_mat(b, n_tok, n_out)};
    timing t = time_pairs(b, run_linear, &job, work, than);
    b->o->table->weight_free(b->o, w);
    b->o->table->buf_free(b->o, job.x.buf);
    b->o->table->buf_free(b->o, job.item.y.buf);
    free(memory);
    return t;
}

static const int widths[] = {2, 3, 4, 5, 6, 8};

/* A matrix that the second-level cache holds tells what the kernel takes when memory does not
 * count, in cycles for 128 codes; a large one, what it takes of the memory's bandwidth. */
static void report_gemv(bench *b, const char *name, int64_t n_tok, int64_t n_out, int64_t n_in,
                        int bits, int group) {
    if (b->weight_bytes <= CACHED_BYTES) {
        double work = 2.0 * (double)n_tok * (double)n_out * (double)n_in;
        timing t = time_linear(b, n_tok, n_out, n_in, bits, group, work, &b->dots);
        report(b, name, 2.0 / t.share, "cycles", t.share, b->dots.name); /* 64 codes a cycle */
        return;
    }
    double bytes = affine_bytes(n_out, n_in, bits, group);
    timing t = time_linear(b, n_tok, n_out, n_in, bits, group, bytes, &b->reading);
    report(b, name, t.rate / 1e9, "GB/s", t.share, b->reading.name);
}

static void bench_gemv(bench *b) {
    static const struct {
        int64_t n_in;
        int group, n_tok;
    } cases[] = {{2048, 64, 1}, {8192, 64, 1}, {576, 64, 1},  {2048, 32, 1}, {2048, 128, 1},
                 {2048, 64, 2}, {2048, 64, 3}, {2048, 64, 4}, {2048, 64, 8}};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        for (int i = 0; i < 6; i++) {
            int64_t n_in = cases[c].n_in;
            int64_t n_out = (int64_t)b->weight_bytes * 8 / (n_in * widths[i]);
            char name[64];
            snprintf(name, sizeof name, "gemv q%d g%d n_in %d x %d", widths[i], cases[c].group,
                     (int)n_in, cases[c].n_tok);
            if (!is_wanted(b, name)) {
                continue;
            }
            report_gemv(b, name, cases[c].n_tok, n_out, n_in, widths[i], cases[c].group);
        }
    }
}

static void bench_gemm(bench *b) {
    static const struct {
        int64_t n_in, n_out;
        int group, n_tok;
    } cases[] = {{2048, 2048, 64, 512},  {8192, 2048, 64, 512}, {2048, 2048, 32, 512},
                 {2048, 2048, 128, 512}, {576, 1536, 64, 512},  {2048, 2048, 64, 32},
                 {2048, 2048, 64, 8},    {8192, 2048, 64, 8},   {2048, 1024, 64, 96}};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        for (int i = 0; i < 6; i++) {
            char name[64];
            snprintf(name, sizeof name, "gemm q%d g%d %dx%d x %d", widths[i], cases[c].group,
                     (int)cases[c].n_out, (int)cases[c].n_in, cases[c].n_tok);
            if (!is_wanted(b, name)) {
                continue;
            }
            double work =
                2.0 * (double)cases[c].n_tok * (double)cases[c].n_out * (double)cases[c].n_in;
            timing t = time_linear(b, cases[c].n_tok, cases[c].n_out, cases[c].n_in, widths[i],
                                   cases[c].group, work, &b->dots);
            report(b, name, t.rate / 1e9, "Gop/s", t.share, b->dots.name);
        }
    }
}

/* ---- Attention --------------------------------------------------------------------------------
 */

typedef struct attn_bench {
    ops *o;
    ops_kv *kv;
    ops_batch *batch;
    attention_desc d;
    ops_mat q, k, v, out;
} attn_bench;

static void run_attention(void *arg) {
    attn_bench *a = arg;
    a->o->table->attention(a->o, &a->d, a->kv, 0, a->batch, a->q, a->out);
}

static void run_store(void *arg) {
    attn_bench *a = arg;
    a->o->table->kv_store(a->o, a->kv, 0, a->batch, a->k, a->v);
}

static void bench_one_attention(bench *b, int n_head, int n_kv_head, int head_dim, int32_t n_past,
                                int32_t n_tok) {
    kv_layer layer = {n_kv_head, head_dim, head_dim};
    attn_bench a = {.o = b->o, .d = {.n_head = n_head, .kv = layer, .scale = 0.1f}};
    kv_desc d = {.n_layer = 1, .layers = &layer, .type = KV_F16};
    int32_t n_pages = (n_past + n_tok) / OPS_PAGE_TOKENS + 1;
    int32_t *pages = malloc((size_t)n_pages * sizeof *pages), *ids = calloc((size_t)n_tok, 4);
    for (int32_t i = 0; i < n_pages; i++) {
        pages[i] = i;
    }
    batch_seq seq = {.n_tok = n_tok, .n_past = n_past, .pages = pages};
    batch_desc step = {.n_tok = n_tok, .ids = ids, .n_seq = 1, .seqs = &seq};
    const ops_table *t = b->o->table;
    if (t->kv_new(&a.kv, b->o, &d) || t->kv_grow(b->o, a.kv, n_pages) ||
        t->batch_new(&a.batch, b->o) || t->batch_set(b->o, a.batch, &step)) {
        die(b, "cache");
    }
    a.q = make_mat(b, n_tok, (int64_t)n_head * head_dim);
    a.out = make_mat(b, n_tok, (int64_t)n_head * head_dim);
    a.k = make_mat(b, n_tok, (int64_t)n_kv_head * head_dim);
    a.v = make_mat(b, n_tok, (int64_t)n_kv_head * head_dim);
    run_store(&a);
    double tokens = (double)n_past + 0.5 * (n_tok + 1), bytes = 4.0 * tokens * n_kv_head * head_dim;
    double flops = 4.0 * tokens * n_tok * n_head * head_dim;
    char name[64];
    snprintf(name, sizeof name, "attention %d/%d of %d, %d + %d", n_head, n_kv_head, head_dim,
             (int)n_past, (int)n_tok);
    if (n_tok == 1) {
        timing s = time_pairs(b, run_attention, &a, bytes, &b->reading);
        report(b, name, s.rate / 1e9, "GB/s", s.share, b->reading.name);
    } else {
        timing s = time_pairs(b, run_attention, &a, flops, &b->dots);
        report(b, name, s.rate / 1e9, "Gflop/s", 4 * s.share, "f32 fma peak (vpdpbusd / 4)");
        snprintf(name, sizeof name, "kv_store %d of %d, %d tokens", n_kv_head, head_dim,
                 (int)n_tok);
        bytes = 12.0 * n_tok * n_kv_head * head_dim;
        s = time_pairs(b, run_store, &a, bytes, &b->reading);
        report(b, name, s.rate / 1e9, "GB/s", s.share, b->reading.name);
    }
    t->kv_free(b->o, a.kv);
    t->batch_free(b->o, a.batch);
    t->buf_free(b->o, a.q.buf);
    t->buf_free(b->o, a.k.buf);
    t->buf_free(b->o, a.v.buf);
    t->buf_free(b->o, a.out.buf);
    free(pages);
    free(ids);
}

static void bench_attention(bench *b) {
    bench_one_attention(b, 32, 8, 64, 511, 1);
    bench_one_attention(b, 32, 8, 64, 16383, 1);
    bench_one_attention(b, 32, 8, 128, 16383, 1);
    bench_one_attention(b, 32, 8, 64, 65535, 1);
    bench_one_attention(b, 9, 3, 64, 8191, 1);
    bench_one_attention(b, 32, 8, 64, 0, 512);
    bench_one_attention(b, 32, 8, 128, 0, 512);
    bench_one_attention(b, 9, 3, 64, 0, 512);
}

/* ---- Rows -------------------------------------------------------------------------------------
 */

typedef struct rows_bench {
    ops *o;
    ops_weight *norm;
    ops_mat x, y, z;
} rows_bench;

static void run_norm(void *arg) {
    rows_bench *r = arg;
    norm_desc d = {.kind = NORM_RMS, .width = r->x.width, .weight = r->norm, .eps = 1e-5f};
    r->o->table->norm(r->o, &d, r->x, r->y);
}

static void run_silu(void *arg) {
    rows_bench *r = arg;
    r->o->table->gated(r->o, &(act_desc){.kind = ACT_SILU}, r->x, r->y, r->z);
}

static void bench_rows(bench *b) {
    float *ones = malloc(8192 * sizeof *ones);
    for (int i = 0; i < 8192; i++) {
        ones[i] = 1;
    }
    for (int n_tok = 1; n_tok <= 512; n_tok *= 512) {
        weight_desc d = {.name = "norm", .n_out = 1, .n_in = 8192, .type = DT_F32, .data = ones};
        rows_bench r = {.o = b->o,
                        .x = make_mat(b, n_tok, 8192),
                        .y = make_mat(b, n_tok, 8192),
                        .z = make_mat(b, n_tok, 8192)};
        if (b->o->table->weight_new(&r.norm, b->o, &d)) {
            die(b, "norm");
        }
        char name[64];
        double s = time_alone(b, run_norm, &r), bytes = 8.0 * n_tok * 8192;
        snprintf(name, sizeof name, "rms_norm 8192 x %d: %.2f us", n_tok, s * 1e6);
        report(b, name, bytes / s / 1e9, "GB/s", bytes / s / b->read_rate, "read bandwidth");
        s = time_alone(b, run_silu, &r);
        snprintf(name, sizeof name, "silu gate 8192 x %d: %.2f us", n_tok, s * 1e6);
        report(b, name, 1.5 * bytes / s / 1e9, "GB/s", 1.5 * bytes / s / b->read_rate,
               "read bandwidth");
        b->o->table->weight_free(b->o, r.norm);
        b->o->table->buf_free(b->o, r.x.buf);
        b->o->table->buf_free(b->o, r.y.buf);
        b->o->table->buf_free(b->o, r.z.buf);
    }
    free(ones);
}

/* ---- Main -------------------------------------------------------------------------------------
 */

static const struct {
    const char *name;
    void (*fn)(bench *b);
} parts[] = {{"gemv", bench_gemv},
             {"gemm", bench_gemm},
             {"attention", bench_attention},
             {"rows", bench_rows}};

int main(int argc, char **argv) {
    bench b = {.seconds = 0.3, .first = true, .weight_bytes = BLOCK_BYTES / 2};
    jang_context_options options = jang_context_options_default();
    bool chosen[4] = {false}, any = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            b.json = true;
        } else if (strcmp(argv[i], "--best") == 0) {
            b.best = true;
        } else if (strcmp(argv[i], "--fine") == 0) {
            b.fine = true;
        } else if (strcmp(argv[i], "--match") == 0 && i + 1 < argc) {
            b.match = argv[++i];
        } else if (strcmp(argv[i], "--kib") == 0 && i + 1 < argc) {
            b.weight_bytes = (size_t)strtoul(argv[++i], NULL, 10) << 10;
        } else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
            options.n_threads = (int)strtol(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc) {
            b.seconds = strtod(argv[++i], NULL);
        }
        for (int p = 0; p < 4; p++) {
            chosen[p] |= strcmp(argv[i], parts[p].name) == 0;
            any |= chosen[p];
        }
    }
    ops_limits limits = {.n_tok = 512, .width = 8192};
    if (jang_context_new(&b.ctx, &options) || ops_open(&b.o, b.ctx, "cpu", NULL) ||
        b.o->table->reserve(b.o, &limits)) {
        die(&b, "start");
    }
    make_reading(&b);
    make_dots(&b);
    b.read_rate = bound_rate(&b, &b.reading);
    double dot_rate = bound_rate(&b, &b.dots);
    if (b.json) {
        printf("{\"backend\": \"%s\", \"threads\": %d, \"read_bandwidth\": %.4g, "
               "\"int8_peak\": %.4g, \"results\": [",
               b.o->table->name, pool_threads(ctx_pool(b.ctx)), b.read_rate, dot_rate);
    } else {
        printf("%s, %d threads: reads %.1f GB/s, vpdpbusd %.0f Gop/s\n", b.o->table->name,
               pool_threads(ctx_pool(b.ctx)), b.read_rate / 1e9, dot_rate / 1e9);
    }
    for (int p = 0; p < 4; p++) {
        if (chosen[p] || !any) {
            parts[p].fn(&b);
        }
    }
    printf(b.json ? "\n]}\n" : "");
    ops_close(b.o);
    jang_context_free(b.ctx);
    return 0;
}
