/* test_restore.c - every tiny model after its sequence was cut short and gone on with, and beside a
 * prefix that an engine kept: the logits are transformers' and those of a fresh start, to the bit.
 */
#include "engine_rig.h"
#include "fixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MOST 150 /* more than two pages */
#define N_VOCAB 307

/* The fixture's prompt, then random words; returns how many there are. */
static int32_t make_ids(int32_t ids[MOST], const fixture *f, int32_t n_context) {
    int32_t n = n_context < MOST ? n_context : MOST;
    random_ids(ids, (size_t)n, 11);
    memcpy(ids, f->ids, (size_t)f->n_tok * sizeof *ids);
    return n;
}

/* ---- Sessions ---- */

static jang_session *open_session(ctx_t *ctx, jang_model *m, int32_t n_batch) {
    jang_session_options o = jang_session_options_default();
    o.n_batch = n_batch;
    o.kv_type = JANG_KV_F32; /* as transformers keeps them */
    jang_session *s;
    assert_ok(ctx, jang_session_new(&s, m, &o));
    return s;
}

/* Cuts at `at`, after other words from there on, and computes the rest again. */
static void check_cut(ctx_t *ctx, const char *name, jang_session *s, const int32_t *ids, int32_t n,
                      int32_t at, const float *whole, float *again) {
    int32_t other[3] = {(ids[at] + 1) % 300, 5, 6};
    int32_t n_other = n - at < 3 ? n - at : 3;
    assert_ok(ctx, jang_session_truncate(s, (size_t)at));
    assert_ok(ctx, jang_session_append(s, other, (size_t)n_other, NULL));
    assert_ok(ctx, jang_session_truncate(s, (size_t)at));
    assert_ok(ctx, jang_session_append(s, ids + at, (size_t)(n - at), again));
    size_t n_bytes = (size_t)(n - at) * N_VOCAB * sizeof *again;
    if (memcmp(again, whole + (size_t)at * N_VOCAB, n_bytes) != 0) {
        fail_msg("%s: cut at %d, it goes on otherwise", name, at);
    }
}

/* Returns how far the logits after a restore are off transformers'. */
static double check_session(ctx_t *ctx, const char *name, const fixture *f, jang_model *m) {
    int32_t ids[MOST], n = make_ids(ids, f, jang_model_get_info(m)->n_context), half = f->n_tok / 2;
    const int32_t cuts[] = {n - 1, 128, 65, 64, 63, half, 1};
    float *whole = malloc(MOST * N_VOCAB * sizeof *whole), *again = malloc(MOST * N_VOCAB * 4);
    jang_session *a = open_session(ctx, m, 512), *b = open_session(ctx, m, 40);
    assert_ok(ctx, jang_session_append(a, ids, (size_t)n, whole));
    assert_ok(ctx, jang_session_append(b, ids, (size_t)n, NULL));
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        if (cuts[i] < n) {
            check_cut(ctx, name, b, ids, n, cuts[i], whole, again);
        }
    }
    jang_session_free(a);
    jang_session_free(b);
    a = open_session(ctx, m, 512); /* the prompt alone, as transformers saw it */
    b = open_session(ctx, m, 40);
    assert_ok(ctx, jang_session_append(a, f->ids, (size_t)f->n_tok, whole));
    assert_ok(ctx, jang_session_append(b, f->ids, (size_t)half, again));
    check_cut(ctx, name, b, f->ids, f->n_tok, half - 1, whole, again + (half - 1) * N_VOCAB);
    double error = fixture_error(f, again);
    if (!(error < 2e-3)) {
        fail_msg("%s: %g of a deviation off transformers after a restore", name, error);
    }
    free(whole);
    free(again);
    jang_session_free(a);
    jang_session_free(b);
    return error;
}

/* ---- Engines ---- */

/* A request whose beginning another one left in the cache, and the same without the cache. */
static void check_engine(ctx_t *ctx, const char *name, const fixture *f) {
    int32_t ids[MOST];
    jang_model *m;
    jang_engine *e = engine_open(&m, ctx, name, jang_engine_options_default());
    int32_t n = make_ids(ids, f, jang_model_get_info(m)->n_context - 8);
    jang_request r = jang_request_default(m);
    r.prompt = ids;
    r.n_prompt = (size_t)n - 4;
    r.n_max = 1;
    got *first = engine_ask(ctx, e, r);
    r.n_prompt = (size_t)n;
    r.n_max = 8;
    r.ignore_eos = true;
    r.n_logprobs = 3;
    engine_check_cached(ctx, e, r, (n - 5) / 64 * 64, name);
    got_free(first, 1);
    jang_engine_free(e);
    jang_model_free(m);
}

static void test_restored_prefixes_give_equal_logits(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    jang_model_options o = jang_model_options_default();
    o.exact = true;
    size_t n;
    double worst = 0;
    char **names = fixture_names(ctx, &n);
    for (size_t i = 0; i < n; i++) {
        fixture f;
        jang_model *m;
        fixture_read(&f, ctx, names[i]);
        assert_int_equal(f.n_vocab, N_VOCAB);
        assert_ok(ctx, jang_model_open(&m, ctx, f.path, &o));
        worst = fmax(worst, check_session(ctx, names[i], &f, m));
        jang_model_free(m);
        check_engine(ctx, names[i], &f);
        fixture_free(&f, ctx);
        ctx_free(ctx, names[i]);
    }
    print_message("%zu models, at most %.2e of a deviation off\n", n, worst);
    ctx_free(ctx, names);
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_restored_prefixes_give_equal_logits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
