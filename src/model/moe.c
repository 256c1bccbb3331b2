/* moe.c - the mixture-of-experts block: weights and forward pass. */
#include "model/moe.h"

enum {
    SLOT_LOGITS = WORK_BLOCK + 2, /* after those of the shared expert's MLP */
    SLOT_GATE,                    /* of routes, n_used rows a token, as the next two */
    SLOT_UP,
    SLOT_DOWN,
    SLOT_SHARED,
    SLOT_SHARED_GATE,
    SLOT_INPUT, /* normed for the router, then for the experts */
    SLOT_LATENT /* what experts read, then what they give, in their own width */
};

typedef struct moe {
    block base;
    int n_used;
    int64_t n_expert, n_ff, n_embd, n_latent; // n_latent 0: experts read the stream
    route_desc route;
    act_desc act;
    float clamp, clamp_alpha;
    bool scale_input;
    const ops_weight *router;                 // (n_expert, n_embd)
    const ops_weight *gate, *up;              // n_expert of (n_ff, n_embd); gate NULL: none
    const ops_weight *down;                   // n_expert of (n_embd, n_ff)
    block *shared;                            // or NULL
    const ops_weight *shared_gate;            // (1, n_embd) or NULL
    const ops_weight *latent_in, *latent_out; // (n_latent, n_embd), (n_embd, n_latent) or NULL
    norm_desc router_norm, input_norm;        // width 0: none
} moe;

const moe_names moe_names_mlp = {
    .router = "mlp.gate",
    .select_bias = "mlp.gate.e_score_correction_bias",
    .stacked = {"mlp.switch_mlp.gate_proj", "mlp.switch_mlp.up_proj", "mlp.switch_mlp.down_proj"},
    .before = "mlp.experts.",
    .after = {".gate_proj", ".up_proj", ".down_proj"},
    .fused_in = "mlp.experts.gate_up_proj",
    .in_order = FUSED_ROWS,
    .fused_out = "mlp.experts.down_proj",
    .out_order = FUSED_ROWS,
    .shared = "mlp.shared_experts",
};

const moe_names moe_names_sparse = {
    .router = "block_sparse_moe.gate",
    .select_bias = "block_sparse_moe.e_score_correction_bias",
    .stacked = {"block_sparse_moe.switch_mlp.gate_proj", "block_sparse_moe.switch_mlp.up_proj",
                "block_sparse_moe.switch_mlp.down_proj"},
    .before = "block_sparse_moe.experts.",
    .after = {".w1", ".w3", ".w2"},
};

/* ---- Forward pass ---- */

/* A slot with a row a route. */
static ops_mat route_rows(const moe *m, const block_step *s, int slot, int64_t width) {
    ops_mat rows = step_rows(s, slot, m->n_used * width);
    return (ops_mat){.buf = rows.buf,
                     .at = rows.at,
                     .stride = width,
                     .n_row = rows.n_row * m->n_used,
                     .width = width};
}

static ops_mat normed(const block_step *s, const norm_desc *norm, ops_mat h) {
    if (!norm->width) {
        return h;
    }
    ops_mat y = step_rows(s, SLOT_INPUT, h.width);
    s->t->norm(s->o, norm, h, y);
    return y;
}

static void choose_experts(const moe *m, const block_step *s, ops_mat h, ops_routes *routes) {
    ops_mat logits = step_rows(s, SLOT_LOGITS, m->n_expert);
    ops_mat x = normed(s, &m->router_norm, h);
    s->t->linear(s->o, x, &(linear_item){m->router, logits, false}, 1);
    s->t->route(s->o, &m->route, logits, routes);
}

/* What the experts read, a row a token or a route. */
static ops_mat expert_input(const moe *m, const block_step *s, ops_mat h,
                            const ops_routes *routes) {
    h = normed(s, &m->input_norm, h);
    if (m->latent_in) {
        ops_mat latent = step_rows(s, SLOT_LATENT, m->n_latent);
        s->t->linear(s->o, h, &(linear_item){m->latent_in, latent, false}, 1);
        h = latent;
    }
    if (m->scale_input) {
        ops_mat scaled = route_rows(m, s, SLOT_DOWN, h.width);
        s->t->take_routes(s->o, routes, h, scaled);
        h = scaled;
    }
    return h;
}

static void activate(const moe *m, const block_step *s, ops_mat gate, ops_mat up) {
    if (!m->gate) {
        s->t->gated(s->o, &m->act, up, (ops_mat){0}, gate);
    } else if (m->clamp > 0) {
        s->t->gated_clamped(s->o, m->clamp_alpha, m->clamp, gate, up, gate);
    } else {
        s->t->gated(s->o, &m->act, gate, up, gate);
    }
}

