/* layouts.c - layouts of recurrent models' small tensors, as mlx-lm has them. */
#include "quant/layouts.h"

#include "base/file.h"

#include <string.h>

static bool ends_in_one_of(const char *name, const char *const *ends) {
    for (; *ends; ends++) {
        if (strcmp(name, *ends) == 0 || path_has_suffix(name, *ends)) {
            return true;
        }
    }
    return false;
}

static bool is_one_of(const char *name, const char *const *names) {
    while (*names && strcmp(*names, name) != 0) {
        names++;
    }
    return *names != NULL;
}

static bool is_conv(const model_part *part) {
    static const char *const ends[] = {"conv1d.weight", "conv.conv.weight", NULL};
    return part->used && ends_in_one_of(part->name, ends) && part->n_dim == 3;
}

/* Whether a part is a convolution of each channel, in the hub's layout [channels, 1, taps]. */
static bool is_hub_conv(const model_part *part) {
    return is_conv(part) && part->shape[1] == 1 && part->shape[2] > 1;
}

bool layouts_has_hub_conv(const part_list *parts) {
    for (size_t i = 0; i < parts->n_parts; i++) {
        if (is_hub_conv(&parts->parts[i])) {
            return true;
        }
    }
    return false;
}

/* Families whose norms are w of 1 + w on the hub, and these norms. */
static const char *const centred[] = {"qwen3_next",   "qwen3_5",          "qwen3_5_moe",
                                      "qwen3_5_text", "qwen3_5_moe_text", NULL};
static const char *const norms[] = {"input_layernorm.weight", "post_attention_layernorm.weight",
                                    "model.norm.weight",      "q_norm.weight",
                                    "k_norm.weight",          NULL};

void layouts_apply(part_list *parts, const name_model *nm, bool *shifted) {
    *shifted = false;
    for (size_t i = 0; i < parts->n_parts; i++) {
        model_part *part = &parts->parts[i];
        if (is_hub_conv(part)) { /* the numbers lie in the same order */
            part->shape[1] = part->shape[2];
            part->shape[2] = 1;
            *shifted = is_one_of(nm->model_type, centred);
        }
    }
    for (size_t i = 0; i < parts->n_parts && *shifted; i++) {
        model_part *part = &parts->parts[i];
        if (part->used && ends_in_one_of(part->name, norms)) {
            part->add = 1;
        }
    }
}

void layouts_undo(part_list *parts, const name_model *nm, bool *mlx_convs) {
    bool shifted = false;
    *mlx_convs = false;
    for (size_t i = 0; i < parts->n_parts; i++) {
        model_part *part = &parts->parts[i];
        if (is_conv(part) && part->shape[2] == 1 && part->shape[1] > 1) {
            part->shape[2] = part->shape[1];
            part->shape[1] = 1;
            *mlx_convs = true;
            shifted = is_one_of(nm->model_type, centred);
        }
    }
    for (size_t i = 0; i < parts->n_parts && shifted; i++) {
        model_part *part = &parts->parts[i];
        if (part->used && ends_in_one_of(part->name, norms)) {
            part->add = -1;
        }
    }
}

/* A flag that early checkpoints give as a number, which transformers has come to refuse. */
static int mend_llama4(json_t *config) {
    json_t *text = json_object_get(config, "text_config");
    config = json_is_object(text) ? text : config;
    const json_t *tuning = json_object_get(config, "attn_temperature_tuning");
    return json_is_number(tuning) ? json_object_set_new(config, "attn_temperature_tuning",
                                                        json_boolean(json_number_value(tuning)))
                                  : 0;
}

/* mlx-lm looks for the number of words in the whole model's config. */
static int tell_words(json_t *config) {
    json_t *words = json_object_get(json_object_get(config, "text_config"), "vocab_size");
    return words && !json_has(config, "vocab_size") ? json_object_set(config, "vocab_size", words)
                                                    : 0;
}

/* How full layers differ, as mlx-lm and older configs of the hub say it. */
static int mend_gemma4(json_t *config) {
    static const char *const names[][2] = {{"head_dim", "global_head_dim"},
                                           {"num_key_value_heads", "num_global_key_value_heads"}};
    json_t *text = json_object_get(config, "text_config"), *all;
    int failed = tell_words(config);
    config = json_is_object(text) ? text : config;
    all = json_object_get(config, "per_layer_config");
    const json_t *first = json_object_iter_value(json_object_iter(all));
    for (size_t i = 0; i < 2; i++) {
        json_t *value = json_object_get(first, names[i][0]);
        if (value && !json_has(config, names[i][1])) {
            failed |= json_object_set(config, names[i][1], value);
        }
    }
    return failed;
}

