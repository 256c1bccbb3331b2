/* file.c - files through POSIX: mapping, whole reads, writing, directories. */
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static jang_status fail_errno(ctx_t *ctx, const char *what, const char *path) {
    int code = errno;
    return ctx_fail(ctx, code == ENOMEM ? JANG_ERR_MEMORY : JANG_ERR_IO, "%s: cannot %s: %s", path,
                    what, strerror(code));
}

/* ---- Reading ---- */

/* Opens a regular file for reading and tells its size. */
static jang_status open_regular(int *fd, size_t *n_bytes, ctx_t *ctx, const char *path) {
    int f = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (f < 0) {
        return fail_errno(ctx, "open", path);
    }
    struct stat st;
    if (fstat(f, &st) != 0) {
        jang_status status = fail_errno(ctx, "examine", path);
        close(f);
        return status;
    }
    if (!S_ISREG(st.st_mode)) {
        close(f);
        return ctx_fail(ctx, JANG_ERR_IO, "%s: not a regular file", path);
    }
    *fd = f;
    *n_bytes = (size_t)st.st_size;
    return JANG_OK;
}

#define HUGE_FILE_BYTES ((size_t)16 << 20)

/* Has large files read into large pages, where the system can: processors read memory mapped in
 * pages of 4 KiB a third slower. Says nothing about pages that are in the cache already. */
static void ask_for_huge_pages(void *data, size_t n_bytes) {
#ifdef MADV_HUGEPAGE
    if (n_bytes >= HUGE_FILE_BYTES) {
        (void)madvise(data, n_bytes, MADV_HUGEPAGE);
    }
#else
    (void)data;
    (void)n_bytes;
#endif
}

jang_status file_map_open(file_map *out, ctx_t *ctx, const char *path) {
    int fd;
    size_t n_bytes;
    jang_status status = open_regular(&fd, &n_bytes, ctx, path);
    if (status != JANG_OK) {
        return status;
    }
    void *data = NULL;
    if (n_bytes) {
        data = mmap(NULL, n_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            status = fail_errno(ctx, "map", path);
            close(fd);
            return status;
        }
    }
    close(fd);
    ask_for_huge_pages(data, n_bytes);
    *out = (file_map){data, n_bytes};
    return JANG_OK;
}

void file_map_close(file_map *map) {
    if (map->data) {
        munmap((void *)(uintptr_t)map->data, map->n_bytes);
    }
    *map = (file_map){0};
}

jang_status file_map_prefault(const file_map *map, ctx_t *ctx, const char *path) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    volatile uint8_t sink;
#ifdef MADV_POPULATE_READ
    if (!map->data ||
        madvise((void *)(uintptr_t)map->data, map->n_bytes, MADV_POPULATE_READ) == 0) {
        return JANG_OK;
    }
    if (errno == EFAULT || errno == EIO) {
        return fail_errno(ctx, "read", path);
    }
#endif
    for (size_t i = 0; i < map->n_bytes; i += page) { /* systems before Linux 5.14 */
        sink = map->data[i];
    }
    (void)sink;
    return JANG_OK;
}

jang_status file_map_lock(const file_map *map, ctx_t *ctx, const char *path) {
    if (!map->data || mlock(map->data, map->n_bytes) == 0) {
        return JANG_OK;
    }
    struct rlimit limit = {0};
    if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur < map->n_bytes) {
        return ctx_fail(ctx, JANG_ERR_MEMORY,
                        "%s: cannot lock %zu bytes in memory, the limit is %llu (ulimit -l)", path,
                        map->n_bytes, (unsigned long long)limit.rlim_cur);
    }
    return fail_errno(ctx, "lock in memory", path);
}

void file_map_sequential(const file_map *map) {
    if (map->data) {
        posix_madvise((void *)(uintptr_t)map->data, map->n_bytes, POSIX_MADV_SEQUENTIAL);
    }
}

void file_map_drop(const file_map *map, size_t at, size_t n_bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t from = (at + page - 1) / page * page;
    size_t to = at + n_bytes == map->n_bytes ? map->n_bytes : (at + n_bytes) / page * page;
    if (map->data && from < to && to <= map->n_bytes) {
        madvise((void *)(uintptr_t)(map->data + from), to - from, MADV_DONTNEED);
    }
}

jang_status file_read(char **data, size_t *n_bytes, ctx_t *ctx, const char *path, size_t max) {
    int fd;
    size_t size;
    jang_status status = open_regular(&fd, &size, ctx, path);
    if (status != JANG_OK) {
        return status;
    }
    char *text = NULL;
    if (size > max) {
        status = ctx_fail(ctx, JANG_ERR_FORMAT, "%s: %zu bytes, at most %zu are allowed", path,
                          size, max);
        goto done;
    }
    text = ctx_alloc(ctx, size + 1);
    if (!text) {
        status = ctx_fail_memory(ctx, size + 1);
        goto done;
    }
    size_t done = 0;
    while (done < size) {
        ssize_t n = read(fd, text + done, size - done);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            status = n < 0 ? fail_errno(ctx, "read", path)
                           : ctx_fail(ctx, JANG_ERR_IO, "%s: became shorter while read", path);
            goto done;
        }
        done += (size_t)n;
    }
    text[size] = 0;
    *data = text;
    if (n_bytes) {
        *n_bytes = size;
    }
    text = NULL;
