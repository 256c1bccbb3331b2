/* test_recurrent.c - operators with a memory: closed forms of the reference, the cpu backend
 * against it for every instruction set, and equality of bits however the tokens come in. */
#include "base/cpu.h"
#include "ops_cases.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef enum recurrent_op { CONV, SCAN, SSD, DELTA } recurrent_op;

/* One set of sizes. conv: channels, n_row taps. scan: channels, n_row numbers of state each. ssd
 * and delta: heads with states of n_row * n_column, n_key groups of B and C, or heads of q and k.
 */
typedef struct recurrent_case {
    recurrent_op op;
    int channels, heads, n_key, n_row, n_column;
    bool option; /* conv: silu and bias; delta: a decay for each row */
} recurrent_case;

static const recurrent_case cases[] = {
    {CONV, 8, 0, 0, 4, 0, true},      {CONV, 300, 0, 0, 3, 0, false},
    {CONV, 130, 0, 0, 1, 0, true},    {CONV, 33, 0, 0, 16, 0, false},
    {SCAN, 7, 0, 0, 16, 0, false},    {SCAN, 200, 0, 0, 8, 0, false},
    {SCAN, 130, 0, 0, 19, 0, false},  {SSD, 0, 4, 1, 16, 8, false},
    {SSD, 0, 6, 3, 32, 64, false},    {SSD, 0, 2, 2, 5, 41, false},
    {DELTA, 0, 2, 1, 16, 32, false},  {DELTA, 0, 6, 3, 32, 40, false},
    {DELTA, 0, 2, 2, 24, 17, true},   {DELTA, 0, 4, 4, 128, 128, false},
    {DELTA, 0, 1, 1, 128, 128, true},
};

enum { N_CASES = sizeof cases / sizeof cases[0], N_TOK = 70, MAX_INPUTS = 5, MAX_WEIGHTS = 2 };

/* Sizes that follow from a case, and its random numbers. */
typedef struct recurrent_data {
    recurrent_case c;
    int n_inputs, n_weights;
    int64_t widths[MAX_INPUTS], y_width, n_state;
    float *inputs[MAX_INPUTS]; /* [N_TOK][width] */
    int64_t rows[MAX_WEIGHTS], columns[MAX_WEIGHTS];
    float *weights[MAX_WEIGHTS];
} recurrent_data;

static void set_sizes(recurrent_data *d) {
    const recurrent_case *c = &d->c;
    int64_t ch = c->channels, h = c->heads, r = c->n_row, w = c->n_column, keys = c->n_key * r;
    const recurrent_data all[] = {
        [CONV] = {.n_inputs = 1,
                  .n_weights = 2,
                  .widths = {ch},
                  .y_width = ch,
                  .n_state = (r - 1) * ch,
                  .rows = {r, 1},
                  .columns = {ch, ch}},
        [SCAN] = {.n_inputs = 4,
                  .n_weights = 2,
                  .widths = {ch, ch, r, r},
                  .y_width = ch,
                  .n_state = ch * r,
                  .rows = {ch, 1},
                  .columns = {r, ch}},
        [SSD] = {.n_inputs = 5,
                 .n_weights = 1,
                 .widths = {h * w, h, h, keys, keys},
                 .y_width = h * w,
                 .n_state = h * r * w,
                 .rows = {1},
                 .columns = {h}},
        [DELTA] = {.n_inputs = 5,
                   .n_weights = 0,
                   .widths = {keys, keys, h * w, c->option ? h * r : h, h},
                   .y_width = h * w,
                   .n_state = h * r * w},
    };
    recurrent_case keep = *c;
    *d = all[keep.op];
    d->c = keep;
}

/* Input i of an operator, such that states neither vanish nor explode: decays and strengths in
 * (0, 1), steps below 1, keys of length 1. */
static float draw(const recurrent_data *d, int i, test_rng *rng) {
    bool share = (d->c.op == SCAN && i == 1) || (d->c.op == SSD && (i == 1 || i == 2)) ||
                 (d->c.op == DELTA && i >= 3);
    if (share) {
        return (float)rng_uniform(rng);
    }
    return rng_normal(rng) / (d->c.op == DELTA && i < 2 ? sqrtf((float)d->c.n_row) : 1.0f);
}

