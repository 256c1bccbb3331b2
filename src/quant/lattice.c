/* lattice.c - codes in a metric, in portable C. */
#include "quant/lattice.h"

#include "quant/lattice_body.h"

static void solve(lattice *l) {
    lat_solve(l);
}

static void polish(lattice *l, int n_sweeps) {
    lat_polish(l, n_sweeps);
}

const lattice_fns lattice__scalar = {solve, polish};

float lattice_stored(float x, dtype type) {
    return lat_stored(x, type);
}

static const lattice_fns *const table[CPU_N_ISA] = {
    [CPU_SCALAR] = &lattice__scalar,
#if defined(__x86_64__)
    [CPU_AVX2] = &lattice__avx2,
    [CPU_AVX512] = &lattice__avx512,
#endif
};

const lattice_fns *lattice_functions(cpu_isa isa) {
    const lattice_fns *fns = table[cpu_base(isa)];
    return fns ? fns : &lattice__scalar;
}
