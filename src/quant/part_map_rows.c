/* part_map_rows.c - reading parts that are made of other parts. */
#include "quant/part_maps_impl.h"

#include <assert.h>

int64_t part_map_sources(const model_part *part) {
    return part->map->first == 0 ? part->map->n_sources : 0;
}

/* ---- Parts taken of others ---- */

/* A row of the output and where it comes from. */
typedef struct map_place {
    const model_part *source;
    int64_t matrix; /* first row of its matrix in the source */
    int64_t row;    /* number of the row among those taken of the matrix */
} map_place;

static map_place place_of(const part_map *m, int64_t row) {
    int64_t matrix = row / m->n;
    return (map_place){.source = m->sources[matrix / m->n_matrix],
                       .matrix = matrix % m->n_matrix * m->matrix_rows,
                       .row = row % m->n};
}

/* Rows [p.row, p.row + n) of a matrix, which lie together or apart. */
static jang_status take_rows(float *out, const checkpoint *c, const part_map *m, map_place p,
                             int64_t n) {
    int64_t at = p.matrix + m->first + m->step * p.row, columns = p.source->columns;
    if (m->step == 1) {
        return part_rows_f32(out, c, p.source, at, n);
    }
    jang_status status = JANG_OK;
    for (int64_t i = 0; i < n && status == JANG_OK; i++) {
        status = part_rows_f32(out + i * columns, c, p.source, at + i * m->step, 1);
    }
    return status;
}

#define RUN_ELEMENTS 512

/* n numbers of one row of a source, `step` apart, put `stride` apart. */
static jang_status take_run(float *out, int64_t stride, const checkpoint *c,
                            const model_part *source, int64_t row, int64_t first, int64_t step,
                            int64_t n) {
    float run[RUN_ELEMENTS];
    int64_t most = (RUN_ELEMENTS - 1) / step + 1;
    for (int64_t i = 0; i < n; i += most) {
        int64_t k = n - i < most ? n - i : most;
        jang_status status =
            part_run_f32(run, c, source, row, first + i * step, (k - 1) * step + 1);
        if (status != JANG_OK) {
            return status;
        }
        for (int64_t j = 0; j < k; j++) {
            out[(i + j) * stride] = run[j * step];
        }
    }
    return JANG_OK;
}

static jang_status take_columns(float *out, const checkpoint *c, const part_map *m, map_place p,
                                int64_t n) {
    jang_status status = JANG_OK;
    for (int64_t i = 0; i < m->n_row && status == JANG_OK; i++) {
        status = take_run(out + i, m->n_row, c, p.source, p.matrix + m->from_row + i,
                          m->first + m->step * p.row, m->step, n);
    }
    return status;
}

static jang_status taken_rows(float *out, const checkpoint *c, const model_part *part,
                              int64_t first, int64_t n) {
    const part_map *m = part->map;
    jang_status status = JANG_OK;
    for (int64_t i = 0; i < n && status == JANG_OK && m->vector; i++) {
        status = take_run(out + i * part->columns, 1, c, m->sources[0], first + i, m->first,
                          m->step, part->columns);
    }
    for (int64_t i = 0, k; i < n && status == JANG_OK && !m->vector; i += k) {
        map_place p = place_of(m, first + i);
        k = m->n - p.row < n - i ? m->n - p.row : n - i;
        status = m->columns ? take_columns(out + i * part->columns, c, m, p, k)
                            : take_rows(out + i * part->columns, c, m, p, k);
    }
    return status;
}

/* ---- Parts put together of others ---- */

/* Where a line of a joined matrix lies. */
typedef struct join_place {
    const model_part *source;
    int64_t number; /* of the source */
    int64_t line;   /* within the source's matrix */
    int64_t n;      /* so many lines from here on lie together */
} join_place;

/* Of `lines` lines of a matrix. */
static join_place join_place_of(const part_map *m, int64_t line, int64_t lines) {
    bool in_turn = m->take == TAKE_EVEN;
    int64_t k = m->n_sources == 1 ? 0 : in_turn ? line % 2 : line >= m->n;
    return (join_place){.source = m->sources[k],
                        .number = k,
                        .line = in_turn ? line / 2 : line - k * m->n,
                        .n = in_turn ? 1 : (k || m->n_sources == 1 ? lines : m->n) - line};
}

/* n columns of a source's matrix, which has so many rows, as rows of `width` numbers: element j of
 * one is put at out[first + step * j]. */
static jang_status turn(float *out, int64_t width, const checkpoint *c, const model_part *source,
                        int64_t matrix, int64_t rows, int64_t column, int64_t n, int64_t first,
                        int64_t step) {
    jang_status status = JANG_OK;
    for (int64_t j = 0; j < rows && status == JANG_OK; j++) {
        status =
            take_run(out + first + step * j, width, c, source, matrix * rows + j, column, 1, n);
    }
    return status;
}

