/* calibrate.c - layer by layer through a model, on a backend that looks at linears' inputs.
 *
 * The backend is cpu's with its table replaced: its linear computes with a BLAS, knows which
 * weights have been quantized, and stops a stage at the input that is to be studied next. A part of
 * the sequences is run in the original model as well: their steps hold each sequence twice, first
 * as the original model sees it, then as the quantized one does; rows are independent, so all other
 * operators serve both. */
#include "quant/calibrate.h"

#include "base/file.h"
#include "ops/hostbuf.h"
#include "quant/calib_runner.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#define STEP_ROWS 2048
#define PAIRED_TOKENS 32768
#define HEAD_ROWS 16 /* logits computed at once */

/* ---- Steps ---- */

/* Sequences of a step that begins with sequence at: each of the paired ones takes two places. */
static size_t step_seqs(const runner *r, size_t at) {
    size_t end = at < r->n_paired ? r->n_paired : r->n_seqs;
    size_t n = (size_t)r->n_step_seq / (at < r->n_paired ? 2 : 1);
    return end - at < n ? end - at : n;
}

static void copy_stream(runner *r, size_t at, size_t n_tok, bool back) {
    size_t n_embd = (size_t)model_get_facts(r->m)->n_embd, n_orig = (size_t)r->n_orig;
    ops_mat s = model_stream(r->m, (int64_t)(n_orig + n_tok));
    for (size_t i = 0; i < n_orig + n_tok; i++) {
        float *row = host_row(s, (int64_t)i);
        size_t token = at * (size_t)r->c->n_seq + (i < n_orig ? i : i - n_orig);
        float *kept = r->streams[i < n_orig ? 0 : 1] + token * n_embd;
        memcpy(back ? kept : row, back ? row : kept, n_embd * sizeof(float));
    }
}

/* The step of n sequences from at on. */
static batch_desc make_batch(runner *r, size_t at, size_t n) {
    int32_t n_seq = r->c->n_seq, times = at < r->n_paired ? 2 : 1;
    for (int32_t i = 0; i < times * (int32_t)n; i++) {
        size_t from = (size_t)r->order[at + (size_t)i % n] * (size_t)n_seq;
        memcpy(r->ids + i * n_seq, r->c->ids + from, (size_t)n_seq * sizeof *r->ids);
        r->seqs[i] = (batch_seq){
            .first = i * n_seq, .n_tok = n_seq, .pages = r->pages + i * r->n_pages, .state = i};
    }
    r->step_first = at;
    r->n_orig = (int64_t)(times - 1) * (int64_t)n * n_seq;
    int32_t n_rows = times * (int32_t)n * n_seq;
    return (batch_desc){.n_tok = n_rows,
                        .ids = r->ids,
                        .n_seq = times * (int32_t)n,
                        .seqs = r->seqs,
                        .n_out = n_rows,
                        .out = r->out};
}

static jang_status begin_step(runner *r, const batch_desc *b, size_t at, bool embedded) {
    r->begins = true;
    jang_status status = model_begin(r->m, b);
    r->begins = false;
    if (status == JANG_OK && !embedded) {
        copy_stream(r, at, (size_t)(b->n_tok - r->n_orig), false);
    }
    r->call = 0;
    r->skip = false;
    return status == JANG_OK ? r->status : status;
}

/* Runs the step of n sequences from at on; again: from the kept input on, where that is there. */
static jang_status run_step(runner *r, layer_stages which, size_t at, size_t n, bool again) {
    batch_desc b = make_batch(r, at, n);
    r->step_row = (int64_t)(at + (at < r->n_paired ? at : r->n_paired)) * r->c->n_seq;
    r->again = again && runner_has_kept(r, b.n_tok);
    jang_status status = begin_step(r, &b, at, which.layer == 0 && which.first == 0);
    r->stored = -1;
    if (status == JANG_OK) {
        model_layer(r->m, which, &b, &r->cache);
        status = r->o->table->finish(r->o);
    }
    r->again = false;
    return status == JANG_OK ? r->status : status;
}

