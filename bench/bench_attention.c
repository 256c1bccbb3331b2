/* bench_attention.c - what a token costs attention, over the keys and values of all layers.
 *
 *     bench_attention [--layers N] [--context N] [--heads N] [--kv-heads N] [--dim N] [--type T]
 *         [--window N] [--threads N] [--rounds N]
 *
 * One query a layer runs through the cache of N layers after N tokens (--type f16, f32, q8, q4 or
 * q5), as a token of a model does, in turns with a plain reading of as many bytes, which lie one
 * after the other in large pages. Prints JSON: medians of the seconds of both, bytes a second, and
 * the share, which is the median of the pairs. Without --type all types take turns. */
#include "base/file.h"
#include "base/pool.h"
#include "ops/ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __linux__
#include <sys/mman.h>
#endif

enum { FILL = 512, MAX_ROUNDS = 200 };

typedef struct bench {
    ctx_t *ctx;
    ops *o;
    int n_layer, n_context, n_head, window, n_rounds;
    kv_layer layer;
    kv_type type;
    ops_kv *kv;
    ops_batch *batch;
    int32_t *pages, *ids;
    ops_mat q, k, v, out;
    uint64_t *block; /* that is read for comparison */
    size_t n_read;
    uint64_t sum[POOL_MAX_THREADS][8];
} bench;

static void check(const bench *b, jang_status status) {
    if (status != JANG_OK) {
        fprintf(stderr, "bench_attention: %s\n", jang_context_error(b->ctx));
        exit(1);
    }
}

static void *memory(const bench *b, size_t n_bytes) {
    void *p = aligned_alloc((size_t)2 << 20, (n_bytes | (((size_t)2 << 20) - 1)) + 1);
    if (!p) {
        fprintf(stderr, "bench_attention: %zu bytes are not there\n", n_bytes);
        exit(1);
    }
    (void)b;
    return p;
}

static ops_mat noise(const bench *b, int n_row, int width) {
    ops_mat m = {.stride = width, .n_row = n_row, .width = width};
    size_t n = (size_t)n_row * (size_t)width;
    float *data = memory(b, n * sizeof *data);
    uint64_t state = 3;
    for (size_t i = 0; i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        data[i] = (float)(int32_t)(state >> 32) / 0x1p31f;
    }
    check(b, b->o->table->buf_new(&m.buf, b->o, n * sizeof *data));
    check(b, b->o->table->write(b->o, m.buf, 0, data, n * sizeof *data));
    free(data);
    return m;
}

static void set_batch(const bench *b, int n_past, int n_tok) {
    const batch_seq seq = {.n_tok = n_tok, .n_past = n_past, .pages = b->pages};
    const batch_desc step = {.n_tok = n_tok, .ids = b->ids, .n_seq = 1, .seqs = &seq};
    check(b, b->o->table->batch_set(b->o, b->batch, &step));
}

/* A cache of the type with n_context tokens in all layers, and a batch of the next token. */
static void fill(bench *b) {
    const ops_table *t = b->o->table;
    int32_t n_pages = b->n_context / OPS_PAGE_TOKENS + 1;
    kv_layer *layers = memory(b, (size_t)b->n_layer * sizeof *layers);
    for (int i = 0; i < b->n_layer; i++) {
        layers[i] = b->layer;
    }
    const kv_desc desc = {.n_layer = b->n_layer, .layers = layers, .type = b->type};
    check(b, t->kv_new(&b->kv, b->o, &desc));
    check(b, t->kv_grow(b->o, b->kv, n_pages));
    free(layers);
    for (int at = 0; at < b->n_context; at += FILL) {
        int n = b->n_context - at < FILL ? b->n_context - at : FILL, end = at + n;
        for (int p = at / OPS_PAGE_TOKENS; p * OPS_PAGE_TOKENS < end; p++) {
            check(b, t->kv_open(b->o, b->kv, p));
        }
        set_batch(b, at, n);
        for (int layer = 0; layer < b->n_layer; layer++) {
            t->kv_store(b->o, b->kv, layer, b->batch, b->k, b->v);
        }
        check(b, t->finish(b->o));
        for (int p = at / OPS_PAGE_TOKENS; (p + 1) * OPS_PAGE_TOKENS <= end; p++) {
            t->kv_seal(b->o, b->kv, p);
        }
    }
    set_batch(b, b->n_context, 1);
}

static double attend_seconds(const bench *b) {
    const attention_desc d = {
        .n_head = b->n_head, .kv = b->layer, .scale = 0.1f, .window = b->window};
    double start = clock_seconds();
    for (int layer = 0; layer < b->n_layer; layer++) {
        b->o->table->attention(b->o, &d, b->kv, layer, b->batch, b->q, b->out);
    }
    check(b, b->o->table->finish(b->o));
    return clock_seconds() - start;
}

static void read_part(void *arg, int task, int thread) {
    bench *b = arg;
    size_t n = b->n_read / 8 / 64 / 8 * 8, from = (size_t)task * n;
    for (size_t i = from; i < from + n; i += 8) {
        for (size_t j = 0; j < 8; j++) {
            b->sum[thread][j] += b->block[i + j];
        }
    }
}

static double read_seconds(bench *b) {
    double start = clock_seconds();
    pool_run(ctx_pool(b->ctx), read_part, b, 64);
    return clock_seconds() - start;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int n) {
    qsort(values, (size_t)n, sizeof *values, by_value);
    return (values[(n - 1) / 2] + values[n / 2]) / 2;
}

