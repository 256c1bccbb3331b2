/* parts.c - grouping a checkpoint's tensors into parameters, reading their rows. */
#include "quant/parts.h"

#include "format/affine.h"
#include "format/scaled.h"
#include "quant/folds.h"
#include "quant/int_parts.h"
#include "quant/part_maps.h"
#include "quant/scaling.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* Compares two runs of digits by value and steps over them. */
static int compare_numbers(const char **a, const char **b) {
    const char *p = *a, *q = *b;
    while (*p == '0' && is_digit(p[1])) {
        p++;
    }
    while (*q == '0' && is_digit(q[1])) {
        q++;
    }
    size_t n = 0, m = 0;
    while (is_digit(p[n])) {
        n++;
    }
    while (is_digit(q[m])) {
        m++;
    }
    *a = p + n;
    *b = q + m;
    return n != m ? (n < m ? -1 : 1) : memcmp(p, q, n);
}

int part_compare_names(const char *a, const char *b) {
    const char *p = a, *q = b;
    while (*p && *q) {
        if (is_digit(*p) && is_digit(*q)) {
            int order = compare_numbers(&p, &q);
            if (order != 0) {
                return order;
            }
        } else if (*p != *q) {
            break;
        } else {
            p++;
            q++;
        }
    }
    int order = (unsigned char)*p - (unsigned char)*q;
    return order != 0 ? order : strcmp(a, b); /* "01" and "1" are different names */
}

static int compare_parts(const void *a, const void *b) {
    return part_compare_names(((const model_part *)a)->name, ((const model_part *)b)->name);
}

/* Finds "MODULE.suffix" for a tensor "MODULE.weight"; NULL if there is none, or no memory, which
 * scratch remembers. */
static const tensor_view *find_sibling(const checkpoint *c, const char *name, size_t n_module,
                                       const char *suffix, buf *scratch) {
    if (scratch->status != JANG_OK) {
        return NULL;
    }
    buf_clear(scratch);
    buf_put(scratch, name, n_module);
    buf_puts(scratch, suffix);
    return scratch->status == JANG_OK ? checkpoint_find(c, scratch->data) : NULL;
}

/* Fills in bits, group and shape of a module in affine form. */
static jang_status describe_affine(model_part *part, ctx_t *ctx, checkpoint *c, size_t n_module) {
    char *module = ctx_strndup(ctx, part->name, n_module);
    if (!module) {
        return ctx_fail_memory(ctx, n_module);
    }
    int hint_bits = 0, hint_group = 0;
    jang_status status = checkpoint_quantization(&hint_bits, &hint_group, c, module);
    ctx_free(ctx, module);
    if (status != JANG_OK) {
        return status;
    }
    status = affine_infer(&part->bits, &part->group, ctx, part->weight, part->scales, part->biases,
                          hint_bits, hint_group);
    if (status != JANG_OK) {
        return ctx_prefix(ctx, status, "%s", checkpoint_path(c));
    }
    part->shape[part->n_dim - 1] = tensor_columns(part->scales) * part->group;
    part->n_bytes += part->scales->n_bytes + part->biases->n_bytes;
    return JANG_OK;
}

/* Whether a weight is in affine form: packed, with scales and biases, which are then set. */
static bool find_affine(model_part *part, const checkpoint *c, size_t n_module, buf *scratch) {
    const tensor_view *t = part->weight;
    if (t->type != DT_U32 || t->n_dim < 2) {
        return false;
    }
    const tensor_view *scales = find_sibling(c, t->name, n_module, ".scales", scratch);
    const tensor_view *biases = find_sibling(c, t->name, n_module, ".biases", scratch);
    if (!scales || !biases) {
        return false;
    }
    part->scales = scales;
    part->biases = biases;
    part->packing = PACKING_AFFINE;
    return true;
}

/* ---- FP8 with block scales, MXFP4 ---- */

static bool has_suffix(const char *name, const char *suffix) {
    size_t n = strlen(name), m = strlen(suffix);
    return n > m && strcmp(name + n - m, suffix) == 0;
}

