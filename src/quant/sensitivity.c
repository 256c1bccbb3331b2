/* sensitivity.c - layer by layer through a model on a backend that puts quantized weights in place.
 *
 * The backend is cpu's with its table replaced: before a product is made, a weight that has a
 * stand-in gives way to it. A stand-in is the item quantized as the plan says, made for the layer
 * at hand only. Streams are passed through a layer one after another: the original, one for each
 * matrix of the layer, one with all of them, and those that earlier layers have disturbed. */
#include "quant/sensitivity.h"

#include "base/file.h"
#include "base/pool.h"
#include "base/softmax.h"
#include "model/model.h"
#include "ops/hostbuf.h"
#include "quant/stand_in.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define SEQ_TOKENS 256
#define MAX_SEQS 4
#define ROW_STEP 2 /* of how many tokens one's answer is looked at */
#define MAX_LINEAR 16
#define NO_ITEM SIZE_MAX
#define ALL_ITEMS (SIZE_MAX - 1)

typedef struct prober {
    ops_table table; /* first: the backend's table pointer leads here */
    const ops_table *own;
    sensitivity_job *job;
    ctx_t *ctx;
    ops *o;
    model *m;
    model_cache cache;
    stand_in *stand_ins; /* [n_items] */
    size_t *seen;        /* [n_seen] items of the layer at hand, in the order of their products */
    size_t n_seen;
    size_t shown; /* the item whose stand-in is used, ALL_ITEMS or NO_ITEM */
    bool looks;   /* originals and the squares of inputs are noted */
    jang_status status;
    int n_layer;
    int32_t n_seq, n_embd, n_vocab;
    size_t n_tok;
    int32_t ids[MAX_SEQS * SEQ_TOKENS], out[MAX_SEQS * SEQ_TOKENS];
    int32_t pages[MAX_SEQS * SEQ_TOKENS / OPS_PAGE_TOKENS], n_out;
    batch_seq seqs[MAX_SEQS];
    float *stream, *next, *scratch; /* [n_tok, n_embd]: the original's, ahead of a layer, after */
    float **disturbed;              /* [n_layer + 1]; the last: by the embedding; NULL: not yet */
    double *shares;                 /* [n_items] squared change of a layer's output */
    int *layer_of;                  /* [n_items] whose divergence is shared out; -1: none */
    float *answers, *logits;        /* [n_out, n_vocab] */
    double *row_kl;                 /* [n_out] */
    double started;
} prober;

/* ---- Items and their stand-ins ---- */

static size_t item_of(const prober *p, const ops_weight *w) {
    const char *name = model_weight_name(p->m, w);
    return name ? plan_find_module(p->job->plan, name) : NO_ITEM;
}

/* Whether an item's rows are the weight's, so that its stand-in can take the weight's place. */
static bool same_shape(const plan_item *item, const ops_weight *w) {
    int64_t n_expert = w->d.n_expert ? w->d.n_expert : 1;
    return item->part->rows == w->d.n_out * n_expert && item->part->columns == w->d.n_in;
}

/* Notes a weight when it is first met in a layer, and its inputs; x.buf NULL: it has none. */
static void look(prober *p, size_t number, const ops_weight *w, ops_mat x) {
    stand_in *s = &p->stand_ins[number];
    if (!s->original && same_shape(&p->job->plan->items[number], w)) {
        s->original = (ops_weight *)w;
        p->seen[p->n_seen++] = number;
    }
    if (!x.buf || !s->original) {
        return;
    }
    float **sum = &p->job->importance[number];
    if (!*sum) {
        *sum = ctx_zero(p->ctx, (size_t)x.width, sizeof **sum);
        if (!*sum) {
            p->status = ctx_fail_memory(p->ctx, (size_t)x.width * sizeof **sum);
            return;
        }
    }
    for (int64_t i = 0; i < x.n_row; i++) {
        const float *row = host_row(x, i);
        for (int64_t k = 0; k < x.width; k++) {
            (*sum)[k] += row[k] * row[k];
        }
    }
}

/* The weight to multiply with: the given one, or what stands in for it. */
static const ops_weight *choose(prober *p, const ops_weight *w, ops_mat x) {
    size_t number = p->looks || p->shown != NO_ITEM ? item_of(p, w) : NO_ITEM;
    if (number == NO_ITEM) {
        return w;
    }
    if (p->looks) {
        look(p, number, w, x);
    }
    const stand_in *s = &p->stand_ins[number];
    bool show = p->shown == number || p->shown == ALL_ITEMS;
    return show && s->weight && s->original == w ? s->weight : w;
}

