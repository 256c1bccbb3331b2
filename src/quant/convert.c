/* convert.c - a conversion from options to a finished directory.
 *
 * Checks come first: everything that can be found out without reading weights is found out before
 * anything is written. Then the weights stream through the pipeline into a temporary directory, the
 * small files follow, config.json last, and the directory gets its name. */
#include "quant/convert.h"

#include "base/json.h"
#include "quant/auto_method.h"
#include "quant/calib_text.h"
#include "quant/calibrate.h"
#include "quant/finite.h"
#include "quant/left_out.h"
#include "quant/output.h"
#include "quant/output_texts.h"
#include "quant/outputs.h"
#include "quant/overrides.h"
#include "quant/sensitivity.h"
#include "quant/source.h"
#include "quant/spend.h"
#include "quant/tune.h"
#include "tokenizer/tokenizer.h"

#include <stdio.h>
#include <string.h>

typedef struct conversion {
    ctx_t *ctx;
    const jang_convert_options *options;
    convert_form form;
    profile profile;
    const quantizer *method;
    quant_fn quantize;
    model_source from;
    bool all_kept;  /* no matrix is quantized anew */
    bool untuned;   /* there is no memory to tune in */
    bool unweighed; /* ... or for gradients of outputs */
    quant_plan plan;
    output_dir output;
    tok_ids ids;        /* of calibration; none: there is none */
    checkpoint *run;    /* the source in a form that runs; may be source; NULL: no calibration */
    char *staged;       /* the directory of run, where that is a copy */
    float **importance; /* [plan.n_items]; NULL: no calibration */
    work_dir work;
    scalings scalings;
} conversion;

jang_convert_options jang_convert_options_default(void) {
    return (jang_convert_options){
        .method = "mse", .calibration_tokens = 32768, .tune_steps = -1, .gradient_tokens = -1};
}

/* ---- Before anything is read ---- */

static jang_status find_profile(conversion *c) {
    const jang_convert_options *o = c->options;
    int n = (o->profile != NULL) + (o->bits != 0) + (o->budget != 0) + (o->size != 0);
    if (n == 0 && o->keep_codes) {
        return profile_find(&c->profile, c->ctx, NULL, 8); /* says no more than where to begin */
    }
    if (n != 1) {
        return ctx_fail(
            c->ctx, JANG_ERR_ARGUMENT,
            "give one of a profile (JANG_4M), a number of bits (4), a budget of nominal "
            "bits (3.37) and a size in bytes");
    }
    return o->budget != 0 || o->size != 0
               ? profile_of_budget(&c->profile, c->ctx, o->budget, o->size)
               : profile_find(&c->profile, c->ctx, o->profile, o->bits);
}

#define MOST_TUNE_STEPS 100000
#define MOST_GRADIENT_TOKENS (1 << 24)

static jang_status check_gradients(const conversion *c) {
    int64_t n = c->options->gradient_tokens;
    if (n > MOST_GRADIENT_TOKENS) {
        return ctx_fail(c->ctx, JANG_ERR_ARGUMENT, "%lld gradient tokens; 0 to %d are allowed",
                        (long long)n, MOST_GRADIENT_TOKENS);
    }
    if (n > 0 && (!c->method->feedback || c->profile.kind == PROFILE_FLOAT)) {
        return ctx_fail(c->ctx, JANG_ERR_ARGUMENT,
                        "gradients of outputs are for methods that make up for errors: gptq, "
                        "awq+gptq and best");
    }
    return JANG_OK;
}

