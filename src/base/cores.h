/* cores.h - lists of processor cores, and binding threads to them. */
#ifndef JANG_BASE_CORES_H
#define JANG_BASE_CORES_H

#include "base/ctx.h"

#define CORES_MAX 256     /* in a list */
#define CORE_LARGEST 1023 /* number of a core */

typedef struct core_list {
    int n;
    uint16_t cores[CORES_MAX];
} core_list;

/* Reads a list like "0-3,8" (as taskset's). JANG_ERR_ARGUMENT for anything else, for a core named
 * twice, and for one that this process may not use; JANG_ERR_UNSUPPORTED where threads cannot be
 * bound. */
JANG_MUST_CHECK jang_status cores_parse(core_list *out, ctx_t *ctx, const char *text);

/* Binds the calling thread to one core. False: the system refused. */
bool core_bind(int core);

/* How many cores this process may use. */
int cores_usable(void);

#endif
