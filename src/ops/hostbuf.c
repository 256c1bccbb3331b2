/* hostbuf.c - memory, batches and weights of host backends. */
#include "ops/hostbuf.h"

#include "base/half.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- Blocks -----------------------------------------------------------------------------------
 */

jang_status host_block_new(host_block **out, ops *o, size_t n_bytes) {
    if (n_bytes > SIZE_MAX - HOST_PAGE_BYTES) {
        return ctx_fail_memory(o->ctx, n_bytes);
    }
    n_bytes = (n_bytes + HOST_PAGE_BYTES - 1) / HOST_PAGE_BYTES * HOST_PAGE_BYTES;
    n_bytes = n_bytes ? n_bytes : HOST_PAGE_BYTES;
    host_block *block = ctx_alloc(o->ctx, sizeof *block);
    uint8_t *data = ctx_alloc_aligned(o->ctx, n_bytes, HOST_PAGE_BYTES);
    if (!block || !data) {
        ctx_free(o->ctx, block);
        ctx_free_aligned(o->ctx, data);
        return ctx_fail_memory(o->ctx, n_bytes);
    }
    memset(data, 0, n_bytes);
    host_ops *h = host_of(o);
    *block = (host_block){.data = data, .n_bytes = n_bytes, .next = h->blocks, .link = &h->blocks};
    if (h->blocks) {
        h->blocks->link = &block->next;
    }
    h->blocks = block;
    *out = block;
    return JANG_OK;
}

void host_block_free(ops *o, host_block *block) {
    if (!block) {
        return;
    }
    *block->link = block->next;
    if (block->next) {
        block->next->link = block->link;
    }
    ctx_free_aligned(o->ctx, block->data);
    ctx_free(o->ctx, block);
}

void host_fail(ops *o, jang_status status, const char *format, ...) {
    host_ops *h = host_of(o);
    if (h->status == JANG_OK) {
        char text[256];
        va_list args;
        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        h->status = ctx_fail(o->ctx, status, "%s", text);
    }
}

jang_status host_finish(ops *o) {
    jang_status status = host_of(o)->status;
    host_of(o)->status = JANG_OK;
    return status;
}

/* ---- Buffers ----------------------------------------------------------------------------------
 */

jang_status host_buf_new(ops_buf **out, ops *o, size_t n_bytes) {
    ops_buf *buf = ctx_alloc(o->ctx, sizeof *buf);
    if (!buf) {
        return ctx_fail_memory(o->ctx, sizeof *buf);
    }
    buf->n_bytes = n_bytes;
    jang_status status = host_block_new(&buf->block, o, n_bytes);
    if (status) {
        ctx_free(o->ctx, buf);
        return status;
    }
    *out = buf;
    return JANG_OK;
}

void host_buf_free(ops *o, ops_buf *buf) {
    if (buf) {
        host_block_free(o, buf->block);
        ctx_free(o->ctx, buf);
    }
}

static jang_status check_range(ops *o, const ops_buf *buf, size_t at, size_t n_bytes) {
    if (at > buf->n_bytes || n_bytes > buf->n_bytes - at) {
        return ctx_fail(o->ctx, JANG_ERR_ARGUMENT, "bytes %zu to %zu of a buffer of %zu", at,
                        at + n_bytes, buf->n_bytes);
    }
    return JANG_OK;
}

jang_status host_write(ops *o, ops_buf *buf, size_t at, const void *data, size_t n_bytes) {
    jang_status status = check_range(o, buf, at, n_bytes);
    if (status == JANG_OK && n_bytes) {
        memcpy(buf->block->data + at, data, n_bytes);
    }
    return status;
}

jang_status host_read(ops *o, const ops_buf *buf, size_t at, void *data, size_t n_bytes) {
    jang_status status = check_range(o, buf, at, n_bytes);
    if (status == JANG_OK && n_bytes) {
        memcpy(data, buf->block->data + at, n_bytes);
    }
    return status;
}

/* ---- Batches ----------------------------------------------------------------------------------
 */

