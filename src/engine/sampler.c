/* sampler.c - from logits to a token. */
#include "engine/sampler.h"

#include "engine/nucleus.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct candidate {
    float logit;
    int32_t id;
    double key; /* what a step sorts by; lower comes first */
} candidate;

struct sampler {
    ctx_t *ctx;
    int32_t n_vocab;
    candidate *list; /* [n_vocab] */
    double *weights; /* [n_vocab] */
    uint64_t *seen;  /* bits of [n_vocab], all zero between calls */
    nucleus *nucleus;
};

/* ---- Options ---- */

bool sampling_is_valid(const jang_sampling *o, int32_t n_vocab, char *text, size_t n_text) {
    const struct {
        const char *name;
        double value, min, max;
    } ranges[] = {
        {"temperature", (double)o->temperature, 0, 100},
        {"top_p", (double)o->top_p, 0, 1},
        {"top_k", o->top_k, 0, INT32_MAX},
        {"min_p", (double)o->min_p, 0, 1},
        {"typical_p", (double)o->typical_p, 0, 1},
        {"repetition_penalty", (double)o->repetition_penalty, 0, 100},
        {"repetition_context", o->repetition_context, 0, INT32_MAX},
        {"frequency_penalty", (double)o->frequency_penalty, -2, 2},
        {"presence_penalty", (double)o->presence_penalty, -2, 2},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        if (!(ranges[i].value >= ranges[i].min && ranges[i].value <= ranges[i].max)) {
            snprintf(text, n_text, "%s %g; %g to %g is allowed", ranges[i].name, ranges[i].value,
                     ranges[i].min, ranges[i].max);
            return false;
        }
    }
    for (size_t i = 0; i < o->n_biases; i++) {
        const jang_bias *b = &o->biases[i];
        if (b->id < 0 || b->id >= n_vocab || !(b->bias >= -100 && b->bias <= 100)) {
            snprintf(text, n_text,
                     "bias %g of token %d; ids 0 to %d and biases of -100 to 100 are allowed",
                     (double)b->bias, (int)b->id, (int)n_vocab - 1);
            return false;
        }
    }
    return true;
}

jang_status sampler_new(sampler **out, ctx_t *ctx, int32_t n_vocab) {
    size_t n = (size_t)n_vocab;
    sampler *s = ctx_zero(ctx, 1, sizeof *s);
    if (s) {
        *s = (sampler){.ctx = ctx, .n_vocab = n_vocab};
        s->list = ctx_array(ctx, n, sizeof *s->list);
        s->weights = ctx_array(ctx, n, sizeof *s->weights);
        s->seen = ctx_zero(ctx, (n + 63) / 64, sizeof *s->seen);
    }
    if (!s || !s->list || !s->weights || !s->seen) {
        sampler_free(s);
        return ctx_fail_memory(ctx, n * (sizeof *s->list + sizeof *s->weights));
    }
    jang_status status = nucleus_new(&s->nucleus, ctx, n_vocab);
    if (status != JANG_OK) {
        sampler_free(s);
        return status;
    }
    *out = s;
    return JANG_OK;
}

void sampler_free(sampler *s) {
    if (s) {
        ctx_free(s->ctx, s->list);
        ctx_free(s->ctx, s->weights);
        ctx_free(s->ctx, s->seen);
        nucleus_free(s->nucleus);
        ctx_free(s->ctx, s);
    }
}

/* ---- Biases, penalties, masks ---- */

static void add_biases(const sampler *s, const sample_task *t) {
    for (size_t i = 0; i < t->options->n_biases; i++) {
        const jang_bias *b = &t->options->biases[i];
        if (b->id < s->n_vocab) {
            t->logits[b->id] = b->bias <= -100 ? -INFINITY : t->logits[b->id] + b->bias;
        }
    }
}

