/* registry.c - finding a family by its model_type. */
#include "model/registry.h"

#include <string.h>

#define FAMILY_ROW(name) &family_##name,
static const model_family *const families[] = {MODEL_FAMILIES(FAMILY_ROW)};
#define N_FAMILIES (sizeof families / sizeof families[0])

/* Levenshtein distance of two short names, for "did you mean". */
static int edit_distance(const char *a, const char *b) {
    int row[64];
    int n = (int)strlen(b);
    if (n >= 64 || strlen(a) >= 64) {
        return 64;
    }
    for (int j = 0; j <= n; j++) {
        row[j] = j;
    }
    for (int i = 1; a[i - 1]; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            best = row[j] + 1 < best ? row[j] + 1 : best;
            row[j] = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
        }
    }
    return row[n];
}

static const char *nearest_family(const char *model_type) {
    const char *nearest = families[0]->model_type;
    int least = 1 << 16;
    for (size_t i = 0; i < N_FAMILIES; i++) {
        int d = edit_distance(model_type, families[i]->model_type);
        if (d < least) {
            least = d;
            nearest = families[i]->model_type;
        }
    }
    return nearest;
}

static void list_families(char *out, size_t n_bytes) {
    size_t at = 0;
    for (size_t i = 0; i < N_FAMILIES && at + 2 < n_bytes; i++) {
        const char *name = families[i]->model_type;
        size_t n = strlen(name);
        if (at + n + 3 > n_bytes) {
            break;
        }
        if (at) {
            memcpy(out + at, ", ", 2);
            at += 2;
        }
        memcpy(out + at, name, n);
        at += n;
    }
    out[at] = 0;
}

const model_family *registry_look_up(const char *model_type) {
    for (size_t i = 0; i < N_FAMILIES; i++) {
        if (strcmp(families[i]->model_type, model_type) == 0) {
            return families[i];
        }
    }
    return NULL;
}

jang_status registry_find(const model_family **out, ctx_t *ctx, const char *what,
                          const char *model_type) {
    const model_family *family = registry_look_up(model_type);
    if (family) {
        *out = family;
        return JANG_OK;
    }
    char known[1024];
    list_families(known, sizeof known);
    return ctx_fail(ctx, JANG_ERR_UNSUPPORTED,
                    "%s: model_type %s is not supported (nearest: %s); supported are %s", what,
                    model_type, nearest_family(model_type), known);
}
