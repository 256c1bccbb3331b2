/* weight_list.c - a model's weights: their names, and what they are parts of. */
#include "model/loader_impl.h"

#include <string.h>

void weight_list_free(weight_list *list, ctx_t *ctx, ops *o) {
    for (size_t i = 0; i < list->n; i++) {
        kept_weight *kept = &list->items[i];
        o->table->weight_free(o, kept->w);
        ctx_free(ctx, kept->owned);
        ctx_free(ctx, kept->name);
        ctx_free(ctx, kept->place.module);
    }
    ctx_free(ctx, list->items);
    *list = (weight_list){0};
}

static jang_status list_grow(weight_list *list, ctx_t *ctx) {
    size_t capacity = list->capacity ? list->capacity * 2 : 64;
    kept_weight *items = ctx_realloc(ctx, list->items, capacity * sizeof *items);
    if (!items) {
        return ctx_fail_memory(ctx, capacity * sizeof *items);
    }
    list->items = items;
    list->capacity = capacity;
    return JANG_OK;
}

jang_status loader_keep(ops_weight **out, loader *l, const weight_desc *desc, const char *module,
                        void *owned) {
    weight_list *list = l->weights;
    jang_status status = list->n < list->capacity ? JANG_OK : list_grow(list, l->ctx);
    if (status != JANG_OK) {
        return status;
    }
    char *name = NULL;
    if (module && !(name = ctx_strdup(l->ctx, module))) {
        return ctx_fail_memory(l->ctx, strlen(module) + 1);
    }
    ops_weight *w;
    status = l->o->table->weight_new(&w, l->o, desc);
    if (status != JANG_OK) {
        ctx_free(l->ctx, name);
        return status;
    }
    list->items[list->n++] = (kept_weight){.w = w, .owned = owned, .name = name};
    *out = w;
    return JANG_OK;
}

jang_status loader_place(loader *l, const char *module, int64_t first, int64_t step, bool turned) {
    char *name = ctx_strdup(l->ctx, module);
    if (!name) {
        return ctx_fail_memory(l->ctx, strlen(module) + 1);
    }
    l->weights->items[l->weights->n - 1].place = (weight_place){name, first, step, turned};
    return JANG_OK;
}
