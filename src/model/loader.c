/* loader.c - binding a checkpoint's tensors to a backend's weights. */
#include "model/loader_impl.h"

#include "base/half.h"
#include "format/affine.h"
#include "model/survey.h"

#include <stdio.h>
#include <string.h>

/* ---- Names and shapes ---- */

jang_status loader_name(char *out, loader *l, const char *prefix, const char *base,
                        const char *suffix) {
    int n = snprintf(out, LOADER_NAME_BYTES, "%s%s%s", prefix, base, suffix);
    if (n < 0 || n >= LOADER_NAME_BYTES) {
        return ctx_fail(l->ctx, JANG_ERR_FORMAT, "tensor name %.40s... is too long", base);
    }
    return JANG_OK;
}

/* Replaces components by their aliases in what follows the prefix. */
static bool alias_name(char *out, const loader *l, const char *name) {
    size_t n_prefix = strlen(l->prefix), at = 0;
    bool below = strncmp(name, l->prefix, n_prefix) == 0, changed = false;
    size_t i = below ? n_prefix : 0;
    memcpy(out, name, i);
    at = i;
    while (name[i]) {
        const name_alias *alias = l->aliases;
        size_t n = 0;
        for (; alias->mlx; alias++) {
            n = strlen(alias->mlx);
            if (strncmp(name + i, alias->mlx, n) == 0 && (name[i + n] == '.' || !name[i + n])) {
                break;
            }
        }
        const char *text = alias->mlx ? alias->hub : name + i;
        size_t length = alias->mlx ? strlen(text) : strcspn(text, ".");
        changed |= alias->mlx != NULL;
        i += alias->mlx ? n : length;
        if (at + length + 2 > LOADER_NAME_BYTES) {
            return false;
        }
        memcpy(out + at, text, length);
        at += length;
        if (name[i] == '.' && length == 0) {
            i++; /* nothing took the component's place */
        } else if (name[i] == '.') {
            out[at++] = name[i++];
        }
    }
    out[at] = 0;
    return changed;
}

static const tensor_view *find_as_is(const loader *l, const char *name) {
    return l->source ? l->source->find(l->source->arg, name) : checkpoint_find(l->c, name);
}

/* What mlx-lm puts where the checkpoint has its prefix. */
static const char *mlx_prefix(const char *prefix) {
    static const struct {
        const char *hub, *mlx;
    } table[] = {
        {"", "model."},
        {"model.language_model.", "language_model.model."},
        {"gpt_neox.", "model."},
        {"transformer.", "model."},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(table[i].hub, prefix) == 0) {
            return table[i].mlx;
        }
    }
    return prefix;
}

/* Notes a use under mlx-lm's name. A name outside the prefix is the output matrix's. */
static jang_status note_use(loader *l, const tensor_view *t, const char *name) {
    char out[LOADER_NAME_BYTES];
    const char *mlx = l->own_names ? l->prefix : mlx_prefix(l->prefix);
    size_t n = strlen(l->prefix);
    bool below = strncmp(name, l->prefix, n) == 0 && (n > 0 || strncmp(name, "lm_head.", 8) != 0);
    jang_status status = JANG_OK;
    if (below) {
        status = loader_name(out, l, mlx, name + n, "");
    } else if (strncmp(name, "model.", 6) == 0 && strncmp(l->prefix, "model.l", 7) == 0) {
        status = loader_name(out, l, "language_model.", name + 6, "");
    } else if (strcmp(l->prefix, "gpt_neox.") == 0) {
        status = loader_name(out, l, mlx, name, "");
    } else {
        status = loader_name(out, l, "", name, "");
    }
    return status == JANG_OK ? survey_add(l->survey, t, out) : status;
}

const tensor_view *loader_peek(const loader *l, const char *name) {
    char other[LOADER_NAME_BYTES];
    const tensor_view *t = find_as_is(l, name);
    if (!t && l->aliases && alias_name(other, l, name)) {
        t = find_as_is(l, other);
    }
    return t;
}

const tensor_view *loader_find(loader *l, const char *name) {
    const tensor_view *t = loader_peek(l, name);
    if (t && l->survey && l->noted == JANG_OK) {
        l->noted = note_use(l, t, name);
    }
    return t;
}

static jang_status find_tensor(const tensor_view **out, loader *l, const char *name) {
    *out = loader_find(l, name);
    if (*out) {
        return JANG_OK;
    }
    return ctx_fail(l->ctx, JANG_ERR_FORMAT, "%s: tensor %s is missing", checkpoint_path(l->c),
                    name);
}

