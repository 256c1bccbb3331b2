/* tmpl_lex.c - the text of a template as tokens.
 *
 * Follows jinja2's lexer with trim_blocks and lstrip_blocks: the line feed after a block's end
 * goes, and so does blank space between the line's start and a block or comment; '-' at either end
 * takes all blank space there, '+' keeps it. Within tags, an end tag is looked for only while no
 * bracket is open. */
#include "template/tmpl_lex.h"

#include "template/pyfloat.h"
#include "template/pyunicode.h"
#include "template/tmpl_big.h"

#include <stdio.h>
#include <string.h>

typedef struct lexer {
    tm_core *t;
    const char *s;
    size_t n, at;
    tk_list *out;
    bool line_starting; /* the last token ended a line */
    char *open;         /* closing brackets that are awaited */
    size_t n_open, open_capacity;
} lexer;

static void emit(lexer *lx, tk_type type, size_t at, tval value) {
    tk_list *out = lx->out;
    if (out->n == out->capacity) {
        size_t capacity = out->capacity ? out->capacity * 2 : 64;
        tk *items = tm_array(lx->t, capacity, sizeof *items);
        if (out->n) {
            memcpy(items, out->items, out->n * sizeof *items);
        }
        out->items = items;
        out->capacity = capacity;
    }
    tm_step(lx->t, 1);
    out->items[out->n++] = (tk){.type = type, .at = (uint32_t)at, .value = value};
}

static bool looking_at(const lexer *lx, size_t at, const char *text) {
    size_t n = strlen(text);
    return lx->n - at >= n && memcmp(lx->s + at, text, n) == 0;
}

static size_t skip_space(const lexer *lx, size_t at) {
    while (at < lx->n) {
        size_t next = at;
        if (!py_is_space(py_char_next(lx->s, lx->n, &next))) {
            break;
        }
        at = next;
    }
    return at;
}

/* ---- Text between tags ---- */

static bool all_space(const lexer *lx, size_t from, size_t to) {
    return from < to && skip_space(lx, from) >= to;
}

/* Emits the text [from, to) that stands before a tag whose strip sign is given. */
static void emit_data(lexer *lx, size_t from, size_t to, char sign, bool is_variable) {
    size_t end = to;
    if (sign == '-') {
        while (end > from) {
            size_t before = end;
            if (!py_is_space(py_char_prev(lx->s, &before))) {
                break;
            }
            end = before;
        }
        end = end < from ? from : end;
    } else if (sign != '+' && !is_variable) {
        size_t line = to;
        while (line > from && lx->s[line - 1] != '\n') {
            line--;
        }
        if ((line > from || lx->line_starting) && all_space(lx, line, to)) {
            end = line;
        }
    }
    if (end > from) {
        tval text = tv_text_take(lx->t, lx->s + from, end - from);
        tv_n_chars(text.str); /* shared by threads from now on */
        emit(lx, TK_DATA, from, text);
    }
}

/* Sets the position behind a tag's end. */
static void pass_to(lexer *lx, size_t at) {
    lx->line_starting = at > 0 && lx->s[at - 1] == '\n';
    lx->at = at;
}

/* If an end tag such as "%}" stands at `at`, with its sign before it, returns where it ends with
 * what it takes along; otherwise 0. */
static size_t end_tag(const lexer *lx, size_t at, const char *tag, bool block) {
    size_t size = strlen(tag);
    if (looking_at(lx, at, tag)) {
        size_t end = at + size;
        return block && end < lx->n && lx->s[end] == '\n' ? end + 1 : end;
    }
    if (at < lx->n && lx->s[at] == '-' && looking_at(lx, at + 1, tag)) {
        return skip_space(lx, at + 1 + size);
    }
    if (block && at < lx->n && lx->s[at] == '+' && looking_at(lx, at + 1, tag)) {
        return at + 1 + size;
    }
    return 0;
}

