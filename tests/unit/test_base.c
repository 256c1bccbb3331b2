/* test_base.c - the base room: buffers, JSON, maps, threads, files, contexts. */
#include "support.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/json.h"
#include "base/pool.h"
#include "base/strmap.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- Buffers ---- */

static void test_buf_grows_to_its_maximum(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    buf b;
    buf_init(&b, ctx, 1000);
    for (int i = 0; i < 100; i++) {
        buf_puts(&b, "0123456789");
    }
    assert_int_equal(b.size, 1000);
    assert_int_equal(strlen(b.data), 1000);
    assert_ok(ctx, buf_status(&b));
    buf_putc(&b, 'x');
    assert_fails(ctx, buf_status(&b), JANG_ERR_MEMORY, "1000 bytes");
    assert_int_equal(b.size, 1000);
    buf_free(&b);
    jang_context_free(ctx);
}

static void test_buf_writes_utf8(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    buf b;
    buf_init(&b, ctx, BUF_NO_LIMIT);
    static const uint32_t points[] = {0x41, 0xe9, 0x20ac, 0x1f600, 0xd800, 0x110000};
    for (size_t i = 0; i < 6; i++) {
        buf_put_utf8(&b, points[i]);
    }
    assert_string_equal(b.data, "A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xef\xbf\xbd\xef\xbf\xbd");
    buf_free(&b);
    jang_context_free(ctx);
}

static void test_buf_take_gives_a_terminated_text(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    buf b;
    buf_init(&b, ctx, BUF_NO_LIMIT);
    char *text;
    size_t n;
    assert_ok(ctx, buf_take(&b, &text, &n));
    assert_string_equal(text, "");
    ctx_free(ctx, text);
    buf_printf(&b, "%d-%s", 42, "x");
    assert_ok(ctx, buf_take(&b, &text, &n));
    assert_string_equal(text, "42-x");
    assert_int_equal(n, 4);
    ctx_free(ctx, text);
    jang_context_free(ctx);
}

/* ---- JSON ---- */

static void test_json_reads_python_constants(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    static const char text[] = "{\"a\": [0, Infinity], \"b\": NaN, \"c\": \"Infinity\", "
                               "\"d\": \"\\\"NaN\", \"e\": -Infinity, "
                               "\"f\": 1000000000000000019884624838656, "
                               "\"g\": 9223372036854775807, \"h\": -9223372036854775809, "
                               "\"i\": \"12345678901234567890\"}";
    json_t *root;
    assert_ok(ctx, json_parse(&root, ctx, "t", text, strlen(text)));
    assert_true(json_real_value(json_array_get(json_object_get(root, "a"), 1)) > 1e308);
    assert_true(json_real_value(json_object_get(root, "e")) < -1e308);
    assert_true(json_real_value(json_object_get(root, "f")) == 1e30);
    assert_int_equal(json_integer_value(json_object_get(root, "g")), INT64_MAX);
    assert_true(json_real_value(json_object_get(root, "h")) == -0x1p63);
    assert_string_equal(json_string_value(json_object_get(root, "i")), "12345678901234567890");
    assert_true(json_is_null(json_object_get(root, "b")));
    assert_string_equal(json_string_value(json_object_get(root, "c")), "Infinity");
    assert_string_equal(json_string_value(json_object_get(root, "d")), "\"NaN");
    buf written;
    buf_init(&written, ctx, 1 << 16);
    json_object_set_new(root, "j", json_string("1.7976931348623157e308"));
    json_write_python(&written, root, 0);
    assert_non_null(strstr(written.data, "[0, Infinity]"));
    assert_non_null(strstr(written.data, "\"e\": -Infinity"));
    assert_non_null(strstr(written.data, "\"j\": \"1.7976931348623157e308\""));
    buf_free(&written);
    json_decref(root);
    jang_context_free(ctx);
}

static void test_json_refuses_with_a_place(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    json_t *root;
    static const char *const wrong[] = {"", "{", "{\"a\": 1, \"a\": 2}", "[1] x", "[\"\xff\"]"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_fails(ctx, json_parse(&root, ctx, "file.json", wrong[i], strlen(wrong[i])),
                     JANG_ERR_FORMAT, "file.json: not valid JSON: line 1");
    }
    size_t depth = 1 << 20;
    char *deep = malloc(depth);
    memset(deep, '[', depth);
    assert_fails(ctx, json_parse(&root, ctx, "deep", deep, depth), JANG_ERR_FORMAT, "depth");
    free(deep);
    jang_context_free(ctx);
}

