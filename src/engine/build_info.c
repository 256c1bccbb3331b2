/* build_info.c - what this build is made of, and how fast this machine reads memory. */
#include "engine/engine.h"

#include "base/cpu.h"
#include "base/file.h"
#include "base/pool.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <utf8proc.h>

/* ---- Build ---- */

static void put_isas(buf *b, cpu_isa chosen) {
    buf_printf(b, "instruction set: %s (of", cpu_isa_name(chosen));
    for (int i = 0; i < CPU_N_ISA; i++) {
        if (cpu_has((cpu_isa)i)) {
            buf_printf(b, " %s", cpu_isa_name((cpu_isa)i));
        }
    }
    buf_puts(b, ")\n");
}

static void put_backends(buf *b) {
    buf_puts(b, "backends:");
    for (const char *const *name = ops_backends(); *name; name++) {
        buf_printf(b, " %s", *name);
    }
    buf_puts(b, "\n");
}

const char *jang_build_info(jang_context *ctx) {
    char **slot = ctx_build_info(ctx);
    cpu_isa isa;
    if (*slot || cpu_choose(&isa, ctx) != JANG_OK) {
        return *slot ? *slot : jang_context_error(ctx);
    }
    char pcre2[64] = "";
    pcre2_config(PCRE2_CONFIG_VERSION, pcre2);
    buf b;
    buf_init(&b, ctx, 4096);
    put_isas(&b, isa);
    put_backends(&b);
    buf_printf(&b, "threads: %d\n", pool_threads(ctx_pool(ctx)));
    buf_printf(&b, "libraries: jansson %s, PCRE2 %s, utf8proc %s", jansson_version_str(), pcre2,
               utf8proc_version());
#ifdef JANG_HAVE_OPENBLAS
    buf_puts(&b, ", OpenBLAS (gptq's matrix products)");
#endif
    if (buf_take(&b, slot, NULL) != JANG_OK) {
        buf_free(&b);
    }
    return *slot ? *slot : "";
}

/* ---- Memory bandwidth ---- */

#define BLOCK_BYTES ((size_t)256 << 20)
#define CHUNK_BYTES ((size_t)1 << 20)
#define HUGE_PAGE_BYTES ((size_t)2 << 20)
#define N_PASSES 9

typedef struct read_pass {
    const uint64_t *data;
    uint64_t *sums; /* one a chunk, so that the reading cannot be left out */
} read_pass;

static void read_chunk(void *arg, int task, int thread) {
    (void)thread;
    const read_pass *p = arg;
    size_t n = CHUNK_BYTES / sizeof *p->data;
    const uint64_t *data = p->data + (size_t)task * n;
    uint64_t sum[8] = {0};
    for (size_t i = 0; i < n; i += 8) {
        for (int j = 0; j < 8; j++) {
            sum[j] += data[i + (size_t)j];
        }
    }
    p->sums[task] = sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

jang_status jang_measure_bandwidth(double *bytes_per_second, jang_context *ctx) {
    int n_chunks = (int)(BLOCK_BYTES / CHUNK_BYTES);
    uint64_t *data = ctx_alloc_aligned(ctx, BLOCK_BYTES, HUGE_PAGE_BYTES);
    uint64_t *sums = ctx_array(ctx, (size_t)n_chunks, sizeof *sums);
    if (!data || !sums) {
        ctx_free_aligned(ctx, data);
        ctx_free(ctx, sums);
        return ctx_fail_memory(ctx, BLOCK_BYTES);
    }
#ifdef MADV_HUGEPAGE
    (void)madvise(data, BLOCK_BYTES, MADV_HUGEPAGE);
#endif
    for (size_t i = 0; i < BLOCK_BYTES / sizeof *data; i++) {
        data[i] = i;
    }
    read_pass p = {data, sums};
    double speeds[N_PASSES];
    for (int i = 0; i < N_PASSES; i++) {
        double start = clock_seconds();
        pool_run(ctx_pool(ctx), read_chunk, &p, n_chunks);
        speeds[i] = (double)BLOCK_BYTES / (clock_seconds() - start);
    }
    qsort(speeds, N_PASSES, sizeof speeds[0], by_value);
    ctx_free_aligned(ctx, data);
    ctx_free(ctx, sums);
    *bytes_per_second = speeds[N_PASSES / 2];
    return JANG_OK;
}
