/* part_joins.c - the way back of part maps: parts as the rules that made them found them. */
#include "quant/part_maps_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PIECES 2

/* A rule and a part that it made, first of those that were taken of the rule's source. */
typedef struct made_part {
    const map_rule *rule;
    const model_part *pieces[MAX_PIECES]; /* all that were */
    int64_t n_pieces;
} made_part;

/* The used part "LAYER output", beside a part of the same layer; NULL: there is none. */
static const model_part *beside(const mapper *m, const model_part *part, const char *output) {
    char name[512];
    int n = snprintf(name, sizeof name, "%.*s%s", (int)(map_after_layer(part->name) - part->name),
                     part->name, output);
    const model_part *other = n < (int)sizeof name ? part_find(&m->source, name) : NULL;
    return other && other->used ? other : NULL;
}

static bool has_number(const map_rule *rule) {
    return strchr(rule->source, '*') != NULL;
}

/* Whether what a table makes of a rule's source is all there, the part as its first output. */
static bool find_pieces(made_part *out, const mapper *m, const map_rule *table,
                        const map_rule *rule, const model_part *part) {
    *out = (made_part){.rule = rule, .pieces = {part}, .n_pieces = 1};
    for (const map_rule *r = table; r->source; r++) {
        if (r == rule || strcmp(r->source, rule->source) != 0) {
            continue;
        }
        const model_part *other = beside(m, part, r->output);
        if (r < rule || !other || out->n_pieces == MAX_PIECES) {
            return false;
        }
        out->pieces[out->n_pieces++] = other;
    }
    bool halved = rule->take != TAKE_ALL;
    return out->n_pieces == (halved ? 2 : 1) && (!has_number(rule) || part->n_dim == 3);
}

/* Whether a part is the first of what a rule made of something. */
static bool was_made(made_part *out, const mapper *m, const map_rule *const *tables,
                     const model_part *part, map_filter filter, const void *arg) {
    const char *local = map_after_layer(part->name);
    for (; local && part->used && *tables; tables++) {
        for (const map_rule *rule = *tables; rule->source; rule++) {
            if (strcmp(rule->output, local) == 0 && filter(*tables, rule, arg) &&
                find_pieces(out, m, *tables, rule, part)) {
                return true;
            }
        }
    }
    return false;
}

/* ---- What was there before ---- */

/* The part that matrix i was before it was stacked, or that all pieces were taken of; NULL: they
 * were stored as they are, or were made of other things. */
static const model_part *before_map(const made_part *made, int64_t i) {
    const part_map *first = made->pieces[0]->map;
    for (int64_t k = 0; k < made->n_pieces; k++) {
        const part_map *map = made->pieces[k]->map;
        if (!map || map->join || map->sources[0] != first->sources[0]) {
            return NULL;
        }
    }
    if (first->columns != made->rule->columns) {
        return NULL;
    }
    int64_t n = has_number(made->rule) ? made->pieces[0]->shape[0] : 1;
    const char *local = map_after_layer(first->sources[0]->name);
    return first->n_sources == n && local && map_is_source(made->rule, local) ? first->sources[i]
                                                                              : NULL;
}

/* ---- Putting together ---- */

static jang_status fail_pieces(const mapper *m, const made_part *made, const char *why) {
    return ctx_fail(m->list->ctx, JANG_ERR_UNSUPPORTED, "tensor %s cannot become %s: %s",
                    made->pieces[0]->name, made->rule->source, why);
}

/* The joined part's map and shape, for MLA's kv_b_proj: [heads * (key + value), lora]. */
static bool join_heads(part_map *map, model_part *part, const made_part *made) {
    const model_part *keys = made->pieces[0], *values = made->pieces[1];
    if (made->n_pieces != 2 || keys->n_dim != 3 || values->n_dim != 3 ||
        keys->shape[0] != values->shape[0] || keys->shape[1] != values->shape[2]) {
        return false;
    }
    map->n = keys->shape[2];
    map->matrix_rows = keys->shape[2] + values->shape[1];
    part->n_dim = 2;
    part->shape[0] = keys->shape[0] * map->matrix_rows;
    part->shape[1] = keys->shape[1];
    return true;
}

/* ... for halves, lines in turn and what was only turned or renamed. */
static bool join_lines(part_map *map, model_part *part, const made_part *made) {
    const model_part *piece = made->pieces[0];
    for (int64_t k = 1; k < made->n_pieces; k++) {
        const model_part *other = made->pieces[k];
        if (other->n_dim != piece->n_dim ||
            memcmp(other->shape, piece->shape, (size_t)piece->n_dim * sizeof *piece->shape) != 0) {
            return false;
        }
    }
    if (piece->n_dim < 2) {
        return false;
    }
    int64_t *rows = &part->shape[part->n_dim - 2], *columns = rows + 1;
    map->vector = map_is_bias(made->rule);
    map->columns = made->rule->columns;
    map->n = map->vector ? *columns : *rows;
    if (map->vector) {
        *columns *= made->n_pieces;
    } else if (map->columns) {
        int64_t width = *rows * made->n_pieces;
        *rows = *columns;
        *columns = width;
    } else {
        *rows *= made->n_pieces;
    }
    map->matrix_rows = map->vector ? 1 : *rows;
    return true;
}

