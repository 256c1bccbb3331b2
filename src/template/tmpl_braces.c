/* tmpl_braces.c - "{}".format(values), as the sandbox's formatter does it. */
#include "template/pyunicode.h"
#include "template/tmpl_big.h"
#include "template/tmpl_numfmt.h"
#include "template/tmpl_text.h"

#include <stdio.h>
#include <string.h>

typedef struct formatter {
    tm_core *t;
    const tm_args *args;
    bool escape;     /* the format is Markup */
    int64_t next;    /* number of the next "{}", or -1 once fields are numbered by hand */
    const tval *map; /* format_map's argument, or NULL */
} formatter;

typedef struct field {
    tx_span name, spec;
    uint32_t conversion; /* 0: none */
} field;

/* ---- Cutting up ---- */

/* A field's text from behind its '{'; returns where it ends. */
static size_t read_field(formatter *f, const tv_str *s, size_t at, field *out) {
    size_t start = at;
    char c = 0;
    while (at < s->n) {
        c = s->data[at++];
        if (c == '{') {
            tm_fail(f->t, "unexpected '{' in field name");
        }
        if (c == '[') {
            while (at < s->n && s->data[at] != ']') {
                at++;
            }
        } else if (c == '}' || c == ':' || c == '!') {
            break;
        }
    }
    if (c != '}' && c != ':' && c != '!') {
        tm_fail(f->t, "expected '}' before end of string");
    }
    *out = (field){.name = {start, at - 1}, .spec = {at, at}};
    if (c == '}') {
        return at;
    }
    if (c == '!') {
        if (at >= s->n) {
            tm_fail(f->t, "end of string while looking for conversion specifier");
        }
        out->conversion = py_char_next(s->data, s->n, &at);
        if (at < s->n) {
            c = s->data[at++];
            if (c == '}') {
                return at;
            }
            if (c != ':') {
                tm_fail(f->t, "expected ':' after conversion specifier");
            }
        }
    }
    out->spec.from = at;
    for (int open = 1; at < s->n; at++) {
        open += s->data[at] == '{' ? 1 : s->data[at] == '}' ? -1 : 0;
        if (open == 0) {
            out->spec.to = at;
            return at + 1;
        }
    }
    tm_fail(f->t, "unmatched '{' in format spec");
}

/* ---- Finding values ---- */

static bool all_digits(const char *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9') {
            return false;
        }
    }
    return n > 0;
}

static tval get_value(formatter *f, tval key) {
    if (key.type != TV_STR) {
        int64_t i = tv_to_index(f->t, key, true);
        if (f->map || (uint64_t)i >= f->args->n) {
            tm_fail(f->t, "Replacement index %lld out of range for positional args tuple",
                    (long long)i);
        }
        return f->args->positional[i];
    }
    if (f->map) {
        if (f->map->type != TV_DICT) {
            tm_fail(f->t, "format_map() needs a mapping, not %s", tv_type_name(*f->map));
        }
        const tval *v = tv_dict_get(f->t, f->map->dict, key);
        if (v) {
            return *v;
        }
    }
    for (size_t i = 0; !f->map && i < f->args->n_named; i++) {
        if (tv_str_equal(f->args->named[i].name.str, key.str)) {
            return f->args->named[i].value;
        }
    }
    tm_fail(f->t, "%s", tv_repr_text(f->t, key));
}

static tval part_value(tm_core *t, const char *p, size_t n) {
    return all_digits(p, n) ? int_from_digits(t, p, n, 10) : tv_text_take(t, p, n);
}

/* "name.attr[key]" */
static tval get_field(formatter *f, const char *p, size_t n) {
    tm_core *t = f->t;
    size_t at = 0;
    while (at < n && p[at] != '.' && p[at] != '[') {
        at++;
    }
    tval v = get_value(f, part_value(t, p, at));
    while (at < n) {
        bool dot = p[at++] == '.';
        size_t start = at;
        while (at < n && (dot ? p[at] != '.' && p[at] != '[' : p[at] != ']')) {
            at++;
        }
        if (!dot && at >= n) {
            tm_fail(t, "Missing ']' in format string");
        }
        if (at == start) {
            tm_fail(t, "Empty attribute in format string");
        }
        if (dot) {
            v = tm_get_attr(t, v, tv_text_take(t, p + start, at - start));
            continue;
        }
        v = tm_get_item(t, v, part_value(t, p + start, at - start));
        at++;
        if (at < n && p[at] != '.' && p[at] != '[') {
            tm_fail(t, "Only '.' or '[' may follow ']' in format field specifier");
        }
    }
    return v;
}

