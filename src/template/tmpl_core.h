/* tmpl_core.h - what compiling and rendering a template share: memory, limits, and the way out.
 *
 * All memory of a compilation or of a rendering lies in one arena that is freed at once, so nothing
 * within has to be undone when something fails. A failure therefore does not travel through return
 * values: tm_fail records the message with the position and jumps to the setjmp in tmpl_compile or
 * tmpl_render, the only two places that return a jang_status. An interpreter has a fallible call
 * on nearly every line; this keeps its functions as short as the semantics they describe. */
#ifndef JANG_TMPL_CORE_H
#define JANG_TMPL_CORE_H

#include "base/ctx.h"

#include <setjmp.h>
#include <string.h>

typedef struct tm_chunk tm_chunk;

typedef struct tm_core {
    ctx_t *ctx;
    /* For messages: the template's name and text, and the byte that is being worked on. */
    const char *name, *source;
    size_t n_source;
    uint32_t at;
    /* The arena. */
    tm_chunk *chunks;
    char *free, *end;
    size_t n_bytes, max_bytes;
    /* Limits on work and on nesting. */
    uint64_t n_steps, max_steps;
    unsigned depth, max_depth;
    /* Where tm_fail goes. */
    jang_status status;
    jmp_buf *escape;
    struct tm_run *run; /* state of the rendering; NULL while compiling */
    const char *rendered;
    size_t n_rendered;
    bool warned;
} tm_core;

/* Limits. Steps are evaluated nodes, loop iterations and 64-byte pieces of work on text; memory is
 * the arena's; depth counts nested evaluations, bounded by a thread's stack. */
#define TM_MAX_SOURCE ((size_t)8 << 20)
#define TM_MAX_STEPS ((uint64_t)32 << 20)
#define TM_MAX_BYTES ((size_t)512 << 20)
#define TM_MAX_OUTPUT ((size_t)256 << 20)
#define TM_MAX_DEPTH 1200u
#define TM_MAX_AST_DEPTH 300u

/* Starts with an empty arena. name and source are borrowed. */
void tm_core_init(tm_core *t, ctx_t *ctx, const char *name, const char *source, size_t n_source);
void tm_core_free(tm_core *t);

/* Records "name: line L, column C: message, in: text of the line" and jumps. */
_Noreturn __attribute__((format(printf, 2, 3))) void tm_fail(tm_core *t, const char *format, ...);
_Noreturn void tm_fail_memory(tm_core *t, size_t n_bytes);
/* Jumps with a status whose message is already recorded. */
_Noreturn void tm_fail_status(tm_core *t, jang_status status);

/* Tells the context's log what a template does that its author cannot have meant, with the place;
 * only the first such thing of a rendering is told. */
void tm_warn_once(tm_core *t, const char *message);

/* Memory at a multiple of 8, not cleared; never NULL. tm_array checks n * size for overflow. */
void *tm_alloc(tm_core *t, size_t n_bytes);
void *tm_array(tm_core *t, size_t n, size_t size);
void *tm_zero(tm_core *t, size_t n_bytes);

/* memcpy, for which an empty list's or text's NULL is not allowed even with no bytes to copy. */
static inline void tm_copy(void *to, const void *from, size_t n_bytes) {
    if (n_bytes) {
        memcpy(to, from, n_bytes);
    }
}

void tm_steps_passed(tm_core *t);
/* Counts n units of work. */
static inline void tm_step(tm_core *t, size_t n) {
    t->n_steps += n;
    if (t->n_steps > t->max_steps) {
        tm_steps_passed(t);
    }
}

/* Counts one more level of recursion; each is undone by tm_leave. */
void tm_enter(tm_core *t);
static inline void tm_leave(tm_core *t) {
    t->depth--;
}

#endif
