/* ref_attention.c - keys and values, and attention over them.
 *
 * A page holds, layer by layer, K [token of the page][n_kv_head * k_dim] and V [token of the
 * page][n_kv_head * v_dim] in f16 or f32. Types of fewer bits are turned and rounded as they say,
 * and kept as f32; of those whose pages open, the same in the form that tokens of their own page
 * meet follows behind all that. */
#include "ops/ref/ref.h"

#include "base/half.h"

#include <math.h>
#include <string.h>

struct ops_kv {
    kv_type type;
    host_kv_layer *layers; /* [n_layer + 1] */
    size_t page_elements;
    int32_t n_pages;
    host_block **pages;
};

static size_t element_bytes(const ops_kv *kv) {
    return kv->type == KV_F16 ? sizeof(uint16_t) : sizeof(float);
}

/* own: in the form that tokens of its page meet. */
static uint8_t *row_at(const ops_kv *kv, const batch_seq *seq, int32_t pos, size_t at, size_t row,
                       bool own) {
    at += (size_t)(pos % OPS_PAGE_TOKENS) * row;
    at += own && kv_type_opens(kv->type) ? kv->page_elements / 2 : 0;
    return kv->pages[seq->pages[pos / OPS_PAGE_TOKENS]]->data + at * element_bytes(kv);
}

/* Where the keys of a token lie, head after head. */
static uint8_t *keys_of(const ops_kv *kv, int layer, const batch_seq *seq, int32_t pos, bool own) {
    const host_kv_layer *l = &kv->layers[layer];
    return row_at(kv, seq, pos, l->at, (size_t)l->d.n_kv_head * (size_t)l->d.k_dim, own);
}

static uint8_t *values_of(const ops_kv *kv, int layer, const batch_seq *seq, int32_t pos,
                          bool own) {
    const host_kv_layer *l = &kv->layers[layer];
    size_t keys = OPS_PAGE_TOKENS * (size_t)l->d.n_kv_head * (size_t)l->d.k_dim;
    return row_at(kv, seq, pos, l->at + keys, (size_t)l->d.n_kv_head * (size_t)l->d.v_dim, own);
}

static float kv_get(const ops_kv *kv, const uint8_t *row, int64_t i) {
    return host_element(row, kv->type == KV_F16 ? DT_F16 : DT_F32, i);
}

static void kv_put(const ops_kv *kv, uint8_t *row, int64_t i, float value) {
    if (kv->type == KV_F16) {
        ((uint16_t *)(void *)row)[i] = f32_to_f16(value);
    } else {
        ((float *)(void *)row)[i] = value;
    }
}

jang_status ref_kv_new(ops_kv **out, ops *o, const kv_desc *desc) {
    host_kv_layer *layers;
    jang_status status = host_kv_layout(&layers, o, desc);
    if (status) {
        return status;
    }
    ops_kv *kv = ctx_zero(o->ctx, 1, sizeof *kv);
    if (!kv) {
        ctx_free(o->ctx, layers);
        return ctx_fail_memory(o->ctx, sizeof *kv);
    }
    kv->type = desc->type;
    kv->layers = layers;
    kv->page_elements = layers[desc->n_layer].at * (kv_type_opens(desc->type) ? 2 : 1);
    *out = kv;
    return JANG_OK;
}

void ref_kv_free(ops *o, ops_kv *kv) {
    if (!kv) {
        return;
    }
    for (int32_t i = 0; i < kv->n_pages; i++) {
        host_block_free(o, kv->pages[i]);
    }
    ctx_free(o->ctx, kv->pages);
    ctx_free(o->ctx, kv->layers);
    ctx_free(o->ctx, kv);
}

jang_status ref_kv_grow(ops *o, ops_kv *kv, int32_t n_pages) {
    ref_ops *r = ref_of(o);
    if (n_pages <= kv->n_pages) {
        return JANG_OK;
    }
    int64_t n_scores = (int64_t)n_pages * OPS_PAGE_TOKENS;
    if (n_scores > r->n_scores) {
        float *scores = ctx_realloc(o->ctx, r->scores, (size_t)n_scores * sizeof *scores);
        if (!scores) {
            return ctx_fail_memory(o->ctx, (size_t)n_scores * sizeof *scores);
        }
        r->scores = scores;
        r->n_scores = n_scores;
    }
    host_block **pages = ctx_realloc(o->ctx, kv->pages, (size_t)n_pages * sizeof *pages);
    if (!pages) {
        return ctx_fail_memory(o->ctx, (size_t)n_pages * sizeof *pages);
    }
    kv->pages = pages;
    for (; kv->n_pages < n_pages; kv->n_pages++) {
        size_t n_bytes = kv->page_elements * element_bytes(kv);
        jang_status status = host_block_new(&pages[kv->n_pages], o, n_bytes);
        if (status) {
            return status;
        }
    }
    return JANG_OK;
}

