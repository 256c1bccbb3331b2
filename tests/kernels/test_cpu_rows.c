/* test_cpu_rows.c - the cpu backend's operators on rows against ref, for every instruction set. */
#include "base/cpu.h"
#include "ops_cases.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N_TOK = 5 };

/* The two backends side by side: x goes into both, results are compared. */
typedef struct pair {
    ctx_t *ctx;
    ops *o[2]; /* ref, cpu */
    test_rng rng;
} pair;

static pair pair_open(cpu_isa isa) {
    pair p = {.ctx = test_context(), .rng = {(uint64_t)isa + 1}};
    setenv("JANG_ISA", cpu_isa_name(isa), 1);
    for (int i = 0; i < 2; i++) {
        assert_ok(p.ctx, ops_open(&p.o[i], p.ctx, i ? "cpu" : "ref", NULL));
        ops_limits limits = {.n_tok = N_TOK, .width = 4096};
        assert_ok(p.ctx, p.o[i]->table->reserve(p.o[i], &limits));
    }
    unsetenv("JANG_ISA");
    return p;
}

static void pair_close(pair *p) {
    ops_close(p->o[0]);
    ops_close(p->o[1]);
    jang_context_free(p->ctx);
}

/* Each within `parts` units of f32 precision of its own size plus `floor`. */
static void assert_close(const pair *p, const char *what, const float *want, const float *got,
                         int64_t n, double parts, double floor) {
    for (int64_t i = 0; i < n; i++) {
        double limit = parts * 0x1p-24 * (fabs((double)want[i]) + floor);
        if (!(fabs((double)want[i] - (double)got[i]) <= limit)) {
            fail_msg("%s of %s at %d: %.9g, but ref %.9g", what, p->o[1]->table->name, (int)i,
                     (double)got[i], (double)want[i]);
        }
    }
}

#define FOR_EACH_ISA(p)                                                                            \
    for (int isa_ = 0; isa_ < CPU_N_ISA; isa_++)                                                   \
        if (cpu_has((cpu_isa)isa_))                                                                \
            for (pair p = pair_open((cpu_isa)isa_), *once_ = &p; once_;                            \
                 pair_close(&p), once_ = NULL)

static float *run_norm(const pair *p, int b, norm_desc d, const case_weight *w,
                       const case_weight *bias, int64_t width, const float *x) {
    ops *o = p->o[b];
    ops_weight *weight = NULL, *added = NULL;
    if (w) {
        assert_ok(p->ctx, o->table->weight_new(&weight, o, &w->desc));
    }
    if (bias) {
        assert_ok(p->ctx, o->table->weight_new(&added, o, &bias->desc));
    }
    d.weight = weight;
    d.bias = added;
    ops_mat m = case_mat(o, N_TOK, width, x);
    o->table->norm(o, &d, m, m);
    float *y = malloc((size_t)(N_TOK * width) * sizeof *y);
    case_read(o, m, y);
    o->table->buf_free(o, m.buf);
    if (weight) {
        o->table->weight_free(o, weight);
    }
    if (added) {
        o->table->weight_free(o, added);
    }
    return y;
}

static void test_cpu_norm_agrees_with_ref(void **state) {
    (void)state;
    static const int widths[] = {1, 2, 7, 16, 33, 64, 100, 576, 2048};
    FOR_EACH_ISA(p) {
        for (int i = 0; i < 36; i++) {
            int64_t n = widths[i % 9], heads = n < 100 ? 6 : 2, all = N_TOK * n * heads;
            norm_desc d = {.kind = (norm_kind)(i / 9),
                           .width = n,
                           .eps = 1e-5f,
                           .offset = i % 2 ? 1.0f : 0.0f};
            dtype type = (dtype[]){DT_F32, DT_F16, DT_BF16}[i % 3];
            int64_t n_w = i % 4 == 1 ? 2 * n : n; /* one weight for all heads, or for every two */
            case_weight w = case_weight_new(&p.rng, 1, n_w, 0, 1, type, false);
            case_weight bias = case_weight_new(&p.rng, 1, n, 0, 1, DT_BF16, false);
            float *x = case_activations(&p.rng, all), *y[2];
            for (int b = 0; b < 2; b++) {
                y[b] = run_norm(&p, b, d, i % 5 ? &w : NULL, i % 3 ? &bias : NULL, n * heads, x);
            }
            /* n / lanes additions of squares, halved by the root, and a few roundings; the mean and
             * the bias may take away leading digits */
            bool cancels = d.kind == NORM_LAYER || i % 3;
            assert_close(&p, "norm", y[0], y[1], all, 8 + (double)n / 8, cancels ? 20 : 0);
            free(x);
            free(y[0]);
            free(y[1]);
            case_weight_free(&w);
            case_weight_free(&bias);
        }
    }
}

