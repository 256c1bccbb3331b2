/* http_server.h - HTTP/1.1 on sockets, behind a narrow interface: one thread, one event loop.
 *
 * A request arrives whole (head and body) and is an exchange until its reply has ended. The reply
 * is either one piece or a stream. All functions are for the loop's thread, but http_server_wake
 * and http_server_stop. Limits, bad requests and slow clients are seen to here; the text of the
 * error replies is the user's. libevent moves the bytes, http_parser reads the protocol. */
#ifndef JANG_SERVER_HTTP_SERVER_H
#define JANG_SERVER_HTTP_SERVER_H

#include "text_buf.h"

typedef struct http_server http_server;
typedef struct http_exchange http_exchange;

typedef struct http_options {
    const char *host;
    int port; /* 0: any; see http_server_port */
    size_t body_max, header_max;
    int n_connections;
    double header_seconds, idle_seconds;
    size_t backlog_max; /* bytes that may wait for a slow reader before it is given up */

    void *user;
    void (*on_request)(void *user, http_exchange *x);
    /* A request that is refused before it is whole: reply to it, with this status. */
    void (*on_refused)(void *user, http_exchange *x, int status, const char *message);
    /* The client has gone before the reply ended; x is no longer valid after this. */
    void (*on_gone)(void *user, http_exchange *x);
    /* After http_server_wake. */
    void (*on_wake)(void *user);
    void (*on_tick)(void *user, double now); /* four times a second */
} http_options;

/* Listens. NULL: error takes one line. */
http_server *http_server_new(const http_options *options, char *error, size_t error_bytes);
void http_server_free(http_server *s);
int http_server_port(const http_server *s);
/* Runs until http_server_stop. */
void http_server_run(http_server *s);
void http_server_stop(http_server *s); /* from any thread, also from a signal handler */
void http_server_wake(http_server *s); /* from any thread */

/* ---- The request ---- */

const char *http_method(const http_exchange *x);
const char *http_path(const http_exchange *x); /* decoded, without query */
/* A header's value by its name in lower case, or NULL. */
const char *http_header(const http_exchange *x, const char *name);
const char *http_body(const http_exchange *x, size_t *n_bytes);
const char *http_id(const http_exchange *x); /* of this request, for x-request-id */
double http_started(const http_exchange *x); /* when it was whole, on http_now's clock */
int http_status(const http_exchange *x);     /* of the reply; 0 before */
double http_now(void);

void http_set_user(http_exchange *x, void *user);
void *http_get_user(const http_exchange *x);

/* ---- The reply ---- */

/* A line of the head: "Name: value". */
void http_add_header(http_exchange *x, const char *name, const char *value);
/* The whole reply. x is no longer valid after this. */
void http_reply(http_exchange *x, int status, const char *type, const char *body, size_t n_bytes);
/* Sends the head at once; then pieces, which go out as they come; then the end, after which x is no
 * longer valid. */
void http_stream_begin(http_exchange *x, int status, const char *type);
void http_stream_write(http_exchange *x, const char *data, size_t n_bytes);
void http_stream_end(http_exchange *x);
double http_last_write(const http_exchange *x); /* when the last piece was written */

#endif
