"""test_same_bytes.py - our conversions against mlx-lm's own, tensor by tensor, bit by bit.

From f16 and bf16 weights both must give the same names, shapes, types and bytes. From f32 weights
mlx-lm writes f32 scales where we write f16, so there the codes alone are compared.
"""

import mlx.core as mx
import numpy as np

from common import MODELS, Suite, convert

CASES = [
    ("llama-bf16", ["--bits", 4], {"q_bits": 4}),
    ("llama-f16", ["--bits", 3, "--group-size", 32], {"q_bits": 3, "q_group_size": 32}),
    ("llama-bf16", ["--profile", "mixed_2_6"], {"quant_predicate": "mixed_2_6"}),
    ("llama-sharded-bf16", ["--profile", "mixed_3_6"], {"quant_predicate": "mixed_3_6"}),
    ("qwen2-tied-bf16", ["--bits", 6], {"q_bits": 6}),
    ("qwen2-tied-bf16", ["--profile", "mixed_4_6"], {"quant_predicate": "mixed_4_6"}),
    ("smollm-tied-bf16", ["--bits", 5, "--group-size", 32], {"q_bits": 5, "q_group_size": 32}),
    ("mistral-window-bf16", ["--bits", 8], {"q_bits": 8}),
    ("llama-f32", ["--bits", 4], {"q_bits": 4}),
]


def tensors_of(directory):
    tensors = {}
    for path in sorted(directory.glob("*.safetensors")):
        tensors.update(mx.load(str(path)))
    return tensors


def bits_of(array):
    """The array's bytes, whatever its type."""
    return np.array(array.view(mx.uint8))


def differing(ours, theirs, codes_only):
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in ours or name not in theirs:
            return f"{name} is {'missing' if name not in ours else 'ours alone'}"
        a, b = ours[name], theirs[name]
        if codes_only and a.dtype != mx.uint32:
            continue
        if a.dtype != b.dtype or a.shape != b.shape:
            return f"{name}: {a.dtype} {a.shape}, mlx-lm has {b.dtype} {b.shape}"
        if not np.array_equal(bits_of(a), bits_of(b)):
            return f"{name}: other bytes"
    return ""


def main():
    from mlx_lm import convert as mlx_convert

    suite = Suite()
    for i, (name, options, mlx_options) in enumerate(CASES):
        title = " ".join([name, *map(str, options)])
        with suite.case(title):
            ours = suite.directory / f"ours-{i}"
            theirs = suite.directory / f"theirs-{i}"
            convert(MODELS / name, ours, "--method", "rtn", *options)
            mlx_convert(str(MODELS / name), str(theirs), quantize=True, **mlx_options)
            found = differing(tensors_of(ours), tensors_of(theirs), name.endswith("f32"))
            suite.check(f"{title}: as mlx-lm's", not found, found)
    suite.finish()


if __name__ == "__main__":
    main()
