/* qwen_moe.c - Qwen2-MoE and Qwen3-MoE: Qwen2 and Qwen3 with experts in place of the MLP, in all
 * layers or every decoder_sparse_step-th, but for those of mlp_only_layers.
 *
 * Softmax over all experts, renormalised by norm_topk_prob; Qwen2 adds a shared expert times the
 * sigmoid of a gate. Reference: transformers, models/qwen2_moe, qwen3_moe; arXiv:2407.10671,
 * arXiv:2505.09388. */
#include "model/decoder.h"
#include "model/moe.h"

#include <string.h>

/* What the makers need besides decoder_config. */
typedef struct qwen_experts {
    moe_config moe;
    moe_names names;
    int64_t sparse_step;
    const json_t *dense_layers; /* of the config, NULL: none */
} qwen_experts;

static bool is_dense(const qwen_experts *q, int layer) {
    size_t i;
    const json_t *number;
    json_array_foreach(q->dense_layers, i, number) {
        if (json_integer_value(number) == layer) {
            return true;
        }
    }
    return (layer + 1) % q->sparse_step != 0;
}

static jang_status make_ffn(block **out, decoder *d, loader *l, const decoder_config *c,
                            int layer) {
    const qwen_experts *q = c->own;
    if (is_dense(q, layer)) {
        return decoder_mlp(out, d, l, c, layer);
    }
    char prefix[DECODER_PREFIX_BYTES];
    decoder_prefix(prefix, c, layer);
    return moe_make(out, l, &d->work, &q->moe, c->n_embd, prefix);
}

/* Newer configs of transformers say num_local_experts. */
static const char *const expert_keys[] = {"num_experts", "num_local_experts", NULL};

static jang_status read_experts(qwen_experts *q, const decoder_config *c, json_at at,
                                int64_t n_expert, int64_t n_used, int64_t n_ff) {
    *q = (qwen_experts){.names = moe_names_mlp};
    moe_config *m = &q->moe;
    m->names = &q->names;
    m->act = c->mlp.act;
    m->route = (route_desc){.score = ROUTE_SOFTMAX, .scale = 1};
    jang_status status =
        moe_read_counts(m, at, expert_keys, "num_experts_per_tok", n_expert, n_used);
    if (status == JANG_OK) {
        status = json_get_int(&m->n_ff, at, "moe_intermediate_size", n_ff, 1, 1 << 22);
    }
    if (status == JANG_OK) {
        status = json_get_bool(&m->route.renormalise, at, "norm_topk_prob", false);
    }
    if (status == JANG_OK) {
        status = json_get_int(&q->sparse_step, at, "decoder_sparse_step", 1, 1, 1 << 12);
    }
    return status == JANG_OK ? json_get_array(&q->dense_layers, at, "mlp_only_layers") : status;
}

/* Every other layer below max_window_layers slides, unlike Qwen2's. */
static bool slides(int64_t i, int64_t end) {
    return i % 2 == 0 && i < end;
}

static jang_status read_qwen2_windows(decoder_config *c, json_at at) {
    bool sliding;
    int64_t end;
    jang_status status = json_get_bool(&sliding, at, "use_sliding_window", false);
    if (status == JANG_OK && sliding) {
        status = decoder_read_window(&c->attention.window, at, 4096);
    }
    if (status == JANG_OK) {
        status = json_get_int(&end, at, "max_window_layers", 28, 0, 1 << 12);
    }
    return status == JANG_OK ? decoder_read_sliding(c, at, slides, end) : status;
}

static jang_status qwen2_moe_open(model *m, loader *l) {
    static const decoder_defaults defaults = {.n_context = 32768,
                                              .rope_theta = 10000,
                                              .n_kv_head = 16,
                                              .biases = {{"qkv_bias", true, BIAS_ON_QKV}}};
    decoder_config c;
    qwen_experts q;
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    status = read_qwen2_windows(&c, l->config);
    if (status == JANG_OK) {
        status = read_experts(&q, &c, l->config, 60, 4, 1408);
    }
    if (status == JANG_OK) {
        status = json_get_int(&q.moe.n_shared_ff, l->config, "shared_expert_intermediate_size",
                              5632, 1, 1 << 22);
        q.names.shared = "mlp.shared_expert";
        q.names.shared_gate = "mlp.shared_expert_gate";
        q.moe.shared_gated = true;
    }
    c.ffn = make_ffn;
    c.own = &q;
    return decoder_finish(m, l, &c, status);
}

static jang_status qwen3_moe_open(model *m, loader *l) {
    static const decoder_defaults defaults = {
        .n_context = 32768,
        .rope_theta = 10000,
        .n_kv_head = 4,
        .biases = {{"attention_bias", false, BIAS_ON_ATTENTION}}};
    decoder_config c;
    qwen_experts q;
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    c.attention.qk_norm = QK_NORM_HEAD;
    bool sliding;
    status = json_get_bool(&sliding, l->config, "use_sliding_window", false);
    if (status == JANG_OK && sliding) { /* all layers, whatever max_window_layers says */
        status = decoder_read_window(&c.attention.window, l->config, 4096);
    }
    if (status == JANG_OK) {
        status = read_experts(&q, &c, l->config, 128, 8, 768);
    }
    c.ffn = make_ffn;
    c.own = &q;
    return decoder_finish(m, l, &c, status);
}

const model_family family_qwen2_moe = {.model_type = "qwen2_moe", .open = qwen2_moe_open};
const model_family family_qwen3_moe = {.model_type = "qwen3_moe", .open = qwen3_moe_open};
