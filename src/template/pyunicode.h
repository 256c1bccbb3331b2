/* pyunicode.h - what Python's str knows about characters: blanks, letters, cases, width. */
#ifndef JANG_PYUNICODE_H
#define JANG_PYUNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads the code point at text[*at] and moves *at behind it. The text is valid UTF-8; a stray byte
 * gives itself. */
uint32_t py_char_next(const char *text, size_t n, size_t *at);
/* The code point that ends before *at, moving *at to its start. */
uint32_t py_char_prev(const char *text, size_t *at);
/* Writes UTF-8 (surrogates included) and returns the number of bytes, 1 to 4. */
size_t py_char_put(char out[4], uint32_t c);

bool py_is_space(uint32_t c);      /* str.isspace, \s */
bool py_is_line_break(uint32_t c); /* where str.splitlines splits */
bool py_is_printable(uint32_t c);
bool py_is_alpha(uint32_t c);
bool py_is_decimal(uint32_t c);
bool py_is_digit(uint32_t c);
bool py_is_numeric(uint32_t c);
bool py_is_alnum(uint32_t c);
bool py_is_lower(uint32_t c);
bool py_is_upper(uint32_t c);
bool py_is_title(uint32_t c);
bool py_is_cased(uint32_t c);
bool py_is_case_ignorable(uint32_t c);
bool py_is_id_start(uint32_t c);
bool py_is_id_continue(uint32_t c);
/* The value of a decimal digit of any script, or -1. */
int py_digit_value(uint32_t c);

/* Full case mapping of one character: writes up to 3 code points and returns how many. */
size_t py_upper(uint32_t out[3], uint32_t c);
size_t py_lower(uint32_t out[3], uint32_t c);
size_t py_title(uint32_t out[3], uint32_t c);
size_t py_fold(uint32_t out[3], uint32_t c);

#endif