done:
    ctx_free(ctx, text);
    close(fd);
    return status;
}

/* ---- Questions ---- */

bool file_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

bool file_is_directory(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool file_is_vacant(const char *path) {
    DIR *dir = opendir(path);
    if (!dir) {
        return errno == ENOENT;
    }
    int n = 0;
    while (n < 3 && readdir(dir)) {
        n++;
    }
    closedir(dir);
    return n <= 2;
}

uint64_t file_size(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
}

int64_t file_mtime(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 ? (int64_t)st.st_mtime : 0;
}

/* ---- Paths ---- */

char *path_join(ctx_t *ctx, const char *directory, const char *name) {
    size_t n = strlen(directory), m = strlen(name);
    while (n > 1 && directory[n - 1] == '/') {
        n--;
    }
    char *path = ctx_alloc(ctx, n + m + 2);
    if (path) {
        memcpy(path, directory, n);
        path[n] = '/';
        memcpy(path + n + 1, name, m + 1);
    }
    return path;
}

char *path_base(ctx_t *ctx, const char *path) {
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') {
        end--;
    }
    size_t start = end;
    while (start > 0 && path[start - 1] != '/') {
        start--;
    }
    return ctx_strndup(ctx, path + start, end - start);
}

bool path_is_plain_name(const char *name) {
    return *name && !strchr(name, '/') && !strchr(name, '\\') && strcmp(name, "..") != 0 &&
           strcmp(name, ".") != 0;
}

bool path_has_suffix(const char *path, const char *suffix) {
    size_t n = strlen(path), m = strlen(suffix);
    return n > m && memcmp(path + n - m, suffix, m) == 0;
}

/* ---- Writing ---- */

#define WRITEBACK_BYTES ((size_t)256 << 10)

struct file_out {
    ctx_t *ctx;
    char *path;
    int fd;
};

jang_status file_out_open(file_out **out, ctx_t *ctx, const char *path) {
    file_out *f = ctx_alloc(ctx, sizeof *f);
    char *copy = ctx_strdup(ctx, path);
    if (!f || !copy) {
        ctx_free(ctx, f);
        ctx_free(ctx, copy);
        return ctx_fail_memory(ctx, sizeof *f + strlen(path));
    }
    *f = (file_out){ctx, copy, open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)};
    if (f->fd < 0) {
        jang_status status = fail_errno(ctx, "create", path);
        ctx_free(ctx, copy);
        ctx_free(ctx, f);
        return status;
    }
    *out = f;
    return JANG_OK;
}

jang_status file_out_write(file_out *f, const void *data, size_t n_bytes) {
    const char *at = data;
    while (n_bytes) {
        ssize_t n = write(f->fd, at, n_bytes < (1u << 30) ? n_bytes : (1u << 30));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return fail_errno(f->ctx, "write", f->path);
        }
        at += n;
        n_bytes -= (size_t)n;
    }
    return JANG_OK;
}

/* Has the system begin to write a large part to the disk, so that closing need not wait for all. */
static void start_writeback(const file_out *f, uint64_t at, size_t n_bytes) {
#ifdef SYNC_FILE_RANGE_WRITE
    if (n_bytes >= WRITEBACK_BYTES) {
        (void)sync_file_range(f->fd, (off_t)at, (off_t)n_bytes, SYNC_FILE_RANGE_WRITE);
    }
#else
    (void)f;
    (void)at;
    (void)n_bytes;
#endif
}

jang_status file_out_write_at(file_out *f, uint64_t at, const void *data, size_t n_bytes) {
    const char *from = data;
    const uint64_t begin = at;
    const size_t n_all = n_bytes;
    while (n_bytes) {
        ssize_t n = pwrite(f->fd, from, n_bytes < (1u << 30) ? n_bytes : (1u << 30), (off_t)at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return fail_errno(f->ctx, "write", f->path);
        }
        from += n;
        at += (uint64_t)n;
        n_bytes -= (size_t)n;
    }
    start_writeback(f, begin, n_all);
    return JANG_OK;
}

static void file_out_free(file_out *f) {
    ctx_free(f->ctx, f->path);
    ctx_free(f->ctx, f);
}

/* Lets go of the cached pages of a large file that was just written: writing in pieces leaves small
 * ones, which all later reading would go through. The next reader brings in large ones. */
