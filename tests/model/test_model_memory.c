/* test_model_memory.c - every allocation failing in turn, from opening a model to its answer: an
 * error each time, nothing left behind, and a session that still works with less. */
#include "torture.h"

#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One token, then a prompt of more pages than one, in passes longer than the first, then a text. */
#define N_PROMPT 70
#define N_BATCH 8

typedef struct model_work {
    const char *path, *backend;
    float *first; /* [n_vocab] logits after one token */
    size_t n_vocab;
} model_work;

static bool listen(void *user, const char *piece, size_t n_bytes) {
    (void)piece;
    *(size_t *)user += n_bytes;
    return true;
}

static jang_status answer(jang_session *s) {
    int32_t ids[N_PROMPT];
    size_t n_bytes = 0;
    jang_sampling sampling = {.temperature = 0.5F, .top_p = 0.9F, .seed = 1};
    for (int32_t i = 0; i < N_PROMPT; i++) {
        ids[i] = 3 + i % 40;
    }
    jang_status status = jang_session_append(s, ids, 1, NULL);
    return status == JANG_OK ? jang_generate(s, ids, N_PROMPT, 4, &sampling, listen, &n_bytes, NULL)
                             : status;
}

/* Whatever happened before, a single token gives the logits that it always gave. */
static void check_first_token(ctx_t *ctx, jang_session *s, const model_work *w) {
    int32_t id = 3;
    assert_ok(ctx, jang_session_truncate(s, 0));
    assert_ok(ctx, jang_session_append(s, &id, 1, NULL));
    assert_memory_equal(jang_session_logits(s), w->first, w->n_vocab * sizeof *w->first);
}

static jang_status open_and_answer(ctx_t *ctx, const void *arg) {
    const model_work *w = arg;
    jang_model *m;
    jang_model_options options = {.backend = w->backend};
    jang_status status = jang_model_open(&m, ctx, w->path, &options);
    if (status != JANG_OK) {
        return status;
    }
    jang_session *s;
    jang_session_options o = {.n_batch = N_BATCH};
    status = jang_session_new(&s, m, &o);
    if (status == JANG_OK) {
        status = answer(s);
        torture_relent();
        check_first_token(ctx, s, w);
        jang_session_free(s);
    }
    jang_model_free(m);
    return status;
}

static void torture_model(const char *name, const char *backend) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", TEST_MODELS, name);
    ctx_t *ctx = test_context();
    jang_model *m;
    jang_session *s;
    jang_model_options options = {.backend = backend};
    assert_ok(ctx, jang_model_open(&m, ctx, path, &options));
    assert_ok(ctx, jang_session_new(&s, m, NULL));
    int32_t id = 3;
    assert_ok(ctx, jang_session_append(s, &id, 1, NULL));
    model_work w = {.path = path, .backend = backend};
    w.n_vocab = (size_t)jang_model_get_info(m)->n_vocab;
    w.first = malloc(w.n_vocab * sizeof *w.first);
    memcpy(w.first, jang_session_logits(s), w.n_vocab * sizeof *w.first);
    jang_session_free(s);
    jang_model_free(m);
    jang_context_free(ctx);
    torture(name, TORTURE_ALL_AFTER, open_and_answer, &w);
    torture(name, TORTURE_ONE, open_and_answer, &w);
    free(w.first);
}

static void test_model_memory_cpu(void **state) {
    (void)state;
    torture_model("mlx-llama-4bit-g64", "cpu");
}

static void test_model_memory_ref(void **state) {
    (void)state;
    torture_model("qwen3-tied-bias-f16", "ref");
}

static void test_model_memory_recurrent(void **state) {
    (void)state;
    torture_model("falcon_h1-norm-after-bias-bf16", "cpu");
    torture_model("kimi_linear-bf16", "ref");
}

static void test_model_memory_experts(void **state) {
    (void)state;
    torture_model("mlx-deepseek3-6bit-g32", "cpu");
    torture_model("gptoss-bf16", "ref");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model_memory_cpu),
        cmocka_unit_test(test_model_memory_ref),
        cmocka_unit_test(test_model_memory_recurrent),
        cmocka_unit_test(test_model_memory_experts),
    };
    torture_json();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
