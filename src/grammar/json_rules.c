/* json_rules.c - the rules of JSON that every grammar begins with.
 *
 * White space is at most one space, or a new line and its indentation: after an opening bracket, a
 * comma or a colon, and before a closing bracket. Models write no more, and one that is allowed
 * endless space may never stop. */
#include "grammar/gr_auto.h"
#include "grammar/gr_chars.h"

#include <string.h>

#define MAX_INDENT 40

static uint32_t text(gr_auto *a, const char *s, uint32_t next) {
    return gr_text(a, s, strlen(s), next);
}

static uint32_t hex_digit(gr_auto *a, uint32_t next) {
    uint32_t letters = gr_split(a, gr_range(a, 'a', 'f', next), gr_range(a, 'A', 'F', next));
    return gr_split(a, gr_range(a, '0', '9', next), letters);
}

/* \u and four digits, first a letter of these two, then a digit or letter of those. */
static uint32_t surrogate(gr_auto *a, const char *seconds, uint32_t next) {
    uint32_t rest = hex_digit(a, hex_digit(a, next));
    uint32_t second = 0;
    for (; *seconds; seconds++) {
        unsigned c = (unsigned char)*seconds;
        second = gr_split(a, gr_range(a, c, c, rest), second);
    }
    return text(a, "\\u",
                gr_split(a, gr_range(a, 'd', 'd', second), gr_range(a, 'D', 'D', second)));
}

/* \u and a character that is no half of a pair, or both halves. */
static uint32_t unicode_escape(gr_auto *a, uint32_t next) {
    uint32_t two = hex_digit(a, hex_digit(a, next));
    uint32_t three = hex_digit(a, two);
    uint32_t first = gr_range(a, '0', '9', three);
    first = gr_split(a, first, gr_range(a, 'a', 'c', three));
    first = gr_split(a, first, gr_range(a, 'A', 'C', three));
    first = gr_split(a, first, gr_range(a, 'e', 'f', three));
    first = gr_split(a, first, gr_range(a, 'E', 'F', three));
    uint32_t below = gr_range(a, '0', '7', two);
    first = gr_split(a, first, gr_range(a, 'd', 'd', below));
    first = gr_split(a, first, gr_range(a, 'D', 'D', below));
    uint32_t pair = surrogate(a, "89abAB", surrogate(a, "cdefCDEF", next));
    return gr_split(a, text(a, "\\u", first), pair);
}

uint32_t gr_json_char(gr_auto *a, uint32_t next) {
    static const gr_span wide[] = {{0x80, 0x10ffff}};
    uint32_t plain = gr_range(a, 0x20, 0x21, next);
    if (plain) {
        a->nodes[plain].flags |= GR_PLAIN;
    }
    plain = gr_split(a, plain, gr_range(a, 0x23, 0x5b, next));
    plain = gr_split(a, plain, gr_range(a, 0x5d, 0x7f, next));
    plain = gr_split(a, plain, gr_utf8(a, wide, 1, next));
    uint32_t escaped = 0;
    for (const char *c = "\"\\/bfnrt"; *c; c++) {
        escaped = gr_split(a, gr_range(a, (unsigned)*c, (unsigned)*c, next), escaped);
    }
    return gr_split(a, plain, gr_split(a, text(a, "\\", escaped), unicode_escape(a, next)));
}

uint32_t gr_json_gap(gr_auto *a, uint32_t next) {
    return gr_split(a, next, gr_range(a, ' ', ' ', next));
}

uint32_t gr_json_text(gr_auto *a, const char *s, size_t n, uint32_t next) {
    next = gr_range(a, '"', '"', next);
    for (size_t i = n; i > 0; i--) {
        char escape[8];
        next = gr_text(a, escape, gr_json_escape(escape, (unsigned char)s[i - 1]), next);
    }
    return gr_range(a, '"', '"', next);
}

static void space_rule(gr_auto *a, uint32_t rule) {
    uint32_t end = gr_final(a), indent = end;
    for (int i = 0; i < MAX_INDENT; i++) {
        uint32_t more = gr_split(a, gr_range(a, ' ', ' ', indent), gr_range(a, '\t', '\t', indent));
        indent = gr_split(a, end, more);
    }
    uint32_t some = gr_split(a, gr_range(a, ' ', ' ', end), gr_range(a, '\n', '\n', indent));
    gr_rule_set(a, rule, gr_split(a, end, some));
}

