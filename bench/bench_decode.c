/* bench_decode.c - what decoding costs beside the weights: many sequences at once, a long context.
 *
 *     bench_decode MODEL [--streams N] [--context N] [--rounds N] [--threads N]
 *
 * With --streams, one sequence and N of them take turns in an engine; only the time after all have
 * their first token counts. With --context, single tokens at the end of 64 tokens and of N take
 * turns, each with the memory's bandwidth measured beside it. Prompts are random ids. Prints JSON;
 * rates, times and their ratios are medians over the rounds. */
#include "jang.h"

#include "base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROMPT = 16, TOKENS = 48, SHORT = 64, STEPS = 8, MAX_STREAMS = 64, MAX_ROUNDS = 50 };

typedef struct bench {
    jang_context *ctx;
    jang_model *model;
    int n_streams, n_context, n_rounds;
} bench;

static void check(const bench *b, jang_status status) {
    if (status != JANG_OK) {
        fprintf(stderr, "bench_decode: %s\n", jang_context_error(b->ctx));
        exit(1);
    }
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *values, int n) {
    double sorted[MAX_ROUNDS];
    memcpy(sorted, values, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, by_value);
    return (sorted[(n - 1) / 2] + sorted[n / 2]) / 2;
}

/* Ids from a linear congruential generator (Knuth, MMIX). */
static int32_t *random_ids(const bench *b, int n) {
    int32_t *ids = malloc((size_t)n * sizeof *ids);
    uint64_t state = 1, n_vocab = (uint64_t)jang_model_get_info(b->model)->n_vocab;
    for (int i = 0; ids && i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        ids[i] = (int32_t)((state >> 33) % n_vocab);
    }
    if (!ids) {
        fprintf(stderr, "bench_decode: out of memory\n");
        exit(1);
    }
    return ids;
}

/* ---- Many sequences ---------------------------------------------------------------------------
 */

typedef struct streams {
    int n_started, n_tokens; /* sequences with a first token; tokens since all had theirs */
    int n;
    double start, end;
} streams;

static void on_event(void *user, const jang_event *event) {
    (void)user;
    streams *s = event->user;
    if (event->kind == JANG_EVENT_START) {
        s->n_started++;
    } else if (event->kind == JANG_EVENT_TEXT && event->n_tokens && s->n_started == s->n) {
        s->end = clock_seconds();
        s->start = s->start > 0 ? s->start : s->end;
        s->n_tokens += s->end > s->start ? (int)event->n_tokens : 0;
    }
}

/* Tokens a second of n sequences together. */
static double rate_of(const bench *b, jang_engine *engine, const int32_t *ids, int n) {
    streams s = {.n = n};
    for (int i = 0; i < n; i++) {
        jang_request r = jang_request_default(b->model);
        jang_message message;
        uint64_t id;
        r.prompt = ids + i * PROMPT;
        r.n_prompt = PROMPT;
        r.n_max = TOKENS;
        r.ignore_eos = true;
        r.special_text = true;
        r.sampling = (jang_sampling){.temperature = 0};
        r.user = &s;
        if (jang_engine_submit(&id, engine, &r, &message) != JANG_OK) {
            fprintf(stderr, "bench_decode: %s\n", message.text);
            exit(1);
        }
    }
    for (bool busy = true; busy;) {
        check(b, jang_engine_step(&busy, engine));
    }
    return s.n_tokens / (s.end - s.start);
}

static void bench_streams(const bench *b) {
    double one[MAX_ROUNDS], many[MAX_ROUNDS], ratio[MAX_ROUNDS];
    int32_t *ids = random_ids(b, b->n_streams * PROMPT);
    jang_engine_options options = jang_engine_options_default();
    jang_engine *engine;
    options.on_event = on_event;
    options.lookup = false;
    check(b, jang_engine_new(&engine, b->model, &options));
    (void)rate_of(b, engine, ids, b->n_streams);
    for (int i = 0; i < b->n_rounds; i++) {
        one[i] = rate_of(b, engine, ids, 1);
        many[i] = rate_of(b, engine, ids, b->n_streams);
        ratio[i] = many[i] / one[i];
    }
    printf(", \"streams\": %d, \"one\": %.6g, \"many\": %.6g, \"ratio\": %.6g", b->n_streams,
           median(one, b->n_rounds), median(many, b->n_rounds), median(ratio, b->n_rounds));
    jang_engine_free(engine);
    free(ids);
}

