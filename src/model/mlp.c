/* mlp.c - the dense feed-forward block. */
#include "model/mlp.h"

enum { SLOT_GATE = WORK_BLOCK, SLOT_UP };

typedef struct mlp {
    block base;
    mlp_layout layout;
    int64_t n_ff;
    act_desc act;
    float gate_scale;
    const ops_weight *gate, *up, *down; // gate is gate and up when they are one matrix
} mlp;

static void mlp_run(const block *b, const block_step *s, ops_mat h, ops_mat y, bool add) {
    const mlp *p = (const mlp *)b;
    ops_mat up = step_rows(s, SLOT_UP, p->n_ff), gate = {0};
    if (p->layout == MLP_GATE_UP) {
        ops_mat both = step_rows(s, SLOT_GATE, 2 * p->n_ff);
        s->t->linear(s->o, h, &(linear_item){p->gate, both, false}, 1);
        gate = ops_columns(both, 0, p->n_ff);
        up = ops_columns(both, p->n_ff, p->n_ff);
    } else if (p->layout == MLP_GATED) {
        gate = step_rows(s, SLOT_GATE, p->n_ff);
        const linear_item both[] = {{p->gate, gate, false}, {p->up, up, false}};
        s->t->linear(s->o, h, both, 2);
    } else {
        s->t->linear(s->o, h, &(linear_item){p->up, up, false}, 1);
        s->t->gated(s->o, &p->act, up, (ops_mat){0}, up);
        s->t->linear(s->o, up, &(linear_item){p->down, y, add}, 1);
        return;
    }
    if (p->gate_scale != 1) {
        s->t->gated(s->o, &(act_desc){.kind = ACT_LINEAR, .a = p->gate_scale}, gate, (ops_mat){0},
                    gate);
    }
    s->t->gated(s->o, &p->act, gate, up, gate);
    s->t->linear(s->o, gate, &(linear_item){p->down, y, add}, 1);
}

static const block_kind mlp_kind = {.name = "mlp", .run = mlp_run};

static const char *or_usual(const char *name, const char *usual) {
    return name ? name : usual;
}

static jang_status load_all(mlp *p, loader *l, const mlp_config *c, int64_t n_embd,
                            const char *prefix) {
    const char *path = or_usual(c->path, "mlp");
    bool fused = c->layout == MLP_GATE_UP;
    const struct {
        const ops_weight **out;
        const char *name;
        int64_t n_out, n_in;
        bool wanted;
        matrix_rows stored;
    } rows[] = {
        {&p->gate,
         or_usual(c->gate, "gate_proj"),
         c->n_ff,
         n_embd,
         c->layout == MLP_GATED,
         {c->stored_in, 0, 2 * c->n_ff}},
        {&p->gate, or_usual(c->gate_up, "gate_up_proj"), 2 * c->n_ff, n_embd, fused, {0}},
        {&p->up,
         or_usual(c->up, "up_proj"),
         c->n_ff,
         n_embd,
         !fused,
         {c->stored_in, c->n_ff, 2 * c->n_ff}},
        {&p->down,
         or_usual(c->down, "down_proj"),
         n_embd,
         c->n_ff,
         true,
         {c->stored_out, 0, n_embd}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (!rows[i].wanted) {
            continue;
        }
        ops_weight *w;
        jang_status status =
            rows[i].stored.module
                ? load_matrix_rows(&w, l, rows[i].n_out, rows[i].n_in, &rows[i].stored, INPUT_PLAIN,
                                   prefix, rows[i].name)
                : load_matrix(&w, l, rows[i].n_out, rows[i].n_in, c->bias, INPUT_PLAIN, "%s%s%s%s",
                              prefix, path, *path ? "." : "", rows[i].name);
        if (status != JANG_OK) {
            return status;
        }
        *rows[i].out = w;
    }
    return JANG_OK;
}

jang_status mlp_make(block **out, loader *l, work *w, const mlp_config *c, int64_t n_embd,
                     const char *prefix) {
    mlp *p = ctx_alloc(l->ctx, sizeof *p);
    if (!p) {
        return ctx_fail_memory(l->ctx, sizeof *p);
    }
    *p = (mlp){.base = {&mlp_kind},
               .layout = c->layout,
               .n_ff = c->n_ff,
               .act = c->act,
               .gate_scale = c->gate_scale == 0 ? 1 : (float)c->gate_scale};
    jang_status status = load_all(p, l, c, n_embd, prefix);
    if (status != JANG_OK) {
        ctx_free(l->ctx, p);
        return status;
    }
    if (c->layout != MLP_PLAIN) {
        work_need(w, SLOT_GATE, c->layout == MLP_GATE_UP ? 2 * c->n_ff : c->n_ff);
    }
    work_need(w, SLOT_UP, c->n_ff);
    *out = &p->base;
    return JANG_OK;
}
