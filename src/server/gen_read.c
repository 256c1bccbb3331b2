/* gen_read.c - the fields that dialects share, from JSON into the internal request. */
#include "api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BIASES_MAX 4096

void gen_request_init(gen_request *g, server *s, api_error *e, json_t *body, bool embeds) {
    json_in in = {e, ""};
    const char *name = NULL;
    in_text(&in, body, "model", &name);
    hosted *model = e->status ? NULL : hosted_pick(s, e, name, embeds);
    model = model ? model : &s->models[0];
    *g =
        (gen_request){.model = model, .r = model->defaults, .body = body, .timeout = s->o->timeout};
    g->parallel_tools = true;
    g->kwargs = json_object();
    g->r.sampling.seed = (uint64_t)random();
    g->r.sampling.seed = g->r.sampling.seed << 31 ^ (uint64_t)random();
}

bool gen_request_open(gen_request *g, server *s, http_exchange *x, api_family family,
                      api_error *e) {
    json_t *body = api_read_body(s, x, family);
    if (body) {
        gen_request_init(g, s, e, body, false);
    }
    return body != NULL;
}

void gen_request_refuse(gen_request *g, server *s, http_exchange *x, api_family family,
                        const api_error *e) {
    gen_request_free(g);
    api_reply_error(s, x, family, e);
}

void gen_request_free(gen_request *g) {
    for (size_t i = 0; i < g->n_prompts; i++) {
        free(g->prompts[i]);
    }
    for (size_t i = 0; g->prompt_types && i < g->n_prompts; i++) {
        free(g->prompt_types[i]);
    }
    free(g->prompt_types);
    free(g->prompts);
    free(g->prompt_lengths);
    free(g->context);
    free((void *)g->r.sampling.biases);
    tbuf_free(&g->grammar_text);
    json_decref(g->messages);
    json_decref(g->tools);
    json_decref(g->kwargs);
    json_decref(g->allowed);
    json_decref(g->body);
    *g = (gen_request){0};
}

/* ---- Sampling ---- */

static void read_bias(gen_request *g, const json_in *in, json_t *body) {
    json_t *map = in_object(in, body, "logit_bias");
    size_t n = json_object_size(map);
    if (!n || in->error->status) {
        return;
    }
    if (n > BIASES_MAX) {
        api_fail(in->error, 400, "invalid_value", "logit_bias",
                 "logit_bias: expected at most %d entries, got %zu", BIASES_MAX, n);
        return;
    }
    jang_bias *biases = calloc(n, sizeof *biases);
    size_t i = 0;
    const char *key;
    json_t *value;
    json_object_foreach(map, key, value) {
        char *end;
        long id = strtol(key, &end, 10);
        float bias = 0;
        json_in inner = {in->error, "logit_bias."};
        if (*end || end == key || id < 0 || id > INT32_MAX) {
            api_fail(in->error, 400, "invalid_value", "logit_bias",
                     "logit_bias: expected token ids as keys, got \"%.40s\"", key);
        }
        in_real(&inner, map, key, -100, 100, &bias);
        if (biases) {
            biases[i++] = (jang_bias){(int32_t)id, bias};
        }
    }
    g->r.sampling.biases = biases;
    g->r.sampling.n_biases = biases ? n : 0;
}

void gen_read_stop(gen_request *g, const json_in *in, json_t *body, const char *key) {
    json_t *stop = in_get(body, key);
    if (!stop || in->error->status) {
        return;
    }
    size_t n = json_is_array(stop) ? json_array_size(stop) : 1;
    if (n > STOP_MAX || !(json_is_array(stop) || json_is_string(stop))) {
        in_wrong(in, key, "a string or up to 16 strings", stop);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        json_t *one = json_is_array(stop) ? json_array_get(stop, i) : stop;
        if (!json_is_string(one)) {
            in_wrong(in, key, "strings", one);
        } else if (json_string_length(one)) { /* an empty text would stop at once */
            g->stop[g->n_stop++] = json_string_value(one);
        }
    }
}

static void read_int32(const json_in *in, json_t *body, const char *key, int64_t min, int64_t max,
                       int32_t *out) {
    int64_t value;
    if (in_int(in, body, key, min, max, &value)) {
        *out = (int32_t)value;
    }
}

