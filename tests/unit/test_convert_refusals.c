/* test_convert_refusals.c - conversions that must not happen, or are interrupted: one clear
 * message, and nothing is left behind. */
#include "base/file.h"
#include "format/safetensors.h"
#include "model_files.h"
#include "quant/convert.h"
#include "quant/left_out.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static json_t *parse(ctx_t *ctx, const char *text) {
    json_t *json = NULL;
    assert_ok(ctx, json_parse(&json, ctx, "plan", text, strlen(text)));
    return json;
}

/* ---- What may be left out ---- */

static void test_convert_refusals_but_for_what_may_be_left_out(void **state) {
    (void)state;
    static const char *const unread[] = {"self_attn.k_norm.weight", NULL};
    const name_model tied = {.n_layer = 2, .tied = true, .dropped = unread};
    const name_model untied = {.n_layer = 2};
    static const char *const no_model[] = {
        "vision_tower.a.weight", "model.visual.b",
        "model.embed_audio.c",   "mtp.fc.weight",
        "model.mtp_block.0.d",   "model.layers.2.mlp",
        "rotary_emb.inv_freq",   "model.layers.0.self_attn.rotary_emb.inv_freq"};
    for (size_t i = 0; i < sizeof no_model / sizeof *no_model; i++) {
        assert_non_null(left_out_kind(&untied, no_model[i]));
    }
    static const char *const of_tied[] = {"lm_head.weight", "language_model.lm_head.weight",
                                          "model.layers.1.self_attn.k_norm.weight"};
    for (size_t i = 0; i < sizeof of_tied / sizeof *of_tied; i++) {
        assert_non_null(left_out_kind(&tied, of_tied[i]));
        assert_null(left_out_kind(&untied, of_tied[i]));
    }
    assert_null(left_out_kind(&tied, "model.layers.1.mlp.up_proj.weight"));
    assert_null(left_out_kind(&tied, "model.visualize.weight"));
}

/* ---- Group sizes ---- */

static void test_convert_refusals_falls_back_to_smaller_groups(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *text = NULL;
    jang_convert_options o = options_of(MODELS "llama-bf16", NULL, "4M");
    o.plan_only = true;
    o.group_size = 128; /* rows of 64 and of 128 */
    assert_ok(ctx, jang_convert(&text, ctx, &o));
    json_t *plan = parse(ctx, text);
    const json_t *notes = json_object_get(plan, "notes");
    assert_int_equal(json_array_size(notes), 2 + 2 * 6);
    assert_non_null(strstr(json_string_value(json_array_get(notes, 0)), "group size 64"));
    json_decref(plan);
    jang_free(ctx, text);
    o.group_size = 48;
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_ARGUMENT, "32, 64, 128");
    jang_context_free(ctx);
}

static model_part matrix_of(const char *name, int64_t rows, int64_t columns, tensor_view *view) {
    *view = (tensor_view){.name = name, .type = DT_BF16, .n_dim = 2, .shape = {rows, columns}};
    return (model_part){.name = name,
                        .weight = view,
                        .n_dim = 2,
                        .shape = {rows, columns},
                        .rows = rows,
                        .columns = columns,
                        .params = rows * columns,
                        .role = role_of(name)};
}

static void test_convert_refusals_group_that_divides_nothing_is_an_error(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    tensor_view views[2];
    model_part a = matrix_of("model.layers.0.mlp.up_proj.weight", 8, 96, &views[0]);
    model_part b = matrix_of("model.layers.0.mlp.down_proj.weight", 8, 80, &views[1]);
    const model_part *parts[] = {&a, &b};
    profile p;
    assert_ok(ctx, profile_find(&p, ctx, "4M", 0));
    profile_model model = {.n_layer = 1};
    quant_plan plan;
    assert_fails(ctx, plan_make(&plan, ctx, &p, &model, 64, parts, 2), JANG_ERR_ARGUMENT,
                 "group size 64 divides no row");
    assert_ok(ctx, plan_make(&plan, ctx, &p, &model, 32, parts, 2));
    assert_int_equal(plan.items[0].group, 32);
    assert_int_equal(plan.items[0].bits, 4);
    assert_int_equal(plan.items[1].bits, 0); /* 80 is no multiple of 32 */
    assert_non_null(plan.items[1].note);
    plan_free(&plan);
    assert_ok(ctx, plan_make(&plan, ctx, &p, &model, 0, parts, 2));
    assert_int_equal(plan.items[0].group, 32);
    plan_free(&plan);
    jang_context_free(ctx);
}

