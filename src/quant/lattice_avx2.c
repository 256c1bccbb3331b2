/* lattice_avx2.c - codes in a metric, compiled for AVX2. */
#include "quant/lattice.h"

#include "quant/lattice_body.h"

static void solve(lattice *l) {
    lat_solve(l);
}

static void polish(lattice *l, int n_sweeps) {
    lat_polish(l, n_sweeps);
}

const lattice_fns lattice__avx2 = {solve, polish};
