/* ctx.h - the context every room works in: allocator, last error, log, thread pool.
 *
 * Nothing of ours allocates or reports errors but through here. Any thread may call these. */
#ifndef JANG_BASE_CTX_H
#define JANG_BASE_CTX_H

#include "jang.h"

typedef jang_context ctx_t;

struct pool;

/* Records the one-line message of a failure and returns status, so that a function can say
 *     return ctx_fail(ctx, JANG_ERR_FORMAT, "%s: tensor %s: ...", path, name);
 * Called once, where the cause is known. Control characters become '?'. */
JANG_MUST_CHECK __attribute__((format(printf, 3, 4))) jang_status
ctx_fail(ctx_t *ctx, jang_status status, const char *format, ...);

/* Records "out of memory" with the bytes that were asked for. */
JANG_MUST_CHECK jang_status ctx_fail_memory(ctx_t *ctx, size_t n_bytes);

/* Puts "prefix: " before the recorded message, for callers that know the file's name. */
JANG_MUST_CHECK __attribute__((format(printf, 3, 4))) jang_status
ctx_prefix(ctx_t *ctx, jang_status status, const char *format, ...);

/* Hands a line to the log callback, if there is one. */
__attribute__((format(printf, 2, 3))) void ctx_log(ctx_t *ctx, const char *format, ...);

/* Memory. A size of 0 gives a valid pointer. NULL on failure, with no message: the caller says
 * ctx_fail_memory. ctx_array checks n * size for overflow; ctx_zero clears as well. */
void *ctx_alloc(ctx_t *ctx, size_t n_bytes);
void *ctx_zero(ctx_t *ctx, size_t n, size_t size);
void *ctx_array(ctx_t *ctx, size_t n, size_t size);
void *ctx_realloc(ctx_t *ctx, void *ptr, size_t n_bytes);
char *ctx_strndup(ctx_t *ctx, const char *text, size_t n_bytes);
char *ctx_strdup(ctx_t *ctx, const char *text);
void ctx_free(ctx_t *ctx, void *ptr);

/* As ctx_alloc, at a multiple of align (a power of two); freed with ctx_free_aligned. */
void *ctx_alloc_aligned(ctx_t *ctx, size_t n_bytes, size_t align);
void ctx_free_aligned(ctx_t *ctx, void *ptr);

/* The context's worker threads; see pool.h. */
struct pool *ctx_pool(ctx_t *ctx);

/* Where engine/ keeps the text of jang_build_info; freed with the context. */
char **ctx_build_info(ctx_t *ctx);

#endif
