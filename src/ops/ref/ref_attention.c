/* ref_attention.c - keys and values, and attention over them.
 *
 * A page holds [layer][K, V][token of the page][n_kv_head * head_dim] in f16 or f32. */
#include "ops/ref/ref.h"

#include "base/half.h"

#include <math.h>

struct ops_kv {
    kv_desc d;
    int32_t n_pages;
    host_block **pages;
};

static size_t element_bytes(const ops_kv *kv) {
    return kv->d.type == KV_F16 ? sizeof(uint16_t) : sizeof(float);
}

/* Elements of K, or of V, of one layer in a page. */
static size_t plane(const ops_kv *kv) {
    return (size_t)OPS_PAGE_TOKENS * (size_t)kv->d.n_kv_head * (size_t)kv->d.head_dim;
}

/* Where the row of keys (which 0) or values (which 1) of a token lies. */
static uint8_t *kv_row(const ops_kv *kv, int layer, int which, const batch_seq *seq, int32_t pos) {
    size_t row = (size_t)kv->d.n_kv_head * (size_t)kv->d.head_dim;
    size_t at = (size_t)(2 * layer + which) * plane(kv) + (size_t)(pos % OPS_PAGE_TOKENS) * row;
    return kv->pages[seq->pages[pos / OPS_PAGE_TOKENS]]->data + at * element_bytes(kv);
}

static float kv_get(const ops_kv *kv, const uint8_t *row, int64_t i) {
    return host_element(row, kv->d.type == KV_F16 ? DT_F16 : DT_F32, i);
}

static void kv_put(const ops_kv *kv, uint8_t *row, int64_t i, float value) {
    if (kv->d.type == KV_F16) {
        ((uint16_t *)(void *)row)[i] = f32_to_f16(value);
    } else {
        ((float *)(void *)row)[i] = value;
    }
}

jang_status ref_kv_new(ops_kv **out, ops *o, const kv_desc *desc) {
    jang_status status = host_kv_check(o, desc);
    if (status) {
        return status;
    }
    ops_kv *kv = ctx_zero(o->ctx, 1, sizeof *kv);
    if (!kv) {
        return ctx_fail_memory(o->ctx, sizeof *kv);
    }
    kv->d = *desc;
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
        size_t n_bytes = 2 * (size_t)kv->d.n_layer * plane(kv) * element_bytes(kv);
        jang_status status = host_block_new(&pages[kv->n_pages], o, n_bytes);
        if (status) {
            return status;
        }
    }
    return JANG_OK;
}

void ref_kv_copy(ops *o, ops_kv *kv, int32_t from, int32_t to) {
    (void)o;
    memcpy(kv->pages[to]->data, kv->pages[from]->data, kv->pages[to]->n_bytes);
}

void ref_kv_store(ops *o, ops_kv *kv, int layer, const ops_batch *batch, ops_mat k, ops_mat v) {
    (void)o;
    int64_t row = (int64_t)kv->d.n_kv_head * kv->d.head_dim;
    for (int32_t t = 0; t < batch->n_tok; t++) {
        const batch_seq *seq = &batch->seqs[batch->seq_of[t]];
        uint8_t *keys = kv_row(kv, layer, 0, seq, batch->pos[t]);
        uint8_t *values = kv_row(kv, layer, 1, seq, batch->pos[t]);
        for (int64_t i = 0; i < row; i++) {
            kv_put(kv, keys, i, host_row(k, t)[i]);
            kv_put(kv, values, i, host_row(v, t)[i]);
        }
    }
}

/* One query against positions from .. pos: softmax of the scaled products, then the mean of the
 * values by it. */
static void attend(float *out, const float *q, const ops_kv *kv, int layer, int kv_head,
                   const batch_seq *seq, int32_t from, int32_t pos, float scale, float *scores) {
    int64_t at = (int64_t)kv_head * kv->d.head_dim;
    float max = -INFINITY;
    for (int32_t j = from; j <= pos; j++) {
        const uint8_t *keys = kv_row(kv, layer, 0, seq, j);
        double dot = 0;
        for (int i = 0; i < kv->d.head_dim; i++) {
            dot += (double)q[i] * kv_get(kv, keys, at + i);
        }
        scores[j - from] = (float)(dot * scale);
        max = fmaxf(max, scores[j - from]);
    }
    double sum = 0;
    for (int32_t j = from; j <= pos; j++) {
        scores[j - from] = expf(scores[j - from] - max);
        sum += scores[j - from];
    }
    for (int i = 0; i < kv->d.head_dim; i++) {
        double y = 0;
        for (int32_t j = from; j <= pos; j++) {
            y += (double)scores[j - from] * kv_get(kv, kv_row(kv, layer, 1, seq, j), at + i);
        }
        out[i] = (float)(y / sum);
    }
}

void ref_attention(ops *o, const attention_desc *desc, const ops_kv *kv, int layer,
                   const ops_batch *batch, ops_mat q, ops_mat out) {
    int share = desc->n_head / desc->n_kv_head;
    for (int32_t t = 0; t < batch->n_tok; t++) {
        const batch_seq *seq = &batch->seqs[batch->seq_of[t]];
        int32_t pos = batch->pos[t];
        int32_t from = desc->window > 0 && pos >= desc->window ? pos - desc->window + 1 : 0;
        for (int h = 0; h < desc->n_head; h++) {
            int64_t at = (int64_t)h * desc->head_dim;
            attend(host_row(out, t) + at, host_row(q, t) + at, kv, layer, h / share, seq, from, pos,
                   desc->scale, ref_of(o)->scores);
        }
    }
}
