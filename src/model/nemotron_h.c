/* nemotron_h.c - Nemotron-H and Nemotron 3: a layer is a norm and one of Mamba-2, attention, MLP or
 * experts, as hybrid_override_pattern says (M, *, -, E).
 *
 * Attention has no positions. Experts may read and give rows that two projections, shared by all,
 * make narrower (moe_latent_size: Nemotron 3 Super). The MLP has no gate and squares what is above
 * zero. Step sizes are at least time_step_min: the reference class does not read time_step_limit.
 * Layers for predicting several tokens (mtp.*) are not read. Reference: transformers,
 * models/nemotron_h; arXiv:2504.03624. */
#include "model/decoder.h"
#include "model/mamba2.h"
#include "model/moe.h"

#include <math.h>
#include <string.h>

typedef enum layer_kind { KIND_MAMBA, KIND_ATTENTION, KIND_MLP, KIND_EXPERTS } layer_kind;

typedef struct nemotron_h {
    mamba2_config mamba;
    moe_config moe;
    layer_kind *kinds; /* [n_layer] */
} nemotron_h;

static jang_status mixer(block **out, decoder *d, loader *l, const decoder_config *c, int layer) {
    const nemotron_h *n = c->own;
    char prefix[DECODER_PREFIX_BYTES];
    decoder_prefix(prefix, c, layer);
    switch (n->kinds[layer]) {
    case KIND_MAMBA:
        return mamba2_make(out, l, &d->work, &n->mamba, c->n_embd, prefix);
    case KIND_ATTENTION:
        return decoder_attention(out, d, l, c, layer);
    case KIND_MLP:
        return decoder_mlp(out, d, l, c, layer);
    case KIND_EXPERTS:
        return moe_make(out, l, &d->work, &n->moe, c->n_embd, prefix);
    }
    return JANG_OK;
}

static jang_status no_ffn(block **out, decoder *d, loader *l, const decoder_config *c, int layer) {
    (void)out, (void)d, (void)l, (void)c, (void)layer;
    return JANG_OK;
}

/* ---- Config ---- */

static const struct {
    char letter;
    const char *name, *old_name;
    layer_kind kind;
} kinds[] = {
    {'M', "linear_attention", "mamba", KIND_MAMBA},
    {'*', "full_attention", "attention", KIND_ATTENTION},
    {'-', "mlp", "mlp", KIND_MLP},
    {'E', "moe", "moe", KIND_EXPERTS},
};
#define N_KINDS (sizeof kinds / sizeof kinds[0])

static jang_status new_kinds(nemotron_h *n, decoder_config *c, json_at at, size_t n_layer) {
    if (n_layer < 1 || n_layer > 1 << 12) {
        return ctx_fail(at.ctx, JANG_ERR_FORMAT, "%s: a pattern of %zu layers", at.what, n_layer);
    }
    c->n_layer = (int64_t)n_layer;
    n->kinds = ctx_zero(at.ctx, n_layer, sizeof *n->kinds);
    return n->kinds ? JANG_OK : ctx_fail_memory(at.ctx, n_layer * sizeof *n->kinds);
}

static jang_status read_pattern(nemotron_h *n, decoder_config *c, json_at at, const char *pattern) {
    jang_status status = new_kinds(n, c, at, strlen(pattern));
    for (int64_t i = 0; status == JANG_OK && i < c->n_layer; i++) {
        size_t k = 0;
        while (k < N_KINDS && kinds[k].letter != pattern[i]) {
            k++;
        }
        if (k == N_KINDS) {
            return ctx_fail(at.ctx, JANG_ERR_UNSUPPORTED,
                            "%s: hybrid_override_pattern has %c at layer %lld; M, *, - and E are "
                            "known",
                            at.what, pattern[i], (long long)i);
        }
        n->kinds[i] = kinds[k].kind;
    }
    return status;
}

static jang_status read_list(nemotron_h *n, decoder_config *c, json_at at, const json_t *types) {
    jang_status status = new_kinds(n, c, at, json_array_size(types));
    for (int64_t i = 0; status == JANG_OK && i < c->n_layer; i++) {
        const char *type = json_string_value(json_array_get(types, (size_t)i));
        type = type ? type : "missing";
        size_t k = 0;
        while (k < N_KINDS && strcmp(kinds[k].name, type) != 0 &&
               strcmp(kinds[k].old_name, type) != 0) {
            k++;
        }
        if (k == N_KINDS) {
            return ctx_fail(at.ctx, JANG_ERR_UNSUPPORTED,
                            "%s: layers_block_type[%lld] is %s; mamba, attention, mlp and moe are "
                            "known",
                            at.what, (long long)i, type);
        }
        n->kinds[i] = kinds[k].kind;
    }
    return status;
}

/* The pattern decides how many layers there are, whatever num_hidden_layers says. */
static jang_status read_layers(nemotron_h *n, decoder_config *c, json_at at) {
    const json_t *types;
    const char *pattern;
    jang_status status = json_get_array(&types, at, "layers_block_type");
    if (status == JANG_OK) {
        status = json_get_string(&pattern, at, "hybrid_override_pattern", NULL);
    }
    if (status == JANG_OK && !types && !pattern) {
        status =
            ctx_fail(at.ctx, JANG_ERR_FORMAT, "%s: hybrid_override_pattern is missing", at.what);
    }
    if (status != JANG_OK) {
        return status;
    }
    return types ? read_list(n, c, at, types) : read_pattern(n, c, at, pattern);
}

