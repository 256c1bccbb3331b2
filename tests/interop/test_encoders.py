"""test_encoders.py - conversions of models that embed or judge, against their dequantized weights:
`jang embed --exact` gives what transformers, and the modules that sentence-transformers' files tell
of (pooling, Dense, Normalize), make of a text; `--labels` a classifier's scores of pairs of texts.

Pairs are put together by the package tokenizers. Needs torch; skips without it.
"""

import json
import pathlib
import subprocess

import mlx.core as mx
import numpy as np
from common import JANG, Suite, convert

try:
    import torch
    from transformers import AutoModel, AutoModelForSequenceClassification
except ImportError:
    torch = None

ENCODERS = pathlib.Path(JANG).resolve().parent / "tests/encoders"


def embed(model, lines, *options):
    run = subprocess.run(
        [JANG, "embed", "--model", model, *options], input="\n".join(lines) + "\n", text=True,
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


def rebuilt(auto, source, model):
    """transformers' model with the dequantized weights in place of the source's, all of them."""
    built = auto.from_pretrained(source, dtype=torch.float32, attn_implementation="eager")
    state, given = built.state_dict(), set()
    for name, value in dequantized(model).items():
        inner = name.removeprefix("bert.").removeprefix("model.")
        name = name if name in state else inner
        if name.startswith("lm_head."):  # which no embedding needs
            continue
        assert name in state and state[name].shape == value.shape, name
        state[name] = value
        given.add(name)
    missing = {name for name in set(state) - given if "pooler" not in name}
    assert not missing, missing
    built.load_state_dict(state)
    return built.eval()


# ---- Embeddings ----------------------------------------------------------------------------------


def dense(path, x):
    config = json.loads((path / "config.json").read_text())
    stored = {k: np.array(v) for k, v in mx.load(str(path / "model.safetensors")).items()}
    y = stored["linear.weight"] @ x + stored.get("linear.bias", 0)
    kinds = {"Identity": lambda v: v, "Tanh": np.tanh}
    return kinds[config["activation_function"].rpartition(".")[2]](y)


def by_modules(model, hidden):
    """What the modules of sentence-transformers, in their order, make of hidden states."""
    x = None
    for module in json.loads((model / "modules.json").read_text()):
        kind, path = module["type"].rpartition(".")[2], model / module["path"]
        if kind == "Pooling":
            pooling = json.loads((path / "config.json").read_text())
            x = hidden.mean(0) if pooling["pooling_mode_mean_tokens"] else hidden[-1]
            x = hidden[0] if pooling["pooling_mode_cls_token"] else x
        elif kind == "Dense":
            x = dense(path, x)
        elif kind == "Normalize":
            x = x / np.linalg.norm(x)
        else:
            assert kind == "Transformer", kind
    return x / np.linalg.norm(x)


def embeddings(source, model, texts):
    built, rows = rebuilt(AutoModel, source, model), []
    for text in texts:
        out = subprocess.run(
            [JANG, "tokenize", "--model", model, "--add-special"], input=text, text=True,
            capture_output=True, check=True,
        )
        ids = torch.tensor([[int(i) for i in out.stdout.split(",")]])
        with torch.no_grad():
            rows.append(by_modules(model, built(ids).last_hidden_state[0].numpy()))
    return np.array(rows)


# ---- Scores --------------------------------------------------------------------------------------


def scores(source, model, pairs):
    from tokenizers import Tokenizer

    built = rebuilt(AutoModelForSequenceClassification, source, model)
    tokenizer, rows = Tokenizer.from_file(str(model / "tokenizer.json")), []
    for first, second in pairs:
        pair = tokenizer.encode(first, second)
        more = {}
        if getattr(built.config, "type_vocab_size", 1) > 1:
            more["token_type_ids"] = torch.tensor([pair.type_ids])
        with torch.no_grad():
            rows.append(built(torch.tensor([pair.ids]), **more).logits[0].numpy())
    return np.array(rows)


# ---- The whole -----------------------------------------------------------------------------------


def check(suite, source, profile):
    name, expected = source.name, json.loads((source / "expected.json").read_text())
    model = convert(source, suite.directory / f"{name}-{profile}", "--profile", profile)
    if "texts" in expected:
        lines, options = expected["texts"], []
        wanted = embeddings(source, model, lines)
    else:
        lines, options = ["\t".join(pair) for pair in expected["pairs"]], ["--labels"]
        wanted = scores(source, model, expected["pairs"])
    deviation = wanted.std() if "texts" in expected else max(wanted.std(), np.abs(wanted).mean())
    error = np.abs(embed(model, lines, "--exact", *options) - wanted).max() / deviation
    suite.below(f"{name} {profile}: --exact against dequantized weights", error, 1e-4)
    error = np.abs(embed(model, lines, *options) - wanted).max() / deviation
    suite.below(f"{name} {profile}: by default", error, 5e-2)


def main():
    suite = Suite()
    if torch is None:
        suite.skip("encoders", "torch is not installed")
        suite.finish()
    for source in sorted(ENCODERS.iterdir()):
        for profile in ("JANG_6M", "JANG_2S"):
            with suite.case(f"{source.name} {profile}"):
                check(suite, source, profile)
    suite.finish()


main()
