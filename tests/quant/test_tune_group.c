/* test_tune_group.c - steps of tuning a group of weights, against torch:
 * golden/quant/tune.safetensors holds groups and what torch.optim.Adam makes of them
 * (scripts/fixtures/quant_tune.py). */
#include "format/safetensors.h"
#include "quant/tune_group.h"
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define N 64
#define STEPS 5
#define PLACE_RATE 0.05 /* as in the script */
#define SCALE_RATE 0.005
#define CLOSE 2e-5 /* of a unit: f32 in another order */

typedef struct group_case {
    float place[N], value[N], grads[STEPS][N], factors[N];
    float group[3]; /* scale, centre, unit */
    float place_after[N], value_after[N], group_after[2];
} group_case;

static void read_numbers(const st_file *f, const char *prefix, const char *name, float *out,
                         size_t n) {
    char full[64];
    snprintf(full, sizeof full, "%s.%s", prefix, name);
    for (size_t i = 0; i < f->n_tensors; i++) {
        if (strcmp(f->tensors[i].name, full) == 0) {
            assert_int_equal(f->tensors[i].n_bytes, n * sizeof *out);
            memcpy(out, f->tensors[i].data, n * sizeof *out);
            return;
        }
    }
    fail_msg("no tensor %s", full);
}

static group_case read_case(const st_file *f, const char *prefix) {
    group_case c;
    read_numbers(f, prefix, "place", c.place, N);
    read_numbers(f, prefix, "value", c.value, N);
    read_numbers(f, prefix, "grads", c.grads[0], (size_t)STEPS * N);
    read_numbers(f, prefix, "factors", c.factors, N);
    read_numbers(f, prefix, "group", c.group, 3);
    read_numbers(f, prefix, "place_after", c.place_after, N);
    read_numbers(f, prefix, "value_after", c.value_after, N);
    read_numbers(f, prefix, "group_after", c.group_after, 2);
    return c;
}

/* Takes all steps of a case; its beginnings become its ends. */
static void take_steps(group_case *c, int bits, bool has_factors, tune_group_fn *fn) {
    float mean[N] = {0}, square[N] = {0}, grad[N], of_scale[2] = {0}, of_centre[2] = {0};
    const tune_group g = {.n = N,
                          .factors = has_factors ? c->factors : NULL,
                          .top = (float)((1 << bits) - 1),
                          .unit = c->group[2],
                          .place = c->place,
                          .value = c->value,
                          .grad = grad,
                          .of_place = {mean, square},
                          .scale = &c->group[0],
                          .centre = &c->group[1],
                          .of_scale = {of_scale, of_scale + 1},
                          .of_centre = {of_centre, of_centre + 1}};
    for (int s = 0; s < STEPS; s++) {
        double mean_part = 1 - pow((double)TUNE_MEAN_BETA, s + 1);
        const latent_rates rates = {.place = (float)(PLACE_RATE / mean_part),
                                    .scale = (float)(SCALE_RATE / mean_part),
                                    .square =
                                        (float)(1 / (1 - pow((double)TUNE_SQUARE_BETA, s + 1)))};
        memcpy(grad, c->grads[s], sizeof grad);
        fn(&g, &rates);
        for (int i = 0; i < N; i++) {
            assert_float_equal(grad[i], 0, 0);
        }
    }
}

static void check_case(const st_file *f, int bits, bool has_factors, cpu_isa isa) {
    char prefix[16];
    snprintf(prefix, sizeof prefix, "%d.%c", bits, has_factors ? 'f' : 'p');
    group_case c = read_case(f, prefix), scalar = c;
    float start = c.value[0], close = c.group[2] * (float)CLOSE;
    take_steps(&c, bits, has_factors, tune_group_function(isa));
    take_steps(&scalar, bits, has_factors, tune_group__scalar);
    assert_memory_equal(c.place, scalar.place, sizeof c.place);
    assert_memory_equal(c.value, scalar.value, sizeof c.value);
    assert_memory_equal(c.group, scalar.group, sizeof c.group);
    assert_float_equal(c.group[0], c.group_after[0], close);
    assert_float_equal(c.group[1], c.group_after[1], close);
    for (int i = 0; i < N; i++) {
        assert_float_equal(c.place[i], c.place_after[i], CLOSE);
        assert_float_equal(c.value[i], c.value_after[i], 300 * close);
        float code;
        float value =
            tune_value(c.place[i], c.group[0], c.group[1], (float)((1 << bits) - 1), &code);
        value = has_factors ? value / c.factors[i] : value;
        assert_float_equal(c.value[i], value, 0);
    }
    assert_true(start != c.value[0]); /* or nothing was looked at */
}

static void test_steps_are_those_of_torch_on_every_instruction_set(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    st_file f;
    assert_ok(ctx, st_open(&f, ctx, TEST_DATA "/quant/tune.safetensors"));
    for (int isa = 0; isa < CPU_N_ISA; isa++) {
        for (int bits = 2; bits <= 8 && cpu_has((cpu_isa)isa); bits *= 2) {
            check_case(&f, bits, false, (cpu_isa)isa);
            check_case(&f, bits, true, (cpu_isa)isa);
        }
    }
    st_close(&f);
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps_are_those_of_torch_on_every_instruction_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
