/* names_moe.c - names of experts, routers and latent attention, and how experts are stacked. */
#include "quant/names_impl.h"

#define END                                                                                        \
    { NULL, false, NEED_MAYBE, SIZE_NONE, SIZE_NONE }

/* Qwen, OLMoE, GLM, DeepSeek: "mlp". */
const name_rule names_mlp_experts[] = {
    {"mlp.gate.weight", true, NEED_EXPERTS, SIZE_NONE, SIZE_NONE},
    {"mlp.switch_mlp.gate_proj.weight", true, NEED_EXPERTS, SIZE_NONE, SIZE_NONE},
    {"mlp.switch_mlp.up_proj.weight", true, NEED_EXPERTS, SIZE_NONE, SIZE_NONE},
    {"mlp.switch_mlp.down_proj.weight", true, NEED_EXPERTS, SIZE_NONE, SIZE_NONE},
    END,
};

const name_rule names_shared_expert[] = {
    {"mlp.shared_expert.gate_proj.weight", true, NEED_EXPERTS, SIZE_NONE, SIZE_NONE},
    {"mlp.shared_expert.up_proj.weight", true, NEED_EXPERTS, SIZE_NONE, SIZE_NONE},
    {"mlp.shared_expert.down_proj.weight", true, NEED_EXPERTS, SIZE_NONE, SIZE_NONE},
    {"mlp.shared_expert_gate.weight", true, NEED_EXPERTS, SIZE_NONE, SIZE_NONE},
    END,
};

const name_rule names_shared_experts[] = {
    {"mlp.gate.e_score_correction_bias", true, NEED_MAYBE, SIZE_NONE, SIZE_NONE},
    {"mlp.shared_experts.gate_proj.weight", true, NEED_MAYBE, SIZE_NONE, SIZE_NONE},
    {"mlp.shared_experts.up_proj.weight", true, NEED_MAYBE, SIZE_NONE, SIZE_NONE},
    {"mlp.shared_experts.down_proj.weight", true, NEED_MAYBE, SIZE_NONE, SIZE_NONE},
    END,
};

/* Mixtral, Phi-MoE, MiniMax, Granite: "block_sparse_moe". */
const name_rule names_sparse_experts[] = {
    {"block_sparse_moe.gate.weight", true, NEED_MAYBE, SIZE_NONE, SIZE_NONE},
    {"block_sparse_moe.router.layer.weight", true, NEED_MAYBE, SIZE_NONE, SIZE_NONE},
    {"block_sparse_moe.e_score_correction_bias", true, NEED_MAYBE, SIZE_NONE, SIZE_NONE},
    {"block_sparse_moe.switch_mlp.gate_proj.weight", true, NEED_ALWAYS, SIZE_NONE, SIZE_NONE},
    {"block_sparse_moe.switch_mlp.up_proj.weight", true, NEED_ALWAYS, SIZE_NONE, SIZE_NONE},
    {"block_sparse_moe.switch_mlp.down_proj.weight", true, NEED_ALWAYS, SIZE_NONE, SIZE_NONE},
    END,
};

const name_rule names_gpt_oss[] = {
    {"self_attn.sinks", true, NEED_ALWAYS, SIZE_NONE, SIZE_NONE},
    {"mlp.router.weight", true, NEED_ALWAYS, SIZE_NONE, SIZE_NONE},
    {"mlp.router.bias", true, NEED_ALWAYS, SIZE_NONE, SIZE_NONE},
    {"mlp.experts.gate_proj.weight", true, NEED_ALWAYS, SIZE_NONE, SIZE_NONE},
    {"mlp.experts.gate_proj.bias", true, NEED_ALWAYS, SIZE_NONE, SIZE_NONE},
    {"mlp.experts.up_proj.weight", true, NEED_ALWAYS, SIZE_NONE, SIZE_NONE},
    {"mlp.experts.up_proj.bias", true, NEED_ALWAYS, SIZE_NONE, SIZE_NONE},
    {"mlp.experts.down_proj.weight", true, NEED_ALWAYS, SIZE_NONE, SIZE_NONE},
    {"mlp.experts.down_proj.bias", true, NEED_ALWAYS, SIZE_NONE, SIZE_NONE},
    END,
};

