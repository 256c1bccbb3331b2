/* gr_regex.c - reading regular expressions. */
#include "base/utf8.h"
#include "grammar/gr_expr.h"

#include <string.h>

#define MAX_DEPTH 200
#define MAX_REPEAT 1000000u

typedef struct reader {
    gr_pool *p;
    const char *what, *text;
    size_t at, n;
    int depth;
} reader;

static jang_status bad(reader *r, jang_status status, const char *why) {
    return ctx_fail(r->p->ctx, status, "%s: %s at byte %zu of the regular expression", r->what, why,
                    r->at);
}

static bool looking_at(const reader *r, const char *s) {
    size_t n = strlen(s);
    return r->n - r->at >= n && memcmp(r->text + r->at, s, n) == 0;
}

static bool take(reader *r, const char *s) {
    bool there = looking_at(r, s);
    r->at += there ? strlen(s) : 0;
    return there;
}

static uint32_t next_char(reader *r) {
    size_t n;
    uint32_t c = utf8_read(r->text + r->at, &n);
    r->at += n;
    return c;
}

/* ---- Escapes ---- */

static void add_space(gr_set *set) {
    static const gr_span spans[] = {
        {9, 13},          {0x20, 0x20},     {0xa0, 0xa0},     {0x1680, 0x1680}, {0x2000, 0x200a},
        {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}, {0xfeff, 0xfeff}};
    for (size_t i = 0; i < sizeof spans / sizeof *spans; i++) {
        gr_set_add(set, spans[i].first, spans[i].last);
    }
}

static void add_word(gr_set *set) {
    gr_set_add(set, '0', '9');
    gr_set_add(set, 'A', 'Z');
    gr_set_add(set, '_', '_');
    gr_set_add(set, 'a', 'z');
}

/* \d \w \s and their opposites; false if c is none of them. */
static bool add_class(gr_set *set, char c) {
    gr_set part;
    gr_set_init(&part, set->ctx);
    switch (c | 0x20) {
    case 'd':
        gr_set_add(&part, '0', '9');
        break;
    case 'w':
        add_word(&part);
        break;
    case 's':
        add_space(&part);
        break;
    default:
        return false;
    }
    gr_set_finish(&part);
    if (!(c & 0x20)) {
        gr_set_invert(&part);
    }
    gr_set_add_all(set, &part);
    set->status = set->status != JANG_OK ? set->status : part.status;
    gr_set_free(&part);
    return true;
}

static jang_status read_property(reader *r, gr_set *set, bool inverted) {
    const char *start = r->text + r->at + 1;
    const char *end = looking_at(r, "{") ? memchr(start, '}', r->n - r->at - 1) : NULL;
    if (!end) {
        return bad(r, JANG_ERR_FORMAT, "\\p without {name}");
    }
    gr_set part;
    gr_set_init(&part, set->ctx);
    bool known = gr_set_add_category(&part, start, (size_t)(end - start));
    gr_set_finish(&part);
    if (inverted) {
        gr_set_invert(&part);
    }
    gr_set_add_all(set, &part);
    set->status = set->status != JANG_OK ? set->status : part.status;
    gr_set_free(&part);
    if (!known) {
        return bad(r, JANG_ERR_UNSUPPORTED, "a property other than a general category");
    }
    r->at = (size_t)(end - r->text) + 1;
    return JANG_OK;
}

static jang_status read_hex(reader *r, uint32_t *c, size_t least, size_t most) {
    uint32_t value = 0;
    size_t n = 0;
    for (; n < most && r->at < r->n; n++, r->at++) {
        const char *digits = "0123456789abcdef", *at;
        char d = r->text[r->at];
        d = (char)(d >= 'A' && d <= 'F' ? d | 0x20 : d);
        at = d ? strchr(digits, d) : NULL;
        if (!at) {
            break;
        }
        value = value * 16 + (uint32_t)(at - digits);
    }
    if (n < least || value > 0x10ffff) {
        return bad(r, JANG_ERR_FORMAT, "a bad hexadecimal escape");
    }
    *c = value;
    return JANG_OK;
}

static jang_status read_unicode(reader *r, uint32_t *c) {
    if (take(r, "{")) {
        jang_status status = read_hex(r, c, 1, 6);
        return status == JANG_OK && !take(r, "}") ? bad(r, JANG_ERR_FORMAT, "\\u{ without }")
                                                  : status;
    }
    jang_status status = read_hex(r, c, 4, 4);
    size_t before = r->at;
    if (status == JANG_OK && *c >= 0xd800 && *c < 0xdc00 && take(r, "\\u")) {
        uint32_t low;
        status = read_hex(r, &low, 4, 4);
        if (status == JANG_OK && low >= 0xdc00 && low < 0xe000) {
            *c = 0x10000 + ((*c - 0xd800) << 10) + (low - 0xdc00);
        } else {
            r->at = before;
        }
    }
    return status;
}

