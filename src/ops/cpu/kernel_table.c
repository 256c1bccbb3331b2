/* kernel_table.c - which kernels an instruction set gets. The only place that chooses. */
#include "ops/cpu/kernel_table.h"

/* From the simplest to the best, as cpu_isa counts. */
static const cpu_kernels table[] = {
    {CPU_SCALAR, "cpu scalar", &affine_scalar, &floats_scalar},
#if defined(__x86_64__)
    {CPU_AVX2, "cpu avx2", &affine_avx2, &floats_avx2},
#if defined(JANG_HAVE_AVX_VNNI) /* else those of AVX2 serve */
    {CPU_AVX_VNNI, "cpu avx-vnni", &affine_avx_vnni, &floats_avx2},
#endif
    {CPU_AVX512, "cpu avx512", &affine_avx512, &floats_avx512},
#elif defined(__aarch64__)
    {CPU_NEON, "cpu neon", &affine_neon, &floats_neon},
    {CPU_NEON_DOT, "cpu neon-dot", &affine_neon_dot, &floats_neon},
    {CPU_NEON_I8MM, "cpu neon-i8mm", &affine_neon_i8mm, &floats_neon},
#endif
};

#define N_ROWS ((int)(sizeof table / sizeof table[0]))

const cpu_kernels *cpu_kernels_for(cpu_isa isa) {
    const cpu_kernels *best = &table[0];
    for (int i = 1; i < N_ROWS; i++) {
        if (table[i].isa <= isa) {
            best = &table[i];
        }
    }
    return best;
}