static jang_status find_fp8(model_part *part, ctx_t *ctx, const checkpoint *c, const int64_t *block,
                            buf *scratch) {
    const tensor_view *t = part->weight;
    if (t->type != DT_F8_E4M3 || t->n_dim != 2) {
        return JANG_OK;
    }
    const tensor_view *scales = find_sibling(c, t->name, strlen(t->name), "_scale_inv", scratch);
    if (!scales) {
        return JANG_OK;
    }
    int64_t rows = (t->shape[0] + block[0] - 1) / block[0];
    int64_t columns = (t->shape[1] + block[1] - 1) / block[1];
    if (scales->type != DT_F32 || scales->n_dim != 2 || scales->shape[0] != rows ||
        scales->shape[1] != columns) {
        return ctx_fail(ctx, JANG_ERR_FORMAT,
                        "%s: tensor %s: a weight of [%lld, %lld] in blocks of [%lld, %lld] has F32 "
                        "scales of [%lld, %lld]",
                        checkpoint_path(c), scales->name, (long long)t->shape[0],
                        (long long)t->shape[1], (long long)block[0], (long long)block[1],
                        (long long)rows, (long long)columns);
    }
    part->packing = PACKING_FP8;
    part->scales = scales;
    part->block_rows = block[0];
    part->block_columns = block[1];
    part->n_bytes += scales->n_bytes;
    return JANG_OK;
}

/* The part that "NAME_blocks" and "NAME_scales" make has the name NAME. */
static jang_status find_mxfp4(model_part *part, part_list *list, const checkpoint *c,
                              buf *scratch) {
    const tensor_view *t = part->weight;
    if (t->type != DT_U8 || !has_suffix(t->name, "_blocks")) {
        return JANG_OK;
    }
    size_t n = strlen(t->name) - strlen("_blocks");
    const tensor_view *scales = find_sibling(c, t->name, n, "_scales", scratch);
    if (!scales || scales->type != DT_U8) {
        return JANG_OK;
    }
    int last = t->n_dim - 1;
    if (last < 2 || t->shape[last] != MXFP4_BYTES || scales->n_dim != last ||
        memcmp(t->shape, scales->shape, (size_t)last * sizeof *t->shape) != 0 ||
        t->shape[last - 1] > INT64_MAX / MXFP4_GROUP) {
        return ctx_fail(list->ctx, JANG_ERR_FORMAT,
                        "%s: tensor %s and its scales are no MXFP4 weight: [.., groups, 16] and "
                        "[.., groups]",
                        checkpoint_path(c), t->name);
    }
    char *name = ctx_strndup(list->ctx, t->name, n);
    if (!name) {
        return ctx_fail_memory(list->ctx, n);
    }
    list->names[list->n_names++] = name;
    part->name = name;
    part->packing = PACKING_MXFP4;
    part->scales = scales;
    part->n_dim = last;
    part->shape[last - 1] *= MXFP4_GROUP;
    part->n_bytes += scales->n_bytes;
    return JANG_OK;
}

void part_set_sizes(model_part *part) {
    part->params = 1;
    for (int i = 0; i < part->n_dim; i++) {
        part->params *= part->shape[i];
    }
    part->columns = part->n_dim ? part->shape[part->n_dim - 1] : 1;
    part->rows = part->columns ? part->params / part->columns : 0;
}

/* How the packed weights of a checkpoint that others quantized are laid out. */
typedef struct source_layout {
    int64_t block[2]; /* rows and columns that share a scale in FP8 */
    int_source ints;  /* AWQ, GPTQ */
} source_layout;

/* Describes "MODULE.qweight" of AWQ or GPTQ, which becomes the part "MODULE.weight". */
static jang_status describe_int(model_part *part, part_list *list, const checkpoint *c,
                                const int_source *ints) {
    size_t n = strlen(part->weight->name), n_module = n - strlen(".qweight");
    char *name = ctx_alloc(list->ctx, n + 1);
    if (!name) {
        return ctx_fail_memory(list->ctx, n + 1);
    }
    memcpy(name, part->weight->name, n_module);
    memcpy(name + n_module, ".weight", sizeof ".weight");
    list->names[list->n_names++] = name;
    part->role = role_of(name);
    return int_part_describe(part, list->ctx, c, ints, name);
}

/* The hub's names of experts stored together have no ".weight", with which their codes lie here. */
static jang_status drop_suffix(model_part *part, part_list *list, size_t n_module) {
    char *name = ctx_strndup(list->ctx, part->name, n_module);
    if (!name) {
        return ctx_fail_memory(list->ctx, n_module);
    }
    list->names[list->n_names++] = name;
    part->name = name;
    return JANG_OK;
}

