/* mistral.c - Mistral 7B, Nemo and their like: Llama with a sliding window and without biases.
 *
 * A window of w tokens is the token itself and the w - 1 before it.
 * Reference: transformers, models/mistral; arXiv:2310.06825. */
#include "model/decoder.h"

static jang_status mistral_open(model *m, loader *l) {
    static const decoder_defaults defaults = {.n_context = 131072, .rope_theta = 10000};
    decoder_config c;
    jang_status status = decoder_read_config(&c, l->config, &defaults);
    if (status != JANG_OK) {
        return status;
    }
    return decoder_finish(m, l, &c, decoder_read_window(&c.attention.window, l->config, 4096));
}

const model_family family_mistral = {.model_type = "mistral", .open = mistral_open};
