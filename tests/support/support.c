/* support.c - contexts, temporary directories and random numbers for tests. */
#include "support.h"

#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void log_line(void *user, const char *line) {
    (void)user;
    fprintf(stderr, "log: %s\n", line);
}

ctx_t *test_context(void) {
    jang_context_options options = jang_context_options_default();
    options.n_threads = 2;
    options.log = log_line;
    ctx_t *ctx = NULL;
    assert_int_equal(jang_context_new(&ctx, &options), JANG_OK);
    return ctx;
}

void test_check_failure(ctx_t *ctx, jang_status got, jang_status wanted, const char *text,
                        const char *call) {
    if (got != wanted) {
        fail_msg("%s: %s instead of %s (%s)", call, jang_status_name(got), jang_status_name(wanted),
                 jang_context_error(ctx));
    }
    if (!strstr(jang_context_error(ctx), text)) {
        fail_msg("%s: the message \"%s\" lacks \"%s\"", call, jang_context_error(ctx), text);
    }
}

char *test_temp_dir(void) {
    const char *base = getenv("TMPDIR");
    char path[4096];
    snprintf(path, sizeof path, "%s/jang-test-XXXXXX", base && *base ? base : "/tmp");
    char *copy = strdup(path);
    assert_non_null(copy);
    assert_non_null(mkdtemp(copy));
    return copy;
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *at) {
    (void)st, (void)kind, (void)at;
    return remove(path);
}

void test_remove_tree(const char *path) {
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

const char *test_path(const char *dir, const char *name) {
    static char paths[8][4096];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

uint64_t rng_next(test_rng *rng) {
    uint64_t z = rng->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

double rng_uniform(test_rng *rng) {
    return (double)(rng_next(rng) >> 11) * 0x1p-53;
}

float rng_normal(test_rng *rng) {
    double u = 1.0 - rng_uniform(rng), v = rng_uniform(rng);
    return (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
}

int64_t rng_below(test_rng *rng, int64_t n) {
    return (int64_t)(rng_next(rng) % (uint64_t)n);
}
