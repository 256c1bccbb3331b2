/* eval_report.h - a comparison of models as one HTML page that needs nothing else. */
#ifndef JANG_CLI_EVAL_REPORT_H
#define JANG_CLI_EVAL_REPORT_H

#include <jansson.h>
#include <stdbool.h>

/* Writes DIRECTORY/index.html and results.json; the directory is made where there is none. results:
 *   "reference": S, "models": what measure_json gives, each with "tensors" (of jang_inspect),
 *   "answers": what answers_of gives, or null.
 * Text of models and files is escaped. Prints why it failed. */
bool report_write(const char *directory, const json_t *results);

#endif