static void lex_comment(lexer *lx, size_t start) {
    for (size_t at = lx->at; at < lx->n; at++) {
        const char *p = memchr(lx->s + at, '#', lx->n - at);
        if (!p) {
            break;
        }
        at = (size_t)(p - lx->s);
        /* The shortest text wins: a sign before "#}" belongs to the end tag. */
        size_t from = at > lx->at && (p[-1] == '-' || p[-1] == '+') ? at - 1 : at;
        size_t end = end_tag(lx, from, "#}", true);
        if (end) {
            pass_to(lx, end);
            return;
        }
    }
    lx->t->at = (uint32_t)start;
    tm_fail(lx->t, "Missing end of comment tag");
}

/* "{%- raw %}" at `at` behind the sign: where it ends, or 0. */
static size_t raw_begin(const lexer *lx, size_t at) {
    at = skip_space(lx, at);
    if (!looking_at(lx, at, "raw")) {
        return 0;
    }
    at = skip_space(lx, at + 3);
    if (looking_at(lx, at, "-%}")) {
        return skip_space(lx, at + 3);
    }
    return looking_at(lx, at, "%}") ? at + 2 : 0;
}

static void lex_raw(lexer *lx, size_t start) {
    size_t from = lx->at;
    for (size_t at = from; at < lx->n; at++) {
        if (!looking_at(lx, at, "{%")) {
            continue;
        }
        char sign = at + 2 < lx->n ? lx->s[at + 2] : 0;
        sign = sign == '-' || sign == '+' ? sign : 0;
        size_t name = skip_space(lx, at + 2 + (sign != 0));
        if (!looking_at(lx, name, "endraw")) {
            continue;
        }
        size_t end = end_tag(lx, skip_space(lx, name + 6), "%}", true);
        if (end) {
            emit_data(lx, from, at, sign, false);
            pass_to(lx, end);
            return;
        }
    }
    lx->t->at = (uint32_t)start;
    tm_fail(lx->t, "Missing end of raw directive");
}

/* ---- Numbers, names, strings ---- */

static bool digit_of(char c, unsigned base) {
    if (base == 16 && ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'))) {
        return true;
    }
    return c >= '0' && c < (char)('0' + (base < 10 ? base : 10));
}

/* Digits that may be parted by single underscores: where they end, or `at` if there are none. */
static size_t digits_end(const lexer *lx, size_t at, unsigned base) {
    size_t end = at;
    while (end < lx->n) {
        if (digit_of(lx->s[end], base)) {
            end++;
        } else if (end > at && lx->s[end] == '_' && end + 1 < lx->n &&
                   digit_of(lx->s[end + 1], base)) {
            end += 2;
        } else {
            break;
        }
    }
    return end;
}

/* Copies a number's text without its underscores. */
static tval without_underscores(lexer *lx, size_t from, size_t to) {
    tm_text b = tm_text_start(lx->t);
    for (size_t i = from; i < to; i++) {
        if (lx->s[i] != '_') {
            tm_text_putc(&b, lx->s[i]);
        }
    }
    return tm_text_end(&b);
}

static bool lex_float(lexer *lx) {
    size_t at = lx->at;
    if (at > 0 && lx->s[at - 1] == '.') {
        return false;
    }
    size_t end = digits_end(lx, at, 10);
    bool is_float = false;
    if (end < lx->n && lx->s[end] == '.') {
        size_t fraction = digits_end(lx, end + 1, 10);
        if (fraction > end + 1) {
            end = fraction;
            is_float = true;
        }
    }
    if (end < lx->n && (lx->s[end] == 'e' || lx->s[end] == 'E')) {
        size_t digits = end + 1;
        digits += digits < lx->n && (lx->s[digits] == '+' || lx->s[digits] == '-');
        size_t exponent = digits_end(lx, digits, 10);
        if (exponent > digits) {
            end = exponent;
            is_float = true;
        }
    }
    if (is_float) {
        tval text = without_underscores(lx, at, end);
        emit(lx, TK_FLOAT, at, tv_float(pyfloat_parse(text.str->data, text.str->n)));
        pass_to(lx, end);
    }
    return is_float;
}

