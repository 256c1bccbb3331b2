/* http_server.c - HTTP/1.1 over libevent's buffered sockets, with http_parser for the protocol.
 *
 * A connection goes through READ_HEAD, READ_BODY, REPLY and back, or to LINGER, where the reply is
 * out and what the client still sends is thrown away for a moment, so that it gets to read the
 * reply. While a reply is made the socket is still read, so that a client that has gone is noticed.
 */
#include "http_server.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <http_parser.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LINGER_SECONDS 2.0
#define PIPELINED_MAX 65536
#define HEADERS_MAX 128

typedef enum conn_state { READ_HEAD, READ_BODY, REPLY, LINGER } conn_state;

typedef struct header {
    tbuf name, value;
} header;

/* A connection and its present exchange. */
struct http_exchange {
    http_server *server;
    struct bufferevent *bev;
    http_exchange *previous, *next;
    conn_state state;
    http_parser parser;
    tbuf url, path, body, extra;
    header headers[HEADERS_MAX];
    size_t n_headers;
    bool in_value;    /* the last piece of a header was of its value */
    bool close_after; /* the connection ends with this reply */
    bool streaming, chunked, is_head, complete;
    int status;
    int refused; /* status to refuse with, found by a callback of the parser */
    double since, started, last_write; /* of the state; of the exchange */
    size_t n_out;                      /* bytes waiting when last looked at */
    char id[32];
    void *user;
};

struct http_server {
    http_options o;
    struct event_base *base;
    struct evconnlistener *listener;
    struct event *wake, *tick;
    int pipe[2];
    http_exchange *first;
    int n_connections, port;
    uint64_t random;
};

double http_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- Connections ---- */

static void reset(http_exchange *x) {
    tbuf_clear(&x->url);
    tbuf_clear(&x->path);
    tbuf_free(&x->body);
    tbuf_clear(&x->extra);
    for (size_t i = 0; i < x->n_headers; i++) {
        tbuf_free(&x->headers[i].name);
        tbuf_free(&x->headers[i].value);
    }
    x->n_headers = 0;
    x->in_value = x->streaming = x->chunked = x->is_head = x->complete = false;
    x->status = x->refused = 0;
    x->user = NULL;
    x->state = READ_HEAD;
    x->since = http_now();
    http_parser_init(&x->parser, HTTP_REQUEST);
    x->parser.data = x;
    static const char letters[] = "0123456789abcdefghijklmnopqrstuv";
    snprintf(x->id, sizeof x->id, "req_");
    for (int i = 4; i < 28; i++) {
        x->server->random = x->server->random * 6364136223846793005u + 1442695040888963407u;
        x->id[i] = letters[x->server->random >> 59];
        x->id[i + 1] = 0;
    }
}

static void close_connection(http_exchange *x) {
    http_server *s = x->server;
    if (x->state == REPLY) {
        s->o.on_gone(s->o.user, x);
    }
    *(x->previous ? &x->previous->next : &s->first) = x->next;
    if (x->next) {
        x->next->previous = x->previous;
    }
    s->n_connections--;
    bufferevent_free(x->bev);
    reset(x);
    tbuf_free(&x->url);
    tbuf_free(&x->path);
    tbuf_free(&x->extra);
    free(x);
}

static void set_state(http_exchange *x, conn_state state) {
    x->state = state;
    x->since = http_now();
}

/* ---- Reading ---- */

static int on_url(http_parser *p, const char *at, size_t n) {
    tbuf_add(&((http_exchange *)p->data)->url, at, n);
    return 0;
}

static int on_field(http_parser *p, const char *at, size_t n) {
    http_exchange *x = p->data;
    if (x->state != READ_HEAD) {
        return 0; /* a trailer */
    }
    if (x->in_value || !x->n_headers) {
        if (x->n_headers == HEADERS_MAX) {
            x->refused = 431;
            return 1;
        }
        x->headers[x->n_headers++] = (header){0};
        x->in_value = false;
    }
    tbuf_add(&x->headers[x->n_headers - 1].name, at, n);
    return 0;
}

static int on_value(http_parser *p, const char *at, size_t n) {
    http_exchange *x = p->data;
    if (x->state == READ_HEAD && x->n_headers) {
        x->in_value = true;
        tbuf_add(&x->headers[x->n_headers - 1].value, at, n);
    }
    return 0;
}