/* A shape as text: "64, 128". */
static void put_shape(char shape[128], const tensor_view *t) {
    size_t at = 0;
    shape[0] = 0;
    for (int i = 0; i < t->n_dim && at < 128 - 24; i++) {
        at +=
            (size_t)snprintf(shape + at, 128 - at, "%s%lld", i ? ", " : "", (long long)t->shape[i]);
    }
}

static jang_status wrong_shape(loader *l, const tensor_view *t, int64_t n_out, int64_t n_in) {
    char shape[128];
    put_shape(shape, t);
    if (n_in == 0) {
        return ctx_fail(l->ctx, JANG_ERR_FORMAT, "%s: tensor %s is [%s], the config wants [%lld]",
                        checkpoint_path(l->c), t->name, shape, (long long)n_out);
    }
    return ctx_fail(l->ctx, JANG_ERR_FORMAT, "%s: tensor %s is [%s], the config wants [%lld, %lld]",
                    checkpoint_path(l->c), t->name, shape, (long long)n_out, (long long)n_in);
}

jang_status loader_dense_type(loader *l, const tensor_view *t) {
    if (t->type == DT_F32 || t->type == DT_F16 || t->type == DT_BF16) {
        return JANG_OK;
    }
    return ctx_fail(l->ctx, JANG_ERR_UNSUPPORTED,
                    "%s: tensor %s is of type %s; a model runs from F32, F16, BF16 or affine "
                    "weights: convert it first (jang convert)",
                    checkpoint_path(l->c), t->name, dtype_table[t->type].name);
}

static jang_status find_vector(const tensor_view **out, loader *l, int64_t n, const char *name) {
    const tensor_view *t;
    jang_status status = find_tensor(&t, l, name);
    if (status == JANG_OK) {
        status = loader_dense_type(l, t);
    }
    if (status != JANG_OK) {
        return status;
    }
    if (tensor_columns(t) != n || tensor_rows(t) != 1) {
        return wrong_shape(l, t, n, 0);
    }
    *out = t;
    return JANG_OK;
}

/* ---- Matrices ---- */

/* Whether t is a matrix of n_out rows, or n_expert of them where that is not 0. */
static bool has_rows(const tensor_view *t, int64_t n_out, int n_expert) {
    return n_expert ? t->n_dim == 3 && t->shape[0] == n_expert && t->shape[1] == n_out
                    : t->n_dim == 2 && t->shape[0] == n_out;
}

static jang_status describe_affine(weight_desc *desc, loader *l, const char *module,
                                   const tensor_view *weight, const tensor_view *scales,
                                   int n_expert) {
    char name[LOADER_NAME_BYTES];
    const tensor_view *biases;
    jang_status status = loader_name(name, l, "", module, ".biases");
    if (status == JANG_OK) {
        status = find_tensor(&biases, l, name);
    }
    if (status != JANG_OK) {
        return status;
    }
    int hint_bits, hint_group, bits, group;
    status = checkpoint_quantization(&hint_bits, &hint_group, l->c, module);
    if (status == JANG_OK) {
        status = affine_infer(&bits, &group, l->ctx, weight, scales, biases, hint_bits, hint_group);
    }
    if (status != JANG_OK) {
        return status;
    }
    int64_t words = tensor_columns(weight), groups = tensor_columns(scales);
    if (!has_rows(weight, desc->n_out, n_expert) || words != affine_row_words(desc->n_in, bits) ||
        groups * group != desc->n_in) {
        return ctx_fail(l->ctx, JANG_ERR_FORMAT,
                        "%s: tensor %s holds %lld rows of %lld columns (%d bits, groups of %d), "
                        "the config wants [%lld, %lld]",
                        checkpoint_path(l->c), weight->name, (long long)tensor_rows(weight),
                        (long long)(groups * group), bits, group,
                        (long long)(desc->n_out * (n_expert ? n_expert : 1)),
                        (long long)desc->n_in);
    }
    desc->bits = bits;
    desc->group = group;
    desc->data = weight->data;
    desc->scale_type = scales->type;
    desc->scales = scales->data;
    desc->biases = biases->data;
    return JANG_OK;
}

