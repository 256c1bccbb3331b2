/* inspect.c - what is in a model, as JSON, without loading it.
 *
 * Nothing but headers and small files is read. Works for any architecture: roles come from the
 * tensors' names alone. */
#include "base/file.h"
#include "quant/plan.h"

#include <stdio.h>
#include <string.h>

typedef struct inspection {
    ctx_t *ctx;
    const char *path;
    checkpoint *model;
    const json_t *config, *jang_config; /* the latter NULL if there is none */
    part_list parts;
    quant_plan plan;
} inspection;

/* ---- Facts ---- */

/* What the model calls itself, or what it is: "4-bit", "mixed", "bf16", "Q4_1". */
static void name_profile(char *out, size_t n_bytes, const inspection *in) {
    const json_t *section = json_object_get(in->jang_config, "quantization");
    const char *said = json_string_value(json_object_get(section, "profile"));
    if (said) {
        snprintf(out, n_bytes, "%s", said);
        return;
    }
    int bits = 0;
    int64_t params[DT_COUNT] = {0};
    dtype most = DT_F32;
    for (size_t i = 0; i < in->parts.n_parts; i++) {
        const model_part *part = &in->parts.parts[i];
        if (part->bits) {
            bits = bits == 0 || bits == part->bits ? part->bits : -1;
        } else {
            params[part->weight->type] += part->params;
            most = params[part->weight->type] > params[most] ? part->weight->type : most;
        }
    }
    if (bits > 0) {
        snprintf(out, n_bytes, "%d-bit", bits);
    } else {
        static const char *const plain[DT_COUNT] = {
            [DT_F32] = "f32", [DT_F16] = "f16", [DT_BF16] = "bf16"};
        snprintf(out, n_bytes, "%s",
                 bits < 0      ? "mixed"
                 : plain[most] ? plain[most]
                               : dtype_table[most].name);
    }
}

static int add_file(json_t *files, ctx_t *ctx, const char *directory, const char *name) {
    char *path = directory ? path_join(ctx, directory, name) : ctx_strdup(ctx, name);
    char *base = path_base(ctx, name);
    int failed =
        !path || !base ||
        json_array_append_new(files, json_pack("{s:o, s:I}", "name", json_repaired(ctx, base),
                                               "bytes", (json_int_t)file_size(path))) != 0;
    ctx_free(ctx, path);
    ctx_free(ctx, base);
    return failed;
}

static jang_status list_files(json_t *files, const inspection *in) {
    if (checkpoint_get_kind(in->model) != CHECKPOINT_DIRECTORY) {
        return add_file(files, in->ctx, NULL, in->path) ? ctx_fail_memory(in->ctx, 64) : JANG_OK;
    }
    char **names;
    size_t n;
    int failed = 0;
    jang_status status = directory_list(&names, &n, in->ctx, in->path);
    if (status != JANG_OK) {
        return status;
    }
    for (size_t i = 0; i < n; i++) {
        failed |= add_file(files, in->ctx, in->path, names[i]);
    }
    directory_list_free(in->ctx, names, n);
    return failed ? ctx_fail_memory(in->ctx, n * 64) : JANG_OK;
}

/* ---- Tensors ---- */

static json_t *describe_tensor(const plan_item *item) {
    const model_part *part = item->part;
    const role_info *role = role_get_info(part->role);
    const dtype_info *info = &dtype_table[part->weight->type];
    json_t *shape = json_array();
    int failed = !shape;
    for (int i = 0; i < part->n_dim; i++) {
        failed |= json_array_append_new(shape, json_integer(part->shape[i]));
    }
    json_t *bits = item->bits ? json_integer(item->bits)
                   : info->block == 1
                       ? json_integer(8 * info->block_bytes)
                       : json_real(8.0 * (double)info->block_bytes / (double)info->block);
    json_t *out = json_pack("{s:s, s:s, s:s, s:o, s:s, s:o, s:I, s:I}", "name", part->name, "role",
                            role->name, "tier", tier_name(role->tier), "bits", bits, "dtype",
                            info->name, "shape", shape, "params", (json_int_t)part->params, "bytes",
                            (json_int_t)part->n_bytes);
    if (out && item->bits) {
        failed |= json_object_set_new(out, "group_size", json_integer(item->group));
        failed |=
            json_object_set_new(out, "scales", json_string(dtype_table[part->scales->type].name));
    }
    if (failed) {
        json_decref(out);
        return NULL;
    }
    return out;
}

