/* chat.c - chat templates: prompts from messages, and what ends a turn.
 *
 * No chat format is known here. The template writes the prompt, and the token that ends a turn is
 * the one that the template itself puts after an assistant's message. */
#include "engine/engine.h"

#include <string.h>

#define OUTPUT_MAX ((size_t)64 << 20)

/* ---- Rendering ---- */

jang_status chat_render(buf *out, jang_tokenizer *t, json_t *context) {
    if (t->chat_error) {
        return ctx_fail(t->ctx, JANG_ERR_FORMAT, "%s", t->chat_error);
    }
    if (!t->chat) {
        return ctx_fail(t->ctx, JANG_ERR_UNSUPPORTED, "the model has no chat template");
    }
    if (!json_is_object(context)) {
        return ctx_fail(t->ctx, JANG_ERR_ARGUMENT, "the template's context must be an object");
    }
    if (json_object_update_missing(context, t->specials) != 0) {
        return ctx_fail_memory(t->ctx, 64);
    }
    return tmpl_render(t->chat, out, context);
}

jang_status jang_chat_prompt(char **prompt, size_t *n_bytes, jang_tokenizer *t,
                             const char *context_json) {
    json_t *context;
    jang_status status =
        json_parse(&context, t->ctx, "chat context", context_json, strlen(context_json));
    if (status != JANG_OK) {
        return status;
    }
    buf b;
    buf_init(&b, t->ctx, OUTPUT_MAX);
    status = chat_render(&b, t, context);
    if (status == JANG_OK) {
        status = buf_take(&b, prompt, n_bytes);
    }
    buf_free(&b);
    json_decref(context);
    return status;
}

jang_status jang_template_render(char **text, size_t *n_bytes, jang_context *ctx, const char *name,
                                 const char *template_text, size_t template_bytes,
                                 const char *context_json) {
    tmpl *t;
    json_t *context = NULL;
    buf b;
    buf_init(&b, ctx, OUTPUT_MAX);
    jang_status status = tmpl_compile(&t, ctx, name, template_text, template_bytes);
    if (status != JANG_OK) {
        return status;
    }
    status = json_parse(&context, ctx, "context", context_json, strlen(context_json));
    if (status == JANG_OK && !json_is_object(context)) {
        status = ctx_fail(ctx, JANG_ERR_FORMAT, "context: expected an object");
    }
    if (status == JANG_OK) {
        status = tmpl_render(t, &b, context);
    }
    if (status == JANG_OK) {
        status = buf_take(&b, text, n_bytes);
    }
    buf_free(&b);
    json_decref(context);
    tmpl_free(t);
    return status;
}

/* ---- What ends a turn ---- */

jang_status ids_add(tok_ids *ids, ctx_t *ctx, int32_t id) {
    for (size_t i = 0; i < ids->n; i++) {
        if (ids->ids[i] == id) {
            return JANG_OK;
        }
    }
    if (ids->n == ids->capacity) {
        size_t capacity = ids->capacity ? ids->capacity * 2 : 8;
        int32_t *more = ctx_realloc(ctx, ids->ids, capacity * sizeof *more);
        if (!more) {
            return ctx_fail_memory(ctx, capacity * sizeof *more);
        }
        ids->ids = more;
        ids->capacity = capacity;
    }
    ids->ids[ids->n++] = id;
    return JANG_OK;
}

/* eos_token_id is a number, a list of numbers, or null. */
static jang_status add_configured(tok_ids *out, jang_model *m, const char *file) {
    const json_t *config;
    jang_status status = checkpoint_json(&config, m->checkpoint, file);
    if (status != JANG_OK || !config) {
        return status;
    }
    const json_t *eos = json_object_get(config, "eos_token_id");
    if (!eos) {
        eos = json_object_get(json_object_get(config, "text_config"), "eos_token_id");
    }
    size_t n = json_is_array(eos) ? json_array_size(eos) : 1;
    for (size_t i = 0; status == JANG_OK && i < n; i++) {
        const json_t *id = json_is_array(eos) ? json_array_get(eos, i) : eos;
        json_int_t value = json_integer_value(id);
        if (json_is_integer(id) && value >= 0 && value <= INT32_MAX) {
            status = ids_add(out, m->ctx, (int32_t)value);
        }
    }
    return status;
}

static const char probe[] = "jang9probe";

/* {"messages": [user "hi", assistant probe]}; NULL when out of memory. */
static json_t *probe_context(void) {
    return json_pack("{s:[{s:s,s:s},{s:s,s:s}],s:b}", "messages", "role", "user", "content", "hi",
                     "role", "assistant", "content", probe, "add_generation_prompt", 0);
}

/* Adds the special token that follows the assistant's text in a rendering. */
static jang_status add_following(tok_ids *out, jang_model *m, const char *text) {
    const char *after = strstr(text, probe);
    if (!after) {
        return JANG_OK;
    }
    after += strlen(probe);
    after += strspn(after, " \t\r\n");
    tok_ids ids = {0};
    const tok *t = m->tokenizer->tok;
    jang_status status = tok_encode(t, &ids, after, strlen(after), 0);
    if (status == JANG_OK && ids.n && tok_is_special(t, ids.ids[0])) {
        status = ids_add(out, m->ctx, ids.ids[0]);
    }
    tok_ids_free(m->ctx, &ids);
    return status;
}

/* A template that cannot render the probe (it may refuse, or need tools) tells nothing. */
static jang_status add_from_template(tok_ids *out, jang_model *m) {
    json_t *context = probe_context();
    if (!context) {
        return ctx_fail_memory(m->ctx, 64);
    }
    buf b;
    buf_init(&b, m->ctx, OUTPUT_MAX);
    jang_status status = chat_render(&b, m->tokenizer, context);
    if (status == JANG_OK) {
        status = add_following(out, m, b.data);
    } else if (status != JANG_ERR_MEMORY) {
        status = JANG_OK;
    }
    buf_free(&b);
    json_decref(context);
    return status;
}

jang_status chat_find_ends(tok_ids *out, jang_model *m) {
    jang_status status = add_configured(out, m, "generation_config.json");
    if (status == JANG_OK) {
        status = add_configured(out, m, "config.json");
    }
    if (status != JANG_OK || !m->tokenizer) {
        return status;
    }
    const char *eos = json_string_value(json_object_get(m->tokenizer->specials, "eos_token"));
    int32_t id = eos ? tok_id(m->tokenizer->tok, eos, strlen(eos)) : -1;
    if (id >= 0) {
        status = ids_add(out, m->ctx, id);
    }
    return status == JANG_OK && m->tokenizer->chat ? add_from_template(out, m) : status;
}
