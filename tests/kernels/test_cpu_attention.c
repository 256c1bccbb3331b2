/* test_cpu_attention.c - the cpu backend's cache and attention, for every instruction set of this
 * machine: against ref, and the same tokens in one step, in several, and among others. */
#include "base/cpu.h"
#include "ops/hostbuf.h"
#include "ops_cases.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One sequence: its tokens' k, v, q as given, its pages anywhere in the pool. */
typedef struct sequence {
    int32_t n_tok;
    float *k, *v, *q; /* [n_tok][heads * k_dim or v_dim] */
    float *out;       /* [n_tok][n_head * v_dim] */
    int32_t *pages;
} sequence;

typedef struct setup {
    attention_desc a;
    const float *sinks; /* [n_head]; NULL: none */
    kv_type type;
    const char *backend;
    cpu_isa isa;
} setup;

static int64_t k_width(const setup *s) {
    return (int64_t)s->a.kv.n_kv_head * s->a.kv.k_dim;
}
static int64_t v_width(const setup *s) {
    return (int64_t)s->a.kv.n_kv_head * s->a.kv.v_dim;
}
static int64_t q_width(const setup *s) {
    return (int64_t)s->a.n_head * s->a.kv.k_dim;
}
static int64_t out_width(const setup *s) {
    return (int64_t)s->a.n_head * s->a.kv.v_dim;
}

static float *random_rows(test_rng *rng, int64_t n, float size) {
    float *rows = malloc((size_t)n * sizeof *rows);
    for (int64_t i = 0; i < n; i++) {
        rows[i] = size * rng_normal(rng);
    }
    return rows;
}

static sequence sequence_new(test_rng *rng, const setup *s, int32_t n_tok, int32_t page_from,
                             int32_t page_step) {
    sequence q = {.n_tok = n_tok,
                  .k = random_rows(rng, n_tok * k_width(s), 1),
                  .v = random_rows(rng, n_tok * v_width(s), 1),
                  .q = random_rows(rng, n_tok * q_width(s), 2),
                  .out = random_rows(rng, n_tok * out_width(s), 0),
                  .pages = malloc(((size_t)n_tok / OPS_PAGE_TOKENS + 1) * sizeof(int32_t))};
    for (int32_t i = 0; i <= n_tok / OPS_PAGE_TOKENS; i++) {
        q.pages[i] = page_from + i * page_step;
    }
    return q;
}

static void sequence_free(sequence *q) {
    free(q->k);
    free(q->v);
    free(q->q);
    free(q->out);
    free(q->pages);
}

/* The rows of a step: tokens at[i] .. at[i] + n[i] - 1 of each sequence. */
static float *gather(const sequence *seqs, const float *(*part)(const sequence *), int64_t width,
                     int n_seq, const int32_t *at, const int32_t *n, int32_t n_tok) {
    float *rows = malloc((size_t)(n_tok * width) * sizeof *rows), *row = rows;
    for (int s = 0; s < n_seq; s++) {
        size_t count = (size_t)(n[s] * width);
        memcpy(row, part(&seqs[s]) + at[s] * width, count * sizeof *row);
        row += count;
    }
    return rows;
}

static const float *part_k(const sequence *s) {
    return s->k;
}
static const float *part_v(const sequence *s) {
    return s->v;
}
static const float *part_q(const sequence *s) {
    return s->q;
}

/* Pages that the step writes to, and those that are full after it. */
static void open_pages(ops *o, ops_kv *kv, const sequence *seqs, int n_seq, const int32_t *at,
                       const int32_t *n) {
    for (int i = 0; i < n_seq; i++) {
        for (int32_t p = at[i] / OPS_PAGE_TOKENS; p * OPS_PAGE_TOKENS < at[i] + n[i]; p++) {
            assert_ok(o->ctx, o->table->kv_open(o, kv, seqs[i].pages[p]));
        }
    }
}

