/* tmpl_repr.c - str() and repr() of values as Python prints them. */
#include "template/tmpl_repr.h"

#include "template/pyfloat.h"
#include "template/pyunicode.h"
#include "template/tmpl_big.h"
#include "template/tmpl_run.h"

#include <stdio.h>
#include <string.h>

#define MESSAGE_REPR_MAX 200

/* ---- Text that grows in the arena ---- */

static void make_room(tm_text *b, size_t n) {
    if (n > b->t->max_bytes - b->n) {
        tm_fail_memory(b->t, n);
    }
    size_t capacity = (b->n + n) * 2 < 64 ? 64 : (b->n + n) * 2;
    char *data = tm_alloc(b->t, capacity);
    if (b->n) {
        tm_copy(data, b->data, b->n);
    }
    b->data = data;
    b->capacity = capacity;
}

void tm_text_put(tm_text *b, const char *data, size_t n) {
    if (n > b->capacity - b->n) {
        make_room(b, n);
    }
    if (n) {
        tm_step(b->t, n / 64);
        tm_copy(b->data + b->n, data, n);
        b->n += n;
    }
}

void tm_text_puts(tm_text *b, const char *text) {
    tm_text_put(b, text, strlen(text));
}

void tm_text_putc(tm_text *b, char c) {
    tm_text_put(b, &c, 1);
}

void tm_text_fill(tm_text *b, char c, size_t n) {
    if (n > b->capacity - b->n) {
        make_room(b, n);
    }
    if (n) {
        tm_step(b->t, n / 64);
        memset(b->data + b->n, c, n);
        b->n += n;
    }
}

void tm_text_put_char(tm_text *b, uint32_t code_point) {
    char bytes[4];
    tm_text_put(b, bytes, py_char_put(bytes, code_point));
}

tval tm_text_end(tm_text *b) {
    return tv_text_take(b->t, b->n ? b->data : "", b->n);
}

/* ---- Parts of representations ---- */

static void put_escaped_char(tm_text *b, uint32_t c, char quote) {
    static const char short_names[] = {'t', 'n', 0, 0, 'r'}; /* 9 .. 13 */
    char text[16];
    if (c == (uint32_t)quote || c == '\\') {
        snprintf(text, sizeof text, "\\%c", (char)c);
    } else if (c == '\t' || c == '\n' || c == '\r') {
        snprintf(text, sizeof text, "\\%c", short_names[c - '\t']);
    } else if (py_is_printable(c)) {
        tm_text_put_char(b, c);
        return;
    } else if (c < 0x100) {
        snprintf(text, sizeof text, "\\x%02x", c);
    } else {
        snprintf(text, sizeof text, c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
    }
    tm_text_puts(b, text);
}

static void put_str_repr(tm_text *b, const tv_str *s) {
    bool single = memchr(s->data, '\'', s->n) != NULL, twin = memchr(s->data, '"', s->n) != NULL;
    char quote = single && !twin ? '"' : '\'';
    if (s->markup) {
        tm_text_puts(b, "Markup(");
    }
    tm_text_putc(b, quote);
    for (size_t at = 0; at < s->n;) {
        put_escaped_char(b, py_char_next(s->data, s->n, &at), quote);
    }
    tm_text_putc(b, quote);
    if (s->markup) {
        tm_text_putc(b, ')');
    }
}

static void put_items(tm_text *b, const tval *items, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (i > 0) {
            tm_text_puts(b, ", ");
        }
        tv_put_repr(b, items[i]);
    }
}

static void put_seq(tm_text *b, tval v) {
    bool tuple = v.type == TV_TUPLE;
    tm_text_putc(b, tuple ? '(' : '[');
    put_items(b, v.seq->items, v.seq->n);
    tm_text_puts(b, tuple ? (v.seq->n == 1 ? ",)" : ")") : "]");
}

static void put_dict(tm_text *b, const tv_dict *d) {
    tm_text_putc(b, '{');
    for (size_t i = 0; i < d->n; i++) {
        if (i > 0) {
            tm_text_puts(b, ", ");
        }
        tv_put_repr(b, d->entries[i].key);
        tm_text_puts(b, ": ");
        tv_put_repr(b, d->entries[i].value);
    }
    tm_text_putc(b, '}');
}

