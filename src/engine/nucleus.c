/* nucleus.c - drawing from the head of a vocabulary.
 *
 * The range of logits is cut into buckets of an eighth of a nat below the largest, and the weights
 * of the tokens are added up by bucket. The sums say in which bucket the nucleus ends, and then in
 * which bucket the drawn token lies; only the tokens of these two are sorted. */
#include "engine/nucleus.h"

#include <math.h>
#include <stdlib.h>

#define N_BUCKETS 512
#define BUCKETS_A_NAT 8

typedef struct head_token {
    float logit;
    int32_t id;
} head_token;

struct nucleus {
    ctx_t *ctx;
    int32_t n_vocab;
    head_token *tokens; /* [n_vocab] of one bucket */
    double *weights;    /* [n_vocab] exp((logit - max) / temperature), which is drawn by */
    /* Sums by bucket of exp(logit - max), which the nucleus is measured by, and of weights. */
    double mass[N_BUCKETS], drawn[N_BUCKETS];
};

jang_status nucleus_new(nucleus **out, ctx_t *ctx, int32_t n_vocab) {
    nucleus *n = ctx_zero(ctx, 1, sizeof *n);
    size_t size = (size_t)n_vocab;
    if (n) {
        *n = (nucleus){.ctx = ctx, .n_vocab = n_vocab};
        n->tokens = ctx_array(ctx, size, sizeof *n->tokens);
        n->weights = ctx_array(ctx, size, sizeof *n->weights);
    }
    if (!n || !n->tokens || !n->weights) {
        nucleus_free(n);
        return ctx_fail_memory(ctx, size * (sizeof *n->tokens + sizeof *n->weights));
    }
    *out = n;
    return JANG_OK;
}

void nucleus_free(nucleus *n) {
    if (n) {
        ctx_free(n->ctx, n->tokens);
        ctx_free(n->ctx, n->weights);
        ctx_free(n->ctx, n);
    }
}

/* ---- Sums ---- */

/* -1: the token cannot be drawn. */
static inline int bucket_of(float logit, float max) {
    if (!(logit > -INFINITY)) {
        return -1;
    }
    float depth = (max - logit) * BUCKETS_A_NAT;
    return depth < N_BUCKETS - 1 ? (int)depth : N_BUCKETS - 1;
}

static void weigh_all(nucleus *n, const float *logits, float max, double temperature) {
    for (int b = 0; b < N_BUCKETS; b++) {
        n->mass[b] = n->drawn[b] = 0;
    }
    for (int32_t i = 0; i < n->n_vocab; i++) {
        int bucket = bucket_of(logits[i], max);
        n->weights[i] = 0;
        if (bucket >= 0) {
            double depth = (double)logits[i] - (double)max, mass = exp(depth);
            n->weights[i] = temperature == 1 ? mass : exp(depth / temperature);
            n->mass[bucket] += mass;
            n->drawn[bucket] += n->weights[i];
        }
    }
}

static double sum_buckets(const double *sums, int n) {
    double sum = 0;
    for (int b = 0; b < n; b++) {
        sum += sums[b];
    }
    return sum;
}

/* ---- Buckets ---- */

static int by_logit(const void *a, const void *b) {
    const head_token *x = a, *y = b;
    if (x->logit != y->logit) {
        return x->logit > y->logit ? -1 : 1;
    }
    return x->id < y->id ? -1 : 1;
}

/* The tokens of a bucket, sorted; returns their number. */
static int32_t take_bucket(nucleus *n, const float *logits, float max, int bucket) {
    int32_t count = 0;
    for (int32_t i = 0; i < n->n_vocab; i++) {
        if (bucket_of(logits[i], max) == bucket) {
            n->tokens[count++] = (head_token){logits[i], i};
        }
    }
    qsort(n->tokens, (size_t)count, sizeof *n->tokens, by_logit);
    return count;
}

/* The token at which `rest` of the weights of n->tokens [count] is used up. */
static int32_t walk(const nucleus *n, int32_t count, double rest) {
    for (int32_t i = 0; i + 1 < count; i++) {
        rest -= n->weights[n->tokens[i].id];
        if (rest < 0) {
            return n->tokens[i].id;
        }
    }
    return n->tokens[count - 1].id;
}

/* The bucket in which *rest of the sums [n_buckets] is used up, the last that holds anything if
 * none; *rest then counts from its beginning. */
static int find_bucket(const double *sums, int n_buckets, double *rest) {
    int last = 0;
    double before = *rest;
    for (int b = 0; b < n_buckets; b++) {
        if (sums[b] > 0) {
            last = b;
            before = *rest;
            *rest -= sums[b];
            if (*rest < 0) {
                break;
            }
        }
    }
    *rest = before;
    return last;
}

/* ---- Drawing ---- */

static int32_t pick_from_all(const nucleus *n, double u) {
    double rest = u * sum_buckets(n->drawn, N_BUCKETS);
    int32_t last = 0;
    for (int32_t i = 0; i < n->n_vocab; i++) {
        if (n->weights[i] > 0) {
            last = i;
            rest -= n->weights[i];
            if (rest < 0) {
                break;
            }
        }
    }
    return last;
}

static int32_t pick_from_head(nucleus *n, const float *logits, float max, double top_p, double u) {
    double left = top_p * sum_buckets(n->mass, N_BUCKETS);
    int end = find_bucket(n->mass, N_BUCKETS, &left);
    int32_t count = take_bucket(n, logits, max, end), kept = 0;
    double drawn = sum_buckets(n->drawn, end), within = 0;
    while (kept < count) { /* the shortest beginning that reaches what is left of top_p */
        const head_token *t = &n->tokens[kept++];
        within += n->weights[t->id];
        left -= exp((double)t->logit - (double)max);
        if (left <= 0) {
            break;
        }
    }
    double rest = u * (drawn + within);
    if (rest >= drawn) {
        return walk(n, kept, rest - drawn);
    }
    int bucket = find_bucket(n->drawn, end, &rest);
    return walk(n, take_bucket(n, logits, max, bucket), rest);
}

int32_t nucleus_pick(nucleus *n, const float *logits, float max, double top_p, double temperature,
                     double u) {
    weigh_all(n, logits, max, temperature);
    return top_p < 1 ? pick_from_head(n, logits, max, top_p, u) : pick_from_all(n, u);
}
