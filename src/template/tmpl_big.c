/* tmpl_big.c - integers beyond 64 bits: sign and magnitude, schoolbook algorithms.
 *
 * Templates hardly ever meet such numbers; they are here so that arithmetic is Python's and never
 * overflows. Division is Knuth's algorithm D (The Art of Computer Programming, 4.3.1). */
#include "template/tmpl_big.h"

#include <math.h>
#include <string.h>

#define MAX_LIMBS ((size_t)1 << 12) /* 131,072 bits */
#define MAX_DIGITS 4300             /* Python's limit for converting to and from decimal */

/* An integer as limbs, whatever its type. */
typedef struct num {
    bool negative;
    size_t n;
    const uint32_t *limbs;
    uint32_t small[2];
} num;

static void num_load(num *x, tval v) {
    if (v.type == TV_BIG) {
        *x = (num){.negative = v.big->negative, .n = v.big->n, .limbs = v.big->limbs};
        return;
    }
    int64_t value = v.type == TV_BOOL ? v.boolean : v.integer;
    uint64_t size = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    x->negative = value < 0;
    x->small[0] = (uint32_t)size;
    x->small[1] = (uint32_t)(size >> 32);
    x->n = size >> 32 ? 2 : size ? 1 : 0;
    x->limbs = x->small;
}

static int64_t small_value(tval v) {
    return v.type == TV_BOOL ? v.boolean : v.integer;
}

static uint32_t *limbs_new(tm_core *t, size_t n) {
    if (n > MAX_LIMBS) {
        tm_fail(t, "an integer is too large: %zu bits are allowed", MAX_LIMBS * 32);
    }
    tm_step(t, n);
    return tm_array(t, n, sizeof(uint32_t));
}

/* Trims and makes a value of limbs that lie in the arena. */
static tval num_make(tm_core *t, bool negative, uint32_t *limbs, size_t n) {
    while (n > 0 && limbs[n - 1] == 0) {
        n--;
    }
    if (n <= 2) {
        uint64_t size = (n > 0 ? limbs[0] : 0) | (uint64_t)(n > 1 ? limbs[1] : 0) << 32;
        if (size <= (uint64_t)INT64_MAX) {
            return tv_int(negative ? -(int64_t)size : (int64_t)size);
        }
        if (negative && size == (uint64_t)INT64_MAX + 1) {
            return tv_int(INT64_MIN);
        }
    }
    tv_big *big = tm_alloc(t, sizeof *big);
    *big = (tv_big){.negative = negative, .n = n, .limbs = limbs};
    return (tval){.type = TV_BIG, .big = big};
}

static int magnitude_compare(const uint32_t *a, size_t na, const uint32_t *b, size_t nb) {
    if (na != nb) {
        return na < nb ? -1 : 1;
    }
    for (size_t i = na; i > 0; i--) {
        if (a[i - 1] != b[i - 1]) {
            return a[i - 1] < b[i - 1] ? -1 : 1;
        }
    }
    return 0;
}

/* ---- Sums and products ---- */

static tval add_magnitudes(tm_core *t, const num *a, const num *b, bool negative) {
    size_t n = (a->n > b->n ? a->n : b->n) + 1;
    uint32_t *out = limbs_new(t, n);
    uint64_t carry = 0;
    for (size_t i = 0; i < n; i++) {
        carry += (uint64_t)(i < a->n ? a->limbs[i] : 0) + (i < b->n ? b->limbs[i] : 0);
        out[i] = (uint32_t)carry;
        carry >>= 32;
    }
    return num_make(t, negative, out, n);
}

/* |a| - |b| where |a| >= |b| */
static tval sub_magnitudes(tm_core *t, const num *a, const num *b, bool negative) {
    uint32_t *out = limbs_new(t, a->n);
    int64_t borrow = 0;
    for (size_t i = 0; i < a->n; i++) {
        int64_t d = (int64_t)a->limbs[i] - (i < b->n ? b->limbs[i] : 0) - borrow;
        borrow = d < 0;
        out[i] = (uint32_t)d;
    }
    return num_make(t, negative, out, a->n);
}

