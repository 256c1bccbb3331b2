/* output.c - the output directory of a conversion.
 *
 * While a process writes a temporary directory it holds a lock on the file ".lock" in it. A
 * temporary directory whose lock is free belonged to a process that was killed; the next conversion
 * to the same name removes it. */
#include "quant/output.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static jang_status fail_errno(ctx_t *ctx, const char *path, const char *what) {
    return ctx_fail(ctx, JANG_ERR_IO, "%s: cannot %s: %s", path, what, strerror(errno));
}

/* ---- Looking ---- */

static bool has_subdirectory(const char *path) {
    DIR *dir = opendir(path);
    bool found = false;
    for (struct dirent *e; dir && !found && (e = readdir(dir));) {
        struct stat st;
        bool dots = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
        found = !dots && fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
                S_ISDIR(st.st_mode);
    }
    if (dir) {
        closedir(dir);
    }
    return found;
}

/* Whether source is directory, or a file in it. Both exist. */
static bool lies_in(const char *source, const char *directory) {
    char *real_source = realpath(source, NULL), *real_directory = realpath(directory, NULL);
    bool inside = false;
    if (real_source && real_directory) {
        size_t n = strlen(real_directory);
        inside = strncmp(real_source, real_directory, n) == 0 &&
                 (real_source[n] == 0 || real_source[n] == '/');
    }
    free(real_source);
    free(real_directory);
    return inside;
}

jang_status output_check(ctx_t *ctx, const char *path, bool force, const char *source) {
    if (!*path) {
        return ctx_fail(ctx, JANG_ERR_ARGUMENT, "no output directory is given");
    }
    if (file_exists(path) && !file_is_directory(path)) {
        return ctx_fail(ctx, JANG_ERR_EXISTS, "%s: is a file; the output is a directory", path);
    }
    if (file_is_vacant(path)) {
        return JANG_OK;
    }
    if (lies_in(source, path)) {
        return ctx_fail(ctx, JANG_ERR_ARGUMENT,
                        "%s: the source model lies there; choose another output", path);
    }
    if (!force) {
        return ctx_fail(ctx, JANG_ERR_EXISTS,
                        "%s: exists and is not empty (force replaces what is there)", path);
    }
    if (has_subdirectory(path)) {
        return ctx_fail(ctx, JANG_ERR_EXISTS,
                        "%s: has subdirectories, so it is no model and is not replaced", path);
    }
    return JANG_OK;
}

/* The path without trailing slashes; of an existing directory the real one, so that a symbolic link
 * stays what it is. */
static char *resolve(ctx_t *ctx, const char *path) {
    char *real = realpath(path, NULL);
    const char *from = real ? real : path;
    size_t n = strlen(from);
    while (n > 1 && from[n - 1] == '/') {
        n--;
    }
    char *copy = ctx_strndup(ctx, from, n);
    free(real);
    return copy;
}

static char *parent_of(ctx_t *ctx, const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? ctx_strndup(ctx, path, slash == path ? 1 : (size_t)(slash - path))
                 : ctx_strdup(ctx, ".");
}

/* The file system must have room for what is known to come. */
static jang_status check_space(ctx_t *ctx, const char *path, uint64_t n_bytes) {
    char *parent = parent_of(ctx, path);
    if (!parent) {
        return ctx_fail_memory(ctx, strlen(path));
    }
    struct statvfs fs;
    jang_status status = JANG_OK;
    if (statvfs(parent, &fs) != 0) {
        status = fail_errno(ctx, parent, "find the directory for the output");
    } else {
        uint64_t room = (uint64_t)fs.f_bavail * (uint64_t)fs.f_frsize;
        if (room < n_bytes) {
            status =
                ctx_fail(ctx, JANG_ERR_IO,
                         "%s: not enough disk space: the output needs %.1f MB, %.1f MB are free",
                         parent, (double)n_bytes / 1e6, (double)room / 1e6);
        }
    }
    ctx_free(ctx, parent);
    return status;
}

/* ---- Temporary directories ---- */

#define LOCK_NAME ".lock"

/* Opens a directory's lock file with these flags and tries to lock it; -1 if that fails. */
static int take_lock(ctx_t *ctx, const char *directory, int flags) {
    char *path = path_join(ctx, directory, LOCK_NAME);
    int fd = path ? open(path, flags | O_RDWR | O_CLOEXEC, 0666) : -1;
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0) {
        close(fd);
        fd = -1;
    }
    ctx_free(ctx, path);
    return fd;
}

/* A link is left alone: what it leads to is nobody's temporary directory. */
static void remove_if_abandoned(ctx_t *ctx, const char *directory) {
    struct stat st;
    if (lstat(directory, &st) != 0 || !S_ISDIR(st.st_mode)) {
        return;
    }
    int fd = take_lock(ctx, directory, 0);
    if (fd >= 0) {
        jang_status ignored = directory_remove(ctx, directory);
        (void)ignored;
        close(fd);
    }
}

/* Removes what killed conversions to the same name have left. */
static void remove_abandoned(ctx_t *ctx, const char *final_path) {
    char *parent = parent_of(ctx, final_path), *base = path_base(ctx, final_path);
    buf prefix;
    buf_init(&prefix, ctx, BUF_NO_LIMIT);
    buf_printf(&prefix, "%s.tmp-", base ? base : "");
    DIR *dir = parent && base && prefix.status == JANG_OK ? opendir(parent) : NULL;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        char *path = strncmp(e->d_name, prefix.data, prefix.size) == 0
                         ? path_join(ctx, parent, e->d_name)
                         : NULL;
        if (path) {
            remove_if_abandoned(ctx, path);
        }
        ctx_free(ctx, path);
    }
    if (dir) {
        closedir(dir);
    }
    buf_free(&prefix);
    ctx_free(ctx, base);
    ctx_free(ctx, parent);
}

