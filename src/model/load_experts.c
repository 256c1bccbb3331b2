/* load_experts.c - binding the matrices of a layer's experts, however a checkpoint keeps them:
 * stacked in one tensor (mlx-lm), one tensor an expert (most of the hub), or gate and up fused. */
#include "model/loader_impl.h"

#include "format/affine.h"

#include <stdio.h>
#include <string.h>

typedef struct expert_load {
    loader *l;
    const expert_matrix *m;
    int n_expert;
    const char *prefix; /* of the layer, the decoder's included */
    weight_desc desc;
    expert_data *data; /* [n_expert] */
    void *copy;        /* of weights whose columns a tensor holds, or NULL */
} expert_load;

static jang_status put_name(char *out, const expert_load *e, const char *base, const char *suffix) {
    return loader_name(out, e->l, e->prefix, base, suffix);
}

/* Name of expert i's module. */
static jang_status separate_name(char *out, const expert_load *e, int i, const char *suffix) {
    char base[LOADER_NAME_BYTES];
    snprintf(base, sizeof base, "%s%d%s", e->m->before, i, e->m->after);
    return put_name(out, e, base, suffix);
}

static jang_status missing(const expert_load *e, const char *name) {
    return ctx_fail(e->l->ctx, JANG_ERR_FORMAT, "%s: tensor %s is missing",
                    checkpoint_path(e->l->c), name);
}

static jang_status wrong_shape(const expert_load *e, const tensor_view *t, const int64_t *want,
                               int n_dim) {
    char has[128] = "", wanted[128] = "";
    for (int i = 0; i < t->n_dim && strlen(has) < 100; i++) {
        snprintf(has + strlen(has), sizeof has - strlen(has), "%s%lld", i ? ", " : "",
                 (long long)t->shape[i]);
    }
    for (int i = 0; i < n_dim && strlen(wanted) < 100; i++) {
        snprintf(wanted + strlen(wanted), sizeof wanted - strlen(wanted), "%s%lld", i ? ", " : "",
                 (long long)want[i]);
    }
    return ctx_fail(e->l->ctx, JANG_ERR_FORMAT, "%s: tensor %s is [%s], the config wants [%s]",
                    checkpoint_path(e->l->c), t->name, has, wanted);
}

/* Finds a dense tensor of this shape. */
static jang_status find_shaped(const tensor_view **out, const expert_load *e, const char *name,
                               const int64_t *shape, int n_dim) {
    const tensor_view *t = loader_find(e->l, name);
    if (!t) {
        return missing(e, name);
    }
    if (t->n_dim != n_dim || memcmp(t->shape, shape, (size_t)n_dim * sizeof *shape) != 0) {
        return wrong_shape(e, t, shape, n_dim);
    }
    *out = t;
    return loader_dense_type(e->l, t);
}

/* ---- Stacked ---- */

static size_t affine_bytes(const weight_desc *d) {
    return (size_t)(d->n_out * (d->n_in * d->bits / 8));
}

static jang_status stacked_bias(expert_load *e, const char *base) {
    char name[LOADER_NAME_BYTES];
    jang_status status = put_name(name, e, base, ".bias");
    if (status != JANG_OK) {
        return status;
    }
    if (e->m->bias == BIAS_NONE) {
        return loader_find(e->l, name)
                   ? ctx_fail(e->l->ctx, JANG_ERR_UNSUPPORTED,
                              "%s: tensor %s is in the file, but by config.json there is no such "
                              "bias",
                              checkpoint_path(e->l->c), name)
                   : JANG_OK;
    }
    const tensor_view *t;
    const int64_t shape[] = {e->n_expert, e->m->n_out};
    status = find_shaped(&t, e, name, shape, 2);
    for (int i = 0; status == JANG_OK && i < e->n_expert; i++) {
        size_t size = (size_t)e->m->n_out * (size_t)dtype_table[t->type].block_bytes;
        e->data[i].bias = t->data + (size_t)i * size;
        e->desc.bias_type = t->type;
    }
    return status;
}

