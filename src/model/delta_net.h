/* delta_net.h - Gated DeltaNet (arXiv:2412.06464) as Qwen3-Next and Qwen3.5 have it, and Kimi Delta
 * Attention (arXiv:2510.26692), which lets each row of the state decay by itself:
 *
 *     q, k, v = silu(conv(linear(h)));  q, k = q / |q| * k_dim^-0.5, k / |k|
 *     decay = exp(-exp(A_log) softplus(linear(h) + dt_bias));  beta = sigmoid(linear(h))
 *     y = linear(norm(delta(q, k, v, decay, beta)) * act(linear(h)))
 *
 * Reference: transformers, models/{qwen3_next,qwen3_5,kimi_linear}. */
#ifndef JANG_MODEL_DELTA_NET_H
#define JANG_MODEL_DELTA_NET_H

#include "model/recurrent.h"

typedef struct delta_net_config {
    int64_t n_head, n_k_head; /* of values, of keys */
    int64_t k_dim, v_dim;
    int n_tap;
    double norm_eps;
    const char *path; /* "linear_attn", "self_attn" */
} delta_net_config;

/* Makes a Gated DeltaNet block, whose weights' names begin with prefix and path. Its projections
 * are in_proj_qkv, in_proj_z, in_proj_b, in_proj_a; or, where the checkpoint has those,
 * in_proj_qkvz and in_proj_ba with q, k, v, z and b, a of each key head in turn. */
JANG_MUST_CHECK jang_status delta_net_make(block **out, loader *l, work *w,
                                           const delta_net_config *c, int64_t n_embd,
                                           const char *prefix);

/* Makes a Kimi Delta Attention block: n_k_head is n_head, v_dim is k_dim. */
JANG_MUST_CHECK jang_status kimi_delta_make(block **out, loader *l, work *w,
                                            const delta_net_config *c, int64_t n_embd,
                                            const char *prefix);

#endif
