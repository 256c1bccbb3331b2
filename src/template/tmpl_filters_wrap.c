/* tmpl_filters_wrap.c - wordwrap, as Python's textwrap does it, and urlize.
 *
 * The patterns are those of textwrap's and jinja2's documentation, compiled by PCRE2 with the
 * meaning that Python gives to \w, \d and \s. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "template/pyunicode.h"
#include "template/tmpl_filters.h"
#include "template/tmpl_text.h"

#include <pcre2.h>
#include <string.h>

/* ---- Patterns ---- */

static void *arena_malloc(PCRE2_SIZE n, void *user) {
    return tm_alloc(user, n);
}

static void arena_free(void *p, void *user) {
    (void)p, (void)user;
}

/* A pattern and what matching it needs, all in the arena. */
typedef struct pattern {
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *context;
} pattern;

static pattern pattern_new(tm_core *t, const char *text, uint32_t options) {
    pcre2_general_context *general = pcre2_general_context_create(arena_malloc, arena_free, t);
    pcre2_compile_context *compile = pcre2_compile_context_create(general);
    int error;
    PCRE2_SIZE at;
    pattern p = {.code = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED,
                                       options | PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK, &error,
                                       &at, compile)};
    if (!p.code) {
        tm_fail(t, "a pattern of the engine cannot be compiled (%d)", error);
    }
    p.match = pcre2_match_data_create_from_pattern(p.code, general);
    p.context = pcre2_match_context_create(general);
    pcre2_set_match_limit(p.context, 1000000);
    return p;
}

/* Finds the pattern at or behind `at`. */
static bool pattern_find(tm_core *t, const pattern *p, const char *text, size_t n, size_t at,
                         tx_span *found) {
    tm_step(t, 16);
    int rc =
        pcre2_match(p->code, (PCRE2_SPTR)text, n, at, PCRE2_NO_UTF_CHECK, p->match, p->context);
    if (rc < 0) {
        return false;
    }
    const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(p->match);
    *found = (tx_span){.from = ends[0], .to = ends[1]};
    tm_step(t, found->to - at);
    return true;
}

/* ---- wordwrap ---- */

#define WS "[\\t\\n\\x0b\\x0c\\r ]"
#define NWS "[^\\t\\n\\x0b\\x0c\\r ]"
#define LETTER "[^\\d\\W]"
#define PUNCT "[\\w!\"'&.,?]"
static const char word_pattern[] =
    WS "+"
       "|(?<=" PUNCT ")-{2,}(?=\\w)"
       "|" NWS "+?(?:"
       "-(?:(?<=" LETTER "{2}-)|(?<=" LETTER "-" PUNCT "-))(?=" LETTER "-?" LETTER ")"
       "|(?=" WS "|\\z)"
       "|(?<=" PUNCT ")(?=-{2,}\\w)"
       ")";

typedef struct wrapper {
    tm_core *t;
    pattern words;
    size_t width;
    bool break_words, break_hyphens;
    tv_list_builder chunks;
    size_t next;  /* chunk */
    tm_text *out; /* finished lines, with separators */
    const tv_str *separator;
    size_t n_lines;
} wrapper;

static void cut_into_chunks(wrapper *w, const tv_str *line) {
    tx_span found;
    size_t at = 0;
    w->chunks.n = w->next = 0;
    while (at < line->n && pattern_find(w->t, &w->words, line->data, line->n, at, &found)) {
        if (found.from > at) {
            tv_push(w->t, &w->chunks, tx_piece(w->t, line, at, found.from));
        }
        tv_push(w->t, &w->chunks, tx_piece(w->t, line, found.from, found.to));
        at = found.to;
    }
    if (at < line->n) {
        tv_push(w->t, &w->chunks, tx_piece(w->t, line, at, line->n));
    }
}

static tv_str *next_chunk(wrapper *w) {
    return w->next < w->chunks.n ? w->chunks.items[w->next].str : NULL;
}

static bool is_blank(tm_core *t, tv_str *s) {
    return tx_strip(t, s, NULL, TX_BOTH).str->n == 0;
}

