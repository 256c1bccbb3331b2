/* stand_in.c - a matrix quantized in memory, as a weight of the backend. */
#include "quant/stand_in.h"

#include "format/affine.h"
#include "ops/hostbuf.h"

/* Makes the backend's weight of what was quantized, in the form of the original. */
static jang_status bind(stand_in *s, const stand_in_job *j) {
    const plan_item *item = j->item;
    weight_desc d = s->original->d;
    expert_data *experts = NULL;
    d.name = item->part->name;
    d.bits = item->bits;
    d.group = item->group;
    d.scale_type = s->rows.type;
    d.data = s->rows.weights;
    d.scales = s->rows.scales;
    d.biases = s->rows.biases;
    if (d.n_expert) {
        experts = ctx_array(j->ctx, (size_t)d.n_expert, sizeof *experts);
        if (!experts) {
            return ctx_fail_memory(j->ctx, (size_t)d.n_expert * sizeof *experts);
        }
        size_t code_bytes = (size_t)(d.n_out * affine_row_words(d.n_in, d.bits)) * 4;
        size_t n_scales = (size_t)(d.n_out * (d.n_in / d.group));
        for (int i = 0; i < d.n_expert; i++) {
            size_t e = (size_t)i;
            experts[i] =
                (expert_data){s->rows.weights + e * code_bytes, s->rows.scales + e * n_scales,
                              s->rows.biases + e * n_scales, s->original->d.experts[i].bias};
        }
        d.experts = experts;
        d.data = d.scales = d.biases = d.bias = NULL;
    }
    jang_status status = j->table->weight_new(&s->weight, j->ops, &d);
    ctx_free(j->ctx, experts);
    return status;
}

jang_status stand_in_make(stand_in *s, const stand_in_job *of) {
    const stored_job j = {.ctx = of->ctx,
                          .source = of->source,
                          .part = of->item->part,
                          .bits = of->item->bits,
                          .group = of->item->group,
                          .type = DT_BF16, /* holds any scale */
                          .fn = of->fn,
                          .importance = of->importance};
    jang_status status = stored_make(&s->rows, &j);
    return status == JANG_OK ? bind(s, of) : status;
}

void stand_in_free(stand_in *s, ctx_t *ctx, const ops_table *table, ops *o) {
    if (s->weight) {
        table->weight_free(o, s->weight);
    }
    stored_free(&s->rows, ctx);
    *s = (stand_in){0};
}
