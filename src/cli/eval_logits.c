/* eval_logits.c - logits of models and files, and the comparison of two rows. */
#include "eval_logits.h"

#include "interrupt.h"
#include "open_model.h"
#include "terminal.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char magic[8] = {'J', 'A', 'N', 'G', 'L', 'O', 'G', '1'};

typedef struct stored_header {
    char magic[8];
    uint32_t n_vocab, n_windows;
    uint64_t hash;
} stored_header;

/* FNV-1a over all ids and the windows' lengths. */
static uint64_t hash_texts(const eval_texts *texts, size_t *n_windows) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    *n_windows = 0;
    for (size_t s = 0; s < texts->n_sets; s++) {
        for (size_t i = 0; i < texts->sets[s].n_windows; i++, ++*n_windows) {
            const eval_window *w = &texts->sets[s].windows[i];
            hash = (hash ^ w->n) * UINT64_C(0x100000001b3);
            for (size_t t = 0; t < w->n; t++) {
                hash = (hash ^ (uint32_t)w->ids[t]) * UINT64_C(0x100000001b3);
            }
        }
    }
    return hash;
}

/* ---- A model's logits ---- */

static bool make_rows(logit_source *s) {
    s->rows = malloc(EVAL_CHUNK * s->n_vocab * sizeof *s->rows);
    if (!s->rows) {
        cli_failed("out of memory: %d rows of %zu logits do not fit", EVAL_CHUNK, s->n_vocab);
    }
    return s->rows != NULL;
}

bool source_open_model(logit_source *s, jang_context *ctx, jang_model *model, size_t context,
                       jang_kv_type kv_type) {
    *s = (logit_source){.ctx = ctx, .n_vocab = (size_t)jang_model_get_info(model)->n_vocab};
    jang_session_options options = jang_session_options_default();
    options.n_context = (int32_t)context;
    options.n_batch = EVAL_CHUNK;
    options.kv_type = kv_type;
    jang_status status = jang_session_new(&s->session, model, &options);
    if (status != JANG_OK) {
        library_failed(ctx, status);
        return false;
    }
    return make_rows(s);
}

static bool next_of_model(logit_source *s, const int32_t *ids, size_t n) {
    jang_status status = jang_session_append(s->session, ids, n, s->rows);
    if (status != JANG_OK) {
        library_failed(s->ctx, status);
        return false;
    }
    if (interrupt_seen()) {
        cli_failed("stopped");
        return false;
    }
    return true;
}

/* ---- Stored logits ---- */

static bool read_exactly(logit_source *s, void *to, size_t n_bytes) {
    if (fread(to, 1, n_bytes, s->file) == n_bytes) {
        return true;
    }
    if (ferror(s->file)) {
        cli_failed("cannot read %s: %s", s->path, strerror(errno));
    } else {
        cli_failed("%s: the file ends early", s->path);
    }
    return false;
}

bool source_open_file(logit_source *s, const char *path, const eval_texts *texts) {
    *s = (logit_source){.path = path, .file = fopen(path, "rb")};
    if (!s->file) {
        cli_failed("cannot open %s: %s", path, strerror(errno));
        return false;
    }
    stored_header h;
    if (!read_exactly(s, &h, sizeof h)) {
        return false;
    }
    size_t n_windows;
    uint64_t hash = hash_texts(texts, &n_windows);
    if (memcmp(h.magic, magic, sizeof magic) != 0 || h.n_vocab < 1 || h.n_vocab > 1 << 24) {
        cli_failed("%s: no file of stored logits", path);
        return false;
    }
    if (h.hash != hash || h.n_windows != n_windows) {
        cli_failed("%s: its logits are those of other tokens: same texts, --context, --max-tokens "
                   "and tokenizer are needed",
                   path);
        return false;
    }
    s->n_vocab = h.n_vocab;
    s->codes = malloc(s->n_vocab * sizeof *s->codes);
    if (!s->codes) {
        cli_failed("out of memory");
        return false;
    }
    return make_rows(s);
}

static bool next_of_file(logit_source *s, size_t n) {
    if (n > s->n_left) {
        cli_failed("%s: a window is shorter than its text", s->path);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        float range[2], *row = s->rows + i * s->n_vocab;
        if (!read_exactly(s, range, sizeof range) ||
            !read_exactly(s, s->codes, s->n_vocab * sizeof *s->codes)) {
            return false;
        }
        for (size_t j = 0; j < s->n_vocab; j++) {
            row[j] = range[0] + range[1] * (float)s->codes[j];
        }
    }
    s->n_left -= n;
    return true;
}

/* ---- Both ---- */

bool source_begin(logit_source *s, const eval_window *window) {
    if (s->session) {
        jang_status status = jang_session_truncate(s->session, 0);
        if (status != JANG_OK) {
            library_failed(s->ctx, status);
        }
        return status == JANG_OK;
    }
    uint32_t n;
    if (!read_exactly(s, &n, sizeof n)) {
        return false;
    }
    if (n != window->n) {
        cli_failed("%s: a window of %u tokens where the text has %zu", s->path, n, window->n);
        return false;
    }
    s->n_left = n;
    return true;
}

bool source_next(logit_source *s, const int32_t *ids, size_t n) {
    return s->session ? next_of_model(s, ids, n) : next_of_file(s, n);
}

void source_close(logit_source *s) {
    jang_session_free(s->session);
    if (s->file) {
        fclose(s->file);
    }
    free(s->rows);
    free(s->codes);
    *s = (logit_source){0};
}

/* ---- Storing ---- */

