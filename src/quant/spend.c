/* spend.c - from a budget to the width of each matrix. */
#include "quant/spend.h"

#include "quant/budget.h"
#include "quant/profiles.h"
#include "quant/widths.h"

#include "base/file.h"

#include <math.h>
#include <stdio.h>

static const int widths[] = {2, 3, 4, 5, 6, 8};
static const int groups[] = {32, 64, 128};
#define N_WIDTHS (sizeof widths / sizeof widths[0])
#define N_GROUPS (sizeof groups / sizeof groups[0])

static bool is_open(const plan_item *item) {
    return item->bits && !item->fixed;
}

/* Whether the codes alone count, not scales and biases. */
static bool counts_codes(const spending *s) {
    return s->nominal > 0 && !s->choose_groups;
}

/* ---- What may be chosen, and what it would cost and spoil ---- */

static int list_forms(width_form *forms, const spending *s, const plan_item *item) {
    int least = profile_floor(&s->plan->model, item->part->name, item->part->role), n = 0;
    for (size_t i = 0; i < N_WIDTHS; i++) {
        if (widths[i] < least) {
            continue;
        }
        for (size_t g = 0; g < N_GROUPS && s->choose_groups; g++) {
            if (item->part->columns % groups[g] == 0) {
                forms[n++] = (width_form){widths[i], groups[g]};
            }
        }
        if (!s->choose_groups) {
            forms[n++] = (width_form){widths[i], item->group};
        }
    }
    return n;
}

static int64_t cost_of(const spending *s, const plan_item *item, width_form form) {
    plan_item changed = *item;
    changed.bits = form.bits;
    changed.group = form.group;
    return counts_codes(s) ? form.bits * item->part->params : (int64_t)plan_item_bytes(&changed);
}

/* What an error of the weights means to the answers where the model was not run: the divergence
 * that a share of error made for each weight in three small models that were (a Llama, a Qwen3-MoE,
 * a Qwen3.5; docs/quantization.md), against that in a gate or up projection; rounded. */
static double usual_weight(const plan_item *item) {
    static const double of_role[ROLE_COUNT] = {[ROLE_EMBEDDING] = 2,   [ROLE_LM_HEAD] = 8,
                                               [ROLE_Q] = 1,           [ROLE_K] = 2,
                                               [ROLE_V] = 10,          [ROLE_O] = 3,
                                               [ROLE_QKV] = 2,         [ROLE_MLA] = 4,
                                               [ROLE_LINEAR_OUT] = 3,  [ROLE_SSM_OUT] = 3,
                                               [ROLE_DOWN] = 2,        [ROLE_EXPERT_DOWN] = 2,
                                               [ROLE_SHARED_DOWN] = 4, [ROLE_SHARED_GATE] = 2,
                                               [ROLE_SHARED_UP] = 2,   [ROLE_SHARED_GATE_UP] = 2};
    double weight = of_role[item->part->role];
    return (weight > 0 ? weight : 1) * (double)item->part->params;
}

/* What a share of a matrix's weights in error means to the answers: the divergence found for the
 * form that was tried, over that form's error. */
static double weight_of(const spending *s, size_t number, const double *errors,
                        const width_form *forms, int n) {
    const plan_item *item = &s->plan->items[number];
    if (!s->divergence) {
        bool head = item->part->role == ROLE_EMBEDDING && s->plan->model.tied;
        return usual_weight(item) * (head ? 4 : 1);
    }
    double found = s->divergence[number];
    for (int k = 0; k < n && found >= 0; k++) {
        if (forms[k].bits == item->bits && forms[k].group == item->group && errors[k] > 0) {
            return found / errors[k];
        }
    }
    return found >= 0 ? 0 : -1;
}

static jang_status describe(budget_item *out, double *weight, const spending *s, size_t number) {
    const plan_item *item = &s->plan->items[number];
    width_form forms[BUDGET_MAX_CHOICES];
    double errors[BUDGET_MAX_CHOICES];
    int n = list_forms(forms, s, item);
    jang_status status = widths_measure(errors, s->ctx, s->source, item, forms, n, s->fn,
                                        s->importance ? s->importance[number] : NULL);
    if (status != JANG_OK) {
        return status;
    }
    out->n = n;
    for (int k = 0; k < n; k++) {
        out->choices[k] = (budget_choice){.bits = forms[k].bits,
                                          .group = forms[k].group,
                                          .cost = cost_of(s, item, forms[k]),
                                          .error = errors[k]};
    }
    *weight = weight_of(s, number, errors, forms, n);
    return JANG_OK;
}

/* Turns shares of weights into divergences. A matrix that was not seen in the model's products
 * counts as much as the mean of those that were. */