/* The letter of \cX: ECMAScript takes A to Z and a to z, nothing else. */
static jang_status read_control(reader *r, uint32_t *c) {
    unsigned char letter = r->at < r->n ? (unsigned char)r->text[r->at] : 0;
    if ((letter | 0x20) < 'a' || (letter | 0x20) > 'z') {
        return bad(r, JANG_ERR_FORMAT, "\\c without a letter after it");
    }
    r->at++;
    *c = letter & 0x1f;
    return JANG_OK;
}

/* What follows a backslash, where it is one character. */
static jang_status read_escape(reader *r, uint32_t *c) {
    static const char names[] = "nrtfv0ae", values[] = "\n\r\t\f\v\0\a\x1b";
    if (r->at >= r->n) {
        return bad(r, JANG_ERR_FORMAT, "a backslash at the end");
    }
    const char *name = memchr(names, r->text[r->at], sizeof names - 1);
    if (name) {
        *c = (unsigned char)values[name - names];
        r->at++;
        return JANG_OK;
    }
    if (take(r, "x")) {
        return read_hex(r, c, 2, 2);
    }
    if (take(r, "u")) {
        return read_unicode(r, c);
    }
    if (take(r, "c")) {
        return read_control(r, c);
    }
    *c = next_char(r);
    if ((*c >= '1' && *c <= '9') || *c == 'k') {
        return bad(r, JANG_ERR_UNSUPPORTED, "a back reference");
    }
    if ((*c >= 'A' && *c <= 'Z') || (*c >= 'a' && *c <= 'z')) {
        return bad(r, JANG_ERR_UNSUPPORTED, "an escape that is not supported");
    }
    return JANG_OK;
}

/* One escape into a set: a class, a property or a character, which is then *c, otherwise none. */
static jang_status escape_to_set(reader *r, gr_set *set, uint32_t *c) {
    *c = UINT32_MAX;
    if (r->at < r->n && add_class(set, r->text[r->at])) {
        r->at++;
        return JANG_OK;
    }
    bool upper = looking_at(r, "P");
    if (take(r, "p") || take(r, "P")) {
        return read_property(r, set, upper);
    }
    return read_escape(r, c);
}

/* ---- Classes ---- */

static jang_status class_item(reader *r, gr_set *set, uint32_t *c) {
    if (!take(r, "\\")) {
        *c = next_char(r);
        return JANG_OK;
    }
    if (take(r, "b")) {
        *c = '\b';
        return JANG_OK;
    }
    return escape_to_set(r, set, c);
}

static jang_status read_class_items(reader *r, gr_set *set) {
    bool first = true;
    while (first || !take(r, "]")) {
        first = false;
        if (r->at >= r->n) {
            return bad(r, JANG_ERR_FORMAT, "[ without ]");
        }
        uint32_t lo, hi;
        jang_status status = class_item(r, set, &lo);
        if (status != JANG_OK) {
            return status;
        }
        hi = lo;
        if (lo != UINT32_MAX && looking_at(r, "-") && r->at + 1 < r->n &&
            r->text[r->at + 1] != ']') {
            r->at++;
            status = class_item(r, set, &hi);
            if (status != JANG_OK) {
                return status;
            }
            if (hi == UINT32_MAX || hi < lo) {
                return bad(r, JANG_ERR_FORMAT, "a range that goes backwards");
            }
        }
        if (lo != UINT32_MAX) {
            gr_set_add(set, lo, hi);
        }
    }
    return JANG_OK;
}

static jang_status read_class(reader *r, uint32_t *out) {
    gr_set set;
    gr_set_init(&set, r->p->ctx);
    bool inverted = take(r, "^");
    jang_status status = read_class_items(r, &set);
    if (status != JANG_OK) {
        gr_set_free(&set);
        return status;
    }
    *out = gr_expr_set(r->p, &set, inverted);
    return r->p->status;
}

/* ---- Terms ---- */

static jang_status read_alternatives(reader *r, uint32_t *out);

static jang_status read_group(reader *r, uint32_t *out) {
    static const char *const refused[] = {"?=", "?!", "?<=", "?<!", "?>", "?(", "?|", "?P=", "?R"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        if (looking_at(r, refused[i])) {
            return bad(r, JANG_ERR_UNSUPPORTED, "look-around or another group that is no language");
        }
    }
    if (take(r, "?P<") || take(r, "?<")) {
        while (r->at < r->n && r->text[r->at] != '>') {
            r->at++;
        }
        r->at += r->at < r->n;
    } else if (take(r, "?")) {
        if (!take(r, ":")) {
            return bad(r, JANG_ERR_UNSUPPORTED, "inline flags");
        }
    }
    if (++r->depth > MAX_DEPTH) {
        return bad(r, JANG_ERR_UNSUPPORTED, "groups nested over 200 deep");
    }
    jang_status status = read_alternatives(r, out);
    r->depth--;
    if (status == JANG_OK && !take(r, ")")) {
        return bad(r, JANG_ERR_FORMAT, "( without )");
    }
    return status;
}

static jang_status read_dot(reader *r, uint32_t *out) {
    gr_set set;
    gr_set_init(&set, r->p->ctx);
    gr_set_add(&set, '\n', '\n');
    gr_set_add(&set, '\r', '\r');
    gr_set_add(&set, 0x2028, 0x2029);
    *out = gr_expr_set(r->p, &set, true);
    return r->p->status;
}

