/* generate.c - jang_generate: prompt in, text out. */
#include "engine/sampler.h"
#include "engine/session.h"

#include "base/file.h"

#include <string.h>

/* What one call carries from step to step. */
typedef struct generation {
    jang_session *s;
    sampler *sampler;
    jang_sampling sampling;
    float *logits; /* [n_vocab] a copy that sampling may change */
    size_t n_prompt;
    jang_text *text; /* NULL: the model has no tokenizer, or nobody listens */
    jang_text_fn on_text;
    void *user;
    jang_generate_stats stats;
} generation;

static bool send(generation *g, const char *piece, size_t n_bytes) {
    return n_bytes == 0 || g->on_text(g->user, piece, n_bytes);
}

/* Between the parts of a long prompt the listener is asked with an empty piece. */
static bool keep_going(void *user) {
    generation *g = user;
    return !g->on_text || g->on_text(g->user, "", 0);
}

/* ---- Prompt ---- */

/* Tokens that prompt and session share; at least one of the prompt is left to compute. */
static size_t shared_beginning(const jang_session *s, const int32_t *prompt, size_t n_prompt) {
    size_t n = 0;
    while (n < s->n_ids && n + 1 < n_prompt && s->ids[n] == prompt[n]) {
        n++;
    }
    return n;
}

static jang_status take_prompt(generation *g, const int32_t *prompt, size_t n_prompt) {
    if (n_prompt == 0) {
        return ctx_fail(g->s->ctx, JANG_ERR_ARGUMENT, "the prompt is empty");
    }
    size_t n_reused = shared_beginning(g->s, prompt, n_prompt);
    jang_status status = jang_session_truncate(g->s, n_reused);
    double start = clock_seconds();
    if (status == JANG_OK) {
        status = session_append(g->s, prompt + n_reused, n_prompt - n_reused, NULL, keep_going, g);
    }
    g->stats.n_prompt = n_prompt;
    g->stats.n_reused = n_reused;
    g->stats.prompt_seconds = clock_seconds() - start;
    return status;
}

/* ---- Tokens ---- */

/* Hands a token's text on; false when the listener has had enough. */
static jang_status emit(generation *g, int32_t id, bool *go_on) {
    if (!g->text) {
        return JANG_OK;
    }
    const char *piece;
    size_t n;
    jang_status status = jang_text_push(&piece, &n, g->text, id);
    if (status == JANG_OK) {
        *go_on = send(g, piece, n);
    }
    return status;
}

static int32_t pick(generation *g) {
    jang_session *s = g->s;
    size_t n_vocab = (size_t)model_get_facts(s->model->model)->n_vocab;
    memcpy(g->logits, jang_session_logits(s), n_vocab * sizeof *g->logits);
    const sample_task task = {
        .options = &g->sampling,
        .seed = g->sampling.seed,
        .logits = g->logits,
        .ids = s->ids,
        .n_ids = s->n_ids,
        .n_prompt = g->n_prompt,
    };
    return sampler_pick(g->sampler, &task);
}

static jang_status make_tokens(generation *g, size_t n_max) {
    jang_session *s = g->s;
    bool go_on = true;
    jang_status status = JANG_OK;
    g->stats.finish = JANG_FINISH_LENGTH;
    while (status == JANG_OK && (n_max == 0 || g->stats.n_generated < n_max)) {
        int32_t id = pick(g);
        if (id < 0 || jang_model_is_end(s->model, id)) {
            g->stats.finish = JANG_FINISH_END;
            break;
        }
        g->stats.n_generated++;
        status = emit(g, id, &go_on);
        if (!go_on) {
            g->stats.finish = JANG_FINISH_CANCELLED;
            break;
        }
        if (s->n_ids == (size_t)s->n_context) {
            break;
        }
        if (status == JANG_OK) {
            status = jang_session_append(s, &id, 1, NULL);
        }
    }
    return status;
}

static jang_status flush_text(generation *g) {
    const char *piece;
    size_t n;
    if (!g->text) {
        return JANG_OK;
    }
    jang_status status = jang_text_finish(&piece, &n, g->text);
    if (status == JANG_OK && g->stats.finish != JANG_FINISH_CANCELLED) {
        (void)send(g, piece, n);
    }
    return status;
}

/* Checks the sampling, and makes what it needs. */
static jang_status start(generation *g, const jang_sampling *sampling) {
    jang_model *m = g->s->model;
    int32_t n_vocab = model_get_facts(m->model)->n_vocab;
    char text[200];
    g->sampling = sampling ? *sampling : m->sampling;
    if (!sampling_is_valid(&g->sampling, n_vocab, text, sizeof text)) {
        return ctx_fail(m->ctx, JANG_ERR_ARGUMENT, "%s", text);
    }
    g->logits = ctx_array(m->ctx, (size_t)n_vocab, sizeof *g->logits);
    if (!g->logits) {
        return ctx_fail_memory(m->ctx, (size_t)n_vocab * sizeof *g->logits);
    }
    return sampler_new(&g->sampler, m->ctx, model_n_drawable(m));
}

jang_status jang_generate(jang_session *s, const int32_t *prompt, size_t n_prompt, size_t n_max,
                          const jang_sampling *sampling, jang_text_fn on_text, void *user,
                          jang_generate_stats *stats) {
    generation g = {.s = s, .n_prompt = n_prompt, .on_text = on_text, .user = user};
    jang_status status = start(&g, sampling);
    if (status == JANG_OK && on_text && s->model->tokenizer) {
        status = jang_text_new(&g.text, s->model->tokenizer, JANG_TEXT_SKIP_SPECIAL);
    }
    if (status == JANG_OK) {
        status = take_prompt(&g, prompt, n_prompt);
    }
    if (status == JANG_ERR_CANCELLED) {
        g.stats.finish = JANG_FINISH_CANCELLED;
        status = JANG_OK;
    } else if (status == JANG_OK) {
        double start = clock_seconds();
        status = make_tokens(&g, n_max);
        g.stats.generate_seconds = clock_seconds() - start;
        if (status == JANG_OK) {
            status = flush_text(&g);
        }
    }
    if (status == JANG_OK && stats) {
        *stats = g.stats;
    }
    jang_text_free(g.text);
    sampler_free(g.sampler);
    ctx_free(s->ctx, g.logits);
    return status;
}
