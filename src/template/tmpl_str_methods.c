/* tmpl_str_methods.c - the methods of str. */
#include "template/pyunicode.h"
#include "template/tmpl_methods.h"
#include "template/tmpl_text.h"

#include <string.h>

/* ---- Arguments ---- */

static bool given(tval v) {
    return v.type != TV_MISSING;
}

static tv_str *want_text(tm_core *t, const tm_call *c, size_t i) {
    if (c->arg[i].type == TV_UNDEFINED) {
        tm_fail(t, "%s() argument %zu must be str, not Undefined", c->builtin->name, i + 1);
    }
    return tv_want_str(t, c->arg[i], "argument");
}

/* A text or None. */
static tv_str *optional_text(tm_core *t, const tm_call *c, size_t i) {
    return given(c->arg[i]) && c->arg[i].type != TV_NONE ? want_text(t, c, i) : NULL;
}

static int64_t optional_int(tm_core *t, const tm_call *c, size_t i, int64_t otherwise) {
    return given(c->arg[i]) ? tv_to_index(t, c->arg[i], false) : otherwise;
}

/* Positions in characters as Python takes them for find, count, startswith: None is no bound. */
static int64_t bound(tm_core *t, tval v, int64_t otherwise) {
    if (!given(v) || v.type == TV_NONE) {
        return otherwise;
    }
    if (!tv_is_integral(v)) {
        tm_fail(t, "slice indices must be integers or None or have an __index__ method");
    }
    return tv_to_index(t, v, true);
}

/* Arguments i and i + 1 as bytes of s. False when the range lies outside. */
static bool search_range(tm_core *t, const tm_call *c, size_t i, tv_str *s, size_t *from,
                         size_t *to) {
    int64_t n = (int64_t)tv_n_chars(s), start = bound(t, c->arg[i], 0),
            end = bound(t, c->arg[i + 1], n);
    end = end > n ? n : end < 0 ? (end < -n ? 0 : end + n) : end;
    start = start < 0 ? (start < -n ? 0 : start + n) : start;
    if (start > end) {
        return false;
    }
    *from = tv_char_at(s, (size_t)start);
    *to = tv_char_at(s, (size_t)end);
    return true;
}

/* The text an argument has after Markup's escaping. */
static tv_str *escaped_like(tm_core *t, const tv_str *s, tv_str *argument) {
    tval v = {.type = TV_STR, .str = argument};
    return s->markup ? tm_escape(t, v).str : argument;
}

/* ---- Case and classes ---- */

static tval str_upper(tm_core *t, const tm_call *c) {
    return tx_upper(t, c->self.str);
}

static tval str_lower(tm_core *t, const tm_call *c) {
    return tx_lower(t, c->self.str);
}

static tval str_title(tm_core *t, const tm_call *c) {
    return tx_title(t, c->self.str);
}

static tval str_capitalize(tm_core *t, const tm_call *c) {
    return tx_capitalize(t, c->self.str);
}

static tval str_swapcase(tm_core *t, const tm_call *c) {
    return tx_swapcase(t, c->self.str);
}

static tval str_casefold(tm_core *t, const tm_call *c) {
    return tx_casefold(t, c->self.str);
}

/* Whether there are characters and all belong to a class. */
static tval all_are(tm_core *t, const tv_str *s, bool (*is)(uint32_t c), bool when_empty) {
    tm_step(t, s->n / 8);
    for (size_t at = 0; at < s->n;) {
        if (!is(py_char_next(s->data, s->n, &at))) {
            return tv_bool(false);
        }
    }
    return tv_bool(s->n > 0 || when_empty);
}

static tval str_isalpha(tm_core *t, const tm_call *c) {
    return all_are(t, c->self.str, py_is_alpha, false);
}

static tval str_isdigit(tm_core *t, const tm_call *c) {
    return all_are(t, c->self.str, py_is_digit, false);
}