void gen_read_sampling(gen_request *g, const json_in *in, json_t *body) {
    jang_sampling *p = &g->r.sampling;
    in_real(in, body, "temperature", 0, 2, &p->temperature);
    in_real(in, body, "top_p", 0, 1, &p->top_p);
    read_int32(in, body, "top_k", -1, INT32_MAX, &p->top_k);
    p->top_k = p->top_k < 0 ? 0 : p->top_k;
    in_real(in, body, "min_p", 0, 1, &p->min_p);
    in_real(in, body, "typical_p", 0, 1, &p->typical_p);
    in_real(in, body, "repetition_penalty", 0, 10, &p->repetition_penalty);
    read_int32(in, body, "repetition_context", 0, INT32_MAX, &p->repetition_context);
    in_real(in, body, "frequency_penalty", -2, 2, &p->frequency_penalty);
    in_real(in, body, "presence_penalty", -2, 2, &p->presence_penalty);
    int64_t seed;
    if (in_int(in, body, "seed", INT64_MIN, INT64_MAX, &seed)) {
        p->seed = (uint64_t)seed;
    }
    read_bias(g, in, body);
    gen_read_stop(g, in, body, "stop");
    read_int32(in, body, "n", 1, 64, &g->r.n);
    read_int32(in, body, "min_tokens", 0, INT32_MAX, &g->r.min_tokens);
    in_bool(in, body, "ignore_eos", &g->r.ignore_eos);
    in_bool(in, body, "cache_prompt", &g->r.cache_prompt);
    in_text(in, body, "cache_salt", &g->r.cache_salt);
    in_bool(in, body, "stream", &g->stream);
    float timeout = (float)g->timeout;
    if (in_real(in, body, "timeout", 0, 86400, &timeout) && timeout > 0) {
        g->timeout = timeout < g->timeout ? timeout : g->timeout;
    }
}

/* ---- Structured output ---- */

void gen_set_schema(gen_request *g, const json_t *schema) {
    jw w = jw_start(&g->grammar_text);
    jw_value(&w, NULL, schema);
    g->grammar_kind = JANG_GRAMMAR_SCHEMA;
    g->has_grammar = true;
}

static void set_grammar(gen_request *g, const json_in *in, json_t *format, const char *key,
                        jang_grammar_kind kind) {
    const char *text = NULL;
    if (!in_text(in, format, key, &text)) {
        in_wrong(in, key, "a string", NULL);
        return;
    }
    tbuf_puts(&g->grammar_text, text);
    g->grammar_kind = kind;
    g->has_grammar = true;
}

void gen_read_format(gen_request *g, const json_in *in, json_t *format, const char *key) {
    static const char *const types[] = {"text",    "json_object", "json_schema",
                                        "grammar", "regex",       NULL};
    char path[64];
    if (!format || json_is_null(format) || in->error->status) {
        return;
    }
    if (!json_is_object(format)) {
        in_wrong(in, key, "an object", format);
        return;
    }
    snprintf(path, sizeof path, "%.40s%.20s.", in->path, key);
    json_in inner = {in->error, path};
    int type = 0;
    in_choice(&inner, format, "type", types, &type);
    if (type == 1) {
        g->grammar_kind = JANG_GRAMMAR_JSON_OBJECT;
        g->has_grammar = true;
    } else if (type == 2) {
        json_t *named = in_get(format, "json_schema"); /* chat; responses has the schema here */
        json_t *schema = in_get(json_is_object(named) ? named : format, "schema");
        if (!json_is_object(schema)) {
            in_wrong(&inner, json_is_object(named) ? "json_schema.schema" : "schema", "an object",
                     schema);
        } else {
            gen_set_schema(g, schema);
        }
    } else if (type == 3) {
        set_grammar(g, &inner, format, "grammar", JANG_GRAMMAR_GBNF);
    } else if (type == 4) {
        set_grammar(g, &inner, format, "regex", JANG_GRAMMAR_REGEX);
    }
}

/* ---- Tools ---- */

static bool is_offered(const gen_request *g, const char *name) {
    for (size_t i = 0; name && i < json_array_size(g->tools); i++) {
        json_t *f = json_object_get(json_array_get(g->tools, i), "function");
        const char *known = json_string_value(json_object_get(f, "name"));
        if (known && !strcmp(known, name)) {
            return true;
        }
    }
    return false;
}

