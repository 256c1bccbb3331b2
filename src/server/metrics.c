/* metrics.c - GET /metrics: counts and times in Prometheus's text format. */
#include "api.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Upper bounds of the buckets, in seconds. */
static const double bounds[N_BUCKETS - 1] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                                             0.25,  0.5,    1,     2.5,  10,    60};

static const int codes[] = {200, 204, 400, 401, 404, 405, 408, 413,
                            422, 429, 431, 500, 501, 503, 504};
#define N_KNOWN (sizeof codes / sizeof codes[0])

static size_t count_routes(void) {
    size_t n = 0;
    while (api_route_at(n)) {
        n++;
    }
    return n;
}

void metrics_observe(histogram *h, double seconds) {
    size_t i = 0;
    while (i < N_BUCKETS - 1 && seconds > bounds[i]) {
        i++;
    }
    h->buckets[i]++;
    h->n++;
    h->sum += seconds;
}

/* The row of a path; the number of routes for paths that are none. */
static size_t route_row(const char *path) {
    while (!strncmp(path, "/v1/", 4)) {
        path += 3;
    }
    for (size_t i = 0; api_route_at(i); i++) {
        const char *known = api_route_at(i)->path;
        size_t n = strlen(known);
        if (!strcmp(path, known) || (n > 1 && known[n - 1] == '/' && !strncmp(path, known, n))) {
            return i;
        }
    }
    return count_routes();
}

void metrics_count(server *s, const char *path, int status) {
    size_t row = route_row(path), column = N_KNOWN;
    for (size_t i = 0; i < N_KNOWN; i++) {
        column = codes[i] == status ? i : column;
    }
    if (!s->metrics.codes) {
        s->metrics.codes = calloc((count_routes() + 1) * N_CODES, sizeof *s->metrics.codes);
    }
    if (s->metrics.codes && column < N_KNOWN) {
        s->metrics.codes[row * N_CODES + column]++;
    }
}