static jang_status load_stacked(expert_load *e) {
    char module[LOADER_NAME_BYTES];
    jang_status status = put_name(module, e, e->m->stacked, "");
    if (status == JANG_OK) {
        status = loader_describe(&e->desc, e->l, module, e->n_expert);
    }
    if (status != JANG_OK) {
        return status;
    }
    const weight_desc *d = &e->desc;
    size_t weights = d->bits
                         ? affine_bytes(d)
                         : (size_t)(d->n_out * d->n_in) * (size_t)dtype_table[d->type].block_bytes;
    size_t scales = d->bits ? (size_t)(d->n_out * (d->n_in / d->group)) *
                                  (size_t)dtype_table[d->scale_type].block_bytes
                            : 0;
    for (size_t i = 0; i < (size_t)e->n_expert; i++) {
        e->data[i].data = (const uint8_t *)d->data + i * weights;
        if (d->bits) {
            e->data[i].scales = (const uint8_t *)d->scales + i * scales;
            e->data[i].biases = (const uint8_t *)d->biases + i * scales;
        }
    }
    return stacked_bias(e, e->m->stacked);
}

/* ---- One tensor an expert ---- */

static jang_status separate_bias(expert_load *e, int i) {
    char name[LOADER_NAME_BYTES];
    const tensor_view *t;
    const int64_t shape[] = {e->m->n_out};
    jang_status status = separate_name(name, e, i, ".bias");
    if (status == JANG_OK && e->m->bias == BIAS_NONE) {
        return loader_find(e->l, name)
                   ? ctx_fail(e->l->ctx, JANG_ERR_UNSUPPORTED,
                              "%s: tensor %s is in the file, but by config.json there is no such "
                              "bias",
                              checkpoint_path(e->l->c), name)
                   : JANG_OK;
    }
    if (status == JANG_OK) {
        status = find_shaped(&t, e, name, shape, 1);
    }
    if (status != JANG_OK) {
        return status;
    }
    if (i > 0 && t->type != e->desc.bias_type) {
        return ctx_fail(e->l->ctx, JANG_ERR_UNSUPPORTED, "%s: tensor %s: experts' types differ",
                        checkpoint_path(e->l->c), name);
    }
    e->data[i].bias = t->data;
    e->desc.bias_type = t->type;
    return JANG_OK;
}

static jang_status load_separate(expert_load *e) {
    for (int i = 0; i < e->n_expert; i++) {
        char module[LOADER_NAME_BYTES];
        weight_desc d = {.n_out = e->m->n_out, .n_in = e->m->n_in};
        jang_status status = separate_name(module, e, i, "");
        if (status == JANG_OK) {
            status = loader_describe(&d, e->l, module, 0);
        }
        if (status != JANG_OK) {
            return status;
        }
        e->data[i] = (expert_data){d.data, d.scales, d.biases, NULL};
        const weight_desc *first = &e->desc;
        if (i == 0) {
            e->desc = d;
        } else if (d.bits != first->bits || d.group != first->group || d.type != first->type ||
                   d.scale_type != first->scale_type) {
            return ctx_fail(e->l->ctx, JANG_ERR_UNSUPPORTED,
                            "%s: tensor %s.weight is stored in another form than expert 0's",
                            checkpoint_path(e->l->c), module);
        }
        status = separate_bias(e, i);
        if (status != JANG_OK) {
            return status;
        }
    }
    return JANG_OK;
}

/* ---- Fused ---- */

/* Column i of what matrix `which` of expert `expert` is made of. */
static int64_t fused_column(const expert_matrix *m, int64_t i) {
    return m->order == FUSED_ALTERNATING ? i * m->n_fused + m->which : m->which * m->n_out + i;
}

/* out [n_expert, n_out, n_in] = the columns of t [n_expert, n_in, n_fused * n_out] that are ours.
 */
