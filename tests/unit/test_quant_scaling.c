/* test_quant_scaling.c - inputs scaled and what makes them scaled back: the model stays what it
 * was, to the bit, and conversions that choose such factors. */
#include "base/file.h"
#include "model_files.h"
#include "quant/auto_method.h"
#include "quant/calibrate.h"
#include "quant/layouts.h"
#include "quant/pipeline.h"
#include "quant/scaling.h"
#include "resumed.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Exactness ---- */

/* A model's parts as a conversion lists them. */
typedef struct listed {
    checkpoint *source;
    const json_t *config;
    part_list parts;
    name_model names;
    scalings scalings;
} listed;

static void list_parts(listed *m, ctx_t *ctx, const char *directory) {
    bool shifted;
    assert_ok(ctx, checkpoint_open(&m->source, ctx, directory, 0));
    assert_ok(ctx, checkpoint_json(&m->config, m->source, "config.json"));
    assert_ok(ctx, part_list_make(&m->parts, ctx, m->source));
    assert_ok(ctx, names_model(&m->names, ctx, m->config, "config.json"));
    assert_ok(ctx, names_map(&m->parts, &m->names));
    assert_ok(ctx, names_survey(&m->parts, &m->names, m->source));
    layouts_apply(&m->parts, &m->names, &shifted);
    json_at at = {ctx, "config.json", m->config};
    assert_ok(ctx, scalings_make(&m->scalings, &m->parts, m->names.model_type, at));
}

static void forget_parts(listed *m) {
    scalings_free(&m->scalings);
    part_list_free(&m->parts);
    checkpoint_close(m->source);
}

static void set_random_factors(const scalings *s) {
    test_rng rng = {17};
    for (size_t i = 0; i < s->n_groups; i++) {
        scaling_group *g = &s->groups[i];
        size_t n = (size_t)(g->n_sets * g->n_channels);
        float *factors = calloc(n, sizeof *factors), *again = calloc(n, sizeof *again);
        for (size_t k = 0; k < n; k++) {
            factors[k] = exp2f((float)rng_below(&rng, 9) - 4);
        }
        scaling_set(g, factors);
        scaling_get(again, g);
        assert_memory_equal(factors, again, n * sizeof *factors);
        free(factors);
        free(again);
    }
}

/* Writes the weights of a model, f32, into a directory with its other files. */
static void write_scaled(listed *m, ctx_t *ctx, const char *directory) {
    const model_part **kept = calloc(m->parts.n_parts, sizeof *kept);
    size_t n = 0;
    for (size_t i = 0; i < m->parts.n_parts; i++) {
        bool keep;
        assert_ok(ctx, names_keep(&keep, ctx, &m->names, &m->parts.parts[i]));
        if (keep) {
            kept[n++] = &m->parts.parts[i];
        }
    }
    profile f32;
    quant_plan plan;
    const profile_model model = {
        .n_layer = m->names.n_layer, .n_expert = m->names.n_expert, .tied = m->names.tied};
    assert_ok(ctx, profile_find(&f32, ctx, "f32", 0));
    assert_ok(ctx, plan_make(&plan, ctx, &f32, &model, 0, kept, n));
    const pipeline_options p = {.source = m->source,
                                .plan = &plan,
                                .directory = directory,
                                .shard_bytes = PIPELINE_SHARD_BYTES};
    assert_ok(ctx, pipeline_run(ctx, &p));
    plan_free(&plan);
    free(kept);
}

static void same_logits(ctx_t *ctx, const char *a, const char *b) {
    static const int32_t ids[] = {3, 17, 40, 5, 9, 61, 2, 33, 8, 21};
    const char *paths[] = {a, b};
    float *logits[2];
    size_t n_vocab = 0;
    for (int i = 0; i < 2; i++) {
        jang_model *model;
        jang_session *session;
        assert_ok(ctx, jang_model_open(&model, ctx, paths[i], NULL));
        assert_ok(ctx, jang_session_new(&session, model, NULL));
        assert_ok(ctx, jang_session_append(session, ids, sizeof ids / sizeof *ids, NULL));
        n_vocab = (size_t)jang_model_get_info(model)->n_vocab;
        logits[i] = calloc(n_vocab, sizeof(float));
        memcpy(logits[i], jang_session_logits(session), n_vocab * sizeof(float));
        jang_session_free(session);
        jang_model_free(model);
    }
    assert_memory_equal(logits[0], logits[1], n_vocab * sizeof(float));
    free(logits[0]);
    free(logits[1]);
}

