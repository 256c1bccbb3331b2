/* kept_codes.c - codes of MLX's, AWQ's and GPTQ's checkpoints in the form of the output. */
#include "quant/kept_codes.h"

#include "base/half.h"
#include "format/affine.h"
#include "format/int_packed.h"
#include "quant/int_parts.h"
#include "quant/part_maps.h"

#include <math.h>
#include <string.h>

/* The stored part that a row is taken from. */
static const model_part *source_of(const model_part *part, int64_t row, int64_t *at) {
    if (!part->map) {
        *at = row;
        return part;
    }
    return part_map_source(part, row, at);
}

/* ---- The form ---- */

static int fit_group(const model_part *part) {
    static const int groups[] = {128, 64, 32};
    for (int i = 0; i < 3; i++) {
        bool divides = part->group % groups[i] == 0 && part->columns % groups[i] == 0;
        if (divides && part->columns * part->bits % 32 == 0) {
            return groups[i];
        }
    }
    return 0;
}

static bool is_exact(float x, dtype type) {
    float y = type == DT_F16    ? f16_to_f32(f32_to_f16(x))
              : type == DT_BF16 ? bf16_to_f32(f32_to_bf16(x))
                                : x;
    return x == y;
}

/* Whether all biases are numbers of the scales' type. */
static bool biases_fit(const model_part *part) {
    const int_packed p = int_part_packed(part);
    for (int64_t o = 0; o < p.n_out; o++) {
        for (int64_t g = 0; g < p.n_group; g++) {
            float scale, bias;
            int_packed_group(&scale, &bias, &p, o, g);
            if (!is_exact(bias, p.scale_type)) {
                return false;
            }
        }
    }
    return true;
}

static bool int_form(kept_form *out, const char **why, const model_part *part) {
    const int_packed p = int_part_packed(part);
    int group = fit_group(part);
    if (!int_packed_in_order(&p)) {
        *why = "its groups are not in the order of its columns (act-order): quantized anew";
        return false;
    }
    if (!group) {
        *why = "its groups are none of 32, 64, 128: quantized anew";
        return false;
    }
    *out = (kept_form){part->bits, group, biases_fit(part) ? p.scale_type : DT_F32};
    return true;
}

static bool stored_form(kept_form *out, const char **why, const model_part *part) {
    switch (part->packing) {
    case PACKING_AFFINE:
        *out = (kept_form){part->bits, part->group, part->scales->type};
        return true;
    case PACKING_AWQ:
    case PACKING_GPTQ:
        return int_form(out, why, part);
    case PACKING_NONE:
    case PACKING_FP8:
    case PACKING_MXFP4:
        break;
    }
    return false;
}

/* The form of a part that is put together of others: theirs, if they have one. AWQ's and GPTQ's are
 * stored in F32 where one of them needs it. */
static bool joined_form(kept_form *out, const char **why, const model_part *part) {
    static const char apart[] = "it is put together of parts that cannot be kept: quantized anew";
    const model_part *last = NULL;
    kept_form all = {0};
    for (int64_t row = 0; row < part->rows; row++) {
        int64_t at;
        kept_form form;
        const model_part *source = part_map_source(part, row, &at);
        if (source && source == last) {
            continue;
        }
        if (!source || source->packing != part->packing || !stored_form(&form, why, source)) {
            bool packed = part->packing == PACKING_AFFINE || part->packing == PACKING_AWQ ||
                          part->packing == PACKING_GPTQ;
            *why = *why ? *why : packed ? apart : NULL;
            return false;
        }
        all = last ? all : form;
        if (part->packing != PACKING_AFFINE && form.type != all.type) {
            form.type = all.type = DT_F32;
        }
        if (form.bits != all.bits || form.group != all.group || form.type != all.type) {
            *why = apart;
            return false;
        }
        last = source;
    }
    *out = all;
    return last != NULL;
}

