/* checkpoint.c - opening a model of any container, and its small files.
 *
 * checkpoint_shards.c finds and opens a directory's weights, checkpoint_config.c reads the small
 * files' meaning (templates, quantization), checkpoint_rows.c reads weights. */
#include "format/checkpoint_impl.h"

#include <stdlib.h>
#include <string.h>

#define TEXT_MAX ((size_t)256 << 20)

/* ---- Tensors ---- */

static int compare_view_names(const void *a, const void *b) {
    return strcmp((*(const tensor_view *const *)a)->name, (*(const tensor_view *const *)b)->name);
}

/* Sorts c->tensors by name through a list of pointers, since views are large. */
static jang_status sort_tensors(checkpoint *c) {
    size_t n = c->n_tensors;
    const tensor_view **order = ctx_array(c->ctx, n, sizeof *order);
    tensor_view *sorted = ctx_array(c->ctx, n, sizeof *sorted);
    jang_status status = JANG_OK;
    if (!order || !sorted) {
        status = ctx_fail_memory(c->ctx, n * (sizeof *order + sizeof *sorted));
        goto done;
    }
    for (size_t i = 0; i < n; i++) {
        order[i] = &c->tensors[i];
    }
    if (n) {
        qsort(order, n, sizeof *order, compare_view_names);
    }
    for (size_t i = 0; i < n; i++) {
        sorted[i] = *order[i];
    }
    tensor_view *unsorted = c->tensors;
    c->tensors = sorted;
    sorted = unsorted;
done:
    ctx_free(c->ctx, order);
    ctx_free(c->ctx, sorted);
    return status;
}

static jang_status index_tensors(checkpoint *c) {
    jang_status status = strmap_reserve(&c->by_name, c->n_tensors);
    for (size_t i = 0; status == JANG_OK && i < c->n_tensors; i++) {
        const char *name = c->tensors[i].name;
        int32_t old;
        status = strmap_put(&c->by_name, name, strlen(name), (int32_t)i, &old);
        if (status == JANG_OK && old >= 0) {
            status =
                ctx_fail(c->ctx, JANG_ERR_FORMAT, "%s: two tensors are named %s", c->path, name);
        }
    }
    return status;
}

static jang_status take_file_tensors(checkpoint *c) {
    size_t n = 0;
    for (size_t i = 0; i < c->n_files; i++) {
        n += c->files[i].n_tensors;
    }
    c->tensors = ctx_array(c->ctx, n, sizeof *c->tensors);
    if (!c->tensors) {
        return ctx_fail_memory(c->ctx, n * sizeof *c->tensors);
    }
    for (size_t i = 0; i < c->n_files; i++) {
        const st_file *f = &c->files[i];
        memcpy(c->tensors + c->n_tensors, f->tensors, f->n_tensors * sizeof *f->tensors);
        c->n_tensors += f->n_tensors;
    }
    return JANG_OK;
}

static jang_status collect_tensors(checkpoint *c) {
    jang_status status = c->gguf ? checkpoint_take_gguf(c) : take_file_tensors(c);
    if (status == JANG_OK && (c->flags & CHECKPOINT_V1) && c->kind == CHECKPOINT_DIRECTORY) {
        status = checkpoint_take_v1(c);
    }
    if (status == JANG_OK) {
        status = sort_tensors(c);
    }
    return status == JANG_OK ? index_tensors(c) : status;
}

/* ---- Opening ---- */

/* Whether a file begins with these four bytes; any failure is left to who opens it. */
static bool has_magic(ctx_t *ctx, const char *path, const char *magic) {
    file_map map;
    if (file_map_open(&map, ctx, path) != JANG_OK) {
        return false;
    }
    bool same = map.n_bytes >= 4 && memcmp(map.data, magic, 4) == 0;
    file_map_close(&map);
    return same;
}

static jang_status open_directory(checkpoint *c) {
    c->kind = CHECKPOINT_DIRECTORY;
    bool old = (c->flags & CHECKPOINT_V1) != 0;
    jang_status status = old ? JANG_OK : checkpoint_refuse_v1(c);
    if (status != JANG_OK || (c->flags & CHECKPOINT_TEXT_ONLY)) {
        return status;
    }
    const json_t *config;
    status = checkpoint_json(&config, c, "config.json");
    if (status != JANG_OK) {
        return status;
    }
    if (!config) {
        return ctx_fail(c->ctx, JANG_ERR_FORMAT,
                        "%s: no config.json, a model directory must have one", c->path);
    }
    return checkpoint_open_shards(c);
}

static jang_status open_jang_file(checkpoint *c) {
    c->kind = CHECKPOINT_JANG_FILE;
    c->files = ctx_zero(c->ctx, 1, sizeof *c->files);
    if (!c->files) {
        return ctx_fail_memory(c->ctx, sizeof *c->files);
    }
    jang_status status = st_open(&c->files[0], c->ctx, c->path);
    if (status != JANG_OK) {
        return status;
    }
    c->n_files = 1;
    if (!json_object_get(c->files[0].metadata, "config.json")) {
        return ctx_fail(c->ctx, JANG_ERR_FORMAT,
                        "%s: its __metadata__ holds no config.json, so it is no .jang file; of a "
                        "model in several files, give the directory",
                        c->path);
    }
    return JANG_OK;
}

