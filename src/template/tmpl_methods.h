/* tmpl_methods.h - the attributes of Python's builtin types. */
#ifndef JANG_TMPL_METHODS_H
#define JANG_TMPL_METHODS_H

#include "template/tmpl_run.h"

/* The attribute of this name that Python's getattr finds on the value: a method, or a number's
 * part. TV_MISSING if there is none; TV_UNDEFINED, with the sandbox's message, if using it is not
 * allowed (names that start with "_" and whatever changes a list or dict). */
tval tm_type_attr(tm_core *t, tval object, tval name);

extern const tm_builtin tm_str_methods[];
extern const size_t tm_n_str_methods;
/* What Markup has beyond str. */
extern const tm_builtin tm_markup_methods[];
extern const size_t tm_n_markup_methods;

#endif