static jang_status describe_dense(weight_desc *desc, loader *l, const tensor_view *t,
                                  int n_expert) {
    jang_status status = loader_dense_type(l, t);
    if (status != JANG_OK) {
        return status;
    }
    if (!has_rows(t, desc->n_out, n_expert) || tensor_columns(t) != desc->n_in) {
        int64_t n_out = desc->n_out * (n_expert ? n_expert : 1);
        return wrong_shape(l, t, n_out, desc->n_in);
    }
    desc->type = t->type;
    desc->data = t->data;
    return JANG_OK;
}

jang_status loader_describe(weight_desc *desc, loader *l, const char *module, int n_expert) {
    char name[LOADER_NAME_BYTES];
    const tensor_view *weight;
    jang_status status = loader_name(name, l, "", module, ".weight");
    if (status == JANG_OK) {
        status = find_tensor(&weight, l, name);
    }
    if (status == JANG_OK) {
        status = loader_name(name, l, "", module, ".scales");
    }
    if (status != JANG_OK) {
        return status;
    }
    const tensor_view *scales = loader_find(l, name);
    return scales ? describe_affine(desc, l, module, weight, scales, n_expert)
                  : describe_dense(desc, l, weight, n_expert);
}

static jang_status find_bias(weight_desc *desc, loader *l, const char *module, bias_rule rule) {
    char name[LOADER_NAME_BYTES];
    jang_status status = loader_name(name, l, "", module, ".bias");
    if (status != JANG_OK) {
        return status;
    }
    if (rule == BIAS_NONE) {
        if (!loader_find(l, name)) {
            return JANG_OK;
        }
        return ctx_fail(l->ctx, JANG_ERR_UNSUPPORTED,
                        "%s: tensor %s is in the file, but by config.json there is no such bias",
                        checkpoint_path(l->c), name);
    }
    const tensor_view *t = NULL;
    status = find_vector(&t, l, desc->n_out, name);
    if (status == JANG_OK) {
        desc->bias = t->data;
        desc->bias_type = t->type;
    }
    return status;
}

void loader_count(model_totals *totals, const weight_desc *d, int n_all, int n_read) {
    int64_t n = d->n_out * d->n_in;
    uint64_t n_bytes;
    if (d->bits) {
        int64_t pair_bytes = 2 * (int64_t)dtype_table[d->scale_type].block_bytes;
        n_bytes = (uint64_t)(n * d->bits / 8 + n / d->group * pair_bytes);
        totals->n_quantized += n * n_all;
        totals->quantized_bits += n * n_all * d->bits;
        if (!totals->min_bits || d->bits < totals->min_bits) {
            totals->min_bits = d->bits;
        }
        totals->max_bits = d->bits > totals->max_bits ? d->bits : totals->max_bits;
    } else {
        n_bytes = (uint64_t)n * (uint64_t)dtype_table[d->type].block_bytes;
        if (n > totals->largest_dense) {
            totals->largest_dense = n;
            totals->largest_type = d->type;
        }
    }
    bool has_bias = d->bias || (d->n_expert && d->experts[0].bias);
    uint64_t bias_bytes =
        has_bias ? (uint64_t)d->n_out * (uint64_t)dtype_table[d->bias_type].block_bytes : 0;
    totals->n_params += (n + (has_bias ? d->n_out : 0)) * n_all;
    totals->weight_bytes += (n_bytes + bias_bytes) * (uint64_t)n_all;
    totals->token_bytes +=
        n_read ? (n_bytes + bias_bytes) * (uint64_t)n_read : n_bytes / (uint64_t)d->n_out;
}

/* module is the whole name without ".weight". */
static jang_status load_module(ops_weight **out, loader *l, int64_t n_out, int64_t n_in,
                               bias_rule bias, input_rule input, read_rule read,
                               const char *module) {
    weight_desc desc = {.name = module, .n_out = n_out, .n_in = n_in};
    desc.fine = input == INPUT_FINE || l->careful;
    jang_status status = loader_describe(&desc, l, module, 0);
    if (status == JANG_OK) {
        status = find_bias(&desc, l, module, bias);
    }
    if (status == JANG_OK) {
        status = loader_keep(out, l, &desc, module, NULL);
    }
    if (status == JANG_OK) {
        loader_count(l->totals, &desc, 1, read == READ_ALL);
    }
    return status;
}

#define TURN_TILE 32

