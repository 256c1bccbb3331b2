/* calib_shared.c - keys and values that later layers attend to as well.
 *
 * Layers run one after another over all steps, so the cache holds one step of one layer at a time.
 * Of layers whose keys later ones share, all rows are kept, and stored again before those attend.
 */
#include "quant/calib_runner.h"

#include "ops/hostbuf.h"

#include <string.h>

/* Whether what the stage computes at this point is not what its inputs give. */
static bool is_idle(const runner *r) {
    return r->skip || (r->again && r->call <= r->kept.call);
}

/* One of a step's matrices to the kept rows, or back; at: its first column there. */
static void move_rows(const runner *r, shared_keys *s, ops_mat m, int64_t at, bool back) {
    size_t bytes = (size_t)m.width * sizeof(float);
    for (int64_t i = 0; i < m.n_row; i++) {
        float *kept = s->rows + (r->step_row + i) * s->width + at, *row = host_row(m, i);
        memcpy(back ? row : kept, back ? kept : row, bytes);
    }
}

static void keep_rows(runner *r, shared_keys *s, ops_mat k, ops_mat v) {
    size_t n = (r->n_paired + r->n_seqs) * (size_t)r->c->n_seq;
    s->width = k.width + v.width;
    s->k_width = k.width;
    if (!s->rows) {
        s->rows = ctx_array(r->c->ctx, n, (size_t)s->width * sizeof *s->rows);
    }
    if (!s->rows) {
        r->status = ctx_fail_memory(r->c->ctx, n * (size_t)s->width * sizeof *s->rows);
        return;
    }
    move_rows(r, s, k, 0, false);
    move_rows(r, s, v, s->k_width, false);
}

void runner_kv_store(ops *o, ops_kv *kv, int layer, const ops_batch *batch, ops_mat k, ops_mat v) {
    runner *r = (runner *)(void *)o->table;
    r->stored = layer;
    r->stored_values = v;
    r->shared[layer].kv = kv;
    if (r->shared[layer].wanted && !is_idle(r) && r->status == JANG_OK) {
        keep_rows(r, &r->shared[layer], k, v);
    }
    r->own->kv_store(o, kv, layer, batch, k, v);
}

/* Stores a step's keys and values of an earlier layer again. */
static void store_again(runner *r, int layer, const ops_batch *batch, int64_t n_row) {
    shared_keys *s = &r->shared[layer];
    if (!s->rows) {
        return; /* the first look at the model */
    }
    ops_buf *made = NULL;
    r->status = r->own->buf_new(&made, r->o, (size_t)(n_row * s->width) * sizeof(float));
    if (r->status != JANG_OK) {
        return;
    }
    ops_mat k = {.buf = made, .stride = s->width, .n_row = n_row, .width = s->k_width}, v = k;
    v.at = s->k_width;
    v.width = s->width - s->k_width;
    move_rows(r, s, k, 0, true);
    move_rows(r, s, v, s->k_width, true);
    r->own->kv_store(r->o, s->kv, layer, batch, k, v);
    r->own->buf_free(r->o, made);
}

void runner_attention(ops *o, const attention_desc *desc, const ops_kv *kv, int layer,
                      const ops_batch *batch, ops_mat q, ops_mat out) {
    runner *r = (runner *)(void *)o->table;
    r->shared[layer].wanted |= r->stored != layer;
    if (is_idle(r) || r->status != JANG_OK) {
        return;
    }
    if (r->stored != layer) {
        store_again(r, layer, batch, q.n_row);
    }
    r->own->attention(o, desc, kv, layer, batch, q, out);
}

void runner_free_shared(runner *r) {
    for (int i = 0; r->shared && i < model_get_facts(r->m)->n_layer; i++) {
        ctx_free(r->c->ctx, r->shared[i].rows);
    }
    ctx_free(r->c->ctx, r->shared);
    r->shared = NULL;
}
