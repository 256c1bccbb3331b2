/* tmpl_access.c - x.name, x[key] and x[start:stop:step].
 *
 * As in jinja2's sandbox: x.name asks for the attribute first and then the item, x["name"] the
 * other way round; what neither finds is undefined. Slices are Python's own and fail. */
#include "template/pyunicode.h"
#include "template/tmpl_methods.h"

#include <string.h>

/* obj[key] as Python has it; TV_MISSING for what would raise TypeError or LookupError. */
static tval get_own_item(tm_core *t, tval object, tval key) {
    switch (object.type) {
    case TV_DICT: {
        const tval *value = tv_hashable(t, key) ? tv_dict_get(t, object.dict, key) : NULL;
        return value ? *value : tv_missing();
    }
    case TV_LIST:
    case TV_TUPLE:
    case TV_STR:
    case TV_RANGE: {
        size_t n = 0;
        if (key.type != TV_INT && key.type != TV_BOOL) {
            return tv_missing();
        }
        tv_length(t, object, &n);
        int64_t i = key.type == TV_INT ? key.integer : key.boolean;
        i += i < 0 ? (int64_t)n : 0;
        if (i < 0 || (uint64_t)i >= n) {
            return tv_missing();
        }
        if (object.type == TV_STR) {
            return tv_substr(t, object.str, (size_t)i, (size_t)i + 1);
        }
        if (object.type == TV_RANGE) {
            return tv_int(object.range->start + object.range->step * i);
        }
        return object.seq->items[i];
    }
    case TV_UNDEFINED:
        tv_fail_undefined(t, object);
    case TV_BLOCK: {
        for (const nd_block *b = object.block->def ? NULL : t->run->tree->blocks; b; b = b->next) {
            if (key.type == TV_STR && tv_str_equal(b->name.str, key.str)) {
                tv_block *block = tm_alloc(t, sizeof *block);
                block->def = b;
                return (tval){.type = TV_BLOCK, .block = block};
            }
        }
        return tv_missing();
    }
    default:
        return tv_missing();
    }
}

tval tm_get_attr(tm_core *t, tval object, tval name) {
    tval v = tm_type_attr(t, object, name);
    if (v.type == TV_MISSING) {
        v = get_own_item(t, object, name);
    }
    return v.type == TV_MISSING ? tv_undefined_attr(t, object, name) : v;
}

tval tm_get_item(tm_core *t, tval object, tval key) {
    tval v = get_own_item(t, object, key);
    if (v.type == TV_MISSING && key.type == TV_STR) {
        v = tm_type_attr(t, object, key);
    }
    return v.type == TV_MISSING ? tv_undefined_attr(t, object, key) : v;
}

/* ---- Slices ---- */

static int64_t slice_part(tm_core *t, tval v, int64_t otherwise) {
    if (v.type == TV_NONE || v.type == TV_MISSING) {
        return otherwise;
    }
    if (!tv_is_integral(v)) {
        tm_fail(t, "slice indices must be integers or None or have an __index__ method");
    }
    return tv_to_index(t, v, true);
}

/* A bound brought into the range of positions. */
static int64_t clamp(int64_t i, int64_t n, int64_t low, int64_t high) {
    if (i < 0) {
        i = i < -n ? low : i + n;
    }
    return i < low ? low : i > high ? high : i;
}

typedef struct slice {
    int64_t start, stop, step;
    size_t n;
} slice;

static slice slice_of(tm_core *t, int64_t n, tval start, tval stop, tval step) {
    int64_t by = slice_part(t, step, 1);
    if (by == 0) {
        tm_fail(t, "slice step cannot be zero");
    }
    int64_t low = by < 0 ? -1 : 0, high = by < 0 ? n - 1 : n;
    bool no_start = start.type == TV_NONE || start.type == TV_MISSING;
    bool no_stop = stop.type == TV_NONE || stop.type == TV_MISSING;
    int64_t from = no_start ? (by < 0 ? high : low) : clamp(slice_part(t, start, 0), n, low, high);
    int64_t to = no_stop ? (by < 0 ? low : high) : clamp(slice_part(t, stop, 0), n, low, high);
    slice s = {.start = from, .stop = to, .step = by};
    if (by > 0 && from < to) {
        s.n = (size_t)((to - from - 1) / by + 1);
    } else if (by < 0 && from > to) {
        s.n = (size_t)((uint64_t)(from - to - 1) / (0 - (uint64_t)by) + 1);
    }
    return s;
}

static tval slice_text(tm_core *t, tv_str *s, slice part) {
    if (part.step == 1) {
        return tv_substr(t, s, (size_t)part.start, (size_t)part.start + part.n);
    }
    bool ascii = tv_n_chars(s) == s->n;
    size_t *starts = NULL;
    if (!ascii && part.n) { /* where each character begins */
        starts = tm_array(t, s->n_chars + 1, sizeof *starts);
        size_t k = 0;
        for (size_t at = 0; at < s->n; py_char_next(s->data, s->n, &at)) {
            starts[k++] = at;
        }
        starts[k] = s->n;
    }
    tm_text b = tm_text_start(t);
    for (size_t k = 0; k < part.n; k++) {
        size_t i = (size_t)(part.start + (int64_t)k * part.step);
        tm_step(t, 1);
        if (ascii) {
            tm_text_putc(&b, s->data[i]);
        } else {
            tm_text_put(&b, s->data + starts[i], starts[i + 1] - starts[i]);
        }
    }
    tval v = tm_text_end(&b);
    v.str->markup = s->markup;
    return v;
}

tval tm_slice(tm_core *t, tval object, tval start, tval stop, tval step) {
    size_t n;
    switch (object.type) {
    case TV_STR:
    case TV_LIST:
    case TV_TUPLE:
    case TV_RANGE:
        tv_length(t, object, &n);
        break;
    case TV_UNDEFINED:
        tv_fail_undefined(t, object);
    case TV_DICT:
        tm_fail(t, "unhashable type: 'slice'");
    default:
        tm_fail(t, "'%s' object is not subscriptable", tv_type_name(object));
    }
    slice part = slice_of(t, (int64_t)n, start, stop, step);
    if (object.type == TV_STR) {
        return slice_text(t, object.str, part);
    }
    if (object.type == TV_RANGE) {
        const tv_range *r = object.range;
        tv_range *out = tm_alloc(t, sizeof *out);
        out->start = r->start + part.start * r->step;
        out->step = (int64_t)((uint64_t)r->step * (uint64_t)part.step);
        out->n = part.n;
        out->stop = r->start + part.stop * r->step;
        return (tval){.type = TV_RANGE, .range = out};
    }
    tval out = tv_seq_new(t, object.type, part.n);
    for (size_t k = 0; k < part.n; k++) {
        out.seq->items[k] = object.seq->items[part.start + (int64_t)k * part.step];
    }
    return out;
}
