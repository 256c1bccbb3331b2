/* pyunicode_special.h - what pyunicode.c needs beyond utf8proc's tables. */
#ifndef JANG_PYUNICODE_SPECIAL_H
#define JANG_PYUNICODE_SPECIAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Case mappings with several characters (and all of casefold that is not lower): how many code
 * points were written, 0 if the character is not listed. */
size_t special_upper(uint32_t out[3], uint32_t c);
size_t special_title(uint32_t out[3], uint32_t c);
size_t special_fold(uint32_t out[3], uint32_t c);

/* Members of a class whose category is not the class's usual one. */
bool special_is_lower(uint32_t c);
bool special_is_upper(uint32_t c);
bool special_is_digit(uint32_t c);
bool special_is_numeric(uint32_t c);

#endif
