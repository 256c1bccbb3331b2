/* serve.c - the life of the server: a thread for HTTP, and one for each model's engine (of
 * which the caller's is the first).
 *
 * The socket listens at once and answers 503 until the model is there. A signal stops it: new
 * requests are refused, those that run get some time to end, then they are ended. */
#include "api.h"

#include <event2/event.h>
#include <http_parser.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- Signals: handlers reach static variables only ---- */

static atomic_int n_signals;

static void on_signal(int number) {
    if (atomic_fetch_add(&n_signals, 1) > 0) {
        signal(number, SIG_DFL);
        raise(number);
    }
}

static void catch_signals(void) {
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ,
           SIG_IGN); /* a limit on files costs what is written to the disk cache, no more */
}

/* ---- The HTTP thread ---- */

typedef struct life life;

/* A model's engine and the thread that owns it. */
typedef struct worker {
    life *life;
    hosted *h;
    jang_context *ctx;
    jang_model *model, *draft;
    jang_engine *engine;
    pthread_t thread; /* of all but the first, which has the caller's */
    bool failed;
} worker;

struct life {
    server s;              /* first: the HTTP callbacks get a life, and the engine a server */
    pthread_mutex_t mutex; /* of all below but the workers */
    pthread_cond_t next_turn;
    uint64_t turn, n_turns; /* of the engines: whose it is, and how many were asked for */
    bool ready;             /* the models are there: the HTTP thread takes them over */
    bool done;              /* the HTTP thread has ended its requests */
    worker workers[SERVE_LIST_MAX];
    size_t n_workers; /* written before ready was */
};

static bool get_flag(life *l, const bool *flag) {
    pthread_mutex_lock(&l->mutex);
    bool value = *flag;
    pthread_mutex_unlock(&l->mutex);
    return value;
}

static void on_request(void *user, http_exchange *x) {
    api_handle(user, x);
}

static void on_refused(void *user, http_exchange *x, int status, const char *line) {
    api_refused(user, x, status, line);
}

static void on_gone(void *user, http_exchange *x) {
    gen_gone(user, x);
}

static void on_wake(void *user) {
    life *l = user;
    if (l->s.state == SERVER_LOADING && get_flag(l, &l->ready)) {
        for (size_t i = 0; i < l->n_workers; i++) {
            l->s.models[i].engine = l->workers[i].engine;
        }
        l->s.state = SERVER_READY;
    }
    if (l->s.models[0].engine) {
        gen_take_events(&l->s);
    }
}

static void on_tick(void *user, double now) {
    life *l = user;
    server *s = &l->s;
    if (atomic_load(&n_signals) && s->state != SERVER_STOPPING) {
        s->state = SERVER_STOPPING;
        s->stop_at = now + s->o->grace;
    }
    gen_tick(s, now);
    if (s->state == SERVER_STOPPING) {
        if (now > s->stop_at) {
            gen_end_all(s);
        }
        if (!s->n_replies) {
            http_server_stop(s->http);
        }
    }
}

static void *http_main(void *arg) {
    life *l = arg;
    http_server_run(l->s.http);
    pthread_mutex_lock(&l->mutex);
    l->done = true;
    for (size_t i = 0; l->ready && i < l->n_workers; i++) {
        jang_engine_wake(l->workers[i].engine);
    }
    pthread_mutex_unlock(&l->mutex);
    return NULL;
}

/* ---- Loading ---- */

/* The HTTP thread's context and tokenizers. */
static bool open_text(server *s, char *error, size_t n) {
    jang_context_options options = jang_context_options_default();
    options.n_threads = 1;
    jang_status status = jang_context_new(&s->ctx, &options);
    if (status != JANG_OK) {
        snprintf(error, n, "%s", jang_status_name(status));
        return false;
    }
    bool ok = true;
    for (size_t i = 0; ok && i < s->o->n_models; i++) {
        ok = hosted_open(s, &s->models[s->n_models++], s->o->models[i], error, n);
    }
    if (ok && s->o->embedding_model) {
        hosted *h = &s->models[s->n_models++];
        h->embeds = true;
        ok = hosted_open(s, h, s->o->embedding_model, error, n);
    }
    return ok;
}

