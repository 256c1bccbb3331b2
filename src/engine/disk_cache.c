/* disk_cache.c - pages of keys and values in files. */
#include "engine/disk_cache.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define MAGIC "JANGPAGE"
#define SECRET_MAGIC "JANGKEY1"
#define VERSION 1
#define PAUSE_SECONDS 30 /* after a write that failed */
#define NAME_BYTES 80

/* A file begins with this; the checksum is of all that follows it and of the fields before. */
typedef struct page_header {
    char magic[8];
    uint32_t version, n_bytes;
    page_key model, key;
    page_key checksum;
} page_header;

typedef struct disk_entry {
    page_key model, key;
    uint64_t n_bytes;
    int64_t used; /* the larger, the later */
} disk_entry;

struct disk_cache {
    ctx_t *ctx;
    char *path;
    page_key secret, model;
    uint64_t max_bytes, n_bytes, n_errors;
    size_t page_bytes;
    uint8_t *buffer;     /* [sizeof(page_header) + page_bytes] */
    disk_entry *entries; /* [n], sorted by key */
    size_t n, capacity;
    int64_t clock;
    double quiet_until; /* no writing before this time */
    unsigned n_written;
};

/* ---- Names ---- */

static void format_name(char name[NAME_BYTES], page_key model, page_key key) {
    snprintf(name, NAME_BYTES, "%016llx%016llx-%016llx%016llx.page", (unsigned long long)model.a,
             (unsigned long long)model.b, (unsigned long long)key.a, (unsigned long long)key.b);
}

static bool parse_name(const char *name, disk_entry *out) {
    unsigned long long w[4];
    int n = 0;
    char again[NAME_BYTES];
    if (sscanf(name, "%16llx%16llx-%16llx%16llx.page%n", &w[0], &w[1], &w[2], &w[3], &n) != 4) {
        return false;
    }
    out->model = (page_key){w[0], w[1]};
    out->key = (page_key){w[2], w[3]};
    format_name(again, out->model, out->key);
    return n > 0 && strcmp(again, name) == 0;
}

/* path "/" name; NULL when out of memory. */
static char *full_path(const disk_cache *d, page_key model, page_key key) {
    char name[NAME_BYTES];
    format_name(name, model, key);
    return path_join(d->ctx, d->path, name);
}

/* ---- Entries ---- */

static int compare_keys(page_key model, page_key key, const disk_entry *e) {
    const uint64_t a[] = {key.a, key.b, model.a, model.b};
    const uint64_t b[] = {e->key.a, e->key.b, e->model.a, e->model.b};
    for (int i = 0; i < 4; i++) {
        if (a[i] != b[i]) {
            return a[i] < b[i] ? -1 : 1;
        }
    }
    return 0;
}

/* Where an entry is, or would be. */
static size_t find_place(const disk_cache *d, page_key model, page_key key, bool *found) {
    size_t low = 0, high = d->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare_keys(model, key, &d->entries[middle]);
        if (order == 0) {
            *found = true;
            return middle;
        }
        low = order < 0 ? low : middle + 1;
        high = order < 0 ? middle : high;
    }
    *found = false;
    return low;
}

static bool add_entry(disk_cache *d, const disk_entry *e) {
    bool found;
    size_t at = find_place(d, e->model, e->key, &found);
    if (found) {
        d->n_bytes += e->n_bytes - d->entries[at].n_bytes;
        d->entries[at] = *e;
        return true;
    }
    if (d->n == d->capacity) {
        size_t capacity = d->capacity ? 2 * d->capacity : 256;
        disk_entry *entries = ctx_realloc(d->ctx, d->entries, capacity * sizeof *entries);
        if (!entries) {
            return false;
        }
        d->entries = entries;
        d->capacity = capacity;
    }
    memmove(&d->entries[at + 1], &d->entries[at], (d->n - at) * sizeof *d->entries);
    d->entries[at] = *e;
    d->n++;
    d->n_bytes += e->n_bytes;
    return true;
}

/* Removes a file and its entry. */
static void remove_entry(disk_cache *d, size_t at) {
    char *path = full_path(d, d->entries[at].model, d->entries[at].key);
    if (path) {
        (void)unlink(path);
        ctx_free(d->ctx, path);
    }
    d->n_bytes -= d->entries[at].n_bytes;
    d->n--;
    memmove(&d->entries[at], &d->entries[at + 1], (d->n - at) * sizeof *d->entries);
}

static void make_room(disk_cache *d, uint64_t n_bytes) {
    while (d->n && d->n_bytes + n_bytes > d->max_bytes) {
        size_t oldest = 0;
        for (size_t i = 1; i < d->n; i++) {
            oldest = d->entries[i].used < d->entries[oldest].used ? i : oldest;
        }
        remove_entry(d, oldest);
    }
}

