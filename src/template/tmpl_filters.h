/* tmpl_filters.h - the tables of filters, by subject. */
#ifndef JANG_TMPL_FILTERS_H
#define JANG_TMPL_FILTERS_H

#include "template/tmpl_run.h"

typedef struct tm_filter_table {
    const tm_builtin *rows;
    size_t n;
} tm_filter_table;

extern const tm_filter_table tm_text_filters, tm_seq_filters, tm_lazy_filters, tm_number_filters,
    tm_web_filters, tm_wrap_filters, tm_pprint_filters;

static inline bool fl_given(tval v) {
    return v.type != TV_MISSING;
}
/* The argument, or a default when it was not given. */
static inline tval fl_or(tval v, tval otherwise) {
    return fl_given(v) ? v : otherwise;
}
/* markupsafe's soft_str: text as it is, anything else through str(). */
static inline tv_str *fl_soft_str(tm_core *t, tval v) {
    return v.type == TV_STR ? v.str : tv_to_str(t, v).str;
}

/* An attribute path such as "user.name" or 0, taken apart. */
typedef struct fl_path {
    tval *parts;
    size_t n;
} fl_path;
fl_path fl_path_of(tm_core *t, tval attribute);
/* The item a path leads to; fallback, if given and not None, stands for what is undefined. */
tval fl_follow(tm_core *t, fl_path path, tval item, tval fallback);
/* Text in lower case, anything else as it is. */
tval fl_ignore_case(tm_core *t, tval v);

#endif