bool kept_codes_form(kept_form *out, const char **why, const model_part *part) {
    *why = NULL;
    if (part->factors || part->add != 0) { /* numbers are changed as they are read */
        bool packed = part->packing != PACKING_NONE;
        *why = packed ? "the config's multipliers go into it: quantized anew" : NULL;
        return false;
    }
    return part->map ? joined_form(out, why, part) : stored_form(out, why, part);
}

/* ---- Rows ---- */

static size_t type_bytes(dtype type) {
    return (size_t)dtype_table[type].block_bytes;
}

static bool put_number(uint8_t *to, float x, dtype type) {
    if (type == DT_F32) {
        memcpy(to, &x, sizeof x);
    } else {
        uint16_t h = type == DT_BF16 ? f32_to_bf16(x) : f32_to_f16(x);
        memcpy(to, &h, sizeof h);
    }
    return isfinite(x);
}

static float number_at(const uint8_t *from, dtype type) {
    uint16_t h;
    float x;
    if (type == DT_F32) {
        memcpy(&x, from, sizeof x);
        return x;
    }
    memcpy(&h, from, sizeof h);
    return type == DT_BF16 ? bf16_to_f32(h) : f16_to_f32(h);
}

static bool affine_row(uint8_t *words, uint8_t *scales, uint8_t *biases, const kept_form *form,
                       const model_part *part, int64_t row) {
    size_t n_words = (size_t)affine_row_words(part->columns, form->bits) * 4;
    size_t n_groups = (size_t)(part->columns / form->group), size = type_bytes(form->type);
    size_t at = (size_t)row;
    memcpy(words, part->weight->data + at * n_words, n_words);
    memcpy(scales, part->scales->data + at * n_groups * size, n_groups * size);
    memcpy(biases, part->biases->data + at * n_groups * size, n_groups * size);
    bool finite = true;
    for (size_t g = 0; g < n_groups; g++) {
        finite &= isfinite(number_at(scales + g * size, form->type)) &&
                  isfinite(number_at(biases + g * size, form->type));
    }
    return finite;
}

#define CODES_STEP 256 /* a multiple of 32 */

static bool int_row(uint8_t *words, uint8_t *scales, uint8_t *biases, const kept_form *form,
                    const model_part *part, int64_t row) {
    const int_packed p = int_part_packed(part);
    uint8_t codes[CODES_STEP];
    uint32_t packed[CODES_STEP / 4];
    bool finite = true;
    for (int64_t i = 0; i < p.n_in; i += CODES_STEP) {
        int64_t n = p.n_in - i < CODES_STEP ? p.n_in - i : CODES_STEP;
        for (int64_t k = 0; k < n; k++) {
            codes[k] = int_packed_code(&p, row, i + k);
        }
        affine_pack(packed, codes, n, form->bits);
        memcpy(words + (size_t)(i * form->bits / 8), packed, (size_t)(n * form->bits / 8));
    }
    size_t size = type_bytes(form->type);
    for (int64_t g = 0; g < p.n_in / form->group; g++) {
        float scale, bias;
        int_packed_group(&scale, &bias, &p, row, g * form->group / p.group);
        finite &= put_number(scales + (size_t)g * size, scale, form->type);
        finite &= put_number(biases + (size_t)g * size, bias, form->type);
    }
    return finite;
}

bool kept_codes_rows(void *words, void *scales, void *biases, const kept_form *form,
                     const model_part *part, int64_t first, int64_t n) {
    size_t n_words = (size_t)affine_row_words(part->columns, form->bits) * 4;
    size_t n_scales = (size_t)(part->columns / form->group) * type_bytes(form->type);
    bool finite = true;
    for (int64_t i = 0; i < n; i++) {
        int64_t row;
        const model_part *source = source_of(part, first + i, &row);
        size_t at = (size_t)i;
        uint8_t *w = (uint8_t *)words + at * n_words, *s = (uint8_t *)scales + at * n_scales;
        uint8_t *b = (uint8_t *)biases + at * n_scales;
        finite &= part->packing == PACKING_AFFINE ? affine_row(w, s, b, form, source, row)
                                                  : int_row(w, s, b, form, source, row);
    }
    return finite;
}
