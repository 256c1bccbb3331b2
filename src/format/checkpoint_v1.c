/* checkpoint_v1.c - legacy JANG v1 models, seen as what they stand for in MLX's affine form.
 *
 * A v1 matrix MODULE is several tensors (docs/format.md, section 7):
 *     MODULE.qweight  U8    all rows' codes, LSB-first, rows one after another
 *     MODULE.scales   F16   [rows * groups of a row]
 *     MODULE.biases   F16   likewise; or MODULE.zeros, with bias = -scale * zero
 *     MODULE.bits     whole number, the width; or MODULE.bit_map U8, a width for each group
 *     MODULE.shape    whole numbers: [rows, columns] or [experts, rows, columns]
 * Codes lie as MLX's do, so MODULE.weight is a view of the same bytes as U32. With zeros, scales
 * and biases are made in F32, which holds the products without rounding. */
#include "base/half.h"
#include "format/affine.h"
#include "format/checkpoint_impl.h"

#include <string.h>

typedef struct v1_reader {
    checkpoint *c;
    strmap raw; /* names of the files' tensors, to numbers in c->tensors */
    tensor_view *out;
    size_t n_out;
    char *names; /* room for the new tensors' names */
    size_t n_names;
} v1_reader;

static const tensor_view *find(const v1_reader *r, const char *module, size_t n,
                               const char *suffix) {
    char name[512];
    size_t m = strlen(suffix);
    if (n + m >= sizeof name) {
        return NULL;
    }
    memcpy(name, module, n);
    memcpy(name + n, suffix, m + 1);
    int32_t at = strmap_get(&r->raw, name, n + m);
    return at >= 0 ? &r->c->tensors[at] : NULL;
}

static jang_status fail(const v1_reader *r, const tensor_view *t, const char *what) {
    return ctx_fail(r->c->ctx, JANG_ERR_FORMAT, "%s: tensor %s: %s", r->c->path, t->name, what);
}

/* Element i of a tensor of whole numbers; -1 where it is of another type, or too large. */
static int64_t whole_at(const tensor_view *t, int64_t i) {
    uint64_t value = 0;
    size_t size = (size_t)dtype_table[t->type].block_bytes;
    switch (t->type) {
    case DT_U8:
    case DT_I8:
    case DT_U16:
    case DT_I16:
    case DT_U32:
    case DT_I32:
    case DT_I64:
    case DT_U64:
        memcpy(&value, t->data + (size_t)i * size, size);
        return value < (uint64_t)1 << 31 ? (int64_t)value : -1;
    default:
        return -1;
    }
}

/* ---- One matrix ---- */

typedef struct v1_matrix {
    const tensor_view *codes, *scales, *biases, *zeros;
    int bits, group, n_dim;
    int64_t shape[3], rows, columns, n_groups;
} v1_matrix;

static jang_status read_bits(v1_matrix *m, const v1_reader *r, size_t n) {
    const tensor_view *bits = find(r, m->codes->name, n, ".bits");
    bits = bits ? bits : find(r, m->codes->name, n, ".bit_map");
    int64_t count = bits ? tensor_count(bits) : 0;
    int64_t first = count > 0 ? whole_at(bits, 0) : -1;
    if (first < 0 || !affine_bits_ok((int)first)) {
        return fail(r, m->codes, "its .bits (or .bit_map) is missing, or no width of 2 to 8 bits");
    }
    for (int64_t i = 1; i < count; i++) {
        if (whole_at(bits, i) != first) {
            return ctx_fail(r->c->ctx, JANG_ERR_UNSUPPORTED,
                            "%s: tensor %s: groups of different widths in one matrix are not read",
                            r->c->path, bits->name);
        }
    }
    m->bits = (int)first;
    return JANG_OK;
}