static jang_status check_options(conversion *c) {
    const jang_convert_options *o = c->options;
    ctx_t *ctx = c->ctx;
    if (!o || !o->source) {
        return ctx_fail(ctx, JANG_ERR_ARGUMENT, "no source model is given");
    }
    if (!o->plan_only && !o->output) {
        return ctx_fail(ctx, JANG_ERR_ARGUMENT, "no output directory is given");
    }
    jang_status status = find_profile(c);
    if (status == JANG_OK && o->keep_codes && c->profile.kind == PROFILE_FLOAT) {
        status = ctx_fail(ctx, JANG_ERR_ARGUMENT,
                          "%s stores all numbers plainly, and keeps no codes", c->profile.name);
    }
    if (status == JANG_OK && o->overrides && c->profile.kind == PROFILE_FLOAT) {
        status = ctx_fail(ctx, JANG_ERR_ARGUMENT,
                          "overrides are of no use with %s, which quantizes "
                          "nothing",
                          c->profile.name);
    }
    bool chooses = o->method && strcmp(o->method, "auto") == 0;
    if (status == JANG_OK && o->tune_steps > 0 && c->profile.kind == PROFILE_FLOAT) {
        status = ctx_fail(ctx, JANG_ERR_ARGUMENT, "%s has no codes that could be tuned",
                          c->profile.name);
    }
    if (status == JANG_OK && o->tune_steps > MOST_TUNE_STEPS) {
        status = ctx_fail(ctx, JANG_ERR_ARGUMENT, "%d steps of tuning; 0 to %d are allowed",
                          o->tune_steps, MOST_TUNE_STEPS);
    }
    if (status == JANG_OK && !chooses && (o->time_limit != 0 || o->memory_limit != 0)) {
        status = ctx_fail(ctx, JANG_ERR_ARGUMENT,
                          "limits of time and memory choose the method: they need \"auto\"");
    }
    if (status == JANG_OK) { /* of auto: until the plan is known */
        status = quantizer_find(&c->method, ctx, o->method && !chooses ? o->method : "mse");
    }
    cpu_isa isa;
    if (status == JANG_OK) {
        status = cpu_choose(&isa, ctx);
    }
    if (status == JANG_OK) {
        c->quantize = quantizer_function(c->method, isa);
    }
    if (status == JANG_OK && !chooses) {
        status = check_gradients(c);
    }
    if (status == JANG_OK && !o->plan_only) {
        status = output_check(ctx, o->output, o->force, o->source);
    }
    return status;
}

/* The method of "auto"; all that it chooses from leave what they do not see to the same function.
 */
static jang_status choose_method(conversion *c) {
    const jang_convert_options *o = c->options;
    const char *text = NULL;
    jang_status status = JANG_OK;
    for (size_t i = 0; i < tok_n_files && status == JANG_OK && !text; i++) {
        size_t n;
        status = checkpoint_text(&text, &n, c->from.checkpoint, tok_files[i].name);
    }
    const auto_job job = {.ctx = c->ctx,
                          .plan = &c->plan,
                          .n_tokens = o->calibration_tokens,
                          .can_calibrate = text != NULL,
                          .tune_steps = o->tune_steps,
                          .gradient_tokens = o->gradient_tokens,
                          .time_limit = o->time_limit,
                          .memory_limit = o->memory_limit};
    if (status == JANG_OK) {
        status = auto_method(&c->method, &job);
    }
    return status == JANG_OK ? check_gradients(c) : status;
}

/* ---- The source ---- */

/* Whether nothing was said of matrices without codes. */
static bool keeps_only(const conversion *c) {
    const jang_convert_options *o = c->options;
    return o->keep_codes && !o->profile && !o->bits && o->budget == 0 && o->size == 0;
}

static jang_status keep_codes(conversion *c) {
    size_t n_kept, n_not = plan_keep_codes(&c->plan, &n_kept);
    if (n_kept == 0 && n_not == 0) {
        return ctx_fail(c->ctx, JANG_ERR_ARGUMENT,
                        "%s: no matrix has codes that could be kept; AWQ's, GPTQ's, MLX's and "
                        "JANG's models have",
                        c->options->source);
    }
    c->all_kept = keeps_only(c);
    if (!c->all_kept) {
        return JANG_OK;
    }
    for (size_t i = 0; i < c->plan.n_items; i++) {
        const plan_item *item = &c->plan.items[i];
        if (item->note && !item->kept && item->part->packing != PACKING_NONE) {
            return ctx_fail(c->ctx, JANG_ERR_ARGUMENT,
                            "tensor %s: %s; say how, with a profile or a number of bits",
                            item->part->name, item->note);
        }
        if (!item->kept) {
            (void)plan_set(&c->plan, i, 0, 0);
        }
    }
    plan_sum(&c->plan);
    snprintf(c->plan.profile, sizeof c->plan.profile, "kept");
    return JANG_OK;
}

