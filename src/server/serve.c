/* serve.c - the life of the server: two threads, the engine's (the caller's) and HTTP's.
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
#include <sys/stat.h>
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
}

/* ---- The HTTP thread ---- */

typedef struct life {
    server s;              /* first: the HTTP callbacks get a life, and the engine a server */
    pthread_mutex_t mutex; /* of ready, done */
    bool ready;            /* the model is there: the HTTP thread takes it over */
    bool done;             /* the HTTP thread has ended its requests */
    jang_engine *engine;   /* handed over with ready */
} life;

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
        l->s.engine = l->engine; /* written before ready was */
        l->s.state = SERVER_READY;
    }
    if (l->s.engine) {
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
    if (l->engine) {
        jang_engine_wake(l->engine);
    }
    pthread_mutex_unlock(&l->mutex);
    return NULL;
}

/* ---- Loading ---- */

static char *base_name(const char *path) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') {
        n--;
    }
    size_t from = n;
    while (from && path[from - 1] != '/') {
        from--;
    }
    return strndup(path + from, n - from);
}

/* FNV-1a over what tells models apart. */
static void make_fingerprint(server *s) {
    uint64_t h = 0xCBF29CE484222325u;
    char text[512];
    int n = snprintf(text, sizeof text, "%s|%s|%lld|%llu|%lld", s->info->family, s->info->profile,
                     (long long)s->info->n_params, (unsigned long long)s->info->weight_bytes,
                     (long long)s->created);
    for (int i = 0; i < n && i < (int)sizeof text - 1; i++) {
        h = (h ^ (unsigned char)text[i]) * 0x100000001B3u;
    }
    snprintf(s->fingerprint, sizeof s->fingerprint, "jang-%s-%08llx", jang_version(),
             (unsigned long long)(h & 0xFFFFFFFFu));
}

static bool choose_formats(server *s, char *error, size_t n) {
    const char *text = jang_chat_template(s->tok);
    const char *tools = s->o->tool_format, *reasoning = s->o->reasoning_format;
    s->format = tools ? tool_format_find(tools) : tool_format_detect(text);
    s->reasoning = reasoning ? reasoning_find(reasoning) : reasoning_detect(text);
    if (tools && !s->format && strcmp(tools, "none")) {
        snprintf(error, n, "--tool-format %s: there is no such format", tools);
        return false;
    }
    if (reasoning && !s->reasoning && strcmp(reasoning, "none")) {
        snprintf(error, n, "--reasoning-format %s: there is no such format", reasoning);
        return false;
    }
    s->template_has_tools = text && strstr(text, "tools") != NULL;
    return true;
}

/* The HTTP thread's context and tokenizer. */
static bool open_text(server *s, char *error, size_t n) {
    jang_context_options options = jang_context_options_default();
    options.n_threads = 1;
    jang_status status = jang_context_new(&s->ctx, &options);
    if (status == JANG_OK) {
        status = jang_tokenizer_open(&s->tok, s->ctx, s->o->model);
    }
    if (status != JANG_OK) {
        snprintf(error, n, "%s", s->ctx ? jang_context_error(s->ctx) : jang_status_name(status));
        return false;
    }
    struct stat st;
    s->created = stat(s->o->model, &st) == 0 ? (int64_t)st.st_mtime : api_unix_time();
    s->id = s->o->alias ? strdup(s->o->alias) : base_name(s->o->model);
    return s->id && choose_formats(s, error, n);
}

typedef struct loaded {
    jang_context *ctx;
    jang_model *model, *draft;
    jang_engine *engine;
} loaded;

static void log_line(void *user, const char *line) {
    const serve_options *o = user;
    o->log(line);
}

