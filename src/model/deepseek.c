/* deepseek.c - DeepSeek-V2, V3, R1 and what is built alike: Kimi K2, GLM-4.7-Flash (glm4_moe_lite).
 *
 * Latent attention; the first layers have a dense MLP, the others experts and shared ones. V2
 * scores by softmax and its groups by their best expert; V3 by sigmoid, with a bias that only
 * chooses, and its groups by the sum of their best two. Reference: transformers,
 * models/deepseek_v2, deepseek_v3, glm4_moe_lite; arXiv:2405.04434, arXiv:2412.19437. */
#include "model/decoder.h"
#include "model/mla.h"
#include "model/moe.h"

#include <math.h>
#include <string.h>

/* What the makers need besides decoder_config. */
typedef struct deepseek {
    mla_config mla;
    moe_config moe;
    int64_t first_dense;       /* layers from here on have experts, */
    int64_t every;             /* those whose number is a multiple of it */
    const json_t *layer_types; /* "dense" or "sparse" instead; NULL: none */
} deepseek;

static jang_status make_mixer(block **out, decoder *d, loader *l, const decoder_config *c,
                              int layer) {
    const deepseek *s = c->own;
    char prefix[DECODER_PREFIX_BYTES];
    decoder_prefix(prefix, c, layer);
    mla_config mla = s->mla;
    mla.rope = &d->ropes[0];
    mla.kv_layer = layer;
    d->kv_layers[layer] = mla_kv(&mla);
    return mla_make(out, l, &d->work, &mla, c->n_embd, prefix);
}

static bool has_experts(const deepseek *s, int layer) {
    const char *type = json_string_value(json_array_get(s->layer_types, (size_t)layer));
    return type ? strcmp(type, "sparse") == 0 : layer >= s->first_dense && layer % s->every == 0;
}

static jang_status make_ffn(block **out, decoder *d, loader *l, const decoder_config *c,
                            int layer) {
    const deepseek *s = c->own;
    if (!has_experts(s, layer)) {
        return decoder_mlp(out, d, l, c, layer);
    }
    char prefix[DECODER_PREFIX_BYTES];
    decoder_prefix(prefix, c, layer);
    return moe_make(out, l, &d->work, &s->moe, c->n_embd, prefix);
}

/* ---- Config ---- */

/* Defaults of the reference classes that differ. */
typedef struct deepseek_defaults {
    decoder_defaults decoder;
    int64_t n_expert, n_used, n_shared, first_dense, n_ff, n_group, topk_group;
    int64_t q_lora, nope_dim, v_dim;
    double scale;
    bool renormalise;
} deepseek_defaults;

static jang_status read_attention(deepseek *s, decoder_config *c, json_at at,
                                  const deepseek_defaults *defaults) {
    mla_config *m = &s->mla;
    const struct {
        const char *key;
        int64_t *out, fallback, least;
    } keys[] = {
        {"kv_lora_rank", &m->kv_lora, 512, 2},
        {"qk_nope_head_dim", &m->nope_dim, defaults->nope_dim, 1},
        {"qk_rope_head_dim", &m->rope_dim, 64, 2},
        {"v_head_dim", &m->v_dim, defaults->v_dim, 1},
    };
    jang_status status = JANG_OK;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0] && status == JANG_OK; i++) {
        status = json_get_int(keys[i].out, at, keys[i].key, keys[i].fallback, keys[i].least,
                              OPS_HEAD_MAX);
    }
    bool no_q_lora = json_is_null(json_object_get(at.object, "q_lora_rank"));
    if (status == JANG_OK && !no_q_lora) {
        status = json_get_int(&m->q_lora, at, "q_lora_rank", defaults->q_lora, 1, 1 << 20);
    }
    if (status == JANG_OK && m->kv_lora + m->rope_dim > OPS_HEAD_MAX) {
        status = ctx_fail(at.ctx, JANG_ERR_UNSUPPORTED,
                          "%s: kv_lora_rank + qk_rope_head_dim is above %d", at.what, OPS_HEAD_MAX);
    }
    if (status != JANG_OK) {
        return status;
    }
    m->n_head = c->attention.n_head;
    m->a_bias = m->o_bias = c->attention.o_bias;
    m->norm = (norm_config){.kind = NORM_RMS, .eps = 1e-6}; /* whatever rms_norm_eps says */
    const rope_wanted rope = {
        .head_dim = (int)m->rope_dim, .n_context = c->n_context, .theta = 10000};
    return rope_read(&c->ropes[0], at, &rope);
}

