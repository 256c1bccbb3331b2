/* recurrent.h - what blocks with a memory share: parts of a sequence's state, small parameters as
 * f32, and causal convolutions. The blocks are in mamba1.h, mamba2.h, delta_net.h, short_conv.h.
 *
 * All their parameters but the projections are a few numbers a channel or head. They are read once
 * and kept as f32 in the form that the operators want, so any stored type, and any of the layouts
 * that checkpoints have, will do. */
#ifndef JANG_MODEL_RECURRENT_H
#define JANG_MODEL_RECURRENT_H

#include "model/block.h"

#define BLOCK_PATH_BYTES 256 /* "layers.N." and a block's own path */

/* Asks for a part of n numbers in each sequence's slot of state. */
JANG_MUST_CHECK jang_status load_state(int *part, loader *l, int64_t n);

/* The tensor of this name, which is as loader.h says, with its ending; NULL: there is none. To see
 * how a checkpoint is laid out: it does not count as used. */
__attribute__((format(printf, 2, 3))) const tensor_view *loader_tensor(loader *l, const char *name,
                                                                       ...);

/* Reads a tensor of [n_out, n_in] floats (n_in 1: a vector); axes of length 1 that its shape has
 * besides do not matter. *out is the caller's (ctx_free). name as loader.h says, with its ending.
 */
__attribute__((format(printf, 5, 6))) JANG_MUST_CHECK jang_status
load_floats(float **out, loader *l, int64_t n_out, int64_t n_in, const char *name, ...);

/* A vector as it is, as f32. */
__attribute__((format(printf, 4, 5))) JANG_MUST_CHECK jang_status
load_f32_vector(const ops_weight **out, loader *l, int64_t n, const char *name, ...);

/* -exp(A_log) of [n_out, n_in] numbers, each repeated `repeat` times. */
__attribute__((format(printf, 6, 7))) JANG_MUST_CHECK jang_status
load_decay(const ops_weight **out, loader *l, int64_t n_out, int64_t n_in, int64_t repeat,
           const char *name, ...);

/* A vector of equal numbers. */
JANG_MUST_CHECK jang_status load_constant(const ops_weight **out, loader *l, int64_t n,
                                          float value);

/* ---- Configs of recurrent families ---- */

/* An integer key: at least 1; absent or null it is the fallback, and missing where that is 0. */
typedef struct int_key {
    const char *key;
    int64_t *out, fallback, max;
} int_key;
JANG_MUST_CHECK jang_status config_ints(json_at config, const int_key *keys, size_t n);

/* JANG_ERR_UNSUPPORTED when a key is there with another value than "silu", the only activation that
 * these layers' kernels have. */
JANG_MUST_CHECK jang_status config_want_silu(json_at config, const char *key);

/* ---- Causal convolutions ---- */

typedef struct causal_conv {
    conv_desc desc;
    int part; /* of the state */
} causal_conv;

/* Convolutions of n_parts runs of channels, widths[i] each, that run as one: weights are
 * names[i].weight, [width, n_tap] in any of the hub's and mlx-lm's layouts, with a bias or not.
 * names are whole, as loader.h says. */
JANG_MUST_CHECK jang_status load_conv(causal_conv *out, loader *l, int n_tap, bool bias, bool silu,
                                      int n_parts, const int64_t *widths, const char *const *names);

/* y = the convolution of x. */
void causal_conv_run(const causal_conv *c, const block_step *s, ops_mat x, ops_mat y);

/* y = act(gate) * x, the usual gate of these blocks. */
void gate_run(const block_step *s, activation act, ops_mat gate, ops_mat x, ops_mat y);

#endif
