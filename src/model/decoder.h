/* decoder.h - the common pre-norm decoder: Llama and what differs from it in settings only.
 *
 *     x = embed(ids)
 *     per layer:  x += attention(norm(x));  x += mlp(norm(x))
 *     logits = output(norm(x))
 *
 * Attention is grouped-query with RoPE and, in some layers, a sliding window; the MLP is gated
 * (SwiGLU, arXiv:2002.05202). Source: Llama 2, arXiv:2307.09288. A family reads its config into
 * decoder_config and opens; its file tells its differences. */
#ifndef JANG_MODEL_DECODER_H
#define JANG_MODEL_DECODER_H

#include "model/family.h"
#include "model/rope.h"

typedef struct decoder_config {
    int64_t n_vocab, n_embd, n_layer, n_head, n_kv_head, head_dim, n_ff, n_context;
    double norm_eps;
    activation act;
    bool tied; /* the embedding is the output matrix */
    bias_rule qkv_bias, o_bias, mlp_bias;
    bool qk_norm; /* q and k are normed head by head before RoPE */
    /* Layers from first_window_layer on see window tokens; 0: all. layer_types, where the config
     * has it, decides layer by layer instead ("sliding_attention"). */
    int64_t window, first_window_layer;
    const json_t *layer_types; /* borrowed, NULL: none */
    rope_config rope;          /* owned; freed by decoder_open */
} decoder_config;

/* Defaults that a family's reference class has for keys that are absent. */
typedef struct decoder_defaults {
    int64_t n_context;
    int64_t head_dim; /* 0: hidden_size / num_attention_heads */
    double rope_theta;
    bool tied;
} decoder_defaults;

/* Reads the keys that all such families share, checks ranges, and the scaling of RoPE. */
JANG_MUST_CHECK jang_status decoder_read_config(decoder_config *out, json_at config,
                                                const decoder_defaults *defaults);

/* sliding_window: null means none (0); when the key is absent the reference classes' default of
 * 4096 holds. */
JANG_MUST_CHECK jang_status decoder_read_window(int64_t *out, json_at config);

/* Qwen's way to say which layers have a sliding window: use_sliding_window, sliding_window,
 * max_window_layers, layer_types. */
JANG_MUST_CHECK jang_status decoder_read_windows(decoder_config *c, json_at config);

/* Loads the weights and makes m run. Frees config's rope, also on failure. */
JANG_MUST_CHECK jang_status decoder_open(model *m, loader *l, decoder_config *config);

#endif