/* Pages have both forms all the time. */
jang_status ref_kv_open(ops *o, ops_kv *kv, int32_t page) {
    (void)o;
    (void)kv;
    (void)page;
    return JANG_OK;
}

void ref_kv_seal(ops *o, ops_kv *kv, int32_t page) {
    (void)o;
    (void)kv;
    (void)page;
}

size_t ref_kv_open_bytes(const ops_kv *kv) {
    (void)kv;
    return 0;
}

void ref_kv_copy(ops *o, ops_kv *kv, int32_t from, int32_t to) {
    (void)o;
    memcpy(kv->pages[to]->data, kv->pages[from]->data, kv->pages[to]->n_bytes);
}

size_t ref_kv_page_bytes(const ops_kv *kv) {
    return kv->page_elements * element_bytes(kv);
}

void ref_kv_save(ops *o, const ops_kv *kv, int32_t page, void *data) {
    (void)o;
    memcpy(data, kv->pages[page]->data, ref_kv_page_bytes(kv));
}

void ref_kv_load(ops *o, ops_kv *kv, int32_t page, const void *data) {
    (void)o;
    memcpy(kv->pages[page]->data, data, ref_kv_page_bytes(kv));
}

/* x [n], turned, as integers of so many bits keep it. */
static void round_row(float *y, const float *x, int n, int bits) {
    int8_t codes[OPS_HEAD_MAX];
    float params[2] = {0, 0};
    host_kv_round(codes, params, x, n, bits);
    for (int i = 0; i < n; i++) {
        y[i] = params[0] * (float)codes[i] + params[1];
    }
}

/* n_head heads of n numbers of a token, in the form that tokens of its page meet. */
static void put_row(const ops_kv *kv, uint8_t *row, const float *x, int n_head, int n) {
    for (int64_t h = 0; h < n_head; h++) {
        float y[OPS_HEAD_MAX];
        memcpy(y, x + h * n, (size_t)n * sizeof *y);
        if (kv_type_params(kv->type)) {
            host_kv_rotate(y, n);
        }
        if (kv->type == KV_Q8) {
            round_row(y, y, n, 8);
        }
        for (int i = 0; i < n; i++) {
            kv_put(kv, row, h * n + i,
                   kv_type_opens(kv->type) ? f16_to_f32(f32_to_f16(y[i])) : y[i]);
        }
    }
}

/* One element of a head's keys over a page that begins with position `first`. */
static void get_element(const ops_kv *kv, float *row, int layer, const batch_seq *seq,
                        int32_t first, int64_t at) {
    for (int32_t t = 0; t < OPS_PAGE_TOKENS; t++) {
        row[t] = kv_get(kv, keys_of(kv, layer, seq, first + t, true), at);
    }
}

/* Makes integers of a head's part of a page that is full. */
static void round_page(const ops_kv *kv, int layer, const batch_seq *seq, int32_t first,
                       int64_t head) {
    kv_layer d = kv->layers[layer].d;
    float row[OPS_HEAD_MAX], far[OPS_PAGE_TOKENS] = {0};
    for (int i = 0; i < d.k_dim; i++) {
        get_element(kv, row, layer, seq, first, head * d.k_dim + i);
        host_kv_add_far(far, row);
    }
    int token = host_kv_farthest(far);
    for (int64_t i = head * d.k_dim; i < (head + 1) * d.k_dim; i++) {
        get_element(kv, row, layer, seq, first, i);
        float exact = row[token];
        row[token] = row[token ? 0 : 1];
        round_row(row, row, OPS_PAGE_TOKENS, kv_key_bits(kv->type));
        row[token] = exact;
        for (int32_t t = 0; t < OPS_PAGE_TOKENS; t++) {
            kv_put(kv, keys_of(kv, layer, seq, first + t, false), i, row[t]);
        }
    }
    for (int32_t t = 0; t < OPS_PAGE_TOKENS; t++) {
        const uint8_t *own = values_of(kv, layer, seq, first + t, true);
        for (int i = 0; i < d.v_dim; i++) {
            row[i] = kv_get(kv, own, head * d.v_dim + i);
        }
        if (t != token) {
            round_row(row, row, d.v_dim, kv_value_bits(kv->type));
        }
        for (int i = 0; i < d.v_dim; i++) {
            kv_put(kv, values_of(kv, layer, seq, first + t, false), head * d.v_dim + i, row[i]);
        }
    }
}

