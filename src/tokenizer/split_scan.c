/* split_scan.c - hand-written matchers for known split patterns.
 *
 * Each follows its pattern's alternatives in order; where the pattern backtracks (white space
 * before a line end, white space before a word) the outcome is worked out instead. That they equal
 * the patterns on every text is tested against PCRE2 with the same Unicode tables. */
#include "tokenizer/split_scan.h"

#include "base/utf8.h"
#include "tokenizer/unicode.h"

#include <string.h>

/* What a character is to the patterns. */
enum { OTHER = 0, LETTER = 1, NUMBER = 2, SPACE = 4, LINE_END = 8 };

/* ASCII; LINE_END is space as well. */
static const uint8_t ascii_class[128] = {
    ['\t'] = SPACE,
    ['\n'] = SPACE | LINE_END,
    ['\v'] = SPACE,
    ['\f'] = SPACE,
    ['\r'] = SPACE | LINE_END,
    [' '] = SPACE,
    ['0'] = 2,
    2,
    2,
    2,
    2,
    2,
    2,
    2,
    2,
    2,
    ['A'] = 1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    ['a'] = 1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
};

static unsigned wide_class(const char *text, size_t *length) {
    uint32_t c = utf8_read(text, length);
    if (unicode_in(c, UNICODE_L)) {
        return LETTER;
    }
    if (unicode_in(c, UNICODE_N)) {
        return NUMBER;
    }
    return unicode_space(c) ? SPACE : OTHER;
}

/* The class of the character at text and its bytes. */
static inline unsigned class_at(const char *text, size_t *length) {
    unsigned char b = (unsigned char)*text;
    if (b < 128) {
        *length = 1;
        return ascii_class[b];
    }
    return wide_class(text, length);
}

/* The end of the run of characters of a class at from. */
static inline size_t run_end(const char *text, size_t n, size_t from, unsigned wanted) {
    size_t length;
    while (from < n && class_at(text + from, &length) == wanted) {
        from += length;
    }
    return from;
}

/* The end of "'s" and its like at from, where an apostrophe is; from if there is none. */
static size_t contraction_end(const char *text, size_t n, size_t from, bool any_case) {
    if (from + 1 >= n) {
        return from;
    }
    char fold = any_case ? 0x20 : 0;
    char a = (char)(text[from + 1] | fold), b = from + 2 < n ? (char)(text[from + 2] | fold) : 0;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') {
        return from + 2;
    }
    if ((b == 'e' && (a == 'r' || a == 'v')) || (a == 'l' && b == 'l')) {
        return from + 3;
    }
    /* the long s is a small s to a pattern that ignores case */
    return any_case && from + 2 < n && memcmp(text + from + 1, "\xc5\xbf", 2) == 0 ? from + 3
                                                                                   : from;
}

/* White space at from, none of which is to go with a line end: all of it at the end of the text,
 * all but the last character before a word, unless it is the only one. */
static size_t space_end(const char *text, size_t n, size_t from) {
    size_t end = from, last = from, length;
    while (end < n && (class_at(text + end, &length) & SPACE)) {
        last = end;
        end += length;
    }
    return end == n || last == from ? end : last;
}

static size_t scan_gpt2(const char *text, size_t n, size_t from, size_t parameter, size_t *start) {
    (void)parameter;
    size_t length, next = from;
    *start = from;
    if (text[from] == '\'') {
        size_t end = contraction_end(text, n, from, false);
        if (end > from) {
            return end;
        }
    }
    unsigned class = class_at(text + from, &length);
    if (text[from] == ' ' && from + 1 < n) {
        class = class_at(text + from + 1, &length);
        next = from + 1;
    }
    if (class & SPACE) {
        return space_end(text, n, from);
    }
    return run_end(text, n, next + length, class);
}

/* The end of white space with a line end in it: after the last line end of the run; 0: it has none.
 */
static size_t line_end(const char *text, size_t n, size_t from) {
    size_t end = 0, length;
    unsigned class;
    while (from < n && ((class = class_at(text + from, &length)) & SPACE)) {
        from += length;
        end = class & LINE_END ? from : end;
    }
    return end;
}

/* Llama 3 and Qwen 2: parameter is the number of digits that go together. */
static size_t scan_llama3(const char *text, size_t n, size_t from, size_t parameter,
                          size_t *start) {
    size_t length, next_length;
    *start = from;
    if (text[from] == '\'') {
        size_t end = contraction_end(text, n, from, true);
        if (end > from) {
            return end;
        }
    }
    unsigned class = class_at(text + from, &length);
    size_t next = from + length;
    if (class == LETTER) {
        return run_end(text, n, next, LETTER);
    }
    if (class == NUMBER) {
        for (size_t i = 1; i < parameter && next < n; i++, next += next_length) {
            if (class_at(text + next, &next_length) != NUMBER) {
                break;
            }
        }
        return next;
    }
    unsigned after = next < n ? class_at(text + next, &next_length) : SPACE;
    if (after == LETTER && !(class & LINE_END)) {
        return run_end(text, n, next + next_length, LETTER);
    }
    if (class == OTHER || (text[from] == ' ' && after == OTHER)) {
        size_t end = run_end(text, n, next, OTHER);
        while (end < n && (text[end] == '\r' || text[end] == '\n')) {
            end++;
        }
        return end;
    }
    size_t end = line_end(text, n, from);
    return end ? end : space_end(text, n, from);
}

#define LLAMA3_HEAD "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define LLAMA3_TAIL "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

scan_fn scan_of_pattern(const char *pattern, size_t n_bytes, size_t *parameter) {
    static const struct {
        const char *pattern;
        scan_fn scan;
        size_t parameter;
    } known[] = {
        {SCAN_GPT2_PATTERN, scan_gpt2, 0},
        {LLAMA3_HEAD "\\p{N}{1,3}" LLAMA3_TAIL, scan_llama3, 3},
        {LLAMA3_HEAD "\\p{N}" LLAMA3_TAIL, scan_llama3, 1},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strlen(known[i].pattern) == n_bytes &&
            memcmp(known[i].pattern, pattern, n_bytes) == 0) {
            *parameter = known[i].parameter;
            return known[i].scan;
        }
    }
    return NULL;
}

/* ---- Pre-tokenizers that are no pattern ---- */

/* 1: word character, 2: space, 0: neither. */
static int word_kind(uint32_t c) {
    if (unicode_is_word(c)) {
        return 1;
    }
    return unicode_space(c) ? 2 : 0;
}

size_t scan_words(const char *text, size_t n, size_t from, size_t parameter, size_t *start) {
    (void)parameter;
    size_t length = 0;
    int kind = 2;
    for (; from < n && (kind = word_kind(utf8_read(text + from, &length))) == 2; from += length) {
    }
    *start = from;
    while (from < n && word_kind(utf8_read(text + from, &length)) == kind) {
        from += length;
    }
    return from;
}

size_t scan_scripts(const char *text, size_t n, size_t from, size_t parameter, size_t *start) {
    (void)parameter;
    size_t length;
    int script = -1;
    for (; from < n && (script = unicode_script(utf8_read(text + from, &length))) < 0;
         from += length) {
    }
    *start = from;
    while (from < n) {
        int next = unicode_script(utf8_read(text + from, &length));
        if (next >= 0 && next != script) {
            break;
        }
        from += length;
    }
    return from;
}

size_t scan_fixed(const char *text, size_t n, size_t from, size_t parameter, size_t *start) {
    size_t length;
    *start = from;
    for (size_t i = 0; i < parameter && from < n; i++) {
        utf8_read(text + from, &length);
        from += length;
    }
    return from;
}
