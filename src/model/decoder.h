/* decoder.h - the frame that all decoder-only families share: embedding, layers of blocks around a
 * residual stream, the final norm, logits.
 *
 *     x = embed(ids)
 *     per layer, for each part (mixer, then feed-forward):  x += scale * after(block(before(x)))
 *     logits = softcap(output(norm(x)) * logit_scale)
 *
 * Encoders (BERT) have the same frame: their norms stand behind the sums, x = norm(x + block(x)),
 * a token sees all of its sequence, and a head of labels stands in the output matrix's place.
 *
 * A family reads its config into decoder_config and opens; its file tells its differences. What
 * mixes tokens and what follows it is decided layer by layer by two functions of the config (mixer
 * and ffn), which make a block or none: attention and a dense MLP where a family says nothing,
 * experts or a recurrence where it does. Source of the plain form: Llama 2, arXiv:2307.09288. */
#ifndef JANG_MODEL_DECODER_H
#define JANG_MODEL_DECODER_H

#include "model/attention.h"
#include "model/mlp.h"
#include "model/rope.h"

typedef struct decoder decoder;
typedef struct decoder_config decoder_config;

/* Makes the block of a layer from c. *out stays NULL where the layer has none. */
typedef jang_status (*block_maker)(block **out, decoder *d, loader *l, const decoder_config *c,
                                   int layer);

/* How the feed-forward stands to the mixer. */
typedef enum beside_rule {
    BESIDE_NOT,  /* it follows: it reads the stream with the mixer's result */
    BESIDE_SAME, /* both read the same normed stream (Phi-2, Cohere) */
    BESIDE_OWN,  /* both read the stream as it was, each through its own norm (GPT-NeoX) */
} beside_rule;

/* Where a layer's norms are: names below "layers.N.", NULL where there is none. */
typedef struct layer_norms {
    const char *mixer_before, *mixer_after, *ffn_before, *ffn_after;
    const char *mixer_stream, *ffn_stream; /* of the stream, once the part is added */
} layer_norms;

/* What a classifier says of a sequence by one token's final hidden state:
 * output(tanh(dense(h))), or output(h) where there is no dense. Names as of the output matrix. */
typedef struct label_head {
    int64_t n; /* 0: there is none */
    const char *dense, *output;
    bias_rule bias;
} label_head;

/* A third part of a layer, after the other two (it reads the stream itself), and a number that the
 * stream is multiplied by at the layer's end: Gemma 4 has them. */
typedef struct layer_tail {
    block *block; /* NULL: none */
    norm_desc after;
    float stream_scale; /* 0: 1 */
} layer_tail;

#define DECODER_ROPES 2

struct decoder_config {
    int64_t n_vocab, n_embd, n_layer, n_context;
    attention_config attention; /* what layers have in common; see layer_attention */
    mlp_config mlp;
    block_maker mixer, ffn; /* NULL: decoder_attention, decoder_mlp */
    jang_status (*tail)(layer_tail *out, decoder *d, loader *l, const decoder_config *c, int layer);
    block_maker prelude; /* a block that runs on the embedded tokens, for layer 0; NULL: none */
    const void *own;     /* the family's, for its makers; lives until decoder_open returns */

    norm_config norm; /* of layers and of the end */
    layer_norms norms;
    beside_rule beside;
    double residual_scale, embed_scale, logit_scale; /* 0: 1 */
    double logit_softcap;                            /* 0: none */
    bool tied;                                       /* the embedding is the output matrix */
    bool untold; /* the config does not say so: it is where there is no other */
    bias_rule output_bias;

    /* Each layer's RoPE is one of these or none, and its window there or not: from the arrays,
     * [n_layer], where there are any, else ropes[0] and attention.window. */
    rope_config ropes[DECODER_ROPES]; /* owned, as the arrays are; see decoder_config_free */
    int8_t *rope_of;                  /* index into ropes, -1: none */
    bool *sliding;
    /* Changes attention for one layer further; NULL: nothing. */
    void (*layer_attention)(attention_config *a, const decoder_config *c, int layer);

    /* Names as mlx-lm spells them; NULL: "embed_tokens", "layers", "norm", "lm_head". */
    const char *embedding_name, *layers_name, *norm_name, *output_name;
    const char *positions_name; /* of learned positions, added to the embedding; NULL: none */
    int64_t positions_skip;     /* its rows before the first position's */
    const char *types_name;     /* of token types, added likewise: n_type; NULL: none */
    int64_t n_type;
    const char *embedding_norm; /* of the sum of these; NULL: none */
    bool no_final_norm;
    bool no_output; /* there is no output matrix */
    label_head labels;
};

/* What is left of the config once open, and what makers put their needs into. */
struct decoder {
    int64_t n_embd;
    work work;
    kv_layer *kv_layers; /* [n_layer], set by makers of layers that keep keys and values */
    rope_desc ropes[DECODER_ROPES];
    block *prelude; /* runs on the embedded tokens before the first layer; NULL: none */
    struct decoder_layer *layers;
    int64_t n_layer;
    norm_desc norm;
    const ops_weight *embedding, *positions, *types, *output; /* NULL: there is none */
    norm_desc embedding_norm;
    const ops_weight *label_dense, *labels;
    float embed_scale, logit_scale, logit_softcap;
};

/* ---- Reading configs ---- */

/* What a family calls a key that others call by the usual name. */
typedef struct key_alias {
    const char *usual, *own;
} key_alias;

