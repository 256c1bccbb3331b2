/* schema_number.c - numbers: bounds and multiples, digit by digit.
 *
 * Within bounds a number is written without an exponent. While the digits so far are those of a
 * bound it is tight: the next digit is compared with the bound's; after the first that differs all
 * digits are free. */
#include "grammar/schema.h"

#include "grammar/gr_dfa.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DIGITS 400

/* ---- Decimals ---- */

/* Digits and where the point is: text without sign, perhaps with an exponent. */
static const sc_decimal *parse(sc *s, const char *text, bool negative) {
    char digits[64];
    int n = 0, point = -1, exponent = 0;
    for (; *text && *text != 'e' && *text != 'E' && n < 60; text++) {
        if (*text == '.') {
            point = n;
        } else {
            digits[n++] = *text;
        }
    }
    if (*text) {
        exponent = (int)strtol(text + 1, NULL, 10);
    }
    point = (point < 0 ? n : point) + exponent; /* digits before it; may be outside them */
    int first = 0;
    while (first < n && digits[first] == '0') {
        first++;
    }
    while (n > first && digits[n - 1] == '0') {
        n--;
    }
    int whole = point > first ? point - first : 0;
    int fraction = n > point ? n - point : 0;
    if (first == n) {
        whole = fraction = 0;
    }
    if (whole > MAX_DIGITS || fraction > MAX_DIGITS) {
        return NULL;
    }
    size_t n_whole = whole ? (size_t)whole : 1;
    sc_decimal *d = sc_alloc(s, sizeof *d + n_whole + (size_t)fraction);
    if (!d) {
        return NULL;
    }
    *d = (sc_decimal){negative && first < n, (uint32_t)n_whole, (uint32_t)fraction};
    memset(d->digits, '0', n_whole + (size_t)fraction);
    for (int i = first; i < n; i++) {
        int at = i - point + (int)n_whole;
        d->digits[at] = digits[i];
    }
    return d;
}

const sc_decimal *sc_decimal_of(sc *s, const json_t *number) {
    char text[64];
    if (json_is_integer(number)) {
        snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, json_integer_value(number));
    } else {
        double x = json_real_value(number);
        for (int precision = 15; precision <= 17; precision++) { /* the shortest that is exact */
            snprintf(text, sizeof text, "%.*g", precision, x);
            if (strtod(text, NULL) == x) {
                break;
            }
        }
    }
    return parse(s, text[0] == '-' ? text + 1 : text, text[0] == '-');
}

/* Digit i of the whole part, counted so that both numbers have n_whole digits; of the fraction. */
static char whole_digit(const sc_decimal *d, uint32_t i, uint32_t n_whole) {
    uint32_t missing = n_whole - d->n_whole;
    return i < missing ? '0' : d->digits[i - missing];
}

static char fraction_digit(const sc_decimal *d, uint32_t i) {
    return i < d->n_fraction ? d->digits[d->n_whole + i] : '0';
}

static int compare_sizes(const sc_decimal *x, const sc_decimal *y) {
    uint32_t n_whole = x->n_whole > y->n_whole ? x->n_whole : y->n_whole;
    uint32_t n_fraction = x->n_fraction > y->n_fraction ? x->n_fraction : y->n_fraction;
    for (uint32_t i = 0; i < n_whole; i++) {
        int order = whole_digit(x, i, n_whole) - whole_digit(y, i, n_whole);
        if (order) {
            return order > 0 ? 1 : -1;
        }
    }
    for (uint32_t i = 0; i < n_fraction; i++) {
        int order = fraction_digit(x, i) - fraction_digit(y, i);
        if (order) {
            return order > 0 ? 1 : -1;
        }
    }
    return 0;
}

int sc_decimal_compare(const sc_decimal *x, const sc_decimal *y) {
    if (x->negative != y->negative) {
        return x->negative ? -1 : 1;
    }
    return x->negative ? compare_sizes(y, x) : compare_sizes(x, y);
}

uint32_t sc_decimal_scaled(const sc_decimal *unit, uint32_t *shift) {
    uint64_t value = 0;
    *shift = unit->n_fraction;
    for (uint32_t i = 0; i < unit->n_whole + unit->n_fraction; i++) {
        value = value * 10 + (uint64_t)(unit->digits[i] - '0');
        if (value > 999999999) {
            return 0;
        }
    }
    return (uint32_t)value;
}

