/* speculation.c - guesses at what an answer says next. */
#include "engine/speculation.h"

#include <math.h>
#include <string.h>

#define LOOKUP_LEAST 2    /* tokens that must be the same */
#define LOOKUP_MOST 6     /* more alike than this is no better */
#define LOOKUP_BACK 16384 /* how far back is looked */
#define LOOK_SHARE 0.125  /* of a new token in what is known of how often lookup is right */
#define COST_SHARE 0.02   /* of a new step in what is known of how long they take */
#define FIRST_GUESS 3     /* tokens that the draft model guesses at first */
#define GUESSED_ROWS 16   /* rows that guesses may add to a step, all answers together */

/* ---- Lookup ---- */

int32_t lookup_find(int32_t *out, int32_t n_most, const int32_t *ids, int32_t n_ids) {
    int32_t best = 0, at = 0, last = n_ids > LOOKUP_BACK ? n_ids - LOOKUP_BACK : 0;
    for (int32_t i = n_ids - 1; i > last && best < LOOKUP_MOST; i--) {
        int32_t n = 0;
        while (n < LOOKUP_MOST && n < i && ids[i - 1 - n] == ids[n_ids - 1 - n]) {
            n++;
        }
        if (n > best) {
            best = n;
            at = i;
        }
    }
    if (best < LOOKUP_LEAST) {
        return 0;
    }
    for (int32_t i = 0; i < n_most; i++) { /* what reaches the end goes round */
        out[i] = at + i < n_ids ? ids[at + i] : out[at + i - n_ids];
    }
    return n_most;
}

/* ---- What pays ---- */

void speculation_learn_cost(step_costs *c, int32_t n_rows, double seconds) {
    double n = n_rows, share = c->rows == 0 ? 1 : COST_SHARE;
    c->rows += share * (n - c->rows);
    c->seconds += share * (seconds - c->seconds);
    c->rows_rows += share * (n * n - c->rows_rows);
    c->rows_seconds += share * (n * seconds - c->rows_seconds);
}

/* A line through rows and seconds; where rows have hardly varied, one that was measured once. The
 * limits keep a machine that is busy with other things from misleading it far. */
double speculation_price(const step_costs *c, int32_t n) {
    double spread = c->rows_rows - c->rows * c->rows, price = n / (n + 3.0);
    if (spread > 0.02 * c->rows_rows) {
        double slope = (c->rows_seconds - c->rows * c->seconds) / spread;
        double step = c->seconds + slope * (n - c->rows);
        price = step > 0 ? n * slope / step : price;
    }
    return fmin(fmax(price, n / (n + 8.0)), n / (n + 1.0));
}

/* How many of n tokens that lookup has found are worth a row. */
static int32_t worth_guessing(const look_record *l, int32_t n, double price) {
    int32_t k = 0;
    for (double right = l->right; k < n && right > price; right *= l->right) {
        k++;
    }
    return k;
}

static void learn_look(look_record *l, bool was_right) {
    l->right += LOOK_SHARE * (was_right - l->right);
}

/* ---- How many the draft model guesses ---- */

/* Tokens to guess now, at most n_most. */
static int32_t how_many(draft_record *g, int32_t n_most) {
    if (g->pause > 0) {
        g->pause--;
        return 0;
    }
    int32_t n = g->n ? g->n : FIRST_GUESS;
    return n < n_most ? n : n_most;
}

static void learn_draft(draft_record *g, int32_t n_draft, int32_t n_accepted, int32_t n_most) {
    int32_t n = g->n ? g->n : FIRST_GUESS;
    if (n_accepted == n_draft) {
        g->n = 2 * n < n_most ? 2 * n : n_most;
    } else {
        g->n = n_accepted + 1 < n ? n_accepted + 1 : n;
    }
    if (n_accepted > 0) {
        g->n_misses = 0;
    } else {
        g->n_misses += g->n_misses < 6;
        g->pause = 1 << g->n_misses;
    }
}

/* What the draft model computed of wrong guesses does not count. */
void speculation_learn(jang_engine *e, answer *a) {
    a->n_drafted_done = a->n_ids - 1 < a->n_drafted_done ? a->n_ids - 1 : a->n_drafted_done;
    if (a->has_ended) {
        return;
    }
    if (a->n_wanted && a->n_draft > 0) {
        learn_draft(&a->drafting, a->n_draft, a->n_accepted, e->o.n_draft);
    } else if (a->n_draft > 0) {
        for (int32_t i = 0; i < a->n_accepted; i++) {
            learn_look(&a->looking, true);
        }
        if (a->n_accepted < a->n_draft) {
            learn_look(&a->looking, false);
        }
    } else if (a->looking.found >= 0) {
        learn_look(&a->looking, a->ids[a->n_ids - 1] == a->looking.found);
    }
}