/* The linears that have a bias when a key of the config says so. */
enum {
    BIAS_ON_Q = 1,
    BIAS_ON_K = 2,
    BIAS_ON_V = 4,
    BIAS_ON_O = 8,
    BIAS_ON_MLP = 16,
    BIAS_ON_OUTPUT = 32,
    BIAS_ON_QKV = BIAS_ON_Q | BIAS_ON_K | BIAS_ON_V,
    BIAS_ON_ATTENTION = BIAS_ON_QKV | BIAS_ON_O,
};
typedef struct bias_key {
    const char *key; /* NULL: the fallback, whatever the config says */
    bool fallback;
    unsigned on; /* 0: no row */
} bias_key;

/* Defaults that a family's reference class has for keys that are absent, and its bias keys. */
typedef struct decoder_defaults {
    int64_t n_context;
    int64_t head_dim; /* 0: hidden_size / num_attention_heads */
    double rope_theta;
    bool tied;
    double partial_rotary;                          /* 0: 1 */
    double norm_eps;                                /* 0: 1e-6 */
    const char *act;                                /* NULL: silu */
    const char *eps_key;                            /* NULL: rms_norm_eps */
    const char *act_key;                            /* NULL: hidden_act */
    int64_t n_kv_head;                              /* 0: num_attention_heads */
    const char *theta_key, *part_key, *rope_layers; /* of rope_wanted */
    bool has_mscales;                               /* of rope_wanted */
    bool has_alpha;                                 /* of rope_wanted */
    bool needs_scaling;      /* rope_scaling or rope_parameters must be there */
    double original_context; /* of RoPE's scaling where the config does not say it; 0: n_context */
    int64_t n_ff;            /* 0: intermediate_size is needed */
    int64_t n_layer;         /* 0: num_hidden_layers is needed */
    int64_t n_vocab, n_embd, n_head; /* 0: the key is needed */
    const key_alias *keys;           /* of sizes, ended by a NULL; NULL: all have the usual names */
    bias_key biases[3];              /* BIAS_NONE is the rule of linears that none of them is on */
} decoder_defaults;

/* Reads the keys that all such families share, checks ranges, and the scaling of RoPE; fills in
 * pre-norm layers of attention and gated MLPs with the biases that the keys of defaults say. On
 * success the caller owes a decoder_config_free or decoder_open, which frees too. */
JANG_MUST_CHECK jang_status decoder_read_config(decoder_config *out, json_at config,
                                                const decoder_defaults *defaults);
void decoder_config_free(decoder_config *c, ctx_t *ctx);

/* Reads an activation by the names that transformers gives them. */
JANG_MUST_CHECK jang_status decoder_read_activation(act_desc *out, json_at config, const char *key,
                                                    const char *fallback);

/* JANG_ERR_UNSUPPORTED when a key is there with another value than this one. */
JANG_MUST_CHECK jang_status decoder_want_bool(json_at config, const char *key, bool only,
                                              bool fallback);

/* sliding_window: null means none (0); when the key is absent the fallback holds. */
JANG_MUST_CHECK jang_status decoder_read_window(int64_t *out, json_at config, int64_t fallback);

/* The head of a config whose architecture is one for sequence classification: *out keeps its names
 * and gets its number of labels, or 0 where it is none. whole is config.json itself. */
JANG_MUST_CHECK jang_status decoder_read_labels(label_head *out, json_at whole);

/* layer_types: which layers slide ("sliding_attention") and which do not ("full_attention"). Where
 * there is none, layer i slides when sliding(i, arg); a NULL function: none does. */
JANG_MUST_CHECK jang_status decoder_read_sliding(decoder_config *c, json_at config,
                                                 bool (*sliding)(int64_t i, int64_t arg),
                                                 int64_t arg);

/* Says of each layer which of c->ropes it has: of those that slide and of the others; -1: none. */
JANG_MUST_CHECK jang_status decoder_choose_ropes(decoder_config *c, ctx_t *ctx, int full,
                                                 int sliding);

/* A pattern of families that leave every n-th layer full: layer i slides unless (i + 1) % n is 0.
 * n 0: none slides. */
bool decoder_slides(int64_t i, int64_t n);

/* Qwen's way to say which layers have a sliding window: use_sliding_window, sliding_window,
 * max_window_layers, layer_types. */
JANG_MUST_CHECK jang_status decoder_read_windows(decoder_config *c, json_at config);

/* ---- Making blocks ---- */

/* The usual mixer and feed-forward; makers of families fall back on them. */
JANG_MUST_CHECK jang_status decoder_attention(block **out, decoder *d, loader *l,
                                              const decoder_config *c, int layer);
JANG_MUST_CHECK jang_status decoder_mlp(block **out, decoder *d, loader *l, const decoder_config *c,
                                        int layer);

/* The attention settings of one layer. */
attention_config decoder_layer_attention(const decoder *d, const decoder_config *c, int layer);

/* "layers.N." */
#define DECODER_PREFIX_BYTES 64
void decoder_prefix(char out[DECODER_PREFIX_BYTES], const decoder_config *c, int layer);

/* ---- Opening ---- */

/* Loads the weights and makes m run. Frees what config owns, also on failure. */
JANG_MUST_CHECK jang_status decoder_open(model *m, loader *l, decoder_config *config);

/* The end of a family's open: decoder_open when status, of what it read, is JANG_OK. */
JANG_MUST_CHECK jang_status decoder_finish(model *m, loader *l, decoder_config *config,
                                           jang_status status);

/* Opens a family that has no open of its own: its defaults and biases, then what differs. */
JANG_MUST_CHECK jang_status decoder_open_family(model *m, loader *l, const model_family *family);

#endif