static tval str_isdecimal(tm_core *t, const tm_call *c) {
    return all_are(t, c->self.str, py_is_decimal, false);
}

static tval str_isnumeric(tm_core *t, const tm_call *c) {
    return all_are(t, c->self.str, py_is_numeric, false);
}

static tval str_isalnum(tm_core *t, const tm_call *c) {
    return all_are(t, c->self.str, py_is_alnum, false);
}

static tval str_isspace(tm_core *t, const tm_call *c) {
    return all_are(t, c->self.str, py_is_space, false);
}

static tval str_isprintable(tm_core *t, const tm_call *c) {
    return all_are(t, c->self.str, py_is_printable, true);
}

static bool is_ascii(uint32_t c) {
    return c < 0x80;
}

static tval str_isascii(tm_core *t, const tm_call *c) {
    return all_are(t, c->self.str, is_ascii, true);
}

static tval str_isidentifier(tm_core *t, const tm_call *c) {
    const tv_str *s = c->self.str;
    size_t at = 0;
    tm_step(t, s->n / 8);
    if (s->n == 0 || !py_is_id_start(py_char_next(s->data, s->n, &at))) {
        return tv_bool(false);
    }
    while (at < s->n) {
        if (!py_is_id_continue(py_char_next(s->data, s->n, &at))) {
            return tv_bool(false);
        }
    }
    return tv_bool(true);
}

static tval all_cased(tm_core *t, const tv_str *s, bool (*is)(uint32_t c)) {
    bool any = false;
    tm_step(t, s->n / 8);
    for (size_t at = 0; at < s->n;) {
        uint32_t c = py_char_next(s->data, s->n, &at);
        if (py_is_cased(c) && !is(c)) {
            return tv_bool(false);
        }
        any |= is(c);
    }
    return tv_bool(any);
}

static tval str_islower(tm_core *t, const tm_call *c) {
    return all_cased(t, c->self.str, py_is_lower);
}

static tval str_isupper(tm_core *t, const tm_call *c) {
    return all_cased(t, c->self.str, py_is_upper);
}

static tval str_istitle(tm_core *t, const tm_call *c) {
    const tv_str *s = c->self.str;
    bool any = false, within = false;
    tm_step(t, s->n / 8);
    for (size_t at = 0; at < s->n;) {
        uint32_t code = py_char_next(s->data, s->n, &at);
        bool starts = py_is_upper(code) || py_is_title(code), small = py_is_lower(code);
        if ((starts && within) || (small && !within)) {
            return tv_bool(false);
        }
        within = starts || small;
        any |= within;
    }
    return tv_bool(any);
}

/* ---- Ends and parts ---- */

static tval str_strip(tm_core *t, const tm_call *c) {
    return tx_strip(t, c->self.str, optional_text(t, c, 0), TX_BOTH);
}

static tval str_lstrip(tm_core *t, const tm_call *c) {
    return tx_strip(t, c->self.str, optional_text(t, c, 0), TX_LEFT);
}

static tval str_rstrip(tm_core *t, const tm_call *c) {
    return tx_strip(t, c->self.str, optional_text(t, c, 0), TX_RIGHT);
}

static bool has_affix(const tv_str *s, size_t from, size_t to, const tv_str *affix, bool at_end) {
    return affix->n <= to - from &&
           memcmp(s->data + (at_end ? to - affix->n : from), affix->data, affix->n) == 0;
}

static tval affix_test(tm_core *t, const tm_call *c, bool at_end) {
    tv_str *s = c->self.str;
    size_t from, to;
    bool within = search_range(t, c, 1, s, &from, &to);
    if (c->arg[0].type == TV_TUPLE) {
        const tv_seq *any = c->arg[0].seq;
        for (size_t i = 0; i < any->n; i++) {
            const tv_str *affix = tv_want_str(t, any->items[i], "each of the tuple");
            if (within && has_affix(s, from, to, affix, at_end)) {
                return tv_bool(true);
            }
        }
        return tv_bool(false);
    }
    if (c->arg[0].type != TV_STR) {
        tm_fail(t, "%s first arg must be str or a tuple of str, not %s", c->builtin->name,
                tv_type_name(c->arg[0]));
    }
    return tv_bool(within && has_affix(s, from, to, c->arg[0].str, at_end));
}

