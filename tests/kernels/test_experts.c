/* test_experts.c - routing by closed forms; products with experts against those with each expert's
 * weight alone, to the last bit, on every instruction set; sums and gates against ref. */
#include "base/cpu.h"
#include "ops/hostbuf.h"
#include "ops_cases.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N_EXPERT = 7, N_USED = 3, MAX_TOK = 130 };

static ops *open_backend(ctx_t *ctx, const char *name, cpu_isa isa, bool exact) {
    ops *o;
    ops_options options = {.exact = exact};
    setenv("JANG_ISA", cpu_isa_name(isa), 1);
    assert_ok(ctx, ops_open(&o, ctx, name, &options));
    unsetenv("JANG_ISA");
    ops_limits limits = {.n_tok = MAX_TOK, .width = 4096};
    assert_ok(ctx, o->table->reserve(o, &limits));
    return o;
}

/* ---- Routing ----------------------------------------------------------------------------------
 */

/* Scores are given as they should come out of the score function. */
static float logit_for(route_score kind, double score) {
    return kind == ROUTE_SIGMOID ? (float)log(score / (1 - score)) : (float)log(score);
}

typedef struct route_case {
    const char *about;
    route_desc desc;
    double scores[8];
    float bias[8], expert_scale[8]; /* all 0: none */
    int n_expert, n_used;
    int experts[3];
    double weights[3];
} route_case;

static const route_case route_cases[] = {
    {.about = "softmax over all",
     .desc = {.score = ROUTE_SOFTMAX, .scale = 1},
     .scores = {0.1, 0.4, 0.2, 0.3},
     .n_expert = 4,
     .n_used = 2,
     .experts = {1, 3},
     .weights = {0.4, 0.3}},
    {.about = "softmax, renormalised and scaled",
     .desc = {.score = ROUTE_SOFTMAX, .renormalise = true, .scale = 2},
     .scores = {0.1, 0.4, 0.2, 0.3},
     .n_expert = 4,
     .n_used = 3,
     .experts = {1, 3, 2},
     .weights = {2 * 0.4 / 0.9, 2 * 0.3 / 0.9, 2 * 0.2 / 0.9}},
    {.about = "softmax over the chosen, of logits that sum to more than 1",
     .desc = {.score = ROUTE_SOFTMAX_CHOSEN, .scale = 1},
     .scores = {8, 2, 1, 4},
     .n_expert = 4,
     .n_used = 2,
     .experts = {0, 3},
     .weights = {8.0 / 12, 4.0 / 12}},
    {.about = "equal scores: the first",
     .desc = {.score = ROUTE_SOFTMAX, .scale = 1},
     .scores = {0.25, 0.25, 0.25, 0.25},
     .n_expert = 4,
     .n_used = 2,
     .experts = {0, 1},
     .weights = {0.25, 0.25}},
    {.about = "sigmoid; the bias chooses and does not weigh",
     .desc = {.score = ROUTE_SIGMOID, .renormalise = true, .sum_eps = 0.1f, .scale = 2.5f},
     .scores = {0.5, 0.4, 0.3, 0.2},
     .bias = {0, 0, 0.4f, 0},
     .n_expert = 4,
     .n_used = 2,
     .experts = {2, 0},
     .weights = {2.5 * 0.3 / 0.9, 2.5 * 0.5 / 0.9}},
    {.about = "sigmoids that are 1, all of them: the logits choose",
     .desc = {.score = ROUTE_SIGMOID, .scale = 1},
     .scores = {1 - 1e-9, 1 - 1e-11, 1 - 1e-10, 0.5},
     .n_expert = 4,
     .n_used = 2,
     .experts = {1, 2},
     .weights = {1, 1}},
    {.about = "groups by their best two",
     .desc =
         {.score = ROUTE_SIGMOID, .n_group = 4, .n_group_used = 1, .group_pairs = true, .scale = 1},
     .scores = {0.9, 0.1, 0.6, 0.5, 0.2, 0.3, 0.4, 0.4},
     .n_expert = 8,
     .n_used = 2,
     .experts = {2, 3},
     .weights = {0.6, 0.5}},
    {.about = "groups by their best",
     .desc = {.score = ROUTE_SIGMOID, .n_group = 4, .n_group_used = 1, .scale = 1},
     .scores = {0.9, 0.1, 0.6, 0.5, 0.2, 0.3, 0.4, 0.4},
     .n_expert = 8,
     .n_used = 2,
     .experts = {0, 1},
     .weights = {0.9, 0.1}},
    {.about = "two groups of which the bias picks one; negative sums stay in the choice",
     .desc =
         {.score = ROUTE_SIGMOID, .n_group = 2, .n_group_used = 1, .group_pairs = true, .scale = 1},
     .scores = {0.9, 0.8, 0.6, 0.5},
     .bias = {-2, -2, -1.5f, -1.7f},
     .n_expert = 4,
     .n_used = 2,
     .experts = {2, 3},
     .weights = {0.6, 0.5}},
    {.about = "sparse mixer: only those near the best count",
     .desc = {.score = ROUTE_SPARSEMIXER, .scale = 1, .jitter = 0.2f},
     .scores = {20.08553692, 7.38905610, 16.44464677, 9.02501350}, /* logits 3, 2, 2.8, 2.2 */
     .n_expert = 4,
     .n_used = 2,
     .experts = {0, 2},
     .weights = {20.08553692 / (20.08553692 + 7.38905610 + 16.44464677 + 9.02501350),
                 16.44464677 / (16.44464677 + 7.38905610 + 9.02501350)}},
    {.about = "a scale of each expert",
     .desc = {.score = ROUTE_SOFTMAX, .renormalise = true, .scale = 1},
     .scores = {0.1, 0.6, 0.3},
     .expert_scale = {1, 2, 4},
     .n_expert = 3,
     .n_used = 2,
     .experts = {1, 2},
     .weights = {2 * 0.6 / 0.9, 4 * 0.3 / 0.9}},
};