static void test_scaled_models_are_the_same(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int per_layer; /* groups that are found */
    } models[] = {{"llama-f32", 4},
                  {"qwen2-newstyle-f16", 4}, /* biases of values */
                  {"qwen3-bf16", 4},
                  {"qwen3moe-bf16", 4}, /* experts and a router */
                  {"smollm-tied-bf16", 4}};
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir();
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char source[512], plain[512], scaled[512];
        snprintf(source, sizeof source, "%s%s", MODELS, models[i].name);
        snprintf(plain, sizeof plain, "%s/plain%zu", dir, i);
        snprintf(scaled, sizeof scaled, "%s/scaled%zu", dir, i);
        jang_convert_options o = options_of(source, plain, "f32");
        assert_ok(ctx, jang_convert(NULL, ctx, &o));
        copy_directory(ctx, plain, scaled);
        assert_int_equal(remove(test_path(scaled, "model.safetensors")), 0);
        listed m = {0};
        list_parts(&m, ctx, plain);
        assert_int_equal(m.scalings.n_groups, models[i].per_layer * m.names.n_layer);
        set_random_factors(&m.scalings);
        write_scaled(&m, ctx, scaled);
        forget_parts(&m);
        same_logits(ctx, plain, scaled);
    }
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

static void test_unknown_layers_are_left_alone(void **state) {
    (void)state;
    static const char *const models[] = {"gemma2-bf16", "olmo2-bf16", "qwen3_next-bf16"};
    ctx_t *ctx = test_context();
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char source[512];
        snprintf(source, sizeof source, "%s%s", MODELS, models[i]);
        listed m = {0};
        list_parts(&m, ctx, source);
        assert_int_equal(m.scalings.n_groups, 0);
        forget_parts(&m);
    }
    jang_context_free(ctx);
}

/* ---- Conversions ---- */

static void test_awq_goes_on_where_it_stopped(void **state) {
    (void)state;
    static const char *const models[] = {"llama-f32", "qwen3moe-bf16", "gemma2-bf16"};
    static const char *const methods[] = {"awq", "awq+gptq", "best"};
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir();
    for (size_t i = 0; i < 9; i++) {
        char source[512];
        snprintf(source, sizeof source, "%s%s", MODELS, models[i / 3]);
        jang_convert_options o = options_of(source, NULL, NULL);
        o.bits = 3;
        o.group_size = 32;
        o.method = methods[i % 3];
        o.calibration_tokens = i % 3 < 2 ? 1024 : 4096; /* some are held out */
        o.tune_steps = 0;
        test_resumes(ctx, &o, dir, 3);
    }
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

/* ---- auto ---- */

static void test_auto_goes_by_time_and_memory(void **state) {
    (void)state;
    static const struct {
        double seconds;
        uint64_t bytes;
        const char *chosen;
    } cases[] = {{0, 1 << 30, "best"}, {1e-9, 1 << 30, "mse"}, {0, 1000, "mse"}};
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char output[512];
        snprintf(output, sizeof output, "%s/auto%zu", dir, i);
        jang_convert_options o = options_of(MODELS "llama-f32", output, "JANG_4M");
        o.method = "auto";
        o.time_limit = cases[i].seconds;
        o.memory_limit = cases[i].bytes;
        o.calibration_tokens = 1024;
        assert_ok(ctx, jang_convert(NULL, ctx, &o));
        char *text;
        size_t n;
        assert_ok(ctx, file_read(&text, &n, ctx, test_path(output, "jang_config.json"), 1 << 20));
        char wanted[64];
        snprintf(wanted, sizeof wanted, "\"%s\"", cases[i].chosen);
        assert_non_null(strstr(text, wanted));
        ctx_free(ctx, text);
        o.force = true;
        o.method = "gptq";
        if (o.time_limit > 0) {
            assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_ARGUMENT, "auto");
        }
    }
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

