/* test_inputs_known.c - every matrix of a plan is one whose products calibration sees, in models
 * whose checkpoints name, split or apply it otherwise than its product says. */
#include "base/file.h"
#include "engine_rig.h"
#include "fixture.h"
#include "model/family.h"
#include "model_files.h"
#include "ops/hostbuf.h"
#include "quant/plan.h"
#include "quant/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- All families ---- */

/* Marks the items that a model's weights are, or are parts of. */
static void mark_found(bool *found, const quant_plan *plan, const model *m) {
    for (size_t i = 0; i < m->weights.n; i++) {
        const ops_weight *w = m->weights.items[i].w;
        const weight_place *place = model_weight_place(m, w);
        const char *name = model_weight_name(m, w);
        size_t at = name ? plan_find_module(plan, name) : SIZE_MAX;
        if (at == SIZE_MAX && place) {
            at = plan_find_module(plan, place->module);
        }
        if (at == SIZE_MAX) {
            continue;
        }
        const model_part *part = plan->items[at].part;
        int64_t n = w->d.n_out * (w->d.n_expert ? w->d.n_expert : 1);
        bool whole = part->rows == n && part->columns == w->d.n_in;
        bool heads = place && part->rows == place->step * w->d.n_expert &&
                     part->columns == (place->turned ? w->d.n_out : w->d.n_in);
        found[at] |= whole || heads;
    }
}

static void check_model(ctx_t *ctx, const char *path) {
    model_source from = {0};
    assert_ok(ctx, model_source_open(&from, ctx, path, 0));
    profile four;
    assert_ok(ctx, profile_find(&four, ctx, NULL, 4));
    const profile_model about = {
        .n_layer = from.model.n_layer, .n_expert = from.model.n_expert, .tied = from.model.tied};
    quant_plan plan;
    assert_ok(ctx, plan_make(&plan, ctx, &four, &about, 32, from.kept, from.n_kept));
    ops *o;
    model *m;
    assert_ok(ctx, ops_open(&o, ctx, "ref", NULL));
    assert_ok(ctx, model_open(&m, ctx, from.checkpoint, o));
    bool *found = calloc(plan.n_items, sizeof *found);
    mark_found(found, &plan, m);
    for (size_t i = 0; i < plan.n_items; i++) {
        if (plan.items[i].bits && !found[i]) {
            fail_msg("%s: no product is known to be that of %s", path, plan.items[i].part->name);
        }
    }
    free(found);
    model_close(m);
    ops_close(o);
    plan_free(&plan);
    model_source_close(&from);
}

static void test_all_matrices_are_found(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    size_t n;
    char **names = fixture_names(ctx, &n), path[512];
    for (size_t i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s%s", MODELS, names[i]);
        check_model(ctx, path);
    }
    assert_true(n > 100);
    directory_list_free(ctx, names, n);
    jang_context_free(ctx);
}

/* ---- What it is worth ---- */

#define N_VOCAB 307
#define N_IDS 200

/* Mean KL(original || converted) over a text that neither has seen. */
static double text_divergence(ctx_t *ctx, const char *original, const char *converted) {
    static const char text[] =
        "A lake that freezes does so from above, since water is heaviest at four degrees. What "
        "lies "
        "below stays liquid, and fish live through the winter there. Ice that forms slowly is "
        "clear; "
        "where snow falls into it, it is white and holds less. People who cross it know the sound.";
    jang_tokenizer *tok;
    int32_t *ids;
    size_t n;
    assert_ok(ctx, jang_tokenizer_open(&tok, ctx, original));
    assert_ok(ctx, jang_tokenize(&ids, &n, tok, text, sizeof text - 1, 0));
    assert_true(n >= N_IDS);
    float *a = exact_logits(ctx, original, ids, N_IDS);
    float *b = exact_logits(ctx, converted, ids, N_IDS);
    double kl = mean_kl(a, b, N_IDS, N_VOCAB);
    jang_free(ctx, ids);
    jang_tokenizer_free(tok);
    free(a);
    free(b);
    return kl;
}

/* With the matrices of a pattern alone quantized. */
static double divergence_by(ctx_t *ctx, const char *dir, const char *source, const char *pattern,
                            int bits, const char *method) {
    char output[512], overrides[512], text[256];
    snprintf(output, sizeof output, "%s/output", dir);
    snprintf(overrides, sizeof overrides, "%s/overrides.json", dir);
    snprintf(text, sizeof text, "{\"*\": false, \"%s\": %d}", pattern, bits);
    assert_ok(ctx, file_write(ctx, overrides, text, strlen(text)));
    jang_convert_options o = jang_convert_options_default();
    o.source = source;
    o.output = output;
    o.bits = 4;
    o.group_size = 32;
    o.method = method;
    o.calibration_tokens = 2048;
    o.overrides = overrides;
    o.force = true;
    char *plan;
    assert_ok(ctx, jang_convert(&plan, ctx, &o));
    assert_null(strstr(plan, "inputs")); /* no note */
    jang_free(ctx, plan);
    return text_divergence(ctx, source, output);
}

static void test_gptq_beats_weights_alone(void **state) {
    (void)state;
    static const struct {
        const char *model, *pattern;
        int bits;
        double share; /* of what mse has, at most */
    } cases[] = {
        {"deepseek2-bf16", "*kv_b_proj", 2, 0.6},        /* one matrix, applied absorbed */
        {"deepseek3-bf16", "*unembed_out", 2, 0.6},      /* split of it */
        {"gptneox-f16", "model.h.*", 2, 0.6},            /* layers called h, found as layers */
        {"granitemoehybrid-dense-f16", "*mlp*", 2, 0.6}, /* halves of a matrix */
        {"gemma4text-bf16", "*per_layer_model_projection", 3, 0.9}, /* before the first layer */
    };
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir(), source[512];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(source, sizeof source, "%s%s", MODELS, cases[i].model);
        double mse = divergence_by(ctx, dir, source, cases[i].pattern, cases[i].bits, "mse");
        double gptq = divergence_by(ctx, dir, source, cases[i].pattern, cases[i].bits, "gptq");
        print_message("%s: mse %.5f, gptq %.5f\n", cases[i].model, mse, gptq);
        if (!(gptq < cases[i].share * mse)) {
            fail_msg("%s: KL %g by gptq, %g by mse", cases[i].model, gptq, mse);
        }
    }
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_matrices_are_found),
        cmocka_unit_test(test_gptq_beats_weights_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
