/* phi3.c - Phi-3, Phi-3.5, Phi-4 and Phi-4-mini: Llama with q, k and v in one matrix, gate and up
 * in another, and RoPE stretched by "longrope" (which old configs call su, and yarn by mistake).
 *
 * Sequences of up to original_max_position_embeddings tokens turn by short_factor, longer ones by
 * long_factor. Reference: transformers, models/phi3; arXiv:2404.14219. */
#include "model/decoder.h"

#include <string.h>

static jang_status refuse_other_scalings(json_at config) {
    const json_t *scaling = json_object_get(config.object, "rope_scaling");
    const char *type = json_string_value(json_object_get(scaling, "type"));
    if (type && strcmp(type, "yarn") == 0) {
        return ctx_fail(config.ctx, JANG_ERR_UNSUPPORTED,
                        "%s: rope_scaling of type yarn is no yarn in this family; write longrope",
                        config.what);
    }
    return JANG_OK;
}

static jang_status phi3_open(model *m, loader *l) {
    static const decoder_defaults defaults = {
        .n_context = 4096, .rope_theta = 10000, .norm_eps = 1e-5, .original_context = 4096};
    decoder_config c;
    jang_status status = refuse_other_scalings(l->config);
    if (status == JANG_OK) {
        status = decoder_read_config(&c, l->config, &defaults);
    }
    if (status != JANG_OK) {
        return status;
    }
    c.attention.layout = QKV_ROWS;
    c.mlp.layout = MLP_GATE_UP;
    return decoder_finish(m, l, &c, decoder_read_window(&c.attention.window, l->config, 0));
}

const model_family family_phi3 = {.model_type = "phi3", .open = phi3_open};