static int on_head(http_parser *p) {
    http_exchange *x = p->data;
    bool known = p->content_length != UINT64_MAX && p->content_length > 0;
    if (known && p->content_length > x->server->o.body_max) {
        x->refused = 413;
        return -1;
    }
    x->is_head = p->method == HTTP_HEAD;
    x->close_after = !http_should_keep_alive(p);
    set_state(x, READ_BODY);
    return p->upgrade ? 2 : 0;
}

static int on_body(http_parser *p, const char *at, size_t n) {
    http_exchange *x = p->data;
    if (n > x->server->o.body_max - x->body.n) {
        x->refused = 413;
        return 1;
    }
    tbuf_add(&x->body, at, n);
    return 0;
}

static int on_complete(http_parser *p) {
    ((http_exchange *)p->data)->complete = true;
    http_parser_pause(p, 1);
    return 0;
}

static const http_parser_settings settings = {
    .on_url = on_url,
    .on_header_field = on_field,
    .on_header_value = on_value,
    .on_headers_complete = on_head,
    .on_body = on_body,
    .on_message_complete = on_complete,
};

static void refuse(http_exchange *x, int status, const char *message) {
    http_server *s = x->server;
    set_state(x, REPLY);
    x->started = http_now();
    x->close_after = true;
    s->o.on_refused(s->o.user, x, status, message);
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9'                 ? c - '0'
           : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                : -1;
}

/* The path of a URL, in origin or absolute form, with %XX decoded. */
static bool read_path(http_exchange *x) {
    struct http_parser_url u;
    http_parser_url_init(&u);
    if (x->url.failed || http_parser_parse_url(tbuf_text(&x->url), x->url.n, 0, &u)) {
        return false;
    }
    const char *from = tbuf_text(&x->url) + u.field_data[UF_PATH].off;
    size_t n = u.field_set & (1 << UF_PATH) ? u.field_data[UF_PATH].len : 0;
    for (size_t i = 0; i < n; i++) {
        int high = from[i] == '%' && i + 2 < n ? hex_digit(from[i + 1]) : -1;
        int low = high >= 0 ? hex_digit(from[i + 2]) : -1;
        if (low >= 0 && high * 16 + low > 0) {
            tbuf_putc(&x->path, (char)(high * 16 + low));
            i += 2;
        } else {
            tbuf_putc(&x->path, from[i]);
        }
    }
    return !x->path.failed;
}

static void begin_exchange(http_exchange *x) {
    http_server *s = x->server;
    if (!read_path(x)) {
        refuse(x, 400, "the request's target is not a path");
        return;
    }
    set_state(x, REPLY);
    x->started = x->last_write = x->since;
    s->o.on_request(s->o.user, x);
}

/* Gives the parser n bytes of the input; false when the request is refused. */
static bool feed(http_exchange *x, struct evbuffer *in, size_t n) {
    const char *data = (const char *)evbuffer_pullup(in, (ev_ssize_t)n);
    size_t n_read = http_parser_execute(&x->parser, &settings, data, n);
    enum http_errno e = HTTP_PARSER_ERRNO(&x->parser);
    evbuffer_drain(in, n_read);
    if (x->refused == 413) {
        char message[96];
        snprintf(message, sizeof message, "the body is larger than the limit of %zu bytes",
                 x->server->o.body_max);
        refuse(x, 413, message);
    } else if (x->refused || x->body.failed) {
        refuse(x, x->refused ? 431 : 503, x->refused ? "too many headers" : "out of memory");
    } else if (e != HPE_OK && e != HPE_PAUSED) {
        refuse(x, 400, http_errno_description(e));
    } else {
        return true;
    }
    return false;
}

/* The size of the head in the input; 0 while its end is not there. */
static size_t head_size(struct evbuffer *in) {
    struct evbuffer_ptr end = evbuffer_search(in, "\r\n\r\n", 4, NULL);
    return end.pos < 0 ? 0 : (size_t)end.pos + 4;
}

static void skip_line_feeds(struct evbuffer *in) {
    char c;
    while (evbuffer_copyout(in, &c, 1) == 1 && (c == '\r' || c == '\n')) {
        evbuffer_drain(in, 1);
    }
}

