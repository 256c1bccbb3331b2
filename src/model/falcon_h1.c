/* falcon_h1.c - Falcon-H1: attention and Mamba-2 side by side in every layer, and a multiplier
 * (muP) on nearly every path.
 *
 *     x += ssm_out * mamba(h) + attention_out * attention(attention_in * h),  h = norm(x)
 *     x += down * mlp(norm(x))
 *
 * The key's multiplier goes into the scale of the scores, which is the same. Checkpoints stamped
 * jang_mup_folded have all of them in their weights; so do mlx-lm's (their convolutions are
 * [channels, taps, 1]), but for the key's. An embedding that is the output matrix has its own
 * multiplier in it then, which logits take back.
 * Reference: transformers, models/falcon_h1; arXiv:2507.22448. */
#include "model/falcon_h1.h"

#include "model/beside.h"
#include "model/mamba2.h"

#include <string.h>

typedef struct falcon_h1 {
    mamba2_config mamba;
    falcon_h1_multipliers by;
} falcon_h1;

/* ---- Blocks ---- */

static jang_status mixer(block **out, decoder *d, loader *l, const decoder_config *c, int layer) {
    const falcon_h1 *f = c->own;
    char prefix[DECODER_PREFIX_BYTES];
    block *mamba, *attention;
    decoder_prefix(prefix, c, layer);
    jang_status status = mamba2_make(&mamba, l, &d->work, &f->mamba, c->n_embd, prefix);
    if (status != JANG_OK) {
        return status;
    }
    status = decoder_attention(&attention, d, l, c, layer);
    if (status != JANG_OK) {
        block_close(mamba, l->ctx);
        return status;
    }
    const beside_part parts[2] = {
        {.block = mamba, .in = 1, .out = (float)f->by.ssm_out},
        {.block = attention, .in = (float)f->by.attention_in, .out = (float)f->by.attention_out}};
    return beside_make(out, l, &d->work, parts, 2, c->n_embd);
}

static jang_status ffn(block **out, decoder *d, loader *l, const decoder_config *c, int layer) {
    const falcon_h1 *f = c->own;
    block *mlp;
    jang_status status = decoder_mlp(&mlp, d, l, c, layer);
    const beside_part part = {.block = mlp, .in = 1, .out = (float)f->by.mlp[1]};
    return status == JANG_OK ? beside_make(out, l, &d->work, &part, 1, c->n_embd) : status;
}

/* ---- Config ---- */

static jang_status read_list(double *out, int n, json_at at, const char *key) {
    const json_t *list;
    jang_status status = json_get_array(&list, at, key);
    for (int i = 0; i < n; i++) {
        out[i] = 1;
    }
    for (int i = 0; status == JANG_OK && list && i < n; i++) {
        const json_t *x = json_array_get(list, (size_t)i);
        if (!json_is_number(x) || json_array_size(list) != (size_t)n) {
            return ctx_fail(at.ctx, JANG_ERR_FORMAT, "%s: %s must be %d numbers", at.what, key, n);
        }
        out[i] = json_number_value(x);
    }
    return status;
}

jang_status falcon_h1_read_multipliers(falcon_h1_multipliers *by, json_at at) {
    const struct {
        const char *key;
        double *out;
    } keys[] = {
        {"embedding_multiplier", &by->embedding},
        {"lm_head_multiplier", &by->output},
        {"attention_in_multiplier", &by->attention_in},
        {"attention_out_multiplier", &by->attention_out},
        {"key_multiplier", &by->key},
        {"ssm_in_multiplier", &by->ssm_in},
        {"ssm_out_multiplier", &by->ssm_out},
    };
    jang_status status = JANG_OK;
    for (size_t i = 0; status == JANG_OK && i < sizeof keys / sizeof keys[0]; i++) {
        status = json_get_double(keys[i].out, at, keys[i].key, 1);
    }
    if (status == JANG_OK) {
        status = read_list(by->mlp, 2, at, "mlp_multipliers");
    }
    return status == JANG_OK ? read_list(by->ssm, 5, at, "ssm_multipliers") : status;
}

static bool has_mlx_layout(loader *l) {
    const tensor_view *conv = loader_tensor(l, "layers.0.mamba.conv1d.weight");
    return conv && conv->n_dim == 3 && conv->shape[2] == 1 && conv->shape[1] > 1;
}

jang_status falcon_h1_left_multipliers(falcon_h1_multipliers *by, json_at config, bool mlx_layout,
                                       bool tied) {
    static const falcon_h1_multipliers none = {1, 1, 1, 1, 1, 1, 1, {1, 1}, {1, 1, 1, 1, 1}};
    bool stamped = false;
    jang_status status = falcon_h1_read_multipliers(by, config);
    if (status == JANG_OK) {
        status = json_get_bool(&stamped, config, "jang_mup_folded", false);
    }
    if (status != JANG_OK || !(stamped || mlx_layout)) {
        return status;
    }
    falcon_h1_multipliers all = *by;
    *by = none;
    by->output = tied ? all.output / all.embedding : 1;
    if (!stamped) {
        by->key = all.key;
    }
    if (!stamped && all.attention_in != 1) {
        return ctx_fail(config.ctx, JANG_ERR_UNSUPPORTED,
                        "%s: attention_in_multiplier %g is in the weights of queries and keys "
                        "alone, as mlx-lm converts; convert the original model",
                        config.what, all.attention_in);
    }
    return JANG_OK;
}