/* How much of a chunk that is longer than a line goes on this one. */
static size_t break_at(wrapper *w, tv_str *chunk, size_t space) {
    if (!w->break_hyphens || tv_n_chars(chunk) <= space) {
        return space;
    }
    size_t end = tv_char_at(chunk, space);
    for (size_t at = end; at > 1; at--) {
        if (chunk->data[at - 1] == '-') {
            size_t other = strspn(chunk->data, "-");
            if (other >= at - 1) {
                return space;
            }
            tv_str head = {.data = chunk->data, .n = at, .n_chars = TV_UNCOUNTED};
            return tv_n_chars(&head);
        }
    }
    return space;
}

static void fill_line(wrapper *w, tv_list_builder *line) {
    tv_str *chunk = next_chunk(w);
    size_t used = 0;
    if (w->n_lines > 0 && is_blank(w->t, chunk)) {
        w->next++;
    }
    while ((chunk = next_chunk(w)) && used + tv_n_chars(chunk) <= w->width) {
        tv_push(w->t, line, w->chunks.items[w->next++]);
        used += tv_n_chars(chunk);
    }
    if (!chunk || tv_n_chars(chunk) <= w->width) {
        return;
    }
    if (w->break_words) {
        size_t n = break_at(w, chunk, w->width - used);
        tv_push(w->t, line, tv_substr(w->t, chunk, 0, n));
        w->chunks.items[w->next] = tv_substr(w->t, chunk, n, tv_n_chars(chunk));
    } else if (line->n == 0) {
        tv_push(w->t, line, w->chunks.items[w->next++]);
    }
}

static void wrap_line(wrapper *w, const tv_str *text) {
    cut_into_chunks(w, text);
    w->n_lines = 0;
    while (next_chunk(w)) {
        tv_list_builder line = {0};
        fill_line(w, &line);
        if (line.n && is_blank(w->t, line.items[line.n - 1].str)) {
            line.n--;
        }
        if (line.n == 0) {
            continue;
        }
        if (w->n_lines++ > 0) {
            tm_text_put(w->out, w->separator->data, w->separator->n);
        }
        for (size_t i = 0; i < line.n; i++) {
            tv_put_str(w->out, line.items[i]);
        }
    }
}

static tval filter_wordwrap(tm_core *t, const tm_call *c) {
    tv_str *s = tv_want_str(t, c->self, "the value");
    int64_t width = tv_to_index(t, fl_or(c->arg[0], tv_int(79)), true);
    tval separator = fl_or(c->arg[2], tv_none());
    separator = separator.type == TV_NONE ? tv_literal(t, "\n") : separator;
    tm_text out = tm_text_start(t);
    wrapper w = {.t = t,
                 .break_words = !fl_given(c->arg[1]) || tv_truth(t, c->arg[1]),
                 .break_hyphens = !fl_given(c->arg[3]) || tv_truth(t, c->arg[3]),
                 .out = &out,
                 .separator = tv_want_str(t, separator, "wrapstring")};
    w.words = pattern_new(t, w.break_hyphens ? word_pattern : WS "+", 0);
    const tv_seq *lines = tx_split_lines(t, s, false).seq;
    if (width <= 0 && lines->n) {
        tm_fail(t, "invalid width %lld (must be > 0)", (long long)width);
    }
    w.width = (size_t)width;
    for (size_t i = 0; i < lines->n; i++) {
        if (i > 0) {
            tm_text_put(&out, w.separator->data, w.separator->n);
        }
        wrap_line(&w, lines->items[i].str);
    }
    return tm_text_end(&out);
}

/* ---- urlize ---- */

static const char address_pattern[] =
    "^("
    "(https?://|www\\.)(([\\w%-]+\\.)+)?([a-z]{2,63}|xn--[\\w%]{2,59})"
    "|([\\w%-]{2,63}\\.)+(com|net|int|edu|gov|org|info|mil)"
    "|(https?://)((([\\d]{1,3})(\\.[\\d]{1,3}){3})|(\\[([\\da-f]{0,4}:){2}([\\da-f]{0,4}:?){1,6}]))"
    ")(?::[\\d]{1,5})?(?:[/?#]\\S*)?$";
static const char mail_pattern[] = "^\\S+@\\w[\\w.-]*\\.\\w+$";
static const char scheme_pattern[] = "^([\\w.+-]{2,}:(/){0,2})\\z";

typedef struct linker {
    tm_core *t;
    pattern address, mail;
    tval limit; /* of the shown text, or none; looked at where there is a link */
    tval attributes;
    const tv_seq *schemes;
    tm_text out;
} linker;