/* ---- Opening ---- */

/* Writes a file so that it appears whole or not at all. */
static bool write_whole(disk_cache *d, const char *path, const void *data, size_t n_bytes) {
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "tmp-%ld-%u", (long)getpid(), d->n_written++);
    char *temp = path_join(d->ctx, d->path, name);
    int fd = temp ? open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
    bool ok = fd >= 0;
    const uint8_t *at = data;
    while (ok && n_bytes > 0) {
        ssize_t n = write(fd, at, n_bytes);
        ok = n > 0 || (n < 0 && errno == EINTR);
        at += n > 0 ? n : 0;
        n_bytes -= n > 0 ? (size_t)n : 0;
    }
    if (fd >= 0) {
        ok = close(fd) == 0 && ok;
        ok = ok && rename(temp, path) == 0;
        if (!ok) {
            (void)unlink(temp);
        }
    }
    ctx_free(d->ctx, temp);
    return ok;
}

typedef struct secret_file {
    char magic[8];
    page_key secret, check;
} secret_file;

static page_key secret_check(page_key secret) {
    return page_key_hash(secret, SECRET_MAGIC, 8);
}

static bool read_secret(disk_cache *d, const char *path) {
    char *data;
    size_t n;
    secret_file file;
    if (!file_exists(path) || file_read(&data, &n, d->ctx, path, 4096) != JANG_OK) {
        return false;
    }
    bool ok = n == sizeof file;
    if (ok) {
        memcpy(&file, data, sizeof file);
        ok = memcmp(file.magic, SECRET_MAGIC, 8) == 0 &&
             page_key_equal(file.check, secret_check(file.secret));
        d->secret = ok ? file.secret : d->secret;
    }
    ctx_free(d->ctx, data);
    return ok;
}

/* Another program may make one at the same time: the one that is there in the end counts. */
static jang_status find_secret(disk_cache *d) {
    char *path = path_join(d->ctx, d->path, "secret");
    if (!path) {
        return ctx_fail_memory(d->ctx, 64);
    }
    jang_status status = JANG_OK;
    if (!read_secret(d, path)) {
        secret_file file = {.secret = page_key_random()};
        memcpy(file.magic, SECRET_MAGIC, 8);
        file.check = secret_check(file.secret);
        if (!write_whole(d, path, &file, sizeof file) || !read_secret(d, path)) {
            status =
                ctx_fail(d->ctx, JANG_ERR_IO, "%s: cannot be written: %s", path, strerror(errno));
        }
    }
    ctx_free(d->ctx, path);
    return status;
}

static void add_file(disk_cache *d, const char *name) {
    char *path = path_join(d->ctx, d->path, name);
    disk_entry e = {0};
    if (path && strncmp(name, "tmp-", 4) == 0) {
        (void)unlink(path); /* of a program that was killed */
    } else if (path && parse_name(name, &e)) {
        e.n_bytes = file_size(path);
        e.used = file_mtime(path);
        d->clock = e.used > d->clock ? e.used : d->clock;
        (void)add_entry(d, &e);
    }
    ctx_free(d->ctx, path);
}

static jang_status scan(disk_cache *d) {
    char **names;
    size_t n;
    jang_status status = directory_list(&names, &n, d->ctx, d->path);
    if (status != JANG_OK) {
        return status;
    }
    for (size_t i = 0; i < n; i++) {
        add_file(d, names[i]);
    }
    directory_list_free(d->ctx, names, n);
    make_room(d, 0);
    return JANG_OK;
}

jang_status disk_cache_open(disk_cache **out, ctx_t *ctx, const char *path, uint64_t max_bytes,
                            size_t page_bytes, page_key model) {
    disk_cache *d = ctx_zero(ctx, 1, sizeof *d);
    if (!d) {
        return ctx_fail_memory(ctx, sizeof *d);
    }
    *d = (disk_cache){.ctx = ctx, .max_bytes = max_bytes, .page_bytes = page_bytes};
    d->path = ctx_strdup(ctx, path);
    d->buffer = ctx_alloc(ctx, sizeof(page_header) + page_bytes);
    jang_status status = JANG_OK;
    if (!d->path || !d->buffer || page_bytes > UINT32_MAX) {
        status = ctx_fail_memory(ctx, sizeof(page_header) + page_bytes);
    }
    if (status == JANG_OK && !file_is_directory(path)) {
        status = directory_make(ctx, path);
    }
    if (status == JANG_OK) {
        status = find_secret(d);
    }
    if (status == JANG_OK) {
        d->model = page_key_hash(d->secret, &model, sizeof model);
        status = scan(d);
    }
    if (status != JANG_OK) {
        disk_cache_close(d);
        return status;
    }
    *out = d;
    return JANG_OK;
}

