/* safetensors.c - opening a safetensors file. The header's text is st_header.c's matter, writing
 * st_writer.c's. */
#include "format/safetensors.h"

#include "format/st_header.h"

#include <stdlib.h>
#include <string.h>

/* The reference implementation's limit. */
#define HEADER_MAX 100000000u

/* A tensor and its place, sorted by place. */
typedef struct placed {
    tensor_view view;
    uint64_t begin, end;
} placed;

static int compare_places(const void *a, const void *b) {
    const placed *p = a, *q = b;
    if (p->begin != q->begin) {
        return p->begin < q->begin ? -1 : 1;
    }
    if (p->end != q->end) {
        return p->end < q->end ? -1 : 1;
    }
    return strcmp(p->view.name, q->view.name);
}

/* The header's place in the file. */
static jang_status find_header(size_t *n_header, ctx_t *ctx, const char *path,
                               const file_map *map) {
    if (map->n_bytes < 10) {
        return ctx_fail(ctx, JANG_ERR_FORMAT, "%s: %zu bytes are too short for a safetensors file",
                        path, map->n_bytes);
    }
    uint64_t n;
    memcpy(&n, map->data, 8);
    if (n > map->n_bytes - 8 || n > HEADER_MAX) {
        return ctx_fail(ctx, JANG_ERR_FORMAT,
                        "%s: the header is said to have %llu bytes, the file has %zu after its "
                        "length, and at most %u are allowed",
                        path, (unsigned long long)n, map->n_bytes - 8, HEADER_MAX);
    }
    *n_header = (size_t)n;
    return JANG_OK;
}

/* Tensors in order must cover the data from the first byte to the last. */
static jang_status check_places(ctx_t *ctx, const char *path, const placed *list, size_t n,
                                uint64_t n_data) {
    uint64_t end = 0;
    for (size_t i = 0; i < n; i++) {
        const placed *p = &list[i];
        if (p->end > n_data) {
            return ctx_fail(ctx, JANG_ERR_FORMAT,
                            "%s: tensor %s: its bytes end at %llu of %llu bytes of data; the file "
                            "is cut off or damaged",
                            path, p->view.name, (unsigned long long)p->end,
                            (unsigned long long)n_data);
        }
        if (p->begin < end) {
            return ctx_fail(ctx, JANG_ERR_FORMAT,
                            "%s: tensor %s overlaps tensor %s: it begins at byte %llu, the other "
                            "ends at %llu",
                            path, p->view.name, list[i - 1].view.name, (unsigned long long)p->begin,
                            (unsigned long long)end);
        }
        if (p->begin > end) {
            return ctx_fail(ctx, JANG_ERR_FORMAT,
                            "%s: tensor %s: a hole of %llu bytes before it, none is allowed", path,
                            p->view.name, (unsigned long long)(p->begin - end));
        }
        end = p->end;
    }
    if (end != n_data) {
        return ctx_fail(ctx, JANG_ERR_FORMAT,
                        "%s: %llu bytes after the last tensor, none is allowed", path,
                        (unsigned long long)(n_data - end));
    }
    return JANG_OK;
}

static jang_status place_tensors(st_header *h, ctx_t *ctx, const char *path, const uint8_t *data,
                                 uint64_t n_data) {
    placed *list = ctx_array(ctx, h->n_tensors, sizeof *list);
    if (!list) {
        return ctx_fail_memory(ctx, h->n_tensors * sizeof *list);
    }
    bool sorted = true;
    for (size_t i = 0; i < h->n_tensors; i++) {
        list[i] = (placed){h->tensors[i], h->offsets[i][0], h->offsets[i][1]};
        sorted = sorted && (i == 0 || compare_places(&list[i - 1], &list[i]) < 0);
    }
    if (!sorted) {
        qsort(list, h->n_tensors, sizeof *list, compare_places);
    }
    jang_status status = check_places(ctx, path, list, h->n_tensors, n_data);
    for (size_t i = 0; status == JANG_OK && i < h->n_tensors; i++) {
        h->tensors[i] = list[i].view;
        h->tensors[i].data = data + list[i].begin;
    }
    ctx_free(ctx, list);
    return status;
}

jang_status st_open(st_file *out, ctx_t *ctx, const char *path) {
    file_map map = {0};
    st_header h = {0};
    size_t n_header = 0;
    jang_status status = file_map_open(&map, ctx, path);
    if (status != JANG_OK) {
        return status;
    }
    status = find_header(&n_header, ctx, path, &map);
    if (status != JANG_OK) {
        goto done;
    }
    status = st_header_parse(&h, ctx, path, (const char *)map.data + 8, n_header);
    if (status != JANG_OK) {
        goto done;
    }
    status = place_tensors(&h, ctx, path, map.data + 8 + n_header, map.n_bytes - 8 - n_header);
    if (status != JANG_OK) {
        goto done;
    }
    *out = (st_file){ctx, map, h.tensors, h.n_tensors, h.metadata, h.names};
    h.tensors = NULL;
    h.metadata = NULL;
    h.names = NULL;
    map = (file_map){0};
done:
    st_header_free(&h, ctx);
    file_map_close(&map);
    return status;
}

void st_close(st_file *f) {
    if (f->ctx) {
        ctx_free(f->ctx, f->tensors);
        ctx_free(f->ctx, f->names);
        json_decref(f->metadata);
        file_map_close(&f->map);
    }
    *f = (st_file){0};
}
