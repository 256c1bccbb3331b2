/* checkpoint_shards.c - which files of a directory hold the weights. */
#include "format/checkpoint_impl.h"
#include "format/shard_index.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static jang_status shards_of_index(name_list *out, checkpoint *c, const shard_index *index) {
    jang_status status = JANG_OK;
    for (size_t i = 0; status == JANG_OK && i < index->n_files; i++) {
        status = list_add(out, index->files[i]);
    }
    return status == JANG_OK ? check_present(c, out, SHARD_INDEX_NAME) : status;
}

/* Names the first tensor of the index that is not in its file. */
static jang_status fail_index(checkpoint *c, const shard_index *index) {
    strmap met; /* the tensors that are where the index says */
    strmap_init(&met, c->ctx);
    jang_status status = JANG_OK;
    for (size_t i = 0; i < c->n_files; i++) {
        for (size_t j = 0; status == JANG_OK && j < c->files[i].n_tensors; j++) {
            const char *name = c->files[i].tensors[j].name;
            if (strmap_get(&index->file_of, name, strlen(name)) == (int32_t)i) {
                status = strmap_put(&met, name, strlen(name), 0, NULL);
            }
        }
    }
    const char *name = index->names, *end = index->names + index->n_names_bytes;
    while (name < end && strmap_get(&met, name, strlen(name)) >= 0) {
        name += strlen(name) + 1;
    }
    strmap_free(&met);
    if (status != JANG_OK) {
        return status;
    }
    name = name < end ? name : "";
    int32_t i = strmap_get(&index->file_of, name, strlen(name));
    return ctx_fail(c->ctx, JANG_ERR_FORMAT,
                    "%s/" SHARD_INDEX_NAME ": tensor %s is not in %s as the index says", c->path,
                    name, i < 0 ? "any file" : index->files[i]);
}

/* Every tensor of the index must be in the file that the index says: the files' tensors are counted
 * off against it. */
static jang_status check_index(checkpoint *c, const shard_index *index) {
    size_t n_met = 0;
    for (size_t i = 0; i < c->n_files; i++) {
        for (size_t j = 0; j < c->files[i].n_tensors; j++) {
            const char *name = c->files[i].tensors[j].name;
            n_met += strmap_get(&index->file_of, name, strlen(name)) == (int32_t)i;
        }
    }
    return n_met == index->file_of.n_entries ? JANG_OK : fail_index(c, index);
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
    return c->flags & CHECKPOINT_V1 ? JANG_OK : refuse_v1_tensors(c);
}

static jang_status read_index(shard_index *out, bool *found, checkpoint *c) {
    const char *text;
    size_t n;
    jang_status status = checkpoint_text(&text, &n, c, SHARD_INDEX_NAME);
    *found = status == JANG_OK && text;
    if (*found) {
        char *path = path_join(c->ctx, c->path, SHARD_INDEX_NAME);
        status = path ? shard_index_parse(out, c->ctx, path, text, n)
                      : ctx_fail_memory(c->ctx, strlen(c->path) + sizeof SHARD_INDEX_NAME);
        ctx_free(c->ctx, path);
    }
    return status;
}

jang_status checkpoint_open_shards(checkpoint *c) {
    name_list list = {.ctx = c->ctx};
    shard_index index = {0};
    bool found;
    jang_status status = read_index(&index, &found, c);
    if (status == JANG_OK) {
        status = found ? shards_of_index(&list, c, &index) : shards_of_listing(&list, c);
    }
    if (status == JANG_OK) {
        status = open_files(c, &list);
    }
    if (status == JANG_OK && found) {
        status = check_index(c, &index);
    }
    list_free(&list);
    shard_index_free(&index);
    return status;
}