static void test_json_getters_check_type_and_range(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    static const char text[] = "{\"n\": 7, \"r\": 7.0, \"f\": 7.5, \"s\": \"x\", \"z\": null}";
    json_t *root;
    assert_ok(ctx, json_parse(&root, ctx, "t", text, strlen(text)));
    json_at at = {ctx, "config.json", root};
    int64_t n = 1;
    assert_ok(ctx, json_get_int(&n, at, "n", 0, 0, 10));
    assert_int_equal(n, 7);
    assert_ok(ctx, json_get_int(&n, at, "r", 0, 0, 10));
    assert_int_equal(n, 7);
    assert_ok(ctx, json_get_int(&n, at, "z", 3, 0, 10));
    assert_int_equal(n, 3);
    assert_fails(ctx, json_get_int(&n, at, "f", 0, 0, 10), JANG_ERR_FORMAT, "f: expected");
    assert_fails(ctx, json_get_int(&n, at, "n", 0, 8, 10), JANG_ERR_FORMAT, "8 to 10");
    assert_int_equal(n, 3);
    bool b;
    const char *s;
    assert_fails(ctx, json_get_bool(&b, at, "s", false), JANG_ERR_FORMAT, "true or false");
    assert_fails(ctx, json_get_string(&s, at, "n", NULL), JANG_ERR_FORMAT, "a string");
    json_decref(root);
    jang_context_free(ctx);
}

/* ---- Maps ---- */

static void test_strmap_finds_what_was_put(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    strmap map;
    strmap_init(&map, ctx);
    static char keys[5000][12];
    assert_int_equal(strmap_get(&map, "x", 1), -1);
    for (int i = 0; i < 5000; i++) {
        int n = snprintf(keys[i], sizeof keys[i], "key%d", i * 7);
        int32_t old;
        assert_ok(ctx, strmap_put(&map, keys[i], (size_t)n, i, &old));
        assert_int_equal(old, -1);
    }
    for (int i = 0; i < 5000; i++) {
        assert_int_equal(strmap_get(&map, keys[i], strlen(keys[i])), i);
    }
    int32_t old;
    assert_ok(ctx, strmap_put(&map, keys[3], strlen(keys[3]), 99, &old));
    assert_int_equal(old, 3);
    assert_int_equal(strmap_get(&map, keys[3], strlen(keys[3])), 99);
    assert_int_equal(map.n_entries, 5000);
    assert_int_equal(strmap_get(&map, "key1", 4), -1);
    strmap_free(&map);
    jang_context_free(ctx);
}

/* ---- Threads ---- */

typedef struct counting {
    atomic_int *done;
    int n_threads;
    pool *pool;
} counting;

static void count_task(void *arg, int task, int thread) {
    counting *c = arg;
    assert_true(thread >= 0 && thread < c->n_threads);
    atomic_fetch_add(&c->done[task], 1);
}

/* Does its task and, every third time, one that it takes ahead. */
static void count_and_take(void *arg, int task, int thread) {
    counting *c = arg;
    count_task(arg, task, thread);
    int more = task % 3 == 0 ? pool_take(c->pool, thread) : -1;
    if (more >= 0) {
        count_task(arg, more, thread);
    }
}

/* Many short runs in a row, of which some find the workers asleep. */
static void test_pool_runs_every_task_once(void **state) {
    (void)state;
    for (int n_threads = 1; n_threads <= 4; n_threads++) {
        jang_context_options options = {.n_threads = n_threads};
        ctx_t *ctx;
        assert_int_equal(jang_context_new(&ctx, &options), JANG_OK);
        assert_int_equal(pool_threads(ctx_pool(ctx)), n_threads);
        static atomic_int done[100];
        counting c = {done, n_threads, ctx_pool(ctx)};
        for (int run = 1; run <= 600; run++) {
            int n_tasks = run % 101;
            pool_run(c.pool, run % 2 ? count_task : count_and_take, &c, n_tasks);
            for (int i = 0; i < 100; i++) {
                assert_int_equal(atomic_exchange(&done[i], 0), i < n_tasks);
            }
        }
        jang_context_free(ctx);
    }
}

typedef struct share_seen {
    int task; /* the last */
    bool in_order;
} share_seen;

static void see_order(void *arg, int task, int thread) {
    share_seen *s = arg;
    (void)thread;
    s->in_order &= task == s->task + 1;
    s->task = task;
}

/* A thread alone goes through all tasks from the first to the last. */
static void test_pool_keeps_the_order_of_a_share(void **state) {
    (void)state;
    jang_context_options options = {.n_threads = 1};
    ctx_t *ctx;
    assert_int_equal(jang_context_new(&ctx, &options), JANG_OK);
    share_seen s = {-1, true};
    pool_run(ctx_pool(ctx), see_order, &s, 77);
    assert_true(s.in_order);
    assert_int_equal(s.task, 76);
    jang_context_free(ctx);
}

