"""test_int_sources.py - conversions from AWQ's and GPTQ's checkpoints.

The checkpoints are written here with numpy, from the layouts that AutoAWQ and AutoGPTQ publish:
codes, zeros, scales and group numbers drawn at random. Their weights, (code - zero) * scale, must
come out of `jang convert --profile f32` to the last bit; damaged ones must be refused by name.
"""

import json
import shutil

import numpy as np
from safetensors.numpy import load_file, save_file

from common import MODELS, Suite, jang

SOURCE = MODELS / "llama-f16"
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def pack_stream(codes, bits):
    """Codes [n, m] as words [n * bits / 32, m]: each column one stream from the low end."""
    n, m = codes.shape
    stream = ((codes[:, None, :] >> np.arange(bits)[None, :, None]) & 1).reshape(n * bits, m)
    words = stream.reshape(n * bits // 32, 32, m).astype(np.uint64)
    words = words << np.arange(32, dtype=np.uint64)[None, :, None]
    return words.sum(axis=1).astype(np.uint32).view(np.int32)


def pack_awq(codes):
    """Codes [n, m] as words [n, m / 8]."""
    n, m = codes.shape
    nibbles = codes.reshape(n, m // 8, 8)[:, :, AWQ_ORDER].astype(np.uint64)
    words = nibbles << (4 * np.arange(8, dtype=np.uint64))
    return words.sum(axis=2).astype(np.uint32).view(np.int32)


def quantized(rng, kind, n_in, n_out, bits, group, act_order):
    """The tensors of a module, and its weight [n_out, n_in]."""
    n_group = n_in // group
    codes = rng.integers(0, 1 << bits, (n_in, n_out))
    # Format 1 stores zero - 1, which must not be below 0.
    zeros = rng.integers(1, 1 << bits, (n_group, n_out))
    scales = rng.uniform(0.001, 0.01, (n_group, n_out)).astype(np.float16)
    group_of = np.arange(n_in) // group
    if act_order:
        group_of = rng.permutation(group_of)
    weight = ((codes - zeros[group_of]) * scales[group_of].astype(np.float32)).astype(np.float32).T
    if kind == "awq":
        return {"qweight": pack_awq(codes), "qzeros": pack_awq(zeros), "scales": scales}, weight
    stored = zeros - (1 if kind == "gptq" else 0)
    tensors = {"qweight": pack_stream(codes, bits), "qzeros": pack_stream(stored.T, bits).T.copy(),
               "scales": scales, "g_idx": group_of.astype(np.int32)}
    return tensors, weight


def write(directory, kind, bits, group, act_order=False):
    """A copy of the source with packed layers; returns what its weights are."""
    rng = np.random.default_rng(7)
    shutil.copytree(SOURCE, directory)
    tensors, expected = load_file(SOURCE / "model.safetensors"), {}
    for name in [n for n in tensors if "_proj.weight" in n]:
        if tensors[name].shape[0] * bits % 32:  # GPTQ has no form for it
            continue
        n_out, n_in = tensors.pop(name).shape
        module = name.removesuffix(".weight")
        size = n_in if group == -1 else group
        parts, expected[name] = quantized(rng, kind, n_in, n_out, bits, size, act_order)
        tensors.update({f"{module}.{part}": value for part, value in parts.items()})
    save_file(tensors, directory / "model.safetensors")
    config = json.loads((SOURCE / "config.json").read_text())
    section = {"quant_method": "awq" if kind == "awq" else "gptq", "bits": bits, "group_size": group}
    if kind == "awq":
        section["version"] = "gemm"
    else:
        section.update({"checkpoint_format": kind, "desc_act": act_order})
    config["quantization_config"] = section
    (directory / "config.json").write_text(json.dumps(config))
    return expected


def check_weights(suite, title, kind, bits, group, act_order=False):
    source, output = suite.directory / "source", suite.directory / "output"
    expected = write(source, kind, bits, group, act_order)
    jang("convert", "--model", source, "--output", output, "--profile", "f32")
    got = load_file(output / "model.safetensors")
    wrong = [n for n, w in expected.items() if not np.array_equal(got[n], w)]
    n_packed = 10 if bits == 3 else 14
    suite.check(title, not wrong and len(expected) == n_packed, ", ".join(wrong[:3]))
    left = json.loads((output / "config.json").read_text()).get("quantization_config")
    suite.check(f"{title}: the old section is gone", left is None, str(left))
    for directory in (source, output):
        shutil.rmtree(directory)


def check_refusals(suite):
    def refused(title, words, change):
        source = suite.directory / "source"
        write(source, "gptq", 4, 32)
        config = json.loads((source / "config.json").read_text())
        tensors = load_file(source / "model.safetensors")
        change(config["quantization_config"], tensors)
        save_file(tensors, source / "model.safetensors")
        (source / "config.json").write_text(json.dumps(config))
        try:
            jang("convert", "--model", source, "--output", suite.directory / "none", "--bits", 4)
            said = "nothing"
        except RuntimeError as error:
            said = str(error)
        left = (suite.directory / "none").exists()
        suite.check(f"refused: {title}", words in said and not left, said)
        shutil.rmtree(source)

    first = "model.layers.0.self_attn.q_proj"
    gemv = {"quant_method": "awq", "version": "gemv"}
    refused("5 bits", "5 bits; GPTQ checkpoints are read", lambda c, t: c.update(bits=5))
    refused("marlin", "not read", lambda c, t: c.update(checkpoint_format="marlin"))
    refused("AWQ's GEMV form", '"gemv" is not read', lambda c, t: c.update(gemv))
    refused("no zeros", "its .qzeros is missing", lambda c, t: t.pop(f"{first}.qzeros"))
    refused("another group size", "of another shape", lambda c, t: c.update(group_size=64))
    for at, group in ((3, 99), (0, -1)):
        refused(f"group {group}", f"input {at} is in a group",
                lambda c, t: t[f"{first}.g_idx"].__setitem__(at, group))
    refused("another maker", '"bitsandbytes"', lambda c, t: c.update(quant_method="bitsandbytes"))


def main():
    suite = Suite()
    with suite.case("weights"):
        check_weights(suite, "awq, 4 bits", "awq", 4, 32)
        check_weights(suite, "awq, one group a row", "awq", 4, -1)
        for bits in (2, 3, 4, 8):
            check_weights(suite, f"gptq, {bits} bits", "gptq", bits, 32)
        check_weights(suite, "gptq, format 2", "gptq_v2", 4, 32)
        check_weights(suite, "gptq, act-order", "gptq", 4, 32, act_order=True)
        check_weights(suite, "gptq, 3 bits, one group a row", "gptq_v2", 3, -1, act_order=True)
    with suite.case("refusals"):
        check_refusals(suite)
    suite.finish()


if __name__ == "__main__":
    main()
