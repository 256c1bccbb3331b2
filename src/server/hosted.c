/* hosted.c - the models of a server: their names, which of them a request means, what each writes.
 */
#include "api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

/* ---- Names ---- */

static char *base_name(const char *path) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') {
        n--;
    }
    size_t from = n;
    while (from && path[from - 1] != '/') {
        from--;
    }
    return strndup(path + from, n - from);
}

/* NAME=MODEL is for the model of that directory, NAME for the first; NULL: for another. */
static char *alias_for(const server *s, const hosted *h, const char *alias, const char *directory) {
    const char *equals = strrchr(alias, '=');
    if (!equals) {
        return h == &s->models[0] ? strdup(alias) : NULL;
    }
    return strcmp(equals + 1, directory) ? NULL : strndup(alias, (size_t)(equals - alias));
}

static bool take_names(server *s, hosted *h) {
    size_t n = 0;
    char *directory = base_name(h->path);
    for (size_t i = 0; directory && i < SERVE_LIST_MAX && s->o->aliases[i]; i++) {
        char *name = alias_for(s, h, s->o->aliases[i], directory);
        if (name && !h->id) {
            h->id = name;
        } else if (name && n < SERVE_LIST_MAX - 1) {
            h->names[n++] = name;
        } else {
            free(name);
        }
    }
    h->id = h->id ? h->id : directory;
    if (h->id != directory) {
        free(directory);
    }
    return h->id != NULL;
}

/* ---- Which one is meant ---- */

/* The length of a name without a tag :latest. */
static size_t name_length(const char *name) {
    static const char tag[] = ":latest";
    size_t n = strlen(name), k = sizeof tag - 1;
    return n > k && !strcmp(name + n - k, tag) ? n - k : n;
}

static bool is_name(const char *own, const char *name, size_t n) {
    return strlen(own) == n && !memcmp(own, name, n);
}

static bool has_name(const hosted *h, const char *name, size_t n) {
    bool has = is_name(h->id, name, n);
    for (size_t i = 0; !has && i < SERVE_LIST_MAX && h->names[i]; i++) {
        has = is_name(h->names[i], name, n);
    }
    return has;
}

/* smol of hub/smol, and of big-smol. */
static bool is_ending(const char *whole, size_t n_whole, const char *end, size_t n_end) {
    return n_end && n_end < n_whole && !memcmp(whole + n_whole - n_end, end, n_end);
}

static bool has_ending(const hosted *h, const char *name, size_t n) {
    size_t n_id = strlen(h->id);
    return is_ending(h->id, n_id, name, n) ||
           (is_ending(name, n, h->id, n_id) && name[n - n_id - 1] == '/');
}

hosted *hosted_find(server *s, const char *name) {
    size_t n = name_length(name);
    for (size_t i = 0; i < s->n_models; i++) {
        if (has_name(&s->models[i], name, n)) {
            return &s->models[i];
        }
    }
    return NULL;
}

static hosted *find_ending(server *s, const char *name) {
    size_t n = name_length(name), n_found = 0;
    hosted *found = NULL;
    for (size_t i = 0; i < s->n_models; i++) {
        if (has_ending(&s->models[i], name, n)) {
            found = &s->models[i];
            n_found++;
        }
    }
    return n_found == 1 ? found : NULL;
}

/* The first model for a purpose; *n takes their number. */
static hosted *first_for(server *s, bool embeds, size_t *n) {
    hosted *first = NULL;
    bool divided = s->o->embedding_model != NULL;
    *n = 0;
    for (size_t i = 0; i < s->n_models; i++) {
        if (!divided || s->models[i].embeds == embeds) {
            first = first ? first : &s->models[i];
            ++*n;
        }
    }
    return first;
}

