/* calib_kept.c - the input of a product that a pass over a stage studied, kept for the next pass.
 *
 * That pass would compute all that leads to the input again: for down_proj, the two larger products
 * of an MLP. So the input is kept (in bf16, where products round it to that anyway) and put back as
 * its product is called, nothing before it having been computed. That is right only where nothing
 * else of what comes before is needed afterwards, which is tried on a step: nobody has to say so of
 * a family's blocks. */
#include "quant/calib_runner.h"

#include "base/half.h"
#include "base/pool.h"
#include "ops/hostbuf.h"
#include "quant/gemm_bf16.h"

#include <string.h>

typedef struct rows_job {
    kept_input *kept;
    ops_mat x;
    int64_t first; /* of the kept rows */
    bool back;
} rows_job;

static void move_row(void *arg, int task, int thread) {
    (void)thread;
    const rows_job *j = arg;
    float *row = host_row(j->x, task);
    uint8_t *kept = j->kept->data + (size_t)(j->first + task) * j->kept->row_bytes;
    if (!j->kept->half) {
        memcpy(j->back ? (void *)row : kept, j->back ? kept : (void *)row, j->kept->row_bytes);
        return;
    }
    uint16_t *halves = (uint16_t *)(void *)kept;
    for (int64_t i = 0; !j->back && i < j->x.width; i++) {
        halves[i] = f32_to_bf16(row[i]);
    }
    for (int64_t i = 0; j->back && i < j->x.width; i++) {
        row[i] = bf16_to_f32(halves[i]);
    }
}

/* Makes room for the inputs of this call, of as many rows as fit; false: there is none. */
static bool make_room(runner *r, int call, int64_t width) {
    kept_input *k = &r->kept;
    if (k->data) {
        return k->call == call;
    }
    k->half = gemm_bf16_choose(r->c->ctx) != NULL;
    k->call = call;
    k->row_bytes = (size_t)width * (k->half ? sizeof(uint16_t) : sizeof(float));
    size_t n = (r->n_paired + r->n_seqs) * (size_t)r->c->n_seq; /* what is beyond, is not kept */
    size_t fit = CALIBRATE_KEPT_BYTES / k->row_bytes;
    k->room = (int64_t)(n < fit ? n : fit);
    k->data = ctx_array(r->c->ctx, (size_t)k->room, k->row_bytes);
    return k->data != NULL;
}

void runner_keep(runner *r, int call, ops_mat x) {
    kept_input *k = &r->kept;
    if (call == 0 || r->status != JANG_OK || !make_room(r, call, x.width) ||
        k->n_rows != r->step_row || x.n_row > k->room - k->n_rows) {
        return;
    }
    rows_job j = {k, x, k->n_rows, false};
    pool_run(ctx_pool(r->c->ctx), move_row, &j, (int)x.n_row);
    k->n_rows += x.n_row;
}

bool runner_has_kept(const runner *r, int64_t n_row) {
    return n_row <= r->kept.n_rows - r->step_row;
}

void runner_put_back(runner *r, ops_mat x) {
    rows_job j = {&r->kept, x, r->step_row, true};
    pool_run(ctx_pool(r->c->ctx), move_row, &j, (int)x.n_row);
}

void runner_forget_kept(runner *r) {
    ctx_free(r->c->ctx, r->kept.data);
    r->kept = (kept_input){0};
}
