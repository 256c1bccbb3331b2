/* tmpl_core.c - arena, limits and failure of the template engine.
 *
 * The arena is a list of chunks that grow with what has been used; objects larger than a quarter of
 * a chunk get their own. */
#include "template/tmpl_core.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct tm_chunk {
    tm_chunk *next;
    uint64_t align; /* keeps what follows at a multiple of 16 */
};

#define FIRST_CHUNK ((size_t)4 << 10)
#define LARGEST_CHUNK ((size_t)1 << 20)
#define LINE_SHOWN 120 /* bytes of the line that a message shows */

void tm_core_init(tm_core *t, ctx_t *ctx, const char *name, const char *source, size_t n_source) {
    *t = (tm_core){.ctx = ctx,
                   .name = name,
                   .source = source,
                   .n_source = n_source,
                   .max_bytes = TM_MAX_BYTES,
                   .max_steps = TM_MAX_STEPS,
                   .max_depth = TM_MAX_DEPTH};
}

void tm_core_free(tm_core *t) {
    for (tm_chunk *chunk = t->chunks; chunk;) {
        tm_chunk *next = chunk->next;
        ctx_free(t->ctx, chunk);
        chunk = next;
    }
    t->chunks = NULL;
    t->free = t->end = NULL;
}

/* ---- Failure ---- */

_Noreturn void tm_fail_status(tm_core *t, jang_status status) {
    t->status = status;
    longjmp(*t->escape, 1);
}

_Noreturn void tm_fail_memory(tm_core *t, size_t n_bytes) {
    tm_fail_status(t, ctx_fail_memory(t->ctx, n_bytes));
}

/* The part of a line that is shown: without the blanks around it, cut near the column when it is
 * long, and never within a character. */
static void line_excerpt(const char **text, size_t *n, const char *from, const char *to,
                         const char *at) {
    while (from < to && (*from == ' ' || *from == '\t')) {
        from++;
    }
    while (to > from && (to[-1] == ' ' || to[-1] == '\t')) {
        to--;
    }
    if (to - from > LINE_SHOWN) {
        if (at - from > LINE_SHOWN / 2) {
            from = at - LINE_SHOWN / 2;
        }
        to = to - from > LINE_SHOWN ? from + LINE_SHOWN : to;
    }
    while (from < to && (*from & 0xc0) == 0x80) {
        from++;
    }
    const char *last = to; /* drop an unfinished character */
    while (last > from && (last[-1] & 0xc0) == 0x80) {
        last--;
    }
    if (last > from && (last[-1] & 0xc0) == 0xc0) {
        size_t want = (last[-1] & 0xe0) == 0xc0 ? 2 : (last[-1] & 0xf0) == 0xe0 ? 3 : 4;
        to = (size_t)(to - (last - 1)) < want ? last - 1 : to;
    }
    *text = from;
    *n = (size_t)(to - from);
}

/* Where the byte that is being worked on stands, for people. */
typedef struct place {
    size_t line, column;    /* from 1; the column in characters */
    const char *text, *end; /* of the line */
    const char *at;
} place;

static place find_place(const tm_core *t) {
    const char *stop = t->source + t->n_source;
    place p = {1, 1, t->source, NULL, t->source + (t->at < t->n_source ? t->at : t->n_source)};
    for (const char *c = t->source; c < p.at; c++) {
        if (*c == '\n') {
            p.text = c + 1;
            p.line++;
        }
    }
    for (const char *c = p.text; c < p.at; c++) {
        p.column += (*c & 0xc0) != 0x80;
    }
    const char *line_end = memchr(p.text, '\n', (size_t)(stop - p.text));
    p.end = line_end ? line_end : stop;
    return p;
}

_Noreturn void tm_fail(tm_core *t, const char *format, ...) {
    char message[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);

    place p = find_place(t);
    const char *shown;
    size_t n_shown;
    line_excerpt(&shown, &n_shown, p.text, p.end, p.at);
    tm_fail_status(t, ctx_fail(t->ctx, JANG_ERR_FORMAT, "%s: line %zu, column %zu: %s, in: %.*s",
                               t->name, p.line, p.column, message, (int)n_shown, shown));
}

void tm_warn_once(tm_core *t, const char *message) {
    if (!t->warned) {
        t->warned = true;
        place p = find_place(t);
        ctx_log(t->ctx, "%s: line %zu, column %zu: %s", t->name, p.line, p.column, message);
    }
}

/* ---- Limits ---- */

void tm_steps_passed(tm_core *t) {
    tm_fail(t, "the template does not come to an end: more than %llu steps",
            (unsigned long long)t->max_steps);
}

void tm_enter(tm_core *t) {
    if (++t->depth > t->max_depth) {
        tm_fail(t, "nested too deeply: %u levels are allowed", t->max_depth);
    }
}

/* ---- Arena ---- */

static void *chunk_new(tm_core *t, size_t n_bytes) {
    if (n_bytes > t->max_bytes - t->n_bytes) {
        tm_fail(t, "the template needs more than %zu MiB of memory", t->max_bytes >> 20);
    }
    tm_chunk *chunk = ctx_alloc(t->ctx, sizeof *chunk + n_bytes);
    if (!chunk) {
        tm_fail_memory(t, n_bytes);
    }
    t->n_bytes += n_bytes;
    chunk->next = t->chunks;
    t->chunks = chunk;
    return chunk + 1;
}

void *tm_alloc(tm_core *t, size_t n_bytes) {
    if (n_bytes > t->max_bytes) {
        tm_fail(t, "the template needs more than %zu MiB of memory", t->max_bytes >> 20);
    }
    n_bytes = (n_bytes + 7) & ~(size_t)7;
    if ((size_t)(t->end - t->free) >= n_bytes && t->free) {
        void *p = t->free;
        t->free += n_bytes;
        return p;
    }
    tm_step(t, n_bytes / 64);
    size_t size = t->n_bytes < FIRST_CHUNK ? FIRST_CHUNK : t->n_bytes;
    size = size < LARGEST_CHUNK ? size : LARGEST_CHUNK;
    if (n_bytes > size / 4) {
        return chunk_new(t, n_bytes);
    }
    t->free = chunk_new(t, size);
    t->end = t->free + size;
    void *p = t->free;
    t->free += n_bytes;
    return p;
}

void *tm_array(tm_core *t, size_t n, size_t size) {
    if (size && n > t->max_bytes / size) {
        tm_fail(t, "the template needs more than %zu MiB of memory", t->max_bytes >> 20);
    }
    return tm_alloc(t, n * size);
}

void *tm_zero(tm_core *t, size_t n_bytes) {
    return memset(tm_alloc(t, n_bytes), 0, n_bytes);
}
