/* pyfloat.c - floating point numbers in Python's spelling.
 *
 * The C library rounds correctly in both directions; only its decimal point depends on the locale.
 * So digits are picked out of its output one by one, and numbers are handed to strtod as an integer
 * with an exponent, which has no point. */
#include "template/pyfloat.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MANTISSA_MAX 800 /* more digits than ever decide a rounding (767) */
#define FRACTION_MAX 1100
#define SHORTEST_MAX 17

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* ---- Reading ---- */

/* strtod of digits * 10^exponent; digits holds n < MANTISSA_MAX + 1 of them. */
static double scale_digits(const char *digits, size_t n, long exponent) {
    char number[MANTISSA_MAX + 24];
    memcpy(number, digits, n);
    exponent = exponent > 100000 ? 100000 : exponent < -100000 ? -100000 : exponent;
    snprintf(number + n, sizeof number - n, "e%ld", exponent);
    return strtod(number, NULL);
}

static long read_exponent(const char *text, size_t n) {
    long e = 0;
    size_t i = n > 0 && (text[0] == '-' || text[0] == '+');
    for (; i < n && is_digit(text[i]); i++) {
        e = e < 1000000 ? e * 10 + (text[i] - '0') : e;
    }
    return n > 0 && text[0] == '-' ? -e : e;
}

double pyfloat_parse(const char *text, size_t n) {
    char digits[MANTISSA_MAX];
    size_t k = 0, i = 0;
    long exponent = 0;
    bool point = false, negative = false;
    if (i < n && (text[i] == '-' || text[i] == '+')) {
        negative = text[i++] == '-';
    }
    for (; i < n && (is_digit(text[i]) || text[i] == '.'); i++) {
        if (text[i] == '.') {
            point = true;
        } else if (k == 0 && text[i] == '0') {
            exponent -= point;
        } else if (k < MANTISSA_MAX) {
            digits[k++] = text[i];
            exponent -= point;
        } else { /* the rest can only decide a tie */
            digits[k - 1] = text[i] != '0' && digits[k - 1] == '0' ? '1' : digits[k - 1];
            exponent += !point;
        }
    }
    if (i < n && (text[i] == 'e' || text[i] == 'E')) {
        exponent += read_exponent(text + i + 1, n - i - 1);
    }
    double x = k ? scale_digits(digits, k, exponent) : 0.0;
    return negative ? -x : x;
}

/* ---- Writing ---- */

/* Adds one to the last digit. */
static void next_digits(char *digits, size_t n, int *exponent) {
    size_t i = n;
    while (i > 0 && digits[i - 1] == '9') {
        digits[--i] = '0';
    }
    if (i > 0) {
        digits[i - 1]++;
    } else {
        digits[0] = '1';
        ++*exponent;
    }
}

/* Whether the digits read as x. At a power of two the gap above is wider than the one below, so
 * that the digits after the nearest ones can be right when those are not. */
static bool digits_match(char *digits, size_t n, int *exponent, double x) {
    if (scale_digits(digits, n, *exponent - (long)(n - 1)) == x) {
        return true;
    }
    char after[SHORTEST_MAX + 1];
    int after_exponent = *exponent;
    memcpy(after, digits, n);
    next_digits(after, n, &after_exponent);
    if (scale_digits(after, n, after_exponent - (long)(n - 1)) != x) {
        return false;
    }
    memcpy(digits, after, n);
    *exponent = after_exponent;
    return true;
}

size_t pyfloat_digits(char *out, int *exponent, double x, int n_digits) {
    char text[FRACTION_MAX + 40];
    x = fabs(x);
    for (int want = n_digits ? n_digits : 1;; want++) {
        int capped = want < FRACTION_MAX ? want : FRACTION_MAX;
        snprintf(text, sizeof text, "%.*e", capped - 1, x);
        size_t n = 0;
        const char *p = text;
        for (; *p && *p != 'e'; p++) {
            if (is_digit(*p)) {
                out[n++] = *p;
            }
        }
        *exponent = (int)read_exponent(p + 1, *p ? strlen(p + 1) : 0);
        while (n < (size_t)want) {
            out[n++] = '0'; /* digits beyond any double's last */
        }
        if (n_digits || want >= SHORTEST_MAX || digits_match(out, n, exponent, x)) {
            return n;
        }
    }
}

size_t pyfloat_fixed(char *out, int *exponent, double x, int n_places) {
    char text[FRACTION_MAX + 330];
    int capped = n_places < FRACTION_MAX ? n_places : FRACTION_MAX;
    snprintf(text, sizeof text, "%.*f", capped, fabs(x));
    size_t n = 0, n_whole = 0, lead = 0;
    bool point = false;
    for (const char *p = text; *p; p++) {
        if (is_digit(*p)) {
            n_whole += !point;
            if (n == 0 && *p == '0') {
                lead++;
            } else {
                out[n++] = *p;
            }
        } else {
            point = true;
        }
    }
    for (int i = capped; i < n_places && n > 0; i++) {
        out[n++] = '0';
    }
    *exponent = (int)n_whole - 1 - (int)lead;
    return n;
}

size_t pyfloat_repr(char out[PYFLOAT_REPR_MAX], double x) {
    if (!isfinite(x)) {
        const char *word = isnan(x) ? "nan" : x < 0 ? "-inf" : "inf";
        return (size_t)snprintf(out, PYFLOAT_REPR_MAX, "%s", word);
    }
    char digits[SHORTEST_MAX + 1];
    int exponent;
    size_t n = pyfloat_digits(digits, &exponent, x, 0), k = 0;
    if (signbit(x)) {
        out[k++] = '-';
    }
    if (exponent < -4 || exponent >= 16) {
        out[k++] = digits[0];
        if (n > 1) {
            out[k++] = '.';
            memcpy(out + k, digits + 1, n - 1);
            k += n - 1;
        }
        k += (size_t)snprintf(out + k, PYFLOAT_REPR_MAX - k, "e%c%02d", exponent < 0 ? '-' : '+',
                              abs(exponent));
        return k;
    }
    /* One digit per power of ten, from the units or above to the tenths or below. */
    int last = exponent - (int)n + 1 < -1 ? exponent - (int)n + 1 : -1;
    for (int power = exponent > 0 ? exponent : 0; power >= last; power--) {
        int i = exponent - power;
        if (power == -1) {
            out[k++] = '.';
        }
        out[k++] = i >= 0 && i < (int)n ? digits[i] : '0';
    }
    out[k] = 0;
    return k;
}