static void run_linear(ops *o, ops_mat x, const linear_item *items, int n_items) {
    prober *p = (prober *)(void *)o->table;
    for (int at = 0; at < n_items; at += MAX_LINEAR) {
        linear_item some[MAX_LINEAR];
        int n = n_items - at < MAX_LINEAR ? n_items - at : MAX_LINEAR;
        for (int i = 0; i < n; i++) {
            some[i] = items[at + i];
            some[i].weight = choose(p, some[i].weight, x);
        }
        p->own->linear(o, x, some, n);
    }
}

static void run_experts(ops *o, const ops_routes *routes, ops_mat x, const expert_item *items,
                        int n_items) {
    prober *p = (prober *)(void *)o->table;
    for (int at = 0; at < n_items; at += MAX_LINEAR) {
        expert_item some[MAX_LINEAR];
        int n = n_items - at < MAX_LINEAR ? n_items - at : MAX_LINEAR;
        for (int i = 0; i < n; i++) {
            some[i] = items[at + i];
            some[i].weight = choose(p, some[i].weight, x);
        }
        p->own->linear_experts(o, routes, x, some, n);
    }
}

static void run_embed(ops *o, const ops_weight *w, embed_by by, const ops_batch *batch, float scale,
                      ops_mat y) {
    prober *p = (prober *)(void *)o->table;
    p->own->embed(o, choose(p, w, (ops_mat){0}), by, batch, scale, y);
}

static jang_status make_stand_in(prober *p, size_t number) {
    const sensitivity_job *job = p->job;
    const stand_in_job j = {.ctx = p->ctx,
                            .source = job->source,
                            .table = p->own,
                            .ops = p->o,
                            .item = &job->plan->items[number],
                            .fn = job->fn,
                            .importance = job->weighted ? job->importance[number] : NULL};
    return stand_in_make(&p->stand_ins[number], &j);
}

static jang_status make_stand_ins(prober *p) {
    jang_status status = JANG_OK;
    for (size_t i = 0; i < p->n_seen && status == JANG_OK; i++) {
        status = make_stand_in(p, p->seen[i]);
    }
    return status;
}

static void forget_seen(prober *p) {
    for (size_t i = 0; i < p->n_seen; i++) {
        stand_in_free(&p->stand_ins[p->seen[i]], p->ctx, p->own, p->o);
    }
    p->n_seen = 0;
}

/* ---- Passes ---- */

static batch_desc make_batch(prober *p) {
    return (batch_desc){.n_tok = (int32_t)p->n_tok,
                        .ids = p->ids,
                        .n_seq = p->n_seq,
                        .seqs = p->seqs,
                        .n_out = p->n_out,
                        .out = p->out};
}

static void move_stream(prober *p, float *kept, bool out) {
    ops_mat s = model_stream(p->m, (int64_t)p->n_tok);
    size_t n_bytes = (size_t)p->n_embd * sizeof(float);
    for (size_t i = 0; i < p->n_tok; i++) {
        float *row = host_row(s, (int64_t)i), *there = kept + i * (size_t)p->n_embd;
        memcpy(out ? there : row, out ? row : there, n_bytes);
    }
}

static jang_status finish(prober *p) {
    jang_status status = p->own->finish(p->o);
    return status == JANG_OK ? p->status : status;
}

/* Begins a step whose stream is from, or where that is NULL the embedded tokens. */
static jang_status begin(prober *p, const batch_desc *b, float *from) {
    jang_status status = model_begin(p->m, b);
    if (status == JANG_OK) {
        status = finish(p);
    }
    if (status == JANG_OK && from) {
        move_stream(p, from, false);
    }
    return status;
}

/* to = the tokens as embedded. */
static jang_status embed(prober *p, float *to) {
    batch_desc b = make_batch(p);
    jang_status status = begin(p, &b, NULL);
    if (status == JANG_OK) {
        move_stream(p, to, true);
    }
    return status;
}

