/* test_tape_recurrent.c - gradients of operators with a memory against differences of the reference
 * backend's results. */
#include "base/cpu.h"
#include "model_files.h"
#include "ops_cases.h"
#include "quant/tape_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef enum tape_op { BLOCKS, CONV, TIME, SCAN, SSD, DELTA } tape_op;

enum { MAX_INPUTS = 5, MAX_OUTPUTS = 2, MAX_WEIGHTS = 2 };
enum { APART = -1, NOT_WANTED = -2 };

/* One set of sizes. blocks: heads blocks of n_row columns, of which n_column from n_key on. conv:
 * channels, n_row taps. time: channels. scan: channels, n_row numbers of state each. ssd and delta:
 * heads with states of n_row * n_column, n_key groups of B and C, or heads of q and k. */
typedef struct tape_case {
    tape_op op;
    int channels, heads, n_key, n_row, n_column;
    bool option;            /* conv: silu and bias; time: bias; delta: a decay for each row */
    int place[MAX_OUTPUTS]; /* the input in whose place an output lies, or one of the above */
} tape_case;

static const tape_case cases[] = {
    {BLOCKS, 0, 3, 2, 9, 4, false, {APART, NOT_WANTED}},
    {CONV, 21, 0, 0, 4, 0, true, {APART, NOT_WANTED}},
    {CONV, 16, 0, 0, 3, 0, false, {APART, NOT_WANTED}},
    {CONV, 8, 0, 0, 1, 0, true, {APART, NOT_WANTED}},
    {TIME, 7, 0, 0, 0, 0, true, {APART, APART}},
    {TIME, 7, 0, 0, 0, 0, true, {0, APART}},
    {TIME, 7, 0, 0, 0, 0, true, {NOT_WANTED, 0}},
    {TIME, 7, 0, 0, 0, 0, false, {0, NOT_WANTED}},
    {SCAN, 37, 0, 0, 16, 0, false, {0, NOT_WANTED}},
    {SCAN, 5, 0, 0, 19, 0, false, {APART, NOT_WANTED}},
    {SSD, 0, 5, 1, 6, 8, false, {0, NOT_WANTED}},
    {SSD, 0, 6, 3, 16, 21, false, {APART, NOT_WANTED}},
    {DELTA, 0, 6, 2, 16, 8, false, {2, NOT_WANTED}},
    {DELTA, 0, 3, 3, 9, 21, true, {2, NOT_WANTED}},
    {DELTA, 0, 4, 2, 8, 5, true, {APART, NOT_WANTED}},
};

static const int32_t lengths[] = {37, 1, 16, 20};
enum { N_CASES = sizeof cases / sizeof cases[0], N_SEQ = 4, N_TOK = 37 + 1 + 16 + 20 };

#define CUT_MIN 0.1f
#define CUT_MAX 2.0f

/* Matrices do not fill their buffers: rows are PAD numbers apart, the first of them begins there.
 */
#define PAD 3

/* A case on a backend with a tape around it. */
typedef struct bench {
    const tape_case *c;
    ctx_t *ctx;
    ops *o;
    tape *t;
    ops_state *state;
    ops_batch *batch;
    int n_inputs, n_outputs, n_weights;
    int64_t widths[MAX_INPUTS], y_width, n_state;
    float *inputs[MAX_INPUTS];   /* [N_TOK, width] */
    float *weigh[MAX_OUTPUTS];   /* [N_TOK, y_width] what a number of the outputs counts */
    float *vectors[MAX_WEIGHTS]; /* memory of weights */
    ops_weight *weights[MAX_WEIGHTS];
    ops_mat in[MAX_INPUTS], out[MAX_OUTPUTS];
} bench;

/* ---- Sizes and numbers ---- */

typedef struct sizes {
    int n_inputs;
    int64_t widths[MAX_INPUTS], y_width, n_state;
    int64_t weights[MAX_WEIGHTS]; /* numbers of each; 0: none */
} sizes;

static sizes sizes_of(const tape_case *c) {
    int64_t ch = c->channels, h = c->heads, r = c->n_row, w = c->n_column, keys = c->n_key * r;
    const sizes all[] = {
        [BLOCKS] = {1, {h * r}, h * w, 1, {0}},
        [CONV] = {1, {ch}, ch, r * ch, {r * ch, ch}},
        [TIME] = {1, {ch}, ch, 1, {ch, ch}},
        [SCAN] = {4, {ch, ch, r, r}, ch, ch * r, {ch * r, ch}},
        [SSD] = {5, {h * w, h, h, keys, keys}, h * w, h * r * w, {h}},
        [DELTA] = {5, {keys, keys, h * w, c->option ? h * r : h, h}, h * w, h * r * w, {0}},
    };
    return all[c->op];
}

