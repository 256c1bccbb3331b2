/* qwen3_next.c - Qwen3-Next and Qwen3.5: three layers of Gated DeltaNet to one of gated attention.
 *
 * Norms hold w of 1 + w, but for the delta rule's own and in checkpoints that mlx-lm has converted
 * (their convolutions are [channels, taps, 1]) or that say jang_norms_pre_shifted. Attention's
 * q_proj gives each head's query and the gate of its result. Qwen3.5's RoPE has three axes, which
 * are equal for text: the usual RoPE. Of checkpoints with a vision tower the text model is read,
 * the tower and the layers for predicting several tokens (mtp.*) are not. Reference: transformers,
 * models/{qwen3_next,qwen3_5,qwen3_5_moe}; arXiv:2412.06464. */
#include "model/decoder.h"
#include "model/delta_net.h"
#include "model/moe.h"

#include <string.h>

typedef struct qwen_next {
    delta_net_config delta;
    bool *linear; /* [n_layer] which layers are Gated DeltaNet */
    moe_config moe;
    moe_names names;
    int64_t sparse_step;
    const json_t *dense_layers; /* of the config; NULL: none */
} qwen_next;

static jang_status mixer(block **out, decoder *d, loader *l, const decoder_config *c, int layer) {
    const qwen_next *q = c->own;
    char prefix[DECODER_PREFIX_BYTES];
    if (!q->linear[layer]) {
        return decoder_attention(out, d, l, c, layer);
    }
    decoder_prefix(prefix, c, layer);
    return delta_net_make(out, l, &d->work, &q->delta, c->n_embd, prefix);
}

/* Layers listed in mlp_only_layers, and those that decoder_sparse_step leaves out, are dense. */
static bool is_dense(const qwen_next *q, int layer) {
    for (size_t i = 0; i < json_array_size(q->dense_layers); i++) {
        if (json_integer_value(json_array_get(q->dense_layers, i)) == layer) {
            return true;
        }
    }
    return (layer + 1) % q->sparse_step != 0;
}

static jang_status sparse_ffn(block **out, decoder *d, loader *l, const decoder_config *c,
                              int layer) {
    const qwen_next *q = c->own;
    char prefix[DECODER_PREFIX_BYTES];
    if (is_dense(q, layer)) {
        return decoder_mlp(out, d, l, c, layer);
    }
    decoder_prefix(prefix, c, layer);
    return moe_make(out, l, &d->work, &q->moe, c->n_embd, prefix);
}

/* ---- Config ---- */

/* layer_types, or every full_attention_interval-th layer is attention. */
static jang_status read_layers(qwen_next *q, json_at at, int64_t n_layer) {
    const json_t *types;
    int64_t interval;
    jang_status status = json_get_array(&types, at, "layer_types");
    if (status == JANG_OK) {
        status = json_get_int(&interval, at, "full_attention_interval", 4, 1, 1 << 12);
    }
    if (status != JANG_OK) {
        return status;
    }
    q->linear = ctx_zero(at.ctx, (size_t)n_layer, sizeof *q->linear);
    if (!q->linear) {
        return ctx_fail_memory(at.ctx, (size_t)n_layer);
    }
    for (int64_t i = 0; i < n_layer; i++) {
        const char *type = types ? json_string_value(json_array_get(types, (size_t)i)) : NULL;
        q->linear[i] =
            types ? type && strcmp(type, "linear_attention") == 0 : (i + 1) % interval != 0;
        if (types && !q->linear[i] && (!type || strcmp(type, "full_attention") != 0)) {
            return ctx_fail(at.ctx, JANG_ERR_UNSUPPORTED,
                            "%s: layer_types[%lld] is %s; allowed are full_attention and "
                            "linear_attention",
                            at.what, (long long)i, type ? type : "missing");
        }
    }
    return JANG_OK;
}

static jang_status read_delta(delta_net_config *d, json_at at) {
    int64_t n_tap;
    const int_key keys[] = {
        {"linear_num_value_heads", &d->n_head, 32, 1 << 14},
        {"linear_num_key_heads", &d->n_k_head, 16, 1 << 14},
        {"linear_key_head_dim", &d->k_dim, 128, 1 << 12},
        {"linear_value_head_dim", &d->v_dim, 128, 1 << 12},
        {"linear_conv_kernel_dim", &n_tap, 4, 16},
    };
    jang_status status = config_ints(at, keys, sizeof keys / sizeof keys[0]);
    if (status == JANG_OK) {
        d->n_tap = (int)n_tap;
        status = config_want_silu(at, "hidden_act");
    }
    return status;
}

/* Whether the norms hold 1 + w already. */
static jang_status read_shifted(bool *out, loader *l, const qwen_next *q, int64_t n_layer) {
    jang_status status = json_get_bool(out, l->whole, "jang_norms_pre_shifted", false);
    for (int64_t i = 0; i < n_layer && status == JANG_OK && !*out; i++) {
        const tensor_view *conv =
            q->linear[i] ? loader_tensor(l, "layers.%d.linear_attn.conv1d.weight", (int)i) : NULL;
        if (conv) {
            *out = conv->n_dim == 3 && conv->shape[2] == 1 && conv->shape[1] != 1;
            break;
        }
    }
    return status;
}