static ops_weight *vector_of(ops *o, const float *values, int n) {
    ops_weight *w = NULL;
    for (int i = 0; i < n; i++) {
        if (values[i] != 0 && !w) {
            weight_desc d = {.n_out = 1, .n_in = n, .type = DT_F32, .data = values};
            assert_ok(o->ctx, o->table->weight_new(&w, o, &d));
        }
    }
    return w;
}

static void test_route_follows_its_definition(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    ops *o = open_backend(ctx, "ref", CPU_SCALAR, false);
    for (size_t i = 0; i < sizeof route_cases / sizeof route_cases[0]; i++) {
        const route_case *c = &route_cases[i];
        route_desc desc = c->desc;
        ops_weight *bias = vector_of(o, c->bias, c->n_expert);
        ops_weight *scale = vector_of(o, c->expert_scale, c->n_expert);
        float logits[8], weights[3];
        int32_t experts[3];
        for (int e = 0; e < c->n_expert; e++) {
            logits[e] = logit_for(desc.score, c->scores[e]);
        }
        desc.bias = bias;
        desc.expert_scale = scale;
        host_route_row(&desc, logits, c->n_expert, c->n_used, experts, weights);
        for (int k = 0; k < c->n_used; k++) {
            if (experts[k] != c->experts[k] || fabs(weights[k] - c->weights[k]) > 1e-6) {
                fail_msg("%s: route %d is expert %d by %g, not %d by %g", c->about, k, experts[k],
                         (double)weights[k], c->experts[k], c->weights[k]);
            }
        }
        o->table->weight_free(o, bias);
        o->table->weight_free(o, scale);
    }
    ops_close(o);
    jang_context_free(ctx);
}

/* Whatever the logits are, experts are in range and none is taken twice. */
static void test_route_of_no_numbers_stays_in_range(void **state) {
    (void)state;
    float logits[N_EXPERT];
    for (int kind = 0; kind < 3; kind++) {
        for (int e = 0; e < N_EXPERT; e++) {
            logits[e] = e % 2 ? NAN : -INFINITY;
        }
        route_desc desc = {.score = (route_score)kind, .renormalise = true, .scale = 1};
        int32_t experts[N_EXPERT];
        float weights[N_EXPERT];
        bool seen[N_EXPERT] = {false};
        host_route_row(&desc, logits, N_EXPERT, N_EXPERT, experts, weights);
        for (int k = 0; k < N_EXPERT; k++) {
            assert_in_range(experts[k], 0, N_EXPERT - 1);
            assert_false(seen[experts[k]]);
            seen[experts[k]] = true;
        }
    }
}

/* ---- Products ---------------------------------------------------------------------------------
 */

typedef struct expert_case {
    case_weight experts[N_EXPERT];
    expert_data data[N_EXPERT];
    weight_desc desc;
} expert_case;

