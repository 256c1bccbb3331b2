/* test_part_maps.c - experts stacked, fused matrices split and turned, FP8 and MXFP4 read: on a
 * checkpoint of a few numbers, whose element i is i. */
#include "base/file.h"
#include "quant/part_maps.h"
#include "support.h"
#include "torture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- A checkpoint by hand ---------------------------------------------------------------------
 */

typedef struct tensor_spec {
    const char *name, *type;
    int n_dim;
    int64_t shape[4];
    const uint8_t *bytes; /* NULL: f32 elements 0, 1, 2, ... from `from` on */
    float from;
} tensor_spec;

static void put_tensor(buf *data, json_t *header, const tensor_spec *t) {
    int64_t n = 1;
    json_t *shape = json_array();
    for (int i = 0; i < t->n_dim; i++) {
        n *= t->shape[i];
        json_array_append_new(shape, json_integer(t->shape[i]));
    }
    size_t begin = data->size;
    for (int64_t i = 0; i < n; i++) {
        float value = t->from + (float)i;
        buf_put(data, t->bytes ? (const void *)(t->bytes + i) : &value, t->bytes ? 1 : 4);
    }
    json_object_set_new(header, t->name,
                        json_pack("{s:s, s:o, s:[I, I]}", "dtype", t->type, "shape", shape,
                                  "data_offsets", (json_int_t)begin, (json_int_t)data->size));
}

/* Writes a model of these tensors and lists its parts. */
static void open_parts(part_list *parts, checkpoint **c, ctx_t *ctx, const char *dir,
                       const char *config, const tensor_spec *specs, size_t n) {
    buf data, text, file;
    buf_init(&data, ctx, BUF_NO_LIMIT);
    buf_init(&text, ctx, BUF_NO_LIMIT);
    buf_init(&file, ctx, BUF_NO_LIMIT);
    json_t *header = json_object();
    for (size_t i = 0; i < n; i++) {
        put_tensor(&data, header, &specs[i]);
    }
    json_write(&text, header, 0);
    uint64_t length = text.size;
    buf_put(&file, &length, 8);
    buf_put(&file, text.data, text.size);
    buf_put(&file, data.data, data.size);
    assert_ok(ctx, file_write(ctx, test_path(dir, "model.safetensors"), file.data, file.size));
    assert_ok(ctx, file_write(ctx, test_path(dir, "config.json"), config, strlen(config)));
    json_decref(header);
    buf_free(&data);
    buf_free(&text);
    buf_free(&file);
    assert_ok(ctx, checkpoint_open(c, ctx, dir, 0));
    assert_ok(ctx, part_list_make(parts, ctx, *c));
}