static bool read_head(http_exchange *x, struct evbuffer *in) {
    skip_line_feeds(in);
    size_t n = head_size(in), n_limit = x->server->o.header_max;
    if ((n ? n : evbuffer_get_length(in)) > n_limit) {
        char message[96];
        snprintf(message, sizeof message, "the headers are larger than the limit of %zu bytes",
                 n_limit);
        refuse(x, 431, message);
        return false;
    }
    if (!n || !feed(x, in, n)) {
        return false;
    }
    if (x->state == READ_HEAD) {
        refuse(x, 400, "the request's head is malformed");
        return false;
    }
    const char *expect = http_header(x, "expect");
    if (expect && !x->complete && !strcasecmp(expect, "100-continue")) {
        bufferevent_write(x->bev, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    }
    return true;
}

static void on_read(struct bufferevent *bev, void *arg) {
    http_exchange *x = arg;
    struct evbuffer *in = bufferevent_get_input(bev);
    if (x->state == LINGER) {
        evbuffer_drain(in, evbuffer_get_length(in));
        return;
    }
    if (x->state == READ_HEAD && !read_head(x, in)) {
        return;
    }
    while (x->state == READ_BODY && !x->complete) {
        size_t n = evbuffer_get_contiguous_space(in);
        if (!n) {
            x->since = http_now();
            return;
        }
        if (!feed(x, in, n)) {
            return;
        }
    }
    if (x->state == READ_BODY) {
        begin_exchange(x);
    } else if (evbuffer_get_length(in) > PIPELINED_MAX) {
        bufferevent_disable(bev, EV_READ);
    }
}

static void on_event(struct bufferevent *bev, short what, void *arg) {
    (void)bev;
    if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) {
        close_connection(arg);
    }
}

/* ---- Writing ---- */

/* The reply is written to the buffer: the next request, or the end. */
static void end_exchange(http_exchange *x) {
    if (x->close_after) {
        set_state(x, LINGER);
        struct evbuffer *out = bufferevent_get_output(x->bev);
        if (!evbuffer_get_length(out)) {
            shutdown(bufferevent_getfd(x->bev), SHUT_WR);
        }
        bufferevent_enable(x->bev, EV_READ);
        return;
    }
    reset(x);
    bufferevent_enable(x->bev, EV_READ);
    if (evbuffer_get_length(
            bufferevent_get_input(x->bev))) { /* pipelined: not from within this one */
        bufferevent_trigger(x->bev, EV_READ, BEV_TRIG_DEFER_CALLBACKS | BEV_TRIG_IGNORE_WATERMARKS);
    }
}

static void on_written(struct bufferevent *bev, void *arg) {
    http_exchange *x = arg;
    if (x->state == LINGER) {
        shutdown(bufferevent_getfd(bev), SHUT_WR);
    }
}

static const char *reason(int status) {
    static const struct {
        int status;
        const char *text;
    } reasons[] = {
        {200, "OK"},
        {204, "No Content"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {413, "Content Too Large"},
        {422, "Unprocessable Content"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
    };
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        if (reasons[i].status == status) {
            return reasons[i].text;
        }
    }
    return "Status";
}

static void write_head(http_exchange *x, int status, const char *type, const char *length) {
    struct evbuffer *out = bufferevent_get_output(x->bev);
    char date[64];
    time_t now = time(NULL);
    struct tm tm;
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &tm));
    x->status = status;
    evbuffer_add_printf(out, "HTTP/1.1 %d %s\r\nDate: %s\r\nServer: jang\r\nx-request-id: %s\r\n",
                        status, reason(status), date, x->id);
    if (type) {
        evbuffer_add_printf(out, "Content-Type: %s\r\n", type);
    }
    evbuffer_add_printf(out, "%s%sConnection: %s\r\n\r\n", tbuf_text(&x->extra), length,
                        x->close_after ? "close" : "keep-alive");
}

void http_add_header(http_exchange *x, const char *name, const char *value) {
    if (!strpbrk(value, "\r\n")) {
        tbuf_printf(&x->extra, "%s: %s\r\n", name, value);
    }
}

void http_reply(http_exchange *x, int status, const char *type, const char *body, size_t n_bytes) {
    char length[48];
    snprintf(length, sizeof length, "Content-Length: %zu\r\n", n_bytes);
    write_head(x, status, type, status == 204 ? "" : length);
    if (!x->is_head && n_bytes) {
        bufferevent_write(x->bev, body, n_bytes);
    }
    end_exchange(x);
}

