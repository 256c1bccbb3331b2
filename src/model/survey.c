/* survey.c - which tensors a model is made of. */
#include "model/survey.h"

#include "model/loader_impl.h"
#include "model/registry.h"

#include <string.h>

void model_survey_free(model_survey *s) {
    for (size_t i = 0; i < s->n; i++) {
        ctx_free(s->ctx, s->uses[i].name);
    }
    ctx_free(s->ctx, s->uses);
    *s = (model_survey){0};
}

jang_status survey_add(model_survey *s, const tensor_view *tensor, const char *name) {
    for (size_t i = s->n; i > 0 && i + 8 > s->n; i--) { /* looked for more than once, in a row */
        if (s->uses[i - 1].tensor == tensor && strcmp(s->uses[i - 1].name, name) == 0) {
            return JANG_OK;
        }
    }
    if (s->n == s->capacity) {
        size_t capacity = s->capacity ? 2 * s->capacity : 256;
        tensor_use *uses = ctx_realloc(s->ctx, s->uses, capacity * sizeof *uses);
        if (!uses) {
            return ctx_fail_memory(s->ctx, capacity * sizeof *uses);
        }
        s->uses = uses;
        s->capacity = capacity;
    }
    char *copy = ctx_strdup(s->ctx, name);
    if (!copy) {
        return ctx_fail_memory(s->ctx, strlen(name));
    }
    s->uses[s->n++] = (tensor_use){tensor, copy};
    return JANG_OK;
}

jang_status model_survey_make(model_survey *out, ctx_t *ctx, checkpoint *c,
                              const tensor_source *source) {
    model_survey s = {.ctx = ctx};
    ops *o;
    jang_status status = ops_open(&o, ctx, "ref", NULL);
    if (status != JANG_OK) {
        return status;
    }
    model *m = NULL;
    status = model_open_from(&m, ctx, c, o, source, &s);
    if (status == JANG_OK) {
        s.n_layer = m->facts.n_layer;
        s.tied = m->facts.tied;
        s.dropped = m->family->dropped;
    }
    model_close(m);
    ops_close(o);
    if (status != JANG_OK) {
        model_survey_free(&s);
        return status;
    }
    *out = s;
    return JANG_OK;
}
