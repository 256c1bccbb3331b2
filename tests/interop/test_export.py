"""test_export.py - `jang export`: gguf, read by the gguf package and by llama.cpp's kin, and awq.

Names are those of the package's own map from Hugging Face's; numbers are dequantized by it and
compared with `jang export --format hf --type f32` of the same model. Rows of q and k of llama are
interleaved, norms of gemma hold 1 + w, as llama.cpp's own converter has them. Where
JANG_LLAMA_SERVER names a llama-server, its probabilities of next tokens are compared too.
"""

import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

import gguf
import numpy as np

from common import JANG, MODELS, Suite, error, jang, logits, wide_model

IDS = [1, 5, 9, 42, 7, 11, 100, 3]

# fixture, options of the conversion, arch
CASES = [
    ("llama-bf16", ["--profile", "JANG_4M", "--group-size", "32"], "llama"),
    ("llama3-rope-bf16", ["--bits", "5", "--group-size", "32"], "llama"),
    ("mistral-head32-f32", ["--profile", "JANG_2S", "--group-size", "32"], "llama"),
    ("mixtral-bf16", ["--profile", "JANG_3M", "--group-size", "32"], "llama"),
    ("qwen2-tied-bf16", ["--bits", "4", "--group-size", "32"], "qwen2"),
    ("qwen2moe-bf16", ["--bits", "3", "--group-size", "32"], "qwen2moe"),
    ("qwen3-bf16", ["--bits", "8", "--group-size", "32"], "qwen3"),
    ("qwen3moe-bf16", ["--profile", "JANG_4M", "--group-size", "32"], "qwen3moe"),
    ("gemma-bf16", ["--bits", "4", "--group-size", "32"], "gemma"),
    ("gemma2-bf16", ["--bits", "3", "--group-size", "32"], "gemma2"),
    ("gemma3text-bf16", ["--bits", "4", "--group-size", "32"], "gemma3"),
    ("phi3-bf16", ["--bits", "4", "--group-size", "32"], "phi3"),
    ("phi3-longrope-bf16", ["--bits", "2", "--group-size", "32"], "phi3"),
    ("qwen2-tied-bf16", ["--profile", "bf16"], "qwen2"),
]
ONE_WAY = ["mixtral-bf16", "llama3-rope-bf16"]  # GGUF files that jang does not read
# Options, the types that `--type small` makes of the matrices, how far the peer may be off: it
# rounds activations to 8 bits.
SMALL = [
    (["--bits", "2", "--group-size", "32"], {"Q2_K"}, 0.1),
    (["--bits", "3", "--group-size", "64", "--method", "rtn"], {"Q3_K"}, 0.1),
    (["--bits", "4"], {"Q4_K"}, 0.1),
    (["--bits", "5"], {"Q5_K"}, 0.1),
    (["--profile", "JANG_2S", "--group-size", "32"], {"Q2_K", "Q4_K", "Q6_K"}, 0.1),
]
REFUSED = [
    ("gemma3text-bf16", "query_pre_attn_scalar"),
    ("gemma2-bf16", "query_pre_attn_scalar"),
    ("gpt2-f32", "gpt2"),
    ("mamba-f32", "mamba"),
    ("qwen3-tied-bias-f16", "bias"),
]
# Settings of small models that GGUF's readers take for granted otherwise.
PATCHES = {
    "gemma2-bf16": {"query_pre_attn_scalar": 16},
    "gemma3text-bf16": {"query_pre_attn_scalar": 16, "sliding_window_pattern": 6,
                        "rope_local_base_freq": 10000.0},
}
# How far the peer may be off: it keeps keys and values in 16 bits. ik_llama.cpp is wrong about
# Mixtral, whose normed stream it adds; takes llama3's factors of heads of an equal share only; and
# opens Gemma 2 and 3 of the sizes it knows.
PEER_FAMILIES = {"llama-bf16": 1e-2, "qwen2-tied-bf16": 1e-2, "qwen2moe-bf16": 1e-2,
                 "qwen3-bf16": 1e-2, "qwen3moe-bf16": 1e-2, "gemma-bf16": 5e-2, "phi3-bf16": 1e-2}


def fixture_directory(suite, fixture):
    """The fixture, or a copy with what PATCHES says."""
    if fixture not in PATCHES:
        return MODELS / fixture
    copy = suite.directory / fixture
    if not copy.exists():
        shutil.copytree(MODELS / fixture, copy)
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps(config | PATCHES[fixture]))
    return copy


