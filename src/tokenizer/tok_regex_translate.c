/* tok_regex_translate.c - Oniguruma patterns (Ruby's syntax, UTF-8) as PCRE2 patterns.
 *
 *   \s \d \w \b \h and negations   spelled out, since the sets differ: PCRE2's \s has U+180E, its
 * \w has no marks, its \h is horizontal space \p{..} [[:..:]]                by table; characters
 * newer than PCRE2's Unicode are added, and scripts do not mean script extensions [A&&[B]] [A[B]]
 * sets within sets: a look-ahead, or joined
 *   (?m)                           the dot matches newlines: (?s)
 *   \uHHHH                         \x{HHHH}
 *
 * The same things mean the same: ^ and $ at every line (PCRE2_MULTILINE), line ends are LF. */
#include "tokenizer/tok_regex_translate.h"

#include "tokenizer/unicode.h"

#include <string.h>

typedef struct translator {
    ctx_t *ctx;
    const char *what;
    const char *p;
    size_t n, at;
    int depth;
    jang_status status;
} translator;

static void unsupported(translator *t, const char *message) {
    if (t->status == JANG_OK) {
        t->status = ctx_fail(t->ctx, JANG_ERR_UNSUPPORTED, "%s: pattern '%.*s': byte %zu: %s",
                             t->what, (int)(t->n < 200 ? t->n : 200), t->p, t->at, message);
    }
}

/* ---- Properties ---- */

#define BIT(x) UNICODE_BIT(UNICODE_##x)
#define P_ALL (BIT(PC) | BIT(PD) | BIT(PS) | BIT(PE) | BIT(PI) | BIT(PF) | BIT(PO))
#define S_ALL (BIT(SM) | BIT(SC) | BIT(SK) | BIT(SO))
#define SPACES                                                                                     \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
    "\\x{205f}\\x{3000}"
/* On its own, though not in a set, Oniguruma's \w has Latin-1's other numbers as well. */
#define WORD_NUMBERS "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"
#define WORDS "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"

/* Members of a class that stand for a property, and the categories of which newer characters have
 * it as well. Names without case, spaces, - and _. */
static const struct {
    const char *name, *members;
    uint32_t newer;
} properties[] = {
    {"l", "\\p{L}", UNICODE_L},
    {"letter", "\\p{L}", UNICODE_L},
    {"lu", "\\p{Lu}", BIT(LU)},
    {"ll", "\\p{Ll}", BIT(LL)},
    {"lt", "\\p{Lt}", BIT(LT)},
    {"lm", "\\p{Lm}", BIT(LM)},
    {"lo", "\\p{Lo}", BIT(LO)},
    {"m", "\\p{M}", UNICODE_M},
    {"mark", "\\p{M}", UNICODE_M},
    {"mn", "\\p{Mn}", BIT(MN)},
    {"mc", "\\p{Mc}", BIT(MC)},
    {"me", "\\p{Me}", BIT(ME)},
    {"n", "\\p{N}", UNICODE_N},
    {"number", "\\p{N}", UNICODE_N},
    {"nd", "\\p{Nd}", BIT(ND)},
    {"nl", "\\p{Nl}", BIT(NL)},
    {"no", "\\p{No}", BIT(NO)},
    {"p", "\\p{P}", P_ALL},
    {"punctuation", "\\p{P}", P_ALL},
    {"pc", "\\p{Pc}", BIT(PC)},
    {"pd", "\\p{Pd}", BIT(PD)},
    {"ps", "\\p{Ps}", BIT(PS)},
    {"pe", "\\p{Pe}", BIT(PE)},
    {"pi", "\\p{Pi}", BIT(PI)},
    {"pf", "\\p{Pf}", BIT(PF)},
    {"po", "\\p{Po}", BIT(PO)},
    {"s", "\\p{S}", S_ALL},
    {"symbol", "\\p{S}", S_ALL},
    {"sm", "\\p{Sm}", BIT(SM)},
    {"sc", "\\p{Sc}", BIT(SC)},
    {"sk", "\\p{Sk}", BIT(SK)},
    {"so", "\\p{So}", BIT(SO)},
    {"z", "\\p{Z}", 0},
    {"separator", "\\p{Z}", 0},
    {"zs", "\\p{Zs}", 0},
    {"zl", "\\p{Zl}", 0},
    {"zp", "\\p{Zp}", 0},
    {"c", "\\p{C}", 0},
    {"cc", "\\p{Cc}", 0},
    {"cf", "\\p{Cf}", 0},
    {"cn", "\\p{Cn}", 0},
    {"co", "\\p{Co}", 0},
    {"cs", "\\p{Cs}", 0},
    {"any", "\\x{0}-\\x{10ffff}", 0},
    {"ascii", "\\x{0}-\\x{7f}", 0},
    {"alpha", "\\p{Alphabetic}\\x{363}-\\x{36f}", UNICODE_L | BIT(NL)},
    {"alphabetic", "\\p{Alphabetic}\\x{363}-\\x{36f}", UNICODE_L | BIT(NL)},
    {"alnum", "\\p{Alphabetic}\\x{363}-\\x{36f}\\p{Nd}", UNICODE_L | BIT(NL) | BIT(ND)},
    {"upper", "\\p{Uppercase}", BIT(LU)},
    {"uppercase", "\\p{Uppercase}", BIT(LU)},
    {"lower", "\\p{Lowercase}", BIT(LL)},
    {"lowercase", "\\p{Lowercase}", BIT(LL)},
    {"digit", "\\p{Nd}", BIT(ND)},
    {"xdigit", "0-9a-fA-F", 0},
    {"word", WORDS, UNICODE_L | UNICODE_M | BIT(ND) | BIT(NL) | BIT(PC)},
    {"space", SPACES, 0},
    {"whitespace", SPACES, 0},
    {"blank", "\\p{Zs}\\t", 0},
    {"cntrl", "\\p{Cc}", 0},
    {"punct", "\\p{P}", P_ALL},
    {"[:punct:]", "\\p{P}\\p{S}", P_ALL | S_ALL},
};