bool sc_is_multiple(const sc_decimal *value, const sc_decimal *unit) {
    uint32_t shift;
    uint64_t scaled = sc_decimal_scaled(unit, &shift), rest = 0;
    if (!scaled || value->n_fraction > shift) {
        return false;
    }
    for (uint32_t i = 0; i < value->n_whole; i++) {
        rest = (rest * 10 + (uint64_t)(value->digits[i] - '0')) % scaled;
    }
    for (uint32_t i = 0; i < shift; i++) {
        rest = (rest * 10 + (uint64_t)(fraction_digit(value, i) - '0')) % scaled;
    }
    return rest == 0;
}

/* ---- Bounds ---- */

/* Sizes (numbers without sign) between two bounds; hi.at NULL: no upper one. */
typedef struct span {
    gr_auto *a;
    sc_bound lo, hi;
    bool fractions;
    uint32_t next;
    uint32_t n_fraction;   /* digits after which nothing new comes */
    uint32_t *after[2][2]; /* [tight low][tight high]: nodes after so many fraction digits */
} span;

/* Whether a number that ends while its digits are the bound's first ones, the rest zeros, is in. */
static bool end_is_in(const span *p, uint32_t n_fraction, bool tight_lo, bool tight_hi) {
    if (tight_lo) {
        bool equal = n_fraction >= p->lo.at->n_fraction;
        if (!equal || p->lo.open) { /* a longer lower bound is above; an equal one perhaps out */
            return false;
        }
    }
    return !(tight_hi && p->hi.open && n_fraction >= p->hi.at->n_fraction);
}

/* Digits for one position: those between the bounds' ones, and each bound's own while tight. */
static uint32_t digit(gr_auto *a, char lo, char hi, bool tight_lo, bool tight_hi,
                      const uint32_t to[2][2]) {
    if (!tight_lo) {
        lo = '0';
    }
    if (!tight_hi) {
        hi = '9';
    }
    if (lo > hi) {
        return 0;
    }
    if (lo == hi) {
        return gr_range(a, (unsigned)lo, (unsigned)lo, to[tight_lo][tight_hi]);
    }
    uint32_t all = 0;
    char from = lo, last = hi;
    if (tight_lo) {
        all = gr_range(a, (unsigned)lo, (unsigned)lo, to[1][0]);
        from++;
    }
    if (tight_hi) {
        all = gr_split(a, all, gr_range(a, (unsigned)hi, (unsigned)hi, to[0][1]));
        last--;
    }
    return from <= last ? gr_split(a, all, gr_range(a, (unsigned)from, (unsigned)last, to[0][0]))
                        : all;
}

static uint32_t fraction_digit_node(const span *p, uint32_t at, bool tight_lo, bool tight_hi,
                                    uint32_t then) {
    char lo = tight_lo ? fraction_digit(p->lo.at, at) : '0';
    char hi = tight_hi ? fraction_digit(p->hi.at, at) : '9';
    uint32_t to[2][2] = {{p->after[0][0][then], p->after[0][1][then]},
                         {p->after[1][0][then], p->after[1][1][then]}};
    return digit(p->a, lo, hi, tight_lo, tight_hi, to);
}

/* Writes the fractions: after[lo][hi][k] is the place after k digits; the last one loops. */
static void write_fractions(span *p) {
    uint32_t n = p->n_fraction;
    int most = p->hi.at ? 1 : 0; /* nothing is tight to a bound that is not there */
    for (int lo = 0; lo < 2; lo++) {
        for (int hi = 0; hi < 2; hi++) {
            for (uint32_t k = 0; k <= n; k++) {
                p->after[lo][hi][k] = hi <= most ? gr_place(p->a) : 0;
            }
        }
    }
    for (int lo = 0; lo < 2; lo++) {
        for (int hi = 0; hi <= most; hi++) {
            for (uint32_t k = 0; k <= n; k++) {
                uint32_t end = end_is_in(p, k, lo, hi) ? p->next : 0;
                uint32_t more = 0;
                if (p->fractions) {
                    more = fraction_digit_node(p, k, lo, hi, k < n ? k + 1 : n);
                    more = k == 0 ? gr_range(p->a, '.', '.', more) : more;
                }
                gr_fill(p->a, p->after[lo][hi][k], end, more);
            }
        }
    }
}

