/* checkpoint_shards.c - which files of a directory hold the weights. */
#include "format/checkpoint_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INDEX_NAME "model.safetensors.index.json"

/* A growing list of file names. */
typedef struct name_list {
    ctx_t *ctx;
    char **names;
    size_t n;
} name_list;

static void list_free(name_list *l) {
    directory_list_free(l->ctx, l->names, l->n);
}

static jang_status list_add(name_list *l, const char *name) {
    char **names = ctx_realloc(l->ctx, l->names, (l->n + 1) * sizeof *names);
    char *copy = names ? ctx_strdup(l->ctx, name) : NULL;
    l->names = names ? names : l->names;
    if (!copy) {
        return ctx_fail_memory(l->ctx, (l->n + 1) * sizeof *names);
    }
    names[l->n++] = copy;
    return JANG_OK;
}

static bool in_directory(const checkpoint *c, const char *name, bool *no_memory) {
    char *path = path_join(c->ctx, c->path, name);
    *no_memory = !path;
    bool found = path && file_exists(path);
    ctx_free(c->ctx, path);
    return found;
}

/* ---- Refusing what is older ---- */

static jang_status fail_v1(checkpoint *c, const char *because) {
    return ctx_fail(c->ctx, JANG_ERR_UNSUPPORTED,
                    "%s: this is a legacy JANG v1 model (%s); make a new one of it with: jang "
                    "upgrade",
                    c->path, because);
}

jang_status checkpoint_refuse_v1(checkpoint *c) {
    char **names;
    size_t n;
    jang_status status = directory_list(&names, &n, c->ctx, c->path);
    if (status != JANG_OK) {
        return status;
    }
    for (size_t i = 0; status == JANG_OK && i < n; i++) {
        if (strcmp(names[i], "model.jang.index.json") == 0 ||
            path_has_suffix(names[i], ".jang.safetensors")) {
            status = fail_v1(c, names[i]);
        }
    }
    directory_list_free(c->ctx, names, n);
    return status;
}

static jang_status refuse_v1_tensors(checkpoint *c) {
    for (size_t i = 0; i < c->n_files; i++) {
        const st_file *f = &c->files[i];
        for (size_t j = 0; j < f->n_tensors; j++) {
            if (f->tensors[j].type == DT_U8 && path_has_suffix(f->tensors[j].name, ".qweight")) {
                return fail_v1(c, f->tensors[j].name);
            }
        }
    }
    return JANG_OK;
}

/* ---- Shards by their index ---- */

/* Collects the file names of the index in the order of their first mention. */
static jang_status shards_of_map(name_list *out, checkpoint *c, json_t *map) {
    strmap seen;
    strmap_init(&seen, c->ctx);
    jang_status status = JANG_OK;
    const char *tensor;
    json_t *value;
    json_object_foreach(map, tensor, value) {
        const char *file = json_string_value(value);
        int32_t old = -1;
        if (!file || !path_is_plain_name(file)) {
            status = ctx_fail(c->ctx, JANG_ERR_FORMAT,
                              "%s/" INDEX_NAME ": tensor %s: \"%s\" is no file name in the "
                              "model's directory",
                              c->path, tensor, file ? file : "(not a string)");
        } else {
            status = strmap_put(&seen, file, strlen(file), 0, &old);
        }
        if (status == JANG_OK && old < 0) {
            status = list_add(out, file);
        }
        if (status != JANG_OK) {
            break;
        }
    }
    strmap_free(&seen);
    return status;
}

/* Names the first missing file, and how many are. */
static jang_status check_present(const checkpoint *c, const name_list *l, const char *who) {
    const char *missing = NULL;
    size_t n_missing = 0;
    for (size_t i = 0; i < l->n; i++) {
        bool no_memory;
        if (!in_directory(c, l->names[i], &no_memory)) {
            if (no_memory) {
                return ctx_fail_memory(c->ctx, strlen(c->path) + strlen(l->names[i]));
            }
            missing = missing ? missing : l->names[i];
            n_missing++;
        }
    }
    if (missing) {
        return ctx_fail(c->ctx, JANG_ERR_FORMAT,
                        "%s: missing shard %s (%zu of the %zu files that %s names are not there)",
                        c->path, missing, n_missing, l->n, who);
    }
    return JANG_OK;
}

static jang_status shards_of_index(name_list *out, checkpoint *c, const json_t *index) {
    const json_t *map;
    json_at at = {c->ctx, INDEX_NAME, index};
    jang_status status = json_get_object(&map, at, "weight_map");
    if (status == JANG_OK && !map) {
        status = ctx_fail(c->ctx, JANG_ERR_FORMAT, "%s/" INDEX_NAME ": no weight_map", c->path);
    }
    if (status == JANG_OK) {
        status = shards_of_map(out, c, json_object_get(index, "weight_map"));
    }
    return status == JANG_OK ? check_present(c, out, INDEX_NAME) : status;
}

