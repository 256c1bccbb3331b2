/* gr_gbnf.c - reading llama.cpp's grammar format.
 *
 *     name ::= alternatives       | between them       # comment
 *     "text" [class] [^class] . name ( alternatives ) <token>    then * + ? {m} {m,} {m,n} {,n}
 *
 * A line's end ends a rule, except within parentheses and after |. Escapes: \n \r \t \\ \" \[ \] \-
 * \xHH \uHHHH \UHHHHHHHH. A token in angle brackets is a special token by its text; llama.cpp's
 * tokens by number, and all but a token, depend on the vocabulary and are refused. */
#include "base/strmap.h"
#include "base/utf8.h"
#include "grammar/gr_expr.h"
#include "grammar/grammar_impl.h"

#include <string.h>

#define MAX_DEPTH 200
#define MAX_REPEAT 1000000u

typedef struct named {
    const char *name;
    size_t n;
    uint32_t rule;
    uint32_t body; /* expression */
    bool defined;
    int line; /* where it is first used */
} named;

typedef struct reader {
    gr_auto *a;
    gr_pool pool;
    const char *text;
    size_t at, n;
    int line, depth;
    strmap names;
    named *rules;
    size_t n_rules, capacity;
    gr_ref root;
} reader;

static jang_status bad(reader *r, jang_status status, const char *why) {
    return ctx_fail(r->a->ctx, status, "grammar: line %d: %s", r->line, why);
}

static int peek(const reader *r) {
    return r->at < r->n ? (unsigned char)r->text[r->at] : -1;
}

static bool take(reader *r, char c) {
    bool there = peek(r) == (unsigned char)c;
    r->at += there;
    return there;
}

/* Skips spaces and comments, and line ends where they mean nothing. */
static void skip(reader *r, bool lines) {
    for (;;) {
        int c = peek(r);
        if (c == '#') {
            while (peek(r) != -1 && peek(r) != '\n') {
                r->at++;
            }
        } else if (c == ' ' || c == '\t' || c == '\r' || (c == '\n' && lines)) {
            r->line += c == '\n';
            r->at++;
        } else {
            return;
        }
    }
}

