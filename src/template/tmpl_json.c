/* tmpl_json.c - JSON documents as values, and values as JSON text in the manner of json.dumps. */
#include "template/pyfloat.h"
#include "template/pyunicode.h"
#include "template/tmpl_big.h"
#include "template/tmpl_run.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- From a document ---- */

static tval from_text(tm_core *t, const char *text, size_t n) {
    tm_step(t, 1);
    return tv_text_take(t, text, n); /* the document outlives the rendering */
}

tval tm_from_json(tm_core *t, const json_t *json) {
    tval v = tv_none();
    tm_enter(t);
    tm_step(t, 1);
    switch (json_typeof(json)) {
    case JSON_OBJECT: {
        tv_dict *d = tv_dict_new(t, json_object_size(json));
        /* jansson's iterators take no const, and change nothing */
        json_t *object = (json_t *)(uintptr_t)json;
        for (void *it = json_object_iter(object); it; it = json_object_iter_next(object, it)) {
            const char *key = json_object_iter_key(it);
            tv_dict_put(t, d, from_text(t, key, strlen(key)),
                        tm_from_json(t, json_object_iter_value(it)));
        }
        v = tv_from_dict(d);
        break;
    }
    case JSON_ARRAY:
        v = tv_seq_new(t, TV_LIST, json_array_size(json));
        for (size_t i = 0; i < v.seq->n; i++) {
            v.seq->items[i] = tm_from_json(t, json_array_get(json, i));
        }
        break;
    case JSON_STRING:
        v = from_text(t, json_string_value(json), json_string_length(json));
        break;
    case JSON_INTEGER:
        v = tv_int(json_integer_value(json));
        break;
    case JSON_REAL:
        v = tv_float(json_real_value(json));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        v = tv_bool(json_is_true(json));
        break;
    case JSON_NULL:
        break;
    }
    tm_leave(t);
    return v;
}

/* ---- To text ---- */

typedef struct dumper {
    tm_core *t;
    tm_text out;
    bool ascii, sort_keys, pretty;
    const tv_str *indent; /* one level, when pretty */
    const tv_str *item_separator, *key_separator;
} dumper;

static void dump(dumper *d, tval v, size_t level);

static void put_u_escape(dumper *d, uint32_t c) {
    char text[16];
    if (c >= 0x10000) {
        c -= 0x10000;
        snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xd800 | c >> 10, 0xdc00 | (c & 0x3ff));
    } else {
        snprintf(text, sizeof text, "\\u%04x", c);
    }
    tm_text_puts(&d->out, text);
}

static void dump_text(dumper *d, const tv_str *s) {
    static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
    tm_text_putc(&d->out, '"');
    for (size_t at = 0; at < s->n;) {
        size_t plain = at;
        while (plain < s->n && (uint8_t)s->data[plain] >= 0x20 && s->data[plain] != '"' &&
               s->data[plain] != '\\' && !(d->ascii && (uint8_t)s->data[plain] >= 0x7f)) {
            plain++;
        }
        tm_text_put(&d->out, s->data + at, plain - at);
        at = plain;
        if (at < s->n) {
            uint32_t c = py_char_next(s->data, s->n, &at);
            const char *simple = c && c < 0x80 ? strchr(from, (int)c) : NULL;
            if (simple) {
                tm_text_putc(&d->out, '\\');
                tm_text_putc(&d->out, to[simple - from]);
            } else {
                put_u_escape(d, c);
            }
        }
    }
    tm_text_putc(&d->out, '"');
}

static void dump_number(dumper *d, tval v) {
    if (v.type == TV_FLOAT && !isfinite(v.real)) {
        tm_text_puts(&d->out, isnan(v.real) ? "NaN" : v.real > 0 ? "Infinity" : "-Infinity");
    } else if (v.type == TV_BOOL) {
        tm_text_puts(&d->out, v.boolean ? "true" : "false");
    } else {
        tv_put_repr(&d->out, v);
    }
}

static void new_line(dumper *d, size_t level) {
    if (d->pretty) {
        tm_text_putc(&d->out, '\n');
        for (size_t i = 0; i < level; i++) {
            tm_step(d->t, 1);
            tm_text_put(&d->out, d->indent->data, d->indent->n);
        }
    }
}

