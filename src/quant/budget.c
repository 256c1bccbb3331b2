/* budget.c - the multiple-choice knapsack: steps along convex hulls, then exchanges. */
#include "quant/budget.h"

#include <stdlib.h>

#define MAX_SWEEPS 50
#define MAX_PAIRED 4000 /* items; of more, only single changes are tried */

/* A step of an item from one choice on its hull to the next. */
typedef struct hull_step {
    size_t item;
    int from, to;
    double gain; /* error saved for each unit of cost */
} hull_step;

static int64_t cost_of(const budget_item *item) {
    return item->choices[item->chosen].cost;
}

static double error_of(const budget_item *item) {
    return item->choices[item->chosen].error;
}

/* The cheapest choice; of equally cheap ones that of least error. */
static int cheapest(const budget_item *item) {
    int best = 0;
    for (int k = 1; k < item->n; k++) {
        const budget_choice *c = &item->choices[k], *b = &item->choices[best];
        if (c->cost < b->cost || (c->cost == b->cost && c->error < b->error)) {
            best = k;
        }
    }
    return best;
}

/* The choice with the best gain over `from`, -1: none saves error. Of equal gains the farthest. */
static int next_on_hull(double *gain, const budget_item *item, int from) {
    int best = -1;
    const budget_choice *a = &item->choices[from];
    for (int k = 0; k < item->n; k++) {
        const budget_choice *c = &item->choices[k];
        if (c->cost <= a->cost || c->error >= a->error) {
            continue;
        }
        double g = (a->error - c->error) / (double)(c->cost - a->cost);
        if (best < 0 || g > *gain || (g == *gain && c->cost > item->choices[best].cost)) {
            best = k;
            *gain = g;
        }
    }
    return best;
}

static int compare_steps(const void *a, const void *b) {
    const hull_step *p = a, *q = b;
    if (p->gain != q->gain) {
        return p->gain > q->gain ? -1 : 1;
    }
    return p->item != q->item ? (p->item < q->item ? -1 : 1) : p->from - q->from;
}

static size_t list_steps(hull_step *steps, const budget_item *items, size_t n) {
    size_t n_steps = 0;
    for (size_t i = 0; i < n; i++) {
        double gain = 0;
        int from = items[i].chosen;
        for (int to; (to = next_on_hull(&gain, &items[i], from)) >= 0; from = to) {
            steps[n_steps++] = (hull_step){i, from, to, gain};
        }
    }
    return n_steps;
}

/* Takes the steps that fit, in order; an item whose step did not fit stays where it is. */
static int64_t take_steps(budget_item *items, const hull_step *steps, size_t n, int64_t left) {
    for (size_t i = 0; i < n; i++) {
        budget_item *item = &items[steps[i].item];
        int64_t more = item->choices[steps[i].to].cost - item->choices[steps[i].from].cost;
        if (item->chosen == steps[i].from && more <= left) {
            item->chosen = steps[i].to;
            left -= more;
        }
    }
    return left;
}

/* The best other choice of an item that costs at most `left` more; -1: none saves error. */
static int better_choice(const budget_item *item, int64_t left) {
    int best = -1;
    double error = error_of(item);
    for (int k = 0; k < item->n; k++) {
        const budget_choice *c = &item->choices[k];
        if (c->cost - cost_of(item) <= left && c->error < error) {
            best = k;
            error = c->error;
        }
    }
    return best;
}

static bool improve_single(budget_item *items, size_t n, int64_t *left) {
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        int k = better_choice(&items[i], *left);
        if (k >= 0) {
            *left -= items[i].choices[k].cost - cost_of(&items[i]);
            items[i].chosen = k;
            any = true;
        }
    }
    return any;
}

/* Makes `giver` cheaper by each of its choices in turn, and sees what another item gains by it. */
static bool improve_pair(budget_item *giver, budget_item *taker, int64_t *left) {
    for (int k = 0; k < giver->n; k++) {
        const budget_choice *c = &giver->choices[k];
        int64_t freed = cost_of(giver) - c->cost;
        if (freed <= 0) {
            continue;
        }
        int t = better_choice(taker, *left + freed);
        if (t < 0) {
            continue;
        }
        double saved = error_of(taker) - taker->choices[t].error;
        double lost = c->error - error_of(giver);
        if (saved > lost * (1 + 1e-12) && saved > lost) {
            *left += freed - (taker->choices[t].cost - cost_of(taker));
            giver->chosen = k;
            taker->chosen = t;
            return true;
        }
    }
    return false;
}

static bool improve_pairs(budget_item *items, size_t n, int64_t *left) {
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++) {
            any |= i != j && improve_pair(&items[i], &items[j], left);
        }
    }
    return any;
}

jang_status budget_solve(ctx_t *ctx, budget_item *items, size_t n, int64_t budget, int64_t *least) {
    int64_t left = budget;
    for (size_t i = 0; i < n; i++) {
        items[i].chosen = cheapest(&items[i]);
        left -= cost_of(&items[i]);
    }
    if (left < 0) {
        if (least) {
            *least = budget - left;
        }
        return ctx_fail(ctx, JANG_ERR_ARGUMENT, "a budget of %lld; at least %lld are needed",
                        (long long)budget, (long long)(budget - left));
    }
    hull_step *steps = ctx_array(ctx, n * BUDGET_MAX_CHOICES + 1, sizeof *steps);
    if (!steps) {
        return ctx_fail_memory(ctx, n * BUDGET_MAX_CHOICES * sizeof *steps);
    }
    size_t n_steps = list_steps(steps, items, n);
    qsort(steps, n_steps, sizeof *steps, compare_steps);
    left = take_steps(items, steps, n_steps, left);
    ctx_free(ctx, steps);
    for (int sweep = 0; sweep < MAX_SWEEPS; sweep++) {
        bool any = improve_single(items, n, &left);
        any |= n <= MAX_PAIRED && improve_pairs(items, n, &left);
        if (!any) {
            break;
        }
    }
    return JANG_OK;
}
