/* cmd_bench.c - jang bench: how fast a model reads prompts and makes tokens, and how much of the
 * machine's memory bandwidth it uses for that.
 *
 * One round is a prompt of pseudo-random ids from an empty session, and then one token at a time,
 * each the likeliest after the last. A short round first, not counted, brings the weights into
 * memory. The bandwidth is measured before each round and after the last, and a round's share is of
 * the mean of the two figures around it: on virtual machines it comes and goes. */
#include "command.h"
#include "interrupt.h"
#include "jang.h"
#include "open_model.h"
#include "terminal.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

typedef struct bench_arguments {
    const char *model, *affinity;
    int64_t n_prompt, n_generate, n_repeat, n_threads;
    bool json, exact, prefault, lock;
} bench_arguments;

static const bench_arguments bench_defaults = {.n_prompt = 512, .n_generate = 128, .n_repeat = 5};

static const opt_spec bench_options[] = {
    MODEL_OPTION(bench_arguments),
    {.name = "prompt",
     .kind = OPT_INT,
     .value = "N",
     .target = offsetof(bench_arguments, n_prompt),
     .min = 1,
     .max = 1 << 20,
     .help = "Tokens of the prompt."},
    {.name = "generate",
     .kind = OPT_INT,
     .value = "N",
     .target = offsetof(bench_arguments, n_generate),
     .min = 1,
     .max = 1 << 20,
     .help = "Tokens to generate."},
    {.name = "repeat",
     .kind = OPT_INT,
     .value = "N",
     .target = offsetof(bench_arguments, n_repeat),
     .min = 1,
     .max = 1000,
     .help = "Rounds."},
    {.name = "exact",
     .kind = OPT_FLAG,
     .target = offsetof(bench_arguments, exact),
     .help = "Keep activations in f32 inside quantized products."},
    THREADS_OPTION(bench_arguments),
    AFFINITY_OPTION(bench_arguments),
    PREFAULT_OPTION(bench_arguments),
    LOCK_OPTION(bench_arguments),
    {.name = "json",
     .kind = OPT_FLAG,
     .target = offsetof(bench_arguments, json),
     .help = "Print the figures as JSON."},
};

/* Tokens a second of each round, and what is made of them. */
typedef struct speed_sample {
    double *rates; /* [n], sorted by sample_sort */
    size_t n;
} speed_sample;

static void sample_add(speed_sample *s, double rate) {
    s->rates[s->n++] = rate;
}

typedef struct bench_job {
    jang_context *ctx;
    jang_model *model;
    jang_session *session;
    int32_t *ids; /* [n_prompt] */
    size_t n_prompt, n_generate;
    speed_sample prompt, generate;
    speed_sample bandwidth, shares; /* bytes a second; of it, what generating took */
} bench_job;

/* ---- Measuring ---- */

/* Ids spread over the vocabulary, the same in every run: a 64-bit linear congruential generator
 * (Knuth, MMIX). */
static void fill_ids(int32_t *ids, size_t n, int32_t n_vocab) {
    uint64_t state = 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        ids[i] = (int32_t)((state >> 33) % (uint64_t)n_vocab);
    }
}

static int32_t likeliest(const float *logits, int32_t n) {
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return best;
}

/* One round of n_prompt and n_generate tokens; the seconds go to the two out parameters. */
static jang_status time_round(bench_job *job, size_t n_prompt, size_t n_generate,
                              double *prompt_seconds, double *generate_seconds) {
    int32_t n_vocab = jang_model_get_info(job->model)->n_vocab;
    jang_status status = jang_session_truncate(job->session, 0);
    double start = now_seconds();
    if (status == JANG_OK) {
        status = jang_session_append(job->session, job->ids, n_prompt, NULL);
    }
    double middle = now_seconds();
    for (size_t i = 0; status == JANG_OK && i < n_generate && !interrupt_seen(); i++) {
        int32_t id = likeliest(jang_session_logits(job->session), n_vocab);
        status = jang_session_append(job->session, &id, 1, NULL);
    }
    *prompt_seconds = middle - start;
    *generate_seconds = now_seconds() - middle;
    return status;
}

