/* roles.c - from tensor names to roles, by tables of patterns.
 *
 * A pattern is matched against the end of a module's path, component by component from the last
 * ("self_attn.dense" fits "model.layers.0.self_attn.dense"). In a component, '*' stands for any
 * text. There is one table for each kind of block; the first pattern that fits decides, so the
 * tables go from the special to the general. */
#include "quant/roles.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static const role_info roles[ROLE_COUNT] = {
    [ROLE_OTHER] = {"other", TIER_FLOAT},
    [ROLE_NORM] = {"norm", TIER_FLOAT},
    [ROLE_BIAS] = {"bias", TIER_FLOAT},
    [ROLE_CONV] = {"conv", TIER_FLOAT},
    [ROLE_ROUTER] = {"router", TIER_FLOAT},
    [ROLE_STATE] = {"state", TIER_FLOAT},
    [ROLE_LABELS] = {"labels", TIER_FLOAT},
    [ROLE_POSITIONS] = {"positions", TIER_FLOAT},
    [ROLE_EMBEDDING] = {"embedding", TIER_EMBEDDING},
    [ROLE_LM_HEAD] = {"lm_head", TIER_LM_HEAD},
    [ROLE_Q] = {"q_proj", TIER_ATTENTION},
    [ROLE_K] = {"k_proj", TIER_ATTENTION},
    [ROLE_V] = {"v_proj", TIER_ATTENTION},
    [ROLE_O] = {"o_proj", TIER_ATTENTION},
    [ROLE_QKV] = {"qkv_proj", TIER_ATTENTION},
    [ROLE_MLA] = {"mla_proj", TIER_ATTENTION},
    [ROLE_LAYER_INPUT] = {"layer_input", TIER_ATTENTION},
    [ROLE_LINEAR_IN] = {"linear_attn_in", TIER_ATTENTION},
    [ROLE_LINEAR_OUT] = {"linear_attn_out", TIER_ATTENTION},
    [ROLE_SSM_IN] = {"ssm_in", TIER_ATTENTION},
    [ROLE_SSM_OUT] = {"ssm_out", TIER_ATTENTION},
    [ROLE_GATE] = {"gate_proj", TIER_MLP},
    [ROLE_UP] = {"up_proj", TIER_MLP},
    [ROLE_DOWN] = {"down_proj", TIER_MLP},
    [ROLE_GATE_UP] = {"gate_up_proj", TIER_MLP},
    [ROLE_EXPERT_GATE] = {"expert_gate", TIER_MLP},
    [ROLE_EXPERT_UP] = {"expert_up", TIER_MLP},
    [ROLE_EXPERT_DOWN] = {"expert_down", TIER_MLP},
    [ROLE_EXPERT_GATE_UP] = {"expert_gate_up", TIER_MLP},
    [ROLE_SHARED_GATE] = {"shared_gate", TIER_ATTENTION},
    [ROLE_SHARED_UP] = {"shared_up", TIER_ATTENTION},
    [ROLE_SHARED_DOWN] = {"shared_down", TIER_ATTENTION},
    [ROLE_SHARED_GATE_UP] = {"shared_gate_up", TIER_ATTENTION},
};

static const char *const tiers[TIER_COUNT] = {
    [TIER_FLOAT] = "float",         [TIER_MLP] = "mlp",         [TIER_ATTENTION] = "attention",
    [TIER_EMBEDDING] = "embedding", [TIER_LM_HEAD] = "lm_head",
};

const role_info *role_get_info(tensor_role role) {
    return &roles[role];
}

const char *tier_name(quant_tier tier) {
    return tiers[tier];
}

typedef struct role_pattern {
    const char *pattern;
    tensor_role role;
} role_pattern;

/* Parameters that are no module's weight: matched against the whole name. */
static const role_pattern parameters[] = {
    {"*bias", ROLE_BIAS},     {"A_log", ROLE_STATE},        {"D", ROLE_STATE},
    {"sinks", ROLE_STATE},    {"layer_scalar", ROLE_STATE}, {"per_expert_scale", ROLE_STATE},
    {"inv_freq", ROLE_STATE}, {"act_fn.*", ROLE_STATE},     {NULL, ROLE_OTHER},
};

/* Norms, convolutions, routers: small, and they steer the rest. */
static const role_pattern small_parts[] = {
    {"*norm*", ROLE_NORM},
    {"ln_*", ROLE_NORM},
    {"LayerNorm", ROLE_NORM},
    {"*conv*", ROLE_CONV},
    {"conv.conv", ROLE_CONV},
    {"router", ROLE_ROUTER},
    {"router.*", ROLE_ROUTER},
    {"mlp.gate", ROLE_ROUTER},
    {"mixer.gate", ROLE_ROUTER},
    {"feed_forward.gate", ROLE_ROUTER},
    {"block_sparse_moe.gate", ROLE_ROUTER},
    {"shared_expert_gate", ROLE_ROUTER},
    {NULL, ROLE_OTHER},
};

