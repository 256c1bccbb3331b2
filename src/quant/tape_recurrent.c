/* tape_recurrent.c - Mamba's scans and the delta rule, noted for their gradients (tape_walk.h). */
#include "quant/tape_recurrent.h"

#include "base/pool.h"

#define N_PARTS 16       /* that units are cut into at least, where there are as many */
#define SCAN_CHANNELS 16 /* of a scan that are one unit */

/* What a recurrence reads and writes; decay without a buffer: it has none. */
typedef struct recurrence_mats {
    ops_mat x, step, decay, b, c, y;
} recurrence_mats;

/* Units of a group are cut into parts, whose number does not depend on that of the threads; a part
 * adds the gradients of b and c to numbers of its own, and these are added up in order. */
typedef struct recurrence {
    tape_note note;
    tape_walk walk;
    recurrence_mats m;
    /* On the way back. */
    tape_walk_fn *fn;
    int64_t n_part; /* of a group */
    float *db, *dc; /* [n_group * n_part, n_tok, n_lane] */
    float *scratch; /* [.., n_scratch] for each task or thread, if those are fewer */
    int64_t n_scratch;
    bool by_thread;
} recurrence;

/* The first unit u with u * n_group / n_unit >= group. */
static int64_t first_unit(const tape_walk *w, int64_t group) {
    return (group * w->n_unit + w->n_group - 1) / w->n_group;
}

static void walk_part(void *arg, int task, int thread) {
    const recurrence *r = arg;
    const tape_walk *w = &r->walk;
    int64_t group = task / r->n_part, part = task % r->n_part, n_shared = w->n_tok * w->n_lane;
    int64_t from = first_unit(w, group), n = first_unit(w, group + 1) - from;
    float *scratch = r->scratch + (r->by_thread ? thread : task) * r->n_scratch;
    for (int64_t u = from + n * part / r->n_part; u < from + n * (part + 1) / r->n_part; u++) {
        r->fn(w, u, r->db + task * n_shared, r->dc + task * n_shared, scratch);
    }
}

static void add_parts(tape *t, const recurrence *r) {
    int64_t n_lane = r->walk.n_lane, n = r->walk.n_tok * n_lane;
    for (int64_t k = 0; k < r->walk.n_group * r->n_part; k++) {
        int64_t column = k / r->n_part * n_lane;
        tape_add(t, ops_columns(r->m.b, column, n_lane), r->db + k * n);
        tape_add(t, ops_columns(r->m.c, column, n_lane), r->dc + k * n);
    }
}

static void back_recurrence(tape *t, tape_note *note) {
    recurrence *r = (recurrence *)note;
    tape_walk *w = &r->walk;
    pool *p = ctx_pool(t->ctx);
    int64_t wanted = (N_PARTS + w->n_group - 1) / w->n_group;
    int64_t most = (w->n_unit + w->n_group - 1) / w->n_group;
    r->n_part = wanted < most ? wanted : most;
    int64_t n_tasks = w->n_group * r->n_part, n_threads = pool_threads(p);
    r->by_thread = n_threads < n_tasks;
    r->n_scratch = tape_walk_scratch(w);
    r->scratch = tape_floats(t, (r->by_thread ? n_threads : n_tasks) * r->n_scratch);
    r->db = tape_floats(t, n_tasks * w->n_tok * w->n_lane);
    r->dc = tape_floats(t, n_tasks * w->n_tok * w->n_lane);
    w->dy = (tape_rows){tape_take(t, r->m.y), r->m.y.width};
    if (t->status != JANG_OK) {
        return;
    }
    w->x.grad = tape_grad_rows(t, r->m.x);
    w->step.grad = tape_grad_rows(t, r->m.step);
    if (r->m.decay.buf) {
        w->decay.grad = tape_grad_rows(t, r->m.decay);
    }
    pool_run(p, walk_part, r, (int)n_tasks);
    add_parts(t, r);
}

/* Notes a recurrence of a kind, units, groups and rows of a unit. */
static void note_recurrence(tape *t, tape_walk walk, const ops_batch *batch,
                            const recurrence_mats *m) {
    recurrence *r = tape_new_note(t, sizeof *r, back_recurrence);
    cpu_isa isa;
    if (!r) {
        return;
    }
    jang_status status = cpu_choose(&isa, t->ctx);
    if (status != JANG_OK) {
        t->status = status;
        return;
    }
    r->fn = tape_walk_function(isa);
    r->m = *m;
    walk.x.value = tape_keep_rows(t, m->x);
    walk.step.value = tape_keep_rows(t, m->step);
    if (m->decay.buf) {
        walk.decay.value = tape_keep_rows(t, m->decay);
        walk.by_lane = m->decay.width != walk.n_unit;
    }
    walk.b = tape_keep_rows(t, m->b);
    walk.c = tape_keep_rows(t, m->c);
    walk.pos = tape_keep_positions(t, batch);
    walk.n_tok = m->y.n_row;
    walk.width = m->y.width;
    walk.n_lane = m->b.width / walk.n_group;
    r->walk = walk;
}

static void run_scan(ops *o, const scan_desc *desc, state_at at, const ops_batch *batch, ops_mat x,
                     ops_mat step, ops_mat b, ops_mat c, ops_mat y) {
    tape *t = tape_of(o);
    const tape_walk walk = {.kind = WALK_SCAN,
                            .n_unit = (x.width + SCAN_CHANNELS - 1) / SCAN_CHANNELS,
                            .n_group = 1,
                            .n_row = SCAN_CHANNELS,
                            .a = tape_f32(desc->a),
                            .d = tape_f32(desc->d)};
    note_recurrence(t, walk, batch,
                    &(recurrence_mats){.x = x, .step = step, .b = b, .c = c, .y = y});
    t->own->scan(o, desc, at, batch, x, step, b, c, y);
}

static void run_ssd(ops *o, const ssd_desc *desc, state_at at, const ops_batch *batch, ops_mat x,
                    ops_mat step, ops_mat decay, ops_mat b, ops_mat c, ops_mat y) {
    tape *t = tape_of(o);
    const tape_walk walk = {.kind = WALK_SSD,
                            .n_unit = desc->n_head,
                            .n_group = desc->n_group,
                            .n_row = desc->head_dim,
                            .d = tape_f32(desc->d)};
    note_recurrence(t, walk, batch, &(recurrence_mats){x, step, decay, b, c, y});
    t->own->ssd(o, desc, at, batch, x, step, decay, b, c, y);
}

static void run_delta(ops *o, const delta_desc *desc, state_at at, const ops_batch *batch,
                      ops_mat q, ops_mat k, ops_mat v, ops_mat decay, ops_mat beta, ops_mat y) {
    tape *t = tape_of(o);
    const tape_walk walk = {.kind = WALK_DELTA,
                            .n_unit = desc->n_head,
                            .n_group = desc->n_k_head,
                            .n_row = desc->v_dim};
    note_recurrence(t, walk, batch, &(recurrence_mats){v, beta, decay, k, q, y});
    t->own->delta(o, desc, at, batch, q, k, v, decay, beta, y);
}

void tape_set_recurrent(ops_table *table) {
    tape_set_conv(table);
    table->scan = run_scan;
    table->ssd = run_ssd;
    table->delta = run_delta;
}