static jang_status read_shape(v1_matrix *m, const v1_reader *r, size_t n) {
    const tensor_view *shape = find(r, m->codes->name, n, ".shape");
    int64_t n_dim = shape ? tensor_count(shape) : 0;
    if (n_dim < 2 || n_dim > 3) {
        return fail(r, m->codes, "its .shape is missing, or not of two or three numbers");
    }
    m->n_dim = (int)n_dim;
    m->rows = 1;
    for (int i = 0; i < m->n_dim; i++) {
        m->shape[i] = whole_at(shape, i);
        if (m->shape[i] < 1 || m->shape[i] > 1 << 28 || m->rows > (int64_t)1 << 32) {
            return fail(r, shape, "sizes must be whole numbers from 1 to 268435456");
        }
        m->rows *= i + 1 < m->n_dim ? m->shape[i] : 1;
    }
    m->columns = m->shape[m->n_dim - 1];
    return JANG_OK;
}

static jang_status read_groups(v1_matrix *m, const v1_reader *r, size_t n) {
    m->scales = find(r, m->codes->name, n, ".scales");
    m->biases = find(r, m->codes->name, n, ".biases");
    m->zeros = m->biases ? NULL : find(r, m->codes->name, n, ".zeros");
    const tensor_view *second = m->biases ? m->biases : m->zeros;
    if (!m->scales || !second || m->scales->type != DT_F16 || second->type != DT_F16 ||
        tensor_count(m->scales) != tensor_count(second)) {
        return fail(r, m->codes,
                    "its .scales and .biases (or .zeros) must be F16, one each a group");
    }
    int64_t count = tensor_count(m->scales);
    m->n_groups = count / m->rows;
    int64_t group = m->n_groups > 0 ? m->columns / m->n_groups : 0;
    if (count % m->rows != 0 || m->n_groups < 1 || group * m->n_groups != m->columns ||
        group > 128 || !affine_group_ok((int)group)) {
        return fail(r, m->scales, "rows must be whole groups of 32, 64 or 128");
    }
    m->group = (int)group;
    if (m->columns * m->bits % 32 != 0 ||
        (uint64_t)m->codes->n_bytes != (uint64_t)(m->rows * (m->columns * m->bits / 8))) {
        return fail(r, m->codes, "its size is not what .shape and .bits say");
    }
    return JANG_OK;
}

static const char *add_name(v1_reader *r, const char *module, size_t n, const char *suffix) {
    char *name = r->names + r->n_names;
    memcpy(name, module, n);
    memcpy(name + n, suffix, strlen(suffix) + 1);
    r->n_names += n + strlen(suffix) + 1;
    return name;
}

static void add_tensor(v1_reader *r, const v1_matrix *m, const char *name, dtype type,
                       int64_t columns, const void *data) {
    tensor_view t = {.name = name, .type = type, .n_dim = m->n_dim, .data = data};
    memcpy(t.shape, m->shape, sizeof m->shape);
    t.shape[m->n_dim - 1] = columns;
    t.n_bytes = (size_t)(m->rows * columns) * (size_t)dtype_table[type].block_bytes;
    r->out[r->n_out++] = t;
}

static float half_at(const tensor_view *t, int64_t i) {
    uint16_t h;
    memcpy(&h, t->data + 2 * i, sizeof h);
    return f16_to_f32(h);
}

/* Scales and biases in F32, kept by the checkpoint. */
static jang_status add_made_biases(v1_reader *r, const v1_matrix *m, size_t n) {
    checkpoint *c = r->c;
    size_t count = (size_t)(m->rows * m->n_groups);
    float **made = ctx_realloc(c->ctx, c->made, (c->n_made + 1) * sizeof *made);
    float *numbers = ctx_array(c->ctx, 2 * count, sizeof *numbers);
    c->made = made ? made : c->made;
    if (!made || !numbers) {
        ctx_free(c->ctx, numbers);
        return ctx_fail_memory(c->ctx, 2 * count * sizeof *numbers);
    }
    c->made[c->n_made++] = numbers;
    for (size_t i = 0; i < count; i++) {
        float scale = half_at(m->scales, (int64_t)i), zero = half_at(m->zeros, (int64_t)i);
        numbers[i] = scale;
        numbers[count + i] = zero != 0 ? -scale * zero : 0;
    }
    add_tensor(r, m, add_name(r, m->codes->name, n, ".scales"), DT_F32, m->n_groups, numbers);
    add_tensor(r, m, add_name(r, m->codes->name, n, ".biases"), DT_F32, m->n_groups,
               numbers + count);
    return JANG_OK;
}

