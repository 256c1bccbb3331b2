/* recurrent.c - what blocks with a memory share. */
#include "model/recurrent.h"

#include "model/loader_impl.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define STATE_PARTS_MAX (1 << 14)

jang_status load_state(int *part, loader *l, int64_t n) {
    state_list *list = l->states;
    if (list->n == STATE_PARTS_MAX || n < 1 || n > INT64_C(1) << 32) {
        return ctx_fail(
            l->ctx, JANG_ERR_UNSUPPORTED,
            "%s: a recurrent state of %lld numbers in part %d; at most 2^32 in %d parts "
            "are possible",
            l->config.what, (long long)n, list->n, STATE_PARTS_MAX);
    }
    if (list->n == list->capacity) {
        int capacity = list->capacity ? 2 * list->capacity : 16;
        int64_t *sizes = ctx_realloc(l->ctx, list->sizes, (size_t)capacity * sizeof *sizes);
        if (!sizes) {
            return ctx_fail_memory(l->ctx, (size_t)capacity * sizeof *sizes);
        }
        list->sizes = sizes;
        list->capacity = capacity;
    }
    *part = list->n;
    list->sizes[list->n++] = n;
    return JANG_OK;
}

/* ---- Configs ---- */

jang_status config_ints(json_at at, const int_key *keys, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (keys[i].fallback == 0 && !json_has(at.object, keys[i].key)) {
            return ctx_fail(at.ctx, JANG_ERR_FORMAT, "%s: %s is missing", at.what, keys[i].key);
        }
        jang_status status =
            json_get_int(keys[i].out, at, keys[i].key, keys[i].fallback, 1, keys[i].max);
        if (status != JANG_OK) {
            return status;
        }
    }
    return JANG_OK;
}

jang_status config_want_silu(json_at at, const char *key) {
    const char *name;
    jang_status status = json_get_string(&name, at, key, "silu");
    if (status == JANG_OK && strcmp(name, "silu") != 0 && strcmp(name, "swish") != 0) {
        return ctx_fail(at.ctx, JANG_ERR_UNSUPPORTED,
                        "%s: %s %s is not supported in recurrent layers; silu is", at.what, key,
                        name);
    }
    return status;
}

/* ---- Small parameters ---- */

const tensor_view *loader_tensor(loader *l, const char *format, ...) {
    char name[LOADER_NAME_BYTES];
    va_list args;
    va_start(args, format);
    jang_status status = loader_format(name, l, format, args);
    va_end(args);
    return status == JANG_OK ? loader_peek(l, name) : NULL;
}

/* Whether a shape less its axes of 1 is [n_out, n_in] less its own. */
static bool fits(const tensor_view *t, int64_t n_out, int64_t n_in) {
    int64_t want[2], n_want = 0, at = 0;
    if (n_out != 1) {
        want[n_want++] = n_out;
    }
    if (n_in != 1) {
        want[n_want++] = n_in;
    }
    for (int i = 0; i < t->n_dim; i++) {
        if (t->shape[i] == 1) {
            continue;
        }
        if (at == n_want || t->shape[i] != want[at]) {
            return false;
        }
        at++;
    }
    return at == n_want;
}

static jang_status read_floats(float **out, loader *l, int64_t n_out, int64_t n_in,
                               const char *name) {
    const tensor_view *t = loader_find(l, name);
    if (!t) {
        return ctx_fail(l->ctx, JANG_ERR_FORMAT, "%s: tensor %s is missing", checkpoint_path(l->c),
                        name);
    }
    if (!l->survey && t->type != DT_F32 && t->type != DT_F16 && t->type != DT_BF16) {
        return ctx_fail(l->ctx, JANG_ERR_UNSUPPORTED,
                        "%s: tensor %s is of type %s; it must be F32, F16 or BF16",
                        checkpoint_path(l->c), name, dtype_table[t->type].name);
    }
    if (!fits(t, n_out, n_in)) {
        return ctx_fail(l->ctx, JANG_ERR_FORMAT,
                        "%s: tensor %s has another shape than the [%lld, %lld] that the config "
                        "wants, axes of 1 aside",
                        checkpoint_path(l->c), name, (long long)n_out, (long long)n_in);
    }
    float *x = ctx_array(l->ctx, (size_t)(n_out * n_in), sizeof *x);
    if (!x) {
        return ctx_fail_memory(l->ctx, (size_t)(n_out * n_in) * sizeof *x);
    }
    jang_status status = JANG_OK;
    if (l->survey) { /* there are no data */
        memset(x, 0, (size_t)(n_out * n_in) * sizeof *x);
    } else {
        status = checkpoint_rows_f32(x, l->c, t, 0, tensor_rows(t));
    }
    if (status != JANG_OK) {
        ctx_free(l->ctx, x);
        return status;
    }
    l->totals->n_params += n_out * n_in;
    l->totals->weight_bytes += t->n_bytes;
    l->totals->token_bytes += t->n_bytes;
    *out = x;
    return JANG_OK;
}

jang_status load_floats(float **out, loader *l, int64_t n_out, int64_t n_in, const char *format,
                        ...) {
    char name[LOADER_NAME_BYTES];
    va_list args;
    va_start(args, format);
    jang_status status = loader_format(name, l, format, args);
    va_end(args);
    return status == JANG_OK ? read_floats(out, l, n_out, n_in, name) : status;
}