static void seal_pages(ops *o, ops_kv *kv, const sequence *seqs, int n_seq, const int32_t *at,
                       const int32_t *n) {
    for (int i = 0; i < n_seq; i++) {
        for (int32_t p = at[i] / OPS_PAGE_TOKENS; (p + 1) * OPS_PAGE_TOKENS <= at[i] + n[i]; p++) {
            o->table->kv_seal(o, kv, seqs[i].pages[p]);
        }
    }
}

static void run_step(ops *o, ops_kv *kv, const setup *s, sequence *seqs, int n_seq,
                     const int32_t *at, const int32_t *n) {
    enum { LAYER = 1 };
    batch_seq parts[4];
    int32_t n_tok = 0;
    for (int i = 0; i < n_seq; i++) {
        parts[i] =
            (batch_seq){.first = n_tok, .n_tok = n[i], .n_past = at[i], .pages = seqs[i].pages};
        n_tok += n[i];
    }
    int64_t n_out = out_width(s);
    float *k = gather(seqs, part_k, k_width(s), n_seq, at, n, n_tok);
    float *v = gather(seqs, part_v, v_width(s), n_seq, at, n, n_tok);
    float *q = gather(seqs, part_q, q_width(s), n_seq, at, n, n_tok);
    float *out = malloc((size_t)(n_tok * n_out) * sizeof *out);
    int32_t *ids = calloc((size_t)n_tok, sizeof *ids);
    ops_batch *batch;
    batch_desc step = {.n_tok = n_tok, .ids = ids, .n_seq = n_seq, .seqs = parts};
    assert_ok(o->ctx, o->table->batch_new(&batch, o));
    assert_ok(o->ctx, o->table->batch_set(o, batch, &step));
    ops_mat mk = case_mat(o, n_tok, k_width(s), k), mv = case_mat(o, n_tok, v_width(s), v);
    ops_mat mq = case_mat(o, n_tok, q_width(s), q), mo = case_mat(o, n_tok, n_out, NULL);
    attention_desc a = s->a;
    ops_weight *sinks = NULL;
    if (s->sinks) {
        weight_desc d = {.n_out = 1, .n_in = a.n_head, .type = DT_F32, .data = s->sinks};
        assert_ok(o->ctx, o->table->weight_new(&sinks, o, &d));
        a.sinks = sinks;
    }
    open_pages(o, kv, seqs, n_seq, at, n);
    o->table->kv_store(o, kv, LAYER, batch, mk, mv);
    o->table->attention(o, &a, kv, LAYER, batch, mq, mo);
    seal_pages(o, kv, seqs, n_seq, at, n);
    case_read(o, mo, out);
    for (int i = 0; i < n_seq; i++) {
        memcpy(seqs[i].out + at[i] * n_out, out + parts[i].first * n_out,
               (size_t)(n[i] * n_out) * sizeof *out);
    }
    if (sinks) {
        o->table->weight_free(o, sinks);
    }
    o->table->batch_free(o, batch);
    o->table->buf_free(o, mk.buf);
    o->table->buf_free(o, mv.buf);
    o->table->buf_free(o, mq.buf);
    o->table->buf_free(o, mo.buf);
    free(ids);
    free(k);
    free(v);
    free(q);
    free(out);
}