static jang_status describe(model_part *part, part_list *list, checkpoint *c,
                            const source_layout *layout, buf *scratch) {
    if (layout->ints.is_int && has_suffix(part->weight->name, ".qweight")) {
        return describe_int(part, list, c, &layout->ints);
    }
    const int64_t *block = layout->block;
    ctx_t *ctx = list->ctx;
    const tensor_view *t = part->weight;
    size_t n = strlen(t->name), n_module = n > 7 ? n - 7 : 0;
    bool is_weight = n > 7 && strcmp(t->name + n_module, ".weight") == 0;
    part->name = t->name;
    part->n_dim = t->n_dim;
    memcpy(part->shape, t->shape, sizeof part->shape);
    part->n_bytes = t->n_bytes;
    if (is_weight && find_affine(part, c, n_module, scratch)) {
        jang_status status = describe_affine(part, ctx, c, n_module);
        if (status != JANG_OK) {
            return status;
        }
    }
    jang_status status = JANG_OK;
    if (checkpoint_is_v1(c) && t->n_dim == 3 && strstr(t->name, ".experts.")) {
        status = drop_suffix(part, list, n_module);
    }
    if (status == JANG_OK) {
        status = find_fp8(part, ctx, c, block, scratch);
    }
    if (status == JANG_OK) {
        status = find_mxfp4(part, list, c, scratch);
    }
    part->role = role_of(part->name);
    part_set_sizes(part);
    return status;
}

/* Rows and columns that share a scale in an FP8 checkpoint. */
static jang_status read_block(int64_t block[2], ctx_t *ctx, checkpoint *c) {
    const json_t *config, *section, *sizes;
    block[0] = block[1] = 128;
    jang_status status = checkpoint_json(&config, c, "config.json");
    json_at at = {ctx, "config.json", config};
    if (status == JANG_OK && config) {
        status = json_get_object(&section, at, "quantization_config");
        at.object = section;
        if (status == JANG_OK && section) {
            status = json_get_array(&sizes, at, "weight_block_size");
        }
        for (size_t i = 0; status == JANG_OK && section && sizes && i < 2; i++) {
            block[i] = json_integer_value(json_array_get(sizes, i));
            if (block[i] < 1 || block[i] > 1 << 20) {
                status = ctx_fail(ctx, JANG_ERR_FORMAT,
                                  "config.json: weight_block_size must be two numbers above 0");
            }
        }
    }
    return status;
}

static jang_status read_layout(source_layout *out, ctx_t *ctx, checkpoint *c) {
    const json_t *config;
    *out = (source_layout){0};
    jang_status status = read_block(out->block, ctx, c);
    if (status == JANG_OK) {
        status = checkpoint_json(&config, c, "config.json");
    }
    return status == JANG_OK && config ? int_source_read(&out->ints, ctx, config) : status;
}

/* Whether a tensor is the scales of an FP8 or MXFP4 weight. */
static bool belongs_to_scaled(const checkpoint *c, const tensor_view *t, buf *scratch) {
    static const struct {
        const char *suffix, *owner;
        dtype type;
    } kinds[] = {{"_scale_inv", "", DT_F8_E4M3}, {"_scales", "_blocks", DT_U8}};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (has_suffix(t->name, kinds[i].suffix)) {
            size_t n = strlen(t->name) - strlen(kinds[i].suffix);
            const tensor_view *owner = find_sibling(c, t->name, n, kinds[i].owner, scratch);
            return owner && owner->type == kinds[i].type;
        }
    }
    return false;
}

/* Whether a tensor is the scales or biases of a packed weight. */
static bool belongs_to_weight(const checkpoint *c, const source_layout *layout,
                              const tensor_view *t, buf *scratch) {
    size_t n = strlen(t->name);
    if (belongs_to_scaled(c, t, scratch) || int_part_owns(c, &layout->ints, t)) {
        return true;
    }
    if (n <= 7 ||
        (strcmp(t->name + n - 7, ".scales") != 0 && strcmp(t->name + n - 7, ".biases") != 0)) {
        return false;
    }
    model_part owner = {.weight = find_sibling(c, t->name, n - 7, ".weight", scratch)};
    return owner.weight && find_affine(&owner, c, n - 7, scratch);
}

