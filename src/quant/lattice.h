/* lattice.h - codes of one group of 16 rows, in a metric: minimize over scale s, bias b, codes q
 *
 *     (t - s q - b)^T M (t - s q - b)
 *
 * for each row by itself. M is symmetric and positive definite: for GPTQ, what an error in these
 * columns costs once later columns have made up for what they can. An integer least squares
 * problem; solved by descent: coordinate by coordinate over the codes, then scale and bias in
 * closed form, from several starts. The 16 rows are the lanes of all loops. */
#ifndef JANG_QUANT_LATTICE_H
#define JANG_QUANT_LATTICE_H

#include "base/cpu.h"
#include "base/tensor.h"

#define LATTICE_ROWS 16
#define LATTICE_MAX 128 /* largest group */

typedef float lattice_vec __attribute__((vector_size(4 * LATTICE_ROWS)));

typedef struct lattice {
    const float *m; /* [group, group] */
    int group, bits;
    dtype type; /* of scale and bias, which are rounded to it */
    lattice_vec t[LATTICE_MAX];
    /* The result; for lattice_polish also the start. */
    lattice_vec q[LATTICE_MAX];
    lattice_vec scale, bias;
    /* lattice_polish: the gradient M (t - s q - b), or, where other groups' errors are there as
     * well, these columns of (error of the whole row) H. Kept up to date. */
    lattice_vec h[LATTICE_MAX];
} lattice;

/* solve finds q, scale and bias for t; polish improves what is there, given h. */
typedef struct lattice_fns {
    void (*solve)(lattice *l);
    void (*polish)(lattice *l, int n_sweeps);
} lattice_fns;

const lattice_fns *lattice_functions(cpu_isa isa);

/* x as a scale or bias of this type is stored. */
float lattice_stored(float x, dtype type);

extern const lattice_fns lattice__scalar, lattice__avx2, lattice__avx512;

#endif
