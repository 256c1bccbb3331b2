/* test_profile.c - profiles and roles: the tables against the documents, the mixed recipes against
 * mlx-lm (tests/golden/quant/mixed.json, made by scripts/fixtures/quant_mixed.py). */
#include "base/json.h"
#include "quant/profiles.h"
#include "support.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int mlp, attention, embedding, lm_head;
} documented[] = {
    {"1L", 2, 8, 8, 8}, {"2S", 2, 6, 4, 6}, {"2M", 2, 8, 4, 8}, {"2L", 2, 8, 6, 8},
    {"3S", 3, 4, 4, 6}, {"3M", 3, 6, 4, 6}, {"3L", 3, 8, 4, 8}, {"4S", 4, 5, 4, 6},
    {"4M", 4, 6, 4, 6}, {"4L", 4, 8, 4, 8}, {"6M", 6, 8, 6, 8},
};

static int bits_of(const profile *p, bool tied, const char *name) {
    profile_model model = {.n_layer = 4, .tied = tied};
    return profile_bits(p, &model, name, role_of(name));
}

static void test_profile_table_is_the_documented_one(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    for (size_t i = 0; i < sizeof documented / sizeof *documented; i++) {
        profile p;
        assert_ok(ctx, profile_find(&p, ctx, documented[i].name, 0));
        assert_int_equal(bits_of(&p, false, "model.layers.1.mlp.up_proj.weight"),
                         documented[i].mlp);
        assert_int_equal(bits_of(&p, false, "model.layers.1.mlp.experts.3.down_proj.weight"),
                         documented[i].mlp);
        assert_int_equal(bits_of(&p, false, "model.layers.1.self_attn.v_proj.weight"),
                         documented[i].attention);
        assert_int_equal(bits_of(&p, false, "model.layers.1.mlp.shared_expert.up_proj.weight"),
                         documented[i].attention);
        assert_int_equal(bits_of(&p, false, "model.embed_tokens.weight"), documented[i].embedding);
        assert_int_equal(bits_of(&p, false, "lm_head.weight"), documented[i].lm_head);
        int larger = documented[i].embedding > documented[i].lm_head ? documented[i].embedding
                                                                     : documented[i].lm_head;
        assert_int_equal(bits_of(&p, true, "model.embed_tokens.weight"), larger);
        assert_int_equal(bits_of(&p, false, "model.layers.1.input_layernorm.weight"), 0);
        assert_int_equal(bits_of(&p, false, "model.layers.1.self_attn.q_proj.bias"), 0);
        assert_int_equal(bits_of(&p, false, "model.layers.1.mlp.gate.weight"), 0);
    }
    jang_context_free(ctx);
}

static void test_profile_names_are_all_found(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    size_t n = 0;
    for (const char *const *name = jang_profile_names(); *name; name++, n++) {
        profile p;
        assert_ok(ctx, profile_find(&p, ctx, *name, 0));
        assert_string_equal(p.name, *name);
    }
    assert_int_equal(n, 11 + 5 + 4 + 3);
    jang_context_free(ctx);
}

static void test_profile_names_disregard_case_and_prefix(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    static const char *const spellings[] = {"JANG_4M", "jang_4m", "4M", "4m", "Jang_4M"};
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
        profile p;
        assert_ok(ctx, profile_find(&p, ctx, spellings[i], 0));
        assert_string_equal(p.name, "JANG_4M");
    }
    jang_context_free(ctx);
}

static void test_profile_unknown_is_named_with_the_list(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    profile p;
    static const char *const wrong[] = {"JANG_9Z", "", "JANG_", "S", "mixed_9_9", "_4M"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_fails(ctx, profile_find(&p, ctx, wrong[i], 0), JANG_ERR_ARGUMENT, wrong[i]);
        assert_fails(ctx, profile_find(&p, ctx, wrong[i], 0), JANG_ERR_ARGUMENT,
                     "JANG_1L, JANG_2S, JANG_2M");
        assert_fails(ctx, profile_find(&p, ctx, wrong[i], 0), JANG_ERR_ARGUMENT, "mixed_4_6");
    }
    static const int no_widths[] = {0, 1, 7, 9, -4, 16};
    for (size_t i = 0; i < sizeof no_widths / sizeof *no_widths; i++) {
        assert_fails(ctx, profile_find(&p, ctx, NULL, no_widths[i]), JANG_ERR_ARGUMENT,
                     "2, 3, 4, 5, 6, 8");
    }
    jang_context_free(ctx);
}

static void test_profile_uniform_is_uniform(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    static const int widths[] = {2, 3, 4, 5, 6, 8};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        profile p;
        assert_ok(ctx, profile_find(&p, ctx, NULL, widths[i]));
        assert_int_equal(bits_of(&p, false, "model.layers.1.mlp.up_proj.weight"), widths[i]);
        assert_int_equal(bits_of(&p, false, "model.layers.1.self_attn.o_proj.weight"), widths[i]);
        assert_int_equal(bits_of(&p, true, "model.embed_tokens.weight"), widths[i]);
        assert_int_equal(bits_of(&p, false, "lm_head.weight"), widths[i]);
    }
    jang_context_free(ctx);
}

