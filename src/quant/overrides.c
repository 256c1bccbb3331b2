/* overrides.c - reading the user's widths and putting them into a plan. */
#include "quant/overrides.h"

#include "format/affine.h"

#include <string.h>

typedef struct override {
    const char *pattern;
    int bits, group; /* bits 0: floating; group 0: the plan's */
} override;

/* Whether text fits a pattern with any number of '*'. Goes back to the last star only, so the time
 * is the product of the lengths at most. */
static bool fits(const char *pattern, size_t n_pattern, const char *text, size_t n) {
    size_t p = 0, t = 0, star = n_pattern, from = 0;
    while (t < n) {
        if (p < n_pattern && pattern[p] == '*') {
            star = p++;
            from = t;
        } else if (p < n_pattern && pattern[p] == text[t]) {
            p++;
            t++;
        } else if (star < n_pattern) {
            p = star + 1;
            t = ++from;
        } else {
            return false;
        }
    }
    while (p < n_pattern && pattern[p] == '*') {
        p++;
    }
    return p == n_pattern;
}

static size_t module_length(const char *name) {
    size_t n = strlen(name), m = strlen(".weight");
    return n > m && strcmp(name + n - m, ".weight") == 0 ? n - m : n;
}

static jang_status read_value(override *out, ctx_t *ctx, const char *path, const json_t *value) {
    int64_t bits = 0, group = 0;
    if (json_is_integer(value)) {
        bits = json_integer_value(value);
    } else if (json_is_object(value)) {
        json_at at = {ctx, path, value};
        jang_status status = json_get_int(&bits, at, "bits", -1, 2, 8);
        if (status == JANG_OK) {
            status = json_get_int(&group, at, "group_size", 0, 32, 128);
        }
        if (status != JANG_OK) {
            return status;
        }
    } else if (!json_is_false(value)) {
        return ctx_fail(ctx, JANG_ERR_ARGUMENT,
                        "%s: \"%s\": must be a width, {\"bits\": .., \"group_size\": ..} or false",
                        path, out->pattern);
    }
    if (!json_is_false(value) && (bits < 2 || bits > 8 || !affine_bits_ok((int)bits))) {
        return ctx_fail(ctx, JANG_ERR_ARGUMENT, "%s: \"%s\": widths are 2, 3, 4, 5, 6, 8", path,
                        out->pattern);
    }
    if (group && !affine_group_ok((int)group)) {
        return ctx_fail(ctx, JANG_ERR_ARGUMENT, "%s: \"%s\": group sizes are 32, 64, 128", path,
                        out->pattern);
    }
    out->bits = (int)bits;
    out->group = (int)group;
    return JANG_OK;
}

/* Whether a width may be asked for: matrices of a tier, and routers. */
static bool may_be_quantized(const model_part *part) {
    return part->n_dim >= 2 &&
           (role_get_info(part->role)->tier != TIER_FLOAT || part->role == ROLE_ROUTER);
}

static jang_status apply(quant_plan *plan, const char *path, const override *o) {
    size_t n = 0, length = strlen(o->pattern);
    bool wild = strchr(o->pattern, '*') != NULL;
    for (size_t i = 0; i < plan->n_items; i++) {
        plan_item *item = &plan->items[i];
        const char *name = item->part->name;
        if (!fits(o->pattern, length, name, module_length(name)) &&
            !fits(o->pattern, length, name, strlen(name))) {
            continue;
        }
        if (wild && role_get_info(item->part->role)->tier == TIER_FLOAT) {
            continue; /* norms of a layer, say, which a star would take in */
        }
        n++;
        if (item->kept) {
            continue; /* --keep-codes was said, too */
        }
        if (o->bits && !may_be_quantized(item->part)) {
            return ctx_fail(plan->ctx, JANG_ERR_ARGUMENT,
                            "%s: \"%s\": tensor %s is never quantized", path, o->pattern, name);
        }
        if (!plan_set(plan, i, o->bits, o->group) || (o->group && item->group != o->group)) {
            return ctx_fail(plan->ctx, JANG_ERR_ARGUMENT,
                            "%s: \"%s\": group size %d does not divide the %lld columns of %s",
                            path, o->pattern, o->group ? o->group : 32,
                            (long long)item->part->columns, name);
        }
        item->fixed = true;
    }
    return n ? JANG_OK
             : ctx_fail(plan->ctx, JANG_ERR_ARGUMENT, "%s: \"%s\" fits no matrix of the model",
                        path, o->pattern);
}

jang_status overrides_apply(quant_plan *plan, const char *path) {
    json_t *root = NULL;
    jang_status status = json_read(&root, plan->ctx, path);
    if (status == JANG_OK && !json_is_object(root)) {
        status = ctx_fail(plan->ctx, JANG_ERR_ARGUMENT,
                          "%s: must be an object from module names to widths", path);
    }
    for (void *at = json_object_iter(root); at && status == JANG_OK;
         at = json_object_iter_next(root, at)) {
        override o = {.pattern = json_object_iter_key(at)};
        status = read_value(&o, plan->ctx, path, json_object_iter_value(at));
        if (status == JANG_OK) {
            status = apply(plan, path, &o);
        }
    }
    plan_sum(plan);
    json_decref(root);
    return status;
}