/* Passes a stream through a layer, showing an item's stand-in. */
static jang_status pass(prober *p, int layer, float *from, float *to, size_t shown) {
    batch_desc b = make_batch(p);
    bool looks = p->looks;
    p->looks = false; /* the embedding, which begin calls, is no matter of the layer's */
    p->shown = NO_ITEM;
    jang_status status = begin(p, &b, from);
    if (status != JANG_OK) {
        return status;
    }
    p->looks = looks;
    p->shown = shown;
    model_layer(p->m, (layer_stages){layer, 0, INT_MAX}, &b, &p->cache);
    status = finish(p);
    p->looks = false;
    p->shown = NO_ITEM;
    if (status == JANG_OK) {
        move_stream(p, to, true);
    }
    return status;
}

static double squared_distance(const prober *p, const float *a, const float *b) {
    double sum = 0;
    for (size_t i = 0; i < p->n_tok; i++) {
        float row = 0;
        for (size_t k = i * (size_t)p->n_embd; k < (i + 1) * (size_t)p->n_embd; k++) {
            row += (a[k] - b[k]) * (a[k] - b[k]);
        }
        sum += (double)row;
    }
    return sum;
}

static float *new_stream(prober *p) {
    float *s = ctx_array(p->ctx, p->n_tok * (size_t)p->n_embd, sizeof *s);
    p->status = s ? p->status : ctx_fail_memory(p->ctx, p->n_tok * (size_t)p->n_embd * sizeof *s);
    return s;
}

/* Moves the streams that earlier layers disturbed on through a layer. */
static jang_status carry_on(prober *p, int layer) {
    jang_status status = JANG_OK;
    for (int i = 0; i <= p->n_layer && status == JANG_OK; i++) {
        if (p->disturbed[i] && i != layer) {
            status = pass(p, layer, p->disturbed[i], p->disturbed[i], NO_ITEM);
        }
    }
    return status;
}

/* Looks at a layer, tries each of its matrices and all of them. */
static jang_status probe_layer(prober *p, int layer) {
    p->looks = true;
    jang_status status = pass(p, layer, p->stream, p->next, NO_ITEM);
    if (status == JANG_OK) {
        status = make_stand_ins(p);
    }
    for (size_t i = 0; i < p->n_seen && status == JANG_OK; i++) {
        status = pass(p, layer, p->stream, p->scratch, p->seen[i]);
        p->shares[p->seen[i]] = squared_distance(p, p->next, p->scratch);
        p->layer_of[p->seen[i]] = layer;
    }
    if (status == JANG_OK && p->n_seen) {
        p->disturbed[layer] = new_stream(p);
        status = p->status;
    }
    if (status == JANG_OK && p->n_seen) {
        status = pass(p, layer, p->stream, p->disturbed[layer], ALL_ITEMS);
    }
    forget_seen(p);
    if (status == JANG_OK) {
        status = carry_on(p, layer);
    }
    float *old = p->stream;
    p->stream = p->next;
    p->next = old;
    return status;
}

/* ---- Answers ---- */

/* Logits of the rows looked at, of a stream at its end. */
static jang_status answer(prober *p, float *stream, float *logits, size_t shown) {
    batch_desc b = make_batch(p);
    bool looks = p->looks;
    p->looks = false;
    jang_status status = begin(p, &b, stream);
    p->looks = looks;
    p->shown = shown;
    if (status == JANG_OK) {
        status = model_end(p->m, &b);
    }
    if (status == JANG_OK) {
        status = model_logits(p->m, 0, p->n_out, logits);
    }
    p->shown = NO_ITEM;
    p->looks = false;
    return status == JANG_OK ? p->status : status;
}

static void run_kl(void *arg, int row, int thread) {
    (void)thread;
    prober *p = arg;
    size_t at = (size_t)row * (size_t)p->n_vocab;
    p->row_kl[row] = softmax_divergence(p->answers + at, p->logits + at, p->n_vocab);
}

/* The divergence of a stream's answers from the original's. */
static jang_status diverge(double *out, prober *p, float *stream, size_t shown) {
    jang_status status = answer(p, stream, p->logits, shown);
    if (status != JANG_OK) {
        return status;
    }
    pool_run(ctx_pool(p->ctx), run_kl, p, p->n_out);
    double sum = 0;
    for (int32_t i = 0; i < p->n_out; i++) {
        sum += p->row_kl[i];
    }
    sum /= p->n_out;
    *out = sum > 0 && isfinite(sum) ? sum : 0;
    return JANG_OK;
}

