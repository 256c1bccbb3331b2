/* test_ref.c - the reference backend against closed forms. */
#include "ops_cases.h"

#include "base/half.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static ops *open_ref(ctx_t *ctx, bool exact) {
    ops *o;
    ops_options options = {.exact = exact};
    assert_ok(ctx, ops_open(&o, ctx, "ref", &options));
    ops_limits limits = {.n_tok = 64, .width = 4096};
    assert_ok(ctx, o->table->reserve(o, &limits));
    return o;
}

enum { N_TOK = 3, N_OUT = 5, N_IN = 256 };

/* How far y may be from the product: half a step of max |x| / 127 of each group where x is rounded
 * to 8 bits, and the rounding of the f32 parts. */
static double product_bound(const case_weight *w, const float *w_row, const float *x,
                            bool rounded) {
    double bound = 1e-9;
    for (int i = 0; i < N_IN; i++) {
        double top = 0;
        for (int j = 0; rounded && j < w->desc.group; j++) {
            top = fmax(top, fabs((double)x[i / w->desc.group * w->desc.group + j]));
        }
        bound += fabs((double)w_row[i]) * (1e-6 * fabs((double)x[i]) + 0.501 / 127 * top);
    }
    return bound;
}

static void check_product(bool exact, int bits, int group, dtype type) {
    ctx_t *ctx = test_context();
    ops *o = open_ref(ctx, exact);
    test_rng rng = {(uint64_t)(bits * 1000 + group)};
    case_weight w = case_weight_new(&rng, N_OUT, N_IN, bits, group, type, false);
    float *x = case_activations(&rng, N_TOK * N_IN), y[N_TOK * N_OUT];
    ops_weight *weight;
    assert_ok(ctx, o->table->weight_new(&weight, o, &w.desc));
    ops_mat mx = case_mat(o, N_TOK, N_IN, x), my = case_mat(o, N_TOK, N_OUT, NULL);
    o->table->linear(o, mx, &(linear_item){.weight = weight, .y = my}, 1);
    case_read(o, my, y);
    for (int t = 0; t < N_TOK; t++) {
        for (int r = 0; r < N_OUT; r++) {
            const float *w_row = w.dense + r * N_IN, *x_row = x + t * N_IN;
            double sum = 0;
            for (int i = 0; i < N_IN; i++) {
                sum += (double)w_row[i] * x_row[i];
            }
            assert_true(fabs(y[t * N_OUT + r] - sum) <=
                        product_bound(&w, w_row, x_row, bits && !exact));
        }
    }
    o->table->buf_free(o, mx.buf);
    o->table->buf_free(o, my.buf);
    o->table->weight_free(o, weight);
    ops_close(o);
    free(x);
    case_weight_free(&w);
    jang_context_free(ctx);
}

static void test_ref_linear_is_the_matrix_product(void **state) {
    (void)state;
    static const int widths[] = {0, 2, 3, 4, 5, 6, 8};
    static const dtype types[] = {DT_F32, DT_F16, DT_BF16};
    for (int b = 0; b < 7; b++) {
        for (int group = 32; group <= 128; group *= 2) {
            for (int t = 0; t < 3; t++) {
                check_product(true, widths[b], group, types[t]);
                check_product(false, widths[b], group, types[t]);
            }
        }
    }
}

/* Activations that 8 bits hold exactly: the default path then is the product itself. */
static void test_ref_linear_keeps_small_integers(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    ops *o = open_ref(ctx, false);
    test_rng rng = {7};
    case_weight w = case_weight_new(&rng, 2, 64, 4, 64, DT_F32, true);
    float x[64], y[2] = {1, 2}, bias[2];
    memcpy(bias, w.desc.bias, sizeof bias);
    for (int i = 0; i < 64; i++) {
        x[i] = (float)((i % 2 ? -1 : 1) * (127 - i % 40)); /* no outlier: the scale is 1 */
    }
    ops_weight *weight;
    assert_ok(ctx, o->table->weight_new(&weight, o, &w.desc));
    ops_mat mx = case_mat(o, 1, 64, x), my = case_mat(o, 1, 2, y);
    linear_item item = {.weight = weight, .y = my, .accumulate = true};
    o->table->linear(o, mx, &item, 1);
    case_read(o, my, y);
    for (int r = 0; r < 2; r++) {
        double sum = (double)bias[r] + r + 1;
        for (int i = 0; i < 64; i++) {
            sum += (double)w.dense[r * 64 + i] * x[i];
        }
        assert_true(fabs(y[r] - sum) < 1e-4);
    }
    o->table->buf_free(o, mx.buf);
    o->table->buf_free(o, my.buf);
    o->table->weight_free(o, weight);
    ops_close(o);
    case_weight_free(&w);
    jang_context_free(ctx);
}

