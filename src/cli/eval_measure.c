/* eval_measure.c - runs models over texts and gathers what their logits say. */
#include "eval_measure.h"

#include "command.h"
#include "interrupt.h"
#include "open_model.h"
#include "terminal.h"
#include "text_table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- Opening ---- */

static bool check_vocab(const eval_measure *m) {
    for (size_t i = 0; i < m->n_models; i++) {
        size_t n = m->models[i].source.n_vocab;
        size_t wanted = m->has_reference ? m->reference.n_vocab : m->models[0].source.n_vocab;
        if (n != wanted) {
            cli_failed("%s has a vocabulary of %zu, what it is compared with one of %zu",
                       m->models[i].path, n, wanted);
            return false;
        }
    }
    return true;
}

static jang_tokenizer *tokenizer_of(const eval_measure *m) {
    jang_model *model = m->reference_model ? m->reference_model : m->models[0].model;
    jang_tokenizer *tok = jang_model_tokenizer(model);
    if (!tok) {
        cli_failed("%s has no tokenizer to read the texts with", jang_model_get_info(model)->path);
    }
    return tok;
}

/* Context of the windows: what was asked for, but no more than every model allows. */
static size_t context_of(const eval_measure *m, int64_t asked) {
    int64_t n = asked;
    for (size_t i = 0; i < m->n_models; i++) {
        int64_t limit = jang_model_get_info(m->models[i].model)->n_context;
        n = limit < n ? limit : n;
    }
    return (size_t)n;
}

static bool open_models(eval_measure *m, const eval_measure_options *o) {
    m->models = calloc(o->models->n, sizeof *m->models);
    if (!m->models) {
        cli_failed("out of memory");
        return false;
    }
    for (size_t i = 0; i < o->models->n; i++) {
        eval_model *e = &m->models[m->n_models++];
        e->path = o->models->items[i];
        e->model = open_model(m->ctx, e->path, o->exact);
        if (!e->model) {
            return false;
        }
    }
    if (o->reference) {
        m->reference_model = open_model(m->ctx, o->reference, o->exact);
        return m->reference_model != NULL;
    }
    return true;
}

static bool open_sources(eval_measure *m, const eval_measure_options *o, size_t context) {
    for (size_t i = 0; i < m->n_models; i++) {
        eval_model *e = &m->models[i];
        e->figures = calloc(m->texts.n_sets + 1, sizeof *e->figures);
        if (!e->figures) {
            cli_failed("out of memory");
            return false;
        }
        if (!source_open_model(&e->source, m->ctx, e->model, context, o->kv_type)) {
            return false;
        }
    }
    m->has_reference = o->reference || o->reference_logits;
    if (o->reference &&
        !source_open_model(&m->reference, m->ctx, m->reference_model, context, JANG_KV_F32)) {
        return false;
    }
    if (o->reference_logits && !source_open_file(&m->reference, o->reference_logits, &m->texts)) {
        return false;
    }
    m->stores = o->save_reference != NULL;
    return check_vocab(m) && (!m->stores || store_open(&m->store, o->save_reference, &m->texts,
                                                       m->reference.n_vocab));
}

bool measure_open(eval_measure *m, const eval_measure_options *o) {
    *m = (eval_measure){.ctx = open_context(o->n_threads)};
    if (!m->ctx || !open_models(m, o)) {
        return false;
    }
    jang_tokenizer *tok = tokenizer_of(m);
    if (!tok) {
        return false;
    }
    eval_text_options text = {context_of(m, o->context), (size_t)o->max_tokens};
    return eval_texts_read(&m->texts, m->ctx, tok, o->texts, &text) &&
           open_sources(m, o, text.context);
}

void measure_close(eval_measure *m) {
    for (size_t i = 0; i < m->n_models; i++) {
        eval_model *e = &m->models[i];
        for (size_t s = 0; e->figures && s <= m->texts.n_sets; s++) {
            sample_free(&e->figures[s].kl);
            sample_free(&e->figures[s].mse);
            sample_free(&e->figures[s].nll);
            sample_free(&e->figures[s].reference_nll);
        }
        free(e->figures);
        source_close(&e->source);
        jang_model_free(e->model);
    }
    free(m->models);
    source_close(&m->reference);
    jang_model_free(m->reference_model);
    store_close(&m->store);
    eval_texts_free(&m->texts);
    jang_context_free(m->ctx);
    *m = (eval_measure){0};
}

/* ---- Measuring ---- */

/* What one row said, entered into the figures of its set and of all. */
static void enter(eval_figures *f, const row_difference *d, bool has_reference, bool has_next,
                  double nll, double reference_nll) {
    if (has_reference) {
        sample_add(&f->kl, d->kl);
        sample_add(&f->mse, d->mse);
        f->n_same += d->same_top;
    }
    if (has_next) {
        sample_add(&f->nll, nll);
    }
    if (has_next && has_reference) {
        sample_add(&f->reference_nll, reference_nll);
    }
}

