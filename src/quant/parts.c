/* parts.c - grouping a checkpoint's tensors into parameters, reading their rows. */
#include "quant/parts.h"

#include "format/affine.h"

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

/* Finds "MODULE.suffix" for a tensor "MODULE.weight"; NULL if there is none. */
static const tensor_view *find_sibling(const checkpoint *c, const char *name, size_t n_module,
                                       const char *suffix, buf *scratch) {
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
    return true;
}

static jang_status describe(model_part *part, ctx_t *ctx, checkpoint *c, buf *scratch) {
    const tensor_view *t = part->weight;
    size_t n = strlen(t->name), n_module = n > 7 ? n - 7 : 0;
    bool is_weight = n > 7 && strcmp(t->name + n_module, ".weight") == 0;
    part->name = t->name;
    part->role = role_of(t->name);
    part->n_dim = t->n_dim;
    memcpy(part->shape, t->shape, sizeof part->shape);
    part->n_bytes = t->n_bytes;
    if (is_weight && find_affine(part, c, n_module, scratch)) {
        jang_status status = describe_affine(part, ctx, c, n_module);
        if (status != JANG_OK) {
            return status;
        }
    }
    part->params = 1;
    for (int i = 0; i < part->n_dim; i++) {
        part->params *= part->shape[i];
    }
    part->columns = part->n_dim ? part->shape[part->n_dim - 1] : 1;
    part->rows = part->columns ? part->params / part->columns : 0;
    return JANG_OK;
}

/* Whether a tensor is the scales or biases of a packed weight. */
static bool belongs_to_weight(const checkpoint *c, const tensor_view *t, buf *scratch) {
    size_t n = strlen(t->name);
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
    buf scratch;
    buf_init(&scratch, ctx, 1 << 20);
    jang_status status = JANG_OK;
    for (size_t i = 0; i < n && status == JANG_OK; i++) {
        if (belongs_to_weight(c, &tensors[i], &scratch)) {
            continue;
        }
        model_part *part = &list.parts[list.n_parts];
        part->weight = &tensors[i];
        status = describe(part, ctx, c, &scratch);
        list.n_bytes += part->n_bytes;
        list.n_parts++;
    }
    if (status == JANG_OK) {
        status = buf_status(&scratch);
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
    if (part->bits || info->block > 1 || (info->is_float && info->block_bytes > 1)) {
        return JANG_OK;
    }
    return ctx_fail(ctx, JANG_ERR_UNSUPPORTED,
                    "tensor %s: type %s cannot be converted; F32, F16, BF16, F64, GGUF's block "
                    "types and MLX's affine form (U32 with scales and biases) can",
                    part->name, info->name);
}

void part_list_free(part_list *list) {
    if (list && list->ctx) {
        ctx_free(list->ctx, list->parts);
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

jang_status part_rows_f32(float *out, const checkpoint *c, const model_part *part, int64_t first,
                          int64_t n) {
    if (!part->bits) {
        return checkpoint_rows_f32(out, c, part->weight, first, n);
    }
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
    return JANG_OK;
}

void part_drop_rows(const checkpoint *c, const model_part *part, int64_t first, int64_t n) {
    checkpoint_drop_rows(c, part->weight, first, n);
}
