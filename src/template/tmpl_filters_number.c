/* tmpl_filters_number.c - filters on numbers. */
#include "template/tmpl_big.h"
#include "template/tmpl_filters.h"
#include "template/tmpl_number.h"

#include <math.h>
#include <stdio.h>

static tval filter_abs(tm_core *t, const tm_call *c) {
    if (c->self.type == TV_FLOAT) {
        return tv_float(fabs(c->self.real));
    }
    if (!tv_is_integral(c->self)) {
        if (c->self.type == TV_UNDEFINED) {
            tv_fail_undefined(t, c->self);
        }
        tm_fail(t, "bad operand type for abs(): '%s'", tv_type_name(c->self));
    }
    return int_sign(c->self) < 0 ? int_sub(t, tv_int(0), c->self) : int_add(t, tv_int(0), c->self);
}

/* The integer part of a float; false where Python raises and the filter's default takes over. */
static bool truncate_float(tm_core *t, double x, tval *out) {
    if (isfinite(x)) {
        *out = int_from_double(t, x);
    }
    return isfinite(x);
}

static tval filter_int(tm_core *t, const tm_call *c) {
    tval v = c->self, otherwise = fl_or(c->arg[0], tv_int(0)), out;
    if (v.type == TV_UNDEFINED) {
        tv_fail_undefined(t, v);
    }
    if (tv_is_integral(v)) {
        return int_add(t, v, tv_int(0));
    }
    if (v.type == TV_FLOAT) {
        if (isinf(v.real)) {
            tm_fail(t, "cannot convert float infinity to integer");
        }
        return truncate_float(t, v.real, &out) ? out : otherwise;
    }
    if (v.type != TV_STR) {
        return otherwise;
    }
    tval base = fl_or(c->arg[1], tv_int(10));
    int64_t b = tv_is_integral(base) ? tv_to_index(t, base, true) : -1;
    if ((b == 0 || (b >= 2 && b <= 36)) && nm_parse_int(t, v.str, (unsigned)b, &out)) {
        return out;
    }
    double x;
    return nm_parse_float(t, v.str, &x) && truncate_float(t, x, &out) ? out : otherwise;
}

static tval filter_float(tm_core *t, const tm_call *c) {
    tval v = c->self;
    double x;
    if (v.type == TV_UNDEFINED) {
        tv_fail_undefined(t, v);
    }
    if (tv_is_number(v)) {
        return tv_float(tv_to_double(t, v));
    }
    if (v.type == TV_STR && nm_parse_float(t, v.str, &x)) {
        return tv_float(x);
    }
    return fl_or(c->arg[0], tv_float(0));
}

static tval filter_round(tm_core *t, const tm_call *c) {
    tval method = fl_or(c->arg[1], tv_literal(t, "common"));
    tval places = fl_or(c->arg[0], tv_int(0));
    if (tv_str_is(method, "common")) {
        if (places.type == TV_NONE && c->self.type == TV_FLOAT) {
            double whole = rint(c->self.real);
            if (!isfinite(whole)) {
                tm_fail(t, "cannot convert float %s to integer", isnan(whole) ? "NaN" : "infinity");
            }
            return int_from_double(t, whole);
        }
        places = places.type == TV_NONE && tv_is_integral(c->self) ? tv_int(0) : places;
        return nm_round(t, c->self, tv_to_index(t, places, true));
    }
    bool up = tv_str_is(method, "ceil");
    if (!up && !tv_str_is(method, "floor")) {
        tm_fail(t, "method must be common, ceil or floor");
    }
    tval scale = tm_binary(t, ND_POW, tv_int(10), places);
    tval scaled = tm_binary(t, ND_MUL, c->self, scale);
    if (scaled.type == TV_FLOAT) {
        double whole = up ? ceil(scaled.real) : floor(scaled.real);
        if (!isfinite(whole)) {
            tm_fail(t, "cannot convert float %s to integer", isnan(whole) ? "NaN" : "infinity");
        }
        scaled = int_from_double(t, whole);
    } else if (!tv_is_integral(scaled)) {
        tm_fail(t, "must be real number, not %s", tv_type_name(scaled));
    }
    return tm_binary(t, ND_DIV, scaled, scale);
}

static tval filter_filesizeformat(tm_core *t, const tm_call *c) {
    static const char *const decimal[] = {"kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"};
    static const char *const binary[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"};
    bool is_binary = fl_given(c->arg[0]) && tv_truth(t, c->arg[0]);
    double bytes, base = is_binary ? 1024 : 1000;
    if (tv_is_number(c->self)) {
        bytes = tv_to_double(t, c->self);
    } else if (c->self.type == TV_UNDEFINED) {
        tv_fail_undefined(t, c->self);
    } else if (c->self.type != TV_STR) {
        tm_fail(t, "float() argument must be a string or a real number, not '%s'",
                tv_type_name(c->self));
    } else if (!nm_parse_float(t, c->self.str, &bytes)) {
        tm_fail(t, "could not convert string to float: %s", tv_repr_text(t, c->self));
    }
    if (bytes == 1) {
        return tv_literal(t, "1 Byte");
    }
    if (bytes < base) {
        tval whole;
        if (!truncate_float(t, bytes, &whole)) {
            tm_fail(t, "cannot convert float infinity to integer");
        }
        tm_text b = tm_text_start(t);
        tv_put_str(&b, whole);
        tm_text_puts(&b, " Bytes");
        return tm_text_end(&b);
    }
    double unit = base;
    for (size_t i = 0;; i++) {
        unit *= base;
        if (bytes < unit || i == 7) {
            tval size = tm_format_percent(t, tv_literal(t, "%.1f"), tv_float(base * bytes / unit));
            tval text = tv_concat(t, size, tv_literal(t, " "));
            return tv_concat(t, text, tv_literal(t, is_binary ? binary[i] : decimal[i]));
        }
    }
}

static const tm_builtin rows[] = {
    {"abs", filter_abs, "/", 0},
    {"int", filter_int, "default base", 0},
    {"float", filter_float, "default", 0},
    {"round", filter_round, "precision method", 0},
    {"filesizeformat", filter_filesizeformat, "binary", 0},
};
const tm_filter_table tm_number_filters = {rows, sizeof rows / sizeof *rows};
