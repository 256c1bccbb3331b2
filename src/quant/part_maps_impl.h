/* part_maps_impl.h - what the files of part_maps.h share; nobody else includes it. */
#ifndef JANG_QUANT_PART_MAPS_IMPL_H
#define JANG_QUANT_PART_MAPS_IMPL_H

#include "quant/part_maps.h"

/* How a part is read from its sources. A map takes lines (rows, or columns, which become rows) of
 * each of its sources' matrices; a join puts the lines of its sources, one or two, together again,
 * matrix by matrix. */
struct part_map {
    const model_part **sources; /* [n_sources] */
    int64_t n_sources;
    int64_t n_matrix, matrix_rows; /* of a source: so many matrices of so many rows; of a join: of
                                      the part itself */
    int64_t first, step, n;        /* lines of a matrix that are taken of each source */
    bool columns;                  /* the lines are columns */
    int64_t from_row, n_row;       /* where columns are taken: of these rows */
    bool vector;                   /* a row is one matrix's bias, whose elements are the lines */
    bool join;
    map_take take; /* of a join: what its first source was taken as */
};

struct part_maps {
    model_part *parts; /* of the checkpoint, all */
    part_map *maps;    /* [n] */
    size_t n;
    part_maps *next; /* made before, of whose parts these are */
};

/* Parts in the making: those of a list are replaced by others. */
typedef struct mapper {
    part_list *list;
    part_list source; /* the parts as they were, to look names up in */
    const map_sizes *sizes;
    bool *used; /* [source.n_parts] */
    model_part *out;
    size_t n_out, capacity;
} mapper;

/* Makes room for n more parts and their names. */
JANG_MUST_CHECK jang_status mapper_make_room(mapper *m, size_t n);
/* The parts that were made, and those that none is made of, become the list's, the old ones the
 * map's; or status is passed on. */
JANG_MUST_CHECK jang_status mapper_finish(mapper *m, jang_status status);

/* What follows "layers.N." in a name; NULL: nothing does. */
const char *map_after_layer(const char *name);
/* Whether a name below the layer is a rule's source; a '*' is "0", the first expert. */
bool map_is_source(const map_rule *rule, const char *local);
/* Whether a rule makes a bias of each expert's. */
bool map_is_bias(const map_rule *rule);
/* A part that is packed along what is summed over, and so lies as the output does. */
bool map_in_groups(const model_part *source);

#endif
