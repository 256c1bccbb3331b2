/* tmpl_sort.c - Python's sorted(): a stable merge sort by keys. */
#include "template/tmpl_run.h"

#include <string.h>

typedef struct sorter {
    tm_core *t;
    const tval *keys;
    bool reverse;
} sorter;

/* Whether item b must come before item a, which stands earlier. */
static bool out_of_order(const sorter *s, size_t a, size_t b) {
    return s->reverse ? tv_compare(s->t, TV_LT, s->keys[a], s->keys[b])
                      : tv_compare(s->t, TV_LT, s->keys[b], s->keys[a]);
}

static void merge(const sorter *s, const size_t *from, size_t *to, size_t left, size_t middle,
                  size_t right) {
    size_t a = left, b = middle;
    for (size_t k = left; k < right; k++) {
        tm_step(s->t, 1);
        bool take_right = a >= middle || (b < right && out_of_order(s, from[a], from[b]));
        to[k] = from[take_right ? b++ : a++];
    }
}

void tm_sort(tm_core *t, tval *items, tval *keys, size_t n, bool reverse) {
    sorter s = {.t = t, .keys = keys ? keys : items, .reverse = reverse};
    size_t *order = tm_array(t, n, sizeof *order), *other = tm_array(t, n, sizeof *other);
    for (size_t i = 0; i < n; i++) {
        order[i] = i;
    }
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t left = 0; left < n; left += 2 * width) {
            size_t middle = left + width < n ? left + width : n;
            size_t right = left + 2 * width < n ? left + 2 * width : n;
            merge(&s, order, other, left, middle, right);
        }
        size_t *swap = order;
        order = other;
        other = swap;
    }
    tval *sorted = tm_array(t, n, sizeof *sorted);
    for (size_t i = 0; i < n; i++) {
        sorted[i] = items[order[i]];
    }
    if (n) {
        tm_copy(items, sorted, n * sizeof *items);
    }
}
