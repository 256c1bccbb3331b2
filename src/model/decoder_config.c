/* decoder_config.c - reading the keys of config.json that decoder-only families share. */
#include "model/decoder.h"

#include <math.h>
#include <string.h>

/* The name that a key goes by in this config: the family's own where it is there. */
static const char *spelled(const char *key, json_at at, const key_alias *alias) {
    for (; alias && alias->usual; alias++) {
        if (strcmp(alias->usual, key) == 0 && !json_has(at.object, key)) {
            return alias->own;
        }
    }
    return key;
}

static jang_status read_sizes(decoder_config *c, json_at at, const decoder_defaults *defaults) {
    attention_config *a = &c->attention;
    const struct {
        const char *key;
        int64_t *out, fallback, max;
    } keys[] = {
        {"vocab_size", &c->n_vocab, defaults->n_vocab, 1 << 24},
        {"hidden_size", &c->n_embd, defaults->n_embd, 1 << 20},
        {"intermediate_size", &c->mlp.n_ff, defaults->n_ff, 1 << 22},
        {"num_hidden_layers", &c->n_layer, defaults->n_layer, 1 << 12},
        {"num_attention_heads", &a->n_head, defaults->n_head, 1 << 14},
        {"max_position_embeddings", &c->n_context, defaults->n_context, 1 << 28},
    };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const char *key = spelled(keys[i].key, at, defaults->keys);
        if (keys[i].fallback == 0 && !json_has(at.object, key)) {
            return ctx_fail(at.ctx, JANG_ERR_FORMAT, "%s: %s is missing", at.what, key);
        }
        jang_status status = json_get_int(keys[i].out, at, key, keys[i].fallback, 1, keys[i].max);
        if (status != JANG_OK) {
            return status;
        }
    }
    int64_t n_kv = defaults->n_kv_head ? defaults->n_kv_head : a->n_head;
    jang_status status = json_get_int(&a->n_kv_head, at, "num_key_value_heads", n_kv, 1, a->n_head);
    if (status == JANG_OK) {
        status =
            json_get_int(&a->head_dim, at, "head_dim",
                         defaults->head_dim ? defaults->head_dim : c->n_embd / a->n_head, 2, 1024);
    }
    if (status != JANG_OK) {
        return status;
    }
    if (a->n_head % a->n_kv_head != 0 || a->head_dim % 2 != 0) {
        return ctx_fail(at.ctx, JANG_ERR_FORMAT,
                        "%s: %lld attention heads over %lld key-value heads of %lld: the first "
                        "must be a multiple of the second, and a head even",
                        at.what, (long long)a->n_head, (long long)a->n_kv_head,
                        (long long)a->head_dim);
    }
    return JANG_OK;
}

jang_status decoder_read_activation(act_desc *out, json_at at, const char *key,
                                    const char *fallback) {
    static const struct {
        const char *name;
        activation act;
    } names[] = {
        {"silu", ACT_SILU},          {"swish", ACT_SILU},
        {"gelu", ACT_GELU},          {"gelu_pytorch_tanh", ACT_GELU_TANH},
        {"gelu_new", ACT_GELU_TANH}, {"gelu_fast", ACT_GELU_TANH},
        {"relu", ACT_RELU},          {"relu2", ACT_RELU2},
        {"xielu", ACT_XIELU},
    };
    const char *name;
    jang_status status = json_get_string(&name, at, key, fallback);
    if (status != JANG_OK) {
        return status;
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(names[i].name, name) == 0) {
            *out = (act_desc){.kind = names[i].act};
            return JANG_OK;
        }
    }
    return ctx_fail(at.ctx, JANG_ERR_UNSUPPORTED,
                    "%s: %s %s is not supported; supported are silu, swish, gelu, gelu_new, "
                    "gelu_fast, gelu_pytorch_tanh, relu, relu2, xielu",
                    at.what, key, name);
}

