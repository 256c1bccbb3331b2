"""test_kept_codes.py - codes that are kept: `convert --keep-codes`, and `jang upgrade` of JANG v1.

Sources are written here with numpy: AWQ's and GPTQ's checkpoints as test_int_sources.py has them,
and v1 models from their published layout (docs/format.md, section 7). What the output stands for,
unpacked here, must be the source's numbers to the last bit, and mlx-lm must open it.
"""

import json
import shutil

import mlx.core as mx
import numpy as np
from safetensors.numpy import load_file, save_file

import test_int_sources as ints
from common import MODELS, Suite, error, jang, logits, mlx_logits, mlx_open

SOURCE = MODELS / "llama-f16"
IDS = [1, 5, 9, 42, 7, 11, 100, 3]


def unpack(words, bits, n):
    """Codes [rows, n] of words [rows, n * bits / 32]: each row one stream from the low end."""
    stream = (words[:, :, None] >> np.arange(32, dtype=np.uint32)) & 1
    stream = stream.reshape(len(words), n, bits).astype(np.int64)
    return (stream << np.arange(bits)).sum(axis=2)


def stands_for(tensors, module, n_in):
    """Codes and weights of an affine module."""
    words, scales = tensors[f"{module}.weight"], tensors[f"{module}.scales"].astype(np.float64)
    bits, group = words.shape[-1] * 32 // n_in, n_in // scales.shape[-1]
    codes = unpack(words.reshape(-1, words.shape[-1]), bits, n_in)
    biases = tensors[f"{module}.biases"].astype(np.float64).reshape(-1, n_in // group)
    scales = scales.reshape(-1, n_in // group)
    return codes, codes * scales.repeat(group, 1) + biases.repeat(group, 1)


def compare(suite, title, output, expected):
    tensors = load_file(output / "model.safetensors")
    wrong = []
    for name, weight in expected.items():
        _, got = stands_for(tensors, name.removesuffix(".weight"), weight.shape[-1])
        if not np.array_equal(got, weight.reshape(got.shape).astype(np.float64)):
            wrong.append(name)
    suite.check(title, not wrong, ", ".join(wrong[:3]))
    model, _ = mlx_open(output)
    ours = logits(suite, output, IDS, "--exact")
    suite.below(f"{title}: mlx-lm's logits", error(ours, mlx_logits(model, IDS)), 1e-3)


def check_int(suite, title, kind, bits, group):
    source, output = suite.directory / "source", suite.directory / "output"
    expected = ints.write(source, kind, bits, group)
    jang("convert", "--model", source, "--output", output, "--keep-codes")
    compare(suite, title, output, expected)
    method = json.loads((output / "jang_config.json").read_text())["quantization"]["method"]
    suite.check(f"{title}: method", method == "kept", method)
    for directory in (source, output):
        shutil.rmtree(directory)


def check_act_order(suite):
    source, output = suite.directory / "source", suite.directory / "output"
    ints.write(source, "gptq", 4, 32, act_order=True)
    try:
        jang("convert", "--model", source, "--output", output, "--keep-codes")
        said = "nothing"
    except RuntimeError as problem:
        said = str(problem)
    suite.check("act-order alone is refused", "act-order" in said, said)
    plan = jang("convert", "--model", source, "--output", output, "--keep-codes", "--bits", 4)
    suite.check("act-order with --bits is quantized anew, and said", "act-order" in plan)
    shutil.rmtree(source)
    shutil.rmtree(output)


def check_mlx(suite):
    output = suite.directory / "output"
    source = MODELS / "mlx-llama-mixed-3-6"
    jang("convert", "--model", source, "--output", output, "--keep-codes")
    before = mx.load(str(source / "model.safetensors"))
    after = mx.load(str(output / "model.safetensors"))
    wrong = [n for n in before if n not in after or not mx.array_equal(before[n], after[n])]
    suite.check("MLX's model comes out as it is", not wrong, ", ".join(wrong[:3]))
    shutil.rmtree(output)


# ---- JANG v1 -------------------------------------------------------------------------------------


def write_v1(directory, zeros, bit_map):
    """A copy of the source as JANG v1 had it; returns what its weights are."""
    rng = np.random.default_rng(11)
    shutil.copytree(SOURCE, directory)
    (directory / "model.safetensors").unlink()
    tensors, expected = load_file(SOURCE / "model.safetensors"), {}
    for i, name in enumerate(sorted(n for n in tensors if tensors[n].ndim == 2)):
        n_out, n_in = tensors.pop(name).shape
        module, bits, group = name.removesuffix(".weight"), (2, 3, 4, 5, 6, 8)[i % 6], 32
        codes = rng.integers(0, 1 << bits, (n_out, n_in))
        stream = ((codes[:, :, None] >> np.arange(bits)) & 1).astype(np.uint8).reshape(-1)
        scales = rng.uniform(0.001, 0.01, (n_out, n_in // group)).astype(np.float16)
        second = rng.uniform(0, (1 << bits) - 1, scales.shape).astype(np.float16)
        if zeros:
            biases = -scales.astype(np.float32) * second.astype(np.float32)
        else:
            second = (-second * scales).astype(np.float16)
            biases = second.astype(np.float32)
        weight = codes * scales.astype(np.float64).repeat(group, 1)
        expected[name] = weight + biases.astype(np.float64).repeat(group, 1)
        tensors[f"{module}.qweight"] = np.packbits(stream, bitorder="little")
        tensors[f"{module}.scales"] = scales.reshape(-1)
        tensors[f"{module}.{'zeros' if zeros else 'biases'}"] = second.reshape(-1)
        tensors[f"{module}.shape"] = np.array([n_out, n_in], dtype=np.int64)
        if bit_map:
            tensors[f"{module}.bit_map"] = np.full(scales.size, bits, dtype=np.uint8)
        else:
            tensors[f"{module}.bits"] = np.array([bits], dtype=np.uint8)
    file = "model-00001-of-00001.jang.safetensors"
    save_file(tensors, directory / file)
    index = {"metadata": {"format": "jang"}, "weight_map": {name: file for name in tensors}}
    (directory / "model.jang.index.json").write_text(json.dumps(index))
    about = {"format": "jang", "format_version": "1.1", "quantization": {"block_size": 32}}
    (directory / "jang_config.json").write_text(json.dumps(about))
    return expected


def check_v1(suite, title, zeros, bit_map):
    source, output = suite.directory / "source", suite.directory / "output"
    expected = write_v1(source, zeros, bit_map)
    jang("upgrade", source, "--output", output)
    compare(suite, title, output, expected)
    for directory in (source, output):
        shutil.rmtree(directory)


def check_v1_refusals(suite):
    first = "model.layers.0.self_attn.q_proj"

    def refused(title, words, change):
        source = suite.directory / "source"
        write_v1(source, False, title == "two widths")
        file = source / "model-00001-of-00001.jang.safetensors"
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file)
        try:
            jang("upgrade", source, "--output", suite.directory / "none")
            said = "nothing"
        except RuntimeError as problem:
            said = str(problem)
        suite.check(f"v1 refused: {title}", words in said, said)
        shutil.rmtree(source)

    def put(name, value):
        return lambda t: t.__setitem__(f"{first}.{name}", value)

    refused("no shape", "its .shape is missing", lambda t: t.pop(f"{first}.shape"))
    refused("no width", "its .bits", lambda t: t.pop(f"{first}.bits"))
    refused("7 bits", "no width", put("bits", np.array([7], dtype=np.uint8)))
    refused("a large shape", "whole numbers from 1", put("shape", np.array([1 << 40, 64])))
    refused("another shape", "whole groups", put("shape", np.array([64, 63])))
    refused("short codes", "its size is not", put("qweight", np.zeros(64, dtype=np.uint8)))
    refused("no biases", "must be F16", lambda t: t.pop(f"{first}.biases"))

    def widen_second(tensors):
        tensors[f"{first}.bit_map"][1] = 8 if tensors[f"{first}.bit_map"][0] != 8 else 6

    refused("two widths", "different widths", widen_second)
    refused("NaN", "NaN or infinite", lambda t: t[f"{first}.scales"].__setitem__(2, np.nan))


def main():
    suite = Suite()
    with suite.case("codes of others"):
        check_int(suite, "awq, 4 bits", "awq", 4, 32)
        for bits in (2, 3, 4, 8):
            check_int(suite, f"gptq, {bits} bits", "gptq", bits, 32)
        check_int(suite, "gptq, one group a row", "gptq_v2", 4, -1)
        check_act_order(suite)
        check_mlx(suite)
    with suite.case("JANG v1"):
        check_v1(suite, "v1 with biases", False, False)
        check_v1(suite, "v1 with zeros and bit maps", True, True)
        check_v1_refusals(suite)
    suite.finish()


if __name__ == "__main__":
    main()
