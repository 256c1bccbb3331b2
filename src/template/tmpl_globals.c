/* tmpl_globals.c - the functions that every template can call. */
#include "template/tmpl_big.h"
#include "template/tmpl_run.h"

#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

#define MAX_RANGE 100000 /* the sandbox's limit */

static tval global_range(tm_core *t, const tm_call *c) {
    int64_t start = 0, stop, step = 1;
    for (size_t i = 0; i < 3; i++) {
        if (c->arg[i].type == TV_BIG) {
            tm_fail(t, "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).",
                    MAX_RANGE);
        }
    }
    if (c->arg[1].type == TV_MISSING) {
        stop = tv_to_index(t, c->arg[0], false);
    } else {
        start = tv_to_index(t, c->arg[0], false);
        stop = tv_to_index(t, c->arg[1], false);
        step = c->arg[2].type == TV_MISSING ? 1 : tv_to_index(t, c->arg[2], false);
    }
    if (step == 0) {
        tm_fail(t, "range() arg 3 must not be zero");
    }
    uint64_t span = 0, by = step > 0 ? (uint64_t)step : 0 - (uint64_t)step;
    if (step > 0 && start < stop) {
        span = (uint64_t)stop - (uint64_t)start;
    } else if (step < 0 && start > stop) {
        span = (uint64_t)start - (uint64_t)stop;
    }
    uint64_t n = span ? (span - 1) / by + 1 : 0;
    if (n > MAX_RANGE) {
        tm_fail(t, "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).",
                MAX_RANGE);
    }
    tv_range *r = tm_alloc(t, sizeof *r);
    *r = (tv_range){.start = start, .stop = stop, .step = step, .n = (size_t)n};
    return (tval){.type = TV_RANGE, .range = r};
}

/* dict(mapping or pairs, name=value ...) */
static tv_dict *make_dict(tm_core *t, const tm_args *given, const char *what) {
    if (given->n > 1) {
        tm_fail(t, "%s expected at most 1 argument, got %zu", what, given->n);
    }
    tv_dict *d = tv_dict_new(t, given->n_named);
    if (given->n == 1 && given->positional[0].type == TV_DICT) {
        const tv_dict *from = given->positional[0].dict;
        for (size_t i = 0; i < from->n; i++) {
            tm_step(t, 1);
            tv_dict_put(t, d, from->entries[i].key, from->entries[i].value);
        }
    } else if (given->n == 1 && given->positional[0].type == TV_UNDEFINED) {
        tv_fail_undefined(t, given->positional[0]);
    } else if (given->n == 1) {
        tv_iter *it = tv_iterate(t, given->positional[0]);
        for (tval pair; tv_next(t, it, &pair);) {
            const tv_seq *two = tv_items(t, pair);
            if (two->n != 2) {
                tm_fail(t, "dictionary update sequence element has length %zu; 2 is required",
                        two->n);
            }
            tv_dict_put(t, d, two->items[0], two->items[1]);
        }
    }
    for (size_t i = 0; i < given->n_named; i++) {
        tv_dict_put(t, d, given->named[i].name, given->named[i].value);
    }
    return d;
}

static tval global_dict(tm_core *t, const tm_call *c) {
    return tv_from_dict(make_dict(t, c->given, "dict"));
}

static tval global_namespace(tm_core *t, const tm_call *c) {
    tv_namespace *ns = tm_alloc(t, sizeof *ns);
    ns->attrs = make_dict(t, c->given, "dict");
    for (size_t i = 0; i < ns->attrs->n; i++) {
        tval key = ns->attrs->entries[i].key;
        if (key.type == TV_STR && key.str->n && key.str->data[0] == '_') {
            tm_fail(t,
                    "Chat templates cannot store underscore-prefixed attributes on a namespace, "
                    "but got %s. Please rename the attribute.",
                    tv_repr_text(t, key));
        }
    }
    return (tval){.type = TV_NAMESPACE, .ns = ns};
}

static tval global_cycler(tm_core *t, const tm_call *c) {
    if (c->given->n == 0) {
        tm_fail(t, "at least one item has to be provided");
    }
    if (c->given->n_named) {
        tm_fail(t, "cycler() takes no keyword arguments");
    }
    tval items = tv_seq_new(t, TV_TUPLE, c->given->n);
    tm_copy(items.seq->items, c->given->positional, c->given->n * sizeof(tval));
    tv_cycler *cycler = tm_alloc(t, sizeof *cycler);
    *cycler = (tv_cycler){.items = items.seq};
    return (tval){.type = TV_CYCLER, .cycler = cycler};
}

static tval global_joiner(tm_core *t, const tm_call *c) {
    tv_joiner *joiner = tm_alloc(t, sizeof *joiner);
    bool given = c->arg[0].type != TV_MISSING;
    *joiner = (tv_joiner){.separator = given ? c->arg[0] : tv_literal(t, ", ")};
    return (tval){.type = TV_JOINER, .joiner = joiner};
}

static tval global_lipsum(tm_core *t, const tm_call *c) {
    (void)c;
    tm_fail(t, "lipsum() is not supported: it gives random text");
}

static tval global_raise_exception(tm_core *t, const tm_call *c) {
    const tv_str *s = tv_to_str(t, c->arg[0]).str;
    tm_fail(t, "%.*s", (int)(s->n < 100000 ? s->n : 100000), s->data);
}

/* One "%x" of a format; what C's strftime lacks is Python's. */
static void put_time(tm_text *b, const struct tm *now, long microseconds, const char *spec) {
    char text[256];
    size_t n = 0;
    if (spec[1] == 'f') {
        n = (size_t)snprintf(text, sizeof text, "%06ld", microseconds);
    } else if (spec[1] != 'z' && spec[1] != 'Z') { /* the time has no zone in Python */
        n = strftime(text, sizeof text, spec, now);
    }
    tm_text_put(b, text, n);
}

static tval global_strftime_now(tm_core *t, const tm_call *c) {
    const tv_str *format = tv_want_str(t, c->arg[0], "strftime() argument 1");
    struct timeval clock;
    struct tm now;
    gettimeofday(&clock, NULL);
    localtime_r(&clock.tv_sec, &now);
    tm_text b = tm_text_start(t);
    for (size_t i = 0; i < format->n; i++) {
        const char *p = format->data + i;
        size_t left = format->n - i;
        if (p[0] != '%' || left < 2) {
            tm_text_putc(&b, p[0]);
            continue;
        }
        bool modified = left >= 3 && (p[1] == '-' || p[1] == 'E' || p[1] == 'O' || p[1] == '_' ||
                                      p[1] == '0' || p[1] == '^' || p[1] == '#');
        char spec[4] = {'%', p[1], modified ? p[2] : 0, 0};
        put_time(&b, &now, (long)clock.tv_usec, spec);
        i += modified ? 2 : 1;
    }
    return tm_text_end(&b);
}

static const tm_builtin globals[] = {
    {"range", global_range, "/ start stop step", 1},
    {"dict", global_dict, "*", 0},
    {"namespace", global_namespace, "*", 0},
    {"cycler", global_cycler, "*", 0},
    {"joiner", global_joiner, "sep", 0},
    {"lipsum", global_lipsum, "*", 0},
    {"raise_exception", global_raise_exception, "message", 1},
    {"strftime_now", global_strftime_now, "format", 1},
};

const tm_builtin *tm_find_global(tval name) {
    return tm_find_row(globals, sizeof globals / sizeof *globals, name);
}
