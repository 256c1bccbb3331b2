/* names_survey.c - which parts of a checkpoint its model uses, by asking the model. */
#include "model/survey.h"
#include "quant/names.h"

#include <stdlib.h>
#include <string.h>

/* The parts as tensors of a plain type, in the list's order. */
typedef struct part_views {
    const part_list *list;
    tensor_view *views; /* [n_parts] */
} part_views;

static const tensor_view *find_view(const void *arg, const char *name) {
    const part_views *v = arg;
    const model_part *part = part_find(v->list, name);
    return part ? &v->views[part - v->list->parts] : NULL;
}

static jang_status make_views(part_views *out, const part_list *list) {
    static const uint8_t nowhere[8];
    tensor_view *views = ctx_zero(list->ctx, list->n_parts + 1, sizeof *views);
    if (!views) {
        return ctx_fail_memory(list->ctx, list->n_parts * sizeof *views);
    }
    for (size_t i = 0; i < list->n_parts; i++) {
        const model_part *part = &list->parts[i];
        views[i] = (tensor_view){
            .name = part->name, .type = DT_F32, .n_dim = part->n_dim, .data = nowhere};
        memcpy(views[i].shape, part->shape, sizeof part->shape);
    }
    *out = (part_views){list, views};
    return JANG_OK;
}

static int compare(const void *a, const void *b) {
    return part_compare_names(((const model_part *)a)->name, ((const model_part *)b)->name);
}

/* Marks what is used and renames it; the names become the list's. */
static jang_status mark_parts(part_list *list, model_survey *survey, const part_views *views) {
    char **names =
        ctx_realloc(list->ctx, list->names, (list->n_names + survey->n + 1) * sizeof *names);
    if (!names) {
        return ctx_fail_memory(list->ctx, survey->n * sizeof *names);
    }
    list->names = names;
    for (size_t i = 0; i < survey->n; i++) {
        tensor_use *use = &survey->uses[i];
        model_part *part = &list->parts[use->tensor - views->views];
        part->used = true;
        if (strcmp(part->name, use->name) != 0) {
            part->name = names[list->n_names++] = use->name;
            part->role = role_of(part->name);
            use->name = NULL; /* the list's now */
        }
    }
    qsort(list->parts, list->n_parts, sizeof *list->parts, compare);
    return JANG_OK;
}

jang_status names_survey(part_list *parts, name_model *nm, checkpoint *c) {
    part_views views;
    jang_status status = make_views(&views, parts);
    if (status != JANG_OK) {
        return status;
    }
    model_survey survey = {0};
    const tensor_source source = {find_view, &views};
    status = model_survey_make(&survey, parts->ctx, c, &source);
    if (status == JANG_OK) {
        nm->n_layer = survey.n_layer;
        nm->tied = survey.tied;
        nm->dropped = survey.dropped;
        status = mark_parts(parts, &survey, &views);
        model_survey_free(&survey);
    }
    ctx_free(parts->ctx, views.views);
    return status;
}
