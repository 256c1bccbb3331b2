/* nucleus.c - drawing from the head of a vocabulary.
 *
 * The vocabulary is cut into chunks of tokens, which threads take, and the range of logits into
 * buckets of an eighth of a nat below the largest. Each chunk adds up the weights of its tokens by
 * bucket. The sums say in which bucket the nucleus ends, and then in which bucket the drawn token
 * lies; only the tokens of these two are sorted. Chunks do not depend on the number of threads, so
 * neither does the result. */
#include "engine/nucleus.h"

#include "base/pool.h"

#include <math.h>
#include <stdlib.h>

#define CHUNK_TOKENS 8192
#define N_BUCKETS 512
#define BUCKETS_A_NAT 8

typedef struct head_token {
    float logit;
    int32_t id;
} head_token;

/* Sums of exp(logit - max), which the nucleus is measured by, and of exp((logit - max) /
 * temperature), which is drawn by. */
typedef struct chunk_sums {
    double mass[N_BUCKETS], drawn[N_BUCKETS];
} chunk_sums;

struct nucleus {
    ctx_t *ctx;
    int32_t n_vocab;
    int n_chunks;
    chunk_sums *chunks; /* [n_chunks] */
    head_token *tokens; /* [n_vocab] of one bucket */

    const float *logits;
    float max;
    double temperature;
};

jang_status nucleus_new(nucleus **out, ctx_t *ctx, int32_t n_vocab) {
    nucleus *n = ctx_zero(ctx, 1, sizeof *n);
    int n_chunks = (n_vocab + CHUNK_TOKENS - 1) / CHUNK_TOKENS;
    if (n) {
        *n = (nucleus){.ctx = ctx, .n_vocab = n_vocab, .n_chunks = n_chunks};
        n->chunks = ctx_array(ctx, (size_t)n_chunks, sizeof *n->chunks);
        n->tokens = ctx_array(ctx, (size_t)n_vocab, sizeof *n->tokens);
    }
    if (!n || !n->chunks || !n->tokens) {
        nucleus_free(n);
        return ctx_fail_memory(ctx, (size_t)n_chunks * sizeof *n->chunks);
    }
    *out = n;
    return JANG_OK;
}

void nucleus_free(nucleus *n) {
    if (n) {
        ctx_free(n->ctx, n->chunks);
        ctx_free(n->ctx, n->tokens);
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

static double weight_of(const nucleus *n, float logit) {
    return exp(((double)logit - (double)n->max) / n->temperature);
}

static void sum_chunk(void *arg, int chunk, int thread) {
    const nucleus *n = arg;
    chunk_sums *sums = &n->chunks[chunk];
    int32_t from = chunk * CHUNK_TOKENS, left = n->n_vocab - from;
    int32_t to = from + (left < CHUNK_TOKENS ? left : CHUNK_TOKENS);
    (void)thread;
    *sums = (chunk_sums){0};
    for (int32_t i = from; i < to; i++) {
        int bucket = bucket_of(n->logits[i], n->max);
        if (bucket >= 0) {
            double mass = exp((double)n->logits[i] - (double)n->max);
            sums->mass[bucket] += mass;
            sums->drawn[bucket] += n->temperature == 1 ? mass : weight_of(n, n->logits[i]);
        }
    }
}

/* Sums all chunks; the whole is left in *total. */
static void sum_all(nucleus *n, chunk_sums *total) {
    if (n->n_chunks > 1) {
        pool_run(ctx_pool(n->ctx), sum_chunk, n, n->n_chunks);
    } else {
        sum_chunk(n, 0, 0);
    }
    *total = n->chunks[0];
    for (int c = 1; c < n->n_chunks; c++) {
        for (int b = 0; b < N_BUCKETS; b++) {
            total->mass[b] += n->chunks[c].mass[b];
            total->drawn[b] += n->chunks[c].drawn[b];
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
static int32_t take_bucket(nucleus *n, int bucket) {
    int32_t count = 0;
    for (int32_t i = 0; i < n->n_vocab; i++) {
        if (bucket_of(n->logits[i], n->max) == bucket) {
            n->tokens[count++] = (head_token){n->logits[i], i};
        }
    }
    qsort(n->tokens, (size_t)count, sizeof *n->tokens, by_logit);
    return count;
}

/* The token at which `rest` of the drawing weights of n->tokens [count] is used up. */
static int32_t walk(const nucleus *n, int32_t count, double rest) {
    for (int32_t i = 0; i + 1 < count; i++) {
        rest -= weight_of(n, n->tokens[i].logit);
        if (rest < 0) {
            return n->tokens[i].id;
        }
    }
    return n->tokens[count - 1].id;
}

/* The bucket in which `*rest` of the sums [n_buckets] is used up, the last that holds anything if
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
    double total = 0;
    for (int c = 0; c < n->n_chunks; c++) {
        total += sum_buckets(n->chunks[c].drawn, N_BUCKETS);
    }
    double rest = u * total;
    int chunk = 0;
    for (; chunk + 1 < n->n_chunks; chunk++) {
        double sum = sum_buckets(n->chunks[chunk].drawn, N_BUCKETS);
        if (rest < sum) {
            break;
        }
        rest -= sum;
    }
    int32_t last = -1;
    for (int32_t i = chunk * CHUNK_TOKENS; i < n->n_vocab && !(rest < 0 && last >= 0); i++) {
        if (bucket_of(n->logits[i], n->max) >= 0) {
            rest -= weight_of(n, n->logits[i]);
            last = i;
        }
    }
    for (int32_t i = 0; last < 0; i++) { /* nothing was left of the chunk: the largest is there */
        last = n->logits[i] == n->max ? i : -1;
    }
    return last;
}

static int32_t pick_from_head(nucleus *n, const chunk_sums *total, double top_p, double u) {
    double left = top_p * sum_buckets(total->mass, N_BUCKETS);
    int end = find_bucket(total->mass, N_BUCKETS, &left);
    int32_t count = take_bucket(n, end), kept = 0;
    double drawn = sum_buckets(total->drawn, end), within = 0;
    while (kept < count) { /* the shortest beginning that reaches what is left of top_p */
        float logit = n->tokens[kept++].logit;
        within += weight_of(n, logit);
        left -= exp((double)logit - (double)n->max);
        if (left <= 0) {
            break;
        }
    }
    double rest = u * (drawn + within);
    if (rest >= drawn) {
        return walk(n, kept, rest - drawn);
    }
    int bucket = find_bucket(total->drawn, end, &rest);
    return walk(n, take_bucket(n, bucket), rest);
}

int32_t nucleus_pick(nucleus *n, const float *logits, float max, double top_p, double temperature,
                     double u) {
    chunk_sums total;
    n->logits = logits;
    n->max = max;
    n->temperature = temperature;
    sum_all(n, &total);
    return top_p < 1 ? pick_from_head(n, &total, top_p, u) : pick_from_all(n, u);
}