hosted *hosted_pick(server *s, api_error *e, const char *name, bool embeds) {
    size_t n;
    hosted *first = first_for(s, embeds, &n);
    hosted *h = name ? hosted_find(s, name) : first;
    if (!h && !s->o->strict_model) {
        h = find_ending(s, name);
        h = !h && n == 1 ? first : h;
    }
    if (!h) {
        tbuf names = {0};
        for (size_t i = 0; i < s->n_models; i++) {
            tbuf_printf(&names, "%s\"%.80s\"", i ? ", " : "", s->models[i].id);
        }
        api_fail(e, 404, "model_not_found", "model", "model: there is no \"%.80s\" here, only %s",
                 name, tbuf_text(&names));
        tbuf_free(&names);
    }
    return h;
}

/* ---- Opening ---- */

static bool choose_formats(server *s, hosted *h, char *error, size_t n) {
    const char *text = jang_chat_template(h->tok);
    const char *tools = s->o->tool_format, *reasoning = s->o->reasoning_format;
    h->format = tools ? tool_format_find(tools) : tool_format_detect(text);
    h->format = h->format || tools ? h->format : tool_format_find("hermes");
    h->reasoning = reasoning ? reasoning_find(reasoning) : reasoning_detect(text);
    if (tools && !h->format && strcmp(tools, "none")) {
        snprintf(error, n, "--tool-format %s: there is no such format", tools);
        return false;
    }
    if (reasoning && !h->reasoning && strcmp(reasoning, "none")) {
        snprintf(error, n, "--reasoning-format %s: there is no such format", reasoning);
        return false;
    }
    h->template_has_tools = text && strstr(text, "tools") != NULL;
    return true;
}

bool hosted_open(server *s, hosted *h, const char *path, char *error, size_t n_bytes) {
    struct stat st;
    h->path = path;
    if (jang_tokenizer_open(&h->tok, s->ctx, path) != JANG_OK) {
        snprintf(error, n_bytes, "%s", jang_context_error(s->ctx));
        return false;
    }
    h->created = stat(path, &st) == 0 ? (int64_t)st.st_mtime : api_unix_time();
    h->infill = infill_detect(s->ctx, h->tok);
    if (!take_names(s, h)) {
        snprintf(error, n_bytes, "out of memory");
        return false;
    }
    for (hosted *other = s->models; other < h; other++) {
        if (!strcmp(other->id, h->id)) {
            snprintf(error, n_bytes,
                     "two models are called %.200s: give one an --alias NAME=%.200s", h->id, h->id);
            return false;
        }
    }
    return choose_formats(s, h, error, n_bytes);
}

/* FNV-1a over what tells models apart. */
static void make_fingerprint(hosted *h) {
    uint64_t sum = 0xCBF29CE484222325u;
    char text[512];
    int n = snprintf(text, sizeof text, "%s|%s|%lld|%llu|%lld", h->info->family, h->info->profile,
                     (long long)h->info->n_params, (unsigned long long)h->info->weight_bytes,
                     (long long)h->created);
    for (int i = 0; i < n && i < (int)sizeof text - 1; i++) {
        sum = (sum ^ (unsigned char)text[i]) * 0x100000001B3u;
    }
    snprintf(h->fingerprint, sizeof h->fingerprint, "jang-%s-%08llx", jang_version(),
             (unsigned long long)(sum & 0xFFFFFFFFu));
}

void hosted_ready(server *s, hosted *h, jang_model *model) {
    int32_t asked = s->o->engine.n_context;
    h->model = model;
    h->info = jang_model_get_info(model);
    h->defaults = jang_request_default(model);
    if (!h->info->has_sampling) { /* what clients of OpenAI's expect where nothing is said */
        h->defaults.sampling.temperature = 1;
        h->defaults.sampling.top_p = 1;
    }
    h->n_context = asked && asked < h->info->n_context ? asked : h->info->n_context;
    make_fingerprint(h);
}

void hosted_close(hosted *h) {
    for (size_t i = 0; i < SERVE_LIST_MAX && h->names[i]; i++) {
        free((char *)h->names[i]);
    }
    free(h->id);
    jang_tokenizer_free(h->tok);
    *h = (hosted){0};
}
