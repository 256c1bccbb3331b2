/* test_engine_disk.c - the disk cache: found again, never believed when damaged. */
#include "engine_rig.h"
#include "model_files.h"

#include "base/file.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define MODEL "mlx-llama-4bit-g64"
#define N_PROMPT 300

static jang_engine *open_on(jang_model **m, ctx_t *ctx, const char *model, const char *dir,
                            uint64_t max_bytes) {
    jang_engine_options o = jang_engine_options_default();
    o.disk_cache = dir;
    o.disk_cache_bytes = max_bytes;
    return engine_open(m, ctx, model, o);
}

static jang_request request_of(const jang_model *m, const int32_t *ids, size_t n) {
    jang_request r = jang_request_default(m);
    r.prompt = ids;
    r.n_prompt = n;
    r.n_max = 30;
    r.n_logprobs = 3;
    r.ignore_eos = true;
    r.sampling.temperature = 1;
    r.sampling.seed = 5;
    return r;
}

/* Asks on a fresh engine; *n_disk takes the tokens found on disk. */
static got *ask_fresh(ctx_t *ctx, const char *model, const char *dir, const int32_t *ids,
                      int32_t *n_disk) {
    jang_model *m;
    jang_engine *e = open_on(&m, ctx, model, dir, (uint64_t)1 << 30);
    got *g = engine_ask(ctx, e, request_of(m, ids, N_PROMPT));
    *n_disk = g->stats.n_cached_disk;
    jang_engine_free(e);
    jang_model_free(m);
    return g;
}