jang_status host_batch_new(ops_batch **out, ops *o) {
    ops_batch *batch = ctx_zero(o->ctx, 1, sizeof *batch);
    if (!batch) {
        return ctx_fail_memory(o->ctx, sizeof *batch);
    }
    *out = batch;
    return JANG_OK;
}

void host_batch_free(ops *o, ops_batch *batch) {
    if (batch) {
        host_block_free(o, batch->block);
        ctx_free(o->ctx, batch);
    }
}

static int64_t page_count(const batch_seq *seq) {
    return ((int64_t)seq->n_past + seq->n_tok + OPS_PAGE_TOKENS - 1) / OPS_PAGE_TOKENS;
}

/* Replaces the batch's block by one of at least n_bytes, with room to spare for longer sequences.
 */
static jang_status batch_room(ops *o, ops_batch *batch, size_t n_bytes) {
    if (batch->block && batch->block->n_bytes >= n_bytes) {
        return JANG_OK;
    }
    host_block *block;
    jang_status status = host_block_new(&block, o, 2 * n_bytes);
    if (status) {
        return status;
    }
    host_block_free(o, batch->block);
    batch->block = block;
    return JANG_OK;
}

const int32_t *host_batch_rows(const ops_batch *batch, embed_by by) {
    return by == EMBED_IDS ? batch->ids : by == EMBED_TYPES ? batch->types : batch->pos;
}

jang_status host_batch_set(ops *o, ops_batch *batch, const batch_desc *desc) {
    size_t n_tok = (size_t)desc->n_tok, n_seq = (size_t)desc->n_seq, n_out = (size_t)desc->n_out;
    size_t n_pages = 0;
    for (size_t s = 0; s < n_seq; s++) {
        n_pages += (size_t)page_count(&desc->seqs[s]);
    }
    size_t n_words = 4 * n_tok + n_out + n_pages;
    jang_status status =
        batch_room(o, batch, n_seq * sizeof(batch_seq) + n_words * sizeof(int32_t));
    if (status) {
        return status;
    }
    batch->serial = ++host_of(o)->last_serial;
    batch->n_tok = desc->n_tok;
    batch->n_seq = desc->n_seq;
    batch->n_out = desc->n_out;
    batch->seqs = (batch_seq *)(void *)batch->block->data;
    batch->ids = (int32_t *)(batch->seqs + n_seq);
    batch->pos = batch->ids + n_tok;
    batch->types = batch->pos + n_tok;
    batch->seq_of = batch->types + n_tok;
    batch->out = batch->seq_of + n_tok;
    int32_t *pages = batch->out + n_out;
    if (n_tok) {
        memcpy(batch->ids, desc->ids, n_tok * sizeof *batch->ids);
        memset(batch->types, 0, n_tok * sizeof *batch->types);
    }
    if (n_tok && desc->types) {
        memcpy(batch->types, desc->types, n_tok * sizeof *batch->types);
    }
    if (n_out) {
        memcpy(batch->out, desc->out, n_out * sizeof *batch->out);
    }
    for (size_t s = 0; s < n_seq; s++) {
        batch_seq seq = desc->seqs[s];
        for (int32_t i = 0; i < seq.n_tok; i++) {
            batch->pos[seq.first + i] = seq.n_past + i;
            batch->seq_of[seq.first + i] = (int32_t)s;
        }
        size_t n = (size_t)page_count(&seq);
        if (n) {
            memcpy(pages, seq.pages, n * sizeof *pages);
        }
        seq.pages = pages;
        pages += n;
        batch->seqs[s] = seq;
    }
    return JANG_OK;
}

/* ---- Weights ----------------------------------------------------------------------------------
 */

static bool is_plain_float(dtype type) {
    return type == DT_F32 || type == DT_F16 || type == DT_BF16;
}

static bool has_data(const weight_desc *d, const expert_data *e) {
    return e->data && (!d->bits || (e->scales && e->biases));
}

