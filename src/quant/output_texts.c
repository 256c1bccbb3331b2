/* output_texts.c - config.json, jang_config.json and the other small files of a conversion's
 * output.
 */
#include "quant/output_texts.h"

#include "base/file.h"
#include "base/json.h"
#include "format/jang_config.h"
#include "format/sentence_modules.h"
#include "quant/hub_config.h"
#include "quant/layouts.h"

#include <string.h>

/* ---- config.json and jang_config.json ---- */

/* Modules of the plan with names that live as long as names_out. */
static jang_status list_modules(quant_module **out, buf *names_out, const output_texts *t) {
    size_t n = t->plan->n_items;
    quant_module *modules = ctx_zero(t->from->ctx, n + 1, sizeof *modules);
    size_t *at = ctx_array(t->from->ctx, n + 1, sizeof *at);
    jang_status status =
        modules && at ? JANG_OK : ctx_fail_memory(t->from->ctx, n * sizeof *modules);
    for (size_t i = 0; i < n && status == JANG_OK; i++) {
        const char *name = t->plan->items[i].part->name;
        size_t length = strlen(name);
        bool is_weight = path_has_suffix(name, ".weight");
        at[i] = names_out->size;
        buf_put(names_out, name, is_weight ? length - strlen(".weight") : length);
        buf_putc(names_out, 0);
    }
    if (status == JANG_OK) {
        status = buf_status(names_out);
    }
    for (size_t i = 0; i < n && status == JANG_OK; i++) {
        const plan_item *item = &t->plan->items[i];
        modules[i] = (quant_module){.module = names_out->data + at[i],
                                    .bits = item->bits,
                                    .group = item->group,
                                    .n_weights = item->part->params};
    }
    ctx_free(t->from->ctx, at);
    if (status != JANG_OK) {
        ctx_free(t->from->ctx, modules);
        return status;
    }
    *out = modules;
    return JANG_OK;
}

static const char *torch_name(dtype type) {
    static const char *const names[DT_COUNT] = {
        [DT_F32] = "float32", [DT_F16] = "float16", [DT_BF16] = "bfloat16"};
    return names[type] ? names[type] : dtype_table[type].name;
}

/* The type of most of the source's parameters: "bfloat16", "Q4_1". */
static dtype source_type(const output_texts *t) {
    int64_t params[DT_COUNT] = {0};
    dtype most = DT_F32;
    for (size_t i = 0; i < t->from->n_kept; i++) {
        dtype type = t->from->kept[i]->weight->type;
        params[type] += t->from->kept[i]->params;
        most = params[type] > params[most] ? type : most;
    }
    return most;
}

/* Newer configs keep RoPE's settings in "rope_parameters" alone, which mlx-lm does not read. */
static int add_old_rope_keys(json_t *config) {
    const json_t *rope = json_object_get(config, "rope_parameters");
    if (!json_is_object(rope)) {
        return 0;
    }
    int failed = 0;
    json_t *theta = json_object_get(rope, "rope_theta");
    if (json_is_number(theta) && !json_has(config, "rope_theta")) {
        failed |= json_object_set(config, "rope_theta", theta);
    }
    const char *type = json_string_value(json_object_get(rope, "rope_type"));
    if (type && strcmp(type, "default") != 0 && !json_has(config, "rope_scaling")) {
        failed |= json_object_set_new(config, "rope_scaling", json_deep_copy(rope));
    }
    return failed;
}

/* Names that transformers gives a number in newer configs, and those that mlx-lm reads. */
static int add_old_names(json_t *config) {
    static const struct {
        const char *model_type, *newer, *older;
    } names[] = {
        {"qwen3_moe", "num_local_experts", "num_experts"},
        {"qwen2_moe", "num_local_experts", "num_experts"},
        {"olmoe", "num_local_experts", "num_experts"},
    };
    const char *type = json_string_value(json_object_get(config, "model_type"));
    int failed = 0;
    for (size_t i = 0; type && i < sizeof names / sizeof names[0]; i++) {
        json_t *value = json_object_get(config, names[i].newer);
        if (value && strcmp(names[i].model_type, type) == 0 && !json_has(config, names[i].older)) {
            failed |= json_object_set(config, names[i].older, value);
        }
    }
    return failed;
}