static tval field_value(formatter *f, const char *p, size_t n) {
    if (n == 0) {
        if (f->next < 0) {
            tm_fail(f->t, "cannot switch from manual field specification to automatic field "
                          "numbering");
        }
        return get_value(f, tv_int(f->next++));
    }
    if (all_digits(p, n)) {
        if (f->next > 0) {
            tm_fail(f->t, "cannot switch from automatic field numbering to manual field "
                          "specification");
        }
        f->next = -1;
    }
    return get_field(f, p, n);
}

static tval ascii_of(tm_core *t, tval v) {
    tval one = tv_seq_new(t, TV_TUPLE, 1);
    one.seq->items[0] = v;
    return tm_format_percent(t, tv_literal(t, "%a"), one);
}

static tval converted(formatter *f, tval v, uint32_t conversion) {
    tm_text b = tm_text_start(f->t);
    switch (conversion) {
    case 0:
        return v;
    case 's':
        return tv_to_str(f->t, v);
    case 'r':
        tv_put_repr(&b, v);
        return tm_text_end(&b);
    case 'a':
        return ascii_of(f->t, v);
    default:
        tm_fail(f->t, "Unknown conversion specifier");
    }
}

/* ---- Putting together ---- */

static tval format_text(formatter *f, const tv_str *s, int depth);

static void put_field(formatter *f, tm_text *out, const tv_str *s, const field *part, int depth) {
    tval v = field_value(f, s->data + part->name.from, part->name.to - part->name.from);
    v = converted(f, v, part->conversion);
    tval spec = tv_text_take(f->t, s->data + part->spec.from, part->spec.to - part->spec.from);
    spec = format_text(f, spec.str, depth - 1);
    if (!f->escape) {
        nf_put_value(out, v, spec);
        return;
    }
    if (v.type == TV_STR && v.str->markup && spec.str->n) {
        tm_fail(f->t, "Unsupported format specification for Markup.");
    }
    tm_text b = tm_text_start(f->t);
    nf_put_value(&b, v, spec);
    tval text = tm_text_end(&b);
    text.str->markup = v.type == TV_STR && v.str->markup;
    tv_put_str(out, tm_escape(f->t, text));
}

static tval format_text(formatter *f, const tv_str *s, int depth) {
    if (depth < 0) {
        tm_fail(f->t, "Max string recursion exceeded");
    }
    tm_text out = tm_text_start(f->t);
    for (size_t at = 0; at < s->n;) {
        size_t start = at;
        while (at < s->n && s->data[at] != '{' && s->data[at] != '}') {
            at++;
        }
        tm_text_put(&out, s->data + start, at - start);
        if (at >= s->n) {
            break;
        }
        char c = s->data[at++];
        if (at < s->n && s->data[at] == c) {
            tm_text_putc(&out, c);
            at++;
        } else if (c == '}' || at >= s->n) {
            tm_fail(f->t, "Single '%c' encountered in format string", c);
        } else {
            field part;
            at = read_field(f, s, at, &part);
            put_field(f, &out, s, &part, depth);
        }
    }
    return tm_text_end(&out);
}

static tval format_all(formatter *f, tval format) {
    tval v = format_text(f, format.str, 2);
    v.str->markup = format.str->markup;
    return v;
}

tval tm_format_braces(tm_core *t, tval format, const tm_args *args) {
    formatter f = {.t = t, .args = args, .escape = format.str->markup};
    return format_all(&f, format);
}

tval tm_format_map(tm_core *t, tval format, tval mapping) {
    formatter f = {.t = t, .map = &mapping, .escape = format.str->markup};
    return format_all(&f, format);
}