/* mamba_d_ssm is the inner width, mamba_d_head may be "auto". */
static jang_status read_widths(mamba2_config *m, json_at at, int64_t n_embd) {
    int64_t expand, n_inner;
    jang_status status = json_get_int(&expand, at, "mamba_expand", 2, 1, 1 << 10);
    if (status == JANG_OK) {
        bool null = json_is_null(json_object_get(at.object, "mamba_d_ssm"));
        status =
            json_get_int(&n_inner, at, "mamba_d_ssm", null ? expand * n_embd : 1024, 1, 1 << 22);
    }
    if (status != JANG_OK) {
        return status;
    }
    const json_t *size = json_object_get(at.object, "mamba_d_head");
    m->head_dim = n_inner / m->n_head;
    if (!json_is_string(size) || strcmp(json_string_value(size), "auto") != 0) {
        status = json_get_int(&m->head_dim, at, "mamba_d_head", m->head_dim, 1, 1 << 16);
    }
    if (status == JANG_OK && m->n_head * m->head_dim != n_inner) {
        status = ctx_fail(at.ctx, JANG_ERR_FORMAT,
                          "%s: %lld Mamba heads of %lld are not mamba_d_ssm = %lld", at.what,
                          (long long)m->n_head, (long long)m->head_dim, (long long)n_inner);
    }
    return status;
}

jang_status falcon_h1_read_ends(int64_t ends[5], json_at at) {
    mamba2_config m = {0};
    int64_t n_embd;
    const int_key keys[] = {
        {"hidden_size", &n_embd, 4096, 1 << 20},
        {"mamba_n_heads", &m.n_head, 128, 1 << 16},
        {"mamba_n_groups", &m.n_group, 1, 1 << 16},
        {"mamba_d_state", &m.n_state, 256, 1 << 12},
    };
    jang_status status = config_ints(at, keys, sizeof keys / sizeof keys[0]);
    if (status == JANG_OK) {
        status = read_widths(&m, at, n_embd);
    }
    const int64_t sizes[5] = {m.n_head * m.head_dim, m.n_head * m.head_dim, m.n_group * m.n_state,
                              m.n_group * m.n_state, m.n_head};
    for (int i = 0; i < 5 && status == JANG_OK; i++) {
        ends[i] = (i ? ends[i - 1] : 0) + sizes[i];
    }
    return status;
}

static jang_status read_mamba(falcon_h1 *f, json_at at, const decoder_config *c) {
    mamba2_config *m = &f->mamba;
    int64_t n_tap = 4;
    bool norm, before;
    const int_key keys[] = {
        {"mamba_n_heads", &m->n_head, 128, 1 << 16},
        {"mamba_n_groups", &m->n_group, 1, 1 << 16},
        {"mamba_d_state", &m->n_state, 256, 1 << 12},
        {"mamba_d_conv", &n_tap, 4, 16},
    };
    const struct {
        const char *key;
        bool *out, fallback;
    } flags[] = {
        {"mamba_conv_bias", &m->conv_bias, true},  {"mamba_proj_bias", &m->in_bias, false},
        {"projectors_bias", &m->out_bias, false},  {"mamba_rms_norm", &norm, false},
        {"mamba_norm_before_gate", &before, true},
    };
    jang_status status = config_ints(at, keys, sizeof keys / sizeof keys[0]);
    if (status == JANG_OK) {
        status = read_widths(m, at, c->n_embd);
    }
    for (size_t i = 0; status == JANG_OK && i < sizeof flags / sizeof flags[0]; i++) {
        status = json_get_bool(flags[i].out, at, flags[i].key, flags[i].fallback);
    }
    if (status == JANG_OK) {
        status = mamba2_read_limits(m, at);
    }
    if (status != JANG_OK) {
        return status;
    }
    m->n_tap = (int)n_tap;
    m->norm = !norm ? MAMBA2_NO_NORM : before ? MAMBA2_NORM_FIRST : MAMBA2_GATE_FIRST;
    m->norm_groups = m->n_group;
    m->norm_eps = c->norm.eps;
    m->in_scale = f->by.ssm_in;
    m->part_scale = f->by.ssm;
    m->path = "mamba";
    return config_want_silu(at, "hidden_act");
}

/* Names and multipliers, once all is read. */
static void set_layers(decoder_config *c, const falcon_h1 *f) {
    c->norms.ffn_before = "pre_ff_layernorm";
    c->norm_name = "final_layernorm";
    c->mlp.path = "feed_forward";
    c->mlp.gate_scale = f->by.mlp[0];
    c->attention.scale *= f->by.key;
    c->embed_scale = f->by.embedding;
    c->logit_scale = f->by.output;
    c->own = f;
    c->mixer = mixer;
    c->ffn = ffn;
}

static jang_status falcon_h1_open(model *m, loader *l) {
    static const decoder_defaults defaults = {
        .n_context = 8192,
        .rope_theta = 10000,
        .norm_eps = 1e-5,
        .n_kv_head = 8,
        .n_ff = 14336,
        .biases = {{"attention_bias", false, BIAS_ON_ATTENTION}, {"mlp_bias", false, BIAS_ON_MLP}}};
    decoder_config c;
    falcon_h1 f = {0};
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    status = falcon_h1_left_multipliers(&f.by, l->config, has_mlx_layout(l), c.tied);
    if (status == JANG_OK) {
        status = read_mamba(&f, l->config, &c);
    }
    set_layers(&c, &f);
    return decoder_finish(m, l, &c, status);
}

const model_family family_falcon_h1 = {.model_type = "falcon_h1", .open = falcon_h1_open};
