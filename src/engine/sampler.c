/* sampler.c - from logits to a token. */
#include "engine/sampler.h"

#include <math.h>
#include <stdlib.h>

typedef struct candidate {
    float logit;
    int32_t id;
} candidate;

struct sampler {
    ctx_t *ctx;
    jang_sampling options;
    int32_t n_vocab;
    candidate *list; /* [n_vocab] */
    double *weights; /* [n_vocab] */
};

static jang_status check_options(ctx_t *ctx, const jang_sampling *o) {
    if (!(o->temperature >= 0 && o->temperature <= 100)) {
        return ctx_fail(ctx, JANG_ERR_ARGUMENT, "temperature %g; 0 to 100 is allowed",
                        (double)o->temperature);
    }
    if (!(o->top_p > 0 && o->top_p <= 1)) {
        return ctx_fail(ctx, JANG_ERR_ARGUMENT, "top_p %g; above 0 to 1 is allowed",
                        (double)o->top_p);
    }
    if (!(o->min_p >= 0 && o->min_p <= 1)) {
        return ctx_fail(ctx, JANG_ERR_ARGUMENT, "min_p %g; 0 to 1 is allowed", (double)o->min_p);
    }
    if (o->top_k < 0) {
        return ctx_fail(ctx, JANG_ERR_ARGUMENT, "top_k %d; 0 or more is allowed", (int)o->top_k);
    }
    return JANG_OK;
}

jang_status sampler_new(sampler **out, ctx_t *ctx, const jang_sampling *options, int32_t n_vocab) {
    jang_status status = check_options(ctx, options);
    if (status != JANG_OK) {
        return status;
    }
    sampler *s = ctx_zero(ctx, 1, sizeof *s);
    if (s) {
        *s = (sampler){.ctx = ctx, .options = *options, .n_vocab = n_vocab};
        s->list = ctx_array(ctx, (size_t)n_vocab, sizeof *s->list);
        s->weights = ctx_array(ctx, (size_t)n_vocab, sizeof *s->weights);
    }
    if (!s || !s->list || !s->weights) {
        sampler_free(s);
        return ctx_fail_memory(ctx, (size_t)n_vocab * (sizeof *s->list + sizeof *s->weights));
    }
    *out = s;
    return JANG_OK;
}

void sampler_free(sampler *s) {
    if (s) {
        ctx_free(s->ctx, s->list);
        ctx_free(s->ctx, s->weights);
        ctx_free(s->ctx, s);
    }
}

/* The likeliest token, the lowest id among equals. NaN never wins. */
static int32_t likeliest(const float *logits, int32_t n) {
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++) {
        if (logits[i] > logits[best] || isnan(logits[best])) {
            best = i;
        }
    }
    return best;
}

/* Falling logit, then rising id: a total order, so that results do not depend on the sort. */
static int compare_candidates(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (x->logit != y->logit) {
        return x->logit < y->logit ? 1 : -1;
    }
    return x->id < y->id ? -1 : 1;
}

/* Fills the list with the tokens whose logit is at least floor; returns their number. */
static int32_t collect(sampler *s, const float *logits, float least) {
    int32_t n = 0;
    for (int32_t i = 0; i < s->n_vocab; i++) {
        if (logits[i] >= least) {
            s->list[n++] = (candidate){logits[i], i};
        }
    }
    return n;
}

/* The k-th largest logit is found by halving an interval of values: a few passes over memory
 * instead of a sort of the whole vocabulary. Returns a bound that at least k logits reach. */
static float bound_of_top(const float *logits, int32_t n_vocab, int32_t k, float max) {
    float low = max - 64, high = max;
    for (int step = 0; step < 24; step++) {
        float middle = low + (high - low) / 2;
        int32_t n = 0;
        for (int32_t i = 0; i < n_vocab; i++) {
            n += logits[i] >= middle;
        }
        if (n >= k) {
            low = middle;
            if (n <= k + k / 4 + 8) {
                break;
            }
        } else {
            high = middle;
        }
    }
    return low == max - 64 ? -INFINITY : low;
}

