#!/usr/bin/env python3
"""compare_peers - jang beside ik_llama.cpp and mlx-lm on a model of Llama-3.2-1B's shape.

    bench/compare_peers.py --work DIR [--ik SOURCE] [--bits 4 8] [--types Q4_0 Q4_0+rtr ...] [--rounds 3]
        [--mlx] [--threads N] [--json FILE]

--ik names a checkout of github.com/ikawrakow/ik_llama.cpp, which the user has fetched; it is built in
DIR/ik-build, outside of the tree. The weights are random, the same distribution for both; a GGUF of
them is made here (Python package gguf, numpy) and quantized by ik_llama.cpp's own program, jang's
models by jang convert from scripts/measure's source. --mlx runs mlx-lm on the same converted model.

A type with +rtr is repacked into its interleaved form (_R4, _R8) when it is loaded. All programs take
turns in every round, each peer right after jang at the same width, and a ratio is the median over the
rounds of jang's speed over the peer's: so it holds on a machine whose speed comes and goes.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
JANG = ROOT / "build/release/jang"
N_LAYER, N_EMBD, N_FF, N_HEAD, N_KV, HEAD, N_VOCAB = 16, 2048, 8192, 32, 8, 64, 128256

TYPE_BITS = {
    "Q8_0": 8, "Q6_K": 6, "Q5_K": 5, "IQ5_KS": 5, "Q4_0": 4, "Q4_K": 4, "IQ4_KS": 4, "Q3_K": 3,
    "IQ3_KS": 3, "Q2_K": 2, "IQ2_KS": 2,
}  # fmt: skip
REPACKED = "+rtr"


def run(command, **options):
    print("+", " ".join(str(c) for c in command), file=sys.stderr)
    return subprocess.run([str(c) for c in command], check=True, **options)


def build_ik(source, work):
    build = work / "ik-build"
    if not (build / "bin/llama-bench").exists():
        run(["cmake", "-S", source, "-B", build, "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON",
             "-DLLAMA_CURL=OFF", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_BUILD_TESTS=OFF",
             "-DGGML_IQK_FA_ALL_QUANTS=OFF"], stdout=subprocess.DEVNULL)  # fmt: skip
        run(["cmake", "--build", build, "-j", str(os.cpu_count()), "--target", "llama-bench",
             "llama-quantize"], stdout=subprocess.DEVNULL)  # fmt: skip
    return build / "bin"


def tensors():
    kv = N_KV * HEAD
    yield "token_embd.weight", (N_VOCAB, N_EMBD)
    yield "output_norm.weight", (N_EMBD,)
    for i in range(N_LAYER):
        b = f"blk.{i}."
        yield b + "attn_norm.weight", (N_EMBD,)
        yield b + "attn_q.weight", (N_EMBD, N_EMBD)
        yield b + "attn_k.weight", (kv, N_EMBD)
        yield b + "attn_v.weight", (kv, N_EMBD)
        yield b + "attn_output.weight", (N_EMBD, N_EMBD)
        yield b + "ffn_norm.weight", (N_EMBD,)
        yield b + "ffn_gate.weight", (N_FF, N_EMBD)
        yield b + "ffn_up.weight", (N_FF, N_EMBD)
        yield b + "ffn_down.weight", (N_EMBD, N_FF)


def make_gguf(path):
    import gguf
    import numpy

    if path.exists():
        return
    w = gguf.GGUFWriter(str(path), "llama")
    w.add_context_length(131072)
    w.add_embedding_length(N_EMBD)
    w.add_block_count(N_LAYER)
    w.add_feed_forward_length(N_FF)
    w.add_head_count(N_HEAD)
    w.add_head_count_kv(N_KV)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_freq_base(500000.0)
    w.add_rope_dimension_count(HEAD)
    w.add_vocab_size(N_VOCAB)
    w.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    w.add_tokenizer_model("no_vocab")
    block = numpy.random.default_rng(1).normal(0, 0.02, 1 << 22).astype(numpy.float16)
    for name, shape in tensors():
        if len(shape) == 1:
            w.add_tensor(name, numpy.ones(shape, numpy.float32))
        else:
            n = shape[0] * shape[1]
            w.add_tensor(name, numpy.resize(block, n).reshape(shape))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def ik_speed(binary, model, repacked, threads, n_prompt, n_generate):
    out = run([binary / "llama-bench", "-m", model, "-p", n_prompt, "-n", n_generate, "-t", threads,
               "-r", 1, "-fa", 1, "-rtr", int(repacked), "-o", "json"],
              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # fmt: skip
    rows = json.loads(out.stdout[out.stdout.index(b"[") :])
    return {"prompt" if row["n_prompt"] else "generate": row["avg_ts"] for row in rows}


def jang_speed(model, threads, n_prompt, n_generate):
    out = run([JANG, "bench", "--model", model, "--prompt", n_prompt, "--generate", n_generate,
               "--repeat", 1, "--threads", threads, "--json"],
              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # fmt: skip
    d = json.loads(out.stdout)
    return {
        "prompt": d["prompt_tokens_per_second"],
        "generate": d["generate_tokens_per_second"],
        "share": d["read_bandwidth_share"],
    }


MLX = """
import json, sys, time
import mlx.core as mx
from mlx_lm import load
from mlx_lm.models.cache import make_prompt_cache
model, _ = load(sys.argv[1])
n_prompt, n_generate = int(sys.argv[2]), int(sys.argv[3])
def step(ids, cache):
    y = model(mx.array([ids]), cache=cache)[0, -1]
    return int(mx.argmax(y).item())