/* Input i, such that states neither vanish nor explode, and no step size is near where it is cut.
 */
static float draw(const tape_case *c, int i, float bias, test_rng *rng) {
    static const float cuts[2] = {-2.2522f, 1.8546f}; /* softplus(x) = CUT_MIN, CUT_MAX */
    bool share = (c->op == SCAN && i == 1) || (c->op == SSD && (i == 1 || i == 2)) ||
                 (c->op == DELTA && i >= 3);
    if (share) {
        return 0.1f + 0.85f * (float)rng_uniform(rng);
    }
    float x = rng_normal(rng);
    if (c->op == TIME) {
        x *= 2;
        while (fabsf(x - cuts[0]) < 0.1f || fabsf(x - cuts[1]) < 0.1f) {
            x = 2 * rng_normal(rng);
        }
        return x - bias;
    }
    return x / (c->op == DELTA && i < 2 ? sqrtf((float)c->n_row) : 1.0f);
}

static void draw_weights(bench *b, const sizes *s, test_rng *rng) {
    for (int i = 0; i < MAX_WEIGHTS && s->weights[i]; i++) {
        int64_t n = s->weights[i];
        b->vectors[i] = malloc((size_t)n * sizeof(float));
        bool negative = (b->c->op == SCAN && i == 0) || (b->c->op == TIME && i == 1);
        for (int64_t k = 0; k < n; k++) {
            float x = rng_normal(rng);
            b->vectors[i][k] = negative ? -0.1f - fabsf(x) : x;
        }
        bool taps = b->c->op == CONV && i == 0;
        int64_t n_out = taps ? b->c->n_row : 1;
        weight_desc d = {
            .name = "w", .n_out = n_out, .n_in = n / n_out, .type = DT_F32, .data = b->vectors[i]};
        assert_ok(b->ctx, b->o->table->weight_new(&b->weights[i], b->o, &d));
    }
}

static void draw_inputs(bench *b, test_rng *rng) {
    for (int i = 0; i < b->n_inputs; i++) {
        int64_t width = b->widths[i];
        b->inputs[i] = malloc((size_t)(N_TOK * width) * sizeof(float));
        for (int64_t k = 0; k < N_TOK * width; k++) {
            float bias = b->c->op == TIME && b->c->option ? b->vectors[0][k % width] : 0;
            b->inputs[i][k] = draw(b->c, i, bias, rng);
        }
    }
}

/* ---- The bench ---- */

static void set_batch(bench *b, int32_t n_past) {
    int32_t ids[N_TOK] = {0}, pages[N_TOK] = {0};
    batch_seq seqs[N_SEQ];
    int32_t at = 0;
    for (int s = 0; s < N_SEQ; s++) {
        seqs[s] = (batch_seq){
            .first = at, .n_tok = lengths[s], .n_past = n_past, .pages = pages, .state = s};
        at += lengths[s];
    }
    batch_desc step = {.n_tok = N_TOK, .ids = ids, .n_seq = N_SEQ, .seqs = seqs};
    assert_ok(b->ctx, b->o->table->batch_set(b->o, b->batch, &step));
}

static ops_mat padded(bench *b, int64_t width) {
    ops_mat m = case_mat(b->o, N_TOK + 1, width + PAD, NULL);
    m.at = PAD;
    m.width = width;
    m.n_row = N_TOK;
    return m;
}

static bench bench_open(ctx_t *ctx, const tape_case *c) {
    sizes s = sizes_of(c);
    bench b = {.c = c, .ctx = ctx, .n_inputs = s.n_inputs, .y_width = s.y_width};
    memcpy(b.widths, s.widths, sizeof b.widths);
    assert_ok(ctx, ops_open(&b.o, ctx, "ref", NULL));
    assert_ok(ctx, tape_open(&b.t, b.o, NULL, NULL, false));
    const ops_table *t = b.o->table;
    assert_ok(ctx, t->reserve(b.o, &(ops_limits){.n_tok = N_TOK, .width = 1024}));
    assert_ok(ctx, t->state_new(&b.state, b.o, &(state_desc){1, &s.n_state}));
    assert_ok(ctx, t->state_grow(b.o, b.state, N_SEQ));
    assert_ok(ctx, t->batch_new(&b.batch, b.o));
    set_batch(&b, 0);
    test_rng rng = {(uint64_t)(c - cases) + 1};
    draw_weights(&b, &s, &rng);
    draw_inputs(&b, &rng);
    for (int i = 0; i < b.n_inputs; i++) {
        b.in[i] = padded(&b, b.widths[i]);
    }
    for (int i = 0; i < MAX_OUTPUTS; i++) {
        if (c->place[i] != NOT_WANTED) {
            b.out[i] = c->place[i] == APART ? padded(&b, b.y_width) : b.in[c->place[i]];
            b.weigh[i] = malloc((size_t)(N_TOK * b.y_width) * sizeof(float));
            for (int64_t k = 0; k < N_TOK * b.y_width; k++) {
                b.weigh[i][k] = rng_normal(&rng);
            }
        }
    }
    return b;
}

