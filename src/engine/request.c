/* request.c - checking and copying what somebody asks of an engine. */
#include "engine/request.h"

#include "base/file.h"
#include "engine/sampler.h"
#include "grammar/grammar.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MOST_ANSWERS 64
#define MOST_STOPS 64
#define LONGEST_STOP 4096

jang_request jang_request_default(const jang_model *m) {
    return (jang_request){
        .n = 1,
        .sampling = jang_sampling_default(m),
        .n_max = -1,
        .n_logprobs = -1,
        .thinking = {.budget = -1},
        .cache_prompt = true,
        .pooling = m->info.pooling,
    };
}

/* ---- Checks ---- */

__attribute__((format(printf, 3, 4))) static jang_status
refuse(jang_message *message, jang_status status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(message->text, sizeof message->text, format, args);
    va_end(args);
    return status;
}

static jang_status check_ids(const char *what, const int32_t *ids, size_t n, int32_t n_vocab,
                             jang_message *message) {
    if (n && !ids) {
        return refuse(message, JANG_ERR_ARGUMENT, "%s: NULL for %zu ids", what, n);
    }
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= n_vocab) {
            return refuse(message, JANG_ERR_ARGUMENT, "%s: token id %d; the model knows 0 to %d",
                          what, (int)ids[i], (int)n_vocab - 1);
        }
    }
    return JANG_OK;
}

static jang_status check_numbers(const jang_request *r, jang_message *message) {
    const struct {
        const char *name;
        int64_t value, min, max;
    } ranges[] = {
        {"task", (int64_t)r->task, JANG_TASK_GENERATE, JANG_TASK_LABEL},
        {"n", r->n, 1, MOST_ANSWERS},
        {"n_max", r->n_max, -1, INT32_MAX},
        {"min_tokens", r->min_tokens, 0, INT32_MAX},
        {"n_end_ids", (int64_t)r->n_end_ids, 0, 256},
        {"n_stop", (int64_t)r->n_stop, 0, MOST_STOPS},
        {"n_logprobs", r->n_logprobs, -1, JANG_LOGPROBS_MAX},
        {"pooling", (int64_t)r->pooling, JANG_POOL_LAST, JANG_POOL_FIRST},
        {"n_choices", (int64_t)r->n_choices, r->task == JANG_TASK_SCORE, 1024},
        {"n_biases", (int64_t)r->sampling.n_biases, 0, 1 << 16},
        {"thinking.budget", r->thinking.budget, -1, INT32_MAX},
        {"n_close_ids", (int64_t)r->thinking.n_close_ids, 0, 1024},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        if (ranges[i].value < ranges[i].min || ranges[i].value > ranges[i].max) {
            return refuse(message, JANG_ERR_ARGUMENT, "%s %lld; %lld to %lld is allowed",
                          ranges[i].name, (long long)ranges[i].value, (long long)ranges[i].min,
                          (long long)ranges[i].max);
        }
    }
    return JANG_OK;
}

/* Texts, and what does not go together. */
static jang_status check_texts(const jang_request *r, jang_message *message) {
    for (size_t i = 0; i < r->n_stop; i++) {
        size_t n = r->stop && r->stop[i] ? strlen(r->stop[i]) : 0;
        if (n < 1 || n > LONGEST_STOP) {
            return refuse(message, JANG_ERR_ARGUMENT,
                          "stop string %zu has %zu bytes; 1 to %d are allowed", i, n, LONGEST_STOP);
        }
    }
    const char *const markers[] = {r->thinking.open, r->thinking.close};
    for (size_t i = 0; i < 2; i++) {
        size_t n = markers[i] ? strlen(markers[i]) : 1;
        if (n < 1 || n > 256) {
            return refuse(message, JANG_ERR_ARGUMENT,
                          "a marker of reasoning has %zu bytes; 1 to 256 are allowed", n);
        }
    }
    if (!r->thinking.close && (r->thinking.is_open || r->thinking.open)) {
        return refuse(message, JANG_ERR_ARGUMENT, "reasoning needs a closing marker");
    }
    if (r->prompt_logprobs && r->task != JANG_TASK_GENERATE) {
        return refuse(message, JANG_ERR_ARGUMENT, "prompt_logprobs goes with JANG_TASK_GENERATE");
    }
    return JANG_OK;
}

