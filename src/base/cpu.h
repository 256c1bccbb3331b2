/* cpu.h - what the processor can do, found once per question, and what JANG_ISA allows of it. */
#ifndef JANG_BASE_CPU_H
#define JANG_BASE_CPU_H

#include "base/ctx.h"

typedef enum cpu_isa {
    CPU_SCALAR = 0,    /* portable C */
    CPU_AVX2 = 1,      /* AVX2, FMA, F16C */
    CPU_AVX_VNNI = 2,  /* ... and AVX-VNNI (Alder Lake and its successors) */
    CPU_AVX512 = 3,    /* AVX-512 F, BW, DQ, VL, VBMI, VNNI (Ice Lake, Zen 4) */
    CPU_NEON = 4,      /* aarch64 with fp16 */
    CPU_NEON_DOT = 5,  /* ... and dotprod */
    CPU_NEON_I8MM = 6, /* ... and i8mm */
    CPU_N_ISA
} cpu_isa;

const char *cpu_isa_name(cpu_isa isa);

/* The instruction set without what only products of bytes gain by: AVX2 for AVX-VNNI, NEON for its
 * extensions. */
cpu_isa cpu_base(cpu_isa isa);

/* Whether this processor can run code for isa. */
bool cpu_has(cpu_isa isa);

/* The instruction set to use: the best of this machine, or the one the environment variable
 * JANG_ISA names ("scalar", "avx2", "avx-vnni", ...). Fails when that is unknown or not here. */
JANG_MUST_CHECK jang_status cpu_choose(cpu_isa *out, ctx_t *ctx);

#endif