/* ---- Draft model ---- */

jang_status speculation_check(const jang_model *m, const jang_model *draft) {
    if (draft->ctx != m->ctx || draft == m) {
        return ctx_fail(m->ctx, JANG_ERR_ARGUMENT,
                        "the draft model must be another model of the same context");
    }
    if (model_get_facts(draft->model)->n_state) {
        return ctx_fail(m->ctx, JANG_ERR_UNSUPPORTED,
                        "a draft model with recurrent state cannot take back its guesses");
    }
    int32_t n = m->tokenizer ? tok_size(m->tokenizer->tok) : 0;
    int32_t n_draft = draft->tokenizer ? tok_size(draft->tokenizer->tok) : 0;
    for (int32_t i = 0; i < n && i < n_draft; i++) {
        size_t n_own, n_other;
        const char *own = tok_token(m->tokenizer->tok, i, &n_own);
        const char *other = tok_token(draft->tokenizer->tok, i, &n_other);
        if (!own != !other || (own && (n_own != n_other || memcmp(own, other, n_own) != 0))) {
            return ctx_fail(m->ctx, JANG_ERR_ARGUMENT,
                            "the draft model has another vocabulary: token %d is \"%s\" here and "
                            "\"%s\" there",
                            (int)i, own ? own : "", other ? other : "");
        }
    }
    return n && n_draft ? JANG_OK
                        : ctx_fail(m->ctx, JANG_ERR_ARGUMENT,
                                   "a draft model needs a tokenizer, as its model does");
}

/* Adds rows [from, from + n) of an answer and its guesses so far to the draft model's batch. */
static void add_rows(jang_engine *e, answer *a, int32_t from, int32_t n, bool wants_logits) {
    batch_desc *d = &e->desc;
    e->seqs[d->n_seq] =
        (batch_seq){.first = d->n_tok, .n_tok = n, .n_past = from, .pages = a->pages};
    e->batch[d->n_seq++] = a;
    for (int32_t i = from; i < from + n; i++) {
        e->ids[d->n_tok++] = i < a->n_ids ? a->ids[i] : a->draft[i - a->n_ids];
    }
    if (wants_logits) {
        e->out[d->n_out++] = d->n_tok - 1;
    }
    a->n_rows = wants_logits;
    a->n_drafted_done = from + n;
}

/* Guesses the next token of a from the draft model's logits; false when there is none. */
static bool guess(jang_engine *e, answer *a, float *logits) {
    picker *p = &e->pickers[0];
    const jang_request *d = &a->r->d;
    int32_t n_ids = a->n_ids + a->n_draft;
    int32_t n_vocab = model_get_facts(e->o.draft->model)->n_vocab;
    n_vocab = n_vocab < e->n_vocab ? n_vocab : e->n_vocab;
    /* There is room for what may follow; only n_ids of them count as known. */
    memcpy(a->ids + a->n_ids, a->draft, (size_t)a->n_draft * sizeof *a->ids);
    for (int32_t i = n_vocab; i < e->n_vocab; i++) {
        logits[i] = -INFINITY;
    }
    const sample_task task = {
        .options = &d->sampling,
        .seed = d->sampling.seed + (uint64_t)a->index,
        .logits = logits,
        .ids = a->ids,
        .n_ids = (size_t)n_ids,
        .n_prompt = (size_t)a->n_prompt,
        .banned = a->r->ends,
        .n_banned = d->ignore_eos ? a->r->n_ends : 0,
    };
    int32_t id = sampler_pick(p->sampler, &task);
    if (id < 0 || id >= n_vocab) {
        return false;
    }
    a->draft[a->n_draft++] = id;
    return true;
}

/* Nothing depends on a draft: it may fail. */
static bool give_up(jang_engine *e) {
    for (int32_t i = 0; i < e->desc.n_seq; i++) {
        e->batch[i]->n_drafted_done = 0;
    }
    return false;
}

/* One pass of the draft model over what is in its batch. False: there is nothing more to guess. */
static bool run_draft(jang_engine *e) {
    model *m = e->o.draft->model;
    if (e->desc.n_tok == 0) {
        return false;
    }
    if (model_step(m, &e->desc, &e->draft_cache) != JANG_OK) {
        return give_up(e);
    }
    bool more = false;
    for (int32_t i = 0, row = 0; i < e->desc.n_seq; i++) {
        answer *a = e->batch[i];
        if (!a->n_rows) {
            continue;
        }
        if (model_logits(m, row++, 1, e->logits) != JANG_OK) {
            return give_up(e);
        }
        a->may_guess = guess(e, a, e->logits);
        more = more || (a->may_guess && a->n_draft < a->n_wanted);
    }
    return more;
}