/* ---- A long context ---------------------------------------------------------------------------
 */

static jang_session *session_of(const bench *b, const int32_t *ids, int n) {
    jang_session *s;
    check(b, jang_session_new(&s, b->model, NULL));
    for (int i = 0; i < n; i += 512) {
        check(b, jang_session_append(s, ids + i, (size_t)(n - i < 512 ? n - i : 512), NULL));
    }
    return s;
}

/* Seconds of a single token after n. */
static double step_seconds(const bench *b, jang_session *s, const int32_t *ids, int n) {
    check(b, jang_session_truncate(s, (size_t)n));
    double start = clock_seconds();
    for (int i = 0; i < STEPS; i++) {
        check(b, jang_session_append(s, ids + i, 1, NULL));
    }
    return (clock_seconds() - start) / STEPS;
}

static void bench_context(const bench *b) {
    double near[MAX_ROUNDS], far[MAX_ROUNDS], more[MAX_ROUNDS], bandwidth[MAX_ROUNDS];
    int32_t *ids = random_ids(b, b->n_context + STEPS);
    jang_session *a = session_of(b, ids, SHORT), *c = session_of(b, ids, b->n_context);
    for (int i = 0; i < b->n_rounds; i++) {
        near[i] = step_seconds(b, a, ids, SHORT);
        far[i] = step_seconds(b, c, ids, b->n_context);
        check(b, jang_measure_bandwidth(&bandwidth[i], b->ctx));
        more[i] = (far[i] - near[i]) * bandwidth[i];
    }
    printf(", \"context\": %d, \"seconds_short\": %.6g, \"seconds_long\": %.6g, "
           "\"bandwidth\": %.6g, \"bytes_in_the_difference\": %.6g",
           b->n_context, median(near, b->n_rounds), median(far, b->n_rounds),
           median(bandwidth, b->n_rounds), median(more, b->n_rounds));
    jang_session_free(a);
    jang_session_free(c);
    free(ids);
}

int main(int argc, char **argv) {
    bench b = {.n_rounds = 5};
    jang_context_options options = jang_context_options_default();
    for (int i = 2; i + 1 < argc; i += 2) {
        int value = (int)strtol(argv[i + 1], NULL, 10);
        b.n_streams = strcmp(argv[i], "--streams") == 0 ? value : b.n_streams;
        b.n_context = strcmp(argv[i], "--context") == 0 ? value : b.n_context;
        b.n_rounds = strcmp(argv[i], "--rounds") == 0 ? value : b.n_rounds;
        options.n_threads = strcmp(argv[i], "--threads") == 0 ? value : options.n_threads;
    }
    if (argc < 2 || b.n_rounds < 1 || b.n_rounds > MAX_ROUNDS || b.n_streams > MAX_STREAMS) {
        fprintf(stderr, "usage: bench_decode MODEL [--streams N] [--context N] [--rounds N] "
                        "[--threads N]\n");
        return 2;
    }
    if (jang_context_new(&b.ctx, &options) != JANG_OK) {
        return 1;
    }
    check(&b, jang_model_open(&b.model, b.ctx, argv[1], NULL));
    printf("{\"model\": \"%s\", \"threads\": %d", argv[1], jang_context_threads(b.ctx));
    if (b.n_streams > 0) {
        bench_streams(&b);
    }
    if (b.n_context > 0) {
        bench_context(&b);
    }
    printf("}\n");
    jang_model_free(b.model);
    jang_context_free(b.ctx);
    return 0;
}