/* Runs whole sequences through a fresh backend, `chunk` tokens of each a step, together. */
static void run_all(const setup *s, sequence *seqs, int n_seq, int32_t chunk) {
    ctx_t *ctx = test_context();
    ops *o;
    setenv("JANG_ISA", cpu_isa_name(s->isa), 1);
    assert_ok(ctx, ops_open(&o, ctx, s->backend, NULL));
    unsetenv("JANG_ISA");
    int32_t longest = 0, last_page = 0;
    for (int i = 0; i < n_seq; i++) {
        longest = seqs[i].n_tok > longest ? seqs[i].n_tok : longest;
        for (int32_t p = 0; p <= seqs[i].n_tok / OPS_PAGE_TOKENS; p++) {
            last_page = seqs[i].pages[p] > last_page ? seqs[i].pages[p] : last_page;
        }
    }
    ops_limits limits = {.n_tok = 4 * longest, .width = 4096};
    assert_ok(ctx, o->table->reserve(o, &limits));
    ops_kv *kv;
    kv_layer layers[3] = {{0, 0, 0}, s->a.kv, {2, 4, 8}};
    kv_desc d = {.n_layer = 3, .layers = layers, .type = s->type};
    assert_ok(ctx, o->table->kv_new(&kv, o, &d));
    assert_ok(ctx, o->table->kv_grow(o, kv, 1));
    assert_ok(ctx, o->table->kv_grow(o, kv, last_page + 1));
    for (int32_t done = 0; done < longest; done += chunk) {
        sequence step_seqs[4];
        int32_t at[4], n[4];
        int n_live = 0;
        for (int i = 0; i < n_seq; i++) {
            int32_t left = seqs[i].n_tok - done;
            if (left > 0) {
                step_seqs[n_live] = seqs[i];
                at[n_live] = done;
                n[n_live++] = left < chunk ? left : chunk;
            }
        }
        run_step(o, kv, s, step_seqs, n_live, at, n);
    }
    o->table->kv_free(o, kv);
    ops_close(o);
    jang_context_free(ctx);
}

static float *copy_out(const sequence *q, const setup *s) {
    size_t n = (size_t)(q->n_tok * out_width(s));
    float *copy = malloc(n * sizeof *copy);
    memcpy(copy, q->out, n * sizeof *copy);
    return copy;
}

/* Both sum in f32 or better: the scores of head_dim products and the weights' sum are off by a few
 * parts in 2^24 each, which exp multiplies by the size of the scores. */
static void assert_near_ref(const setup *s, const float *want, const float *got, int64_t n) {
    double limit = 0x1p-24 * (64 + s->a.kv.k_dim) * 20;
    for (int64_t i = 0; i < n; i++) {
        if (!(fabs((double)want[i] - (double)got[i]) <= limit)) {
            fail_msg("%s, head of %d, window %d: at %d %g, but ref %g", cpu_isa_name(s->isa),
                     s->a.kv.k_dim, s->a.window, (int)i, (double)got[i], (double)want[i]);
        }
    }
}

static void compare_with_ref(setup s, int32_t n_tok) {
    test_rng rng = {(uint64_t)(s.a.kv.k_dim + s.a.window)};
    sequence q = sequence_new(&rng, &s, n_tok, 3, 2);
    int64_t n = n_tok * out_width(&s);
    s.backend = "ref";
    run_all(&s, &q, 1, n_tok);
    float *want = copy_out(&q, &s);
    s.backend = "cpu";
    run_all(&s, &q, 1, n_tok);
    assert_near_ref(&s, want, q.out, n);
    free(want);
    sequence_free(&q);
}

static setup make_setup(cpu_isa isa, int n_head, int n_kv_head, int head_dim, int32_t window,
                        kv_type type) {
    return (setup){.a = {.n_head = n_head,
                         .kv = {n_kv_head, head_dim, head_dim},
                         .scale = 1.0f / sqrtf((float)head_dim),
                         .window = window},
                   .type = type,
                   .isa = isa};
}

static void test_cpu_attention_agrees_with_ref(void **state) {
    (void)state;
    static const int dims[] = {2, 6, 16, 24, 64, 80, 96, 128, 256, 512};
    for (int isa = 0; isa < CPU_N_ISA; isa++) {
        for (int i = 0; cpu_has((cpu_isa)isa) && i < 10; i++) {
            int kv_heads = 1 + i % 2, share = 1 + i % 4;
            compare_with_ref(make_setup((cpu_isa)isa, kv_heads * share, kv_heads, dims[i], 0,
                                        i % 3 ? KV_F16 : KV_F32),
                             70);
            compare_with_ref(make_setup((cpu_isa)isa, kv_heads * share, kv_heads, dims[i],
                                        (const int32_t[]){1, 5, 64, 65, 100}[i % 5], KV_F16),
                             150);
        }
    }
}