static void make_experts(expert_case *c, test_rng *rng, int64_t n_out, int64_t n_in, int bits,
                         int group, dtype type, bool bias) {
    for (int e = 0; e < N_EXPERT; e++) {
        c->experts[e] = case_weight_new(rng, n_out, n_in, bits, group, type, bias);
        const weight_desc *d = &c->experts[e].desc;
        c->data[e] = (expert_data){d->data, d->scales, d->biases, d->bias};
    }
    c->desc = c->experts[0].desc;
    c->desc.data = c->desc.scales = c->desc.biases = c->desc.bias = NULL;
    c->desc.experts = c->data;
    c->desc.n_expert = N_EXPERT;
}

static void free_experts(expert_case *c) {
    for (int e = 0; e < N_EXPERT; e++) {
        case_weight_free(&c->experts[e]);
    }
}

/* Logits that send token t to experts t % 7, and half of the tokens to expert 2 besides. */
static void make_logits(float *logits, test_rng *rng, int n_tok) {
    for (int t = 0; t < n_tok; t++) {
        for (int e = 0; e < N_EXPERT; e++) {
            logits[t * N_EXPERT + e] =
                rng_normal(rng) + (e == t % 7 ? 9.0f : 0) + (e == 2 && t % 2 ? 5.0f : 0);
        }
    }
}

/* What linear says of one row and one expert. */
static void multiply_alone(ops *o, const weight_desc *d, const float *x, float *y) {
    ops_weight *weight;
    assert_ok(o->ctx, o->table->weight_new(&weight, o, d));
    ops_mat mx = case_mat(o, 1, d->n_in, x), my = case_mat(o, 1, d->n_out, NULL);
    o->table->linear(o, mx, &(linear_item){.weight = weight, .y = my}, 1);
    case_read(o, my, y);
    o->table->buf_free(o, mx.buf);
    o->table->buf_free(o, my.buf);
    o->table->weight_free(o, weight);
}

/* Routes n_tok tokens and compares all products with those of single rows. Two items of different
 * widths read the same input. */
static void check_products(ops *o, test_rng *rng, expert_case cases[2], int n_tok, bool by_route) {
    const ops_table *t = o->table;
    int64_t n_in = cases[0].desc.n_in, n_row = by_route ? n_tok * N_USED : n_tok;
    float *logits = malloc((size_t)(n_tok * N_EXPERT) * sizeof *logits);
    make_logits(logits, rng, n_tok);
    float *x = case_activations(rng, n_row * n_in);
    ops_routes *routes;
    assert_ok(o->ctx, t->routes_new(&routes, o, n_tok, N_EXPERT, N_USED));
    ops_mat ml = case_mat(o, n_tok, N_EXPERT, logits), mx = case_mat(o, n_row, n_in, x);
    t->route(o, &(route_desc){.score = ROUTE_SOFTMAX, .scale = 1}, ml, routes);
    expert_item items[2];
    ops_weight *weights[2];
    for (int i = 0; i < 2; i++) {
        assert_ok(o->ctx, t->weight_new(&weights[i], o, &cases[i].desc));
        items[i].weight = weights[i];
        items[i].y = case_mat(o, n_tok * N_USED, cases[i].desc.n_out, NULL);
    }
    t->linear_experts(o, routes, mx, items, 2);
    for (int i = 0; i < 2; i++) {
        int64_t n_out = cases[i].desc.n_out;
        float *got = malloc((size_t)(n_tok * N_USED * n_out) * sizeof *got);
        float *want = malloc((size_t)n_out * sizeof *want);
        case_read(o, items[i].y, got);
        for (int r = 0; r < n_tok * N_USED; r++) {
            int expert = routes->expert[r];
            const float *row = x + (by_route ? r : r / N_USED) * n_in;
            multiply_alone(o, &cases[i].experts[expert].desc, row, want);
            if (memcmp(want, got + r * n_out, (size_t)n_out * sizeof *want) != 0) {
                fail_msg("%s, %d bits, group %d, %d tokens: route %d to expert %d gives other bits",
                         t->name, cases[i].desc.bits, cases[i].desc.group, n_tok, r, expert);
            }
        }
        free(got);
        free(want);
        t->buf_free(o, items[i].y.buf);
        t->weight_free(o, weights[i]);
    }
    t->routes_free(o, routes);
    t->buf_free(o, ml.buf);
    t->buf_free(o, mx.buf);
    free(logits);
    free(x);
}