static jang_status check_length(const jang_request *r, const request_limits *limits,
                                jang_message *message) {
    if (r->n_prompt < 1) {
        return refuse(message, JANG_ERR_ARGUMENT, "the prompt is empty");
    }
    bool generates = r->task == JANG_TASK_GENERATE && r->n_max != 0;
    int64_t most = limits->n_context < limits->n_tokens ? limits->n_context : limits->n_tokens;
    if (r->n_prompt + generates > (uint64_t)most) {
        return refuse(message, JANG_ERR_FULL, "a prompt of %zu tokens; at most %lld fit%s",
                      r->n_prompt, (long long)(most - generates),
                      most < limits->n_context ? " the budget of memory" : " the context");
    }
    return JANG_OK;
}

/* What the model can do at all. */
static jang_status check_task(const jang_request *r, const jang_model *m, jang_message *message) {
    bool writes = r->task == JANG_TASK_GENERATE || r->task == JANG_TASK_SCORE;
    if (writes && !m->info.writes) {
        return refuse(message, JANG_ERR_UNSUPPORTED, "this %s model writes no text",
                      m->info.family);
    }
    if (r->task == JANG_TASK_LABEL && m->info.n_label == 0) {
        return refuse(message, JANG_ERR_UNSUPPORTED, "this %s model is no classifier",
                      m->info.family);
    }
    int32_t n_type = model_get_facts(m->model)->n_type;
    for (size_t i = 0; r->types && n_type > 1 && i < r->n_prompt; i++) {
        if (r->types[i] < 0 || r->types[i] >= n_type) {
            return refuse(message, JANG_ERR_ARGUMENT, "token type %d; the model knows 0 to %d",
                          (int)r->types[i], (int)n_type - 1);
        }
    }
    return JANG_OK;
}

jang_status request_check(const jang_request *r, const request_limits *limits,
                          jang_message *message) {
    int32_t n_vocab = model_get_facts(limits->model->model)->n_vocab;
    jang_status status = check_numbers(r, message);
    if (status == JANG_OK) {
        status = check_task(r, limits->model, message);
    }
    if (status == JANG_OK) {
        status = check_length(r, limits, message);
    }
    if (status == JANG_OK) {
        status = check_ids("prompt", r->prompt, r->n_prompt, n_vocab, message);
    }
    if (status == JANG_OK) {
        status = check_ids("end_ids", r->end_ids, r->n_end_ids, n_vocab, message);
    }
    if (status == JANG_OK) {
        status = check_ids("choices", r->choices, r->n_choices, n_vocab, message);
    }
    if (status == JANG_OK) {
        status = check_ids("close_ids", r->thinking.close_ids, r->thinking.n_close_ids, n_vocab,
                           message);
    }
    if (status == JANG_OK) {
        status = check_texts(r, message);
    }
    if (status == JANG_OK &&
        !sampling_is_valid(&r->sampling, n_vocab, message->text, sizeof message->text)) {
        status = JANG_ERR_ARGUMENT;
    }
    return status;
}

/* ---- Copies ---- */

/* Lays out copies one behind another; with no data it only measures. */
typedef struct packer {
    uint8_t *data;
    size_t n_bytes;
} packer;

static void *pack(packer *p, const void *source, size_t n_bytes) {
    size_t at = (p->n_bytes + 15) & ~(size_t)15;
    p->n_bytes = at + n_bytes;
    if (!p->data) {
        return NULL;
    }
    if (source && n_bytes) {
        memcpy(p->data + at, source, n_bytes);
    }
    return p->data + at;
}

static const char *pack_text(packer *p, const char *text) {
    return text ? pack(p, text, strlen(text) + 1) : NULL;
}

static void pack_ends(packer *p, request *copy, const jang_model *m, const jang_request *r) {
    size_t n = m->ends.n;
    int32_t *ends = pack(p, NULL, (n + r->n_end_ids) * sizeof *ends);
    if (ends) {
        if (n) {
            memcpy(ends, m->ends.ids, n * sizeof *ends);
        }
        if (r->n_end_ids) {
            memcpy(ends + n, r->end_ids, r->n_end_ids * sizeof *ends);
        }
    }
    copy->ends = ends;
    copy->n_ends = n + r->n_end_ids;
}

