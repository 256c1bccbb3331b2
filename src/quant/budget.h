/* budget.h - spending a budget: one choice for each of many things, so that the sum of errors is
 * small and the sum of costs no more than allowed (a multiple-choice knapsack). */
#ifndef JANG_QUANT_BUDGET_H
#define JANG_QUANT_BUDGET_H

#include "base/ctx.h"

#define BUDGET_MAX_CHOICES 18

typedef struct budget_choice {
    int bits, group; /* not looked at here */
    int64_t cost;    /* above 0; sums of all must fit an int64_t */
    double error;    /* finite */
} budget_choice;

typedef struct budget_item {
    budget_choice choices[BUDGET_MAX_CHOICES];
    int n; /* of choices, at least 1 */
    int chosen;
} budget_item;

/* Sets chosen of all items. Steps along each item's lower convex hull of (cost, error) are taken by
 * the error they save for their cost, the best first, as far as they fit: that is what a Lagrange
 * multiplier would choose, and the gap it would leave is filled. Then changes of one item and of
 * two at once are made as long as they save error.
 *
 * JANG_ERR_ARGUMENT: the cheapest choices cost more than the budget; *least, if not NULL, takes
 * their cost then. */
JANG_MUST_CHECK jang_status budget_solve(ctx_t *ctx, budget_item *items, size_t n, int64_t budget,
                                         int64_t *least);

#endif
