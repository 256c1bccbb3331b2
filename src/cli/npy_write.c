/* npy_write.c - matrices in NumPy's file format, version 1.0.
 *
 * "\x93NUMPY", version 1 0, a u16 with the length of the header, the header: a Python dict with
 * dtype, order and shape, padded with blanks to a multiple of 64 and ended by a line feed; then the
 * values in row order. numpy.lib.format describes it. */
#include "npy_write.h"

#include "terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HEADER_BYTES 128

static bool write_failed(const npy_file *npy) {
    cli_failed("cannot write %s: %s", npy->path, strerror(errno));
    return false;
}

/* NumPy's own byte order mark: values are written as the machine holds them. */
static char byte_order(void) {
    const unsigned short one = 1;
    return *(const unsigned char *)&one ? '<' : '>';
}

bool npy_open(npy_file *npy, const char *path, size_t n_rows, size_t n_columns) {
    *npy = (npy_file){0};
    size_t n = strlen(path) + 32;
    npy->path = strdup(path);
    npy->beside = malloc(n);
    if (!npy->path || !npy->beside) {
        cli_failed("out of memory");
        return false;
    }
    snprintf(npy->beside, n, "%s.%ld.tmp", path, (long)getpid());
    int fd = open(npy->beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0) {
        free(npy->beside);
        npy->beside = NULL;
        return write_failed(npy);
    }
    npy->file = fdopen(fd, "wb");
    if (!npy->file) {
        close(fd);
        return write_failed(npy);
    }
    char header[HEADER_BYTES + 1];
    int length = snprintf(header + 10, sizeof header - 10,
                          "{'descr': '%cf4', 'fortran_order': False, 'shape': (%zu, %zu), }",
                          byte_order(), n_rows, n_columns);
    memset(header + 10 + length, ' ', (size_t)(HEADER_BYTES - 11 - length));
    memcpy(header, "\x93NUMPY\x01\x00\x76\x00", 10); /* 0x76 = HEADER_BYTES - 10 */
    header[HEADER_BYTES - 1] = '\n';
    return fwrite(header, 1, HEADER_BYTES, npy->file) == HEADER_BYTES || write_failed(npy);
}

bool npy_write_rows(npy_file *npy, const float *values, size_t n_values) {
    return fwrite(values, sizeof *values, n_values, npy->file) == n_values || write_failed(npy);
}

bool npy_finish(npy_file *npy) {
    bool ok = !fflush(npy->file) && !fsync(fileno(npy->file));
    int error = errno;
    ok = !fclose(npy->file) && ok;
    npy->file = NULL;
    if (!ok) {
        errno = errno ? errno : error;
        return write_failed(npy);
    }
    if (rename(npy->beside, npy->path)) {
        return write_failed(npy);
    }
    free(npy->beside);
    npy->beside = NULL;
    return true;
}

void npy_close(npy_file *npy) {
    if (npy->file) {
        fclose(npy->file);
    }
    if (npy->beside) {
        unlink(npy->beside);
    }
    free(npy->beside);
    free(npy->path);
    *npy = (npy_file){0};
}
