/* saving.h - pages to and from the disk cache (disk_cache.h). */
#ifndef JANG_ENGINE_SAVING_H
#define JANG_ENGINE_SAVING_H

#include "engine/serving.h"

/* Opens the engine's disk cache, where it has one. Takes over the pool's on_forget. */
JANG_MUST_CHECK jang_status saving_open(jang_engine *e);
/* Writes what is left, and closes. */
void saving_close(jang_engine *e);

/* Reads a page into memory and makes it known; -1: a miss. Nobody uses it yet. */
int32_t saving_fetch(jang_engine *e, page_key key);

/* Writes up to n pages that are not on disk. Whether there are more. */
bool saving_write_some(jang_engine *e, int32_t n);

#endif