void ref_kv_store(ops *o, ops_kv *kv, int layer, const ops_batch *batch, ops_mat k, ops_mat v) {
    (void)o;
    kv_layer d = kv->layers[layer].d;
    for (int32_t t = 0; t < batch->n_tok; t++) {
        const batch_seq *seq = &batch->seqs[batch->seq_of[t]];
        int32_t pos = batch->pos[t], first = pos + 1 - OPS_PAGE_TOKENS;
        put_row(kv, keys_of(kv, layer, seq, pos, true), host_row(k, t), d.n_kv_head, d.k_dim);
        put_row(kv, values_of(kv, layer, seq, pos, true), host_row(v, t), d.n_kv_head, d.v_dim);
        bool is_full = first % OPS_PAGE_TOKENS == 0 && kv_type_opens(kv->type);
        for (int64_t h = 0; is_full && h < d.n_kv_head; h++) {
            round_page(kv, layer, seq, first, h);
        }
    }
}

/* One query's way through the cache. */
typedef struct query {
    const attention_desc *d;
    const ops_kv *kv;
    int layer, head; /* head of the queries */
    const batch_seq *seq;
    int32_t from, to; /* positions it sees: from .. to-1 */
    int32_t page;     /* of its own position */
    double scale;
    float *scores;
} query;

static double score(const query *s, const float *q, int32_t pos) {
    int n = s->d->kv.k_dim;
    int64_t at = (int64_t)(s->head / (s->d->n_head / s->d->kv.n_kv_head)) * n;
    const uint8_t *keys = keys_of(s->kv, s->layer, s->seq, pos, pos / OPS_PAGE_TOKENS == s->page);
    double dot = 0;
    for (int i = 0; i < n; i++) {
        dot += (double)q[i] * kv_get(s->kv, keys, at + i);
    }
    double cap = s->d->softcap;
    return cap > 0 ? cap * tanh(dot * s->scale / cap) : dot * s->scale;
}

/* Softmax of the scores, the head's sink among them, then the mean of the values by it. */
static void attend(const query *s, const float *q, float *out) {
    const ops_weight *sinks = s->d->sinks;
    float sink = sinks ? host_element(sinks->d.data, sinks->d.type, s->head) : -INFINITY;
    float max = sink;
    for (int32_t j = s->from; j < s->to; j++) {
        s->scores[j - s->from] = (float)score(s, q, j);
        max = fmaxf(max, s->scores[j - s->from]);
    }
    double sum = expf(sink - max);
    for (int32_t j = s->from; j < s->to; j++) {
        s->scores[j - s->from] = expf(s->scores[j - s->from] - max);
        sum += s->scores[j - s->from];
    }
    int n = s->d->kv.v_dim;
    int64_t at = (int64_t)(s->head / (s->d->n_head / s->d->kv.n_kv_head)) * n;
    for (int i = 0; i < n; i++) {
        double y = 0;
        for (int32_t j = s->from; j < s->to; j++) {
            const uint8_t *values =
                values_of(s->kv, s->layer, s->seq, j, j / OPS_PAGE_TOKENS == s->page);
            y += (double)s->scores[j - s->from] * kv_get(s->kv, values, at + i);
        }
        out[i] = (float)(y / sum);
    }
}

/* The same where keys and values are turned. */
static void attend_turned(const query *s, const float *q, float *out) {
    if (!kv_type_params(s->kv->type)) {
        attend(s, q, out);
        return;
    }
    float turned[OPS_HEAD_MAX];
    memcpy(turned, q, (size_t)s->d->kv.k_dim * sizeof *q);
    host_kv_rotate(turned, s->d->kv.k_dim);
    attend(s, turned, out);
    host_kv_rotate(out, s->d->kv.v_dim);
}

void ref_attention(ops *o, const attention_desc *d, const ops_kv *kv, int layer,
                   const ops_batch *batch, ops_mat q, ops_mat out) {
    for (int32_t t = 0; t < batch->n_tok; t++) {
        const batch_seq *seq = &batch->seqs[batch->seq_of[t]];
        int32_t pos = batch->pos[t];
        query s = {.d = d,
                   .kv = kv,
                   .layer = layer,
                   .seq = seq,
                   .page = pos / OPS_PAGE_TOKENS,
                   .scale = (double)d->scale * host_temper(d, pos),
                   .scores = ref_of(o)->scores};
        host_sight(d, seq->n_past + seq->n_tok, pos, &s.from, &s.to);
        for (s.head = 0; s.head < d->n_head; s.head++) {
            const float *q_row = host_row(q, t) + (int64_t)s.head * d->kv.k_dim;
            attend_turned(&s, q_row, host_row(out, t) + (int64_t)s.head * d->kv.v_dim);
        }
    }
}
