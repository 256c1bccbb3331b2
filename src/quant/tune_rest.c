/* tune_rest.c - matrices that calibration leaves to the end, quantized before a tuning. */
#include "quant/tune_impl.h"

#include "quant/scaling.h"
#include "quant/stored_rows.h"

static jang_status quantize(const tuning *t, size_t number) {
    plan_item *item = &t->plan->items[number];
    const stored_job j = {.ctx = t->ctx,
                          .source = t->source,
                          .part = item->part,
                          .bits = item->bits,
                          .group = item->group,
                          .type = item->type,
                          .fn = t->fn,
                          .importance = t->importance ? t->importance[number] : NULL};
    stored_rows made;
    jang_status status = stored_make(&made, &j);
    if (status != JANG_OK) {
        return status;
    }
    if (made.type != item->type) {
        plan_widen(item);
    }
    status = work_put_stored(t->work, number, &made);
    stored_free(&made, t->ctx);
    return status;
}

jang_status tuner_finish_matrices(const tuning *t) {
    jang_status status = JANG_OK;
    for (size_t i = 0; i < t->plan->n_items && status == JANG_OK; i++) {
        plan_item *item = &t->plan->items[i];
        const part_scaling *scaling = item->part->scaling;
        work_view v;
        if (!item->bits || item->kept || (scaling && scaling->rows)) {
            continue;
        }
        if (work_get(&v, t->work, i)) {
            item->type = v.type;
        } else {
            status = quantize(t, i);
        }
    }
    return status;
}
