/* cores.c - lists of processor cores, and binding threads to them. */
#include "base/cores.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

int cores_usable(void) {
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        return CPU_COUNT(&set);
    }
#endif
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

#if defined(__linux__)

bool core_bind(int core) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)core, &set);
    return pthread_setaffinity_np(pthread_self(), sizeof set, &set) == 0;
}

/* A number at *p, which moves behind it; -1: there is none, or it is too large. */
static int read_core(const char **p) {
    int value = -1;
    for (; **p >= '0' && **p <= '9' && value <= CORE_LARGEST; ++*p) {
        value = (value < 0 ? 0 : value * 10) + (**p - '0');
    }
    return value <= CORE_LARGEST ? value : -1;
}

static jang_status add_core(core_list *list, ctx_t *ctx, int core, const cpu_set_t *usable) {
    if (!CPU_ISSET((size_t)core, usable)) {
        return ctx_fail(ctx, JANG_ERR_ARGUMENT, "affinity: core %d is none that may be used", core);
    }
    for (int i = 0; i < list->n; i++) {
        if (list->cores[i] == core) {
            return ctx_fail(ctx, JANG_ERR_ARGUMENT, "affinity: core %d is named twice", core);
        }
    }
    if (list->n == CORES_MAX) {
        return ctx_fail(ctx, JANG_ERR_ARGUMENT, "affinity: more than %d cores", CORES_MAX);
    }
    list->cores[list->n++] = (uint16_t)core;
    return JANG_OK;
}

jang_status cores_parse(core_list *out, ctx_t *ctx, const char *text) {
    core_list list = {0};
    cpu_set_t usable;
    if (sched_getaffinity(0, sizeof usable, &usable) != 0) {
        return ctx_fail(ctx, JANG_ERR_UNSUPPORTED, "affinity: the system does not tell its cores");
    }
    const char *p = text;
    do {
        int first = read_core(&p), last = first;
        if (*p == '-') {
            p++;
            last = read_core(&p);
        }
        if (first < 0 || last < first || (*p && *p != ',')) {
            return ctx_fail(ctx, JANG_ERR_ARGUMENT,
                            "affinity \"%s\": a list of cores looks like 0-3,8", text);
        }
        for (int core = first; core <= last; core++) {
            jang_status status = add_core(&list, ctx, core, &usable);
            if (status != JANG_OK) {
                return status;
            }
        }
    } while (*p++ == ',');
    *out = list;
    return JANG_OK;
}

#else

bool core_bind(int core) {
    (void)core;
    return false;
}

jang_status cores_parse(core_list *out, ctx_t *ctx, const char *text) {
    (void)out;
    return ctx_fail(ctx, JANG_ERR_UNSUPPORTED, "affinity \"%s\": this system binds no threads",
                    text);
}

#endif
