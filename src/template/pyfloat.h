/* pyfloat.h - floating point numbers in Python's spelling, whatever the locale says. */
#ifndef JANG_PYFLOAT_H
#define JANG_PYFLOAT_H

#include <stdbool.h>
#include <stddef.h>

#define PYFLOAT_REPR_MAX 32

/* Writes repr(x), "0.1", "1e+16", "nan", ended by a 0 byte, and returns its length. */
size_t pyfloat_repr(char out[PYFLOAT_REPR_MAX], double x);

/* The digits of |x| rounded to n significant digits (n >= 1), or, when n is 0, the fewest that give
 * x back. Writes them without point and trailing 0 byte included; *exponent is that of the first
 * digit: x = d.ddd * 10^exponent. x is finite. out holds at least n + 1, or 18, bytes. */
size_t pyfloat_digits(char *out, int *exponent, double x, int n);

/* The digits of |x| rounded to n places after the point: as pyfloat_digits, except that a number
 * that rounds to zero gives no digits. out holds at least n + 310 bytes. */
size_t pyfloat_fixed(char *out, int *exponent, double x, int n);

/* Reads a decimal number with '.', without blanks or underscores, as strtod does in the C locale.
 * The text must be one (digits, point, exponent) and at most 400 bytes are looked at closely. */
double pyfloat_parse(const char *text, size_t n);

#endif