static jang_status read_attention(decoder_config *c, loader *l) {
    attention_config *a = &c->attention;
    a->output_gate = true;
    a->qk_norm = QK_NORM_HEAD;
    a->norm = c->norm;
    return decoder_want_bool(l->config, "attn_output_gate", true, true);
}

/* What the three differ in. */
typedef enum qwen_kind { QWEN3_NEXT, QWEN3_5, QWEN3_5_MOE } qwen_kind;

/* Qwen3.5 always renormalises, and all its layers have experts. */
static jang_status read_experts(qwen_next *q, decoder_config *c, json_at at, qwen_kind kind) {
    static const char *const expert_keys[] = {"num_experts", NULL};
    bool next = kind == QWEN3_NEXT;
    q->names = moe_names_mlp;
    q->names.shared = "mlp.shared_expert";
    q->names.shared_gate = "mlp.shared_expert_gate";
    q->moe = (moe_config){.names = &q->names,
                          .act = c->mlp.act,
                          .shared_gated = true,
                          .route = {.score = ROUTE_SOFTMAX, .renormalise = true, .scale = 1}};
    q->sparse_step = 1;
    jang_status status = moe_read_counts(&q->moe, at, expert_keys, "num_experts_per_tok",
                                         next ? 512 : 256, next ? 10 : 8);
    const int_key keys[] = {
        {"moe_intermediate_size", &q->moe.n_ff, 512, 1 << 22},
        {"shared_expert_intermediate_size", &q->moe.n_shared_ff, 512, 1 << 22},
    };
    if (status == JANG_OK) {
        status = config_ints(at, keys, sizeof keys / sizeof keys[0]);
    }
    if (status == JANG_OK && next) {
        status = json_get_bool(&q->moe.route.renormalise, at, "norm_topk_prob", true);
    }
    if (status == JANG_OK && next) {
        status = json_get_int(&q->sparse_step, at, "decoder_sparse_step", 1, 1, 1 << 12);
    }
    if (status == JANG_OK && next) {
        status = json_get_array(&q->dense_layers, at, "mlp_only_layers");
    }
    c->ffn = sparse_ffn;
    return status;
}

static jang_status open_kind(model *m, loader *l, qwen_kind kind) {
    const decoder_defaults defaults = {.n_context = 32768,
                                       .head_dim = 256,
                                       .rope_theta = 10000,
                                       .partial_rotary = 0.25,
                                       .n_ff = kind == QWEN3_5 ? 0 : 5632,
                                       .biases = {{"attention_bias", false, BIAS_ON_ATTENTION}}};
    decoder_config c;
    qwen_next q = {.delta.path = "linear_attn"};
    bool shifted = false;
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    status = json_get_bool(&c.tied, l->whole, "tie_word_embeddings", c.tied);
    if (status == JANG_OK) {
        status = read_layers(&q, l->config, c.n_layer);
    }
    if (status == JANG_OK) {
        status = read_delta(&q.delta, l->config);
    }
    if (status == JANG_OK) {
        status = read_shifted(&shifted, l, &q, c.n_layer);
    }
    if (status == JANG_OK) {
        q.delta.norm_eps = c.norm.eps;
        c.norm.offset = shifted ? 0 : 1;
        status = read_attention(&c, l);
    }
    if (status == JANG_OK && kind != QWEN3_5) {
        status = read_experts(&q, &c, l->config, kind);
    }
    c.own = &q;
    c.mixer = mixer;
    status = decoder_finish(m, l, &c, status);
    ctx_free(m->ctx, q.linear);
    return status;
}

static jang_status qwen3_next_open(model *m, loader *l) {
    return open_kind(m, l, QWEN3_NEXT);
}

static jang_status qwen3_5_open(model *m, loader *l) {
    return open_kind(m, l, QWEN3_5);
}

static jang_status qwen3_5_moe_open(model *m, loader *l) {
    return open_kind(m, l, QWEN3_5_MOE);
}

const model_family family_qwen3_next = {.model_type = "qwen3_next", .open = qwen3_next_open};
const model_family family_qwen3_5 = {
    .model_type = "qwen3_5", .open = qwen3_5_open, .text_config = true};
const model_family family_qwen3_5_moe = {
    .model_type = "qwen3_5_moe", .open = qwen3_5_moe_open, .text_config = true};
/* The text model alone, as transformers saves it. */
const model_family family_qwen3_5_text = {.model_type = "qwen3_5_text", .open = qwen3_5_open};
const model_family family_qwen3_5_moe_text = {.model_type = "qwen3_5_moe_text",
                                              .open = qwen3_5_moe_open};
