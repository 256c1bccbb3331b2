"""test_gptqmodel.py - AWQ and GPTQ by the programs that people make and open them with.

GPTQModel quantizes a small llama on the CPU, in GPTQ's form (with and without act-order) and in
AWQ's; AutoAWQ packs random matrices. What they say that these weights are must come out of `jang
convert` to the last bit of the 16 that they compute with, kept codes included, and logits with it.
The other way, both read what `jang export --format awq` writes. Needs torch, gptqmodel and autoawq
(pip install --no-deps, if there is no GPU); skips without them.
"""

import json
import logging
import os
import shutil

import numpy as np
from safetensors.numpy import load_file, save_file

from common import Suite, convert, error, jang, logits, wide_model

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")

IDS = [1, 5, 9, 42, 7, 11, 100, 3]
KINDS = {  # what GPTQModel's config is made of
    "gptq": {"bits": 4},
    "gptq of 3 bits, act-order": {"bits": 3, "desc_act": True},
    "awq": {"bits": 4, "awq": True},
}


def quantize(source, output, bits, awq=False, **more):
    from gptqmodel import GPTQModel, QuantizeConfig
    from gptqmodel.quantization.config import AWQConfig

    make = AWQConfig if awq else QuantizeConfig
    model = GPTQModel.load(str(source), make(bits=bits, group_size=32, **more), device="cpu")
    rng = np.random.default_rng(0)
    model.quantize([{"input_ids": rng.integers(3, 300, 64).tolist(), "attention_mask": [1] * 64}
                    for _ in range(4)], batch_size=1)
    model.save(str(output))


def open_in_gptqmodel(directory, awq):
    """({module: f32 [n_out, n_in] of its numbers of 16 bits}, logits) as these programs compute."""
    import torch
    from awq.utils.packing_utils import dequantize_gemm
    from gptqmodel import BACKEND, GPTQModel

    backend = BACKEND.AWQ_TORCH if awq else BACKEND.GPTQ_TORCH
    model = GPTQModel.load(str(directory), backend=backend, device="cpu", dtype=torch.float16).model
    weights = {}
    for name, module in model.named_modules():
        if hasattr(module, "qweight") and awq:
            weights[name] = dequantize_gemm(module.qweight, module.qzeros, module.scales, 4, 32).T
        elif hasattr(module, "qweight"):
            weights[name] = module.dequantize_weight().T
    with torch.no_grad():
        out = model(torch.tensor([IDS])).logits[0].float().numpy()
    return {name: w.half().float().numpy() for name, w in weights.items()}, out


def check_same(suite, title, directory, weights, their_logits, ways):
    back, plain = suite.directory / "back", suite.directory / "plain"
    for how in ways:
        convert(directory, back, *how, "--force")
        jang("export", back, "--format", "hf", "--type", "f32", "--force", "--output", plain)
        ours = load_file(plain / "model.safetensors")
        other = [name for name, w in weights.items()
                 if not np.array_equal(ours[f"{name}.weight"].astype(np.float16), w)]
        suite.check(f"{title}: numbers with {how[0]}", weights and not other,
                    f"{len(weights)} matrices {other[:3]}")
        # They compute in f16.
        suite.below(f"{title}: logits with {how[0]}",
                    error(logits(suite, back, IDS, "--exact"), their_logits), 2e-2)
        for path in (back, plain):
            shutil.rmtree(path)


def check_import(suite, kind, config):
    made = suite.directory / kind.split()[0]
    quantize(wide_model(suite), made, **config)
    ways = [["--profile", "f32"]] + ([] if "desc_act" in config else [["--keep-codes"]])
    check_same(suite, kind, made, *open_in_gptqmodel(made, "awq" in config), ways)
    shutil.rmtree(made)


def check_export(suite, method):
    model, made = suite.directory / "model", suite.directory / "exported"
    convert(wide_model(suite), model, "--bits", "4", "--group-size", "32", "--method", method)
    jang("export", model, "--format", "awq", "--output", made)
    check_same(suite, f"export of {method}", made, *open_in_gptqmodel(made, True), [["--keep-codes"]])
    for path in (model, made):
        shutil.rmtree(path)


def check_autoawq(suite):
    """Matrices that AutoAWQ itself packs, in the place of a small model's."""
    import torch
    from awq.modules.linear.gemm import WQLinear_GEMM
    from awq.utils.packing_utils import dequantize_gemm

    made, weights, tensors = suite.directory / "packed", {}, {}
    shutil.copytree(wide_model(suite), made)
    torch.manual_seed(3)
    for name, value in load_file(made / "model.safetensors").items():
        module = name.removesuffix(".weight")
        if ".layers." not in module or value.ndim != 2:
            tensors[name] = value
            continue
        n_out, n_in = value.shape
        zeros = torch.randint(0, 16, (n_in // 32, n_out)).half()
        scales = (torch.rand(n_in // 32, n_out) * 0.01 + 0.001).half()
        codes = torch.randint(0, 16, (n_in, n_out))
        linear = torch.nn.Linear(n_in, n_out, bias=False, dtype=torch.float16)
        linear.weight.data = ((codes - zeros.repeat_interleave(32, 0)) *
                              scales.repeat_interleave(32, 0)).T.contiguous().half()
        packed = WQLinear_GEMM.from_linear(linear, 4, 32, False, scales, zeros)
        for kind in ("qweight", "qzeros", "scales"):
            tensors[f"{module}.{kind}"] = getattr(packed, kind).numpy()
        parts = (packed.qweight, packed.qzeros, packed.scales)
        weights[module] = dequantize_gemm(*parts, 4, 32).T.numpy()
    save_file(tensors, made / "model.safetensors")
    config = json.loads((made / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "awq", "bits": 4, "group_size": 32,
                                     "zero_point": True, "version": "gemm"}
    (made / "config.json").write_text(json.dumps(config))
    back, plain = suite.directory / "back", suite.directory / "plain"
    for how in (["--profile", "f32"], ["--keep-codes"]):
        convert(made, back, *how, "--force")
        jang("export", back, "--format", "hf", "--type", "f32", "--force", "--output", plain)
        ours = load_file(plain / "model.safetensors")
        other = [n for n, w in weights.items()
                 if not np.array_equal(ours[f"{n}.weight"].astype(np.float16), w)]
        suite.check(f"packed by AutoAWQ: numbers with {how[0]}", weights and not other,
                    f"{len(weights)} matrices {other[:3]}")


def main():
    suite = Suite()
    logging.disable(logging.WARNING)
    try:
        import awq  # noqa: F401
        import gptqmodel  # noqa: F401
    except ImportError as e:
        suite.skip("AWQ and GPTQ by their own programs", f"gptqmodel or autoawq: {e}")
        suite.finish()
    with suite.case("packed by AutoAWQ"):
        check_autoawq(suite)
    for kind, config in KINDS.items():
        with suite.case(kind):
            check_import(suite, kind, config)
    for method in ("rtn", "mse"):
        with suite.case(f"export of {method}"):
            check_export(suite, method)
    suite.finish()


if __name__ == "__main__":
    main()