static void bench_close(bench *b) {
    const ops_table *t = b->o->table;
    for (int i = 0; i < MAX_INPUTS; i++) {
        t->buf_free(b->o, b->in[i].buf);
        free(b->inputs[i]);
    }
    for (int i = 0; i < MAX_OUTPUTS; i++) {
        if (b->c->place[i] == APART) {
            t->buf_free(b->o, b->out[i].buf);
        }
        free(b->weigh[i]);
    }
    for (int i = 0; i < MAX_WEIGHTS; i++) {
        if (b->weights[i]) {
            t->weight_free(b->o, b->weights[i]);
        }
        free(b->vectors[i]);
    }
    t->state_free(b->o, b->state);
    t->batch_free(b->o, b->batch);
    tape_close(b->t);
    ops_close(b->o);
}

/* ---- Running ---- */

static void call_op(bench *b) {
    const ops_table *t = b->o->table;
    const tape_case *c = b->c;
    const ops_mat *in = b->in, y = b->out[0];
    ops_weight *const *w = b->weights;
    state_at at = {b->state, 0};
    switch (c->op) {
    case BLOCKS:
        t->take_blocks(b->o, in[0], c->n_row, c->n_key, c->n_column, y);
        break;
    case CONV: {
        conv_desc d = {w[0], c->option ? w[1] : NULL, c->option};
        t->conv(b->o, &d, at, b->batch, in[0], y);
        break;
    }
    case TIME: {
        time_step_desc d = {c->option ? w[0] : NULL, w[1], CUT_MIN, CUT_MAX};
        t->time_step(b->o, &d, in[0], y, b->out[1]);
        break;
    }
    case SCAN: {
        scan_desc d = {w[0], w[1], c->n_row};
        t->scan(b->o, &d, at, b->batch, in[0], in[1], in[2], in[3], y);
        break;
    }
    case SSD: {
        ssd_desc d = {c->heads, c->n_column, c->n_key, c->n_row, w[0]};
        t->ssd(b->o, &d, at, b->batch, in[0], in[1], in[2], in[3], in[4], y);
        break;
    }
    case DELTA: {
        delta_desc d = {c->heads, c->n_key, c->n_row, c->n_column};
        t->delta(b->o, &d, at, b->batch, in[0], in[1], in[2], in[3], in[4], y);
        break;
    }
    }
}

static size_t byte_of(ops_mat m, int64_t row) {
    return (size_t)(m.at + row * m.stride) * sizeof(float);
}

/* Writes the inputs, `which` moved by e along move (NULL: none). */
static void write_inputs(bench *b, int which, const float *move, float e) {
    float row[1024];
    for (int i = 0; i < b->n_inputs; i++) {
        int64_t n = b->widths[i];
        for (int64_t t = 0; t < N_TOK; t++) {
            for (int64_t k = 0; k < n; k++) {
                row[k] = b->inputs[i][t * n + k];
                if (move && i == which) {
                    row[k] += e * move[t * n + k];
                }
            }
            assert_ok(b->ctx, b->o->table->write(b->o, b->in[i].buf, byte_of(b->in[i], t), row,
                                                 (size_t)n * sizeof *row));
        }
    }
}

/* What the outputs count together. While the tape records, it is told so. */
static double read_loss(bench *b) {
    double loss = 0;
    float row[1024];
    for (int i = 0; i < MAX_OUTPUTS; i++) {
        for (int64_t t = 0; b->out[i].buf && t < N_TOK; t++) {
            const float *weigh = b->weigh[i] + t * b->y_width;
            assert_ok(b->ctx, b->o->table->read(b->o, b->out[i].buf, byte_of(b->out[i], t), row,
                                                (size_t)b->y_width * sizeof *row));
            tape_seed(b->t, weigh, b->y_width);
            for (int64_t k = 0; k < b->y_width; k++) {
                loss += (double)weigh[k] * (double)row[k];
            }
        }
    }
    return loss;
}

static void compute_gradients(bench *b) {
    write_inputs(b, 0, NULL, 0);
    tape_record(b->t);
    call_op(b);
    read_loss(b);
    assert_ok(b->ctx, tape_back(b->t));
}

