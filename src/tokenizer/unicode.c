/* unicode.c - sets and mappings of characters by binary search in ranges. */
#include "tokenizer/unicode.h"

extern const uint32_t unicode_punctuation[], unicode_bert_removed[], unicode_bert_marks[],
    unicode_combining[], unicode_scripts[];
extern const int32_t unicode_lower[];
extern const size_t unicode_n_punctuation, unicode_n_bert_removed, unicode_n_bert_marks,
    unicode_n_combining, unicode_n_scripts, unicode_n_lower;

/* The range that holds c among n rows of width numbers that start with first and last; or NULL. */
static const uint32_t *find_range(const uint32_t *rows, size_t n, size_t width, uint32_t c) {
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const uint32_t *row = rows + middle * width;
        if (c < row[0]) {
            high = middle;
        } else if (c > row[1]) {
            low = middle + 1;
        } else {
            return row;
        }
    }
    return NULL;
}

bool unicode_is_punctuation(uint32_t c) {
    return find_range(unicode_punctuation, unicode_n_punctuation, 2, c);
}

bool unicode_is_bert_removed(uint32_t c) {
    return find_range(unicode_bert_removed, unicode_n_bert_removed, 2, c);
}

bool unicode_is_bert_mark(uint32_t c) {
    return find_range(unicode_bert_marks, unicode_n_bert_marks, 2, c);
}

bool unicode_is_combining(uint32_t c) {
    return find_range(unicode_combining, unicode_n_combining, 2, c);
}

/* Runs (first, last, step, difference) lie in order of first; two may overlap, where capital and
 * small letters alternate, so the one before is tried as well. */
uint32_t unicode_to_lower(uint32_t c, uint32_t *second) {
    *second = c == 0x130 ? 0x307 : 0;
    if (c < 0x80 || c == 0x130) {
        return c >= 'A' && c <= 'Z' ? c + 32 : c == 0x130 ? 'i' : c;
    }
    size_t low = 0, high = unicode_n_lower;
    while (low < high) { /* the first run that begins after c */
        size_t middle = (low + high) / 2;
        if ((uint32_t)unicode_lower[middle * 4] <= c) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    for (size_t back = 1; back <= 2 && back <= low; back++) {
        const int32_t *run = unicode_lower + (low - back) * 4;
        if (c <= (uint32_t)run[1] && (c - (uint32_t)run[0]) % (uint32_t)run[2] == 0) {
            return (uint32_t)((int32_t)c + run[3]);
        }
    }
    return c;
}

int unicode_script(uint32_t c) {
    const uint32_t *row = find_range(unicode_scripts, unicode_n_scripts, 3, c);
    return row ? (int)row[2] : -1;
}
