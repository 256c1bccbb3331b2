/* resumed.h - what tests of whole conversions share. */
#ifndef TEST_RESUMED_H
#define TEST_RESUMED_H

#include "support.h"

/* Converts into dir/whole at once, and into dir/broken with a cancellation at the n-th report of
 * progress from which it is resumed; the weights are to be the same to the byte, and nothing is to
 * be left beside them. */
void test_resumes(ctx_t *ctx, const jang_convert_options *options, const char *dir, int n);

/* Converts into dir/one and dir/three with so many threads; the weights are to be the same. */
void test_threads_convert_alike(const jang_convert_options *options, const char *dir);

/* The same bytes in a file of two directories. */
void test_same_file(ctx_t *ctx, const char *a, const char *b, const char *name);

#endif
