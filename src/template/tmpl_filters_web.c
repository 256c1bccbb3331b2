/* tmpl_filters_web.c - filters made for HTML: escaping, and text that is marked safe. */
#include "template/tmpl_filters.h"
#include "template/tmpl_text.h"

#include <stdio.h>
#include <string.h>

/* ---- Escaping ---- */

static const char *entity(char c) {
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&#34;";
    case '\'':
        return "&#39;";
    default:
        return NULL;
    }
}

static tval escape_text(tm_core *t, const tv_str *s) {
    tm_text b = tm_text_start(t);
    for (size_t at = 0; at < s->n;) {
        size_t plain = at;
        while (plain < s->n && !entity(s->data[plain])) {
            plain++;
        }
        tm_text_put(&b, s->data + at, plain - at);
        if (plain < s->n) {
            tm_text_puts(&b, entity(s->data[plain]));
        }
        at = plain + 1;
    }
    tval v = tm_text_end(&b);
    v.str->markup = true;
    return v;
}

tval tm_escape(tm_core *t, tval v) {
    if (v.type == TV_STR && v.str->markup) {
        return v;
    }
    return escape_text(t, tv_to_str(t, v).str);
}

static tval filter_escape(tm_core *t, const tm_call *c) {
    return tm_escape(t, c->self);
}

static tval filter_forceescape(tm_core *t, const tm_call *c) {
    return escape_text(t, tv_to_str(t, c->self).str);
}

static tval filter_safe(tm_core *t, const tm_call *c) {
    return tv_as_markup(t, c->self.type == TV_STR ? c->self : tv_to_str(t, c->self), true);
}

/* ---- Tags ---- */

static const struct entity_row {
    const char *name;
    uint32_t code;
} entities[] = {{"amp;", '&'},   {"lt;", '<'},    {"gt;", '>'},     {"quot;", '"'},  {"apos;", 39},
                {"nbsp;", 0xa0}, {"copy;", 0xa9}, {"raquo;", 0xbb}, {"laquo;", 0xab}};

/* A character reference at s[at], which is '&': writes it and returns its length, or 0. Named ones
 * are those above; HTML has 2,000 more. */
static size_t put_reference(tm_text *b, const tv_str *s, size_t at) {
    const char *p = s->data + at + 1;
    size_t n = s->n - at - 1, i = 1;
    for (size_t k = 0; k < sizeof entities / sizeof *entities; k++) {
        size_t size = strlen(entities[k].name);
        if (n >= size && memcmp(p, entities[k].name, size) == 0) {
            tm_text_put_char(b, entities[k].code);
            return size + 1;
        }
    }
    if (n < 2 || p[0] != '#') {
        return 0;
    }
    bool hex = p[1] == 'x' || p[1] == 'X';
    uint32_t code = 0;
    size_t first = i += hex;
    for (; i < n; i++) {
        char c = (char)(p[i] | 0x20);
        bool digit = p[i] >= '0' && p[i] <= '9';
        if (!digit && !(hex && c >= 'a' && c <= 'f')) {
            break;
        }
        uint32_t value = (uint32_t)(digit ? p[i] - '0' : c - 'a' + 10);
        code = code > 0x10ffff ? code : code * (hex ? 16 : 10) + value;
    }
    if (i == first) {
        return 0;
    }
    bool valid = code > 0 && code <= 0x10ffff && !(code >= 0xd800 && code < 0xe000);
    tm_text_put_char(b, valid ? code : 0xfffd);
    return i + 1 + (i < n && p[i] == ';');
}

static tval resolve_references(tm_core *t, const tv_str *s) {
    tm_text b = tm_text_start(t);
    for (size_t at = 0; at < s->n;) {
        size_t used = s->data[at] == '&' ? put_reference(&b, s, at) : 0;
        if (used == 0) {
            tm_text_putc(&b, s->data[at]);
        }
        at += used ? used : 1;
    }
    return tm_text_end(&b);
}