/* out [n_out, n_in] = the transpose of from [n_in, n_out], elements of size bytes. */
static void turn(uint8_t *out, const uint8_t *from, size_t n_out, size_t n_in, size_t size) {
    for (size_t o = 0; o < n_out; o += TURN_TILE) {
        size_t o_end = o + TURN_TILE < n_out ? o + TURN_TILE : n_out;
        for (size_t i = 0; i < n_in; i++) {
            for (size_t k = o; k < o_end; k++) {
                memcpy(out + (k * n_in + i) * size, from + (i * n_out + k) * size, size);
            }
        }
    }
}

static jang_status turned_copy(void **out, loader *l, weight_desc *desc, const tensor_view *t) {
    weight_desc stored = {.n_out = desc->n_in, .n_in = desc->n_out};
    jang_status status = describe_dense(&stored, l, t, 0);
    if (status != JANG_OK) {
        return status;
    }
    size_t size = (size_t)dtype_table[t->type].block_bytes;
    void *copy = ctx_array(l->ctx, (size_t)desc->n_out, (size_t)desc->n_in * size);
    if (!copy) {
        return ctx_fail_memory(l->ctx, (size_t)desc->n_out * (size_t)desc->n_in * size);
    }
    turn(copy, t->data, (size_t)desc->n_out, (size_t)desc->n_in, size);
    desc->type = t->type;
    desc->data = copy;
    *out = copy;
    return JANG_OK;
}

/* As load_module, of a matrix that is stored the other way where it is dense. A survey is of what
 * a conversion has turned already. */
static jang_status load_turned(ops_weight **out, loader *l, int64_t n_out, int64_t n_in,
                               bias_rule bias, input_rule input, const char *module) {
    char name[LOADER_NAME_BYTES];
    weight_desc desc = {.name = module, .n_out = n_out, .n_in = n_in};
    desc.fine = input == INPUT_FINE || l->careful;
    const tensor_view *weight;
    void *copy = NULL;
    jang_status status = loader_name(name, l, "", module, ".scales");
    if (status == JANG_OK && (l->survey || loader_find(l, name))) {
        return load_module(out, l, n_out, n_in, bias, input, READ_ALL, module);
    }
    if (status == JANG_OK) {
        status = loader_name(name, l, "", module, ".weight");
    }
    if (status == JANG_OK) {
        status = find_tensor(&weight, l, name);
    }
    if (status == JANG_OK) {
        status = turned_copy(&copy, l, &desc, weight);
    }
    if (status == JANG_OK) {
        status = find_bias(&desc, l, module, bias);
    }
    if (status == JANG_OK) {
        status = loader_keep(out, l, &desc, module, copy);
    }
    if (status != JANG_OK) {
        ctx_free(l->ctx, copy);
        return status;
    }
    loader_count(l->totals, &desc, 1, true);
    return JANG_OK;
}

/* Moves the description past its first rows. */
static void skip_rows(weight_desc *d, int64_t n) {
    size_t bits = d->bits ? (size_t)d->bits : 8 * (size_t)dtype_table[d->type].block_bytes;
    d->data = (const uint8_t *)d->data + (size_t)(n * d->n_in) * bits / 8;
    if (d->bits) {
        size_t size = (size_t)dtype_table[d->scale_type].block_bytes;
        size_t at = (size_t)(n * (d->n_in / d->group)) * size;
        d->scales = (const uint8_t *)d->scales + at;
        d->biases = (const uint8_t *)d->biases + at;
    }
}

/* ---- What families call ---- */

jang_status loader_format(char *out, loader *l, const char *format, va_list args) {
    char base[LOADER_NAME_BYTES];
    int n = vsnprintf(base, sizeof base, format, args);
    if (n < 0 || n >= (int)sizeof base) {
        return ctx_fail(l->ctx, JANG_ERR_FORMAT, "tensor name %.40s... is too long", base);
    }
    return loader_name(out, l, l->prefix, base, "");
}

jang_status load_matrix(ops_weight **out, loader *l, int64_t n_out, int64_t n_in, bias_rule bias,
                        input_rule input, const char *format, ...) {
    char module[LOADER_NAME_BYTES];
    va_list args;
    va_start(args, format);
    jang_status status = loader_format(module, l, format, args);
    va_end(args);
    if (status == JANG_OK && l->turned) {
        return load_turned(out, l, n_out, n_in, bias, input, module);
    }
    return status == JANG_OK ? load_module(out, l, n_out, n_in, bias, input, READ_ALL, module)
                             : status;
}