/* Takes in n rows of a model whose tokens begin at `at` of the window. */
static void gather(eval_measure *m, eval_model *e, size_t set, const eval_window *w, size_t at,
                   size_t n) {
    size_t n_vocab = e->source.n_vocab;
    for (size_t i = 0; i < n; i++) {
        const float *row = e->source.rows + i * n_vocab;
        const float *reference = m->has_reference ? m->reference.rows + i * n_vocab : row;
        bool has_next = at + i + 1 < w->n;
        size_t next = has_next ? (size_t)w->ids[at + i + 1] : 0;
        row_difference d = {0};
        if (m->has_reference) {
            d = compare_rows(reference, row, n_vocab);
        } else if (has_next) {
            size_t top;
            d.log_sum = row_log_sum(row, n_vocab, &top);
        }
        double nll = d.log_sum - (double)row[next];
        double reference_nll = d.log_sum_reference - (double)reference[next];
        enter(&e->figures[set], &d, m->has_reference, has_next, nll, reference_nll);
        enter(&e->figures[m->texts.n_sets], &d, m->has_reference, has_next, nll, reference_nll);
    }
}

static bool measure_chunk(eval_measure *m, size_t set, const eval_window *w, size_t at, size_t n) {
    if (m->has_reference && !source_next(&m->reference, w->ids + at, n)) {
        return false;
    }
    if (m->stores && !store_rows(&m->store, m->reference.rows, n)) {
        return false;
    }
    for (size_t i = 0; i < m->n_models; i++) {
        eval_model *e = &m->models[i];
        if (!source_next(&e->source, w->ids + at, n)) {
            return false;
        }
        gather(m, e, set, w, at, n);
    }
    return true;
}

static void end_clusters(eval_measure *m, size_t set) {
    for (size_t i = 0; i < m->n_models; i++) {
        const size_t both[] = {set, m->texts.n_sets};
        for (size_t j = 0; j < 2; j++) {
            eval_figures *f = &m->models[i].figures[both[j]];
            sample_end_cluster(&f->kl);
            sample_end_cluster(&f->mse);
            sample_end_cluster(&f->nll);
            sample_end_cluster(&f->reference_nll);
        }
    }
}

static bool measure_window(eval_measure *m, size_t set, const eval_window *w) {
    bool ok = !m->has_reference || source_begin(&m->reference, w);
    ok = ok && (!m->stores || store_begin(&m->store, w));
    for (size_t i = 0; ok && i < m->n_models; i++) {
        ok = source_begin(&m->models[i].source, w);
    }
    for (size_t at = 0; ok && at < w->n; at += EVAL_CHUNK) {
        size_t n = w->n - at < EVAL_CHUNK ? w->n - at : EVAL_CHUNK;
        ok = measure_chunk(m, set, w, at, n);
    }
    end_clusters(m, set);
    return ok;
}

bool measure_run(eval_measure *m) {
    bool shows = is_terminal(stderr);
    for (size_t s = 0; s < m->texts.n_sets; s++) {
        const eval_set *set = &m->texts.sets[s];
        for (size_t i = 0; i < set->n_windows; i++) {
            if (shows) {
                fprintf(stderr, "\r\033[K%s: window %zu of %zu", set->path, i + 1, set->n_windows);
            }
            if (!measure_window(m, s, &set->windows[i])) {
                return false;
            }
        }
    }
    if (shows) {
        fputs("\r\033[K", stderr);
    }
    return !m->stores || store_finish(&m->store);
}

/* ---- Showing ---- */

static const char *set_name(const eval_measure *m, size_t s) {
    return s < m->texts.n_sets ? m->texts.sets[s].path : "all";
}

/* The sets to show: with one text "all" would say the same again. */
static size_t n_shown(const eval_measure *m) {
    return m->texts.n_sets + (m->texts.n_sets > 1);
}

static bool summarize(eval_summary *nll, eval_summary *reference_nll, eval_summary *kl,
                      eval_summary *mse, eval_figures *f, bool has_reference) {
    if (!sample_summary(nll, &f->nll)) {
        cli_failed("out of memory");
        return false;
    }
    if (has_reference && (!sample_summary(kl, &f->kl) || !sample_summary(mse, &f->mse) ||
                          !sample_summary(reference_nll, &f->reference_nll))) {
        cli_failed("out of memory");
        return false;
    }
    return true;
}

static bool print_row(eval_measure *m, text_table *table, const eval_model *e, size_t s) {
    eval_summary nll, reference, kl, mse;
    eval_figures *f = &e->figures[s];
    if (!summarize(&nll, &reference, &kl, &mse, f, m->has_reference)) {
        return false;
    }
    table_row *row = table_add(table);
    double perplexity = exp(nll.mean);
    size_t c = 0;
    table_set(row, c++, "%s", e->path);
    table_set(row, c++, "%s", set_name(m, s));
    table_set(row, c++, "%.2f", jang_model_get_info(e->model)->true_bits);
    table_set(row, c++, "%zu", m->has_reference ? kl.n : nll.n);
    table_set(row, c++, "%.4g +- %.2g", perplexity, perplexity * nll.error);
    if (m->has_reference) {
        double same = (double)f->n_same / (double)kl.n;
        table_set(row, c++, "%.4g +- %.2g", exp(reference.mean),
                  exp(reference.mean) * reference.error);
        table_set(row, c++, "%.4g +- %.2g", kl.mean, kl.error);
        table_set(row, c++, "%.3g +- %.2g", kl.p50.value, kl.p50.error);
        table_set(row, c++, "%.3g +- %.2g", kl.p99.value, kl.p99.error);
        table_set(row, c++, "%.3g", kl.max);
        table_set(row, c++, "%.2f +- %.2f", 100 * same, 100 * share_error(same, kl.n));
        table_set(row, c++, "%.4g +- %.2g", mse.mean, mse.error);
    }
    return true;
}