static void copy_columns(uint8_t *out, const expert_load *e, const tensor_view *t) {
    const expert_matrix *m = e->m;
    size_t size = (size_t)dtype_table[t->type].block_bytes;
    int64_t width = m->n_fused * m->n_out;
    for (int64_t x = 0; x < e->n_expert; x++) {
        for (int64_t o = 0; o < m->n_out; o++) {
            const uint8_t *from =
                t->data + (size_t)(x * m->n_in * width + fused_column(m, o)) * size;
            for (int64_t i = 0; i < m->n_in; i++, out += size) {
                memcpy(out, from + (size_t)(i * width) * size, size);
            }
        }
    }
}

static jang_status fused_bias(expert_load *e) {
    const expert_matrix *m = e->m;
    char name[LOADER_NAME_BYTES];
    const tensor_view *t;
    const int64_t shape[] = {e->n_expert, m->n_fused * m->n_out};
    jang_status status = put_name(name, e, m->fused, "_bias");
    if (status == JANG_OK) {
        status = find_shaped(&t, e, name, shape, 2);
    }
    if (status != JANG_OK) {
        return status;
    }
    size_t size = (size_t)dtype_table[t->type].block_bytes;
    size_t row = (size_t)m->n_out * size;
    uint8_t *out = (uint8_t *)e->copy + (size_t)m->n_in * row * (size_t)e->n_expert;
    for (int64_t x = 0; x < e->n_expert; x++, out += row) {
        for (int64_t i = 0; i < m->n_out && !e->l->survey; i++) {
            int64_t at = x * m->n_fused * m->n_out + fused_column(m, i);
            memcpy(out + (size_t)i * size, t->data + (size_t)at * size, size);
        }
        e->data[x].bias = out;
    }
    e->desc.bias_type = t->type;
    return JANG_OK;
}

static jang_status load_columns(expert_load *e, const tensor_view *t) {
    const expert_matrix *m = e->m;
    size_t matrix = (size_t)m->n_out * (size_t)m->n_in * (size_t)dtype_table[t->type].block_bytes;
    size_t biases = m->bias == BIAS_NEEDED ? (size_t)m->n_out * sizeof(float) : 0;
    e->copy = ctx_array(e->l->ctx, (size_t)e->n_expert, matrix + biases);
    if (!e->copy) {
        return ctx_fail_memory(e->l->ctx, (size_t)e->n_expert * (matrix + biases));
    }
    if (!e->l->survey) {
        copy_columns(e->copy, e, t);
    }
    for (size_t i = 0; i < (size_t)e->n_expert; i++) {
        e->data[i].data = (const uint8_t *)e->copy + i * matrix;
    }
    return m->bias == BIAS_NEEDED ? fused_bias(e) : JANG_OK;
}

static jang_status load_fused(expert_load *e) {
    const expert_matrix *m = e->m;
    char name[LOADER_NAME_BYTES];
    bool rows = m->order == FUSED_ROWS;
    int64_t all = m->n_fused * m->n_out;
    const int64_t shape[] = {e->n_expert, rows ? all : m->n_in, rows ? m->n_in : all};
    const tensor_view *t;
    jang_status status = put_name(name, e, m->fused, "");
    if (status == JANG_OK) {
        status = find_shaped(&t, e, name, shape, 3);
    }
    if (status != JANG_OK) {
        return status;
    }
    e->desc.type = t->type;
    if (!rows) {
        return load_columns(e, t);
    }
    size_t size = (size_t)m->n_out * (size_t)m->n_in * (size_t)dtype_table[t->type].block_bytes;
    for (int i = 0; i < e->n_expert; i++) {
        e->data[i].data = t->data + (size_t)(i * m->n_fused + m->which) * size;
    }
    return JANG_OK;
}

/* ---- All ---- */

static bool is_there(const expert_load *e, const char *base, const char *suffix) {
    char name[LOADER_NAME_BYTES];
    return base && put_name(name, e, base, suffix) == JANG_OK && loader_peek(e->l, name);
}

