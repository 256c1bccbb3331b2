/* npy_write.h - writes a matrix of f32 as a .npy file that appears whole or not at all. */
#ifndef JANG_CLI_NPY_WRITE_H
#define JANG_CLI_NPY_WRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

typedef struct npy_file {
    FILE *file;
    char *path, *beside; /* the name at the end, and the one until then */
} npy_file;

/* Starts a file beside path for n_rows rows of n_columns. Prints why it failed. */
bool npy_open(npy_file *npy, const char *path, size_t n_rows, size_t n_columns);
bool npy_write_rows(npy_file *npy, const float *values, size_t n_values);
/* Syncs and renames to path. */
bool npy_finish(npy_file *npy);
/* Removes what was written, unless it was finished. */
void npy_close(npy_file *npy);

#endif
