/* test_budget.c - the knapsack against exhaustive search, plans with budgets, overrides. */
#include "model_files.h"
#include "quant/budget.h"
#include "quant/convert.h"
#include "quant/widths.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- The knapsack ---- */

static uint32_t next_random(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Items as matrices have them: error falls by about four with each bit. */
static void make_items(budget_item *items, size_t n, uint32_t *seed) {
    static const int widths[] = {2, 3, 4, 5, 6, 8};
    for (size_t i = 0; i < n; i++) {
        int64_t params = 1 + next_random(seed) % 50;
        double weight = exp((double)(next_random(seed) % 1000) / 200);
        items[i] = (budget_item){.n = 6};
        for (int k = 0; k < 6; k++) {
            double noise = 0.5 + (double)(next_random(seed) % 1000) / 1000;
            items[i].choices[k] = (budget_choice){.bits = widths[k],
                                                  .cost = widths[k] * params,
                                                  .error = weight * noise * pow(4, -widths[k])};
        }
    }
}

static double total_error(const budget_item *items, size_t n, int64_t *cost) {
    double error = 0;
    *cost = 0;
    for (size_t i = 0; i < n; i++) {
        error += items[i].choices[items[i].chosen].error;
        *cost += items[i].choices[items[i].chosen].cost;
    }
    return error;
}

static double least_error(const budget_item *items, size_t n, int64_t budget) {
    if (n == 0) {
        return budget < 0 ? INFINITY : 0;
    }
    double best = INFINITY;
    for (int k = 0; k < items->n; k++) {
        double e = items->choices[k].error +
                   least_error(items + 1, n - 1, budget - items->choices[k].cost);
        best = e < best ? e : best;
    }
    return best;
}

static void test_budget_is_kept_and_near_the_best(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    uint32_t seed = 1;
    double excess = 0;
    for (int round = 0; round < 40; round++) {
        budget_item items[6];
        make_items(items, 6, &seed);
        int64_t least = 0, cost;
        for (int i = 0; i < 6; i++) {
            least += items[i].choices[0].cost;
        }
        int64_t budget = least + (int64_t)(next_random(&seed) % (uint32_t)(2 * least));
        assert_ok(ctx, budget_solve(ctx, items, 6, budget, NULL));
        double got = total_error(items, 6, &cost);
        assert_true(cost <= budget);
        excess += got / least_error(items, 6, budget) - 1;
    }
    assert_true(excess / 40 < 0.02);
    jang_context_free(ctx);
}

/* With many items the gap to the Lagrangian's bound all but closes. */
static void test_budget_of_many_is_spent_whole(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    enum { N = 300 };
    budget_item *items = calloc(N, sizeof *items);
    uint32_t seed = 7;
    make_items(items, N, &seed);
    int64_t budget = 0, cost;
    for (int i = 0; i < N; i++) {
        budget += items[i].choices[2].cost;
    }
    assert_ok(ctx, budget_solve(ctx, items, N, budget, NULL));
    double got = total_error(items, N, &cost), bound = -INFINITY;
    assert_true(cost <= budget && cost > budget - 10);
    for (int step = 0; step < 4000; step++) { /* the bound, for many multipliers */
        double lambda = pow(10, -9 + step * 0.003), sum = -lambda * (double)budget;
        for (int i = 0; i < N; i++) {
            double best = INFINITY;
            for (int k = 0; k < 6; k++) {
                const budget_choice *c = &items[i].choices[k];
                double e = c->error + lambda * (double)c->cost;
                best = e < best ? e : best;
            }
            sum += best;
        }
        bound = sum > bound ? sum : bound;
    }
    assert_true(got >= bound * 0.999999 && got < bound * 1.002);
    free(items);
    jang_context_free(ctx);
}

static void test_budget_too_small_says_what_is_needed(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    budget_item items[2];
    uint32_t seed = 3;
    make_items(items, 2, &seed);
    int64_t least = items[0].choices[0].cost + items[1].choices[0].cost, said = 0;
    assert_fails(ctx, budget_solve(ctx, items, 2, least - 1, &said), JANG_ERR_ARGUMENT, "at least");
    assert_int_equal(said, least);
    assert_ok(ctx, budget_solve(ctx, items, 2, least, &said));
    jang_context_free(ctx);
}

/* ---- Plans ---- */

static json_t *plan_with(ctx_t *ctx, jang_convert_options *o) {
    char *text = NULL;
    json_t *json = NULL;
    o->plan_only = true;
    assert_ok(ctx, jang_convert(&text, ctx, o));
    assert_ok(ctx, json_parse(&json, ctx, "plan", text, strlen(text)));
    jang_free(ctx, text);
    return json;
}

static double number(const json_t *object, const char *key) {
    return json_number_value(json_object_get(object, key));
}

static void test_budget_plans_keep_their_budget(void **state) {
    (void)state;
    static const char *const models[] = {"llama-bf16", "qwen2-tied-bf16", "qwen3-bf16"};
    static const double budgets[] = {2, 2.6, 3.37, 4, 5, 7.5, 8};
    ctx_t *ctx = test_context();
    for (size_t m = 0; m < 3; m++) {
        char source[512];
        snprintf(source, sizeof source, MODELS "%s", models[m]);
        for (size_t b = 0; b < sizeof budgets / sizeof *budgets; b++) {
            jang_convert_options o = options_of(source, NULL, NULL);
            o.budget = budgets[b];
            json_t *plan = plan_with(ctx, &o);
            double got = number(plan, "nominal_bits");
            assert_true(got <= budgets[b] + 1e-9 && got > budgets[b] - 0.35);
            json_decref(plan);
        }
    }
    jang_context_free(ctx);
}

/* JANG_nK is no larger than n bits everywhere, and better used: even 2 bits are left some choice.
 */
static void test_budget_profiles_have_the_size_of_their_bits(void **state) {
    (void)state;
    static const struct {
        const char *name;
        double bits;
        int group; /* asked for; 0: chosen */
    } cases[] = {{"JANG_2K", 2, 0},     {"3K", 3, 0},       {"jang_3.37k", 3.37, 0},
                 {"JANG_4.5K", 4.5, 0}, {"JANG_2K", 2, 64}, {"JANG_4K", 4, 32}};
    ctx_t *ctx = test_context();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double bits = cases[i].bits, sizes[2];
        for (int k = 0; k < 2; k++) { /* in between, as much of the way */
            jang_convert_options o = options_of(MODELS "llama-bf16", NULL, NULL);
            o.group_size = cases[i].group;
            o.bits = (int)bits + k;
            json_t *plan = plan_with(ctx, &o);
            sizes[k] = number(plan, "weight_bytes");
            json_decref(plan);
        }
        double most = sizes[0] + (sizes[1] - sizes[0]) * (bits - (int)bits);
        jang_convert_options o = options_of(MODELS "llama-bf16", NULL, cases[i].name);
        o.group_size = cases[i].group;
        json_t *plan = plan_with(ctx, &o);
        const json_t *budget = json_object_get(plan, "budget");
        double got = number(plan, "weight_bytes"), nominal = number(plan, "nominal_bits");
        assert_true(got <= most && got > 0.95 * most);
        if (cases[i].group) {
            assert_true(nominal <= bits);
            assert_string_equal(json_string_value(json_object_get(budget, "unit")), "nominal bits");
        } else {
            assert_true(nominal > bits);
            assert_string_equal(json_string_value(json_object_get(budget, "unit")), "bytes");
            assert_true(number(budget, "asked") <= most && number(budget, "spent") == got);
        }
        json_decref(plan);
    }
    jang_context_free(ctx);
}