static void check_form(const char *backend, cpu_isa isa, int bits, int group, dtype type,
                       bool exact) {
    static const int counts[] = {1, 2, 5, MAX_TOK};
    ctx_t *ctx = test_context();
    ops *o = open_backend(ctx, backend, isa, exact);
    test_rng rng = {(uint64_t)(bits * 1000 + group)};
    int64_t n_in = bits ? group * 3 : 75;
    expert_case cases[2];
    make_experts(&cases[0], &rng, 37, n_in, bits, group, type, bits == 4);
    int other = bits == 4 ? 8 : bits;
    make_experts(&cases[1], &rng, 70, n_in, other, group, type, false);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        check_products(o, &rng, cases, counts[i], i % 2 == 1);
        check_products(o, &rng, cases, counts[i], i % 2 == 0);
    }
    free_experts(&cases[0]);
    free_experts(&cases[1]);
    ops_close(o);
    jang_context_free(ctx);
}

static void test_experts_multiply_as_weights_alone(void **state) {
    (void)state;
    static const int widths[] = {0, 2, 3, 4, 5, 6, 8};
    static const dtype types[] = {DT_F32, DT_F16, DT_BF16};
    for (int isa = 0; isa < CPU_N_ISA; isa++) {
        for (int b = 0; cpu_has((cpu_isa)isa) && b < 7; b++) {
            check_form("cpu", (cpu_isa)isa, widths[b], 32 << b % 3, types[b % 3], false);
        }
        if (cpu_has((cpu_isa)isa)) {
            check_form("cpu", (cpu_isa)isa, 4, 64, DT_F16, true);
        }
    }
    check_form("ref", CPU_SCALAR, 4, 64, DT_F16, false);
    check_form("ref", CPU_SCALAR, 0, 64, DT_BF16, false);
}

/* ---- Sums and gates ---------------------------------------------------------------------------
 */

enum { WIDTH = 83, N_TOK = 9 };

/* Row by row results of the three operators on one backend. */
static void sums_and_gates(ops *o, const float *logits, const float *x, const float *base,
                           float *sums, float *gates, float *gated, int n_tok) {
    const ops_table *t = o->table;
    ops_routes *routes;
    assert_ok(o->ctx, t->routes_new(&routes, o, n_tok, N_EXPERT, N_USED));
    ops_mat ml = case_mat(o, n_tok, N_EXPERT, logits);
    ops_mat mx = case_mat(o, n_tok * N_USED, WIDTH, x), my = case_mat(o, n_tok, WIDTH, base);
    ops_mat mb = case_mat(o, n_tok, WIDTH, base), mg = case_mat(o, n_tok, 1, logits);
    ops_mat up = {mx.buf, 0, N_USED * WIDTH, n_tok, WIDTH};
    t->route(o, &(route_desc){.score = ROUTE_SOFTMAX, .scale = 1}, ml, routes);
    t->sum_routes(o, routes, mx, my, true, false);
    case_read(o, my, sums);
    t->take_routes(o, routes, my, mx);
    t->sum_routes(o, routes, mx, my, false, true);
    t->add_gated(o, mg, mb, my);
    case_read(o, my, gates);
    t->gated_clamped(o, 1.702f, 0.7f, mb, up, mb);
    case_read(o, mb, gated);
    t->routes_free(o, routes);
    ops_mat all[] = {ml, mx, my, mb, mg};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        t->buf_free(o, all[i].buf);
    }
}

static void test_sums_and_gates_agree_with_ref(void **state) {
    (void)state;
    enum { N = N_TOK * WIDTH };
    float logits[N_TOK * N_EXPERT], want[3][N], got[3][N], alone[3][WIDTH];
    test_rng rng = {3};
    make_logits(logits, &rng, N_TOK);
    float *x = case_activations(&rng, N * N_USED), *base = case_activations(&rng, N);
    ctx_t *ctx = test_context();
    ops *ref = open_backend(ctx, "ref", CPU_SCALAR, false);
    sums_and_gates(ref, logits, x, base, want[0], want[1], want[2], N_TOK);
    ops_close(ref);
    for (int isa = 0; isa < CPU_N_ISA; isa++) {
        if (!cpu_has((cpu_isa)isa)) {
            continue;
        }
        ops *cpu = open_backend(ctx, "cpu", (cpu_isa)isa, false);
        sums_and_gates(cpu, logits, x, base, got[0], got[1], got[2], N_TOK);
        for (int i = 0; i < 3; i++) {
            for (int j = 0; j < N; j++) { /* at most 5 terms, of at most 100 here */
                double limit = 8 * 0x1p-24 * (fabs((double)want[i][j]) + 300);
                assert_true(fabs((double)got[i][j] - (double)want[i][j]) <= limit);
            }
        }
        sums_and_gates(cpu, logits + 5 * N_EXPERT, x + 5 * N_USED * WIDTH, base + 5 * WIDTH,
                       alone[0], alone[1], alone[2], 1);
        assert_memory_equal(alone[0], got[0] + 5 * WIDTH, sizeof alone[0]);
        assert_memory_equal(alone[2], got[2] + 5 * WIDTH, sizeof alone[2]);
        ops_close(cpu);
    }
    free(x);
    free(base);
    jang_context_free(ctx);
}