/* Every tensor of the index must be in the file that the index says. */
static jang_status check_index(checkpoint *c, const json_t *index, const name_list *shards) {
    strmap where;
    strmap_init(&where, c->ctx);
    jang_status status = JANG_OK;
    for (size_t i = 0; i < c->n_files; i++) {
        for (size_t j = 0; status == JANG_OK && j < c->files[i].n_tensors; j++) {
            const char *name = c->files[i].tensors[j].name;
            status = strmap_put(&where, name, strlen(name), (int32_t)i, NULL);
        }
    }
    const char *tensor;
    json_t *value;
    json_object_foreach(json_object_get(index, "weight_map"), tensor, value) {
        int32_t i = strmap_get(&where, tensor, strlen(tensor));
        if (status == JANG_OK && (i < 0 || strcmp(shards->names[i], json_string_value(value)))) {
            status = ctx_fail(c->ctx, JANG_ERR_FORMAT,
                              "%s/" INDEX_NAME ": tensor %s is not in %s as the index says",
                              c->path, tensor, json_string_value(value));
        }
    }
    strmap_free(&where);
    return status;
}

/* ---- Files without an index ---- */

/* Of a name like model-00002-of-00005.safetensors: the part before the numbers and how many there
 * are; false for other names. */
static bool shard_pattern(const char *name, size_t *n_stem, int *n_shards) {
    static const char tail[] = "-00000-of-00000.safetensors";
    size_t n = strlen(name), m = sizeof tail - 1;
    if (n <= m) {
        return false;
    }
    const char *at = name + n - m;
    for (size_t i = 0; i < m; i++) {
        if (tail[i] == '0' ? (at[i] < '0' || at[i] > '9') : at[i] != tail[i]) {
            return false;
        }
    }
    *n_stem = n - m;
    *n_shards = (int)strtol(at + 10, NULL, 10);
    return true;
}

/* Where the names number themselves, all of them must be there. */
static jang_status check_numbering(const checkpoint *c, const name_list *l) {
    size_t n_stem;
    int n_shards;
    if (!l->n || !shard_pattern(l->names[0], &n_stem, &n_shards)) {
        return JANG_OK;
    }
    for (int i = 1; i <= n_shards; i++) {
        char name[512];
        bool no_memory;
        snprintf(name, sizeof name, "%.*s-%05d-of-%05d.safetensors", (int)n_stem, l->names[0], i,
                 n_shards);
        if (!in_directory(c, name, &no_memory)) {
            return no_memory ? ctx_fail_memory(c->ctx, sizeof name)
                             : ctx_fail(c->ctx, JANG_ERR_FORMAT,
                                        "%s: missing shard %s of %d (there is no index either)",
                                        c->path, name, n_shards);
        }
    }
    return JANG_OK;
}

/* model.safetensors alone if it is there, else model*.safetensors, else *.safetensors. */
static jang_status shards_of_listing(name_list *out, checkpoint *c) {
    char **names;
    size_t n;
    jang_status status = directory_list(&names, &n, c->ctx, c->path);
    if (status != JANG_OK) {
        return status;
    }
    for (int pass = 0; status == JANG_OK && pass < 3 && !out->n; pass++) {
        for (size_t i = 0; status == JANG_OK && i < n; i++) {
            bool wanted = pass == 0   ? strcmp(names[i], "model.safetensors") == 0
                          : pass == 1 ? strncmp(names[i], "model", 5) == 0 &&
                                            path_has_suffix(names[i], ".safetensors")
                                      : path_has_suffix(names[i], ".safetensors");
            if (wanted) {
                status = list_add(out, names[i]);
            }
        }
    }
    directory_list_free(c->ctx, names, n);
    if (status == JANG_OK && !out->n) {
        status =
            ctx_fail(c->ctx, JANG_ERR_FORMAT,
                     "%s: no weights, a model directory must have *.safetensors files", c->path);
    }
    return status == JANG_OK ? check_numbering(c, out) : status;
}

/* ---- Opening them ---- */

static jang_status open_files(checkpoint *c, const name_list *l) {
    c->files = ctx_zero(c->ctx, l->n, sizeof *c->files);
    if (!c->files) {
        return ctx_fail_memory(c->ctx, l->n * sizeof *c->files);
    }
    for (size_t i = 0; i < l->n; i++) {
        char *path = path_join(c->ctx, c->path, l->names[i]);
        jang_status status = path ? st_open(&c->files[i], c->ctx, path)
                                  : ctx_fail_memory(c->ctx, strlen(c->path) + 2);
        ctx_free(c->ctx, path);
        if (status != JANG_OK) {
            return status;
        }
        c->n_files++;
    }
    return refuse_v1_tensors(c);
}

jang_status checkpoint_open_shards(checkpoint *c) {
    name_list list = {.ctx = c->ctx};
    const json_t *index;
    jang_status status = checkpoint_json(&index, c, INDEX_NAME);
    if (status != JANG_OK) {
        return status;
    }
    status = index ? shards_of_index(&list, c, index) : shards_of_listing(&list, c);
    if (status == JANG_OK) {
        status = open_files(c, &list);
    }
    if (status == JANG_OK && index) {
        status = check_index(c, index, &list);
    }
    list_free(&list);
    return status;
}