static jang_status describe_tensors(json_t *array, const inspection *in) {
    for (size_t i = 0; i < in->plan.n_items; i++) {
        if (json_array_append_new(array, describe_tensor(&in->plan.items[i])) != 0) {
            return ctx_fail_memory(in->ctx, 256);
        }
    }
    return JANG_OK;
}

/* ---- The whole ---- */

static jang_status describe(json_t *out, const inspection *in) {
    static const char *const kinds[] = {[CHECKPOINT_DIRECTORY] = "safetensors",
                                        [CHECKPOINT_JANG_FILE] = "jang",
                                        [CHECKPOINT_GGUF] = "gguf"};
    const char *family = json_string_value(json_object_get(in->config, "model_type"));
    json_t *files = json_array(), *tensors = json_array();
    jang_status status = files && tensors ? JANG_OK : ctx_fail_memory(in->ctx, 64);
    if (status == JANG_OK &&
        (json_object_set_new(out, "path", json_repaired(in->ctx, in->path)) != 0 ||
         json_object_set_new(out, "container",
                             json_string(kinds[checkpoint_get_kind(in->model)])) != 0 ||
         json_object_set_new(out, "family", json_string(family ? family : "")) != 0)) {
        status = ctx_fail_memory(in->ctx, strlen(in->path) + 256);
    }
    if (status == JANG_OK) {
        status = plan_to_json(out, &in->plan);
    }
    if (status == JANG_OK) {
        status = list_files(files, in);
    }
    if (status == JANG_OK) {
        status = describe_tensors(tensors, in);
    }
    if (status == JANG_OK && (json_object_set(out, "files", files) != 0 ||
                              json_object_set(out, "config", (json_t *)in->config) != 0 ||
                              json_object_set(out, "tensors", tensors) != 0)) {
        status = ctx_fail_memory(in->ctx, 64);
    }
    json_decref(files);
    json_decref(tensors);
    return status;
}

static jang_status open_all(inspection *in) {
    jang_status status = checkpoint_open(&in->model, in->ctx, in->path, 0);
    if (status == JANG_OK) {
        status = checkpoint_json(&in->config, in->model, "config.json");
    }
    if (status == JANG_OK) {
        status = checkpoint_json(&in->jang_config, in->model, "jang_config.json");
    }
    if (status == JANG_OK) {
        status = part_list_make(&in->parts, in->ctx, in->model);
    }
    if (status == JANG_OK) {
        char name[32];
        name_profile(name, sizeof name, in);
        status = plan_of_stored(&in->plan, in->ctx, name, &in->parts);
    }
    return status;
}

jang_status jang_inspect(char **json, size_t *n_bytes, jang_context *ctx, const char *path) {
    inspection in = {.ctx = ctx, .path = path};
    buf text;
    buf_init(&text, ctx, BUF_NO_LIMIT);
    json_t *root = json_object();
    jang_status status = root ? open_all(&in) : ctx_fail_memory(ctx, 64);
    if (status == JANG_OK) {
        status = describe(root, &in);
    }
    if (status == JANG_OK) {
        json_write(&text, root, 2);
        status = buf_take(&text, json, n_bytes);
    }
    buf_free(&text);
    json_decref(root);
    plan_free(&in.plan);
    part_list_free(&in.parts);
    checkpoint_close(in.model);
    return status;
}