static bool near(double a, double b) {
    return fabs(a - b) <= 1e-6 * (1 + fabs(b));
}

static void test_ref_norm_rope_and_gate_follow_their_formulas(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    ops *o = open_ref(ctx, false);
    float ones[2] = {1, 1}, x[4] = {3, -4, 0, 0}, got[4], freq[1] = {0.5f};
    weight_desc norm = {.name = "n", .n_out = 1, .n_in = 2, .type = DT_F32, .data = ones};
    weight_desc inv = {.name = "f", .n_out = 1, .n_in = 1, .type = DT_F32, .data = freq};
    ops_weight *w, *f;
    assert_ok(ctx, o->table->weight_new(&w, o, &norm));
    assert_ok(ctx, o->table->weight_new(&f, o, &inv));
    ops_mat m = case_mat(o, 1, 4, x);
    /* two blocks of 2; weight 1 + offset 1 */
    norm_desc rms = {.kind = NORM_RMS, .width = 2, .weight = w, .eps = 1e-5f, .offset = 1};
    o->table->norm(o, &rms, m, m);
    case_read(o, m, got);
    assert_true(near(got[0], 2 * 3 / sqrt(12.50001)) && near(got[1], -2 * 4 / sqrt(12.50001)));
    assert_true(got[2] == 0 && got[3] == 0);

    ops_batch *batch;
    int32_t id = 0, page = 0, row = 0;
    batch_seq seq = {.first = 0, .n_tok = 1, .n_past = 6, .pages = &page};
    batch_desc step = {.n_tok = 1, .ids = &id, .n_seq = 1, .seqs = &seq, .n_out = 1, .out = &row};
    assert_ok(ctx, o->table->batch_new(&batch, o));
    assert_ok(ctx, o->table->batch_set(o, batch, &step));
    assert_ok(ctx, o->table->write(o, m.buf, 0, (float[4]){1, 0, 0, 2}, 16));
    rope_desc rope = {.inv_freq = f, .n_rot = 2, .scale = 1};
    o->table->rope(o, &rope, batch, m, 2, 2);
    case_read(o, m, got);
    assert_true(near(got[0], cos(3)) && near(got[1], sin(3)));
    assert_true(near(got[2], -2 * sin(3)) && near(got[3], 2 * cos(3)));

    assert_ok(ctx, o->table->write(o, m.buf, 0, (float[4]){1, -2, 1, 3}, 16));
    act_desc silu = {.kind = ACT_SILU};
    o->table->gated(o, &silu, ops_columns(m, 0, 2), ops_columns(m, 2, 2), ops_columns(m, 0, 2));
    case_read(o, m, got);
    assert_true(near(got[0], 1 / (1 + exp(-1))) && near(got[1], -3 * 2 / (1 + exp(2))));
    o->table->batch_free(o, batch);
    o->table->buf_free(o, m.buf);
    o->table->weight_free(o, w);
    o->table->weight_free(o, f);
    ops_close(o);
    jang_context_free(ctx);
}