static void allow(gen_request *g, const json_in *in, const char *name) {
    if (!is_offered(g, name)) {
        api_fail(in->error, 400, "invalid_value", "tool_choice",
                 "tool_choice: expected a tool of this request, got \"%.60s\"", name ? name : "");
        return;
    }
    g->allowed = g->allowed ? g->allowed : json_array();
    json_array_append_new(g->allowed, json_string(name));
}

static const char *name_of(json_t *choice) {
    json_t *inner = json_object_get(choice, "function");
    return json_string_value(json_object_get(inner ? inner : choice, "name"));
}

/* {"type": "allowed_tools", "mode", "tools"}, chat's with one more object around. */
static void allow_some(gen_request *g, const json_in *in, json_t *choice) {
    json_t *inner = json_object_get(choice, "allowed_tools");
    inner = inner ? inner : choice;
    const char *mode = json_string_value(json_object_get(inner, "mode"));
    json_t *tools = json_object_get(inner, "tools");
    for (size_t i = 0; i < json_array_size(tools); i++) {
        allow(g, in, name_of(json_array_get(tools, i)));
    }
    g->tool_mode = mode && !strcmp(mode, "required") ? TOOLS_REQUIRED : TOOLS_AUTO;
}

void gen_read_tool_choice(gen_request *g, const json_in *in, json_t *choice) {
    static const char what[] = "\"none\", \"auto\", \"required\" or an object that names a tool";
    const char *word = json_string_value(choice);
    g->tool_mode = g->tools ? TOOLS_AUTO : TOOLS_NONE;
    if (!choice || json_is_null(choice) || in->error->status) {
        return;
    }
    if (word) {
        bool required = !strcmp(word, "required") || !strcmp(word, "any");
        if (!strcmp(word, "none")) {
            g->tool_mode = TOOLS_NONE;
        } else if (required && !g->tools) {
            api_fail(in->error, 400, "invalid_value", "tool_choice",
                     "tool_choice: \"%.20s\" needs tools", word);
        } else if (required) {
            g->tool_mode = TOOLS_REQUIRED;
        } else if (strcmp(word, "auto")) {
            in_wrong(in, "tool_choice", what, choice);
        }
        return;
    }
    const char *type = json_string_value(json_object_get(choice, "type"));
    if (type && !strcmp(type, "allowed_tools")) {
        allow_some(g, in, choice);
    } else if (json_is_object(choice) && name_of(choice)) {
        allow(g, in, name_of(choice));
        g->tool_mode = TOOLS_REQUIRED;
        g->parallel_tools = false; /* one tool is named, one call is meant */
    } else {
        in_wrong(in, "tool_choice", what, choice);
    }
}

void gen_add_tool(gen_request *g, const json_in *in, const char *where, json_t *function,
                  json_t *tool) {
    json_t *name = json_object_get(function, "name"), *parameters = in_get(function, "parameters");
    bool named = json_is_string(name);
    if (!named || (parameters && !json_is_object(parameters))) {
        char path[80];
        snprintf(path, sizeof path, "%s.%s", where, named ? "parameters" : "name");
        in_wrong(in, path, named ? "an object" : "a string", named ? parameters : name);
        json_decref(tool);
        return;
    }
    g->tools = g->tools ? g->tools : json_array();
    json_array_append_new(g->tools, tool);
}

/* ---- The template's switches ---- */

void gen_set_kwarg(gen_request *g, const char *name, json_t *value) {
    json_object_set_new(g->kwargs, name, value);
}

void gen_set_effort(gen_request *g, const char *effort) {
    bool on = strcmp(effort, "none") && strcmp(effort, "minimal");
    gen_set_kwarg(g, "enable_thinking", json_boolean(on));
    gen_set_kwarg(g, "thinking", json_boolean(on));
    gen_set_kwarg(g, "reasoning_effort",
                  json_string(!strcmp(effort, "minimal") || !on ? "low" : effort));
}

void gen_read_effort(gen_request *g, const json_in *in, json_t *object, const char *key) {
    static const char *const efforts[] = {"none", "minimal", "low", "medium",
                                          "high", "xhigh",   NULL};
    int effort = 0;
    if (in_choice(in, object, key, efforts, &effort)) {
        gen_set_effort(g, effort == 5 ? "high" : efforts[effort]);
    }
}