static jang_status write_json(const output_texts *t, const char *name, const json_t *value) {
    buf text;
    buf_init(&text, t->from->ctx, BUF_NO_LIMIT);
    json_write_python(&text, value, 4);
    buf_putc(&text, '\n');
    jang_status status = buf_status(&text);
    char *path = path_join(t->from->ctx, t->directory, name);
    if (status == JANG_OK && !path) {
        status = ctx_fail_memory(t->from->ctx, text.size);
    }
    if (status == JANG_OK) {
        status = file_write(t->from->ctx, path, text.data, text.size);
    }
    ctx_free(t->from->ctx, path);
    buf_free(&text);
    return status;
}

static jang_status write_config(const output_texts *t, const quant_module *modules) {
    int bits, group;
    jang_config_commonest(&bits, &group, modules, t->plan->n_items);
    json_t *config = NULL;
    jang_status status = jang_config_quantized(&config, t->from->ctx, t->from->config, modules,
                                               t->plan->n_items, bits, group);
    if (status != JANG_OK) {
        return status;
    }
    if (t->from->hub_names) {
        status = hub_config(&config, t->from);
        if (status != JANG_OK) {
            json_decref(config);
            return status;
        }
    }
    json_object_del(config, "_name_or_path");
    int failed =
        json_object_set_new(config, "tie_word_embeddings", json_boolean(t->from->model.tied));
    failed |= t->from->hub_names ? 0 : layouts_rename(config, true);
    failed |= add_old_rope_keys(config);
    failed |= add_old_names(config);
    failed |= layouts_note(config, t->from->norms_shifted, t->from->folded);
    if (t->profile->kind == PROFILE_FLOAT) {
        const char *key = json_has(config, "dtype") ? "dtype" : "torch_dtype";
        failed |= json_object_set_new(config, key, json_string(torch_name(t->profile->type)));
    }
    status = failed ? ctx_fail_memory(t->from->ctx, 64) : write_json(t, "config.json", config);
    json_decref(config);
    return status;
}

static jang_status write_jang_config(const output_texts *t, const quant_module *modules) {
    char *name = path_base(t->from->ctx, t->from->path);
    if (!name) {
        return ctx_fail_memory(t->from->ctx, strlen(t->from->path));
    }
    jang_config_facts facts = {.method = t->all_kept ? "kept" : t->method,
                               .profile = t->plan->profile,
                               .target_bits = t->profile->target > 0 && !t->all_kept
                                                  ? t->profile->target
                                                  : t->plan->totals.nominal_bits,
                               .actual_bits = t->plan->totals.nominal_bits,
                               .block_size = t->plan->group,
                               .source_name = name,
                               .source_dtype = torch_name(source_type(t)),
                               .n_params = t->plan->totals.params,
                               .weight_bytes = t->plan->totals.bytes};
    json_t *json = NULL;
    jang_status status = jang_config_make(&json, t->from->ctx, &facts, modules, t->plan->n_items);
    if (status == JANG_OK) {
        status = write_json(t, "jang_config.json", json);
        json_decref(json);
    }
    ctx_free(t->from->ctx, name);
    return status;
}

/* Tokenizer and templates, jang_config.json, config.json: the last one makes it a model. */
jang_status output_texts_write(const output_texts *t) {
    quant_module *modules = NULL;
    buf module_names;
    buf_init(&module_names, t->from->ctx, BUF_NO_LIMIT);
    jang_status status = checkpoint_copy_texts(t->from->checkpoint, t->directory);
    if (status == JANG_OK) {
        status = sentence_modules_copy(t->from->checkpoint, t->directory);
    }
    if (status == JANG_OK) {
        status = list_modules(&modules, &module_names, t);
    }
    if (status == JANG_OK && t->profile->kind != PROFILE_FLOAT) {
        status = write_jang_config(t, modules);
    }
    if (status == JANG_OK) {
        status = write_config(t, modules);
    }
    ctx_free(t->from->ctx, modules);
    buf_free(&module_names);
    return status;
}