/* Marks an id; false if it was marked already, or cannot be drawn anyway. */
static bool see(sampler *s, int32_t id) {
    if (id >= s->n_vocab) {
        return false;
    }
    uint64_t bit = (uint64_t)1 << (id & 63), *word = &s->seen[id >> 6];
    bool first = !(*word & bit);
    *word |= bit;
    return first;
}

static void forget(sampler *s, const int32_t *ids, size_t n_ids) {
    for (size_t i = 0; i < n_ids; i++) {
        if (ids[i] < s->n_vocab) {
            s->seen[ids[i] >> 6] = 0;
        }
    }
}

/* CTRL, arXiv:1909.05858, section 4.1; a negative logit is multiplied. */
static void penalize_repetition(sampler *s, const sample_task *t) {
    float penalty = t->options->repetition_penalty;
    if (penalty == 0 || penalty == 1) {
        return;
    }
    size_t context = (size_t)t->options->repetition_context;
    size_t n = context && context < t->n_ids ? context : t->n_ids;
    const int32_t *ids = t->ids + (t->n_ids - n);
    for (size_t i = 0; i < n; i++) {
        if (see(s, ids[i])) {
            float *logit = &t->logits[ids[i]];
            *logit = *logit > 0 ? *logit / penalty : *logit * penalty;
        }
    }
    forget(s, ids, n);
}

static void penalize_frequency(sampler *s, const sample_task *t) {
    float frequency = t->options->frequency_penalty, presence = t->options->presence_penalty;
    if (frequency == 0 && presence == 0) {
        return;
    }
    const int32_t *ids = t->ids + t->n_prompt;
    size_t n = t->n_ids - t->n_prompt;
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < s->n_vocab) {
            t->logits[ids[i]] -= frequency + (see(s, ids[i]) ? presence : 0);
        }
    }
    forget(s, ids, n);
}

static void apply_mask(const sampler *s, const sample_task *t) {
    for (int32_t i = 0; t->mask && i < s->n_vocab; i++) {
        if (!(t->mask[i >> 6] >> (i & 63) & 1)) {
            t->logits[i] = -INFINITY;
        }
    }
    for (size_t i = 0; i < t->n_banned; i++) {
        if (t->banned[i] < s->n_vocab) {
            t->logits[t->banned[i]] = -INFINITY;
        }
    }
}

/* ---- Candidates ---- */

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

/* Rising key, then rising id: a total order, so that results do not depend on the sort. */
static int compare_candidates(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (x->key != y->key) {
        return x->key < y->key ? -1 : 1;
    }
    return x->id < y->id ? -1 : 1;
}

/* Fills the list with the tokens whose logit is at least this; returns their number. What was
 * masked is never among them. */