static void log_line(void *user, const char *line) {
    const serve_options *o = user;
    o->log(line);
}

/* What one of several engines gets of the memory and the disk. */
static void divide(jang_engine_options *e, size_t n) {
    if (n > 1) {
        uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
        e->kv_budget = (e->kv_budget ? e->kv_budget : memory / 4) / n;
        e->disk_cache_bytes /= n;
    }
}

static bool load(life *l, worker *w, char *error, size_t n) {
    const serve_options *o = l->s.o;
    bool first = w->h == l->s.models;
    char folder[4096];
    jang_context_options context = jang_context_options_default();
    context.n_threads = (int)o->n_threads;
    context.affinity = o->affinity;
    context.log = log_line;
    context.log_user = (void *)o;
    jang_model_options model = jang_model_options_default();
    model.exact = o->exact;
    jang_engine_options engine = o->engine;
    engine.on_event = event_queue_put;
    engine.user = &l->s;
    divide(&engine, l->s.n_models);
    if (engine.disk_cache && !first) { /* each has files of its own */
        int k = snprintf(folder, sizeof folder, "%s/", engine.disk_cache);
        snprintf(folder + k, k < 4000 ? sizeof folder - (size_t)k : 0, "%s", w->h->id);
        for (char *c = folder + k; k < 4000 && *c; c++) {
            *c = *c == '/' ? '_' : *c;
        }
        engine.disk_cache = folder;
    }
    jang_status status = jang_context_new(&w->ctx, &context);
    if (status == JANG_OK) {
        status = jang_model_open(&w->model, w->ctx, w->h->path, &model);
    }
    if (status == JANG_OK && o->draft && first) {
        status = jang_model_open(&w->draft, w->ctx, o->draft, &model);
        engine.draft = w->draft;
    }
    if (status == JANG_OK) {
        status = jang_engine_new(&w->engine, w->model, &engine);
    }
    if (status != JANG_OK) {
        snprintf(error, n, "%s", w->ctx ? jang_context_error(w->ctx) : jang_status_name(status));
        return false;
    }
    hosted_ready(&l->s, w->h, w->model);
    l->s.load_seconds += w->h->info->load_seconds;
    return true;
}

static bool load_all(life *l, char *error, size_t n) {
    for (size_t i = 0; i < l->s.n_models; i++) {
        l->workers[i] = (worker){.life = l, .h = &l->s.models[i]};
        l->n_workers++;
        if (!load(l, &l->workers[i], error, n)) {
            return false;
        }
    }
    return true;
}

static void unload(worker *w) {
    jang_engine_free(w->engine);
    jang_model_free(w->draft);
    jang_model_free(w->model);
    jang_context_free(w->ctx);
}

/* ---- The engines' threads: one for each, and one step at a time ---- */

/* Waits until all who came before have had their step, so that engines do not fight for cores. */
static void take_turn(life *l) {
    pthread_mutex_lock(&l->mutex);
    uint64_t mine = l->n_turns++;
    while (l->turn != mine) {
        pthread_cond_wait(&l->next_turn, &l->mutex);
    }
    pthread_mutex_unlock(&l->mutex);
}

static void give_turn(life *l) {
    pthread_mutex_lock(&l->mutex);
    l->turn++;
    pthread_cond_broadcast(&l->next_turn);
    pthread_mutex_unlock(&l->mutex);
}

static void *run_engine(void *arg) {
    worker *w = arg;
    life *l = w->life;
    while (!w->failed && !get_flag(l, &l->done)) {
        bool busy = false;
        take_turn(l);
        w->failed = jang_engine_step(&busy, w->engine) != JANG_OK;
        give_turn(l);
        if (!busy && !w->failed) {
            jang_engine_wait(w->engine, 1.0);
        }
    }
    if (w->failed) { /* without it the server is of no use */
        http_server_stop(l->s.http);
    }
    return NULL;
}