static void run_experts(const moe *m, const block_step *s, ops_mat h, ops_mat y, bool add) {
    const ops_table *t = s->t;
    ops_routes *routes = s->work->routes[WORK_EXPERTS].routes;
    ops_mat gate = route_rows(m, s, SLOT_GATE, m->n_ff), up = route_rows(m, s, SLOT_UP, m->n_ff);
    ops_mat down = route_rows(m, s, SLOT_DOWN, m->n_latent ? m->n_latent : m->n_embd);
    choose_experts(m, s, h, routes);
    h = expert_input(m, s, h, routes);
    const expert_item both[] = {{m->gate, gate}, {m->up, up}};
    t->linear_experts(s->o, routes, h, m->gate ? both : both + 1, m->gate ? 2 : 1);
    activate(m, s, gate, up);
    t->linear_experts(s->o, routes, gate, &(expert_item){m->down, down}, 1);
    if (!m->latent_out) {
        t->sum_routes(s->o, routes, down, y, add, m->scale_input);
        return;
    }
    ops_mat latent = step_rows(s, SLOT_LATENT, m->n_latent);
    t->sum_routes(s->o, routes, down, latent, false, m->scale_input);
    t->linear(s->o, latent, &(linear_item){m->latent_out, y, add}, 1);
}

static void moe_run(const block *b, const block_step *s, ops_mat h, ops_mat y, bool add) {
    const moe *m = (const moe *)b;
    run_experts(m, s, h, y, add);
    if (m->shared_gate) {
        ops_mat shared = step_rows(s, SLOT_SHARED, m->n_embd);
        ops_mat gate = step_rows(s, SLOT_SHARED_GATE, 1);
        m->shared->kind->run(m->shared, s, h, shared, false);
        s->t->linear(s->o, h, &(linear_item){m->shared_gate, gate, false}, 1);
        s->t->add_gated(s->o, gate, shared, y);
    } else if (m->shared) {
        m->shared->kind->run(m->shared, s, h, y, true);
    }
}

static void moe_close(block *b, ctx_t *ctx) {
    block_close(((moe *)b)->shared, ctx);
    ctx_free(ctx, b);
}

static const block_kind moe_kind = {.name = "moe", .run = moe_run, .close = moe_close};

/* ---- Weights ---- */

static jang_status load_router(moe *m, loader *l, const moe_config *c, const char *prefix) {
    ops_weight *w;
    jang_status status = load_matrix(&w, l, c->n_expert, m->n_embd, c->router_bias, INPUT_FINE,
                                     "%s%s", prefix, c->names->router);
    if (status != JANG_OK) {
        return status;
    }
    m->router = w;
    const struct {
        const char *name;
        const ops_weight **out;
    } vectors[] = {
        {c->select_bias == BIAS_NEEDED ? c->names->select_bias : NULL, &m->route.bias},
        {c->names->expert_scale, &m->route.expert_scale},
    };
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors && status == JANG_OK; i++) {
        if (vectors[i].name) {
            status = load_param(&w, l, c->n_expert, "%s%s", prefix, vectors[i].name);
            *vectors[i].out = status == JANG_OK ? w : NULL;
        }
    }
    return status;
}

static jang_status load_three(moe *m, loader *l, const moe_config *c, const char *prefix) {
    const ops_weight **out[3] = {&m->gate, &m->up, &m->down};
    int64_t width = m->n_latent ? m->n_latent : m->n_embd;
    for (int i = c->plain; i < 3; i++) {
        const moe_names *n = c->names;
        bool last = i == 2;
        const expert_matrix matrix = {.stacked = n->stacked[i],
                                      .before = n->before,
                                      .after = n->after[i],
                                      .fused = last ? n->fused_out : n->fused_in,
                                      .order = last ? n->out_order : n->in_order,
                                      .which = last ? 0 : i,
                                      .n_fused = last ? 1 : 2,
                                      .n_out = last ? width : c->n_ff,
                                      .n_in = last ? c->n_ff : width,
                                      .bias = c->expert_bias};
        ops_weight *w;
        jang_status status = load_experts(&w, l, &matrix, (int)c->n_expert, (int)c->n_used, prefix);
        if (status != JANG_OK) {
            return status;
        }
        *out[i] = w;
    }
    return JANG_OK;
}

static jang_status load_shared(moe *m, loader *l, work *w, const moe_config *c,
                               const char *prefix) {
    const mlp_config mlp = {.n_ff = c->n_shared_ff,
                            .layout = c->plain ? MLP_PLAIN : MLP_GATED,
                            .bias = c->shared_bias,
                            .act = c->act,
                            .path = c->names->shared};
    jang_status status = mlp_make(&m->shared, l, w, &mlp, m->n_embd, prefix);
    if (status == JANG_OK && c->shared_gated) {
        ops_weight *gate;
        status = load_matrix(&gate, l, 1, m->n_embd, BIAS_NONE, INPUT_FINE, "%s%s", prefix,
                             c->names->shared_gate);
        if (status == JANG_OK) {
            m->shared_gate = gate;
            work_need(w, SLOT_SHARED, m->n_embd);
            work_need(w, SLOT_SHARED_GATE, 1);
        }
    }
    return status;
}