/* What Unicode 15 and 16 added to the scripts that patterns name. */
static const char *const newer_scripts[][2] = {
    {"han", "\\x{2ebf0}-\\x{2ee5d}"}, {"hiragana", "\\x{1b132}"}, {"katakana", "\\x{1b155}"}};

/* Appends the newer characters of some categories as ranges. */
static void put_newer(buf *out, uint32_t categories) {
    for (size_t i = 0; i < unicode_n_newer; i++) {
        const uint32_t *row = unicode_newer + 3 * i;
        if (categories >> row[2] & 1) {
            buf_printf(out, "\\x{%x}-\\x{%x}", (unsigned)row[0], (unsigned)row[1]);
        }
    }
}

/* Appends the members of a property; an unknown name is taken for a script. */
static void put_property(buf *members, const char *name, size_t n) {
    char plain[32];
    size_t n_plain = 0;
    for (size_t i = 0; i < n; i++) {
        char c = name[i];
        if (c != ' ' && c != '-' && c != '_' && n_plain < sizeof plain - 1) {
            plain[n_plain++] = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
        }
    }
    plain[n_plain] = 0;
    for (size_t i = 0; i < sizeof properties / sizeof *properties; i++) {
        if (strcmp(properties[i].name, plain) == 0) {
            buf_puts(members, properties[i].members);
            put_newer(members, properties[i].newer);
            return;
        }
    }
    buf_puts(members, "\\p{sc:");
    buf_put(members, name, n);
    buf_puts(members, "}");
    for (size_t i = 0; i < sizeof newer_scripts / sizeof *newer_scripts; i++) {
        if (strcmp(newer_scripts[i][0], plain) == 0) {
            buf_puts(members, newer_scripts[i][1]);
        }
    }
}

/* ---- Escapes ---- */

/* The property that a letter after a backslash names, or NULL. */
static const char *escape_property(char c) {
    switch (c | 0x20) {
    case 's':
        return "space";
    case 'd':
        return "digit";
    case 'w':
        return "word";
    case 'h':
        return "xdigit";
    default:
        return NULL;
    }
}