static const char *where_is_no_data(const weight_desc *d) {
    if (d->n_expert < 0 || d->n_expert > OPS_MAX_EXPERTS || !d->n_expert != !d->experts) {
        return "its number of experts is impossible";
    }
    const expert_data own = {d->data, d->scales, d->biases, d->bias};
    for (int e = 0; e < d->n_expert; e++) {
        if (!has_data(d, &d->experts[e])) {
            return "an expert has no data";
        }
    }
    return d->n_expert || has_data(d, &own) ? NULL : "it has no data";
}

static const char *what_is_wrong(const weight_desc *d) {
    static const uint8_t bits_ok[9] = {[2] = 1, [3] = 1, [4] = 1, [5] = 1, [6] = 1, [8] = 1};
    if (d->n_out < 1 || d->n_in < 1 || d->n_out > INT64_MAX / 64 / d->n_in) {
        return "its shape is impossible";
    }
    const char *missing = where_is_no_data(d);
    if (missing) {
        return missing;
    }
    if ((d->bias || (d->n_expert && d->experts[0].bias)) && !is_plain_float(d->bias_type)) {
        return "its bias is not F32, F16 or BF16";
    }
    if (!d->bits) {
        return is_plain_float(d->type) ? NULL : "it is not F32, F16 or BF16";
    }
    if (d->bits < 0 || d->bits > 8 || !bits_ok[d->bits]) {
        return "bits must be 2, 3, 4, 5, 6 or 8";
    }
    if (d->group != 32 && d->group != 64 && d->group != 128) {
        return "the group size must be 32, 64 or 128";
    }
    if (d->n_in % d->group != 0) {
        return "the group size does not divide the row";
    }
    return is_plain_float(d->scale_type) ? NULL : "its scales are not F32, F16 or BF16";
}

jang_status host_weight_new(ops_weight **out, ops *o, const weight_desc *desc) {
    const char *wrong = what_is_wrong(desc);
    if (wrong) {
        return ctx_fail(o->ctx, JANG_ERR_ARGUMENT, "weight %s: %s",
                        desc->name ? desc->name : "(unnamed)", wrong);
    }
    size_t experts = (size_t)desc->n_expert * sizeof *desc->experts;
    ops_weight *w = ctx_alloc(o->ctx, sizeof *w + experts);
    if (!w) {
        return ctx_fail_memory(o->ctx, sizeof *w + experts);
    }
    w->d = *desc;
    w->d.name = NULL; /* the caller's, for this call */
    if (experts) {
        memcpy(w->experts, desc->experts, experts);
        w->d.experts = w->experts;
    }
    *out = w;
    return JANG_OK;
}

void host_weight_free(ops *o, ops_weight *w) {
    ctx_free(o->ctx, w);
}

float host_element(const void *data, dtype type, int64_t i) {
    if (type == DT_F32) {
        float f;
        memcpy(&f, (const uint8_t *)data + 4 * i, sizeof f);
        return f;
    }
    uint16_t h;
    memcpy(&h, (const uint8_t *)data + 2 * i, sizeof h);
    return type == DT_F16 ? f16_to_f32(h) : bf16_to_f32(h);
}

size_t host_row_bytes(const ops_weight *w) {
    size_t n_in = (size_t)w->d.n_in;
    if (!w->d.bits) {
        return n_in * (size_t)dtype_table[w->d.type].block_bytes;
    }
    size_t n_groups = n_in / (size_t)w->d.group;
    return n_in * (size_t)w->d.bits / 8 +
           2 * n_groups * (size_t)dtype_table[w->d.scale_type].block_bytes;
}

void host_kv_rotate(float *x, int n) {
    int block = n & -n;
    for (int h = 1; h < block; h *= 2) {
        for (int i = 0; i < n; i += 2 * h) {
            for (int j = i; j < i + h; j++) {
                float a = x[j], b = x[j + h];
                x[j] = a + b;
                x[j + h] = a - b;
            }
        }
    }
    float scale = 1.0f / sqrtf((float)block);
    for (int i = 0; i < n; i++) {
        x[i] *= scale;
    }
}