static bool matches(linker *k, const pattern *p, const tv_str *s) {
    tx_span found;
    return pattern_find(k->t, p, s->data, s->n, 0, &found);
}

static bool starts(const tv_str *s, const char *text) {
    size_t n = strlen(text);
    return s->n >= n && memcmp(s->data, text, n) == 0;
}

static bool ends(const tv_str *s, const char *text) {
    size_t n = strlen(text);
    return s->n >= n && memcmp(s->data + s->n - n, text, n) == 0;
}

static size_t count_of(tm_core *t, const tv_str *s, const char *text) {
    size_t n = 0;
    const tv_str *needle = tv_literal(t, text).str;
    for (size_t at = 0; (at = tx_find(t, s, at, s->n, needle)) != SIZE_MAX; at += needle->n) {
        n++;
    }
    return n;
}

static void put_link(linker *k, const char *scheme, tv_str *address, tv_str *shown, bool extras,
                     bool trim) {
    tm_text *b = &k->out;
    tm_text_puts(b, "<a href=\"");
    tm_text_puts(b, scheme);
    tm_text_put(b, address->data, address->n);
    tm_text_putc(b, '"');
    if (extras) {
        tv_put_str(b, k->attributes);
    }
    tm_text_putc(b, '>');
    tval n_chars = tv_int((int64_t)tv_n_chars(shown)), text = {.type = TV_STR, .str = shown};
    if (trim && k->limit.type != TV_NONE && tv_compare(k->t, TV_GT, n_chars, k->limit)) {
        tv_put_str(b, tm_slice(k->t, text, tv_none(), k->limit, tv_none()));
        tm_text_puts(b, "...");
    } else {
        tm_text_put(b, shown->data, shown->n);
    }
    tm_text_puts(b, "</a>");
}

static void put_middle(linker *k, tv_str *s) {
    tv_str *rest = starts(s, "mailto:") ? tx_piece(k->t, s, 7, s->n).str : NULL;
    if (matches(k, &k->address, s)) {
        bool complete = starts(s, "https://") || starts(s, "http://");
        put_link(k, complete ? "" : "https://", s, s, true, true);
        return;
    }
    if (rest && matches(k, &k->mail, rest)) {
        put_link(k, "", s, rest, false, false);
        return;
    }
    if (memchr(s->data, '@', s->n) && !starts(s, "www.") && !starts(s, "@") &&
        !memchr(s->data, ':', s->n) && matches(k, &k->mail, s)) {
        put_link(k, "mailto:", s, s, false, false);
        return;
    }
    for (size_t i = 0; i < k->schemes->n; i++) {
        const tv_str *scheme = k->schemes->items[i].str;
        if (s->n > scheme->n && memcmp(s->data, scheme->data, scheme->n) == 0) {
            put_link(k, "", s, s, true, false);
            return;
        }
    }
    tm_text_put(&k->out, s->data, s->n);
}

static const char *const heads[] = {"(", "<", "&lt;", NULL};
static const char *const tails[] = {")", ">", ".", ",", "\n", "&gt;", NULL};

/* Moves closing brackets from the tail to a middle that opens them. */
static size_t balance(linker *k, const tv_str *word, size_t from, size_t to, const char *open,
                      const char *close) {
    tv_str middle = {.data = word->data + from, .n = to - from, .n_chars = TV_UNCOUNTED};
    tv_str tail = {.data = word->data + to, .n = word->n - to, .n_chars = TV_UNCOUNTED};
    size_t n_open = count_of(k->t, &middle, open), n_tail = count_of(k->t, &tail, close);
    if (n_open <= count_of(k->t, &middle, close)) {
        return to;
    }
    const tv_str *needle = tv_literal(k->t, close).str;
    for (size_t i = 0; i < n_open && i < n_tail; i++) {
        to = tx_find(k->t, word, to, word->n, needle) + needle->n;
    }
    return to;
}

