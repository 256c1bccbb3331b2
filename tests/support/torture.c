/* torture.c - work that is repeated with each of its allocations failing in turn. */
#include "torture.h"

#include "base/json.h"

#include <stdlib.h>
#include <string.h>

/* Shared by the context and the JSON library, whose hooks take no argument. */
static struct {
    long until_failure; /* allocations that still succeed; < 0: no limit */
    torture_rule rule;
    bool failed;
    long n_live;
} heap = {.until_failure = -1};

static bool may_allocate(void) {
    if (heap.until_failure == 0) {
        heap.failed = true;
        heap.until_failure = heap.rule == TORTURE_ONE ? -1 : 0;
        return false;
    }
    heap.until_failure -= heap.until_failure > 0;
    return true;
}

static void *counting_malloc(size_t size) {
    void *ptr = may_allocate() ? malloc(size) : NULL;
    heap.n_live += ptr != NULL;
    return ptr;
}

static void counting_free(void *ptr) {
    heap.n_live -= ptr != NULL;
    free(ptr);
}

static void *counting_realloc(void *user, void *ptr, size_t size) {
    (void)user;
    if (size == 0) {
        counting_free(ptr);
        return NULL;
    }
    if (!ptr) {
        return counting_malloc(size);
    }
    return may_allocate() ? realloc(ptr, size) : NULL;
}

void torture_json(void) {
    json_set_alloc_funcs(counting_malloc, counting_free);
}

void torture_spare_json(void) {
    json_set_alloc_funcs(malloc, free);
}

void torture_relent(void) {
    heap.until_failure = -1;
}

/* The JSON library's scanner reports a failed allocation as a token it cannot read. */
static bool tells_of_memory(ctx_t *ctx, jang_status status) {
    return status == JANG_ERR_MEMORY || strstr(jang_context_error(ctx), "not valid JSON") != NULL;
}

void torture(const char *name, torture_rule rule, torture_fn work, const void *arg) {
    jang_context_options options = jang_context_options_default();
    ctx_t *ctx = NULL;
    options.n_threads = 1;
    options.reallocate = counting_realloc;
    assert_int_equal(jang_context_new(&ctx, &options), JANG_OK);
    long n_live = heap.n_live, n = 0;
    heap.rule = rule;
    heap.failed = true;
    for (; heap.failed; n++) {
        heap.until_failure = n;
        heap.failed = false;
        jang_status status = work(ctx, arg);
        heap.until_failure = -1;
        if (heap.n_live != n_live) {
            fail_msg("%s, allocation %ld: %ld blocks are left", name, n, heap.n_live - n_live);
        }
        assert_true(n < 100000);
        if (status != JANG_OK && (!heap.failed || !tells_of_memory(ctx, status))) {
            fail_msg("%s, allocation %ld: %s: %s", name, n, jang_status_name(status),
                     jang_context_error(ctx));
        }
    }
    assert_true(n > 3);
    print_message("%s: %ld allocations\n", name, n - 1);
    jang_context_free(ctx);
    assert_int_equal(heap.n_live, 0);
}
