/* test_tape.c - gradients of every tiny model's answers by its weights, against differences of the
 * answers themselves. */
#include "fixture.h"

#include "model/model.h"
#include "ops/hostbuf.h"
#include "quant/tape.h"
#include "quant/widen.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define N_VOCAB 307
#define LOGIT_ROWS 16
#define MAX_TOKENS 256
#define N_DIRECTIONS 2
#define MOST_OFF 0.01
#define MOMENTS 24 /* the side of the squares of outputs' moments */
#define STEP 3e-4  /* of the sizes of a matrix's numbers */

/* A weight, or an expert's, with the matrix in its place. */
typedef struct matrix {
    const ops_weight *w;
    int expert;
    size_t n;
    float *start, *value, *grad, *along;
    float *moments; /* [n_out, MOMENTS] */
    int64_t n_tok;
    struct matrix *next;
} matrix;

typedef struct slope_rig {
    ctx_t *ctx;
    fixture f;
    checkpoint *c;
    ops *o;
    tape *t;
    model *m;
    model_cache cache;
    matrix *all;
    float answers[MAX_TOKENS * N_VOCAB], wish[MAX_TOKENS * N_VOCAB]; /* logits, and r */
    uint64_t seed;
} slope_rig;

static float noise(slope_rig *r) {
    r->seed = r->seed * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(r->seed >> 33) / 1073741824.0f - 1.0f;
}

/* Makes a matrix of what the weight is when it is first asked for. */
static bool find(void *user, const ops_weight *w, int expert, tape_matrix *out) {
    slope_rig *r = user;
    matrix *m = r->all;
    while (m && (m->w != w || m->expert != expert)) {
        m = m->next;
    }
    if (!m) {
        weight_desc d = expert < 0 ? w->d : host_expert(w, expert);
        m = calloc(1, sizeof *m);
        *m = (matrix){.w = w, .expert = expert, .n = (size_t)(d.n_out * d.n_in), .next = r->all};
        m->start = malloc(m->n * sizeof(float));
        m->value = malloc(m->n * sizeof(float));
        m->along = malloc(m->n * sizeof(float));
        m->grad = calloc(m->n, sizeof(float));
        m->moments = calloc((size_t)d.n_out * MOMENTS, sizeof(float));
        weight_widen(r->ctx, &d, m->start);
        memcpy(m->value, m->start, m->n * sizeof(float));
        r->all = m;
    }
    *out = (tape_matrix){.value = m->value,
                         .grad = m->grad,
                         .moments = m->moments,
                         .block = MOMENTS,
                         .n_tok = &m->n_tok};
    return true;
}

/* The sum of r times the logits of two sequences, unequal in length. */
static double answer(slope_rig *r, bool record) {
    const fixture *f = &r->f;
    int32_t n = f->n_tok, half = n / 2 + 1, pages[8], out[MAX_TOKENS], ids[MAX_TOKENS];
    int32_t n_row = n + half;
    for (int32_t i = 0; i < n_row; i++) {
        out[i] = i;
        ids[i] = f->ids[i < n ? i : i - n];
    }
    for (int32_t i = 0; i < 8; i++) {
        pages[i] = i;
    }
    const batch_seq seqs[2] = {{.first = 0, .n_tok = n, .pages = pages, .state = 0},
                               {.first = n, .n_tok = half, .pages = pages + 4, .state = 1}};
    const batch_desc b = {
        .n_tok = n_row, .ids = ids, .n_seq = 2, .seqs = seqs, .n_out = n_row, .out = out};
    if (record) {
        tape_record(r->t);
    }
    assert_ok(r->ctx, model_step(r->m, &b, &r->cache));
    double sum = 0;
    for (int32_t i = 0; i < n_row; i += LOGIT_ROWS) {
        int32_t k = n_row - i < LOGIT_ROWS ? n_row - i : LOGIT_ROWS;
        float *logits = r->answers + i * N_VOCAB;
        assert_ok(r->ctx, model_logits(r->m, i, k, logits));
        if (record) {
            tape_seed(r->t, r->wish + i * N_VOCAB, (int64_t)k * N_VOCAB);
        }
        for (int32_t j = 0; j < k * N_VOCAB; j++) {
            sum += (double)logits[j] * (double)r->wish[i * N_VOCAB + j];
        }
    }
    return sum;
}

/* Moves all matrices by so much along their directions. */
static void move(slope_rig *r, double by) {
    for (matrix *m = r->all; m; m = m->next) {
        for (size_t i = 0; i < m->n; i++) {
            m->value[i] = (float)((double)m->start[i] + by * (double)m->along[i]);
        }
    }
}

/* The slope along the directions: by the gradients, with the size of what adds up to it, ... */
static double slope_by_gradients(const slope_rig *r, double *size) {
    double sum = 0, squares = 0;
    for (const matrix *m = r->all; m; m = m->next) {
        double slope = 0;
        for (size_t i = 0; i < m->n; i++) {
            slope += (double)m->grad[i] * (double)m->along[i];
        }
        sum += slope;
        squares += slope * slope;
    }
    *size = sqrt(squares);
    return sum;
}

/* ... and by the difference of answers, from two steps. */
static double slope_by_answers(slope_rig *r, double step) {
    move(r, step);
    double above = answer(r, false);
    move(r, -step);
    double below = answer(r, false);
    move(r, 0);
    return (above - below) / (2 * step);
}

/* Each matrix in a random direction, in proportion to its numbers. */
static void set_directions(slope_rig *r) {
    for (matrix *m = r->all; m; m = m->next) {
        double size = 0;
        for (size_t i = 0; i < m->n; i++) {
            size += (double)m->start[i] * (double)m->start[i];
        }
        for (size_t i = 0; i < m->n; i++) {
            m->along[i] = noise(r) * (float)sqrt(size / (double)m->n);
        }
    }
}

