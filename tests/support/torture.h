/* torture.h - work that is repeated with each of its allocations failing in turn. */
#ifndef TEST_TORTURE_H
#define TEST_TORTURE_H

#include "support.h"

/* Whether allocations go on failing after the first that did. */
typedef enum torture_rule { TORTURE_ONE, TORTURE_ALL_AFTER } torture_rule;

/* Does something and undoes it, freeing all it made. */
typedef jang_status (*torture_fn)(ctx_t *ctx, const void *arg);

/* Has the JSON library, too, allocate through the hooks here. Before all tests. Where a single
 * allocation of jansson 2.14's scanner fails it may stop at an assertion of its own (load.c,
 * lex_scan_string), or lose what it had read; so TORTURE_ONE of work that reads JSON comes after:
 */
void torture_json(void);
/* The JSON library allocates by itself again. Nothing that it made may be left. */
void torture_spare_json(void);

/* Runs the work with the first, second, third ... allocation failing until none fails any more.
 * Each time it must have freed what it made, and must return JANG_OK or a message that fits; the
 * last time it must succeed. name stands in messages. */
void torture(const char *name, torture_rule rule, torture_fn work, const void *arg);

/* From here on allocations succeed, in this run of the work: to see what can still be done. */
void torture_relent(void);

#endif
