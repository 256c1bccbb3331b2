/* ernie4_5.c - ERNIE 4.5: Llama with interleaved RoPE; with experts, softmax scores, a bias that
 * only chooses, shared experts; a range of layers has experts.
 *
 * Reference: transformers, models/{ernie4_5,ernie4_5_moe}. */
#include "model/decoder.h"
#include "model/moe.h"

typedef struct ernie {
    moe_config moe;
    moe_names names;
    int64_t first, last, every; /* layers with experts */
} ernie;

static jang_status make_ffn(block **out, decoder *d, loader *l, const decoder_config *c,
                            int layer) {
    const ernie *e = c->own;
    if (layer < e->first || layer > e->last || (layer + 1) % e->every != 0) {
        return decoder_mlp(out, d, l, c, layer);
    }
    char prefix[DECODER_PREFIX_BYTES];
    decoder_prefix(prefix, c, layer);
    return moe_make(out, l, &d->work, &e->moe, c->n_embd, prefix);
}

static jang_status read_experts(ernie *e, const decoder_config *c, json_at at) {
    static const char *const expert_keys[] = {"moe_num_experts", "num_experts", NULL};
    *e = (ernie){.names = moe_names_mlp};
    moe_config *m = &e->moe;
    int64_t n_shared = 0, last = -1;
    e->names.select_bias = "mlp.moe_statics.e_score_correction_bias";
    m->names = &e->names;
    m->act = c->mlp.act;
    m->route = (route_desc){.score = ROUTE_SOFTMAX, .renormalise = true, .scale = 1};
    m->select_bias = BIAS_NEEDED;
    jang_status status = moe_read_counts(m, at, expert_keys, "moe_k", 64, 6);
    const struct {
        const char *key;
        int64_t *out, fallback, least, most;
    } keys[] = {
        {"moe_intermediate_size", &m->n_ff, 1536, 1, 1 << 22},
        {"moe_num_shared_experts", &n_shared, 2, 0, 1024},
        {"moe_layer_start_index", &e->first, 1, 0, 1 << 12},
        {"moe_layer_end_index", &last, -1, -1, 1 << 12},
        {"moe_layer_interval", &e->every, 1, 1, 1 << 12},
    };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0] && status == JANG_OK; i++) {
        status = json_get_int(keys[i].out, at, keys[i].key, keys[i].fallback, keys[i].least,
                              keys[i].most);
    }
    e->last = last < 0 ? c->n_layer - 1 : last;
    m->n_shared_ff = n_shared * m->n_ff;
    return status;
}

static jang_status ernie4_5_moe_open(model *m, loader *l) {
    static const decoder_defaults defaults = {
        .n_context = 131072, .rope_theta = 500000, .n_kv_head = 4, .norm_eps = 1e-5, .tied = true};
    decoder_config c;
    ernie e;
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    c.ropes[0].interleaved = true;
    status = decoder_want_bool(l->config, "use_bias", false, false);
    if (status == JANG_OK) {
        status = read_experts(&e, &c, l->config);
    }
    c.ffn = make_ffn;
    c.own = &e;
    return decoder_finish(m, l, &c, status);
}

static jang_status adapt(decoder_config *c, json_at config) {
    (void)config;
    c->ropes[0].interleaved = true;
    return JANG_OK;
}

const model_family family_ernie4_5 = {
    .model_type = "ernie4_5",
    .defaults =
        &(const decoder_defaults){.n_context = 131072,
                                  .rope_theta = 500000,
                                  .n_kv_head = 2,
                                  .head_dim = 128,
                                  .norm_eps = 1e-5,
                                  .tied = true,
                                  .biases = {{"use_bias", false, BIAS_ON_ATTENTION | BIAS_ON_MLP}}},
    .adapt = adapt};
const model_family family_ernie4_5_moe = {.model_type = "ernie4_5_moe", .open = ernie4_5_moe_open};