static void check_mixed_module(const profile *p, const profile_model *model, const json_t *line,
                               const char *module) {
    char name[128];
    snprintf(name, sizeof name, "%s.weight", module);
    const json_t *high = json_object_get(json_object_get(line, "high"), module);
    json_int_t wanted = json_integer_value(high ? high : json_object_get(line, "low"));
    if (profile_bits(p, model, name, role_of(name)) != wanted) {
        fail_msg("%s, %d layers: %s should get %d bits", p->name, model->n_layer, module,
                 (int)wanted);
    }
}

static void test_profile_mixed_chooses_as_mlx_lm(void **state) {
    (void)state;
    static const char *const parts[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                        "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                        "mlp.down_proj"};
    ctx_t *ctx = test_context();
    json_t *golden = NULL;
    assert_ok(ctx, json_read(&golden, ctx, TEST_DATA "/quant/mixed.json"));
    size_t i, n_high = 0;
    json_t *line;
    json_array_foreach(golden, i, line) {
        profile p;
        assert_ok(ctx,
                  profile_find(&p, ctx, json_string_value(json_object_get(line, "recipe")), 0));
        profile_model model = {
            .n_layer = (int)json_integer_value(json_object_get(line, "n_layer")),
            .tied = json_is_true(json_object_get(line, "tied")),
        };
        json_int_t n_modules = 0;
        for (int layer = 0; layer < model.n_layer; layer++) {
            for (size_t k = 0; k < sizeof parts / sizeof *parts; k++, n_modules++) {
                char module[128];
                snprintf(module, sizeof module, "model.layers.%d.%s", layer, parts[k]);
                check_mixed_module(&p, &model, line, module);
            }
        }
        check_mixed_module(&p, &model, line, "model.embed_tokens");
        n_modules++;
        if (!model.tied) {
            check_mixed_module(&p, &model, line, "lm_head");
            n_modules++;
        }
        assert_int_equal(n_modules, json_integer_value(json_object_get(line, "modules")));
        n_high += json_object_size(json_object_get(line, "high"));
    }
    assert_true(n_high > 100);
    json_decref(golden);
    jang_context_free(ctx);
}

static const struct {
    const char *name;
    tensor_role role;
} named[] = {
    {"model.embed_tokens.weight", ROLE_EMBEDDING},
    {"lm_head.weight", ROLE_LM_HEAD},
    {"model.norm.weight", ROLE_NORM},
    {"model.layers.0.input_layernorm.weight", ROLE_NORM},
    {"model.layers.0.self_attn.q_norm.weight", ROLE_NORM},
    {"model.layers.11.self_attn.q_proj.weight", ROLE_Q},
    {"model.layers.11.self_attn.k_proj.weight", ROLE_K},
    {"model.layers.11.self_attn.v_proj.weight", ROLE_V},
    {"model.layers.11.self_attn.o_proj.weight", ROLE_O},
    {"model.layers.11.self_attn.v_proj.bias", ROLE_BIAS},
    {"model.layers.2.self_attn.qkv_proj.weight", ROLE_QKV},
    {"model.layers.2.self_attn.dense.weight", ROLE_O},
    {"model.layers.2.self_attn.kv_a_proj_with_mqa.weight", ROLE_MLA},
    {"model.layers.2.self_attn.sinks", ROLE_STATE},
    {"model.layers.2.mlp.gate_proj.weight", ROLE_GATE},
    {"model.layers.2.mlp.up_proj.weight", ROLE_UP},
    {"model.layers.2.mlp.down_proj.weight", ROLE_DOWN},
    {"model.layers.2.mlp.gate_up_proj.weight", ROLE_GATE_UP},
    {"model.layers.2.mlp.gate.weight", ROLE_ROUTER},
    {"model.layers.2.mlp.gate.e_score_correction_bias", ROLE_BIAS},
    {"model.layers.2.mlp.experts.7.gate_proj.weight", ROLE_EXPERT_GATE},
    {"model.layers.2.mlp.switch_mlp.up_proj.weight", ROLE_EXPERT_UP},
    {"model.layers.2.mlp.experts.gate_up_proj", ROLE_EXPERT_GATE_UP},
    {"model.layers.2.block_sparse_moe.experts.3.w2.weight", ROLE_EXPERT_DOWN},
    {"model.layers.2.block_sparse_moe.gate.weight", ROLE_ROUTER},
    {"model.layers.2.mlp.shared_experts.down_proj.weight", ROLE_SHARED_DOWN},
    {"model.layers.2.mlp.shared_expert.gate_proj.weight", ROLE_SHARED_GATE},
    {"model.layers.2.mlp.shared_expert_gate.weight", ROLE_ROUTER},
    {"model.layers.2.linear_attn.in_proj_qkvz.weight", ROLE_LINEAR_IN},
    {"model.layers.2.linear_attn.out_proj.weight", ROLE_LINEAR_OUT},
    {"model.layers.2.linear_attn.conv1d.weight", ROLE_CONV},
    {"model.layers.2.linear_attn.A_log", ROLE_STATE},
    {"model.layers.2.linear_attn.dt_bias", ROLE_BIAS},
    {"backbone.layers.2.mixer.in_proj.weight", ROLE_SSM_IN},
    {"backbone.layers.2.mixer.D", ROLE_STATE},
    {"backbone.layers.2.mixer.dt_proj.weight", ROLE_STATE},
    {"model.layers.2.conv.in_proj.weight", ROLE_SSM_IN},
    {"model.layers.2.conv.conv.weight", ROLE_CONV},
    {"something.unheard_of.weight", ROLE_OTHER},
    {"weight", ROLE_OTHER},
    {"", ROLE_OTHER},
};

static void test_profile_roles_follow_from_names(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof named / sizeof *named; i++) {
        tensor_role role = role_of(named[i].name);
        if (role != named[i].role) {
            fail_msg("%s: %s, not %s", named[i].name, role_get_info(role)->name,
                     role_get_info(named[i].role)->name);
        }
    }
    for (int r = 0; r < ROLE_COUNT; r++) {
        assert_non_null(role_get_info((tensor_role)r)->name);
    }
}