/* Yarn multiplies scores by a square of its own: 0.1 mscale_all_dim ln(factor) + 1. */
static jang_status read_scale(deepseek *s, json_at at) {
    double factor, all, scale = 1;
    jang_status status = rope_read_number(&factor, at, "factor", 1);
    if (status == JANG_OK) {
        status = rope_read_number(&all, at, "mscale_all_dim", 0);
    }
    if (status == JANG_OK) {
        scale = factor > 1 && all != 0 ? 0.1 * all * log(factor) + 1 : 1;
        s->mla.scale = scale * scale / sqrt((double)(s->mla.nope_dim + s->mla.rope_dim));
    }
    return status;
}

static jang_status read_experts(deepseek *s, const decoder_config *c, json_at at,
                                const deepseek_defaults *defaults) {
    static const char *const expert_keys[] = {"n_routed_experts", "num_local_experts", NULL};
    moe_config *m = &s->moe;
    double scale;
    int64_t n_shared;
    m->names = &moe_names_mlp;
    m->act = c->mlp.act;
    jang_status status = moe_read_counts(m, at, expert_keys, "num_experts_per_tok",
                                         defaults->n_expert, defaults->n_used);
    const struct {
        const char *key;
        int64_t *out, fallback, least, most;
    } keys[] = {
        {"moe_intermediate_size", &m->n_ff, defaults->n_ff, 1, 1 << 22},
        {"n_shared_experts", &n_shared, defaults->n_shared, 0, 1024},
        {"first_k_dense_replace", &s->first_dense, defaults->first_dense, 0, 1 << 12},
        {"moe_layer_freq", &s->every, 1, 1, 1 << 12},
    };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0] && status == JANG_OK; i++) {
        status = json_get_int(keys[i].out, at, keys[i].key, keys[i].fallback, keys[i].least,
                              keys[i].most);
    }
    if (status == JANG_OK) {
        status = json_get_double(&scale, at, "routed_scaling_factor", defaults->scale);
    }
    if (status == JANG_OK) {
        status = json_get_bool(&m->route.renormalise, at, "norm_topk_prob", defaults->renormalise);
    }
    if (status == JANG_OK) {
        m->n_shared_ff = n_shared * m->n_ff;
        m->route.scale = (float)scale;
    }
    return status;
}

static jang_status read_all(decoder_config *c, deepseek *s, json_at at,
                            const deepseek_defaults *defaults) {
    *s = (deepseek){0};
    jang_status status = decoder_read_config(c, at, &defaults->decoder);
    if (status != JANG_OK) {
        return status;
    }
    c->mixer = make_mixer;
    c->ffn = make_ffn;
    c->own = s;
    status = read_attention(s, c, at, defaults);
    if (status == JANG_OK) {
        c->ropes[0].interleaved = true;
        status = read_scale(s, at);
    }
    if (status == JANG_OK) {
        status = read_experts(s, c, at, defaults);
    }
    if (status != JANG_OK) {
        decoder_config_free(c, at.ctx);
    }
    return status;
}

/* The key, where it is there, must have the only value that the reference knows. */
static jang_status want_string(json_at at, const char *key, const char *only) {
    const char *value;
    jang_status status = json_get_string(&value, at, key, only);
    if (status == JANG_OK && strcmp(value, only) != 0) {
        status = ctx_fail(at.ctx, JANG_ERR_UNSUPPORTED, "%s: %s %s is not supported; only %s is",
                          at.what, key, value, only);
    }
    return status;
}