static tval add_signed(tm_core *t, const num *a, const num *b) {
    if (a->negative == b->negative) {
        return add_magnitudes(t, a, b, a->negative);
    }
    if (magnitude_compare(a->limbs, a->n, b->limbs, b->n) >= 0) {
        return sub_magnitudes(t, a, b, a->negative);
    }
    return sub_magnitudes(t, b, a, b->negative);
}

tval int_add(tm_core *t, tval a, tval b) {
    int64_t sum;
    if (a.type != TV_BIG && b.type != TV_BIG &&
        !__builtin_add_overflow(small_value(a), small_value(b), &sum)) {
        return tv_int(sum);
    }
    num x, y;
    num_load(&x, a);
    num_load(&y, b);
    return add_signed(t, &x, &y);
}

tval int_sub(tm_core *t, tval a, tval b) {
    int64_t difference;
    if (a.type != TV_BIG && b.type != TV_BIG &&
        !__builtin_sub_overflow(small_value(a), small_value(b), &difference)) {
        return tv_int(difference);
    }
    num x, y;
    num_load(&x, a);
    num_load(&y, b);
    y.negative = !y.negative;
    return add_signed(t, &x, &y);
}

tval int_mul(tm_core *t, tval a, tval b) {
    int64_t product;
    if (a.type != TV_BIG && b.type != TV_BIG &&
        !__builtin_mul_overflow(small_value(a), small_value(b), &product)) {
        return tv_int(product);
    }
    num x, y;
    num_load(&x, a);
    num_load(&y, b);
    size_t n = x.n + y.n;
    uint32_t *out = limbs_new(t, n);
    memset(out, 0, n * sizeof *out);
    tm_step(t, x.n * y.n);
    for (size_t i = 0; i < x.n; i++) {
        uint64_t carry = 0;
        for (size_t k = 0; k < y.n; k++) {
            carry += (uint64_t)x.limbs[i] * y.limbs[k] + out[i + k];
            out[i + k] = (uint32_t)carry;
            carry >>= 32;
        }
        out[i + y.n] = (uint32_t)carry;
    }
    return num_make(t, x.negative != y.negative, out, n);
}

tval int_pow(tm_core *t, tval base, tval exponent) {
    tval result = tv_int(1);
    if (exponent.type == TV_BIG) {
        bool tiny = base.type != TV_BIG && small_value(base) >= -1 && small_value(base) <= 1;
        if (!tiny) {
            tm_fail(t, "an integer is too large: %zu bits are allowed", MAX_LIMBS * 32);
        }
        bool negate = small_value(base) == -1 && int_is_odd(exponent);
        return tv_int(small_value(base) == 0 ? 0 : negate ? -1 : 1);
    }
    for (uint64_t e = (uint64_t)small_value(exponent); e > 0; e >>= 1) {
        if (e & 1) {
            result = int_mul(t, result, base);
        }
        if (e > 1) {
            base = int_mul(t, base, base);
        }
    }
    return result;
}

/* ---- Division ---- */

/* q = a / d, returning the remainder; q may be a. */
static uint32_t divide_small(uint32_t *q, const uint32_t *a, size_t n, uint32_t d) {
    uint64_t rest = 0;
    for (size_t i = n; i > 0; i--) {
        rest = rest << 32 | a[i - 1];
        q[i - 1] = (uint32_t)(rest / d);
        rest %= d;
    }
    return (uint32_t)rest;
}

/* out[0 .. n] = a << bits, bits < 32 */
static void shift_left(uint32_t *out, const uint32_t *a, size_t n, unsigned bits) {
    uint64_t carry = 0;
    for (size_t i = 0; i < n; i++) {
        carry |= (uint64_t)a[i] << bits;
        out[i] = (uint32_t)carry;
        carry >>= 32;
    }
    out[n] = (uint32_t)carry;
}

/* One digit of the quotient: divides u[0 .. n] by v[0 .. n), whose top bit is set; u becomes the
 * remainder. */
