/* tmpl_format.c - "%s" % values. */
#include "template/pyunicode.h"
#include "template/tmpl_big.h"
#include "template/tmpl_numfmt.h"
#include "template/tmpl_text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* One use of a format: where its arguments come from. */
typedef struct percent {
    tm_core *t;
    const tv_str *format;
    size_t at;
    tval values;
    const tv_dict *dict; /* for %(name)s */
    size_t next;         /* of a tuple; otherwise 1 when the one value was used */
    bool escape;         /* the format is Markup */
    tm_text out;
} percent;

typedef struct conversion {
    nf_spec spec;
    bool left, zero, has_key;
    tval keyed;
} conversion;

static tval next_value(percent *p) {
    bool tuple = p->values.type == TV_TUPLE;
    if (p->next >= (tuple ? p->values.seq->n : 1)) {
        tm_fail(p->t, "not enough arguments for format string");
    }
    p->next++;
    return tuple ? p->values.seq->items[p->next - 1] : p->values;
}

static tval value_for(percent *p, const conversion *c) {
    return c->has_key ? c->keyed : next_value(p);
}

/* ---- Reading a conversion ---- */

static char current(const percent *p) {
    if (p->at >= p->format->n) {
        tm_fail(p->t, "incomplete format");
    }
    return p->format->data[p->at];
}

static void read_key(percent *p, conversion *c) {
    size_t start = p->at + 1;
    int depth = 1;
    for (p->at++; p->at < p->format->n; p->at++) {
        char ch = p->format->data[p->at];
        depth += ch == '(' ? 1 : ch == ')' ? -1 : 0;
        if (depth == 0) {
            break;
        }
    }
    if (depth != 0) {
        tm_fail(p->t, "incomplete format key");
    }
    tval key = tv_text_take(p->t, p->format->data + start, p->at - start);
    p->at++;
    if (p->values.type == TV_UNDEFINED) {
        tv_fail_undefined(p->t, p->values);
    }
    if (!p->dict) {
        tm_fail(p->t, p->values.type == TV_LIST || p->values.type == TV_RANGE
                          ? "list indices must be integers or slices, not str"
                          : "format requires a mapping");
    }
    const tval *v = tv_dict_get(p->t, p->dict, key);
    if (!v) {
        tm_fail(p->t, "%s", tv_repr_text(p->t, key));
    }
    c->has_key = true;
    c->keyed = *v;
}

static int64_t read_number(percent *p, const conversion *c, const char *what, bool *negative) {
    *negative = false;
    if (p->at < p->format->n && p->format->data[p->at] == '*') {
        p->at++;
        tval v = value_for(p, c);
        if (!tv_is_integral(v)) {
            tm_fail(p->t, "* wants int");
        }
        int64_t n = tv_to_index(p->t, v, true);
        *negative = n < 0;
        n = n < 0 ? (n == INT64_MIN ? INT64_MAX : -n) : n;
        if (n > INT32_MAX) {
            tm_fail(p->t, "%s too big", what);
        }
        return n;
    }
    int64_t n = 0;
    for (; p->at < p->format->n && p->format->data[p->at] >= '0' && p->format->data[p->at] <= '9';
         p->at++) {
        n = n * 10 + (p->format->data[p->at] - '0');
        if (n > INT32_MAX) {
            tm_fail(p->t, "%s too big", what);
        }
    }
    return n;
}

static conversion read_conversion(percent *p) {
    conversion c = {.spec = nf_default()};
    bool negative;
    if (current(p) == '(') {
        read_key(p, &c);
    }
    for (bool more = true; more;) {
        switch (current(p)) {
        case '-':
            c.left = true;
            break;
        case '+':
            c.spec.sign = '+';
            break;
        case ' ':
            c.spec.sign = c.spec.sign ? c.spec.sign : ' ';
            break;
        case '#':
            c.spec.alternate = true;
            break;
        case '0':
            c.zero = true;
            break;
        default:
            more = false;
            continue;
        }
        p->at++;
    }
    c.spec.width = read_number(p, &c, "width", &negative);
    c.left |= negative;
    if (current(p) == '.') {
        p->at++;
        c.spec.precision = read_number(p, &c, "precision", &negative);
        c.spec.precision = negative ? 0 : c.spec.precision;
    }
    char length = current(p);
    if (length == 'h' || length == 'l' || length == 'L') {
        p->at++;
        current(p);
    }
    return c;
}

/* ---- Converting ---- */

static void put_text(percent *p, conversion *c, tval text) {
    nf_spec spec = {
        .align = c->left ? '<' : '>', .width = c->spec.width, .precision = c->spec.precision};
    nf_put_str(&p->out, text.str, &spec);
}

static tval ascii_repr(tm_core *t, tval v) {
    tm_text b = tm_text_start(t), out = tm_text_start(t);
    tv_put_repr(&b, v);
    for (size_t at = 0; at < b.n;) {
        char text[16];
        uint32_t c = py_char_next(b.data, b.n, &at);
        snprintf(text, sizeof text,
                 c < 0x80      ? "%c"
                 : c < 0x100   ? "\\x%02x"
                 : c < 0x10000 ? "\\u%04x"
                               : "\\U%08x",
                 c);
        tm_text_puts(&out, text);
    }
    return tm_text_end(&out);
}