/* Rows [row, row + n) of a matrix whose lines are its columns, or of a vector's one. */
static jang_status join_columns(float *out, const checkpoint *c, const model_part *part,
                                int64_t matrix, int64_t row, int64_t n) {
    const part_map *m = part->map;
    bool in_turn = m->take == TAKE_EVEN;
    int64_t step = in_turn ? 2 : 1;
    jang_status status = JANG_OK;
    for (int64_t k = 0; k < m->n_sources && status == JANG_OK; k++) {
        int64_t first = in_turn ? k : k * m->n;
        status = m->vector ? take_run(out + first, step, c, m->sources[k], matrix, 0, 1, m->n)
                           : turn(out, part->columns, c, m->sources[k], matrix, m->n, row, n, first,
                                  step);
    }
    return status;
}

/* Rows [row, row + n) of a matrix whose lines are its rows: plain ones, or MLA's, of which a head's
 * keys are columns of their source. *done: how many of them. */
static jang_status join_lines(float *out, int64_t *done, const checkpoint *c,
                              const model_part *part, int64_t matrix, int64_t row, int64_t n) {
    const part_map *m = part->map;
    join_place p = join_place_of(m, row, m->matrix_rows);
    int64_t most = p.n < n ? p.n : n;
    *done = most;
    if (m->take == TAKE_HEAD_KEYS && p.number == 0) {
        return turn(out, part->columns, c, p.source, matrix, part->columns, p.line, most, 0, 1);
    }
    int64_t rows = p.number ? m->matrix_rows - m->n : m->n;
    return part_rows_f32(out, c, p.source, matrix * rows + p.line, most);
}

static jang_status joined_rows(float *out, const checkpoint *c, const model_part *part,
                               int64_t first, int64_t n) {
    const part_map *m = part->map;
    jang_status status = JANG_OK;
    for (int64_t i = 0, k; i < n && status == JANG_OK; i += k) {
        int64_t matrix = (first + i) / m->matrix_rows, row = (first + i) % m->matrix_rows;
        float *to = out + i * part->columns;
        k = m->matrix_rows - row < n - i ? m->matrix_rows - row : n - i;
        status = m->columns || m->vector ? join_columns(to, c, part, matrix, row, k)
                                         : join_lines(to, &k, c, part, matrix, row, k);
    }
    return status;
}

/* ---- Either ---- */

jang_status part_map_rows(float *out, const checkpoint *c, const model_part *part, int64_t first,
                          int64_t n) {
    return part->map->join ? joined_rows(out, c, part, first, n)
                           : taken_rows(out, c, part, first, n);
}

jang_status part_map_run(float *out, const checkpoint *c, const model_part *part, int64_t row,
                         int64_t column, int64_t n) {
    const part_map *m = part->map;
    assert(!m->join); /* nothing is made of joins */
    if (m->vector) {
        return take_run(out, 1, c, m->sources[0], row, m->first + m->step * column, m->step, n);
    }
    map_place p = place_of(m, row);
    int64_t line = m->first + m->step * p.row;
    if (!m->columns) {
        return part_run_f32(out, c, p.source, p.matrix + line, column, n);
    }
    jang_status status = JANG_OK;
    for (int64_t i = 0; i < n && status == JANG_OK; i++) {
        status = part_run_f32(out + i, c, p.source, p.matrix + m->from_row + column + i, line, 1);
    }
    return status;
}

int64_t part_map_together(const model_part *part) {
    const part_map *m = part->map;
    return m && (m->columns || m->take == TAKE_HEAD_KEYS) ? 64 : 1;
}

/* The source's row that a row is; NULL: it is none's. */
static const model_part *row_source(const model_part *part, int64_t row, int64_t *at) {
    const part_map *m = part->map;
    if (m->columns || m->vector || m->take == TAKE_HEAD_KEYS) {
        return NULL;
    }
    if (!m->join) {
        map_place p = place_of(m, row);
        *at = p.matrix + m->first + m->step * p.row;
        return p.source;
    }
    join_place p = join_place_of(m, row % m->matrix_rows, m->matrix_rows);
    *at = row / m->matrix_rows * (p.number ? m->matrix_rows - m->n : m->n) + p.line;
    return p.source;
}

const model_part *part_map_source(const model_part *part, int64_t row, int64_t *at) {
    const model_part *source = row_source(part, row, &row);
    if (source && source->map) {
        return part_map_source(source, row, at);
    }
    *at = row;
    return source;
}

void part_map_drop(const checkpoint *c, const model_part *part, int64_t first, int64_t n) {
    const part_map *m = part->map;
    if (m->columns || m->vector || m->take == TAKE_HEAD_KEYS || m->take == TAKE_EVEN) {
        return; /* other rows of the output read the same pages */
    }
    for (int64_t i = 0, k; i < n; i += k) {
        int64_t at = 0, matrix = m->join ? m->matrix_rows : m->n, row = (first + i) % matrix;
        const model_part *source = row_source(part, first + i, &at);
        int64_t most = m->join ? join_place_of(m, row, matrix).n : matrix - row;
        k = most < n - i ? most : n - i;
        part_drop_rows(c, source, at, m->join ? k : (k - 1) * m->step + 1);
    }
}