/* Reads a class escape (\s, \p{..}) at t->at, which is on the letter; false if it is none. */
static bool take_class_escape(translator *t, buf *members, bool *negated) {
    char c = t->p[t->at];
    const char *name = escape_property(c);
    *negated = c >= 'A' && c <= 'Z';
    if (name) {
        put_property(members, name, strlen(name));
        t->at++;
        return true;
    }
    if ((c != 'p' && c != 'P') || t->at + 1 >= t->n || t->p[t->at + 1] != '{') {
        return false;
    }
    size_t start = t->at + 2;
    const char *end = memchr(t->p + start, '}', t->n - start);
    if (!end) {
        unsupported(t, "a property has no end");
        return false;
    }
    if (t->p[start] == '^') {
        *negated = !*negated;
        start++;
    }
    put_property(members, t->p + start, (size_t)(end - t->p) - start);
    t->at = (size_t)(end - t->p) + 1;
    return true;
}

/* Copies a backslash and what follows, t->at being on that. */
static void copy_escape(translator *t, buf *out) {
    char c = t->p[t->at++];
    if (c == 'u' && t->n - t->at >= 4) {
        buf_puts(out, "\\x{");
        buf_put(out, t->p + t->at, 4);
        buf_puts(out, "}");
        t->at += 4;
        return;
    }
    buf_putc(out, '\\');
    buf_putc(out, c);
}

/* ---- Sets ---- */

typedef struct set {
    bool negated;
    buf members; /* what stands between the brackets */
    buf ahead;   /* look-aheads that the character must pass, for && */
} set;

static void read_set(translator *t, set *s);

static void set_init(set *s, ctx_t *ctx) {
    s->negated = false;
    buf_init(&s->members, ctx, (size_t)1 << 20);
    buf_init(&s->ahead, ctx, (size_t)1 << 20);
}

static void set_free(set *s) {
    buf_free(&s->members);
    buf_free(&s->ahead);
}

/* Appends a set as something that matches one character. */
static void put_set(buf *out, const set *s) {
    bool ahead = s->ahead.size > 0;
    if (ahead) {
        buf_puts(out, s->negated ? "(?:(?!" : "(?:");
        buf_put(out, s->ahead.data, s->ahead.size);
    }
    buf_puts(out, s->negated && !ahead ? "[^" : "[");
    buf_put(out, s->members.data, s->members.size);
    buf_puts(out, "]");
    if (ahead) {
        buf_puts(out, s->negated ? ")[\\x{0}-\\x{10ffff}])" : ")");
    }
}

/* A set within a set: joined to it, unless it is negated or cut down itself. */
static void read_inner_set(translator *t, set *s) {
    set inner;
    set_init(&inner, t->ctx);
    read_set(t, &inner);
    if (inner.negated || inner.ahead.size) {
        unsupported(t, "a negated set within a set");
    }
    buf_put(&s->members, inner.members.data, inner.members.size);
    set_free(&inner);
}

/* "[:name:]" at t->at; false if it is none. */
static bool read_posix(translator *t, set *s) {
    const char *end = memmem(t->p + t->at, t->n - t->at, ":]", 2);
    if (t->at + 1 >= t->n || t->p[t->at + 1] != ':' || !end) {
        return false;
    }
    size_t start = t->at + 2, stop = (size_t)(end - t->p);
    if (start < stop && t->p[start] == '^') {
        unsupported(t, "a negated set within a set");
    }
    bool punct = stop - start == 5 && memcmp(t->p + start, "punct", 5) == 0;
    if (punct) {
        put_property(&s->members, "[:punct:]", 9);
    } else {
        put_property(&s->members, t->p + start, stop > start ? stop - start : 0);
    }
    t->at = stop + 2;
    return true;
}

/* What follows "&&", up to the set's end: a condition on the character. */
static void read_condition(translator *t, set *s) {
    set other;
    set_init(&other, t->ctx);
    if (t->at < t->n && t->p[t->at] == '[') {
        read_set(t, &other);
    } else {
        unsupported(t, "&& must be followed by a set");
    }
    buf_puts(&s->ahead, "(?=");
    put_set(&s->ahead, &other);
    buf_puts(&s->ahead, ")");
    set_free(&other);
}

static void read_member(translator *t, set *s) {
    bool negated;
    if (t->p[t->at] == '\\' && t->at + 1 < t->n) {
        t->at++;
        if (!take_class_escape(t, &s->members, &negated)) {
            copy_escape(t, &s->members);
        } else if (negated) {
            unsupported(t, "a negated class within a set");
        }
        return;
    }
    buf_putc(&s->members, t->p[t->at++]);
}

