/* cpu.c - detection of instruction sets. */
#include "base/cpu.h"

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

static const char *const isa_names[CPU_N_ISA] = {
    [CPU_SCALAR] = "scalar",       [CPU_AVX2] = "avx2", [CPU_AVX_VNNI] = "avx-vnni",
    [CPU_AVX512] = "avx512",       [CPU_NEON] = "neon", [CPU_NEON_DOT] = "neon-dot",
    [CPU_NEON_I8MM] = "neon-i8mm",
};

const char *cpu_isa_name(cpu_isa isa) {
    return isa_names[isa];
}

cpu_isa cpu_base(cpu_isa isa) {
    switch (isa) {
    case CPU_AVX_VNNI:
        return CPU_AVX2;
    case CPU_NEON_DOT:
    case CPU_NEON_I8MM:
        return CPU_NEON;
    default:
        return isa;
    }
}

#if defined(__x86_64__)

/* Leaf 7.1, which not all compilers' __builtin_cpu_supports know. */
static bool has_avx_vnni(void) {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4) != 0;
}

bool cpu_has(cpu_isa isa) {
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    switch (isa) {
    case CPU_SCALAR:
        return true;
    case CPU_AVX2: /* every processor with AVX2 has F16C */
        return avx2;
    case CPU_AVX_VNNI:
        return avx2 && has_avx_vnni();
    case CPU_AVX512:
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni");
    default:
        return false;
    }
}

#elif defined(__aarch64__)

bool cpu_has(cpu_isa isa) {
#if defined(__linux__)
    unsigned long caps = getauxval(AT_HWCAP), caps2 = getauxval(AT_HWCAP2);
    bool dot = (caps & HWCAP_ASIMDDP) != 0, i8mm = (caps2 & HWCAP2_I8MM) != 0;
#else /* Apple's processors since M1 have dotprod; i8mm only where the compiler was told so */
    bool dot = true;
#if defined(__ARM_FEATURE_MATMUL_INT8)
    bool i8mm = true;
#else
    bool i8mm = false;
#endif
#endif
    switch (isa) {
    case CPU_SCALAR:
    case CPU_NEON:
        return true;
    case CPU_NEON_DOT:
        return dot;
    case CPU_NEON_I8MM:
        return dot && i8mm;
    default:
        return false;
    }
}

#else

bool cpu_has(cpu_isa isa) {
    return isa == CPU_SCALAR;
}

#endif

jang_status cpu_choose(cpu_isa *out, ctx_t *ctx) {
    const char *forced = getenv("JANG_ISA");
    if (!forced || !*forced) {
        for (int i = CPU_N_ISA - 1; i >= 0; i--) {
            if (cpu_has((cpu_isa)i)) {
                *out = (cpu_isa)i;
                return JANG_OK;
            }
        }
    }
    for (int i = 0; i < CPU_N_ISA; i++) {
        if (forced && strcmp(forced, isa_names[i]) == 0) {
            if (!cpu_has((cpu_isa)i)) {
                return ctx_fail(ctx, JANG_ERR_UNSUPPORTED,
                                "JANG_ISA=%s: this processor does not have it", forced);
            }
            *out = (cpu_isa)i;
            return JANG_OK;
        }
    }
    return ctx_fail(ctx, JANG_ERR_ARGUMENT,
                    "JANG_ISA=%s: unknown; known are scalar, avx2, avx-vnni, avx512, neon, "
                    "neon-dot, neon-i8mm",
                    forced);
}
