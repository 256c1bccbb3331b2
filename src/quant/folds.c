/* folds.c - multipliers of a config, put into the weights. */
#include "quant/folds.h"

#include "base/file.h"
#include "model/falcon_h1.h"
#include "quant/layouts.h"

#include <string.h>

void folds_rows(float *rows, const model_part *part, int64_t first, int64_t n) {
    const row_factors *f = part->factors;
    bool vector = part->n_dim < 2;
    for (int64_t i = 0; i < n * part->columns; i++) {
        int64_t row = vector ? i : first + i / part->columns;
        int run = 0;
        while (run < FOLD_RUNS - 1 && row >= f->ends[run]) {
            run++;
        }
        rows[i] *= f->by[run];
    }
}

/* ---- Falcon-H1 ---- */

/* One factor for all rows. */
static row_factors all_rows(double by) {
    row_factors f = {.by = {(float)by}};
    for (int i = 0; i < FOLD_RUNS; i++) {
        f.ends[i] = INT64_MAX;
    }
    return f;
}

static row_factors mamba_rows(const falcon_h1_multipliers *m, const int64_t *ends, double by) {
    row_factors f;
    for (int i = 0; i < FOLD_RUNS; i++) {
        f.ends[i] = ends[i];
        f.by[i] = (float)(m->ssm[i] * by);
    }
    return f;
}

typedef struct fold_rule {
    const char *end; /* of a part's name */
    row_factors factors;
} fold_rule;

/* The input of attention and Mamba has a multiplier, which a bias must not get. */
static jang_status falcon_h1_folds(part_list *parts, json_at config) {
    falcon_h1_multipliers m;
    int64_t ends[FOLD_RUNS];
    jang_status status = falcon_h1_read_multipliers(&m, config);
    if (status == JANG_OK) {
        status = falcon_h1_read_ends(ends, config);
    }
    if (status != JANG_OK) {
        return status;
    }
    const fold_rule rules[] = {
        {"embed_tokens.weight", all_rows(m.embedding)},
        {"lm_head.weight", all_rows(m.output)},
        {"self_attn.q_proj.weight", all_rows(m.attention_in)},
        {"self_attn.k_proj.weight", all_rows(m.attention_in * m.key)},
        {"self_attn.k_proj.bias", all_rows(m.key)},
        {"self_attn.v_proj.weight", all_rows(m.attention_in)},
        {"self_attn.o_proj.weight", all_rows(m.attention_out)},
        {"self_attn.o_proj.bias", all_rows(m.attention_out)},
        {"mamba.in_proj.weight", mamba_rows(&m, ends, m.ssm_in)},
        {"mamba.in_proj.bias", mamba_rows(&m, ends, 1)},
        {"mamba.out_proj.weight", all_rows(m.ssm_out)},
        {"mamba.out_proj.bias", all_rows(m.ssm_out)},
        {"feed_forward.gate_proj.weight", all_rows(m.mlp[0])},
        {"feed_forward.gate_proj.bias", all_rows(m.mlp[0])},
        {"feed_forward.down_proj.weight", all_rows(m.mlp[1])},
        {"feed_forward.down_proj.bias", all_rows(m.mlp[1])},
    };
    size_t n = sizeof rules / sizeof *rules;
    row_factors *kept = ctx_array(parts->ctx, n, sizeof *kept);
    if (!kept) {
        return ctx_fail_memory(parts->ctx, n * sizeof *kept);
    }
    parts->factors = kept;
    for (size_t k = 0; k < n; k++) {
        kept[k] = rules[k].factors;
        for (size_t i = 0; i < parts->n_parts; i++) {
            model_part *part = &parts->parts[i];
            bool fits =
                strcmp(part->name, rules[k].end) == 0 || path_has_suffix(part->name, rules[k].end);
            if (part->used && fits) {
                part->factors = &kept[k];
            }
        }
    }
    return JANG_OK;
}

jang_status folds_apply(part_list *parts, const name_model *nm, const json_t *config,
                        bool *folded) {
    bool stamped;
    json_at at = {parts->ctx, "config.json", config};
    *folded = false;
    if (strcmp(nm->model_type, "falcon_h1") != 0 || !layouts_has_hub_conv(parts)) {
        return JANG_OK;
    }
    jang_status status = json_get_bool(&stamped, at, "jang_mup_folded", false);
    if (status != JANG_OK || stamped) {
        return status;
    }
    *folded = true;
    return falcon_h1_folds(parts, at);
}
