/* tmpl_numfmt.c - Python's format specifications.
 *
 * A number is put together from a sign, a prefix (0x), digits and a rest (point, fraction,
 * exponent); grouping and zero padding work on the digits, everything else on the whole. */
#include "template/tmpl_numfmt.h"

#include "template/pyfloat.h"
#include "template/pyunicode.h"
#include "template/tmpl_big.h"
#include "template/tmpl_number.h"
#include "template/tmpl_text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_PRECISION 100000
#define MAX_WIDTH ((int64_t)1 << 31)

nf_spec nf_default(void) {
    return (nf_spec){.precision = -1};
}

/* ---- Reading ---- */

static bool is_align(uint32_t c) {
    return c == '<' || c == '>' || c == '=' || c == '^';
}

/* A number at *at, or -1 if there is none. */
static int64_t take_number(tm_core *t, const tv_str *s, size_t *at) {
    int64_t n = -1;
    for (;;) {
        size_t next = *at;
        int digit = next < s->n ? py_digit_value(py_char_next(s->data, s->n, &next)) : -1;
        if (digit < 0) {
            return n;
        }
        n = (n < 0 ? 0 : n) * 10 + digit;
        if (n > MAX_WIDTH) {
            tm_fail(t, "Too many decimal digits in format string");
        }
        *at = next;
    }
}

static bool take(const tv_str *s, size_t *at, char c) {
    bool found = *at < s->n && s->data[*at] == c;
    *at += found;
    return found;
}

static void take_alignment(const tv_str *s, size_t *at, nf_spec *spec) {
    size_t second = *at;
    uint32_t first = *at < s->n ? py_char_next(s->data, s->n, &second) : 0;
    if (second < s->n && is_align((uint8_t)s->data[second])) {
        spec->fill = first;
        spec->align = s->data[second];
        *at = second + 1;
    } else if (*at < s->n && is_align(first)) {
        spec->align = (char)first;
        *at = second;
    }
}

nf_spec nf_parse(tm_core *t, const tv_str *s, tval value) {
    nf_spec spec = nf_default();
    size_t at = 0;
    take_alignment(s, &at, &spec);
    if (at < s->n && (s->data[at] == '+' || s->data[at] == '-' || s->data[at] == ' ')) {
        spec.sign = s->data[at++];
    }
    spec.no_negative_zero = take(s, &at, 'z');
    spec.alternate = take(s, &at, '#');
    if (!spec.fill && take(s, &at, '0')) {
        spec.zero = true;
        spec.fill = '0';
        if (!spec.align && tv_is_number(value)) {
            spec.align = '=';
        }
    }
    int64_t width = take_number(t, s, &at);
    spec.width = width < 0 ? 0 : width;
    if (take(s, &at, ',')) {
        spec.grouping = ',';
    }
    if (take(s, &at, '_')) {
        if (spec.grouping) {
            tm_fail(t, "Cannot specify both ',' and '_'.");
        }
        spec.grouping = '_';
    }
    if (spec.grouping && take(s, &at, ',')) {
        tm_fail(t, "Cannot specify both ',' and '_'.");
    }
    if (take(s, &at, '.')) {
        spec.precision = take_number(t, s, &at);
        if (spec.precision < 0) {
            tm_fail(t, "Format specifier missing precision");
        }
    }
    if (at < s->n && (uint8_t)s->data[at] < 0x80) {
        spec.type = s->data[at++];
    }
    if (at < s->n) {
        tm_fail(t, "Invalid format specifier");
    }
    if (spec.grouping && spec.type &&
        !strchr(spec.grouping == '_' ? "dbexXoEfFgG%" : "deEfFgG%", spec.type)) {
        tm_fail(t, "Cannot specify '%c' with '%c'.", spec.grouping, spec.type);
    }
    return spec;
}

/* ---- Putting together ---- */

static void put_filled(tm_text *b, const nf_spec *spec, int64_t n) {
    for (; n > 0; n--) {
        tm_step(b->t, 1);
        tm_text_put_char(b, spec->fill ? spec->fill : ' ');
    }
}

