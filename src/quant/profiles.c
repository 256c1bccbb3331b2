/* profiles.c - the table of profiles and how each chooses the width of a matrix.
 *
 * The mixed recipes are those of mlx-lm's convert ("mixed_quant_predicate_builder"), which follow
 * llama.cpp's Q4_K_M: v_proj and down_proj get the high width in the first and the last eighth of
 * the layers and in every third one between, lm_head always, all the rest the low width. */
#include "quant/profiles.h"

#include "base/buf.h"
#include "format/affine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef struct profile_row {
    const char *name;
    profile_kind kind;
    int8_t a, b, c, d; /* tiered: mlp, attention, embedding, lm_head; mixed: low, high */
    dtype type;
    int8_t target;
} profile_row;

#define TIERED(name, mlp, attention, embedding, head)                                              \
    { "JANG_" name, PROFILE_TIERED, mlp, attention, embedding, head, DT_COUNT, mlp }
#define MIXED(name, low, high)                                                                     \
    { name, PROFILE_MIXED, low, high, 0, 0, DT_COUNT, low }
#define BUDGET(name, bits)                                                                         \
    { "JANG_" name, PROFILE_BUDGET, 0, 0, 0, 0, DT_COUNT, bits }
#define FLOATING(name, type, bits)                                                                 \
    { name, PROFILE_FLOAT, 0, 0, 0, 0, type, bits }

static const profile_row rows[] = {
    TIERED("1L", 2, 8, 8, 8),
    TIERED("2S", 2, 6, 4, 6),
    TIERED("2M", 2, 8, 4, 8),
    TIERED("2L", 2, 8, 6, 8),
    TIERED("3S", 3, 4, 4, 6),
    TIERED("3M", 3, 6, 4, 6),
    TIERED("3L", 3, 8, 4, 8),
    TIERED("4S", 4, 5, 4, 6),
    TIERED("4M", 4, 6, 4, 6),
    TIERED("4L", 4, 8, 4, 8),
    TIERED("6M", 6, 8, 6, 8),
    BUDGET("2K", 2),
    BUDGET("3K", 3),
    BUDGET("4K", 4),
    BUDGET("5K", 5),
    BUDGET("6K", 6),
    MIXED("mixed_2_6", 2, 6),
    MIXED("mixed_3_4", 3, 4),
    MIXED("mixed_3_6", 3, 6),
    MIXED("mixed_4_6", 4, 6),
    FLOATING("bf16", DT_BF16, 16),
    FLOATING("f16", DT_F16, 16),
    FLOATING("f32", DT_F32, 32),
};

#define N_PROFILES (sizeof rows / sizeof *rows)

/* The names of the table, for programs; a test holds the two together. */
static const char *const names[N_PROFILES + 1] = {
    "JANG_1L",   "JANG_2S",   "JANG_2M",   "JANG_2L",   "JANG_3S", "JANG_3M", "JANG_3L", "JANG_4S",
    "JANG_4M",   "JANG_4L",   "JANG_6M",   "JANG_2K",   "JANG_3K", "JANG_4K", "JANG_5K", "JANG_6K",
    "mixed_2_6", "mixed_3_4", "mixed_3_6", "mixed_4_6", "bf16",    "f16",     "f32",     NULL,
};

const char *const *jang_profile_names(void) {
    return names;
}

static void fill(profile *out, const profile_row *row) {
    *out = (profile){.kind = row->kind,
                     .type = row->type,
                     .target = row->target,
                     .by_size = row->kind == PROFILE_BUDGET};
    snprintf(out->name, sizeof out->name, "%s", row->name);
    if (row->kind == PROFILE_TIERED) {
        out->bits[TIER_MLP] = row->a;
        out->bits[TIER_ATTENTION] = row->b;
        out->bits[TIER_EMBEDDING] = row->c;
        out->bits[TIER_LM_HEAD] = row->d;
    } else if (row->kind == PROFILE_MIXED) {
        out->low = row->a;
        out->high = row->b;
    }
}

static jang_status find_uniform(profile *out, ctx_t *ctx, int bits) {
    if (!affine_bits_ok(bits)) {
        return ctx_fail(ctx, JANG_ERR_ARGUMENT, "no width of %d bits; widths are 2, 3, 4, 5, 6, 8",
                        bits);
    }
    *out = (profile){.kind = PROFILE_UNIFORM, .type = DT_COUNT, .target = bits};
    snprintf(out->name, sizeof out->name, "%d-bit", bits);
    for (int t = TIER_MLP; t < TIER_COUNT; t++) {
        out->bits[t] = (int8_t)bits;
    }
    return JANG_OK;
}

/* JANG_nK of any n that is a budget. */
static bool find_any_k(profile *out, const char *name) {
    const char *digits = strncasecmp(name, "JANG_", 5) == 0 ? name + 5 : name;
    size_t n = strspn(digits, "0123456789.");
    double bits = n && n < 8 ? strtod(digits, NULL) : 0;
    if (strcasecmp(digits + n, "K") != 0 || !(bits >= 2 && bits <= 8)) {
        return false;
    }
    *out = (profile){.kind = PROFILE_BUDGET, .type = DT_COUNT, .target = bits, .by_size = true};
    snprintf(out->name, sizeof out->name, "JANG_%gK", bits);
    return true;
}