static bool is_packed_int(const model_part *part) {
    return part->packing == PACKING_AWQ || part->packing == PACKING_GPTQ;
}

static jang_status describe_join(mapper *m, part_map *map, model_part *part,
                                 const made_part *made) {
    map->join = true;
    map->take = made->rule->take;
    bool heads = map->take == TAKE_HEAD_KEYS;
    if (!(heads ? join_heads(map, part, made) : join_lines(map, part, made))) {
        return fail_pieces(m, made, "shapes do not fit");
    }
    part_set_sizes(part);
    part->n_bytes = 0;
    for (int64_t k = 0; k < made->n_pieces; k++) {
        part->n_bytes += made->pieces[k]->n_bytes;
        if ((map->columns || map->vector || heads) && is_packed_int(made->pieces[k])) {
            return fail_pieces(m, made, "columns of AWQ's and GPTQ's matrices cannot be taken");
        }
    }
    return JANG_OK;
}

/* Matrix i of a stacked part as a part of its own. */
static void describe_matrix(part_map *map, model_part *part, const model_part *stacked, int64_t i) {
    map->n_matrix = 1;
    map->matrix_rows = map->n = stacked->shape[1];
    map->first = i * stacked->shape[1];
    map->step = 1;
    part->n_dim = 2;
    part->shape[0] = stacked->shape[1];
    part->shape[1] = stacked->shape[2];
    part_set_sizes(part);
    part->n_bytes = stacked->n_bytes / (size_t)stacked->shape[0];
}

/* "LAYER mlp.experts.3.up_proj.weight" of a piece's name and the rule's source. */
static char *source_name(ctx_t *ctx, const made_part *made, int64_t i) {
    const char *piece = made->pieces[0]->name, *source = made->rule->source;
    int before = (int)(map_after_layer(piece) - piece);
    size_t most = (size_t)before + strlen(source) + 24;
    char *name = ctx_alloc(ctx, most);
    if (name && has_number(made->rule)) {
        int n = (int)strcspn(source, "*");
        snprintf(name, most, "%.*s%.*s%lld%s", before, piece, n, source, (long long)i,
                 source + n + 1);
    } else if (name) {
        snprintf(name, most, "%.*s%s", before, piece, source);
    }
    return name;
}

/* Adds the part number i that the rule's source was. */
static jang_status add_source(mapper *m, const made_part *made, int64_t i) {
    ctx_t *ctx = m->list->ctx;
    char *name = source_name(ctx, made, i);
    if (!name) {
        return ctx_fail_memory(ctx, strlen(made->rule->source));
    }
    m->list->names[m->list->n_names++] = name;
    const model_part *old = before_map(made, i);
    model_part part = old ? *old : *made->pieces[0];
    part.name = name;
    part.role = role_of(name);
    part.used = true;
    if (!old) {
        size_t n = (size_t)made->n_pieces;
        part_map *map = &m->list->maps->maps[m->list->maps->n];
        const model_part **sources = ctx_array(ctx, n, sizeof *sources);
        if (!sources) {
            return ctx_fail_memory(ctx, n * sizeof *sources);
        }
        m->list->maps->n++;
        memcpy(sources, made->pieces, n * sizeof *sources);
        *map = (part_map){.sources = sources, .n_sources = made->n_pieces};
        part.map = map;
        if (has_number(made->rule)) {
            describe_matrix(map, &part, made->pieces[0], i);
        } else {
            jang_status status = describe_join(m, map, &part, made);
            if (status != JANG_OK) {
                return status;
            }
        }
    }
    m->out[m->n_out++] = part;
    return JANG_OK;
}

static int64_t count_sources(const made_part *made) {
    return has_number(made->rule) ? made->pieces[0]->shape[0] : 1;
}

jang_status part_list_unmap(part_list *list, const map_rule *const *tables, map_filter filter,
                            const void *arg) {
    mapper m = {.list = list, .source = *list};
    made_part made;
    size_t n = 0;
    for (size_t i = 0; i < list->n_parts; i++) {
        if (was_made(&made, &m, tables, &list->parts[i], filter, arg)) {
            n += (size_t)count_sources(&made);
        }
    }
    if (n == 0) {
        return JANG_OK;
    }
    jang_status status = mapper_make_room(&m, n);
    for (size_t i = 0; i < m.source.n_parts && status == JANG_OK; i++) {
        if (!was_made(&made, &m, tables, &m.source.parts[i], filter, arg)) {
            continue;
        }
        for (int64_t k = 0; k < made.n_pieces; k++) {
            m.used[made.pieces[k] - m.source.parts] = true;
        }
        for (int64_t k = 0; k < count_sources(&made) && status == JANG_OK; k++) {
            status = add_source(&m, &made, k);
        }
    }
    return mapper_finish(&m, status);
}