static jang_status load_data(expert_load *e) {
    char name[LOADER_NAME_BYTES];
    if (is_there(e, e->m->stacked, ".weight")) {
        return load_stacked(e);
    }
    if (is_there(e, e->m->fused, "")) {
        return load_fused(e);
    }
    if (e->m->before) {
        return load_separate(e);
    }
    jang_status status = put_name(name, e, e->m->stacked, ".weight");
    return status == JANG_OK ? missing(e, name) : status;
}

jang_status load_experts(ops_weight **out, loader *l, const expert_matrix *m, int n_expert,
                         int n_used, const char *prefix) {
    char full[LOADER_NAME_BYTES], module[LOADER_NAME_BYTES];
    expert_load e = {.l = l, .m = m, .n_expert = n_expert, .prefix = full};
    e.desc = (weight_desc){.n_out = m->n_out, .n_in = m->n_in};
    e.data = ctx_zero(l->ctx, (size_t)n_expert, sizeof *e.data);
    jang_status status = e.data ? JANG_OK : ctx_fail_memory(l->ctx, (size_t)n_expert * 32);
    if (status == JANG_OK) {
        status = loader_name(full, l, l->prefix, prefix, "");
    }
    if (status == JANG_OK) {
        status = load_data(&e);
    }
    if (status == JANG_OK) {
        status = loader_name(module, l, full, m->stacked, "");
    }
    if (status == JANG_OK) {
        weight_desc *d = &e.desc;
        d->name = module;
        d->data = d->scales = d->biases = d->bias = NULL;
        d->experts = e.data;
        d->n_expert = n_expert;
        d->fine = m->input == INPUT_FINE || l->careful;
        status = loader_keep(out, l, d, module, e.copy);
    }
    if (status == JANG_OK) {
        loader_count(l->totals, &e.desc, n_expert, n_used);
    } else {
        ctx_free(l->ctx, e.copy);
    }
    ctx_free(l->ctx, e.data);
    return status;
}

/* ---- Heads ---- */

/* Keys of a fused weight, turned, as out [n_head, n_latent, key_dim]: f32, or of the dense type. */
static void turn_keys(void *out, float *row, const weight_desc *d, const head_matrices *m) {
    size_t size = d->bits ? sizeof(float) : (size_t)dtype_table[d->type].block_bytes;
    for (int64_t h = 0; h < m->n_head; h++) {
        for (int64_t k = 0; k < m->key_dim; k++) {
            int64_t r = h * (m->key_dim + m->value_dim) + k;
            const void *from = row;
            if (d->bits) {
                int64_t groups = d->n_in / d->group;
                size_t scale = (size_t)(r * groups * dtype_table[d->scale_type].block_bytes);
                affine_row_f32(row, (const uint8_t *)d->data + r * (d->n_in * d->bits / 8),
                               (const uint8_t *)d->scales + scale,
                               (const uint8_t *)d->biases + scale, d->scale_type, d->n_in, d->bits,
                               d->group);
            } else {
                from = (const uint8_t *)d->data + (size_t)(r * d->n_in) * size;
            }
            for (int64_t i = 0; i < m->n_latent; i++) {
                int64_t at = (h * m->n_latent + i) * m->key_dim + k;
                memcpy((uint8_t *)out + (size_t)at * size, (const uint8_t *)from + (size_t)i * size,
                       size);
            }
        }
    }
}

/* Where the values of each head lie in a fused weight. */
static void place_values(expert_data *data, const weight_desc *d, const head_matrices *m) {
    int64_t row = d->bits ? d->n_in * d->bits / 8 : d->n_in * dtype_table[d->type].block_bytes;
    int64_t scale = d->bits ? d->n_in / d->group * dtype_table[d->scale_type].block_bytes : 0;
    for (int64_t h = 0; h < m->n_head; h++) {
        int64_t r = h * (m->key_dim + m->value_dim) + m->key_dim;
        data[h].data = (const uint8_t *)d->data + r * row;
        if (d->bits) {
            data[h].scales = (const uint8_t *)d->scales + r * scale;
            data[h].biases = (const uint8_t *)d->biases + r * scale;
        }
    }
}

