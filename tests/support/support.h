/* support.h - what every test program uses: cmocka with its includes, a context, files. */
#ifndef TEST_SUPPORT_H
#define TEST_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above first */
#include <cmocka.h>

#include "base/ctx.h"

/* A context with two threads whose log goes to stderr. Fails the test if it cannot be made. */
ctx_t *test_context(void);

/* Asserts JANG_OK and prints the context's message otherwise. */
#define assert_ok(ctx, call)                                                                       \
    do {                                                                                           \
        jang_status status_ = (call);                                                              \
        if (status_ != JANG_OK) {                                                                  \
            fail_msg("%s: %s: %s", #call, jang_status_name(status_), jang_context_error(ctx));     \
        }                                                                                          \
    } while (0)

/* Asserts that a call fails with this status and that the message holds the text. */
#define assert_fails(ctx, call, wanted, text)                                                      \
    test_check_failure((ctx), (call), (wanted), (text), #call)

void test_check_failure(ctx_t *ctx, jang_status got, jang_status wanted, const char *text,
                        const char *call);

/* A fresh directory under $TMPDIR, removed with test_remove_tree. Freed by the caller (free). */
char *test_temp_dir(void);
void test_remove_tree(const char *path);

/* dir "/" name, in one of a few static buffers. */
const char *test_path(const char *dir, const char *name);

/* Deterministic random numbers (splitmix64), the same on every machine. */
typedef struct test_rng {
    uint64_t state;
} test_rng;
uint64_t rng_next(test_rng *rng);
double rng_uniform(test_rng *rng);           /* [0, 1) */
float rng_normal(test_rng *rng);             /* mean 0, deviation 1 */
int64_t rng_below(test_rng *rng, int64_t n); /* 0 .. n-1 */

#endif
