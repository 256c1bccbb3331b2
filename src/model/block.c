/* block.c - the workspace that blocks share, and norms. */
#include "model/block.h"

#include <stdarg.h>
#include <stdio.h>

void work_need(work *w, int slot, int64_t width) {
    w->widths[slot] = width > w->widths[slot] ? width : w->widths[slot];
}

jang_status work_need_routes(work *w, ctx_t *ctx, int which, int n_expert, int n_used) {
    int has = w->routes[which].n_expert;
    if (has && (has != n_expert || w->routes[which].n_used != n_used)) {
        return ctx_fail(ctx, JANG_ERR_UNSUPPORTED,
                        "layers with %d of %d experts and with %d of %d in one model",
                        w->routes[which].n_used, has, n_used, n_expert);
    }
    w->routes[which].n_expert = n_expert;
    w->routes[which].n_used = n_used;
    return JANG_OK;
}

void work_free(work *w, ops *o) {
    for (int i = 0; i < WORK_ROUTES; i++) {
        o->table->routes_free(o, w->routes[i].routes);
        w->routes[i].routes = NULL;
    }
    for (int i = 0; i < WORK_SLOTS; i++) {
        o->table->buf_free(o, w->bufs[i]);
        w->bufs[i] = NULL;
    }
}

jang_status work_reserve(work *w, ops *o, int32_t n_tok) {
    work_free(w, o);
    int64_t widest = 0;
    for (int i = 0; i < WORK_SLOTS; i++) {
        if (w->widths[i] == 0) {
            continue;
        }
        size_t n_bytes = (size_t)n_tok * (size_t)w->widths[i] * sizeof(float);
        jang_status status = o->table->buf_new(&w->bufs[i], o, n_bytes);
        if (status != JANG_OK) {
            return status;
        }
        widest = w->widths[i] > widest ? w->widths[i] : widest;
    }
    for (int i = 0; i < WORK_ROUTES; i++) {
        if (w->routes[i].n_expert) {
            jang_status status = o->table->routes_new(&w->routes[i].routes, o, n_tok,
                                                      w->routes[i].n_expert, w->routes[i].n_used);
            if (status != JANG_OK) {
                return status;
            }
        }
    }
    return o->table->reserve(o, &(ops_limits){.n_tok = n_tok, .width = widest});
}

ops_mat step_rows(const block_step *s, int slot, int64_t width) {
    return (ops_mat){
        .buf = s->work->bufs[slot], .stride = width, .n_row = s->n_tok, .width = width};
}

void block_close(block *b, ctx_t *ctx) {
    if (!b) {
        return;
    }
    if (b->kind->close) {
        b->kind->close(b, ctx);
    } else {
        ctx_free(ctx, b);
    }
}

jang_status load_norm(norm_desc *out, loader *l, const norm_config *c, int64_t width, int64_t n,
                      const char *format, ...) {
    char name[128];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(name, sizeof name, format, args);
    va_end(args);
    if (length < 0 || length >= (int)sizeof name) {
        return ctx_fail(l->ctx, JANG_ERR_FORMAT, "tensor name %.40s... is too long", name);
    }
    ops_weight *weight = NULL, *bias = NULL;
    jang_status status = JANG_OK;
    if (!c->plain) {
        status = load_vector(&weight, l, n, "%s", name);
    }
    if (status == JANG_OK && c->bias == BIAS_NEEDED) {
        status = load_param(&bias, l, n, "%s.bias", name);
    }
    if (status == JANG_OK) {
        *out = (norm_desc){.kind = c->kind,
                           .width = width,
                           .weight = weight,
                           .bias = bias,
                           .eps = (float)c->eps,
                           .offset = (float)c->offset};
    }
    return status;
}
