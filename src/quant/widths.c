/* widths.c - quantizing samples of a matrix in several widths to measure the errors. */
#include "quant/widths.h"

#include "base/half.h"
#include "base/pool.h"

#include <math.h>
#include <string.h>

#define CHUNK_WEIGHTS 16384
#define MAX_CHUNKS 16
#define MAX_FORMS 32

typedef struct width_chunk {
    int64_t first; /* row */
    double power, errors[MAX_FORMS];
    bool finite;
    jang_status status;
} width_chunk;

typedef struct width_job {
    ctx_t *ctx;
    const checkpoint *source;
    const plan_item *item;
    const width_form *forms;
    int n_forms;
    quant_fn fn;
    const float *importance;
    int64_t n_rows; /* of a chunk */
    width_chunk chunks[MAX_CHUNKS];
} width_job;

typedef struct width_scratch {
    float *w, *scales, *biases;
    uint8_t *codes;
} width_scratch;

static void free_scratch(width_scratch *s, ctx_t *ctx) {
    ctx_free(ctx, s->w);
    ctx_free(ctx, s->scales);
    ctx_free(ctx, s->biases);
    ctx_free(ctx, s->codes);
}

static bool make_scratch(width_scratch *s, ctx_t *ctx, size_t n) {
    *s = (width_scratch){.w = ctx_array(ctx, n, sizeof *s->w),
                         .scales = ctx_array(ctx, n / 32 + 1, sizeof *s->scales),
                         .biases = ctx_array(ctx, n / 32 + 1, sizeof *s->biases),
                         .codes = ctx_alloc(ctx, n)};
    return s->w && s->scales && s->biases && s->codes;
}

static float as_stored(float x, dtype type) {
    return type == DT_BF16 ? bf16_to_f32(f32_to_bf16(x)) : f16_to_f32(f32_to_f16(x));
}

/* The type scales and biases get: bf16 where f16 cannot hold one of them. */
static dtype stored_type(const quant_block *b) {
    bool fits = true;
    for (int64_t i = 0; i < b->n_rows * (b->n_cols / b->group); i++) {
        fits &= fabsf(b->scales[i]) < 65504 && fabsf(b->biases[i]) < 65504;
    }
    return fits ? b->type : DT_BF16;
}

/* Weighted squares of w, or of w minus what codes, scales and biases say. */
static double weigh(const quant_block *b, bool error) {
    double sum = 0;
    int64_t n_groups = b->n_cols / b->group;
    dtype type = stored_type(b);
    for (int64_t r = 0; r < b->n_rows; r++) {
        for (int64_t g = 0; g < n_groups; g++) {
            float scale = as_stored(b->scales[r * n_groups + g], type);
            float bias = as_stored(b->biases[r * n_groups + g], type);
            double part = 0;
            for (int64_t c = g * b->group; c < (g + 1) * b->group; c++) {
                float w = b->w[r * b->n_cols + c];
                float e = error ? w - ((float)b->codes[r * b->n_cols + c] * scale + bias) : w;
                part += (double)(e * (b->importance ? b->importance[c] : 1.0f)) * (double)e;
            }
            sum += part;
        }
    }
    return sum;
}

static void measure_chunk(const width_job *j, width_chunk *chunk, width_scratch *s) {
    const model_part *part = j->item->part;
    chunk->status = part_rows_f32(s->w, j->source, part, chunk->first, j->n_rows);
    quant_block block = {.w = s->w,
                         .n_rows = j->n_rows,
                         .n_cols = part->columns,
                         .codes = s->codes,
                         .scales = s->scales,
                         .biases = s->biases,
                         .type = j->item->type,
                         .importance = j->importance};
    for (int k = 0; k < j->n_forms && chunk->finite && chunk->status == JANG_OK; k++) {
        block.bits = j->forms[k].bits;
        block.group = j->forms[k].group;
        chunk->finite = j->fn(&block);
        if (chunk->finite) {
            chunk->errors[k] = weigh(&block, true);
            chunk->power = k == 0 ? weigh(&block, false) : chunk->power;
        }
    }
}

static void run_chunk(void *arg, int number, int thread) {
    (void)thread;
    width_job *j = arg;
    width_chunk *chunk = &j->chunks[number];
    width_scratch s;
    if (make_scratch(&s, j->ctx, (size_t)(j->n_rows * j->item->part->columns))) {
        measure_chunk(j, chunk, &s);
    } else {
        chunk->status = ctx_fail_memory(j->ctx, (size_t)(j->n_rows * j->item->part->columns) * 5);
    }
    free_scratch(&s, j->ctx);
    part_drop_rows(j->source, j->item->part, chunk->first, j->n_rows);
}

/* Chunks of equal size, evenly over the rows; as many as cover all, at most MAX_CHUNKS. */
static int place_chunks(width_job *j) {
    int64_t rows = j->item->part->rows, columns = j->item->part->columns;
    int64_t n = columns < CHUNK_WEIGHTS ? CHUNK_WEIGHTS / columns : 1;
    j->n_rows = n < rows ? n : rows;
    int64_t n_chunks = (rows + j->n_rows - 1) / j->n_rows;
    n_chunks = n_chunks < MAX_CHUNKS ? n_chunks : MAX_CHUNKS;
    for (int64_t i = 0; i < n_chunks; i++) {
        int64_t first = n_chunks == 1 ? 0 : (rows - j->n_rows) * i / (n_chunks - 1);
        j->chunks[i] = (width_chunk){.first = first, .finite = true, .status = JANG_OK};
    }
    return (int)n_chunks;
}

jang_status widths_measure(double *errors, ctx_t *ctx, const checkpoint *source,
                           const plan_item *item, const width_form *forms, int n, quant_fn fn,
                           const float *importance) {
    width_job j = {.ctx = ctx,
                   .source = source,
                   .item = item,
                   .forms = forms,
                   .n_forms = n < MAX_FORMS ? n : MAX_FORMS,
                   .fn = fn,
                   .importance = importance};
    int n_chunks = item->part->params ? place_chunks(&j) : 0;
    pool_run(ctx_pool(ctx), run_chunk, &j, n_chunks);
    double power = 0, sums[MAX_FORMS] = {0};
    for (int i = 0; i < n_chunks; i++) {
        const width_chunk *chunk = &j.chunks[i];
        if (chunk->status != JANG_OK) {
            return chunk->status;
        }
        if (!chunk->finite) {
            return ctx_fail(ctx, JANG_ERR_FORMAT, "%s: tensor %s: NaN or infinite weights",
                            checkpoint_path(source), item->part->name);
        }
        power += chunk->power;
        for (int k = 0; k < j.n_forms; k++) {
            sums[k] += chunk->errors[k];
        }
    }
    for (int k = 0; k < j.n_forms; k++) {
        errors[k] = power > 0 ? sums[k] / power : 0;
    }
    return JANG_OK;
}
