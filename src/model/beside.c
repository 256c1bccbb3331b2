/* beside.c - blocks side by side. */
#include "model/beside.h"

enum { SLOT_RESULT = WORK_SLOTS - 2, SLOT_INPUT = WORK_SLOTS - 1 }; /* beyond the inner blocks' */

typedef struct beside {
    block base;
    beside_part parts[BESIDE_MAX];
    int n_part;
} beside;

static void multiply(const block_step *s, float by, ops_mat x, ops_mat y) {
    s->t->gated(s->o, &(act_desc){.kind = ACT_LINEAR, .a = by}, x, (ops_mat){0}, y);
}

static ops_mat part_input(const beside_part *part, const block_step *s, ops_mat h) {
    if (part->in == 1 && !part->before.width) {
        return h;
    }
    ops_mat in = step_rows(s, SLOT_INPUT, h.width);
    if (part->before.width) {
        s->t->norm(s->o, &part->before, h, in);
        h = in;
    }
    if (part->in != 1) {
        multiply(s, part->in, h, in);
    }
    return in;
}

static void beside_run(const block *b, const block_step *s, ops_mat h, ops_mat y, bool add) {
    const beside *p = (const beside *)b;
    for (int i = 0; i < p->n_part; i++) {
        const beside_part *part = &p->parts[i];
        ops_mat in = part_input(part, s, h);
        if (part->out == 1 && !part->after.width) {
            part->block->kind->run(part->block, s, in, y, add || i > 0);
            continue;
        }
        ops_mat result = step_rows(s, SLOT_RESULT, y.width);
        part->block->kind->run(part->block, s, in, result, false);
        if (part->after.width) {
            s->t->norm(s->o, &part->after, result, result);
        }
        if (add || i > 0) {
            s->t->add(s->o, part->out, result, y);
        } else {
            multiply(s, part->out, result, y);
        }
    }
}

static void beside_close(block *b, ctx_t *ctx) {
    beside *p = (beside *)b;
    for (int i = 0; i < p->n_part; i++) {
        block_close(p->parts[i].block, ctx);
    }
    ctx_free(ctx, p);
}

static const block_kind beside_kind = {.name = "beside", .run = beside_run, .close = beside_close};

jang_status beside_make(block **out, loader *l, work *w, const beside_part *parts, int n_part,
                        int64_t n_embd) {
    beside *p = ctx_zero(l->ctx, 1, sizeof *p);
    for (int i = 0; i < n_part && !p; i++) {
        block_close(parts[i].block, l->ctx);
    }
    if (!p) {
        return ctx_fail_memory(l->ctx, sizeof *p);
    }
    p->base.kind = &beside_kind;
    p->n_part = n_part;
    for (int i = 0; i < n_part; i++) {
        p->parts[i] = parts[i];
        work_need(w, SLOT_RESULT, parts[i].out != 1 || parts[i].after.width ? n_embd : 0);
        work_need(w, SLOT_INPUT, parts[i].in != 1 || parts[i].before.width ? n_embd : 0);
    }
    *out = &p->base;
    return JANG_OK;
}