static recurrent_data data_new(const recurrent_case *c) {
    recurrent_data d = {.c = *c};
    test_rng rng = {(uint64_t)c->op * 1000 + (uint64_t)c->n_row};
    set_sizes(&d);
    for (int i = 0; i < d.n_inputs; i++) {
        d.inputs[i] = malloc((size_t)(N_TOK * d.widths[i]) * sizeof(float));
        for (int64_t j = 0; j < N_TOK * d.widths[i]; j++) {
            d.inputs[i][j] = draw(&d, i, &rng);
        }
    }
    for (int i = 0; i < d.n_weights; i++) {
        int64_t n = d.rows[i] * d.columns[i];
        d.weights[i] = malloc((size_t)n * sizeof(float));
        for (int64_t j = 0; j < n; j++) {
            float w = rng_normal(&rng);
            d.weights[i][j] = c->op == SCAN && i == 0 ? -0.05f - fabsf(w) : w;
        }
    }
    return d;
}

static void data_free(recurrent_data *d) {
    for (int i = 0; i < MAX_INPUTS; i++) {
        free(d->inputs[i]);
    }
    for (int i = 0; i < MAX_WEIGHTS; i++) {
        free(d->weights[i]);
    }
}

/* A backend with what an operator needs of it. Part 0 of a slot is there so that part 1 is not at
 * the beginning. */
typedef struct machine {
    ctx_t *ctx;
    ops *o;
    const recurrent_data *d;
    ops_state *state;
    ops_weight *weights[MAX_WEIGHTS];
    ops_batch *batch;
} machine;

static machine machine_open(ctx_t *ctx, const char *backend, const recurrent_data *d) {
    machine m = {.ctx = ctx, .d = d};
    assert_ok(ctx, ops_open(&m.o, ctx, backend, NULL));
    const ops_table *t = m.o->table;
    assert_ok(ctx, t->reserve(m.o, &(ops_limits){.n_tok = N_TOK, .width = 1024}));
    int64_t sizes[2] = {5, d->n_state ? d->n_state : 1};
    assert_ok(ctx, t->state_new(&m.state, m.o, &(state_desc){2, sizes}));
    assert_ok(ctx, t->state_grow(m.o, m.state, 4));
    for (int i = 0; i < d->n_weights; i++) {
        weight_desc w = {.name = "w",
                         .n_out = d->rows[i],
                         .n_in = d->columns[i],
                         .type = DT_F32,
                         .data = d->weights[i]};
        assert_ok(ctx, t->weight_new(&m.weights[i], m.o, &w));
    }
    assert_ok(ctx, t->batch_new(&m.batch, m.o));
    return m;
}

static void machine_close(machine *m) {
    for (int i = 0; i < m->d->n_weights; i++) {
        m->o->table->weight_free(m->o, m->weights[i]);
    }
    m->o->table->state_free(m->o, m->state);
    m->o->table->batch_free(m->o, m->batch);
    ops_close(m->o);
}

static void call_op(machine *m, const ops_mat *in, ops_mat y) {
    const ops_table *t = m->o->table;
    const recurrent_case *c = &m->d->c;
    state_at at = {m->state, 1};
    switch (c->op) {
    case CONV: {
        conv_desc d = {m->weights[0], c->option ? m->weights[1] : NULL, c->option};
        t->conv(m->o, &d, at, m->batch, in[0], y);
        break;
    }
    case SCAN: {
        scan_desc d = {m->weights[0], m->weights[1], c->n_row};
        t->scan(m->o, &d, at, m->batch, in[0], in[1], in[2], in[3], y);
        break;
    }
    case SSD: {
        ssd_desc d = {c->heads, c->n_column, c->n_key, c->n_row, m->weights[0]};
        t->ssd(m->o, &d, at, m->batch, in[0], in[1], in[2], in[3], in[4], y);
        break;
    }
    case DELTA: {
        delta_desc d = {c->heads, c->n_key, c->n_row, c->n_column};
        t->delta(m->o, &d, at, m->batch, in[0], in[1], in[2], in[3], in[4], y);
        break;
    }
    }
}