/* ---- Refusals ---- */

static void test_convert_refusals_refuses_wrong_options(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir(), output[512];
    snprintf(output, sizeof output, "%s/out", dir);
    jang_convert_options o = options_of(MODELS "llama-bf16", output, "JANG_5X");
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_ARGUMENT, "JANG_5X");
    o.profile = "4M";
    o.method = "mse-all";
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_ARGUMENT, "methods are: rtn");
    o.method = "rtn";
    o.bits = 4;
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_ARGUMENT, "give one of");
    o.profile = NULL;
    o.bits = 7;
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_ARGUMENT, "7 bits");
    o.bits = 0;
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_ARGUMENT, "give one of");
    o.bits = 4;
    o.output = NULL;
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_ARGUMENT, "output");
    o.output = output;
    o.source = MODELS "no-such-model";
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_IO, "no-such-model");
    o.source = MODELS "llama-bf16";
    snprintf(output, sizeof output, "%s/not/there/out", dir);
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_IO, "not/there");
    assert_int_equal(count_entries(dir), 0);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

static void test_convert_refusals_refuses_existing_output(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir(), output[512], inside[600];
    snprintf(output, sizeof output, "%s/out", dir);
    jang_convert_options o = options_of(MODELS "llama-bf16", output, "4M");
    assert_ok(ctx, directory_make(ctx, output)); /* empty: fine */
    assert_ok(ctx, jang_convert(NULL, ctx, &o));
    assert_ok(ctx, file_write(ctx, test_path(output, "mine.txt"), "x", 1));
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_EXISTS, "not empty");
    assert_true(file_exists(test_path(output, "mine.txt")));
    /* a conversion that fails leaves the old output alone */
    o.force = true;
    o.source = MODELS "no-such-model";
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_IO, "no-such-model");
    assert_true(file_exists(test_path(output, "mine.txt")));
    o.source = MODELS "llama-f16";
    assert_ok(ctx, jang_convert(NULL, ctx, &o));
    assert_false(file_exists(test_path(output, "mine.txt")));
    checkpoint *made = NULL;
    assert_ok(ctx, checkpoint_open(&made, ctx, output, 0));
    assert_int_equal(checkpoint_find(made, "model.norm.weight")->type, DT_F16); /* the new one */
    checkpoint_close(made);
    /* the source itself is never replaced */
    o.source = output;
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_ARGUMENT, "source");
    /* neither is a directory that holds directories, nor a file */
    o.source = MODELS "llama-f16";
    snprintf(inside, sizeof inside, "%s/photos", output);
    assert_ok(ctx, directory_make(ctx, inside));
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_EXISTS, "subdirectories");
    snprintf(inside, sizeof inside, "%s/config.json", output);
    o.output = inside;
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_EXISTS, "is a file");
    assert_int_equal(count_entries(dir), 1);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

