/* mla.h - multi-head latent attention: keys and values of all heads are made of one short vector a
 * token, which is all that the cache keeps.
 *
 *     q_h = [q_h^c, rope(q_h^r)],  c = norm(W_kva h),  k^r = rope(W_kr h)
 *     score_h = q_h^c . (K_h c) + q_h^r . k^r = (K_h^T q_h^c) . c + q_h^r . k^r
 *     out_h = sum of weights times V_h c = V_h (sum of weights times c)
 *
 * So K_h and V_h are applied to a step's queries and results, not to every token of the past
 * ("absorbed"): attention has one key-value head of kv_lora + rope and kv_lora numbers for all
 * query heads. Source: DeepSeek-V2, arXiv:2405.04434, section 2.1 and appendix C. */
#ifndef JANG_MODEL_MLA_H
#define JANG_MODEL_MLA_H

#include "model/block.h"

typedef struct mla_config {
    int64_t n_head;
    int64_t q_lora; /* 0: q_proj, without a low-rank step */
    int64_t kv_lora, nope_dim, rope_dim, v_dim;
    bias_rule a_bias, o_bias; /* of q_a_proj and kv_a_proj_with_mqa; of o_proj */
    norm_config norm;         /* of the latent vectors */
    double scale;
    const rope_desc *rope; /* NULL: none */
    int kv_layer;          /* layer of the cache */
} mla_config;

/* Makes the block of a layer, whose weights' names begin with prefix ("layers.3."): self_attn, with
 * K and V as kv_b_proj (the hub) or as embed_q and unembed_out (mlx-lm). */
JANG_MUST_CHECK jang_status mla_make(block **out, loader *l, work *w, const mla_config *c,
                                     int64_t n_embd, const char *prefix);

/* What the block's layer keeps in the cache. */
kv_layer mla_kv(const mla_config *c);

#endif