static double loss_at(bench *b, int which, const float *move, float e) {
    write_inputs(b, which, move, e);
    call_op(b);
    return read_loss(b);
}

/* ---- Tests ---- */

/* The gradient of an input along a random direction within tokens first .. last-1 is to be that of
 * differences. */
static void check_direction(bench *b, int which, int64_t first, int64_t last, test_rng *rng) {
    const float e = 0.01f;
    int64_t n = b->widths[which];
    float *move = calloc((size_t)(N_TOK * n), sizeof *move);
    double got = 0, size = 0;
    for (int64_t t = first; t < last; t++) {
        const float *g = tape_grad_row(b->t, b->in[which], t);
        for (int64_t k = 0; k < n; k++) {
            float m = rng_normal(rng);
            move[t * n + k] = m;
            got += (double)m * (double)g[k];
            size += (double)g[k] * (double)g[k];
        }
    }
    double wanted = (loss_at(b, which, move, e) - loss_at(b, which, move, -e)) / (2 * (double)e);
    if (!(fabs(got - wanted) <= 2e-3 * sqrt(size) + 1e-3)) {
        fail_msg("case %d, input %d, tokens %d to %d: %g along a direction, by differences %g",
                 (int)(b->c - cases), which, (int)first, (int)last - 1, got, wanted);
    }
    free(move);
}

/* Nothing but the inputs has a gradient. */
static void check_rest(bench *b, ops_mat m, bool is_input) {
    const float *g = tape_grad_row(b->t, m, 0) - m.at;
    for (int64_t i = 0; i < (N_TOK + 1) * m.stride; i++) {
        int64_t row = i / m.stride, column = i % m.stride;
        if (!is_input || row == N_TOK || column < PAD) {
            assert_true(g[i] == 0);
        }
    }
}

static void check_case(ctx_t *ctx, const tape_case *c) {
    bench b = bench_open(ctx, c);
    test_rng rng = {77};
    compute_gradients(&b);
    for (int i = 0; i < b.n_inputs; i++) {
        check_rest(&b, b.in[i], true);
        check_direction(&b, i, 0, N_TOK, &rng);
        for (int64_t s = 0, first = 0; s < N_SEQ; first += lengths[s], s++) {
            check_direction(&b, i, first, first + 1, &rng);
            check_direction(&b, i, first, first + lengths[s], &rng);
            check_direction(&b, i, first + lengths[s] - 1, first + lengths[s], &rng);
        }
    }
    for (int i = 0; i < MAX_OUTPUTS; i++) {
        if (c->place[i] == APART) {
            check_rest(&b, b.out[i], false);
        }
    }
    bench_close(&b);
}

static void check_cases(void) {
    ctx_t *ctx = test_context();
    for (int i = 0; i < N_CASES; i++) {
        check_case(ctx, &cases[i]);
    }
    jang_context_free(ctx);
}

/* By the instruction set that JANG_ISA names, or else by every one that is here. */
static void test_gradients(void **state) {
    (void)state;
    if (getenv("JANG_ISA")) {
        check_cases();
        return;
    }
    for (int isa = 0; isa < CPU_N_ISA; isa++) {
        if (cpu_has((cpu_isa)isa)) {
            assert_int_equal(setenv("JANG_ISA", cpu_isa_name((cpu_isa)isa), 1), 0);
            check_cases();
        }
    }
    assert_int_equal(unsetenv("JANG_ISA"), 0);
}

/* The gradients' bits do not depend on the number of threads. */
static void test_threads(void **state) {
    (void)state;
    ctx_t *one = context_with(1), *three = context_with(3);
    for (int i = 0; i < N_CASES; i++) {
        bench a = bench_open(one, &cases[i]), b = bench_open(three, &cases[i]);
        compute_gradients(&a);
        compute_gradients(&b);
        for (int k = 0; k < a.n_inputs; k++) {
            for (int64_t t = 0; t < N_TOK; t++) {
                assert_memory_equal(tape_grad_row(a.t, a.in[k], t), tape_grad_row(b.t, b.in[k], t),
                                    (size_t)a.widths[k] * sizeof(float));
            }
        }
        bench_close(&a);
        bench_close(&b);
    }
    jang_context_free(one);
    jang_context_free(three);
}

static void test_past(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    for (int i = 0; i < N_CASES; i++) {
        if (cases[i].op != BLOCKS && cases[i].op != TIME) {
            bench b = bench_open(ctx, &cases[i]);
            write_inputs(&b, 0, NULL, 0);
            set_batch(&b, 5);
            tape_record(b.t);
            call_op(&b);
            assert_fails(ctx, tape_back(b.t), JANG_ERR_UNSUPPORTED, "5 tokens before the step");
            bench_close(&b);
        }
    }
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_past),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