static jang_status load_latent(moe *m, loader *l, work *w, const moe_config *c,
                               const char *prefix) {
    ops_weight *in, *out;
    jang_status status = load_matrix(&in, l, m->n_latent, m->n_embd, c->latent_bias, INPUT_FINE,
                                     "%s%s", prefix, c->names->latent_in);
    if (status == JANG_OK) {
        status = load_matrix(&out, l, m->n_embd, m->n_latent, c->latent_bias, INPUT_FINE, "%s%s",
                             prefix, c->names->latent_out);
    }
    if (status == JANG_OK) {
        m->latent_in = in;
        m->latent_out = out;
        work_need(w, SLOT_LATENT, m->n_latent);
    }
    return status;
}

jang_status moe_make(block **out, loader *l, work *w, const moe_config *c, int64_t n_embd,
                     const char *prefix) {
    moe *m = ctx_alloc(l->ctx, sizeof *m);
    if (!m) {
        return ctx_fail_memory(l->ctx, sizeof *m);
    }
    *m = (moe){.base = {&moe_kind},
               .n_used = (int)c->n_used,
               .n_expert = c->n_expert,
               .n_ff = c->n_ff,
               .n_embd = n_embd,
               .n_latent = c->n_latent,
               .router_norm = c->router_norm,
               .input_norm = c->input_norm,
               .route = c->route,
               .act = c->act,
               .clamp = (float)c->clamp,
               .clamp_alpha = (float)c->clamp_alpha,
               .scale_input = c->scale_input};
    jang_status status =
        work_need_routes(w, l->ctx, WORK_EXPERTS, (int)c->n_expert, (int)c->n_used);
    if (status == JANG_OK) {
        status = load_router(m, l, c, prefix);
    }
    if (status == JANG_OK) {
        status = load_three(m, l, c, prefix);
    }
    if (status == JANG_OK && c->n_shared_ff) {
        status = load_shared(m, l, w, c, prefix);
    }
    if (status == JANG_OK && c->n_latent) {
        status = load_latent(m, l, w, c, prefix);
    }
    if (status != JANG_OK) {
        moe_close(&m->base, l->ctx);
        return status;
    }
    work_need(w, SLOT_LOGITS, c->n_expert);
    work_need(w, SLOT_GATE, c->n_used * c->n_ff);
    work_need(w, SLOT_UP, c->n_used * c->n_ff);
    int64_t width = c->n_latent ? c->n_latent : n_embd;
    work_need(w, SLOT_DOWN, c->n_used * width);
    work_need(w, SLOT_INPUT, c->router_norm.width || c->input_norm.width ? n_embd : 0);
    *out = &m->base;
    return JANG_OK;
}

jang_status moe_in_every_layer(block **out, decoder *d, loader *l, const decoder_config *c,
                               int layer) {
    char prefix[DECODER_PREFIX_BYTES];
    decoder_prefix(prefix, c, layer);
    return moe_make(out, l, &d->work, c->own, c->n_embd, prefix);
}

/* ---- Config ---- */

jang_status moe_read_counts(moe_config *c, json_at config, const char *const *expert_keys,
                            const char *used_key, int64_t default_experts, int64_t default_used) {
    const char *key = expert_keys[0];
    for (; *expert_keys; expert_keys++) {
        if (json_has(config.object, *expert_keys)) {
            key = *expert_keys;
            break;
        }
    }
    jang_status status =
        json_get_int(&c->n_expert, config, key, default_experts, 1, OPS_MAX_EXPERTS);
    if (status == JANG_OK) {
        status = json_get_int(&c->n_used, config, used_key, default_used, 1, OPS_MAX_EXPERTS);
    }
    if (status == JANG_OK && c->n_used > c->n_expert) {
        status = ctx_fail(config.ctx, JANG_ERR_FORMAT, "%s: %s %lld is more than %s %lld",
                          config.what, used_key, (long long)c->n_used, key, (long long)c->n_expert);
    }
    return status;
}

jang_status moe_read_groups(moe_config *m, json_at at, int64_t default_groups,
                            int64_t default_used) {
    int64_t n_group, topk_group;
    jang_status status = json_get_int(&n_group, at, "n_group", default_groups, 1, OPS_MAX_EXPERTS);
    if (status == JANG_OK) {
        status = json_get_int(&topk_group, at, "topk_group", default_used, 1, n_group);
    }
    if (status == JANG_OK &&
        (m->n_expert % n_group != 0 || m->n_expert / n_group * topk_group < m->n_used)) {
        status = ctx_fail(at.ctx, JANG_ERR_FORMAT,
                          "%s: %lld experts in n_group %lld, topk_group %lld of them for %lld "
                          "experts a token",
                          at.what, (long long)m->n_expert, (long long)n_group,
                          (long long)topk_group, (long long)m->n_used);
    }
    if (status == JANG_OK) {
        m->route.n_group = (int)n_group;
        m->route.n_group_used = (int)topk_group;
    }
    return status;
}
