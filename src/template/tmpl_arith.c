/* tmpl_arith.c - the arithmetic operators, for numbers and for what else Python defines them. */
#include "template/tmpl_big.h"
#include "template/tmpl_run.h"

#include <math.h>
#include <string.h>

static const char *symbol_of(nd_kind kind) {
    switch (kind) {
    case ND_ADD:
        return "+";
    case ND_SUB:
        return "-";
    case ND_MUL:
        return "*";
    case ND_DIV:
        return "/";
    case ND_FLOORDIV:
        return "//";
    case ND_MOD:
        return "%";
    default:
        return "** or pow()";
    }
}

static _Noreturn void unsupported(tm_core *t, nd_kind kind, tval a, tval b) {
    if (a.type == TV_UNDEFINED || b.type == TV_UNDEFINED) {
        tv_fail_undefined(t, a.type == TV_UNDEFINED ? a : b);
    }
    bool sequence = a.type == TV_STR || a.type == TV_LIST || a.type == TV_TUPLE;
    if (kind == ND_ADD && sequence) {
        tm_fail(t, "can only concatenate %s (not \"%s\") to %s", tv_type_name(a), tv_type_name(b),
                tv_type_name(a));
    }
    tm_fail(t, "unsupported operand type(s) for %s: '%s' and '%s'", symbol_of(kind),
            tv_type_name(a), tv_type_name(b));
}

/* ---- Sequences ---- */

tval tm_add(tm_core *t, tval a, tval b) {
    if (a.type == TV_STR && b.type == TV_STR) {
        if (a.str->markup || b.str->markup) {
            tval sum = tv_concat(t, tm_escape(t, a), tm_escape(t, b));
            sum.str->markup = true;
            return sum;
        }
        return tv_concat(t, a, b);
    }
    if (a.type == b.type && (a.type == TV_LIST || a.type == TV_TUPLE)) {
        return tv_seq_concat(t, a, b);
    }
    return tm_binary(t, ND_ADD, a, b);
}

static tval repeat_text(tm_core *t, const tv_str *s, int64_t times) {
    tm_text b = tm_text_start(t);
    if (s->n > 0 && times > 0) {
        if ((uint64_t)times > t->max_bytes / s->n) {
            tm_fail_memory(t, t->max_bytes);
        }
        for (int64_t i = 0; i < times; i++) {
            tm_step(t, 1);
            tm_text_put(&b, s->data, s->n);
        }
    }
    tval v = tm_text_end(&b);
    v.str->markup = s->markup;
    return v;
}

static tval repeat_seq(tm_core *t, tval v, int64_t times) {
    size_t n = v.seq->n, count = times > 0 && n > 0 ? (size_t)times : 0;
    if (count && count > t->max_bytes / sizeof(tval) / n) {
        tm_fail_memory(t, t->max_bytes);
    }
    tval out = tv_seq_new(t, v.type, n * count);
    for (size_t i = 0; i < count; i++) {
        tm_step(t, n / 4 + 1);
        tm_copy(out.seq->items + i * n, v.seq->items, n * sizeof(tval));
    }
    return out;
}

static bool is_repeatable(tval v) {
    return v.type == TV_STR || v.type == TV_LIST || v.type == TV_TUPLE;
}

static tval repeat(tm_core *t, tval v, tval times) {
    if (!tv_is_integral(times)) {
        if (times.type == TV_UNDEFINED) {
            tv_fail_undefined(t, times);
        }
        tm_fail(t, "can't multiply sequence by non-int of type '%s'", tv_type_name(times));
    }
    int64_t n = tv_to_index(t, times, false);
    return v.type == TV_STR ? repeat_text(t, v.str, n) : repeat_seq(t, v, n);
}

/* ---- Numbers ---- */

static double float_floor_divide(double a, double b, double *rest) {
    double mod = fmod(a, b), div = (a - mod) / b;
    if (mod != 0) {
        if ((b < 0) != (mod < 0)) {
            mod += b;
            div -= 1.0;
        }
    } else {
        mod = copysign(0.0, b);
    }
    double whole;
    if (div != 0) {
        whole = floor(div);
        whole += div - whole > 0.5 ? 1.0 : 0.0;
    } else {
        whole = copysign(0.0, a / b);
    }
    *rest = mod;
    return whole;
}

