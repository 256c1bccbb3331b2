/* checkpoint_config.c - what a model's small files say: its chat template and its quantization. */
#include "format/affine.h"
#include "format/checkpoint_impl.h"

#include <stdio.h>
#include <string.h>

/* ---- Chat template ---- */

/* A template, or of a list of {"name", "template"} the one named default. */
static const json_t *pick_template(const json_t *value) {
    if (json_is_string(value)) {
        return value;
    }
    const json_t *found = NULL;
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *one = json_array_get(value, i);
        const char *name = json_string_value(json_object_get(one, "name"));
        const json_t *text = json_object_get(one, "template");
        if (json_is_string(text) && (!found || (name && strcmp(name, "default") == 0))) {
            found = text;
        }
    }
    return found;
}

jang_status checkpoint_chat_template(const char **text, size_t *n_bytes, checkpoint *c) {
    static const char *const files[] = {"chat_template.json", "tokenizer_config.json"};
    const char *found;
    size_t n;
    jang_status status = checkpoint_text(&found, &n, c, "chat_template.jinja");
    for (size_t i = 0; status == JANG_OK && !found && i < 2; i++) {
        const json_t *json;
        status = checkpoint_json(&json, c, files[i]);
        const json_t *value =
            status == JANG_OK ? pick_template(json_object_get(json, "chat_template")) : NULL;
        if (value) {
            found = json_string_value(value);
            n = json_string_length(value);
        }
    }
    if (status == JANG_OK) {
        *text = found;
        *n_bytes = found ? n : 0;
    }
    return status;
}

/* ---- Quantization ---- */

/* config.json's section in MLX's form; a "quantization_config" with a quant_method is another
 * library's. */
static const json_t *find_section(const json_t *config) {
    static const char *const names[] = {"quantization", "quantization_config"};
    for (int i = 0; i < 2; i++) {
        const json_t *section = json_object_get(config, names[i]);
        if (json_is_object(section) && !json_has(section, "quant_method")) {
            return section;
        }
    }
    return NULL;
}

/* Multimodal wrappers write "language_model." before a module's name, behind its "model." or not at
 * all: "language_model.model.layers..", "model.language_model.layers..", "model.layers..". */
static jang_status find_entry(const json_t **out, ctx_t *ctx, const json_t *section,
                              const char *module) {
    static const char *const prefixes[] = {"language_model.model.", "model.language_model.",
                                           "model."};
    *out = json_object_get(section, module);
    const char *rest = NULL;
    for (size_t i = 0; !rest && i < sizeof prefixes / sizeof prefixes[0]; i++) {
        size_t n = strlen(prefixes[i]);
        rest = strncmp(module, prefixes[i], n) == 0 ? module + n : NULL;
    }
    buf name;
    buf_init(&name, ctx, BUF_NO_LIMIT);
    for (size_t i = 0; !*out && rest && i < sizeof prefixes / sizeof prefixes[0]; i++) {
        buf_clear(&name);
        buf_puts(&name, prefixes[i]);
        buf_puts(&name, rest);
        *out = json_object_get(section, name.data);
    }
    if (!*out && !rest) { /* lm_head */
        static const char before[] = "language_model.";
        size_t n = sizeof before - 1;
        buf_clear(&name);
        buf_puts(&name, strncmp(module, before, n) == 0 ? "" : before);
        buf_puts(&name, strncmp(module, before, n) == 0 ? module + n : module);
        *out = json_object_get(section, name.data);
    }
    jang_status status = buf_status(&name);
    buf_free(&name);
    return status;
}

static jang_status read_pair(int *bits, int *group, json_at at, int fallback_bits,
                             int fallback_group) {
    int64_t b, g;
    const char *mode;
    jang_status status = json_get_int(&b, at, "bits", fallback_bits, INT32_MIN, INT32_MAX);
    if (status == JANG_OK) {
        status = json_get_int(&g, at, "group_size", fallback_group, INT32_MIN, INT32_MAX);
    }
    if (status == JANG_OK) {
        status = json_get_string(&mode, at, "mode", "affine");
    }
    if (status != JANG_OK) {
        return status;
    }
    if (strcmp(mode, "affine") != 0) {
        return ctx_fail(at.ctx, JANG_ERR_UNSUPPORTED,
                        "%s: quantization mode \"%.40s\", only \"affine\" can be read", at.what,
                        mode);
    }
    if (!affine_bits_ok((int)b) || !affine_group_ok((int)g)) {
        return ctx_fail(at.ctx, JANG_ERR_FORMAT,
                        "%s: %lld bits in groups of %lld; bits may be 2, 3, 4, 5, 6 or 8, groups "
                        "32, 64 or 128",
                        at.what, (long long)b, (long long)g);
    }
    *bits = (int)b;
    *group = (int)g;
    return JANG_OK;
}

jang_status checkpoint_quantization(int *bits, int *group, checkpoint *c, const char *module) {
    const json_t *config, *entry;
    int32_t form = strmap_get(&c->forms, module, strlen(module));
    if (form >= 0) { /* a v1 model says it beside the matrix */
        *bits = form >> 8;
        *group = form & 255;
        return JANG_OK;
    }
    jang_status status = checkpoint_json(&config, c, "config.json");
    if (status != JANG_OK) {
        return status;
    }
    const json_t *section = find_section(config);
    section = section ? section : find_section(json_object_get(config, "text_config"));
    if (!section) {
        *bits = *group = 0;
        return JANG_OK;
    }
    char what[256];
    snprintf(what, sizeof what, "config.json: quantization: %.200s", module);
    status = find_entry(&entry, c->ctx, section, module);
    if (status == JANG_OK && json_is_false(entry)) {
        *bits = *group = 0;
        return JANG_OK;
    }
    if (status == JANG_OK && entry && !json_is_object(entry) && !json_is_true(entry) &&
        !json_is_null(entry)) {
        status = ctx_fail(c->ctx, JANG_ERR_FORMAT, "%s: expected an object, true or false", what);
    }
    int b, g;
    if (status == JANG_OK) {
        json_at at = {c->ctx, "config.json: quantization", section};
        status = read_pair(&b, &g, at, 4, 64);
    }
    if (status == JANG_OK && json_is_object(entry)) {
        json_at at = {c->ctx, what, entry};
        status = read_pair(&b, &g, at, b, g);
    }
    if (status != JANG_OK) {
        return ctx_prefix(c->ctx, status, "%s", c->path);
    }
    *bits = b;
    *group = g;
    return JANG_OK;
}
