"""test_hybrid.py - recurrent and hybrid models, converted, in mlx-lm."""

import json

from common import MODELS, Suite, convert, error, logits, mlx_logits, mlx_open

# Left out are those that mlx-lm computes otherwise than transformers (Jamba renormalises its
# experts, Mamba-2 with groups is normed as a whole), does not know (Bamba) or does not open when
# quantized (Falcon-H1, whose multipliers it wants in unquantized weights).
FAMILIES = {
    "qwen3_5-bf16": "JANG_6M",
    "qwen3_5-tied-f16": "JANG_2S",
    "qwen3_5_moe-bf16": "JANG_2S",
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
    "lfm2-bf16": "JANG_2S",
    "lfm2-bias-f16": "JANG_6M",
    "lfm2_moe-bf16": "JANG_6M",
    "kimi_linear-bf16": "JANG_2S",
}


def main():
    suite = Suite()
    for name, profile in FAMILIES.items():
        with suite.case(name):
            ids = json.loads((MODELS / name / "expected.json").read_text())["ids"]
            output = convert(MODELS / name, suite.directory / name, "--profile", profile)
            model, _ = mlx_open(output)
            ours = logits(suite, output, ids, "--exact")
            suite.below(f"{name} {profile}", error(ours, mlx_logits(model, ids)), 2e-3)
    suite.finish()


main()
