/* pyunicode.c - what Python's str knows about characters, from utf8proc's tables.
 *
 * utf8proc has the categories and the one-to-one case mappings; the mappings to several characters
 * (Unicode's SpecialCasing) are few and listed in pyunicode_special.c. */
#include "template/pyunicode.h"

#include "template/pyunicode_special.h"

#include <stdlib.h>
#include <utf8proc.h>

/* ---- UTF-8 ---- */

uint32_t py_char_next(const char *text, size_t n, size_t *at) {
    const uint8_t *p = (const uint8_t *)text + *at;
    size_t left = n - *at;
    uint32_t c = p[0];
    size_t size = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    if (c < 0xc0 || size > left) {
        *at += 1;
        return c;
    }
    static const uint8_t lead[5] = {0, 0, 0x1f, 0x0f, 0x07};
    c &= lead[size];
    for (size_t i = 1; i < size; i++) {
        c = c << 6 | (p[i] & 0x3f);
    }
    *at += size;
    return c;
}

uint32_t py_char_prev(const char *text, size_t *at) {
    size_t end = *at, start = end - 1;
    while (start > 0 && ((uint8_t)text[start] & 0xc0) == 0x80 && end - start < 4) {
        start--;
    }
    *at = start;
    size_t from = start;
    return py_char_next(text, end, &from);
}

size_t py_char_put(char out[4], uint32_t c) {
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t size = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const uint8_t lead[5] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = size - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (c & 0x3f));
        c >>= 6;
    }
    out[0] = (char)(lead[size] | c);
    return size;
}

/* ---- Classes ---- */

static utf8proc_category_t category(uint32_t c) {
    return c > 0x10ffff ? UTF8PROC_CATEGORY_CN : utf8proc_category((utf8proc_int32_t)c);
}

bool py_is_space(uint32_t c) {
    if (c < 0x80) {
        return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20);
    }
    return c == 0x85 || category(c) == UTF8PROC_CATEGORY_ZS || c == 0x2028 || c == 0x2029;
}

bool py_is_line_break(uint32_t c) {
    return (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 ||
           c == 0x2029;
}

bool py_is_printable(uint32_t c) {
    if (c < 0x7f) {
        return c >= 0x20;
    }
    switch (category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
        return false;
    default:
        return true;
    }
}

bool py_is_alpha(uint32_t c) {
    utf8proc_category_t k = category(c);
    return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT ||
           k == UTF8PROC_CATEGORY_LM || k == UTF8PROC_CATEGORY_LO;
}

bool py_is_decimal(uint32_t c) {
    return category(c) == UTF8PROC_CATEGORY_ND;
}

int py_digit_value(uint32_t c) {
    if (c < 0x80) {
        return c >= '0' && c <= '9' ? (int)c - '0' : -1;
    }
    if (!py_is_decimal(c)) {
        return -1;
    }
    /* Digits of a script are ten in a row; mathematical ones (U+1D7CE) follow each other. */
    if (c >= 0x1d7ce && c <= 0x1d7ff) {
        return (int)(c - 0x1d7ce) % 10;
    }
    int value = 0;
    while (value < 9 && py_is_decimal(c - 1)) {
        c--;
        value++;
    }
    return value;
}

bool py_is_digit(uint32_t c) {
    return py_is_decimal(c) || special_is_digit(c);
}

bool py_is_numeric(uint32_t c) {
    utf8proc_category_t k = category(c);
    return k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO ||
           special_is_numeric(c);
}

bool py_is_alnum(uint32_t c) {
    return py_is_alpha(c) || py_is_numeric(c);
}

bool py_is_lower(uint32_t c) {
    return category(c) == UTF8PROC_CATEGORY_LL || special_is_lower(c);
}

bool py_is_upper(uint32_t c) {
    return category(c) == UTF8PROC_CATEGORY_LU || special_is_upper(c);
}

bool py_is_title(uint32_t c) {
    return category(c) == UTF8PROC_CATEGORY_LT;
}

bool py_is_cased(uint32_t c) {
    return py_is_lower(c) || py_is_upper(c) || py_is_title(c);
}

bool py_is_case_ignorable(uint32_t c) {
    utf8proc_category_t k = category(c);
    return k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_ME || k == UTF8PROC_CATEGORY_CF ||
           k == UTF8PROC_CATEGORY_LM || k == UTF8PROC_CATEGORY_SK || c == '\'' || c == '.' ||
           c == ':' || c == 0xb7 || c == 0x387 || c == 0x55f || c == 0x5f4 || c == 0x2018 ||
           c == 0x2019 || c == 0x2024 || c == 0x2027 || c == 0xfe13 || c == 0xfe52 || c == 0xfe55 ||
           c == 0xff07 || c == 0xff0e || c == 0xff1a;
}

bool py_is_id_start(uint32_t c) {
    if (c < 0x80) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
    }
    return py_is_alpha(c) || category(c) == UTF8PROC_CATEGORY_NL;
}

bool py_is_id_continue(uint32_t c) {
    utf8proc_category_t k = category(c);
    return py_is_id_start(c) || k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_MN ||
           k == UTF8PROC_CATEGORY_MC || k == UTF8PROC_CATEGORY_PC || c == 0xb7 || c == 0x387;
}

/* ---- Case ---- */

size_t py_upper(uint32_t out[3], uint32_t c) {
    size_t n = special_upper(out, c);
    if (n == 0) {
        out[0] = (uint32_t)utf8proc_toupper((utf8proc_int32_t)c);
        n = 1;
    }
    return n;
}

size_t py_lower(uint32_t out[3], uint32_t c) {
    if (c == 0x130) { /* I with dot above: i and the dot */
        out[0] = 'i';
        out[1] = 0x307;
        return 2;
    }
    out[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
    return 1;
}

size_t py_title(uint32_t out[3], uint32_t c) {
    size_t n = special_title(out, c);
    if (n == 0) {
        out[0] = (uint32_t)utf8proc_totitle((utf8proc_int32_t)c);
        n = 1;
    }
    return n;
}

size_t py_fold(uint32_t out[3], uint32_t c) {
    size_t n = special_fold(out, c);
    return n ? n : py_lower(out, c);
}
