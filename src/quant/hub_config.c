/* hub_config.c - what a config says of a model once it has the hub's names and layouts again. */
#include "quant/hub_config.h"

#include "model/falcon_h1.h"
#include "quant/layouts.h"

#include <string.h>

/* ---- The text model alone ---- */

/* Whose text models are a model_type of their own. Those of Qwen 3.5 are opened by transformers
 * under the name of the whole. */
static const struct {
    const char *whole, *text; /* text: where the text_config does not say */
} text_types[] = {
    {"gemma3", "gemma3_text"},
    {"gemma4", "gemma4_text"},
    {"llama4", "llama4_text"},
    {"mistral3", "mistral"},
};

static const struct {
    const char *model_type, *architecture;
} text_classes[] = {
    {"gemma3_text", "Gemma3ForCausalLM"},    {"gemma4_text", "Gemma4ForCausalLM"},
    {"llama4_text", "Llama4ForCausalLM"},    {"mistral", "MistralForCausalLM"},
    {"ministral3", "Ministral3ForCausalLM"},
};

static int set_class(json_t *config, const char *type) {
    for (size_t i = 0; i < sizeof text_classes / sizeof text_classes[0]; i++) {
        if (strcmp(text_classes[i].model_type, type) == 0) {
            return json_object_set_new(config, "architectures",
                                       json_pack("[s]", text_classes[i].architecture));
        }
    }
    json_object_del(config, "architectures");
    return 0;
}

/* The text_config with what the whole says of text; NULL: no memory. */
static json_t *text_alone(const json_t *whole, const json_t *text, const char *type) {
    static const char *const shared[] = {"bos_token_id", "eos_token_id", "pad_token_id",
                                         "dtype",        "torch_dtype",  "transformers_version"};
    json_t *config = json_deep_copy(text);
    int failed = !config;
    for (size_t i = 0; i < sizeof shared / sizeof shared[0] && !failed; i++) {
        json_t *value = json_object_get(whole, shared[i]);
        failed |= value && json_object_set(config, shared[i], value);
    }
    const char *own = failed ? NULL : json_string_value(json_object_get(config, "model_type"));
    if (!failed && !own) {
        failed |= json_object_set_new(config, "model_type", json_string(type));
    }
    failed |= failed || set_class(config, own ? own : type);
    if (failed) {
        json_decref(config);
        return NULL;
    }
    return config;
}

static jang_status take_text(json_t **config, const model_source *s) {
    const json_t *text = json_object_get(*config, "text_config");
    for (size_t i = 0; i < sizeof text_types / sizeof text_types[0]; i++) {
        if (json_is_object(text) && strcmp(text_types[i].whole, s->model.model_type) == 0) {
            json_t *alone = text_alone(*config, text, text_types[i].text);
            if (!alone) {
                return ctx_fail_memory(s->ctx, 1024);
            }
            json_decref(*config);
            *config = alone;
            break;
        }
    }
    return JANG_OK;
}

/* ---- Falcon-H1 ---- */

static int set_multipliers(json_t *config, const falcon_h1_multipliers *m) {
    const struct {
        const char *key;
        double value;
    } keys[] = {
        {"embedding_multiplier", m->embedding},
        {"lm_head_multiplier", m->output},
        {"attention_in_multiplier", m->attention_in},
        {"attention_out_multiplier", m->attention_out},
        {"key_multiplier", m->key},
        {"ssm_in_multiplier", m->ssm_in},
        {"ssm_out_multiplier", m->ssm_out},
    };
    int failed = 0;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        failed |= json_object_set_new(config, keys[i].key, json_real(keys[i].value));
    }
    failed |=
        json_object_set_new(config, "mlp_multipliers", json_pack("[f,f]", m->mlp[0], m->mlp[1]));
    failed |= json_object_set_new(
        config, "ssm_multipliers",
        json_pack("[f,f,f,f,f]", m->ssm[0], m->ssm[1], m->ssm[2], m->ssm[3], m->ssm[4]));
    return failed;
}

/* Multipliers that the weights hold are not applied again. */
static jang_status clear_multipliers(json_t *config, const model_source *s) {
    falcon_h1_multipliers left;
    const json_at at = {s->ctx, "config.json", config};
    if (strcmp(s->model.model_type, "falcon_h1") != 0) {
        return JANG_OK;
    }
    jang_status status = falcon_h1_left_multipliers(&left, at, s->mlx_convs, s->model.tied);
    if (status == JANG_OK && set_multipliers(config, &left) != 0) {
        status = ctx_fail_memory(s->ctx, 1024);
    }
    return status;
}

jang_status hub_config(json_t **config, const model_source *s) {
    jang_status status = clear_multipliers(*config, s);
    if (status == JANG_OK) {
        status = take_text(config, s);
    }
    if (status == JANG_OK && layouts_rename(*config, false) != 0) {
        status = ctx_fail_memory(s->ctx, 64);
    }
    if (status == JANG_OK) {
        json_object_del(*config, "jang_norms_pre_shifted");
        json_object_del(*config, "jang_mup_folded");
        json_object_del(*config, "_name_or_path");
    }
    return status;
}
