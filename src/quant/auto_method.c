/* auto_method.c - what the methods cost, and the choice among them. */
#include "quant/auto_method.h"

#include "base/pool.h"
#include "quant/calib_text.h"
#include "quant/calibrate.h"
#include "quant/outputs.h"
#include "quant/tune.h"

#include <inttypes.h>
#include <stdio.h>

/* Measured on a core of Zen 4 (docs/quantization.md); others are taken to be as fast. */
#define FLOPS 150e9          /* of the layers' products and X'X, all else included */
#define SOLVER_SECONDS 7e-8  /* of gptq's solver, a weight, */
#define ROW_SECONDS 1.15e-10 /* ... and each weight of its row, whose errors it meets */
#define FACTOR_SECONDS 6e-11 /* of n inputs' moments, solved and factored: times n^3 */
#define FIT_SECONDS 4e-8     /* of mse, a weight */
#define THOROUGH_TIMES 8     /* what best takes of gptq's time */
#define TUNE_FLOPS 100e9     /* of the ways there and back of a tuning */
#define PASSES 2             /* over each layer, X'X counted as one */
#define EXPERT_BYTES (768u << 20)
#define FIXED_BYTES (200u << 20)
#define DEFAULT_SECONDS 3600

static const char *const order[] = {"best", "gptq", "awq", "mse"};
#define N_ORDER (sizeof order / sizeof *order)

typedef struct plan_sizes {
    double weights;   /* that are quantized */
    double solver;    /* seconds of gptq's, of them all */
    uint64_t widest;  /* longest row of a layer */
    uint64_t layer;   /* weights of the largest layer, experts not counted */
    uint64_t most;    /* of a layer's largest matrix or expert */
    uint64_t stacked; /* of a layer's experts, one of their matrices */
    uint64_t outside; /* of the largest matrix outside the layers */
    uint64_t embed;   /* width of the stream */
} plan_sizes;

/* Each matrix, or expert's, counts as if no other had its input. */
static double solver_seconds(const model_part *part) {
    double columns = (double)part->columns, n = part->n_dim > 2 ? (double)part->shape[0] : 1;
    return (double)part->params * (SOLVER_SECONDS + ROW_SECONDS * columns) +
           n * FACTOR_SECONDS * columns * columns * columns;
}

static uint64_t larger(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}

/* Adds a matrix of a layer; *sum is that of the layer so far. */
static void add_of_layer(plan_sizes *s, const model_part *part, uint64_t *sum) {
    uint64_t n = (uint64_t)part->params;
    if (part->n_dim > 2) {
        s->stacked = larger(s->stacked, n);
        n /= (uint64_t)part->shape[0];
    } else {
        *sum += n;
    }
    s->layer = larger(s->layer, *sum);
    s->most = larger(s->most, n);
    s->widest = larger(s->widest, (uint64_t)part->columns);
}

static plan_sizes sizes_of(const quant_plan *plan) {
    plan_sizes s = {0};
    uint64_t sum = 0;
    int layer = -1;
    for (size_t i = 0; i < plan->n_items; i++) {
        const plan_item *item = &plan->items[i];
        const model_part *part = item->part;
        int its = role_layer(part->name);
        sum = its == layer ? sum : 0;
        layer = its;
        if (!item->bits || item->kept) {
            continue;
        }
        s.weights += (double)part->params;
        s.solver += solver_seconds(part);
        if (its >= 0) {
            add_of_layer(&s, part, &sum);
        } else {
            s.outside = larger(s.outside, (uint64_t)part->params);
        }
        s.embed = part->role == ROLE_EMBEDDING ? (uint64_t)part->columns : s.embed;
    }
    s.embed = s.embed ? s.embed : s.widest;
    return s;
}

/* Bytes of a layer at work: moments, finished matrices in f32, one of the original's and its codes.
 * The output matrix, whose codes are whole too, comes after the layers. */
static uint64_t layer_bytes(const plan_sizes *s, uint64_t n_squares) {
    uint64_t squares = n_squares * s->widest * s->widest * 4;
    squares = s->stacked ? larger(squares, EXPERT_BYTES) : squares;
    uint64_t at_work = squares + 4 * s->layer + 5 * s->most + 2 * s->stacked;
    return larger(at_work, s->outside + s->outside / 4 + n_squares * s->embed * s->embed * 4);
}

