/* tape_model.h - a model whose gradients are looked at, one sequence of text at a time. */
#ifndef JANG_QUANT_TAPE_MODEL_H
#define JANG_QUANT_TAPE_MODEL_H

#include "model/model.h"
#include "quant/tape.h"

typedef struct tape_model {
    ctx_t *ctx;
    int32_t n_seq; /* tokens of a sequence */
    ops *o;
    tape *tape;
    model *m;
    model_cache cache; /* for one sequence */
    float *logits;     /* some rows at a time, [rows, n_vocab] */
    int32_t *pages, *out;
} tape_model;

/* Opens it; weights give way to what `matrix` finds for them. Closed by the caller, also where it
 * fails. */
JANG_MUST_CHECK jang_status tape_model_open(tape_model *tm, ctx_t *ctx, checkpoint *run,
                                            int32_t n_seq, tape_matrix_fn matrix, void *user);
void tape_model_close(tape_model *tm);

/* Whether it continues a text, so that there are answers to look at. */
bool tape_model_writes_text(const tape_model *tm);
/* Makes room for a sequence, of a model that writes text. */
JANG_MUST_CHECK jang_status tape_model_make_room(tape_model *tm);

/* Looks at logits [n, n_vocab] after the tokens from `first` on; where there is a way back, puts
 * the gradient by them in their place. */
typedef void tape_model_fn(void *user, int32_t first, int32_t n, float *logits);

/* Runs the sequence ids [n_seq], with the matrices that weights give way to or without, and shows
 * its logits to fn, a few rows at a time; back: then adds the gradients to the matrices'. */
JANG_MUST_CHECK jang_status tape_model_run(tape_model *tm, const int32_t *ids, bool matrices,
                                           bool back, tape_model_fn *fn, void *user);

/* Bytes that a sequence of a model with n weights leaves on its way through the layers, an
 * estimate. */
uint64_t tape_model_bytes(uint64_t n, int64_t n_embd, int32_t n_seq);

#endif