static const role_pattern ends_of_model[] = {
    {"embed_tokens", ROLE_EMBEDDING},
    {"embed_tokens_per_layer", ROLE_EMBEDDING},
    {"embed_in", ROLE_EMBEDDING},
    {"embeddings", ROLE_EMBEDDING},
    {"wte", ROLE_EMBEDDING},
    {"wpe", ROLE_POSITIONS},
    {"position_embeddings", ROLE_POSITIONS},
    {"token_type_embeddings", ROLE_POSITIONS},
    {"pooler.dense", ROLE_LABELS},
    {"classifier", ROLE_LABELS},
    {"classifier.*", ROLE_LABELS},
    {"score", ROLE_LABELS},
    {"word_embeddings", ROLE_EMBEDDING},
    {"lm_head", ROLE_LM_HEAD},
    {"embed_out", ROLE_LM_HEAD},
    {NULL, ROLE_OTHER},
};

static const role_pattern attention[] = {
    {"q_proj", ROLE_Q},
    {"k_proj", ROLE_K},
    {"v_proj", ROLE_V},
    {"o_proj", ROLE_O},
    {"self_attn.out_proj", ROLE_O},
    {"self_attn.dense", ROLE_O},
    {"attention.dense", ROLE_O},
    {"self.query", ROLE_Q}, /* BERT */
    {"self.key", ROLE_K},
    {"self.value", ROLE_V},
    {"attention.output.dense", ROLE_O},
    {"attn.c_proj", ROLE_O},
    {"attn.c_attn", ROLE_QKV},
    {"qkv_proj", ROLE_QKV},
    {"query_key_value", ROLE_QKV},
    {"Wqkv", ROLE_QKV},
    {"q_a_proj", ROLE_MLA},
    {"q_b_proj", ROLE_MLA},
    {"kv_a_proj_with_mqa", ROLE_MLA},
    {"kv_b_proj", ROLE_MLA},
    {"embed_q", ROLE_MLA},
    {"unembed_out", ROLE_MLA},
    {"per_layer_*", ROLE_LAYER_INPUT}, /* input_gate, projection, model_projection */
    {NULL, ROLE_OTHER},
};

static const role_pattern recurrent[] = {
    {"linear_attn.in_proj*", ROLE_LINEAR_IN},
    {"linear_attn.out_proj", ROLE_LINEAR_OUT},
    {"self_attn.f_*_proj", ROLE_LINEAR_IN}, /* Kimi Delta Attention */
    {"self_attn.g_*_proj", ROLE_LINEAR_IN},
    {"self_attn.b_proj", ROLE_LINEAR_IN},
    {"conv.in_proj", ROLE_SSM_IN},
    {"conv.out_proj", ROLE_SSM_OUT},
    {"mixer.in_proj", ROLE_SSM_IN},
    {"mixer.x_proj", ROLE_SSM_IN},
    {"mixer.out_proj", ROLE_SSM_OUT},
    {"mamba.in_proj", ROLE_SSM_IN},
    {"mamba.x_proj", ROLE_SSM_IN},
    {"mamba.out_proj", ROLE_SSM_OUT},
    {"dt_proj", ROLE_STATE},
    {NULL, ROLE_OTHER},
};

/* Experts first and shared experts before them: their matrices have the names of a dense MLP's.
 * The last component alone decides among gate, up and down. */
static const role_pattern mlp_parts[] = {
    {"gate_proj", ROLE_GATE},
    {"up_proj", ROLE_UP},
    {"down_proj", ROLE_DOWN},
    {"gate_up_proj", ROLE_GATE_UP},
    {"w1", ROLE_GATE},
    {"w3", ROLE_UP},
    {"w2", ROLE_DOWN},
    {"fc1_latent_proj", ROLE_SHARED_UP}, /* all tokens pass them, as shared experts */
    {"fc2_latent_proj", ROLE_SHARED_DOWN},
    {"fc1", ROLE_UP},
    {"c_fc", ROLE_UP},
    {"c_proj", ROLE_DOWN},
    {"fc2", ROLE_DOWN},
    {"dense_h_to_4h", ROLE_UP},
    {"dense_4h_to_h", ROLE_DOWN},
    {"input_linear", ROLE_GATE_UP},
    {"output_linear", ROLE_DOWN},
    {"intermediate.dense", ROLE_UP}, /* BERT */
    {"output.dense", ROLE_DOWN},
    {NULL, ROLE_OTHER},
};