/* A pass over some of the sequences; their streams move on unless an input was reached. */
static jang_status run_pass(runner *r, layer_stages which, size_t from, size_t to, bool again) {
    r->reached = false;
    for (size_t at = from; at < to;) {
        size_t n = step_seqs(r, at);
        jang_status status = run_step(r, which, at, n, again);
        if (status != JANG_OK) {
            return status;
        }
        if (!r->skip) {
            copy_stream(r, at, n * (size_t)r->c->n_seq, true);
        }
        at += n;
    }
    return JANG_OK;
}

/* ---- Kept inputs ---- */

/* The streams of the first step, as they are in the model; *reached: it stopped at an input. */
static jang_status try_step(runner *r, layer_stages which, bool again, float *out, bool *reached) {
    size_t n = step_seqs(r, 0);
    jang_status status = run_step(r, which, 0, n, again);
    int64_t n_row = r->n_orig + (int64_t)n * r->c->n_seq;
    ops_mat s = model_stream(r->m, n_row);
    *reached = r->skip;
    for (int64_t i = 0; i < n_row && status == JANG_OK && !r->skip; i++) {
        memcpy(out + i * s.width, host_row(s, i), (size_t)s.width * sizeof *out);
    }
    return status;
}

/* Whether a pass may start from the kept input: the first step then comes to the same, to the bit,
 * though what was computed last is another step's. */
static jang_status may_start_there(bool *out, runner *r, layer_stages which) {
    size_t n = step_seqs(r, 0), n_rows = (size_t)r->n_step_seq * (size_t)r->c->n_seq;
    *out = false;
    r->step_row = 0;
    if (n == r->n_seqs || r->kept.n_rows == 0) {
        return JANG_OK;
    }
    size_t n_floats = n_rows * (size_t)model_get_facts(r->m)->n_embd;
    float *streams = ctx_array(r->c->ctx, 2 * n_floats, sizeof *streams);
    if (!streams) {
        return ctx_fail_memory(r->c->ctx, 2 * n_floats * sizeof *streams);
    }
    memset(streams, 0, 2 * n_floats * sizeof *streams);
    bool reached = false;
    r->trying = true;
    jang_status status = try_step(r, which, true, streams, &reached);
    if (status == JANG_OK && !reached) {
        status = try_step(r, which, false, streams + n_floats, &reached);
        *out = memcmp(streams, streams + n_floats, n_floats * sizeof *streams) == 0;
    }
    r->trying = false;
    ctx_free(r->c->ctx, streams);
    return status;
}

/* ---- Layers ---- */

/* Gives back what is mapped of the models and of the results: before matrices are quantized, which
 * takes the most memory and reads little, and once a layer is done. */
static void let_go_of_maps(const runner *r) {
    checkpoint_drop(r->c->source);
    checkpoint_drop(r->c->run);
    if (r->c->work) {
        work_drop(r->c->work);
    }
}

static void forget_layer(runner *r) {
    for (size_t i = 0; i < r->c->plan->n_items; i++) {
        ctx_free(r->c->ctx, r->quantized[i]);
        r->quantized[i] = NULL;
    }
    let_go_of_maps(r);
}

/* Passes over a stage of a layer: one for each input that is studied, and one that moves the
 * streams on. */
static jang_status run_stage(runner *r, layer_stages which) {
    jang_status status = JANG_OK;
    r->target = 0;
    for (bool more = true; more && status == JANG_OK;) {
        bool all = true, again = false;
        status = may_start_there(&again, r, which);
        if (!again) {
            runner_forget_kept(r);
        }
        r->pass++;
        if (status == JANG_OK) {
            status = run_pass(r, which, 0, r->n_paired, again);
        }
        more = r->reached;
        r->target = more ? r->site_call : r->target;
        if (status == JANG_OK && more) {
            let_go_of_maps(r);
            status = runner_aim(r, r->c->damping);
        }
        if (status == JANG_OK) {
            status = run_pass(r, which, r->n_paired, r->n_seqs, again);
        }
        more |= r->reached;
        r->target = more ? r->site_call : r->target;
        if (status == JANG_OK && more) {
            let_go_of_maps(r);
            status = runner_quantize(&all, r, r->c->damping);
        }
        runner_free_sites(r);
        if (all || status != JANG_OK) {
            runner_free_codes(r);
        }
    }
    runner_forget_kept(r);
    return status;
}

