/* part_maps.h - parts of the output that are made of other parts than one for one: experts stacked,
 * fused matrices split, turned where a checkpoint holds columns.
 *
 * A map looks at its sources as matrices [rows, columns], so many a source, one after the other. It
 * takes some rows of each, or some columns, which become rows. The same rules read backwards give
 * the sources of what they make (part_list_unmap). Nothing is copied: rows are read
 * from the sources as they are asked for, so a conversion's memory stays bounded. */
#ifndef JANG_QUANT_PART_MAPS_H
#define JANG_QUANT_PART_MAPS_H

#include "quant/parts.h"

/* Which rows (or columns) of a source's matrix are taken. */
typedef enum map_take {
    TAKE_ALL,
    TAKE_FIRST_HALF,
    TAKE_SECOND_HALF,
    TAKE_EVEN,
    TAKE_ODD,
    TAKE_HEAD_KEYS,   /* MLA's kv_b_proj: of each head, the key's rows, turned: [lora, key] */
    TAKE_HEAD_VALUES, /* ... the value's rows */
} map_take;

/* Names below "layers.N."; '*' in the source's name is an expert's number, 0 and up, and the parts
 * of all numbers are stacked. Several rules may take from one source. */
typedef struct map_rule {
    const char *source, *output;
    map_take take;
    bool columns; /* rows of the output are columns of the source, unless that is packed in groups
                     along what is summed over (MXFP4, GPTQ), and so lies as the output does */
} map_rule;

/* Numbers that splitting needs. */
typedef struct map_sizes {
    int64_t n_head, key_dim, value_dim; /* of MLA: heads, their keys without RoPE, values */
} map_sizes;

typedef struct part_map part_map;
typedef struct part_maps part_maps;

/* Replaces the parts that rules name as sources by those that the rules make of them. tables ends
 * with NULL, each table with a NULL source. Errors: experts of unequal shape or type, numbers left
 * out, shapes that do not divide. */
JANG_MUST_CHECK jang_status part_list_map(part_list *list, const map_rule *const *tables,
                                          const map_sizes *sizes);

/* The way back: replaces the used parts that rules would have made by those that they are made of,
 * under the names of the rules' sources: matrices one by one, halves put together, turned. A source
 * that the parts were made of is taken again as it was. Only rules that the filter lets through
 * count; where one of several outputs of a source is missing, the others stay. */
typedef bool (*map_filter)(const map_rule *table, const map_rule *rule, const void *arg);
JANG_MUST_CHECK jang_status part_list_unmap(part_list *list, const map_rule *const *tables,
                                            map_filter filter, const void *arg);

void part_maps_free(part_maps *maps, ctx_t *ctx);

/* How many of the checkpoint's tensors a part with a map is made of; 0 for all but the first of the
 * parts that are made of the same ones. */
int64_t part_map_sources(const model_part *part);

/* part_rows_f32, part_run_f32 (of one that is no join) and part_drop_rows of a part that has a map.
 */
JANG_MUST_CHECK jang_status part_map_rows(float *out, const checkpoint *c, const model_part *part,
                                          int64_t first, int64_t n);
JANG_MUST_CHECK jang_status part_map_run(float *out, const checkpoint *c, const model_part *part,
                                         int64_t row, int64_t column, int64_t n);
/* How many rows should be read at once, since they lie in the same places of the sources. */
int64_t part_map_together(const model_part *part);
/* The stored part that a row is taken from, and its row there; NULL: it is made of columns. */
const model_part *part_map_source(const model_part *part, int64_t row, int64_t *at);
void part_map_drop(const checkpoint *c, const model_part *part, int64_t first, int64_t n);

#endif
