/* hoststate.c - recurrent state of host backends: slots of f32 arrays. */
#include "ops/hostbuf.h"

#include <string.h>

jang_status host_state_new(ops_state **out, ops *o, const state_desc *desc) {
    if (desc->n_part < 1 || desc->n_part > 1 << 14) {
        return ctx_fail(o->ctx, JANG_ERR_ARGUMENT, "state of %d parts; 1 to 16384 are allowed",
                        desc->n_part);
    }
    size_t n_part = (size_t)desc->n_part;
    ops_state *state = ctx_zero(o->ctx, 1, sizeof *state);
    int64_t *at = ctx_array(o->ctx, n_part + 1, sizeof *at);
    if (!state || !at) {
        ctx_free(o->ctx, state);
        ctx_free(o->ctx, at);
        return ctx_fail_memory(o->ctx, sizeof *state + (n_part + 1) * sizeof *at);
    }
    *state = (ops_state){.n_part = desc->n_part, .at = at};
    at[0] = 0;
    for (size_t i = 0; i < n_part; i++) {
        if (desc->sizes[i] < 1 || desc->sizes[i] > (INT64_C(1) << 40) - at[i]) {
            host_state_free(o, state);
            return ctx_fail(o->ctx, JANG_ERR_ARGUMENT, "part %zu of a state has %lld numbers", i,
                            (long long)desc->sizes[i]);
        }
        at[i + 1] = at[i] + desc->sizes[i];
    }
    *out = state;
    return JANG_OK;
}

void host_state_free(ops *o, ops_state *state) {
    if (state) {
        for (int32_t i = 0; i < state->n_slots; i++) {
            host_block_free(o, state->slots[i]);
        }
        ctx_free(o->ctx, state->slots);
        ctx_free(o->ctx, state->at);
        ctx_free(o->ctx, state);
    }
}

jang_status host_state_grow(ops *o, ops_state *state, int32_t n_slots) {
    if (n_slots <= state->n_slots) {
        return JANG_OK;
    }
    size_t n_bytes = (size_t)n_slots * sizeof *state->slots;
    host_block **slots = ctx_realloc(o->ctx, state->slots, n_bytes);
    if (!slots) {
        return ctx_fail_memory(o->ctx, n_bytes);
    }
    state->slots = slots;
    while (state->n_slots < n_slots) {
        size_t size = (size_t)state->at[state->n_part] * sizeof(float);
        jang_status status = host_block_new(&slots[state->n_slots], o, size);
        if (status) {
            return status;
        }
        state->n_slots++;
    }
    return JANG_OK;
}

void host_state_copy(ops *o, ops_state *state, int32_t from, int32_t to) {
    (void)o;
    size_t size = (size_t)state->at[state->n_part] * sizeof(float);
    memmove(state->slots[to]->data, state->slots[from]->data, size);
}

float *host_state_begin(state_at at, const batch_seq *seq) {
    float *part = host_state_part(at.state, seq->state, at.part);
    if (seq->n_past == 0) {
        memset(part, 0, (size_t)(at.state->at[at.part + 1] - at.state->at[at.part]) * sizeof *part);
    }
    return part;
}