/* V3's way to choose. */
static jang_status open_sigmoid(model *m, loader *l, const deepseek_defaults *defaults) {
    decoder_config c;
    deepseek s;
    jang_status status = read_all(&c, &s, l->config, defaults);
    if (status != JANG_OK) {
        return status;
    }
    s.moe.route.score = ROUTE_SIGMOID;
    s.moe.route.group_pairs = true;
    s.moe.route.sum_eps = 1e-20f;
    s.moe.select_bias = BIAS_NEEDED;
    status = moe_read_groups(&s.moe, l->config, defaults->n_group, defaults->topk_group);
    if (status == JANG_OK) {
        status = want_string(l->config, "scoring_func", "sigmoid");
    }
    if (status == JANG_OK) {
        status = want_string(l->config, "topk_method", "noaux_tc");
    }
    if (status == JANG_OK) {
        status = json_get_bool(&c.ropes[0].interleaved, l->config, "rope_interleave", true);
    }
    if (status == JANG_OK) {
        status = json_get_array(&s.layer_types, l->config, "mlp_layer_types");
    }
    return decoder_finish(m, l, &c, status);
}

static jang_status deepseek_v3_open(model *m, loader *l) {
    static const deepseek_defaults defaults = {
        .decoder = {.n_context = 4096, .biases = {{"attention_bias", false, BIAS_ON_ATTENTION}}},
        .n_expert = 256,
        .n_used = 8,
        .n_shared = 1,
        .first_dense = 3,
        .n_ff = 2048,
        .n_group = 8,
        .topk_group = 4,
        .q_lora = 1536,
        .nope_dim = 128,
        .v_dim = 128,
        .scale = 2.5,
        .renormalise = true};
    return open_sigmoid(m, l, &defaults);
}

static jang_status glm4_moe_lite_open(model *m, loader *l) {
    static const deepseek_defaults defaults = {
        .decoder = {.n_context = 202752,
                    .norm_eps = 1e-5,
                    .biases = {{"attention_bias", false, BIAS_ON_ATTENTION}}},
        .n_expert = 64,
        .n_used = 4,
        .n_shared = 1,
        .first_dense = 1,
        .n_ff = 1536,
        .n_group = 1,
        .topk_group = 1,
        .q_lora = 768,
        .nope_dim = 192,
        .v_dim = 256,
        .scale = 1.8,
        .renormalise = true};
    return open_sigmoid(m, l, &defaults);
}

static jang_status deepseek_v2_open(model *m, loader *l) {
    static const deepseek_defaults defaults = {
        .decoder = {.n_context = 2048,
                    .biases = {{"attention_bias", false, BIAS_ON_ATTENTION},
                               {"mlp_bias", false, BIAS_ON_MLP}}},
        .n_expert = 64,
        .n_used = 6,
        .n_shared = 2,
        .n_ff = 1407,
        .n_group = 1,
        .topk_group = 1,
        .q_lora = 1536,
        .nope_dim = 128,
        .v_dim = 128,
        .scale = 1};
    decoder_config c;
    deepseek s;
    const char *method = "greedy";
    jang_status status = read_all(&c, &s, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    s.moe.route.score = ROUTE_SOFTMAX;
    status = json_get_string(&method, l->config, "topk_method", "greedy");
    if (status == JANG_OK && strcmp(method, "group_limited_greedy") == 0) {
        status = moe_read_groups(&s.moe, l->config, defaults.n_group, defaults.topk_group);
    } else if (status == JANG_OK && strcmp(method, "greedy") != 0) {
        status = ctx_fail(m->ctx, JANG_ERR_UNSUPPORTED,
                          "%s: topk_method %s is not supported; supported are greedy and "
                          "group_limited_greedy",
                          l->config.what, method);
    }
    if (status == JANG_OK) {
        status = want_string(l->config, "scoring_func", "softmax");
    }
    s.moe.route.renormalise = false; /* as the reference, which does not look at it */
    return decoder_finish(m, l, &c, status);
}

const model_family family_deepseek_v2 = {.model_type = "deepseek_v2", .open = deepseek_v2_open};
const model_family family_deepseek_v3 = {.model_type = "deepseek_v3", .open = deepseek_v3_open};
const model_family family_kimi_k2 = {.model_type = "kimi_k2", .open = deepseek_v3_open};
const model_family family_glm4_moe_lite = {.model_type = "glm4_moe_lite",
                                           .open = glm4_moe_lite_open};