static void pack_request(packer *p, const jang_model *m, const jang_request *r,
                         const tok_ids *open) {
    request scratch = {.d = *r}, *copy = pack(p, NULL, sizeof *copy);
    copy = copy ? copy : &scratch;
    *copy = (request){.d = *r, .ctx = m->ctx};
    jang_request *d = &copy->d;
    d->prompt = pack(p, r->prompt, r->n_prompt * sizeof *r->prompt);
    bool has_types = r->types && model_get_facts(m->model)->n_type > 1;
    d->types = has_types ? pack(p, r->types, r->n_prompt * sizeof *r->types) : NULL;
    d->sampling.biases =
        pack(p, r->sampling.biases, r->sampling.n_biases * sizeof *r->sampling.biases);
    const char **stop = pack(p, NULL, r->n_stop * sizeof *stop);
    for (size_t i = 0; i < r->n_stop; i++) {
        const char *text = pack_text(p, r->stop[i]);
        if (stop) {
            stop[i] = text;
        }
    }
    d->stop = stop;
    d->thinking.open = pack_text(p, r->thinking.open);
    d->thinking.close = pack_text(p, r->thinking.close);
    d->thinking.close_ids =
        pack(p, r->thinking.close_ids, r->thinking.n_close_ids * sizeof *r->thinking.close_ids);
    d->choices = pack(p, r->choices, r->n_choices * sizeof *r->choices);
    d->cache_salt = pack_text(p, r->cache_salt ? r->cache_salt : "");
    copy->open_ids = pack(p, open->ids, open->n * sizeof *open->ids);
    copy->n_open_ids = open->n;
    d->end_ids = NULL;
    pack_ends(p, copy, m, r);
}

/* The closing marker as ids, where none are given. */
static jang_status close_ids(tok_ids *out, const jang_model *m, const jang_thinking *d) {
    if (!d->close || d->budget < 0 || d->n_close_ids || !m->tokenizer) {
        return JANG_OK;
    }
    return tok_encode(m->tokenizer->tok, out, d->close, strlen(d->close), 0);
}

/* Tokens behind the last one that is not padding say nothing to a classifier. */
static size_t without_padding(const jang_model *m, const jang_request *r) {
    size_t n = r->n_prompt;
    while (r->task == JANG_TASK_LABEL && n > 1 && r->prompt[n - 1] == m->padding) {
        n--;
    }
    return n;
}

jang_status request_new(request **out, const jang_model *m, const jang_request *source) {
    packer p = {0};
    tok_ids ids = {0}, open = {0};
    jang_request filled = *source, *r = &filled;
    r->n_prompt = without_padding(m, r);
    jang_status status = close_ids(&ids, m, &r->thinking);
    if (status == JANG_OK && r->thinking.open && r->grammar && m->tokenizer) {
        status =
            tok_encode(m->tokenizer->tok, &open, r->thinking.open, strlen(r->thinking.open), 0);
    }
    if (ids.n) {
        r->thinking.close_ids = ids.ids;
        r->thinking.n_close_ids = ids.n;
    }
    pack_request(&p, m, r, &open);
    p.data = status == JANG_OK ? ctx_alloc(m->ctx, p.n_bytes) : NULL;
    p.n_bytes = 0;
    if (p.data) {
        pack_request(&p, m, r, &open);
    }
    tok_ids_free(m->ctx, &ids);
    tok_ids_free(m->ctx, &open);
    if (!p.data) {
        return JANG_ERR_MEMORY;
    }
    request *copy = (request *)(void *)p.data;
    copy->submitted = clock_seconds();
    if (copy->d.grammar) {
        (void)grammar_ref(copy->d.grammar);
    }
    copy->n_left = r->task == JANG_TASK_GENERATE ? r->n : 1;
    *out = copy;
    return JANG_OK;
}

void request_free(request *r) {
    if (r) {
        grammar_unref(r->d.grammar);
        ctx_free(r->ctx, r);
    }
}