static tval str_startswith(tm_core *t, const tm_call *c) {
    return affix_test(t, c, false);
}

static tval str_endswith(tm_core *t, const tm_call *c) {
    return affix_test(t, c, true);
}

static tval str_removeprefix(tm_core *t, const tm_call *c) {
    const tv_str *s = c->self.str, *affix = want_text(t, c, 0);
    return tx_piece(t, s, has_affix(s, 0, s->n, affix, false) ? affix->n : 0, s->n);
}

static tval str_removesuffix(tm_core *t, const tm_call *c) {
    const tv_str *s = c->self.str, *affix = want_text(t, c, 0);
    return tx_piece(t, s, 0, has_affix(s, 0, s->n, affix, true) ? s->n - affix->n : s->n);
}

static tval split_with(tm_core *t, const tm_call *c, bool from_right) {
    return tx_split(t, c->self.str, optional_text(t, c, 0), optional_int(t, c, 1, -1), from_right);
}

static tval str_split(tm_core *t, const tm_call *c) {
    return split_with(t, c, false);
}

static tval str_rsplit(tm_core *t, const tm_call *c) {
    return split_with(t, c, true);
}

static tval str_splitlines(tm_core *t, const tm_call *c) {
    return tx_split_lines(t, c->self.str, given(c->arg[0]) && tv_truth(t, c->arg[0]));
}

static tval partition(tm_core *t, const tm_call *c, bool from_right) {
    const tv_str *s = c->self.str, *separator = want_text(t, c, 0);
    if (separator->n == 0) {
        tm_fail(t, "empty separator");
    }
    size_t at =
        from_right ? tx_find_last(t, s, 0, s->n, separator) : tx_find(t, s, 0, s->n, separator);
    size_t cut[2] = {from_right ? 0 : s->n, from_right ? 0 : s->n};
    if (at != SIZE_MAX) {
        cut[0] = at;
        cut[1] = at + separator->n;
    }
    tval three = tv_seq_new(t, TV_TUPLE, 3);
    three.seq->items[0] = tx_piece(t, s, 0, cut[0]);
    three.seq->items[1] = tx_piece(t, s, cut[0], cut[1]);
    three.seq->items[2] = tx_piece(t, s, cut[1], s->n);
    return three;
}

static tval str_partition(tm_core *t, const tm_call *c) {
    return partition(t, c, false);
}

static tval str_rpartition(tm_core *t, const tm_call *c) {
    return partition(t, c, true);
}

/* ---- Searching and replacing ---- */

static int64_t find_at(tm_core *t, const tm_call *c, bool last) {
    tv_str *s = c->self.str;
    const tv_str *needle = want_text(t, c, 0);
    size_t from, to;
    if (!search_range(t, c, 1, s, &from, &to)) {
        return -1;
    }
    size_t at = (last ? tx_find_last : tx_find)(t, s, from, to, needle);
    if (at == SIZE_MAX) {
        return -1;
    }
    tv_str before = {.data = s->data, .n = at, .n_chars = TV_UNCOUNTED};
    return (int64_t)tv_n_chars(&before);
}

static tval str_find(tm_core *t, const tm_call *c) {
    return tv_int(find_at(t, c, false));
}

static tval str_rfind(tm_core *t, const tm_call *c) {
    return tv_int(find_at(t, c, true));
}

static tval found_or_fail(tm_core *t, int64_t at) {
    if (at < 0) {
        tm_fail(t, "substring not found");
    }
    return tv_int(at);
}

static tval str_index(tm_core *t, const tm_call *c) {
    return found_or_fail(t, find_at(t, c, false));
}