/* Whole parts of n digits, of which the first is not 0 unless it is the only one. */
static uint32_t whole_part(span *p, uint32_t n, bool tight_lo, bool tight_hi) {
    uint32_t to[2][2];
    for (int lo = 0; lo < 2; lo++) {
        for (int hi = 0; hi < 2; hi++) {
            to[lo][hi] = p->after[lo][hi][0];
        }
    }
    for (uint32_t i = n; i-- > 0;) {
        uint32_t made[2][2];
        for (int lo = 0; lo < 2; lo++) {
            for (int hi = 0; hi < 2; hi++) {
                bool low = lo && tight_lo, high = hi && tight_hi;
                char from = low ? whole_digit(p->lo.at, i, n) : '0';
                char last = high ? whole_digit(p->hi.at, i, n) : '9';
                bool first = i == 0 && n > 1;
                made[lo][hi] = 0;
                if (first && !low) { /* no leading zero */
                    uint32_t top = high ? gr_range(p->a, (unsigned)last, (unsigned)last, to[0][1])
                                        : gr_range(p->a, '9', '9', to[0][0]);
                    made[lo][hi] =
                        gr_split(p->a, top, gr_range(p->a, '1', (unsigned)last - 1, to[0][0]));
                } else {
                    made[lo][hi] = digit(p->a, from, last, low, high, (const uint32_t(*)[2])to);
                }
            }
        }
        memcpy(to, made, sizeof to);
    }
    return to[tight_lo][tight_hi];
}

/* Any whole part of more than n digits. */
static uint32_t longer_whole(span *p, uint32_t n) {
    uint32_t loop = gr_place(p->a);
    gr_fill(p->a, loop, gr_range(p->a, '0', '9', loop), p->after[0][0][0]);
    uint32_t at = loop;
    for (uint32_t i = 0; i < n; i++) {
        at = gr_range(p->a, '0', '9', at);
    }
    return gr_range(p->a, '1', '9', at);
}

/* All sizes between the bounds, then next. */
static uint32_t write_span(span *p) {
    uint32_t lo_fraction = p->lo.at->n_fraction, hi_fraction = p->hi.at ? p->hi.at->n_fraction : 0;
    p->n_fraction = 1 + (lo_fraction > hi_fraction ? lo_fraction : hi_fraction);
    if (p->hi.at && compare_sizes(p->lo.at, p->hi.at) > 0) {
        return 0;
    }
    uint32_t *nodes = ctx_array(p->a->ctx, (size_t)p->n_fraction + 1, 4 * sizeof *nodes);
    if (!nodes) {
        gr_fail(p->a, ctx_fail_memory(p->a->ctx, p->n_fraction * sizeof *nodes));
        return 0;
    }
    for (size_t i = 0; i < 4; i++) {
        p->after[i / 2][i % 2] = nodes + i * (p->n_fraction + 1);
    }
    write_fractions(p);
    uint32_t least = p->lo.at->n_whole, most = p->hi.at ? p->hi.at->n_whole : least;
    uint32_t all = 0;
    for (uint32_t n = least; n <= most; n++) {
        bool tight_hi = p->hi.at && n == most;
        all = gr_split(p->a, all, whole_part(p, n, n == least, tight_hi));
    }
    if (!p->hi.at) {
        all = gr_split(p->a, all, longer_whole(p, most));
    }
    ctx_free(p->a->ctx, nodes);
    return all;
}

static const sc_decimal *zero(sc *s) {
    return parse(s, "0", false);
}

/* Numbers between two bounds, either of which may be missing. */
static uint32_t write_bounds(sc *s, const sc_facts *f, bool fractions, uint32_t next) {
    const sc_decimal *none = zero(s);
    if (!none) {
        gr_fail(s->a, JANG_ERR_MEMORY);
        return 0;
    }
    sc_bound lo = f->least, hi = f->most;
    uint32_t all = 0;
    if (!hi.at || !hi.at->negative) { /* from 0 up */
        span p = {.a = s->a, .fractions = fractions, .next = next, .hi = hi};
        p.lo = lo.at && !lo.at->negative ? lo : (sc_bound){none, false};
        all = write_span(&p);
    }
    if (!lo.at || lo.at->negative) { /* below 0: sizes the other way round */
        span p = {.a = s->a, .fractions = fractions, .next = next, .hi = lo};
        p.lo = hi.at && hi.at->negative ? hi : (sc_bound){none, true};
        all = gr_split(s->a, all, gr_range(s->a, '-', '-', write_span(&p)));
    }
    return all;
}

/* ---- Multiples ---- */