void http_stream_begin(http_exchange *x, int status, const char *type) {
    x->streaming = true;
    x->chunked = x->parser.http_major > 1 || x->parser.http_minor >= 1;
    x->close_after |= !x->chunked;
    x->last_write = http_now();
    http_add_header(x, "Cache-Control", "no-cache");
    http_add_header(x, "X-Accel-Buffering", "no"); /* a proxy in between must not collect it */
    write_head(x, status, type, x->chunked ? "Transfer-Encoding: chunked\r\n" : "");
}

void http_stream_write(http_exchange *x, const char *data, size_t n_bytes) {
    if (!n_bytes || x->is_head) {
        return;
    }
    struct evbuffer *out = bufferevent_get_output(x->bev);
    if (x->chunked) {
        evbuffer_add_printf(out, "%zx\r\n", n_bytes);
    }
    evbuffer_add(out, data, n_bytes);
    if (x->chunked) {
        evbuffer_add(out, "\r\n", 2);
    }
    x->last_write = http_now();
}

void http_stream_end(http_exchange *x) {
    if (x->chunked && !x->is_head) {
        bufferevent_write(x->bev, "0\r\n\r\n", 5);
    }
    end_exchange(x);
}

/* ---- Time ---- */

/* Closes or refuses what takes too long. Returns false if the connection is gone. */
static void check_connection(http_exchange *x, double now) {
    const http_options *o = &x->server->o;
    double age = now - x->since;
    size_t n_in = evbuffer_get_length(bufferevent_get_input(x->bev));
    size_t n_out = evbuffer_get_length(bufferevent_get_output(x->bev));
    if (n_out > o->backlog_max) {
        close_connection(x);
    } else if (x->state == READ_HEAD && n_in && age > o->header_seconds) {
        refuse(x, 408, "the request's headers did not come in time");
    } else if (x->state == READ_BODY && age > o->idle_seconds) {
        refuse(x, 408, "the request's body did not come in time");
    } else if ((x->state == READ_HEAD && age > o->idle_seconds) ||
               (x->state == LINGER && age > (n_out ? o->idle_seconds : LINGER_SECONDS))) {
        close_connection(x);
    }
}

static void on_timer(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    http_server *s = arg;
    double now = http_now();
    for (http_exchange *x = s->first, *next; x; x = next) {
        next = x->next;
        check_connection(x, now);
    }
    s->o.on_tick(s->o.user, now);
}

/* ---- The server ---- */

/* One too many: it is told so without being read. */
static void refuse_connection(const http_server *s, evutil_socket_t fd) {
    char body[200], all[400];
    int n = snprintf(body, sizeof body,
                     "{\"error\":{\"message\":\"too many connections: the limit is %d\","
                     "\"type\":\"server_error\",\"param\":null,\"code\":\"connections\"}}",
                     s->o.n_connections);
    int k = snprintf(all, sizeof all,
                     "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
                     "Content-Length: %d\r\nRetry-After: 1\r\nConnection: close\r\n\r\n%s",
                     n, body);
    (void)!send(fd, all, (size_t)k, MSG_NOSIGNAL);
    shutdown(fd, SHUT_WR);
    close(fd);
}

static void on_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *address, int n,
                      void *arg) {
    (void)l;
    (void)address;
    (void)n;
    http_server *s = arg;
    int on = 1;
    http_exchange *x = s->n_connections < s->o.n_connections ? calloc(1, sizeof *x) : NULL;
    struct bufferevent *bev = x ? bufferevent_socket_new(s->base, fd, BEV_OPT_CLOSE_ON_FREE) : NULL;
    if (!bev) {
        refuse_connection(s, fd);
        free(x);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    x->server = s;
    x->bev = bev;
    x->next = s->first;
    if (s->first) {
        s->first->previous = x;
    }
    s->first = x;
    s->n_connections++;
    reset(x);
    bufferevent_setcb(bev, on_read, on_written, on_event, x);
    bufferevent_enable(bev, EV_READ | EV_WRITE);
}

static void on_pipe(evutil_socket_t fd, short what, void *arg) {
    (void)what;
    http_server *s = arg;
    char bytes[256];
    ssize_t n = read(fd, bytes, sizeof bytes);
    if (n > 0 && memchr(bytes, 's', (size_t)n)) {
        event_base_loopbreak(s->base);
    }
    s->o.on_wake(s->o.user);
}

static bool listen_on(http_server *s, char *error, size_t n) {
    char port[16];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list = NULL;
    snprintf(port, sizeof port, "%d", s->o.port);
    int code = getaddrinfo(s->o.host, port, &hints, &list);
    if (code) {
        snprintf(error, n, "--host %s: %s", s->o.host, gai_strerror(code));
        return false;
    }
    unsigned flags = LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE | LEV_OPT_CLOSE_ON_EXEC;
    for (struct addrinfo *a = list; a && !s->listener; a = a->ai_next) {
        s->listener = evconnlistener_new_bind(s->base, on_accept, s, flags, 512, a->ai_addr,
                                              (int)a->ai_addrlen);
    }
    if (!s->listener) {
        snprintf(error, n, "cannot listen on %s, port %d: %s", s->o.host, s->o.port,
                 strerror(errno));
    }
    freeaddrinfo(list);
    return s->listener != NULL;
}

static void find_port(http_server *s) {
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    if (!getsockname(evconnlistener_get_fd(s->listener), (struct sockaddr *)&a, &n)) {
        s->port = ntohs(a.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&a)->sin6_port
                                                : ((struct sockaddr_in *)&a)->sin_port);
    }
}