/* Begins all steps, to study the next input of a product before the first layer, if there is one.
 */
static jang_status run_first_pass(runner *r, size_t from, size_t to) {
    jang_status status = JANG_OK;
    r->reached = false;
    r->looks_first = true;
    for (size_t at = from; at < to && status == JANG_OK; at += step_seqs(r, at)) {
        r->reached_first = false;
        batch_desc b = make_batch(r, at, step_seqs(r, at));
        status = begin_step(r, &b, at, true);
    }
    r->looks_first = false;
    return status;
}

static jang_status run_first(runner *r) {
    jang_status status = JANG_OK;
    for (bool more = true; more && status == JANG_OK;) {
        bool all;
        status = run_first_pass(r, 0, r->n_paired);
        more = r->reached;
        if (status == JANG_OK && more) {
            status = runner_aim(r, r->c->damping);
        }
        if (status == JANG_OK) {
            status = run_first_pass(r, r->n_paired, r->n_seqs);
        }
        more |= r->reached;
        if (status == JANG_OK && more) {
            status = runner_quantize(&all, r, r->c->damping);
        }
        runner_free_sites(r);
        runner_free_codes(r);
    }
    return status;
}

static jang_status run_layer(runner *r, int layer) {
    jang_status status = JANG_OK;
    for (int i = 0; i < model_stages(r->m, layer) && status == JANG_OK; i++) {
        status = run_stage(r, (layer_stages){layer, i, i});
    }
    return status;
}

/* Computes logits of the step, whose inputs run_linear then keeps in head_rows. */
static jang_status reach_head(runner *r, const batch_desc *b) {
    size_t n_logits = (size_t)model_get_facts(r->m)->n_vocab * HEAD_ROWS;
    float *logits = ctx_array(r->c->ctx, n_logits, sizeof *logits);
    jang_status status =
        logits ? model_end(r->m, b) : ctx_fail_memory(r->c->ctx, n_logits * sizeof *logits);
    r->n_head_rows = 0;
    for (int32_t i = 0; i < b->n_tok && status == JANG_OK; i += HEAD_ROWS) {
        int32_t n = b->n_tok - i < HEAD_ROWS ? b->n_tok - i : HEAD_ROWS;
        status = model_logits(r->m, i, n, logits);
    }
    ctx_free(r->c->ctx, logits);
    return status;
}

static jang_status run_head_pass(runner *r, size_t from, size_t to) {
    int64_t n_embd = model_get_facts(r->m)->n_embd;
    r->reached = false;
    for (size_t at = from; at < to;) {
        size_t n = step_seqs(r, at);
        batch_desc b = make_batch(r, at, n);
        jang_status status = begin_step(r, &b, at, false);
        if (status == JANG_OK) {
            status = reach_head(r, &b);
        }
        if (status != JANG_OK || r->items[0] == NO_ITEM || r->n_head_rows != b.n_tok) {
            return status; /* failed, not quantized, or no single product */
        }
        runner_load_finished(r, r->items[0]);
        if (r->status == JANG_OK && !r->done[r->items[0]]) {
            runner_study(r, r->head_rows, n_embd, b.n_tok, n_embd);
        }
        if (r->status != JANG_OK || !r->reached) {
            return r->status;
        }
        at += n;
    }
    return JANG_OK;
}

/* The output matrix: its inputs are the normed streams. A tied one is the embedding as well, whose
 * rows are inputs as they are: more damping keeps them close. */
static jang_status run_head(runner *r) {
    r->head = true;
    double damping = r->c->damping;
    jang_status status = run_head_pass(r, 0, r->n_paired);
    bool wanted = r->reached, all;
    if (status == JANG_OK && wanted) {
        bool tied = r->c->plan->items[r->items[0]].part->role == ROLE_EMBEDDING;
        damping *= tied ? 5 : 1;
        status = runner_aim(r, damping);
    }
    if (status == JANG_OK && (wanted || r->n_paired == 0)) {
        status = run_head_pass(r, r->n_paired, r->n_seqs);
    }
    if (status == JANG_OK && (wanted || r->reached)) {
        status = runner_quantize(&all, r, damping);
    }
    return status;
}