/* Of tuning: a multiplication with each weight for the original's text, one for its answer, one for
 * the model's, two for the way back. A method that tunes by itself leaves it out where memory does
 * not suffice. */
static method_cost tune_cost(const auto_job *job, const quantizer *q, double weights) {
    int32_t asked = job->tune_steps, steps = asked;
    if (asked < 0) {
        steps = q->thorough ? tune_own_steps((size_t)job->n_tokens / CALIB_SEQ_TOKENS) : 0;
    }
    uint64_t bytes = steps > 0 ? tune_bytes(job->plan, CALIB_SEQ_TOKENS) : 0;
    if (asked < 0 && bytes > auto_memory(job->memory_limit)) {
        return (method_cost){0};
    }
    return (method_cost){10 * weights * steps * CALIB_SEQ_TOKENS / TUNE_FLOPS, bytes};
}

/* Of gradients of outputs: a multiplication with each weight on the way there, one on the way back,
 * and as many again for the moments. */
static method_cost gradient_cost(const auto_job *job, const quantizer *q, double weights,
                                 bool tuned) {
    int64_t asked = job->gradient_tokens,
            own = q->thorough && tuned ? OUTPUTS_OWN_TURNS * job->n_tokens : 0;
    int64_t n_tok = !q->feedback ? 0 : asked >= 0 ? asked : own;
    uint64_t bytes = n_tok > 0 ? outputs_bytes(job->plan, CALIB_SEQ_TOKENS) : 0;
    if (asked < 0 && bytes > auto_memory(job->memory_limit)) {
        return (method_cost){0};
    }
    return (method_cost){8 * weights * (double)n_tok / TUNE_FLOPS, bytes};
}

/* Of all that comes before tuning; thorough: choices are measured. */
static method_cost calibrated_cost(const auto_job *job, const quantizer *q, const plan_sizes *s,
                                   bool thorough) {
    double tokens = (double)job->n_tokens;
    bool scales = q->scales && q->thorough == thorough;
    double paired = q->feedback ? (double)calibrate_paired((size_t)job->n_tokens, thorough) : 0;
    double seconds = 2 * PASSES * s->weights * (tokens + paired) / FLOPS;
    seconds += q->feedback ? s->solver : FIT_SECONDS * s->weights;
    uint64_t layer = layer_bytes(s, thorough ? 9 : scales ? 6 : 3);
    uint64_t streams = ((uint64_t)(tokens + paired) + 4096) * s->embed * 4;
    uint64_t kept = (uint64_t)(tokens + paired) * s->widest * 2;
    kept = kept < CALIBRATE_KEPT_BYTES ? kept : CALIBRATE_KEPT_BYTES;
    return (method_cost){(thorough ? THOROUGH_TIMES : 1) * seconds, layer + streams + kept};
}

method_cost auto_cost(const auto_job *job, const quantizer *q) {
    plan_sizes s = sizes_of(job->plan);
    method_cost tuned = tune_cost(job, q, s.weights);
    method_cost gradients = gradient_cost(job, q, s.weights, tuned.seconds > 0);
    method_cost before = {FIT_SECONDS * s.weights, 0};
    if (q->full) {
        before = calibrated_cost(job, q, &s, q->thorough && tuned.seconds == 0);
    }
    before.bytes += gradients.bytes; /* moments stay until the matrices are quantized */
    double seconds = before.seconds + gradients.seconds + tuned.seconds;
    return (method_cost){.seconds = seconds / pool_threads(ctx_pool(job->ctx)),
                         .bytes = FIXED_BYTES + larger(before.bytes, tuned.bytes)};
}

/* Memory that could be used without pushing anything out; where the system does not say, none of
 * it counts as a limit. */
static uint64_t spare_memory(void) {
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

uint64_t auto_memory(uint64_t limit) {
    return limit ? limit : spare_memory();
}

jang_status auto_method(const quantizer **out, const auto_job *job) {
    double seconds = job->time_limit > 0 ? job->time_limit : DEFAULT_SECONDS;
    uint64_t bytes = auto_memory(job->memory_limit);
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