static tval str_rindex(tm_core *t, const tm_call *c) {
    return found_or_fail(t, find_at(t, c, true));
}

static tval str_count(tm_core *t, const tm_call *c) {
    tv_str *s = c->self.str;
    const tv_str *needle = want_text(t, c, 0);
    size_t from, to;
    int64_t n = 0;
    if (!search_range(t, c, 1, s, &from, &to)) {
        return tv_int(0);
    }
    if (needle->n == 0) {
        tv_str part = {.data = s->data + from, .n = to - from, .n_chars = TV_UNCOUNTED};
        return tv_int((int64_t)tv_n_chars(&part) + 1);
    }
    for (size_t at = from; (at = tx_find(t, s, at, to, needle)) != SIZE_MAX; at += needle->n) {
        n++;
    }
    return tv_int(n);
}

static tval str_replace(tm_core *t, const tm_call *c) {
    tv_str *s = c->self.str, *old = want_text(t, c, 0);
    const tv_str *new = escaped_like(t, s, want_text(t, c, 1));
    return tx_replace(t, s, old, new, optional_int(t, c, 2, -1));
}

/* ---- Making ---- */

static tval str_join(tm_core *t, const tm_call *c) {
    if (!tv_iterable(c->arg[0])) {
        tm_fail(t, "can only join an iterable");
    }
    return tx_join(t, c->self.str, c->arg[0], false);
}

static tval pad_with(tm_core *t, const tm_call *c, tx_align align) {
    const tv_str *fill = tv_literal(t, " ").str;
    int64_t width = tv_to_index(t, c->arg[0], false);
    if (given(c->arg[1])) {
        if (c->arg[1].type != TV_STR || tv_n_chars(c->arg[1].str) != 1) {
            tm_fail(t, "The fill character must be exactly one character long");
        }
        fill = escaped_like(t, c->self.str, c->arg[1].str);
        if (tv_n_chars(escaped_like(t, c->self.str, c->arg[1].str)) != 1) {
            tm_fail(t, "The fill character must be exactly one character long");
        }
    }
    return tx_pad(t, c->self.str, width, fill, align);
}

static tval str_center(tm_core *t, const tm_call *c) {
    return pad_with(t, c, TX_ALIGN_CENTER);
}

static tval str_ljust(tm_core *t, const tm_call *c) {
    return pad_with(t, c, TX_ALIGN_LEFT);
}

static tval str_rjust(tm_core *t, const tm_call *c) {
    return pad_with(t, c, TX_ALIGN_RIGHT);
}

static tval str_zfill(tm_core *t, const tm_call *c) {
    tv_str *s = c->self.str;
    const tv_str *zero = tv_literal(t, "0").str;
    int64_t width = tv_to_index(t, c->arg[0], false);
    bool sign = s->n > 0 && (s->data[0] == '-' || s->data[0] == '+');
    if (!sign) {
        return tx_pad(t, s, width, zero, TX_ALIGN_RIGHT);
    }
    tval rest =
        tx_pad(t, tx_piece(t, s, 1, s->n).str, width > 0 ? width - 1 : 0, zero, TX_ALIGN_RIGHT);
    tval all = tv_concat(t, tx_piece(t, s, 0, 1), rest);
    all.str->markup = s->markup;
    return all;
}

static tval str_expandtabs(tm_core *t, const tm_call *c) {
    const tv_str *s = c->self.str;
    int64_t size = optional_int(t, c, 0, 8);
    tm_text b = tm_text_start(t);
    size_t column = 0;
    for (size_t at = 0; at < s->n;) {
        size_t start = at;
        uint32_t code = py_char_next(s->data, s->n, &at);
        tm_step(t, 1);
        if (code == '\t') {
            size_t blanks = size > 0 ? (size_t)size - column % (size_t)size : 0;
            tm_text_fill(&b, ' ', blanks);
            column += blanks;
        } else {
            tm_text_put(&b, s->data + start, at - start);
            column = code == '\n' || code == '\r' ? 0 : column + 1;
        }
    }
    tval v = tm_text_end(&b);
    v.str->markup = s->markup;
    return v;
}