static const float some_sinks[] = {1.5f, -2, 30, 0};

/* Everything that a family may ask of attention besides the plain form. */
static const setup options[] = {
    {.a = {.n_head = 4, .kv = {2, 24, 16}, .scale = 0.2f}},
    {.a = {.n_head = 2, .kv = {1, 576, 512}, .scale = 0.05f}},
    {.a = {.n_head = 4, .kv = {2, 32, 32}, .scale = 0.3f, .softcap = 5}},
    {.a = {.n_head = 4, .kv = {4, 16, 40}, .scale = 0.25f}, .sinks = some_sinks},
    {.a = {.n_head = 4, .kv = {1, 64, 64}, .scale = 0.1f, .window = 9, .softcap = 3},
     .sinks = some_sinks},
    {.a = {.n_head = 2, .kv = {1, 32, 32}, .scale = 0.2f, .temper = 0.1f, .temper_span = 20}},
    {.a = {.n_head = 4, .kv = {2, 32, 32}, .scale = 0.2f, .chunk = 24}},
    {.a = {.n_head = 2, .kv = {1, 64, 64}, .scale = 0.1f, .chunk = 70, .window = 50}},
    {.a = {.n_head = 2, .kv = {2, 32, 32}, .scale = 0.2f, .whole = true}},
    {.a = {.n_head = 4, .kv = {2, 32, 32}, .scale = 0.2f, .whole = true, .window = 13}},
};

static void test_cpu_attention_options_agree_with_ref(void **state) {
    (void)state;
    for (int isa = 0; isa < CPU_N_ISA; isa++) {
        for (size_t i = 0; cpu_has((cpu_isa)isa) && i < sizeof options / sizeof *options; i++) {
            setup s = options[i];
            s.isa = (cpu_isa)isa;
            s.type = i % 2 ? KV_F16 : KV_F32;
            compare_with_ref(s, 1);
            compare_with_ref(s, s.a.kv.k_dim > 100 ? 9 : 100);
            s.type = i % 2 ? KV_Q4 : KV_Q8;
            compare_with_ref(s, s.a.kv.k_dim > 100 ? 9 : 100);
            s.type = KV_Q5;
            compare_with_ref(s, s.a.kv.k_dim > 100 ? 9 : 100);
        }
    }
}

/* In one step, in steps of 1 and of 7, and beside two other sequences: the same bits. */
static void check_chunks(setup s, int32_t n_tok) {
    test_rng rng = {77};
    sequence q[3] = {sequence_new(&rng, &s, n_tok, 2, 3), sequence_new(&rng, &s, n_tok / 2, 0, 3),
                     sequence_new(&rng, &s, 3, 1, 3)};
    static const int32_t chunks[] = {1, 7, 64};
    s.backend = "cpu";
    run_all(&s, q, 1, n_tok);
    float *want = copy_out(&q[0], &s);
    size_t n_bytes = (size_t)(n_tok * out_width(&s)) * sizeof *want;
    for (int c = 0; c < 6; c++) {
        memset(q[0].out, 0, n_bytes);
        run_all(&s, q, c % 2 ? 3 : 1, chunks[c / 2]);
        if (memcmp(want, q[0].out, n_bytes) != 0) {
            fail_msg("%s, head of %d, window %d: steps of %d, %s, give other bits",
                     cpu_isa_name(s.isa), s.a.kv.k_dim, s.a.window, chunks[c / 2],
                     c % 2 ? "with others" : "alone");
        }
    }
    free(want);
    for (int i = 0; i < 3; i++) {
        sequence_free(&q[i]);
    }
}

