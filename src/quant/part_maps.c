/* part_maps.c - making parts of other parts: stacking experts, splitting and turning matrices. */
#include "quant/part_maps_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void part_maps_free(part_maps *maps, ctx_t *ctx) {
    while (maps) {
        part_maps *next = maps->next;
        for (size_t i = 0; i < maps->n; i++) {
            ctx_free(ctx, maps->maps[i].sources);
        }
        ctx_free(ctx, maps->maps);
        ctx_free(ctx, maps->parts);
        ctx_free(ctx, maps);
        maps = next;
    }
}

/* ---- Making one -------------------------------------------------------------------------------
 */

static jang_status fail_shape(const mapper *m, const model_part *source, const char *output) {
    return ctx_fail(m->list->ctx, JANG_ERR_FORMAT,
                    "tensor %s (%lld rows of %lld) cannot be split into %s", source->name,
                    (long long)source->rows, (long long)source->columns, output);
}

/* Which of n rows (or columns) a rule takes; false: they cannot be halved. */
static bool choose_rows(part_map *map, map_take take, int64_t n) {
    bool half = take != TAKE_ALL, apart = take == TAKE_EVEN || take == TAKE_ODD;
    bool second = take == TAKE_SECOND_HALF || take == TAKE_ODD;
    map->n = half ? n / 2 : n;
    map->step = apart ? 2 : 1;
    map->first = !second ? 0 : apart ? 1 : n / 2;
    return !half || n % 2 == 0;
}

/* MLA: kv_b_proj is [heads * (key + value), lora]. */
static bool choose_heads(part_map *map, const mapper *m, map_take take, const model_part *source) {
    int64_t key = m->sizes->key_dim, value = m->sizes->value_dim;
    if (key < 1 || value < 1 || source->n_dim != 2 ||
        m->sizes->n_head * (key + value) != source->rows) {
        return false;
    }
    bool keys = take == TAKE_HEAD_KEYS;
    map->n_matrix = m->sizes->n_head;
    map->matrix_rows = key + value;
    map->columns = keys;
    map->first = keys ? 0 : key;
    map->step = 1;
    map->n = keys ? source->columns : value;
    map->from_row = 0;
    map->n_row = key;
    return true;
}

bool map_is_bias(const map_rule *rule) {
    size_t n = strlen(rule->output);
    return n >= 5 && strcmp(rule->output + n - 5, ".bias") == 0;
}

bool map_in_groups(const model_part *source) {
    return source->packing != PACKING_NONE && source->packing != PACKING_FP8;
}

/* Fills in what a rule takes of a source, and the shape of what it makes. */
static bool describe(part_map *map, model_part *part, const mapper *m, const map_rule *rule,
                     const model_part *source) {
    bool heads = rule->take == TAKE_HEAD_KEYS || rule->take == TAKE_HEAD_VALUES;
    if (heads) {
        part->n_dim = 3;
        part->shape[0] = m->sizes->n_head;
        bool fits = choose_heads(map, m, rule->take, source);
        part->shape[1] = map->n;
        part->shape[2] = map->columns ? map->n_row : source->columns;
        return fits;
    }
    if (map_is_bias(rule)) { /* [experts, n] */
        map->vector = true;
        map->n_matrix = source->rows;
        part->n_dim = 2;
        part->shape[0] = source->rows;
        bool fits = choose_rows(map, rule->take, source->columns);
        part->shape[1] = map->n;
        return fits && source->n_dim == 2;
    }
    if (source->n_dim < 2) {
        return false;
    }
    bool stacked = strchr(rule->source, '*'), flat = !stacked && source->n_dim == 2;
    map->n_matrix = source->n_dim == 2 ? 1 : source->shape[0];
    map->matrix_rows = source->shape[source->n_dim - 2];
    map->columns = rule->columns && !map_in_groups(source);
    map->n_row = map->matrix_rows;
    bool fits = choose_rows(map, rule->take, map->columns ? source->columns : map->matrix_rows);
    const int64_t shape[3] = {map->n_matrix * map->n_sources, map->n,
                              map->columns ? map->n_row : source->columns};
    part->n_dim = flat ? 2 : 3;
    memcpy(part->shape, shape + flat, sizeof shape - (size_t)flat * sizeof *shape);
    return fits && source->n_dim == (stacked || flat ? 2 : 3);
}