/* A bound such that the logits that reach it hold top_p of the whole: sorting the few of them
 * instead of a vocabulary saves most of the time of picking a token. */
static float bound_of_mass(const float *logits, int32_t n_vocab, double top_p, double total,
                           float max) {
    for (float depth = 4; depth < 64; depth *= 2) {
        double sum = 0;
        for (int32_t i = 0; i < n_vocab; i++) {
            sum += logits[i] >= max - depth ? exp((double)logits[i] - (double)max) : 0;
        }
        if (sum >= top_p * total) {
            return max - depth;
        }
    }
    return -INFINITY;
}

/* Keeps the shortest sorted beginning whose probabilities reach top_p. */
static int32_t cut_top_p(const sampler *s, int32_t n, double total, float max) {
    double sum = 0;
    for (int32_t i = 0; i < n; i++) {
        sum += exp((double)s->list[i].logit - (double)max);
        if (sum >= (double)s->options.top_p * total) {
            return i + 1;
        }
    }
    return n;
}

/* Sum of exp(logit - max) over the candidates, or, where list is NULL, over all logits. */
static double total_weight(const candidate *list, const float *logits, int32_t n, float max) {
    double sum = 0;
    for (int32_t i = 0; i < n; i++) {
        float logit = list ? list[i].logit : logits[i];
        sum += isnan(logit) ? 0 : exp((double)logit - (double)max);
    }
    return sum;
}

/* Uniform in [0, 1) from seed and position (splitmix64's finisher over both). */
static double draw(uint64_t seed, uint64_t position) {
    uint64_t z = seed * 0x9e3779b97f4a7c15u + position * 0xd1342543de82ef95u + 0x2545f4914f6cdd1du;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static int32_t pick_weighted(sampler *s, int32_t n, float max, double u) {
    double total = 0;
    for (int32_t i = 0; i < n; i++) {
        double z = ((double)s->list[i].logit - (double)max) / (double)s->options.temperature;
        s->weights[i] = exp(z);
        total += s->weights[i];
    }
    double rest = u * total;
    for (int32_t i = 0; i + 1 < n; i++) {
        rest -= s->weights[i];
        if (rest < 0) {
            return s->list[i].id;
        }
    }
    return s->list[n - 1].id;
}

int32_t sampler_pick(sampler *s, const float *logits, uint64_t position) {
    const jang_sampling *o = &s->options;
    int32_t best = likeliest(logits, s->n_vocab);
    float max = logits[best];
    if (o->temperature == 0 || o->top_k == 1 || !isfinite(max)) {
        return best;
    }
    bool limited = o->top_k > 0 && o->top_k < s->n_vocab;
    float least = limited ? bound_of_top(logits, s->n_vocab, o->top_k, max) : -INFINITY;
    double total = 0;
    if (!limited && o->top_p < 1) {
        total = total_weight(NULL, logits, s->n_vocab, max);
        least = bound_of_mass(logits, s->n_vocab, (double)o->top_p, total, max);
    }
    int32_t n = collect(s, logits, least);
    if (limited || o->top_p < 1) {
        qsort(s->list, (size_t)n, sizeof *s->list, compare_candidates);
        n = limited && n > o->top_k ? o->top_k : n;
    }
    if (o->top_p < 1) {
        n = cut_top_p(s, n, limited ? total_weight(s->list, NULL, n, max) : total, max);
    }
    if (o->min_p > 0) {
        float bound = max + logf(o->min_p);
        int32_t kept = 0;
        for (int32_t i = 0; i < n; i++) {
            if (s->list[i].logit >= bound) {
                s->list[kept++] = s->list[i];
            }
        }
        n = kept;
    }
    return pick_weighted(s, n, max, draw(o->seed, position));
}
