/* text_table.c - a table for people: columns as wide as their widest cell. */
#include "text_table.h"

#include "terminal.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void table_init(text_table *table, const char *const *titles) {
    *table = (text_table){.titles = titles};
}

void table_free(text_table *table) {
    free(table->rows);
}

table_row *table_add(text_table *table) {
    if (table->n_rows == table->capacity) {
        size_t capacity = table->capacity ? 2 * table->capacity : 32;
        table_row *larger = realloc(table->rows, capacity * sizeof *larger);
        if (!larger) {
            table->failed = true;
            return NULL;
        }
        table->rows = larger;
        table->capacity = capacity;
    }
    table_row *row = &table->rows[table->n_rows++];
    memset(row, 0, sizeof *row);
    return row;
}

void table_set(table_row *row, size_t column, const char *format, ...) {
    if (!row) {
        return;
    }
    va_list args;
    va_start(args, format);
    vsnprintf(row->cells[column], TABLE_CELL_BYTES, format, args);
    va_end(args);
}

/* Columns a cell takes: its characters. */
static size_t cell_width(const char *cell) {
    size_t n = 0;
    for (; *cell; cell++) {
        n += (*cell & 0xc0) != 0x80;
    }
    return n;
}

static void print_cell(FILE *to, const char *cell, size_t width, bool right, bool is_last) {
    int padding = (int)(width - cell_width(cell));
    if (right) {
        fprintf(to, "%*s", padding, "");
    }
    print_text(to, cell, strlen(cell));
    if (!right && !is_last) {
        fprintf(to, "%*s", padding, "");
    }
    fputs(is_last ? "\n" : "  ", to);
}

void table_print(const text_table *table, FILE *to) {
    size_t n_columns = 0, widths[TABLE_COLUMNS];
    for (; n_columns < TABLE_COLUMNS && table->titles[n_columns]; n_columns++) {
        const char *title = table->titles[n_columns];
        widths[n_columns] = strlen(title) - (title[0] == '>');
        for (size_t i = 0; i < table->n_rows; i++) {
            size_t width = cell_width(table->rows[i].cells[n_columns]);
            widths[n_columns] = width > widths[n_columns] ? width : widths[n_columns];
        }
    }
    for (size_t c = 0; c < n_columns; c++) {
        bool right = table->titles[c][0] == '>';
        print_cell(to, table->titles[c] + right, widths[c], right, c + 1 == n_columns);
    }
    for (size_t i = 0; i < table->n_rows; i++) {
        for (size_t c = 0; c < n_columns; c++) {
            print_cell(to, table->rows[i].cells[c], widths[c], table->titles[c][0] == '>',
                       c + 1 == n_columns);
        }
    }
    if (table->failed) {
        cli_failed("out of memory: the table is not complete");
    }
}