static void put_view(tm_text *b, const tv_view *view) {
    static const char *const names[] = {"dict_keys([", "dict_values([", "dict_items(["};
    tm_text_puts(b, names[view->kind]);
    for (size_t i = 0; i < view->dict->n; i++) {
        const tv_entry *e = &view->dict->entries[i];
        if (i > 0) {
            tm_text_puts(b, ", ");
        }
        if (view->kind == TV_ITEMS) {
            put_items(b, (tval[]){tv_pair(b->t, e->key, e->value)}, 1);
        } else {
            tv_put_repr(b, view->kind == TV_KEYS ? e->key : e->value);
        }
    }
    tm_text_puts(b, "])");
}

static void put_range(tm_text *b, const tv_range *r) {
    char text[96];
    if (r->step == 1) {
        snprintf(text, sizeof text, "range(%lld, %lld)", (long long)r->start, (long long)r->stop);
    } else {
        snprintf(text, sizeof text, "range(%lld, %lld, %lld)", (long long)r->start,
                 (long long)r->stop, (long long)r->step);
    }
    tm_text_puts(b, text);
}

static void put_macro(tm_text *b, const tv_macro *macro) {
    tm_text_puts(b, "<Macro ");
    if (tv_is(macro->name, TV_STR)) {
        tv_put_repr(b, macro->name);
    } else {
        tm_text_puts(b, "anonymous");
    }
    tm_text_putc(b, '>');
}

/* Objects that Python prints with their address, which no template can depend on. */
static void put_opaque(tm_text *b, tval v) {
    tm_warn_once(b->t, "the text of an object (a function, a method, an iterator) is used, which "
                       "is another one in each process");
    tm_text_putc(b, '<');
    tm_text_puts(b, tv_type_name(v));
    tm_text_puts(b, " object>");
}

void tv_put_repr(tm_text *b, tval v) {
    tm_core *t = b->t;
    char number[PYFLOAT_REPR_MAX];
    tm_enter(t);
    tm_step(t, 1);
    switch (v.type) {
    case TV_MISSING:
        tm_text_puts(b, "missing");
        break;
    case TV_UNDEFINED:
        tm_text_puts(b, "Undefined");
        break;
    case TV_NONE:
        tm_text_puts(b, "None");
        break;
    case TV_BOOL:
        tm_text_puts(b, v.boolean ? "True" : "False");
        break;
    case TV_INT:
        snprintf(number, sizeof number, "%lld", (long long)v.integer);
        tm_text_puts(b, number);
        break;
    case TV_BIG:
        big_put(b, v.big);
        break;
    case TV_FLOAT:
        tm_text_put(b, number, pyfloat_repr(number, v.real));
        break;
    case TV_STR:
        put_str_repr(b, v.str);
        break;
    case TV_LIST:
    case TV_TUPLE:
        put_seq(b, v);
        break;
    case TV_DICT:
        put_dict(b, v.dict);
        break;
    case TV_RANGE:
        put_range(b, v.range);
        break;
    case TV_VIEW:
        put_view(b, v.view);
        break;
    case TV_NAMESPACE:
        tm_text_puts(b, "<Namespace ");
        put_dict(b, v.ns->attrs);
        tm_text_putc(b, '>');
        break;
    case TV_MACRO:
        put_macro(b, v.macro);
        break;
    case TV_LOOP:
        loop_put(b, v.loop);
        break;
    default:
        put_opaque(b, v);
        break;
    }
    tm_leave(t);
}

void tv_put_str(tm_text *b, tval v) {
    if (v.type == TV_STR) {
        tm_text_put(b, v.str->data, v.str->n);
    } else if (v.type != TV_UNDEFINED) {
        tv_put_repr(b, v);
    }
}

tval tv_to_str(tm_core *t, tval v) {
    if (v.type == TV_STR) {
        return tv_as_markup(t, v, false);
    }
    tm_text b = tm_text_start(t);
    tv_put_str(&b, v);
    return tm_text_end(&b);
}

const char *tv_repr_text(tm_core *t, tval v) {
    tm_text b = tm_text_start(t);
    tv_put_repr(&b, v);
    if (b.n > MESSAGE_REPR_MAX) {
        b.n = MESSAGE_REPR_MAX;
        while (b.n > 0 && (b.data[b.n] & 0xc0) == 0x80) {
            b.n--;
        }
        tm_text_puts(&b, "...");
    }
    tm_text_putc(&b, 0);
    return b.data;
}
