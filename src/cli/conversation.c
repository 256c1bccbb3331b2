/* conversation.c - messages in, streamed answers out.
 *
 * Each turn renders all messages through the model's template. The session finds what it has in
 * common with the turn before, so that only the new part is computed. */
#include "conversation.h"

#include "cli_utf8.h"
#include "interrupt.h"
#include "open_model.h"
#include "terminal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- Life and messages ---- */

bool conversation_start(conversation *c, int32_t n_context, jang_kv_type kv_type) {
    jang_session_options options = jang_session_options_default();
    options.n_context = n_context;
    options.kv_type = kv_type;
    jang_status status = jang_session_new(&c->session, c->model, &options);
    if (status != JANG_OK) {
        library_failed(c->ctx, status);
        return false;
    }
    c->messages = json_array();
    if (!c->messages) {
        cli_failed("out of memory");
        return false;
    }
    return true;
}

void conversation_end(conversation *c) {
    json_decref(c->messages);
    jang_session_free(c->session);
}

/* Makes a message of text that may be no UTF-8. NULL when out of memory. */
static json_t *message_new(const char *role, const char *text, size_t n_bytes) {
    size_t n = 0;
    char *repaired = cli_utf8_repair(&n, text, n_bytes);
    json_t *message =
        repaired ? json_pack("{s:s, s:o}", "role", role, "content", json_stringn(repaired, n))
                 : NULL;
    free(repaired);
    if (!message) {
        cli_failed("out of memory");
    }
    return message;
}

static const char *role_at(const conversation *c, size_t i) {
    return json_string_value(json_object_get(json_array_get(c->messages, i), "role"));
}

const char *conversation_system(const conversation *c) {
    const char *role = role_at(c, 0);
    if (!role || strcmp(role, "system") != 0) {
        return NULL;
    }
    return json_string_value(json_object_get(json_array_get(c->messages, 0), "content"));
}

bool conversation_set_system(conversation *c, const char *text) {
    json_t *message = message_new("system", text, strlen(text));
    if (!message) {
        return false;
    }
    bool replaced = conversation_system(c) != NULL;
    return (replaced ? json_array_set_new(c->messages, 0, message)
                     : json_array_insert_new(c->messages, 0, message)) == 0;
}

void conversation_reset(conversation *c) {
    size_t n_kept = conversation_system(c) ? 1 : 0;
    while (json_array_size(c->messages) > n_kept) {
        json_array_remove(c->messages, json_array_size(c->messages) - 1);
    }
    c->stats = (jang_generate_stats){0};
}

/* ---- Prompt ---- */

/* Renders the messages through the model's template; the prompt is freed with jang_free. */
static bool render_messages(const conversation *c, char **prompt, size_t *n_bytes) {
    json_t *context = json_pack("{s:O, s:b}", "messages", c->messages, "add_generation_prompt", 1);
    char *text = context ? json_dumps(context, JSON_COMPACT) : NULL;
    json_decref(context);
    if (!text) {
        cli_failed("out of memory");
        return false;
    }
    jang_status status = jang_chat_prompt(prompt, n_bytes, jang_model_tokenizer(c->model), text);
    free(text);
    if (status != JANG_OK) {
        library_failed(c->ctx, status);
    }
    return status == JANG_OK;
}

/* Turns text into ids, freed with jang_free. A rendered template carries its special tokens with
 * it; a raw prompt gets the model's own. */
static bool tokenize_prompt(const conversation *c, int32_t **ids, size_t *n_ids, const char *text,
                            size_t n_bytes) {
    unsigned flags = c->raw ? JANG_TOKENIZE_ADD_SPECIAL : 0;
    jang_status status =
        jang_tokenize(ids, n_ids, jang_model_tokenizer(c->model), text, n_bytes, flags);
    if (status != JANG_OK) {
        library_failed(c->ctx, status);
    }
    return status == JANG_OK;
}

/* ---- Answer ---- */

typedef struct answer_sink {
    FILE *out;
    char *text; /* what came so far */
    size_t n, capacity;
    bool failed; /* out of memory */
} answer_sink;

static bool on_answer_text(void *user, const char *piece, size_t n_bytes) {
    answer_sink *sink = user;
    if (sink->n + n_bytes > sink->capacity) {
        size_t capacity = 2 * (sink->n + n_bytes) + 256;
        char *larger = realloc(sink->text, capacity);
        if (!larger) {
            sink->failed = true;
            return false;
        }
        sink->text = larger;
        sink->capacity = capacity;
    }
    if (n_bytes) {
        memcpy(sink->text + sink->n, piece, n_bytes);
        sink->n += n_bytes;
        print_text(sink->out, piece, n_bytes);
        fflush(sink->out);
    }
    return !interrupt_seen();
}

static bool generate_answer(conversation *c, answer_sink *sink, const char *prompt,
                            size_t n_bytes) {
    int32_t *ids = NULL;
    size_t n_ids = 0;
    if (!tokenize_prompt(c, &ids, &n_ids, prompt, n_bytes)) {
        return false;
    }
    jang_status status = jang_generate(c->session, ids, n_ids, c->n_max, &c->sampling,
                                       on_answer_text, sink, &c->stats);
    jang_free(c->ctx, ids);
    if (status != JANG_OK && sink->n) {
        fputc('\n', sink->out); /* the message gets a line of its own */
    }
    if (status != JANG_OK) {
        library_failed(c->ctx, status);
    } else if (sink->failed) {
        cli_failed("out of memory");
    }
    return status == JANG_OK && !sink->failed;
}

/* One turn through the template. */
static bool answer_message(conversation *c, answer_sink *sink, const char *text, size_t n_bytes) {
    json_t *question = message_new("user", text, n_bytes);
    if (!question || json_array_append_new(c->messages, question)) {
        return false;
    }
    char *prompt = NULL;
    size_t n_prompt = 0;
    bool ok = render_messages(c, &prompt, &n_prompt) && generate_answer(c, sink, prompt, n_prompt);
    jang_free(c->ctx, prompt);
    if (ok) {
        json_t *answer = message_new("assistant", sink->text ? sink->text : "", sink->n);
        ok = answer && !json_array_append_new(c->messages, answer);
    }
    if (!ok) {
        json_array_remove(c->messages, json_array_size(c->messages) - 1);
    }
    return ok;
}

bool conversation_answer(conversation *c, const char *text, size_t n_bytes) {
    answer_sink sink = {.out = c->out};
    c->stats = (jang_generate_stats){0};
    bool ok =
        c->raw ? generate_answer(c, &sink, text, n_bytes) : answer_message(c, &sink, text, n_bytes);
    free(sink.text);
    return ok;
}

void conversation_print_stats(const conversation *c, FILE *to) {
    static const char *const ends[] = {
        [JANG_FINISH_END] = "ended by the model",
        [JANG_FINISH_LENGTH] = "ended at the limit of tokens",
        [JANG_FINISH_CANCELLED] = "stopped",
    };
    const jang_generate_stats *s = &c->stats;
    double n_computed = (double)(s->n_prompt - s->n_reused);
    fprintf(to,
            "prompt: %zu tokens (%zu from the cache), %.1f tokens/s; answer: %zu tokens, %.1f "
            "tokens/s, %s; seed %" PRIu64 "\n",
            s->n_prompt, s->n_reused, s->prompt_seconds > 0 ? n_computed / s->prompt_seconds : 0.0,
            s->n_generated,
            s->generate_seconds > 0 ? (double)s->n_generated / s->generate_seconds : 0.0,
            ends[s->finish], c->sampling.seed);
}