static jang_status open_container(checkpoint *c) {
    jang_status status;
    if (!file_exists(c->path)) {
        return ctx_fail(c->ctx, JANG_ERR_IO, "%s: no such file or directory", c->path);
    }
    if (file_is_directory(c->path)) {
        status = open_directory(c);
    } else if (has_magic(c->ctx, c->path, "GGUF")) {
        status = checkpoint_open_gguf(c);
    } else {
        status = open_jang_file(c);
    }
    if (status == JANG_OK && !(c->flags & CHECKPOINT_TEXT_ONLY)) {
        status = collect_tensors(c);
    }
    return status;
}

jang_status checkpoint_open(checkpoint **out, ctx_t *ctx, const char *path, unsigned flags) {
    checkpoint *c = ctx_zero(ctx, 1, sizeof *c);
    if (!c) {
        return ctx_fail_memory(ctx, sizeof *c);
    }
    c->ctx = ctx;
    c->flags = flags;
    strmap_init(&c->by_name, ctx);
    strmap_init(&c->forms, ctx);
    jang_status status;
    c->path = ctx_strdup(ctx, path);
    if (!c->path) {
        status = ctx_fail_memory(ctx, strlen(path) + 1);
        goto done;
    }
    status = open_container(c);
    if (status == JANG_OK) {
        *out = c;
        c = NULL;
    }
done:
    checkpoint_close(c);
    return status;
}

void checkpoint_close(checkpoint *c) {
    if (!c) {
        return;
    }
    ctx_t *ctx = c->ctx;
    for (size_t i = 0; i < c->n_texts; i++) {
        checkpoint_text_entry *e = c->texts[i];
        ctx_free(ctx, e->name);
        ctx_free(ctx, e->text);
        json_decref(e->json);
        ctx_free(ctx, e);
    }
    ctx_free(ctx, c->texts);
    for (size_t i = 0; i < c->n_files; i++) {
        st_close(&c->files[i]);
    }
    ctx_free(ctx, c->files);
    gguf_close(c->gguf);
    strmap_free(&c->by_name);
    strmap_free(&c->forms);
    for (size_t i = 0; i < c->n_made; i++) {
        ctx_free(ctx, c->made[i]);
    }
    ctx_free(ctx, c->made);
    ctx_free(ctx, c->tensors);
    ctx_free(ctx, c->names);
    ctx_free(ctx, c->path);
    ctx_free(ctx, c);
}

/* ---- Questions ---- */

bool checkpoint_is_v1(const checkpoint *c) {
    return c->forms.n_entries > 0;
}

const char *checkpoint_path(const checkpoint *c) {
    return c->path;
}

checkpoint_kind checkpoint_get_kind(const checkpoint *c) {
    return c->kind;
}

const tensor_view *checkpoint_tensors(const checkpoint *c, size_t *n) {
    *n = c->n_tensors;
    return c->tensors;
}

const tensor_view *checkpoint_find(const checkpoint *c, const char *name) {
    int32_t i = strmap_get(&c->by_name, name, strlen(name));
    return i < 0 ? NULL : &c->tensors[i];
}

uint64_t checkpoint_bytes(const checkpoint *c) {
    uint64_t sum = 0;
    for (size_t i = 0; i < c->n_tensors; i++) {
        sum += c->tensors[i].n_bytes;
    }
    return sum;
}

/* ---- Small files ---- */

/* The entry of a name, made when it is new. */
static jang_status text_entry(checkpoint_text_entry **out, checkpoint *c, const char *name) {
    for (size_t i = 0; i < c->n_texts; i++) {
        if (strcmp(c->texts[i]->name, name) == 0) {
            *out = c->texts[i];
            return JANG_OK;
        }
    }
    checkpoint_text_entry **list =
        ctx_realloc(c->ctx, c->texts, (c->n_texts + 1) * sizeof(checkpoint_text_entry *));
    if (!list) {
        return ctx_fail_memory(c->ctx, (c->n_texts + 1) * sizeof(checkpoint_text_entry *));
    }
    c->texts = list;
    checkpoint_text_entry *e = ctx_zero(c->ctx, 1, sizeof *e);
    char *copy = ctx_strdup(c->ctx, name);
    if (!e || !copy) {
        ctx_free(c->ctx, e);
        ctx_free(c->ctx, copy);
        return ctx_fail_memory(c->ctx, sizeof *e + strlen(name));
    }
    e->name = copy;
    list[c->n_texts++] = e;
    *out = e;
    return JANG_OK;
}

static jang_status read_directory_text(char **text, size_t *n, checkpoint *c, const char *name) {
    char *path = path_join(c->ctx, c->path, name);
    if (!path) {
        return ctx_fail_memory(c->ctx, strlen(c->path) + strlen(name) + 2);
    }
    jang_status status = JANG_OK;
    if (file_exists(path)) {
        status = file_read(text, n, c->ctx, path, TEXT_MAX);
    }
    ctx_free(c->ctx, path);
    return status;
}

