/* ministral3.c - Ministral 3: Llama with YaRN and queries that grow with the logarithm of their
 * position (llama_4_scaling_beta), also as the text part of mistral3 checkpoints.
 *
 * Reference: transformers, models/ministral3 and mistral3. */
#include "model/decoder.h"

#include <string.h>

static jang_status read_temper(attention_config *a, json_at config, int64_t n_context) {
    const json_t *rope;
    jang_status status = json_get_object(&rope, config, "rope_parameters");
    const json_at at = {config.ctx, config.what, rope};
    if (status == JANG_OK) {
        status = json_get_double(&a->temper, at, "llama_4_scaling_beta", 0);
    }
    if (status == JANG_OK) {
        status = json_get_int(&a->temper_span, at, "original_max_position_embeddings", n_context, 1,
                              1 << 28);
    }
    return status;
}

static jang_status ministral3_open(model *m, loader *l) {
    static const decoder_defaults defaults = {.n_context = 262144,
                                              .head_dim = 128,
                                              .n_kv_head = 8,
                                              .rope_theta = 1000000,
                                              .norm_eps = 1e-5};
    decoder_config c;
    if (!json_is_object(json_object_get(l->config.object, "rope_parameters"))) {
        return ctx_fail(m->ctx, JANG_ERR_UNSUPPORTED,
                        "%s: rope_parameters is missing, which this family needs", l->config.what);
    }
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    status = read_temper(&c.attention, l->config, c.n_context);
    if (status == JANG_OK) {
        status = decoder_read_window(&c.attention.window, l->config, 0);
    }
    return decoder_finish(m, l, &c, status);
}

/* The text part says itself whether it is Mistral's or Ministral's. */
static jang_status mistral3_open(model *m, loader *l) {
    const char *type = json_string_value(json_object_get(l->config.object, "model_type"));
    if (type && strcmp(type, "mistral") == 0) {
        return decoder_open_family(m, l, &family_mistral);
    }
    if (type && strcmp(type, "ministral3") != 0) {
        return ctx_fail(m->ctx, JANG_ERR_UNSUPPORTED,
                        "%s: model_type %s; mistral and ministral3 are supported", l->config.what,
                        type);
    }
    return ministral3_open(m, l);
}

const model_family family_ministral3 = {.model_type = "ministral3", .open = ministral3_open};
const model_family family_mistral3 = {
    .model_type = "mistral3", .open = mistral3_open, .text_config = true};
