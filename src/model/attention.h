/* attention.h - softmax attention over a cache of keys and values, with the options of all dense
 * families: grouped queries, fused or separate projections, biases, norms of q and k, RoPE of any
 * kind or none, windows, sinks, softcaps, an output gate, keys and values of another layer.
 *
 *     q, k, v = linear(h);  q, k = rope(norm(q)), rope(norm(k));  y = linear(attention(q, k, v))
 *
 * Source: arXiv:1706.03762; grouped queries arXiv:2305.13245; sinks arXiv:2309.17453. */
#ifndef JANG_MODEL_ATTENTION_H
#define JANG_MODEL_ATTENTION_H

#include "model/block.h"

/* Which numbers of q and k are normed together. */
typedef enum qk_norm_rule {
    QK_NORM_NONE,
    QK_NORM_HEAD,    /* each head, with one weight for all */
    QK_NORM_EACH,    /* each head, with a weight of its own: "q_norm.norms.N" */
    QK_NORM_STACKED, /* the same, in one tensor [heads, head_dim] */
    QK_NORM_WHOLE,   /* the whole row */
} qk_norm_rule;

/* How the projections lie in the checkpoint. */
typedef enum qkv_layout {
    QKV_SEPARATE,
    QKV_ROWS,  /* one matrix: all of q, all of k, all of v */
    QKV_HEADS, /* one matrix: q, k, v of each kv head in turn */
} qkv_layout;

typedef struct attention_config {
    int64_t n_head, n_kv_head, head_dim;
    qkv_layout layout;
    bias_rule q_bias, k_bias, v_bias, o_bias;
    qk_norm_rule qk_norm;
    bool norm_after_rope;
    bool v_norm;      /* values are normed per head, without a weight */
    bool v_is_k;      /* values are the keys before their norm and RoPE */
    bool output_gate; /* q_proj gives [q | gate] of each head; the result times sigmoid(gate) */
    norm_config norm; /* of q, k and v */
    const rope_desc *rope; /* NULL: none */
    double clip;           /* q, k and v are kept within it after their norms; 0: not */
    double scale, softcap; /* softcap 0: none */
    int64_t window;        /* 0: all */
    int64_t chunk;         /* attention_desc.chunk */
    bool sinks;
    bool whole;    /* not causal */
    double temper; /* attention_desc.temper and its span and shift */
    int64_t temper_span, temper_shift;
    int kv_layer;    /* layer of the cache that it reads, ... */
    bool kv_is_read; /* ... and another layer has written: there is no k and v here */
    /* Names below "layers.N.", as mlx-lm spells them; NULL: the usual ones. */
    const char *path; /* "self_attn" */
    const char *q, *k, *v, *o, *qkv, *q_norm, *k_norm;
} attention_config;

/* Makes the block of layer `layer`, whose weights' names begin with prefix ("layers.3."). */
JANG_MUST_CHECK jang_status attention_make(block **out, loader *l, work *w,
                                           const attention_config *c, int64_t n_embd,
                                           const char *prefix);

/* What the block's layer keeps in the cache. */
kv_layer attention_kv(const attention_config *c);

#endif