/* Makes and locks the temporary directory. Where the file system knows no locks, there is none. */
static jang_status make_temp(output_dir *o) {
    buf path;
    buf_init(&path, o->ctx, BUF_NO_LIMIT);
    buf_printf(&path, "%s.tmp-%ld", o->final_path, (long)getpid());
    size_t n;
    jang_status status = buf_take(&path, &o->temp_path, &n);
    buf_free(&path);
    if (status == JANG_OK) {
        status = directory_make(o->ctx, o->temp_path);
    }
    if (status == JANG_OK) {
        o->lock = take_lock(o->ctx, o->temp_path, O_CREAT);
    }
    return status;
}

static void release_lock(output_dir *out) {
    if (out->lock >= 0) {
        close(out->lock);
        out->lock = -1;
    }
}

/* ---- Making ---- */

jang_status output_begin(output_dir *out, ctx_t *ctx, const char *path, bool force,
                         const char *source, uint64_t n_bytes) {
    output_dir o = {.ctx = ctx, .lock = -1};
    jang_status status = output_check(ctx, path, force, source);
    if (status != JANG_OK) {
        return status;
    }
    o.final_path = resolve(ctx, path);
    if (!o.final_path) {
        return ctx_fail_memory(ctx, strlen(path));
    }
    remove_abandoned(ctx, o.final_path);
    status = check_space(ctx, o.final_path, n_bytes);
    if (status == JANG_OK) {
        o.replaces = file_exists(o.final_path);
        status = make_temp(&o);
    }
    if (status != JANG_OK) {
        ctx_free(ctx, o.temp_path);
        ctx_free(ctx, o.final_path);
        return status;
    }
    *out = o;
    return JANG_OK;
}

static jang_status sync_directory(ctx_t *ctx, const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return fail_errno(ctx, path, "open the directory");
    }
    jang_status status = JANG_OK;
    if (fsync(fd) != 0 && errno != EINVAL) {
        status = fail_errno(ctx, path, "write the directory");
    }
    close(fd);
    return status;
}

static jang_status sync_parent(ctx_t *ctx, const char *path) {
    char *parent = parent_of(ctx, path);
    jang_status status = parent ? sync_directory(ctx, parent) : ctx_fail_memory(ctx, strlen(path));
    ctx_free(ctx, parent);
    return status;
}

/* Swaps two names in one step, where the system can. */
static bool exchange(const char *a, const char *b) {
#ifdef RENAME_EXCHANGE
    return renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE) == 0;
#else
    (void)a;
    (void)b;
    return false;
#endif
}

/* Puts the new directory in the place of the old and removes the old. */
static jang_status replace(output_dir *out) {
    ctx_t *ctx = out->ctx;
    if (exchange(out->temp_path, out->final_path)) {
        jang_status status = sync_parent(ctx, out->final_path);
        return status == JANG_OK ? directory_remove(ctx, out->temp_path) : status;
    }
    buf old;
    buf_init(&old, ctx, BUF_NO_LIMIT);
    buf_printf(&old, "%s.old-%ld", out->final_path, (long)getpid());
    jang_status status = buf_status(&old);
    if (status == JANG_OK) {
        status = file_rename(ctx, out->final_path, old.data);
    }
    if (status == JANG_OK) {
        status = file_rename(ctx, out->temp_path, out->final_path);
        if (status != JANG_OK && rename(old.data, out->final_path) != 0) {
            status = ctx_prefix(ctx, status, "what was there is now %s", old.data);
        }
    }
    if (status == JANG_OK) {
        status = directory_remove(ctx, old.data);
    }
    buf_free(&old);
    return status;
}

/* The lock file goes before the directory gets its name; the lock itself is held until then. */
static jang_status remove_lock_file(output_dir *out) {
    char *path = path_join(out->ctx, out->temp_path, LOCK_NAME);
    if (!path) {
        return ctx_fail_memory(out->ctx, strlen(out->temp_path));
    }
    jang_status status = JANG_OK;
    if (unlink(path) != 0 && errno != ENOENT) {
        status = fail_errno(out->ctx, path, "remove");
    }
    ctx_free(out->ctx, path);
    return status;
}

jang_status output_commit(output_dir *out) {
    jang_status status = remove_lock_file(out);
    if (status == JANG_OK) {
        status = sync_directory(out->ctx, out->temp_path);
    }
    if (status == JANG_OK) {
        status =
            out->replaces ? replace(out) : file_rename(out->ctx, out->temp_path, out->final_path);
    }
    if (status == JANG_OK) {
        ctx_free(out->ctx, out->temp_path);
        out->temp_path = NULL;
    }
    return status;
}

void output_end(output_dir *out) {
    if (!out->ctx) {
        return;
    }
    if (out->temp_path) {
        jang_status ignored = directory_remove(out->ctx, out->temp_path);
        (void)ignored;
    }
    release_lock(out);
    ctx_free(out->ctx, out->temp_path);
    ctx_free(out->ctx, out->final_path);
    *out = (output_dir){0};
}