/* ---- The whole ---- */

/* The sequences in the order they are run: the paired ones, spread over the text, come first. */
static void order_seqs(runner *r) {
    size_t n = r->n_seqs, n_paired = r->n_paired, at = n_paired;
    for (size_t i = 0; i < n_paired; i++) {
        r->order[i] = (int32_t)(i * n / n_paired);
    }
    for (size_t i = 0, k = 0; i < n; i++) {
        if (k < n_paired && (size_t)r->order[k] == i) {
            k++;
        } else {
            r->order[at++] = (int32_t)i;
        }
    }
}

size_t calibrate_paired(size_t n_tokens, bool thorough) {
    return thorough || n_tokens < PAIRED_TOKENS ? n_tokens : PAIRED_TOKENS;
}

static jang_status make_arrays(runner *r) {
    calibration *c = r->c;
    ctx_t *ctx = c->ctx;
    int32_t n_seq = c->n_seq, fit = STEP_ROWS / n_seq;
    r->n_seqs = c->n_ids / (size_t)n_seq;
    size_t paired = calibrate_paired(r->n_seqs * (size_t)n_seq, c->thorough);
    r->n_paired = !c->work || !c->feedback ? 0 : (paired + (size_t)n_seq - 1) / (size_t)n_seq;
    r->n_step_seq = fit < 2 ? 2 : fit;
    r->n_pages = (n_seq + OPS_PAGE_TOKENS - 1) / OPS_PAGE_TOKENS;
    int32_t rows = r->n_step_seq * n_seq, n_pages = r->n_step_seq * r->n_pages;
    size_t n_embd = (size_t)model_get_facts(r->m)->n_embd, seq_bytes = n_embd * sizeof(float);
    size_t n_layer = (size_t)model_get_facts(r->m)->n_layer;
    seq_bytes *= (size_t)n_seq;
    bool made = true;
    made &= (r->streams[0] = ctx_array(ctx, r->n_paired + 1, seq_bytes)) != NULL;
    made &= (r->streams[1] = ctx_array(ctx, r->n_seqs, seq_bytes)) != NULL;
    made &= (r->order = ctx_array(ctx, r->n_seqs, sizeof *r->order)) != NULL;
    made &= (r->ids = ctx_array(ctx, (size_t)rows, sizeof *r->ids)) != NULL;
    made &= (r->out = ctx_array(ctx, (size_t)rows, sizeof *r->out)) != NULL;
    made &= (r->seqs = ctx_array(ctx, (size_t)r->n_step_seq, sizeof *r->seqs)) != NULL;
    made &= (r->pages = ctx_array(ctx, (size_t)n_pages, sizeof *r->pages)) != NULL;
    made &= (r->quantized = ctx_zero(ctx, c->plan->n_items + 1, sizeof *r->quantized)) != NULL;
    made &= (r->done = ctx_zero(ctx, c->plan->n_items + 1, sizeof *r->done)) != NULL;
    made &= (r->shared = ctx_zero(ctx, n_layer + 1, sizeof *r->shared)) != NULL;
    made &= (r->seen = ctx_zero(ctx, c->plan->n_items + 1, sizeof *r->seen)) != NULL;
    made &= (r->head_rows = ctx_array(ctx, (size_t)rows, n_embd * sizeof(float))) != NULL;
    if (!made) {
        return ctx_fail_memory(ctx, (r->n_paired + r->n_seqs) * seq_bytes);
    }
    order_seqs(r);
    for (int32_t i = 0; i < rows; i++) {
        r->out[i] = i;
    }
    for (int32_t i = 0; i < n_pages; i++) {
        r->pages[i] = i;
    }
    return JANG_OK;
}

