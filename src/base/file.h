/* file.h - files: mapping, whole reads, writes that appear whole or not at all. */
#ifndef JANG_BASE_FILE_H
#define JANG_BASE_FILE_H

#include "base/buf.h"

/* A file mapped read-only. data is NULL for an empty file. */
typedef struct file_map {
    const uint8_t *data;
    size_t n_bytes;
} file_map;

JANG_MUST_CHECK jang_status file_map_open(file_map *out, ctx_t *ctx, const char *path);
void file_map_close(file_map *map);

/* Reads all of a mapping into memory; path for messages. */
JANG_MUST_CHECK jang_status file_map_prefault(const file_map *map, ctx_t *ctx, const char *path);
/* The same, and keeps it there until it is closed. Needs leave to lock so much (RLIMIT_MEMLOCK). */
JANG_MUST_CHECK jang_status file_map_lock(const file_map *map, ctx_t *ctx, const char *path);

/* Tells the system that a mapping will be read from front to back once (a conversion's source). */
void file_map_sequential(const file_map *map);
/* Lets go of the cached pages of a part already used. Offsets are rounded inwards to pages, but for
 * the end of the file. */
void file_map_drop(const file_map *map, size_t at, size_t n_bytes);

/* Reads a whole file of at most max bytes; freed with ctx_free. A 0 byte follows the text. */
JANG_MUST_CHECK jang_status file_read(char **data, size_t *n_bytes, ctx_t *ctx, const char *path,
                                      size_t max);

bool file_exists(const char *path);
bool file_is_directory(const char *path);
/* Whether a directory is missing or has nothing in it. */
bool file_is_vacant(const char *path);
/* Bytes of a regular file, or 0. */
uint64_t file_size(const char *path);
/* Seconds since 1970 of the last change, or 0. */
int64_t file_mtime(const char *path);

/* Joins with one '/'; freed with ctx_free; NULL when out of memory. */
char *path_join(ctx_t *ctx, const char *directory, const char *name);
/* The part after the last '/' (trailing ones ignored), freed with ctx_free. */
char *path_base(ctx_t *ctx, const char *path);
/* Whether a file name from a file (a shard in an index) stays inside its directory. */
bool path_is_plain_name(const char *name);
bool path_has_suffix(const char *path, const char *suffix);

/* Sequential writing to a new file, for files too large for memory. */
typedef struct file_out file_out;
JANG_MUST_CHECK jang_status file_out_open(file_out **out, ctx_t *ctx, const char *path);
JANG_MUST_CHECK jang_status file_out_write(file_out *f, const void *data, size_t n_bytes);
/* Writes at an offset without moving the sequential position. */
JANG_MUST_CHECK jang_status file_out_write_at(file_out *f, uint64_t at, const void *data,
                                              size_t n_bytes);
/* Flushes to the disk and closes; f is gone afterwards, also on failure. */
JANG_MUST_CHECK jang_status file_out_close(file_out *f);
/* Closes and removes the file; a device stays. */
void file_out_discard(file_out *f);

/* Writes a small file and syncs it. */
JANG_MUST_CHECK jang_status file_write(ctx_t *ctx, const char *path, const void *data,
                                       size_t n_bytes);

/* Makes a directory (not its parents). */
JANG_MUST_CHECK jang_status directory_make(ctx_t *ctx, const char *path);
/* Removes a directory, the plain files in it, and directories that hold plain files only (those of
 * an embedding model's modules); descends no further. Missing is fine. */
JANG_MUST_CHECK jang_status directory_remove(ctx_t *ctx, const char *path);
/* Renames and syncs the parent directory. */
JANG_MUST_CHECK jang_status file_rename(ctx_t *ctx, const char *from, const char *to);
/* The plain files of a directory, sorted by name; freed with directory_list_free. */
JANG_MUST_CHECK jang_status directory_list(char ***names, size_t *n, ctx_t *ctx, const char *path);
void directory_list_free(ctx_t *ctx, char **names, size_t n);

/* Monotonic time in seconds. */
double clock_seconds(void);

#endif