/* Runs n_seq parts of the inputs as one step; seqs[s].first says where a part begins in them, and
 * in y. */
static void run_step(machine *m, const batch_seq *seqs, int n_seq, float *y) {
    int32_t ids[N_TOK] = {0}, pages[N_TOK] = {0}, n_tok = 0;
    batch_seq own[4];
    for (int s = 0; s < n_seq; s++) {
        own[s] = seqs[s];
        own[s].first = n_tok;
        own[s].pages = pages;
        n_tok += seqs[s].n_tok;
    }
    batch_desc step = {.n_tok = n_tok, .ids = ids, .n_seq = n_seq, .seqs = own};
    assert_ok(m->ctx, m->o->table->batch_set(m->o, m->batch, &step));
    ops_mat in[MAX_INPUTS], out = case_mat(m->o, n_tok, m->d->y_width, NULL);
    for (int i = 0; i < m->d->n_inputs; i++) {
        size_t row = (size_t)m->d->widths[i] * sizeof(float);
        in[i] = case_mat(m->o, n_tok, m->d->widths[i], NULL);
        for (int s = 0; s < n_seq; s++) {
            assert_ok(m->ctx, m->o->table->write(m->o, in[i].buf, (size_t)own[s].first * row,
                                                 m->d->inputs[i] + seqs[s].first * m->d->widths[i],
                                                 (size_t)own[s].n_tok * row));
        }
    }
    call_op(m, in, out);
    float *rows = malloc((size_t)(n_tok * m->d->y_width) * sizeof *rows);
    case_read(m->o, out, rows);
    for (int s = 0; s < n_seq; s++) {
        memcpy(y + seqs[s].first * m->d->y_width, rows + own[s].first * m->d->y_width,
               (size_t)(own[s].n_tok * m->d->y_width) * sizeof *rows);
    }
    free(rows);
    for (int i = 0; i < m->d->n_inputs; i++) {
        m->o->table->buf_free(m->o, in[i].buf);
    }
    m->o->table->buf_free(m->o, out.buf);
}

/* All tokens as one sequence in steps of at most `step`. */
static float *run_all(machine *m, int step) {
    float *y = malloc((size_t)(N_TOK * m->d->y_width) * sizeof *y);
    for (int at = 0; at < N_TOK; at += step) {
        int n = N_TOK - at < step ? N_TOK - at : step;
        batch_seq seq = {.first = at, .n_tok = n, .n_past = at, .state = 2};
        run_step(m, &seq, 1, y);
    }
    return y;
}

/* ---- The reference ---- */

static bool near(double a, double b) {
    return fabs(a - b) <= 2e-6 * (1 + fabs(b));
}

/* Runs a case with given inputs and weights (copied into place). */
static float *run_ref(ctx_t *ctx, recurrent_data *d) {
    machine m = machine_open(ctx, "ref", d);
    float *y = run_all(&m, N_TOK);
    machine_close(&m);
    return y;
}

static void fill(float *x, int64_t n, float value) {
    for (int64_t i = 0; i < n; i++) {
        x[i] = value;
    }
}

static void test_ref_conv_of_an_impulse_is_its_taps(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    recurrent_data d = data_new(&cases[1]);
    fill(d.inputs[0], N_TOK * d.widths[0], 0);
    d.inputs[0][10 * d.widths[0] + 7] = 2;
    float *y = run_ref(ctx, &d);
    for (int t = 0; t < N_TOK; t++) {
        int tap = 12 - t; /* of three, the last meets the newest token */
        float want = tap >= 0 && tap < 3 ? 2 * d.weights[0][tap * d.widths[0] + 7] : 0;
        assert_true(near(y[t * d.y_width + 7], want));
        assert_true(y[t * d.y_width + 8] == 0);
    }
    free(y);
    data_free(&d);
    jang_context_free(ctx);
}

