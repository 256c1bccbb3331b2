/* test_snapshots.c - which copies of a recurrent state are kept. */
#include "support.h"

#include "engine/snapshots.h"

#include <stdbool.h>

/* However long a sequence, cutting d tokens off means computing at most 2 (d + 64) again, and no
 * two copies share a slot. */
static void test_snapshots_are_never_far(void **state) {
    (void)state;
    snapshots s;
    snapshots_init(&s, 1 << 20);
    assert_int_equal(s.max, SNAPSHOTS_MAX);
    for (size_t end = 64; end <= 100000; end += 64) {
        int32_t slot = snapshots_add(&s, end);
        bool used[SNAPSHOTS_MAX + 1] = {false};
        assert_int_equal(s.slots[s.n - 1], slot);
        for (int i = 0; i < s.n; i++) {
            assert_in_range(s.slots[i], 1, SNAPSHOTS_MAX);
            assert_false(used[s.slots[i]]);
            used[s.slots[i]] = true;
            size_t lost = s.positions[i] - 1 - (i ? s.positions[i - 1] : 0);
            size_t cut = end - s.positions[i] + 1;
            assert_true(lost <= 2 * (cut + 64));
        }
    }
}

static void test_snapshots_go_back(void **state) {
    (void)state;
    snapshots s;
    snapshots_init(&s, 1 << 20);
    int32_t slot = -1, first = snapshots_add(&s, 64), second = snapshots_add(&s, 128);
    assert_int_not_equal(first, second);
    assert_true(snapshots_reach(&s, 128) && !snapshots_reach(&s, 129));
    assert_int_equal(snapshots_back(&s, 128, &slot), 128);
    assert_int_equal(slot, second);
    assert_int_equal(snapshots_back(&s, 127, &slot), 64);
    assert_int_equal(slot, first);
    assert_int_equal(snapshots_back(&s, 500, &slot), 64); /* the second is forgotten */
    assert_int_equal(snapshots_back(&s, 63, &slot), 0);
    assert_int_equal(snapshots_add(&s, 64), 1);
}

/* A quarter of a gigabyte in all, one at least. */
static void test_snapshots_keep_to_their_memory(void **state) {
    (void)state;
    snapshots s;
    snapshots_init(&s, 60 << 20);
    assert_int_equal(s.max, 4);
    snapshots_init(&s, UINT64_C(1) << 40);
    assert_int_equal(s.max, 1);
    assert_int_equal(snapshots_add(&s, 64), 1);
    assert_int_equal(snapshots_add(&s, 128), 1);
    int32_t slot;
    assert_int_equal(snapshots_back(&s, 127, &slot), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_snapshots_are_never_far),
        cmocka_unit_test(test_snapshots_go_back),
        cmocka_unit_test(test_snapshots_keep_to_their_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
