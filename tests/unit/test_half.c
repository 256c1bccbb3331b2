/* test_half.c - 16- and 8-bit floating types, every value of them. */
#include "support.h"

#include "base/half.h"

#include <math.h>
#include <string.h>

/* By the definition of the format: sign, exponent and mantissa taken apart. */
static float by_definition(unsigned bits, int n_exponent, int n_mantissa, bool has_infinity) {
    unsigned mantissa = bits & ((1u << n_mantissa) - 1);
    unsigned exponent = bits >> n_mantissa & ((1u << n_exponent) - 1);
    float sign = bits >> (n_exponent + n_mantissa) & 1 ? -1.0f : 1.0f;
    int bias = (1 << (n_exponent - 1)) - 1;
    bool top = exponent == (1u << n_exponent) - 1;
    if (has_infinity && top) {
        return mantissa ? NAN : sign * INFINITY;
    }
    if (!has_infinity && top && mantissa == (1u << n_mantissa) - 1) {
        return NAN;
    }
    if (exponent == 0) {
        return sign * ldexpf((float)mantissa, 1 - bias - n_mantissa);
    }
    return sign * ldexpf((float)(mantissa | 1u << n_mantissa), (int)exponent - bias - n_mantissa);
}

static void assert_same(float got, float wanted) {
    if (isnan(wanted)) {
        assert_true(isnan(got));
    } else {
        assert_int_equal(f32_bits(got), f32_bits(wanted));
    }
}

static void test_half_reads_every_value(void **state) {
    (void)state;
    for (unsigned i = 0; i < 65536; i++) {
        assert_same(f16_to_f32((uint16_t)i), by_definition(i, 5, 10, true));
        assert_same(bf16_to_f32((uint16_t)i), by_definition(i, 8, 7, true));
    }
    for (unsigned i = 0; i < 256; i++) {
        assert_same(f8_e4m3_to_f32((uint8_t)i), by_definition(i, 4, 3, false));
        assert_same(f8_e5m2_to_f32((uint8_t)i), by_definition(i, 5, 2, true));
    }
}

static void test_half_writes_back_what_it_reads(void **state) {
    (void)state;
    for (unsigned i = 0; i < 65536; i++) {
        float f = f16_to_f32((uint16_t)i), b = bf16_to_f32((uint16_t)i);
        if (!isnan(f)) {
            assert_int_equal(f32_to_f16(f), i);
        } else {
            assert_true(isnan(f16_to_f32(f32_to_f16(f))));
        }
        if (!isnan(b)) {
            assert_int_equal(f32_to_bf16(b), i);
        } else {
            assert_true(isnan(bf16_to_f32(f32_to_bf16(b))));
        }
    }
}

/* Between two neighbours: the nearer one, and halfway the even one. */
static void test_half_rounds_to_nearest_even(void **state) {
    (void)state;
    for (unsigned i = 0; i < 0x7bff; i++) { /* finite f16 with a finite successor */
        double low = f16_to_f32((uint16_t)i), high = f16_to_f32((uint16_t)(i + 1));
        float middle = (float)((low + high) / 2); /* exact */
        assert_int_equal(f32_to_f16(middle), i % 2 ? i + 1 : i);
        assert_int_equal(f32_to_f16(nextafterf(middle, 0.0f)), i);
        assert_int_equal(f32_to_f16(nextafterf(middle, INFINITY)), i + 1);
        assert_int_equal(f32_to_f16(-middle), 0x8000 | (i % 2 ? i + 1 : i));
    }
    for (unsigned i = 0; i < 0x7f7f; i++) {
        float middle = f32_from_bits(i << 16 | 0x8000);
        assert_int_equal(f32_to_bf16(middle), i % 2 ? i + 1 : i);
        assert_int_equal(f32_to_bf16(nextafterf(middle, 0.0f)), i);
        assert_int_equal(f32_to_bf16(nextafterf(middle, INFINITY)), i + 1);
    }
    assert_int_equal(f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(f32_to_f16(-1e30f), 0xfc00);
    assert_int_equal(f32_to_bf16(3.4e38f), 0x7f80);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_half_reads_every_value),
        cmocka_unit_test(test_half_writes_back_what_it_reads),
        cmocka_unit_test(test_half_rounds_to_nearest_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
