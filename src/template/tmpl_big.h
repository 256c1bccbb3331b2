/* tmpl_big.h - integers beyond 64 bits: sign and magnitude in 32-bit limbs, lowest first.
 *
 * Every operation takes and gives any integer as a tval; a result that fits 64 bits is a TV_INT, so
 * that a number has one representation only. */
#ifndef JANG_TMPL_BIG_H
#define JANG_TMPL_BIG_H

#include "template/tmpl_repr.h"

typedef struct tv_big {
    bool negative;
    size_t n;
    uint32_t *limbs;
} tv_big;

/* Operands are TV_BOOL, TV_INT or TV_BIG. */
tval int_add(tm_core *t, tval a, tval b);
tval int_sub(tm_core *t, tval a, tval b);
tval int_mul(tm_core *t, tval a, tval b);
/* Floor division and its remainder, which has the divisor's sign; b is not 0. */
void int_divmod(tm_core *t, tval *quotient, tval *remainder, tval a, tval b);
/* exponent >= 0 */
tval int_pow(tm_core *t, tval base, tval exponent);
/* The correctly rounded quotient; b is not 0. Fails when it is beyond a double. */
double int_true_divide(tm_core *t, tval a, tval b);
/* -1, 0, 1 */
int int_compare(tval a, tval b);
int int_compare_double(tval a, double x); /* x is not NaN */
int int_sign(tval a);
bool int_is_odd(tval a);

/* The integer part of a finite double. */
tval int_from_double(tm_core *t, double x);
/* The nearest double; infinite when beyond. */
double big_to_double(const struct tv_big *b);
double int_to_double(tval a);

/* Digits of a base from 2 to 36, without sign or prefix; they must be valid. */
tval int_from_digits(tm_core *t, const char *digits, size_t n, unsigned base);
/* |a| in base 2, 8, 10 or 16, lower case. */
void int_put_digits(tm_text *b, tval a, unsigned base);
/* Appends str(b). */
void big_put(tm_text *b, const struct tv_big *big);

#endif