static bool is_name(int c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

static size_t name_length(const reader *r) {
    size_t i = r->at;
    while (i < r->n && is_name((unsigned char)r->text[i])) {
        i++;
    }
    return i - r->at;
}

/* The rule of a name, made when it is met first. */
static jang_status rule_named(reader *r, const char *name, size_t n, size_t *index) {
    int32_t at = strmap_get(&r->names, name, n);
    if (at < 0) {
        jang_status status =
            gr_grow(r->a->ctx, &r->rules, &r->capacity, r->n_rules, sizeof *r->rules);
        if (status == JANG_OK) {
            status = strmap_put(&r->names, name, n, (int32_t)r->n_rules, NULL);
        }
        if (status != JANG_OK) {
            return status;
        }
        at = (int32_t)r->n_rules;
        r->rules[r->n_rules++] = (named){name, n, gr_rule_new(r->a), 0, false, r->line};
    }
    *index = (size_t)at;
    return r->a->status;
}

/* ---- Characters ---- */

static jang_status read_hex(reader *r, size_t n, uint32_t *c) {
    uint32_t value = 0;
    for (size_t i = 0; i < n; i++, r->at++) {
        int d = peek(r);
        int digit = d >= '0' && d <= '9'   ? d - '0'
                    : d >= 'a' && d <= 'f' ? d - 'a' + 10
                    : d >= 'A' && d <= 'F' ? d - 'A' + 10
                                           : -1;
        if (digit < 0) {
            return bad(r, JANG_ERR_FORMAT, "a bad hexadecimal escape");
        }
        value = value << 4 | (uint32_t)digit;
    }
    if (value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) {
        return bad(r, JANG_ERR_FORMAT, "an escape that is no character");
    }
    *c = value;
    return JANG_OK;
}

static jang_status read_char(reader *r, uint32_t *c) {
    if (peek(r) == '\n') {
        r->line++;
    }
    if (!take(r, '\\')) {
        size_t n;
        *c = utf8_read(r->text + r->at, &n);
        r->at += n;
        return JANG_OK;
    }
    static const char names[] = "nrt\\\"[]-^'/", values[] = "\n\r\t\\\"[]-^'/";
    int name = peek(r);
    const char *at = name > 0 ? strchr(names, name) : NULL;
    r->at += name >= 0;
    if (at) {
        *c = (unsigned char)values[at - names];
        return JANG_OK;
    }
    switch (name) {
    case 'x':
        return read_hex(r, 2, c);
    case 'u':
        return read_hex(r, 4, c);
    case 'U':
        return read_hex(r, 8, c);
    default:
        return bad(r, JANG_ERR_FORMAT,
                   "an escape other than \\n \\r \\t \\\\ \\\" \\[ \\] \\- \\x \\u \\U");
    }
}

static jang_status read_literal(reader *r, uint32_t *out) {
    *out = 1;
    while (!take(r, '"')) {
        uint32_t c;
        if (peek(r) < 0) {
            return bad(r, JANG_ERR_FORMAT, "a text without its closing \"");
        }
        jang_status status = read_char(r, &c);
        if (status != JANG_OK) {
            return status;
        }
        *out = gr_expr_cat(&r->pool, *out, gr_expr_char(&r->pool, c));
    }
    return r->pool.status;
}

static jang_status read_class_items(reader *r, gr_set *set) {
    while (!take(r, ']')) {
        uint32_t lo, hi;
        if (peek(r) < 0) {
            return bad(r, JANG_ERR_FORMAT, "[ without ]");
        }
        jang_status status = read_char(r, &lo);
        hi = lo;
        if (status == JANG_OK && peek(r) == '-' && r->at + 1 < r->n && r->text[r->at + 1] != ']') {
            r->at++;
            status = read_char(r, &hi);
        }
        if (status != JANG_OK) {
            return status;
        }
        if (hi < lo) {
            return bad(r, JANG_ERR_FORMAT, "a range that goes backwards");
        }
        gr_set_add(set, lo, hi);
    }
    return JANG_OK;
}

static jang_status read_class(reader *r, uint32_t *out) {
    gr_set set;
    gr_set_init(&set, r->a->ctx);
    bool inverted = take(r, '^');
    jang_status status = read_class_items(r, &set);
    if (status != JANG_OK) {
        gr_set_free(&set);
        return status;
    }
    *out = gr_expr_set(&r->pool, &set, inverted);
    return r->pool.status;
}

static jang_status read_token(reader *r, uint32_t *out) {
    size_t start = r->at - 1;
    if (peek(r) == '[') {
        return bad(r, JANG_ERR_UNSUPPORTED, "tokens by number (<[id]>); name the token: <text>");
    }
    while (peek(r) != '>') {
        if (peek(r) < 0 || peek(r) == '\n') {
            return bad(r, JANG_ERR_FORMAT, "< without >");
        }
        r->at++;
    }
    r->at++;
    size_t at = r->pool.names.size, n = r->at - start;
    buf_put(&r->pool.names, r->text + start, n);
    *out = gr_expr_new(&r->pool, (gr_expr){GR_EXPR_MARK, (uint32_t)at, (uint32_t)n, 0, 0});
    return buf_status(&r->pool.names) == JANG_OK ? r->pool.status : JANG_ERR_MEMORY;
}

/* ---- Rules ---- */

static jang_status read_alternatives(reader *r, uint32_t *out);

static jang_status read_group(reader *r, uint32_t *out) {
    if (++r->depth > MAX_DEPTH) {
        return bad(r, JANG_ERR_UNSUPPORTED, "groups nested over 200 deep");
    }
    skip(r, true);
    jang_status status = read_alternatives(r, out);
    r->depth--;
    if (status == JANG_OK && !take(r, ')')) {
        return bad(r, JANG_ERR_FORMAT, "( without )");
    }
    return status;
}

static jang_status read_name(reader *r, uint32_t *out) {
    size_t n = name_length(r), index;
    jang_status status = rule_named(r, r->text + r->at, n, &index);
    r->at += n;
    if (status == JANG_OK) {
        *out = gr_expr_new(&r->pool, (gr_expr){GR_EXPR_RULE, r->rules[index].rule, 0, 0, 0});
        status = r->pool.status;
    }
    return status;
}

static jang_status read_atom(reader *r, uint32_t *out) {
    if (take(r, '"')) {
        return read_literal(r, out);
    }
    if (take(r, '[')) {
        return read_class(r, out);
    }
    if (take(r, '(')) {
        return read_group(r, out);
    }
    if (take(r, '<')) {
        return read_token(r, out);
    }
    if (take(r, '.')) {
        *out = gr_expr_any(&r->pool);
        return r->pool.status;
    }
    if (peek(r) == '!') {
        return bad(r, JANG_ERR_UNSUPPORTED, "all but a token (!<...>)");
    }
    return is_name(peek(r)) ? read_name(r, out)
                            : bad(r, JANG_ERR_FORMAT, "a text, class, group or name is missing");
}

static bool read_number(reader *r, uint32_t *out) {
    size_t start = r->at;
    *out = 0;
    while (peek(r) >= '0' && peek(r) <= '9') {
        *out = *out > MAX_REPEAT ? *out : *out * 10 + (uint32_t)(peek(r) - '0');
        r->at++;
    }
    return r->at > start;
}

static jang_status read_bounds(reader *r, uint32_t *min, uint32_t *max) {
    skip(r, true);
    bool low = read_number(r, min), high = false;
    *max = *min;
    skip(r, true);
    if (take(r, ',')) {
        skip(r, true);
        high = read_number(r, max);
        *max = high ? *max : GR_INF;
        skip(r, true);
    }
    if (!(low || high) || !take(r, '}')) {
        return bad(r, JANG_ERR_FORMAT, "repetitions are {m}, {m,}, {m,n} or {,n}");
    }
    if (*min > *max || *min > MAX_REPEAT || (*max > MAX_REPEAT && *max != GR_INF)) {
        return bad(r, JANG_ERR_FORMAT, "a repetition out of order or over 1000000");
    }
    return JANG_OK;
}

static jang_status read_term(reader *r, uint32_t *out) {
    jang_status status = read_atom(r, out);
    for (int n = 0; status == JANG_OK; n++) {
        skip(r, r->depth > 0);
        uint32_t min = 0, max = GR_INF;
        if (take(r, '+')) {
            min = 1;
        } else if (take(r, '?')) {
            max = 1;
        } else if (take(r, '{')) {
            status = read_bounds(r, &min, &max);
        } else if (!take(r, '*')) {
            break;
        }
        if (status == JANG_OK && n > 8) {
            status = bad(r, JANG_ERR_UNSUPPORTED, "repetitions of repetitions over 8 deep");
        }
        if (status == JANG_OK) {
            *out = gr_expr_repeat(&r->pool, *out, min, max);
            status = r->pool.status;
        }
    }
    return status;
}

static jang_status read_alternatives(reader *r, uint32_t *out) {
    uint32_t all = 0, branch = 1;
    for (;;) {
        skip(r, r->depth > 0);
        int c = peek(r);
        if (c == '|' || c == ')' || c == '\n' || c < 0) {
            all = gr_expr_alt(&r->pool, all, branch);
            branch = 1;
            if (c != '|') {
                break;
            }
            r->at++;
            skip(r, true);
            continue;
        }
        uint32_t term = 0;
        jang_status status = read_term(r, &term);
        if (status != JANG_OK) {
            return status;
        }
        branch = gr_expr_cat(&r->pool, branch, term);
    }
    *out = all;
    return r->pool.status;
}

static jang_status read_rule(reader *r) {
    size_t n = name_length(r), index;
    if (n == 0) {
        return bad(r, JANG_ERR_FORMAT, "a rule begins with its name");
    }
    jang_status status = rule_named(r, r->text + r->at, n, &index);
    if (status != JANG_OK) {
        return status;
    }
    r->at += n;
    skip(r, false);
    if (r->n - r->at < 3 || memcmp(r->text + r->at, "::=", 3) != 0) {
        return bad(r, JANG_ERR_FORMAT, "::= is missing after the name of a rule");
    }
    if (r->rules[index].defined) {
        return bad(r, JANG_ERR_FORMAT, "a rule that is there already");
    }
    r->at += 3;
    skip(r, true);
    uint32_t body = 0;
    status = read_alternatives(r, &body);
    if (status == JANG_OK && peek(r) != '\n' && peek(r) >= 0) {
        status = bad(r, JANG_ERR_FORMAT, "a rule ends with its line");
    }
    r->rules[index].defined = true;
    r->rules[index].body = body;
    return status;
}

static jang_status emit_rules(reader *r) {
    uint32_t end = gr_final(r->a);
    for (size_t i = 0; i < r->n_rules; i++) {
        named *x = &r->rules[i];
        if (!x->defined) {
            r->line = x->line;
            return ctx_fail(r->a->ctx, JANG_ERR_FORMAT, "grammar: line %d: no rule %.*s", x->line,
                            (int)(x->n < 100 ? x->n : 100), x->name);
        }
        gr_rule_set(r->a, x->rule, gr_expr_emit(r->a, &r->pool, x->body, GR_SPELL_UTF8, end));
    }
    return r->a->status;
}

static const char *name_of(const void *user, uint32_t rule, size_t *n_bytes) {
    const reader *r = user;
    for (size_t i = 0; i < r->n_rules; i++) {
        if (r->rules[i].rule == rule) {
            *n_bytes = r->rules[i].n;
            return r->rules[i].name;
        }
    }
    return NULL;
}

static jang_status read_all(reader *r) {
    if (utf8_valid_prefix(r->text, r->n) != r->n) {
        return bad(r, JANG_ERR_FORMAT, "the text is not UTF-8");
    }
    for (skip(r, true); r->at < r->n; skip(r, true)) {
        jang_status status = read_rule(r);
        if (status != JANG_OK) {
            return status;
        }
    }
    int32_t root = strmap_get(&r->names, "root", 4);
    if (root < 0 || !r->rules[root].defined) {
        return ctx_fail(r->a->ctx, JANG_ERR_FORMAT, "grammar: no rule root");
    }
    r->root = (gr_ref){r->rules[root].rule, 0, GR_INF};
    return emit_rules(r);
}

/* out NULL: the text is the whole grammar. */
static jang_status compile(gr_auto *a, gr_ref *out, const char *text, size_t n) {
    reader r = {.a = a, .text = text, .n = n, .line = 1};
    strmap_init(&r.names, a->ctx);
    jang_status status = gr_pool_init(&r.pool, a->ctx);
    if (status == JANG_OK) {
        status = read_all(&r);
    }
    if (status == JANG_OK && out) {
        *out = r.root;
    } else if (status == JANG_OK) {
        a->root = r.root;
        status = gr_check_rules(a, name_of, &r, "grammar");
    }
    strmap_free(&r.names);
    gr_pool_free(&r.pool);
    ctx_free(a->ctx, r.rules);
    return status;
}

jang_status gr_compile_gbnf(gr_auto *a, const char *text, size_t n) {
    return compile(a, NULL, text, n);
}

jang_status gr_gbnf_rules(gr_auto *a, gr_ref *out, const char *text, size_t n) {
    return compile(a, out, text, n);
}