step([1, 2, 3], make_prompt_cache(model))
cache = make_prompt_cache(model)
a = time.perf_counter(); t = step(list(range(1, n_prompt + 1)), cache)
b = time.perf_counter()
for _ in range(n_generate): t = step([t], cache)
c = time.perf_counter()
print(json.dumps({"prompt": n_prompt / (b - a), "generate": n_generate / (c - b)}))
"""


def mlx_speed(model, n_prompt, n_generate):
    out = run([sys.executable, "-c", MLX, model, n_prompt, n_generate], stdout=subprocess.PIPE,
              stderr=subprocess.DEVNULL)  # fmt: skip
    return json.loads(out.stdout.splitlines()[-1])


SPEEDS = ("prompt", "generate")


def medians(rows):
    return {k: statistics.median(row[k] for row in rows) for k in rows[0]}


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--work", type=pathlib.Path, required=True)
    p.add_argument("--source", type=pathlib.Path, default=ROOT / "build/measure/source",
                   help="what scripts/measure --keep leaves")  # fmt: skip
    p.add_argument("--ik", type=pathlib.Path)
    p.add_argument("--bits", type=int, nargs="*", default=[4, 8])
    p.add_argument("--types", nargs="*", default=["Q4_0", "Q4_0+rtr", "Q4_K", "Q4_K+rtr", "IQ4_KS", "IQ4_KS+rtr", "Q8_0",
                            "Q8_0+rtr"])  # fmt: skip
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--prompt", type=int, default=512)
    p.add_argument("--generate", type=int, default=32)
    p.add_argument("--mlx", action="store_true")
    p.add_argument("--json", type=pathlib.Path)
    a = p.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    own, peers, bits_of = {}, {}, {}
    for bits in a.bits:
        model = a.work / f"jang-{bits}"
        if not model.exists():
            run([JANG, "convert", "--model", a.source, "--bits", bits, "--output", model],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        own[bits] = lambda m=model: jang_speed(m, a.threads, a.prompt, a.generate)
        if a.mlx:
            peers[f"mlx {bits}"] = lambda m=model: mlx_speed(m, a.prompt, a.generate)
            bits_of[f"mlx {bits}"] = bits
    if a.ik:
        binary = build_ik(a.ik, a.work)
        make_gguf(a.work / "f16.gguf")
        for kind in a.types:
            plain = kind.removesuffix(REPACKED)
            model = a.work / f"{plain}.gguf"
            if TYPE_BITS[plain] not in own:
                continue
            if not model.exists():
                part = model.with_suffix(".part")
                run([binary / "llama-quantize", "--pure", a.work / "f16.gguf", part, plain],
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
                part.rename(model)
            name, repacked = f"ik {kind}", kind != plain
            peers[name] = lambda m=model, r=repacked: ik_speed(
                binary, m, r, a.threads, a.prompt, a.generate
            )
            bits_of[name] = TYPE_BITS[plain]
    samples = {f"jang {bits}": [] for bits in own} | {name: [] for name in peers}
    ratios = {name: [] for name in peers}
    for _ in range(a.rounds):
        for bits in own:
            samples[f"jang {bits}"].append(own[bits]())
            for name in (n for n in peers if bits_of[n] == bits):
                before, peer, after = samples[f"jang {bits}"][-1], peers[name](), own[bits]()
                samples[name].append(peer)
                samples[f"jang {bits}"].append(after)
                ratios[name].append({k: (before[k] + after[k]) / 2 / peer[k] for k in SPEEDS})
    result = {name: medians(rows) for name, rows in samples.items()}
    for name, rows in ratios.items():
        result[name] |= {k + "_ratio": v for k, v in medians(rows).items()}
    print(f"{'':14} {'prompt':>9} {'jang is':>8} {'generate':>9} {'jang is':>8}   tokens/s, medians")
    for name, m in sorted(result.items(), key=lambda row: bits_of.get(row[0], 0)):
        ratio = [f"{m[k + '_ratio']:.2f} x" if name in peers else "" for k in SPEEDS]
        print(f"{name:14} {m['prompt']:9.1f} {ratio[0]:>8} {m['generate']:9.1f} {ratio[1]:>8}")
    if a.json:
        a.json.write_text(json.dumps({"threads": a.threads, "median": result}, indent=2))
    return 0


sys.exit(main())
