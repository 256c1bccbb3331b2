"""test_experts.py - converted mixtures of experts in mlx-lm, and FP8 and MXFP4 sources."""

import json
import shutil

import numpy as np
import torch
from common import MODELS, Suite, convert, error, logits, mlx_logits, mlx_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

# Families that mlx-lm computes as transformers does, as far as the first tokens go: it leaves out
# windows, of ERNIE 4.5 the bias that chooses, of OLMoE clip_qkv, of gpt-oss the limit of SwiGLU, of
# Qwen2-MoE norm_topk_prob.
AGREE = """
deepseek2-bf16 deepseek3-bf16 deepseek3-noqlora-bf16 glm4moe-bf16 glm4moe-air-bf16 glm4moelite-bf16
granitemoe-bf16 minimaxm2-bf16 mixtral-bf16 mixtral-window-f32 olmoe-bf16 phimoe-bf16 qwen2moe-bf16
qwen3moe-bf16 qwen3moe-mixed-f16
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


# ---- Sources of other makers --------------------------------------------------------------------


def reference_logits(config, tensors, ids, directory):
    """transformers' logits for these tensors, read under the hub's names."""
    directory.mkdir()
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(config))
    model = AutoModelForCausalLM.from_pretrained(
        directory, torch_dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


def packed_source(suite, name, label, pack, quantization):
    """A copy of a fixture, packed; what pack makes of a tensor is {name: tensor}, its values."""
    source = MODELS / name
    tensors = load_file(source / "model.safetensors")
    packed, plain = {}, {}
    for key, value in tensors.items():
        more, values = pack(key, value.to(torch.float32))
        packed.update(more or {key: value})
        plain[key] = value.to(torch.float32) if more is None else values
    directory = suite.directory / label
    directory.mkdir()
    for file in source.iterdir():
        if file.suffix == ".json" and file.name not in ("expected.json", "config.json"):
            shutil.copy(file, directory / file.name)
    save_file(packed, directory / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    (directory / "config.json").write_text(
        json.dumps({**config, "quantization_config": quantization})
    )
    ids, _ = expected_of(source)
    config["torch_dtype"] = "float32"
    expected = reference_logits(config, plain, ids, suite.directory / f"{label}-plain")
    output = convert(directory, suite.directory / f"{label}-f32", "--profile", "f32")
    suite.below(f"{label} as f32", error(logits(suite, output, ids, "--exact"), expected), 1e-3)
    convert(directory, suite.directory / f"{label}-4m", "--profile", "JANG_4M", *GROUP)
    suite.check(f"{label} as JANG_4M", True)


BLOCK = 24  # divides nothing here, so that all edges are ragged


def pack_fp8(name, value):
    """E4M3 with an F32 scale for each block of BLOCK rows and columns."""
    if value.ndim != 2 or "norm" in name or "embed" in name or name.endswith("gate.weight"):
        return None, None
    rows, columns = value.shape
    scales = torch.zeros(-(-rows // BLOCK), -(-columns // BLOCK))
    codes = torch.zeros(rows, columns, dtype=torch.float8_e4m3fn)
    values = torch.zeros(rows, columns)
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            at = slice(i * BLOCK, (i + 1) * BLOCK), slice(j * BLOCK, (j + 1) * BLOCK)
            scales[i, j] = value[at].abs().max() / 448
            codes[at] = (value[at] / scales[i, j]).to(torch.float8_e4m3fn)
            values[at] = codes[at].to(torch.float32) * scales[i, j]
    return {name: codes, f"{name}_scale_inv": scales}, values


FP4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def pack_mxfp4(name, value):
    """Experts' [experts, columns, rows] as MXFP4 of [experts, rows, columns]."""
    if value.ndim != 3:
        return None, None
    groups = value.transpose(1, 2).reshape(value.shape[0], value.shape[2], -1, 32)
    top = groups.abs().amax(-1).clamp(min=2**-20)
    exponent = torch.floor(torch.log2(top)) - 1
    scaled = groups / torch.exp2(exponent)[..., None]
    magnitude = (scaled.abs()[..., None] - FP4).abs().argmin(-1)
    codes = (magnitude + 8 * (scaled < 0)).to(torch.uint8)
    values = FP4[magnitude] * torch.where(scaled < 0, -1.0, 1.0)
    values = (values * torch.exp2(exponent)[..., None]).flatten(-2).transpose(1, 2).contiguous()
    blocks = codes[..., 0::2] | codes[..., 1::2] << 4
    scales = (exponent + 127).to(torch.uint8)
    return {f"{name}_blocks": blocks, f"{name}_scales": scales}, values


def main():
    suite = Suite()
    for name in AGREE + DISAGREE:
        for profile in PROFILES:
            with suite.case(f"{name} {profile}"):
                in_mlx(suite, name, profile, name in AGREE)
        with suite.case(name):
            keeps_values(suite, name)
    fp8 = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [BLOCK, BLOCK]}
    with suite.case("FP8"):
        packed_source(suite, "deepseek3-bf16", "deepseek3-fp8", pack_fp8, fp8)
    with suite.case("MXFP4"):
        packed_source(
            suite, "gptoss-bf16", "gptoss-mxfp4", pack_mxfp4, {"quant_method": "mxfp4"}
        )
    suite.finish()


main()
