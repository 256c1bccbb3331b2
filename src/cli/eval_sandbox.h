/* eval_sandbox.h - runs a program that a model wrote, where it can do little harm.
 *
 * The program runs in a child of its own session, in an empty directory that is removed afterwards,
 * without network (a new network namespace), with limits on processor time, memory, file size and
 * number of files, and, where the kernel has Landlock (Linux 5.13), unable to write anywhere but in
 * that directory. It may still read what its user may read: run code of models that you do not
 * trust under a user of its own, or in a container. */
#ifndef JANG_CLI_EVAL_SANDBOX_H
#define JANG_CLI_EVAL_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>

typedef struct sandbox_limits {
    double seconds;      /* on the clock, then it is killed */
    size_t memory_bytes; /* address space */
    bool need_isolation; /* refuse to run where network or writing cannot be taken away */
} sandbox_limits;

typedef enum sandbox_result {
    SANDBOX_PASSED,  /* ended with status 0 */
    SANDBOX_FAILED,  /* ended otherwise */
    SANDBOX_TIMEOUT, /* was killed */
    SANDBOX_ERROR    /* could not be run; why was printed */
} sandbox_result;

/* Runs Python 3 on a program text; its output is thrown away. */
sandbox_result sandbox_python(const char *program, size_t n_bytes, const sandbox_limits *limits);

#endif