static jang_status read_mamba(mamba2_config *m, json_at at, double eps) {
    int64_t n_tap = 4;
    const int_key keys[] = {
        {"mamba_num_heads", &m->n_head, 128, 1 << 16},
        {"mamba_head_dim", &m->head_dim, 64, 1 << 16},
        {"ssm_state_size", &m->n_state, 128, 1 << 12},
        {json_has(at.object, "mamba_n_groups") ? "mamba_n_groups" : "n_groups", &m->n_group, 8,
         1 << 16},
        {json_has(at.object, "mamba_d_conv") ? "mamba_d_conv" : "conv_kernel", &n_tap, 4, 16},
    };
    jang_status status = config_ints(at, keys, sizeof keys / sizeof keys[0]);
    bool bias = false;
    m->n_tap = (int)n_tap;
    m->norm = MAMBA2_GATE_FIRST;
    m->norm_groups = m->n_group;
    m->norm_eps = eps;
    m->path = "mixer";
    m->dt_max = INFINITY;
    if (status == JANG_OK) {
        const char *key = json_has(at.object, "mamba_dt_min") ? "mamba_dt_min" : "time_step_min";
        status = json_get_double(&m->dt_min, at, key, 0.001);
    }
    if (status == JANG_OK) {
        const char *key =
            json_has(at.object, "mamba_conv_bias") ? "mamba_conv_bias" : "use_conv_bias";
        status = json_get_bool(&m->conv_bias, at, key, true);
    }
    if (status == JANG_OK) {
        status = json_get_bool(&bias, at, "use_bias", false);
    }
    m->in_bias = m->out_bias = bias;
    return status == JANG_OK ? config_want_silu(at, "mamba_hidden_act") : status;
}

static const moe_names experts = {
    .router = "mixer.gate",
    .select_bias = "mixer.gate.e_score_correction_bias",
    .stacked = {NULL, "mixer.switch_mlp.fc1", "mixer.switch_mlp.fc2"},
    .before = "mixer.experts.",
    .after = {NULL, ".up_proj", ".down_proj"},
    .shared = "mixer.shared_experts",
    .latent_in = "mixer.fc1_latent_proj",
    .latent_out = "mixer.fc2_latent_proj",
};

static jang_status read_experts(moe_config *m, json_at at, const mlp_config *mlp) {
    static const char *const expert_keys[] = {"n_routed_experts", NULL};
    *m = (moe_config){.names = &experts,
                      .act = mlp->act,
                      .plain = true,
                      .shared_bias = mlp->bias,
                      .latent_bias = mlp->bias,
                      .select_bias = BIAS_NEEDED,
                      .route = {.score = ROUTE_SIGMOID, .group_pairs = true, .sum_eps = 1e-20f}};
    double scale;
    jang_status status = moe_read_counts(m, at, expert_keys, "num_experts_per_tok", 8, 2);
    if (status == JANG_OK) {
        status = moe_read_groups(m, at, 1, 1);
    }
    const int_key keys[] = {
        {"moe_intermediate_size", &m->n_ff, 7688, 1 << 22},
        {"moe_shared_expert_intermediate_size", &m->n_shared_ff, 7688, 1 << 22},
    };
    if (status == JANG_OK) {
        status = config_ints(at, keys, sizeof keys / sizeof keys[0]);
    }
    if (status == JANG_OK) {
        status = json_get_int(&m->n_latent, at, "moe_latent_size", 0, 1, 1 << 20);
    }
    if (status == JANG_OK) {
        status = json_get_bool(&m->route.renormalise, at, "norm_topk_prob", true);
    }
    if (status == JANG_OK) {
        status = json_get_double(&scale, at, "routed_scaling_factor", 1);
    }
    if (status == JANG_OK) {
        m->route.scale = (float)scale;
    }
    return status;
}

static bool has_kind(const nemotron_h *n, const decoder_config *c, layer_kind kind) {
    for (int64_t i = 0; i < c->n_layer; i++) {
        if (n->kinds[i] == kind) {
            return true;
        }
    }
    return false;
}

static jang_status nemotron_h_open(model *m, loader *l) {
    static const decoder_defaults defaults = {.n_context = 4096,
                                              .head_dim = 128,
                                              .norm_eps = 1e-5,
                                              .eps_key = "layer_norm_epsilon",
                                              .act = "relu2",
                                              .act_key = "mlp_hidden_act",
                                              .n_kv_head = 8,
                                              .n_ff = 21504,
                                              .n_layer = 1,
                                              .biases = {{"mlp_bias", false, BIAS_ON_MLP}}};
    decoder_config c;
    nemotron_h n = {0};
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    status = read_layers(&n, &c, l->config);
    if (status == JANG_OK) {
        status = read_mamba(&n.mamba, l->config, c.norm.eps);
    }
    if (status == JANG_OK && has_kind(&n, &c, KIND_EXPERTS)) {
        status = read_experts(&n.moe, l->config, &c.mlp);
    }
    c.norms = (layer_norms){.mixer_before = "norm"};
    c.embedding_name = "embeddings";
    c.norm_name = "norm_f";
    c.attention.path = c.mlp.path = "mixer";
    c.mlp.layout = MLP_PLAIN;
    c.own = &n;
    c.mixer = mixer;
    c.ffn = no_ffn;
    status = decoder_finish(m, l, &c, status);
    ctx_free(m->ctx, n.kinds);
    return status;
}

const model_family family_nemotron_h = {
    .model_type = "nemotron_h", .open = nemotron_h_open, .embedding = "embeddings"};
