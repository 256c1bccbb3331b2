/* plan.c - choosing width and group size for each parameter, adding up, reporting. */
#include "quant/plan.h"

#include "format/affine.h"
#include "quant/kept_codes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- One item ---- */

/* The floating type a part has, or had before it was packed: FP8 and MXFP4 models are bf16 else. */
static dtype source_type(const model_part *part) {
    switch (part->packing) {
    case PACKING_AFFINE:
    case PACKING_GPTQ:
    case PACKING_AWQ:
        return part->scales->type;
    case PACKING_FP8:
    case PACKING_MXFP4:
        return DT_BF16;
    case PACKING_NONE:
        break;
    }
    return part->weight->type;
}

/* The type unquantized tensors and scales get: the source's, where it is one of 16 bits. MLX gives
 * scales the type of the weights; f32 and block-quantized sources get f16, which is finer than bf16
 * and what their own scales mostly are. */
static dtype scale_type(const model_part *part) {
    dtype source = source_type(part);
    return source == DT_BF16 ? DT_BF16 : DT_F16;
}

static dtype float_type(const model_part *part) {
    bool changed = part->add != 0 || (part->factors && part->n_dim < 2);
    dtype source = changed ? DT_F32 : source_type(part);
    return source == DT_F32 || source == DT_BF16 ? source : source == DT_F64 ? DT_F32 : DT_F16;
}

/* The largest allowed group size, at most the wanted one, that divides a row; 0 if none. */
static int fit_group(int64_t columns, int bits, int wanted) {
    for (int group = wanted; group >= 32; group /= 2) {
        if (columns % group == 0 && columns * bits % 32 == 0) {
            return group;
        }
    }
    return 0;
}

static plan_item choose(const profile *p, const profile_model *model, int group,
                        const model_part *part) {
    plan_item item = {.part = part, .type = p->kind == PROFILE_FLOAT ? p->type : float_type(part)};
    if (part->n_dim < 2) {
        return item;
    }
    int bits = profile_bits(p, model, part->name, part->role);
    if (bits) {
        item.group = fit_group(part->columns, bits, group);
        if (!item.group) {
            item.note = "no group size divides its rows";
            return item;
        }
        item.bits = bits;
        item.type = scale_type(part);
        if (item.group != group) {
            item.note = "group size does not divide its rows";
        }
    }
    return item;
}

/* A name without what differs between checkpoints of one family: what follows its layer, or the
 * last component of what lies outside the layers, whose number is -1. */
static const char *local_name(const char *name, int *layer) {
    const char *below = role_below_layer(name, layer);
    const char *weight = strstr(name, ".weight"), *from = name;
    for (const char *p = name; !below && *p && p != weight; p++) {
        from = *p == '.' ? p + 1 : from;
    }
    *layer = below ? *layer : -1;
    return below ? below : from;
}

static bool is_weight_of(const char *name, const char *module) {
    size_t n = strlen(module);
    return strncmp(name, module, n) == 0 && strcmp(name + n, ".weight") == 0;
}

size_t plan_find_module(const quant_plan *plan, const char *module) {
    int layer, other;
    const char *local = local_name(module, &layer);
    size_t found = SIZE_MAX;
    for (size_t i = 0; i < plan->n_items; i++) {
        const char *name = plan->items[i].part->name;
        bool open = plan->items[i].bits && !plan->items[i].kept;
        if (open && is_weight_of(name, module)) {
            return i;
        }
        const char *below = local_name(name, &other);
        if (open && other == layer && is_weight_of(below, local)) {
            found = i;
        }
    }
    return found;
}

bool plan_has_width(const quant_plan *plan, int bits) {
    for (size_t i = 0; i < plan->n_items; i++) {
        if (plan->items[i].bits == bits && !plan->items[i].kept) {
            return true;
        }
    }
    return false;
}

bool plan_set(quant_plan *plan, size_t number, int bits, int group) {
    plan_item *item = &plan->items[number];
    int fits = bits ? fit_group(item->part->columns, bits, group ? group : plan->group) : 0;
    if (bits && (!fits || item->part->n_dim < 2)) {
        return false;
    }
    item->bits = bits;
    item->group = fits;
    item->type = bits ? scale_type(item->part) : float_type(item->part);
    item->note =
        bits && !group && fits != plan->group ? "group size does not divide its rows" : NULL;
    return true;
}

size_t plan_item_weight_bytes(const plan_item *item) {
    const model_part *part = item->part;
    if (item->bits) {
        return (size_t)part->rows * (size_t)affine_row_words(part->columns, item->bits) * 4;
    }
    const dtype_info *info = &dtype_table[item->type];
    return (size_t)(part->params / info->block) * (size_t)info->block_bytes;
}

size_t plan_item_scale_bytes(const plan_item *item) {
    return item->bits ? (size_t)(item->part->params / item->group) *
                            (size_t)dtype_table[item->type].block_bytes
                      : 0;
}

size_t plan_item_bytes(const plan_item *item) {
    return plan_item_weight_bytes(item) + 2 * plan_item_scale_bytes(item);
}

/* ---- The whole ---- */

