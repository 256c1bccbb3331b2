/* ctx.c - the context: allocator hooks, the last error, the log, the thread pool. */
#include "base/ctx.h"

#include "base/pool.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ERROR_BYTES 1024

struct jang_context {
    jang_realloc_fn reallocate;
    void *reallocate_user;
    jang_log_fn log;
    void *log_user;
    struct pool *pool;
    pthread_mutex_t lock; /* guards error and log calls */
    char error[ERROR_BYTES];
    char *build_info;
};

/* ---- Life ---- */

static void *libc_realloc(void *user, void *ptr, size_t size) {
    (void)user;
    if (size == 0) {
        free(ptr);
        return NULL;
    }
    return realloc(ptr, size);
}

jang_context_options jang_context_options_default(void) {
    return (jang_context_options){0};
}

jang_status jang_context_new(jang_context **out, const jang_context_options *options) {
    jang_context_options o = options ? *options : jang_context_options_default();
    if (o.n_threads < 0 || o.n_threads > POOL_MAX_THREADS) {
        return JANG_ERR_ARGUMENT;
    }
    if (!o.reallocate) {
        o.reallocate = libc_realloc;
    }
    jang_context *ctx = o.reallocate(o.reallocate_user, NULL, sizeof *ctx);
    if (!ctx) {
        return JANG_ERR_MEMORY;
    }
    *ctx = (jang_context){
        .reallocate = o.reallocate,
        .reallocate_user = o.reallocate_user,
        .log = o.log,
        .log_user = o.log_user,
    };
    pthread_mutex_init(&ctx->lock, NULL);
    core_list cores;
    jang_status status = o.affinity ? cores_parse(&cores, ctx, o.affinity) : JANG_OK;
    if (status == JANG_OK) {
        status = pool_new(&ctx->pool, ctx, o.n_threads, o.affinity ? &cores : NULL);
    }
    if (status != JANG_OK) {
        if (ctx->error[0]) {
            ctx_log(ctx, "%s", ctx->error); /* the context that holds it goes */
        }
        jang_context_free(ctx);
        return status;
    }
    *out = ctx;
    return JANG_OK;
}

void jang_context_free(jang_context *ctx) {
    if (!ctx) {
        return;
    }
    pool_free(ctx->pool);
    ctx_free(ctx, ctx->build_info);
    pthread_mutex_destroy(&ctx->lock);
    ctx->reallocate(ctx->reallocate_user, ctx, 0);
}

struct pool *ctx_pool(ctx_t *ctx) {
    return ctx->pool;
}

int jang_context_threads(const jang_context *ctx) {
    return pool_threads(ctx->pool);
}

/* ---- Errors and log ---- */

const char *jang_context_error(const jang_context *ctx) {
    return ctx->error;
}

const char *jang_status_name(jang_status status) {
    static const char *const names[] = {
        "JANG_OK",         "JANG_ERR_MEMORY",      "JANG_ERR_IO",
        "JANG_ERR_FORMAT", "JANG_ERR_UNSUPPORTED", "JANG_ERR_ARGUMENT",
        "JANG_ERR_EXISTS", "JANG_ERR_CANCELLED",   "JANG_ERR_FULL",
        "JANG_ERR_BUSY",
    };
    int i = -(int)status;
    return i >= 0 && i < (int)(sizeof names / sizeof names[0]) ? names[i] : "JANG_ERR_UNKNOWN";
}

const char *jang_version(void) {
    return JANG_VERSION;
}

/* File names and tensor names come from outside: nothing in them may steer a terminal, neither
 * ASCII's control characters nor U+0080 to U+009F, of which U+009B begins an escape sequence. */
static void make_one_line(char *text) {
    for (; *text; text++) {
        unsigned char c = (unsigned char)text[0], next = (unsigned char)text[1];
        if (c == 0xc2 && next >= 0x80 && next < 0xa0) {
            *text++ = '?';
            *text = '?';
        } else if (c < 0x20 || c == 0x7f) {
            *text = '?';
        }
    }
}