jang_status load_matrix_rows(ops_weight **out, loader *l, int64_t n_out, int64_t n_in,
                             const matrix_rows *rows, input_rule input, const char *prefix,
                             const char *base) {
    char layer[LOADER_NAME_BYTES], stored[LOADER_NAME_BYTES], module[LOADER_NAME_BYTES];
    weight_desc desc = {.name = stored, .n_out = rows->n_all, .n_in = n_in};
    desc.fine = input == INPUT_FINE || l->careful;
    jang_status status = loader_name(layer, l, l->prefix, prefix, "");
    if (status == JANG_OK) {
        status = loader_name(stored, l, layer, rows->module, "");
    }
    if (status == JANG_OK) {
        status = loader_name(module, l, layer, base, "");
    }
    if (status == JANG_OK) {
        status = loader_describe(&desc, l, stored, 0);
    }
    if (status == JANG_OK) {
        status = find_bias(&desc, l, stored, BIAS_NONE);
    }
    if (status != JANG_OK) {
        return status;
    }
    desc.n_out = n_out;
    if (!l->survey) {
        skip_rows(&desc, rows->first);
    }
    loader_count(l->totals, &desc, 1, true);
    return loader_keep(out, l, &desc, module, NULL);
}

jang_status load_embedding(ops_weight **out, loader *l, int64_t n_out, int64_t n_in, read_rule rule,
                           const char *name) {
    char module[LOADER_NAME_BYTES];
    jang_status status = loader_name(module, l, l->prefix, name, "");
    return status == JANG_OK ? load_module(out, l, n_out, n_in, BIAS_NONE, INPUT_FINE, rule, module)
                             : status;
}

jang_status load_embedding_rows(ops_weight **out, loader *l, int64_t n_out, int64_t n_in,
                                int64_t skip, const char *name) {
    char module[LOADER_NAME_BYTES];
    weight_desc desc = {.name = module, .n_out = n_out + skip, .n_in = n_in};
    jang_status status = loader_name(module, l, l->prefix, name, "");
    if (status == JANG_OK) {
        status = loader_describe(&desc, l, module, 0);
    }
    if (status != JANG_OK) {
        return status;
    }
    desc.n_out = n_out;
    if (!l->survey) {
        skip_rows(&desc, skip);
    }
    loader_count(l->totals, &desc, 1, 0);
    return loader_keep(out, l, &desc, module, NULL);
}

/* Takes the last component off a prefix ("model.language_model." becomes "model."). */
static void cut_component(char *prefix) {
    size_t n = strlen(prefix);
    n -= n > 0; /* the dot at the end */
    while (n > 0 && prefix[n - 1] != '.') {
        n--;
    }
    prefix[n] = 0;
}

/* Beside the decoder or further out: "language_model.lm_head" of "language_model.model.",
 * "lm_head" of "model.language_model.". The outermost where there is none. */
static jang_status output_module(char *out, loader *l, const char *name) {
    char outer[LOADER_NAME_BYTES], weight[LOADER_NAME_BYTES];
    snprintf(outer, sizeof outer, "%s", l->prefix);
    for (;;) {
        cut_component(outer);
        jang_status status = loader_name(out, l, outer, name, "");
        if (status == JANG_OK) {
            status = loader_name(weight, l, "", out, ".weight");
        }
        if (status != JANG_OK || !*outer || find_as_is(l, weight)) {
            return status;
        }
    }
}

static bool has_weight(loader *l, const char *module) {
    char full[LOADER_NAME_BYTES];
    return loader_name(full, l, "", module, ".weight") == JANG_OK && loader_find(l, full);
}

bool loader_has_output(loader *l, const char *name) {
    char module[LOADER_NAME_BYTES];
    return output_module(module, l, name) == JANG_OK && has_weight(l, module);
}

static bool has_weight_below(loader *l, const char *name) {
    char module[LOADER_NAME_BYTES];
    return loader_name(module, l, l->prefix, name, "") == JANG_OK && has_weight(l, module);
}

jang_status load_output(ops_weight **out, loader *l, int64_t n_out, int64_t n_in, bias_rule bias,
                        const char *name) {
    char module[LOADER_NAME_BYTES];
    jang_status status = output_module(module, l, name);
    if (status == JANG_OK && !has_weight(l, module) && has_weight_below(l, name)) {
        status = loader_name(module, l, l->prefix, name, ""); /* mlx-lm's "model.embed_out" */
    }
    return status == JANG_OK ? load_module(out, l, n_out, n_in, bias, INPUT_FINE, READ_ALL, module)
                             : status;
}