static plan_totals add_up(const quant_plan *plan) {
    plan_totals t = {0};
    double weighted = 0;
    for (size_t i = 0; i < plan->n_items; i++) {
        const plan_item *item = &plan->items[i];
        t.params += item->part->params;
        t.bytes += plan_item_bytes(item);
        if (item->bits) {
            t.quantized_params += item->part->params;
            weighted += (double)item->bits * (double)item->part->params;
        }
    }
    t.true_bits = t.params ? 8.0 * (double)t.bytes / (double)t.params : 0;
    t.nominal_bits = t.quantized_params ? weighted / (double)t.quantized_params : t.true_bits;
    return t;
}

void plan_widen(plan_item *item) {
    item->type = DT_BF16;
    item->note = item->note ? item->note : "weights too large for scales of f16: they are bf16";
}

size_t plan_keep_codes(quant_plan *plan, size_t *n_kept) {
    size_t n_not = 0;
    *n_kept = 0;
    for (size_t i = 0; i < plan->n_items; i++) {
        plan_item *item = &plan->items[i];
        kept_form form;
        const char *why;
        if (kept_codes_form(&form, &why, item->part)) {
            item->bits = form.bits;
            item->group = form.group;
            item->type = form.type;
            item->kept = item->fixed = true;
            item->note = NULL;
            ++*n_kept;
        } else if (why) {
            item->note = why;
            n_not++;
        }
    }
    plan_sum(plan);
    return n_not;
}

void plan_sum(quant_plan *plan) {
    plan->totals = add_up(plan);
}

static jang_status allocate(quant_plan *plan, ctx_t *ctx, const char *profile_name, size_t n) {
    *plan = (quant_plan){.ctx = ctx, .items = ctx_zero(ctx, n ? n : 1, sizeof *plan->items)};
    if (!plan->items) {
        return ctx_fail_memory(ctx, n * sizeof *plan->items);
    }
    snprintf(plan->profile, sizeof plan->profile, "%.31s", profile_name);
    plan->n_items = n;
    return JANG_OK;
}

/* A group size that was asked for by name should do something. */
static jang_status check_group(const quant_plan *plan, int asked) {
    int64_t columns = 0;
    for (size_t i = 0; i < plan->n_items; i++) {
        const plan_item *item = &plan->items[i];
        if (item->bits && item->group == asked) {
            return JANG_OK;
        }
        columns = item->note && columns == 0 ? item->part->columns : columns;
    }
    if (columns == 0) {
        return JANG_OK; /* nothing to quantize at all */
    }
    return ctx_fail(plan->ctx, JANG_ERR_ARGUMENT,
                    "group size %d divides no row of this model (the first has %lld columns)",
                    asked, (long long)columns);
}

jang_status plan_make(quant_plan *out, ctx_t *ctx, const profile *p, const profile_model *model,
                      int group, const model_part *const *parts, size_t n) {
    if (group != 0 && !affine_group_ok(group)) {
        return ctx_fail(ctx, JANG_ERR_ARGUMENT, "no group size %d; group sizes are 32, 64, 128",
                        group);
    }
    quant_plan plan;
    jang_status status = allocate(&plan, ctx, p->name, n);
    if (status != JANG_OK) {
        return status;
    }
    plan.group = group ? group : PLAN_DEFAULT_GROUP;
    plan.model = *model;
    for (size_t i = 0; i < n; i++) {
        plan.items[i] = choose(p, model, plan.group, parts[i]);
    }
    status = group ? check_group(&plan, group) : JANG_OK;
    if (status != JANG_OK) {
        plan_free(&plan);
        return status;
    }
    plan.totals = add_up(&plan);
    *out = plan;
    return JANG_OK;
}

jang_status plan_of_stored(quant_plan *out, ctx_t *ctx, const char *profile_name,
                           const part_list *list) {
    quant_plan plan;
    jang_status status = allocate(&plan, ctx, profile_name, list->n_parts);
    if (status != JANG_OK) {
        return status;
    }
    for (size_t i = 0; i < list->n_parts; i++) {
        const model_part *part = &list->parts[i];
        plan.items[i] = (plan_item){.part = part,
                                    .bits = part->bits,
                                    .group = part->group,
                                    .type = part->scales ? part->scales->type : part->weight->type};
        plan.group = part->group > plan.group ? part->group : plan.group;
    }
    plan.totals = add_up(&plan);
    *out = plan;
    return JANG_OK;
}

void plan_free(quant_plan *plan) {
    if (plan && plan->ctx) {
        ctx_free(plan->ctx, plan->items);
        *plan = (quant_plan){0};
    }
}

/* ---- The table ---- */

typedef struct table_row {
    quant_tier tier;
    tensor_role role;
    int bits; /* of the stored elements where quantized is false */
    bool quantized;
    int64_t tensors, params;
    uint64_t bytes;
} table_row;

static table_row row_of(const plan_item *item) {
    const dtype_info *info = &dtype_table[item->type];
    return (table_row){.tier = role_get_info(item->part->role)->tier,
                       .role = item->part->role,
                       .bits = item->bits ? item->bits : 8 * info->block_bytes / info->block,
                       .quantized = item->bits != 0,
                       .tensors = 1,
                       .params = item->part->params,
                       .bytes = plan_item_bytes(item)};
}

