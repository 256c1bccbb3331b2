/* test_ops_memory.c - every allocation failing in turn in a backend that is opened, filled, and
 * enlarged: an error each time, nothing left behind, and what was there before still works. */
#include "torture.h"

#include "ops_cases.h"

#include <string.h>

#define HEAD 64
#define N_HEAD 2
#define WIDTH (N_HEAD * HEAD)
#define LARGEST 70 /* tokens of the second, longer step: more pages than one */

typedef struct ops_work {
    const char *backend;
    const weight_desc *affine, *vector; /* [WIDTH, WIDTH] and [HEAD / 2] */
} ops_work;

/* What a step needs; zero where it is not made. */
typedef struct rig_parts {
    ops *o;
    ops_weight *affine, *inv_freq;
    ops_batch *batch;
    ops_kv *kv;
    ops_buf *x, *y;
} rig_parts;

static jang_status open_parts(rig_parts *p, ctx_t *ctx, const ops_work *w) {
    const kv_layer layer = {N_HEAD, HEAD, HEAD};
    const kv_desc cache = {.n_layer = 1, .layers = &layer, .type = KV_F16};
    const size_t n_bytes = (size_t)LARGEST * WIDTH * sizeof(float);
    jang_status status = ops_open(&p->o, ctx, w->backend, NULL);
    if (status != JANG_OK) {
        return status;
    }
    const ops_table *t = p->o->table;
    status = t->weight_new(&p->affine, p->o, w->affine);
    if (status == JANG_OK) {
        status = t->weight_new(&p->inv_freq, p->o, w->vector);
    }
    if (status == JANG_OK) {
        status = t->batch_new(&p->batch, p->o);
    }
    if (status == JANG_OK) {
        status = t->kv_new(&p->kv, p->o, &cache);
    }
    if (status == JANG_OK) {
        status = t->buf_new(&p->x, p->o, n_bytes);
    }
    return status == JANG_OK ? t->buf_new(&p->y, p->o, n_bytes) : status;
}

static void close_parts(rig_parts *p) {
    if (!p->o) {
        return;
    }
    const ops_table *t = p->o->table;
    t->buf_free(p->o, p->x);
    t->buf_free(p->o, p->y);
    t->kv_free(p->o, p->kv);
    if (p->batch) {
        t->batch_free(p->o, p->batch);
    }
    if (p->inv_freq) {
        t->weight_free(p->o, p->inv_freq);
    }
    if (p->affine) {
        t->weight_free(p->o, p->affine);
    }
    ops_close(p->o);
}

/* A step of n tokens through the operators that use scratch. */
static jang_status step(const rig_parts *p, int32_t n) {
    static const int32_t pages[] = {1, 0};
    int32_t ids[LARGEST] = {0};
    batch_seq seq = {.n_tok = n, .pages = pages};
    batch_desc desc = {.n_tok = n, .ids = ids, .n_seq = 1, .seqs = &seq};
    ops_limits limits = {.n_tok = n, .width = WIDTH};
    ops_mat x = {.buf = p->x, .stride = WIDTH, .n_row = n, .width = WIDTH}, y = x;
    y.buf = p->y;
    rope_desc rope = {.inv_freq = p->inv_freq, .n_rot = HEAD, .scale = 1};
    attention_desc a = {.n_head = N_HEAD, .kv = {N_HEAD, HEAD, HEAD}, .scale = 1};
    const ops_table *t = p->o->table;
    jang_status status = t->reserve(p->o, &limits);
    if (status == JANG_OK) {
        status = t->kv_grow(p->o, p->kv, 2);
    }
    if (status == JANG_OK) {
        status = t->batch_set(p->o, p->batch, &desc);
    }
    if (status != JANG_OK) {
        return status;
    }
    t->linear(p->o, x, &(linear_item){p->affine, y, false}, 1);
    t->rope(p->o, &rope, p->batch, y, N_HEAD, HEAD);
    t->rope(p->o, &(rope_desc){.inv_freq = p->inv_freq, .n_rot = HEAD, .scale = 2}, p->batch, y,
            N_HEAD, HEAD);
    t->kv_store(p->o, p->kv, 0, p->batch, y, y);
    t->attention(p->o, &a, p->kv, 0, p->batch, y, x);
    return t->finish(p->o);
}

/* A second cache, whose heads need more scratch than the first's. */
static jang_status larger_heads(const rig_parts *p) {
    const kv_layer layer = {1, 2 * HEAD, 2 * HEAD};
    const kv_desc cache = {.n_layer = 1, .layers = &layer, .type = KV_F32};
    ops_kv *kv;
    jang_status status = p->o->table->kv_new(&kv, p->o, &cache);
    if (status == JANG_OK) {
        p->o->table->kv_free(p->o, kv);
    }
    return status;
}

static jang_status open_and_step(ctx_t *ctx, const void *arg) {
    const ops_work *w = arg;
    rig_parts p = {0};
    jang_status status = open_parts(&p, ctx, w);
    if (status == JANG_OK) {
        status = step(&p, 1);
        if (status == JANG_OK) {
            status = step(&p, LARGEST);
        }
        if (status == JANG_OK) {
            status = larger_heads(&p);
        }
        torture_relent();
        assert_ok(ctx, step(&p, 1));
        assert_ok(ctx, step(&p, 2));
    }
    close_parts(&p);
    return status;
}

static void torture_backend(const char *backend) {
    test_rng rng = {1};
    case_weight affine = case_weight_new(&rng, WIDTH, WIDTH, 4, 64, DT_F16, true);
    case_weight vector = case_weight_new(&rng, 1, HEAD / 2, 0, 0, DT_F32, false);
    ops_work w = {.backend = backend, .affine = &affine.desc, .vector = &vector.desc};
    torture(backend, TORTURE_ALL_AFTER, open_and_step, &w);
    torture(backend, TORTURE_ONE, open_and_step, &w);
    case_weight_free(&affine);
    case_weight_free(&vector);
}

static void test_ops_memory_cpu(void **state) {
    (void)state;
    torture_backend("cpu");
}

static void test_ops_memory_ref(void **state) {
    (void)state;
    torture_backend("ref");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ops_memory_cpu),
        cmocka_unit_test(test_ops_memory_ref),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