static void test_convert_refusals_refuses_weights_that_are_not_finite(void **state) {
    (void)state;
    static const struct {
        const char *tensor;
        uint16_t value;
    } cases[] = {
        {"model.layers.1.self_attn.k_proj.weight", 0x7fc0}, /* bf16 NaN */
        {"model.layers.0.mlp.down_proj.weight", 0xff80},    /* -infinity */
        {"model.norm.weight", 0x7f80},
        {"lm_head.weight", 0x7f81},
    };
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char source[512], output[512];
        snprintf(source, sizeof source, "%s/in%zu", dir, i);
        snprintf(output, sizeof output, "%s/out", dir);
        copy_directory(ctx, MODELS "llama-bf16", source);
        patch_tensor(ctx, source, cases[i].tensor, 33, &cases[i].value);
        jang_convert_options o = options_of(source, output, "4M");
        assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_FORMAT, cases[i].tensor);
        assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_FORMAT, "NaN");
        assert_int_equal(count_entries(dir), i + 1);
    }
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

static void test_convert_refusals_refuses_broken_sources(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir(), source[512], output[512], shard[600];
    snprintf(output, sizeof output, "%s/out", dir);
    jang_convert_options o = options_of(source, output, "4M");

    snprintf(source, sizeof source, "%s/unknown", dir);
    copy_directory(ctx, MODELS "llama-bf16", source);
    patch_config(ctx, source, "model_type", json_string("perceptron"));
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_UNSUPPORTED, "perceptron");
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_UNSUPPORTED, "llama, mistral, qwen2");

    snprintf(source, sizeof source, "%s/bitsandbytes", dir);
    copy_directory(ctx, MODELS "llama-bf16", source);
    patch_config(ctx, source, "quantization_config",
                 json_pack("{s:s}", "quant_method", "bitsandbytes"));
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_UNSUPPORTED, "bitsandbytes");

    snprintf(source, sizeof source, "%s/deeper", dir);
    copy_directory(ctx, MODELS "llama-bf16", source);
    patch_config(ctx, source, "num_hidden_layers", json_integer(3));
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_FORMAT, "model.layers.2.");

    snprintf(source, sizeof source, "%s/wider", dir);
    copy_directory(ctx, MODELS "llama-bf16", source);
    patch_config(ctx, source, "intermediate_size", json_integer(192));
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_FORMAT,
                 "is [128, 64], the config wants [192, 64]");

    snprintf(source, sizeof source, "%s/sizeless", dir);
    copy_directory(ctx, MODELS "llama-bf16", source);
    patch_config(ctx, source, "hidden_size", NULL);
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_FORMAT, "hidden_size is missing");

    snprintf(source, sizeof source, "%s/sharded", dir);
    copy_directory(ctx, MODELS "llama-sharded-bf16", source);
    char **names;
    size_t n;
    assert_ok(ctx, directory_list(&names, &n, ctx, source));
    for (size_t i = 0; i < n; i++) {
        if (path_has_suffix(names[i], ".safetensors")) {
            snprintf(shard, sizeof shard, "%s/%s", source, names[i]);
        }
    }
    directory_list_free(ctx, names, n);
    assert_int_equal(unlink(shard), 0);
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_FORMAT, strrchr(shard, '/') + 1);
    assert_int_equal(count_entries(dir), 6);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

/* Fewer layers in the config than in the file, as with MTP layers: the rest is left out. */
/* Gives a tensor of a model another type in the file's header, of the same number of letters. */
static void patch_type(ctx_t *ctx, const char *directory, const char *name, const char *type) {
    char path[600], wanted[200], *text;
    size_t n;
    snprintf(path, sizeof path, "%s/model.safetensors", directory);
    assert_ok(ctx, file_read(&text, &n, ctx, path, 1 << 20));
    snprintf(wanted, sizeof wanted, "\"%s\":{", name);
    char *at = strstr(text + 8, wanted);
    at = at ? strstr(at, "\"dtype\":") : NULL;
    assert_non_null(at);
    memcpy(at + strlen("\"dtype\":"), type, strlen(type));
    assert_ok(ctx, file_write(ctx, path, text, n));
    ctx_free(ctx, text);
}