static void dump_key(dumper *d, tval key) {
    if (key.type == TV_STR) {
        dump_text(d, key.str);
    } else if (key.type == TV_NONE || tv_is_number(key)) {
        tm_text_putc(&d->out, '"');
        dump(d, key, 0);
        tm_text_putc(&d->out, '"');
    } else {
        tm_fail(d->t, "keys must be str, int, float, bool or None, not %s", tv_type_name(key));
    }
}

static void dump_dict(dumper *d, const tv_dict *dict, size_t level) {
    tval *keys = tm_array(d->t, dict->n, sizeof *keys);
    tval *values = tm_array(d->t, dict->n, sizeof *values);
    for (size_t i = 0; i < dict->n; i++) {
        keys[i] = dict->entries[i].key;
        values[i] = dict->entries[i].value;
    }
    if (d->sort_keys) { /* keys differ, so values never decide */
        tval *sorted = tm_array(d->t, dict->n, sizeof *sorted);
        tm_copy(sorted, keys, dict->n * sizeof *keys);
        tm_sort(d->t, values, keys, dict->n, false);
        tm_sort(d->t, sorted, NULL, dict->n, false);
        keys = sorted;
    }
    tm_text_putc(&d->out, '{');
    for (size_t i = 0; i < dict->n; i++) {
        if (i > 0) {
            tm_text_put(&d->out, d->item_separator->data, d->item_separator->n);
        }
        new_line(d, level + 1);
        dump_key(d, keys[i]);
        tm_text_put(&d->out, d->key_separator->data, d->key_separator->n);
        dump(d, values[i], level + 1);
    }
    if (dict->n) {
        new_line(d, level);
    }
    tm_text_putc(&d->out, '}');
}

static void dump_seq(dumper *d, const tv_seq *seq, size_t level) {
    tm_text_putc(&d->out, '[');
    for (size_t i = 0; i < seq->n; i++) {
        if (i > 0) {
            tm_text_put(&d->out, d->item_separator->data, d->item_separator->n);
        }
        new_line(d, level + 1);
        dump(d, seq->items[i], level + 1);
    }
    if (seq->n) {
        new_line(d, level);
    }
    tm_text_putc(&d->out, ']');
}

static void dump(dumper *d, tval v, size_t level) {
    tm_enter(d->t);
    switch (v.type) {
    case TV_NONE:
        tm_text_puts(&d->out, "null");
        break;
    case TV_BOOL:
    case TV_INT:
    case TV_BIG:
    case TV_FLOAT:
        dump_number(d, v);
        break;
    case TV_STR:
        dump_text(d, v.str);
        break;
    case TV_LIST:
    case TV_TUPLE:
        dump_seq(d, v.seq, level);
        break;
    case TV_DICT:
        dump_dict(d, v.dict, level);
        break;
    default:
        tm_fail(d->t, "Object of type %s is not JSON serializable", tv_type_name(v));
    }
    tm_leave(d->t);
}

/* The text of one level: given as text or as a number of blanks. */
static const tv_str *indent_text(tm_core *t, tval indent) {
    if (indent.type == TV_STR) {
        return indent.str;
    }
    int64_t n = tv_to_index(t, indent, false);
    tm_text b = tm_text_start(t);
    tm_text_fill(&b, ' ', n > 0 ? (size_t)n : 0);
    return tm_text_end(&b).str;
}

tval tm_json_dumps(tm_core *t, tval v, bool ascii, tval indent, tval separators, bool sort_keys) {
    dumper d = {.t = t, .out = tm_text_start(t), .ascii = ascii, .sort_keys = sort_keys};
    d.pretty = indent.type != TV_NONE;
    d.item_separator = tv_literal(t, d.pretty ? "," : ", ").str;
    d.key_separator = tv_literal(t, ": ").str;
    if (d.pretty) {
        d.indent = indent_text(t, indent);
    }
    if (separators.type != TV_NONE) {
        const tv_seq *two = tv_items(t, separators);
        if (two->n != 2) {
            tm_fail(t, "separators must be two texts, not %zu", two->n);
        }
        d.item_separator = tv_want_str(t, two->items[0], "the item separator");
        d.key_separator = tv_want_str(t, two->items[1], "the key separator");
    }
    dump(&d, v, 0);
    return tm_text_end(&d.out);
}