/* A round that counts, with the bandwidth on both sides of it; *before becomes the one after. */
static jang_status measure_round(bench_job *job, double *before) {
    double prompt_seconds, generate_seconds, after = 0;
    jang_status status =
        time_round(job, job->n_prompt, job->n_generate, &prompt_seconds, &generate_seconds);
    if (status == JANG_OK) {
        status = jang_measure_bandwidth(&after, job->ctx);
    }
    if (status != JANG_OK || interrupt_seen()) {
        return status;
    }
    double bandwidth = (*before + after) / 2, rate = (double)job->n_generate / generate_seconds;
    double bytes = (double)jang_model_get_info(job->model)->token_bytes;
    sample_add(&job->prompt, (double)job->n_prompt / prompt_seconds);
    sample_add(&job->generate, rate);
    sample_add(&job->bandwidth, bandwidth);
    sample_add(&job->shares, bytes * rate / bandwidth);
    *before = after;
    return JANG_OK;
}

static int measure_all(bench_job *job, size_t n_repeat) {
    double prompt_seconds, generate_seconds, bandwidth = 0;
    size_t n_warm = job->n_prompt < 32 ? job->n_prompt : 32;
    jang_status status = time_round(job, n_warm, 2, &prompt_seconds, &generate_seconds);
    if (status == JANG_OK) {
        status = jang_measure_bandwidth(&bandwidth, job->ctx);
    }
    for (size_t i = 0; status == JANG_OK && i < n_repeat; i++) {
        status = measure_round(job, &bandwidth);
        if (interrupt_seen()) {
            return cli_failed("stopped");
        }
    }
    return status == JANG_OK ? CLI_DONE : library_failed(job->ctx, status);
}

/* ---- Figures ---- */

static int compare_rates(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void sample_sort(speed_sample *s) {
    qsort(s->rates, s->n, sizeof *s->rates, compare_rates);
}

static double sample_median(const speed_sample *s) {
    return (s->rates[(s->n - 1) / 2] + s->rates[s->n / 2]) / 2;
}

static void print_sample(const char *name, size_t n_tokens, const speed_sample *s) {
    printf("%-9s %6zu tokens  %9.1f tokens/s  (%.1f to %.1f in %zu rounds)\n", name, n_tokens,
           sample_median(s), s->rates[0], s->rates[s->n - 1], s->n);
}

static void print_figures(const bench_job *job) {
    const jang_model_info *info = jang_model_get_info(job->model);
    print_sample("prompt", job->n_prompt, &job->prompt);
    print_sample("generate", job->n_generate, &job->generate);
    printf("read per token %s, memory bandwidth %s/s, of which generating uses %.0f%%\n",
           human_bytes((double)info->token_bytes).text,
           human_bytes(sample_median(&job->bandwidth)).text, 100 * sample_median(&job->shares));
}

/* Adds NAME (the median), NAME_min and NAME_max. */
static void add_sample(json_t *to, const char *name, const speed_sample *s) {
    char key[64];
    json_object_set_new(to, name, json_real(sample_median(s)));
    snprintf(key, sizeof key, "%s_min", name);
    json_object_set_new(to, key, json_real(s->rates[0]));
    snprintf(key, sizeof key, "%s_max", name);
    json_object_set_new(to, key, json_real(s->rates[s->n - 1]));
}

static int print_json(const bench_job *job) {
    const jang_model_info *info = jang_model_get_info(job->model);
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I}", "model", info->path, "family",
                          info->family, "profile", info->profile, "backend", info->backend,
                          "threads", (json_int_t)jang_context_threads(job->ctx), "prompt_tokens",
                          (json_int_t)job->n_prompt, "generate_tokens", (json_int_t)job->n_generate,
                          "rounds", (json_int_t)job->prompt.n);
    if (!o) {
        return cli_failed("out of memory, or the model's path is not UTF-8");
    }
    add_sample(o, "prompt_tokens_per_second", &job->prompt);
    add_sample(o, "generate_tokens_per_second", &job->generate);
    json_object_set_new(o, "weight_bytes", json_integer((json_int_t)info->weight_bytes));
    json_object_set_new(o, "nominal_bits", json_real(info->nominal_bits));
    json_object_set_new(o, "true_bits", json_real(info->true_bits));
    json_object_set_new(o, "load_seconds", json_real(info->load_seconds));
    json_object_set_new(o, "bytes_per_token", json_integer((json_int_t)info->token_bytes));
    json_object_set_new(o, "memory_bytes_per_second", json_real(sample_median(&job->bandwidth)));
    json_object_set_new(o, "read_bandwidth_share", json_real(sample_median(&job->shares)));
    bool ok =
        json_dumpf(o, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(6)) == 0;
    putchar('\n');
    json_decref(o);
    return ok ? CLI_DONE : cli_failed("cannot write the figures as JSON");
}

