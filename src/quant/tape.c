/* tape.c - notes of operators, their memory, and the way back through them. */
#include "quant/tape_impl.h"

#include "base/pool.h"
#include "quant/widen.h"

#include <string.h>

#define CHUNK_BYTES ((size_t)16 << 20)
#define ALIGNMENT 64
#define ROWS 16 /* of a block */

/* ---- Memory ---- */

static jang_status add_chunk(tape *t, size_t n_bytes) {
    tape_chunk *chunks = ctx_realloc(t->ctx, t->chunks, (t->n_chunks + 1) * sizeof *chunks);
    if (!chunks) {
        return ctx_fail_memory(t->ctx, (t->n_chunks + 1) * sizeof *chunks);
    }
    t->chunks = chunks;
    n_bytes = n_bytes > CHUNK_BYTES ? n_bytes : CHUNK_BYTES;
    uint8_t *data = ctx_alloc_aligned(t->ctx, n_bytes, ALIGNMENT);
    if (!data) {
        return ctx_fail_memory(t->ctx, n_bytes);
    }
    t->chunks[t->n_chunks++] = (tape_chunk){data, n_bytes};
    return JANG_OK;
}

void *tape_alloc(tape *t, size_t n, size_t size) {
    if (size && n > (SIZE_MAX - ALIGNMENT) / size) {
        t->status = ctx_fail_memory(t->ctx, SIZE_MAX);
        return NULL;
    }
    size_t n_bytes = (n * size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    while (t->at.chunk < t->n_chunks && t->chunks[t->at.chunk].n_bytes - t->at.used < n_bytes) {
        t->at = (tape_mark){t->at.chunk + 1, 0};
    }
    if (t->at.chunk == t->n_chunks) {
        jang_status status = add_chunk(t, n_bytes);
        if (status != JANG_OK) {
            t->status = status;
            return NULL;
        }
    }
    void *out = t->chunks[t->at.chunk].data + t->at.used;
    t->at.used += n_bytes;
    memset(out, 0, n_bytes);
    return out;
}

float *tape_floats(tape *t, int64_t n) {
    return tape_alloc(t, (size_t)n, sizeof(float));
}

void *tape_new_note(tape *t, size_t n_bytes, void (*back)(tape *, tape_note *)) {
    if (!t->records || t->status != JANG_OK) {
        return NULL;
    }
    tape_note *note = tape_alloc(t, 1, n_bytes);
    if (note) {
        note->back = back;
        note->before = t->last;
        t->last = note;
    }
    return note;
}

static float *copy_rows(tape *t, ops_mat m, const float *first, int64_t stride) {
    float *out = tape_floats(t, m.n_row * m.width);
    for (int64_t i = 0; out && i < m.n_row; i++) {
        memcpy(out + i * m.width, first + i * stride, (size_t)m.width * sizeof *out);
    }
    return out;
}

float *tape_keep(tape *t, ops_mat m) {
    return copy_rows(t, m, host_row(m, 0), m.stride);
}

/* ---- Gradients of places ---- */

static tape_shadow *shadow_of(tape *t, const ops_buf *buf) {
    for (size_t i = 0; i < t->n_shadows; i++) {
        if (t->shadows[i].buf == buf) {
            return &t->shadows[i];
        }
    }
    return NULL;
}

/* Makes room for the gradients of a new buffer. */
static jang_status add_shadow(tape *t, const ops_buf *buf) {
    size_t n = buf->n_bytes / sizeof(float);
    tape_shadow *all = ctx_realloc(t->ctx, t->shadows, (t->n_shadows + 1) * sizeof *all);
    if (!all) {
        return ctx_fail_memory(t->ctx, (t->n_shadows + 1) * sizeof *all);
    }
    t->shadows = all;
    float *grad = ctx_zero(t->ctx, n + 1, sizeof *grad);
    if (!grad) {
        return ctx_fail_memory(t->ctx, n * sizeof *grad);
    }
    all[t->n_shadows++] = (tape_shadow){buf, grad, n};
    return JANG_OK;
}

float *tape_grad_row(tape *t, ops_mat m, int64_t row) {
    return shadow_of(t, m.buf)->grad + m.at + row * m.stride;
}

float *tape_look(tape *t, ops_mat y) {
    return copy_rows(t, y, tape_grad_row(t, y, 0), y.stride);
}

float *tape_take(tape *t, ops_mat y) {
    float *g = tape_look(t, y), *first = tape_grad_row(t, y, 0);
    for (int64_t i = 0; i < y.n_row; i++) {
        memset(first + i * y.stride, 0, (size_t)y.width * sizeof *g);
    }
    return g;
}

void tape_add(tape *t, ops_mat x, const float *g) {
    float *first = tape_grad_row(t, x, 0);
    for (int64_t i = 0; i < x.n_row; i++) {
        float *row = first + i * x.stride;
        for (int64_t k = 0; k < x.width; k++) {
            row[k] += g[i * x.width + k];
        }
    }
}

/* ---- Rows and weights ---- */

typedef struct spread {
    tape_rows_fn fn;
    void *arg;
    int64_t n;
} spread;

static void run_rows(void *arg, int task, int thread) {
    (void)thread;
    const spread *s = arg;
    int64_t first = (int64_t)task * ROWS, last = first + ROWS < s->n ? first + ROWS : s->n;
    s->fn(s->arg, first, last);
}

void tape_spread(tape *t, int64_t n, tape_rows_fn fn, void *arg) {
    spread s = {fn, arg, n};
    pool_run(ctx_pool(t->ctx), run_rows, &s, (int)((n + ROWS - 1) / ROWS));
}

bool tape_find_matrix(const tape *t, const ops_weight *w, int expert, tape_matrix *out) {
    return t->uses && t->matrix(t->user, w, expert, out);
}

const float *tape_widen(tape *t, const weight_desc *d) {
    size_t n = (size_t)(d->n_out * d->n_in);
    if (n > t->n_wide) {
        ctx_free(t->ctx, t->wide);
        t->wide = ctx_array(t->ctx, n, sizeof *t->wide);
        t->n_wide = t->wide ? n : 0;
        t->wide_of = NULL;
        if (!t->wide) {
            t->status = ctx_fail_memory(t->ctx, n * sizeof *t->wide);
            return NULL;
        }
    }
    if (t->wide_of != d->data) { /* else it is the one of the last call */
        weight_widen(t->ctx, d, t->wide);
        t->wide_of = d->data;
    }
    return t->wide;
}

gemm_call tape_moments(const tape *t, const tape_matrix *m, const float *g, int64_t n,
                       int64_t n_out, int64_t at) {
    int64_t size = n_out - at < m->block ? n_out - at : m->block;
    return (gemm_call){.m = size,
                       .n = size,
                       .k = n,
                       .trans_a = true,
                       .a = g + at,
                       .lda = n_out,
                       .b = g + at,
                       .ldb = n_out,
                       .c = m->moments + at * m->block,
                       .ldc = m->block,
                       .alpha = 1,
                       .beta = 1,
                       .coarse = t->coarse};
}

/* ---- What the host reads, and what it says of it ---- */

static jang_status run_read(ops *o, const ops_buf *buf, size_t at, void *data, size_t n_bytes) {
    tape *t = tape_of(o);
    t->read_buf = buf;
    t->read_at = at / sizeof(float);
    return t->own->read(o, buf, at, data, n_bytes);
}

static jang_status run_buf_new(ops_buf **out, ops *o, size_t n_bytes) {
    tape *t = tape_of(o);
    ops_buf *buf;
    jang_status status = t->own->buf_new(&buf, o, n_bytes);
    if (status == JANG_OK) {
        status = add_shadow(t, buf);
        if (status != JANG_OK) {
            t->own->buf_free(o, buf);
        } else {
            *out = buf;
        }
    }
    return status;
}

static void run_buf_free(ops *o, ops_buf *buf) {
    tape *t = tape_of(o);
    tape_shadow *s = buf ? shadow_of(t, buf) : NULL;
    if (s) {
        ctx_free(t->ctx, s->grad);
        *s = t->shadows[--t->n_shadows];
    }
    t->own->buf_free(o, buf);
}

typedef struct seed_note {
    tape_note note;
    ops_mat y;
    float *grad;
} seed_note;

static void back_seed(tape *t, tape_note *note) {
    const seed_note *s = (const seed_note *)note;
    tape_add(t, s->y, s->grad);
}

void tape_seed(tape *t, const float *grad, int64_t n) {
    seed_note *s = tape_new_note(t, sizeof *s, back_seed);
    float *copy = s ? tape_floats(t, n) : NULL;
    if (copy) {
        memcpy(copy, grad, (size_t)n * sizeof *copy);
        s->grad = copy;
        s->y = (ops_mat){(ops_buf *)t->read_buf, (int64_t)t->read_at, n, 1, n};
    }
}

/* ---- The whole ---- */

jang_status tape_open(tape **out, ops *o, tape_matrix_fn matrix, void *user, bool coarse) {
    tape *t = ctx_zero(o->ctx, 1, sizeof *t);
    if (!t) {
        return ctx_fail_memory(o->ctx, sizeof *t);
    }
    t->table = *o->table;
    t->own = o->table;
    t->o = o;
    t->ctx = o->ctx;
    t->matrix = matrix;
    t->user = user;
    t->coarse = coarse;
    t->table.read = run_read;
    t->table.buf_new = run_buf_new;
    t->table.buf_free = run_buf_free;
    tape_set_linear(&t->table);
    tape_set_rows(&t->table);
    tape_set_attention(&t->table);
    tape_set_experts(&t->table);
    tape_set_recurrent(&t->table);
    o->table = &t->table;
    *out = t;
    return JANG_OK;
}

void tape_close(tape *t) {
    if (!t) {
        return;
    }
    t->o->table = t->own;
    for (size_t i = 0; i < t->n_chunks; i++) {
        ctx_free_aligned(t->ctx, t->chunks[i].data);
    }
    for (size_t i = 0; i < t->n_shadows; i++) {
        ctx_free(t->ctx, t->shadows[i].grad);
    }
    ctx_free(t->ctx, t->chunks);
    ctx_free(t->ctx, t->shadows);
    ctx_free(t->ctx, t->wide);
    ctx_free(t->ctx, t);
}

void tape_use_matrices(tape *t, bool on) {
    t->uses = on;
}

void tape_record(tape *t) {
    t->records = true;
    t->status = JANG_OK;
    t->last = NULL;
    t->at = (tape_mark){0, 0};
}

jang_status tape_back(tape *t) {
    t->records = false;
    for (size_t i = 0; i < t->n_shadows; i++) {
        memset(t->shadows[i].grad, 0, t->shadows[i].n * sizeof(float));
    }
    for (tape_note *n = t->last; n && t->status == JANG_OK; n = n->before) {
        tape_mark at = t->at;
        n->back(t, n);
        t->at = at;
    }
    t->last = NULL;
    return t->status;
}