static void test_profile_layer_numbers_are_read(void **state) {
    (void)state;
    assert_int_equal(role_of("model.layers.2.per_layer_input_gate.weight"), ROLE_LAYER_INPUT);
    assert_int_equal(role_of("model.per_layer_model_projection.weight"), ROLE_LAYER_INPUT);
    assert_int_equal(role_of("model.per_layer_projection_norm.weight"), ROLE_NORM);
    assert_int_equal(role_of("model.layers.0.mixer.fc1_latent_proj.weight"), ROLE_SHARED_UP);
    assert_int_equal(role_of("transformer.wpe.weight"), ROLE_POSITIONS);
    assert_int_equal(role_layer("model.layers.17.mlp.up_proj.weight"), 17);
    assert_int_equal(role_layer("backbone.layers.0"), 0);
    assert_int_equal(role_layer("transformer.h.7.attn.c_attn.weight"), 7);
    assert_int_equal(role_layer("model.layers.3.h.7.weight"), 3);
    assert_int_equal(role_layer("model.layers."), -1);
    assert_int_equal(role_layer("model.norm.weight"), -1);
    assert_int_equal(role_layer("model.layers.x.weight"), -1);
    assert_int_equal(role_layer("model.layers.99999999999.weight"), -1);
}

/* Many experts: gate at least 4 bits, down 3; without a gate up takes its place. */
static void test_profile_floors_of_many_experts(void **state) {
    (void)state;
    static const struct {
        const char *profile, *name;
        int64_t n_expert;
        int bits;
    } cases[] = {
        {"JANG_2S", "model.layers.0.mlp.switch_mlp.gate_proj.weight", 255, 2},
        {"JANG_2S", "model.layers.0.mlp.switch_mlp.gate_proj.weight", 256, 4},
        {"JANG_2S", "model.layers.0.mlp.switch_mlp.up_proj.weight", 256, 2},
        {"JANG_2S", "model.layers.0.mlp.switch_mlp.down_proj.weight", 256, 3},
        {"JANG_6M", "model.layers.0.mlp.switch_mlp.gate_proj.weight", 512, 6},
        {"JANG_2S", "backbone.layers.0.mixer.switch_mlp.fc1.weight", 512, 4},
        {"JANG_2S", "backbone.layers.0.mixer.switch_mlp.fc2.weight", 512, 3},
        {"JANG_2S", "model.layers.0.mlp.shared_expert.gate_proj.weight", 256, 6},
        {"JANG_2S", "model.layers.0.mlp.gate_proj.weight", 256, 2},
        {"JANG_2S", "model.layers.0.mlp.gate.weight", 256, 0},
        {"JANG_2S", "model.layers.0.self_attn.embed_q.weight", 256, 6},
        {"mixed_2_6", "model.layers.1.mlp.switch_mlp.gate_proj.weight", 256, 2},
    };
    ctx_t *ctx = test_context();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        profile p;
        assert_ok(ctx, profile_find(&p, ctx, cases[i].profile, 0));
        profile_model model = {.n_layer = 4, .n_expert = cases[i].n_expert};
        assert_int_equal(profile_bits(&p, &model, cases[i].name, role_of(cases[i].name)),
                         cases[i].bits);
    }
    jang_context_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_profile_table_is_the_documented_one),
        cmocka_unit_test(test_profile_names_are_all_found),
        cmocka_unit_test(test_profile_names_disregard_case_and_prefix),
        cmocka_unit_test(test_profile_unknown_is_named_with_the_list),
        cmocka_unit_test(test_profile_uniform_is_uniform),
        cmocka_unit_test(test_profile_mixed_chooses_as_mlx_lm),
        cmocka_unit_test(test_profile_roles_follow_from_names),
        cmocka_unit_test(test_profile_layer_numbers_are_read),
        cmocka_unit_test(test_profile_floors_of_many_experts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