static void test_convert_refusals_names_types_that_are_no_weights(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir(), source[512], output[512];
    snprintf(source, sizeof source, "%s/source", dir);
    snprintf(output, sizeof output, "%s/out", dir);
    copy_directory(ctx, MODELS "llama-bf16", source);
    patch_type(ctx, source, "lm_head.weight", "\"I16\" ");
    jang_convert_options o = options_of(source, output, "4M");
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_UNSUPPORTED,
                 "tensor lm_head.weight: type I16 cannot be converted; F32, F16, BF16, ");
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_UNSUPPORTED, source);

    snprintf(source, sizeof source, "%s/packed", dir);
    copy_directory(ctx, MODELS "mlx-llama-4bit-g64", source);
    patch_type(ctx, source, "model.layers.0.mlp.down_proj.scales", "\"I16\" ");
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_FORMAT, "scales of type I16");
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_FORMAT, source);
    assert_int_equal(count_entries(dir), 2);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

/* What looks like a killed conversion's directory may be a link to something else. */
static void test_convert_refusals_leaves_linked_directories(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir(), other[512], output[512], path[600];
    snprintf(other, sizeof other, "%s/other", dir);
    snprintf(output, sizeof output, "%s/out", dir);
    assert_ok(ctx, directory_make(ctx, other));
    snprintf(path, sizeof path, "%s/.lock", other);
    assert_ok(ctx, file_write(ctx, path, "", 0));
    snprintf(path, sizeof path, "%s.tmp-1", output);
    assert_int_equal(symlink(other, path), 0);
    jang_convert_options o = options_of(MODELS "llama-bf16", output, "4M");
    assert_ok(ctx, jang_convert(NULL, ctx, &o));
    assert_int_equal(count_entries(other), 1);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

static void test_convert_refusals_leaves_out_layers_beyond_the_config(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir(), source[512], output[512];
    snprintf(source, sizeof source, "%s/in", dir);
    snprintf(output, sizeof output, "%s/out", dir);
    copy_directory(ctx, MODELS "llama-bf16", source);
    patch_config(ctx, source, "num_hidden_layers", json_integer(1));
    jang_convert_options o = options_of(source, output, "4M");
    assert_ok(ctx, jang_convert(NULL, ctx, &o));
    checkpoint *made = NULL;
    assert_ok(ctx, checkpoint_open(&made, ctx, output, 0));
    assert_null(checkpoint_find(made, "model.layers.1.mlp.up_proj.weight"));
    assert_non_null(checkpoint_find(made, "model.layers.0.mlp.up_proj.weight"));
    checkpoint_close(made);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

/* Without the key, an lm_head in the file decides, and the output says so. */
static void test_convert_refusals_finds_out_about_tied_embeddings(void **state) {
    (void)state;
    static const struct {
        const char *model;
        bool tied;
    } cases[] = {{"llama-bf16", false}, {"qwen2-tied-bf16", true}};
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir();
    for (size_t i = 0; i < 2; i++) {
        char source[512], output[512], from[512];
        snprintf(from, sizeof from, MODELS "%s", cases[i].model);
        snprintf(source, sizeof source, "%s/in%zu", dir, i);
        snprintf(output, sizeof output, "%s/out%zu", dir, i);
        copy_directory(ctx, from, source);
        patch_config(ctx, source, "tie_word_embeddings", NULL);
        jang_convert_options o = options_of(source, output, "4M");
        assert_ok(ctx, jang_convert(NULL, ctx, &o));
        json_t *config = NULL;
        assert_ok(ctx, json_read(&config, ctx, test_path(output, "config.json")));
        const json_t *tied = json_object_get(config, "tie_word_embeddings");
        assert_true(json_is_boolean(tied));
        assert_int_equal(json_is_true(tied), cases[i].tied);
        json_decref(config);
    }
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

/* ---- Interruptions ---- */

static bool cancel_at_once(void *user, const jang_progress *progress) {
    (void)progress;
    ++*(int *)user;
    return false;
}

static void test_convert_refusals_cancelled_leaves_nothing(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir(), output[512];
    snprintf(output, sizeof output, "%s/out", dir);
    jang_convert_options o = options_of(MODELS "llama-bf16", output, "4M");
    int calls = 0;
    o.on_progress = cancel_at_once;
    o.user = &calls;
    assert_fails(ctx, jang_convert(NULL, ctx, &o), JANG_ERR_CANCELLED, "cancelled");
    assert_int_equal(calls, 1);
    assert_int_equal(count_entries(dir), 0);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

typedef struct watch {
    uint64_t last, total;
    int calls;
} watch;

static bool watch_progress(void *user, const jang_progress *p) {
    watch *w = user;
    assert_true(p->done >= w->last && p->done <= p->total && p->seconds >= 0 && p->what);
    *w = (watch){p->done, p->total, w->calls + 1};
    return true;
}

static void test_convert_refusals_progress_ends_at_the_total(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir(), output[512];
    snprintf(output, sizeof output, "%s/out", dir);
    jang_convert_options o = options_of(MODELS "llama-bf16", output, "4M");
    watch w = {0};
    o.on_progress = watch_progress;
    o.user = &w;
    assert_ok(ctx, jang_convert(NULL, ctx, &o));
    checkpoint *source = NULL;
    assert_ok(ctx, checkpoint_open(&source, ctx, o.source, 0));
    assert_true(w.calls >= 1);
    assert_int_equal(w.last, checkpoint_bytes(source));
    assert_int_equal(w.total, checkpoint_bytes(source));
    checkpoint_close(source);
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

static bool die_at_once(void *user, const jang_progress *progress) {
    (void)user;
    (void)progress;
    raise(SIGKILL);
    return true;
}

static void test_convert_refusals_killed_leaves_no_finished_output(void **state) {
    (void)state;
    ctx_t *ctx = test_context();
    char *dir = test_temp_dir(), output[512];
    snprintf(output, sizeof output, "%s/out", dir);
    pid_t child = fork();
    if (child == 0) {
        ctx_t *own = context_with(1); /* ThreadSanitizer allows no threads after a fork */
        jang_convert_options o = options_of(MODELS "llama-bf16", output, "4M");
        o.on_progress = die_at_once;
        jang_status ignored = jang_convert(NULL, own, &o);
        (void)ignored;
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_false(file_exists(output));
    /* what is left does not open as a model either */
    char left[600];
    snprintf(left, sizeof left, "%s.tmp-%ld", output, (long)child);
    assert_true(file_is_directory(left));
    checkpoint *c = NULL;
    assert_int_not_equal(checkpoint_open(&c, ctx, left, 0), JANG_OK);
    /* and the next conversion removes it, but not what others may be writing */
    char other[600];
    snprintf(other, sizeof other, "%s.tmp-other", output);
    assert_ok(ctx, directory_make(ctx, other));
    jang_convert_options o = options_of(MODELS "llama-bf16", output, "4M");
    assert_ok(ctx, jang_convert(NULL, ctx, &o));
    assert_false(file_exists(left));
    assert_true(file_exists(other));
    assert_false(file_exists(test_path(output, ".lock")));
    test_remove_tree(dir);
    free(dir);
    jang_context_free(ctx);
}

/* A write that fails, by a limit on the size of files: one line, nothing left. */
static void test_convert_refusals_failed_write_leaves_nothing(void **state) {
    (void)state;
    char *dir = test_temp_dir(), output[512];
    snprintf(output, sizeof output, "%s/out", dir);
    pid_t child = fork();
    if (child == 0) {
        struct rlimit limit = {16384, 16384};
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &limit);
        ctx_t *own = context_with(1); /* ThreadSanitizer allows no threads after a fork */
        jang_convert_options o = options_of(MODELS "llama-bf16", output, "4M");
        jang_status got = jang_convert(NULL, own, &o);
        bool named = strstr(jang_context_error(own), "model.safetensors") != NULL;
        _exit(got == JANG_ERR_IO && named ? 42 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 42);
    assert_int_equal(count_entries(dir), 0);
    test_remove_tree(dir);
    free(dir);
}

/* ---- Memory ---- */

typedef struct failing_memory {
    long n_left; /* allocations before the first that fails; negative: none fails */
    long n_live;
} failing_memory;

static void *failing_realloc(void *user, void *ptr, size_t size) {
    failing_memory *m = user;
    if (size == 0) {
        m->n_live -= ptr != NULL;
        free(ptr);
        return NULL;
    }
    if (m->n_left == 0) {
        return NULL;
    }
    m->n_left--;
    m->n_live += ptr == NULL;
    return realloc(ptr, size);
}

/* One attempt; whether it needed no more than these allocations. With one thread, so that the count
 * is the same every time. */
static bool attempt(const char *dir, long n_allocations, bool inspect) {
    failing_memory memory = {.n_left = -1};
    jang_context_options co = jang_context_options_default();
    co.n_threads = 1;
    co.reallocate = failing_realloc;
    co.reallocate_user = &memory;
    ctx_t *ctx = NULL;
    assert_int_equal(jang_context_new(&ctx, &co), JANG_OK);
    char output[512], *text = NULL;
    size_t n_bytes;
    snprintf(output, sizeof output, "%s/out", dir);
    jang_convert_options o = options_of(MODELS "llama-sharded-bf16", output, "4M");
    memory.n_left = n_allocations;
    jang_status status =
        inspect ? jang_inspect(&text, &n_bytes, ctx, o.source) : jang_convert(&text, ctx, &o);
    bool enough = memory.n_left > 0;
    memory.n_left = -1;
    if (status == JANG_OK) { /* also where a failure does no harm */
        assert_ok(ctx, directory_remove(ctx, output));
    } else {
        assert_int_equal(status, JANG_ERR_MEMORY);
        assert_false(enough);
        assert_null(text);
    }
    assert_int_equal(count_entries(dir), 0);
    jang_free(ctx, text);
    jang_context_free(ctx);
    assert_int_equal(memory.n_live, 0);
    return enough;
}

static void test_convert_refusals_survive_each_failing_allocation(void **state) {
    (void)state;
    for (int inspect = 0; inspect < 2; inspect++) {
        char *dir = test_temp_dir();
        long n = 0;
        while (!attempt(dir, n, inspect)) {
            n++;
            assert_true(n < 100000);
        }
        assert_true(n > 100);
        test_remove_tree(dir);
        free(dir);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_convert_refusals_but_for_what_may_be_left_out),
        cmocka_unit_test(test_convert_refusals_falls_back_to_smaller_groups),
        cmocka_unit_test(test_convert_refusals_group_that_divides_nothing_is_an_error),
        cmocka_unit_test(test_convert_refusals_refuses_wrong_options),
        cmocka_unit_test(test_convert_refusals_refuses_existing_output),
        cmocka_unit_test(test_convert_refusals_refuses_weights_that_are_not_finite),
        cmocka_unit_test(test_convert_refusals_refuses_broken_sources),
        cmocka_unit_test(test_convert_refusals_names_types_that_are_no_weights),
        cmocka_unit_test(test_convert_refusals_leaves_linked_directories),
        cmocka_unit_test(test_convert_refusals_leaves_out_layers_beyond_the_config),
        cmocka_unit_test(test_convert_refusals_finds_out_about_tied_embeddings),
        cmocka_unit_test(test_convert_refusals_cancelled_leaves_nothing),
        cmocka_unit_test(test_convert_refusals_progress_ends_at_the_total),
        cmocka_unit_test(test_convert_refusals_killed_leaves_no_finished_output),
        cmocka_unit_test(test_convert_refusals_failed_write_leaves_nothing),
        cmocka_unit_test(test_convert_refusals_survive_each_failing_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
