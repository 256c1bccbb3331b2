/* tok_ids.h - appending to the growing list of ids. */
#ifndef JANG_TOKENIZER_TOK_IDS_H
#define JANG_TOKENIZER_TOK_IDS_H

#include "tokenizer/tokenizer.h"

/* Makes room for n more ids. */
JANG_MUST_CHECK jang_status tok_ids_grow(ctx_t *ctx, tok_ids *ids, size_t n);

JANG_MUST_CHECK static inline jang_status tok_ids_reserve(ctx_t *ctx, tok_ids *ids, size_t n) {
    return ids->capacity - ids->n >= n ? JANG_OK : tok_ids_grow(ctx, ids, n);
}

JANG_MUST_CHECK static inline jang_status tok_ids_put(ctx_t *ctx, tok_ids *ids, int32_t id) {
    jang_status status = tok_ids_reserve(ctx, ids, 1);
    if (status == JANG_OK) {
        ids->ids[ids->n++] = id;
    }
    return status;
}

#endif