/* Shares a layer's divergence out among its items. */
static void share_out(prober *p, int layer, double divergence) {
    double sum = 0;
    size_t n = 0;
    for (size_t i = 0; i < p->job->plan->n_items; i++) {
        if (p->layer_of[i] == layer) {
            sum += p->shares[i];
            n++;
        }
    }
    for (size_t i = 0; i < p->job->plan->n_items; i++) {
        if (p->layer_of[i] == layer) {
            p->job->divergence[i] = divergence * (sum > 0 ? p->shares[i] / sum : 1.0 / (double)n);
        }
    }
}

/* The embedding's item, and the output matrix's, are what is seen outside the layers. */
static jang_status probe_answers(prober *p, size_t embedding) {
    p->looks = true;
    jang_status status = answer(p, p->stream, p->answers, NO_ITEM);
    size_t head = p->n_seen ? p->seen[0] : NO_ITEM;
    if (status == JANG_OK) {
        status = make_stand_ins(p);
    }
    for (int i = 0; i < p->n_layer && status == JANG_OK; i++) {
        double kl = 0;
        if (p->disturbed[i]) {
            status = diverge(&kl, p, p->disturbed[i], NO_ITEM);
            share_out(p, i, kl);
        }
    }
    if (status == JANG_OK && embedding != NO_ITEM) {
        size_t shown = head == embedding ? head : NO_ITEM;
        status = diverge(&p->job->divergence[embedding], p, p->disturbed[p->n_layer], shown);
    }
    if (status == JANG_OK && head != NO_ITEM && head != embedding) {
        status = diverge(&p->job->divergence[head], p, p->stream, head);
    }
    forget_seen(p);
    return status;
}

/* Embeds the tokens, and once more by the embedding as quantized. */
static jang_status probe_embedding(size_t *item, prober *p) {
    p->looks = true;
    jang_status status = embed(p, p->stream);
    p->looks = false;
    *item = p->n_seen ? p->seen[0] : NO_ITEM;
    if (status != JANG_OK || *item == NO_ITEM) {
        forget_seen(p);
        return status;
    }
    p->disturbed[p->n_layer] = new_stream(p);
    status = p->status == JANG_OK ? make_stand_ins(p) : p->status;
    if (status == JANG_OK) {
        p->shown = *item;
        status = embed(p, p->disturbed[p->n_layer]);
        p->shown = NO_ITEM;
    }
    forget_seen(p);
    return status;
}

/* ---- The whole ---- */

/* Takes sequences evenly from the text. */
static void take_text(prober *p) {
    size_t n = p->job->n_ids / SEQ_TOKENS;
    p->n_seq = (int32_t)(n < MAX_SEQS ? n : MAX_SEQS);
    p->n_tok = (size_t)p->n_seq * SEQ_TOKENS;
    for (int32_t i = 0; i < p->n_seq; i++) {
        size_t from = n * (size_t)i / (size_t)p->n_seq * SEQ_TOKENS;
        memcpy(p->ids + i * SEQ_TOKENS, p->job->ids + from, SEQ_TOKENS * sizeof *p->ids);
        p->seqs[i] = (batch_seq){.first = i * SEQ_TOKENS,
                                 .n_tok = SEQ_TOKENS,
                                 .pages = p->pages + i * (SEQ_TOKENS / OPS_PAGE_TOKENS),
                                 .state = i};
    }
    for (int32_t i = 0; i < (int32_t)p->n_tok / OPS_PAGE_TOKENS; i++) {
        p->pages[i] = i;
    }
    for (int32_t i = ROW_STEP - 1; i < (int32_t)p->n_tok; i += ROW_STEP) {
        p->out[p->n_out++] = i;
    }
}

static jang_status open_model(prober *p) {
    const ops_options exact = {.exact = true};
    jang_status status = ops_open(&p->o, p->ctx, "cpu", &exact);
    if (status != JANG_OK) {
        return status;
    }
    p->own = p->o->table;
    p->table = *p->own;
    p->table.linear = run_linear;
    p->table.linear_experts = run_experts;
    p->table.embed = run_embed;
    p->o->table = &p->table;
    status = model_open(&p->m, p->ctx, p->job->run, p->o);
    if (status == JANG_OK) {
        status = model_reserve(p->m, (int32_t)p->n_tok);
    }
    if (status == JANG_OK) {
        status = model_cache_new(&p->cache, p->m, KV_F32);
    }
    return status == JANG_OK
               ? model_cache_grow(&p->cache, p->m, (int32_t)p->n_tok / OPS_PAGE_TOKENS, p->n_seq)
               : status;
}