/* The text with fill around it. */
static void put_aligned(tm_text *b, const nf_spec *spec, char align, const char *text, size_t n,
                        size_t n_chars) {
    int64_t missing = spec->width - (int64_t)n_chars;
    missing = missing > 0 ? missing : 0;
    int64_t left = align == '<' ? 0 : align == '^' ? missing / 2 : missing;
    put_filled(b, spec, left);
    tm_text_put(b, text, n);
    put_filled(b, spec, missing - left);
}

/* Digits with a separator every few, zero-padded so that they are at least `width` long. */
static void put_grouped(tm_text *b, const char *digits, size_t n, char separator, unsigned every,
                        int64_t width) {
    size_t padded = n;
    while ((int64_t)(padded + (padded - 1) / every) < width) {
        padded++;
    }
    for (size_t i = 0; i < padded; i++) {
        size_t left = padded - i;
        if (i > 0 && left % every == 0) {
            tm_text_putc(b, separator);
        }
        tm_text_putc(b, left > n ? '0' : digits[n - left]);
        tm_step(b->t, 1);
    }
}

typedef struct number_parts {
    char sign; /* or 0 */
    const char *prefix;
    const char *digits, *rest;
    size_t n_digits, n_rest;
    unsigned group;
} number_parts;

static void put_number(tm_text *b, const number_parts *p, const nf_spec *spec) {
    tm_text whole = tm_text_start(b->t);
    size_t n_prefix = strlen(p->prefix);
    if (p->sign) {
        tm_text_putc(&whole, p->sign);
    }
    tm_text_put(&whole, p->prefix, n_prefix);
    char align = spec->align ? spec->align : '>';
    int64_t others = (int64_t)(whole.n + p->n_rest), inside = spec->width - others;
    bool zeros = align == '=' && spec->fill == '0';
    if (spec->grouping && p->n_digits) {
        put_grouped(&whole, p->digits, p->n_digits, spec->grouping, p->group, zeros ? inside : 0);
    } else if (align == '=') {
        put_filled(&whole, spec, inside - (int64_t)p->n_digits);
        tm_text_put(&whole, p->digits, p->n_digits);
    } else {
        tm_text_put(&whole, p->digits, p->n_digits);
    }
    tm_text_put(&whole, p->rest, p->n_rest);
    if (align == '=' && spec->grouping && !zeros) { /* fill stands between prefix and digits */
        size_t head = (p->sign != 0) + n_prefix;
        tm_text_put(b, whole.data, head);
        put_filled(b, spec, spec->width - (int64_t)whole.n);
        tm_text_put(b, whole.data + head, whole.n - head);
        return;
    }
    put_aligned(b, spec, align, whole.data, whole.n, whole.n);
}

static char sign_char(bool negative, char sign) {
    return negative ? '-' : sign == '+' || sign == ' ' ? sign : 0;
}

/* ---- Text ---- */

void nf_put_str(tm_text *b, tv_str *s, const nf_spec *spec) {
    tm_core *t = b->t;
    if (spec->type && spec->type != 's') {
        tm_fail(t, "Unknown format code '%c' for object of type 'str'", spec->type);
    }
    if (spec->sign) {
        tm_fail(t, spec->sign == ' ' ? "Space not allowed in string format specifier"
                                     : "Sign not allowed in string format specifier");
    }
    if (spec->alternate || spec->no_negative_zero) {
        tm_fail(t, "Alternate form (#) not allowed in string format specifier");
    }
    if (spec->align == '=') {
        tm_fail(t, "'=' alignment not allowed in string format specifier");
    }
    if (spec->grouping) {
        tm_fail(t, "Cannot specify '%c' with 's'.", spec->grouping);
    }
    size_t n = tv_n_chars(s), n_bytes = s->n;
    if (spec->precision >= 0 && (uint64_t)spec->precision < n) {
        n = (size_t)spec->precision;
        n_bytes = tv_char_at(s, n);
    }
    put_aligned(b, spec, spec->align ? spec->align : '<', s->data, n_bytes, n);
}

/* ---- Integers ---- */

static unsigned base_of(char type) {
    switch (type) {
    case 'b':
        return 2;
    case 'o':
        return 8;
    case 'x':
    case 'X':
        return 16;
    default:
        return 10;
    }
}