static jang_status read_backslash(reader *r, uint32_t *out) {
    static const char *const edges[] = {"b", "B", "A", "z", "Z", "G"};
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++) {
        if (looking_at(r, edges[i])) {
            return bad(r, JANG_ERR_UNSUPPORTED, "an assertion (\\b and its like)");
        }
    }
    gr_set set;
    gr_set_init(&set, r->p->ctx);
    uint32_t c;
    jang_status status = escape_to_set(r, &set, &c);
    if (status != JANG_OK) {
        gr_set_free(&set);
        return status;
    }
    if (c != UINT32_MAX) {
        gr_set_add(&set, c, c);
    }
    *out = gr_expr_set(r->p, &set, false);
    return r->p->status;
}

static jang_status read_atom(reader *r, uint32_t *out) {
    if (take(r, "(")) {
        return read_group(r, out);
    }
    if (take(r, "[")) {
        return read_class(r, out);
    }
    if (take(r, "\\")) {
        return read_backslash(r, out);
    }
    if (take(r, ".")) {
        return read_dot(r, out);
    }
    if (take(r, "^")) {
        *out = gr_expr_new(r->p, (gr_expr){GR_EXPR_BEGIN, 0, 0, 0, 0});
        return r->p->status;
    }
    if (take(r, "$")) {
        *out = gr_expr_new(r->p, (gr_expr){GR_EXPR_END, 0, 0, 0, 0});
        return r->p->status;
    }
    if (strchr("*+?", r->text[r->at]) && r->text[r->at]) {
        return bad(r, JANG_ERR_FORMAT, "nothing to repeat");
    }
    *out = gr_expr_char(r->p, next_char(r));
    return r->p->status;
}

static bool read_number(reader *r, uint32_t *out) {
    size_t start = r->at;
    uint32_t value = 0;
    while (r->at < r->n && r->text[r->at] >= '0' && r->text[r->at] <= '9') {
        value = value > MAX_REPEAT ? value : value * 10 + (uint32_t)(r->text[r->at] - '0');
        r->at++;
    }
    *out = value;
    return r->at > start;
}

/* {m}, {m,}, {m,n} or {,n}; anything else after { is plain text, as elsewhere. */
static bool read_braces(reader *r, uint32_t *min, uint32_t *max) {
    size_t before = r->at;
    if (!take(r, "{")) {
        return false;
    }
    bool low = read_number(r, min), good = low;
    *max = *min;
    if (take(r, ",")) {
        bool high = read_number(r, max);
        *max = high ? *max : GR_INF;
        good = low || high;
    }
    if (!good || !take(r, "}")) {
        r->at = before;
        return false;
    }
    return true;
}

static jang_status read_term(reader *r, uint32_t *out) {
    jang_status status = read_atom(r, out);
    int stacked = 0;
    while (status == JANG_OK) {
        uint32_t min = 0, max = GR_INF;
        if (take(r, "+")) {
            min = 1;
        } else if (take(r, "?")) {
            max = 1;
        } else if (!take(r, "*") && !read_braces(r, &min, &max)) {
            break;
        }
        if (min > max || min > MAX_REPEAT || (max > MAX_REPEAT && max != GR_INF)) {
            return bad(r, JANG_ERR_FORMAT, "a repetition out of order or over 1000000");
        }
        if (stacked++ > 3 || looking_at(r, "+")) {
            return bad(r, JANG_ERR_UNSUPPORTED, "quantifiers of quantifiers");
        }
        take(r, "?"); /* lazy: the same texts match */
        *out = gr_expr_repeat(r->p, *out, min, max);
        status = r->p->status;
    }
    return status;
}

static jang_status read_alternatives(reader *r, uint32_t *out) {
    uint32_t all = 0, first = 1, rest = 1; /* the first term apart: anchors are found at once */
    for (;;) {
        if (r->at >= r->n || looking_at(r, ")") || looking_at(r, "|")) {
            all = gr_expr_alt(r->p, all, gr_expr_cat(r->p, first, rest));
            first = rest = 1;
            if (!take(r, "|")) {
                break;
            }
            continue;
        }
        uint32_t term = 0;
        jang_status status = read_term(r, &term);
        if (status != JANG_OK) {
            return status;
        }
        if (first == 1) {
            first = term;
        } else {
            rest = gr_expr_cat(r->p, rest, term);
        }
    }
    *out = all;
    return r->p->status;
}

jang_status gr_regex(uint32_t *out, gr_pool *p, const char *what, const char *text, size_t n) {
    reader r = {p, what, text, 0, n, 0};
    if (utf8_valid_prefix(text, n) != n) {
        return ctx_fail(p->ctx, JANG_ERR_FORMAT, "%s: the regular expression is not UTF-8", what);
    }
    uint32_t e = 0;
    jang_status status = read_alternatives(&r, &e);
    if (status == JANG_OK && r.at < n) {
        status = bad(&r, JANG_ERR_FORMAT, ") without (");
    }
    if (status == JANG_OK) {
        *out = e;
    }
    return status;
}