static void lex_integer(lexer *lx) {
    size_t at = lx->at, start = at;
    unsigned base = 10;
    if (lx->s[at] == '0' && at + 1 < lx->n) {
        char letter = (char)(lx->s[at + 1] | 0x20);
        unsigned wanted = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
        size_t first = at + 2 + (at + 2 < lx->n && lx->s[at + 2] == '_');
        if (wanted && digits_end(lx, first, wanted) > first) {
            base = wanted;
            start = first;
        }
    }
    size_t end = digits_end(lx, start, base);
    if (base == 10 && lx->s[at] == '0') { /* only zeros may follow a zero */
        for (end = at + 1; end < lx->n;) {
            size_t next = end + (lx->s[end] == '_');
            if (next >= lx->n || lx->s[next] != '0') {
                break;
            }
            end = next + 1;
        }
    }
    tval text = without_underscores(lx, start, end);
    emit(lx, TK_INTEGER, at, int_from_digits(lx->t, text.str->data, text.str->n, base));
    pass_to(lx, end);
}

static bool lex_name(lexer *lx) {
    size_t end = lx->at;
    while (end < lx->n) {
        size_t next = end;
        uint32_t c = py_char_next(lx->s, lx->n, &next);
        if (!(end == lx->at ? py_is_id_start(c) : py_is_id_continue(c))) {
            break;
        }
        end = next;
    }
    if (end == lx->at) {
        return false;
    }
    tval name = tv_text_take(lx->t, lx->s + lx->at, end - lx->at);
    tv_n_chars(name.str);
    emit(lx, TK_NAME, lx->at, name);
    pass_to(lx, end);
    return true;
}