static jang_status read_source(conversion *c) {
    jang_status status = model_source_open(&c->from, c->ctx, c->options->source,
                                           (c->options->keep_codes ? CHECKPOINT_V1 : 0) |
                                               (c->form.hub_names ? SOURCE_HUB_NAMES : 0));
    if (status != JANG_OK) {
        return status;
    }
    profile_model model = {.n_layer = c->from.model.n_layer,
                           .n_expert = c->from.model.n_expert,
                           .tied = c->from.model.tied};
    status = plan_make(&c->plan, c->ctx, &c->profile, &model, c->options->group_size, c->from.kept,
                       c->from.n_kept);
    if (status == JANG_OK && c->options->keep_codes) {
        status = keep_codes(c);
    }
    if (status == JANG_OK && c->options->overrides) {
        status = overrides_apply(&c->plan, c->options->overrides);
    }
    return status;
}

/* ---- Calibration ---- */

#define DAMPING 0.05

/* Steps of tuning; of a method that tunes by itself, none where the text is too short for it. */
static int32_t tune_steps(const conversion *c) {
    int32_t steps = c->options->tune_steps;
    bool tunes = c->method->thorough && !c->untuned;
    return steps >= 0 ? steps : tunes ? tune_own_steps(c->ids.n / CALIB_SEQ_TOKENS) : 0;
}

/* Tokens whose answers' gradients are found; a method that tunes does that by itself. */
static int64_t gradient_tokens(const conversion *c) {
    int64_t n = c->options->gradient_tokens;
    bool own = c->method->thorough && tune_steps(c) > 0 && !c->unweighed;
    return !c->method->feedback ? 0 : n >= 0 ? n : own ? OUTPUTS_OWN_TURNS * (int64_t)c->ids.n : 0;
}

/* Whether a method's costly choices are measured; where it tunes, that is worth more. */
static bool thorough(const conversion *c) {
    return c->method->thorough && tune_steps(c) == 0;
}

static bool scales(const conversion *c) {
    return c->method->scales && c->method->thorough == thorough(c);
}

static bool calibrates(const conversion *c) {
    return c->profile.kind != PROFILE_FLOAT && !c->all_kept &&
           (c->method->full || c->options->calibration || tune_steps(c) > 0);
}

/* Whether a model cannot run from the source as it is: GGUF's blocks, other makers' packings, or
 * other weights than those that are written. */
static bool needs_unpacking(const conversion *c) {
    bool packed = checkpoint_get_kind(c->from.checkpoint) == CHECKPOINT_GGUF;
    for (size_t i = 0; i < c->from.n_kept; i++) {
        packed |= c->from.kept[i]->packing > PACKING_AFFINE || c->from.kept[i]->factors;
    }
    return packed;
}

/* A copy of a block-quantized source in f16, which runs; beside the output. */
static jang_status stage_source(checkpoint **run, char **path, conversion *c) {
    const jang_convert_options *o = c->options;
    buf name;
    buf_init(&name, c->ctx, 1 << 16);
    size_t n = strlen(o->output);
    while (n > 1 && o->output[n - 1] == '/') {
        n--;
    }
    buf_put(&name, o->output, n);
    buf_puts(&name, ".source");
    jang_status status = buf_take(&name, path, &n);
    buf_free(&name);
    if (status == JANG_OK) {
        jang_convert_options f16 = {.source = o->source,
                                    .output = *path,
                                    .profile = "f16",
                                    .force = true,
                                    .on_progress = o->on_progress,
                                    .user = o->user};
        status = convert_run(NULL, c->ctx, &f16, c->form);
    }
    return status == JANG_OK ? checkpoint_open(run, c->ctx, *path, 0) : status;
}