static void drop_cached(int fd) {
    struct stat st;
    if (fstat(fd, &st) == 0 && (size_t)st.st_size >= HUGE_FILE_BYTES) {
        (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    }
}

jang_status file_out_close(file_out *f) {
    jang_status status = JANG_OK;
    if (fsync(f->fd) != 0 && errno != EINVAL) {
        status = fail_errno(f->ctx, "write", f->path);
    }
    drop_cached(f->fd);
    if (close(f->fd) != 0 && status == JANG_OK) {
        status = fail_errno(f->ctx, "close", f->path);
    }
    file_out_free(f);
    return status;
}

void file_out_discard(file_out *f) {
    if (f) {
        struct stat st;
        bool regular = fstat(f->fd, &st) == 0 && S_ISREG(st.st_mode);
        close(f->fd);
        if (regular) { /* and no device that was there before */
            unlink(f->path);
        }
        file_out_free(f);
    }
}

jang_status file_write(ctx_t *ctx, const char *path, const void *data, size_t n_bytes) {
    file_out *f;
    jang_status status = file_out_open(&f, ctx, path);
    if (status != JANG_OK) {
        return status;
    }
    status = file_out_write(f, data, n_bytes);
    if (status != JANG_OK) {
        file_out_discard(f);
        return status;
    }
    return file_out_close(f);
}

/* ---- Directories ---- */

jang_status directory_make(ctx_t *ctx, const char *path) {
    return mkdir(path, 0777) == 0 ? JANG_OK : fail_errno(ctx, "make directory", path);
}

/* depth: how many levels of directories below may be removed with it. */
static jang_status remove_levels(ctx_t *ctx, const char *path, int depth);

static jang_status remove_entry(ctx_t *ctx, DIR *dir, const char *path, const char *name,
                                int depth) {
    if (unlinkat(dirfd(dir), name, 0) == 0) {
        return JANG_OK;
    }
    jang_status status = fail_errno(ctx, "remove a file in", path);
    char *below = depth > 0 ? path_join(ctx, path, name) : NULL;
    if (below && file_is_directory(below)) {
        status = remove_levels(ctx, below, depth - 1);
    }
    ctx_free(ctx, below);
    return status;
}

static jang_status remove_levels(ctx_t *ctx, const char *path, int depth) {
    DIR *dir = opendir(path);
    if (!dir) {
        return errno == ENOENT ? JANG_OK : fail_errno(ctx, "open directory", path);
    }
    jang_status status = JANG_OK;
    for (struct dirent *e; status == JANG_OK && (e = readdir(dir));) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
            status = remove_entry(ctx, dir, path, e->d_name, depth);
        }
    }
    closedir(dir);
    if (status == JANG_OK && rmdir(path) != 0) {
        status = fail_errno(ctx, "remove", path);
    }
    return status;
}

jang_status directory_remove(ctx_t *ctx, const char *path) {
    return remove_levels(ctx, path, 1);
}

/* A rename is on disk only when the directory that holds the name is. */
static void sync_parent(const char *path) {
    char parent[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (n >= sizeof parent) {
        return;
    }
    memcpy(parent, path, n);
    parent[n] = 0;
    int fd = open(slash ? (n ? parent : "/") : ".", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
}

jang_status file_rename(ctx_t *ctx, const char *from, const char *to) {
    if (rename(from, to) != 0) {
        return fail_errno(ctx, "rename to it", to);
    }
    sync_parent(to);
    return JANG_OK;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

jang_status directory_list(char ***names, size_t *n, ctx_t *ctx, const char *path) {
    DIR *dir = opendir(path);
    if (!dir) {
        return fail_errno(ctx, "open directory", path);
    }
    char **list = NULL;
    size_t count = 0;
    jang_status status = JANG_OK;
    for (struct dirent *e; (e = readdir(dir));) {
        struct stat st;
        if (fstatat(dirfd(dir), e->d_name, &st, 0) != 0 || !S_ISREG(st.st_mode)) {
            continue;
        }
        char **more = ctx_realloc(ctx, list, (count + 1) * sizeof *list);
        char *name = more ? ctx_strdup(ctx, e->d_name) : NULL;
        list = more ? more : list;
        if (!name) {
            status = ctx_fail_memory(ctx, (count + 1) * sizeof *list);
            break;
        }
        list[count++] = name;
    }
    closedir(dir);
    if (status != JANG_OK) {
        directory_list_free(ctx, list, count);
        return status;
    }
    if (count) {
        qsort(list, count, sizeof *list, compare_names);
    }
    *names = list;
    *n = count;
    return JANG_OK;
}

void directory_list_free(ctx_t *ctx, char **names, size_t n) {
    for (size_t i = 0; i < n; i++) {
        ctx_free(ctx, names[i]);
    }
    ctx_free(ctx, names);
}

double clock_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}