/* Constant input: the state is a geometric series. */
static void test_ref_scans_of_constants_are_geometric(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    recurrent_data scan = data_new(&cases[4]), ssd = data_new(&cases[7]);
    fill(scan.inputs[0], N_TOK * scan.widths[0], 3);                     /* x */
    fill(scan.inputs[1], N_TOK * scan.widths[1], 0.5f);                  /* step */
    fill(scan.inputs[2], N_TOK * scan.widths[2], 1);                     /* b */
    fill(scan.inputs[3], N_TOK * scan.widths[3], 0.25f);                 /* c */
    fill(scan.weights[0], scan.rows[0] * scan.columns[0], -2 * logf(2)); /* decay 1/2 */
    float *y = run_ref(ctx, &scan);
    for (int t = 0; t < N_TOK; t++) {
        double h = 3 * 0.5 * 2 * (1 - pow(0.5, t + 1)); /* of each of 16 numbers */
        assert_true(near(y[t * scan.y_width + 5], 16 * 0.25 * h + 3 * (double)scan.weights[1][5]));
    }
    free(y);
    fill(ssd.inputs[0], N_TOK * ssd.widths[0], 3);
    fill(ssd.inputs[1], N_TOK * ssd.widths[1], 0.5f);
    fill(ssd.inputs[2], N_TOK * ssd.widths[2], 0.5f);
    fill(ssd.inputs[3], N_TOK * ssd.widths[3], 1);
    fill(ssd.inputs[4], N_TOK * ssd.widths[4], 0.25f);
    y = run_ref(ctx, &ssd);
    for (int t = 0; t < N_TOK; t++) {
        double h = 3 * 0.5 * 2 * (1 - pow(0.5, t + 1));
        assert_true(near(y[t * ssd.y_width + 9], 16 * 0.25 * h + 3 * (double)ssd.weights[0][1]));
    }
    free(y);
    data_free(&scan);
    data_free(&ssd);
    jang_context_free(ctx);
}

/* With orthonormal keys, full strength and no decay the state is a table: a key asked for again
 * gives the last value that was put under it. */
static void test_ref_delta_rule_remembers(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    recurrent_data d = data_new(&cases[10]);
    int64_t n = d.c.n_row, w = d.c.n_column;
    fill(d.inputs[0], N_TOK * n, 0);
    fill(d.inputs[1], N_TOK * n, 0);
    fill(d.inputs[3], N_TOK * d.widths[3], 1);
    fill(d.inputs[4], N_TOK * d.widths[4], 1);
    for (int t = 0; t < N_TOK; t++) {
        d.inputs[1][t * n + t % n] = 1;        /* under key t % 16 */
        d.inputs[0][t * n + (t + 13) % n] = 1; /* what was put there 3 tokens ago */
    }
    float *y = run_ref(ctx, &d);
    for (int t = 3; t < N_TOK; t++) {
        for (int64_t i = 0; i < 2 * w; i++) {
            assert_true(near(y[t * d.y_width + i], (double)d.inputs[2][(t - 3) * d.widths[2] + i]));
        }
    }
    free(y);
    data_free(&d);
    jang_context_free(ctx);
}

/* ---- The cpu backend ---- */

static void each_isa(void (*fn)(ctx_t *ctx, const recurrent_data *d)) {
    for (int isa = 0; isa < CPU_N_ISA; isa++) {
        if (!cpu_has((cpu_isa)isa)) {
            continue;
        }
        setenv("JANG_ISA", cpu_isa_name((cpu_isa)isa), 1);
        for (int i = 0; i < N_CASES; i++) {
            ctx_t *ctx = test_context();
            recurrent_data d = data_new(&cases[i]);
            fn(ctx, &d);
            data_free(&d);
            jang_context_free(ctx);
        }
        unsetenv("JANG_ISA");
    }
}

/* States sum up over all tokens, in f32: each addition rounds, so some 100 units of the results'
 * own size are what differing orders of summation leave. */
static void check_against_ref(ctx_t *ctx, const recurrent_data *d) {
    machine a = machine_open(ctx, "ref", d), b = machine_open(ctx, "cpu", d);
    float *want = run_all(&a, N_TOK), *got = run_all(&b, N_TOK);
    double square = 0;
    int64_t n = N_TOK * d->y_width;
    for (int64_t i = 0; i < n; i++) {
        square += (double)want[i] * want[i];
    }
    double size = sqrt(square / (double)n);
    for (int64_t i = 0; i < n; i++) {
        double limit = 100 * 0x1p-24 * (size + fabs((double)want[i]));
        if (!(fabs((double)want[i] - (double)got[i]) <= limit)) {
            fail_msg("op %d, %d rows, %s: %d is %.9g, but ref %.9g", d->c.op, d->c.n_row,
                     b.o->table->name, (int)i, (double)got[i], (double)want[i]);
        }
    }
    free(want);
    free(got);
    machine_close(&a);
    machine_close(&b);
}

