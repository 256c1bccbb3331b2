/* tmpl_text.h - operations on text that both methods and filters offer. */
#ifndef JANG_TMPL_TEXT_H
#define JANG_TMPL_TEXT_H

#include "template/tmpl_run.h"

/* A part of a string, in bytes. */
typedef struct tx_span {
    size_t from, to;
} tx_span;

typedef enum tx_side { TX_LEFT = 1, TX_RIGHT = 2, TX_BOTH = 3 } tx_side;

/* Without the characters of a set (NULL: blank ones) at its ends. */
tval tx_strip(tm_core *t, tv_str *s, const tv_str *set, tx_side side);
/* All occurrences of old become new; at most max of them unless max < 0. */
tval tx_replace(tm_core *t, tv_str *s, const tv_str *old, const tv_str *new, int64_t max);
/* Parts between separators (NULL: runs of blank characters); at most max cuts unless max < 0. */
tval tx_split(tm_core *t, tv_str *s, const tv_str *separator, int64_t max, bool from_right);
tval tx_split_lines(tm_core *t, tv_str *s, bool keep_ends);
tval tx_join(tm_core *t, const tv_str *separator, tval items, bool any_type);

tval tx_upper(tm_core *t, tv_str *s);
tval tx_lower(tm_core *t, tv_str *s);
tval tx_capitalize(tm_core *t, tv_str *s);
tval tx_title(tm_core *t, tv_str *s);
tval tx_swapcase(tm_core *t, tv_str *s);
tval tx_casefold(tm_core *t, tv_str *s);

/* Padded to a width in characters. */
typedef enum tx_align { TX_ALIGN_LEFT, TX_ALIGN_RIGHT, TX_ALIGN_CENTER } tx_align;
tval tx_pad(tm_core *t, tv_str *s, int64_t width, const tv_str *fill, tx_align align);

/* A piece of s as a string of the same kind. */
tval tx_piece(tm_core *t, const tv_str *s, size_t from, size_t to);
/* The byte where needle starts at or behind from (or the last that ends at or before `to`), or
 * SIZE_MAX. */
size_t tx_find(tm_core *t, const tv_str *s, size_t from, size_t to, const tv_str *needle);
size_t tx_find_last(tm_core *t, const tv_str *s, size_t from, size_t to, const tv_str *needle);

#endif