jang_status profile_find(profile *out, ctx_t *ctx, const char *name, int bits) {
    if (!name) {
        return find_uniform(out, ctx, bits);
    }
    for (size_t i = 0; i < N_PROFILES; i++) {
        const char *full = rows[i].name;
        bool ours = rows[i].kind == PROFILE_TIERED || rows[i].kind == PROFILE_BUDGET;
        bool short_name = ours && strcasecmp(name, full + 5) == 0;
        if (short_name || strcasecmp(name, full) == 0) {
            fill(out, &rows[i]);
            return JANG_OK;
        }
    }
    if (find_any_k(out, name)) {
        return JANG_OK;
    }
    buf list;
    buf_init(&list, ctx, 4096);
    for (size_t i = 0; i < N_PROFILES; i++) {
        buf_printf(&list, "%s%s", i ? ", " : "", rows[i].name);
    }
    jang_status status =
        ctx_fail(ctx, JANG_ERR_ARGUMENT, "no profile \"%s\"; profiles are %s", name, list.data);
    buf_free(&list);
    return status;
}

jang_status profile_of_budget(profile *out, ctx_t *ctx, double nominal, uint64_t size) {
    profile p = {.kind = PROFILE_BUDGET, .type = DT_COUNT, .target = nominal, .size = size};
    if (size == 0) {
        if (!(nominal >= 2 && nominal <= 8)) {
            return ctx_fail(ctx, JANG_ERR_ARGUMENT,
                            "a budget of %g nominal bits; it must be between 2 and 8", nominal);
        }
        snprintf(p.name, sizeof p.name, "budget_%g", nominal);
    } else {
        snprintf(p.name, sizeof p.name, "JANG_%gGB", (double)size / 1e9);
    }
    *out = p;
    return JANG_OK;
}

/* The layers that mlx-lm's recipes give more bits. */
static bool mixed_more_bits(int layer, int n_layer) {
    int eighth = n_layer / 8;
    return layer < eighth || layer >= 7 * n_layer / 8 || (layer - eighth) % 3 == 2;
}

static int mixed_bits(const profile *p, int n_layer, const char *name) {
    int layer = role_layer(name);
    bool more = mixed_more_bits(layer < 0 ? 0 : layer, n_layer);
    static const char *const favoured[] = {"v_proj", "v_a_proj", "v_b_proj", "down_proj"};
    for (size_t i = 0; i < sizeof favoured / sizeof *favoured; i++) {
        if (more && strstr(name, favoured[i])) {
            return p->high;
        }
    }
    return strstr(name, "lm_head") ? p->high : p->low;
}

/* With very many experts, each is small and seldom used, and what 2 bits do to it is not made good
 * by others: the least widths of tiered profiles there. Experts without a gate have up for it. */
#define MANY_EXPERTS 256

int profile_floor(const profile_model *model, const char *name, tensor_role role) {
    if (model->n_expert < MANY_EXPERTS) {
        return 2;
    }
    bool gateless = strstr(name, "switch_mlp.fc1") != NULL;
    return role == ROLE_EXPERT_GATE || role == ROLE_EXPERT_GATE_UP ? 4
           : role == ROLE_EXPERT_UP && gateless                    ? 4
           : role == ROLE_EXPERT_DOWN                              ? 3
                                                                   : 2;
}

/* What a budget's matrices are tried with: the width nearest the mean, where it can be told. */
static int trial_bits(const profile *p) {
    static const int widths[] = {2, 3, 4, 5, 6, 8};
    int best = 4;
    for (size_t i = 0; p->target > 0 && i < sizeof widths / sizeof widths[0]; i++) {
        if (fabs(widths[i] - p->target) < fabs(best - p->target)) {
            best = widths[i];
        }
    }
    return best;
}

int profile_bits(const profile *p, const profile_model *model, const char *name, tensor_role role) {
    quant_tier tier = role_get_info(role)->tier;
    if (tier == TIER_FLOAT || p->kind == PROFILE_FLOAT) {
        return 0;
    }
    if (p->kind == PROFILE_MIXED) {
        return mixed_bits(p, model->n_layer, name);
    }
    if (p->kind == PROFILE_BUDGET) {
        int bits = trial_bits(p), least = profile_floor(model, name, role);
        return bits > least ? bits : least;
    }
    if (tier == TIER_EMBEDDING && model->tied && role == ROLE_EMBEDDING &&
        p->bits[TIER_LM_HEAD] > p->bits[TIER_EMBEDDING]) {
        return p->bits[TIER_LM_HEAD];
    }
    int least = p->kind == PROFILE_TIERED ? profile_floor(model, name, role) : 0;
    return p->bits[tier] > least ? p->bits[tier] : least;
}
