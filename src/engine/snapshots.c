/* snapshots.c - which copies of a sequence's recurrent state are kept. */
#include "engine/snapshots.h"

#define ALL_BYTES ((uint64_t)256 << 20)

void snapshots_init(snapshots *s, uint64_t slot_bytes) {
    uint64_t n = slot_bytes ? ALL_BYTES / slot_bytes : SNAPSHOTS_MAX;
    *s = (snapshots){.max = n < 1 ? 1 : n > SNAPSHOTS_MAX ? SNAPSHOTS_MAX : (int)n};
}

/* The gap that taking copy i away would leave, as a share of its distance from position: small for
 * copies that are close together and far back. With 12 copies of a sequence of 100,000 tokens this
 * keeps gaps below twice the distance (found by trying; test_snapshots.c holds it to that). */
static double cost_of(const snapshots *s, int i, size_t position) {
    size_t before = i > 0 ? s->positions[i - 1] : 0;
    size_t after = i + 1 < s->n ? s->positions[i + 1] : position;
    return (double)(after - before) / (double)(position + 64 - s->positions[i]);
}

static int least_missed(const snapshots *s, size_t position) {
    int least = 0;
    for (int i = 1; i < s->n; i++) {
        if (cost_of(s, i, position) < cost_of(s, least, position)) {
            least = i;
        }
    }
    return least;
}

static int32_t free_slot(const snapshots *s) {
    for (int32_t slot = 1;; slot++) {
        int i = 0;
        while (i < s->n && s->slots[i] != slot) {
            i++;
        }
        if (i == s->n) {
            return slot;
        }
    }
}

int32_t snapshots_add(snapshots *s, size_t position) {
    int32_t slot;
    if (s->n == s->max) {
        int i = least_missed(s, position);
        slot = s->slots[i];
        for (s->n--; i < s->n; i++) {
            s->positions[i] = s->positions[i + 1];
            s->slots[i] = s->slots[i + 1];
        }
    } else {
        slot = free_slot(s);
    }
    s->positions[s->n] = position;
    s->slots[s->n++] = slot;
    return slot;
}

size_t snapshots_back(snapshots *s, size_t position, int32_t *slot) {
    while (s->n > 0 && s->positions[s->n - 1] > position) {
        s->n--;
    }
    if (s->n == 0) {
        return 0;
    }
    *slot = s->slots[s->n - 1];
    return s->positions[s->n - 1];
}

int snapshots_reach(const snapshots *s, size_t position) {
    return s->n > 0 && s->positions[s->n - 1] >= position;
}