tval tm_striptags(tm_core *t, tval v) {
    tv_str *s = tv_to_str(t, v).str;
    tm_text b = tm_text_start(t);
    size_t at = 0;
    const tv_str *open = tv_literal(t, "<").str, *close = tv_literal(t, ">").str;
    const tv_str *comment_end = tv_literal(t, "-->").str;
    for (;;) {
        size_t start = tx_find(t, s, at, s->n, open);
        bool comment =
            start != SIZE_MAX && s->n - start >= 4 && memcmp(s->data + start, "<!--", 4) == 0;
        size_t end = start == SIZE_MAX ? SIZE_MAX
                     : comment         ? tx_find(t, s, start + 4, s->n, comment_end)
                                       : tx_find(t, s, start, s->n, close);
        if (end == SIZE_MAX) {
            break;
        }
        tm_text_put(&b, s->data + at, start - at);
        at = end + (comment ? 3 : 1);
    }
    tm_text_put(&b, s->data + at, s->n - at);
    tval words = tx_split(t, tm_text_end(&b).str, NULL, -1, false);
    tval text = tx_join(t, tv_literal(t, " ").str, words, true);
    return resolve_references(t, text.str);
}

static tval filter_striptags(tm_core *t, const tm_call *c) {
    return tm_striptags(t, c->self);
}

/* ---- Addresses and attributes ---- */

/* What urllib.parse.quote leaves as it is. */
static bool is_plain(char c, bool query) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c && strchr("_.-~", c)) || (c == '/' && !query);
}

static void put_quoted(tm_text *b, tval v, bool query) {
    const tv_str *s = tv_to_str(b->t, v).str;
    for (size_t i = 0; i < s->n; i++) {
        char c = s->data[i], text[4];
        if (is_plain(c, query)) {
            tm_text_putc(b, c);
        } else if (c == ' ' && query) {
            tm_text_putc(b, '+');
        } else {
            snprintf(text, sizeof text, "%%%02X", (uint8_t)c);
            tm_text_puts(b, text);
        }
    }
}

static tval filter_urlencode(tm_core *t, const tm_call *c) {
    tm_text b = tm_text_start(t);
    if (c->self.type == TV_STR || !tv_iterable(c->self)) {
        put_quoted(&b, c->self, false);
        return tm_text_end(&b);
    }
    tval pairs = c->self;
    if (pairs.type == TV_DICT) {
        pairs = tm_call_value(t, tm_get_attr(t, pairs, tv_literal(t, "items")), &(tm_args){0});
    }
    tv_iter *it = tv_iterate(t, pairs);
    for (tval pair; tv_next(t, it, &pair);) {
        const tv_seq *two = tv_items(t, pair);
        if (two->n != 2) {
            tm_fail(t, "urlencode wants pairs, not %zu values", two->n);
        }
        if (b.n) {
            tm_text_putc(&b, '&');
        }
        put_quoted(&b, two->items[0], true);
        tm_text_putc(&b, '=');
        put_quoted(&b, two->items[1], true);
    }
    return tm_text_end(&b);
}

static tval filter_xmlattr(tm_core *t, const tm_call *c) {
    if (c->self.type != TV_DICT) {
        if (c->self.type == TV_UNDEFINED) {
            tv_fail_undefined(t, c->self);
        }
        tm_fail(t, "'%s' object has no attribute 'items'", tv_type_name(c->self));
    }
    bool space = !fl_given(c->arg[0]) || tv_truth(t, c->arg[0]);
    tm_text b = tm_text_start(t);
    for (size_t i = 0; i < c->self.dict->n; i++) {
        const tv_entry *e = &c->self.dict->entries[i];
        if (e->value.type == TV_NONE || e->value.type == TV_UNDEFINED) {
            continue;
        }
        const tv_str *key = tv_want_str(t, e->key, "an attribute's name");
        for (size_t k = 0; k < key->n; k++) {
            if (key->data[k] && strchr(" \t\n\r\f\v/>=", key->data[k])) {
                tm_fail(t, "Invalid character in attribute name: %s", tv_repr_text(t, e->key));
            }
        }
        if (space || b.n) {
            tm_text_putc(&b, ' ');
        }
        tv_put_str(&b, tm_escape(t, e->key));
        tm_text_puts(&b, "=\"");
        tv_put_str(&b, tm_escape(t, e->value));
        tm_text_putc(&b, '"');
    }
    return tm_text_end(&b);
}

static const tm_builtin rows[] = {
    {"urlencode", filter_urlencode, "", 0}, {"xmlattr", filter_xmlattr, "autospace", 0},
    {"striptags", filter_striptags, "", 0}, {"escape", filter_escape, "/", 0},
    {"e", filter_escape, "/", 0},           {"forceescape", filter_forceescape, "", 0},
    {"safe", filter_safe, "", 0},
};
const tm_filter_table tm_web_filters = {rows, sizeof rows / sizeof *rows};
