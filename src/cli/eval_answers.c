/* eval_answers.c - generates answers to prompts. */
#include "eval_answers.h"

#include "eval_rows.h"
#include "interrupt.h"
#include "open_model.h"
#include "read_input.h"
#include "terminal.h"

#include <stdlib.h>
#include <string.h>

/* ---- Prompts ---- */

static json_t *read_lines(const char *path, size_t most) {
    char *text = NULL;
    size_t n_bytes = 0;
    if (!read_whole(&text, &n_bytes, path)) {
        return NULL;
    }
    json_t *prompts = json_array();
    for (size_t at = 0; at < n_bytes && (most == 0 || json_array_size(prompts) < most);) {
        const char *end = memchr(text + at, '\n', n_bytes - at);
        size_t n = end ? (size_t)(end - text) - at : n_bytes - at;
        json_t *line = strspn(text + at, " \t\r") < n ? json_stringn(text + at, n) : NULL;
        if (line) {
            json_array_append_new(prompts, json_pack("{s:o}", "prompt", line));
        }
        at += n + 1;
    }
    free(text);
    if (json_array_size(prompts) == 0) {
        cli_failed("%s: there are no prompts in it (they must be UTF-8)", path);
        json_decref(prompts);
        return NULL;
    }
    return prompts;
}

json_t *prompts_read(const char *path, size_t most) {
    size_t n = strlen(path);
    if (n < 6 || strcmp(path + n - 6, ".jsonl")) {
        return read_lines(path, most);
    }
    json_t *rows = rows_read(path, most);
    size_t i;
    const json_t *row;
    json_array_foreach(rows, i, row) {
        if (!json_is_string(json_object_get(row, "prompt")) &&
            !json_is_array(json_object_get(row, "messages"))) {
            cli_failed("%s, row %zu: neither \"prompt\" (a string) nor \"messages\" (an array)",
                       path, i + 1);
            json_decref(rows);
            return NULL;
        }
    }
    return rows;
}

/* ---- One answer ---- */

/* The context that the chat template gets for a prompt. */
static char *template_context(const json_t *prompt) {
    json_t *context = json_object();
    json_t *messages = json_incref(json_object_get(prompt, "messages"));
    if (!messages) {
        messages =
            json_pack("[{s:s, s:O}]", "role", "user", "content", json_object_get(prompt, "prompt"));
    }
    json_object_set_new(context, "messages", messages);
    json_object_set_new(context, "add_generation_prompt", json_true());
    const json_t *tools = json_object_get(prompt, "tools");
    if (tools) {
        json_object_set(context, "tools", (json_t *)(uintptr_t)tools);
    }
    char *text = json_dumps(context, JSON_COMPACT);
    json_decref(context);
    return text;
}

static jang_status prompt_ids(int32_t **ids, size_t *n, jang_context *ctx, jang_model *model,
                              const json_t *prompt, bool raw) {
    jang_tokenizer *tok = jang_model_tokenizer(model);
    const json_t *plain = json_object_get(prompt, "prompt");
    if (raw && plain) {
        return jang_tokenize(ids, n, tok, json_string_value(plain), json_string_length(plain),
                             JANG_TOKENIZE_ADD_SPECIAL);
    }
    char *context = template_context(prompt), *text = NULL;
    size_t n_bytes = 0;
    if (!context) {
        return JANG_ERR_MEMORY;
    }
    jang_status status = jang_chat_prompt(&text, &n_bytes, tok, context);
    free(context);
    if (status == JANG_OK) {
        status = jang_tokenize(ids, n, tok, text, n_bytes, 0);
    }
    jang_free(ctx, text);
    return status;
}

typedef struct listener {
    tbuf *text;
    const answer_options *options;
} listener;

static bool on_text(void *user, const char *piece, size_t n_bytes) {
    listener *l = user;
    tbuf_add(l->text, piece, n_bytes);
    bool enough = l->options->stop && n_bytes && l->options->stop(l->options->user, l->text);
    return !enough && !l->text->failed && !interrupt_seen();
}

bool answer_prompt(tbuf *out, jang_context *ctx, jang_session *session, jang_model *model,
                   const json_t *prompt, const answer_options *o) {
    int32_t *ids = NULL;
    size_t n = 0;
    listener l = {out, o};
    jang_status status = prompt_ids(&ids, &n, ctx, model, prompt, o->raw);
    if (status == JANG_OK) {
        status = jang_generate(session, ids, n, o->n_max, &o->sampling, on_text, &l, NULL);
    }
    jang_free(ctx, ids);
    if (status != JANG_OK) {
        library_failed(ctx, status);
        return false;
    }
    if (interrupt_seen() || out->failed) {
        cli_failed(out->failed ? "out of memory" : "stopped");
        return false;
    }
    tbuf_printf(out, "%s", ""); /* so that there is a text, however short */
    return true;
}

/* ---- Several models ---- */

static bool answer_all(json_t *all, jang_context *ctx, jang_model *model, const char *path,
                       const json_t *prompts, const answer_options *options) {
    jang_session *session = NULL;
    jang_status status = jang_session_new(&session, model, NULL);
    if (status != JANG_OK) {
        library_failed(ctx, status);
        return false;
    }
    bool ok = true;
    for (size_t i = 0; ok && i < json_array_size(prompts); i++) {
        tbuf text = {0};
        ok = answer_prompt(&text, ctx, session, model, json_array_get(prompts, i), options);
        if (ok) {
            json_t *answers = json_object_get(json_array_get(all, i), "answers");
            json_object_set_new(answers, path, json_stringn(text.data, text.n));
        }
        tbuf_free(&text);
    }
    jang_session_free(session);
    return ok;
}

json_t *answers_of(jang_context *ctx, const text_list *models, const json_t *prompts, bool exact,
                   const answer_options *options) {
    json_t *all = json_array();
    size_t p;
    json_t *prompt;
    json_array_foreach(prompts, p, prompt) {
        json_array_append_new(all, json_pack("{s:O, s:{}}", "prompt", prompt, "answers"));
    }
    bool ok = true;
    for (size_t i = 0; ok && i < models->n; i++) {
        jang_model *model = open_model(ctx, models->items[i], exact);
        ok = model != NULL;
        if (ok && !jang_model_tokenizer(model)) {
            cli_failed("%s has no tokenizer", models->items[i]);
            ok = false;
        }
        ok = ok && answer_all(all, ctx, model, models->items[i], prompts, options);
        jang_model_free(model);
    }
    if (!ok) {
        json_decref(all);
        return NULL;
    }
    return all;
}