static uint32_t divide_step(uint32_t *u, const uint32_t *v, size_t n) {
    uint64_t top = (uint64_t)u[n] << 32 | u[n - 1];
    uint64_t q = top / v[n - 1], r = top % v[n - 1];
    while (q >> 32 || q * v[n - 2] > (r << 32 | u[n - 2])) {
        q--;
        r += v[n - 1];
        if (r >> 32) {
            break;
        }
    }
    uint64_t carry = 0;
    int64_t borrow = 0;
    for (size_t i = 0; i <= n; i++) {
        carry += i < n ? q * v[i] : 0;
        int64_t d = (int64_t)u[i] - (int64_t)(uint32_t)carry - borrow;
        u[i] = (uint32_t)d;
        borrow = d < 0;
        carry >>= 32;
    }
    if (borrow) { /* one too many: add back */
        uint64_t sum = 0;
        q--;
        for (size_t i = 0; i <= n; i++) {
            sum += (uint64_t)u[i] + (i < n ? v[i] : 0);
            u[i] = (uint32_t)sum;
            sum >>= 32;
        }
    }
    return (uint32_t)q;
}

/* |a| = q |b| + r. q has a->n limbs, r has b->n. */
static void divide(tm_core *t, uint32_t *q, uint32_t *r, const num *a, const num *b) {
    memset(q, 0, a->n * sizeof *q);
    memset(r, 0, b->n * sizeof *r);
    if (magnitude_compare(a->limbs, a->n, b->limbs, b->n) < 0) {
        tm_copy(r, a->limbs, a->n * sizeof *r);
        return;
    }
    if (b->n == 1) {
        r[0] = divide_small(q, a->limbs, a->n, b->limbs[0]);
        return;
    }
    tm_step(t, a->n * b->n / 4);
    unsigned bits = (unsigned)__builtin_clz(b->limbs[b->n - 1]);
    uint32_t *u = limbs_new(t, a->n + 1), *v = limbs_new(t, b->n + 1);
    shift_left(u, a->limbs, a->n, bits);
    shift_left(v, b->limbs, b->n, bits);
    for (size_t i = a->n - b->n + 1; i > 0; i--) {
        q[i - 1] = divide_step(u + i - 1, v, b->n);
    }
    for (size_t i = 0; i < b->n; i++) { /* undo the shift */
        uint64_t pair = u[i] | (uint64_t)u[i + 1] << 32;
        r[i] = (uint32_t)(pair >> bits);
    }
}

void int_divmod(tm_core *t, tval *quotient, tval *remainder, tval a, tval b) {
    num x, y;
    num_load(&x, a);
    num_load(&y, b);
    uint32_t *q = limbs_new(t, x.n + 1), *r = limbs_new(t, y.n + 1);
    divide(t, q, r, &x, &y);
    tval whole = num_make(t, x.negative != y.negative, q, x.n);
    tval rest = num_make(t, x.negative, r, y.n);
    if (int_sign(rest) != 0 && x.negative != y.negative) { /* round down, not towards zero */
        whole = int_sub(t, whole, tv_int(1));
        rest = int_add(t, rest, b);
    }
    *quotient = whole;
    *remainder = rest;
}

/* ---- Doubles ---- */

static size_t bit_length(const num *x) {
    return x->n ? x->n * 32 - (size_t)__builtin_clz(x->limbs[x->n - 1]) : 0;
}

/* The nearest double: the top 64 bits, the last of which stands for all below it. */
static double num_to_double(const num *x, bool sticky) {
    size_t bits = bit_length(x), drop = bits > 64 ? bits - 64 : 0;
    uint64_t top = 0;
    for (size_t i = x->n; i > 0; i--) {
        size_t low = (i - 1) * 32; /* the limb's lowest bit */
        if (low >= drop) {
            top |= (uint64_t)x->limbs[i - 1] << (low - drop);
        } else if (low + 32 > drop) {
            top |= x->limbs[i - 1] >> (drop - low);
            sticky |= (x->limbs[i - 1] & ((1u << (drop - low)) - 1)) != 0;
        } else {
            sticky |= x->limbs[i - 1] != 0;
        }
    }
    if (drop > 4096) {
        return x->negative ? -INFINITY : INFINITY;
    }
    double d = ldexp((double)(top | (drop > 0 && sticky)), (int)drop);
    return x->negative ? -d : d;
}