/* Decimal numbers that are multiples of a unit: states are the remainder and, after the point, the
 * number of fraction digits, of which there are as many as the unit has, at most. */
static jang_status multiples_of(gr_dfa *out, ctx_t *ctx, const sc_decimal *unit) {
    uint32_t shift, scaled = sc_decimal_scaled(unit, &shift);
    gr_dfa d;
    gr_dfa_init(&d, ctx);
    jang_status status = JANG_OK;
    uint16_t state;
    size_t n =
        3 + (size_t)scaled * (shift + 1) + scaled; /* dead, start, sign, remainders, points */
    for (size_t i = 0; i < n && status == JANG_OK; i++) {
        status = gr_dfa_state(&d, &state);
    }
    if (status != JANG_OK) {
        gr_dfa_free(&d);
        return status;
    }
    uint32_t points = 3 + scaled * (shift + 1);
    d.next[1]['-'] = 2;
    for (uint32_t c = 0; c < 10; c++) {
        d.next[1]['0' + c] = d.next[2]['0' + c] = (uint16_t)(3 + c % scaled);
    }
    for (uint32_t r = 0; r < scaled; r++) {
        for (uint32_t k = 0; k <= shift; k++) {
            uint32_t at = 3 + k * scaled + r, rest = r;
            for (uint32_t i = k; i < shift; i++) {
                rest = rest * 10 % scaled;
            }
            d.ends[at] = rest == 0;
            for (uint32_t c = 0; c < 10 && (k == 0 || k < shift); c++) {
                uint32_t then = (r * 10 + c) % scaled;
                d.next[at]['0' + c] = (uint16_t)(3 + (k ? k + 1 : 0) * scaled + then);
            }
        }
        if (shift) {
            d.next[3 + r]['.'] = (uint16_t)(points + r);
            for (uint32_t c = 0; c < 10; c++) {
                d.next[points + r]['0' + c] = (uint16_t)(3 + scaled + (r * 10 + c) % scaled);
            }
        }
    }
    *out = d;
    return JANG_OK;
}

static jang_status write_multiples(sc *s, gr_ref *out, const sc_facts *f, bool fractions) {
    gr_auto scratch = {.ctx = s->a->ctx};
    gr_auto *a = s->a;
    (void)gr_place(&scratch);
    s->a = &scratch;
    uint32_t entry = write_bounds(s, f, fractions, gr_final(&scratch));
    s->a = a;
    gr_dfa d;
    gr_dfa_init(&d, a->ctx);
    jang_status status = scratch.status;
    if (status == JANG_OK) {
        status = gr_dfa_of_nodes(&d, &scratch, entry);
    }
    gr_auto_free(&scratch);
    bool any = false;
    for (uint32_t i = 0; i < f->multiples.n && status == JANG_OK; i++) {
        gr_dfa unit;
        status = multiples_of(&unit, a->ctx, f->multiples.items[i]);
        if (status == JANG_OK) {
            status = gr_dfa_narrow(&d, &unit, false);
            gr_dfa_free(&unit);
        }
    }
    if (status == JANG_OK) {
        status = gr_dfa_trim(&d, &any);
    }
    if (status == JANG_OK && any) {
        *out = (gr_ref){gr_rule_new(a), 0, GR_INF};
        gr_rule_set(a, out->rule, gr_dfa_emit(a, &d, false, gr_final(a)));
        status = a->status;
    } else if (status == JANG_OK) {
        sc_note(s, "no multiple lies between the bounds");
    }
    gr_dfa_free(&d);
    return status;
}

jang_status sc_number(sc *s, gr_ref *out, const sc_facts *f) {
    bool fractions = f->types & SC_FRACTION;
    *out = (gr_ref){0, 0, 0};
    if (f->multiples.n) {
        return write_multiples(s, out, f, fractions);
    }
    if (!f->least.at && !f->most.at) {
        *out = (gr_ref){fractions ? s->json->number : s->json->integer, 0, GR_INF};
        return JANG_OK;
    }
    if (f->least.at && f->most.at && sc_decimal_compare(f->least.at, f->most.at) > 0) {
        sc_note(s, "no number lies between the bounds");
        return JANG_OK;
    }
    *out = (gr_ref){gr_rule_new(s->a), 0, GR_INF};
    gr_rule_set(s->a, out->rule, write_bounds(s, f, fractions, gr_final(s->a)));
    return s->a->status;
}