/* A closed form by hand: limit 7, alpha 1.702 (gpt-oss). */
static void test_gated_clamped_is_the_formula(void **state) {
    (void)state;
    static const float gate[4] = {1, 9, -3, 0.5f}, up[4] = {2, 1, -8, 30};
    ctx_t *ctx = test_context();
    ops *o = open_backend(ctx, "ref", CPU_SCALAR, false);
    ops_mat g = case_mat(o, 1, 4, gate), u = case_mat(o, 1, 4, up);
    float y[4];
    o->table->gated_clamped(o, 1.702f, 7, g, u, g);
    case_read(o, g, y);
    const double want[4] = {3 / (1 + exp(-1.702)), 14 / (1 + exp(-11.914)), 18 / (1 + exp(5.106)),
                            4 / (1 + exp(-0.851))};
    for (int i = 0; i < 4; i++) {
        assert_true(fabs(y[i] - want[i]) < 2e-6 * fabs(want[i]));
    }
    o->table->buf_free(o, g.buf);
    o->table->buf_free(o, u.buf);
    ops_close(o);
    jang_context_free(ctx);
}

/* ---- Wrong use --------------------------------------------------------------------------------
 */

static void test_experts_report_sizes_that_do_not_fit(void **state) {
    (void)state;
    static const char *const backends[] = {"ref", "cpu"};
    for (int b = 0; b < 2; b++) {
        ctx_t *ctx = test_context();
        ops *o = open_backend(ctx, backends[b], CPU_SCALAR, false);
        const ops_table *t = o->table;
        ops_routes *routes;
        assert_fails(ctx, t->routes_new(&routes, o, 1, 4, 5), JANG_ERR_ARGUMENT, "5 of 4 experts");
        assert_fails(ctx, t->routes_new(&routes, o, 1, 2000, 5), JANG_ERR_ARGUMENT, "at most 1024");
        assert_ok(ctx, t->routes_new(&routes, o, 2, N_EXPERT, N_USED));
        ops_mat logits = case_mat(o, 3, N_EXPERT, NULL), x = case_mat(o, 2, 64, NULL);
        t->route(o, &(route_desc){.scale = 1}, logits, routes);
        assert_fails(ctx, t->finish(o), JANG_ERR_ARGUMENT, "3 rows of 7 logits");
        logits.n_row = 2;
        t->route(o, &(route_desc){.scale = 1, .n_group = 7, .n_group_used = 2}, logits, routes);
        assert_fails(ctx, t->finish(o), JANG_ERR_ARGUMENT, "2 of 7 groups");
        t->route(o, &(route_desc){.scale = 1}, logits, routes);
        test_rng rng = {1};
        expert_case c;
        make_experts(&c, &rng, 8, 32, 4, 32, DT_F16, false);
        ops_weight *w;
        assert_ok(ctx, t->weight_new(&w, o, &c.desc));
        t->linear_experts(o, routes, x, &(expert_item){w, x}, 1);
        assert_fails(ctx, t->finish(o), JANG_ERR_ARGUMENT, "rows of 64 or a weight");
        t->weight_free(o, w);
        c.data[3].scales = NULL;
        assert_fails(ctx, t->weight_new(&w, o, &c.desc), JANG_ERR_ARGUMENT, "has no data");
        c.desc.n_expert = -1;
        assert_fails(ctx, t->weight_new(&w, o, &c.desc), JANG_ERR_ARGUMENT, "number of experts");
        free_experts(&c);
        t->routes_free(o, routes);
        t->buf_free(o, logits.buf);
        t->buf_free(o, x.buf);
        ops_close(o);
        jang_context_free(ctx);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_route_follows_its_definition),
        cmocka_unit_test(test_route_of_no_numbers_stays_in_range),
        cmocka_unit_test(test_experts_multiply_as_weights_alone),
        cmocka_unit_test(test_sums_and_gates_agree_with_ref),
        cmocka_unit_test(test_gated_clamped_is_the_formula),
        cmocka_unit_test(test_experts_report_sizes_that_do_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