static const role_pattern *const block_tables[] = {small_parts, ends_of_model, attention, recurrent,
                                                   mlp_parts};

/* What a dense MLP's role becomes within experts and shared experts. */
static const struct {
    tensor_role dense, expert, shared;
} mlp_kinds[] = {
    {ROLE_GATE, ROLE_EXPERT_GATE, ROLE_SHARED_GATE},
    {ROLE_UP, ROLE_EXPERT_UP, ROLE_SHARED_UP},
    {ROLE_DOWN, ROLE_EXPERT_DOWN, ROLE_SHARED_DOWN},
    {ROLE_GATE_UP, ROLE_EXPERT_GATE_UP, ROLE_SHARED_GATE_UP},
};

/* Whether text [n] fits pattern [m]; '*' stands for any text. */
static bool glob_fits(const char *pattern, size_t m, const char *text, size_t n) {
    size_t i = 0, j = 0, star = SIZE_MAX, mark = 0;
    while (j < n) {
        if (i < m && pattern[i] == '*') {
            star = i++;
            mark = j;
        } else if (i < m && pattern[i] == text[j]) {
            i++;
            j++;
        } else if (star != SIZE_MAX) {
            i = star + 1;
            j = ++mark;
        } else {
            return false;
        }
    }
    while (i < m && pattern[i] == '*') {
        i++;
    }
    return i == m;
}

static size_t component_start(const char *text, size_t end) {
    while (end > 0 && text[end - 1] != '.') {
        end--;
    }
    return end;
}

/* Compares the last components of path [n] with those of the pattern. */
static bool path_fits(const char *pattern, const char *path, size_t n) {
    size_t m = strlen(pattern);
    for (;;) {
        size_t p = component_start(pattern, m), t = component_start(path, n);
        if (!glob_fits(pattern + p, m - p, path + t, n - t)) {
            return false;
        }
        if (p == 0) {
            return true;
        }
        if (t == 0) {
            return false;
        }
        m = p - 1;
        n = t - 1;
    }
}

static tensor_role look_up(const role_pattern *table, const char *path, size_t n) {
    for (; table->pattern; table++) {
        if (path_fits(table->pattern, path, n)) {
            return table->role;
        }
    }
    return ROLE_OTHER;
}

/* Whether some component of path [n] contains word. */
static bool path_mentions(const char *path, size_t n, const char *word) {
    size_t m = strlen(word);
    for (size_t i = 0; i + m <= n; i++) {
        if (memcmp(path + i, word, m) == 0) {
            return true;
        }
    }
    return false;
}

static tensor_role within_experts(tensor_role role, const char *path, size_t n) {
    bool shared = path_mentions(path, n, "shared_expert") || path_mentions(path, n, "shared_mlp");
    bool expert =
        !shared &&
        (path_mentions(path, n, "experts") || path_mentions(path, n, "switch_mlp") ||
         path_mentions(path, n, "switch_glu") || path_mentions(path, n, "block_sparse_moe"));
    for (size_t i = 0; i < sizeof mlp_kinds / sizeof *mlp_kinds; i++) {
        if (mlp_kinds[i].dense == role) {
            return shared ? mlp_kinds[i].shared : expert ? mlp_kinds[i].expert : role;
        }
    }
    return role;
}

tensor_role role_of(const char *name) {
    size_t n = strlen(name);
    size_t last = component_start(name, n);
    tensor_role role = look_up(parameters, name, n);
    if (role != ROLE_OTHER) {
        return role;
    }
    if (strcmp(name + last, "weight") == 0 && last > 0) {
        n = last - 1;
    }
    for (size_t i = 0; i < sizeof block_tables / sizeof *block_tables; i++) {
        role = look_up(block_tables[i], name, n);
        if (role != ROLE_OTHER) {
            return within_experts(role, name, n);
        }
    }
    return ROLE_OTHER;
}

const char *role_below_layer(const char *name, int *layer) {
    static const char *const lists[] = {"layers.", "h.", "layer."};
    for (const char *p = name; p; p = strchr(p, '.')) {
        p += *p == '.';
        for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
            size_t n = strlen(lists[i]);
            if (strncmp(p, lists[i], n) != 0) {
                continue;
            }
            size_t n_digits = strspn(p + n, "0123456789");
            if (n_digits == 0 || n_digits > 7 || (p[n + n_digits] != '.' && p[n + n_digits])) {
                return NULL;
            }
            *layer = (int)strtol(p + n, NULL, 10);
            return p + n + n_digits + (p[n + n_digits] == '.');
        }
    }
    return NULL;
}

int role_layer(const char *name) {
    int layer;
    return role_below_layer(name, &layer) ? layer : -1;
}