static void test_cpu_recurrent_agrees_with_ref(void **state) {
    (void)state;
    each_isa(check_against_ref);
}

static void check_steps(ctx_t *ctx, const recurrent_data *d) {
    static const int steps[] = {1, 3, 64};
    machine m = machine_open(ctx, "cpu", d);
    float *whole = run_all(&m, N_TOK);
    for (int i = 0; i < 3; i++) {
        float *parts = run_all(&m, steps[i]);
        assert_memory_equal(whole, parts, (size_t)(N_TOK * d->y_width) * sizeof *whole);
        free(parts);
    }
    free(whole);
    machine_close(&m);
}

static void test_cpu_recurrent_in_steps_gives_the_same_bits(void **state) {
    (void)state;
    each_isa(check_steps);
}

/* Three sequences of which one is continued, together and alone; a copy of a slot goes on as the
 * slot itself does. */
static void check_sequences(ctx_t *ctx, const recurrent_data *d) {
    machine m = machine_open(ctx, "cpu", d);
    size_t n_bytes = (size_t)(N_TOK * d->y_width) * sizeof(float);
    float *alone = calloc(1, n_bytes), *together = calloc(1, n_bytes);
    batch_seq seqs[3] = {{.first = 0, .n_tok = 30, .state = 2},
                         {.first = 35, .n_tok = 1, .n_past = 5, .state = 0},
                         {.first = 40, .n_tok = 30, .state = 1}};
    batch_seq begin = {.first = 30, .n_tok = 5, .state = 3};
    run_step(&m, &begin, 1, alone);
    m.o->table->state_copy(m.o, m.state, 3, 0);
    for (int s = 0; s < 3; s++) {
        run_step(&m, &seqs[s], 1, alone);
    }
    run_step(&m, &begin, 1, together);
    seqs[1].state = 3;
    run_step(&m, seqs, 3, together);
    for (int s = 0; s < 3; s++) {
        int64_t at = seqs[s].first * d->y_width, n = seqs[s].n_tok * d->y_width;
        assert_memory_equal(alone + at, together + at, (size_t)n * sizeof *alone);
    }
    free(alone);
    free(together);
    machine_close(&m);
}

static void test_cpu_recurrent_sequences_do_not_touch(void **state) {
    (void)state;
    each_isa(check_sequences);
}

/* ---- Without memory ---- */

static void check_time_step(ctx_t *ctx, const char *backend, const float *x, int n, float *step,
                            float *decay) {
    ops *o;
    assert_ok(ctx, ops_open(&o, ctx, backend, NULL));
    float *bias = malloc((size_t)n * sizeof *bias), *a = malloc((size_t)n * sizeof *a);
    for (int i = 0; i < n; i++) {
        bias[i] = 0.25f;
        a[i] = -1.0f - (float)(i % 5);
    }
    weight_desc d = {.name = "w", .n_out = 1, .n_in = n, .type = DT_F32, .data = bias};
    ops_weight *wb, *wa;
    assert_ok(ctx, o->table->weight_new(&wb, o, &d));
    d.data = a;
    assert_ok(ctx, o->table->weight_new(&wa, o, &d));
    ops_mat in = case_mat(o, 1, n, x), out = case_mat(o, 1, n, NULL), none = {0};
    time_step_desc t = {.bias = wb, .a = wa, .min = 1e-3f, .max = 40};
    o->table->time_step(o, &t, in, none, out);
    case_read(o, out, decay);
    t.a = NULL;
    o->table->time_step(o, &t, in, in, none); /* in place */
    case_read(o, in, step);
    o->table->buf_free(o, in.buf);
    o->table->buf_free(o, out.buf);
    o->table->weight_free(o, wa);
    o->table->weight_free(o, wb);
    ops_close(o);
    free(bias);
    free(a);
}

