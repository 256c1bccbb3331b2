/* test_guard.c - the guard backend lets operators through and nobody else. */
#include "guard_ops.h"
#include "ops/hostbuf.h"
#include "ops_cases.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_guard_runs_operators(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    ops *o;
    assert_ok(ctx, guard_ops_open(&o, ctx, "ref", NULL));
    float x[4] = {1, 2, 3, 4}, y[4];
    ops_mat a = case_mat(o, 1, 4, x), b = case_mat(o, 1, 4, NULL);
    float ones[4] = {2, 2, 2, 2};
    weight_desc d = {.name = "w", .n_out = 1, .n_in = 4, .type = DT_F32, .data = ones};
    ops_weight *w;
    assert_ok(ctx, o->table->weight_new(&w, o, &d));
    norm_desc norm = {.kind = NORM_RMS, .width = 4, .weight = w};
    o->table->norm(o, &norm, a, b);
    case_read(o, b, y);
    assert_true(y[3] > 2.92f && y[3] < 2.93f); /* 2 * 4 / sqrt(7.5) */
    o->table->weight_free(o, w);
    o->table->buf_free(o, a.buf);
    o->table->buf_free(o, b.buf);
    ops_close(o);
    jang_context_free(ctx);
}

/* Returns whether a child that reads the byte dies of it. */
static bool reading_kills(const volatile uint8_t *at) {
    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        signal(SIGBUS, SIG_DFL);
        _exit(*at == 255 ? 1 : 0);
    }
    int how = 0;
    waitpid(child, &how, 0);
    return WIFSIGNALED(how);
}

static void test_guard_locks_buffers_between_operators(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    ops *o;
    assert_ok(ctx, guard_ops_open(&o, ctx, "ref", NULL));
    ops_mat m = case_mat(o, 1, 4, NULL);
    assert_true(reading_kills(m.buf->block->data));
    o->table->buf_free(o, m.buf);
    ops_close(o);
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_guard_runs_operators),
        cmocka_unit_test(test_guard_locks_buffers_between_operators),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
