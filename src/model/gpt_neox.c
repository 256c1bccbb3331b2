/* gpt_neox.c - GPT-NeoX and Pythia: attention and MLP side by side, each on a LayerNorm of its own;
 * q, k and v of each head in turn in one matrix; RoPE on a quarter of a head.
 *
 * Reference: transformers, models/gpt_neox; arXiv:2204.06745. */
#include "model/decoder.h"

static const decoder_defaults defaults = {
    .n_context = 2048,
    .rope_theta = 10000,
    .partial_rotary = 0.25,
    .norm_eps = 1e-5,
    .eps_key = "layer_norm_eps",
    .act = "gelu",
    .theta_key = "rotary_emb_base",
    .part_key = "rotary_pct",
    .biases = {{"attention_bias", true, BIAS_ON_ATTENTION}, {NULL, true, BIAS_ON_MLP}}};

static jang_status adapt(decoder_config *c, json_at config) {
    bool parallel = true;
    attention_config *a = &c->attention;
    c->norm.kind = NORM_LAYER;
    c->norm.bias = BIAS_NEEDED;
    c->layers_name = "h";
    c->embedding_name = "embed_in";
    c->norm_name = "final_layer_norm";
    c->output_name = "embed_out";
    a->layout = QKV_HEADS;
    a->path = "attention";
    a->qkv = "query_key_value";
    a->o = "dense";
    c->mlp.layout = MLP_PLAIN;
    c->mlp.up = "dense_h_to_4h";
    c->mlp.down = "dense_4h_to_h";
    jang_status status = json_get_bool(&parallel, config, "use_parallel_residual", true);
    c->beside = parallel ? BESIDE_OWN : BESIDE_NOT;
    return status;
}

static const name_alias aliases[] = {{"h", "layers"}, {NULL, NULL}};
static const char *const dropped[] = {".attention.bias", ".attention.masked_bias", NULL};

const model_family family_gpt_neox = {.model_type = "gpt_neox",
                                      .defaults = &defaults,
                                      .adapt = adapt,
                                      .embedding = "embed_in",
                                      .aliases = aliases,
                                      .dropped = dropped};