static void run_gated(const pair *p, int b, const act_desc *act, int n, bool gate_only,
                      const float *x, float *y) {
    ops *o = p->o[b];
    ops_mat m = case_mat(o, 1, 2 * n, x);
    o->table->gated(o, act, ops_columns(m, 0, n), gate_only ? (ops_mat){0} : ops_columns(m, n, n),
                    ops_columns(m, 0, n));
    m.width = n;
    case_read(o, m, y);
    o->table->buf_free(o, m.buf);
}

/* The size of the argument of an activation's exponential, whose rounding is a relative error. */
static double argument(activation act, double u) {
    bool cubic = act == ACT_GELU || act == ACT_GELU_TANH;
    return fmin(cubic ? 1.6 * u * (1 + u * u / 20) : u, 110);
}

static void test_cpu_gated_agrees_with_ref(void **state) {
    (void)state;
    enum { N = 1003 };
    FOR_EACH_ISA(p) {
        for (int act = 0; act <= ACT_XIELU; act++) {
            act_desc d = {.kind = (activation)act, .a = 1.75f, .b = 0.5f};
            float x[2 * N], y[2][N];
            for (int i = 0; i < N; i++) {
                x[i] = (float)(i - 500) * 0.1f + 0.01f * rng_normal(&p.rng);
                x[N + i] = rng_normal(&p.rng);
            }
            x[0] = -1000, x[1] = 1000, x[2] = -0.0f, x[3] = 1e-30f, x[4] = -88.5f;
            for (int gate_only = 0; gate_only < 2; gate_only++) {
                run_gated(&p, 0, &d, N, gate_only, x, y[0]);
                run_gated(&p, 1, &d, N, gate_only, x, y[1]);
                /* differences near 1 lose digits that ref keeps */
                double floor = act == ACT_SOFTCAP || act == ACT_XIELU ? 4 : 1e-30;
                for (int i = 0; i < N; i++) {
                    double parts = 8 + 3 * argument(d.kind, fabs((double)x[i]));
                    assert_close(&p, "gated", &y[0][i], &y[1][i], 1, parts, floor);
                }
            }
        }
    }
}

static void test_cpu_add_agrees_with_ref(void **state) {
    (void)state;
    enum { N = 77 };
    FOR_EACH_ISA(p) {
        float *x = case_activations(&p.rng, N_TOK * 2 * N), y[2][N_TOK * 2 * N];
        for (int b = 0; b < 2; b++) {
            ops_mat m = case_mat(p.o[b], N_TOK, 2 * N, x);
            p.o[b]->table->add(p.o[b], 0.3f, ops_columns(m, 0, N), ops_columns(m, N, N));
            case_read(p.o[b], m, y[b]);
            p.o[b]->table->buf_free(p.o[b], m.buf);
        }
        assert_close(&p, "add", y[0], y[1], N_TOK * 2 * N, 2, 20);
        free(x);
    }
}

