"""test_experts.py - converted mixtures of experts in mlx-lm, and FP8 and MXFP4 sources."""

import json

import numpy as np
from common import GOLDEN, MODELS, Suite, convert, error, logits, mlx_logits, mlx_open

# Families that mlx-lm computes as transformers does, as far as the first tokens go: it leaves out
# windows, of ERNIE 4.5 the bias that chooses, of OLMoE clip_qkv, of gpt-oss the limit of SwiGLU, of
# Qwen2-MoE norm_topk_prob.
AGREE = """
deepseek2-bf16 deepseek3-bf16 deepseek3-noqlora-bf16 glm4moe-bf16 glm4moe-air-bf16 glm4moelite-bf16
gemma4text-experts-bf16 granitemoe-bf16 llama4-bf16 minimaxm2-bf16 mixtral-bf16 mixtral-window-f32
olmoe-bf16 phimoe-bf16 qwen2moe-bf16 qwen3moe-bf16 qwen3moe-mixed-f16
""".split()
DISAGREE = "ernie45moe-bf16 gptoss-bf16 olmoe-clip-bf16 qwen2moe-renorm-f16".split()
PROFILES = "f32 JANG_6M JANG_2S".split()
SHORT = 6
GROUP = ["--group-size", "32"]  # of rows of 32 numbers


def expected_of(path):
    return json.loads((path / "expected.json").read_text())["ids"], np.load(path / "expected.npy")


def in_mlx(suite, name, profile, agree):
    source = MODELS / name
    ids, _ = expected_of(source)
    options = ["--profile", profile] + ([] if profile == "f32" else GROUP)
    output = convert(source, suite.directory / f"{name}-{profile}", *options)
    model, _ = mlx_open(output)
    theirs = mlx_logits(model, ids[:SHORT])
    if agree:
        ours = logits(suite, output, ids[:SHORT], "--exact")
        suite.below(f"{name} {profile} in mlx-lm", error(ours, theirs), 2e-3)
    else:
        suite.check(f"{name} {profile} opens in mlx-lm", bool(np.isfinite(theirs).all()))


def keeps_values(suite, name):
    """Stacking and splitting lose nothing: converted to f32, the logits are the source's."""
    ids, expected = expected_of(MODELS / name)
    output = convert(MODELS / name, suite.directory / f"{name}-values", "--profile", "f32")
    suite.below(f"{name} as f32", error(logits(suite, output, ids, "--exact"), expected), 1e-3)


def packed_source(suite, path):
    """FP8 and MXFP4 checkpoints, converted without loss, and at 4 bits."""
    ids, expected = expected_of(path)
    output = convert(path, suite.directory / f"{path.name}-f32", "--profile", "f32")
    suite.below(f"{path.name} as f32", error(logits(suite, output, ids, "--exact"), expected), 1e-3)
    output = convert(path, suite.directory / f"{path.name}-4m", "--profile", "JANG_4M", *GROUP)
    model, _ = mlx_open(output)
    finite = bool(np.isfinite(mlx_logits(model, ids[:SHORT])).all())
    suite.check(f"{path.name} as JANG_4M opens in mlx-lm", finite)


def main():
    suite = Suite()
    for name in AGREE + DISAGREE:
        for profile in PROFILES:
            with suite.case(f"{name} {profile}"):
                in_mlx(suite, name, profile, name in AGREE)
        with suite.case(name):
            keeps_values(suite, name)
    for path in sorted((GOLDEN / "packed").iterdir()):
        with suite.case(path.name):
            packed_source(suite, path)
    suite.finish()


main()
