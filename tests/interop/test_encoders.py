"""test_encoders.py - conversions of models that embed: `jang embed --exact` gives what transformers
and pooling by sentence-transformers' files make of their dequantized weights."""

import json
import pathlib
import subprocess

import mlx.core as mx
import numpy as np
from common import JANG, Suite, convert

try:
    import torch
    from transformers import AutoModel
except ImportError:
    torch = None

ENCODERS = pathlib.Path(JANG).resolve().parent / "tests/encoders"
NAMES = ["bert-mean-f32", "bert-cls-bf16", "xlm-roberta-cls-bf16", "qwen3-last-bf16"]


def embed(model, texts, *options):
    run = subprocess.run(
        [JANG, "embed", "--model", model, *options], input="\n".join(texts) + "\n", text=True,
        capture_output=True, check=True,
    )
    return np.array([json.loads(line) for line in run.stdout.splitlines()])


def dequantized(model):
    """The tensors under the source's names, quantized ones as code * scale + bias."""
    config = json.loads((model / "config.json").read_text())
    entries, stored, plain = config["quantization"], {}, {}
    for file in sorted(model.glob("*.safetensors")):
        stored.update(mx.load(str(file)))
    for name, value in stored.items():
        module = name.rsplit(".", 1)[0]
        if name.endswith((".scales", ".biases")):
            continue
        if name.endswith(".weight") and module + ".scales" in stored:
            entry = entries.get(module) if isinstance(entries.get(module), dict) else entries
            value = mx.dequantize(
                value, stored[module + ".scales"].astype(mx.float32),
                stored[module + ".biases"].astype(mx.float32),
                group_size=entry.get("group_size", entries["group_size"]),
                bits=entry.get("bits", entries["bits"]),
            )
        plain[name] = torch.from_numpy(np.array(value.astype(mx.float32)))
    return plain


def reference(source, model, texts):
    built = AutoModel.from_pretrained(source, dtype=torch.float32, attn_implementation="eager")
    state = built.state_dict()
    for name, value in dequantized(model).items():
        name = name.removeprefix("bert.").removeprefix("model.")
        assert name in state and state[name].shape == value.shape, name
        state[name] = value
    built.load_state_dict(state)
    built.eval()
    pooling = json.loads((model / "1_Pooling/config.json").read_text())
    rows = []
    for text in texts:
        out = subprocess.run(
            [JANG, "tokenize", "--model", model, "--add-special"], input=text, text=True,
            capture_output=True, check=True,
        )
        ids = torch.tensor([[int(i) for i in out.stdout.split(",")]])
        with torch.no_grad():
            hidden = built(ids).last_hidden_state[0]
        x = hidden.mean(0) if pooling["pooling_mode_mean_tokens"] else hidden[-1]
        x = hidden[0] if pooling["pooling_mode_cls_token"] else x
        rows.append((x / x.norm()).numpy())
    return np.array(rows)


def main():
    suite = Suite()
    if torch is None:
        suite.skip("encoders", "torch is not installed")
        suite.finish()
    for name in NAMES:
        texts = json.loads((ENCODERS / name / "expected.json").read_text())["texts"]
        for profile in ("JANG_6M", "JANG_2S"):
            with suite.case(f"{name} {profile}"):
                model = suite.directory / f"{name}-{profile}"
                convert(ENCODERS / name, model, "--profile", profile)
                wanted = reference(ENCODERS / name, model, texts)
                error = np.abs(embed(model, texts, "--exact") - wanted).max() / wanted.std()
                suite.below(f"{name} {profile}: --exact against dequantized weights", error, 1e-4)
                error = np.abs(embed(model, texts) - wanted).max() / wanted.std()
                suite.below(f"{name} {profile}: by default", error, 5e-2)
    suite.finish()


main()