static jang_status make_room(prober *p) {
    const model_facts *facts = model_get_facts(p->m);
    size_t n = p->job->plan->n_items + 1;
    p->n_layer = facts->n_layer;
    p->n_embd = facts->n_embd;
    p->n_vocab = facts->n_vocab;
    size_t answers = (size_t)p->n_out * (size_t)p->n_vocab;
    bool made = (p->stream = new_stream(p)) && (p->next = new_stream(p)) &&
                (p->scratch = new_stream(p)) &&
                (p->stand_ins = ctx_zero(p->ctx, n, sizeof *p->stand_ins)) &&
                (p->seen = ctx_zero(p->ctx, n, sizeof *p->seen)) &&
                (p->shares = ctx_zero(p->ctx, n, sizeof *p->shares)) &&
                (p->layer_of = ctx_zero(p->ctx, n, sizeof *p->layer_of)) &&
                (p->disturbed = ctx_zero(p->ctx, (size_t)p->n_layer + 1, sizeof *p->disturbed)) &&
                (p->answers = ctx_array(p->ctx, answers, sizeof *p->answers)) &&
                (p->logits = ctx_array(p->ctx, answers, sizeof *p->logits)) &&
                (p->row_kl = ctx_zero(p->ctx, (size_t)p->n_out, sizeof *p->row_kl));
    if (!made) {
        return ctx_fail_memory(p->ctx, 2 * answers * sizeof(float));
    }
    for (size_t i = 0; i + 1 < n; i++) {
        p->layer_of[i] = -1;
        p->job->divergence[i] = -1;
    }
    return JANG_OK;
}

static void close_prober(prober *p) {
    if (p->stand_ins) {
        forget_seen(p);
    }
    for (int i = 0; p->disturbed && i <= p->n_layer; i++) {
        ctx_free(p->ctx, p->disturbed[i]);
    }
    void *all[] = {p->stream,   p->next,      p->scratch, p->stand_ins, p->seen,  p->shares,
                   p->layer_of, p->disturbed, p->answers, p->logits,    p->row_kl};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        ctx_free(p->ctx, all[i]);
    }
    if (p->m) {
        model_cache_free(&p->cache, p->m);
        model_close(p->m);
    }
    if (p->o) {
        p->o->table = p->own ? p->own : p->o->table;
        ops_close(p->o);
    }
}

static jang_status report(const prober *p, int layer) {
    if (!p->job->on_progress) {
        return JANG_OK;
    }
    char what[64];
    snprintf(what, sizeof what, "measuring layer %d of %d", layer + 1, p->n_layer);
    uint64_t total = checkpoint_bytes(p->job->source);
    jang_progress progress = {what, total / (uint64_t)p->n_layer * (uint64_t)layer, total,
                              clock_seconds() - p->started};
    return p->job->on_progress(p->job->user, &progress)
               ? JANG_OK
               : ctx_fail(p->ctx, JANG_ERR_CANCELLED, "the conversion was cancelled");
}

static jang_status probe(prober *p) {
    size_t embedding;
    jang_status status = probe_embedding(&embedding, p);
    for (int i = 0; i < p->n_layer && status == JANG_OK; i++) {
        status = report(p, i);
        if (status == JANG_OK) {
            status = probe_layer(p, i);
        }
    }
    return status == JANG_OK ? probe_answers(p, embedding) : status;
}

jang_status sensitivity_measure(sensitivity_job *job) {
    prober *p = ctx_zero(job->ctx, 1, sizeof *p);
    if (!p) {
        return ctx_fail_memory(job->ctx, sizeof *p);
    }
    p->job = job;
    p->ctx = job->ctx;
    p->shown = NO_ITEM;
    p->started = clock_seconds();
    take_text(p);
    jang_status status = p->n_seq > 0 ? open_model(p)
                                      : ctx_fail(p->ctx, JANG_ERR_ARGUMENT,
                                                 "%zu tokens of text; at least %d are needed",
                                                 job->n_ids, SEQ_TOKENS);
    if (status == JANG_OK) {
        status = make_room(p);
    }
    if (status == JANG_OK) {
        status = probe(p);
    }
    close_prober(p);
    ctx_free(job->ctx, p);
    return status;
}
