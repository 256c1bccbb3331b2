/* tok_post.c - post-processors: the tokens put around a text.
 *
 * Whatever the processor is, for one text it comes down to a list of ids with places for the text
 * between them; processors in sequence each surround what the one before made. ByteLevel changes
 * offsets only, which are not kept here. */
#include "tokenizer/tok_ids.h"
#include "tokenizer/tok_impl.h"

#include <string.h>

#define TEXT_PLACE (-1)
#define POST_MAX 4096

static jang_status add_id(tok *t, tok_ids *list, const char *what, int64_t id) {
    if (id < 0 || id >= TOK_MAX_IDS) {
        return ctx_fail(t->ctx, JANG_ERR_FORMAT, "%s: post-processor: id %lld is out of range",
                        what, (long long)id);
    }
    return list->n < POST_MAX
               ? tok_ids_put(t->ctx, list, (int32_t)id)
               : ctx_fail(t->ctx, JANG_ERR_FORMAT, "%s: post-processor: too long", what);
}

/* Appends what the processors so far made of the text. */
static jang_status add_text(tok *t, tok_ids *list, const char *what) {
    if (list->n + t->n_post > POST_MAX) {
        return ctx_fail(t->ctx, JANG_ERR_FORMAT, "%s: post-processor: too long", what);
    }
    jang_status status = JANG_OK;
    for (size_t i = 0; status == JANG_OK && i < t->n_post; i++) {
        status = tok_ids_put(t->ctx, list, t->post[i]);
    }
    return status;
}

/* The ids of a template's special token; in "special_tokens". */
static jang_status add_special(tok *t, tok_ids *list, const char *what, const json_t *json,
                               const json_t *piece) {
    const char *name = json_string_value(json_object_get(piece, "id"));
    const json_t *specials = json_object_get(json, "special_tokens");
    const json_t *ids = json_object_get(json_object_get(specials, name ? name : ""), "ids");
    if (!name || !json_is_array(ids)) {
        return ctx_fail(t->ctx, JANG_ERR_FORMAT,
                        "%s: post-processor: '%s' is not among its special tokens", what,
                        name ? name : "null");
    }
    jang_status status = JANG_OK;
    size_t i;
    json_t *id;
    json_array_foreach(ids, i, id) {
        if (status == JANG_OK) {
            status = add_id(t, list, what, json_is_integer(id) ? json_integer_value(id) : -1);
        }
    }
    return status;
}

static jang_status read_template(tok *t, tok_ids *list, const char *what, const json_t *json) {
    const json_t *single = NULL;
    jang_status status = json_get_array(&single, (json_at){t->ctx, what, json}, "single");
    size_t i;
    json_t *piece;
    json_array_foreach(single, i, piece) {
        const json_t *special = json_object_get(piece, "SpecialToken");
        const json_t *sequence = json_object_get(piece, "Sequence");
        const char *id = json_string_value(json_object_get(sequence, "id"));
        if (status != JANG_OK) {
            break;
        }
        if (special) {
            status = add_special(t, list, what, json, special);
        } else if (id && strcmp(id, "A") == 0) {
            status = add_text(t, list, what);
        } else {
            status = ctx_fail(t->ctx, JANG_ERR_FORMAT,
                              "%s: post-processor: a template for one text has sequence '%s'", what,
                              id ? id : "null");
        }
    }
    return status;
}

/* Bert, Roberta: "cls" and "sep" as ["[CLS]", id]. */
static jang_status read_cls_sep(tok *t, tok_ids *list, const char *what, const json_t *json) {
    const json_t *cls = json_array_get(json_object_get(json, "cls"), 1);
    const json_t *sep = json_array_get(json_object_get(json, "sep"), 1);
    jang_status status = add_id(t, list, what, json_is_integer(cls) ? json_integer_value(cls) : -1);
    if (status == JANG_OK) {
        status = add_text(t, list, what);
    }
    return status == JANG_OK
               ? add_id(t, list, what, json_is_integer(sep) ? json_integer_value(sep) : -1)
               : status;
}

static const struct {
    const char *type;
    jang_status (*read)(tok *t, tok_ids *list, const char *what, const json_t *json);
} kinds[] = {
    {"TemplateProcessing", read_template},
    {"BertProcessing", read_cls_sep},
    {"RobertaProcessing", read_cls_sep},
};

static jang_status read_sequence(tok *t, const char *what, const json_t *json, int depth);

static jang_status read_any(tok *t, const char *what, const json_t *json, int depth) {
    const char *type = json_string_value(json_object_get(json, "type"));
    type = type ? type : "null";
    if (strcmp(type, "ByteLevel") == 0) {
        return JANG_OK;
    }
    if (strcmp(type, "Sequence") == 0) {
        return read_sequence(t, what, json, depth);
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(type, kinds[i].type) == 0) {
            tok_ids list = {0};
            jang_status status = kinds[i].read(t, &list, what, json);
            if (status != JANG_OK) {
                tok_ids_free(t->ctx, &list);
                return status;
            }
            ctx_free(t->ctx, t->post);
            t->post = list.ids;
            t->n_post = list.n;
            return JANG_OK;
        }
    }
    return ctx_fail(t->ctx, JANG_ERR_UNSUPPORTED, "%s: post-processor '%s' is unknown", what, type);
}

static jang_status read_sequence(tok *t, const char *what, const json_t *json, int depth) {
    const json_t *list = NULL;
    jang_status status = json_get_array(&list, (json_at){t->ctx, what, json}, "processors");
    size_t i;
    json_t *item;
    if (status == JANG_OK && depth > 16) {
        status = ctx_fail(t->ctx, JANG_ERR_FORMAT, "%s: post-processors nested too deep", what);
    }
    json_array_foreach(list, i, item) {
        if (status == JANG_OK) {
            status = read_any(t, what, item, depth + 1);
        }
    }
    return status;
}

jang_status tok_set_post(tok *t, int32_t before, int32_t after) {
    int32_t *post = ctx_array(t->ctx, 3, sizeof *post);
    if (!post) {
        return ctx_fail_memory(t->ctx, 3 * sizeof *post);
    }
    size_t n = 0;
    if (before >= 0) {
        post[n++] = before;
    }
    post[n++] = TEXT_PLACE;
    if (after >= 0) {
        post[n++] = after;
    }
    ctx_free(t->ctx, t->post);
    t->post = post;
    t->n_post = n;
    t->n_post_texts = 1;
    return JANG_OK;
}

jang_status tok_read_post(tok *t, const char *what, const json_t *json) {
    t->post = ctx_array(t->ctx, 1, sizeof *t->post);
    if (!t->post) {
        return ctx_fail_memory(t->ctx, sizeof *t->post);
    }
    t->post[0] = TEXT_PLACE;
    t->n_post = 1;
    jang_status status = json ? read_any(t, what, json, 0) : JANG_OK;
    for (size_t i = 0; i < t->n_post; i++) {
        t->n_post_texts += t->post[i] == TEXT_PLACE;
    }
    return status;
}
