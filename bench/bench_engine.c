/* bench_engine.c - how an engine does under load: tokens a second by streams, time to the first
 * token with and without a cached prompt, and how evenly tokens come while a long prompt arrives.
 *
 *     bench_engine MODEL [long prompt's tokens, 4000]
 *
 * Prompts are random ids: nothing repeats itself, so guesses are off. */
#include "jang.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define N_STREAMS 16
#define N_TOKENS 64
#define N_LATE 400 /* most tokens of each stream while the long prompt arrives */
#define MAX_GAPS (N_STREAMS * N_LATE)

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

typedef struct stream {
    double submitted, first, last;
    int n_tokens, n_cached;
    double *gaps; /* where they are collected; NULL: they are not */
    int *n_gaps;
    bool ended;
} stream;

static void on_event(void *user, const jang_event *event) {
    (void)user;
    stream *s = event->user;
    double t = now();
    if (event->kind == JANG_EVENT_TEXT && event->n_tokens) {
        if (s->n_tokens && s->gaps && *s->n_gaps < MAX_GAPS) {
            s->gaps[(*s->n_gaps)++] = t - s->last;
        }
        s->first = s->n_tokens ? s->first : t;
        s->last = t;
        s->n_tokens += (int)event->n_tokens;
    } else if (event->kind == JANG_EVENT_START) {
        s->n_cached = event->stats->n_cached;
    } else if (event->kind == JANG_EVENT_END) {
        s->ended = true;
    }
}

/* xorshift64 */
static uint64_t next_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static bool ask(jang_engine *e, const jang_model *m, stream *s, int n_prompt, int n_max,
                uint64_t seed) {
    int32_t *ids = malloc((size_t)n_prompt * sizeof *ids);
    int32_t n_vocab = jang_model_get_info(m)->n_vocab;
    uint64_t state = seed * 2 + 1, id;
    for (int i = 0; ids && i < n_prompt; i++) {
        ids[i] = (int32_t)(next_random(&state) % (uint64_t)n_vocab);
    }
    jang_request r = jang_request_default(m);
    r.prompt = ids;
    r.n_prompt = (size_t)n_prompt;
    r.n_max = n_max;
    r.ignore_eos = true;
    r.special_text = true;
    r.sampling = (jang_sampling){.temperature = 1, .top_p = 0.95F, .seed = seed};
    r.user = s;
    s->submitted = now();
    jang_message message = {"out of memory"};
    bool ok = ids && jang_engine_submit(&id, e, &r, &message) == JANG_OK;
    if (!ok) {
        fprintf(stderr, "%s\n", message.text);
    }
    free(ids);
    return ok;
}

static bool run(jang_engine *e) {
    bool busy = true;
    while (busy) {
        if (jang_engine_step(&busy, e) != JANG_OK) {
            return false;
        }
    }
    return true;
}

/* Tokens a second of n streams. */
static double throughput(jang_engine *e, const jang_model *m, int n, uint64_t seed) {
    stream s[N_STREAMS] = {{0}};
    double start = now();
    int n_tokens = 0;
    for (int i = 0; i < n; i++) {
        if (!ask(e, m, &s[i], 16, N_TOKENS, seed + (uint64_t)i)) {
            return 0;
        }
    }
    if (!run(e)) {
        return 0;
    }
    for (int i = 0; i < n; i++) {
        n_tokens += s[i].n_tokens;
    }
    return n_tokens / (now() - start);
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Gaps between the tokens of streams while a long prompt comes in; what is left then ends with the
 * engine. */
static void evenness(jang_engine *e, const jang_model *m, int n_long) {
    static double gaps[MAX_GAPS];
    int n_gaps = 0;
    stream s[N_STREAMS] = {{0}}, late = {0};
    for (int i = 0; i + 1 < N_STREAMS; i++) {
        s[i].gaps = gaps;
        s[i].n_gaps = &n_gaps;
        if (!ask(e, m, &s[i], 16, N_LATE, 900 + (uint64_t)i)) {
            return;
        }
    }
    bool busy = true, sent = false;
    while (busy && !(sent && late.ended)) {
        if (jang_engine_step(&busy, e) != JANG_OK) {
            return;
        }
        if (!sent && s[0].n_tokens > 20) {
            sent = ask(e, m, &late, n_long, 8, 999);
        }
    }
    double until = late.first - late.submitted;
    if (n_gaps == 0) {
        return;
    }
    qsort(gaps, (size_t)n_gaps, sizeof *gaps, compare);
    double median = gaps[n_gaps / 2], p99 = gaps[(int)(n_gaps * 0.99)];
    printf("gaps of %d streams while %d tokens arrive: median %.1f ms, p99 %.1f ms, ratio %.2f; "
           "its first token after %.2f s\n",
           N_STREAMS - 1, n_long, 1e3 * median, 1e3 * p99, p99 / median, until);
}

static void prefix(jang_engine *e, const jang_model *m, int n_long) {
    stream cold = {0}, warm = {0};
    if (!ask(e, m, &cold, n_long, 1, 500) || !run(e) || !ask(e, m, &warm, n_long, 1, 500) ||
        !run(e)) {
        return;
    }
    double c = cold.first - cold.submitted, w = warm.first - warm.submitted;
    printf("first token of %d: %.3f s cold, %.4f s with %d cached: %.2f %%\n", n_long, c, w,
           warm.n_cached, 100 * w / c);
}

int main(int argc, char **argv) {
    jang_context *ctx;
    jang_model *m;
    jang_engine *e;
    if (argc < 2) {
        fprintf(stderr, "usage: bench_engine MODEL [TOKENS]\n");
        return 2;
    }
    int n_long = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 4000;
    jang_engine_options o = jang_engine_options_default();
    o.on_event = on_event;
    o.lookup = false;
    if (jang_context_new(&ctx, NULL) != JANG_OK) {
        return 1;
    }
    if (jang_model_open(&m, ctx, argv[1], NULL) != JANG_OK ||
        jang_engine_new(&e, m, &o) != JANG_OK) {
        fprintf(stderr, "%s\n", jang_context_error(ctx));
        return 1;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    (void)throughput(e, m, 1, 1);
    double one = throughput(e, m, 1, 100), four = throughput(e, m, 4, 200);
    double all = throughput(e, m, N_STREAMS, 300);
    printf("tokens/s: %.1f of 1 stream, %.1f of 4, %.1f of %d: %.2f times\n", one, four, all,
           N_STREAMS, all / one);
    prefix(e, m, n_long);
    evenness(e, m, n_long);
    jang_engine_free(e);
    jang_model_free(m);
    jang_context_free(ctx);
    return 0;
}