/* The order of a report: embedding, attention, MLP, lm_head, then what stays in floating point. */
static int tier_rank(quant_tier tier) {
    static const int rank[TIER_COUNT] = {[TIER_EMBEDDING] = 0,
                                         [TIER_ATTENTION] = 1,
                                         [TIER_MLP] = 2,
                                         [TIER_LM_HEAD] = 3,
                                         [TIER_FLOAT] = 4};
    return rank[tier];
}

static int compare_rows(const void *a, const void *b) {
    const table_row *p = a, *q = b;
    if (p->tier != q->tier) {
        return tier_rank(p->tier) - tier_rank(q->tier);
    }
    if (p->role != q->role) {
        return p->role < q->role ? -1 : 1;
    }
    if (p->quantized != q->quantized) {
        return p->quantized ? -1 : 1;
    }
    return p->bits - q->bits;
}

static jang_status rows_to_json(json_t *array, const quant_plan *plan) {
    table_row *table = ctx_zero(plan->ctx, plan->n_items + 1, sizeof *table);
    if (!table) {
        return ctx_fail_memory(plan->ctx, plan->n_items * sizeof *table);
    }
    for (size_t i = 0; i < plan->n_items; i++) {
        table[i] = row_of(&plan->items[i]);
    }
    qsort(table, plan->n_items, sizeof *table, compare_rows);
    int failed = 0;
    for (size_t i = 0; i < plan->n_items;) {
        table_row sum = table[i++];
        for (; i < plan->n_items && compare_rows(&sum, &table[i]) == 0; i++) {
            sum.tensors++;
            sum.params += table[i].params;
            sum.bytes += table[i].bytes;
        }
        failed |= json_array_append_new(
            array,
            json_pack("{s:s, s:s, s:i, s:b, s:I, s:I, s:I}", "role", role_get_info(sum.role)->name,
                      "tier", tier_name(sum.tier), "bits", sum.bits, "quantized", sum.quantized,
                      "tensors", (json_int_t)sum.tensors, "params", (json_int_t)sum.params, "bytes",
                      (json_int_t)sum.bytes));
    }
    ctx_free(plan->ctx, table);
    return failed ? ctx_fail_memory(plan->ctx, plan->n_items) : JANG_OK;
}

static jang_status notes_to_json(json_t *array, const quant_plan *plan) {
    int failed = 0;
    for (size_t i = 0; i < plan->n_items; i++) {
        const plan_item *item = &plan->items[i];
        if (!item->note) {
            continue;
        }
        buf text;
        buf_init(&text, plan->ctx, 4096);
        buf_printf(&text, "%s: %s (%lld columns): ", item->part->name, item->note,
                   (long long)item->part->columns);
        if (item->bits) {
            buf_printf(&text, "group size %d", item->group);
        } else {
            buf_printf(&text, "stays %s", dtype_table[item->type].name);
        }
        failed |= json_array_append_new(array, json_string(text.data));
        buf_free(&text);
    }
    return failed ? ctx_fail_memory(plan->ctx, plan->n_items) : JANG_OK;
}

static int add_budget(json_t *object, const quant_plan *plan) {
    bool bytes = plan->budget > 64;
    double spent = bytes ? (double)plan->totals.bytes : plan->totals.nominal_bits;
    return json_object_set_new(object, "budget",
                               json_pack("{s:f, s:f, s:s, s:s}", "asked", plan->budget, "spent",
                                         spent, "unit", bytes ? "bytes" : "nominal bits", "measure",
                                         plan->measure ? plan->measure : "nothing yet"));
}

jang_status plan_to_json(json_t *object, const quant_plan *plan) {
    const plan_totals *t = &plan->totals;
    json_t *rows = json_array(), *notes = json_array();
    jang_status status = rows && notes ? JANG_OK : ctx_fail_memory(plan->ctx, 64);
    if (status == JANG_OK) {
        status = rows_to_json(rows, plan);
    }
    if (status == JANG_OK) {
        status = notes_to_json(notes, plan);
    }
    if (status == JANG_OK) {
        json_t *figures =
            json_pack("{s:o, s:i, s:I, s:I, s:f, s:f, s:I}", "profile",
                      json_repaired(plan->ctx, plan->profile), "group_size", plan->group, "params",
                      (json_int_t)t->params, "quantized_params", (json_int_t)t->quantized_params,
                      "nominal_bits", t->nominal_bits, "true_bits", t->true_bits, "weight_bytes",
                      (json_int_t)t->bytes);
        if (!figures || json_object_update(object, figures) != 0 ||
            json_object_set(object, "rows", rows) != 0 ||
            json_object_set(object, "notes", notes) != 0 ||
            (plan->budget > 0 && add_budget(object, plan) != 0)) {
            status = ctx_fail_memory(plan->ctx, 256);
        }
        json_decref(figures);
    }
    json_decref(rows);
    json_decref(notes);
    return status;
}