/* Makes a weight of x, which it takes over, also on failure. */
static jang_status keep(const ops_weight **out, loader *l, float *x, int64_t n_out, int64_t n_in) {
    ops_weight *w;
    const weight_desc desc = {
        .name = "(computed)", .n_out = n_out, .n_in = n_in, .type = DT_F32, .data = x};
    jang_status status = loader_keep(&w, l, &desc, NULL, x);
    if (status != JANG_OK) {
        ctx_free(l->ctx, x);
        return status;
    }
    *out = w;
    return JANG_OK;
}

jang_status load_f32_vector(const ops_weight **out, loader *l, int64_t n, const char *format, ...) {
    char name[LOADER_NAME_BYTES];
    float *x;
    va_list args;
    va_start(args, format);
    jang_status status = loader_format(name, l, format, args);
    va_end(args);
    if (status == JANG_OK) {
        status = read_floats(&x, l, n, 1, name);
    }
    return status == JANG_OK ? keep(out, l, x, 1, n) : status;
}

jang_status load_decay(const ops_weight **out, loader *l, int64_t n_out, int64_t n_in,
                       int64_t repeat, const char *format, ...) {
    char name[LOADER_NAME_BYTES];
    float *x;
    va_list args;
    va_start(args, format);
    jang_status status = loader_format(name, l, format, args);
    va_end(args);
    if (status == JANG_OK) {
        status = read_floats(&x, l, n_out, n_in, name);
    }
    if (status != JANG_OK) {
        return status;
    }
    int64_t n = n_out * n_in;
    float *a = ctx_array(l->ctx, (size_t)(n * repeat), sizeof *a);
    if (!a) {
        ctx_free(l->ctx, x);
        return ctx_fail_memory(l->ctx, (size_t)(n * repeat) * sizeof *a);
    }
    for (int64_t i = 0; i < n * repeat; i++) {
        a[i] = (float)-exp((double)x[i / repeat]);
    }
    ctx_free(l->ctx, x);
    return keep(out, l, a, n_out, n_in * repeat);
}

jang_status load_constant(const ops_weight **out, loader *l, int64_t n, float value) {
    float *x = ctx_array(l->ctx, (size_t)n, sizeof *x);
    if (!x) {
        return ctx_fail_memory(l->ctx, (size_t)n * sizeof *x);
    }
    for (int64_t i = 0; i < n; i++) {
        x[i] = value;
    }
    return keep(out, l, x, 1, n);
}

/* ---- Convolutions ---- */

/* Puts one run's weights [width, n_tap] into columns at.. of all [n_tap, all_width]. */
static jang_status read_taps(float *all, loader *l, int n_tap, int64_t all_width, int64_t at,
                             int64_t width, const char *name) {
    float *w;
    jang_status status = load_floats(&w, l, width, n_tap, "%s.weight", name);
    if (status != JANG_OK) {
        return status;
    }
    for (int64_t i = 0; i < width; i++) {
        for (int j = 0; j < n_tap; j++) {
            all[j * all_width + at + i] = w[i * n_tap + j];
        }
    }
    ctx_free(l->ctx, w);
    return JANG_OK;
}

static jang_status read_bias(float *all, loader *l, int64_t at, int64_t width, const char *name) {
    float *b;
    jang_status status = load_floats(&b, l, width, 1, "%s.bias", name);
    if (status == JANG_OK) {
        memcpy(all + at, b, (size_t)width * sizeof *b);
        ctx_free(l->ctx, b);
    }
    return status;
}

jang_status load_conv(causal_conv *out, loader *l, int n_tap, bool bias, bool silu, int n_parts,
                      const int64_t *widths, const char *const *names) {
    int64_t width = 0, at = 0;
    for (int i = 0; i < n_parts; i++) {
        width += widths[i];
    }
    causal_conv c = {.desc.silu = silu, .part = -1};
    float *taps = ctx_array(l->ctx, (size_t)(n_tap * width), sizeof *taps);
    float *biases = ctx_array(l->ctx, (size_t)width, sizeof *biases);
    jang_status status = JANG_OK;
    if (!taps || !biases) {
        status = ctx_fail_memory(l->ctx, (size_t)(n_tap * width) * sizeof *taps);
    }
    for (int i = 0; i < n_parts && status == JANG_OK; i++) {
        status = read_taps(taps, l, n_tap, width, at, widths[i], names[i]);
        if (status == JANG_OK && bias) {
            status = read_bias(biases, l, at, widths[i], names[i]);
        }
        at += widths[i];
    }
    if (status == JANG_OK) {
        status = keep(&c.desc.weight, l, taps, n_tap, width);
        taps = NULL;
    }
    if (status == JANG_OK && bias) {
        status = keep(&c.desc.bias, l, biases, 1, width);
        biases = NULL;
    }
    if (status == JANG_OK) { /* a part has a number at least */
        status = load_state(&c.part, l, n_tap > 1 ? (n_tap - 1) * width : 1);
    }
    ctx_free(l->ctx, taps);
    ctx_free(l->ctx, biases);
    if (status == JANG_OK) {
        *out = c;
    }
    return status;
}

/* ---- Running ---- */

void causal_conv_run(const causal_conv *c, const block_step *s, ops_mat x, ops_mat y) {
    s->t->conv(s->o, &c->desc, (state_at){s->cache->state, c->part}, s->batch, x, y);
}

void gate_run(const block_step *s, activation act, ops_mat gate, ops_mat x, ops_mat y) {
    s->t->gated(s->o, &(act_desc){.kind = act}, gate, x, y);
}