static tval float_power(tm_core *t, double a, double b) {
    if (a == 0 && b < 0) {
        tm_fail(t, "0.0 cannot be raised to a negative power");
    }
    if (a < 0 && isfinite(a) && isfinite(b) && b != floor(b)) {
        tm_fail(t, "complex numbers are not supported: %g ** %g", a, b);
    }
    double x = pow(a, b);
    if (isinf(x) && isfinite(a) && isfinite(b)) {
        tm_fail(t, "(34, 'Numerical result out of range')");
    }
    return tv_float(x);
}

static tval float_binary(tm_core *t, nd_kind kind, double a, double b) {
    double rest;
    switch (kind) {
    case ND_ADD:
        return tv_float(a + b);
    case ND_SUB:
        return tv_float(a - b);
    case ND_MUL:
        return tv_float(a * b);
    case ND_POW:
        return float_power(t, a, b);
    default:
        break;
    }
    if (b == 0) {
        tm_fail(t, kind == ND_DIV        ? "float division by zero"
                   : kind == ND_FLOORDIV ? "float floor division by zero"
                                         : "float modulo");
    }
    if (kind == ND_DIV) {
        return tv_float(a / b);
    }
    double whole = float_floor_divide(a, b, &rest);
    return tv_float(kind == ND_MOD ? rest : whole);
}

static tval int_binary(tm_core *t, nd_kind kind, tval a, tval b) {
    tval whole, rest;
    switch (kind) {
    case ND_ADD:
        return int_add(t, a, b);
    case ND_SUB:
        return int_sub(t, a, b);
    case ND_MUL:
        return int_mul(t, a, b);
    case ND_POW:
        if (int_sign(b) < 0) {
            return float_power(t, tv_to_double(t, a), tv_to_double(t, b));
        }
        return int_pow(t, a, b);
    default:
        break;
    }
    if (int_sign(b) == 0) {
        tm_fail(t, kind == ND_DIV ? "division by zero" : "integer division or modulo by zero");
    }
    if (kind == ND_DIV) {
        return tv_float(int_true_divide(t, a, b));
    }
    int_divmod(t, &whole, &rest, a, b);
    return kind == ND_MOD ? rest : whole;
}

/* Set operations of dictionary views have no use in templates. */
tval tm_binary(tm_core *t, nd_kind kind, tval a, tval b) {
    if (tv_is_number(a) && tv_is_number(b)) {
        if (a.type == TV_FLOAT || b.type == TV_FLOAT) {
            return float_binary(t, kind, tv_to_double(t, a), tv_to_double(t, b));
        }
        return int_binary(t, kind, a, b);
    }
    if (kind == ND_MUL && is_repeatable(a)) {
        return repeat(t, a, b);
    }
    if (kind == ND_MUL && is_repeatable(b)) {
        return repeat(t, b, a);
    }
    if (kind == ND_MOD && a.type == TV_STR) {
        return tm_format_percent(t, a, b);
    }
    if (kind == ND_ADD && ((a.type == TV_STR && b.type == TV_STR) ||
                           (a.type == b.type && (a.type == TV_LIST || a.type == TV_TUPLE)))) {
        return tm_add(t, a, b);
    }
    unsupported(t, kind, a, b);
}

tval tm_unary(tm_core *t, nd_kind kind, tval a) {
    if (a.type == TV_FLOAT) {
        return tv_float(kind == ND_NEG ? -a.real : a.real);
    }
    if (tv_is_integral(a)) {
        return kind == ND_NEG ? int_sub(t, tv_int(0), a) : int_add(t, tv_int(0), a);
    }
    if (a.type == TV_UNDEFINED) {
        tv_fail_undefined(t, a);
    }
    tm_fail(t, "bad operand type for unary %s: '%s'", kind == ND_NEG ? "-" : "+", tv_type_name(a));
}
