/* gpt2.c - GPT-2: learned positions, LayerNorms with biases, q, k and v in one matrix, an MLP
 * without a gate. The hub's checkpoints hold matrices as [inputs, outputs], mlx-lm's the usual way.
 *
 * Reference: transformers, models/gpt2; "Language Models are Unsupervised Multitask Learners". */
#include "model/decoder.h"

#include <string.h>

static void scale_by_layer(attention_config *a, const decoder_config *c, int layer) {
    (void)c;
    a->scale /= layer + 1;
}

static jang_status read_scale(decoder_config *c, json_at config) {
    bool by_width = true, by_layer = false;
    jang_status status = json_get_bool(&by_width, config, "scale_attn_weights", true);
    if (status == JANG_OK) {
        status = json_get_bool(&by_layer, config, "scale_attn_by_inverse_layer_idx", false);
    }
    c->attention.scale = by_width ? c->attention.scale : 1;
    c->layer_attention = by_layer ? scale_by_layer : NULL;
    return status;
}

static void name_parts(decoder_config *c) {
    c->norm = (norm_config){.kind = NORM_LAYER, .eps = c->norm.eps, .bias = BIAS_NEEDED};
    c->norms = (layer_norms){.mixer_before = "ln_1", .ffn_before = "ln_2"};
    c->embedding_name = "wte";
    c->positions_name = "wpe";
    c->layers_name = "h";
    c->norm_name = "ln_f";
    attention_config *a = &c->attention;
    a->layout = QKV_ROWS;
    a->q_bias = a->o_bias = BIAS_NEEDED;
    a->path = "attn";
    a->qkv = "c_attn";
    a->o = "c_proj";
    c->mlp.layout = MLP_PLAIN;
    c->mlp.bias = BIAS_NEEDED;
    c->mlp.up = "c_fc";
    c->mlp.down = "c_proj";
}

static jang_status gpt2_open(model *m, loader *l) {
    static const key_alias keys[] = {{"hidden_size", "n_embd"},
                                     {"num_hidden_layers", "n_layer"},
                                     {"num_attention_heads", "n_head"},
                                     {"max_position_embeddings", "n_positions"},
                                     {NULL, NULL}};
    static const decoder_defaults defaults = {.n_vocab = 50257,
                                              .n_embd = 768,
                                              .n_layer = 12,
                                              .n_head = 12,
                                              .n_context = 1024,
                                              .n_ff = 1, /* see n_inner */
                                              .norm_eps = 1e-5,
                                              .eps_key = "layer_norm_epsilon",
                                              .act = "gelu_new",
                                              .act_key = "activation_function",
                                              .tied = true,
                                              .keys = keys};
    decoder_config c;
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    name_parts(&c);
    status = json_get_int(&c.mlp.n_ff, l->config, "n_inner", 4 * c.n_embd, 1, 1 << 22);
    if (status == JANG_OK) {
        status = read_scale(&c, l->config);
    }
    if (status == JANG_OK) {
        status = decoder_want_bool(l->config, "add_cross_attention", false, false);
    }
    l->turned = strcmp(l->prefix, "model.") != 0;
    return decoder_finish(m, l, &c, status);
}

static const char *const dropped[] = {".attn.bias", ".attn.masked_bias", NULL};

const model_family family_gpt2 = {
    .model_type = "gpt2", .open = gpt2_open, .embedding = "wte", .dropped = dropped};
