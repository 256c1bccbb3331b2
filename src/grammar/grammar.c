/* grammar.c - making and sharing grammars. */
#include "grammar/grammar_impl.h"

#include "grammar/gr_expr.h"

jang_status gr_compile_regex(gr_auto *a, const char *text, size_t n) {
    gr_pool p;
    uint32_t e = 0;
    jang_status status = gr_pool_init(&p, a->ctx);
    if (status == JANG_OK) {
        status = gr_regex(&e, &p, "regex", text, n);
    }
    if (status == JANG_OK) {
        status = gr_expr_anchor(&e, &p, "regex", e, false);
    }
    if (status == JANG_OK) {
        a->root = (gr_ref){gr_rule_new(a), 0, GR_INF};
        gr_rule_set(a, a->root.rule, gr_expr_emit(a, &p, e, GR_SPELL_UTF8, gr_final(a)));
        status = a->status;
    }
    gr_pool_free(&p);
    return status == JANG_OK ? gr_check_rules(a, NULL, NULL, "regex") : status;
}

static jang_status compile(gr_auto *a, jang_grammar_kind kind, const char *text, size_t n) {
    switch (kind) {
    case JANG_GRAMMAR_SCHEMA:
    case JANG_GRAMMAR_SCHEMA_LOOSE:
        return gr_compile_schema(a, text, n, kind == JANG_GRAMMAR_SCHEMA_LOOSE);
    case JANG_GRAMMAR_JSON:
    case JANG_GRAMMAR_JSON_OBJECT:
        a->root = (gr_ref){kind == JANG_GRAMMAR_JSON ? a->json.value : a->json.object, 0, GR_INF};
        return gr_check_rules(a, NULL, NULL, "JSON");
    case JANG_GRAMMAR_GBNF:
        return gr_compile_gbnf(a, text, n);
    case JANG_GRAMMAR_REGEX:
        return gr_compile_regex(a, text, n);
    case JANG_GRAMMAR_STRUCTURE:
        return gr_compile_structure(a, text, n);
    }
    return ctx_fail(a->ctx, JANG_ERR_ARGUMENT, "grammar kind %d: 0 to 6 are there", (int)kind);
}

jang_status grammar_new(grammar **out, ctx_t *ctx, jang_grammar_kind kind, const char *text,
                        size_t n) {
    if (n > GR_MAX_TEXT) {
        return ctx_fail(ctx, JANG_ERR_UNSUPPORTED, "a grammar of %zu bytes: %zu are allowed", n,
                        GR_MAX_TEXT);
    }
    grammar *g = ctx_zero(ctx, 1, sizeof *g);
    if (!g) {
        return ctx_fail_memory(ctx, sizeof *g);
    }
    g->ctx = ctx;
    atomic_init(&g->n_owners, 1);
    pthread_mutex_init(&g->lock, NULL);
    jang_status status = gr_auto_init(&g->a, ctx);
    g->places.ctx = ctx;
    if (status == JANG_OK) {
        status = compile(&g->a, kind, text, n);
    }
    if (status == JANG_OK) {
        status = gr_places_init(&g->places, &g->a);
    }
    if (status != JANG_OK) {
        grammar_unref(g);
        return status;
    }
    gr_run_init(&g->run, &g->places);
    *out = g;
    return JANG_OK;
}

grammar *grammar_ref(grammar *g) {
    if (g) {
        atomic_fetch_add(&g->n_owners, 1);
    }
    return g;
}

void grammar_unref(grammar *g) {
    if (!g || atomic_fetch_sub(&g->n_owners, 1) > 1) {
        return;
    }
    gr_run_free(&g->run);
    gr_places_free(&g->places);
    gr_locals_free(g->locals);
    grammar_vocab_unref(g->locals_of);
    gr_auto_free(&g->a);
    pthread_mutex_destroy(&g->lock);
    ctx_free(g->ctx, g);
}

/* ---- jang.h ---- */

jang_status jang_grammar_new(jang_grammar **out, jang_context *ctx, jang_grammar_kind kind,
                             const char *text, size_t n_bytes) {
    return grammar_new(out, ctx, kind, text, n_bytes);
}

void jang_grammar_free(jang_grammar *g) {
    grammar_unref(g);
}

jang_status jang_grammar_match(size_t *n_ok, bool *complete, jang_grammar *g, const char *text,
                               size_t n_bytes) {
    grammar_state *s;
    jang_status status = grammar_state_new(&s, g, NULL);
    if (status != JANG_OK) {
        return status;
    }
    size_t n = 0;
    status = grammar_accept_bytes(s, text, n_bytes, &n);
    if (status == JANG_OK) {
        *n_ok = n;
        if (complete) {
            *complete = n == n_bytes && grammar_is_complete(s);
        }
    }
    grammar_state_free(s);
    return status;
}
