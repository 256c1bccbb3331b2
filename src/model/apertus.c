/* apertus.c - Apertus: an MLP without gate whose xIELU has two learned numbers in each layer, q and
 * k normed head by head.
 *
 * References: transformers, models/apertus; arXiv:2509.14233; xIELU: arXiv:2411.13010. */
#include "model/decoder.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static jang_status read_number(float *out, loader *l, const char *prefix, const char *name) {
    char full[128];
    snprintf(full, sizeof full, "%smlp.act_fn.%s", prefix, name);
    return loader_read_numbers(out, l, 1, full);
}

/* alpha_p and alpha_n through softplus, beta 0.5 added to the latter; beta and eps are constants
 * that checkpoints hold as well. */
static jang_status apertus_mlp(block **out, decoder *d, loader *l, const decoder_config *c,
                               int layer) {
    char prefix[DECODER_PREFIX_BYTES];
    float p, n, beta = 0.5f, eps = -1e-6f;
    decoder_prefix(prefix, c, layer);
    jang_status status = read_number(&p, l, prefix, "alpha_p");
    if (status == JANG_OK) {
        status = read_number(&n, l, prefix, "alpha_n");
    }
    char name[128];
    snprintf(name, sizeof name, "%smlp.act_fn.beta", prefix);
    if (status == JANG_OK && loader_has(l, name)) {
        status = read_number(&beta, l, prefix, "beta");
    }
    snprintf(name, sizeof name, "%smlp.act_fn.eps", prefix);
    if (status == JANG_OK && loader_has(l, name)) {
        status = read_number(&eps, l, prefix, "eps");
    }
    if (status != JANG_OK) {
        return status;
    }
    if (!l->survey && (beta != 0.5f || fabsf(eps + 1e-6f) > 1e-8f)) {
        return ctx_fail(l->ctx, JANG_ERR_UNSUPPORTED,
                        "%smlp.act_fn: beta %g and eps %g; only 0.5 and -1e-6 are supported",
                        prefix, (double)beta, (double)eps);
    }
    mlp_config m = c->mlp;
    m.act = (act_desc){ACT_XIELU, log1pf(expf(p)), 0.5f + log1pf(expf(n))};
    return mlp_make(out, l, &d->work, &m, c->n_embd, prefix);
}

static jang_status adapt(decoder_config *c, json_at config) {
    (void)config;
    c->attention.qk_norm = QK_NORM_HEAD;
    c->norms =
        (layer_norms){.mixer_before = "attention_layernorm", .ffn_before = "feedforward_layernorm"};
    c->mlp.layout = MLP_PLAIN;
    c->ffn = c->mlp.act.kind == ACT_XIELU ? apertus_mlp : NULL;
    return JANG_OK;
}

const model_family family_apertus = {
    .model_type = "apertus",
    .defaults = &(const decoder_defaults){.n_context = 65536,
                                          .rope_theta = 12000000,
                                          .norm_eps = 1e-5,
                                          .act = "xielu",
                                          .needs_scaling = true,
                                          .biases = {{"attention_bias", false, BIAS_ON_ATTENTION}}},
    .adapt = adapt};