static void to_upper(tm_text *b) {
    for (size_t i = 0; i < b->n; i++) {
        b->data[i] = (char)(b->data[i] >= 'a' && b->data[i] <= 'z' ? b->data[i] - 32 : b->data[i]);
    }
}

static void put_char(tm_text *b, tval v, const nf_spec *spec) {
    tm_core *t = b->t;
    if (spec->sign) {
        tm_fail(t, "Sign not allowed with integer format specifier 'c'");
    }
    if (spec->alternate) {
        tm_fail(t, "Alternate form (#) not allowed with integer format specifier 'c'");
    }
    int64_t c = tv_to_index(t, v, true);
    if (c < 0 || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) {
        tm_fail(t, "%%c arg not in range(0x110000)");
    }
    char text[4];
    size_t n = py_char_put(text, (uint32_t)c);
    put_aligned(b, spec, spec->align && spec->align != '=' ? spec->align : '>', text, n, 1);
}

void nf_put_int(tm_text *b, tval v, const nf_spec *spec) {
    tm_core *t = b->t;
    if (spec->type && strchr("eEfFgG%", spec->type)) {
        nf_put_float(b, tv_to_double(t, v), spec);
        return;
    }
    if (spec->type && !strchr("bcdoxXn", spec->type)) {
        tm_fail(t, "Unknown format code '%c' for object of type '%s'", spec->type, tv_type_name(v));
    }
    if (spec->precision >= 0) {
        tm_fail(t, "Precision not allowed in integer format specifier");
    }
    if (spec->no_negative_zero) {
        tm_fail(t, "Negative zero coercion (z) not allowed in format specifier with integer");
    }
    if (spec->type == 'c') {
        put_char(b, v, spec);
        return;
    }
    unsigned base = base_of(spec->type);
    static const char *const prefixes[17] = {[2] = "0b", [8] = "0o", [16] = "0x"};
    tm_text digits = tm_text_start(t);
    int_put_digits(&digits, v, base);
    const char *prefix = spec->alternate && prefixes[base] ? prefixes[base] : "";
    if (spec->type == 'X') {
        to_upper(&digits);
        prefix = *prefix ? "0X" : prefix;
    }
    put_number(b,
               &(number_parts){.sign = sign_char(int_sign(v) < 0, spec->sign),
                               .prefix = prefix,
                               .digits = digits.data,
                               .n_digits = digits.n,
                               .rest = "",
                               .group = base == 10 ? 3 : 4},
               spec);
}

/* ---- Floats ---- */

/* Appends digits [from, to) of a number, zeros where it has none. */
static void put_digits(tm_text *b, const char *digits, size_t n, int64_t from, int64_t to) {
    for (int64_t i = from; i < to; i++) {
        tm_text_putc(b, i >= 0 && i < (int64_t)n ? digits[i] : '0');
    }
}

static void put_exponent(tm_text *b, int exponent) {
    char text[16];
    snprintf(text, sizeof text, "e%c%02d", exponent < 0 ? '-' : '+',
             exponent < 0 ? -exponent : exponent);
    tm_text_puts(b, text);
}

/* d.ddde+xx with `places` digits behind the point. */
static void put_scientific(tm_text *b, const char *digits, size_t n, int exponent, int64_t places,
                           bool point) {
    put_digits(b, digits, n, 0, 1);
    if (places > 0 || point) {
        tm_text_putc(b, '.');
    }
    put_digits(b, digits, n, 1, places + 1);
    put_exponent(b, exponent);
}

/* ddd.ddd with `places` digits behind the point; the first digit has weight 10^exponent. */
static void put_fixed(tm_text *b, const char *digits, size_t n, int exponent, int64_t places,
                      bool point) {
    int64_t whole = exponent >= 0 ? exponent + 1 : 0;
    if (whole == 0) {
        tm_text_putc(b, '0');
    }
    put_digits(b, digits, n, 0, whole);
    if (places > 0 || point) {
        tm_text_putc(b, '.');
    }
    put_digits(b, digits, n, exponent + 1, exponent + 1 + places);
}

