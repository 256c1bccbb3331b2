/* resumed.c - conversions that must give the same file: stopped and resumed, by other threads. */
#include "resumed.h"

#include "base/file.h"
#include "model_files.h"

#include <stdio.h>

void test_same_file(ctx_t *ctx, const char *a, const char *b, const char *name) {
    char *paths[] = {path_join(ctx, a, name), path_join(ctx, b, name)}, *data[2];
    size_t n[2];
    for (int i = 0; i < 2; i++) {
        assert_ok(ctx, file_read(&data[i], &n[i], ctx, paths[i], 1 << 24));
    }
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(data[0], data[1], n[0]);
    for (int i = 0; i < 2; i++) {
        ctx_free(ctx, data[i]);
        ctx_free(ctx, paths[i]);
    }
}

static bool stop_later(void *user, const jang_progress *p) {
    (void)p;
    return --*(int *)user > 0;
}

void test_resumes(ctx_t *ctx, const jang_convert_options *options, const char *dir, int n) {
    char whole[512], broken[512], work[600];
    snprintf(whole, sizeof whole, "%s/whole", dir);
    snprintf(broken, sizeof broken, "%s/broken", dir);
    snprintf(work, sizeof work, "%s.work", broken);
    jang_convert_options o = *options;
    int calls = n;
    o.force = true;
    o.output = whole;
    assert_ok(ctx, jang_convert(NULL, ctx, &o));
    o.output = broken;
    o.resume = true;
    o.on_progress = stop_later;
    o.user = &calls;
    assert_int_equal(jang_convert(NULL, ctx, &o), JANG_ERR_CANCELLED);
    assert_true(file_exists(work));
    o.on_progress = NULL;
    assert_ok(ctx, jang_convert(NULL, ctx, &o));
    test_same_file(ctx, whole, broken, "model.safetensors");
    assert_false(file_exists(work));
}

void test_threads_convert_alike(const jang_convert_options *options, const char *dir) {
    char one[512], three[512];
    ctx_t *ctx[2] = {context_with(1), context_with(3)};
    snprintf(one, sizeof one, "%s/one", dir);
    snprintf(three, sizeof three, "%s/three", dir);
    const char *outputs[] = {one, three};
    for (int i = 0; i < 2; i++) {
        jang_convert_options o = *options;
        o.output = outputs[i];
        assert_ok(ctx[i], jang_convert(NULL, ctx[i], &o));
    }
    test_same_file(ctx[0], one, three, "model.safetensors");
    jang_context_free(ctx[0]);
    jang_context_free(ctx[1]);
}