void disk_cache_close(disk_cache *d) {
    if (d) {
        ctx_free(d->ctx, d->path);
        ctx_free(d->ctx, d->buffer);
        ctx_free(d->ctx, d->entries);
        ctx_free(d->ctx, d);
    }
}

page_key disk_cache_secret(const disk_cache *d) {
    return d->secret;
}

/* ---- Pages ---- */

bool disk_cache_has(const disk_cache *d, page_key key) {
    bool found;
    (void)find_place(d, d->model, key, &found);
    return found;
}

/* The buffer's checksum, whose own field counts as zero. */
static page_key checksum(const disk_cache *d) {
    page_header h;
    memcpy(&h, d->buffer, sizeof h);
    page_key seed = {0, 0};
    h.checksum = seed;
    seed = page_key_hash(d->secret, &h, sizeof h);
    return page_key_hash(seed, d->buffer + sizeof h, d->page_bytes);
}

static bool is_sound(const disk_cache *d, page_key key) {
    page_header h;
    memcpy(&h, d->buffer, sizeof h);
    return memcmp(h.magic, MAGIC, 8) == 0 && h.version == VERSION && h.n_bytes == d->page_bytes &&
           page_key_equal(h.model, d->model) && page_key_equal(h.key, key) &&
           page_key_equal(h.checksum, checksum(d));
}

/* Reads a whole file into the buffer; false unless it has just that size. */
static bool read_file(disk_cache *d, const char *path) {
    size_t n_bytes = sizeof(page_header) + d->page_bytes, done = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    bool ok = fd >= 0 && fstat(fd, &st) == 0 && st.st_size == (off_t)n_bytes;
    while (ok && done < n_bytes) {
        ssize_t n = read(fd, d->buffer + done, n_bytes - done);
        ok = n > 0 || (n < 0 && errno == EINTR);
        done += n > 0 ? (size_t)n : 0;
    }
    if (fd >= 0) {
        (void)futimens(fd, NULL); /* the time of last use, for later runs */
        (void)close(fd);
    }
    return ok;
}

bool disk_cache_read(disk_cache *d, page_key key, void *data) {
    bool found;
    size_t at = find_place(d, d->model, key, &found);
    char *path = found ? full_path(d, d->model, key) : NULL;
    if (!path) {
        return false;
    }
    bool ok = read_file(d, path) && is_sound(d, key);
    if (ok) {
        d->entries[at].used = ++d->clock;
        memcpy(data, d->buffer + sizeof(page_header), d->page_bytes);
    } else {
        d->n_errors += file_exists(path); /* another program may have removed it */
        ctx_log(d->ctx, "%s: damaged or gone, and ignored", path);
        remove_entry(d, at);
    }
    ctx_free(d->ctx, path);
    return ok;
}

void disk_cache_write(disk_cache *d, page_key key, const void *data) {
    size_t n_bytes = sizeof(page_header) + d->page_bytes;
    if (disk_cache_has(d, key) || clock_seconds() < d->quiet_until || n_bytes > d->max_bytes) {
        return;
    }
    char *path = full_path(d, d->model, key);
    if (!path) {
        return;
    }
    make_room(d, n_bytes);
    page_header h = {
        .version = VERSION, .n_bytes = (uint32_t)d->page_bytes, .model = d->model, .key = key};
    memcpy(h.magic, MAGIC, 8);
    memcpy(d->buffer, &h, sizeof h);
    memcpy(d->buffer + sizeof h, data, d->page_bytes);
    h.checksum = checksum(d);
    memcpy(d->buffer, &h, sizeof h);
    if (write_whole(d, path, d->buffer, n_bytes)) {
        (void)add_entry(d, &(disk_entry){d->model, key, n_bytes, ++d->clock});
    } else {
        d->n_errors++;
        d->quiet_until = clock_seconds() + PAUSE_SECONDS;
        ctx_log(d->ctx, "%s: cannot be written (%s); no more is for %d seconds", path,
                strerror(errno), PAUSE_SECONDS);
    }
    ctx_free(d->ctx, path);
}

void disk_cache_clear(disk_cache *d) {
    for (size_t i = d->n; i-- > 0;) {
        if (page_key_equal(d->entries[i].model, d->model)) {
            remove_entry(d, i);
        }
    }
}

uint64_t disk_cache_bytes(const disk_cache *d) {
    return d->n_bytes;
}

uint64_t disk_cache_pages(const disk_cache *d) {
    return d->n;
}

uint64_t disk_cache_errors(const disk_cache *d) {
    return d->n_errors;
}
