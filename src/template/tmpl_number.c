/* tmpl_number.c - Python's int() and float() of text, and round(). */
#include "template/tmpl_number.h"

#include "template/pyfloat.h"
#include "template/pyunicode.h"
#include "template/tmpl_big.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_ROUND_DIGITS 5000 /* more than any integer that can be printed has */

/* The text without blanks at its ends, decimal digits of any script as ASCII, anything else that is
 * not ASCII as '?'. */
static tm_text plain_text(tm_core *t, const tv_str *s) {
    tm_text b = tm_text_start(t);
    size_t end = 0;
    for (size_t at = 0; at < s->n;) {
        uint32_t c = py_char_next(s->data, s->n, &at);
        bool blank = py_is_space(c);
        tm_step(t, 1);
        if (blank && b.n == 0) {
            continue;
        }
        int digit = c < 0x80 ? -1 : py_digit_value(c);
        tm_text_putc(&b, digit >= 0 ? (char)('0' + digit) : c < 0x80 ? (char)c : blank ? ' ' : '?');
        end = blank ? end : b.n;
    }
    b.n = end;
    return b;
}

static int digit_value(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'z' ? c - 'a' + 10 : 99;
}

static unsigned prefix_base(const char *p, size_t n) {
    char letter = n >= 2 && p[0] == '0' ? (char)(p[1] | 0x20) : 0;
    return letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
}

bool nm_parse_int(tm_core *t, const tv_str *s, unsigned base, tval *out) {
    tm_text b = plain_text(t, s);
    const char *p = b.data, *end = p + b.n;
    bool negative = p < end && *p == '-';
    p += p < end && (*p == '-' || *p == '+');
    unsigned prefix = prefix_base(p, (size_t)(end - p));
    bool zero_only = false;
    if (prefix && (base == 0 || base == prefix)) {
        base = prefix;
        p += 2;
        p += p < end && *p == '_';
    } else if (base == 0) {
        base = 10;
        zero_only = p < end && *p == '0'; /* 0 and 00 are numbers, 012 is not */
    }
    tm_text digits = tm_text_start(t);
    for (const char *q = p; q < end; q++) {
        if (*q == '_' && q > p && q[-1] != '_' && q + 1 < end) {
            continue;
        }
        if (digit_value(*q) >= (int)base || (zero_only && *q != '0')) {
            return false;
        }
        tm_text_putc(&digits, *q);
    }
    if (digits.n == 0) {
        return false;
    }
    tval n = int_from_digits(t, digits.data, digits.n, base);
    *out = negative ? int_sub(t, tv_int(0), n) : n;
    return true;
}

static bool is_word(const char *p, size_t n, const char *word) {
    if (n != strlen(word)) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if ((p[i] | 0x20) != word[i]) {
            return false;
        }
    }
    return true;
}

/* Copies digits, whose underscores must stand between two of them; returns where they end. */
static const char *take_digits(tm_text *out, const char *p, const char *end) {
    const char *start = p;
    while (p < end) {
        bool digit = *p >= '0' && *p <= '9';
        bool part =
            *p == '_' && p > start && p[-1] != '_' && p + 1 < end && p[1] >= '0' && p[1] <= '9';
        if (!digit && !part) {
            break;
        }
        if (digit) {
            tm_text_putc(out, *p);
        }
        p++;
    }
    return p;
}

bool nm_parse_float(tm_core *t, const tv_str *s, double *out) {
    tm_text b = plain_text(t, s), number = tm_text_start(t);
    const char *p = b.data, *end = p + b.n;
    double sign = p < end && *p == '-' ? -1 : 1;
    p += p < end && (*p == '-' || *p == '+');
    size_t n = (size_t)(end - p);
    if (is_word(p, n, "inf") || is_word(p, n, "infinity") || is_word(p, n, "nan")) {
        *out = copysign(is_word(p, n, "nan") ? NAN : INFINITY, sign);
        return true;
    }
    const char *q = take_digits(&number, p, end);
    size_t n_digits = (size_t)(q - p);
    if (q < end && *q == '.') {
        tm_text_putc(&number, '.');
        const char *r = take_digits(&number, q + 1, end);
        n_digits += (size_t)(r - q - 1);
        q = r;
    }
    if (n_digits == 0) {
        return false;
    }
    if (q < end && (*q | 0x20) == 'e') {
        tm_text_putc(&number, 'e');
        q++;
        if (q < end && (*q == '-' || *q == '+')) {
            tm_text_putc(&number, *q++);
        }
        const char *r = take_digits(&number, q, end);
        if (r == q) {
            return false;
        }
        q = r;
    }
    *out = sign * pyfloat_parse(number.data, number.n);
    return q == end;
}

/* ---- Rounding ---- */

/* To a multiple of 10^n, halves to the even one. */
static tval round_int(tm_core *t, tval x, int64_t n) {
    if (n > MAX_ROUND_DIGITS) {
        return tv_int(0);
    }
    tval unit = int_pow(t, tv_int(10), tv_int(n)), whole, rest;
    int_divmod(t, &whole, &rest, x, unit);
    tval twice = int_add(t, rest, rest);
    int side = int_compare(twice, unit);
    if (side > 0 || (side == 0 && int_is_odd(whole))) {
        whole = int_add(t, whole, tv_int(1));
    }
    return int_mul(t, whole, unit);
}

static double round_double(tm_core *t, double x, int64_t places) {
    if (!isfinite(x) || x == 0 || places > 323) {
        return x;
    }
    if (places < -308) {
        return copysign(0.0, x);
    }
    char digits[800];
    int exponent;
    size_t n;
    if (places >= 0) {
        n = pyfloat_fixed(digits, &exponent, x, (int)places);
    } else { /* as many digits as lie before the rounded place */
        pyfloat_digits(digits, &exponent, x, 0); /* for the exponent */
        int wanted = exponent + 1 + (int)places;
        if (wanted <= 0) { /* only the half just below can round up */
            double half = 5 * pow(10, (double)-places - 1);
            return copysign(wanted == 0 && fabs(x) > half ? pow(10, (double)-places) : 0.0, x);
        }
        n = pyfloat_digits(digits, &exponent, x, wanted);
    }
    if (n == 0) {
        return copysign(0.0, x);
    }
    snprintf(digits + n, sizeof digits - n, "e%d", exponent - (int)n + 1);
    double rounded = copysign(pyfloat_parse(digits, strlen(digits)), x);
    if (isinf(rounded)) {
        tm_fail(t, "rounded value too large to represent");
    }
    return rounded;
}

tval nm_round(tm_core *t, tval x, int64_t places) {
    if (x.type == TV_FLOAT) {
        return tv_float(round_double(t, x.real, places));
    }
    if (!tv_is_integral(x)) {
        if (x.type == TV_UNDEFINED) {
            tv_fail_undefined(t, x);
        }
        tm_fail(t, "type %s doesn't define __round__ method", tv_type_name(x));
    }
    return places >= 0 ? int_add(t, x, tv_int(0)) : round_int(t, x, -places);
}
