/* text_table.h - a table for people: columns as wide as their widest cell. */
#ifndef JANG_CLI_TEXT_TABLE_H
#define JANG_CLI_TEXT_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define TABLE_COLUMNS 12
#define TABLE_CELL_BYTES 96

typedef struct table_row {
    char cells[TABLE_COLUMNS][TABLE_CELL_BYTES];
} table_row;

typedef struct text_table {
    const char *const *titles; /* ended by NULL; a title that begins with '>' is a right column */
    table_row *rows;
    size_t n_rows, capacity;
    bool failed; /* out of memory */
} text_table;

void table_init(text_table *table, const char *const *titles);
void table_free(text_table *table);

/* Adds an empty row; set its cells with table_set. NULL when out of memory. */
table_row *table_add(text_table *table);

/* Sets a cell, cut if it is long. row may be NULL. */
__attribute__((format(printf, 3, 4))) void table_set(table_row *row, size_t column,
                                                     const char *format, ...);

void table_print(const text_table *table, FILE *to);

#endif