static int bench_model(bench_job *job, const bench_arguments *a) {
    jang_session_options options = jang_session_options_default();
    jang_status status = jang_session_new(&job->session, job->model, &options);
    if (status != JANG_OK) {
        return library_failed(job->ctx, status);
    }
    job->ids = calloc(job->n_prompt, sizeof *job->ids);
    speed_sample *samples[] = {&job->prompt, &job->generate, &job->bandwidth, &job->shares};
    bool ok = job->ids != NULL;
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        samples[i]->rates = calloc((size_t)a->n_repeat, sizeof(double));
        ok = ok && samples[i]->rates;
    }
    if (!ok) {
        return cli_failed("out of memory");
    }
    fill_ids(job->ids, job->n_prompt, jang_model_get_info(job->model)->n_vocab);
    int code = measure_all(job, (size_t)a->n_repeat);
    if (code != CLI_DONE) {
        return code;
    }
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        sample_sort(samples[i]);
    }
    if (a->json) {
        return print_json(job);
    }
    print_figures(job);
    return CLI_DONE;
}

static int bench_run(const void *arguments) {
    const bench_arguments *a = arguments;
    bench_job job = {.n_prompt = (size_t)a->n_prompt, .n_generate = (size_t)a->n_generate};
    int code = CLI_FAILED;
    interrupt_catch();
    job.ctx = open_context_on(a->n_threads, a->affinity);
    jang_model_options options = jang_model_options_default();
    options.exact = a->exact;
    options.prefault = a->prefault;
    options.lock = a->lock;
    job.model = job.ctx ? open_model_as(job.ctx, a->model, &options) : NULL;
    if (job.model) {
        print_model_line(job.model);
        code = bench_model(&job, a);
    }
    free(job.ids);
    free(job.prompt.rates);
    free(job.generate.rates);
    free(job.bandwidth.rates);
    free(job.shares.rates);
    jang_session_free(job.session);
    jang_model_free(job.model);
    jang_context_free(job.ctx);
    return code;
}

const cli_command cmd_bench = {
    .name = "bench",
    .summary = "measure the speed of a model",
    .details =
        "Speeds are medians over the rounds, with the slowest and the fastest beside them. "
        "The share of the memory bandwidth counts the weights read for each generated token; "
        "the bandwidth is measured in the same run.",
    .example = "  jang bench --model smol-4m\n"
               "  jang bench --model smol-4m --prompt 128 --generate 32 --json\n",
    .options = bench_options,
    .n_options = sizeof bench_options / sizeof bench_options[0],
    .defaults = &bench_defaults,
    .n_default_bytes = sizeof bench_defaults,
    .run = bench_run,
};