static bool can_take_columns(const model_part *source) {
    return source->packing == PACKING_FP8 ||
           (source->packing == PACKING_NONE && dtype_table[source->weight->type].is_float);
}

/* Adds a part of this name made of sources, which it takes over. */
static jang_status add_part(mapper *m, const map_rule *rule, char *name, const model_part **sources,
                            int64_t n) {
    part_maps *maps = m->list->maps;
    part_map *map = &maps->maps[maps->n++];
    *map = (part_map){.sources = sources, .n_sources = n};
    const model_part *source = sources[0];
    model_part part = *source;
    part.name = name;
    part.role = role_of(name);
    if (!describe(map, &part, m, rule, source) || map->n < 1) {
        return fail_shape(m, source, name);
    }
    if ((map->columns || map->vector) && !can_take_columns(source)) {
        return ctx_fail(m->list->ctx, JANG_ERR_UNSUPPORTED,
                        "tensor %s: its columns cannot be taken, as %s needs", source->name, name);
    }
    part.map = map;
    part_set_sizes(&part);
    part.n_bytes = (size_t)((double)source->n_bytes * (double)part.params / (double)source->params);
    m->out[m->n_out++] = part;
    return JANG_OK;
}

/* ---- Finding sources --------------------------------------------------------------------------
 */

const char *map_after_layer(const char *name) {
    int layer;
    const char *below = role_below_layer(name, &layer);
    return below && *below ? below : NULL;
}

bool map_is_source(const map_rule *rule, const char *local) {
    const char *star = strchr(rule->source, '*');
    if (!star) {
        return strcmp(rule->source, local) == 0;
    }
    size_t n = (size_t)(star - rule->source);
    return strncmp(rule->source, local, n) == 0 && local[n] == '0' &&
           strcmp(star + 1, local + n + 1) == 0;
}

/* The part of expert i whose first expert's part has this name; NULL: there is none. */
static const model_part *expert_part(const mapper *m, const map_rule *rule, const char *first,
                                     int64_t i) {
    const char *local = map_after_layer(first), *star = strchr(rule->source, '*');
    int n = (int)(local - first + (star - rule->source));
    char name[512];
    int length = snprintf(name, sizeof name, "%.*s%lld%s", n, first, (long long)i, star + 1);
    return length < (int)sizeof name ? part_find(&m->source, name) : NULL;
}

static bool same_form(const model_part *a, const model_part *b) {
    return a->n_dim == b->n_dim &&
           memcmp(a->shape, b->shape, (size_t)a->n_dim * sizeof *a->shape) == 0 &&
           a->weight->type == b->weight->type && a->packing == b->packing && a->bits == b->bits &&
           a->group == b->group;
}

/* Lists the sources of a rule, given the first. */
static jang_status find_sources(const model_part ***out, int64_t *n, mapper *m,
                                const map_rule *rule, const model_part *first) {
    int64_t count = 1;
    while (strchr(rule->source, '*') && expert_part(m, rule, first->name, count)) {
        count++;
    }
    const model_part **sources = ctx_array(m->list->ctx, (size_t)count, sizeof *sources);
    if (!sources) {
        return ctx_fail_memory(m->list->ctx, (size_t)count * sizeof *sources);
    }
    sources[0] = first;
    for (int64_t i = 1; i < count; i++) {
        sources[i] = expert_part(m, rule, first->name, i);
        if (!same_form(first, sources[i])) {
            jang_status status =
                ctx_fail(m->list->ctx, JANG_ERR_UNSUPPORTED,
                         "tensor %s has another shape or type than %s: they cannot be stacked",
                         sources[i]->name, first->name);
            ctx_free(m->list->ctx, sources);
            return status;
        }
    }
    for (int64_t i = 0; i < count; i++) {
        m->used[sources[i] - m->source.parts] = true;
    }
    *out = sources;
    *n = count;
    return JANG_OK;
}