static bool write_exactly(logit_store *s, const void *from, size_t n_bytes) {
    if (fwrite(from, 1, n_bytes, s->file) == n_bytes) {
        return true;
    }
    cli_failed("cannot write %s: %s", s->beside, strerror(errno));
    return false;
}

bool store_open(logit_store *s, const char *path, const eval_texts *texts, size_t n_vocab) {
    size_t n_beside = strlen(path) + 16;
    *s = (logit_store){.n_vocab = n_vocab, .path = strdup(path), .beside = malloc(n_beside)};
    s->codes = malloc(n_vocab * sizeof *s->codes);
    if (!s->path || !s->beside || !s->codes) {
        cli_failed("out of memory");
        return false;
    }
    snprintf(s->beside, n_beside, "%s.partial", path);
    s->file = fopen(s->beside, "wb");
    if (!s->file) {
        cli_failed("cannot create %s: %s", s->beside, strerror(errno));
        return false;
    }
    size_t n_windows;
    stored_header h = {.n_vocab = (uint32_t)n_vocab};
    memcpy(h.magic, magic, sizeof magic);
    h.hash = hash_texts(texts, &n_windows);
    h.n_windows = (uint32_t)n_windows;
    return write_exactly(s, &h, sizeof h);
}

bool store_begin(logit_store *s, const eval_window *window) {
    uint32_t n = (uint32_t)window->n;
    return write_exactly(s, &n, sizeof n);
}

bool store_rows(logit_store *s, const float *rows, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const float *row = rows + i * s->n_vocab;
        float low = row[0], high = row[0];
        for (size_t j = 1; j < s->n_vocab; j++) {
            low = row[j] < low ? row[j] : low;
            high = row[j] > high ? row[j] : high;
        }
        const float range[2] = {low, (high - low) / 65535};
        float inverse = range[1] > 0 ? 1 / range[1] : 0;
        for (size_t j = 0; j < s->n_vocab; j++) {
            long code = lrintf((row[j] - low) * inverse);
            s->codes[j] = (uint16_t)(code < 0 ? 0 : code > 65535 ? 65535 : code);
        }
        if (!write_exactly(s, range, sizeof range) ||
            !write_exactly(s, s->codes, s->n_vocab * sizeof *s->codes)) {
            return false;
        }
    }
    return true;
}

bool store_finish(logit_store *s) {
    bool ok = fflush(s->file) == 0 && fsync(fileno(s->file)) == 0;
    ok = fclose(s->file) == 0 && ok;
    s->file = NULL;
    ok = ok && rename(s->beside, s->path) == 0;
    if (!ok) {
        cli_failed("cannot write %s: %s", s->path, strerror(errno));
        unlink(s->beside);
    }
    return ok;
}

void store_close(logit_store *s) {
    if (s->file) {
        fclose(s->file);
        unlink(s->beside);
    }
    free(s->path);
    free(s->beside);
    free(s->codes);
    *s = (logit_store){0};
}

/* ---- Rows ---- */

/* exp(x) for x <= 0 with a relative error below 2e-7, in a form that compilers vectorize: 2^n times
 * a polynomial (Taylor, degree 7) of the rest r, |r| <= ln(2) / 2. Below -87 it is 0. NaN stays. */
static inline float exp_of(float x) {
    float clamped = x < -87.0f ? -87.0f : x;
    float t = clamped * 1.44269504f;
    float shifted = t + 12582912.0f; /* 1.5 * 2^23: rounds to a whole number in the low bits */
    float n = shifted - 12582912.0f;
    float r = (clamped - n * 0.693145752f) - n * 1.42860677e-6f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    int32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (int32_t)((uint32_t)(bits - 0x4b400000 + 127) << 23);
    float power;
    memcpy(&power, &bits, sizeof power);
    return x < -87.0f ? 0 : p * power;
}

#define LANES 8 /* partial sums, so that loops over a row vectorize */

static double sum_lanes(const double lanes[LANES]) {
    double sum = 0;
    for (int j = 0; j < LANES; j++) {
        sum += lanes[j];
    }
    return sum;
}

double row_log_sum(const float *row, size_t n, size_t *top) {
    size_t best = 0;
    for (size_t i = 1; i < n; i++) {
        if (row[i] > row[best]) {
            best = i;
        }
    }
    double lanes[LANES] = {0};
    for (size_t i = 0; i + LANES <= n; i += LANES) {
        for (size_t j = 0; j < LANES; j++) {
            lanes[j] += (double)exp_of(row[i + j] - row[best]);
        }
    }
    double sum = sum_lanes(lanes);
    for (size_t i = n - n % LANES; i < n; i++) {
        sum += (double)exp_of(row[i] - row[best]);
    }
    *top = best;
    return (double)row[best] + log(sum);
}

row_difference compare_rows(const float *reference, const float *row, size_t n) {
    size_t top_reference, top;
    double a = row_log_sum(reference, n, &top_reference), b = row_log_sum(row, n, &top);
    double kl[LANES] = {0}, squares[LANES] = {0};
    double between = a - b;
    float log_sum = (float)a;
    for (size_t i = 0; i < n; i += LANES) {
        size_t k = n - i < LANES ? n - i : LANES;
        for (size_t j = 0; j < k; j++) {
            double off = (double)reference[i + j] - (double)row[i + j];
            kl[j] += (double)exp_of(reference[i + j] - log_sum) * (off - between);
            squares[j] += off * off;
        }
    }
    double weighted = sum_lanes(kl);
    return (row_difference){
        .kl = weighted < 0 ? 0 : weighted, /* a NaN stays one */
        .mse = sum_lanes(squares) / (double)n,
        .same_top = top_reference == top,
        .log_sum_reference = a,
        .log_sum = b,
    };
}
