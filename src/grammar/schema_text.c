/* schema_text.c - strings: lengths, patterns, formats. */
#include "grammar/schema.h"

#include "grammar/gr_dfa.h"

#include <string.h>

/* Lengths that patterns may be multiplied out with where a counter does not do. */
#define MAX_WRITTEN_LENGTH 1000u

/* RFC 3339; years from 1, the right number of days in each month. */
#define YEAR "(000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})"
#define LEAP_YEAR "([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
#define DATE                                                                                       \
    "(" YEAR "-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|"      \
    "02-(0[1-9]|1[0-9]|2[0-8]))|" LEAP_YEAR "-02-29)"
#define TIME                                                                                       \
    "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9]" \
    ")"
#define OCTET "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define IPV4 OCTET "(\\." OCTET "){3}"
#define HEX4 "[0-9A-Fa-f]{1,4}"
#define LAST32 "(" HEX4 ":" HEX4 "|" IPV4 ")"
#define LABEL "[A-Za-z0-9]+(-+[A-Za-z0-9]+)*"
#define ATOM "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
#define ENCODED "%[0-9A-Fa-f]{2}"
#define PCHAR "([A-Za-z0-9._~!$&'()*+,;=:@-]|" ENCODED ")"

static const struct {
    const char *name, *regex;
} formats[] = {
    {"date", DATE},
    {"time", TIME},
    {"date-time", DATE "T" TIME},
    {"duration", "P(([0-9]+Y([0-9]+M([0-9]+D)?)?|[0-9]+M([0-9]+D)?|[0-9]+D)"
                 "(T([0-9]+H([0-9]+M([0-9]+S)?)?|[0-9]+M([0-9]+S)?|[0-9]+S))?|"
                 "T([0-9]+H([0-9]+M([0-9]+S)?)?|[0-9]+M([0-9]+S)?|[0-9]+S)|[0-9]+W)"},
    {"uuid", "[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"},
    {"hostname", LABEL "(\\." LABEL ")*"},
    {"email", ATOM "(\\." ATOM ")*@" LABEL "(\\." LABEL ")+"},
    {"ipv4", IPV4},
    /* RFC 3986, IPv6address */
    {"ipv6",
     "((" HEX4 ":){6}" LAST32 "|::(" HEX4 ":){5}" LAST32 "|(" HEX4 ")?::(" HEX4 ":){4}" LAST32
     "|((" HEX4 ":){0,1}" HEX4 ")?::(" HEX4 ":){3}" LAST32 "|((" HEX4 ":){0,2}" HEX4 ")?::(" HEX4
     ":){2}" LAST32 "|((" HEX4 ":){0,3}" HEX4 ")?::" HEX4 ":" LAST32 "|((" HEX4 ":){0,4}" HEX4
     ")?::" LAST32 "|((" HEX4 ":){0,5}" HEX4 ")?::" HEX4 "|((" HEX4 ":){0,6}" HEX4 ")?::)"},
    {"uri", "[A-Za-z][A-Za-z0-9+.-]*:(//(([A-Za-z0-9._~!$&'()*+,;=:-]|" ENCODED ")*@)?" LABEL
            "(\\." LABEL ")*(:[0-9]{1,5})?(/" PCHAR "*)*|/?" PCHAR "+(/" PCHAR "*)*)"
            "(\\?(" PCHAR "|[/?])*)?(#(" PCHAR "|[/?])*)?"},
};

const char *sc_format(const char *name) {
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (strcmp(formats[i].name, name) == 0) {
            return formats[i].regex;
        }
    }
    return NULL;
}

jang_status sc_pattern_expr(sc *s, uint32_t *out, const sc_pattern *p) {
    uint32_t e;
    jang_status status = gr_regex(&e, &s->pool, p->path, p->text, p->n);
    return status == JANG_OK ? gr_expr_anchor(out, &s->pool, p->path, e, !p->whole) : status;
}

