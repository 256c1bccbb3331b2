/* tmpl_filters.c - filters on text, and finding a filter by name. */
#include "template/tmpl_filters.h"

#include "template/pyunicode.h"
#include "template/tmpl_text.h"

#include <string.h>

/* ---- As a whole ---- */

static tval filter_upper(tm_core *t, const tm_call *c) {
    return tx_upper(t, fl_soft_str(t, c->self));
}

static tval filter_lower(tm_core *t, const tm_call *c) {
    return tx_lower(t, fl_soft_str(t, c->self));
}

static tval filter_capitalize(tm_core *t, const tm_call *c) {
    return tx_capitalize(t, fl_soft_str(t, c->self));
}

static tval filter_trim(tm_core *t, const tm_call *c) {
    tval chars = fl_or(c->arg[0], tv_none());
    const tv_str *set = chars.type == TV_NONE ? NULL : tv_want_str(t, chars, "strip arg");
    return tx_strip(t, fl_soft_str(t, c->self), set, TX_BOTH);
}

static tval filter_string(tm_core *t, const tm_call *c) {
    return (tval){.type = TV_STR, .str = fl_soft_str(t, c->self)};
}

static tval filter_replace(tm_core *t, const tm_call *c) {
    tval count = fl_or(c->arg[2], tv_none());
    int64_t max = count.type == TV_NONE ? -1 : tv_to_index(t, count, false);
    return tx_replace(t, tv_to_str(t, c->self).str, tv_to_str(t, c->arg[0]).str,
                      tv_to_str(t, c->arg[1]).str, max);
}

static tval filter_center(tm_core *t, const tm_call *c) {
    int64_t width = tv_to_index(t, fl_or(c->arg[0], tv_int(80)), false);
    return tx_pad(t, fl_soft_str(t, c->self), width, tv_literal(t, " ").str, TX_ALIGN_CENTER);
}

/* ---- Words ---- */

static bool parts_words(uint32_t c) {
    return c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || py_is_space(c);
}

static tval filter_title(tm_core *t, const tm_call *c) {
    const tv_str *s = fl_soft_str(t, c->self);
    tm_text b = tm_text_start(t);
    for (size_t at = 0; at < s->n;) {
        size_t start = at, end = at;
        bool kind = parts_words(py_char_next(s->data, s->n, &end));
        size_t first = end;
        while (end < s->n) {
            size_t next = end;
            tm_step(t, 1);
            if (parts_words(py_char_next(s->data, s->n, &next)) != kind) {
                break;
            }
            end = next;
        }
        tv_put_str(&b, tx_upper(t, tx_piece(t, s, start, first).str));
        tv_put_str(&b, tx_lower(t, tx_piece(t, s, first, end).str));
        at = end;
    }
    return tm_text_end(&b);
}

static tval filter_wordcount(tm_core *t, const tm_call *c) {
    const tv_str *s = fl_soft_str(t, c->self);
    int64_t n = 0;
    bool within = false;
    tm_step(t, s->n / 8);
    for (size_t at = 0; at < s->n;) {
        uint32_t code = py_char_next(s->data, s->n, &at);
        bool word = code == '_' || py_is_alnum(code);
        n += word && !within;
        within = word;
    }
    return tv_int(n);
}

static tval filter_truncate(tm_core *t, const tm_call *c) {
    tval length = fl_or(c->arg[0], tv_int(255)), leeway = fl_or(c->arg[3], tv_none());
    leeway = leeway.type == TV_NONE ? tv_int(5) : leeway;
    int64_t n = tv_to_index(t, length, false), slack = tv_to_index(t, leeway, false);
    tval end = fl_or(c->arg[2], tv_literal(t, "..."));
    size_t n_end, n_all;
    if (!tv_length(t, end, &n_end) || n < (int64_t)n_end) {
        tm_fail(t, "expected length >= %zu, got %lld", n_end, (long long)n);
    }
    if (slack < 0) {
        tm_fail(t, "expected leeway >= 0, got %lld", (long long)slack);
    }
    if (!tv_length(t, c->self, &n_all)) {
        tm_fail(t, "object of type '%s' has no len()", tv_type_name(c->self));
    }
    if (n_all <= (uint64_t)n + (uint64_t)slack) {
        return c->self;
    }
    tval cut = tm_slice(t, c->self, tv_none(), tv_int(n - (int64_t)n_end), tv_none());
    if (!(fl_given(c->arg[1]) && tv_truth(t, c->arg[1]))) {
        tv_str *s = tv_want_str(t, cut, "the value");
        cut = tx_split(t, s, tv_literal(t, " ").str, 1, true).seq->items[0];
    }
    return tm_add(t, cut, end);
}

