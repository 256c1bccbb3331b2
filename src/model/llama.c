/* llama.c - Llama 1, 2, 3 and the many models with its config (SmolLM2, TinyLlama, ...), and the
 * families that are Llama but for defaults, biases and a setting or two: a row each.
 *
 * References: transformers, models/{llama,mistral,qwen2,qwen3,seed_oss}. */
#include "model/decoder.h"

/* pretraining_tp only says how a training run was split and changes nothing. */
const model_family family_llama = {
    .model_type = "llama",
    .defaults = &(const decoder_defaults){.n_context = 2048,
                                          .rope_theta = 10000,
                                          .biases = {{"attention_bias", false, BIAS_ON_ATTENTION},
                                                     {"mlp_bias", false, BIAS_ON_MLP}}}};

const model_family family_seed_oss = {
    .model_type = "seed_oss",
    .defaults = &(const decoder_defaults){.n_context = 524288,
                                          .head_dim = 128,
                                          .n_kv_head = 8,
                                          .rope_theta = 10000,
                                          .biases = {{"attention_bias", true, BIAS_ON_QKV},
                                                     {"attention_out_bias", false, BIAS_ON_O},
                                                     {"mlp_bias", false, BIAS_ON_MLP}}}};

/* ---- Mistral 7B, Nemo and their like: a sliding window, arXiv:2310.06825 ---- */

/* A window of w tokens is the token itself and the w - 1 before it. */
static jang_status mistral_adapt(decoder_config *c, json_at config) {
    return decoder_read_window(&c->attention.window, config, 4096);
}

const model_family family_mistral = {
    .model_type = "mistral",
    .defaults = &(const decoder_defaults){.n_context = 131072, .rope_theta = 10000},
    .adapt = mistral_adapt};

/* ---- Qwen2 and Qwen2.5: q, k and v have biases, arXiv:2407.10671 ---- */

const model_family family_qwen2 = {
    .model_type = "qwen2",
    .defaults = &(const decoder_defaults){.n_context = 32768,
                                          .rope_theta = 10000,
                                          .biases = {{NULL, true, BIAS_ON_QKV}}},
    .adapt = decoder_read_windows};

/* ---- Qwen3: q and k are normed head by head, arXiv:2505.09388 ---- */

static jang_status qwen3_adapt(decoder_config *c, json_at config) {
    c->attention.qk_norm = QK_NORM_HEAD;
    return decoder_read_windows(c, config);
}

const model_family family_qwen3 = {
    .model_type = "qwen3",
    .defaults = &(const decoder_defaults){.n_context = 32768,
                                          .head_dim = 128,
                                          .rope_theta = 10000,
                                          .biases = {{"attention_bias", false, BIAS_ON_ATTENTION}}},
    .adapt = qwen3_adapt};
