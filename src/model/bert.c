/* bert.c - the encoders BERT, RoBERTa, XLM-RoBERTa and CamemBERT, with their classifiers:
 * LayerNorms behind the sums, learned positions (RoBERTa's begin behind the padding's), token
 * types.
 *
 * What they give is the last layer's hidden states, or labels by the first token's. Reference:
 * transformers, models/bert and models/xlm_roberta; arXiv:1810.04805, arXiv:1911.02116. */
#include "model/decoder.h"

#include <string.h>

/* Settings of which only one is known here. */
static jang_status refuse_others(json_at at) {
    const char *positions;
    jang_status status = json_get_string(&positions, at, "position_embedding_type", "absolute");
    if (status == JANG_OK && strcmp(positions, "absolute") != 0) {
        status = ctx_fail(at.ctx, JANG_ERR_UNSUPPORTED,
                          "%s: position_embedding_type %s is not supported; only absolute is",
                          at.what, positions);
    }
    if (status == JANG_OK) {
        status = decoder_want_bool(at, "is_decoder", false, false);
    }
    return status == JANG_OK ? decoder_want_bool(at, "add_cross_attention", false, false) : status;
}

/* Positions of RoBERTa's count from the id of padding on. */
static jang_status skip_padding(decoder_config *c, json_at at) {
    int64_t padding;
    jang_status status = json_get_int(&padding, at, "pad_token_id", 1, 0, 1 << 16);
    if (status == JANG_OK && c->n_context <= padding + 1) {
        status = ctx_fail(at.ctx, JANG_ERR_FORMAT, "%s: max_position_embeddings %lld leaves none",
                          at.what, (long long)c->n_context);
    }
    if (status == JANG_OK) {
        c->positions_skip = padding + 1;
        c->n_context -= padding + 1;
    }
    return status;
}

static void describe(decoder_config *c) {
    attention_config *a = &c->attention;
    c->norm.kind = NORM_LAYER;
    c->norm.bias = BIAS_NEEDED;
    c->norms = (layer_norms){.mixer_stream = "attention.output.LayerNorm",
                             .ffn_stream = "output.LayerNorm"};
    c->layers_name = "encoder.layer";
    c->embedding_name = "embeddings.word_embeddings";
    c->positions_name = "embeddings.position_embeddings";
    c->types_name = "embeddings.token_type_embeddings";
    c->embedding_norm = "embeddings.LayerNorm";
    c->no_final_norm = true;
    c->no_output = true;
    c->tied = false;
    a->whole = true;
    a->q_bias = a->k_bias = a->v_bias = a->o_bias = BIAS_NEEDED;
    a->path = "attention";
    a->q = "self.query";
    a->k = "self.key";
    a->v = "self.value";
    a->o = "output.dense";
    c->mlp.layout = MLP_PLAIN;
    c->mlp.bias = BIAS_NEEDED;
    c->mlp.path = "";
    c->mlp.up = "intermediate.dense";
    c->mlp.down = "output.dense";
}

static jang_status encoder_open(model *m, loader *l, const label_head *labels, bool after_padding) {
    static const decoder_defaults defaults = {
        .n_context = 512, .norm_eps = 1e-12, .eps_key = "layer_norm_eps", .act = "gelu"};
    decoder_config c;
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    describe(&c);
    c.labels = *labels;
    status = refuse_others(l->config);
    if (status == JANG_OK) {
        status = json_get_int(&c.n_type, l->config, "type_vocab_size", 2, 1, 1 << 16);
    }
    if (status == JANG_OK && after_padding) {
        status = skip_padding(&c, l->config);
    }
    if (status == JANG_OK) {
        status = decoder_read_labels(&c.labels, l->whole);
    }
    return decoder_finish(m, l, &c, status);
}

static jang_status bert_open(model *m, loader *l) {
    const label_head labels = {
        .dense = "pooler.dense", .output = "classifier", .bias = BIAS_NEEDED};
    return encoder_open(m, l, &labels, false);
}

static jang_status roberta_open(model *m, loader *l) {
    const label_head labels = {
        .dense = "classifier.dense", .output = "classifier.out_proj", .bias = BIAS_NEEDED};
    return encoder_open(m, l, &labels, true);
}

/* Norms of the first checkpoints. */
static const name_alias aliases[] = {{"weight", "gamma"}, {"bias", "beta"}, {NULL, NULL}};

/* Heads for guessing words and next sentences, a pooler that nobody asks, buffers. */
static const char *const dropped[] = {
    "pooler.dense.weight",
    "pooler.dense.bias",
    "embeddings.position_ids",
    "cls.predictions.bias",
    "cls.predictions.decoder.weight",
    "cls.predictions.decoder.bias",
    "cls.predictions.transform.dense.weight",
    "cls.predictions.transform.dense.bias",
    "cls.predictions.transform.LayerNorm.weight",
    "cls.predictions.transform.LayerNorm.bias",
    "cls.predictions.transform.LayerNorm.gamma",
    "cls.predictions.transform.LayerNorm.beta",
    "cls.seq_relationship.weight",
    "cls.seq_relationship.bias",
    "lm_head.bias",
    "lm_head.dense.weight",
    "lm_head.dense.bias",
    "lm_head.layer_norm.weight",
    "lm_head.layer_norm.bias",
    "lm_head.decoder.weight",
    "lm_head.decoder.bias",
    NULL,
};

#define ENCODER(type, opener)                                                                      \
    {                                                                                              \
        .model_type = type, .open = opener, .embedding = "embeddings.word_embeddings",             \
        .aliases = aliases, .dropped = dropped, .own_names = true                                  \
    }

const model_family family_bert = ENCODER("bert", bert_open);
const model_family family_roberta = ENCODER("roberta", roberta_open);
const model_family family_xlm_roberta = ENCODER("xlm-roberta", roberta_open);
const model_family family_camembert = ENCODER("camembert", roberta_open);
