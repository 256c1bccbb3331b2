/* embedding.c - pooled hidden states through Dense modules, to unit length; the token that a
 * classifier judges by. */
#include "engine/embedding.h"

#include "base/file.h"
#include "base/half.h"
#include "base/json.h"
#include "format/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- Weights ---- */

static const tensor_view *find_tensor(const st_file *f, const char *name) {
    for (size_t k = 0; k < f->n_tensors; k++) {
        if (strcmp(f->tensors[k].name, name) == 0) {
            return &f->tensors[k];
        }
    }
    return NULL;
}

/* *out, of n numbers, is not NULL where the file has them. */
static jang_status find_numbers(const tensor_view **out, const st_file *f, ctx_t *ctx,
                                const char *path, const char *name, int64_t n) {
    const tensor_view *t = find_tensor(f, name);
    if (!t || tensor_rows(t) * tensor_columns(t) != n ||
        (t->type != DT_F32 && t->type != DT_F16 && t->type != DT_BF16)) {
        return ctx_fail(ctx, JANG_ERR_FORMAT, "%s: no floating %s of %lld numbers", path, name,
                        (long long)n);
    }
    *out = t;
    return JANG_OK;
}

static void widen(float *out, const tensor_view *t, int64_t n) {
    for (size_t i = 0; i < (size_t)n; i++) {
        uint16_t half;
        if (t->type == DT_F32) {
            memcpy(&out[i], t->data + 4 * i, sizeof *out);
        } else {
            memcpy(&half, t->data + 2 * i, sizeof half);
            out[i] = t->type == DT_F16 ? f16_to_f32(half) : bf16_to_f32(half);
        }
    }
}

static jang_status read_dense(jang_model *m, int i, const char *path) {
    const sentence_dense *d = &m->modules.dense[i];
    const tensor_view *weight = NULL, *bias = NULL;
    int64_t n = d->n_out * d->n_in;
    st_file f;
    jang_status status = st_open(&f, m->ctx, path);
    if (status != JANG_OK) {
        return status;
    }
    status = find_numbers(&weight, &f, m->ctx, path, "linear.weight", n);
    if (status == JANG_OK && d->has_bias) {
        status = find_numbers(&bias, &f, m->ctx, path, "linear.bias", d->n_out);
    }
    if (status == JANG_OK) {
        m->dense[i] = ctx_zero(m->ctx, (size_t)(n + d->n_out), sizeof(float));
        status =
            m->dense[i] ? JANG_OK : ctx_fail_memory(m->ctx, (size_t)(n + d->n_out) * sizeof(float));
    }
    if (status == JANG_OK) {
        widen(m->dense[i], weight, n);
        if (bias) {
            widen(m->dense[i] + n, bias, d->n_out);
        }
    }
    st_close(&f);
    return status;
}

static jang_status open_dense(jang_model *m, int i, int64_t n_in) {
    const sentence_dense *d = &m->modules.dense[i];
    if (d->n_in != n_in) {
        return ctx_fail(m->ctx, JANG_ERR_FORMAT, "%s/config.json: in_features %lld, but %lld come",
                        d->path, (long long)d->n_in, (long long)n_in);
    }
    if (checkpoint_get_kind(m->checkpoint) != CHECKPOINT_DIRECTORY) {
        return ctx_fail(m->ctx, JANG_ERR_UNSUPPORTED,
                        "%s: Dense modules are read from a directory only", m->path);
    }
    char path[SENTENCE_PATH_BYTES + 32];
    snprintf(path, sizeof path, "%s/model.safetensors", d->path);
    char *full = path_join(m->ctx, m->path, path);
    jang_status status = full ? read_dense(m, i, full) : ctx_fail_memory(m->ctx, sizeof path);
    ctx_free(m->ctx, full);
    return status;
}

/* Classifiers made of decoders judge by the last token that is not padding. */
static jang_status read_padding(jang_model *m) {
    const model_facts *f = model_get_facts(m->model);
    const json_t *config;
    m->padding = -1;
    if (f->n_label == 0 || f->whole) {
        return JANG_OK;
    }
    jang_status status = checkpoint_json(&config, m->checkpoint, "config.json");
    json_at at = {m->ctx, "config.json", config};
    return status == JANG_OK
               ? json_get_int(&m->padding, at, "pad_token_id", -1, INT32_MIN, INT32_MAX)
               : status;
}

jang_status embedding_open(jang_model *m) {
    jang_status status = sentence_modules_read(&m->modules, m->checkpoint);
    if (status == JANG_OK) {
        status = read_padding(m);
    }
    int64_t n = model_get_facts(m->model)->n_embd;
    for (int i = 0; status == JANG_OK && i < m->modules.n_dense; i++) {
        status = open_dense(m, i, n);
        n = m->modules.dense[i].n_out;
    }
    return status;
}

void embedding_close(jang_model *m) {
    for (int i = 0; i < SENTENCE_DENSE_MAX; i++) {
        ctx_free(m->ctx, m->dense[i]);
    }
}

/* ---- Use ---- */

jang_pooling embedding_pooling(const jang_model *m) {
    static const jang_pooling table[] = {[SENTENCE_LAST] = JANG_POOL_LAST,
                                         [SENTENCE_MEAN] = JANG_POOL_MEAN,
                                         [SENTENCE_FIRST] = JANG_POOL_FIRST};
    if (m->modules.found) {
        return table[m->modules.pooling];
    }
    return model_get_facts(m->model)->whole ? JANG_POOL_MEAN : JANG_POOL_LAST;
}

int32_t embedding_size(const jang_model *m) {
    int n = m->modules.n_dense;
    return n ? (int32_t)m->modules.dense[n - 1].n_out : model_get_facts(m->model)->n_embd;
}

size_t embedding_room(const jang_model *m) {
    int64_t most = model_get_facts(m->model)->n_embd;
    for (int i = 0; i < m->modules.n_dense; i++) {
        most = m->modules.dense[i].n_out > most ? m->modules.dense[i].n_out : most;
    }
    return 2 * (size_t)most;
}

static void apply_dense(const sentence_dense *d, const float *w, const double *x, double *y) {
    const float *bias = w + d->n_out * d->n_in;
    for (int64_t o = 0; o < d->n_out; o++, w += d->n_in) {
        double sum = (double)bias[o];
        for (int64_t i = 0; i < d->n_in; i++) {
            sum += (double)w[i] * x[i];
        }
        y[o] = d->is_tanh ? tanh(sum) : sum;
    }
}

void embedding_finish(const jang_model *m, double *x, int32_t n, float *out) {
    size_t half = embedding_room(m) / 2;
    double *from = x, *to = x + half, sum = 0;
    for (int32_t i = 0; i < model_get_facts(m->model)->n_embd; i++) {
        from[i] /= n;
    }
    for (int i = 0; i < m->modules.n_dense; i++) {
        apply_dense(&m->modules.dense[i], m->dense[i], from, to);
        double *kept = from;
        from = to;
        to = kept;
    }
    int32_t size = embedding_size(m);
    for (int32_t i = 0; i < size; i++) {
        sum += from[i] * from[i];
    }
    double scale = sum > 0 ? 1 / sqrt(sum) : 0;
    for (int32_t i = 0; i < size; i++) {
        out[i] = (float)(from[i] * scale);
    }
}