/* Multi-head latent attention; kv_b_proj stays whole in DeepSeek-V2 alone. */
const name_rule names_mla[] = {
    {"self_attn.q_proj.weight", true, NEED_MAYBE, SIZE_NONE, SIZE_NONE},
    {"self_attn.q_a_proj.weight", true, NEED_MAYBE, SIZE_NONE, SIZE_NONE},
    {"self_attn.q_a_proj.bias", true, NEED_MAYBE, SIZE_NONE, SIZE_NONE},
    {"self_attn.q_a_layernorm.weight", true, NEED_MAYBE, SIZE_NONE, SIZE_NONE},
    {"self_attn.q_b_proj.weight", true, NEED_MAYBE, SIZE_NONE, SIZE_NONE},
    {"self_attn.kv_a_proj_with_mqa.weight", true, NEED_ALWAYS, SIZE_NONE, SIZE_NONE},
    {"self_attn.kv_a_proj_with_mqa.bias", true, NEED_MAYBE, SIZE_NONE, SIZE_NONE},
    {"self_attn.kv_a_layernorm.weight", true, NEED_ALWAYS, SIZE_NONE, SIZE_NONE},
    {"self_attn.kv_b_proj.weight", true, NEED_MAYBE, SIZE_NONE, SIZE_NONE},
    {"self_attn.embed_q.weight", true, NEED_MAYBE, SIZE_NONE, SIZE_NONE},
    {"self_attn.unembed_out.weight", true, NEED_MAYBE, SIZE_NONE, SIZE_NONE},
    {"self_attn.o_proj.weight", true, NEED_ALWAYS, SIZE_NONE, SIZE_NONE},
    {"self_attn.o_proj.bias", true, NEED_MAYBE, SIZE_NONE, SIZE_NONE},
    {"self_attn.rotary_emb.inv_freq", true, NEED_DROP, SIZE_NONE, SIZE_NONE},
    END,
};

/* ---- How they are made of the hub's tensors ---- */

const map_rule names_stack_mlp[] = {
    {"mlp.experts.*.gate_proj.weight", "mlp.switch_mlp.gate_proj.weight", TAKE_ALL, false},
    {"mlp.experts.*.up_proj.weight", "mlp.switch_mlp.up_proj.weight", TAKE_ALL, false},
    {"mlp.experts.*.down_proj.weight", "mlp.switch_mlp.down_proj.weight", TAKE_ALL, false},
    {"mlp.experts.gate_up_proj", "mlp.switch_mlp.gate_proj.weight", TAKE_FIRST_HALF, false},
    {"mlp.experts.gate_up_proj", "mlp.switch_mlp.up_proj.weight", TAKE_SECOND_HALF, false},
    {"mlp.experts.down_proj", "mlp.switch_mlp.down_proj.weight", TAKE_ALL, false},
    {NULL, NULL, TAKE_ALL, false},
};

#define SPARSE "block_sparse_moe."

const map_rule names_stack_sparse[] = {
    {SPARSE "experts.*.w1.weight", SPARSE "switch_mlp.gate_proj.weight", TAKE_ALL, false},
    {SPARSE "experts.*.w3.weight", SPARSE "switch_mlp.up_proj.weight", TAKE_ALL, false},
    {SPARSE "experts.*.w2.weight", SPARSE "switch_mlp.down_proj.weight", TAKE_ALL, false},
    {SPARSE "input_linear.weight", SPARSE "switch_mlp.gate_proj.weight", TAKE_FIRST_HALF, false},
    {SPARSE "input_linear.weight", SPARSE "switch_mlp.up_proj.weight", TAKE_SECOND_HALF, false},
    {SPARSE "output_linear.weight", SPARSE "switch_mlp.down_proj.weight", TAKE_ALL, false},
    {NULL, NULL, TAKE_ALL, false},
};

/* gpt-oss: gate and up in turn, as columns, or in MXFP4 as rows. */
const map_rule names_split_gpt_oss[] = {
    {"mlp.experts.gate_up_proj", "mlp.experts.gate_proj.weight", TAKE_EVEN, true},
    {"mlp.experts.gate_up_proj", "mlp.experts.up_proj.weight", TAKE_ODD, true},
    {"mlp.experts.down_proj", "mlp.experts.down_proj.weight", TAKE_ALL, true},
    {"mlp.experts.gate_up_proj_bias", "mlp.experts.gate_proj.bias", TAKE_EVEN, false},
    {"mlp.experts.gate_up_proj_bias", "mlp.experts.up_proj.bias", TAKE_ODD, false},
    {"mlp.experts.down_proj_bias", "mlp.experts.down_proj.bias", TAKE_ALL, false},
    {NULL, NULL, TAKE_ALL, false},
};

const map_rule names_split_mla[] = {
    {"self_attn.kv_b_proj.weight", "self_attn.embed_q.weight", TAKE_HEAD_KEYS, true},
    {"self_attn.kv_b_proj.weight", "self_attn.unembed_out.weight", TAKE_HEAD_VALUES, false},
    {NULL, NULL, TAKE_ALL, false},
};