/* A task that starts a run would wait for itself: where assertions are on, it is told so. */
#ifndef NDEBUG
static void run_inside(void *arg, int task, int thread) {
    (void)task;
    (void)thread;
    atomic_int done[2] = {0};
    counting c = {.done = done, .n_threads = 2};
    pool_run(arg, count_task, &c, 2);
}

static void test_pool_stops_a_run_inside_another(void **state) {
    (void)state;
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        jang_context_options options = {.n_threads = 2};
        ctx_t *ctx;
        signal(SIGABRT, SIG_DFL);
        alarm(20); /* a deadlock ends with another signal */
        fclose(stderr);
        if (jang_context_new(&ctx, &options) == JANG_OK) {
            pool_run(ctx_pool(ctx), run_inside, ctx_pool(ctx), 2);
        }
        _exit(0);
    }
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFSIGNALED(how));
    assert_int_equal(WTERMSIG(how), SIGABRT);
}
#endif

#if defined(__linux__)
typedef struct core_seen {
    atomic_int wrong;
    int core_of_thread[2];
} core_seen;

static void see_core(void *arg, int task, int thread) {
    core_seen *seen = arg;
    (void)task;
    if (sched_getcpu() != seen->core_of_thread[thread]) {
        atomic_fetch_add(&seen->wrong, 1);
    }
}

static void *run_elsewhere(void *arg) {
    void **both = arg;
    pool_run(both[0], see_core, both[1], 50);
    return NULL;
}

/* The numbers of the first n cores that this process may use; fewer if there are fewer. */
static int first_cores(int *cores, int n) {
    cpu_set_t set;
    int found = 0;
    assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
    for (int i = 0; i < CPU_SETSIZE && found < n; i++) {
        if (CPU_ISSET((size_t)i, &set)) {
            cores[found++] = i;
        }
    }
    return found;
}

