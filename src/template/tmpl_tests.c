/* tmpl_tests.c - Jinja's tests: "x is odd". */
#include "template/pyunicode.h"
#include "template/tmpl_run.h"

static tval test_remainder(tm_core *t, tval v, tval divisor, int64_t wanted) {
    return tv_bool(tv_equal(t, tm_binary(t, ND_MOD, v, divisor), tv_int(wanted)));
}

static tval test_odd(tm_core *t, const tm_call *c) {
    return test_remainder(t, c->self, tv_int(2), 1);
}

static tval test_even(tm_core *t, const tm_call *c) {
    return test_remainder(t, c->self, tv_int(2), 0);
}

static tval test_divisibleby(tm_core *t, const tm_call *c) {
    return test_remainder(t, c->self, c->arg[0], 0);
}

static tval test_defined(tm_core *t, const tm_call *c) {
    (void)t;
    return tv_bool(c->self.type != TV_UNDEFINED);
}

static tval test_undefined(tm_core *t, const tm_call *c) {
    (void)t;
    return tv_bool(c->self.type == TV_UNDEFINED);
}

static void want_hashable(tm_core *t, tval v) {
    if (!tv_hashable(t, v)) {
        tm_fail(t, "unhashable type: '%s'", tv_type_name(v));
    }
}

static tval test_filter(tm_core *t, const tm_call *c) {
    want_hashable(t, c->self);
    return tv_bool(tm_find_filter(c->self) != NULL);
}

static tval test_test(tm_core *t, const tm_call *c) {
    want_hashable(t, c->self);
    return tv_bool(tm_find_test(c->self) != NULL);
}

static tval test_none(tm_core *t, const tm_call *c) {
    (void)t;
    return tv_bool(c->self.type == TV_NONE);
}

static tval test_boolean(tm_core *t, const tm_call *c) {
    (void)t;
    return tv_bool(c->self.type == TV_BOOL);
}

static tval test_false(tm_core *t, const tm_call *c) {
    (void)t;
    return tv_bool(c->self.type == TV_BOOL && !c->self.boolean);
}

static tval test_true(tm_core *t, const tm_call *c) {
    (void)t;
    return tv_bool(c->self.type == TV_BOOL && c->self.boolean);
}

static tval test_integer(tm_core *t, const tm_call *c) {
    (void)t;
    return tv_bool(c->self.type == TV_INT || c->self.type == TV_BIG);
}

static tval test_float(tm_core *t, const tm_call *c) {
    (void)t;
    return tv_bool(c->self.type == TV_FLOAT);
}

static tval test_number(tm_core *t, const tm_call *c) {
    (void)t;
    return tv_bool(tv_is_number(c->self));
}

static tval test_string(tm_core *t, const tm_call *c) {
    (void)t;
    return tv_bool(c->self.type == TV_STR);
}

static tval test_mapping(tm_core *t, const tm_call *c) {
    (void)t;
    return tv_bool(c->self.type == TV_DICT);
}

/* What has a length and items by number or key. */
static tval test_sequence(tm_core *t, const tm_call *c) {
    (void)t;
    switch (c->self.type) {
    case TV_STR:
    case TV_LIST:
    case TV_TUPLE:
    case TV_DICT:
    case TV_RANGE:
    case TV_UNDEFINED:
        return tv_bool(true);
    default:
        return tv_bool(false);
    }
}

static tval test_iterable(tm_core *t, const tm_call *c) {
    (void)t;
    return tv_bool(tv_iterable(c->self));
}

static tval test_callable(tm_core *t, const tm_call *c) {
    (void)t;
    return tv_bool(tm_is_callable(c->self));
}

static tval test_sameas(tm_core *t, const tm_call *c) {
    (void)t;
    return tv_bool(tv_same(c->self, c->arg[0]));
}

static tval test_escaped(tm_core *t, const tm_call *c) {
    (void)t;
    return tv_bool(c->self.type == TV_STR && c->self.str->markup);
}

static tval test_in(tm_core *t, const tm_call *c) {
    return tv_bool(tv_contains(t, c->arg[0], c->self));
}

/* Whether all cased characters have this case and there is one. */
static bool all_cased(tm_core *t, tval v, bool (*is)(uint32_t c)) {
    const tv_str *s = tv_to_str(t, v).str;
    bool any = false;
    for (size_t at = 0; at < s->n;) {
        uint32_t c = py_char_next(s->data, s->n, &at);
        tm_step(t, 1);
        if (py_is_cased(c) && !is(c)) {
            return false;
        }
        any |= is(c);
    }
    return any;
}

static tval test_lower(tm_core *t, const tm_call *c) {
    return tv_bool(all_cased(t, c->self, py_is_lower));
}

static tval test_upper(tm_core *t, const tm_call *c) {
    return tv_bool(all_cased(t, c->self, py_is_upper));
}

static tval test_eq(tm_core *t, const tm_call *c) {
    return tv_bool(tv_equal(t, c->self, c->arg[0]));
}

static tval test_ne(tm_core *t, const tm_call *c) {
    return tv_bool(!tv_equal(t, c->self, c->arg[0]));
}

static tval test_lt(tm_core *t, const tm_call *c) {
    return tv_bool(tv_compare(t, TV_LT, c->self, c->arg[0]));
}

static tval test_le(tm_core *t, const tm_call *c) {
    return tv_bool(tv_compare(t, TV_LE, c->self, c->arg[0]));
}

static tval test_gt(tm_core *t, const tm_call *c) {
    return tv_bool(tv_compare(t, TV_GT, c->self, c->arg[0]));
}

static tval test_ge(tm_core *t, const tm_call *c) {
    return tv_bool(tv_compare(t, TV_GE, c->self, c->arg[0]));
}

static const tm_builtin tests[] = {
    {"odd", test_odd, "", 0},
    {"even", test_even, "", 0},
    {"divisibleby", test_divisibleby, "num", 1},
    {"defined", test_defined, "", 0},
    {"undefined", test_undefined, "", 0},
    {"filter", test_filter, "", 0},
    {"test", test_test, "", 0},
    {"none", test_none, "", 0},
    {"boolean", test_boolean, "", 0},
    {"false", test_false, "", 0},
    {"true", test_true, "", 0},
    {"integer", test_integer, "", 0},
    {"float", test_float, "", 0},
    {"lower", test_lower, "", 0},
    {"upper", test_upper, "", 0},
    {"string", test_string, "", 0},
    {"mapping", test_mapping, "", 0},
    {"number", test_number, "", 0},
    {"sequence", test_sequence, "", 0},
    {"iterable", test_iterable, "", 0},
    {"callable", test_callable, "/", 0},
    {"sameas", test_sameas, "other", 1},
    {"escaped", test_escaped, "", 0},
    {"in", test_in, "seq", 1},
    {"==", test_eq, "/ other", 1},
    {"eq", test_eq, "/ other", 1},
    {"equalto", test_eq, "/ other", 1},
    {"!=", test_ne, "/ other", 1},
    {"ne", test_ne, "/ other", 1},
    {">", test_gt, "/ other", 1},
    {"gt", test_gt, "/ other", 1},
    {"greaterthan", test_gt, "/ other", 1},
    {">=", test_ge, "/ other", 1},
    {"ge", test_ge, "/ other", 1},
    {"<", test_lt, "/ other", 1},
    {"lt", test_lt, "/ other", 1},
    {"lessthan", test_lt, "/ other", 1},
    {"<=", test_le, "/ other", 1},
    {"le", test_le, "/ other", 1},
};

const tm_builtin *tm_find_test(tval name) {
    return tm_find_row(tests, sizeof tests / sizeof *tests, name);
}