/* Full layers of a fixed period. */
static int mend_gemma3(json_t *config) {
    json_t *text = json_object_get(config, "text_config");
    json_t *inner = json_is_object(text) ? text : config;
    const json_t *types = json_object_get(inner, "layer_types");
    int failed = tell_words(config);
    size_t full = 0;
    for (; full < json_array_size(types); full++) {
        const char *type = json_string_value(json_array_get(types, full));
        if (type && strcmp(type, "full_attention") == 0) {
            break;
        }
    }
    if (full < json_array_size(types) && !json_has(inner, "sliding_window_pattern")) {
        failed |= json_object_set_new(inner, "sliding_window_pattern",
                                      json_integer((json_int_t)full + 1));
    }
    return failed;
}

static int mend_exaone4(json_t *config) {
    static const char *const nulls[] = {"rope_scaling", "sliding_window", "sliding_window_pattern"};
    json_int_t width = json_integer_value(json_object_get(config, "hidden_size"));
    json_int_t heads = json_integer_value(json_object_get(config, "num_attention_heads"));
    int failed = 0;
    for (size_t i = 0; i < sizeof nulls / sizeof nulls[0]; i++) {
        if (!json_object_get(config, nulls[i])) {
            failed |= json_object_set_new(config, nulls[i], json_null());
        }
    }
    if (heads > 0 && !json_is_integer(json_object_get(config, "head_dim"))) {
        failed |= json_object_set_new(config, "head_dim", json_integer(width / heads));
    }
    return failed;
}

/* mlx-lm wants keys that configs of the hub need not have. */
static int add_wanted(json_t *config, const char *type) {
    if (strcmp(type, "mamba2") == 0 && !json_has(config, "intermediate_size")) {
        json_int_t heads = json_integer_value(json_object_get(config, "num_heads"));
        json_int_t width = json_integer_value(json_object_get(config, "head_dim"));
        return heads > 0 && width > 0
                   ? json_object_set_new(config, "intermediate_size", json_integer(heads * width))
                   : 0;
    }
    if (strcmp(type, "gpt2") == 0 && !json_has(config, "n_ctx") &&
        json_has(config, "n_positions")) {
        return json_object_set(config, "n_ctx", json_object_get(config, "n_positions"));
    }
    static const struct {
        const char *begin; /* of a model_type */
        int (*mend)(json_t *config);
    } menders[] = {{"llama4", mend_llama4},
                   {"gemma4", mend_gemma4},
                   {"gemma3", mend_gemma3},
                   {"exaone4", mend_exaone4}};
    for (size_t i = 0; i < sizeof menders / sizeof menders[0]; i++) {
        if (strncmp(type, menders[i].begin, strlen(menders[i].begin)) == 0) {
            return menders[i].mend(config);
        }
    }
    return 0;
}

/* Names of text models alone, and what mlx-lm opens them by. */
static const struct {
    const char *text, *whole;
} text_names[] = {{"qwen3_5_text", "qwen3_5"}, {"qwen3_5_moe_text", "qwen3_5_moe"}};

int layouts_rename(json_t *config, bool whole) {
    const char *type = json_string_value(json_object_get(config, "model_type"));
    bool alone = !json_is_object(json_object_get(config, "text_config"));
    for (size_t i = 0; type && alone && i < sizeof text_names / sizeof text_names[0]; i++) {
        const char *from = whole ? text_names[i].text : text_names[i].whole;
        if (strcmp(type, from) == 0) {
            const char *to = whole ? text_names[i].whole : text_names[i].text;
            return json_object_set_new(config, "model_type", json_string(to));
        }
    }
    return 0;
}

int layouts_note(json_t *config, bool shifted, bool folded) {
    const char *type = json_string_value(json_object_get(config, "model_type"));
    int failed = 0;
    if (shifted) {
        failed |= json_object_set_new(config, "jang_norms_pre_shifted", json_true());
    }
    if (folded) {
        failed |= json_object_set_new(config, "jang_mup_folded", json_true());
    }
    return failed | (type ? add_wanted(config, type) : 0);
}
