/* left_out.c - what of a checkpoint a conversion leaves behind. */
#include "quant/left_out.h"

#include "base/file.h"

#include <string.h>

static const char vision[] = "vision tower", audio[] = "audio tower",
                  predictors[] = "layers that predict further tokens", buffers[] = "buffers",
                  tied[] = "output matrix that the embedding is",
                  unread[] = "tensors that this family does not read";
static const char *const kinds[] = {vision, audio, predictors, buffers, tied, unread};
#define N_KINDS (sizeof kinds / sizeof *kinds)

/* Where parts begin that are no decoder's, below "model." or not. */
static const struct {
    const char *beginning, *kind;
} beginnings[] = {
    {"vision_tower.", vision}, {"vision_model.", vision},        {"visual.", vision},
    {"embed_vision.", vision}, {"vision_embed_tokens.", vision}, {"multi_modal_projector.", vision},
    {"audio_tower.", audio},   {"embed_audio.", audio},          {"mtp", predictors},
};

static bool ends_in(const char *name, const char *end) {
    return strcmp(name, end) == 0 || path_has_suffix(name, end);
}

static bool ends_in_one_of(const char *name, const char *const *ends) {
    while (ends && *ends && !ends_in(name, *ends)) {
        ends++;
    }
    return ends && *ends;
}

const char *left_out_kind(const name_model *nm, const char *name) {
    static const char *const buffer_ends[] = {"rotary_emb.inv_freq", "rope_freqs.weight", NULL};
    const char *below = strncmp(name, "model.", 6) == 0 ? name + 6 : name;
    for (size_t i = 0; i < sizeof beginnings / sizeof *beginnings; i++) {
        if (strncmp(below, beginnings[i].beginning, strlen(beginnings[i].beginning)) == 0) {
            return beginnings[i].kind;
        }
    }
    if (role_layer(name) >= nm->n_layer) {
        return predictors;
    }
    if (ends_in_one_of(name, buffer_ends)) {
        return buffers;
    }
    if (nm->tied && ends_in(name, "lm_head.weight")) {
        return tied;
    }
    return ends_in_one_of(name, nm->dropped) ? unread : NULL;
}

jang_status left_out_to_json(json_t *array, const part_list *parts, const name_model *nm) {
    int failed = 0;
    for (size_t k = 0; k < N_KINDS; k++) {
        int64_t n = 0, n_params = 0;
        uint64_t n_bytes = 0;
        for (size_t i = 0; i < parts->n_parts; i++) {
            const model_part *part = &parts->parts[i];
            if (!part->used && left_out_kind(nm, part->name) == kinds[k]) {
                n += part->map ? part_map_sources(part) : 1;
                n_params += part->params;
                n_bytes += part->n_bytes;
            }
        }
        if (n > 0) {
            failed |= json_array_append_new(
                array, json_pack("{s:s, s:I, s:I, s:I}", "what", kinds[k], "tensors", (json_int_t)n,
                                 "params", (json_int_t)n_params, "bytes", (json_int_t)n_bytes));
        }
    }
    return failed ? ctx_fail_memory(parts->ctx, 256) : JANG_OK;
}