bool measure_print(eval_measure *m) {
    static const char *const with[] = {"model",       "text",          ">bits/weight", ">tokens",
                                       ">perplexity", ">of reference", ">mean KL",     ">median",
                                       ">99%",        ">max",          ">same top %",  ">logit MSE",
                                       NULL};
    static const char *const without[] = {"model",   "text",        ">bits/weight",
                                          ">tokens", ">perplexity", NULL};
    text_table table;
    table_init(&table, m->has_reference ? with : without);
    bool ok = true;
    for (size_t s = 0; ok && s < n_shown(m); s++) {
        for (size_t i = 0; ok && i < m->n_models; i++) {
            ok = print_row(m, &table, &m->models[i], s);
        }
    }
    if (ok) {
        table_print(&table, stdout);
    }
    table_free(&table);
    return ok;
}

static json_t *number(double x) {
    return isfinite(x) ? json_real(x) : json_null();
}

static json_t *summary_json(const eval_summary *s) {
    const struct {
        const char *name, *error_name;
        eval_percentile p;
    } percentiles[] = {{"p50", "p50_error", s->p50},
                       {"p90", "p90_error", s->p90},
                       {"p99", "p99_error", s->p99},
                       {"p99.9", "p99.9_error", s->p999}};
    json_t *o = json_pack("{s:o, s:o}", "mean", number(s->mean), "error", number(s->error));
    for (size_t i = 0; i < sizeof percentiles / sizeof *percentiles; i++) {
        json_object_set_new(o, percentiles[i].name, number(percentiles[i].p.value));
        json_object_set_new(o, percentiles[i].error_name, number(percentiles[i].p.error));
    }
    json_object_set_new(o, "max", number(s->max));
    return o;
}

static json_t *set_json(eval_measure *m, const eval_model *e, size_t s) {
    eval_summary nll, reference, kl, mse;
    eval_figures *f = &e->figures[s];
    if (!summarize(&nll, &reference, &kl, &mse, f, m->has_reference)) {
        return NULL;
    }
    json_t *o =
        json_pack("{s:s, s:I, s:o, s:o, s:o}", "text", set_name(m, s), "tokens", (json_int_t)nll.n,
                  "perplexity", number(exp(nll.mean)), "perplexity_error",
                  number(exp(nll.mean) * nll.error), "nll", summary_json(&nll));
    if (o && m->has_reference) {
        double same = (double)f->n_same / (double)kl.n;
        json_object_set_new(o, "reference_perplexity", number(exp(reference.mean)));
        json_object_set_new(o, "reference_perplexity_error",
                            number(exp(reference.mean) * reference.error));
        json_object_set_new(o, "kl", summary_json(&kl));
        json_object_set_new(o, "logit_mse", summary_json(&mse));
        json_object_set_new(o, "same_top", number(same));
        json_object_set_new(o, "same_top_error", number(share_error(same, kl.n)));
    }
    return o;
}

json_t *measure_json(eval_measure *m) {
    json_t *all = json_array();
    for (size_t i = 0; all && i < m->n_models; i++) {
        const jang_model_info *info = jang_model_get_info(m->models[i].model);
        json_t *sets = json_array();
        for (size_t s = 0; s <= m->texts.n_sets; s++) {
            json_t *set = set_json(m, &m->models[i], s);
            if (!set) {
                json_decref(sets);
                json_decref(all);
                return NULL;
            }
            json_array_append_new(sets, set);
        }
        json_array_append_new(all, json_pack("{s:s, s:s, s:f, s:f, s:I, s:o}", "model", info->path,
                                             "profile", info->profile, "true_bits", info->true_bits,
                                             "nominal_bits", info->nominal_bits, "weight_bytes",
                                             (json_int_t)info->weight_bytes, "texts", sets));
    }
    return all;
}

static bool print_json(eval_measure *m) {
    json_t *all = measure_json(m);
    bool ok = all && json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(7)) == 0;
    json_decref(all);
    if (!ok) {
        cli_failed("cannot write the figures as JSON");
        return false;
    }
    putchar('\n');
    return true;
}

int measure_command(const eval_measure_options *options, bool json) {
    interrupt_catch();
    eval_measure m;
    bool ok = measure_open(&m, options) && measure_run(&m);
    ok = ok && (json ? print_json(&m) : measure_print(&m));
    measure_close(&m);
    return ok ? CLI_DONE : CLI_FAILED;
}
