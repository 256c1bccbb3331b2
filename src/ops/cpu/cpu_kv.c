/* cpu_kv.c - the cache of keys and values: pages, and what steps store in them. */
#include "ops/cpu/cpu_kv.h"

#include "base/half.h"

#include <string.h>

#define STORE_SPLIT 16384 /* elements from which on heads are stored by all threads */

/* ---- Pages ------------------------------------------------------------------------------------
 */

/* Bytes of a page before a layer. */
static size_t bytes_before(kv_type type, const host_kv_layer *l) {
    int k_dims = (int)(l->keys / OPS_PAGE_TOKENS),
        v_dims = (int)((l->at - l->keys) / OPS_PAGE_TOKENS);
    size_t each = kv_head_bytes(type, 0, 0);
    return kv_head_bytes(type, k_dims, v_dims) - each + l->heads * each;
}

kv_place kv_at(const ops_kv *kv, const kv_form *form, int32_t page, int layer, int head) {
    const host_kv_layer *l = &kv->layers[layer];
    size_t at = bytes_before(form->type, l) +
                (size_t)head * kv_head_bytes(form->type, l->d.k_dim, l->d.v_dim);
    return (kv_place){.form = form, .d = l->d, .data = form->pages[page]->data + at};
}

static int largest_head(const kv_desc *desc) {
    int largest = 2;
    for (int i = 0; i < desc->n_layer; i++) {
        kv_layer d = desc->layers[i];
        int size = d.n_kv_head == 0 ? 0 : d.k_dim > d.v_dim ? d.k_dim : d.v_dim;
        largest = size > largest ? size : largest;
    }
    return largest;
}

jang_status cpu_kv_new(ops_kv **out, ops *o, const kv_desc *desc) {
    host_kv_layer *layers;
    jang_status status = host_kv_layout(&layers, o, desc);
    if (status) {
        return status;
    }
    ops_kv *kv = NULL;
    status = cpu_reserve_attention(cpu_of(o), largest_head(desc));
    if (!status && !(kv = ctx_zero(o->ctx, 1, sizeof *kv))) {
        status = ctx_fail_memory(o->ctx, sizeof *kv);
    }
    if (status) {
        ctx_free(o->ctx, layers);
        return status;
    }
    kv->layers = layers;
    const host_kv_layer *end = &layers[desc->n_layer];
    kv->kept = (kv_form){.type = desc->type, .page_bytes = bytes_before(desc->type, end)};
    kv->open = (kv_form){.type = KV_F16, .page_bytes = bytes_before(KV_F16, end)};
    *out = kv;
    return JANG_OK;
}

void cpu_kv_free(ops *o, ops_kv *kv) {
    if (!kv) {
        return;
    }
    for (int32_t i = 0; i < kv->n_pages; i++) {
        host_block_free(o, kv->kept.pages[i]);
        host_block_free(o, kv->open.pages[i]);
    }
    for (int32_t i = 0; i < kv->n_spare; i++) {
        host_block_free(o, kv->spare[i]);
    }
    ctx_free(o->ctx, kv->kept.pages);
    ctx_free(o->ctx, kv->open.pages);
    ctx_free(o->ctx, kv->spare);
    ctx_free(o->ctx, kv->layers);
    ctx_free(o->ctx, kv);
}

static jang_status grow_list(ops *o, host_block ***list, int32_t n) {
    host_block **blocks = ctx_realloc(o->ctx, *list, (size_t)n * sizeof *blocks);
    if (!blocks) {
        return ctx_fail_memory(o->ctx, (size_t)n * sizeof *blocks);
    }
    *list = blocks;
    return JANG_OK;
}

jang_status cpu_kv_grow(ops *o, ops_kv *kv, int32_t n_pages) {
    if (n_pages <= kv->n_pages) {
        return JANG_OK;
    }
    host_block ***lists[] = {&kv->kept.pages, &kv->open.pages, &kv->spare};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        jang_status status = grow_list(o, lists[i], n_pages);
        if (status) {
            return status;
        }
    }
    for (; kv->n_pages < n_pages; kv->n_pages++) {
        kv->open.pages[kv->n_pages] = NULL;
        jang_status status = host_block_new(&kv->kept.pages[kv->n_pages], o, kv->kept.page_bytes);
        if (status) {
            return status;
        }
    }
    return JANG_OK;
}

jang_status cpu_kv_open(ops *o, ops_kv *kv, int32_t page) {
    if (!kv_type_opens(kv->kept.type) || kv->open.pages[page]) {
        return JANG_OK;
    }
    if (kv->n_spare > 0) {
        kv->open.pages[page] = kv->spare[--kv->n_spare];
        return JANG_OK;
    }
    return host_block_new(&kv->open.pages[page], o, kv->open.page_bytes);
}

void cpu_kv_seal(ops *o, ops_kv *kv, int32_t page) {
    (void)o;
    if (kv->open.pages[page]) {
        kv->spare[kv->n_spare++] = kv->open.pages[page];
        kv->open.pages[page] = NULL;
    }
}

