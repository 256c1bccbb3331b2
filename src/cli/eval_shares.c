/* eval_shares.c - tables of shares with their errors. */
#include "eval_shares.h"

#include "text_table.h"

#include <assert.h>
#include <stdio.h>

static void set_share(table_row *row, size_t column, const json_t *result, const share_column *c) {
    const json_t *share = c->share ? json_object_get(result, c->share) : NULL;
    const json_t *error = c->error ? json_object_get(result, c->error) : NULL;
    if (share && !c->error) {
        error = json_object_get(share, "error");
        share = json_object_get(share, "mean");
    }
    if (share) {
        table_set(row, column, "%.2f +- %.2f", 100 * json_real_value(share),
                  100 * json_real_value(error));
    } else {
        table_set(row, column, "-");
    }
}

void shares_print(const json_t *results, bool as_json, const char *counted,
                  const share_column *columns, size_t n) {
    if (as_json) {
        json_dumpf(results, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(7));
        putchar('\n');
        return;
    }
    assert(n <= SHARE_COLUMNS_MAX);
    char title[64];
    snprintf(title, sizeof title, ">%s", counted);
    const char *titles[SHARE_COLUMNS_MAX + 3] = {"model", title};
    for (size_t i = 0; i < n; i++) {
        titles[2 + i] = columns[i].title;
    }
    text_table table;
    table_init(&table, titles);
    size_t i;
    const json_t *result;
    json_array_foreach(results, i, result) {
        table_row *row = table_add(&table);
        table_set(row, 0, "%s", json_string_value(json_object_get(result, "model")));
        table_set(row, 1, "%" JSON_INTEGER_FORMAT,
                  json_integer_value(json_object_get(result, counted)));
        for (size_t k = 0; k < n; k++) {
            set_share(row, 2 + k, result, &columns[k]);
        }
    }
    table_print(&table, stdout);
    table_free(&table);
}