static jang_status read_biases(decoder_config *c, json_at at, const decoder_defaults *defaults) {
    attention_config *a = &c->attention;
    bias_rule *const rules[] = {&a->q_bias, &a->k_bias,   &a->v_bias,
                                &a->o_bias, &c->mlp.bias, &c->output_bias};
    for (size_t i = 0; i < sizeof defaults->biases / sizeof *defaults->biases; i++) {
        const bias_key *row = &defaults->biases[i];
        bool has = row->fallback;
        jang_status status = row->key ? json_get_bool(&has, at, row->key, row->fallback) : JANG_OK;
        if (status != JANG_OK) {
            return status;
        }
        for (size_t k = 0; k < sizeof rules / sizeof *rules; k++) {
            if (row->on & 1U << k) {
                *rules[k] = has ? BIAS_NEEDED : BIAS_NONE;
            }
        }
    }
    return JANG_OK;
}

jang_status decoder_read_config(decoder_config *out, json_at at, const decoder_defaults *defaults) {
    decoder_config c = {
        .norms = {.mixer_before = "input_layernorm", .ffn_before = "post_attention_layernorm"}};
    jang_status status = read_sizes(&c, at, defaults);
    if (status == JANG_OK) {
        status =
            json_get_double(&c.norm.eps, at, defaults->eps_key ? defaults->eps_key : "rms_norm_eps",
                            defaults->norm_eps == 0 ? 1e-6 : defaults->norm_eps);
    }
    if (status == JANG_OK) {
        status = json_get_bool(&c.tied, at, "tie_word_embeddings", defaults->tied);
        c.untold = !json_has(at.object, "tie_word_embeddings") && !defaults->tied;
    }
    if (status == JANG_OK) {
        status = decoder_read_activation(&c.mlp.act, at,
                                         defaults->act_key ? defaults->act_key : "hidden_act",
                                         defaults->act ? defaults->act : "silu");
    }
    if (status == JANG_OK) {
        status = read_biases(&c, at, defaults);
    }
    if (status == JANG_OK && defaults->rope_theta > 0) {
        const rope_wanted rope = {.head_dim = (int)c.attention.head_dim,
                                  .n_context = c.n_context,
                                  .theta = defaults->rope_theta,
                                  .part = defaults->partial_rotary,
                                  .part_key = defaults->part_key,
                                  .theta_key = defaults->theta_key,
                                  .layer_type = defaults->rope_layers,
                                  .has_mscales = defaults->has_mscales,
                                  .has_alpha = defaults->has_alpha,
                                  .needs_scaling = defaults->needs_scaling,
                                  .original_context = defaults->original_context};
        status = rope_read(&c.ropes[0], at, &rope);
    }
    if (status == JANG_OK) {
        c.attention.scale = 1 / sqrt((double)c.attention.head_dim);
        c.attention.norm = c.norm;
        *out = c;
    }
    return status;
}

void decoder_config_free(decoder_config *c, ctx_t *ctx) {
    for (int i = 0; i < DECODER_ROPES; i++) {
        rope_free(&c->ropes[i], ctx);
    }
    ctx_free(ctx, c->rope_of);
    ctx_free(ctx, c->sliding);
    c->rope_of = NULL;
    c->sliding = NULL;
}

jang_status decoder_want_bool(json_at config, const char *key, bool only, bool fallback) {
    bool value;
    jang_status status = json_get_bool(&value, config, key, fallback);
    if (status == JANG_OK && value != only) {
        return ctx_fail(config.ctx, JANG_ERR_UNSUPPORTED, "%s: %s %s is not supported", config.what,
                        key, value ? "true" : "false");
    }
    return status;
}

/* ---- Windows ---- */

jang_status decoder_read_window(int64_t *out, json_at config, int64_t fallback) {
    if (json_is_null(json_object_get(config.object, "sliding_window"))) {
        *out = 0;
        return JANG_OK;
    }
    return json_get_int(out, config, "sliding_window", fallback, fallback ? 1 : 0, 1 << 28);
}