size_t cpu_kv_open_bytes(const ops_kv *kv) {
    return kv_type_opens(kv->kept.type) ? kv->open.page_bytes : 0;
}

static void copy_block(host_block *to, const host_block *from) {
    memcpy(to->data, from->data, to->n_bytes);
}

void cpu_kv_copy(ops *o, ops_kv *kv, int32_t from, int32_t to) {
    (void)o;
    copy_block(kv->kept.pages[to], kv->kept.pages[from]);
    if (kv->open.pages[from] && kv->open.pages[to]) {
        copy_block(kv->open.pages[to], kv->open.pages[from]);
    }
}

size_t cpu_kv_page_bytes(const ops_kv *kv) {
    return kv->kept.page_bytes;
}

void cpu_kv_save(ops *o, const ops_kv *kv, int32_t page, void *data) {
    (void)o;
    memcpy(data, kv->kept.pages[page]->data, cpu_kv_page_bytes(kv));
}

void cpu_kv_load(ops *o, ops_kv *kv, int32_t page, const void *data) {
    (void)o;
    memcpy(kv->kept.pages[page]->data, data, cpu_kv_page_bytes(kv));
}

/* ---- Storing ----------------------------------------------------------------------------------
 */

typedef struct store_job {
    cpu_ops *c;
    const ops_kv *kv;
    int layer;
    const ops_batch *batch;
    ops_mat k, v;
} store_job;

/* Rounds one token's key and value, which are turned, to 8 bits, and puts them into the page. */
static void store_bytes(kv_place p, int at, const float *k, const float *v) {
    uint8_t *keys = kv_keys_at(p);
    uint16_t *params = kv_params_at(p);
    int8_t codes[OPS_HEAD_MAX];
    float scale;
    host_kv_round(codes, &scale, k, p.d.k_dim, 8);
    for (int i = 0; i < p.d.k_dim; i++) {
        keys[i * OPS_PAGE_TOKENS + at] = (uint8_t)codes[i];
    }
    params[at] = f32_to_f16(scale);
    host_kv_round(codes, &scale, v, p.d.v_dim, 8);
    memcpy(kv_values_at(p) + (int64_t)at * p.d.v_dim, codes, (size_t)p.d.v_dim);
    params[OPS_PAGE_TOKENS + at] = f32_to_f16(scale);
}

/* n codes into a row: two in a byte, from the two halves of the row; of 6 bits the upper four
 * so, and behind them the lower two, four in a byte, from the four quarters. */
static void pack_row(uint8_t *row, const int8_t *codes, int n, int bits) {
    int half = n / 2, quarter = n / 4, low = bits - 4;
    for (int i = 0; i < half; i++) {
        row[i] = (uint8_t)(codes[i] >> low | codes[half + i] >> low << 4);
    }
    for (int i = 0; low && i < quarter; i++) {
        const int8_t *c = codes + i;
        row[half + i] = (uint8_t)((c[0] & 3) | (c[quarter] & 3) << 2 | (c[half] & 3) << 4 |
                                  (c[half + quarter] & 3) << 6);
    }
}

/* Rounds a row and packs it; its scale and minimum go to params[0] and params[n_params]. */
static void round_row(uint8_t *row, uint16_t *params, int n_params, const float *x, int n,
                      int bits) {
    int8_t codes[OPS_HEAD_MAX];
    float own[2];
    host_kv_round(codes, own, x, n, bits);
    pack_row(row, codes, n, bits);
    params[0] = f32_to_f16(own[0]);
    params[n_params] = f32_to_f16(own[1]);
}

/* Makes integers of a head's part of a page that has been open and is full. */
static void round_page(const float_kernels *f, kv_place to, kv_place from) {
    const uint16_t *keys = (const uint16_t *)(const void *)kv_keys_at(from);
    const uint16_t *values = (const uint16_t *)(const void *)kv_values_at(from);
    int n_k = to.d.k_dim, n_v = to.d.v_dim;
    int k_bits = kv_key_bits(to.form->type), v_bits = kv_value_bits(to.form->type);
    float row[OPS_HEAD_MAX], far[OPS_PAGE_TOKENS] = {0};
    for (int d = 0; d < n_k; d++) {
        f->from_f16(row, keys + d * OPS_PAGE_TOKENS, OPS_PAGE_TOKENS);
        host_kv_add_far(far, row);
    }
    int token = host_kv_farthest(far);
    uint16_t *params = kv_params_at(to), *own = kv_token_at(to);
    *own++ = (uint16_t)token;
    for (int d = 0; d < n_k; d++) {
        const uint16_t *key = keys + d * OPS_PAGE_TOKENS;
        f->from_f16(row, key, OPS_PAGE_TOKENS);
        row[token] = row[token ? 0 : 1]; /* without a part in the range */
        round_row(kv_keys_at(to) + d * (OPS_PAGE_TOKENS * k_bits / 8), params + d, n_k, row,
                  OPS_PAGE_TOKENS, k_bits);
        *own++ = key[token];
    }
    params += 2 * n_k;
    for (int t = 0; t < OPS_PAGE_TOKENS; t++) {
        f->from_f16(row, values + t * n_v, n_v);
        round_row(kv_values_at(to) + t * (n_v * v_bits / 8), params + t, OPS_PAGE_TOKENS, row, n_v,
                  v_bits);
    }
    memcpy(own, values + token * n_v, (size_t)n_v * sizeof *own);
}