static jang_status apply_rule(mapper *m, const map_rule *rule, const model_part *first) {
    const model_part **sources = NULL;
    int64_t n = 0;
    jang_status status = find_sources(&sources, &n, m, rule, first);
    if (status != JANG_OK) {
        return status;
    }
    size_t before = (size_t)(map_after_layer(first->name) - first->name);
    char *name = ctx_alloc(m->list->ctx, before + strlen(rule->output) + 1);
    if (!name) {
        ctx_free(m->list->ctx, sources);
        return ctx_fail_memory(m->list->ctx, before);
    }
    memcpy(name, first->name, before);
    memcpy(name + before, rule->output, strlen(rule->output) + 1);
    m->list->names[m->list->n_names++] = name;
    return add_part(m, rule, name, sources, n);
}

/* Calls fn for each part and each rule that it begins. */
static jang_status for_each(mapper *m, const map_rule *const *tables, size_t *n_matches) {
    jang_status status = JANG_OK;
    for (size_t i = 0; i < m->source.n_parts; i++) {
        const model_part *part = &m->source.parts[i];
        const char *local = map_after_layer(part->name);
        for (const map_rule *const *table = tables; local && *table; table++) {
            for (const map_rule *rule = *table; rule->source && status == JANG_OK; rule++) {
                if (map_is_source(rule, local)) {
                    status = n_matches ? JANG_OK : apply_rule(m, rule, part);
                    *(n_matches ? n_matches : &(size_t){0}) += 1;
                }
            }
        }
    }
    return status;
}

static int compare_parts(const void *a, const void *b) {
    return part_compare_names(((const model_part *)a)->name, ((const model_part *)b)->name);
}

jang_status mapper_make_room(mapper *m, size_t n) {
    part_list *list = m->list;
    size_t total = list->n_parts + n;
    char **names = ctx_realloc(list->ctx, list->names, (list->n_names + n + 1) * sizeof *names);
    if (!names) {
        return ctx_fail_memory(list->ctx, total * sizeof *names);
    }
    list->names = names;
    part_maps *maps = ctx_zero(list->ctx, 1, sizeof *maps);
    m->out = ctx_zero(list->ctx, total + 1, sizeof *m->out);
    m->used = ctx_zero(list->ctx, list->n_parts + 1, sizeof *m->used);
    if (maps) {
        maps->maps = ctx_zero(list->ctx, n, sizeof *maps->maps);
        maps->next = list->maps;
        list->maps = maps;
    }
    if (!maps || !maps->maps || !m->out || !m->used) {
        return ctx_fail_memory(list->ctx, total * sizeof *m->out);
    }
    return JANG_OK;
}

jang_status mapper_finish(mapper *m, jang_status status) {
    part_list *list = m->list;
    for (size_t i = 0; i < m->source.n_parts && status == JANG_OK; i++) {
        if (!m->used[i]) {
            m->out[m->n_out++] = m->source.parts[i];
        }
    }
    ctx_free(list->ctx, m->used);
    if (status != JANG_OK) {
        ctx_free(list->ctx, m->out);
        return status;
    }
    list->maps->parts = list->parts;
    list->parts = m->out;
    list->n_parts = m->n_out;
    qsort(list->parts, list->n_parts, sizeof *list->parts, compare_parts);
    return JANG_OK;
}

jang_status part_list_map(part_list *list, const map_rule *const *tables, const map_sizes *sizes) {
    mapper m = {.list = list, .source = *list, .sizes = sizes};
    size_t n = 0;
    jang_status status = for_each(&m, tables, &n);
    if (status != JANG_OK || n == 0) {
        return status;
    }
    status = mapper_make_room(&m, n);
    if (status == JANG_OK) {
        status = for_each(&m, tables, NULL);
    }
    return mapper_finish(&m, status);
}