static int hex_value(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* \xHH, \uHHHH, \UHHHHHHHH: returns where they end. */
static size_t put_hex_escape(lexer *lx, tm_text *b, size_t at, size_t end) {
    char kind = lx->s[at];
    size_t n = kind == 'x' ? 2 : kind == 'u' ? 4 : 8;
    uint32_t c = 0;
    for (size_t i = 1; i <= n; i++) {
        int digit = at + i < end ? hex_value(lx->s[at + i]) : -1;
        if (digit < 0) {
            tm_fail(lx->t, "truncated \\%c%.*s escape", kind, (int)n, "XXXXXXXX");
        }
        c = c << 4 | (uint32_t)digit;
    }
    if (c > 0x10ffff) {
        tm_fail(lx->t, "illegal Unicode character");
    }
    if (c >= 0xd800 && c < 0xe000) {
        tm_fail(lx->t, "a lone surrogate is no character");
    }
    tm_text_put_char(b, c);
    return at + n + 1;
}

/* What follows a backslash at `at`; returns where it ends. */
static size_t put_escape(lexer *lx, tm_text *b, size_t at, size_t end) {
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    char c = lx->s[at];
    const char *simple = c ? strchr(from, c) : NULL;
    if (simple) {
        tm_text_putc(b, to[simple - from]);
        return at + 1;
    }
    if (c == '\n') {
        return at + 1;
    }
    if (c == 'x' || c == 'u' || c == 'U') {
        return put_hex_escape(lx, b, at, end);
    }
    if (c == 'N') {
        tm_fail(lx->t, "characters by name (\\N) are not supported");
    }
    if (c >= '0' && c <= '7') {
        uint32_t code = 0;
        for (size_t i = 0; i < 3 && at < end && lx->s[at] >= '0' && lx->s[at] <= '7'; i++, at++) {
            code = code * 8 + (uint32_t)(lx->s[at] - '0');
        }
        tm_text_put_char(b, code);
        return at;
    }
    tm_text_putc(b, '\\');
    if ((uint8_t)c < 0x80) {
        tm_text_putc(b, c);
        return at + 1;
    }
    /* Python spells the character as an escape first, and the backslash then takes its own. */
    char text[16];
    uint32_t code = py_char_next(lx->s, end, &at);
    snprintf(text, sizeof text, code < 0x100 ? "x%02x" : code < 0x10000 ? "u%04x" : "U%08x", code);
    tm_text_puts(b, text);
    return at;
}

static bool lex_string(lexer *lx) {
    char quote = lx->s[lx->at];
    size_t start = lx->at + 1, end = start;
    while (end < lx->n && lx->s[end] != quote) {
        end += lx->s[end] == '\\' ? 2 : 1;
    }
    if (end >= lx->n) {
        return false;
    }
    tm_text b = tm_text_start(lx->t);
    for (size_t at = start; at < end;) {
        const char *slash = memchr(lx->s + at, '\\', end - at);
        size_t plain = slash ? (size_t)(slash - lx->s) : end;
        tm_text_put(&b, lx->s + at, plain - at);
        at = plain;
        if (slash) {
            lx->t->at = (uint32_t)plain;
            at = put_escape(lx, &b, plain + 1, end);
        }
    }
    tval text = tm_text_end(&b);
    tv_n_chars(text.str);
    emit(lx, TK_STRING, lx->at, text);
    pass_to(lx, end + 1);
    return true;
}

/* ---- Operators ---- */

static const struct operator_row {
    const char *text;
    tk_type type;
} operators[] = {
    {"//", TK_FLOORDIV}, {"**", TK_POW},   {"==", TK_EQ},      {"!=", TK_NE},      {">=", TK_GTEQ},
    {"<=", TK_LTEQ},     {"+", TK_ADD},    {"-", TK_SUB},      {"/", TK_DIV},      {"*", TK_MUL},
    {"%", TK_MOD},       {"~", TK_TILDE},  {"[", TK_LBRACKET}, {"]", TK_RBRACKET}, {"(", TK_LPAREN},
    {")", TK_RPAREN},    {"{", TK_LBRACE}, {"}", TK_RBRACE},   {">", TK_GT},       {"<", TK_LT},
    {"=", TK_ASSIGN},    {".", TK_DOT},    {":", TK_COLON},    {"|", TK_PIPE},     {",", TK_COMMA},
    {";", TK_SEMICOLON},
};

static void balance(lexer *lx, tk_type type) {
    char c = lx->s[lx->at];
    if (type == TK_LBRACE || type == TK_LPAREN || type == TK_LBRACKET) {
        if (lx->n_open == lx->open_capacity) {
            size_t capacity = lx->open_capacity ? lx->open_capacity * 2 : 32;
            char *open = tm_alloc(lx->t, capacity);
            if (lx->n_open) {
                memcpy(open, lx->open, lx->n_open);
            }
            lx->open = open;
            lx->open_capacity = capacity;
        }
        lx->open[lx->n_open++] = c == '{' ? '}' : c == '(' ? ')' : ']';
    } else if (type == TK_RBRACE || type == TK_RPAREN || type == TK_RBRACKET) {
        if (lx->n_open == 0) {
            tm_fail(lx->t, "unexpected '%c'", c);
        }
        char expected = lx->open[--lx->n_open];
        if (expected != c) {
            tm_fail(lx->t, "unexpected '%c', expected '%c'", c, expected);
        }
    }
}

static bool lex_operator(lexer *lx) {
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        if (looking_at(lx, lx->at, operators[i].text)) {
            balance(lx, operators[i].type);
            emit(lx, operators[i].type, lx->at, tv_none());
            pass_to(lx, lx->at + strlen(operators[i].text));
            return true;
        }
    }
    return false;
}

/* ---- Tags ---- */

static void unexpected_char(lexer *lx) {
    size_t next = lx->at;
    py_char_next(lx->s, lx->n, &next);
    tval c = tv_text_take(lx->t, lx->s + lx->at, next - lx->at);
    tm_fail(lx->t, "unexpected char %s at %zu", tv_repr_text(lx->t, c), lx->at);
}

