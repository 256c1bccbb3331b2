/* jang_config.c - the sections that describe a quantized model. */
#include "format/jang_config.h"

#include "format/affine.h"

#include <math.h>
#include <string.h>

static jang_status no_memory(ctx_t *ctx) {
    return ctx_fail(ctx, JANG_ERR_MEMORY, "out of memory while writing a model's config");
}

/* ---- config.json ---- */

void jang_config_commonest(int *bits, int *group, const quant_module *modules, size_t n) {
    static const int groups[] = {64, 32, 128};
    int64_t most = 0;
    *bits = *group = 0;
    for (int g = 0; g < 3; g++) {
        for (int b = 2; b <= 8; b++) {
            int64_t sum = 0;
            for (size_t i = 0; i < n; i++) {
                bool same = modules[i].bits == b && modules[i].group == groups[g];
                sum += same ? modules[i].n_weights : 0;
            }
            if (sum > most) {
                most = sum;
                *bits = b;
                *group = groups[g];
            }
        }
    }
}

/* {"group_size", "bits", "mode"}: the three keys in mlx-lm's order. */
static json_t *pair_object(int bits, int group) {
    return json_pack("{s:i,s:i,s:s}", "group_size", group, "bits", bits, "mode", "affine");
}

jang_status jang_config_quantized(json_t **out, ctx_t *ctx, const json_t *config,
                                  const quant_module *modules, size_t n, int bits, int group) {
    json_t *copy = json_deep_copy(config);
    json_t *section = pair_object(bits, group);
    jang_status status = JANG_OK;
    bool any = false;
    if (!copy || !section) {
        status = no_memory(ctx);
        goto done;
    }
    for (size_t i = 0; i < n; i++) {
        const quant_module *m = &modules[i];
        any = any || m->bits;
        if (!m->bits || (m->bits == bits && m->group == group)) {
            continue;
        }
        json_t *entry = pair_object(m->bits, m->group);
        if (!entry || json_object_set_new(section, m->module, entry) != 0) {
            status = no_memory(ctx);
            goto done;
        }
    }
    json_object_del(copy, "quantization");
    json_object_del(copy, "quantization_config");
    if (any && (json_object_set(copy, "quantization", section) != 0 ||
                json_object_set(copy, "quantization_config", section) != 0)) {
        status = no_memory(ctx);
        goto done;
    }
    *out = copy;
    copy = NULL;
done:
    json_decref(copy);
    json_decref(section);
    return status;
}

/* ---- jang_config.json ---- */

static json_t *widths_used(const quant_module *modules, size_t n) {
    json_t *list = json_array();
    for (int bits = 2; list && bits <= 8; bits++) {
        bool used = false;
        for (size_t i = 0; i < n; i++) {
            used = used || modules[i].bits == bits;
        }
        if (used && json_array_append_new(list, json_integer(bits)) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

/* A number of few decimals, as a person would write it. */
static double rounded(double x, double steps) {
    return round(x * steps) / steps;
}

jang_status jang_config_make(json_t **out, ctx_t *ctx, const jang_config_facts *facts,
                             const quant_module *modules, size_t n) {
    json_t *widths = widths_used(modules, n);
    if (!widths) {
        return no_memory(ctx);
    }
    json_t *quantization = json_pack(
        "{s:s,s:s,s:f,s:f,s:i,s:o,s:s,s:s}", "method", facts->method, "profile", facts->profile,
        "target_bits", rounded(facts->target_bits, 100), "actual_bits",
        rounded(facts->actual_bits, 100), "block_size", facts->block_size, "bit_widths_used",
        widths, "quantization_scheme", "asymmetric", "quantization_backend", "jang");
    if (!quantization) {
        return no_memory(ctx);
    }
    json_t *root = json_pack("{s:s,s:s,s:o,s:{s:o,s:s,s:I},s:{s:I,s:f}}", "format", "jang",
                             "format_version", "2.0", "quantization", quantization, "source_model",
                             "name", json_repaired(ctx, facts->source_name), "dtype",
                             facts->source_dtype, "parameters", (json_int_t)facts->n_params,
                             "runtime", "total_weight_bytes", (json_int_t)facts->weight_bytes,
                             "total_weight_gb", rounded((double)facts->weight_bytes / 1e9, 1000));
    if (!root) {
        return no_memory(ctx);
    }
    *out = root;
    return JANG_OK;
}
