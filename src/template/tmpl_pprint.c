/* tmpl_pprint.c - the pprint filter: values on several lines when they do not fit into 80 columns.
 *
 * The layout is that of Python's pprint with its defaults: one item a line, a level is one blank,
 * keys in order, long text cut at line ends and blanks. */
#include "template/pyunicode.h"
#include "template/tmpl_filters.h"
#include "template/tmpl_text.h"

#include <string.h>

#define WIDTH 80

static void put(tm_text *b, tval v, int64_t indent, int64_t allowance, int level);

/* ---- Keys in order ---- */

/* a < b, by the names of the types where Python cannot compare. */
static bool safe_less(tm_core *t, tval a, tval b) {
    bool numbers = tv_is_number(a) && tv_is_number(b);
    if (numbers || (a.type == TV_STR && b.type == TV_STR)) {
        return tv_compare(t, TV_LT, a, b);
    }
    return strcmp(tv_type_name(a), tv_type_name(b)) < 0;
}

static tv_entry *sorted_entries(tm_core *t, const tv_dict *d) {
    tv_entry *rows = tm_array(t, d->n, sizeof *rows);
    for (size_t i = 0; i < d->n; i++) {
        size_t k = i;
        for (; k > 0 && safe_less(t, d->entries[i].key, rows[k - 1].key); k--) {
            tm_step(t, 1);
            rows[k] = rows[k - 1];
        }
        rows[k] = d->entries[i];
    }
    return rows;
}

/* ---- On one line ---- */

static void put_flat(tm_text *b, tval v) {
    tm_enter(b->t);
    if (v.type == TV_DICT) {
        const tv_entry *rows = sorted_entries(b->t, v.dict);
        tm_text_putc(b, '{');
        for (size_t i = 0; i < v.dict->n; i++) {
            tm_text_puts(b, i ? ", " : "");
            put_flat(b, rows[i].key);
            tm_text_puts(b, ": ");
            put_flat(b, rows[i].value);
        }
        tm_text_putc(b, '}');
    } else if ((v.type == TV_LIST || v.type == TV_TUPLE) && !v.seq->group) {
        bool tuple = v.type == TV_TUPLE;
        tm_text_putc(b, tuple ? '(' : '[');
        for (size_t i = 0; i < v.seq->n; i++) {
            tm_text_puts(b, i ? ", " : "");
            put_flat(b, v.seq->items[i]);
        }
        tm_text_puts(b, tuple ? (v.seq->n == 1 ? ",)" : ")") : "]");
    } else {
        tv_put_repr(b, v);
    }
    tm_leave(b->t);
}

static tval flat(tm_core *t, tval v) {
    tm_text b = tm_text_start(t);
    put_flat(&b, v);
    return tm_text_end(&b);
}

static int64_t repr_width(tm_core *t, tval s) {
    return (int64_t)tv_n_chars(flat(t, s).str);
}

/* ---- On several ---- */

static void new_line(tm_text *b, int64_t indent) {
    tm_text_putc(b, '\n');
    tm_text_fill(b, ' ', (size_t)indent);
}

static void put_items(tm_text *b, const tv_seq *seq, int64_t indent, int64_t allowance, int level) {
    for (size_t i = 0; i < seq->n; i++) {
        if (i > 0) {
            tm_text_putc(b, ',');
            new_line(b, indent + 1);
        }
        put(b, seq->items[i], indent + 1, i + 1 == seq->n ? allowance : 1, level);
    }
}

static void put_dict(tm_text *b, const tv_dict *d, int64_t indent, int64_t allowance, int level) {
    const tv_entry *rows = sorted_entries(b->t, d);
    tm_text_putc(b, '{');
    for (size_t i = 0; i < d->n; i++) {
        if (i > 0) {
            tm_text_putc(b, ',');
            new_line(b, indent + 1);
        }
        tval key = flat(b->t, rows[i].key);
        tv_put_str(b, key);
        tm_text_puts(b, ": ");
        put(b, rows[i].value, indent + 1 + (int64_t)tv_n_chars(key.str) + 2,
            i + 1 == d->n ? allowance + 1 : 1, level);
    }
    tm_text_putc(b, '}');
}

/* Words with the blanks behind them, as many on a line as fit. */
static void push_words(tm_core *t, tv_list_builder *chunks, tv_str *line, int64_t width,
                       int64_t last_allowance) {
    size_t start = 0;
    for (size_t at = 0; at < line->n;) {
        size_t end = at;
        bool blank = false;
        while (end < line->n) { /* one word and its blanks */
            size_t next = end;
            bool space = py_is_space(py_char_next(line->data, line->n, &next));
            if (blank && !space) {
                break;
            }
            blank = space;
            end = next;
        }
        int64_t room = width - (end == line->n ? last_allowance : 0);
        if (repr_width(t, tx_piece(t, line, start, end)) > room && at > start) {
            tv_push(t, chunks, tx_piece(t, line, start, at));
            start = at;
        }
        at = end;
    }
    if (start < line->n) {
        tv_push(t, chunks, tx_piece(t, line, start, line->n));
    }
}

static void put_text(tm_text *b, tval v, int64_t indent, int64_t allowance, int level) {
    tm_core *t = b->t;
    bool outermost = level == 1;
    indent += outermost;
    allowance += outermost;
    int64_t width = WIDTH - indent;
    const tv_seq *lines = tx_split_lines(t, v.str, true).seq;
    tv_list_builder chunks = {0};
    for (size_t i = 0; i < lines->n; i++) {
        int64_t last = i + 1 == lines->n ? allowance : 0;
        if (repr_width(t, lines->items[i]) <= width - last) {
            tv_push(t, &chunks, lines->items[i]);
        } else {
            push_words(t, &chunks, lines->items[i].str, width, last);
        }
    }
    bool brackets = outermost && chunks.n > 1;
    tm_text_puts(b, brackets ? "(" : "");
    for (size_t i = 0; i < chunks.n; i++) {
        if (i > 0) {
            new_line(b, indent);
        }
        tv_put_repr(b, chunks.items[i]);
    }
    tm_text_puts(b, brackets ? ")" : "");
}

static void put(tm_text *b, tval v, int64_t indent, int64_t allowance, int level) {
    tval one = flat(b->t, v);
    bool fits = (int64_t)tv_n_chars(one.str) <= WIDTH - indent - allowance;
    tm_enter(b->t);
    if (!fits && v.type == TV_DICT) {
        put_dict(b, v.dict, indent, allowance, level + 1);
    } else if (!fits && v.type == TV_LIST) {
        tm_text_putc(b, '[');
        put_items(b, v.seq, indent, allowance + 1, level + 1);
        tm_text_putc(b, ']');
    } else if (!fits && v.type == TV_TUPLE && !v.seq->group) {
        bool single = v.seq->n == 1;
        tm_text_putc(b, '(');
        put_items(b, v.seq, indent, allowance + 1 + single, level + 1);
        tm_text_puts(b, single ? ",)" : ")");
    } else if (!fits && v.type == TV_STR && !v.str->markup && v.str->n) {
        put_text(b, v, indent, allowance, level + 1);
    } else {
        tv_put_str(b, one);
    }
    tm_leave(b->t);
}

static tval filter_pprint(tm_core *t, const tm_call *c) {
    tm_text b = tm_text_start(t);
    put(&b, c->self, 0, 0, 0);
    return tm_text_end(&b);
}

static const tm_builtin rows[] = {{"pprint", filter_pprint, "", 0}};
const tm_filter_table tm_pprint_filters = {rows, sizeof rows / sizeof *rows};
