/* snapshots.h - which copies of a sequence's recurrent state there are.
 *
 * Keys and values of a sequence can be cut anywhere; a recurrent state holds all tokens and can
 * only go back to a copy. Copies are made at page borders, a few of them, and thinned out so that
 * they lie ever farther apart towards the beginning: going back d tokens then means computing at
 * most twice as many as are cut off and two pages, whatever the sequence's length. This object
 * keeps the accounts; the states lie in slots (ops.h, state_copy) that its owner copies. */
#ifndef JANG_ENGINE_SNAPSHOTS_H
#define JANG_ENGINE_SNAPSHOTS_H

#include <stddef.h>
#include <stdint.h>

#define SNAPSHOTS_MAX 12

typedef struct snapshots {
    int n, max;
    size_t positions[SNAPSHOTS_MAX]; /* [n] tokens that a copy holds, rising */
    int32_t slots[SNAPSHOTS_MAX];    /* [n] where it lies: 1 .. max */
} snapshots;

/* For states of slot_bytes: as many copies as SNAPSHOTS_MAX and a quarter of a gigabyte allow, and
 * at least one. */
void snapshots_init(snapshots *s, uint64_t slot_bytes);

/* Enters a copy of the state after `position` tokens, more than any before, and returns the slot it
 * goes to: a free one, or that of the copy that is missed least. */
int32_t snapshots_add(snapshots *s, size_t position);

/* Forgets copies of more than `position` tokens. Returns how many tokens the last of the others
 * holds, and its slot; 0 where there is none. */
size_t snapshots_back(snapshots *s, size_t position, int32_t *slot);

/* Whether there is a copy of so many tokens or of more. */
int snapshots_reach(const snapshots *s, size_t position);

#endif
