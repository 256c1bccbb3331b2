/* ops.c - the backends of this build, and opening one by name. */
#include "ops/ops.h"

#include "base/buf.h"
#include "ops/cpu/cpu_ops.h"
#include "ops/ref/ref.h"

#include <string.h>

typedef jang_status (*backend_open)(ops **out, ctx_t *ctx, const ops_options *options);

/* The first is the one taken when none is named. */
static const backend_open openers[] = {cpu_ops_open, ref_open};
static const char *const names[] = {"cpu", "ref", NULL};

#define N_BACKENDS ((int)(sizeof openers / sizeof openers[0]))

const char *const *ops_backends(void) {
    return names;
}

static jang_status unknown_backend(ctx_t *ctx, const char *name) {
    buf list;
    buf_init(&list, ctx, BUF_NO_LIMIT);
    for (int i = 0; i < N_BACKENDS; i++) {
        buf_printf(&list, "%s%s", i ? ", " : "", names[i]);
    }
    jang_status status =
        ctx_fail(ctx, JANG_ERR_ARGUMENT, "unknown backend %s; there are: %s", name, list.data);
    buf_free(&list);
    return status;
}

jang_status ops_open(ops **out, ctx_t *ctx, const char *name, const ops_options *options) {
    static const ops_options defaults = {.exact = false};
    for (int i = 0; i < N_BACKENDS; i++) {
        if (!name || strcmp(name, names[i]) == 0) {
            return openers[i](out, ctx, options ? options : &defaults);
        }
    }
    return unknown_backend(ctx, name);
}

void ops_close(ops *o) {
    if (o) {
        o->table->close(o);
    }
}
