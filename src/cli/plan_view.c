/* plan_view.c - the plan of a conversion, or what a model is made of, as a table for people. */
#include "plan_view.h"

#include "terminal.h"
#include "text_table.h"

#include <string.h>

static double number_of(const json_t *object, const char *key) {
    return json_number_value(json_object_get(object, key));
}

static const char *string_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "-";
}

static void add_row(text_table *table, const json_t *row) {
    table_row *to = table_add(table);
    table_set(to, 0, "%s", string_of(row, "role"));
    table_set(to, 1, "%s", string_of(row, "tier"));
    table_set(to, 2, "%g", number_of(row, "bits"));
    table_set(to, 3, "%.0f", number_of(row, "tensors"));
    table_set(to, 4, "%.0f", number_of(row, "params"));
    table_set(to, 5, "%s", human_bytes(number_of(row, "bytes")).text);
}

void notes_print(const json_t *notes) {
    size_t i;
    const json_t *item;
    json_array_foreach(notes, i, item) {
        const char *note = json_string_value(item);
        fputs("note: ", stdout);
        print_text(stdout, note ? note : "", note ? strlen(note) : 0);
        putchar('\n');
    }
}

void plan_print(const json_t *plan) {
    static const char *const titles[] = {"role",        "tier",   ">bits", ">tensors",
                                         ">parameters", ">bytes", NULL};
    text_table table;
    table_init(&table, titles);
    size_t i;
    const json_t *item;
    json_array_foreach(json_object_get(plan, "rows"), i, item) {
        add_row(&table, item);
    }
    table_print(&table, stdout);
    table_free(&table);
    notes_print(json_object_get(plan, "notes"));
    json_array_foreach(json_object_get(plan, "left_out"), i, item) {
        printf("left out: %s: %.0f tensors, %s\n", string_of(item, "what"),
               number_of(item, "tensors"), human_bytes(number_of(item, "bytes")).text);
    }
    const json_t *budget = json_object_get(plan, "budget");
    if (budget) {
        bool bytes = strcmp(string_of(budget, "unit"), "bytes") == 0;
        printf(bytes ? "budget: %.0f bytes, %.0f spent" : "budget: %g nominal bits, %.4f spent",
               number_of(budget, "asked"), number_of(budget, "spent"));
        printf(", by the %s\n", string_of(budget, "measure"));
    }
    const char *profile = string_of(plan, "profile");
    print_text(stdout, profile, strlen(profile));
    printf(": %.2f nominal average bits (codes alone), %.2f true bits per weight (scales, biases "
           "and unquantized tensors included), %s\n",
           number_of(plan, "nominal_bits"), number_of(plan, "true_bits"),
           human_bytes(number_of(plan, "weight_bytes")).text);
}
