/* cli_utf8.h - UTF-8 from command lines, files and terminals: checked, and mended where needed.
 */
#ifndef JANG_CLI_CLI_UTF8_H
#define JANG_CLI_CLI_UTF8_H

#include <stddef.h>

/* Bytes of the well-formed UTF-8 character at text (Unicode, table 3-7); 0 if there is none. */
size_t cli_utf8_bytes(const char *text, size_t n_bytes);

/* Copies text with every byte that belongs to no character replaced by U+FFFD. Freed with free;
 * NULL when out of memory. */
char *cli_utf8_repair(size_t *n_out, const char *text, size_t n_bytes);

#endif
