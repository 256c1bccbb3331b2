/* short_conv.c - LFM2's gated short convolution. */
#include "model/short_conv.h"

#include <stdio.h>

enum { SLOT_IN = WORK_BLOCK, SLOT_PRODUCT, SLOT_CONV };

typedef struct short_conv {
    block base;
    int64_t n_embd;
    const ops_weight *in_proj, *out_proj; // (3 * n_embd, n_embd), (n_embd, n_embd)
    causal_conv conv;
} short_conv;

static void short_conv_run(const block *b, const block_step *s, ops_mat h, ops_mat y, bool add) {
    const short_conv *c = (const short_conv *)b;
    int64_t n = c->n_embd;
    ops_mat in = step_rows(s, SLOT_IN, 3 * n), product = step_rows(s, SLOT_PRODUCT, n);
    ops_mat out = step_rows(s, SLOT_CONV, n);
    const act_desc same = {.kind = ACT_LINEAR, .a = 1};
    s->t->linear(s->o, h, &(linear_item){c->in_proj, in, false}, 1);
    s->t->gated(s->o, &same, ops_columns(in, 0, n), ops_columns(in, 2 * n, n), product);
    causal_conv_run(&c->conv, s, product, out);
    s->t->gated(s->o, &same, ops_columns(in, n, n), out, out);
    s->t->linear(s->o, out, &(linear_item){c->out_proj, y, add}, 1);
}

static const block_kind short_conv_kind = {.name = "short_conv", .run = short_conv_run};

static jang_status load_weights(short_conv *b, loader *l, const short_conv_config *c,
                                const char *prefix) {
    bias_rule bias = c->bias ? BIAS_NEEDED : BIAS_NONE;
    char conv[BLOCK_PATH_BYTES];
    const char *names[1] = {conv};
    ops_weight *in, *out;
    jang_status status =
        load_matrix(&in, l, 3 * b->n_embd, b->n_embd, bias, INPUT_FINE, "%sconv.in_proj", prefix);
    if (status == JANG_OK) {
        status =
            load_matrix(&out, l, b->n_embd, b->n_embd, bias, INPUT_FINE, "%sconv.out_proj", prefix);
    }
    if (status == JANG_OK) {
        snprintf(conv, sizeof conv, "%sconv.conv", prefix);
        status = load_conv(&b->conv, l, c->n_tap, c->bias, false, 1, &b->n_embd, names);
    }
    if (status == JANG_OK) {
        b->in_proj = in;
        b->out_proj = out;
    }
    return status;
}

jang_status short_conv_make(block **out, loader *l, work *w, const short_conv_config *c,
                            int64_t n_embd, const char *prefix) {
    short_conv *b = ctx_zero(l->ctx, 1, sizeof *b);
    if (!b) {
        return ctx_fail_memory(l->ctx, sizeof *b);
    }
    b->base.kind = &short_conv_kind;
    b->n_embd = n_embd;
    jang_status status = load_weights(b, l, c, prefix);
    if (status != JANG_OK) {
        ctx_free(l->ctx, b);
        return status;
    }
    work_need(w, SLOT_IN, 3 * n_embd);
    work_need(w, SLOT_PRODUCT, n_embd);
    work_need(w, SLOT_CONV, n_embd);
    *out = &b->base;
    return JANG_OK;
}
