/* auto_method.c - what the methods cost, and the choice among them. */
#include "quant/auto_method.h"

#include "base/pool.h"
#include "quant/calib_text.h"
#include "quant/calibrate.h"
#include "quant/tune.h"

#include <inttypes.h>
#include <stdio.h>

/* Measured on a core of Zen 4 (docs/quantization.md); others are taken to be as fast. */
#define FLOPS 150e9         /* of the layers' products and X'X, all else included */
#define SOLVER_SECONDS 1e-7 /* of gptq's solver, a weight */
#define FIT_SECONDS 4e-8    /* of mse, a weight */
#define THOROUGH_TIMES 8    /* what best takes of gptq's time */
#define TUNE_FLOPS 100e9    /* of the ways there and back of a tuning */
#define PASSES 2            /* over each layer, X'X counted as one */
#define EXPERT_BYTES (768u << 20)
#define FIXED_BYTES (200u << 20)
#define DEFAULT_SECONDS 3600

static const char *const order[] = {"best", "gptq", "awq", "mse"};
#define N_ORDER (sizeof order / sizeof *order)

typedef struct plan_sizes {
    double weights;       /* that are quantized */
    uint64_t widest;      /* longest row */
    uint64_t most, embed; /* weights of the largest matrix; width of the stream */
    bool experts;
} plan_sizes;

static plan_sizes sizes_of(const quant_plan *plan) {
    plan_sizes s = {0};
    for (size_t i = 0; i < plan->n_items; i++) {
        const plan_item *item = &plan->items[i];
        if (!item->bits || item->kept) {
            continue;
        }
        const model_part *part = item->part;
        uint64_t n = (uint64_t)part->params, columns = (uint64_t)part->columns;
        bool stacked = part->n_dim > 2;
        s.weights += (double)n;
        s.experts |= stacked;
        n = stacked ? n / (uint64_t)part->shape[0] : n;
        s.most = n > s.most ? n : s.most;
        s.widest = columns > s.widest ? columns : s.widest;
        s.embed = part->role == ROLE_EMBEDDING ? columns : s.embed;
    }
    s.embed = s.embed ? s.embed : s.widest;
    return s;
}

method_cost auto_cost(const auto_job *job, const quantizer *q) {
    plan_sizes s = sizes_of(job->plan);
    double threads = pool_threads(ctx_pool(job->ctx)), tokens = (double)job->n_tokens;
    if (!q->full) {
        return (method_cost){FIT_SECONDS * s.weights / threads, FIXED_BYTES};
    }
    double paired = q->feedback ? (double)calibrate_paired((size_t)job->n_tokens, q->thorough) : 0;
    double seconds = 2 * PASSES * s.weights * (tokens + paired) / FLOPS;
    seconds += (q->feedback ? SOLVER_SECONDS : FIT_SECONDS) * s.weights;
    seconds *= q->thorough ? THOROUGH_TIMES : 1;
    uint64_t squares = (q->thorough ? 9 : q->scales ? 6 : 3) * s.widest * s.widest * 4;
    squares = s.experts && squares < EXPERT_BYTES ? EXPERT_BYTES : squares;
    uint64_t streams = ((uint64_t)(tokens + paired) + 4096) * s.embed * 4;
    uint64_t kept = (uint64_t)(tokens + paired) * s.widest * 2;
    kept = kept < CALIBRATE_KEPT_BYTES ? kept : CALIBRATE_KEPT_BYTES;
    return (method_cost){seconds / threads, FIXED_BYTES + squares + streams + kept + 8 * s.most};
}

uint64_t auto_spare_memory(void) {
    uint64_t kib = UINT64_MAX / 1024;
    char line[256];
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && fgets(line, sizeof line, f)) {
        if (sscanf(line, "MemAvailable: %" SCNu64 " kB", &kib) == 1) {
            break;
        }
    }
    if (f) {
        fclose(f);
    }
    return kib > UINT64_MAX / 1024 ? UINT64_MAX : kib * 1024;
}

jang_status auto_method(const quantizer **out, const auto_job *job) {
    double seconds = job->time_limit > 0 ? job->time_limit : DEFAULT_SECONDS;
    uint64_t bytes = job->memory_limit ? job->memory_limit : auto_spare_memory();
    for (size_t i = 0; i < N_ORDER; i++) {
        const quantizer *q;
        jang_status status = quantizer_find(&q, job->ctx, order[i]);
        if (status != JANG_OK) {
            return status;
        }
        method_cost cost = auto_cost(job, q);
        bool fits = cost.seconds <= seconds && cost.bytes <= bytes;
        if (i + 1 < N_ORDER && (!fits || (q->full && !job->can_calibrate))) {
            continue;
        }
        ctx_log(job->ctx, "auto takes %s: about %.1f minutes and %.1f GB, of %.1f and %.1f%s",
                order[i], cost.seconds / 60, (double)cost.bytes / 1e9, seconds / 60,
                (double)bytes / 1e9, job->can_calibrate ? "" : "; there is no tokenizer");
        *out = q;
        return JANG_OK;
    }
    return JANG_OK;
}