static void put_word(linker *k, const tv_str *word) {
    size_t from = 0, to = word->n;
    for (size_t i = 0; heads[i];) {
        tv_str rest = {.data = word->data + from, .n = word->n - from};
        bool found = starts(&rest, heads[i]);
        from += found ? strlen(heads[i]) : 0;
        i = found ? 0 : i + 1;
    }
    for (size_t i = 0; tails[i];) {
        tv_str middle = {.data = word->data + from, .n = to - from};
        bool found = ends(&middle, tails[i]);
        to -= found ? strlen(tails[i]) : 0;
        i = found ? 0 : i + 1;
    }
    to = balance(k, word, from, to, "(", ")");
    to = balance(k, word, from, to, "<", ">");
    to = balance(k, word, from, to, "&lt;", "&gt;");
    tm_text_put(&k->out, word->data, from);
    put_middle(k, tx_piece(k->t, word, from, to).str);
    tm_text_put(&k->out, word->data + to, word->n - to);
}

/* rel="..." and target="...": the words of rel once each, in order. */
static tval link_attributes(tm_core *t, tval rel, bool nofollow, tval target) {
    tval words = tv_seq_new(t, TV_LIST, 0);
    if (rel.type != TV_NONE && tv_truth(t, rel)) {
        words = tx_split(t, tv_want_str(t, rel, "rel"), NULL, -1, false);
    }
    tv_dict *unique = tv_dict_new(t, words.seq->n);
    for (size_t i = 0; i < words.seq->n; i++) {
        tv_dict_put(t, unique, words.seq->items[i], tv_none());
    }
    tv_dict_put(t, unique, tv_literal(t, "noopener"), tv_none());
    if (nofollow) {
        tv_dict_put(t, unique, tv_literal(t, "nofollow"), tv_none());
    }
    const tv_seq *names = tv_items(t, tv_from_dict(unique));
    tm_sort(t, names->items, NULL, names->n, false);
    tm_text b = tm_text_start(t);
    tm_text_puts(&b, " rel=\"");
    tval list = {.type = TV_LIST, .any = (void *)(uintptr_t)names};
    tv_put_str(&b, tm_escape(t, tx_join(t, tv_literal(t, " ").str, list, true)));
    tm_text_putc(&b, '"');
    if (target.type != TV_NONE && tv_truth(t, target)) {
        tm_text_puts(&b, " target=\"");
        tv_put_str(&b, tm_escape(t, target));
        tm_text_putc(&b, '"');
    }
    return tm_text_end(&b);
}

static tval filter_urlize(tm_core *t, const tm_call *c) {
    tval schemes = fl_or(c->arg[4], tv_none());
    linker k = {.t = t, .out = tm_text_start(t)};
    k.limit = fl_or(c->arg[0], tv_none());
    k.attributes =
        link_attributes(t, fl_or(c->arg[3], tv_none()),
                        fl_given(c->arg[1]) && tv_truth(t, c->arg[1]), fl_or(c->arg[2], tv_none()));
    k.schemes = schemes.type == TV_NONE ? tv_seq_new(t, TV_LIST, 0).seq : tv_items(t, schemes);
    pattern scheme = pattern_new(t, scheme_pattern, 0);
    for (size_t i = 0; i < k.schemes->n; i++) {
        if (!matches(&k, &scheme, tv_want_str(t, k.schemes->items[i], "a scheme"))) {
            tm_fail(t, "%s is not a valid URI scheme prefix.",
                    tv_repr_text(t, k.schemes->items[i]));
        }
    }
    k.address = pattern_new(t, address_pattern, PCRE2_CASELESS);
    k.mail = pattern_new(t, mail_pattern, 0);
    const tv_str *s = tm_escape(t, c->self).str;
    for (size_t at = 0; at < s->n;) { /* words, and the blanks between them */
        size_t end = at;
        bool blank = py_is_space(py_char_next(s->data, s->n, &end));
        for (size_t next = end; next < s->n; end = next) {
            if (py_is_space(py_char_next(s->data, s->n, &next)) != blank) {
                break;
            }
        }
        tval part = tv_text_take(t, s->data + at, end - at);
        if (blank) {
            tv_put_str(&k.out, part);
        } else {
            put_word(&k, part.str);
        }
        at = end;
    }
    return tm_text_end(&k.out);
}

static const tm_builtin rows[] = {
    {"wordwrap", filter_wordwrap, "width break_long_words wrapstring break_on_hyphens", 0},
    {"urlize", filter_urlize, "trim_url_limit nofollow target rel extra_schemes", 0},
};
const tm_filter_table tm_wrap_filters = {rows, sizeof rows / sizeof *rows};
