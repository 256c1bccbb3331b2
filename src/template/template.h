/* template.h - chat templates: a Jinja engine set up as transformers sets up Python's.
 *
 * trim_blocks and lstrip_blocks are on, autoescape is off; raise_exception, strftime_now, tojson
 * with transformers' arguments, loop controls and {% generation %} are there; include and import
 * are refused. A template is hostile until proven otherwise: steps, depth and output are limited.
 *
 * A compiled template is immutable; any number of threads may render it at once. */
#ifndef JANG_TEMPLATE_H
#define JANG_TEMPLATE_H

#include "base/buf.h"
#include "base/json.h"

typedef struct tmpl tmpl;

/* Compiles. name stands in messages, which read "name: line 3, column 7: ...". */
JANG_MUST_CHECK jang_status tmpl_compile(tmpl **out, ctx_t *ctx, const char *name, const char *text,
                                         size_t n_bytes);
void tmpl_free(tmpl *t);

/* Appends the rendering. context is a JSON object: its members are the template's variables.
 * JANG_ERR_FORMAT when the template raises (its own message after the position), when an operation
 * fails, or when a limit is passed. */
JANG_MUST_CHECK jang_status tmpl_render(const tmpl *t, buf *out, const json_t *context);

#endif
