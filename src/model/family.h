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
    ops_buf *logits;    /* f32 [logit_rows, n_vocab] */
    int32_t logit_rows;
};

/* Rows of logits computed at once; more are done in turns. */
#define MODEL_LOGIT_ROWS 16

struct decoder_config;
struct decoder_defaults;

/* One row of the registry. A family either opens itself (reads the config, loads the weights, sets
 * body, state and facts) or is the frame of decoder.h, with these defaults and what adapt changes
 * in the config once it is read. */
typedef struct model_family {
    const char *model_type;
    jang_status (*open)(model *m, loader *l);
    const struct decoder_defaults *defaults;                        /* where open is NULL */
    jang_status (*adapt)(struct decoder_config *c, json_at config); /* NULL: nothing */
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

/* The families, each defined as family_NAME in a file of its own or beside its kin: a new one is
 * that definition and a row here. */
#define MODEL_FAMILIES(X)                                                                          \
    /* dense */                                                                                    \
    X(llama)                                                                                       \
    X(mistral)                                                                                     \
    X(qwen2)                                                                                       \
    X(qwen3)                                                                                       \
    X(gemma)                                                                                       \
    X(gemma2)                                                                                      \
    X(gemma3_text)                                                                                 \
    X(gemma3)                                                                                      \
    X(gemma4_text)                                                                                 \
    X(gemma4)                                                                                      \
    X(phi)                                                                                         \
    X(phi3)                                                                                        \
    X(ministral3)                                                                                  \
    X(mistral3)                                                                                    \
    X(glm)                                                                                         \
    X(glm4)                                                                                        \
    X(smollm3)                                                                                     \
    X(olmo2)                                                                                       \
    X(olmo3)                                                                                       \
    X(granite)                                                                                     \
    X(cohere)                                                                                      \
    X(cohere2)                                                                                     \
    X(starcoder2)                                                                                  \
    X(stablelm)                                                                                    \
    X(gpt_neox)                                                                                    \
    X(gpt2)                                                                                        \
    X(exaone4)                                                                                     \
    X(seed_oss)                                                                                    \
    X(apertus)                                                                                     \
    X(hunyuan)                                                                                     \
    X(ernie4_5)                                                                                    \
    /* with experts */                                                                             \
    X(deepseek_v2)                                                                                 \
    X(deepseek_v3)                                                                                 \
    X(ernie4_5_moe)                                                                                \
    X(glm4_moe)                                                                                    \
    X(glm4_moe_lite)                                                                               \
    X(gpt_oss)                                                                                     \
    X(granitemoe)                                                                                  \
    X(kimi_k2)                                                                                     \
    X(llama4_text)                                                                                 \
    X(llama4)                                                                                      \
    X(minimax_m2)                                                                                  \
    X(mixtral)                                                                                     \
    X(olmoe)                                                                                       \
    X(phimoe)                                                                                      \
    X(qwen2_moe)                                                                                   \
    X(qwen3_moe)                                                                                   \
    /* recurrent and hybrid */                                                                     \
    X(qwen3_5)                                                                                     \
    X(qwen3_5_text)                                                                                \
    X(mamba)                                                                                       \
    X(falcon_mamba)                                                                                \
    X(mamba2)                                                                                      \
    X(nemotron_h)                                                                                  \
    X(granitemoehybrid)                                                                            \
    X(bamba)                                                                                       \
    X(falcon_h1)                                                                                   \
    X(lfm2)                                                                                        \
    X(qwen3_next)                                                                                  \
    X(qwen3_5_moe)                                                                                 \
    X(qwen3_5_moe_text)                                                                            \
    X(jamba)                                                                                       \
    X(lfm2_moe)                                                                                    \
    X(kimi_linear)                                                                                 \
    /* encoders */                                                                                 \
    X(bert)                                                                                        \
    X(roberta)                                                                                     \
    X(xlm_roberta)                                                                                 \
    X(camembert)

#define DECLARE_FAMILY(name) extern const model_family family_##name;
MODEL_FAMILIES(DECLARE_FAMILY)
#undef DECLARE_FAMILY

#endif