static void string_rules(gr_auto *a, gr_json *j) {
    uint32_t loop = gr_place(a);
    gr_fill(a, loop, gr_json_char(a, loop), gr_range(a, '"', '"', gr_final(a)));
    gr_rule_set(a, j->string, gr_range(a, '"', '"', loop));
    uint32_t counted = gr_place(a);
    uint32_t close = gr_check(a, gr_range(a, '"', '"', gr_final(a)));
    gr_fill(a, counted, gr_count(a, gr_json_char(a, counted)), close);
    gr_rule_set(a, j->counted, gr_range(a, '"', '"', counted));
}

static uint32_t digits(gr_auto *a, uint32_t next) {
    uint32_t loop = gr_place(a);
    uint32_t digit = gr_range(a, '0', '9', loop);
    gr_fill(a, loop, digit, next);
    return digit;
}

static uint32_t whole(gr_auto *a, uint32_t next) {
    uint32_t loop = gr_place(a);
    gr_fill(a, loop, gr_range(a, '0', '9', loop), next);
    uint32_t unsign = gr_split(a, gr_range(a, '0', '0', next), gr_range(a, '1', '9', loop));
    return gr_split(a, unsign, gr_range(a, '-', '-', unsign));
}

static void number_rules(gr_auto *a, gr_json *j) {
    uint32_t end = gr_final(a);
    gr_rule_set(a, j->integer, whole(a, end));
    uint32_t power = digits(a, end);
    uint32_t sign = gr_split(a, gr_range(a, '+', '+', power), gr_range(a, '-', '-', power));
    power = gr_split(a, power, sign);
    power = gr_split(a, gr_range(a, 'e', 'e', power), gr_range(a, 'E', 'E', power));
    uint32_t tail = gr_split(a, end, power);
    tail = gr_split(a, tail, gr_range(a, '.', '.', digits(a, tail)));
    gr_rule_set(a, j->number, whole(a, tail));
}

/* open (item (, item)*)? close, where member(next) writes an item. */
static void list_rule(gr_auto *a, const gr_json *j, uint32_t rule, const char *brackets,
                      uint32_t (*item)(gr_auto *, const gr_json *, uint32_t)) {
    uint32_t close = gr_range(a, (unsigned)brackets[1], (unsigned)brackets[1], gr_final(a));
    uint32_t after = gr_place(a);
    uint32_t one = item(a, j, after);
    gr_fill(a, after, gr_range(a, ',', ',', gr_call_rule(a, j->space, one)),
            gr_call_rule(a, j->space, close));
    uint32_t inside = gr_call_rule(a, j->space, gr_split(a, one, close));
    gr_rule_set(a, rule, gr_range(a, (unsigned)brackets[0], (unsigned)brackets[0], inside));
}

static uint32_t element(gr_auto *a, const gr_json *j, uint32_t next) {
    return gr_call_rule(a, j->value, next);
}

static uint32_t member(gr_auto *a, const gr_json *j, uint32_t next) {
    uint32_t value = gr_json_gap(a, gr_call_rule(a, j->value, next));
    return gr_call_rule(a, j->string, gr_range(a, ':', ':', value));
}

void gr_json_rules(gr_auto *a, gr_json *j, bool python) {
    uint32_t *rules[] = {&j->space,   &j->string, &j->counted, &j->number, &j->integer,
                         &j->boolean, &j->null,   &j->value,   &j->object, &j->array};
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        *rules[i] = gr_rule_new(a);
    }
    j->python = python;
    space_rule(a, j->space);
    string_rules(a, j);
    number_rules(a, j);
    uint32_t end = gr_final(a);
    gr_rule_set(a, j->null, text(a, python ? "None" : "null", end));
    gr_rule_set(a, j->boolean,
                gr_split(a, text(a, python ? "True" : "true", end),
                         text(a, python ? "False" : "false", end)));
    list_rule(a, j, j->array, "[]", element);
    list_rule(a, j, j->object, "{}", member);
    uint32_t any = gr_call_rule(a, j->string, end);
    uint32_t others[] = {j->number, j->boolean, j->null, j->object, j->array};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        any = gr_split(a, any, gr_call_rule(a, others[i], end));
    }
    gr_rule_set(a, j->value, any);
}
