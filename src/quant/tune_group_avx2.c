/* tune_group_avx2.c - a step of tuning, compiled for AVX2. */
#include "quant/tune_group.h"

#include "quant/tune_group_body.h"

void tune_group__avx2(const tune_group *g, const latent_rates *rates) {
    tg_group(g, rates);
}