/* The 'g' form: precision significant digits, trailing zeros dropped unless alternate. */
static void put_general(tm_text *b, double x, int64_t precision, const nf_spec *spec,
                        int threshold) {
    char *digits = tm_alloc(b->t, (size_t)precision + 2);
    int exponent;
    size_t n = pyfloat_digits(digits, &exponent, x, (int)precision);
    if (!spec->alternate) {
        while (n > 1 && digits[n - 1] == '0') {
            n--;
        }
    }
    int64_t places;
    if (exponent < -4 || exponent >= threshold) {
        places = (int64_t)n - 1;
        put_scientific(b, digits, n, exponent, places, spec->alternate);
        return;
    }
    places = (int64_t)n - 1 - exponent;
    places = places < 0 ? 0 : places;
    if (!spec->type && places == 0) { /* without a type a float still looks like one */
        places = 1;
    }
    put_fixed(b, digits, n, exponent, places, spec->alternate);
}

static void put_finite(tm_text *b, double x, const nf_spec *spec) {
    char type = (char)(spec->type | 0x20);
    int64_t precision = spec->precision < 0 ? 6 : spec->precision;
    int exponent;
    if (!spec->type && spec->precision < 0) {
        char text[PYFLOAT_REPR_MAX];
        tm_text_put(b, text, pyfloat_repr(text, x));
        return;
    }
    if (precision > MAX_PRECISION) {
        tm_fail(b->t, "precision too big");
    }
    if (type == 'f' || spec->type == '%') {
        char *digits = tm_alloc(b->t, (size_t)precision + 330);
        size_t n = pyfloat_fixed(digits, &exponent, x, (int)precision);
        put_fixed(b, digits, n, n ? exponent : 0, precision, spec->alternate);
    } else if (type == 'e') {
        char *digits = tm_alloc(b->t, (size_t)precision + 20);
        size_t n = pyfloat_digits(digits, &exponent, x, (int)precision + 1);
        put_scientific(b, digits, n, exponent, precision, spec->alternate);
    } else {
        precision = precision == 0 ? 1 : precision;
        put_general(b, x, precision, spec, (int)precision - (spec->type ? 0 : 1));
    }
}

void nf_put_float(tm_text *b, double x, const nf_spec *spec) {
    tm_core *t = b->t;
    if (spec->type && !strchr("eEfFgGn%", spec->type)) {
        tm_fail(t, "Unknown format code '%c' for object of type 'float'", spec->type);
    }
    x = spec->type == '%' ? x * 100 : x;
    tm_text text = tm_text_start(t);
    if (isfinite(x)) {
        put_finite(&text, fabs(x), spec);
    } else {
        tm_text_puts(&text, isnan(x) ? "nan" : "inf");
    }
    if (spec->type == '%') {
        tm_text_putc(&text, '%');
    }
    if (spec->type == 'E' || spec->type == 'F' || spec->type == 'G') {
        to_upper(&text);
    }
    bool negative = signbit(x) && !isnan(x);
    if (negative && spec->no_negative_zero && strspn(text.data, "0.%") >= text.n) {
        negative = false;
    }
    size_t n_digits = 0;
    while (n_digits < text.n && text.data[n_digits] >= '0' && text.data[n_digits] <= '9') {
        n_digits++;
    }
    put_number(b,
               &(number_parts){.sign = sign_char(negative, spec->sign),
                               .prefix = "",
                               .digits = text.data,
                               .n_digits = n_digits,
                               .rest = text.data + n_digits,
                               .n_rest = text.n - n_digits,
                               .group = 3},
               spec);
}

/* ---- Any value ---- */

void nf_put_value(tm_text *b, tval v, tval spec_text) {
    if (spec_text.str->n == 0) {
        tv_put_str(b, v);
        return;
    }
    if (v.type != TV_STR && !tv_is_number(v)) {
        tm_fail(b->t, "unsupported format string passed to %s.__format__", tv_type_name(v));
    }
    nf_spec spec = nf_parse(b->t, spec_text.str, v);
    if (v.type == TV_STR) {
        nf_put_str(b, v.str, &spec);
    } else if (v.type == TV_FLOAT) {
        nf_put_float(b, v.real, &spec);
    } else {
        nf_put_int(b, v, &spec);
    }
}
