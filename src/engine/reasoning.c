/* reasoning.c - whether a sequence is inside its reasoning. */
#include "engine/reasoning.h"

#include <string.h>

void reasoning_init(reasoning *r, ctx_t *ctx, const jang_thinking *d) {
    *r = (reasoning){.d = d, .is_open = d->is_open, .was_open = d->is_open, .at_start = true};
    buf_init(&r->tail, ctx, BUF_NO_LIMIT);
}

void reasoning_free(reasoning *r) {
    if (r->d) {
        buf_free(&r->tail);
    }
    r->d = NULL;
}

/* Forgets what is too long ago to be part of a marker. */
static void trim(reasoning *r, size_t n_keep) {
    if (r->tail.size > n_keep) {
        memmove(r->tail.data, r->tail.data + r->tail.size - n_keep, n_keep + 1);
        r->tail.size = n_keep;
    }
}

/* Whether all that came is white space and perhaps the beginning of the opening marker, or that
 * marker and more. */
static bool begins(const reasoning *r) {
    size_t space = strspn(r->tail.data, " \t\r\n"), n = r->tail.size - space;
    size_t n_open = r->d->open ? strlen(r->d->open) : 0;
    return n == 0 ||
           (n_open && memcmp(r->tail.data + space, r->d->open, n < n_open ? n : n_open) == 0);
}

jang_status reasoning_push(reasoning *r, const tok *t, int32_t id, bool may_open) {
    if (!r->d->close || !t) {
        return JANG_OK;
    }
    jang_status status = tok_token_bytes(t, &r->tail, id);
    if (status != JANG_OK) {
        return status;
    }
    r->n_inside += r->is_open;
    r->at_start = r->at_start && begins(r);
    may_open = may_open || r->at_start;
    const char *marker = r->is_open ? r->d->close : r->d->open;
    size_t n = marker ? strlen(marker) : 0;
    const char *found = n ? memmem(r->tail.data, r->tail.size, marker, n) : NULL;
    if (found && (r->is_open || may_open)) {
        r->is_open = !r->is_open;
        r->was_open = true;
        r->n_inside = 0;
        trim(r, r->tail.size - (size_t)(found - r->tail.data) - n);
    }
    trim(r, 256);
    return buf_status(&r->tail);
}

bool reasoning_is_over(const reasoning *r) {
    return r->is_open && r->d->budget >= 0 && r->n_inside >= r->d->budget;
}