static void test_budget_names(void **state) {
    (void)state;
    static const char *const wrong[] = {"JANG_1.9K", "JANG_8.1K", "JANG_K",
                                        "JANG_3.4",  "JANG_4.K5", "JANG_00000000000000000004K"};
    ctx_t *ctx = test_context();
    char *text = NULL;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        jang_convert_options o = options_of(MODELS "llama-bf16", NULL, wrong[i]);
        o.plan_only = true;
        assert_fails(ctx, jang_convert(&text, ctx, &o), JANG_ERR_ARGUMENT, "profiles are");
    }
    jang_convert_options o = options_of(MODELS "llama-bf16", NULL, NULL);
    o.budget = 3.37;
    json_t *plan = plan_with(ctx, &o);
    assert_string_equal(json_string_value(json_object_get(plan, "profile")), "budget_3.37");
    json_decref(plan);
    jang_context_free(ctx);
}

static void test_budget_sizes_are_kept(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    jang_convert_options o = options_of(MODELS "llama-bf16", NULL, NULL);
    o.budget = 4;
    json_t *plan = plan_with(ctx, &o);
    uint64_t size = (uint64_t)number(plan, "weight_bytes");
    assert_true(number(plan, "nominal_bits") <= 4);
    json_decref(plan);
    o.budget = 0;
    for (int i = -2; i <= 2; i++) {
        o.size = (uint64_t)((double)size * (1 + 0.1 * i));
        plan = plan_with(ctx, &o);
        double got = number(plan, "weight_bytes");
        assert_true(got <= (double)o.size && got > 0.95 * (double)o.size);
        json_decref(plan);
    }
    char *text = NULL;
    o.size = size / 10;
    assert_fails(ctx, jang_convert(&text, ctx, &o), JANG_ERR_ARGUMENT, "too small");
    o.size = 0;
    o.budget = 1.5;
    assert_fails(ctx, jang_convert(&text, ctx, &o), JANG_ERR_ARGUMENT, "between 2 and 8");
    o.bits = 4;
    assert_fails(ctx, jang_convert(&text, ctx, &o), JANG_ERR_ARGUMENT, "give one of");
    jang_context_free(ctx);
}

/* ---- Overrides ---- */

