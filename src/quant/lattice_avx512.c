/* lattice_avx512.c - codes in a metric, compiled for AVX-512. */
#include "quant/lattice.h"

#include "quant/lattice_body.h"

static void solve(lattice *l) {
    lat_solve(l);
}

static void polish(lattice *l, int n_sweeps) {
    lat_polish(l, n_sweeps);
}

const lattice_fns lattice__avx512 = {solve, polish};
