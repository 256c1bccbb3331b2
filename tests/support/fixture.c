/* fixture.c - reading the tiny models and running them. */
#include "fixture.h"

#include "base/file.h"
#include "guard_ops.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#ifndef TEST_MODELS
#error "TEST_MODELS is the directory of the fixtures"
#endif

/* ---- Fixtures ---- */

static int compare_names(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

char **fixture_names(ctx_t *ctx, size_t *n) {
    DIR *dir = opendir(TEST_MODELS);
    assert_non_null(dir);
    char **names = ctx_zero(ctx, 256, sizeof *names);
    *n = 0;
    for (struct dirent *e; (e = readdir(dir)) && *n < 255;) {
        if (file_is_directory(test_path(TEST_MODELS, e->d_name)) && e->d_name[0] != '.') {
            names[(*n)++] = ctx_strdup(ctx, e->d_name);
        }
    }
    closedir(dir);
    assert_true(*n > 0);
    qsort(names, *n, sizeof *names, compare_names);
    return names;
}

/* A C-ordered little-endian f32 array of two axes: 10 bytes, then the length of a text that says
 * so. Source: NumPy's npy format, version 1. */
static void read_npy(fixture *f, ctx_t *ctx, const char *path) {
    char *data;
    size_t n_bytes;
    assert_ok(ctx, file_read(&data, &n_bytes, ctx, path, 1 << 26));
    assert_true(n_bytes > 10 && memcmp(data, "\x93NUMPY\x01", 7) == 0);
    size_t header = 10 + (size_t)(uint8_t)data[8] + 256 * (size_t)(uint8_t)data[9];
    const char *shape = strstr(data + 10, "'shape': (");
    assert_true(header < n_bytes && shape && strstr(data + 10, "'descr': '<f4'"));
    char *end;
    long rows = strtol(shape + 10, &end, 10), columns = strtol(end + 1, NULL, 10);
    assert_int_equal(n_bytes - header, (size_t)rows * (size_t)columns * sizeof(float));
    assert_int_equal(rows, f->n_tok);
    f->n_vocab = columns;
    f->expected = ctx_array(ctx, (size_t)(rows * columns), sizeof(float));
    memcpy(f->expected, data + header, n_bytes - header);
    ctx_free(ctx, data);
}

void fixture_read(fixture *f, ctx_t *ctx, const char *name) {
    fixture_read_in(f, ctx, TEST_MODELS, name);
}

void fixture_read_in(fixture *f, ctx_t *ctx, const char *directory, const char *name) {
    *f = (fixture){.path = path_join(ctx, directory, name)};
    json_t *json;
    assert_ok(ctx, json_read(&json, ctx, test_path(f->path, "expected.json")));
    const json_t *ids = json_object_get(json, "ids");
    f->n_tok = (int32_t)json_array_size(ids);
    assert_true(f->n_tok > 0);
    f->ids = ctx_array(ctx, (size_t)f->n_tok, sizeof *f->ids);
    for (int32_t i = 0; i < f->n_tok; i++) {
        f->ids[i] = (int32_t)json_integer_value(json_array_get(ids, (size_t)i));
    }
    json_decref(json);
    read_npy(f, ctx, test_path(f->path, "expected.npy"));
    double sum = 0, squares = 0, n = (double)f->n_tok * (double)f->n_vocab;
    for (int64_t i = 0; i < f->n_tok * f->n_vocab; i++) {
        sum += (double)f->expected[i];
        squares += (double)f->expected[i] * (double)f->expected[i];
    }
    f->deviation = sqrt(squares / n - sum / n * (sum / n));
}

void fixture_free(fixture *f, ctx_t *ctx) {
    ctx_free(ctx, f->path);
    ctx_free(ctx, f->ids);
    ctx_free(ctx, f->expected);
}

double fixture_error(const fixture *f, const float *logits) {
    double most = 0;
    for (int64_t i = 0; i < f->n_tok * f->n_vocab; i++) {
        double d = fabs((double)logits[i] - (double)f->expected[i]);
        most = d > most || isnan(d) ? d : most;
    }
    return most / f->deviation;
}

static double log_sum(const float *x, int64_t n) {
    double max = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) {
        max = fmax(max, (double)x[i]);
    }
    for (int64_t i = 0; i < n; i++) {
        sum += exp((double)x[i] - max);
    }
    return max + log(sum);
}

double mean_kl(const float *a, const float *b, int32_t n_row, int64_t n) {
    double total = 0;
    for (int32_t r = 0; r < n_row; r++, a += n, b += n) {
        double la = log_sum(a, n), lb = log_sum(b, n);
        for (int64_t i = 0; i < n; i++) {
            double pa = (double)a[i] - la, pb = (double)b[i] - lb;
            total += exp(pa) * (pa - pb);
        }
    }
    return total / n_row;
}

/* ---- Rigs ---- */

void rig_open(rig *r, ctx_t *ctx, const char *path, const char *backend, bool exact,
              int32_t n_pages) {
    *r = (rig){.ctx = ctx};
    const ops_options options = {.exact = exact};
    if (strncmp(backend, "guard:", 6) == 0) {
        assert_ok(ctx, guard_ops_open(&r->o, ctx, backend + 6, &options));
    } else {
        assert_ok(ctx, ops_open(&r->o, ctx, backend, &options));
    }
    assert_ok(ctx, checkpoint_open(&r->c, ctx, path, 0));
    assert_ok(ctx, model_open(&r->m, ctx, r->c, r->o));
    assert_ok(ctx, model_cache_new(&r->cache, r->m, KV_F32));
    assert_ok(ctx, model_cache_grow(&r->cache, r->m, n_pages, n_pages));
}

void rig_close(rig *r) {
    model_cache_free(&r->cache, r->m);
    model_close(r->m);
    checkpoint_close(r->c);
    ops_close(r->o);
}

void rig_run(rig *r, const batch_desc *batch, float *logits) {
    assert_ok(r->ctx, model_reserve(r->m, batch->n_tok));
    assert_ok(r->ctx, model_step(r->m, batch, &r->cache));
    assert_ok(r->ctx, model_logits(r->m, 0, batch->n_out, logits));
}

void rig_run_ids(rig *r, const int32_t *ids, int32_t n, int32_t step, int32_t first_page,
                 float *logits) {
    int32_t pages[64], rows[512];
    assert_true(n <= 512 && step <= 512);
    for (int32_t i = 0; i < 64; i++) {
        pages[i] = first_page + i;
    }
    for (int32_t i = 0; i < 512; i++) {
        rows[i] = i;
    }
    for (int32_t at = 0; at < n; at += step) {
        int32_t k = n - at < step ? n - at : step;
        batch_seq seq = {.n_tok = k, .n_past = at, .pages = pages, .state = pages[0]};
        batch_desc desc = {k, ids + at, 1, &seq, k, rows, NULL};
        rig_run(r, &desc, logits + (int64_t)at * model_get_facts(r->m)->n_vocab);
    }
}