static tval filter_indent(tm_core *t, const tm_call *c) {
    tval width = fl_or(c->arg[0], tv_int(4));
    bool first = fl_given(c->arg[1]) && tv_truth(t, c->arg[1]);
    bool blank = fl_given(c->arg[2]) && tv_truth(t, c->arg[2]);
    tval indention = width;
    if (width.type != TV_STR) {
        indention = tm_binary(t, ND_MUL, tv_literal(t, " "), width);
    }
    tval text = tm_add(t, c->self, tv_literal(t, "\n"));
    const tv_str *in = indention.str;
    const tv_seq *lines = tx_split_lines(t, tv_want_str(t, text, "the value"), false).seq;
    tm_text b = tm_text_start(t);
    for (size_t i = 0; i < lines->n; i++) {
        const tv_str *line = lines->items[i].str;
        if (i > 0) {
            tm_text_putc(&b, '\n');
        }
        if (i == 0 ? first : blank || line->n > 0) {
            tm_text_put(&b, in->data, in->n);
        }
        tm_text_put(&b, line->data, line->n);
    }
    tval v = tm_text_end(&b);
    v.str->markup = text.str->markup;
    return v;
}

/* ---- Formats ---- */

static tval filter_format(tm_core *t, const tm_call *c) {
    const tm_args *given = c->given;
    if (given->n && given->n_named) {
        tm_fail(t, "can't handle positional and keyword arguments at the same time");
    }
    tval values;
    if (given->n_named) {
        values = tv_from_dict(tv_dict_new(t, given->n_named));
        for (size_t i = 0; i < given->n_named; i++) {
            tv_dict_put(t, values.dict, given->named[i].name, given->named[i].value);
        }
    } else {
        values = tv_seq_new(t, TV_TUPLE, given->n);
        for (size_t i = 0; i < given->n; i++) {
            values.seq->items[i] = given->positional[i];
        }
    }
    return tm_format_percent(t, (tval){.type = TV_STR, .str = fl_soft_str(t, c->self)}, values);
}

static tval filter_tojson(tm_core *t, const tm_call *c) {
    return tm_json_dumps(t, c->self, fl_given(c->arg[0]) && tv_truth(t, c->arg[0]),
                         fl_or(c->arg[1], tv_none()), fl_or(c->arg[2], tv_none()),
                         fl_given(c->arg[3]) && tv_truth(t, c->arg[3]));
}

static const tm_builtin rows[] = {
    {"upper", filter_upper, "", 0},
    {"lower", filter_lower, "", 0},
    {"capitalize", filter_capitalize, "", 0},
    {"title", filter_title, "", 0},
    {"trim", filter_trim, "chars", 0},
    {"string", filter_string, "", 0},
    {"replace", filter_replace, "old new count", 2},
    {"center", filter_center, "width", 0},
    {"wordcount", filter_wordcount, "", 0},
    {"truncate", filter_truncate, "length killwords end leeway", 0},
    {"indent", filter_indent, "width first blank", 0},
    {"format", filter_format, "*", 0},
    {"tojson", filter_tojson, "ensure_ascii indent separators sort_keys", 0},
};
const tm_filter_table tm_text_filters = {rows, sizeof rows / sizeof *rows};

const tm_builtin *tm_find_filter(tval name) {
    const tm_filter_table *const tables[] = {&tm_text_filters,   &tm_seq_filters, &tm_lazy_filters,
                                             &tm_number_filters, &tm_web_filters, &tm_wrap_filters,
                                             &tm_pprint_filters};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        const tm_builtin *found = tm_find_row(tables[i]->rows, tables[i]->n, name);
        if (found) {
            return found;
        }
    }
    return NULL;
}