static void write_text(const char *path, const char *text) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void test_overrides_hold_whatever_the_profile(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir(), path[512], output[512];
    snprintf(path, sizeof path, "%s/o.json", dir);
    snprintf(output, sizeof output, "%s/made", dir);
    write_text(path, "{\"*.down_proj\": {\"bits\": 5, \"group_size\": 32},"
                     " \"model.layers.0.*\": 8, \"lm_head\": false}");
    jang_convert_options o = options_of(MODELS "llama-bf16", output, "JANG_5K");
    o.overrides = path;
    assert_ok(ctx, jang_convert(NULL, ctx, &o));
    checkpoint *made = NULL;
    part_list parts;
    assert_ok(ctx, checkpoint_open(&made, ctx, output, 0));
    assert_ok(ctx, part_list_make(&parts, ctx, made));
    int n_first = 0, n_down = 0;
    for (size_t i = 0; i < parts.n_parts; i++) {
        const model_part *p = &parts.parts[i];
        if (strcmp(p->name, "lm_head.weight") == 0) {
            assert_int_equal(p->bits, 0);
        } else if (strstr(p->name, "layers.0.") && p->bits) {
            assert_int_equal(p->bits, 8);
            n_first++;
        } else if (strstr(p->name, "down_proj")) {
            assert_true(p->bits == 5 && p->group == 32);
            n_down++;
        }
    }
    assert_int_equal(n_first, 7);
    assert_true(n_down >= 1);
    part_list_free(&parts);
    checkpoint_close(made);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

static void test_overrides_that_are_wrong_are_named(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } wrong[] = {
        {"{\"no.such\": 4}", "\"no.such\" fits no matrix"},
        {"{\"*.q_proj\": 7}", "widths are 2, 3, 4, 5, 6, 8"},
        {"{\"*.q_proj\": \"four\"}", "must be a width"},
        {"{\"*.q_proj\": {\"bits\": 4, \"group_size\": 48}}", "group sizes are 32, 64, 128"},
        {"{\"*.q_proj\": {\"group_size\": 32}}", "widths are"},
        {"{\"model.norm\": 4}", "never quantized"},
        {"[4]", "must be an object"},
        {"{", "o.json"},
    };
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir(), path[512], *text = NULL;
    snprintf(path, sizeof path, "%s/o.json", dir);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        write_text(path, wrong[i].text);
        jang_convert_options o = options_of(MODELS "llama-bf16", NULL, "JANG_4M");
        o.overrides = path;
        o.plan_only = true;
        jang_status status = jang_convert(&text, ctx, &o);
        assert_true(status == JANG_ERR_ARGUMENT || status == JANG_ERR_FORMAT);
        assert_non_null(strstr(jang_context_error(ctx), wrong[i].message));
    }
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

/* ---- Budgets by calibration ---- */

/* Whatever the number of threads, the same plan; and not the one that weights alone give. */
static void test_budget_by_answers_is_the_same_on_any_threads(void **state) {
    (void)state;
    char *dir = test_temp_dir(), path[512], *plans[3] = {0};
    snprintf(path, sizeof path, "%s/text.txt", dir);
    FILE *f = fopen(path, "w");
    for (int i = 0; i < 900; i++) {
        fprintf(f, "%d words of the %dth line, ", i * 7919 % 1000, i);
    }
    fclose(f);
    for (int i = 0; i < 3; i++) {
        jang_context_options c = jang_context_options_default();
        c.n_threads = i == 0 ? 1 : 3;
        ctx_t *ctx = NULL;
        assert_int_equal(jang_context_new(&ctx, &c), JANG_OK);
        jang_convert_options o = options_of(MODELS "llama-bf16", NULL, "JANG_4K");
        o.plan_only = true;
        o.calibration = i < 2 ? path : NULL;
        char *text = NULL;
        assert_ok(ctx, jang_convert(&text, ctx, &o));
        plans[i] = strdup(text);
        jang_free(ctx, text);
        jang_context_free(ctx);
    }
    assert_string_equal(plans[0], plans[1]);
    assert_non_null(strstr(plans[0], "divergence"));
    assert_non_null(strstr(plans[2], "error of the weights"));
    for (int i = 0; i < 3; i++) {
        free(plans[i]);
    }
    test_remove_tree(dir);
    free(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_budget_is_kept_and_near_the_best),
        cmocka_unit_test(test_budget_of_many_is_spent_whole),
        cmocka_unit_test(test_budget_too_small_says_what_is_needed),
        cmocka_unit_test(test_budget_plans_keep_their_budget),
        cmocka_unit_test(test_budget_profiles_have_the_size_of_their_bits),
        cmocka_unit_test(test_budget_names),
        cmocka_unit_test(test_budget_sizes_are_kept),
        cmocka_unit_test(test_overrides_hold_whatever_the_profile),
        cmocka_unit_test(test_overrides_that_are_wrong_are_named),
        cmocka_unit_test(test_budget_by_answers_is_the_same_on_any_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
