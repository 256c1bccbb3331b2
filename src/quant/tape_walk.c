/* tape_walk.c - recurrences gone through and back, for any processor. */
#include "quant/tape_walk.h"

#include "quant/tape_walk_body.h"

void tape_walk__scalar(const tape_walk *w, int64_t unit, float *db, float *dc, float *scratch) {
    tw_walk(w, unit, db, dc, scratch);
}

int64_t tape_walk_scratch(const tape_walk *w) {
    int64_t longest = 1;
    for (int64_t t = 0; t < w->n_tok; t++) {
        longest = w->pos[t] + 1 > longest ? w->pos[t] + 1 : longest;
    }
    int64_t n = tw_padded(w), n_span = (longest + TW_SPAN - 1) / TW_SPAN;
    return (TW_ROWS * (1 + n_span) + 5) * n + (TW_SPAN + 1) * tw_token_size(w);
}

static tape_walk_fn *const table[CPU_N_ISA] = {
    [CPU_SCALAR] = tape_walk__scalar,
#if defined(__x86_64__)
    [CPU_AVX2] = tape_walk__avx2,
    [CPU_AVX512] = tape_walk__avx512,
#endif
};

tape_walk_fn *tape_walk_function(cpu_isa isa) {
    tape_walk_fn *fn = table[cpu_base(isa)];
    return fn ? fn : tape_walk__scalar;
}
