/* tune_group.c - a step of tuning, for any processor. */
#include "quant/tune_group.h"

#include "quant/tune_group_body.h"

void tune_group__scalar(const tune_group *g, const latent_rates *rates) {
    tg_group(g, rates);
}

float tune_value(float place, float scale, float centre, float top, float *code) {
    *code = tg_code(place, top);
    return scale * (*code - top / 2) + centre;
}

static tune_group_fn *const table[CPU_N_ISA] = {
    [CPU_SCALAR] = tune_group__scalar,
#if defined(__x86_64__)
    [CPU_AVX2] = tune_group__avx2,
    [CPU_AVX512] = tune_group__avx512,
#endif
};

tune_group_fn *tune_group_function(cpu_isa isa) {
    tune_group_fn *fn = table[cpu_base(isa)];
    return fn ? fn : tune_group__scalar;
}