jang_status sc_patterns(sc *s, gr_dfa *out, const sc_list *patterns, bool *any) {
    gr_dfa d;
    gr_dfa_init(&d, s->a->ctx);
    jang_status status = JANG_OK;
    for (uint32_t i = 0; i < patterns->n && status == JANG_OK; i++) {
        const sc_pattern *p = patterns->items[i];
        gr_dfa one;
        uint32_t e;
        status = sc_pattern_expr(s, &e, p);
        if (status == JANG_OK) {
            status = gr_dfa_of_expr(i ? &one : &d, s->a, &s->pool, e);
        }
        if (status == JANG_OK && i) {
            status = gr_dfa_narrow(&d, &one, false);
            gr_dfa_free(&one);
        }
        if (status != JANG_OK) {
            status = ctx_prefix(s->a->ctx, status, "%s", p->path);
        }
    }
    if (status == JANG_OK) {
        status = gr_dfa_trim(&d, any);
    }
    if (status != JANG_OK) {
        gr_dfa_free(&d);
        return status;
    }
    *out = d;
    return JANG_OK;
}

/* One pattern and any length: the pattern as it is. */
static jang_status one_pattern(sc *s, gr_ref *out, const sc_pattern *p) {
    gr_auto *a = s->a;
    uint32_t e;
    jang_status status = sc_pattern_expr(s, &e, p);
    if (status != JANG_OK) {
        return status;
    }
    uint32_t close = gr_range(a, '"', '"', gr_final(a));
    uint32_t inside = gr_expr_emit(a, &s->pool, e, GR_SPELL_JSON, close);
    if (!inside) {
        sc_note(s, "no string matches the pattern");
        return a->status;
    }
    *out = (gr_ref){gr_rule_new(a), 0, GR_INF};
    gr_rule_set(a, out->rule, gr_range(a, '"', '"', inside));
    return a->status;
}

static jang_status write_plain(sc *s, gr_ref *out, const gr_dfa *d) {
    gr_auto *a = s->a;
    uint32_t close = gr_range(a, '"', '"', gr_final(a));
    *out = (gr_ref){gr_rule_new(a), 0, GR_INF};
    gr_rule_set(a, out->rule, gr_range(a, '"', '"', gr_dfa_emit(a, d, true, close)));
    return a->status;
}

/* Patterns and a length: by a counter if the lengths have no gaps, otherwise multiplied out. */
static jang_status with_length(sc *s, gr_ref *out, gr_dfa *d, uint32_t min, uint32_t max) {
    uint32_t rule = 0;
    bool counted;
    gr_dfa_reach lengths;
    jang_status status = gr_dfa_emit_counted(s->a, d, &rule, &lengths, &counted);
    if (status != JANG_OK) {
        return status;
    }
    if (counted) {
        if (lengths.least > max || lengths.most < min) {
            sc_note(s, "no string of the right length matches the pattern");
            return JANG_OK;
        }
        *out = (gr_ref){rule, min, max};
        return JANG_OK;
    }
    gr_dfa length;
    bool any;
    if ((max == GR_INF ? min : max) > MAX_WRITTEN_LENGTH) {
        return s->loose ? write_plain(s, out, d)
                        : sc_fail(s, JANG_ERR_UNSUPPORTED,
                                  "this pattern together with lengths over %u", MAX_WRITTEN_LENGTH);
    }
    status = gr_dfa_of_length(&length, s->a->ctx, min, max);
    if (status == JANG_OK) {
        status = gr_dfa_narrow(d, &length, false);
        gr_dfa_free(&length);
    }
    if (status == JANG_OK) {
        status = gr_dfa_trim(d, &any);
    }
    if (status == JANG_OK && !any) {
        sc_note(s, "no string of the right length matches the pattern");
        return JANG_OK;
    }
    return status == JANG_OK ? write_plain(s, out, d) : status;
}

jang_status sc_string(sc *s, gr_ref *out, const sc_facts *f) {
    uint32_t min = f->min_length, max = f->max_length;
    *out = (gr_ref){0, 0, 0};
    if (min > max) {
        return JANG_OK;
    }
    bool any_length = min == 0 && max == GR_INF;
    if (f->patterns.n == 0) {
        *out = any_length ? (gr_ref){s->json->string, 0, GR_INF}
                          : (gr_ref){s->json->counted, min, max};
        return JANG_OK;
    }
    if (f->patterns.n == 1 && any_length) {
        return one_pattern(s, out, f->patterns.items[0]);
    }
    gr_dfa d;
    bool any;
    jang_status status = sc_patterns(s, &d, &f->patterns, &any);
    if (status != JANG_OK) {
        return status;
    }
    if (!any) {
        sc_note(s, "no string matches all patterns");
    } else {
        status = any_length ? write_plain(s, out, &d) : with_length(s, out, &d, min, max);
    }
    gr_dfa_free(&d);
    return status;
}