static void open_rig(slope_rig *r, ctx_t *ctx, const char *name) {
    const ops_options exact = {.exact = true};
    *r = (slope_rig){.ctx = ctx, .seed = 7};
    fixture_read(&r->f, ctx, name);
    assert_ok(ctx, checkpoint_open(&r->c, ctx, r->f.path, 0));
    assert_ok(ctx, ops_open(&r->o, ctx, "cpu", &exact));
    assert_ok(ctx, tape_open(&r->t, r->o, find, r, false));
    assert_ok(ctx, model_open(&r->m, ctx, r->c, r->o));
    assert_ok(ctx, model_reserve(r->m, MAX_TOKENS));
    assert_ok(ctx, model_cache_new(&r->cache, r->m, KV_F32));
    assert_ok(ctx, model_cache_grow(&r->cache, r->m, 8, 2));
    tape_use_matrices(r->t, true);
    for (size_t i = 0; i < MAX_TOKENS * N_VOCAB; i++) {
        r->wish[i] = noise(r);
    }
}

static void close_slope_rig(slope_rig *r) {
    model_cache_free(&r->cache, r->m);
    model_close(r->m);
    tape_close(r->t);
    ops_close(r->o);
    checkpoint_close(r->c);
    fixture_free(&r->f, r->ctx);
    while (r->all) {
        matrix *m = r->all;
        r->all = m->next;
        float *arrays[] = {m->start, m->value, m->grad, m->along, m->moments};
        for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
            free(arrays[i]);
        }
        free(m);
    }
}

/* Returns how far off the slopes are, as a part of the sizes that add up to them. */
static double check(ctx_t *ctx, const char *name) {
    static slope_rig r;
    open_rig(&r, ctx, name);
    (void)answer(&r, true);
    assert_ok(ctx, tape_back(r.t));
    double worst = 0;
    for (int i = 0; i < N_DIRECTIONS; i++) {
        set_directions(&r);
        double size, slope = slope_by_gradients(&r, &size), off = INFINITY;
        /* a step may change which expert a token takes; a smaller one then does not */
        for (double step = STEP; off > MOST_OFF && step > STEP / 50; step /= 3) {
            off = fmin(off, fabs(slope - slope_by_answers(&r, step)) / size);
        }
        worst = fmax(worst, off);
    }
    close_slope_rig(&r);
    return worst;
}

static void test_gradients_are_slopes(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    size_t n;
    double worst = 0;
    char **names = fixture_names(ctx, &n);
    for (size_t i = 0; i < n; i++) {
        double off = check(ctx, names[i]);
        worst = fmax(worst, off);
        if (!(off <= MOST_OFF)) {
            fail_msg("%s: %.3f of the slope's size off", names[i], off);
        }
        ctx_free(ctx, names[i]);
    }
    print_message("%zu models, at most %.2e off\n", n, worst);
    ctx_free(ctx, names);
    jang_context_free(ctx);
}

/* Of one token with input x and gradient g of the outputs, a matrix's gradient is g x', so that its
 * product with itself is |x|^2 g g'. */
static void check_moments(const matrix *m) {
    int64_t n = m->w->d.n_out, n_in = m->w->d.n_in;
    double size = 0, traces[2] = {0};
    for (int64_t i = 0; i < n; i++) {
        double own = 0;
        for (int64_t k = 0; k < n_in; k++) {
            own += (double)m->grad[i * n_in + k] * (double)m->grad[i * n_in + k];
        }
        traces[0] += own;
        traces[1] += (double)m->moments[i * MOMENTS + i % MOMENTS];
        size = fmax(size, own);
    }
    assert_true(traces[0] > 0 && traces[1] > 0 && m->n_tok == 1);
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = i; j < n && j / MOMENTS == i / MOMENTS; j++) {
            double product = 0;
            for (int64_t k = 0; k < n_in; k++) {
                product += (double)m->grad[i * n_in + k] * (double)m->grad[j * n_in + k];
            }
            double moment = (double)m->moments[i * MOMENTS + j % MOMENTS] * traces[0] / traces[1];
            if (!(fabs(moment - product) <= 1e-4 * size)) {
                fail_msg("[%d, %d]: %g, not %g", (int)i, (int)j, moment, product);
            }
        }
    }
}

/* Returns of how many matrices. */
static int check_all_moments(ctx_t *ctx, const char *name) {
    static slope_rig r;
    open_rig(&r, ctx, name);
    const int32_t page = 0, out = 0;
    const batch_seq seq = {.n_tok = 1, .pages = &page};
    const batch_desc b = {
        .n_tok = 1, .ids = r.f.ids, .n_seq = 1, .seqs = &seq, .n_out = 1, .out = &out};
    tape_record(r.t);
    assert_ok(ctx, model_step(r.m, &b, &r.cache));
    assert_ok(ctx, model_logits(r.m, 0, 1, r.answers));
    tape_seed(r.t, r.wish, N_VOCAB);
    assert_ok(ctx, tape_back(r.t));
    int n = 0;
    for (const matrix *m = r.all; m; m = m->next) {
        double moved = 0;
        for (size_t i = 0; i < m->n; i++) {
            moved += fabs((double)m->grad[i]);
        }
        if (m->w->d.n_out != N_VOCAB && moved > 0) { /* of one token queries and keys matter not */
            check_moments(m);
            n++;
        }
    }
    close_slope_rig(&r);
    return n;
}

static void test_moments_of_outputs(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    assert_true(check_all_moments(ctx, "llama-f32") > 6);
    assert_true(check_all_moments(ctx, "qwen3moe-bf16") > 12);
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients_are_slopes),
        cmocka_unit_test(test_moments_of_outputs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