static float as_f16(float x) {
    return f16_to_f32(f32_to_f16(x));
}

void host_kv_round(int8_t *codes, float *params, const float *x, int n, int bits) {
    float low = x[0], high = x[0], wrong = 0;
    for (int i = 0; i < n; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
        wrong += x[i] - x[i]; /* NaN where one is not finite */
    }
    float most = (float)((1 << bits) - 1), from = 0, least = 0;
    if (bits == 8) {
        low = high > -low ? -high : low;
        high = -low;
        most = 127;
        least = -127;
    } else {
        from = as_f16(low);
    }
    float scale = as_f16((high - low) / ((bits == 8 ? 2 : 1) * most));
    bool usable = wrong == 0 && scale > 0 && scale < INFINITY && from - from == 0;
    float inverse = usable ? 1.0f / scale : 0;
    for (int i = 0; i < n; i++) {
        float code = rintf((x[i] - from) * inverse);
        code = code > least ? code : least;
        codes[i] = (int8_t)(usable ? (code < most ? code : most) : 0);
    }
    bool none = wrong == 0 && scale == 0; /* all as good as equal */
    params[0] = usable ? scale : none ? 0 : NAN;
    if (bits != 8) {
        params[1] = from;
    }
}

void host_kv_add_far(float *far, const float *row) {
    float sum = 0;
    for (int t = 0; t < OPS_PAGE_TOKENS; t++) {
        sum += row[t];
    }
    float mean = sum / OPS_PAGE_TOKENS;
    for (int t = 0; t < OPS_PAGE_TOKENS; t++) {
        far[t] += (row[t] - mean) * (row[t] - mean);
    }
}

int host_kv_farthest(const float *far) {
    int farthest = 0;
    for (int t = 1; t < OPS_PAGE_TOKENS; t++) {
        farthest = far[t] > far[farthest] ? t : farthest;
    }
    return farthest;
}

static bool is_head_size(int n) {
    return n >= 2 && n <= OPS_HEAD_MAX && n % 2 == 0;
}

jang_status host_kv_layout(host_kv_layer **out, ops *o, const kv_desc *desc) {
    if (desc->n_layer < 1 || desc->n_layer > 1 << 12) {
        return ctx_fail(o->ctx, JANG_ERR_ARGUMENT, "cache of %d layers; 1 to 4096 are allowed",
                        desc->n_layer);
    }
    size_t n_layer = (size_t)desc->n_layer;
    host_kv_layer *layers = ctx_zero(o->ctx, n_layer + 1, sizeof *layers);
    if (!layers) {
        return ctx_fail_memory(o->ctx, (n_layer + 1) * sizeof *layers);
    }
    for (size_t i = 0; i < n_layer; i++) {
        kv_layer d = desc->layers[i];
        bool none = d.n_kv_head == 0;
        if (!none && (d.n_kv_head < 0 || d.n_kv_head > 1 << 12 || !is_head_size(d.k_dim) ||
                      !is_head_size(d.v_dim))) {
            ctx_free(o->ctx, layers);
            return ctx_fail(o->ctx, JANG_ERR_ARGUMENT,
                            "cache: layer %zu has %d heads of %d and %d; at most 4096 heads of "
                            "even sizes up to %d are allowed",
                            i, d.n_kv_head, d.k_dim, d.v_dim, OPS_HEAD_MAX);
        }
        size_t row = none ? 0 : (size_t)d.n_kv_head * (size_t)(d.k_dim + d.v_dim);
        layers[i].d = d;
        size_t k_row = none ? 0 : (size_t)d.n_kv_head * (size_t)d.k_dim;
        layers[i + 1].at = layers[i].at + row * OPS_PAGE_TOKENS;
        layers[i + 1].keys = layers[i].keys + k_row * OPS_PAGE_TOKENS;
        layers[i + 1].heads = layers[i].heads + (none ? 0 : (size_t)d.n_kv_head);
    }
    *out = layers;
    return JANG_OK;
}
