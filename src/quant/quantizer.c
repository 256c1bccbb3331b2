/* quantizer.c - the table of quantization methods. */
#include "quant/quantizer.h"

#include "quant/mse.h"
#include "quant/rtn.h"

#include <stdio.h>
#include <string.h>

#if defined(__x86_64__)
#define FUNCTIONS(name)                                                                            \
    {                                                                                              \
        [CPU_SCALAR] = name##_quantize__scalar, [CPU_AVX2] = name##_quantize__avx2,                \
        [CPU_AVX512] = name##_quantize__avx512                                                     \
    }
#else
#define FUNCTIONS(name)                                                                            \
    { [CPU_SCALAR] = name##_quantize__scalar }
#endif

static const quantizer methods[] = {
    {"rtn", .fn = FUNCTIONS(rtn)},
    {"mse", .weighs = true, .fn = FUNCTIONS(mse)},
    {"gptq", .full = true, .feedback = true, .fn = FUNCTIONS(mse)},
    {"awq", .full = true, .scales = true, .fn = FUNCTIONS(mse)},
    {"awq+gptq", .full = true, .feedback = true, .scales = true, .fn = FUNCTIONS(mse)},
    {"best", .full = true, .feedback = true, .scales = true, .thorough = true,
     .fn = FUNCTIONS(mse)},
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
    quant_fn fn = q->fn[cpu_base(isa)];
    return fn ? fn : q->fn[CPU_SCALAR];
}