jang_status part_list_make(part_list *out, ctx_t *ctx, checkpoint *c) {
    size_t n;
    const tensor_view *tensors = checkpoint_tensors(c, &n);
    part_list list = {.ctx = ctx, .parts = ctx_zero(ctx, n ? n : 1, sizeof *list.parts)};
    if (!list.parts) {
        return ctx_fail_memory(ctx, n * sizeof *list.parts);
    }
    list.names = ctx_zero(ctx, n ? n : 1, sizeof *list.names);
    if (!list.names) {
        part_list_free(&list);
        return ctx_fail_memory(ctx, n * sizeof *list.names);
    }
    buf scratch;
    buf_init(&scratch, ctx, 1 << 20);
    source_layout layout;
    jang_status status = read_layout(&layout, ctx, c);
    for (size_t i = 0; i < n && status == JANG_OK; i++) {
        bool belongs = belongs_to_weight(c, &layout, &tensors[i], &scratch);
        status = buf_status(&scratch);
        if (belongs || status != JANG_OK) {
            continue;
        }
        model_part *part = &list.parts[list.n_parts];
        part->weight = &tensors[i];
        status = describe(part, &list, c, &layout, &scratch);
        status = scratch.status == JANG_OK ? status : buf_status(&scratch);
        list.n_bytes += part->n_bytes;
        list.n_parts++;
    }
    buf_free(&scratch);
    if (status != JANG_OK) {
        part_list_free(&list);
        return status;
    }
    qsort(list.parts, list.n_parts, sizeof *list.parts, compare_parts);
    *out = list;
    return JANG_OK;
}

jang_status part_check_type(ctx_t *ctx, const model_part *part) {
    const dtype_info *info = &dtype_table[part->weight->type];
    if (part->packing != PACKING_NONE || info->block > 1 ||
        (info->is_float && info->block_bytes > 1)) {
        return JANG_OK;
    }
    return ctx_fail(
        ctx, JANG_ERR_UNSUPPORTED,
        "tensor %s: type %s cannot be converted; F32, F16, BF16, F64, GGUF's block "
        "types, FP8 with block scales, MXFP4, AWQ, GPTQ and MLX's affine form (U32 with "
        "scales and biases) can",
        part->name, info->name);
}

void part_list_free(part_list *list) {
    if (list && list->ctx) {
        for (size_t i = 0; i < list->n_names; i++) {
            ctx_free(list->ctx, list->names[i]);
        }
        ctx_free(list->ctx, list->names);
        ctx_free(list->ctx, list->parts);
        ctx_free(list->ctx, list->factors);
        part_maps_free(list->maps, list->ctx);
        *list = (part_list){0};
    }
}

const model_part *part_find(const part_list *list, const char *name) {
    size_t lo = 0, hi = list->n_parts;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int order = part_compare_names(name, list->parts[mid].name);
        if (order == 0) {
            return &list->parts[mid];
        }
        if (order < 0) {
            hi = mid;
        } else {
            lo = mid + 1;
        }
    }
    return NULL;
}

static void affine_rows(float *out, const model_part *part, int64_t first, int64_t n) {
    size_t word_bytes = (size_t)affine_row_words(part->columns, part->bits) * sizeof(uint32_t);
    size_t scale_bytes =
        (size_t)(part->columns / part->group) * (size_t)dtype_table[part->scales->type].block_bytes;
    for (int64_t i = 0; i < n; i++) {
        size_t row = (size_t)(first + i);
        affine_row_f32(out + i * part->columns, part->weight->data + row * word_bytes,
                       part->scales->data + row * scale_bytes,
                       part->biases->data + row * scale_bytes, part->scales->type, part->columns,
                       part->bits, part->group);
    }
}

static void fp8_run(float *out, const model_part *part, int64_t row, int64_t column, int64_t n) {
    int64_t n_scales = part->scales->shape[1];
    scaled_fp8_f32(out, part->weight->data + row * part->columns,
                   part->scales->data + row / part->block_rows * n_scales * 4, column, n,
                   part->block_columns);
}

