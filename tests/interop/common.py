"""common.py - what the interop tests share: running jang, opening models in mlx-lm, measures.

The environment names the program (JANG) and the GGUF of SmolLM2 (JANG_SMOLLM2); scripts/test sets
both. Each test_*.py is a program that prints one line for each check and a count at its end.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import traceback

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import mlx.core as mx  # noqa: E402
import numpy as np  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402

mx.set_default_device(mx.cpu)

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/golden"
JANG = os.environ.get("JANG", str(ROOT / "build/release/jang"))
MODELS = pathlib.Path(JANG).resolve().parent / "tests/models"  # golden/models, with weights


class Suite:
    """Counts checks; an exception inside `with suite.case(name)` fails that case alone."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.scratch = tempfile.TemporaryDirectory(prefix="jang-interop-")
        self.directory = pathlib.Path(self.scratch.name)

    def check(self, name, ok, detail=""):
        if ok:
            self.passed += 1
        else:
            self.failed += 1
        print(f"{'ok  ' if ok else 'FAIL'} {name}{': ' if detail else ''}{detail}", flush=True)

    def below(self, name, value, limit):
        self.check(name, value < limit, f"{value:.2e} (limit {limit:.0e})")

    def skip(self, name, why):
        self.skipped += 1
        print(f"skip {name}: {why}", flush=True)

    def case(self, name):
        return Case(self, name)

    def finish(self):
        self.scratch.cleanup()
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped", flush=True)
        sys.exit(1 if self.failed else 0)


class Case:
    def __init__(self, suite, name):
        self.suite, self.name = suite, name

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if error is not None and isinstance(error, Exception):
            last = traceback.extract_tb(trace)[-1]
            where = f"{pathlib.Path(last.filename).name}:{last.lineno}"
            self.suite.check(self.name, False, f"{kind.__name__} at {where}: {error}")
            return True
        return False


# ---- jang ----------------------------------------------------------------------------------------


def jang(*arguments, stdin=None):
    """Runs the program; returns its standard output, or raises with what it said."""
    command = [JANG, *map(str, arguments)]
    result = subprocess.run(command, input=stdin, capture_output=True, text=True)
    if result.returncode != 0:
        said = result.stderr.strip().splitlines()[-1:] or ["nothing on stderr"]
        raise RuntimeError(f"jang {arguments[0]} ended with {result.returncode}: {said[0]}")
    return result.stdout


def convert(source, output, *options):
    jang("convert", "--model", source, "--output", output, *options)
    return output


def logits(suite, model, ids, *options):
    """f32 [n_ids, n_vocab], from jang."""
    path = suite.directory / "logits.npy"
    jang("logits", "--model", model, "--ids", ",".join(map(str, ids)), "--output", path, *options)
    values = np.load(path)
    path.unlink()
    return values


# ---- mlx-lm --------------------------------------------------------------------------------------


def mlx_open(path):
    """Model and tokenizer as mlx-lm opens them, computing in f32."""
    import mlx_lm

    model, tokenizer = mlx_lm.load(str(path))
    model.set_dtype(mx.float32)
    return model, tokenizer


def mlx_logits(model, ids):
    return np.array(model(mx.array([ids]))[0].astype(mx.float32))


# ---- Measures ------------------------------------------------------------------------------------


def error(ours, expected):
    """The largest difference in units of the expected logits' standard deviation."""
    if ours.shape != expected.shape:
        raise ValueError(f"shape {ours.shape}, expected {expected.shape}")
    return float(np.abs(ours - expected).max() / expected.std())


def log_softmax(x):
    x = x.astype(np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def mean_kl(ours, expected):
    """Mean over the tokens of KL(expected || ours), in nats."""
    p, q = log_softmax(expected), log_softmax(ours)
    return float((np.exp(p) * (p - q)).sum(-1).mean())


def wide_model(suite):
    """A llama whose rows are long enough for blocks of 256, of random numbers."""
    path = suite.directory / "wide"
    if path.exists():
        return path
    shutil.copytree(MODELS / "llama-bf16", path)
    config = json.loads((path / "config.json").read_text())
    config |= {"hidden_size": 256, "intermediate_size": 512}
    (path / "config.json").write_text(json.dumps(config))
    rng, n, wide = np.random.default_rng(2), config["vocab_size"], {}
    shapes = {"self_attn.q_proj": (256, 256), "self_attn.k_proj": (256, 256),
              "self_attn.v_proj": (256, 256), "self_attn.o_proj": (256, 256),
              "mlp.gate_proj": (512, 256), "mlp.up_proj": (512, 256), "mlp.down_proj": (256, 512),
              "input_layernorm": (256,), "post_attention_layernorm": (256,)}
    names = {f"model.layers.{i}.{k}": v for i in range(config["num_hidden_layers"])
             for k, v in shapes.items()}
    names |= {"model.embed_tokens": (n, 256), "lm_head": (n, 256), "model.norm": (256,)}
    for name, shape in names.items():
        flat = len(shape) == 1
        wide[f"{name}.weight"] = (np.ones(shape) if flat else
                                  rng.normal(0, shape[1] ** -0.5, shape)).astype(np.float32)
    save_file(wide, path / "model.safetensors")
    return path
