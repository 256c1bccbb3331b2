/* openai_write.c - pieces of OpenAI's answers that several routes share: their heads,
 * usage, log-probabilities. */
#include "openai_write.h"

#include <math.h>
#include <string.h>

jw openai_begin(const reply *r, tbuf *out, const char *object) {
    jw w = jw_start(out);
    jw_open(&w, NULL, '{');
    jw_text(&w, "id", r->id);
    jw_text(&w, "object", object);
    jw_int(&w, "created", r->created);
    jw_text(&w, "model", r->g.model->id);
    jw_text(&w, "system_fingerprint", r->g.model->fingerprint);
    return w;
}

void openai_usage(jw *w, const reply *r) {
    jw_open(w, "usage", '{');
    jw_int(w, "prompt_tokens", r->n_prompt);
    jw_int(w, "completion_tokens", r->n_generated);
    jw_int(w, "total_tokens", r->n_prompt + r->n_generated);
    jw_open(w, "prompt_tokens_details", '{');
    jw_int(w, "cached_tokens", r->n_cached);
    jw_close(w);
    jw_open(w, "completion_tokens_details", '{');
    jw_int(w, "reasoning_tokens", r->n_thinking);
    jw_int(w, "accepted_prediction_tokens", r->stats.n_draft_accepted);
    jw_close(w);
    jw_close(w);
}

void openai_timings(jw *w, const reply *r) {
    double prompt = r->stats.prompt_seconds, predicted = r->stats.generate_seconds;
    int64_t n_new = r->n_prompt - r->n_cached;
    jw_open(w, "timings", '{');
    jw_real(w, "prompt_ms", prompt * 1000);
    jw_real(w, "predicted_ms", predicted * 1000);
    jw_real(w, "prompt_per_second", prompt > 0 ? (double)n_new / prompt : 0);
    jw_real(w, "predicted_per_second", predicted > 0 ? (double)r->n_generated / predicted : 0);
    jw_int(w, "draft_n", r->stats.n_draft);
    jw_int(w, "draft_accepted", r->stats.n_draft_accepted);
    jw_close(w);
}

static void logprob_members(jw *w, const jang_logprob *t) {
    tbuf text = {0};
    tbuf_add_utf8(&text, t->bytes, t->n_bytes);
    jw_bytes(w, "token", tbuf_text(&text), text.n);
    tbuf_free(&text);
    jw_real(w, "logprob", (double)t->logprob);
    jw_open(w, "bytes", '[');
    for (size_t i = 0; i < t->n_bytes; i++) {
        jw_int(w, NULL, (unsigned char)t->bytes[i]);
    }
    jw_close(w);
}

void openai_logprob(tbuf *out, const jang_token *token) {
    if (out->n) {
        tbuf_putc(out, ',');
    }
    jw w = jw_start(out);
    jw_open(&w, NULL, '{');
    logprob_members(&w, &token->chosen);
    jw_open(&w, "top_logprobs", '[');
    for (size_t i = 0; i < token->n_top; i++) {
        jw_open(&w, NULL, '{');
        logprob_members(&w, &token->top[i]);
        jw_close(&w);
    }
    jw_close(&w);
    jw_close(&w);
}

const char *openai_finish(const answer *a) {
    if (a->finish == JANG_FINISH_LENGTH) {
        return "length";
    }
    return a->message.calls.n ? "tool_calls" : "stop";
}