/* A set that is nothing but one negated class, as [^\S\n] begins with: [\S], [^\S]. */
static bool read_negated_only(translator *t, set *s) {
    size_t start = t->at;
    bool negated = false;
    if (t->at + 1 < t->n && t->p[t->at] == '\\') {
        t->at++;
        if (take_class_escape(t, &s->members, &negated) && negated && t->at < t->n &&
            t->p[t->at] == ']') {
            s->negated = !s->negated;
            return true;
        }
    }
    t->at = start;
    buf_clear(&s->members);
    return false;
}

/* Reads "[...]" at t->at. */
static void read_set(translator *t, set *s) {
    if (++t->depth > 16) {
        unsupported(t, "sets nested too deep");
        t->at = t->n;
    }
    t->at++;
    if (t->at < t->n && t->p[t->at] == '^') {
        s->negated = true;
        t->at++;
    }
    read_negated_only(t, s);
    for (bool first = s->members.size == 0; t->at < t->n && t->status == JANG_OK; first = false) {
        char c = t->p[t->at];
        if (c == ']' && !first) {
            break;
        }
        if (c == '[') {
            if (!read_posix(t, s)) {
                read_inner_set(t, s);
            }
        } else if (c == '&' && t->at + 1 < t->n && t->p[t->at + 1] == '&') {
            t->at += 2;
            read_condition(t, s);
        } else if (c == ']') {
            buf_puts(&s->members, "\\]");
            t->at++;
        } else {
            read_member(t, s);
        }
    }
    t->at++;
    t->depth--;
}

/* ---- The pattern ---- */

/* "(?" options ":" or ")" with Ruby's m as PCRE2's s; t->at is on "(?". */
static void read_options(translator *t, buf *out) {
    size_t i = t->at + 2;
    while (i < t->n && (t->p[i] == '-' || t->p[i] == 'i' || t->p[i] == 'm' || t->p[i] == 'x')) {
        i++;
    }
    bool options = i > t->at + 2 && i < t->n && (t->p[i] == ':' || t->p[i] == ')');
    size_t end = options ? i + 1 : t->at + 2;
    for (; t->at < end; t->at++) {
        buf_putc(out, options && t->p[t->at] == 'm' ? 's' : t->p[t->at]);
    }
}

static void put_word_boundary(buf *out, bool negated) {
    buf word;
    buf_init(&word, out->ctx, (size_t)1 << 16);
    put_property(&word, "word", 4);
    buf_puts(&word, WORD_NUMBERS);
    buf_printf(out,
               negated ? "(?:(?<=[%s])(?=[%s])|(?<![%s])(?![%s]))"
                       : "(?:(?<=[%s])(?![%s])|(?<![%s])(?=[%s]))",
               word.data, word.data, word.data, word.data);
    buf_free(&word);
}

static void read_escape(translator *t, buf *out) {
    set s;
    char c = t->p[++t->at];
    set_init(&s, t->ctx);
    if (take_class_escape(t, &s.members, &s.negated)) {
        buf_puts(&s.members, c == 'w' || c == 'W' ? WORD_NUMBERS : "");
        put_set(out, &s);
    } else if (c == 'b' || c == 'B') {
        put_word_boundary(out, c == 'B');
        t->at++;
    } else {
        copy_escape(t, out);
    }
    set_free(&s);
}

jang_status tok_regex_translate(buf *out, ctx_t *ctx, const char *what, const char *pattern,
                                size_t n_bytes) {
    translator t = {.ctx = ctx, .what = what, .p = pattern, .n = n_bytes};
    while (t.at < t.n && t.status == JANG_OK) {
        char c = t.p[t.at];
        if (c == '\\' && t.at + 1 < t.n) {
            read_escape(&t, out);
        } else if (c == '(' && t.at + 2 < t.n && t.p[t.at + 1] == '?') {
            read_options(&t, out);
        } else if (c == '[') {
            set s;
            set_init(&s, ctx);
            read_set(&t, &s);
            put_set(out, &s);
            set_free(&s);
        } else {
            buf_putc(out, c);
            t.at++;
        }
    }
    return t.status == JANG_OK ? buf_status(out) : t.status;
}