static const char *const type_names[KV_N_TYPE] = {"f16", "f32", "q8", "q4", "q5"};

static void measure(bench *b, const char *before) {
    double took[MAX_ROUNDS], reading[MAX_ROUNDS], share[MAX_ROUNDS];
    fill(b);
    int seen = b->window > 0 && b->window < b->n_context ? b->window : b->n_context;
    size_t head = kv_head_bytes(b->type, b->layer.k_dim, b->layer.v_dim);
    double bytes = (double)head / OPS_PAGE_TOKENS * seen * b->layer.n_kv_head * b->n_layer;
    b->n_read = (size_t)bytes;
    b->block = memory(b, b->n_read);
#ifdef MADV_HUGEPAGE
    (void)madvise(b->block, b->n_read, MADV_HUGEPAGE);
#endif
    memset(b->block, 1, b->n_read);
    (void)attend_seconds(b);
    for (int i = 0; i < b->n_rounds; i++) {
        reading[i] = read_seconds(b);
        took[i] = attend_seconds(b);
        share[i] = reading[i] / took[i];
    }
    double s = median(took, b->n_rounds);
    printf("%s{\"type\": \"%s\", \"context\": %d, \"layers\": %d, \"window\": %d, \"bytes\": %.6g, "
           "\"seconds\": %.4g, \"reading\": %.4g, \"bytes_per_second\": %.4g, \"share\": %.3f}",
           before, type_names[b->type], b->n_context, b->n_layer, b->window, bytes, s,
           median(reading, b->n_rounds), bytes / s, median(share, b->n_rounds));
    fflush(stdout);
    free(b->block);
    b->o->table->kv_free(b->o, b->kv);
}

static int take_option(bench *b, jang_context_options *options, const char *name,
                       const char *value) {
    const struct {
        const char *name;
        int *where;
    } numbers[] = {
        {"--layers", &b->n_layer},           {"--context", &b->n_context}, {"--heads", &b->n_head},
        {"--kv-heads", &b->layer.n_kv_head}, {"--dim", &b->layer.k_dim},   {"--window", &b->window},
        {"--threads", &options->n_threads},  {"--rounds", &b->n_rounds}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (strcmp(name, numbers[i].name) == 0) {
            *numbers[i].where = (int)strtol(value, NULL, 10);
            return 1;
        }
    }
    for (int i = 0; strcmp(name, "--type") == 0 && i < KV_N_TYPE; i++) {
        if (strcmp(value, type_names[i]) == 0) {
            b->type = (kv_type)i;
            return 1;
        }
    }
    return 0;
}

int main(int argc, char **argv) {
    static bench b = {.n_layer = 16,
                      .n_context = 4096,
                      .n_head = 32,
                      .n_rounds = 9,
                      .layer = {8, 64, 64},
                      .type = KV_N_TYPE};
    jang_context_options options = jang_context_options_default();
    int ok = argc % 2 == 1;
    for (int i = 1; i + 1 < argc && ok; i += 2) {
        ok = take_option(&b, &options, argv[i], argv[i + 1]);
    }
    b.layer.v_dim = b.layer.k_dim;
    if (!ok || b.n_layer < 1 || b.n_context < 1 || b.layer.n_kv_head < 1 || b.layer.k_dim < 1 ||
        b.layer.k_dim > OPS_HEAD_MAX || b.n_head % b.layer.n_kv_head || b.n_rounds < 1 ||
        b.n_rounds > MAX_ROUNDS) {
        fprintf(stderr, "usage: see the head of bench_attention.c\n");
        return 2;
    }
    const ops_limits limits = {.n_tok = FILL, .width = b.n_head * b.layer.k_dim};
    if (jang_context_new(&b.ctx, &options)) {
        return 1;
    }
    check(&b, ops_open(&b.o, b.ctx, "cpu", NULL));
    check(&b, b.o->table->reserve(b.o, &limits));
    check(&b, b.o->table->batch_new(&b.batch, b.o));
    b.pages = memory(&b, ((size_t)b.n_context / OPS_PAGE_TOKENS + 1) * sizeof *b.pages);
    for (int32_t i = 0; i <= b.n_context / OPS_PAGE_TOKENS; i++) {
        b.pages[i] = i;
    }
    b.ids = memory(&b, FILL * sizeof *b.ids);
    memset(b.ids, 0, FILL * sizeof *b.ids);
    b.q = noise(&b, 1, b.n_head * b.layer.k_dim);
    b.out = noise(&b, 1, b.n_head * b.layer.v_dim);
    b.k = noise(&b, FILL, b.layer.n_kv_head * b.layer.k_dim);
    b.v = noise(&b, FILL, b.layer.n_kv_head * b.layer.v_dim);
    printf("{\"backend\": \"%s\", \"threads\": %d, \"results\": [", b.o->table->name,
           pool_threads(ctx_pool(b.ctx)));
    for (int type = 0; type < KV_N_TYPE; type++) {
        if (b.type == KV_N_TYPE || (int)b.type == type) {
            bench one = b;
            one.type = (kv_type)type;
            measure(&one, type == 0 || b.type != KV_N_TYPE ? "\n " : ",\n ");
        }
    }
    printf("\n]}\n");
    ops_close(b.o);
    jang_context_free(b.ctx);
    return 0;
}