static void test_cpu_attention_does_not_depend_on_steps(void **state) {
    (void)state;
    for (int isa = 0; isa < CPU_N_ISA; isa++) {
        if (cpu_has((cpu_isa)isa)) {
            check_chunks(make_setup((cpu_isa)isa, 3, 1, 64, 0, KV_F16), 200);
            check_chunks(make_setup((cpu_isa)isa, 4, 2, 80, 40, KV_F16), 150);
            check_chunks(make_setup((cpu_isa)isa, 2, 2, 22, 0, KV_F32), 130);
            check_chunks(make_setup((cpu_isa)isa, 2, 1, 40, 0, KV_Q8), 130);
            check_chunks(make_setup((cpu_isa)isa, 2, 1, 22, 90, KV_Q4), 200);
            check_chunks(make_setup((cpu_isa)isa, 2, 1, 24, 30, KV_Q5), 130);
            for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
                setup s = options[i];
                s.isa = (cpu_isa)isa;
                if (!s.a.whole) { /* which must come in one step */
                    check_chunks(s, s.a.kv.k_dim > 100 ? 5 : 70);
                }
            }
        }
    }
}

/* Contexts of several pieces, which single queries take apart. */
static void test_cpu_attention_of_long_contexts(void **state) {
    (void)state;
    enum { N = 2100 };
    for (int isa = 0; isa < CPU_N_ISA; isa++) {
        for (int32_t window = 0; cpu_has((cpu_isa)isa) && window <= 1500; window += 1500) {
            setup s = make_setup((cpu_isa)isa, 2, 1, 16, window, KV_F16);
            s.sinks = window ? some_sinks : NULL;
            test_rng rng = {3};
            sequence q = sequence_new(&rng, &s, N, 0, 1);
            s.backend = "ref";
            run_all(&s, &q, 1, N);
            float *want = copy_out(&q, &s);
            s.backend = "cpu";
            run_all(&s, &q, 1, N);
            assert_near_ref(&s, want, q.out, N * 2 * 16);
            float *whole = copy_out(&q, &s);
            run_all(&s, &q, 1, 70);
            assert_memory_equal(whole, q.out, N * 2 * 16 * sizeof(float));
            run_all(&s, &q, 1, 1);
            assert_memory_equal(whole, q.out, N * 2 * 16 * sizeof(float));
            free(want);
            free(whole);
            sequence_free(&q);
        }
    }
}

static void test_cpu_kv_copy_copies_a_page(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    ops *o;
    assert_ok(ctx, ops_open(&o, ctx, "cpu", NULL));
    ops_limits limits = {.n_tok = 64, .width = 64};
    assert_ok(ctx, o->table->reserve(o, &limits));
    ops_kv *kv;
    kv_layer two[2] = {{1, 4, 4}, {1, 4, 4}};
    kv_desc d = {.n_layer = 2, .layers = two, .type = KV_F16};
    assert_ok(ctx, o->table->kv_new(&kv, o, &d));
    assert_ok(ctx, o->table->kv_grow(o, kv, 2));
    setup s = make_setup(CPU_SCALAR, 1, 1, 4, 0, KV_F16);
    test_rng rng = {1};
    sequence q = sequence_new(&rng, &s, 10, 0, 1);
    run_step(o, kv, &s, &q, 1, (int32_t[]){0}, (int32_t[]){9});
    o->table->kv_copy(o, kv, 0, 1);
    run_step(o, kv, &s, &q, 1, (int32_t[]){9}, (int32_t[]){1});
    float want[4];
    memcpy(want, q.out + 36, sizeof want);
    q.pages[0] = 1;
    run_step(o, kv, &s, &q, 1, (int32_t[]){9}, (int32_t[]){1});
    assert_memory_equal(want, q.out + 36, sizeof want);
    sequence_free(&q);
    o->table->kv_free(o, kv);
    kv_layer three = {1, 3, 4};
    kv_desc odd = {.n_layer = 1, .layers = &three};
    assert_fails(ctx, o->table->kv_new(&kv, o, &odd), JANG_ERR_ARGUMENT, "heads of 3 and 4");
    ops_close(o);
    jang_context_free(ctx);
}