/* Whether the next n tokens are in the draft model's vocabulary. */
static bool draft_knows(const jang_engine *e, const answer *a, int32_t n) {
    int32_t n_vocab = model_get_facts(e->o.draft->model)->n_vocab;
    for (int32_t i = 0; i < n; i++) {
        if (a->ids[a->n_drafted_done + i] >= n_vocab) {
            return false;
        }
    }
    return true;
}

static void begin_batch(jang_engine *e) {
    e->desc = (batch_desc){.ids = e->ids, .seqs = e->seqs, .out = e->out};
}

/* First all catch up with their text, as far as a chunk goes; then a token each at a time. */
static void draft(jang_engine *e) {
    int32_t chunk = e->o.prefill_chunk;
    begin_batch(e);
    for (size_t i = 0; i < e->running.n; i++) {
        answer *a = e->running.items[i];
        int32_t n = a->n_ids - a->n_drafted_done;
        if (a->n_wanted && n <= chunk && draft_knows(e, a, n)) {
            add_rows(e, a, a->n_drafted_done, n, true);
            chunk -= n;
        } else if (a->n_wanted) {
            a->n_wanted = 0;
            if (n > chunk && chunk > 0 && draft_knows(e, a, chunk)) {
                add_rows(e, a, a->n_drafted_done, chunk, false);
                chunk = 0;
            }
        }
    }
    while (run_draft(e)) {
        begin_batch(e);
        for (size_t i = 0; i < e->running.n; i++) {
            answer *a = e->running.items[i];
            if (a->may_guess && a->n_draft < a->n_wanted) {
                add_rows(e, a, a->n_ids + a->n_draft - 1, 1, true);
            }
        }
    }
}

/* ---- Both ---- */

/* Guesses that fit the answer's limit; 0 where there is no telling. */
static int32_t most_guesses(const jang_engine *e, const answer *a, int32_t n_most) {
    int32_t left = a->n_limit - a->n_ids - 1, from = model_get_facts(e->model->model)->long_from;
    if (from && a->n_form <= from && left > from - a->n_ids) { /* behind it all keys are others */
        left = from - a->n_ids;
    }
    n_most = n_most < left ? n_most : left;
    bool waits = a->n_done != a->n_ids - 1 || a->n_ids == a->n_prompt || a->n_forced > 0;
    return waits || n_most < 1 ? 0 : n_most;
}

/* Takes the pages for n guesses; 0 where there are none. */
static int32_t with_pages(jang_engine *e, answer *a, int32_t n) {
    return n > 0 && sequence_grow(e, a, a->n_ids + n) == JANG_OK ? n : 0;
}

/* Looks in any case, to learn from what it finds. */
static void look(jang_engine *e, answer *a, int32_t n_most, double price) {
    int32_t n = lookup_find(a->draft, n_most, a->ids, a->n_ids);
    a->looking.found = n > 0 ? a->draft[0] : -1;
    a->n_draft = with_pages(e, a, worth_guessing(&a->looking, n, price));
}

static int32_t begin_guessing(jang_engine *e) {
    int32_t n = 0;
    for (size_t i = 0; i < e->running.n; i++) {
        answer *a = e->running.items[i];
        a->n_draft = 0;
        a->n_wanted = 0;
        a->may_guess = false;
        a->looking.found = -1;
        n += a->n_done == a->n_ids - 1 && a->n_ids > a->n_prompt;
    }
    return n;
}

void speculate(jang_engine *e) {
    bool drafts = e->o.draft != NULL;
    int32_t left = GUESSED_ROWS, n_answers = begin_guessing(e);
    if ((!drafts && !e->o.lookup) || e->cache.state) {
        return;
    }
    double price = speculation_price(&e->costs, n_answers);
    for (size_t i = 0; i < e->running.n && left > 0; i++) {
        answer *a = e->running.items[i];
        int32_t n = most_guesses(e, a, left < e->o.n_draft ? left : e->o.n_draft);
        if (n > 0 && e->o.lookup) {
            look(e, a, n, price);
        }
        if (n > 0 && drafts && a->n_draft == 0) {
            a->n_wanted = with_pages(e, a, how_many(&a->drafting, n));
        }
        left -= a->n_draft + a->n_wanted;
    }
    if (drafts) {
        draft(e);
    }
}
