/* gemm_bf16.c - whether there are products in bf16. */
#include "quant/gemm_bf16.h"

#include "base/cpu.h"

gemm_bf16_fn gemm_bf16_choose(ctx_t *ctx) {
#if defined(__x86_64__)
    cpu_isa isa;
    __builtin_cpu_init();
    if (cpu_choose(&isa, ctx) == JANG_OK && isa == CPU_AVX512 &&
        __builtin_cpu_supports("avx512bf16")) {
        return gemm_bf16__avx512;
    }
#else
    (void)ctx;
#endif
    return NULL;
}