/* Everything that results of calibration depend on. */
static jang_status open_work(conversion *c) {
    uint64_t hash = 1469598103934665603u; /* FNV-1a */
    for (size_t i = 0; i < c->ids.n; i++) {
        hash = (hash ^ (uint32_t)c->ids.ids[i]) * 1099511628211u;
    }
    for (size_t i = 0; i < c->plan.n_items; i++) {
        uint32_t form = (uint32_t)(c->plan.items[i].bits << 8 | c->plan.items[i].group);
        hash = (hash ^ form) * 1099511628211u;
    }
    buf key;
    buf_init(&key, c->ctx, 1 << 20);
    buf_printf(&key, "%s %s %s %llu %s %s %d %zu tokens %016llx tuned %d, %lld\n", jang_version(),
               c->options->source, checkpoint_path(c->from.checkpoint),
               (unsigned long long)checkpoint_bytes(c->from.checkpoint), c->method->name,
               c->plan.profile, c->plan.group, c->ids.n, (unsigned long long)hash,
               c->options->tune_steps, (long long)gradient_tokens(c));
    jang_status status = buf_status(&key);
    if (status == JANG_OK) {
        status =
            work_open(&c->work, c->ctx, c->options->output, &c->plan, key.data, c->options->resume);
    }
    buf_free(&key);
    return status;
}

/* Finds the text and a form of the model that runs on it. */
static jang_status begin_calibration(conversion *c) {
    const jang_convert_options *o = c->options;
    if (o->calibration_tokens < CALIB_SEQ_TOKENS) {
        return ctx_fail(c->ctx, JANG_ERR_ARGUMENT,
                        "%lld calibration tokens; at least %d are needed",
                        (long long)o->calibration_tokens, CALIB_SEQ_TOKENS);
    }
    jang_status status = calib_tokens(&c->ids, c->ctx, c->from.checkpoint, o->calibration,
                                      (size_t)o->calibration_tokens);
    if (status != JANG_OK) {
        return status;
    }
    if (!needs_unpacking(c)) {
        c->run = c->from.checkpoint;
        return JANG_OK;
    }
    if (!o->output) {
        return ctx_fail(c->ctx, JANG_ERR_ARGUMENT,
                        "the plan of a budget needs the model to run, for which this source is "
                        "unpacked beside the output: give an output, too");
    }
    return stage_source(&c->run, &c->staged, c);
}

static void free_rows(ctx_t *ctx, float **rows, size_t n) {
    for (size_t i = 0; rows && i < n; i++) {
        ctx_free(ctx, rows[i]);
    }
    ctx_free(ctx, rows);
}

/* At 2 bits nothing that is known of weights alone is better than round to nearest. */
static bool gains_by_text(const conversion *c) {
    return !calibrates(c) && c->method->weighs && plan_has_width(&c->plan, 2);
}

/* Does without calibration that was not asked for and that the model is not made for. */
static jang_status do_without(conversion *c, jang_status status) {
    if (calibrates(c) || (status != JANG_ERR_UNSUPPORTED && status != JANG_ERR_ARGUMENT)) {
        return status;
    }
    ctx_log(c->ctx, "inputs count alike: %s", jang_context_error(c->ctx));
    free_rows(c->ctx, c->importance, c->plan.n_items);
    c->importance = NULL;
    return JANG_OK;
}

static void end_calibration(conversion *c) {
    if (c->staged) {
        checkpoint_close(c->run);
        if (directory_remove(c->ctx, c->staged) != JANG_OK) {
            ctx_log(c->ctx, "%s could not be removed", c->staged);
        }
        ctx_free(c->ctx, c->staged);
    }
    tok_ids_free(c->ctx, &c->ids);
}

/* Notes the matrices whose inputs a method with full moments has not seen. */
static void note_unseen(conversion *c) {
    work_view v;
    for (size_t i = 0; i < c->plan.n_items; i++) {
        plan_item *item = &c->plan.items[i];
        bool table = item->part->role == ROLE_EMBEDDING; /* has none */
        if (item->bits && !item->kept && !table && !work_get(&v, &c->work, i)) {
            item->note = c->importance[i] ? "only the sizes of its inputs are known"
                                          : "its inputs are not known";
        }
    }
}

