/* mlp.h - the dense feed-forward block: down(act(gate(h)) * up(h)) (arXiv:2002.05202), or without a
 * gate down(act(up(h))). */
#ifndef JANG_MODEL_MLP_H
#define JANG_MODEL_MLP_H

#include "model/block.h"

typedef enum mlp_layout {
    MLP_GATED,
    MLP_GATE_UP, /* gated, gate and up in one matrix, gate first */
    MLP_PLAIN,   /* no gate */
} mlp_layout;

typedef struct mlp_config {
    int64_t n_ff;
    mlp_layout layout;
    bias_rule bias; /* of all of its matrices */
    act_desc act;
    double gate_scale; /* muP multiplier of the gate (FalconH1); 0: 1 */
    /* Names below "layers.N.", as mlx-lm spells them; NULL: the usual ones. */
    const char *path; /* "mlp"; "" for none */
    const char *gate, *up, *down, *gate_up;
    /* Where a checkpoint has gate and up in one matrix, gate first, that one's name and down's; the
     * weights are rows of them and called as above (with no path). NULL: it has neither. */
    const char *stored_in, *stored_out;
} mlp_config;

/* Makes a block whose weights' names begin with prefix ("layers.3."). */
JANG_MUST_CHECK jang_status mlp_make(block **out, loader *l, work *w, const mlp_config *c,
                                     int64_t n_embd, const char *prefix);

#endif