/* Workers stay on their cores, and so does whichever thread starts a run. */
static void test_pool_binds_its_threads(void **state) {
    (void)state;
    core_seen seen = {0};
    cpu_set_t before;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    int n = first_cores(seen.core_of_thread, 2);
    char list[32];
    snprintf(list, sizeof list, n == 2 ? "%d,%d" : "%d", seen.core_of_thread[0],
             seen.core_of_thread[1]);
    jang_context_options options = {.affinity = list};
    ctx_t *ctx;
    assert_int_equal(jang_context_new(&ctx, &options), JANG_OK);
    assert_int_equal(pool_threads(ctx_pool(ctx)), n);
    for (int i = 0; i < 20; i++) {
        pool_run(ctx_pool(ctx), see_core, &seen, 50);
    }
    pthread_t other;
    void *both[] = {ctx_pool(ctx), &seen};
    assert_int_equal(pthread_create(&other, NULL, run_elsewhere, both), 0);
    assert_int_equal(pthread_join(other, NULL), 0);
    assert_int_equal(atomic_load(&seen.wrong), 0);
    jang_context_free(ctx);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

static void test_cores_are_read_and_checked(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    core_list list;
    int core = 0;
    char text[32];
    assert_int_equal(first_cores(&core, 1), 1);
    snprintf(text, sizeof text, "%d-%d", core, core);
    assert_ok(ctx, cores_parse(&list, ctx, text));
    assert_int_equal(list.n, 1);
    assert_int_equal(list.cores[0], core);
    static const char *const bad[] = {"", "x", "0-", "-1", "1-0", "0,", ",0", "0;1", "0x1", " 0"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_fails(ctx, cores_parse(&list, ctx, bad[i]), JANG_ERR_ARGUMENT, "looks like 0-3,8");
    }
    assert_fails(ctx, cores_parse(&list, ctx, "99999999999999999999"), JANG_ERR_ARGUMENT, "looks");
    assert_fails(ctx, cores_parse(&list, ctx, "1023"), JANG_ERR_ARGUMENT, "core 1023 is none");
    snprintf(text, sizeof text, "%d,%d", core, core);
    assert_fails(ctx, cores_parse(&list, ctx, text), JANG_ERR_ARGUMENT, "named twice");
    assert_int_equal(list.n, 1); /* untouched by failures */
    jang_context_free(ctx);
    snprintf(text, sizeof text, "%d", core);
    jang_context_options options = {.n_threads = 2, .affinity = text};
    assert_int_equal(jang_context_new(&ctx, &options), JANG_ERR_ARGUMENT);
}
#endif

/* ---- Files ---- */

static void test_file_reads_what_was_written(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir();
    const char *path = test_path(dir, "f");
    assert_ok(ctx, file_write(ctx, path, "hello", 5));
    assert_int_equal(file_size(path), 5);
    char *text;
    size_t n;
    assert_ok(ctx, file_read(&text, &n, ctx, path, 5));
    assert_string_equal(text, "hello");
    ctx_free(ctx, text);
    assert_fails(ctx, file_read(&text, &n, ctx, path, 4), JANG_ERR_FORMAT, "at most 4");
    assert_fails(ctx, file_read(&text, &n, ctx, test_path(dir, "g"), 4), JANG_ERR_IO,
                 "cannot open: No such file");
    assert_fails(ctx, file_read(&text, &n, ctx, dir, 4), JANG_ERR_IO, "not a regular file");
    assert_fails(ctx, file_write(ctx, test_path(dir, "no/g"), "x", 1), JANG_ERR_IO, "create");
    assert_false(file_is_vacant(dir));
    file_map map;
    assert_ok(ctx, file_map_open(&map, ctx, path));
    assert_memory_equal(map.data, "hello", 5);
    file_map_close(&map);
    assert_ok(ctx, directory_remove(ctx, dir));
    assert_true(file_is_vacant(dir));
    free(dir);
    jang_context_free(ctx);
}

static void test_file_reports_a_full_disk(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    if (!file_exists("/dev/full")) {
        jang_context_free(ctx);
        skip();
    }
    assert_fails(ctx, file_write(ctx, "/dev/full", "x", 1), JANG_ERR_IO, "No space left");
    assert_true(file_exists("/dev/full")); /* though a file would be gone */
    jang_context_free(ctx);
}

static void test_path_names_stay_inside(void **state) {
    (void)state;
    assert_true(path_is_plain_name("model-00001-of-00002.safetensors"));
    static const char *const outside[] = {"", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b"};
    for (size_t i = 0; i < sizeof outside / sizeof outside[0]; i++) {
        assert_false(path_is_plain_name(outside[i]));
    }
}

/* ---- Contexts ---- */

static void test_ctx_message_is_one_safe_line(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    assert_string_equal(jang_context_error(ctx), "");
    jang_status status = ctx_fail(ctx, JANG_ERR_IO, "a\nb\x1b[31m%s", "c");
    assert_int_equal(status, JANG_ERR_IO);
    assert_string_equal(jang_context_error(ctx), "a?b?[31mc");
    status = ctx_prefix(ctx, status, "file %d", 7);
    assert_string_equal(jang_context_error(ctx), "file 7: a?b?[31mc");
    status = ctx_fail(ctx, JANG_ERR_IO, "%s",
                      "a\xc2\x9b"
                      "31m\xc2\xa0\xc2");
    assert_string_equal(jang_context_error(ctx), "a??31m\xc2\xa0\xc2");
    assert_int_equal(status, JANG_ERR_IO);
    assert_string_equal(jang_status_name(JANG_ERR_FULL), "JANG_ERR_FULL");
    assert_string_equal(jang_status_name((jang_status)-99), "JANG_ERR_UNKNOWN");
    jang_context_free(ctx);
}

static void test_ctx_checks_sizes(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    assert_null(ctx_array(ctx, SIZE_MAX / 4, 8));
    assert_null(ctx_zero(ctx, SIZE_MAX / 4, 8));
    void *p = ctx_alloc_aligned(ctx, 100, 256);
    assert_int_equal((uintptr_t)p % 256, 0);
    ctx_free_aligned(ctx, p);
    assert_null(ctx_alloc_aligned(ctx, SIZE_MAX - 8, 64));
    jang_context_free(ctx);
    jang_context_options options = {.n_threads = -1};
    assert_int_equal(jang_context_new(&ctx, &options), JANG_ERR_ARGUMENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buf_grows_to_its_maximum),
        cmocka_unit_test(test_buf_writes_utf8),
        cmocka_unit_test(test_buf_take_gives_a_terminated_text),
        cmocka_unit_test(test_json_reads_python_constants),
        cmocka_unit_test(test_json_refuses_with_a_place),
        cmocka_unit_test(test_json_getters_check_type_and_range),
        cmocka_unit_test(test_strmap_finds_what_was_put),
        cmocka_unit_test(test_pool_runs_every_task_once),
        cmocka_unit_test(test_pool_keeps_the_order_of_a_share),
#ifndef NDEBUG
        cmocka_unit_test(test_pool_stops_a_run_inside_another),
#endif
#if defined(__linux__)
        cmocka_unit_test(test_pool_binds_its_threads),
        cmocka_unit_test(test_cores_are_read_and_checked),
#endif
        cmocka_unit_test(test_file_reads_what_was_written),
        cmocka_unit_test(test_file_reports_a_full_disk),
        cmocka_unit_test(test_path_names_stay_inside),
        cmocka_unit_test(test_ctx_message_is_one_safe_line),
        cmocka_unit_test(test_ctx_checks_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
