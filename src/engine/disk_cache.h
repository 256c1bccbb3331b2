/* disk_cache.h - pages of keys and values in files, for the next run of a program.
 *
 * A directory holds one file a page, "MODEL-KEY.page", and "secret", of which its keys are made.
 * MODEL stands for the weights, the build, the backend and the form of the pages: what another
 * model or build wrote is not found. A file is written under another name and then renamed, and
 * holds a checksum: one that is damaged, or cut off, is a miss and is removed. Nothing is synced:
 * what a crash of the machine loses is a miss, too. When there is no room, the files that were not
 * used for longest go first, whoever wrote them; when the disk is full, writing pauses.
 *
 * Several programs may use one directory. Used by the engine's thread alone. */
#ifndef JANG_ENGINE_DISK_CACHE_H
#define JANG_ENGINE_DISK_CACHE_H

#include "base/ctx.h"
#include "engine/page_key.h"

typedef struct disk_cache disk_cache;

/* Opens or makes the directory. model: a hash of what a page depends on. JANG_ERR_IO names it. */
JANG_MUST_CHECK jang_status disk_cache_open(disk_cache **out, ctx_t *ctx, const char *path,
                                            uint64_t max_bytes, size_t page_bytes, page_key model);
void disk_cache_close(disk_cache *d);

/* Of which the keys of its pages are made. */
page_key disk_cache_secret(const disk_cache *d);

/* Whether a page was there when last looked. */
bool disk_cache_has(const disk_cache *d, page_key key);
/* Reads a page of page_bytes; false: a miss. */
bool disk_cache_read(disk_cache *d, page_key key, void *data);
/* Writes a page. What goes wrong is counted and logged, no more. */
void disk_cache_write(disk_cache *d, page_key key, const void *data);
/* Removes this model's pages. */
void disk_cache_clear(disk_cache *d);

/* Of all files; and what went wrong since it was opened. */
uint64_t disk_cache_bytes(const disk_cache *d);
uint64_t disk_cache_pages(const disk_cache *d);
uint64_t disk_cache_errors(const disk_cache *d);

#endif
