/* floats_neon.c - the f32 kernels for neon. */
#include "ops/cpu/vec_neon.h"

#include "ops/cpu/rows_body.h"

#include "ops/cpu/dense_body.h"

#include "ops/cpu/attend_body.h"

#include "ops/cpu/recurrent_body.h"

#include "ops/cpu/kernel_table.h"

const float_kernels floats_neon = {
    .lanes = VEC_N,
    .dense = kern_dense,
    .norm = kern_norm,
    .rope = kern_rope,
    .gated = kern_gated,
    .gated_clamped = kern_gated_clamped,
    .add_scaled = kern_add_scaled,
    .scale = kern_scale,
    .to_f16 = kern_to_f16,
    .from_f16 = kern_from_f16,
    .unpack_kv = kern_unpack_kv,
    .attend_page = kern_attend_page,
    .attend_merge = kern_attend_merge,
    .conv = kern_conv,
    .time_step = kern_time_step,
    .scan = kern_scan,
    .ssd = kern_ssd,
    .delta = kern_delta,
};