/* Of open_parts, with the directory and the context. */
static void close_parts(part_list *parts, checkpoint *c, ctx_t *ctx, char *dir) {
    part_list_free(parts);
    checkpoint_close(c);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

static void check_rows(ctx_t *ctx, const checkpoint *c, const part_list *parts, const char *name,
                       int n_dim, const int64_t *shape, const float *want) {
    const model_part *part = part_find(parts, name);
    if (!part) {
        fail_msg("there is no part %s", name);
        return;
    }
    assert_int_equal(part->n_dim, n_dim);
    assert_memory_equal(part->shape, shape, (size_t)n_dim * sizeof *shape);
    float all[64], one[64];
    assert_ok(ctx, part_rows_f32(all, c, part, 0, part->rows));
    for (int64_t r = 0; r < part->rows; r++) { /* row by row it is the same */
        assert_ok(ctx, part_rows_f32(one, c, part, r, 1));
        assert_memory_equal(one, all + r * part->columns, (size_t)part->columns * sizeof *one);
        part_drop_rows(c, part, r, 1);
    }
    for (int64_t i = 0; i < part->params; i++) {
        if (all[i] != want[i]) {
            fail_msg("%s: element %d is %g, not %g", name, (int)i, (double)all[i], (double)want[i]);
        }
    }
}

/* ---- Maps -------------------------------------------------------------------------------------
 */

#define L "model.layers.3."

static const map_rule rules[] = {
    {"mlp.experts.*.up.weight", "mlp.stack.weight", TAKE_ALL, false},
    {"fused", "first.weight", TAKE_FIRST_HALF, false},
    {"fused", "second.weight", TAKE_SECOND_HALF, false},
    {"turned", "even.weight", TAKE_EVEN, true},
    {"turned", "odd.weight", TAKE_ODD, true},
    {"turned_bias", "even.bias", TAKE_EVEN, false},
    {"turned_bias", "odd.bias", TAKE_ODD, false},
    {"flat.weight", "half.weight", TAKE_SECOND_HALF, false},
    {"kv.weight", "keys.weight", TAKE_HEAD_KEYS, true},
    {"kv.weight", "values.weight", TAKE_HEAD_VALUES, false},
    {NULL, NULL, TAKE_ALL, false},
};
static const map_rule *const tables[] = {rules, NULL};
static const map_sizes sizes = {.n_head = 2, .key_dim = 1, .value_dim = 2};

static void test_part_maps_take_what_rules_say(void **state) {
    (void)state;
    static const tensor_spec specs[] = {
        {L "mlp.experts.0.up.weight", "F32", 2, {2, 3}, NULL, 0},
        {L "mlp.experts.1.up.weight", "F32", 2, {2, 3}, NULL, 6},
        {L "mlp.experts.2.up.weight", "F32", 2, {2, 3}, NULL, 12},
        {L "fused", "F32", 3, {2, 4, 2}, NULL, 0},
        {L "turned", "F32", 3, {2, 3, 4}, NULL, 0},
        {L "turned_bias", "F32", 2, {2, 4}, NULL, 0},
        {L "flat.weight", "F32", 2, {4, 2}, NULL, 0},
        {L "kv.weight", "F32", 2, {6, 2}, NULL, 0},
        {"model.norm.weight", "F32", 1, {4}, NULL, 0},
    };
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir();
    part_list parts;
    checkpoint *c;
    open_parts(&parts, &c, ctx, dir, "{}", specs, sizeof specs / sizeof specs[0]);
    assert_ok(ctx, part_list_map(&parts, tables, &sizes));
    assert_int_equal(parts.n_parts, 11);
    static const struct {
        const char *name;
        int n_dim;
        int64_t shape[3];
        float want[18];
    } made[] = {
        {L "mlp.stack.weight",
         3,
         {3, 2, 3},
         {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17}},
        {L "first.weight", 3, {2, 2, 2}, {0, 1, 2, 3, 8, 9, 10, 11}},
        {L "second.weight", 3, {2, 2, 2}, {4, 5, 6, 7, 12, 13, 14, 15}},
        {L "even.weight", 3, {2, 2, 3}, {0, 4, 8, 2, 6, 10, 12, 16, 20, 14, 18, 22}},
        {L "odd.weight", 3, {2, 2, 3}, {1, 5, 9, 3, 7, 11, 13, 17, 21, 15, 19, 23}},
        {L "even.bias", 2, {2, 2}, {0, 2, 4, 6}},
        {L "odd.bias", 2, {2, 2}, {1, 3, 5, 7}},
        {L "half.weight", 2, {2, 2}, {4, 5, 6, 7}},
        {L "keys.weight", 3, {2, 2, 1}, {0, 1, 6, 7}},
        {L "values.weight", 3, {2, 2, 2}, {2, 3, 4, 5, 8, 9, 10, 11}},
        {"model.norm.weight", 1, {4}, {0, 1, 2, 3}},
    };
    for (size_t i = 0; i < sizeof made / sizeof made[0]; i++) {
        check_rows(ctx, c, &parts, made[i].name, made[i].n_dim, made[i].shape, made[i].want);
    }
    close_parts(&parts, c, ctx, dir);
}

/* ---- The way back ---- */

static bool any_rule(const map_rule *table, const map_rule *rule, const void *arg) {
    (void)table;
    return !arg || strcmp(rule->source, arg) != 0;
}

static void use_all(part_list *parts) {
    for (size_t i = 0; i < parts->n_parts; i++) {
        parts->parts[i].used = true;
    }
}

/* Parts that are stored as rules would have made them. */
static void test_part_maps_put_sources_together(void **state) {
    (void)state;
    static const tensor_spec specs[] = {
        {L "mlp.stack.weight", "F32", 3, {2, 1, 3}, NULL, 0},
        {L "first.weight", "F32", 3, {2, 2, 2}, NULL, 0},
        {L "second.weight", "F32", 3, {2, 2, 2}, NULL, 100},
        {L "even.weight", "F32", 3, {2, 2, 3}, NULL, 0},
        {L "odd.weight", "F32", 3, {2, 2, 3}, NULL, 100},
        {L "even.bias", "F32", 2, {2, 2}, NULL, 0},
        {L "odd.bias", "F32", 2, {2, 2}, NULL, 100},
        {L "half.weight", "F32", 2, {2, 2}, NULL, 4},
        {L "keys.weight", "F32", 3, {2, 2, 1}, NULL, 0},
        {L "values.weight", "F32", 3, {2, 2, 2}, NULL, 100},
        {"model.norm.weight", "F32", 1, {4}, NULL, 0},
    };
    static const struct {
        const char *name;
        int n_dim;
        int64_t shape[3];
        float want[24];
    } made[] = {
        {L "mlp.experts.0.up.weight", 2, {1, 3}, {0, 1, 2}},
        {L "mlp.experts.1.up.weight", 2, {1, 3}, {3, 4, 5}},
        {L "fused", 3, {2, 4, 2}, {0, 1, 2, 3, 100, 101, 102, 103, 4, 5, 6, 7, 104, 105, 106, 107}},
        {L "turned", 3, {2, 3, 4}, {0, 100, 3, 103, 1, 101, 4,  104, 2, 102, 5,  105,
                                    6, 106, 9, 109, 7, 107, 10, 110, 8, 108, 11, 111}},
        {L "turned_bias", 2, {2, 4}, {0, 100, 1, 101, 2, 102, 3, 103}},
        {L "half.weight", 2, {2, 2}, {4, 5, 6, 7}}, /* of the other half nothing is known */
        {L "kv.weight", 2, {6, 2}, {0, 1, 100, 101, 102, 103, 2, 3, 104, 105, 106, 107}},
        {"model.norm.weight", 1, {4}, {0, 1, 2, 3}},
    };
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir();
    part_list parts;
    checkpoint *c;
    open_parts(&parts, &c, ctx, dir, "{}", specs, sizeof specs / sizeof specs[0]);
    assert_ok(ctx, part_list_unmap(&parts, tables, any_rule, NULL));
    assert_int_equal(parts.n_parts, sizeof specs / sizeof specs[0]); /* no model uses them */
    use_all(&parts);
    assert_ok(ctx, part_list_unmap(&parts, tables, any_rule, NULL));
    assert_int_equal(parts.n_parts, sizeof made / sizeof made[0]);
    for (size_t i = 0; i < sizeof made / sizeof made[0]; i++) {
        check_rows(ctx, c, &parts, made[i].name, made[i].n_dim, made[i].shape, made[i].want);
    }
    close_parts(&parts, c, ctx, dir);
}

/* What was mapped and is asked for again is the tensor itself; what a filter holds back stays. */
static void test_part_maps_give_sources_back(void **state) {
    (void)state;
    static const tensor_spec specs[] = {
        {L "fused", "F32", 3, {2, 4, 2}, NULL, 0},
        {L "kv.weight", "F32", 2, {6, 2}, NULL, 0},
        {L "mlp.experts.0.up.weight", "F32", 2, {2, 3}, NULL, 0},
        {L "mlp.experts.1.up.weight", "F32", 2, {2, 3}, NULL, 6},
        {L "turned", "F32", 3, {2, 3, 4}, NULL, 0},
    };
    size_t n = sizeof specs / sizeof specs[0];
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir();
    part_list parts;
    checkpoint *c;
    open_parts(&parts, &c, ctx, dir, "{}", specs, n);
    assert_ok(ctx, part_list_map(&parts, tables, &sizes));
    use_all(&parts);
    assert_ok(ctx, part_list_unmap(&parts, tables, any_rule, "fused"));
    assert_int_equal(parts.n_parts, n + 1);
    for (size_t i = 1; i < n; i++) {
        const model_part *part = part_find(&parts, specs[i].name);
        assert_non_null(part);
        assert_null(part->map);
        assert_string_equal(part->weight->name, specs[i].name);
        assert_memory_equal(part->shape, specs[i].shape, sizeof(int64_t) * 2);
    }
    assert_non_null(part_find(&parts, L "first.weight"));
    assert_non_null(part_find(&parts, L "second.weight"));
    close_parts(&parts, c, ctx, dir);
}

static jang_status there_and_back(ctx_t *ctx, const void *dir) {
    part_list parts = {0};
    checkpoint *c = NULL;
    jang_status status = checkpoint_open(&c, ctx, dir, 0);
    if (status == JANG_OK) {
        status = part_list_make(&parts, ctx, c);
    }
    if (status == JANG_OK) {
        status = part_list_map(&parts, tables, &sizes);
    }
    use_all(&parts);
    if (status == JANG_OK) {
        status = part_list_unmap(&parts, tables, any_rule, NULL);
    }
    part_list_free(&parts);
    checkpoint_close(c);
    return status;
}

static void test_part_maps_survive_lack_of_memory(void **state) {
    (void)state;
    static const tensor_spec specs[] = {
        {L "even.weight", "F32", 3, {2, 2, 3}, NULL, 0},
        {L "odd.weight", "F32", 3, {2, 2, 3}, NULL, 100},
        {L "kv.weight", "F32", 2, {6, 2}, NULL, 0},
        {L "mlp.experts.0.up.weight", "F32", 2, {2, 3}, NULL, 0},
    };
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir();
    part_list parts;
    checkpoint *c;
    open_parts(&parts, &c, ctx, dir, "{}", specs, sizeof specs / sizeof specs[0]);
    part_list_free(&parts);
    checkpoint_close(c);
    jang_context_free(ctx);
    torture("maps", TORTURE_ONE, there_and_back, dir);
    test_remove_tree(dir);
    free(dir);
}

static void test_part_maps_refuse_pieces_that_do_not_fit(void **state) {
    (void)state;
    static const tensor_spec specs[] = {
        {L "first.weight", "F32", 3, {2, 2, 2}, NULL, 0},
        {L "second.weight", "F32", 3, {2, 3, 2}, NULL, 0},
    };
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir();
    part_list parts;
    checkpoint *c;
    open_parts(&parts, &c, ctx, dir, "{}", specs, 2);
    use_all(&parts);
    assert_fails(ctx, part_list_unmap(&parts, tables, any_rule, NULL), JANG_ERR_UNSUPPORTED,
                 L "first.weight cannot become fused: shapes do not fit");
    close_parts(&parts, c, ctx, dir);
}

static void check_refused(const tensor_spec *specs, size_t n, const char *message) {
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir();
    part_list parts;
    checkpoint *c;
    open_parts(&parts, &c, ctx, dir, "{}", specs, n);
    jang_status status = part_list_map(&parts, tables, &sizes);
    assert_true(status != JANG_OK);
    assert_fails(ctx, status, status, message);
    close_parts(&parts, c, ctx, dir);
}

static void test_part_maps_refuse_what_does_not_fit(void **state) {
    (void)state;
    static const uint8_t bytes[16] = {0};
    const tensor_spec unequal[] = {
        {L "mlp.experts.0.up.weight", "F32", 2, {2, 3}, NULL, 0},
        {L "mlp.experts.1.up.weight", "F32", 2, {3, 2}, NULL, 6},
    };
    const tensor_spec odd = {L "fused", "F32", 3, {2, 3, 2}, NULL, 0};
    const tensor_spec flat = {L "mlp.experts.0.up.weight", "F32", 1, {4}, NULL, 0};
    const tensor_spec heads = {L "kv.weight", "F32", 2, {5, 2}, NULL, 0};
    const tensor_spec integers = {L "turned", "I8", 3, {1, 4, 4}, bytes, 0};
    check_refused(unequal, 2, "experts.1.up.weight has another shape");
    check_refused(&odd, 1, "cannot be split into " L "first.weight");
    check_refused(&flat, 1, "cannot be split");
    check_refused(&heads, 1, "cannot be split into " L "keys.weight");
    check_refused(&integers, 1, "its columns cannot be taken");
}

/* ---- Packed sources ---------------------------------------------------------------------------
 */

/* E4M3: 0x38 is 1, 0x40 is 2, 0xb8 is -1. Blocks of two rows and two columns, ragged at the edge.
 */
static void test_parts_read_fp8_blocks(void **state) {
    (void)state;
    static const uint8_t codes[] = {0x38, 0x40, 0xb8, 0x38, 0x38, 0x38, 0x40, 0x40, 0x40};
    static const tensor_spec specs[] = {
        {L "a.weight", "F8_E4M3", 2, {3, 3}, codes, 0},
        {L "a.weight_scale_inv", "F32", 2, {2, 2}, NULL, 10},
    };
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir();
    part_list parts;
    checkpoint *c;
    open_parts(&parts, &c, ctx, dir,
               "{\"quantization_config\": {\"quant_method\": \"fp8\", "
               "\"weight_block_size\": [2, 2]}}",
               specs, 2);
    assert_int_equal(parts.n_parts, 1);
    const float want[] = {10, 20, -11, 10, 10, 11, 24, 24, 26};
    check_rows(ctx, c, &parts, L "a.weight", 2, (const int64_t[]){3, 3}, want);
    assert_ok(ctx, part_check_type(ctx, &parts.parts[0]));
    close_parts(&parts, c, ctx, dir);
}

/* Codes 0 .. 15 are 0, .5, 1, 1.5, 2, 3, 4, 6 and their negatives; the lower half byte is first. */
static void test_parts_read_mxfp4(void **state) {
    (void)state;
    uint8_t blocks[32], scales[2] = {128, 126};
    float want[64];
    static const float values[16] = {0,     0.5f,  1,  1.5f,  2,  3,  4,  6,
                                     -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};
    for (int i = 0; i < 32; i++) {
        int low = i % 16, high = 15 - i % 16;
        blocks[i] = (uint8_t)(high << 4 | low);
        want[2 * i] = values[low] * (i < 16 ? 2 : 0.5f);
        want[2 * i + 1] = values[high] * (i < 16 ? 2 : 0.5f);
    }
    const tensor_spec specs[] = {
        {L "x_blocks", "U8", 4, {1, 2, 1, 16}, blocks, 0},
        {L "x_scales", "U8", 3, {1, 2, 1}, scales, 0},
    };
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir();
    part_list parts;
    checkpoint *c;
    open_parts(&parts, &c, ctx, dir, "{}", specs, 2);
    assert_int_equal(parts.n_parts, 1);
    check_rows(ctx, c, &parts, L "x", 3, (const int64_t[]){1, 2, 32}, want);
    static const map_rule turn[] = {{"x", "y.weight", TAKE_ODD, true}, {NULL, NULL, TAKE_ALL, 0}};
    static const map_rule *const turning[] = {turn, NULL};
    assert_ok(ctx, part_list_map(&parts, turning, &sizes));
    check_rows(ctx, c, &parts, L "y.weight", 3, (const int64_t[]){1, 1, 32}, want + 32);
    close_parts(&parts, c, ctx, dir);
}

int main(void) {
    torture_json();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_part_maps_take_what_rules_say),
        cmocka_unit_test(test_part_maps_refuse_what_does_not_fit),
        cmocka_unit_test(test_part_maps_put_sources_together),
        cmocka_unit_test(test_part_maps_give_sources_back),
        cmocka_unit_test(test_part_maps_survive_lack_of_memory),
        cmocka_unit_test(test_part_maps_refuse_pieces_that_do_not_fit),
        cmocka_unit_test(test_parts_read_fp8_blocks),
        cmocka_unit_test(test_parts_read_mxfp4),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