static void test_cpu_rope_and_embed_agree_with_ref(void **state) {
    (void)state;
    FOR_EACH_ISA(p) {
        for (int variant = 0; variant < 12; variant++) {
            int n_rot = (const int[]){2, 10, 64}[variant % 3], head = n_rot + 6 * (variant % 2);
            enum { HEADS = 3 };
            float freq[32], *x = case_activations(&p.rng, N_TOK * HEADS * head);
            for (int i = 0; i < n_rot / 2; i++) {
                freq[i] = powf(10000, -2.0f * (float)i / (float)n_rot);
            }
            case_weight w = case_weight_new(&p.rng, 9, 96, (const int[]){4, 3, 0}[variant % 3], 32,
                                            DT_BF16, false);
            float turned[2][N_TOK * HEADS * 70], rows[2][N_TOK * 96];
            for (int b = 0; b < 2; b++) {
                ops *o = p.o[b];
                weight_desc d = {
                    .name = "f", .n_out = 1, .n_in = n_rot / 2, .type = DT_F32, .data = freq};
                ops_weight *inv, *table;
                ops_batch *batch;
                int32_t ids[N_TOK] = {8, 0, 3, 3, 1}, types[N_TOK] = {0, 1, 1, 2, 0};
                int32_t pages[5000] = {0};
                batch_seq seqs[2] = {{.first = 0, .n_tok = 2, .n_past = 7, .pages = pages},
                                     {.first = 2, .n_tok = 3, .n_past = 99999, .pages = pages}};
                batch_desc step = {.n_tok = N_TOK, .ids = ids, .n_seq = 2, .seqs = seqs};
                step.types = types;
                assert_ok(p.ctx, o->table->weight_new(&inv, o, &d));
                assert_ok(p.ctx, o->table->weight_new(&table, o, &w.desc));
                assert_ok(p.ctx, o->table->batch_new(&batch, o));
                assert_ok(p.ctx, o->table->batch_set(o, batch, &step));
                ops_mat m = case_mat(o, N_TOK, HEADS * head, x), e = case_mat(o, N_TOK, 96, NULL);
                rope_desc rope = {
                    .inv_freq = inv, .n_rot = n_rot, .interleaved = variant > 5, .scale = 1.25f};
                o->table->rope(o, &rope, batch, m, HEADS, head);
                o->table->embed(o, table, variant % 3 ? EMBED_IDS : EMBED_TYPES, batch,
                                variant % 2 ? 1.0f : 3.5f, e);
                case_read(o, m, turned[b]);
                case_read(o, e, rows[b]);
                o->table->batch_free(o, batch);
                o->table->weight_free(o, inv);
                o->table->weight_free(o, table);
                o->table->buf_free(o, m.buf);
                o->table->buf_free(o, e.buf);
            }
            /* x cos - y sin: the roundings are relative to the larger of the two */
            assert_close(&p, "rope", turned[0], turned[1], N_TOK * HEADS * head, 6, 120);
            assert_memory_equal(rows[0], rows[1], sizeof rows[0]);
            free(x);
            case_weight_free(&w);
        }
    }
}

static void test_cpu_take_out_copies_rows(void **state) {
    (void)state;
    FOR_EACH_ISA(p) {
        ops *o = p.o[1];
        float x[N_TOK * 3], y[6];
        for (int i = 0; i < N_TOK * 3; i++) {
            x[i] = (float)i;
        }
        ops_batch *batch;
        int32_t ids[N_TOK] = {0}, page = 0, out[2] = {1, 4};
        batch_seq seq = {.n_tok = N_TOK, .pages = &page};
        batch_desc step = {
            .n_tok = N_TOK, .ids = ids, .n_seq = 1, .seqs = &seq, .n_out = 2, .out = out};
        assert_ok(p.ctx, o->table->batch_new(&batch, o));
        assert_ok(p.ctx, o->table->batch_set(o, batch, &step));
        ops_mat m = case_mat(o, N_TOK, 3, x), r = case_mat(o, 2, 3, NULL);
        o->table->take_out(o, batch, m, r);
        case_read(o, r, y);
        assert_memory_equal(y, ((float[]){3, 4, 5, 12, 13, 14}), sizeof y);
        o->table->batch_free(o, batch);
        o->table->buf_free(o, m.buf);
        o->table->buf_free(o, r.buf);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cpu_norm_agrees_with_ref),
        cmocka_unit_test(test_cpu_gated_agrees_with_ref),
        cmocka_unit_test(test_cpu_add_agrees_with_ref),
        cmocka_unit_test(test_cpu_rope_and_embed_agree_with_ref),
        cmocka_unit_test(test_cpu_take_out_copies_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