static void convert_text(percent *p, conversion *c, char type, tval v) {
    tm_text b = tm_text_start(p->t);
    tval text;
    if (type == 'a') {
        text = ascii_repr(p->t, v);
    } else if (type == 'r') {
        tv_put_repr(&b, v);
        text = tm_text_end(&b);
    } else {
        text = p->escape && v.type == TV_STR ? v : tv_to_str(p->t, v);
    }
    put_text(p, c, p->escape ? tm_escape(p->t, text) : text);
}

static void convert_char(percent *p, conversion *c, tval v) {
    c->spec.precision = -1;
    if (v.type == TV_STR && tv_n_chars(v.str) == 1) {
        put_text(p, c, v);
        return;
    }
    if (!tv_is_integral(v)) {
        tm_fail(p->t, "%%c requires int or char");
    }
    int64_t code = tv_to_index(p->t, v, true);
    if (code < 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) {
        tm_fail(p->t, "%%c arg not in range(0x110000)");
    }
    tm_text b = tm_text_start(p->t);
    tm_text_put_char(&b, (uint32_t)code);
    put_text(p, c, tm_text_end(&b));
}

/* Sign, prefix, zeros up to the precision or the width, digits. */
static void convert_int(percent *p, conversion *c, char type, tval v) {
    tm_core *t = p->t;
    bool decimal = type == 'd' || type == 'i' || type == 'u';
    if (decimal && v.type == TV_FLOAT) {
        if (!isfinite(v.real)) {
            tm_fail(t, "cannot convert float %s to integer", isnan(v.real) ? "NaN" : "infinity");
        }
        v = int_from_double(t, v.real);
    }
    if (!tv_is_integral(v)) {
        if (v.type == TV_UNDEFINED && decimal) {
            tv_fail_undefined(t, v);
        }
        tm_fail(t, "%%%c format: %s, not %s", type,
                decimal ? "a real number is required" : "an integer is required", tv_type_name(v));
    }
    nf_spec digits = {.precision = -1, .type = decimal ? 'd' : type};
    tval size = int_sign(v) < 0 ? int_sub(t, tv_int(0), v) : v;
    tm_text b = tm_text_start(t);
    nf_put_int(&b, size, &digits);
    nf_spec whole = {.precision = -1, .width = c->spec.width};
    int64_t missing = c->spec.precision - (int64_t)b.n;
    tm_text all = tm_text_start(t);
    char sign = int_sign(v) < 0 ? '-' : c->spec.sign;
    if (sign) {
        tm_text_putc(&all, sign);
    }
    if (c->spec.alternate && !decimal) {
        tm_text_putc(&all, '0');
        tm_text_putc(&all, type);
    }
    missing = missing > 0 ? missing : 0;
    int64_t fill = c->spec.width - (int64_t)(all.n + b.n) - missing;
    fill = c->zero && !c->left && fill > 0 ? fill : 0;
    tm_text_fill(&all, '0', (size_t)(missing + fill));
    tm_text_put(&all, b.data, b.n);
    whole.align = c->left ? '<' : '>';
    nf_put_str(&p->out, tm_text_end(&all).str, &whole);
}

static void convert_float(percent *p, conversion *c, char type, tval v) {
    if (!tv_is_number(v)) {
        if (v.type == TV_UNDEFINED) {
            tv_fail_undefined(p->t, v);
        }
        tm_fail(p->t, "must be real number, not %s", tv_type_name(v));
    }
    nf_spec spec = c->spec;
    spec.type = type;
    spec.align = c->left ? '<' : c->zero ? '=' : '>';
    spec.fill = c->zero && !c->left ? '0' : 0;
    nf_put_float(&p->out, tv_to_double(p->t, v), &spec);
}

static void convert(percent *p) {
    if (current(p) == '%') {
        tm_text_putc(&p->out, '%');
        p->at++;
        return;
    }
    conversion c = read_conversion(p);
    char type = current(p);
    p->at++;
    if (!strchr("srac"
                "diuoxX"
                "eEfFgG",
                type)) {
        tm_fail(p->t, "unsupported format character '%c' (0x%x) at index %zu", type, (uint8_t)type,
                p->at - 1);
    }
    tval v = value_for(p, &c);
    if (strchr("sra", type)) {
        convert_text(p, &c, type, v);
    } else if (type == 'c') {
        convert_char(p, &c, v);
    } else if (strchr("diuoxX", type)) {
        convert_int(p, &c, type, v);
    } else {
        convert_float(p, &c, type, v);
    }
}

tval tm_format_percent(tm_core *t, tval format, tval values) {
    percent p = {.t = t,
                 .format = format.str,
                 .values = values,
                 .dict = values.type == TV_DICT ? values.dict : NULL,
                 .escape = format.str->markup,
                 .out = tm_text_start(t)};
    while (p.at < p.format->n) {
        const char *start = p.format->data + p.at;
        const char *mark = memchr(start, '%', p.format->n - p.at);
        size_t n = mark ? (size_t)(mark - start) : p.format->n - p.at;
        tm_text_put(&p.out, start, n);
        p.at += n + (mark != NULL);
        if (mark) {
            convert(&p);
        }
    }
    /* What has items is taken for a mapping, of which not everything need be used. */
    bool mapping = values.type == TV_DICT || values.type == TV_LIST || values.type == TV_RANGE ||
                   values.type == TV_UNDEFINED;
    size_t n_values = values.type == TV_TUPLE ? values.seq->n : 1;
    if (p.next < n_values && !mapping) {
        tm_fail(t, "not all arguments converted during string formatting");
    }
    tval v = tm_text_end(&p.out);
    v.str->markup = format.str->markup;
    return v;
}
