/* quantizer.c - the table of quantization methods. */
#include "quant/quantizer.h"

#include "quant/mse.h"
#include "quant/rtn.h"

#include <stdio.h>
#include <string.h>

static const quantizer methods[] = {
    {"rtn",
     false,
     false,
     false,
     {[CPU_SCALAR] = rtn_quantize__scalar,
#if defined(__x86_64__)
      [CPU_AVX2] = rtn_quantize__avx2,
      [CPU_AVX512] = rtn_quantize__avx512
#endif
     }},
    {"mse",
     false,
     false,
     false,
     {[CPU_SCALAR] = mse_quantize__scalar,
#if defined(__x86_64__)
      [CPU_AVX2] = mse_quantize__avx2,
      [CPU_AVX512] = mse_quantize__avx512
#endif
     }},
    {"gptq",
     true,
     true,
     false,
     {[CPU_SCALAR] = mse_quantize__scalar,
#if defined(__x86_64__)
      [CPU_AVX2] = mse_quantize__avx2,
      [CPU_AVX512] = mse_quantize__avx512
#endif
     }},
    {"awq",
     true,
     false,
     true,
     {[CPU_SCALAR] = mse_quantize__scalar,
#if defined(__x86_64__)
      [CPU_AVX2] = mse_quantize__avx2,
      [CPU_AVX512] = mse_quantize__avx512
#endif
     }},
    {"awq+gptq",
     true,
     true,
     true,
     {[CPU_SCALAR] = mse_quantize__scalar,
#if defined(__x86_64__)
      [CPU_AVX2] = mse_quantize__avx2,
      [CPU_AVX512] = mse_quantize__avx512
#endif
     }},
};

#define N_METHODS (sizeof methods / sizeof *methods)

jang_status quantizer_find(const quantizer **out, ctx_t *ctx, const char *name) {
    char list[256] = "";
    for (size_t i = 0, at = 0; i < N_METHODS; i++) {
        if (strcmp(methods[i].name, name) == 0) {
            *out = &methods[i];
            return JANG_OK;
        }
        int n = snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "", methods[i].name);
        at += (size_t)n < sizeof list - at ? (size_t)n : 0;
    }
    return ctx_fail(ctx, JANG_ERR_ARGUMENT, "no method \"%s\"; methods are: %s", name, list);
}

quant_fn quantizer_function(const quantizer *q, cpu_isa isa) {
    return q->fn[isa] ? q->fn[isa] : q->fn[CPU_SCALAR];
}