static void test_disk_pages_are_found_again(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir();
    int32_t ids[N_PROMPT], n_disk;
    random_ids(ids, N_PROMPT, 8);
    const char *inner = test_path(dir, "cache");
    got *cold = ask_fresh(ctx, MODEL, inner, ids, &n_disk);
    assert_int_equal(n_disk, 0);
    got *warm = ask_fresh(ctx, MODEL, inner, ids, &n_disk);
    assert_int_equal(n_disk, 256);
    got_assert_equal(cold, warm);
    got_free(warm, 1);
    warm = ask_fresh(ctx, "mlx-llama-mixed-3-6", inner, ids, &n_disk); /* another model */
    assert_int_equal(n_disk, 0);
    got_free(warm, 1);
    got_free(cold, 1);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

/* ---- Damage ---- */

static void damage(ctx_t *ctx, const char *path, int how) {
    char *data;
    size_t n;
    assert_ok(ctx, file_read(&data, &n, ctx, path, (size_t)1 << 24));
    data[how == 0 ? 3 : how == 1 ? n / 2 : n - 1] ^= 1;
    n = how == 3 ? n / 3 : how == 4 ? 0 : n;
    assert_ok(ctx, file_write(ctx, path, data, n));
    ctx_free(ctx, data);
}

static void test_disk_damage_is_a_miss(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir();
    int32_t ids[N_PROMPT], n_disk;
    random_ids(ids, N_PROMPT, 8);
    got *cold = ask_fresh(ctx, MODEL, dir, ids, &n_disk);
    for (int how = 0; how < 6; how++) { /* the last: of the secret alone */
        char **names;
        size_t n;
        assert_ok(ctx, directory_list(&names, &n, ctx, dir));
        assert_true(n > 4);
        for (size_t i = 0; i < n; i++) {
            if ((how == 5) == (strcmp(names[i], "secret") == 0)) {
                damage(ctx, test_path(dir, names[i]), how % 5);
            }
        }
        directory_list_free(ctx, names, n);
        got *g = ask_fresh(ctx, MODEL, dir, ids, &n_disk);
        assert_int_equal(n_disk, 0);
        got_assert_equal(cold, g);
        got_free(g, 1);
        for (int i = 0; i < 4; i++) { /* each finds one more damaged, which is then written anew */
            g = ask_fresh(ctx, MODEL, dir, ids, &n_disk);
            got_assert_equal(cold, g);
            got_free(g, 1);
        }
        assert_int_equal(n_disk, 256);
    }
    got_free(cold, 1);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

/* ---- Limits ---- */

static void test_disk_keeps_its_size(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir();
    jang_model *m;
    jang_engine *e = open_on(&m, ctx, MODEL, dir, (uint64_t)1 << 30);
    jang_engine_stats stats;
    jang_engine_get_stats(&stats, e);
    uint64_t most = 5 * stats.page_bytes;
    jang_engine_free(e);
    jang_model_free(m);
    e = open_on(&m, ctx, MODEL, dir, most);
    for (uint64_t seed = 0; seed < 4; seed++) {
        int32_t ids[N_PROMPT];
        random_ids(ids, N_PROMPT, seed);
        got_free(engine_ask(ctx, e, request_of(m, ids, N_PROMPT)), 1);
        jang_engine_get_stats(&stats, e);
        assert_true(stats.disk_bytes <= most);
        assert_int_equal(stats.disk_pages, 4);
    }
    jang_engine_clear_cache(e);
    engine_run(ctx, e);
    jang_engine_get_stats(&stats, e);
    assert_int_equal(stats.disk_pages, 0);
    assert_int_equal(stats.n_pages_cached, 0);
    jang_engine_free(e);
    jang_model_free(m);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

/* A write that fails half-way, as on a full disk, costs the page and nothing else. */
static void test_disk_full_is_survived(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir();
    int32_t ids[N_PROMPT], n_disk;
    random_ids(ids, N_PROMPT, 8);
    jang_model *m;
    jang_engine *e = open_on(&m, ctx, MODEL, dir, (uint64_t)1 << 30);
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, SIG_IGN);
    small = (struct rlimit){5000, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    got *g = engine_ask(ctx, e, request_of(m, ids, N_PROMPT));
    jang_engine_stats stats;
    jang_engine_get_stats(&stats, e);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(stats.disk_errors, 1); /* then it pauses */
    assert_int_equal(stats.disk_pages, 0);
    jang_engine_free(e);
    jang_model_free(m);
    got *again = ask_fresh(ctx, MODEL, dir, ids, &n_disk);
    assert_int_equal(n_disk, 0);
    got_assert_equal(g, again);
    got_free(g, 1);
    got_free(again, 1);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

/* ---- Killed while it writes ---- */

static void write_for_ever(const char *dir) {
    ctx_t *ctx = test_context();
    jang_model *m;
    jang_engine *e = open_on(&m, ctx, MODEL, dir, (uint64_t)1 << 30);
    for (uint64_t seed = 0;; seed++) {
        int32_t ids[N_PROMPT];
        random_ids(ids, N_PROMPT, seed % 3 ? seed : 8);
        got_free(engine_ask(ctx, e, request_of(m, ids, N_PROMPT)), 1);
    }
}

static void test_disk_survives_kill(void **state) {
    (void)state;
    char *dir = test_temp_dir();
    int32_t ids[N_PROMPT], n_disk;
    random_ids(ids, N_PROMPT, 8);
    for (int i = 0; i < 4; i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            write_for_ever(dir);
        }
        usleep((useconds_t)(60000 + 31000 * i));
        assert_int_equal(kill(child, SIGKILL), 0);
        assert_int_equal(waitpid(child, NULL, 0), child);
    }
    ctx_t *ctx = test_context();
    char *other = test_temp_dir();
    got *cold = ask_fresh(ctx, MODEL, other, ids, &n_disk);
    got *g = ask_fresh(ctx, MODEL, dir, ids, &n_disk);
    got_assert_equal(cold, g);
    char **names;
    size_t n;
    assert_ok(ctx, directory_list(&names, &n, ctx, dir));
    for (size_t i = 0; i < n; i++) {
        assert_int_not_equal(strncmp(names[i], "tmp-", 4), 0);
    }
    directory_list_free(ctx, names, n);
    got_free(cold, 1);
    got_free(g, 1);
    test_remove_tree(dir);
    test_remove_tree(other);
    free(dir);
    free(other);
    jang_context_free(ctx);
}

static void test_disk_needs_a_directory(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir();
    jang_model *m;
    jang_engine *e;
    assert_ok(ctx, jang_model_open(&m, ctx, test_path(TEST_MODELS, MODEL), NULL));
    jang_engine_options o = jang_engine_options_default();
    char *path = strdup(test_path(dir, "no/such"));
    o.disk_cache = path;
    assert_fails(ctx, jang_engine_new(&e, m, &o), JANG_ERR_IO, "no/such");
    free(path);
    jang_model_free(m);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_disk_survives_kill),
        cmocka_unit_test(test_disk_pages_are_found_again),
        cmocka_unit_test(test_disk_damage_is_a_miss),
        cmocka_unit_test(test_disk_keeps_its_size),
        cmocka_unit_test(test_disk_full_is_survived),
        cmocka_unit_test(test_disk_needs_a_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