/* Runs all until the HTTP thread has ended; the first here, the others on threads of theirs. */
static bool run_engines(life *l, char *error, size_t n) {
    size_t n_started = 1;
    bool ok = true;
    while (ok && n_started < l->n_workers) {
        worker *w = &l->workers[n_started];
        ok = !pthread_create(&w->thread, NULL, run_engine, w);
        n_started += ok;
    }
    if (ok) {
        run_engine(&l->workers[0]);
    } else {
        snprintf(error, n, "cannot start a thread");
        http_server_stop(l->s.http);
    }
    for (size_t i = 1; i < n_started; i++) {
        pthread_join(l->workers[i].thread, NULL);
    }
    for (size_t i = 0; ok && i < l->n_workers; i++) {
        if (l->workers[i].failed) {
            snprintf(error, n, "%s", jang_context_error(l->workers[i].ctx));
            ok = false;
        }
    }
    return ok;
}

static bool make_server(life *l, char *error, size_t n) {
    const serve_options *o = l->s.o;
    http_options http = {.host = o->host,
                         .port = (int)o->port,
                         .body_max = (size_t)o->body_max,
                         .header_max = 65536,
                         .n_connections = (int)o->n_connections,
                         .header_seconds = o->head_time,
                         .idle_seconds = o->idle_time,
                         .backlog_max = (size_t)64 << 20,
                         .user = l,
                         .on_request = on_request,
                         .on_refused = on_refused,
                         .on_gone = on_gone,
                         .on_wake = on_wake,
                         .on_tick = on_tick};
    l->s.random = (uint64_t)api_unix_time() * 6364136223846793005u ^ (uint64_t)getpid();
    srandom((unsigned)l->s.random);
    l->s.events = event_queue_new();
    if (!l->s.events) {
        snprintf(error, n, "out of memory");
        return false;
    }
    l->s.http = http_server_new(&http, error, n);
    return l->s.http != NULL;
}

static void announce(life *l) {
    char url[256];
    const char *host = l->s.o->host;
    bool six = strchr(host, ':') != NULL;
    snprintf(url, sizeof url, "http://%s%s%s:%d", six ? "[" : "", host, six ? "]" : "",
             http_server_port(l->s.http));
    serve_model models[SERVE_LIST_MAX];
    for (size_t i = 0; i < l->s.n_models; i++) {
        models[i] = (serve_model){l->s.models[i].id, l->s.models[i].info};
    }
    l->s.o->ready(url, models, l->s.n_models);
}

static void free_server(server *s) {
    http_server_free(s->http);
    event_queue_free(s->events);
    stored_responses_free(s);
    free(s->metrics.codes);
    for (size_t i = 0; i < s->n_models; i++) {
        hosted_close(&s->models[i]);
    }
    jang_context_free(s->ctx);
}

bool serve_run(const serve_options *options, char *error, size_t error_bytes) {
    life l = {.s = {.o = options}};
    pthread_t thread;
    l.s.started = http_now();
    if (pthread_mutex_init(&l.mutex, NULL) || pthread_cond_init(&l.next_turn, NULL)) {
        snprintf(error, error_bytes, "cannot make a lock");
        return false;
    }
    catch_signals();
    /* the tokenizers are read before the HTTP thread starts, which owns them from then on */
    bool ok = open_text(&l.s, error, error_bytes) && make_server(&l, error, error_bytes);
    bool started = ok && !pthread_create(&thread, NULL, http_main, &l);
    if (ok && !started) {
        snprintf(error, error_bytes, "cannot start a thread");
    }
    ok = started && load_all(&l, error, error_bytes);
    if (ok) {
        pthread_mutex_lock(&l.mutex);
        l.ready = true;
        pthread_mutex_unlock(&l.mutex);
        http_server_wake(l.s.http);
        announce(&l);
        ok = run_engines(&l, error, error_bytes);
    }
    if (started) {
        if (!ok) {
            http_server_stop(l.s.http);
        }
        pthread_join(thread, NULL);
    }
    for (size_t i = 0; i < l.n_workers; i++) {
        unload(&l.workers[i]);
    }
    free_server(&l.s);
    pthread_cond_destroy(&l.next_turn);
    pthread_mutex_destroy(&l.mutex);
    return ok;
}

void serve_libraries(char *text, size_t n_bytes) {
    unsigned long v = http_parser_version();
    snprintf(text, n_bytes, "libevent %s, http_parser %lu.%lu.%lu", event_get_version(),
             v >> 16 & 255, v >> 8 & 255, v & 255);
}