http_server *http_server_new(const http_options *options, char *error, size_t error_bytes) {
    static const struct timeval quarter = {.tv_usec = 250000};
    http_server *s = calloc(1, sizeof *s);
    if (!s) {
        snprintf(error, error_bytes, "out of memory");
        return NULL;
    }
    s->o = *options;
    s->pipe[0] = s->pipe[1] = -1;
    s->random = (uint64_t)time(NULL) * 1000003u ^ (uint64_t)getpid();
    s->base = event_base_new();
    if (!s->base || pipe(s->pipe) || evutil_make_socket_nonblocking(s->pipe[0]) ||
        evutil_make_socket_nonblocking(s->pipe[1])) {
        snprintf(error, error_bytes, "cannot make an event loop: %s", strerror(errno));
        http_server_free(s);
        return NULL;
    }
    s->wake = event_new(s->base, s->pipe[0], EV_READ | EV_PERSIST, on_pipe, s);
    s->tick = event_new(s->base, -1, EV_PERSIST, on_timer, s);
    if (!s->wake || !s->tick || event_add(s->wake, NULL) || event_add(s->tick, &quarter)) {
        snprintf(error, error_bytes, "out of memory");
        http_server_free(s);
        return NULL;
    }
    if (!listen_on(s, error, error_bytes)) {
        http_server_free(s);
        return NULL;
    }
    find_port(s);
    return s;
}

void http_server_free(http_server *s) {
    if (!s) {
        return;
    }
    while (s->first) {
        close_connection(s->first);
    }
    if (s->listener) {
        evconnlistener_free(s->listener);
    }
    if (s->wake) {
        event_free(s->wake);
    }
    if (s->tick) {
        event_free(s->tick);
    }
    if (s->base) {
        event_base_free(s->base);
    }
    for (int i = 0; i < 2; i++) {
        if (s->pipe[i] >= 0) {
            close(s->pipe[i]);
        }
    }
    free(s);
}

int http_server_port(const http_server *s) {
    return s->port;
}

void http_server_run(http_server *s) {
    event_base_dispatch(s->base);
}

void http_server_stop(http_server *s) {
    (void)!write(s->pipe[1], "s", 1);
}

void http_server_wake(http_server *s) {
    (void)!write(s->pipe[1], "w", 1);
}

/* ---- What is known of an exchange ---- */

const char *http_method(const http_exchange *x) {
    return http_method_str((enum http_method)x->parser.method);
}

const char *http_path(const http_exchange *x) {
    return tbuf_text(&x->path);
}

const char *http_header(const http_exchange *x, const char *name) {
    for (size_t i = 0; i < x->n_headers; i++) {
        if (!strcasecmp(tbuf_text(&x->headers[i].name), name)) {
            return tbuf_text(&x->headers[i].value);
        }
    }
    return NULL;
}

const char *http_body(const http_exchange *x, size_t *n_bytes) {
    *n_bytes = x->body.n;
    return tbuf_text(&x->body);
}

const char *http_id(const http_exchange *x) {
    return x->id;
}

double http_started(const http_exchange *x) {
    return x->started;
}

int http_status(const http_exchange *x) {
    return x->status;
}

double http_last_write(const http_exchange *x) {
    return x->last_write;
}

void http_set_user(http_exchange *x, void *user) {
    x->user = user;
}

void *http_get_user(const http_exchange *x) {
    return x->user;
}