double big_to_double(const struct tv_big *b) {
    return num_to_double(&(num){.negative = b->negative, .n = b->n, .limbs = b->limbs}, false);
}

double int_to_double(tval a) {
    return a.type == TV_BIG ? big_to_double(a.big) : (double)small_value(a);
}

tval int_from_double(tm_core *t, double x) {
    if (x >= -0x1p63 && x < 0x1p63) {
        return tv_int((int64_t)x);
    }
    int exponent;
    double fraction = frexp(fabs(x), &exponent); /* |x| = fraction * 2^exponent */
    uint64_t mantissa = (uint64_t)ldexp(fraction, 64);
    size_t shift = (size_t)exponent - 64, limb = shift / 32, bits = shift % 32;
    uint32_t *out = limbs_new(t, limb + 3);
    memset(out, 0, (limb + 3) * sizeof *out);
    out[limb] = (uint32_t)(mantissa << bits);
    out[limb + 1] = (uint32_t)(mantissa >> (32 - bits));
    out[limb + 2] = bits ? (uint32_t)(mantissa >> (64 - bits)) : 0;
    if (bits == 0) {
        out[limb + 1] = (uint32_t)(mantissa >> 32);
    }
    return num_make(t, x < 0, out, limb + 3);
}

double int_true_divide(tm_core *t, tval a, tval b) {
    num x, y;
    num_load(&x, a);
    num_load(&y, b);
    size_t na = bit_length(&x), nb = bit_length(&y);
    if (na <= 53 && nb <= 53) {
        return int_to_double(a) / int_to_double(b);
    }
    /* Scale a so that the quotient has at least 66 bits; the remainder only breaks ties. */
    size_t shift = na < nb + 66 ? nb + 66 - na : 0, limbs = shift / 32;
    uint32_t *scaled = limbs_new(t, x.n + limbs + 2);
    memset(scaled, 0, (x.n + limbs + 2) * sizeof *scaled);
    shift_left(scaled + limbs, x.limbs, x.n, (unsigned)(shift % 32));
    num big = {.n = x.n + limbs + 1, .limbs = scaled, .negative = x.negative != y.negative};
    while (big.n > 0 && big.limbs[big.n - 1] == 0) {
        big.n--;
    }
    uint32_t *q = limbs_new(t, big.n + 1), *r = limbs_new(t, y.n + 1);
    divide(t, q, r, &big, &y);
    bool sticky = false;
    for (size_t i = 0; i < y.n; i++) {
        sticky |= r[i] != 0;
    }
    num quotient = {.n = big.n, .limbs = q, .negative = big.negative};
    while (quotient.n > 0 && q[quotient.n - 1] == 0) {
        quotient.n--;
    }
    double d = ldexp(num_to_double(&quotient, sticky), -(int)shift);
    if (isinf(d)) {
        tm_fail(t, "integer division result too large for a float");
    }
    return d;
}

/* ---- Comparison ---- */

int int_compare(tval a, tval b) {
    num x, y;
    num_load(&x, a);
    num_load(&y, b);
    if (x.negative != y.negative) {
        return x.negative ? -1 : 1;
    }
    int sign = magnitude_compare(x.limbs, x.n, y.limbs, y.n);
    return x.negative ? -sign : sign;
}

int int_sign(tval a) {
    if (a.type == TV_BIG) {
        return a.big->negative ? -1 : 1;
    }
    return (small_value(a) > 0) - (small_value(a) < 0);
}

bool int_is_odd(tval a) {
    return a.type == TV_BIG ? a.big->limbs[0] & 1 : small_value(a) & 1;
}