static bool load(life *l, loaded *m, char *error, size_t n) {
    const serve_options *o = l->s.o;
    jang_context_options context = jang_context_options_default();
    context.n_threads = (int)o->n_threads;
    context.log = log_line;
    context.log_user = (void *)o;
    jang_model_options model = jang_model_options_default();
    model.exact = o->exact;
    jang_engine_options engine = o->engine;
    engine.on_event = event_queue_put;
    engine.user = &l->s;
    jang_status status = jang_context_new(&m->ctx, &context);
    if (status == JANG_OK) {
        status = jang_model_open(&m->model, m->ctx, o->model, &model);
    }
    if (status == JANG_OK && o->draft) {
        status = jang_model_open(&m->draft, m->ctx, o->draft, &model);
        engine.draft = m->draft;
    }
    if (status == JANG_OK) {
        status = jang_engine_new(&m->engine, m->model, &engine);
    }
    if (status != JANG_OK) {
        snprintf(error, n, "%s", m->ctx ? jang_context_error(m->ctx) : jang_status_name(status));
        return false;
    }
    l->s.model = m->model;
    l->s.info = jang_model_get_info(m->model);
    l->s.defaults = jang_request_default(m->model);
    l->s.load_seconds = l->s.info->load_seconds;
    l->s.n_context = engine.n_context && engine.n_context < l->s.info->n_context
                         ? engine.n_context
                         : l->s.info->n_context;
    make_fingerprint(&l->s);
    return true;
}

static void unload(loaded *m) {
    jang_engine_free(m->engine);
    jang_model_free(m->draft);
    jang_model_free(m->model);
    jang_context_free(m->ctx);
}

/* ---- The engine's thread ---- */

static bool run_engine(life *l, jang_engine *engine, jang_context *ctx, char *error, size_t n) {
    while (!get_flag(l, &l->done)) {
        bool busy = false;
        if (jang_engine_step(&busy, engine) != JANG_OK) {
            snprintf(error, n, "%s", jang_context_error(ctx));
            return false;
        }
        if (!busy) {
            jang_engine_wait(engine, 1.0);
        }
    }
    return true;
}

static bool make_server(life *l, char *error, size_t n) {
    const serve_options *o = l->s.o;
    http_options http = {.host = o->host,
                         .port = (int)o->port,
                         .body_max = (size_t)o->body_max,
                         .header_max = 65536,
                         .n_connections = (int)o->n_connections,
                         .header_seconds = 15,
                         .idle_seconds = 60,
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
    l->s.o->ready(url, l->s.info, l->s.id);
}

static void free_server(server *s) {
    http_server_free(s->http);
    event_queue_free(s->events);
    stored_responses_free(s);
    free(s->metrics.codes);
    free(s->id);
    jang_tokenizer_free(s->tok);
    jang_context_free(s->ctx);
}

bool serve_run(const serve_options *options, char *error, size_t error_bytes) {
    life l = {.s = {.o = options}};
    loaded m = {0};
    pthread_t thread;
    l.s.started = http_now();
    if (pthread_mutex_init(&l.mutex, NULL)) {
        snprintf(error, error_bytes, "cannot make a lock");
        return false;
    }
    catch_signals();
    /* the tokenizer is read before the HTTP thread starts, which owns it from then on */
    bool ok = open_text(&l.s, error, error_bytes) && make_server(&l, error, error_bytes);
    bool started = ok && !pthread_create(&thread, NULL, http_main, &l);
    if (ok && !started) {
        snprintf(error, error_bytes, "cannot start a thread");
    }
    ok = started && load(&l, &m, error, error_bytes);
    if (ok) {
        pthread_mutex_lock(&l.mutex);
        l.engine = m.engine;
        l.ready = true;
        pthread_mutex_unlock(&l.mutex);
        http_server_wake(l.s.http);
        announce(&l);
        ok = run_engine(&l, m.engine, m.ctx, error, error_bytes);
    }
    if (started) {
        if (!ok) {
            http_server_stop(l.s.http);
        }
        pthread_join(thread, NULL);
    }
    unload(&m);
    free_server(&l.s);
    pthread_mutex_destroy(&l.mutex);
    return ok;
}

void serve_libraries(char *text, size_t n_bytes) {
    unsigned long v = http_parser_version();
    snprintf(text, n_bytes, "libevent %s, http_parser %lu.%lu.%lu", event_get_version(),
             v >> 16 & 255, v >> 8 & 255, v & 255);
}
