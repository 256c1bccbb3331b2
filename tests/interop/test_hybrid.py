"""test_hybrid.py - recurrent and hybrid models, converted, in mlx-lm."""

import json

import numpy as np
from common import MODELS, Suite, convert, error, logits, mlx_logits, mlx_open

# Left out are those that mlx-lm computes otherwise than transformers (Jamba with experts, which
# it renormalises, groups of Mamba-2 are normed as a whole) or does not know (Bamba).
FAMILIES = {
    "qwen3_5-bf16": "JANG_6M",
    "qwen3_5-tied-f16": "JANG_2S",
    "qwen3_5_moe-bf16": "JANG_2S",
    "qwen3_5_text-bf16": "JANG_6M",
    "qwen3_5_moe_text-bf16": "JANG_2S",
    "qwen3_next-bf16": "JANG_6M",
    "qwen3_next-dense-f16": "JANG_2S",
    "mamba-f32": "JANG_6M",
    "mamba-bias-bf16": "JANG_2S",
    "falcon_mamba-bf16": "JANG_6M",
    "mamba2-limit-f16": "JANG_2S",
    "nemotron_h-bf16": "JANG_2S",
    "nemotron_h-moe-bf16": "JANG_6M",
    "nemotron_h-latent-bf16": "JANG_2S",
    "granitemoehybrid-bf16": "JANG_6M",
    "granitemoehybrid-dense-f16": "JANG_2S",
    "granitemoehybrid-attention-bf16": "JANG_6M",
    "jamba-dense-f16": "JANG_2S",
    "falcon_h1-bf16": "JANG_6M",
    "falcon_h1-norm-f16": "JANG_2S",
    "lfm2-bf16": "JANG_2S",
    "lfm2-bias-f16": "JANG_6M",
    "lfm2_moe-bf16": "JANG_6M",
    "kimi_linear-bf16": "JANG_2S",
}


def opens_mlx_falcon(suite, name):
    """mlx-lm's own conversion: all multipliers but the keys' are in its weights, rounded to f16."""
    from mlx_lm import convert as mlx_convert

    ids = json.loads((MODELS / name / "expected.json").read_text())["ids"]
    expected = np.load(MODELS / name / "expected.npy")
    output = suite.directory / f"{name}-by-mlx"
    mlx_convert(str(MODELS / name), str(output))
    ours = logits(suite, output, ids, "--exact")
    suite.below(f"{name} converted by mlx-lm", error(ours, expected), 2e-2)
    again = convert(output, suite.directory / f"{name}-again", "--profile", "f32")
    same = logits(suite, again, ids, "--exact")
    suite.below(f"{name} converted by mlx-lm and by us", error(same, ours), 1e-5)


def main():
    suite = Suite()
    with suite.case("falcon_h1-norm-f16 by mlx-lm"):
        opens_mlx_falcon(suite, "falcon_h1-norm-f16")
    for name, profile in FAMILIES.items():
        with suite.case(name):
            ids = json.loads((MODELS / name / "expected.json").read_text())["ids"]
            output = convert(MODELS / name, suite.directory / name, "--profile", profile)
            model, _ = mlx_open(output)
            ours = logits(suite, output, ids, "--exact")
            suite.below(f"{name} {profile}", error(ours, mlx_logits(model, ids)), 2e-3)
    suite.finish()


main()