static tval str_format(tm_core *t, const tm_call *c) {
    return tm_format_braces(t, c->self, c->given);
}

static tval str_format_map(tm_core *t, const tm_call *c) {
    return tm_format_map(t, c->self, c->arg[0]);
}

/* Markup's own. */
static tval str_striptags(tm_core *t, const tm_call *c) {
    return tm_striptags(t, c->self);
}

static tval str_unsupported(tm_core *t, const tm_call *c) {
    tm_fail(t, "str.%s() is not supported in templates", c->builtin->name);
}

const tm_builtin tm_str_methods[] = {
    {"split", str_split, "sep maxsplit", 0},
    {"strip", str_strip, "/ chars", 0},
    {"lstrip", str_lstrip, "/ chars", 0},
    {"rstrip", str_rstrip, "/ chars", 0},
    {"startswith", str_startswith, "/ prefix start end", 1},
    {"endswith", str_endswith, "/ suffix start end", 1},
    {"replace", str_replace, "/ old new count", 2},
    {"upper", str_upper, "/", 0},
    {"lower", str_lower, "/", 0},
    {"title", str_title, "/", 0},
    {"capitalize", str_capitalize, "/", 0},
    {"swapcase", str_swapcase, "/", 0},
    {"casefold", str_casefold, "/", 0},
    {"join", str_join, "/ iterable", 1},
    {"find", str_find, "/ sub start end", 1},
    {"rfind", str_rfind, "/ sub start end", 1},
    {"index", str_index, "/ sub start end", 1},
    {"rindex", str_rindex, "/ sub start end", 1},
    {"count", str_count, "/ sub start end", 1},
    {"rsplit", str_rsplit, "sep maxsplit", 0},
    {"splitlines", str_splitlines, "keepends", 0},
    {"partition", str_partition, "/ sep", 1},
    {"rpartition", str_rpartition, "/ sep", 1},
    {"removeprefix", str_removeprefix, "/ prefix", 1},
    {"removesuffix", str_removesuffix, "/ suffix", 1},
    {"format", str_format, "*", 0},
    {"format_map", str_format_map, "/ mapping", 1},
    {"center", str_center, "/ width fillchar", 1},
    {"ljust", str_ljust, "/ width fillchar", 1},
    {"rjust", str_rjust, "/ width fillchar", 1},
    {"zfill", str_zfill, "/ width", 1},
    {"expandtabs", str_expandtabs, "tabsize", 0},
    {"isalpha", str_isalpha, "/", 0},
    {"isdigit", str_isdigit, "/", 0},
    {"isdecimal", str_isdecimal, "/", 0},
    {"isnumeric", str_isnumeric, "/", 0},
    {"isalnum", str_isalnum, "/", 0},
    {"isspace", str_isspace, "/", 0},
    {"isprintable", str_isprintable, "/", 0},
    {"isascii", str_isascii, "/", 0},
    {"isidentifier", str_isidentifier, "/", 0},
    {"islower", str_islower, "/", 0},
    {"isupper", str_isupper, "/", 0},
    {"istitle", str_istitle, "/", 0},
    {"encode", str_unsupported, "*", 0},
    {"translate", str_unsupported, "*", 0},
    {"maketrans", str_unsupported, "*", 0},
};
const size_t tm_n_str_methods = sizeof tm_str_methods / sizeof *tm_str_methods;

const tm_builtin tm_markup_methods[] = {
    {"striptags", str_striptags, "/", 0},
    {"unescape", str_unsupported, "*", 0},
    {"escape", str_unsupported, "*", 0},
};
const size_t tm_n_markup_methods = sizeof tm_markup_methods / sizeof *tm_markup_methods;