/* Equal keys: every visible position has the same weight, so the result is the values' mean. */
static void test_ref_attention_of_equal_keys_is_the_mean(void **state) {
    (void)state;
    enum { N = 70 };
    ctx_t *ctx = test_context();
    ops *o = open_ref(ctx, false);
    ops_kv *kv;
    kv_layer one = {1, 2, 2}, both[2] = {one, one};
    kv_desc desc = {.n_layer = 2, .layers = both, .type = KV_F32};
    assert_ok(ctx, o->table->kv_new(&kv, o, &desc));
    assert_ok(ctx, o->table->kv_grow(o, kv, 3));
    ops_batch *batch;
    int32_t ids[N] = {0}, pages[2] = {2, 0};
    batch_seq seq = {.first = 0, .n_tok = N, .n_past = 0, .pages = pages};
    batch_desc step = {.n_tok = N, .ids = ids, .n_seq = 1, .seqs = &seq};
    assert_ok(ctx, o->table->batch_new(&batch, o));
    assert_ok(ctx, o->table->batch_set(o, batch, &step));
    float k[2 * N], v[2 * N], q[4 * N], out[4 * N];
    for (int i = 0; i < N; i++) {
        memcpy(k + 2 * i, (float[2]){1, -1}, 8);
        memcpy(v + 2 * i, (float[2]){(float)i, 1}, 8);
        memcpy(q + 4 * i, (float[4]){1, 2, 3, 4}, 16);
    }
    ops_mat mk = case_mat(o, N, 2, k), mv = case_mat(o, N, 2, v), mq = case_mat(o, N, 4, q);
    ops_mat mo = case_mat(o, N, 4, NULL);
    o->table->kv_store(o, kv, 1, batch, mk, mv);
    for (int32_t window = 0; window <= 5; window += 5) {
        attention_desc a = {.n_head = 2, .kv = one, .scale = 0.5f, .window = window};
        o->table->attention(o, &a, kv, 1, batch, mq, mo);
        case_read(o, mo, out);
        for (int i = 0; i < N; i++) {
            int from = window && i >= window ? i - window + 1 : 0;
            assert_true(near(out[4 * i + 2], (from + i) / 2.0) && near(out[4 * i + 3], 1));
        }
        a.whole = true; /* as far to the right as to the left */
        o->table->attention(o, &a, kv, 1, batch, mq, mo);
        case_read(o, mo, out);
        for (int i = 0; i < N; i++) {
            int from = window && i >= window ? i - window + 1 : 0;
            int last = window && i + window < N ? i + window - 1 : N - 1;
            assert_true(near(out[4 * i + 2], (from + last) / 2.0));
        }
    }
    attention_desc chunked = {.n_head = 2, .kv = one, .scale = 0.5f, .chunk = 7};
    o->table->attention(o, &chunked, kv, 1, batch, mq, mo);
    case_read(o, mo, out);
    for (int i = 0; i < N; i++) {
        assert_true(near(out[4 * i + 2], (i / 7 * 7 + i) / 2.0));
    }
    o->table->kv_free(o, kv);
    o->table->batch_free(o, batch);
    o->table->buf_free(o, mk.buf);
    o->table->buf_free(o, mv.buf);
    o->table->buf_free(o, mq.buf);
    o->table->buf_free(o, mo.buf);
    ops_close(o);
    jang_context_free(ctx);
}

static void test_ref_refuses_what_cannot_be(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    ops *o = open_ref(ctx, false), *none = NULL;
    ops_weight *w;
    weight_desc d = {.name = "w",
                     .n_out = 2,
                     .n_in = 64,
                     .bits = 7,
                     .group = 64,
                     .scale_type = DT_F16,
                     .data = "",
                     .scales = "",
                     .biases = ""};
    assert_fails(ctx, o->table->weight_new(&w, o, &d), JANG_ERR_ARGUMENT, "w: bits must be");
    d.bits = 4;
    d.n_in = 96;
    assert_fails(ctx, o->table->weight_new(&w, o, &d), JANG_ERR_ARGUMENT, "does not divide");
    assert_fails(ctx, ops_open(&none, ctx, "gpu", NULL), JANG_ERR_ARGUMENT, "unknown backend gpu");
    assert_null(none);
    ops_mat m = case_mat(o, 1, 4, NULL);
    char bytes[8];
    assert_fails(ctx, o->table->read(o, m.buf, 12, bytes, 8), JANG_ERR_ARGUMENT, "buffer of 16");
    o->table->buf_free(o, m.buf);
    ops_close(o);
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ref_linear_is_the_matrix_product),
        cmocka_unit_test(test_ref_linear_keeps_small_integers),
        cmocka_unit_test(test_ref_norm_rope_and_gate_follow_their_formulas),
        cmocka_unit_test(test_ref_attention_of_equal_keys_is_the_mean),
        cmocka_unit_test(test_ref_refuses_what_cannot_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