static void test_time_step_is_softplus_and_decay(void **state) {
    (void)state;
    enum { N = 1003 };
    ctx_t *ctx = test_context();
    float *x = malloc(N * sizeof *x), *step = malloc(N * sizeof *step);
    float *decay = malloc(N * sizeof *decay);
    for (int i = 0; i < N; i++) {
        x[i] = (float)(i - 500) * 0.05f - 0.25f;
    }
    x[0] = -1000;
    x[1] = 1000;
    x[2] = -30.0f;
    for (int isa = -1; isa < CPU_N_ISA; isa++) {
        if (isa >= 0 && !cpu_has((cpu_isa)isa)) {
            continue;
        }
        if (isa >= 0) {
            setenv("JANG_ISA", cpu_isa_name((cpu_isa)isa), 1);
        }
        check_time_step(ctx, isa < 0 ? "ref" : "cpu", x, N, step, decay);
        unsetenv("JANG_ISA");
        for (int i = 0; i < N; i++) {
            double u = (double)x[i] + 0.25;
            double dt = fmin(40, fmax(1e-3, u > 30 ? u : log1p(exp(u))));
            double keep = exp(dt * -(1.0 + i % 5));
            assert_true(fabs(step[i] - dt) <= 8 * 0x1p-24 * (dt + fabs(u)));
            /* the product that exp is given is rounded */
            assert_true(fabs(decay[i] - keep) <= 1e-37 + keep * 0x1p-24 * (8 + 24 * dt * 5));
        }
    }
    free(x);
    free(step);
    free(decay);
    jang_context_free(ctx);
}

static void test_take_blocks_takes_columns(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    for (int b = 0; b < 2; b++) {
        ops *o;
        assert_ok(ctx, ops_open(&o, ctx, b ? "cpu" : "ref", NULL));
        float x[20], y[8];
        for (int i = 0; i < 20; i++) {
            x[i] = (float)i;
        }
        ops_mat in = case_mat(o, 2, 10, x), out = case_mat(o, 2, 4, NULL);
        o->table->take_blocks(o, in, 5, 2, 2, out);
        case_read(o, out, y);
        assert_memory_equal(y, ((float[]){2, 3, 7, 8, 12, 13, 17, 18}), sizeof y);
        o->table->buf_free(o, in.buf);
        o->table->buf_free(o, out.buf);
        ops_close(o);
    }
    jang_context_free(ctx);
}

static void test_cpu_conv_of_many_taps_is_refused(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    recurrent_data d = data_new(&(recurrent_case){CONV, 4, 0, 0, 17, 0, false});
    machine m = machine_open(ctx, "cpu", &d);
    batch_seq seq = {.n_tok = 1};
    int32_t id = 0, page = 0;
    seq.pages = &page;
    batch_desc step = {.n_tok = 1, .ids = &id, .n_seq = 1, .seqs = &seq};
    assert_ok(ctx, m.o->table->batch_set(m.o, m.batch, &step));
    ops_mat x = case_mat(m.o, 1, 4, NULL), y = case_mat(m.o, 1, 4, NULL);
    call_op(&m, &x, y);
    assert_fails(ctx, m.o->table->finish(m.o), JANG_ERR_ARGUMENT, "17 taps");
    m.o->table->buf_free(m.o, x.buf);
    m.o->table->buf_free(m.o, y.buf);
    machine_close(&m);
    data_free(&d);
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ref_conv_of_an_impulse_is_its_taps),
        cmocka_unit_test(test_ref_scans_of_constants_are_geometric),
        cmocka_unit_test(test_ref_delta_rule_remembers),
        cmocka_unit_test(test_cpu_recurrent_agrees_with_ref),
        cmocka_unit_test(test_cpu_recurrent_in_steps_gives_the_same_bits),
        cmocka_unit_test(test_cpu_recurrent_sequences_do_not_touch),
        cmocka_unit_test(test_time_step_is_softplus_and_decay),
        cmocka_unit_test(test_take_blocks_takes_columns),
        cmocka_unit_test(test_cpu_conv_of_many_taps_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
