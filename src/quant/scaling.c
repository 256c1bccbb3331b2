/* scaling.c - which inputs can be scaled, and the factors of parts. */
#include "quant/scaling.h"

#include "base/half.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- The usual layers ---- */

/* Names below "layers.N.". A group counts where all parts without '?' are there. */
typedef struct group_rule {
    const char *makers[SCALING_MAKERS], *consumers[SCALING_CONSUMERS];
    bool heads; /* values, which several heads may share */
} group_rule;

#define ATTENTION "self_attn."
#define EXPERTS "mlp.switch_mlp."

static const group_rule layer_rules[] = {
    {{"input_layernorm.weight"},
     {ATTENTION "q_proj.weight", ATTENTION "k_proj.weight", ATTENTION "v_proj.weight"},
     false},
    {{ATTENTION "v_proj.weight", "?" ATTENTION "v_proj.bias"}, {ATTENTION "o_proj.weight"}, true},
    {{"post_attention_layernorm.weight"}, {"mlp.gate_proj.weight", "mlp.up_proj.weight"}, false},
    {{"mlp.up_proj.weight", "?mlp.up_proj.bias"}, {"mlp.down_proj.weight"}, false},
    {{"post_attention_layernorm.weight"},
     {EXPERTS "gate_proj.weight", EXPERTS "up_proj.weight", "mlp.gate.weight"},
     false},
    {{EXPERTS "up_proj.weight"}, {EXPERTS "down_proj.weight"}, false},
};
#define N_RULES (sizeof layer_rules / sizeof *layer_rules)

/* Other parts that such a layer may have, which change nothing. */
static const char *const layer_others[] = {
    ATTENTION "q_proj.bias", ATTENTION "k_proj.bias",   ATTENTION "v_proj.bias",
    ATTENTION "o_proj.bias", ATTENTION "q_norm.weight", ATTENTION "k_norm.weight",
    "mlp.gate_proj.bias",    "mlp.up_proj.bias",        "mlp.down_proj.bias",
};

/* Families whose layers are: x += attention(norm(x)), x += mlp(norm(x)), the MLP
 * down(act(gate) * up), norms without an offset. */
static const char *const usual_families[] = {"llama",     "mistral", "qwen2",   "qwen3",
                                             "qwen3_moe", "smollm3", "seed_oss"};

static bool is_usual(const char *model_type) {
    for (size_t i = 0; i < sizeof usual_families / sizeof *usual_families; i++) {
        if (strcmp(usual_families[i], model_type) == 0) {
            return true;
        }
    }
    return false;
}

/* ---- Finding parts ---- */

/* A used part's name below "layers.N.", and where that begins; NULL: it is in no layer. */
static const char *below_layer(const model_part *part, size_t *prefix) {
    const char *at = strstr(part->name, "layers.");
    at = at ? strchr(at + strlen("layers."), '.') : NULL;
    if (!at || !part->used) {
        return NULL;
    }
    *prefix = (size_t)(at + 1 - part->name);
    return at + 1;
}

static bool is_known(const char *name) {
    bool known = false;
    for (size_t i = 0; i < sizeof layer_others / sizeof *layer_others; i++) {
        known |= strcmp(layer_others[i], name) == 0;
    }
    for (size_t r = 0; r < N_RULES; r++) {
        for (int i = 0; i < SCALING_MAKERS; i++) {
            const char *maker = layer_rules[r].makers[i];
            known |= maker && strcmp(maker + (*maker == '?'), name) == 0;
        }
        for (int i = 0; i < SCALING_CONSUMERS; i++) {
            const char *consumer = layer_rules[r].consumers[i];
            known |= consumer && strcmp(consumer, name) == 0;
        }
    }
    return known;
}

/* The parts of one layer. */
typedef struct layer_parts {
    model_part *parts[64];
    int n;
    size_t prefix;
    bool known; /* all of them */
} layer_parts;

static model_part *layer_part(const layer_parts *l, const char *name) {
    for (int i = 0; i < l->n; i++) {
        if (strcmp(l->parts[i]->name + l->prefix, name) == 0) {
            return l->parts[i];
        }
    }
    return NULL;
}

