/* source.c - opening a model that is to be converted or exported. */
#include "quant/source.h"

#include "quant/folds.h"
#include "quant/layouts.h"

#include <string.h>

/* Quantized checkpoints of other makers look like plain ones but for this section. */
static jang_status check_quant_method(model_source *s) {
    const json_t *section;
    const char *method;
    json_at at = {s->ctx, "config.json", s->config};
    jang_status status = json_get_object(&section, at, "quantization_config");
    if (status == JANG_OK) {
        at.object = section;
        status = json_get_string(&method, at, "quant_method", NULL);
    }
    static const char *const known[] = {"fp8", "mxfp4", "awq", "gptq"};
    bool is_known = status != JANG_OK || !method;
    for (size_t i = 0; !is_known && i < sizeof known / sizeof known[0]; i++) {
        is_known = strcmp(method, known[i]) == 0;
    }
    if (!is_known) {
        return ctx_fail(s->ctx, JANG_ERR_UNSUPPORTED,
                        "%s: quantized by \"%s\", which cannot be converted; give the original "
                        "model, or one quantized by MLX, JANG, AWQ, GPTQ, in FP8 or MXFP4",
                        s->path, method);
    }
    return status;
}

static jang_status choose_parts(model_source *s) {
    s->kept = ctx_array(s->ctx, s->parts.n_parts + 1, sizeof(const model_part *));
    if (!s->kept) {
        return ctx_fail_memory(s->ctx, s->parts.n_parts * sizeof *s->kept);
    }
    for (size_t i = 0; i < s->parts.n_parts; i++) {
        bool keep;
        jang_status status = names_keep(&keep, s->ctx, &s->model, &s->parts.parts[i]);
        if (status == JANG_OK && keep) {
            status = part_check_type(s->ctx, &s->parts.parts[i]);
        }
        if (status != JANG_OK) {
            return status;
        }
        if (keep) {
            s->kept[s->n_kept++] = &s->parts.parts[i];
        }
    }
    return JANG_OK;
}

/* Finds what of the source is written. */
static jang_status read_names(model_source *s) {
    jang_status status = names_model(&s->model, s->ctx, s->config, "config.json");
    if (status == JANG_OK) {
        status = names_map(&s->parts, &s->model);
    }
    if (status != JANG_OK) {
        return ctx_prefix(s->ctx, status, "%s", s->path);
    }
    status = names_survey(&s->parts, &s->model, s->checkpoint); /* it names the source itself */
    if (status != JANG_OK) {
        return status;
    }
    if (s->hub_names) {
        layouts_undo(&s->parts, &s->model, &s->mlx_convs);
        status = names_to_hub(&s->parts, &s->model);
    } else {
        status = folds_apply(&s->parts, &s->model, s->config, &s->folded);
        layouts_apply(&s->parts, &s->model, &s->norms_shifted);
    }
    status = status == JANG_OK ? choose_parts(s) : status;
    return status == JANG_OK ? status : ctx_prefix(s->ctx, status, "%s", s->path);
}

jang_status model_source_open(model_source *out, ctx_t *ctx, const char *path, unsigned flags) {
    model_source s = {.ctx = ctx, .path = path, .hub_names = flags & SOURCE_HUB_NAMES};
    jang_status status = checkpoint_open(&s.checkpoint, ctx, path, flags & ~SOURCE_HUB_NAMES);
    if (status == JANG_OK) {
        status = checkpoint_json(&s.config, s.checkpoint, "config.json");
    }
    if (status == JANG_OK) {
        status = check_quant_method(&s);
    }
    if (status == JANG_OK) {
        status = part_list_make(&s.parts, ctx, s.checkpoint);
    }
    if (status == JANG_OK) {
        status = read_names(&s);
    }
    if (status != JANG_OK) {
        model_source_close(&s);
        return status;
    }
    *out = s;
    return JANG_OK;
}

void model_source_close(model_source *s) {
    if (s->ctx) {
        ctx_free(s->ctx, s->kept);
        part_list_free(&s->parts);
        checkpoint_close(s->checkpoint);
        *s = (model_source){0};
    }
}
