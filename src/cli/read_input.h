/* read_input.h - what comes from outside: whole files and standard input, lists of token ids. */
#ifndef JANG_CLI_READ_INPUT_H
#define JANG_CLI_READ_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads a whole file, or standard input where path is "-". *data is ended by a 0 byte that *n_bytes
 * does not count, and freed with free. Prints why it failed. */
bool read_whole(char **data, size_t *n_bytes, const char *path);

/* Token ids, freed with free. */
typedef struct id_list {
    int32_t *ids;
    size_t n, capacity;
} id_list;

bool id_list_add(id_list *list, int32_t id);

/* Reads ids of 0 .. 2^31-1 from text. Strictly: digits separated by single commas. Otherwise, for
 * files: separated by commas or white space, in brackets or not. On failure error takes one line.
 */
bool id_list_parse(id_list *list, const char *text, bool strict, char *error, size_t error_bytes);

#endif
