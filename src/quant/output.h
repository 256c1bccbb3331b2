/* output.h - a directory that appears whole or not at all.
 *
 * Everything is written to a sibling "NAME.tmp-PID", which gets the final name by one rename. What
 * stood there before (only with force) is removed after that. A process that is killed leaves the
 * sibling, never something under the final name; the next conversion to that name removes it. */
#ifndef JANG_QUANT_OUTPUT_H
#define JANG_QUANT_OUTPUT_H

#include "base/file.h"

typedef struct output_dir {
    ctx_t *ctx;
    char *final_path;
    char *temp_path; /* where to write */
    bool replaces;   /* something is there to be replaced */
    int lock;        /* descriptor of the lock, or -1 */
} output_dir;

/* Makes the temporary directory. JANG_ERR_EXISTS: path is there and not empty, and force is false,
 * or it is a file or has subdirectories, which are never replaced. JANG_ERR_ARGUMENT: source lies
 * in it. JANG_ERR_IO: no parent directory, or less than n_bytes of space. */
JANG_MUST_CHECK jang_status output_begin(output_dir *out, ctx_t *ctx, const char *path, bool force,
                                         const char *source, uint64_t n_bytes);

/* The checks of output_begin alone, for failing early. */
JANG_MUST_CHECK jang_status output_check(ctx_t *ctx, const char *path, bool force,
                                         const char *source);

/* Syncs the directory and gives it its name; removes what it replaces. The output is as good as
 * discarded when this fails. */
JANG_MUST_CHECK jang_status output_commit(output_dir *out);

/* Removes what was written, unless it was committed, and frees the paths. */
void output_end(output_dir *out);

#endif