def interleave(weight, n_head):
    """As llama.cpp's converter permutes rows of q and k."""
    rows = weight.reshape(n_head, 2, len(weight) // n_head // 2, *weight.shape[1:])
    return rows.swapaxes(1, 2).reshape(weight.shape)


def stacked(tensors):
    """The experts of each layer as one tensor, "experts.3.up_proj" as "experts.up_proj"."""
    out, lists = {}, {}
    for name, value in tensors.items():
        match = re.fullmatch(r"(.*\.experts\.)(\d+)\.(.*)", name)
        if match:
            lists.setdefault(match[1] + match[3], {})[int(match[2])] = value
        else:
            out[name] = value
    return out | {n: np.stack([v[i] for i in range(len(v))]) for n, v in lists.items()}


def expected_tensors(arch, directory, config):
    """{gguf name: f32} of a plain model under mlx-lm's names."""
    from safetensors.numpy import load_file

    model_arch = {v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}[arch]
    names = gguf.get_tensor_name_map(model_arch, config["num_hidden_layers"])
    out = {}
    for name, value in stacked(load_file(directory / "model.safetensors")).items():
        stem, _, suffix = name.rpartition(".")
        found = names.get_name(stem, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise ValueError(f"the gguf package has no name for {name}")
        if arch == "llama" and ".q_proj." in name:
            value = interleave(value, config["num_attention_heads"])
        if arch == "llama" and ".k_proj." in name:
            value = interleave(value, config["num_key_value_heads"])
        if arch.startswith("gemma") and "norm" in name:
            value = value + 1
        out[f"{found}.{suffix}"] = value.squeeze() if "shared_expert_gate" in name else value
    return out


def values_of(tensor):
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)


def check_tensors(suite, title, reader, expected, report):
    exact_said = {row["name"]: row["exact"] for row in report["tensors"]} if report else {}
    wrong, inexact, n_exact = [], 0, 0
    got = {t.name: t for t in reader.tensors}
    extras = {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"}
    suite.check(f"{title}: names", set(got) - extras == set(expected),
                str(sorted(set(got) ^ set(expected) - extras)[:3]))
    for name, want in expected.items():
        have = values_of(got[name]).reshape(want.shape)
        if np.array_equal(have, want):
            n_exact += 1
            continue
        step = np.abs(want).max(initial=0) / 127
        rounded = got[name].tensor_type == gguf.GGMLQuantizationType.Q8_0
        if not rounded or np.abs(have - want).max() > step:
            wrong.append(name)
        inexact += 1
    suite.check(f"{title}: numbers", not wrong, f"{n_exact} exact, {inexact} near; {wrong[:3]}")
    return n_exact


def meta(reader, key):
    field = reader.fields.get(key)
    return field.contents() if field else None


def check_meta(suite, title, reader, arch, config):
    heads = config["num_attention_heads"]
    want = {
        "general.architecture": arch,
        f"{arch}.block_count": config["num_hidden_layers"],
        f"{arch}.embedding_length": config["hidden_size"],
        f"{arch}.feed_forward_length": config["intermediate_size"],
        f"{arch}.attention.head_count": heads,
        f"{arch}.attention.head_count_kv": config.get("num_key_value_heads", heads),
        f"{arch}.attention.key_length": config.get("head_dim", config["hidden_size"] // heads),
        f"{arch}.context_length": config["max_position_embeddings"],
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
    }
    experts = config.get("num_experts", config.get("num_local_experts"))
    if experts:
        want[f"{arch}.expert_count"] = experts
        want[f"{arch}.expert_used_count"] = config["num_experts_per_tok"]
    wrong = [k for k, v in want.items() if meta(reader, k) != v]
    suite.check(f"{title}: metadata", not wrong, str([(k, meta(reader, k)) for k in wrong[:3]]))
    suite.check(f"{title}: tokens", len(meta(reader, "tokenizer.ggml.tokens")) == config["vocab_size"])


def check_family(suite, fixture, options, arch):
    title = f"{fixture} {options[1]}"
    model, plain, file = (suite.directory / x for x in ("model", "plain", "model.gguf"))
    jang("convert", "--model", fixture_directory(suite, fixture), "--output", model, *options)
    jang("export", model, "--format", "hf", "--type", "f32", "--output", plain)
    said = jang("export", model, "--format", "gguf", "--output", file)
    config = json.loads((plain / "config.json").read_text())
    reader = gguf.GGUFReader(file)
    check_meta(suite, title, reader, arch, config)
    expected = expected_tensors(arch, plain, config)
    n_exact = check_tensors(suite, title, reader, expected, None)
    rows = [line.split() for line in said.splitlines() if "%" in line]
    suite.check(f"{title}: as many exact as said", n_exact == sum(int(r[-5]) for r in rows))
    if arch in ("llama", "qwen2", "qwen3") and fixture not in ONE_WAY:
        back = suite.directory / "back"
        jang("convert", "--model", file, "--profile", "f32", "--output", back)
        a, b = logits(suite, back, IDS, "--exact"), logits(suite, model, IDS, "--exact")
        limit = 1e-5 if n_exact == len(expected) else 0.2
        suite.below(f"{title}: logits of the file, converted back", error(a, b), limit)
        shutil.rmtree(back)
    del reader
    for path in (model, plain):
        shutil.rmtree(path)
    file.unlink()


def check_refused(suite, fixture, word):
    model, file = suite.directory / "model", suite.directory / "model.gguf"
    jang("convert", "--model", MODELS / fixture, "--bits", "8", "--group-size", "32", "--output", model)
    run = subprocess.run([JANG, "export", model, "--format", "gguf", "--output", file],
                         capture_output=True, text=True)
    said = run.stderr.strip().splitlines()[-1:]
    ok = run.returncode == 1 and said and word in said[0] and not file.exists()
    suite.check(f"{fixture}: refused", ok, str(said))
    left = [p.name for p in suite.directory.iterdir() if "tmp" in p.name]
    suite.check(f"{fixture}: nothing is left", not left, str(left))
    shutil.rmtree(model)


# ---- Blocks of 256 -------------------------------------------------------------------------------


def forms(said):
    """{type: error} of the table that an export prints."""
    rows = [line.split() for line in said.splitlines() if line.endswith("%")]
    return {row[-7]: float(row[-1][:-1]) / 100 for row in rows}


def check_small(suite, options, wanted, peer_limit):
    """The types that are wanted, each as far off as said, read alike by jang and the gguf package."""
    title = f"small {' '.join(options)}"
    model, plain, back, hf = (suite.directory / x for x in ("model", "plain", "back", "hf"))
    file = suite.directory / "model.gguf"
    jang("convert", "--model", wide_model(suite), "--output", model, *options)
    said = forms(jang("export", model, "--format", "gguf", "--type", "small", "--output", file))
    jang("export", model, "--format", "hf", "--type", "f32", "--output", plain)
    jang("convert", "--model", file, "--profile", "f32", "--output", back)
    jang("export", back, "--format", "hf", "--type", "f32", "--output", hf)
    config = json.loads((plain / "config.json").read_text())
    want, read = (expected_tensors("llama", d, config) for d in (plain, hf))
    sums, other = {}, []
    for t in gguf.GGUFReader(file).tensors:
        have = values_of(t).reshape(want[t.name].shape)
        row = sums.setdefault(t.tensor_type.name, [0, 0])
        row[0] += np.square(have - want[t.name], dtype=np.float64).sum()
        row[1] += np.square(want[t.name], dtype=np.float64).sum()
        other += [] if np.array_equal(have, read[t.name]) else [t.name]
    suite.check(f"{title}: types", wanted | {"F32"} == set(sums), str(sorted(sums)))
    off = {name: (e / w) ** 0.5 for name, (e, w) in sums.items()}
    suite.check(f"{title}: as far off as said", set(said) == set(off) and
                all(abs(off[n] - said[n]) <= 0.006 * off[n] for n in off), f"{off} {said}")
    suite.check(f"{title}: jang and gguf read the same", not other, str(other[:3]))
    peer = os.environ.get("JANG_LLAMA_SERVER")
    if peer:
        check_peer(suite, title, peer, file, back, [IDS, IDS[:3]], peer_limit)
    for path in (model, plain, back, hf):
        shutil.rmtree(path)
    file.unlink()


# ---- A peer --------------------------------------------------------------------------------------


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def ask(port, path, body):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.loads(answer.read())


def serve(peer, file):
    port = free_port()
    server = subprocess.Popen([peer, "-m", str(file), "--port", str(port), "-c", "512", "-t", "1"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
            return server, port
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.1)
    server.kill()
    raise RuntimeError(f"{peer} did not open the file")


def next_tokens(port, ids):
    """The peer's log-probabilities of the likeliest next tokens, falling. It samples one, and fails
    where that is no whole character: then another seed is tried."""
    for seed in range(1, 9):
        body = {"prompt": ids, "n_predict": 1, "n_probs": 20, "temperature": 1.0, "top_k": 0,
                "top_p": 1.0, "min_p": 0.0, "samplers": ["temperature"], "cache_prompt": False,
                "seed": seed}
        try:
            probs = ask(port, "/completion", body)["completion_probabilities"][0]["probs"]
            return np.log(np.array([max(p["prob"], 1e-30) for p in probs]))
        except urllib.error.HTTPError:
            continue
    raise RuntimeError("the peer does not answer")


def check_peer(suite, title, peer, file, model, prompts, limit):
    """Distances of the likeliest next tokens from the likeliest one, the peer's and ours."""
    try:
        server, port = serve(peer, file)
    except RuntimeError as e:
        suite.check(f"{title}: opens in the peer", False, str(e))
        return
    worst = 0
    try:
        for ids in prompts:
            theirs = next_tokens(port, ids)
            ours = np.sort(logits(suite, model, ids, "--exact")[-1].astype(np.float64))[::-1]
            ours, theirs = ours[:10] - ours[0], theirs[:10] - theirs[0]
            worst = max(worst, np.abs(ours - theirs).max())
    finally:
        server.terminate()
        server.wait()
    suite.below(f"{title}: the peer's likeliest tokens", worst, limit)


def check_peer_family(suite, peer, fixture, limit):
    """In f32, where the peer does not round."""
    model, file = suite.directory / "model", suite.directory / "model.gguf"
    source = fixture_directory(suite, fixture)
    jang("convert", "--model", source, "--profile", "f32", "--output", model)
    jang("export", model, "--format", "gguf", "--output", file)
    check_peer(suite, f"{fixture}", peer, file, model, [IDS, IDS[:3]], limit)


# ---- AWQ -----------------------------------------------------------------------------------------


def awq_weights(directory):
    """{module: f32 [n_out, n_in]} of an AutoAWQ checkpoint, by its layout alone."""
    from safetensors.numpy import load_file

    tensors = load_file(directory / "model.safetensors")
    config = json.loads((directory / "config.json").read_text())["quantization_config"]
    # where output i of a word lies
    shifts = (4 * np.argsort([0, 2, 4, 6, 1, 3, 5, 7])).astype(np.uint32)
    out = {}
    for name, words in tensors.items():
        module, _, kind = name.rpartition(".")
        if kind != "qweight":
            continue
        zeros, scales = tensors[f"{module}.qzeros"], tensors[f"{module}.scales"].astype(np.float32)
        codes, zeros = ((x.view(np.uint32)[:, :, None] >> shifts & 15).astype(np.int32)
                        .reshape(len(x), -1) for x in (words, zeros))
        group = config["group_size"]
        out[module] = ((codes - zeros.repeat(group, 0)) * scales.repeat(group, 0)).T
    return out, tensors, config


def check_awq(suite, fixture, method, limit):
    """Against the numbers of the source, and jang's own reading of it against this one's."""
    from safetensors.numpy import load_file

    title = f"{fixture} {method} as awq"
    model, plain, awq, back = (suite.directory / x for x in ("model", "plain", "awq", "back"))
    jang("convert", "--model", MODELS / fixture, "--bits", "4", "--group-size", "32", "--method",
         method, "--output", model)
    jang("export", model, "--format", "hf", "--type", "f32", "--output", plain)
    jang("export", model, "--format", "awq", "--output", awq)
    got, tensors, config = awq_weights(awq)
    want = load_file(plain / "model.safetensors")
    suite.check(f"{title}: config", (config["quant_method"], config["bits"], config["group_size"],
                                     config["version"]) == ("awq", 4, 32, "gemm"), str(config))
    names = {f"{m}.weight" for m in got} | {n for n in tensors if n in want}
    suite.check(f"{title}: names", names == set(want), str(sorted(names ^ set(want))[:3]))
    worst = max(np.linalg.norm(got[m] - want[f"{m}.weight"]) / np.linalg.norm(want[f"{m}.weight"])
                for m in got)
    suite.below(f"{title}: numbers", worst, limit)
    for how in (["--profile", "f32"], ["--keep-codes"]):
        jang("convert", "--model", awq, *how, "--force", "--output", back)
        jang("export", back, "--format", "hf", "--type", "f32", "--force", "--output", plain)
        ours = load_file(plain / "model.safetensors")
        same = all(np.array_equal(ours[f"{m}.weight"], got[m]) for m in got)
        suite.check(f"{title}: jang reads the same with {how[0]}", same)
    for path in (model, plain, awq, back):
        shutil.rmtree(path)


def check_smollm2(suite):
    source = os.environ.get("JANG_SMOLLM2")
    if not source or not pathlib.Path(source).exists():
        suite.skip("SmolLM2", "JANG_SMOLLM2 names no file")
        return
    model, file = suite.directory / "smol", suite.directory / "smol.gguf"
    jang("convert", "--model", source, "--bits", "4", "--output", model)
    jang("export", model, "--format", "gguf", "--output", file)
    text = "Hello world, it's 1234 \u2014 na\u00efve caf\u00e9!\n\n<|im_start|>user\n\tx = [1, 2]"
    back = suite.directory / "smol-back"
    jang("convert", "--model", file, "--profile", "f16", "--output", back)
    ours = jang("tokenize", "--model", model, stdin=text)
    suite.check("SmolLM2: the tokenizer comes back", jang("tokenize", "--model", back, stdin=text) == ours)
    theirs = gguf.GGUFReader(file)
    original = gguf.GGUFReader(source)
    for key in ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.merges",
                "tokenizer.ggml.pre", "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
                "tokenizer.ggml.add_bos_token", "tokenizer.chat_template", "llama.context_length",
                "llama.rope.freq_base", "llama.attention.layer_norm_rms_epsilon"):
        suite.check(f"SmolLM2: {key} as in the source", meta(theirs, key) == meta(original, key),
                    str(meta(theirs, key))[:40] + " | " + str(meta(original, key))[:40])
    peer = os.environ.get("JANG_LLAMA_SERVER")
    if not peer:
        suite.skip("SmolLM2 in llama-server", "JANG_LLAMA_SERVER is not set")
        return
    prompts = [[int(i) for i in jang("tokenize", "--model", model, stdin=t).split(",")] for t in
               ("The capital of France is", "Once upon a time, there was a little", "def main():\n    ")]
    check_peer(suite, "SmolLM2", peer, file, model, prompts, 0.5)  # its activations have 8 bits


def main():
    suite = Suite()
    for case in CASES:
        with suite.case(case[0]):
            check_family(suite, *case)
        for name in ("model", "plain", "back"):
            shutil.rmtree(suite.directory / name, ignore_errors=True)
        (suite.directory / "model.gguf").unlink(missing_ok=True)
    for options, wanted, limit in SMALL:
        with suite.case(f"small {options}"):
            check_small(suite, options, wanted, limit)
        for name in ("model", "plain", "back", "hf"):
            shutil.rmtree(suite.directory / name, ignore_errors=True)
    for case in REFUSED:
        with suite.case(case[0]):
            check_refused(suite, *case)
    for fixture, method, limit in (("llama-bf16", "rtn", 5e-3), ("qwen2-tied-bf16", "mse", 0.12),
                                   ("qwen3moe-bf16", "rtn", 5e-3), ("mixtral-bf16", "rtn", 5e-3)):
        with suite.case(f"{fixture} as awq"):
            check_awq(suite, fixture, method, limit)
        for name in ("model", "plain", "awq", "back"):
            shutil.rmtree(suite.directory / name, ignore_errors=True)
    peer = os.environ.get("JANG_LLAMA_SERVER")
    for fixture, limit in PEER_FAMILIES.items() if peer else []:
        with suite.case(f"{fixture} in llama-server"):
            check_peer_family(suite, peer, fixture, limit)
        shutil.rmtree(suite.directory / "model", ignore_errors=True)
        (suite.directory / "model.gguf").unlink(missing_ok=True)
    with suite.case("SmolLM2"):
        check_smollm2(suite)
    suite.finish()


if __name__ == "__main__":
    main()