static double product(const float *a, const float *b, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) {
        sum += (double)a[i] * (double)b[i];
    }
    return sum;
}

/* Turning keeps products and lengths, and twice is nothing. */
static void test_kv_rotation_is_one(void **state) {
    (void)state;
    static const int sizes[] = {2, 6, 64, 80, 96, 128, 576};
    test_rng rng = {5};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        int n = sizes[i];
        float *a = random_rows(&rng, n, 1), *b = random_rows(&rng, n, 1),
              *c = malloc(4 * (size_t)n);
        double before = product(a, b, n);
        memcpy(c, a, (size_t)n * sizeof *c);
        host_kv_rotate(a, n);
        host_kv_rotate(b, n);
        assert_true(fabs(product(a, b, n) - before) < 1e-4);
        assert_true(memcmp(a, c, (size_t)n * sizeof *c) != 0);
        host_kv_rotate(a, n);
        for (int k = 0; k < n; k++) {
            assert_true(fabsf(a[k] - c[k]) < 1e-5f);
        }
        free(a);
        free(b);
        free(c);
    }
}

/* One number a thousand times the others costs the others nothing: the error is that of the
 * spread-out vector, half a step of 2 * 1000 / 8 / 15 in the worst case and element. */
static void test_kv_rounding_bears_outliers(void **state) {
    (void)state;
    float x[64], turned[64], y[64], params[2];
    int8_t codes[64];
    test_rng rng = {6};
    for (int bits = 4; bits <= 8; bits += 2) {
        double error = 0;
        for (int i = 0; i < 64; i++) {
            x[i] = rng_normal(&rng);
        }
        x[7] = 1000;
        memcpy(turned, x, sizeof turned);
        host_kv_rotate(turned, 64);
        host_kv_round(codes, params, turned, 64, bits);
        for (int i = 0; i < 64; i++) {
            y[i] = params[0] * (float)codes[i] + (bits == 8 ? 0 : params[1]);
        }
        host_kv_rotate(y, 64);
        for (int i = 0; i < 64; i++) {
            error += (double)((x[i] - y[i]) * (x[i] - y[i]));
        }
        double step = 2 * (1000.0 / 8 + 4) / ((1 << bits) - 2);
        assert_true(error < 64 * step * step / 4);
    }
    x[3] = NAN;
    host_kv_round(codes, params, x, 64, 4);
    assert_true(isnan(params[0]));
    memset(x, 0, sizeof x);
    host_kv_round(codes, params, x, 64, 4);
    assert_true(params[0] == 0 && params[1] == 0);
}

/* A page of one head of 64 and of one of 128, beside its bytes in f16. */
static void test_kv_bytes(void **state) {
    (void)state;
    assert_int_equal(kv_head_bytes(KV_F16, 64, 64), 64 * 256);
    assert_int_equal(kv_head_bytes(KV_Q8, 64, 64), 64 * (128 + 4));
    assert_int_equal(kv_head_bytes(KV_Q5, 64, 64), 64 * (48 + 32 + 8) + 2 + 256);
    assert_int_equal(kv_head_bytes(KV_Q4, 64, 64), 64 * (64 + 8) + 2 + 256);
    assert_int_equal(kv_head_bytes(KV_Q4, 128, 128), 64 * 128 + 4 * 192 + 2 + 512);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cpu_attention_agrees_with_ref),
        cmocka_unit_test(test_cpu_attention_options_agree_with_ref),
        cmocka_unit_test(test_cpu_attention_does_not_depend_on_steps),
        cmocka_unit_test(test_cpu_attention_of_long_contexts),
        cmocka_unit_test(test_cpu_kv_copy_copies_a_page),
        cmocka_unit_test(test_kv_rotation_is_one),
        cmocka_unit_test(test_kv_rounding_bears_outliers),
        cmocka_unit_test(test_kv_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