static void lex_token(lexer *lx) {
    char c = lx->s[lx->at];
    bool done;
    if (c >= '0' && c <= '9') {
        done = lex_float(lx);
        if (!done) {
            lex_integer(lx);
            done = true;
        }
    } else if (c == '\'' || c == '"') {
        done = lex_string(lx);
    } else {
        done = lex_name(lx) || lex_operator(lx);
    }
    if (!done) {
        unexpected_char(lx);
    }
}

/* The inside of a tag, up to and with its end. */
static void lex_tag(lexer *lx, bool block) {
    lx->n_open = 0;
    while (lx->at < lx->n) {
        lx->t->at = (uint32_t)lx->at;
        size_t end = lx->n_open ? 0 : end_tag(lx, lx->at, block ? "%}" : "}}", block);
        if (end) {
            emit(lx, block ? TK_BLOCK_END : TK_VARIABLE_END, lx->at, tv_none());
            pass_to(lx, end);
            return;
        }
        size_t after = skip_space(lx, lx->at);
        if (after > lx->at) {
            pass_to(lx, after);
        } else {
            lex_token(lx);
        }
    }
}

/* The next "{{", "{%" or "{#", or the end. */
static size_t next_tag(const lexer *lx) {
    for (size_t at = lx->at; at + 1 < lx->n; at++) {
        const char *p = memchr(lx->s + at, '{', lx->n - at);
        if (!p) {
            break;
        }
        at = (size_t)(p - lx->s);
        if (at + 1 < lx->n && (p[1] == '{' || p[1] == '%' || p[1] == '#')) {
            return at;
        }
    }
    return lx->n;
}

void tm_lex(tm_core *t, tk_list *out) {
    lexer lx = {.t = t, .s = t->source, .n = t->n_source, .out = out, .line_starting = true};
    while (lx.at < lx.n) {
        size_t tag = next_tag(&lx);
        if (tag == lx.n) {
            emit_data(&lx, lx.at, tag, '+', true);
            break;
        }
        char kind = lx.s[tag + 1], sign = tag + 2 < lx.n ? lx.s[tag + 2] : 0;
        sign = sign == '-' || sign == '+' ? sign : 0;
        emit_data(&lx, lx.at, tag, sign, kind == '{');
        size_t inside = tag + 2 + (sign != 0);
        size_t raw = kind == '%' ? raw_begin(&lx, inside) : 0;
        pass_to(&lx, raw ? raw : inside);
        if (raw) {
            lex_raw(&lx, tag);
        } else if (kind == '#') {
            lex_comment(&lx, tag);
        } else {
            emit(&lx, kind == '{' ? TK_VARIABLE_BEGIN : TK_BLOCK_BEGIN, tag, tv_none());
            lex_tag(&lx, kind == '%');
        }
    }
    emit(&lx, TK_EOF, lx.n, tv_none());
}

const char *tk_type_name(tk_type type) {
    static const char *const names[TK_N_TYPES] = {
        [TK_EOF] = "end of template",
        [TK_DATA] = "template data / text",
        [TK_VARIABLE_BEGIN] = "begin of print statement",
        [TK_VARIABLE_END] = "end of print statement",
        [TK_BLOCK_BEGIN] = "begin of statement block",
        [TK_BLOCK_END] = "end of statement block",
        [TK_NAME] = "name",
        [TK_STRING] = "string",
        [TK_INTEGER] = "integer",
        [TK_FLOAT] = "float",
    };
    if (names[type]) {
        return names[type];
    }
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        if (operators[i].type == type) {
            return operators[i].text;
        }
    }
    return "token";
}

const char *tk_describe(tm_core *t, const tk *token) {
    if (token->type == TK_NAME) {
        return tv_printf(t, "%.*s%c", (int)token->value.str->n, token->value.str->data, 0)
            .str->data;
    }
    return tk_type_name(token->type);
}
