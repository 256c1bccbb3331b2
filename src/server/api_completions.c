/* api_completions.c - POST /v1/completions: text as it is, without a template. */
#include "openai_write.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENS, TOKEN_LOGPROBS, TOP_LOGPROBS, OFFSETS };

#define PROMPTS_MAX 2048

/* ---- Reading ---- */

static bool add_ids(gen_request *g, const json_in *in, json_t *list) {
    size_t n = json_array_size(list);
    int32_t *ids = malloc((n + 1) * sizeof *ids);
    for (size_t i = 0; ids && i < n; i++) {
        json_t *id = json_array_get(list, i);
        json_int_t value = json_integer_value(id);
        if (!json_is_integer(id) || value < 0 || value >= jang_tokenizer_size(g->model->tok)) {
            free(ids);
            return in_wrong(in, "prompt", "token ids of this model", id);
        }
        ids[i] = (int32_t)value;
    }
    if (!ids || !n) {
        free(ids);
        return api_fail(in->error, n ? 503 : 400, n ? "out_of_memory" : "invalid_value", "prompt",
                        n ? "out of memory" : "prompt: expected at least one token");
    }
    g->prompts[g->n_prompts] = ids;
    g->prompt_lengths[g->n_prompts++] = n;
    return true;
}

static bool add_text(server *s, gen_request *g, const json_in *in, json_t *text) {
    size_t n = 0;
    int32_t *ids;
    if (g->suffix) {
        tbuf whole = {0};
        infill_prompt(&whole, g->model->infill, json_string_value(text), g->suffix);
        ids =
            prompt_ids(s, g, in->error, tbuf_text(&whole), whole.n, JANG_TOKENIZE_ADD_SPECIAL, &n);
        tbuf_free(&whole);
    } else {
        ids = prompt_ids(s, g, in->error, json_string_value(text), json_string_length(text),
                         JANG_TOKENIZE_ADD_SPECIAL, &n);
    }
    if (ids) {
        g->prompts[g->n_prompts] = ids;
        g->prompt_lengths[g->n_prompts++] = n;
    }
    return ids != NULL;
}

static void read_prompts(server *s, gen_request *g, const json_in *in) {
    json_t *prompt = in_get(g->body, "prompt");
    bool is_list = json_is_array(prompt) && !json_is_integer(json_array_get(prompt, 0));
    size_t n = is_list ? json_array_size(prompt) : 1;
    if (!(json_is_string(prompt) || json_is_array(prompt)) || !n || n > PROMPTS_MAX) {
        in_wrong(in, "prompt", "a string, token ids, or a list of either", prompt);
        return;
    }
    g->prompts = calloc(n, sizeof *g->prompts);
    g->prompt_lengths = calloc(n, sizeof *g->prompt_lengths);
    if (!g->prompts || !g->prompt_lengths) {
        api_fail(in->error, 503, "out_of_memory", NULL, "out of memory");
        return;
    }
    for (size_t i = 0; !in->error->status && i < n; i++) {
        json_t *one = is_list ? json_array_get(prompt, i) : prompt;
        if (json_is_string(one)) {
            add_text(s, g, in, one);
        } else if (g->suffix) {
            in_wrong(in, "prompt", "a string, where there is a suffix", one);
        } else if (json_is_array(one)) {
            add_ids(g, in, one);
        } else {
            in_wrong(in, "prompt", "a string, token ids, or a list of either", one);
        }
    }
}

static bool completions_read(server *s, gen_request *g, bool *echo, api_error *e) {
    json_in in = {e, ""};
    int64_t n_max = 16, logprobs = -1;
    const char *suffix = NULL;
    if (e->status) {
        return false;
    }
    gen_read_sampling(g, &in, g->body);
    int64_t best_of;
    if (in_int(&in, g->body, "best_of", 1, 64, &best_of) && best_of != g->r.n) {
        api_fail(e, 400, "invalid_value", "best_of", "best_of: expected the same as n");
    }
    in_int(&in, g->body, "max_tokens", 0, INT32_MAX, &n_max);
    g->r.n_max = (int32_t)n_max;
    g->logprobs = in_int(&in, g->body, "logprobs", 0, 20, &logprobs);
    g->r.n_logprobs = (int32_t)logprobs;
    in_bool(&in, g->body, "echo", echo);
    g->r.prompt_logprobs = *echo && g->logprobs;
    if (*echo && in_get(g->body, "suffix")) {
        api_fail(e, 400, "invalid_value", "echo", "echo: not together with a suffix");
    }
    if (in_text(&in, g->body, "suffix", &suffix) && *suffix && infill_check(g, e, suffix)) {
        g->suffix = suffix;
        infill_ends(s, g);
    }
    gen_read_format(g, &in, in_get(g->body, "response_format"), "response_format");
    read_prompts(s, g, &in);
    return !e->status;
}

/* ---- Writing ---- */

static void comma(tbuf *b) {
    if (b->n) {
        tbuf_putc(b, ',');
    }
}

static void add_top(tbuf *out, const jang_token *token) {
    jw w = jw_start(out);
    jw_open(&w, NULL, '{');
    for (size_t i = 0; i < token->n_top; i++) {
        tbuf name = {0};
        tbuf_add_utf8(&name, token->top[i].bytes, token->top[i].n_bytes);
        jw_real(&w, tbuf_text(&name), (double)token->top[i].logprob);
        tbuf_free(&name);
    }
    jw_close(&w);
}

