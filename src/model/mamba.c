/* mamba.c - Mamba, Falcon-Mamba and Mamba-2: layers of a norm and a mixer, nothing else.
 *
 * Keys that only say how weights were initialised (time_step_min, time_step_max, time_step_floor,
 * ...) or how the reference computes (chunk_size, residual_in_fp32) change nothing here, and
 * Mamba-2 gates before its norm whatever norm_before_gate says. There is no longest sequence.
 * Reference: transformers, models/{mamba,falcon_mamba,mamba2}. */
#include "model/decoder.h"
#include "model/mamba1.h"
#include "model/mamba2.h"

#include <string.h>

#define N_CONTEXT (1 << 20) /* for what must be sized; the state is as large for any length */

/* What the three have in common; fills in all of c but its mixer. */
static jang_status read_frame(decoder_config *c, json_at at, bool tied) {
    *c = (decoder_config){.n_context = N_CONTEXT,
                          .norms = {.mixer_before = "norm"},
                          .embedding_name = "embeddings",
                          .norm_name = "norm_f"};
    const int_key keys[] = {
        {"vocab_size", &c->n_vocab, 0, 1 << 24},
        {"hidden_size", &c->n_embd, 0, 1 << 20},
        {"num_hidden_layers", &c->n_layer, 0, 1 << 12},
    };
    jang_status status = config_ints(at, keys, sizeof keys / sizeof keys[0]);
    if (status == JANG_OK) {
        status = json_get_double(&c->norm.eps, at, "layer_norm_epsilon", 1e-5);
    }
    if (status == JANG_OK) {
        status = json_get_bool(&c->tied, at, "tie_word_embeddings", tied);
    }
    return status == JANG_OK ? config_want_silu(at, "hidden_act") : status;
}

static jang_status no_ffn(block **out, decoder *d, loader *l, const decoder_config *c, int layer) {
    (void)out, (void)d, (void)l, (void)c, (void)layer;
    return JANG_OK;
}

/* ---- Mamba, Falcon-Mamba ---- */

static jang_status mamba1_mixer(block **out, decoder *d, loader *l, const decoder_config *c,
                                int layer) {
    char prefix[DECODER_PREFIX_BYTES];
    decoder_prefix(prefix, c, layer);
    return mamba1_make(out, l, &d->work, c->own, c->n_embd, prefix);
}

/* time_step_rank may be "auto". */
static jang_status read_rank(int64_t *out, json_at at, int64_t n_embd) {
    const json_t *rank = json_object_get(at.object, "time_step_rank");
    if (json_is_string(rank) && strcmp(json_string_value(rank), "auto") == 0) {
        *out = (n_embd + 15) / 16;
        return JANG_OK;
    }
    return json_get_int(out, at, "time_step_rank", (n_embd + 15) / 16, 1, 1 << 20);
}

static jang_status read_mamba1(mamba1_config *m, json_at at, int64_t n_embd) {
    int64_t expand, n_tap;
    const int_key sizes[] = {
        {"state_size", &m->n_state, 16, 1 << 12},
        {"conv_kernel", &n_tap, 4, 16},
        {"expand", &expand, 2, 1 << 10},
    };
    jang_status status = config_ints(at, sizes, sizeof sizes / sizeof sizes[0]);
    if (status == JANG_OK) {
        m->n_tap = (int)n_tap;
        status = json_get_int(&m->n_inner, at, "intermediate_size", expand * n_embd, 1, 1 << 22);
    }
    if (status == JANG_OK) {
        status = read_rank(&m->dt_rank, at, n_embd);
    }
    if (status == JANG_OK) {
        status = json_get_bool(&m->bias, at, "use_bias", false);
    }
    return status == JANG_OK ? json_get_bool(&m->conv_bias, at, "use_conv_bias", true) : status;
}

static jang_status open_mamba1(model *m, loader *l, mamba1_norm norm) {
    decoder_config c;
    mamba1_config mixer = {.norm = norm, .path = "mixer"};
    jang_status status = read_frame(&c, l->config, true);
    if (status == JANG_OK) {
        status = read_mamba1(&mixer, l->config, c.n_embd);
    }
    if (status == JANG_OK && norm == MAMBA1_NORM_PLAIN) {
        status = json_get_double(&mixer.norm_eps, l->config, "mixer_rms_eps", 1e-6);
    }
    c.own = &mixer;
    c.mixer = mamba1_mixer;
    c.ffn = no_ffn;
    return decoder_finish(m, l, &c, status);
}

static jang_status mamba_open(model *m, loader *l) {
    return open_mamba1(m, l, MAMBA1_NORM_NONE);
}

static jang_status falcon_mamba_open(model *m, loader *l) {
    return open_mamba1(m, l, MAMBA1_NORM_PLAIN);
}

/* ---- Mamba-2 ---- */

static jang_status mamba2_mixer(block **out, decoder *d, loader *l, const decoder_config *c,
                                int layer) {
    char prefix[DECODER_PREFIX_BYTES];
    decoder_prefix(prefix, c, layer);
    return mamba2_make(out, l, &d->work, c->own, c->n_embd, prefix);
}

static jang_status read_mamba2(mamba2_config *m, json_at at) {
    int64_t n_tap;
    const int_key sizes[] = {
        {"num_heads", &m->n_head, 128, 1 << 16},
        {"head_dim", &m->head_dim, 64, 1 << 16},
        {"state_size", &m->n_state, 128, 1 << 12},
        {"n_groups", &m->n_group, 8, 1 << 16},
        {"conv_kernel", &n_tap, 4, 16},
    };
    jang_status status = config_ints(at, sizes, sizeof sizes / sizeof sizes[0]);
    bool bias;
    if (status == JANG_OK) {
        m->n_tap = (int)n_tap;
        m->norm_groups = m->n_group;
        status = mamba2_read_limits(m, at);
    }
    if (status == JANG_OK) {
        status = json_get_bool(&bias, at, "use_bias", false);
    }
    if (status == JANG_OK) {
        m->in_bias = m->out_bias = bias;
        status = json_get_bool(&m->conv_bias, at, "use_conv_bias", true);
    }
    return status;
}

static jang_status mamba2_open(model *m, loader *l) {
    decoder_config c;
    mamba2_config mixer = {.norm = MAMBA2_GATE_FIRST, .path = "mixer"};
    int64_t expand;
    jang_status status = read_frame(&c, l->config, false);
    if (status == JANG_OK) {
        status = read_mamba2(&mixer, l->config);
    }
    if (status == JANG_OK) {
        status = json_get_int(&expand, l->config, "expand", 2, 1, 1 << 10);
    }
    if (status == JANG_OK && expand * c.n_embd != mixer.n_head * mixer.head_dim) {
        status = ctx_fail(m->ctx, JANG_ERR_FORMAT,
                          "%s: %lld heads of %lld are not expand * hidden_size = %lld",
                          l->config.what, (long long)mixer.n_head, (long long)mixer.head_dim,
                          (long long)(expand * c.n_embd));
    }
    mixer.norm_eps = c.norm.eps;
    c.own = &mixer;
    c.mixer = mamba2_mixer;
    c.ffn = no_ffn;
    return decoder_finish(m, l, &c, status);
}

const model_family family_mamba = {
    .model_type = "mamba", .open = mamba_open, .embedding = "embeddings"};
const model_family family_falcon_mamba = {
    .model_type = "falcon_mamba", .open = falcon_mamba_open, .embedding = "embeddings"};
const model_family family_mamba2 = {
    .model_type = "mamba2", .open = mamba2_open, .embedding = "embeddings"};