static void head(tbuf *out, const char *name, const char *type, const char *help) {
    tbuf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_requests(tbuf *out, const server *s) {
    head(out, "jang_requests_total", "counter", "Replies by route and status.");
    for (size_t i = 0; s->metrics.codes && i <= count_routes(); i++) {
        for (size_t k = 0; k < N_KNOWN; k++) {
            uint64_t n = s->metrics.codes[i * N_CODES + k];
            const route *r = api_route_at(i);
            if (n) {
                tbuf_printf(out, "jang_requests_total{route=\"%s\",code=\"%d\"} %" PRIu64 "\n",
                            r ? r->path : "other", codes[k], n);
            }
        }
    }
}

static void put_number(tbuf *out, const char *name, const char *type, const char *help,
                       double value) {
    head(out, name, type, help);
    tbuf_printf(out, "%s %.15g\n", name, value);
}

static void put_histogram(tbuf *out, const char *name, const char *help, const histogram *h) {
    uint64_t sum = 0;
    head(out, name, "histogram", help);
    for (size_t i = 0; i < N_BUCKETS - 1; i++) {
        sum += h->buckets[i];
        tbuf_printf(out, "%s_bucket{le=\"%g\"} %" PRIu64 "\n", name, bounds[i], sum);
    }
    tbuf_printf(out, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n%s_sum %.9g\n%s_count %" PRIu64 "\n",
                name, h->n, name, h->sum, name, h->n);
}

static double resident_bytes(void) {
    unsigned long long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f) {
        if (fscanf(f, "%*u %llu", &pages) != 1) {
            pages = 0;
        }
        fclose(f);
    }
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static void add_stats(jang_engine_stats *sum, const jang_engine_stats *one) {
    sum->n_running += one->n_running;
    sum->n_waiting += one->n_waiting;
    sum->n_requests += one->n_requests;
    sum->n_cancelled += one->n_cancelled;
    sum->n_failed += one->n_failed;
    sum->n_preempted += one->n_preempted;
    sum->n_prompt += one->n_prompt;
    sum->n_cached += one->n_cached;
    sum->n_cached_disk += one->n_cached_disk;
    sum->n_generated += one->n_generated;
    sum->n_draft += one->n_draft;
    sum->n_draft_accepted += one->n_draft_accepted;
    sum->n_steps += one->n_steps;
    sum->n_step_answers += one->n_step_answers;
    sum->n_step_tokens += one->n_step_tokens;
    for (size_t i = 0; i < sizeof sum->batch_sizes / sizeof sum->batch_sizes[0]; i++) {
        sum->batch_sizes[i] += one->batch_sizes[i];
    }
    sum->n_pages += one->n_pages;
    sum->n_pages_max += one->n_pages_max;
    sum->n_pages_used += one->n_pages_used;
    sum->n_pages_cached += one->n_pages_cached;
    sum->n_evictions += one->n_evictions;
    sum->n_hits += one->n_hits;
    sum->n_misses += one->n_misses;
    sum->disk_bytes += one->disk_bytes;
    sum->disk_pages += one->disk_pages;
    sum->disk_errors += one->disk_errors;
}

void server_stats(const server *s, jang_engine_stats *out, uint64_t *page_bytes) {
    *out = (jang_engine_stats){0};
    *page_bytes = 0;
    for (size_t i = 0; s->state != SERVER_LOADING && i < s->n_models; i++) {
        jang_engine_stats one;
        jang_engine_get_stats(&one, s->models[i].engine);
        add_stats(out, &one);
        *page_bytes += (uint64_t)one.n_pages * one.page_bytes;
    }
}

static void put_batch_sizes(tbuf *out, const jang_engine_stats *e) {
    uint64_t sum = 0;
    head(out, "jang_batch_size", "histogram", "Answers in a step.");
    for (int i = 0; i < 7; i++) {
        sum += e->batch_sizes[i];
        tbuf_printf(out, "jang_batch_size_bucket{le=\"%d\"} %" PRIu64 "\n", 1 << i, sum);
    }
    tbuf_printf(out,
                "jang_batch_size_bucket{le=\"+Inf\"} %" PRIu64 "\njang_batch_size_sum %" PRIu64
                "\njang_batch_size_count %" PRIu64 "\n",
                e->n_steps, e->n_step_answers, e->n_steps);
}

static void put_engine(tbuf *out, const server *s) {
    jang_engine_stats e;
    uint64_t page_bytes;
    server_stats(s, &e, &page_bytes);
    put_number(out, "jang_requests_running", "gauge", "Answers being computed.", e.n_running);
    put_number(out, "jang_requests_waiting", "gauge", "Requests in the queue.", e.n_waiting);
    put_number(out, "jang_prompt_tokens_total", "counter", "Tokens of prompts.",
               (double)e.n_prompt);
    head(out, "jang_prompt_tokens_cached_total", "counter", "Of these, not computed again.");
    tbuf_printf(out,
                "jang_prompt_tokens_cached_total{tier=\"memory\"} %" PRIu64
                "\njang_prompt_tokens_cached_total{tier=\"disk\"} %" PRIu64 "\n",
                e.n_cached - e.n_cached_disk, e.n_cached_disk);
    put_number(out, "jang_generated_tokens_total", "counter", "Tokens generated.",
               (double)e.n_generated);
    put_number(out, "jang_kv_cache_usage_ratio", "gauge", "Share of the pages held by answers.",
               e.n_pages_max ? (double)e.n_pages_used / e.n_pages_max : 0);
    head(out, "jang_kv_cache_pages", "gauge", "Pages of keys and values.");
    tbuf_printf(out,
                "jang_kv_cache_pages{state=\"used\"} %d\njang_kv_cache_pages{state=\"cached\"} %d\n"
                "jang_kv_cache_pages{state=\"max\"} %d\n",
                e.n_pages_used, e.n_pages_cached, e.n_pages_max);
    put_number(out, "jang_kv_evictions_total", "counter", "Pages dropped for others.",
               (double)e.n_evictions);
    put_number(out, "jang_preemptions_total", "counter", "Answers put back for lack of pages.",
               (double)e.n_preempted);
    put_number(out, "jang_disk_cache_bytes", "gauge", "Bytes in the disk cache.",
               (double)e.disk_bytes);
    put_number(out, "jang_draft_tokens_total", "counter", "Tokens guessed ahead.",
               (double)e.n_draft);
    put_number(out, "jang_draft_accepted_total", "counter", "Of these, found right.",
               (double)e.n_draft_accepted);
    put_batch_sizes(out, &e);
}

void info_metrics(server *s, http_exchange *x, const char *rest) {
    (void)rest;
    tbuf out = {0};
    const metrics *m = &s->metrics;
    put_requests(&out, s);
    put_engine(&out, s);
    put_number(&out, "jang_requests_aborted_total", "counter", "Requests whose client went away.",
               (double)m->n_aborted);
    put_histogram(&out, "jang_time_to_first_token_seconds", "From request to first token.",
                  &m->first_token);
    put_histogram(&out, "jang_inter_token_seconds", "Between tokens of an answer.",
                  &m->inter_token);
    put_histogram(&out, "jang_request_seconds", "From request to the end of its answer.",
                  &m->request);
    put_histogram(&out, "jang_queue_seconds", "Waiting for a slot.", &m->queue);
    put_number(&out, "jang_process_resident_bytes", "gauge", "Resident memory.", resident_bytes());
    bool loading = s->state == SERVER_LOADING; /* another thread still writes what is loaded */
    put_number(&out, "jang_model_load_seconds", "gauge", "Time to load the models.",
               loading ? 0 : s->load_seconds);
    head(&out, "jang_build_info", "gauge", "What runs here.");
    for (const hosted *h = s->models; h < s->models + s->n_models; h++) {
        tbuf_printf(&out, "jang_build_info{version=\"%s\",backend=\"%s\",model=\"%s\"} 1\n",
                    jang_version(), loading ? "" : h->info->backend, h->id);
    }
    metrics_count(s, "/metrics", 200);
    http_reply(x, 200, "text/plain; version=0.0.4", tbuf_text(&out), out.n);
    tbuf_free(&out);
}