static jang_status study_outputs(output_moments *moments, conversion *c) {
    const output_study s = {.ctx = c->ctx,
                            .run = c->run,
                            .plan = &c->plan,
                            .ids = c->ids.ids,
                            .n_seqs = c->ids.n / CALIB_SEQ_TOKENS,
                            .n_seq = CALIB_SEQ_TOKENS,
                            .n_tok = gradient_tokens(c),
                            .on_progress = c->options->on_progress,
                            .user = c->options->user};
    return outputs_study(moments, &s);
}

/* Calibrates with what is known of outputs, where that is wanted. */
static jang_status calibrate_weighed(calibration *k, conversion *c) {
    if (gradient_tokens(c) == 0) {
        return calibrate(k);
    }
    size_t n = c->plan.n_items;
    output_moments *moments = ctx_zero(c->ctx, n + 1, sizeof *moments);
    jang_status status =
        moments ? study_outputs(moments, c) : ctx_fail_memory(c->ctx, n * sizeof *moments);
    k->outputs = moments;
    if (status == JANG_OK) {
        status = calibrate(k);
    }
    outputs_free(moments, c->ctx, n);
    return status;
}

static jang_status run_calibration(conversion *c) {
    c->importance = ctx_zero(c->ctx, c->plan.n_items + 1, sizeof *c->importance);
    if (!c->importance) {
        return ctx_fail_memory(c->ctx, c->plan.n_items * sizeof *c->importance);
    }
    jang_status status = c->method->full || tune_steps(c) > 0 ? open_work(c) : JANG_OK;
    if (status == JANG_OK && scales(c)) {
        json_at at = {c->ctx, "config.json", c->from.config};
        status = scalings_make(&c->scalings, &c->from.parts, c->from.model.model_type, at);
        if (status == JANG_OK && c->scalings.n_groups == 0) {
            ctx_log(c->ctx, "awq: no inputs of a %s can be scaled", c->from.model.model_type);
        }
    }
    if (status != JANG_OK) {
        return status;
    }
    calibration k = {.ctx = c->ctx,
                     .source = c->from.checkpoint,
                     .run = c->run,
                     .plan = &c->plan,
                     .ids = c->ids.ids,
                     .n_ids = c->ids.n,
                     .n_seq = CALIB_SEQ_TOKENS,
                     .damping = DAMPING,
                     .fn = c->quantize,
                     .feedback = c->method->feedback,
                     .thorough = thorough(c),
                     .scalings = scales(c) ? &c->scalings : NULL,
                     .work = c->method->full ? &c->work : NULL,
                     .importance = c->importance,
                     .on_progress = c->options->on_progress,
                     .user = c->options->user};
    status = calibrate_weighed(&k, c);
    if (status == JANG_OK && c->method->full) {
        note_unseen(c);
    }
    return status;
}

/* ---- Tuning ---- */

static jang_status run_tuning(conversion *c) {
    const tuning t = {.ctx = c->ctx,
                      .source = c->from.checkpoint,
                      .run = c->run,
                      .plan = &c->plan,
                      .work = &c->work,
                      .fn = c->quantize,
                      .importance = (const float *const *)c->importance,
                      .ids = c->ids.ids,
                      .n_ids = c->ids.n,
                      .n_seq = CALIB_SEQ_TOKENS,
                      .n_steps = tune_steps(c),
                      .optional = c->options->tune_steps < 0,
                      .on_progress = c->options->on_progress,
                      .user = c->options->user};
    return tune(&t);
}

/* Whether there is memory for what takes so many bytes; where it was not asked for, *without is set
 * if there is not. */
static jang_status check_memory(bool *without, conversion *c, const char *what, uint64_t bytes,
                                bool asked) {
    double needed = (double)bytes / 1e9;
    double most = (double)auto_memory(c->options->memory_limit) / 1e9;
    if (needed <= most) {
        return JANG_OK;
    }
    if (asked) {
        return ctx_fail(c->ctx, JANG_ERR_MEMORY,
                        "%s about %.1f GB of memory, and %.1f GB may be used", what, needed, most);
    }
    ctx_log(c->ctx, "%s does without, since %s about %.1f GB, and %.1f GB may be used",
            c->method->name, what, needed, most);
    *without = true;
    return JANG_OK;
}

