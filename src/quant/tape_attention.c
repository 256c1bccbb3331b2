/* tape_attention.c - keys, values and attention, and their gradients.
 *
 * The softmax is computed anew on the way back, head by head:
 *     dv = P^T g,  dP = g v^T,  dS = P (dP - sum(P dP)),  dq = dS k,  dk = dS^T q. */
#include "quant/tape_impl.h"

#include "base/pool.h"

#include <math.h>
#include <string.h>

/* What a step's tokens put into a layer of the cache. */
typedef struct store_note {
    tape_note note;
    const ops_kv *kv;
    int layer;
    ops_mat k, v;
    float *keys, *values; /* [n_tok, k.width], [n_tok, v.width] */
    float *d_k, *d_v;     /* their gradients */
} store_note;

static void back_store(tape *t, tape_note *note) {
    const store_note *s = (const store_note *)note;
    tape_add(t, s->k, s->d_k);
    tape_add(t, s->v, s->d_v);
}

static void run_store(ops *o, ops_kv *kv, int layer, const ops_batch *batch, ops_mat k, ops_mat v) {
    tape *t = tape_of(o);
    store_note *s = tape_new_note(t, sizeof *s, back_store);
    if (s) {
        s->kv = kv;
        s->layer = layer;
        s->k = k;
        s->v = v;
        s->keys = tape_keep(t, k);
        s->values = tape_keep(t, v);
        s->d_k = tape_floats(t, k.n_row * k.width);
        s->d_v = tape_floats(t, v.n_row * v.width);
    }
    t->own->kv_store(o, kv, layer, batch, k, v);
}

typedef struct attention_note {
    tape_note note;
    attention_desc d;
    const store_note *store;
    ops_mat q, out;
    const float *queries; /* [n_tok, q.width] */
    const float *g;       /* [n_tok, out.width] */
    float *d_q;           /* [n_tok, q.width] */
    batch_seq *seqs;      /* [n_seq] */
    int32_t n_seq;
    float *scratch; /* [n_thread, n_scratch]: probabilities, their gradients, a row's slopes */
    int64_t n_square, n_scratch; /* n_square: the longest sequence's, squared */
} attention_note;

/* What q k of a token's head and all keys is: probabilities in p [n] and, where scores are capped,
 * the slope of each in slope [n]. */
static void softmax_row(const attention_note *a, int head, int32_t n, int32_t pos, float *p,
                        float *slope) {
    const attention_desc *d = &a->d;
    int32_t from, to;
    host_sight(d, n, pos, &from, &to);
    float scale = d->scale * host_temper(d, pos), cap = d->softcap;
    float top = d->sinks ? host_element(d->sinks->d.data, d->sinks->d.type, head) : -INFINITY;
    float sink = top, sum = 0;
    for (int32_t j = from; j < to; j++) {
        float s = p[j] * scale, tanh_s = cap > 0 ? tanhf(s / cap) : 0;
        p[j] = cap > 0 ? cap * tanh_s : s;
        slope[j] = cap > 0 ? 1 - tanh_s * tanh_s : 1;
        top = p[j] > top ? p[j] : top;
    }
    for (int32_t j = 0; j < n; j++) {
        p[j] = j >= from && j < to ? expf(p[j] - top) : 0;
        sum += p[j];
    }
    sum += d->sinks ? expf(sink - top) : 0;
    for (int32_t j = from; j < to; j++) {
        p[j] /= sum;
    }
}

/* dP [n] of a token becomes dS, by q k without the scale. */
static void back_softmax_row(const attention_note *a, int32_t n, int32_t pos, const float *p,
                             const float *slope, float *dp) {
    float scale = a->d.scale * host_temper(&a->d, pos), dot = 0;
    for (int32_t j = 0; j < n; j++) {
        dot += p[j] * dp[j];
    }
    for (int32_t j = 0; j < n; j++) {
        dp[j] = p[j] > 0 ? p[j] * (dp[j] - dot) * slope[j] * scale : 0;
    }
}