static jang_status copy_text(char **text, size_t *n, ctx_t *ctx, const char *from, size_t n_from) {
    char *copy = ctx_strndup(ctx, from, n_from);
    if (!copy) {
        return ctx_fail_memory(ctx, n_from + 1);
    }
    *text = copy;
    *n = n_from;
    return JANG_OK;
}

static jang_status make_text(char **text, size_t *n, checkpoint *c, const char *name) {
    if (c->kind == CHECKPOINT_DIRECTORY) {
        return read_directory_text(text, n, c, name);
    }
    if (c->kind == CHECKPOINT_GGUF) {
        return checkpoint_make_gguf_text(text, n, c, name);
    }
    const json_t *value = json_object_get(c->files[0].metadata, name);
    return value ? copy_text(text, n, c->ctx, json_string_value(value), json_string_length(value))
                 : JANG_OK;
}

jang_status checkpoint_text(const char **text, size_t *n_bytes, checkpoint *c, const char *name) {
    checkpoint_text_entry *e;
    jang_status status = text_entry(&e, c, name);
    if (status == JANG_OK && !e->text_ready) {
        status = make_text(&e->text, &e->n_bytes, c, name);
        e->text_ready = status == JANG_OK;
    }
    if (status == JANG_OK) {
        *text = e->text;
        *n_bytes = e->n_bytes;
    }
    return status;
}

jang_status checkpoint_json(const json_t **out, checkpoint *c, const char *name) {
    checkpoint_text_entry *e;
    const char *text;
    size_t n;
    jang_status status = text_entry(&e, c, name);
    if (status != JANG_OK) {
        return status;
    }
    if (!e->json) {
        status = checkpoint_text(&text, &n, c, name);
        if (status != JANG_OK) {
            return status;
        }
        char *what = text ? path_join(c->ctx, c->path, name) : NULL;
        if (text && !what) {
            return ctx_fail_memory(c->ctx, strlen(c->path) + strlen(name) + 2);
        }
        if (text) {
            status = json_parse(&e->json, c->ctx, what, text, n);
        }
        if (status == JANG_OK && text && !json_is_object(e->json)) {
            json_decref(e->json);
            e->json = NULL;
            status = ctx_fail(c->ctx, JANG_ERR_FORMAT, "%s: expected an object", what);
        }
        ctx_free(c->ctx, what);
    }
    if (status == JANG_OK) {
        *out = e->json;
    }
    return status;
}

/* ---- Copying the small files ---- */

/* Files that go with a model into its conversion, by the end of their names. */
static bool goes_along(const char *name) {
    static const char *const suffixes[] = {".json", ".jinja", ".model", ".txt", ".tiktoken", ".py"};
    static const char *const not [] = {"config.json", "jang_config.json"};
    for (size_t i = 0; i < sizeof not / sizeof not [0]; i++) {
        if (strcmp(name, not [i]) == 0) {
            return false;
        }
    }
    if (path_has_suffix(name, ".index.json") || !path_is_plain_name(name)) {
        return false;
    }
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        if (path_has_suffix(name, suffixes[i])) {
            return true;
        }
    }
    return strncmp(name, "LICENSE", 7) == 0 || strncmp(name, "NOTICE", 6) == 0;
}

/* Copies one small file, without keeping it. */
static jang_status copy_one(checkpoint *c, const char *name, const char *directory) {
    char *text = NULL;
    size_t n = 0;
    jang_status status = make_text(&text, &n, c, name);
    if (status != JANG_OK || !text) {
        return status;
    }
    char *path = path_join(c->ctx, directory, name);
    status = path ? file_write(c->ctx, path, text, n)
                  : ctx_fail_memory(c->ctx, strlen(directory) + strlen(name) + 2);
    ctx_free(c->ctx, path);
    ctx_free(c->ctx, text);
    return status;
}

static jang_status copy_directory_texts(checkpoint *c, const char *directory) {
    char **names;
    size_t n;
    jang_status status = directory_list(&names, &n, c->ctx, c->path);
    if (status != JANG_OK) {
        return status;
    }
    for (size_t i = 0; status == JANG_OK && i < n; i++) {
        if (goes_along(names[i])) {
            status = copy_one(c, names[i], directory);
        }
    }
    directory_list_free(c->ctx, names, n);
    return status;
}

jang_status checkpoint_copy_texts(checkpoint *c, const char *directory) {
    static const char *const of_gguf[] = {"generation_config.json", "tokenizer.json",
                                          "tokenizer_config.json"};
    jang_status status = JANG_OK;
    if (c->kind == CHECKPOINT_DIRECTORY) {
        return copy_directory_texts(c, directory);
    }
    if (c->kind == CHECKPOINT_GGUF) {
        for (size_t i = 0; status == JANG_OK && i < sizeof of_gguf / sizeof of_gguf[0]; i++) {
            status = copy_one(c, of_gguf[i], directory);
        }
        return status;
    }
    const char *name;
    json_t *value;
    json_object_foreach(c->files[0].metadata, name, value) {
        if (status == JANG_OK && goes_along(name)) {
            status = copy_one(c, name, directory);
        }
    }
    return status;
}