/* The same for all that goes back through the model, by the plan as it is now. */
static jang_status check_way_back(conversion *c) {
    const jang_convert_options *o = c->options;
    int32_t steps = tune_steps(c);
    jang_status status = JANG_OK;
    if (steps > 0) {
        status = check_memory(&c->untuned, c, "tuning takes",
                              tune_bytes(&c->plan, CALIB_SEQ_TOKENS), o->tune_steps > 0);
    }
    if (status == JANG_OK && gradient_tokens(c) > 0) {
        status = check_memory(&c->unweighed, c, "gradients of outputs take",
                              outputs_bytes(&c->plan, CALIB_SEQ_TOKENS), o->gradient_tokens > 0);
    }
    return status;
}

/* ---- Budgets ---- */

/* Chooses the plan's widths: by what the model's answers suffer where it is run on a text,
 * otherwise by the errors of its weights. */
static jang_status spend_budget(conversion *c) {
    const jang_convert_options *o = c->options;
    size_t n = c->plan.n_items;
    double *divergence = ctx_zero(c->ctx, n + 1, sizeof *divergence);
    float **importance = ctx_zero(c->ctx, n + 1, sizeof *importance);
    jang_status status =
        divergence && importance ? JANG_OK : ctx_fail_memory(c->ctx, n * sizeof *divergence);
    if (status == JANG_OK && c->run) {
        sensitivity_job job = {.ctx = c->ctx,
                               .source = c->from.checkpoint,
                               .run = c->run,
                               .plan = &c->plan,
                               .fn = c->quantize,
                               .ids = c->ids.ids,
                               .n_ids = c->ids.n,
                               .weighted = true,
                               .divergence = divergence,
                               .importance = importance,
                               .on_progress = o->on_progress,
                               .user = o->user};
        status = sensitivity_measure(&job);
    }
    if (status == JANG_OK) {
        bool bytes = c->profile.size != 0;
        c->plan.measure =
            c->run ? "divergence of the answers on the calibration text" : "error of the weights";
        spending s = {.ctx = c->ctx,
                      .source = c->from.checkpoint,
                      .plan = &c->plan,
                      .fn = c->quantize,
                      .nominal = bytes ? 0 : c->profile.target,
                      .size = c->profile.size,
                      .choose_groups = (bytes || c->profile.by_size) && !o->group_size,
                      .divergence = c->run ? divergence : NULL,
                      .importance = c->run ? (const float *const *)importance : NULL,
                      .on_progress = o->on_progress,
                      .user = o->user};
        status = spend_bits(&s);
    }
    free_rows(c->ctx, importance, n);
    ctx_free(c->ctx, divergence);
    return status;
}

/* ---- Output ---- */

/* Bytes the small files will take, as far as they can be foreseen. */
static uint64_t texts_bytes(const conversion *c) {
    uint64_t sum = 64 << 10; /* for the configs */
    char **names;
    size_t n;
    if (checkpoint_get_kind(c->from.checkpoint) != CHECKPOINT_DIRECTORY ||
        directory_list(&names, &n, c->ctx, c->options->source) != JANG_OK) {
        return sum;
    }
    for (size_t i = 0; i < n; i++) {
        static const char *const small[] = {".json", ".txt", ".model", ".jinja"};
        char *path = path_join(c->ctx, c->options->source, names[i]);
        for (size_t k = 0; path && k < sizeof small / sizeof *small; k++) {
            sum += path_has_suffix(names[i], small[k]) ? file_size(path) : 0;
        }
        ctx_free(c->ctx, path);
    }
    directory_list_free(c->ctx, names, n);
    return sum;
}

