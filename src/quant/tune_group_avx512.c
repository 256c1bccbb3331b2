/* tune_group_avx512.c - a step of tuning, compiled for AVX-512. */
#include "quant/tune_group.h"

#include "quant/tune_group_body.h"

void tune_group__avx512(const tune_group *g, const latent_rates *rates) {
    tg_group(g, rates);
}