/* One head of a sequence's queries; its keys and values are written to by no other task. */
static void back_head(const attention_note *a, const batch_seq *seq, int head, float *p) {
    const attention_desc *d = &a->d;
    int64_t k_dim = d->kv.k_dim, v_dim = d->kv.v_dim, n = seq->n_tok, first = seq->first;
    int64_t kv_head = head / (d->n_head / d->kv.n_kv_head);
    int64_t lq = a->q.width, lk = a->store->k.width, lv = a->store->v.width, lo = a->out.width;
    const float *q = a->queries + first * lq + head * k_dim;
    const float *k = a->store->keys + first * lk + kv_head * k_dim;
    const float *v = a->store->values + first * lv + kv_head * v_dim;
    const float *g = a->g + first * lo + head * v_dim;
    float *dp = p + a->n_square, *slope = dp + a->n_square;
    gemm_call scores = {.m = n,
                        .n = n,
                        .k = k_dim,
                        .trans_b = true,
                        .a = q,
                        .lda = lq,
                        .b = k,
                        .ldb = lk,
                        .c = p,
                        .ldc = n,
                        .alpha = 1};
    gemm_call d_probs = {.m = n,
                         .n = n,
                         .k = v_dim,
                         .trans_b = true,
                         .a = g,
                         .lda = lo,
                         .b = v,
                         .ldb = lv,
                         .c = dp,
                         .ldc = n,
                         .alpha = 1};
    blas_gemm(&scores);
    blas_gemm(&d_probs);
    for (int64_t i = 0; i < n; i++) {
        softmax_row(a, head, (int32_t)n, (int32_t)i, p + i * n, slope);
        back_softmax_row(a, (int32_t)n, (int32_t)i, p + i * n, slope, dp + i * n);
    }
    gemm_call d_v = {.m = n,
                     .n = v_dim,
                     .k = n,
                     .trans_a = true,
                     .a = p,
                     .lda = n,
                     .b = g,
                     .ldb = lo,
                     .c = a->store->d_v + first * lv + kv_head * v_dim,
                     .ldc = lv,
                     .alpha = 1,
                     .beta = 1};
    gemm_call d_q = {.m = n,
                     .n = k_dim,
                     .k = n,
                     .a = dp,
                     .lda = n,
                     .b = k,
                     .ldb = lk,
                     .c = a->d_q + first * lq + head * k_dim,
                     .ldc = lq,
                     .alpha = 1,
                     .beta = 1};
    gemm_call d_k = {.m = n,
                     .n = k_dim,
                     .k = n,
                     .trans_a = true,
                     .a = dp,
                     .lda = n,
                     .b = q,
                     .ldb = lq,
                     .c = a->store->d_k + first * lk + kv_head * k_dim,
                     .ldc = lk,
                     .alpha = 1,
                     .beta = 1};
    blas_gemm(&d_v);
    blas_gemm(&d_q);
    blas_gemm(&d_k);
}

static void back_heads(void *arg, int task, int thread) {
    const attention_note *a = arg;
    int n_kv_head = a->d.kv.n_kv_head, repeat = a->d.n_head / n_kv_head;
    const batch_seq *seq = &a->seqs[task / n_kv_head];
    float *scratch = a->scratch + (int64_t)thread * a->n_scratch;
    for (int i = 0; i < repeat; i++) {
        back_head(a, seq, task % n_kv_head * repeat + i, scratch);
    }
}

static void back_attention(tape *t, tape_note *note) {
    attention_note *a = (attention_note *)note;
    a->g = tape_take(t, a->out);
    a->d_q = tape_floats(t, a->q.n_row * a->q.width);
    for (int32_t s = 0; s < a->n_seq; s++) {
        int64_t n = a->seqs[s].n_tok;
        if (n * n > a->n_square) {
            a->n_square = n * n;
            a->n_scratch = 2 * n * n + n;
        }
    }
    a->scratch = tape_floats(t, a->n_scratch * pool_threads(ctx_pool(t->ctx)));
    if (a->g && a->d_q && a->scratch) {
        pool_run(ctx_pool(t->ctx), back_heads, a, a->n_seq * a->d.kv.n_kv_head);
        tape_add(t, a->q, a->d_q);
    }
}

/* The last store to a layer of a cache, which attention reads. */
static const store_note *find_store(const tape *t, const ops_kv *kv, int layer) {
    for (tape_note *n = t->last; n; n = n->before) {
        const store_note *s = (const store_note *)n;
        if (n->back == back_store && s->kv == kv && s->layer == layer) {
            return s;
        }
    }
    return NULL;
}

static void run_attention(ops *o, const attention_desc *desc, const ops_kv *kv, int layer,
                          const ops_batch *batch, ops_mat q, ops_mat out) {
    tape *t = tape_of(o);
    const store_note *store = t->records ? find_store(t, kv, layer) : NULL;
    attention_note *a = store ? tape_new_note(t, sizeof *a, back_attention) : NULL;
    if (a) {
        a->d = *desc;
        a->store = store;
        a->q = q;
        a->out = out;
        a->queries = tape_keep(t, q);
        a->n_seq = batch->n_seq;
        a->seqs = tape_alloc(t, (size_t)batch->n_seq, sizeof *a->seqs);
        if (a->seqs) {
            memcpy(a->seqs, batch->seqs, (size_t)batch->n_seq * sizeof *a->seqs);
        }
    }
    t->own->attention(o, desc, kv, layer, batch, q, out);
}

void tape_set_attention(ops_table *table) {
    table->kv_store = run_store;
    table->attention = run_attention;
}