static jang_status plan_text(char **out, const conversion *c) {
    buf text;
    buf_init(&text, c->ctx, BUF_NO_LIMIT);
    json_t *json = json_object();
    json_t *left = json_array();
    jang_status status = json && left ? plan_to_json(json, &c->plan) : ctx_fail_memory(c->ctx, 64);
    if (status == JANG_OK) {
        status = left_out_to_json(left, &c->from.parts, &c->from.model);
    }
    if (status == JANG_OK && json_object_set(json, "left_out", left) != 0) {
        status = ctx_fail_memory(c->ctx, 64);
    }
    if (status == JANG_OK) {
        json_write(&text, json, 0);
        size_t n;
        status = buf_take(&text, out, &n);
    }
    json_decref(json);
    json_decref(left);
    buf_free(&text);
    return status;
}

/* Writes everything; *text, unless NULL, becomes the plan as it turned out. */
static jang_status write_output(char **text, conversion *c) {
    const jang_convert_options *o = c->options;
    jang_status status = output_begin(&c->output, c->ctx, o->output, o->force, o->source,
                                      c->plan.totals.bytes + texts_bytes(c));
    if (status != JANG_OK) {
        return status;
    }
    pipeline_options p = {.source = c->from.checkpoint,
                          .plan = &c->plan,
                          .quantize = c->quantize,
                          .importance = (const float *const *)c->importance,
                          .work = c->work.ctx ? &c->work : NULL,
                          .directory = c->output.temp_path,
                          .shard_bytes = c->form.shard_bytes,
                          .on_progress = o->on_progress,
                          .user = o->user};
    status = pipeline_run(c->ctx, &p);
    if (status == JANG_OK) {
        const output_texts texts = {.from = &c->from,
                                    .plan = &c->plan,
                                    .profile = &c->profile,
                                    .method = c->method->name,
                                    .all_kept = c->all_kept,
                                    .directory = c->output.temp_path};
        status = output_texts_write(&texts);
    }
    if (status == JANG_OK && text) {
        status = plan_text(text, c);
    }
    if (status == JANG_OK) {
        status = output_commit(&c->output);
    }
    return status;
}

/* ---- The whole ---- */

jang_status convert_run(char **plan_json, ctx_t *ctx, const jang_convert_options *options,
                        convert_form form) {
    conversion c = {.ctx = ctx, .options = options, .form = form};
    char *text = NULL;
    jang_status status = check_options(&c);
    if (status == JANG_OK) {
        status = read_source(&c);
    }
    if (status == JANG_OK && options->method && strcmp(options->method, "auto") == 0) {
        status = choose_method(&c);
    }
    bool budgeted = c.profile.kind == PROFILE_BUDGET;
    if (status == JANG_OK && calibrates(&c) && (budgeted || !options->plan_only)) {
        status = begin_calibration(&c);
    }
    if (status == JANG_OK && budgeted) {
        status = spend_budget(&c);
    }
    if (status == JANG_OK && plan_json && options->plan_only) {
        status = plan_text(&text, &c);
    }
    if (status == JANG_OK && !options->plan_only && gains_by_text(&c)) {
        status = do_without(&c, begin_calibration(&c));
    }
    if (status == JANG_OK && !options->plan_only && c.run) {
        status = check_way_back(&c);
        status = status == JANG_OK ? do_without(&c, run_calibration(&c)) : status;
    }
    if (status == JANG_OK && !options->plan_only && c.run && tune_steps(&c) > 0) {
        status = run_tuning(&c);
    }
    if (status == JANG_ERR_FORMAT && c.run) {
        jang_status cause = finite_check(&c.from);
        status = cause != JANG_OK ? cause : status;
    }
    if (status == JANG_OK && !options->plan_only) {
        status = write_output(plan_json ? &text : NULL, &c);
    }
    if (status == JANG_OK && plan_json) {
        *plan_json = text;
        text = NULL;
    }
    ctx_free(ctx, text);
    free_rows(ctx, c.importance, c.plan.n_items);
    end_calibration(&c);
    work_close(&c.work, status == JANG_OK || !options->resume);
    output_end(&c.output);
    plan_free(&c.plan);
    scalings_free(&c.scalings);
    model_source_close(&c.from);
    return status;
}

jang_status jang_convert(char **plan_json, jang_context *ctx, const jang_convert_options *options) {
    return convert_run(plan_json, ctx, options,
                       (convert_form){.shard_bytes = PIPELINE_SHARD_BYTES});
}