/* Takes the parts from *at on that share a layer's prefix. Parts are sorted by name. */
static void next_layer(layer_parts *l, const part_list *list, size_t *at) {
    *l = (layer_parts){.known = true};
    const char *first = NULL;
    for (; *at < list->n_parts; (*at)++) {
        model_part *part = &list->parts[*at];
        size_t prefix;
        const char *name = below_layer(part, &prefix);
        if (!name && !part->used) {
            continue;
        }
        if (first && (!name || prefix != l->prefix || strncmp(first, part->name, prefix) != 0)) {
            return;
        }
        if (!name) {
            continue;
        }
        first = first ? first : part->name;
        l->prefix = prefix;
        l->known &= is_known(name) && l->n < 64;
        if (l->known) {
            l->parts[l->n++] = part;
        }
    }
}

/* ---- Groups ---- */

static bool divides(const scaling_group *g, int64_t n_head) {
    const model_part *to = g->consumers[0], *from = g->makers[0];
    int64_t made = from->params / (from->n_dim < 2 ? 1 : from->columns);
    return made == g->n_sets * g->n_channels && to->columns % g->n_channels == 0 &&
           (g->repeat == 1 || to->columns % n_head == 0);
}

/* Fills in the group of a rule; false: the layer has none, or its shapes are others. */
static bool fill_group(scaling_group *g, const group_rule *rule, const layer_parts *l,
                       int64_t n_head) {
    *g = (scaling_group){.n_sets = 1};
    for (int i = 0; i < SCALING_MAKERS && rule->makers[i]; i++) {
        bool optional = rule->makers[i][0] == '?';
        model_part *part = layer_part(l, rule->makers[i] + optional);
        if (!part && !optional) {
            return false;
        }
        if (part) {
            g->makers[g->n_makers++] = part;
        }
    }
    for (int i = 0; i < SCALING_CONSUMERS && rule->consumers[i]; i++) {
        model_part *part = layer_part(l, rule->consumers[i]);
        if (!part || part->n_dim < 2) {
            return false;
        }
        g->consumers[g->n_consumers++] = part;
    }
    const model_part *to = g->consumers[0], *from = g->makers[0];
    bool stacked = from->n_dim == 3 && to->n_dim == 3;
    g->n_sets = stacked ? to->shape[0] : 1;
    int64_t made = from->params / (from->n_dim < 2 ? 1 : from->columns);
    g->n_channels = made / g->n_sets;
    g->head = rule->heads ? to->columns / n_head : g->n_channels;
    g->repeat = g->n_channels > 0 ? to->columns / g->n_channels : 0;
    bool fits = g->repeat > 0 && divides(g, n_head) && (g->repeat == 1 || rule->heads);
    for (int i = 1; i < g->n_consumers; i++) {
        fits &= g->consumers[i]->columns == to->columns;
    }
    return fits && g->head > 0 && g->n_channels % g->head == 0;
}

static float *ones(ctx_t *ctx, int64_t n) {
    float *x = ctx_array(ctx, (size_t)n, sizeof *x);
    for (int64_t i = 0; x && i < n; i++) {
        x[i] = 1;
    }
    return x;
}

static part_scaling *attach(scalings *s, part_list *list, model_part *part) {
    part->scaling = &s->parts[part - list->parts];
    return &s->parts[part - list->parts];
}

static jang_status attach_group(scalings *s, part_list *list, const scaling_group *g) {
    bool made = true;
    for (int i = 0; i < g->n_makers; i++) {
        part_scaling *p = attach(s, list, g->makers[i]);
        p->rows = p->rows ? p->rows : ones(s->ctx, g->n_sets * g->n_channels);
        made &= p->rows != NULL;
    }
    for (int i = 0; i < g->n_consumers; i++) {
        part_scaling *p = attach(s, list, g->consumers[i]);
        p->n_sets = g->n_sets;
        p->columns = ones(s->ctx, g->n_sets * g->consumers[i]->columns);
        made &= p->columns != NULL;
    }
    return made ? JANG_OK : ctx_fail_memory(s->ctx, (size_t)(g->n_sets * g->n_channels) * 4);
}

static jang_status add_layer(scalings *s, part_list *list, const layer_parts *l, int64_t n_head) {
    for (size_t r = 0; r < N_RULES; r++) {
        scaling_group g;
        if (!fill_group(&g, &layer_rules[r], l, n_head)) {
            continue;
        }
        s->groups[s->n_groups++] = g;
        jang_status status = attach_group(s, list, &g);
        if (status != JANG_OK) {
            return status;
        }
    }
    return JANG_OK;
}

