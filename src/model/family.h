/* family.h - what a family is made of; seen by the files of model/ only. */
#ifndef JANG_MODEL_FAMILY_H
#define JANG_MODEL_FAMILY_H

#include "model/loader.h"
#include "model/model.h"

/* A family's code, once open. */
typedef struct model_body {
    void (*close)(model *m);
    /* Sizes the workspace for n_tok tokens. */
    jang_status (*reserve)(model *m, int32_t n_tok);
    /* A step in its parts, all enqueued on m->o. The residual stream lies in the body's workspace
     * between them; conversions run the layers one by one (model_layer). */
    void (*embed)(model *m, const batch_desc *desc);
    int (*n_stage)(const model *m, int layer);
    void (*layer)(model *m, layer_stages which, const batch_desc *desc, const model_cache *cache);
    void (*norm)(model *m, const batch_desc *desc);        /* the final norm of the out rows */
    ops_mat (*stream)(model *m, int64_t n_row);            /* [n_row, n_embd] */
    ops_mat (*hidden)(model *m, int64_t first, int64_t n); /* out rows, normed: [n, n_embd] */
    /* Products of out rows with the output matrix: y [n, n_vocab]. */
    void (*logits)(model *m, int32_t first, ops_mat y);
    /* The classifier's scores of out rows: y [n, n_label]. NULL: no family of this body has any. */
    void (*labels)(model *m, int32_t first, ops_mat y);
} model_body;

struct model {
    ctx_t *ctx;
    ops *o;
    const struct model_family *family;
    const model_body *body;
    void *state; /* the body's own */
    model_facts facts;
    model_totals totals;
    state_list states;   /* parts of a recurrent state */
    weight_list weights; /* every weight, freed with the model */
    ops_batch *batch;
    int32_t n_reserved; /* tokens a step may have */
    int32_t n_out;      /* out rows of the last step */
    ops_buf *logits;    /* f32 [MODEL_LOGIT_ROWS, n_vocab] */
};

/* Rows of logits computed at once; more are done in turns. */
#define MODEL_LOGIT_ROWS 16

/* One row of the registry. open reads the config, loads the weights and sets body, state, facts. */
typedef struct model_family {
    const char *model_type;
    jang_status (*open)(model *m, loader *l);
    bool text_config;           /* of several parts: the text model's config is text_config */
    const char *embedding;      /* its module, by which the prefix is found; NULL: embed_tokens */
    const name_alias *aliases;  /* ended by a NULL mlx; NULL: the hub's names are mlx-lm's */
    const char *const *dropped; /* see survey.h */
    bool own_names;             /* mlx-lm has no such family: conversions keep the hub's names */
} model_family;

/* Opens a model whose tensors come from source and are noted in survey; both NULL: from c. */
JANG_MUST_CHECK jang_status model_open_from(model **out, ctx_t *ctx, checkpoint *c, ops *o,
                                            const struct tensor_source *source,
                                            struct model_survey *survey);

extern const model_family family_llama, family_mistral, family_qwen2, family_qwen3;
extern const model_family family_qwen3_next, family_qwen3_5, family_qwen3_5_moe,
    family_qwen3_5_text, family_qwen3_5_moe_text;
extern const model_family family_mamba, family_falcon_mamba, family_mamba2;
extern const model_family family_nemotron_h, family_granitemoehybrid, family_bamba, family_jamba;
extern const model_family family_falcon_h1, family_lfm2, family_lfm2_moe, family_kimi_linear;

extern const model_family family_deepseek_v2, family_deepseek_v3, family_ernie4_5_moe,
    family_glm4_moe, family_glm4_moe_lite, family_granitemoe, family_minimax_m2, family_phimoe,
    family_gpt_oss, family_kimi_k2, family_mixtral, family_olmoe, family_qwen2_moe,
    family_qwen3_moe;

extern const model_family family_gemma, family_gemma2, family_gemma3_text, family_gemma3,
    family_gemma4_text, family_gemma4, family_phi, family_phi3, family_ministral3, family_mistral3,
    family_glm, family_glm4, family_smollm3, family_olmo2, family_olmo3, family_granite,
    family_cohere, family_cohere2, family_starcoder2, family_stablelm, family_gpt_neox,
    family_exaone4, family_seed_oss, family_apertus, family_gpt2, family_llama4_text, family_llama4,
    family_hunyuan, family_ernie4_5;

extern const model_family family_bert, family_roberta, family_xlm_roberta, family_camembert;

#endif