static jang_status read_layer_type(bool *sliding, json_at config, const json_t *types, int64_t i) {
    const char *type = json_string_value(json_array_get(types, (size_t)i));
    *sliding = type && strcmp(type, "sliding_attention") == 0;
    if (!type || (!*sliding && strcmp(type, "full_attention") != 0)) {
        return ctx_fail(config.ctx, JANG_ERR_UNSUPPORTED,
                        "%s: layer_types[%lld] is %s; allowed are full_attention and "
                        "sliding_attention",
                        config.what, (long long)i, type ? type : "missing");
    }
    return JANG_OK;
}

jang_status decoder_read_sliding(decoder_config *c, json_at config,
                                 bool (*sliding)(int64_t i, int64_t arg), int64_t arg) {
    const json_t *types;
    jang_status status = json_get_array(&types, config, "layer_types");
    bool *list = status == JANG_OK ? ctx_zero(config.ctx, (size_t)c->n_layer, sizeof *list) : NULL;
    if (status == JANG_OK && !list) {
        return ctx_fail_memory(config.ctx, (size_t)c->n_layer);
    }
    for (int64_t i = 0; i < c->n_layer && status == JANG_OK; i++) {
        if (types) {
            status = read_layer_type(&list[i], config, types, i);
        } else {
            list[i] = sliding && sliding(i, arg);
        }
        if (status == JANG_OK && types && list[i] && c->attention.window == 0) {
            status = ctx_fail(config.ctx, JANG_ERR_FORMAT,
                              "%s: layer_types has sliding_attention, but there is no "
                              "sliding_window",
                              config.what);
        }
    }
    if (status != JANG_OK) {
        ctx_free(config.ctx, list);
        return status;
    }
    ctx_free(config.ctx, c->sliding);
    c->sliding = list;
    return JANG_OK;
}

jang_status decoder_choose_ropes(decoder_config *c, ctx_t *ctx, int full, int sliding) {
    int8_t *rope_of = ctx_zero(ctx, (size_t)c->n_layer, sizeof *rope_of);
    if (!rope_of) {
        return ctx_fail_memory(ctx, (size_t)c->n_layer);
    }
    for (int64_t i = 0; i < c->n_layer; i++) {
        rope_of[i] = (int8_t)(c->sliding && c->sliding[i] ? sliding : full);
    }
    ctx_free(ctx, c->rope_of);
    c->rope_of = rope_of;
    return JANG_OK;
}

bool decoder_slides(int64_t i, int64_t n) {
    return n > 0 && (i + 1) % n != 0;
}

static bool from_layer_on(int64_t i, int64_t first) {
    return i >= first;
}

jang_status decoder_read_windows(decoder_config *c, json_at config) {
    bool sliding;
    int64_t first;
    jang_status status = json_get_bool(&sliding, config, "use_sliding_window", false);
    if (status == JANG_OK && sliding) {
        status = decoder_read_window(&c->attention.window, config, 4096);
    }
    if (status == JANG_OK) {
        status = json_get_int(&first, config, "max_window_layers", 28, 0, 1 << 12);
    }
    return status == JANG_OK ? decoder_read_sliding(c, config, from_layer_on, first) : status;
}

jang_status decoder_read_labels(label_head *out, json_at whole) {
    static const char end[] = "ForSequenceClassification";
    const json_t *names, *labels;
    int64_t n = 0;
    jang_status status = json_get_array(&names, whole, "architectures");
    const char *name = status == JANG_OK ? json_string_value(json_array_get(names, 0)) : NULL;
    size_t length = name ? strlen(name) : 0;
    if (status != JANG_OK || length < sizeof end - 1 ||
        strcmp(name + length - (sizeof end - 1), end) != 0) {
        out->n = 0;
        return status;
    }
    status = json_get_object(&labels, whole, "id2label");
    if (status == JANG_OK) {
        int64_t told = labels ? (int64_t)json_object_size(labels) : 2;
        status = json_get_int(&n, whole, "num_labels", told, 1, 1 << 16);
        n = labels ? told : n;
    }
    if (status == JANG_OK && (n < 1 || n > 1 << 16)) {
        status = ctx_fail(whole.ctx, JANG_ERR_FORMAT, "%s: id2label has %lld labels", whole.what,
                          (long long)n);
    }
    if (status == JANG_OK) {
        out->n = n;
    }
    return status;
}
