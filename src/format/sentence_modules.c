/* sentence_modules.c - reading and copying the files of sentence-transformers. */
#include "format/sentence_modules.h"

#include "base/file.h"
#include "format/checkpoint_impl.h"

#include <stdio.h>
#include <string.h>

#define MODULES_MAX 16
#define POOLING "1_Pooling"

/* Ways of pooling by their names in "pooling_mode" and their keys, the older form. */
static const struct {
    const char *name, *key;
    int pooling; /* -1: not known here */
} modes[] = {
    {"cls", "pooling_mode_cls_token", SENTENCE_FIRST},
    {"mean", "pooling_mode_mean_tokens", SENTENCE_MEAN},
    {"lasttoken", "pooling_mode_lasttoken", SENTENCE_LAST},
    {"max", "pooling_mode_max_tokens", -1},
    {"mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens", -1},
    {"weightedmean", "pooling_mode_weightedmean_tokens", -1},
};

#define N_MODES (sizeof modes / sizeof modes[0])

static jang_status refuse_pooling(json_at at, const char *mode) {
    return ctx_fail(at.ctx, JANG_ERR_UNSUPPORTED,
                    "%s: %s is not supported; pooling is by one of cls_token, mean_tokens and "
                    "lasttoken",
                    at.what, mode);
}

static jang_status pool_by(sentence_modules *m, json_at at, int pooling, const char *mode) {
    if (pooling < 0 || m->found) {
        return refuse_pooling(at, mode);
    }
    m->pooling = (sentence_pooling)pooling;
    m->found = true;
    return JANG_OK;
}

/* Without any key the reference takes the mean. */
static jang_status read_flags(sentence_modules *m, json_at at) {
    bool any = false;
    for (size_t i = 0; i < N_MODES; i++) {
        bool wanted = false;
        any = any || json_has(at.object, modes[i].key);
        jang_status status = json_get_bool(&wanted, at, modes[i].key, false);
        if (status == JANG_OK && wanted) {
            status = pool_by(m, at, modes[i].pooling, modes[i].key);
        }
        if (status != JANG_OK) {
            return status;
        }
    }
    if (!m->found && any) {
        return ctx_fail(at.ctx, JANG_ERR_FORMAT, "%s: no way of pooling is true", at.what);
    }
    return m->found ? JANG_OK : pool_by(m, at, SENTENCE_MEAN, "mean");
}

static jang_status read_pooling(sentence_modules *m, checkpoint *c, const char *path, bool needed) {
    char name[SENTENCE_PATH_BYTES + 16];
    snprintf(name, sizeof name, "%s/config.json", path);
    const json_t *config;
    const char *mode = NULL;
    jang_status status = checkpoint_json(&config, c, name);
    if (status == JANG_OK && !config) {
        return needed ? ctx_fail(c->ctx, JANG_ERR_FORMAT, "modules.json: %s is missing", name)
                      : JANG_OK;
    }
    json_at at = {c->ctx, name, config};
    if (status == JANG_OK) {
        status = json_get_string(&mode, at, "pooling_mode", NULL);
    }
    if (status != JANG_OK || !mode) {
        return status == JANG_OK ? read_flags(m, at) : status;
    }
    for (size_t i = 0; i < N_MODES; i++) {
        if (strcmp(modes[i].name, mode) == 0) {
            return pool_by(m, at, modes[i].pooling, mode);
        }
    }
    return refuse_pooling(at, mode);
}

static jang_status read_activation(sentence_dense *d, json_at at) {
    const char *name;
    jang_status status = json_get_string(&name, at, "activation_function", "Tanh");
    const char *last = status == JANG_OK ? strrchr(name, '.') : NULL;
    last = last ? last + 1 : name;
    if (status == JANG_OK && strcmp(last, "Tanh") != 0 && strcmp(last, "Identity") != 0) {
        status = ctx_fail(at.ctx, JANG_ERR_UNSUPPORTED,
                          "%s: activation_function %s is not supported; Tanh and Identity are",
                          at.what, name);
    }
    if (status == JANG_OK) {
        d->is_tanh = strcmp(last, "Tanh") == 0;
    }
    return status;
}

static jang_status read_dense(sentence_modules *m, checkpoint *c, const char *path) {
    char name[SENTENCE_PATH_BYTES + 16];
    snprintf(name, sizeof name, "%s/config.json", path);
    ctx_t *ctx = c->ctx;
    if (m->n_dense == SENTENCE_DENSE_MAX) {
        return ctx_fail(ctx, JANG_ERR_UNSUPPORTED, "modules.json: more than %d Dense modules",
                        SENTENCE_DENSE_MAX);
    }
    sentence_dense *d = &m->dense[m->n_dense];
    const json_t *config;
    jang_status status = checkpoint_json(&config, c, name);
    json_at at = {ctx, name, config};
    snprintf(d->path, sizeof d->path, "%s", path);
    if (status == JANG_OK) {
        status = json_get_int(&d->n_in, at, "in_features", 0, 1, 1 << 20);
    }
    if (status == JANG_OK) {
        status = json_get_int(&d->n_out, at, "out_features", 0, 1, 1 << 20);
    }
    if (status == JANG_OK && (d->n_in < 1 || d->n_out < 1)) {
        status = ctx_fail(ctx, JANG_ERR_FORMAT, "%s: in_features or out_features is missing", name);
    }
    if (status == JANG_OK) {
        status = json_get_bool(&d->has_bias, at, "bias", true);
    }
    if (status == JANG_OK) {
        status = read_activation(d, at);
    }
    m->n_dense += status == JANG_OK;
    return status;
}