/* The weight of one of the fused module's two parts, under the name it has where it is stacked. */
static jang_status keep_heads(ops_weight **out, loader *l, weight_desc d, const expert_data *data,
                              const char *module, void *owned, int n_head) {
    d.name = module;
    d.data = d.scales = d.biases = NULL;
    d.experts = data;
    d.n_expert = n_head;
    d.fine = true;
    jang_status status = loader_keep(out, l, &d, module, owned);
    if (status == JANG_OK) {
        loader_count(l->totals, &d, n_head, n_head);
    }
    return status;
}

static jang_status load_fused_heads(ops_weight **keys, ops_weight **values, loader *l,
                                    const head_matrices *m, const char *module, const char *base) {
    char key_name[LOADER_NAME_BYTES], value_name[LOADER_NAME_BYTES];
    int64_t step = m->key_dim + m->value_dim;
    weight_desc d = {.n_out = m->n_head * (m->key_dim + m->value_dim), .n_in = m->n_latent};
    jang_status status = loader_describe(&d, l, module, 0);
    if (status == JANG_OK) {
        status = loader_name(key_name, l, base, m->keys, "");
    }
    if (status == JANG_OK) {
        status = loader_name(value_name, l, base, m->values, "");
    }
    if (status != JANG_OK) {
        return status;
    }
    size_t size = d.bits ? sizeof(float) : (size_t)dtype_table[d.type].block_bytes;
    size_t matrix = (size_t)m->key_dim * (size_t)m->n_latent * size, n = (size_t)m->n_head;
    expert_data *data = ctx_zero(l->ctx, n, sizeof *data);
    float *row = ctx_array(l->ctx, (size_t)m->n_latent, sizeof *row);
    uint8_t *copy = ctx_array(l->ctx, n, matrix);
    if (!data || !row || !copy) {
        ctx_free(l->ctx, copy);
        status = ctx_fail_memory(l->ctx, n * matrix);
        goto done;
    }
    if (!l->survey) {
        turn_keys(copy, row, &d, m);
    }
    for (size_t h = 0; h < n; h++) {
        data[h].data = copy + h * matrix;
    }
    weight_desc turned = {
        .n_out = m->n_latent, .n_in = m->key_dim, .type = d.bits ? DT_F32 : d.type};
    status = keep_heads(keys, l, turned, data, key_name, copy, m->n_head);
    if (status != JANG_OK) {
        ctx_free(l->ctx, copy);
        goto done;
    }
    status = loader_place(l, module, 0, step, true);
    place_values(data, &d, m);
    d.n_out = m->value_dim;
    if (status == JANG_OK) {
        status = keep_heads(values, l, d, data, value_name, NULL, m->n_head);
    }
    if (status == JANG_OK) {
        status = loader_place(l, module, m->key_dim, step, false);
    }
done:
    ctx_free(l->ctx, data);
    ctx_free(l->ctx, row);
    return status;
}

jang_status load_head_matrices(ops_weight **keys, ops_weight **values, loader *l,
                               const head_matrices *m, const char *prefix) {
    char base[LOADER_NAME_BYTES], module[LOADER_NAME_BYTES], name[LOADER_NAME_BYTES];
    jang_status status = loader_name(base, l, l->prefix, prefix, "");
    if (status == JANG_OK) {
        status = loader_name(module, l, base, m->fused, "");
    }
    if (status == JANG_OK) {
        status = loader_name(name, l, module, ".weight", "");
    }
    if (status != JANG_OK) {
        return status;
    }
    if (loader_peek(l, name)) {
        return load_fused_heads(keys, values, l, m, module, base);
    }
    const expert_matrix k = {
        .stacked = m->keys, .n_out = m->n_latent, .n_in = m->key_dim, .input = INPUT_FINE};
    const expert_matrix v = {
        .stacked = m->values, .n_out = m->value_dim, .n_in = m->n_latent, .input = INPUT_FINE};
    status = load_experts(keys, l, &k, m->n_head, m->n_head, prefix);
    return status == JANG_OK ? load_experts(values, l, &v, m->n_head, m->n_head, prefix) : status;
}
