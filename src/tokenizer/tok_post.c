/* tok_post.c - post-processors: the tokens put around a text.
 *
 * Whatever the processor is, for one text it comes down to a list of ids with places for the text
 * between them; processors in sequence each surround what the one before made. Two texts make such
 * a list with places for both, and a type for each place. ByteLevel changes offsets only, which are
 * not kept here. */
#include "tokenizer/tok_ids.h"
#include "tokenizer/tok_impl.h"

#include <string.h>

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

/* The ids of a template's special token, in "special_tokens"; *out is an array. */
static jang_status find_special(const json_t **out, tok *t, const char *what, const json_t *json,
                                const json_t *piece) {
    const char *name = json_string_value(json_object_get(piece, "id"));
    const json_t *specials = json_object_get(json, "special_tokens");
    const json_t *ids = json_object_get(json_object_get(specials, name ? name : ""), "ids");
    if (!name || !json_is_array(ids)) {
        return ctx_fail(t->ctx, JANG_ERR_FORMAT,
                        "%s: post-processor: '%s' is not among its special tokens", what,
                        name ? name : "null");
    }
    *out = ids;
    return JANG_OK;
}

static jang_status add_special(tok *t, tok_ids *list, const char *what, const json_t *json,
                               const json_t *piece) {
    const json_t *ids = NULL;
    jang_status status = find_special(&ids, t, what, json, piece);
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

/* ---- Pairs ---- */

static jang_status add_place(tok *t, const char *what, int64_t id, int64_t type) {
    tok_pair *p = &t->pair;
    if (p->n == POST_MAX || id >= TOK_MAX_IDS || type < 0 || type > INT32_MAX) {
        return ctx_fail(t->ctx, JANG_ERR_FORMAT,
                        "%s: post-processor: too long, or an id or type out of range", what);
    }
    tok_pair_item *items = ctx_realloc(t->ctx, p->items, (p->n + 1) * sizeof *items);
    if (!items) {
        return ctx_fail_memory(t->ctx, (p->n + 1) * sizeof *items);
    }
    items[p->n++] = (tok_pair_item){(int32_t)id, (int32_t)type};
    p->items = items;
    return JANG_OK;
}

static jang_status add_specials(tok *t, const char *what, const json_t *json, const json_t *piece,
                                int64_t type) {
    const json_t *ids = NULL;
    jang_status status = find_special(&ids, t, what, json, piece);
    size_t i;
    json_t *id;
    json_array_foreach(ids, i, id) {
        int64_t value = json_is_integer(id) ? json_integer_value(id) : -1;
        if (status == JANG_OK && value < 0) {
            status =
                ctx_fail(t->ctx, JANG_ERR_FORMAT, "%s: post-processor: an id is no number", what);
        }
        if (status == JANG_OK) {
            status = add_place(t, what, value, type);
        }
    }
    return status;
}

static jang_status read_pair_piece(tok *t, const char *what, const json_t *json,
                                   const json_t *piece) {
    const json_t *special = json_object_get(piece, "SpecialToken");
    const json_t *sequence = json_object_get(piece, "Sequence");
    const json_t *type = json_object_get(special ? special : sequence, "type_id");
    int64_t type_id = json_is_integer(type) ? json_integer_value(type) : 0;
    if (special) {
        return add_specials(t, what, json, special, type_id);
    }
    const char *id = json_string_value(json_object_get(sequence, "id"));
    if (id && (strcmp(id, "A") == 0 || strcmp(id, "B") == 0)) {
        return add_place(t, what, *id == 'A' ? POST_TEXT : POST_SECOND_TEXT, type_id);
    }
    return ctx_fail(t->ctx, JANG_ERR_FORMAT,
                    "%s: post-processor: a template for two texts has sequence '%s'", what,
                    id ? id : "null");
}

static jang_status pair_template(tok *t, const char *what, const json_t *json) {
    const json_t *pieces = NULL;
    jang_status status = json_get_array(&pieces, (json_at){t->ctx, what, json}, "pair");
    size_t i;
    json_t *piece;
    json_array_foreach(pieces, i, piece) {
        if (status == JANG_OK) {
            status = read_pair_piece(t, what, json, piece);
        }
    }
    t->pair.always = true;
    return status;
}

/* Places of [CLS] A [SEP], then of B and its end; doubled: Roberta's second [SEP], all of type 0.
 */
static jang_status pair_cls_sep(tok *t, const char *what, const json_t *json, bool doubled) {
    int64_t cls = json_integer_value(json_array_get(json_object_get(json, "cls"), 1));
    int64_t sep = json_integer_value(json_array_get(json_object_get(json, "sep"), 1));
    int64_t second = doubled ? 0 : 1;
    const int64_t places[][2] = {
        {cls, 0}, {POST_TEXT, 0}, {sep, 0}, {sep, 0}, {POST_SECOND_TEXT, second}, {sep, second}};
    jang_status status = JANG_OK;
    for (size_t i = 0; status == JANG_OK && i < sizeof places / sizeof *places; i++) {
        if (i != 3 || doubled) {
            status = add_place(t, what, places[i][0], places[i][1]);
        }
    }
    return status;
}

static jang_status pair_bert(tok *t, const char *what, const json_t *json) {
    return pair_cls_sep(t, what, json, false);
}

static jang_status pair_roberta(tok *t, const char *what, const json_t *json) {
    t->pair.plain_type = 0;
    return pair_cls_sep(t, what, json, true);
}

/* ---- Kinds ---- */

static const struct {
    const char *type;
    jang_status (*read)(tok *t, tok_ids *list, const char *what, const json_t *json);
    jang_status (*read_pair)(tok *t, const char *what, const json_t *json);
} kinds[] = {
    {"TemplateProcessing", read_template, pair_template},
    {"BertProcessing", read_cls_sep, pair_bert},
    {"RobertaProcessing", read_cls_sep, pair_roberta},
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
            t->pair.mixed = t->pair.n > 0;
            return t->pair.mixed ? JANG_OK : kinds[i].read_pair(t, what, json);
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

/* Where both texts of a pair get what one has, the second of type 1. */
static jang_status pair_alike(tok *t, int32_t before, int32_t after) {
    const int32_t places[] = {before, POST_TEXT, after, before, POST_SECOND_TEXT, after};
    jang_status status = JANG_OK;
    for (int i = 0; status == JANG_OK && i < 6; i++) {
        if (i % 3 == 1 || places[i] >= 0) {
            status = add_place(t, "tokenizer", places[i], i >= 3);
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
    post[n++] = POST_TEXT;
    if (after >= 0) {
        post[n++] = after;
    }
    ctx_free(t->ctx, t->post);
    t->post = post;
    t->n_post = n;
    t->n_post_texts = 1;
    t->pair.plain_type = 1;
    return pair_alike(t, before, after);
}

jang_status tok_read_post(tok *t, const char *what, const json_t *json) {
    t->post = ctx_array(t->ctx, 1, sizeof *t->post);
    if (!t->post) {
        return ctx_fail_memory(t->ctx, sizeof *t->post);
    }
    t->post[0] = POST_TEXT;
    t->n_post = 1;
    t->pair.plain_type = 1;
    jang_status status = json ? read_any(t, what, json, 0) : JANG_OK;
    for (size_t i = 0; i < t->n_post; i++) {
        t->n_post_texts += t->post[i] == POST_TEXT;
    }
    return status;
}