/* The last part of "sentence_transformers.models.Pooling" decides. */
static jang_status read_module(sentence_modules *m, checkpoint *c, const json_t *entry) {
    const char *type = json_string_value(json_object_get(entry, "type"));
    const char *path = json_string_value(json_object_get(entry, "path"));
    const char *kind = type ? strrchr(type, '.') : NULL;
    kind = kind ? kind + 1 : type ? type : "";
    bool needs_path = strcmp(kind, "Pooling") == 0 || strcmp(kind, "Dense") == 0;
    if (needs_path && (!path || !path_is_plain_name(path) || strlen(path) >= SENTENCE_PATH_BYTES)) {
        return ctx_fail(c->ctx, JANG_ERR_FORMAT,
                        "modules.json: the path of %s is not the name of a directory", kind);
    }
    if (strcmp(kind, "Pooling") == 0) {
        return read_pooling(m, c, path, true);
    }
    if (strcmp(kind, "Dense") == 0) {
        return read_dense(m, c, path);
    }
    if (strcmp(kind, "Transformer") == 0 || strcmp(kind, "Normalize") == 0) {
        return JANG_OK;
    }
    return ctx_fail(c->ctx, JANG_ERR_UNSUPPORTED,
                    "modules.json: %s is not supported; supported are Transformer, Pooling, Dense, "
                    "Normalize",
                    *kind ? kind : "a module without a type");
}

/* *out is NULL where there is no modules.json. */
static jang_status read_list(json_t **out, checkpoint *c) {
    const char *text;
    size_t n;
    *out = NULL;
    jang_status status = checkpoint_text(&text, &n, c, "modules.json");
    if (status == JANG_OK && text) {
        status = json_parse(out, c->ctx, "modules.json", text, n);
    }
    if (status == JANG_OK && *out &&
        (!json_is_array(*out) || json_array_size(*out) > MODULES_MAX)) {
        json_decref(*out);
        *out = NULL;
        status = ctx_fail(c->ctx, JANG_ERR_FORMAT,
                          "modules.json: expected an array of up to %d modules", MODULES_MAX);
    }
    return status;
}

jang_status sentence_modules_read(sentence_modules *out, checkpoint *c) {
    sentence_modules m = {0};
    json_t *list;
    jang_status status = read_list(&list, c);
    if (status == JANG_OK && !list) {
        status = read_pooling(&m, c, POOLING, false);
    }
    for (size_t i = 0; status == JANG_OK && i < json_array_size(list); i++) {
        status = read_module(&m, c, json_array_get(list, i));
    }
    json_decref(list);
    if (status == JANG_OK) {
        *out = m;
    }
    return status;
}

/* ---- Copying ---- */

static jang_status copy_file(ctx_t *ctx, const char *from, const char *to, const char *name) {
    char *source = path_join(ctx, from, name), *target = path_join(ctx, to, name), *data = NULL;
    size_t n = 0;
    jang_status status = source && target ? JANG_OK : ctx_fail_memory(ctx, strlen(from));
    if (status == JANG_OK) {
        status = file_read(&data, &n, ctx, source, (size_t)1 << 30);
    }
    if (status == JANG_OK) {
        status = file_write(ctx, target, data, n);
    }
    ctx_free(ctx, data);
    ctx_free(ctx, source);
    ctx_free(ctx, target);
    return status;
}

/* config.json and weights of one module's directory. */
static jang_status copy_module(checkpoint *c, const char *path, const char *directory) {
    static const char *const names[] = {"config.json", "model.safetensors"};
    ctx_t *ctx = c->ctx;
    char *from = path_join(ctx, checkpoint_path(c), path), *to = path_join(ctx, directory, path);
    jang_status status = from && to ? JANG_OK : ctx_fail_memory(ctx, strlen(path));
    if (status == JANG_OK && file_is_directory(from)) {
        status = directory_make(ctx, to);
        for (size_t i = 0; status == JANG_OK && i < sizeof names / sizeof names[0]; i++) {
            char *name = path_join(ctx, from, names[i]);
            bool there = name && file_exists(name);
            ctx_free(ctx, name);
            status = there ? copy_file(ctx, from, to, names[i]) : JANG_OK;
        }
    }
    ctx_free(ctx, from);
    ctx_free(ctx, to);
    return status;
}

jang_status sentence_modules_copy(checkpoint *c, const char *directory) {
    json_t *list;
    if (checkpoint_get_kind(c) != CHECKPOINT_DIRECTORY) {
        return JANG_OK;
    }
    jang_status status = read_list(&list, c);
    if (status == JANG_OK && !list) {
        status = copy_module(c, POOLING, directory);
    }
    for (size_t i = 0; status == JANG_OK && i < json_array_size(list); i++) {
        const char *path = json_string_value(json_object_get(json_array_get(list, i), "path"));
        if (path && *path && path_is_plain_name(path)) {
            status = copy_module(c, path, directory);
        }
    }
    json_decref(list);
    return status;
}
