/* tok_ids.c - the growing list of ids. */
#include "tokenizer/tok_ids.h"

jang_status tok_ids_grow(ctx_t *ctx, tok_ids *ids, size_t n) {
    size_t need = ids->n + n, capacity = ids->capacity + ids->capacity / 2;
    capacity = capacity < 64 ? 64 : capacity;
    capacity = capacity < need ? need : capacity;
    if (need < n || capacity > SIZE_MAX / sizeof *ids->ids) {
        return ctx_fail_memory(ctx, SIZE_MAX);
    }
    int32_t *grown = ctx_realloc(ctx, ids->ids, capacity * sizeof *grown);
    if (!grown) {
        return ctx_fail_memory(ctx, capacity * sizeof *grown);
    }
    ids->ids = grown;
    ids->capacity = capacity;
    return JANG_OK;
}

void tok_ids_free(ctx_t *ctx, tok_ids *ids) {
    ctx_free(ctx, ids->ids);
    *ids = (tok_ids){0};
}