static void store_halves(const float_kernels *f, kv_place p, int at, const float *k,
                         const float *v) {
    uint16_t half[OPS_HEAD_MAX], *keys = (uint16_t *)(void *)kv_keys_at(p);
    uint16_t *values = (uint16_t *)(void *)kv_values_at(p);
    f->to_f16(half, k, p.d.k_dim);
    for (int i = 0; i < p.d.k_dim; i++) {
        keys[i * OPS_PAGE_TOKENS + at] = half[i];
    }
    f->to_f16(values + (int64_t)at * p.d.v_dim, v, p.d.v_dim);
}

static void store_floats(kv_place p, int at, const float *k, const float *v) {
    float *keys = (float *)(void *)kv_keys_at(p), *values = (float *)(void *)kv_values_at(p);
    for (int i = 0; i < p.d.k_dim; i++) {
        keys[i * OPS_PAGE_TOKENS + at] = k[i];
    }
    memcpy(values + (int64_t)at * p.d.v_dim, v, (size_t)p.d.v_dim * sizeof *v);
}

/* x [n] into turned, turned. */
static const float *turn(float *turned, const float *x, int n) {
    memcpy(turned, x, (size_t)n * sizeof *x);
    host_kv_rotate(turned, n);
    return turned;
}

/* Puts one token's keys into their column of the page, and its values into their row. */
static void store_token(const store_job *job, int head, int32_t t) {
    const ops_kv *kv = job->kv;
    const float_kernels *f = job->c->kernels->floats;
    int32_t pos = job->batch->pos[t], at = pos % OPS_PAGE_TOKENS;
    int32_t page = job->batch->seqs[job->batch->seq_of[t]].pages[pos / OPS_PAGE_TOKENS];
    kv_place kept = kv_at(kv, &kv->kept, page, job->layer, head);
    const float *k = host_row(job->k, t) + (int64_t)head * kept.d.k_dim;
    const float *v = host_row(job->v, t) + (int64_t)head * kept.d.v_dim;
    float turned[2][OPS_HEAD_MAX];
    if (kv_type_params(kept.form->type)) {
        k = turn(turned[0], k, kept.d.k_dim);
        v = turn(turned[1], v, kept.d.v_dim);
    }
    if (kv_type_opens(kept.form->type)) {
        kv_place open = kv_at(kv, &kv->open, page, job->layer, head);
        store_halves(f, open, at, k, v);
        if (at == OPS_PAGE_TOKENS - 1) {
            round_page(f, kept, open);
        }
    } else if (kept.form->type == KV_Q8) {
        store_bytes(kept, at, k, v);
    } else if (kept.form->type == KV_F16) {
        store_halves(f, kept, at, k, v);
    } else {
        store_floats(kept, at, k, v);
    }
}

static void store_head(void *arg, int head, int thread) {
    const store_job *job = arg;
    (void)thread;
    for (int32_t t = 0; t < job->batch->n_tok; t++) {
        store_token(job, head, t);
    }
}

/* Whether the pages that the step writes to are open, as far as that matters. */
static bool are_open(const ops_kv *kv, const ops_batch *batch) {
    for (int32_t t = 0; kv_type_opens(kv->kept.type) && t < batch->n_tok; t++) {
        const batch_seq *seq = &batch->seqs[batch->seq_of[t]];
        if (!kv->open.pages[seq->pages[batch->pos[t] / OPS_PAGE_TOKENS]]) {
            return false;
        }
    }
    return true;
}

void cpu_kv_store(ops *o, ops_kv *kv, int layer, const ops_batch *batch, ops_mat k, ops_mat v) {
    if (!are_open(kv, batch)) {
        host_fail(o, JANG_ERR_ARGUMENT, "keys and values for a page that is not open");
        return;
    }
    store_job job = {.c = cpu_of(o), .kv = kv, .layer = layer, .batch = batch, .k = k, .v = v};
    kv_layer d = kv->layers[layer].d;
    int heads = d.n_kv_head;
    if ((int64_t)batch->n_tok * heads * (d.k_dim + d.v_dim) > 2 * STORE_SPLIT) {
        pool_run(job.c->pool, store_head, &job, heads);
        return;
    }
    for (int h = 0; h < heads; h++) {
        store_head(&job, h, 0);
    }
}