int int_compare_double(tval a, double x) {
    if (a.type != TV_BIG && x >= -0x1p63 && x < 0x1p63) {
        int64_t n = small_value(a), whole = (int64_t)x;
        if (n != whole) {
            return n < whole ? -1 : 1;
        }
        double rest = x - (double)whole;
        return rest > 0 ? -1 : rest < 0;
    }
    if (a.type != TV_BIG) {
        return x > 0 ? -1 : 1;
    }
    if (isinf(x) || fabs(x) < 0x1p62) {
        return isinf(x) ? (x > 0 ? -1 : 1) : int_sign(a);
    }
    /* Both are large, so x is an integer: compare its bits with the limbs. */
    double mine = big_to_double(a.big);
    if (mine != x) {
        return mine < x ? -1 : 1;
    }
    int exponent;
    uint64_t mantissa = (uint64_t)ldexp(frexp(fabs(x), &exponent), 64);
    size_t bits = a.big->n * 32 - (size_t)__builtin_clz(a.big->limbs[a.big->n - 1]);
    if (bits != (size_t)exponent) { /* rounded up to a power of two */
        return a.big->negative ? 1 : -1;
    }
    int sign = 0;
    for (size_t bit = bits; bit > 0 && sign == 0; bit--) {
        size_t from_top = bits - bit;
        unsigned b = a.big->limbs[(bit - 1) / 32] >> ((bit - 1) % 32) & 1;
        unsigned m = from_top < 64 ? (unsigned)(mantissa >> (63 - from_top) & 1) : 0;
        sign = (int)b - (int)m;
    }
    return a.big->negative ? -sign : sign;
}

/* ---- Digits ---- */

tval int_from_digits(tm_core *t, const char *digits, size_t n, unsigned base) {
    while (n > 1 && digits[0] == '0') {
        digits++;
        n--;
    }
    if (n > MAX_DIGITS && (base & (base - 1)) != 0) {
        tm_fail(t,
                "Exceeds the limit (%d digits) for integer string conversion: value has %zu "
                "digits",
                MAX_DIGITS, n);
    }
    size_t capacity = n / 5 + 2, used = 0; /* at least 5 digits of any base fit a limb */
    capacity = base <= 10 ? n / 9 + 2 : capacity;
    capacity = base > 32 ? n / 6 + n / 30 + 4 : capacity;
    uint32_t *out = limbs_new(t, capacity + 2);
    tm_step(t, n * capacity / 8);
    for (size_t i = 0; i < n; i++) {
        char c = digits[i];
        uint64_t carry = (uint64_t)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
        for (size_t k = 0; k < used; k++) {
            carry += (uint64_t)out[k] * base;
            out[k] = (uint32_t)carry;
            carry >>= 32;
        }
        if (carry) {
            out[used++] = (uint32_t)carry;
        }
    }
    return num_make(t, false, out, used);
}

void int_put_digits(tm_text *b, tval a, unsigned base) {
    tm_core *t = b->t;
    num x;
    num_load(&x, a);
    if (x.n == 0) {
        tm_text_putc(b, '0');
        return;
    }
    size_t bits = bit_length(&x), capacity = base == 2 ? bits : base == 10 ? bits / 3 + 1 : bits;
    if (base == 10 && (double)bits * 0.30103 > MAX_DIGITS + 1) {
        tm_fail(t, "Exceeds the limit (%d digits) for integer string conversion", MAX_DIGITS);
    }
    uint32_t *rest = limbs_new(t, x.n);
    tm_copy(rest, x.limbs, x.n * sizeof *rest);
    char *digits = tm_alloc(t, capacity + 1);
    size_t at = capacity + 1, n = x.n;
    tm_step(t, n * capacity / 4);
    while (n > 0) {
        uint32_t digit = divide_small(rest, rest, n, base);
        digits[--at] = "0123456789abcdef"[digit];
        n -= rest[n - 1] == 0;
    }
    if (base == 10 && capacity + 1 - at > MAX_DIGITS) {
        tm_fail(t, "Exceeds the limit (%d digits) for integer string conversion", MAX_DIGITS);
    }
    tm_text_put(b, digits + at, capacity + 1 - at);
}

void big_put(tm_text *b, const struct tv_big *big) {
    if (big->negative) {
        tm_text_putc(b, '-');
    }
    union {
        const struct tv_big *from;
        struct tv_big *to;
    } same = {.from = big};
    int_put_digits(b, (tval){.type = TV_BIG, .big = same.to}, 10);
}