static jang_status add_matrix(v1_reader *r, const tensor_view *codes) {
    v1_matrix m = {.codes = codes};
    size_t n = strlen(codes->name) - strlen(".qweight");
    jang_status status = read_bits(&m, r, n);
    if (status == JANG_OK) {
        status = read_shape(&m, r, n);
    }
    if (status == JANG_OK) {
        status = read_groups(&m, r, n);
    }
    if (status == JANG_OK) {
        status = strmap_put(&r->c->forms, codes->name, n, m.bits << 8 | m.group, NULL);
    }
    if (status != JANG_OK) {
        return status;
    }
    add_tensor(r, &m, add_name(r, codes->name, n, ".weight"), DT_U32,
               affine_row_words(m.columns, m.bits), codes->data);
    if (m.zeros) {
        return add_made_biases(r, &m, n);
    }
    add_tensor(r, &m, add_name(r, codes->name, n, ".scales"), DT_F16, m.n_groups, m.scales->data);
    add_tensor(r, &m, add_name(r, codes->name, n, ".biases"), DT_F16, m.n_groups, m.biases->data);
    return JANG_OK;
}

/* ---- All ---- */

/* Whether a tensor is a part of a matrix with codes. */
static bool is_piece(const v1_reader *r, const char *name) {
    static const char *const pieces[] = {".scales", ".biases",  ".zeros",        ".bits",
                                         ".shape",  ".bit_map", ".block_offsets"};
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        if (path_has_suffix(name, pieces[i])) {
            const tensor_view *codes = find(r, name, strlen(name) - strlen(pieces[i]), ".qweight");
            return codes && codes->type == DT_U8;
        }
    }
    return false;
}

static jang_status make_room(v1_reader *r) {
    checkpoint *c = r->c;
    size_t n_bytes = 1;
    for (size_t i = 0; i < c->n_tensors; i++) {
        n_bytes += 3 * (strlen(c->tensors[i].name) + 1);
    }
    r->out = ctx_zero(c->ctx, 3 * c->n_tensors + 1, sizeof *r->out);
    r->names = c->names = ctx_alloc(c->ctx, n_bytes);
    if (!r->out || !r->names) {
        return ctx_fail_memory(c->ctx, n_bytes + 3 * c->n_tensors * sizeof *r->out);
    }
    jang_status status = strmap_reserve(&r->raw, c->n_tensors);
    for (size_t i = 0; i < c->n_tensors && status == JANG_OK; i++) {
        const char *name = c->tensors[i].name;
        status = strmap_put(&r->raw, name, strlen(name), (int32_t)i, NULL);
    }
    return status;
}

jang_status checkpoint_take_v1(checkpoint *c) {
    v1_reader r = {.c = c};
    strmap_init(&r.raw, c->ctx);
    jang_status status = make_room(&r);
    for (size_t i = 0; i < c->n_tensors && status == JANG_OK; i++) {
        const tensor_view *t = &c->tensors[i];
        if (t->type == DT_U8 && path_has_suffix(t->name, ".qweight")) {
            status = add_matrix(&r, t);
        } else if (!is_piece(&r, t->name)) {
            r.out[r.n_out++] = *t;
        }
    }
    strmap_free(&r.raw);
    if (status != JANG_OK) {
        ctx_free(c->ctx, r.out);
        return status;
    }
    ctx_free(c->ctx, c->tensors);
    c->tensors = r.out;
    c->n_tensors = r.n_out;
    return JANG_OK;
}