/* name is the whole tensor's; module, borrowed, what messages and calibration know it by. */
static jang_status load_named(ops_weight **out, loader *l, int64_t n, const char *module,
                              const char *name) {
    const tensor_view *t = NULL;
    jang_status status = find_vector(&t, l, n, name);
    if (status != JANG_OK) {
        return status;
    }
    weight_desc desc = {.name = name, .n_out = 1, .n_in = n, .type = t->type, .data = t->data};
    l->totals->n_params += n;
    l->totals->weight_bytes += t->n_bytes;
    l->totals->token_bytes += t->n_bytes;
    return loader_keep(out, l, &desc, module, NULL);
}

jang_status load_vector(ops_weight **out, loader *l, int64_t n, const char *format, ...) {
    char module[LOADER_NAME_BYTES], name[LOADER_NAME_BYTES];
    va_list args;
    va_start(args, format);
    jang_status status = loader_format(module, l, format, args);
    va_end(args);
    if (status == JANG_OK) {
        status = loader_name(name, l, "", module, ".weight");
    }
    return status == JANG_OK ? load_named(out, l, n, module, name) : status;
}

jang_status load_param(ops_weight **out, loader *l, int64_t n, const char *format, ...) {
    char name[LOADER_NAME_BYTES];
    va_list args;
    va_start(args, format);
    jang_status status = loader_format(name, l, format, args);
    va_end(args);
    return status == JANG_OK ? load_named(out, l, n, name, name) : status;
}

jang_status load_computed(ops_weight **out, loader *l, const float *values, int64_t n,
                          const char *name) {
    float *copy = ctx_array(l->ctx, (size_t)n, sizeof *copy);
    if (!copy) {
        return ctx_fail_memory(l->ctx, (size_t)n * sizeof *copy);
    }
    memcpy(copy, values, (size_t)n * sizeof *copy);
    weight_desc desc = {.name = name, .n_out = 1, .n_in = n, .type = DT_F32, .data = copy};
    jang_status status = loader_keep(out, l, &desc, NULL, copy);
    if (status != JANG_OK) {
        ctx_free(l->ctx, copy);
    }
    return status;
}

bool loader_has(loader *l, const char *name) {
    char full[LOADER_NAME_BYTES];
    return loader_name(full, l, l->prefix, name, "") == JANG_OK && loader_find(l, full);
}

jang_status loader_read_numbers(float *out, loader *l, int64_t n, const char *name) {
    char full[LOADER_NAME_BYTES];
    const tensor_view *t = NULL;
    jang_status status = loader_name(full, l, l->prefix, name, "");
    if (status == JANG_OK) {
        status = find_tensor(&t, l, full);
    }
    if (status == JANG_OK) {
        status = loader_dense_type(l, t);
    }
    if (status != JANG_OK) {
        return status;
    }
    int64_t all = 1;
    for (int i = 0; i < t->n_dim; i++) {
        all *= t->shape[i];
    }
    if (all != n) {
        return wrong_shape(l, t, n, 0);
    }
    for (int64_t i = 0; i < n; i++) {
        size_t size = (size_t)dtype_table[t->type].block_bytes;
        uint8_t bytes[4];
        if (l->survey) {
            out[i] = 1;
            continue;
        }
        memcpy(bytes, t->data + (size_t)i * size, size);
        float f;
        uint16_t h;
        memcpy(&f, bytes, sizeof f);
        memcpy(&h, bytes, sizeof h);
        out[i] = t->type == DT_F32 ? f : t->type == DT_F16 ? f16_to_f32(h) : bf16_to_f32(h);
    }
    return JANG_OK;
}

jang_status loader_find_prefix(loader *l, const char *embedding) {
    static const char *const prefixes[] = {"model.",
                                           "",
                                           "language_model.model.",
                                           "model.language_model.",
                                           "gpt_neox.",
                                           "transformer.",
                                           "backbone.",
                                           "bert.",
                                           "roberta."};
    embedding = embedding ? embedding : "embed_tokens";
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        char name[LOADER_NAME_BYTES], other[LOADER_NAME_BYTES];
        l->prefix = prefixes[i];
        snprintf(name, sizeof name, "%s%s.weight", prefixes[i], embedding);
        if (find_as_is(l, name) ||
            (l->aliases && alias_name(other, l, name) && find_as_is(l, other))) {
            return JANG_OK;
        }
    }
    return ctx_fail(l->ctx, JANG_ERR_FORMAT, "%s: tensor model.%s.weight is missing",
                    checkpoint_path(l->c), embedding);
}
