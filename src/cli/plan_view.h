/* plan_view.h - the plan of a conversion, or what a model is made of, as a table for people. */
#ifndef JANG_CLI_PLAN_VIEW_H
#define JANG_CLI_PLAN_VIEW_H

#include <jansson.h>

/* Prints to standard output rows (role, tier, bits, tensors, parameters, bytes), notes, and one
 * line with the averages, of what jang_convert and jang_inspect give. Missing members print as
 * nothing or 0. */
void plan_print(const json_t *plan);

/* Prints each of an array of strings (or NULL) as a line of its own. */
void notes_print(const json_t *notes);

#endif
