/* widen.c - rows of dense and affine weights as f32, over the threads. */
#include "quant/widen.h"

#include "base/half.h"
#include "base/pool.h"
#include "format/affine.h"

#include <string.h>

typedef struct widen_job {
    const weight_desc *d;
    float *out;
} widen_job;

#define WIDEN_ROWS 64

static void widen_rows(void *arg, int task, int thread) {
    (void)thread;
    const widen_job *j = arg;
    const weight_desc *d = j->d;
    int64_t n = d->n_in, first = (int64_t)task * WIDEN_ROWS;
    int64_t last = first + WIDEN_ROWS < d->n_out ? first + WIDEN_ROWS : d->n_out;
    for (int64_t r = first; r < last; r++) {
        float *out = j->out + r * n;
        if (d->bits) {
            const uint8_t *scales = d->scales, *biases = d->biases;
            size_t at = (size_t)(r * (n / d->group)) * (d->scale_type == DT_F32 ? 4 : 2);
            affine_row_f32(out, (const uint8_t *)d->data + r * (n * d->bits / 8), scales + at,
                           biases + at, d->scale_type, n, d->bits, d->group);
        } else if (d->type == DT_F32) {
            memcpy(out, (const uint8_t *)d->data + r * n * 4, (size_t)n * 4);
        } else {
            const uint8_t *data = (const uint8_t *)d->data + r * n * 2;
            for (int64_t i = 0; i < n; i++) {
                uint16_t h;
                memcpy(&h, data + 2 * i, 2);
                out[i] = d->type == DT_BF16 ? bf16_to_f32(h) : f16_to_f32(h);
            }
        }
    }
}

void weight_widen(ctx_t *ctx, const weight_desc *d, float *out) {
    widen_job j = {d, out};
    pool_run(ctx_pool(ctx), widen_rows, &j, (int)((d->n_out + WIDEN_ROWS - 1) / WIDEN_ROWS));
}