/* The numbers as they are stored. */
static jang_status read_rows(float *out, const checkpoint *c, const model_part *part, int64_t first,
                             int64_t n) {
    if (part->map) {
        return part_map_rows(out, c, part, first, n);
    }
    int64_t n_groups = part->columns / MXFP4_GROUP;
    switch (part->packing) {
    case PACKING_AFFINE:
        affine_rows(out, part, first, n);
        return JANG_OK;
    case PACKING_FP8:
        for (int64_t i = 0; i < n; i++) {
            fp8_run(out + i * part->columns, part, first + i, 0, part->columns);
        }
        return JANG_OK;
    case PACKING_MXFP4:
        scaled_mxfp4_f32(out, part->weight->data + first * n_groups * MXFP4_BYTES,
                         part->scales->data + first * n_groups, n * n_groups);
        return JANG_OK;
    case PACKING_GPTQ:
    case PACKING_AWQ:
        int_part_rows_f32(out, part, first, n);
        return JANG_OK;
    case PACKING_NONE:
        break;
    }
    return checkpoint_rows_f32(out, c, part->weight, first, n);
}

jang_status part_rows_f32(float *out, const checkpoint *c, const model_part *part, int64_t first,
                          int64_t n) {
    jang_status status = read_rows(out, c, part, first, n);
    for (int64_t i = 0; i < n * part->columns && status == JANG_OK && part->add != 0; i++) {
        out[i] += part->add;
    }
    if (status == JANG_OK && part->factors) {
        folds_rows(out, part, first, n);
    }
    if (status == JANG_OK && part->scaling) {
        scaling_apply(out, part, first, n);
    }
    return status;
}

#define RUN_GROUP 128 /* the largest group of MLX's form */

/* Columns of a row that is packed in groups: those of each group that are asked for. */
static void grouped_run(float *out, const model_part *part, int64_t row, int64_t column,
                        int64_t n) {
    float numbers[RUN_GROUP];
    int64_t group = part->packing == PACKING_MXFP4 ? MXFP4_GROUP : part->group;
    int64_t n_groups = part->columns / group;
    for (int64_t i = 0, k; i < n; i += k) {
        int64_t g = (column + i) / group, at = (column + i) % group;
        size_t number = (size_t)(row * n_groups + g);
        k = group - at < n - i ? group - at : n - i;
        if (part->packing == PACKING_MXFP4) {
            scaled_mxfp4_f32(numbers, part->weight->data + number * MXFP4_BYTES,
                             part->scales->data + number, 1);
        } else {
            size_t scale_bytes = (size_t)dtype_table[part->scales->type].block_bytes;
            affine_row_f32(numbers, part->weight->data + number * (size_t)(group * part->bits / 8),
                           part->scales->data + number * scale_bytes,
                           part->biases->data + number * scale_bytes, part->scales->type, group,
                           part->bits, (int)group);
        }
        memcpy(out + i, numbers + at, (size_t)k * sizeof *out);
    }
}

jang_status part_run_f32(float *out, const checkpoint *c, const model_part *part, int64_t row,
                         int64_t column, int64_t n) {
    if (part->map) {
        return part_map_run(out, c, part, row, column, n);
    }
    switch (part->packing) {
    case PACKING_FP8:
        fp8_run(out, part, row, column, n);
        return JANG_OK;
    case PACKING_AFFINE:
    case PACKING_MXFP4:
        grouped_run(out, part, row, column, n);
        return JANG_OK;
    case PACKING_GPTQ:
    case PACKING_AWQ:
        assert(false); /* maps and joins refuse columns of packed integers */
        return JANG_ERR_UNSUPPORTED;
    case PACKING_NONE:
        break;
    }
    return checkpoint_elements_f32(out, c, part->weight, row * part->columns + column, n);
}

void part_drop_rows(const checkpoint *c, const model_part *part, int64_t first, int64_t n) {
    if (part->map) {
        part_map_drop(c, part, first, n);
    } else if (part->packing == PACKING_GPTQ || part->packing == PACKING_AWQ) {
        return; /* turned: every row lies in all of the tensor */
    } else if (tensor_columns(part->weight) * tensor_rows(part->weight) > 0) {
        /* in rows of the tensor, which for MXFP4 are groups */
        int64_t share = tensor_rows(part->weight) / part->rows;
        checkpoint_drop_rows(c, part->weight, first * share, n * share);
    }
}