jang_status ctx_fail(ctx_t *ctx, jang_status status, const char *format, ...) {
    char text[ERROR_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    make_one_line(text);
    pthread_mutex_lock(&ctx->lock);
    memcpy(ctx->error, text, sizeof text);
    pthread_mutex_unlock(&ctx->lock);
    return status;
}

jang_status ctx_fail_memory(ctx_t *ctx, size_t n_bytes) {
    return ctx_fail(ctx, JANG_ERR_MEMORY, "out of memory: %zu bytes more are needed", n_bytes);
}

jang_status ctx_prefix(ctx_t *ctx, jang_status status, const char *format, ...) {
    char prefix[ERROR_BYTES / 2];
    va_list args;
    va_start(args, format);
    vsnprintf(prefix, sizeof prefix, format, args);
    va_end(args);
    char old[ERROR_BYTES];
    pthread_mutex_lock(&ctx->lock);
    memcpy(old, ctx->error, sizeof old);
    pthread_mutex_unlock(&ctx->lock);
    return ctx_fail(ctx, status, "%s: %s", prefix, old);
}

void ctx_log(ctx_t *ctx, const char *format, ...) {
    if (!ctx->log) {
        return;
    }
    char line[ERROR_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    make_one_line(line);
    pthread_mutex_lock(&ctx->lock);
    ctx->log(ctx->log_user, line);
    pthread_mutex_unlock(&ctx->lock);
}

/* ---- Memory ---- */

void *ctx_alloc(ctx_t *ctx, size_t n_bytes) {
    return ctx->reallocate(ctx->reallocate_user, NULL, n_bytes ? n_bytes : 1);
}

void *ctx_array(ctx_t *ctx, size_t n, size_t size) {
    size_t n_bytes;
    if (__builtin_mul_overflow(n, size, &n_bytes)) {
        return NULL;
    }
    return ctx_alloc(ctx, n_bytes);
}

void *ctx_zero(ctx_t *ctx, size_t n, size_t size) {
    void *ptr = ctx_array(ctx, n, size);
    if (ptr) {
        memset(ptr, 0, n * size);
    }
    return ptr;
}

void *ctx_realloc(ctx_t *ctx, void *ptr, size_t n_bytes) {
    return ctx->reallocate(ctx->reallocate_user, ptr, n_bytes ? n_bytes : 1);
}

char *ctx_strndup(ctx_t *ctx, const char *text, size_t n_bytes) {
    char *copy = ctx_alloc(ctx, n_bytes + 1);
    if (copy) {
        memcpy(copy, text, n_bytes);
        copy[n_bytes] = 0;
    }
    return copy;
}

char *ctx_strdup(ctx_t *ctx, const char *text) {
    return ctx_strndup(ctx, text, strlen(text));
}

void ctx_free(ctx_t *ctx, void *ptr) {
    if (ptr) {
        ctx->reallocate(ctx->reallocate_user, ptr, 0);
    }
}

void jang_free(jang_context *ctx, void *ptr) {
    ctx_free(ctx, ptr);
}

/* The block's own start is kept in the pointer before the aligned address. */
void *ctx_alloc_aligned(ctx_t *ctx, size_t n_bytes, size_t align) {
    size_t total;
    if (__builtin_add_overflow(n_bytes, align + sizeof(void *), &total)) {
        return NULL;
    }
    char *start = ctx_alloc(ctx, total);
    if (!start) {
        return NULL;
    }
    uintptr_t at = ((uintptr_t)start + sizeof(void *) + align - 1) & ~(uintptr_t)(align - 1);
    char *aligned = start + (at - (uintptr_t)start);
    memcpy(aligned - sizeof(void *), &start, sizeof start);
    return aligned;
}

void ctx_free_aligned(ctx_t *ctx, void *ptr) {
    if (ptr) {
        char *start;
        memcpy(&start, (char *)ptr - sizeof(void *), sizeof start);
        ctx_free(ctx, start);
    }
}

char **ctx_build_info(ctx_t *ctx) {
    return &ctx->build_info;
}
