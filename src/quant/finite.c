/* finite.c - looking for weights that are not finite. */
#include "quant/finite.h"

#include <math.h>

#define STEP_NUMBERS (1 << 18)

static jang_status check_part(const model_source *s, const model_part *part, float *rows,
                              int64_t step) {
    for (int64_t first = 0; first < part->rows; first += step) {
        int64_t n = part->rows - first < step ? part->rows - first : step;
        jang_status status = part_rows_f32(rows, s->checkpoint, part, first, n);
        for (int64_t i = 0; i < n * part->columns && status == JANG_OK; i++) {
            if (!isfinite(rows[i])) {
                status = ctx_fail(s->ctx, JANG_ERR_FORMAT,
                                  "%s: tensor %s: NaN or infinite weights in row %lld", s->path,
                                  part->name, (long long)(first + i / part->columns));
            }
        }
        part_drop_rows(s->checkpoint, part, first, n);
        if (status != JANG_OK) {
            return status;
        }
    }
    return JANG_OK;
}

jang_status finite_check(const model_source *s) {
    jang_status status = JANG_OK;
    for (size_t i = 0; i < s->n_kept && status == JANG_OK; i++) {
        const model_part *part = s->kept[i];
        int64_t columns = part->columns > 0 ? part->columns : 1;
        int64_t step = STEP_NUMBERS / columns > 0 ? STEP_NUMBERS / columns : 1;
        float *rows = ctx_array(s->ctx, (size_t)step, (size_t)columns * sizeof *rows);
        if (!rows) {
            return ctx_fail_memory(s->ctx, (size_t)(step * columns) * sizeof *rows);
        }
        status = check_part(s, part, rows, step);
        ctx_free(s->ctx, rows);
    }
    return status;
}