static int32_t collect(sampler *s, const float *logits, float least) {
    int32_t n = 0;
    for (int32_t i = 0; i < s->n_vocab; i++) {
        if (logits[i] >= least && logits[i] > -INFINITY) {
            s->list[n++] = (candidate){logits[i], i, -(double)logits[i]};
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

/* Sum of exp(logit - max) over the candidates. */
static double total_weight(const candidate *list, int32_t n, float max) {
    double sum = 0;
    for (int32_t i = 0; i < n; i++) {
        sum += exp((double)list[i].logit - (double)max);
    }
    return sum;
}

/* Keeps the shortest beginning of the list whose probabilities reach p; at least one. */
static int32_t cut_mass(const sampler *s, int32_t n, double p, double total, float max) {
    double sum = 0;
    for (int32_t i = 0; i < n; i++) {
        sum += exp((double)s->list[i].logit - (double)max);
        if (sum >= p * total) {
            return i + 1;
        }
    }
    return n;
}

/* ---- Limits ---- */

static bool is_limit(float p) {
    return p > 0 && p < 1;
}

/* Tokens whose surprise is nearest to the entropy (arXiv:2202.00666), sorted again by logit. */
static int32_t limit_typical(sampler *s, int32_t n, double typical_p, float max) {
    double total = total_weight(s->list, n, max), entropy = 0;
    for (int32_t i = 0; i < n; i++) {
        double log_p = (double)s->list[i].logit - (double)max - log(total);
        entropy -= exp(log_p) * log_p;
    }
    for (int32_t i = 0; i < n; i++) {
        double log_p = (double)s->list[i].logit - (double)max - log(total);
        s->list[i].key = fabs(-log_p - entropy);
    }
    qsort(s->list, (size_t)n, sizeof *s->list, compare_candidates);
    n = cut_mass(s, n, typical_p, total, max);
    for (int32_t i = 0; i < n; i++) {
        s->list[i].key = -(double)s->list[i].logit;
    }
    qsort(s->list, (size_t)n, sizeof *s->list, compare_candidates);
    return n;
}

static int32_t limit_min_p(sampler *s, int32_t n, float min_p) {
    float max = s->list[0].logit;
    for (int32_t i = 1; i < n; i++) {
        max = s->list[i].logit > max ? s->list[i].logit : max;
    }
    float bound = max + logf(min_p);
    int32_t kept = 0;
    for (int32_t i = 0; i < n; i++) {
        if (s->list[i].logit >= bound) {
            s->list[kept++] = s->list[i];
        }
    }
    return kept;
}

static bool has_top_k(const sampler *s, const jang_sampling *o) {
    return o->top_k > 0 && o->top_k < s->n_vocab;
}

/* Leaves in the list what top_k, typical_p, top_p and min_p let through, at least one. Only a list
 * that somebody sorts is sorted; unsorted, it is in the order of the ids. */
static int32_t limit(sampler *s, const jang_sampling *o, const float *logits, float max) {
    bool top_k = has_top_k(s, o);
    float least = top_k ? bound_of_top(logits, s->n_vocab, o->top_k, max) : -INFINITY;
    int32_t n = collect(s, logits, least);
    if (top_k || o->top_p < 1) {
        qsort(s->list, (size_t)n, sizeof *s->list, compare_candidates);
        n = top_k && n > o->top_k ? o->top_k : n;
    }
    if (is_limit(o->typical_p)) {
        n = limit_typical(s, n, (double)o->typical_p, max);
    }
    if (o->top_p < 1) {
        n = cut_mass(s, n, (double)o->top_p, total_weight(s->list, n, max), max);
    }
    return o->min_p > 0 ? limit_min_p(s, n, o->min_p) : n;
}

/* ---- Drawing ---- */

/* Uniform in [0, 1) from seed and position (splitmix64's finisher over both). */
static double draw(uint64_t seed, uint64_t position) {
    uint64_t z = seed * 0x9e3779b97f4a7c15u + position * 0xd1342543de82ef95u + 0x2545f4914f6cdd1du;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static int32_t pick_weighted(sampler *s, int32_t n, float max, float temperature, double u) {
    double total = 0;
    for (int32_t i = 0; i < n; i++) {
        double z = ((double)s->list[i].logit - (double)max) / (double)temperature;
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

int32_t sampler_pick(sampler *s, const sample_task *t) {
    const jang_sampling *o = t->options;
    add_biases(s, t);
    penalize_repetition(s, t);
    penalize_frequency(s, t);
    apply_mask(s, t);
    int32_t best = likeliest(t->logits, s->n_vocab);
    float max = t->logits[best];
    if (max == -INFINITY) {
        return -1;
    }
    if (o->temperature == 0 || o->top_k == 1 || !isfinite(max)) {
        return best;
    }
    double u = draw(t->seed, t->n_ids);
    if (!has_top_k(s, o) && !is_limit(o->typical_p) && o->min_p == 0) {
        return nucleus_pick(s->nucleus, t->logits, max, (double)o->top_p, (double)o->temperature,
                            u);
    }
    int32_t n = limit(s, o, t->logits, max);
    return pick_weighted(s, n, max, o->temperature, u);
}