static size_t count_characters(const char *text, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        count += (text[i] & 0xC0) != 0x80;
    }
    return count;
}

static void completion_token(answer *a, const jang_token *token, bool of_prompt) {
    (void)of_prompt;
    tbuf text = {0};
    tbuf_add_utf8(&text, token->chosen.bytes, token->chosen.n_bytes);
    for (size_t i = 0; i < 4; i++) {
        comma(&a->tokens[i]);
    }
    json_quote(&a->tokens[TOKENS], tbuf_text(&text), text.n);
    bool known = !isnan(token->chosen.logprob);
    if (known) {
        tbuf_printf(&a->tokens[TOKEN_LOGPROBS], "%.9g", (double)token->chosen.logprob);
        add_top(&a->tokens[TOP_LOGPROBS], token);
    } else {
        tbuf_puts(&a->tokens[TOKEN_LOGPROBS], "null");
        tbuf_puts(&a->tokens[TOP_LOGPROBS], "null");
    }
    tbuf_printf(&a->tokens[OFFSETS], "%zu", a->text_offset);
    a->text_offset += count_characters(tbuf_text(&text), text.n);
    tbuf_free(&text);
}

static void write_logprobs(jw *w, answer *a) {
    static const char *const names[] = {"tokens", "token_logprobs", "top_logprobs", "text_offset"};
    if (!a->reply->g.logprobs) {
        jw_null(w, "logprobs");
        return;
    }
    jw_open(w, "logprobs", '{');
    for (size_t i = 0; i < 4; i++) {
        jw_open(w, names[i], '[');
        if (a->tokens[i].n) {
            jw_raw(w, NULL, a->tokens[i].data, a->tokens[i].n);
        }
        jw_close(w);
        tbuf_clear(&a->tokens[i]);
    }
    jw_close(w);
}

static jw begin_object(const reply *r, tbuf *out) {
    return openai_begin(r, out, "text_completion");
}

static void write_choice(jw *w, answer *a, const char *text, size_t n, const char *finish) {
    jw_open(w, NULL, '{');
    jw_bytes(w, "text", text, n);
    jw_int(w, "index", a->index);
    write_logprobs(w, a);
    jw_text(w, "finish_reason", finish);
    jw_close(w);
}

static void send_piece(answer *a, const char *text, size_t n, const char *finish) {
    reply *r = a->reply;
    jw w = begin_object(r, &r->out);
    jw_open(&w, "choices", '[');
    write_choice(&w, a, text, n, finish);
    jw_close(&w);
    jw_close(&w);
    sse_send(r, NULL);
}

static void completion_text(answer *a, msg_part part, const char *text, size_t n_bytes) {
    (void)part;
    send_piece(a, text, n_bytes, NULL);
}

static void completion_end(answer *a) {
    send_piece(a, "", 0, openai_finish(a));
}

static void completion_finish(reply *r) {
    if (r->streaming) {
        if (r->include_usage) {
            jw w = begin_object(r, &r->out);
            jw_open(&w, "choices", '[');
            jw_close(&w);
            openai_usage(&w, r);
            jw_close(&w);
            sse_send(r, NULL);
        }
        tbuf_puts(&r->out, "[DONE]");
        sse_send(r, NULL);
        return;
    }
    tbuf out = {0};
    jw w = begin_object(r, &out);
    jw_open(&w, "choices", '[');
    for (size_t i = 0; i < r->n_answers; i++) {
        answer *a = &r->answers[i];
        write_choice(&w, a, tbuf_text(&a->message.text), a->message.text.n, openai_finish(a));
    }
    jw_close(&w);
    openai_usage(&w, r);
    openai_timings(&w, r);
    jw_close(&w);
    api_reply_json(r->server, r->x, 200, &out);
}

static const dialect completion_dialect = {
    .family = API_OPENAI,
    .text = completion_text,
    .token = completion_token,
    .end = completion_end,
    .finish = completion_finish,
};

/* The prompt's own text in front of each of its answers. */
static void echo_prompt(server *s, reply *r) {
    for (size_t i = 0; i < r->n_answers; i++) {
        size_t p = i / (size_t)r->g.r.n, n = 0;
        char *text = NULL;
        answer *a = &r->answers[i];
        if (jang_detokenize(&text, &n, r->g.model->tok, r->g.prompts[p], r->g.prompt_lengths[p],
                            0) != JANG_OK) {
            continue;
        }
        tbuf_add(&a->message.text, text, n);
        if (r->streaming) {
            send_piece(a, text, n, NULL);
        } else if (!r->g.logprobs) {
            a->text_offset = count_characters(text, n);
        }
        jang_free(s->ctx, text);
    }
}

void openai_completions(server *s, http_exchange *x, const char *rest) {
    (void)rest;
    api_error e = {0};
    gen_request g;
    bool echo = false;
    if (!gen_request_open(&g, s, x, API_OPENAI, &e)) {
        return;
    }
    if (!completions_read(s, &g, &echo, &e)) {
        gen_request_refuse(&g, s, x, API_OPENAI, &e);
        return;
    }
    bool usage = json_is_true(json_object_get(in_get(g.body, "stream_options"), "include_usage"));
    reply *r = gen_start(s, x, &completion_dialect, &g, "cmpl-");
    if (!r) {
        return;
    }
    r->include_usage = usage;
    if (r->streaming) {
        http_stream_begin(x, 200, "text/event-stream");
    }
    if (echo) {
        echo_prompt(s, r);
    }
}