static void apply_weights(budget_item *items, const double *weights, size_t n) {
    double sum = 0;
    size_t n_known = 0;
    for (size_t i = 0; i < n; i++) {
        sum += weights[i] >= 0 ? weights[i] : 0;
        n_known += weights[i] >= 0;
    }
    double usual = n_known && sum > 0 ? sum / (double)n_known : 1;
    for (size_t i = 0; i < n; i++) {
        for (int k = 0; k < items[i].n; k++) {
            items[i].choices[k].error *= weights[i] >= 0 ? weights[i] : usual;
        }
    }
}

/* ---- The budget ---- */

/* Bytes of all weights: those given, or what codes of so many bits in the groups of the plan take.
 */
static double all_bytes(const spending *s) {
    double sum = 0;
    for (size_t i = 0; i < s->plan->n_items; i++) {
        const plan_item *item = &s->plan->items[i];
        double more = item->bits ? s->nominal - item->bits : 0;
        sum += (double)plan_item_bytes(item) + more * (double)item->part->params / 8;
    }
    return s->nominal > 0 ? floor(sum + 1e-6) : (double)s->size;
}

/* What is left for the open items. */
static int64_t budget_of(const spending *s) {
    const quant_plan *plan = s->plan;
    double params = 0, fixed = 0;
    for (size_t i = 0; i < plan->n_items; i++) {
        const plan_item *item = &plan->items[i];
        double p = (double)item->part->params;
        if (counts_codes(s)) {
            params += item->bits ? p : 0;
            fixed += item->bits && !is_open(item) ? item->bits * p : 0;
        } else {
            fixed += is_open(item) ? 0 : (double)plan_item_bytes(item);
        }
    }
    return (int64_t)floor(counts_codes(s) ? s->nominal * params - fixed + 1e-6
                                          : all_bytes(s) - fixed);
}

static jang_status fail_budget(const spending *s, int64_t budget, int64_t least) {
    double missing = (double)(least - budget), params = 0;
    for (size_t i = 0; i < s->plan->n_items; i++) {
        params += s->plan->items[i].bits ? (double)s->plan->items[i].part->params : 0;
    }
    if (s->nominal > 0) {
        return ctx_fail(s->ctx, JANG_ERR_ARGUMENT,
                        "a budget of %g %s bits is too small; with the least widths that are "
                        "allowed this model takes %.3f",
                        s->nominal, counts_codes(s) ? "nominal" : "uniform",
                        s->nominal + missing * (counts_codes(s) ? 1 : 8) / params);
    }
    return ctx_fail(s->ctx, JANG_ERR_ARGUMENT,
                    "a size of %llu bytes is too small; with the least widths that are allowed "
                    "this model takes %.0f",
                    (unsigned long long)s->size, (double)s->size + missing);
}

static jang_status report(const spending *s, size_t number, double started) {
    if (!s->on_progress) {
        return JANG_OK;
    }
    char what[96];
    uint64_t total = checkpoint_bytes(s->source);
    snprintf(what, sizeof what, "measuring widths, tensor %zu of %zu", number + 1,
             s->plan->n_items);
    jang_progress progress = {what,
                              (uint64_t)((double)total * (double)number / (double)s->plan->n_items),
                              total, clock_seconds() - started};
    return s->on_progress(s->user, &progress)
               ? JANG_OK
               : ctx_fail(s->ctx, JANG_ERR_CANCELLED, "the conversion was cancelled");
}

static jang_status solve(const spending *s, budget_item *items, const size_t *numbers, size_t n) {
    int64_t budget = budget_of(s), least = budget;
    s->plan->budget = counts_codes(s) ? s->nominal : all_bytes(s);
    jang_status status = budget_solve(s->ctx, items, n, budget, &least);
    if (status == JANG_ERR_ARGUMENT) {
        return fail_budget(s, budget, least);
    }
    for (size_t i = 0; i < n && status == JANG_OK; i++) {
        const budget_choice *c = &items[i].choices[items[i].chosen];
        (void)plan_set(s->plan, numbers[i], c->bits, c->group);
    }
    plan_sum(s->plan);
    return status;
}

jang_status spend_bits(const spending *s) {
    size_t n_items = s->plan->n_items, n = 0;
    budget_item *items = ctx_zero(s->ctx, n_items + 1, sizeof *items);
    double *weights = ctx_zero(s->ctx, n_items + 1, sizeof *weights);
    size_t *numbers = ctx_zero(s->ctx, n_items + 1, sizeof *numbers);
    jang_status status =
        items && weights && numbers ? JANG_OK : ctx_fail_memory(s->ctx, n_items * 512);
    double started = clock_seconds();
    for (size_t i = 0; i < n_items && status == JANG_OK; i++) {
        if (is_open(&s->plan->items[i])) {
            status = report(s, i, started);
            if (status == JANG_OK) {
                status = describe(&items[n], &weights[n], s, i);
            }
            numbers[n++] = i;
        }
    }
    if (status == JANG_OK) {
        apply_weights(items, weights, n);
        status = solve(s, items, numbers, n);
    }
    ctx_free(s->ctx, items);
    ctx_free(s->ctx, weights);
    ctx_free(s->ctx, numbers);
    return status;
}
