/* finite.h - finds out which weights are NaN or infinite, once a calibration has met such numbers.
 */
#ifndef JANG_QUANT_FINITE_H
#define JANG_QUANT_FINITE_H

#include "quant/source.h"

/* JANG_ERR_FORMAT, naming the first of the parts that are written with a number that is none, and
 * its row; JANG_OK, and no message, if all are finite. Reads all weights. */
JANG_MUST_CHECK jang_status finite_check(const model_source *s);

#endif