jang_status scalings_make(scalings *out, part_list *list, const char *model_type, json_at config) {
    scalings s = {.ctx = list->ctx, .n_parts = list->n_parts};
    int64_t n_head;
    jang_status status = json_get_int(&n_head, config, "num_attention_heads", 1, 1, 1 << 20);
    if (status != JANG_OK || !is_usual(model_type)) {
        *out = s;
        return status;
    }
    s.parts = ctx_zero(s.ctx, s.n_parts + 1, sizeof *s.parts);
    s.groups = ctx_zero(s.ctx, s.n_parts * N_RULES + 1, sizeof *s.groups);
    if (!s.parts || !s.groups) {
        scalings_free(&s);
        return ctx_fail_memory(list->ctx, s.n_parts * sizeof *s.groups);
    }
    for (size_t at = 0; at < list->n_parts && status == JANG_OK;) {
        layer_parts l;
        next_layer(&l, list, &at);
        if (l.known && l.n) {
            status = add_layer(&s, list, &l, n_head);
        }
    }
    *out = s; /* what the parts point to, even of a failure */
    return status;
}

void scalings_free(scalings *s) {
    for (size_t i = 0; s->parts && i < s->n_parts; i++) {
        ctx_free(s->ctx, s->parts[i].rows);
        ctx_free(s->ctx, s->parts[i].columns);
    }
    ctx_free(s->ctx, s->parts);
    ctx_free(s->ctx, s->groups);
    *s = (scalings){0};
}

scaling_group *scalings_find(const scalings *s, const model_part *part) {
    for (size_t i = 0; i < s->n_groups; i++) {
        for (int k = 0; k < s->groups[i].n_consumers; k++) {
            if (s->groups[i].consumers[k] == part) {
                return &s->groups[i];
            }
        }
    }
    return NULL;
}

int64_t scaling_channel(const scaling_group *g, int64_t column) {
    return column / (g->head * g->repeat) * g->head + column % g->head;
}

/* ---- Factors ---- */

void scaling_set(scaling_group *g, const float *factors) {
    for (int i = 0; i < g->n_makers; i++) {
        for (int64_t k = 0; k < g->n_sets * g->n_channels; k++) {
            g->makers[i]->scaling->rows[k] = 1 / factors[k];
        }
    }
    for (int i = 0; i < g->n_consumers; i++) {
        int64_t columns = g->consumers[i]->columns;
        for (int64_t k = 0; k < g->n_sets * columns; k++) {
            const float *set = factors + k / columns * g->n_channels;
            g->consumers[i]->scaling->columns[k] = set[scaling_channel(g, k % columns)];
        }
    }
    g->decided = true;
}

void scaling_get(float *factors, const scaling_group *g) {
    for (int64_t k = 0; k < g->n_sets * g->n_channels; k++) {
        factors[k] = 1 / g->makers[0]->scaling->rows[k];
    }
}

static const float *columns_of(const model_part *part, int64_t row) {
    const part_scaling *s = part->scaling;
    return s->columns + row / (part->rows / s->n_sets) * part->columns;
}

const float *scaling_columns(const model_part *part, int64_t row) {
    return part->scaling && part->scaling->columns ? columns_of(part, row) : NULL;
}

void scaling_apply(float *rows, const model_part *part, int64_t first, int64_t n) {
    const part_scaling *s = part->scaling;
    for (int64_t r = 0; r < n; r++) {
        float *row = rows + r * part->columns;
        const float *columns = s->columns ? columns_of(part, first + r) : NULL;
        for (int64_t c = 0; c < part->columns; c++) {
            float by = !s->rows ? 1 : s->rows[part->n_dim < 2 ? c : first + r];
            row[c] *= columns ? by * columns[c] : by;
        }
    }
}

void scaling_undo(float *rows, const model_part *part, int64_t first, int64_t n) {
    for (int64_t r = 0; r < n; r++) {
        const float *columns = scaling_columns(part, first + r);
        for (int64_t c = 0; c < part->columns && columns; c++) {
            rows[r * part->columns + c] /= columns[c];
        }
    }
}

bool scaling_stored(uint16_t *x, int64_t n, float by, dtype type) {
    bool fits = true;
    for (int64_t i = 0; i < n && by != 1; i++) {
        float v = type == DT_BF16 ? bf16_to_f32(x[i]) : f16_to_f32(x[i]);
        x[i] = type == DT_BF16 ? f32_to_bf16(v * by) : f32_to_f16(v * by);
        fits &= isfinite(type == DT_BF16 ? bf16_to_f32(x[i]) : f16_to_f32(x[i]));
    }
    return fits;
}
