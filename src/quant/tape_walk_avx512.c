/* tape_walk_avx512.c - recurrences gone through and back, compiled for AVX-512. */
#include "quant/tape_walk.h"

#include "quant/tape_walk_body.h"

void tape_walk__avx512(const tape_walk *w, int64_t unit, float *db, float *dc, float *scratch) {
    tw_walk(w, unit, db, dc, scratch);
}
