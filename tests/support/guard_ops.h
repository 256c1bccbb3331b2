/* guard_ops.h - a backend for tests that catches code which looks into buffers.
 *
 * It wraps a backend of the host. All memory that the inner one fills (activations, keys and
 * values, batches) is unreadable and unwritable outside its operators, write and read, so that
 * code which follows a pointer into it dies at once, as it would fail on a GPU. */
#ifndef TEST_GUARD_OPS_H
#define TEST_GUARD_OPS_H

#include "ops/ops.h"

/* inner_backend: a name for ops_open, of a host backend. Closed with ops_close. */
JANG_MUST_CHECK jang_status guard_ops_open(ops **out, ctx_t *ctx, const char *inner_backend,
                                           const ops_options *options);

#endif