/* What a method is thought to cost for one matrix of a layer and a small embedding. */
static method_cost cost_within(ctx_t *ctx, const char *method, int64_t rows, int64_t columns,
                               int64_t n_tokens, int32_t tune_steps, uint64_t memory_limit) {
    const model_part part = {.name = "model.layers.0.mlp.down_proj.weight",
                             .n_dim = 2,
                             .shape = {rows, columns},
                             .rows = rows,
                             .columns = columns,
                             .params = rows * columns,
                             .role = ROLE_DOWN};
    const model_part embedding = {.name = "model.embed_tokens.weight",
                                  .n_dim = 2,
                                  .shape = {64, columns},
                                  .rows = 64,
                                  .columns = columns,
                                  .params = 64 * columns,
                                  .role = ROLE_EMBEDDING};
    plan_item items[] = {{.part = &embedding, .bits = 4, .group = 64, .type = DT_F16},
                         {.part = &part, .bits = 4, .group = 64, .type = DT_F16}};
    const quant_plan plan = {.ctx = ctx, .items = items, .n_items = 2};
    const auto_job job = {.ctx = ctx,
                          .plan = &plan,
                          .n_tokens = n_tokens,
                          .can_calibrate = true,
                          .tune_steps = tune_steps,
                          .memory_limit = memory_limit};
    const quantizer *q;
    assert_ok(ctx, quantizer_find(&q, ctx, method));
    return auto_cost(&job, q);
}

static method_cost cost_of(ctx_t *ctx, const char *method, int64_t rows, int64_t columns,
                           int64_t n_tokens) {
    return cost_within(ctx, method, rows, columns, n_tokens, -1, 0);
}

static void test_estimates_know_wide_rows_and_tuning(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    method_cost narrow = cost_of(ctx, "gptq", 16384, 1024, 512);
    method_cost wide = cost_of(ctx, "gptq", 1024, 16384, 512);
    assert_true(wide.seconds > 5 * narrow.seconds); /* as many weights */
    assert_true(wide.bytes > 3 * (uint64_t)16384 * 16384 * 4);
    method_cost plain = cost_of(ctx, "gptq", 1024, 1024, 4096);
    method_cost thorough = cost_of(ctx, "best", 1024, 1024, 4095); /* too short a text for tuning */
    method_cost tuned = cost_of(ctx, "best", 1024, 1024, 4096);
    assert_true(thorough.seconds > 5 * plain.seconds);
    assert_true(tuned.seconds > plain.seconds);
    jang_context_free(ctx);
}

static void test_estimates_count_the_memory_of_tuning(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    const int64_t m = 65536, n = 1024, n_tokens = 8192;
    uint64_t latents = 5 * (uint64_t)(m * n) * sizeof(float);
    method_cost gptq = cost_within(ctx, "gptq", m, n, n_tokens, -1, 0);
    method_cost tuned = cost_within(ctx, "gptq", m, n, n_tokens, 64, 0);
    assert_true(gptq.bytes < latents);
    assert_true(tuned.bytes > latents);
    assert_true(tuned.seconds > gptq.seconds);
    method_cost best = cost_within(ctx, "best", m, n, n_tokens, -1, 100 * latents);
    method_cost untuned = cost_within(ctx, "best", m, n, n_tokens, 0, 100 * latents);
    method_cost narrow = cost_within(ctx, "best", m, n, n_tokens, -1, latents);
    assert_true(best.bytes > latents);
    assert_true(best.bytes <= 100 * latents);
    assert_true(narrow.bytes == untuned.bytes); /* measures its choices instead */
    assert_true(narrow.seconds == untuned.seconds);
    jang_context_free(ctx);
}

static void test_best_aims_by_all_tokens(void **state) {
    (void)state;
    assert_int_equal(calibrate_paired(1000, false), 1000);
    assert_int_equal(calibrate_paired(131072, false), 32768);
    assert_int_equal(calibrate_paired(131072, true), 131072);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scaled_models_are_the_same),
        cmocka_unit_test(test_unknown_layers_are_left_alone),
        cmocka_unit_test(test_estimates_count_the_memory_of_tuning),
        cmocka_unit_test(test_best_aims_by_all_tokens),
        cmocka_unit_test(test_estimates_know_wide_rows_and_tuning),
        cmocka_unit_test(test_auto_goes_by_time_and_memory),
        cmocka_unit_test(test_awq_goes_on_where_it_stopped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