/* Goes through the layers of one step without computing much, to see whose keys others share. */
static jang_status look_at_layers(runner *r) {
    batch_desc b = make_batch(r, 0, 1);
    jang_status status = begin_step(r, &b, 0, true);
    r->skip = true;
    for (int i = 0; i < model_get_facts(r->m)->n_layer && status == JANG_OK; i++) {
        r->stored = -1;
        model_layer(r->m, (layer_stages){i, 0, INT_MAX}, &b, &r->cache);
    }
    return status == JANG_OK ? r->o->table->finish(r->o) : status;
}

static jang_status open_runner(runner *r) {
    calibration *c = r->c;
    ctx_t *ctx = c->ctx;
    const ops_options exact = {.exact = true};
    jang_status status = ops_open(&r->o, ctx, "cpu", &exact);
    if (status != JANG_OK) {
        return status;
    }
    r->own = r->o->table;
    r->table = *r->own;
    r->experts = r->table.linear_experts;
    r->table.linear = runner_linear;
    r->table.attention = runner_attention;
    r->table.kv_store = runner_kv_store;
    r->table.linear_experts = runner_experts;
    r->o->table = &r->table;
    status = model_open(&r->m, ctx, c->run, r->o);
    if (status != JANG_OK) {
        return status;
    }
    status = make_arrays(r);
    int32_t rows = r->n_step_seq * c->n_seq;
    if (status != JANG_OK) {
        return status;
    }
    status = model_reserve(r->m, rows);
    if (status == JANG_OK) {
        status = model_cache_new(&r->cache, r->m, KV_F32);
    }
    if (status == JANG_OK) {
        status = model_cache_grow(&r->cache, r->m, r->n_step_seq * r->n_pages, r->n_step_seq);
    }
    return status == JANG_OK ? look_at_layers(r) : status;
}

static void close_runner(runner *r) {
    ctx_t *ctx = r->c->ctx;
    if (r->quantized) {
        forget_layer(r);
    }
    runner_free_sites(r);
    runner_free_codes(r);
    void *all[] = {r->streams[0], r->streams[1], r->order, r->ids,  r->out,       r->seqs,
                   r->pages,      r->quantized,  r->done,  r->seen, r->head_rows, r->weight};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        ctx_free(ctx, all[i]);
    }
    if (r->m) {
        runner_free_shared(r);
        model_cache_free(&r->cache, r->m);
        model_close(r->m);
    }
    if (r->o) {
        r->o->table = r->own ? r->own : r->o->table;
        ops_close(r->o);
    }
}

static jang_status report(const runner *r, int layer, int n_layer, double start) {
    if (!r->c->on_progress) {
        return JANG_OK;
    }
    char what[64];
    snprintf(what, sizeof what, "calibrating layer %d of %d", layer + 1, n_layer);
    uint64_t total = checkpoint_bytes(r->c->source);
    jang_progress p = {what, total / (uint64_t)n_layer * (uint64_t)layer, total,
                       clock_seconds() - start};
    return r->c->on_progress(r->c->user, &p)
               ? JANG_OK
               : ctx_fail(r->c->ctx, JANG_ERR_CANCELLED, "the conversion was cancelled");
}

jang_status calibrate(calibration *c) {
    runner *r = ctx_zero(c->ctx, 1, sizeof *r);
    if (!r) {
        return ctx_fail_memory(c->ctx, sizeof *r);
    }
    r->c = c;
    double start = clock_seconds();
    jang_status status = open_runner(r);
    if (status == JANG_OK) {
        status = runner_load_factors(r);
    }
    if (status == JANG_OK && c->work) {
        status = run_first(r);
    }
    int n_layer = status == JANG_OK ? model_get_facts(r->m)->n_layer : 0;
    for (int i = 0; i < n_layer && status == JANG_OK; i++) {
        status = report(r, i, n_layer, start);
        if (status == JANG_OK) {
            status = run_layer(r, i);
        }
        forget_layer(r);
    }
    if (status == JANG_OK && c->work && !model_get_facts(r->m)->no_output) {
        status = run_head(r);
    }
    close_runner(r);
    ctx_free(c->ctx, r);
    return status;
}
