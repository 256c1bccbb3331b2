"""speed_parts - what speed_report measures, a function for each part.

A part takes a Setting and yields rows: what was measured, its figure as text, what is wanted, and
whether that was met (None: nothing is promised), with the numbers behind it. Programs that are
compared take turns, and a ratio is the median of the pairs.
"""

import dataclasses
import json
import os
import pathlib
import re
import statistics
import subprocess
import time

import speed_models as models
import speed_peers as peers
from speed_models import JANG, ROOT, SHARED
from speed_run import Missing, run

BENCH = ROOT / "build/release/bench"
WIDTHS = (2, 3, 4, 5, 6, 8)
SMOL = "smollm2"


@dataclasses.dataclass
class Setting:
    work: pathlib.Path
    threads: int
    rounds: int
    shapes: list
    types: list
    context: int
    texts: list
    smol: pathlib.Path
    ik_source: pathlib.Path
    ik_program: pathlib.Path
    mlx_seconds: float


def row(what, seen, wanted="", met=None, **numbers):
    return {"what": what, "seen": seen, "wanted": wanted, "met": met, "numbers": numbers}


def missing(what, why):
    return row(what, f"not measured: {why}")


def warm(*paths):
    """Has models in the page cache as a first run leaves them there: files that were written or copied
    before may lie in small pages, which cost a third of the speed."""
    for path in paths:
        for file in sorted(path.glob("*.safetensors")) if path.is_dir() else [path]:
            with open(file, "rb", buffering=0) as f:
                os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                while path.is_file() and f.read(1 << 24):
                    pass
        if path.is_dir():
            run([JANG, "bench", "--model", path, "--prefault", "--prompt", 1, "--generate", 1, "--repeat", 1])


def jang_json(*arguments):
    return json.loads(run([JANG, *arguments, "--json"]))


def jang_bench(s, model, n_prompt, n_generate, rounds=1):
    d = jang_json("bench", "--model", model, "--prompt", n_prompt, "--generate", n_generate,
                  "--repeat", rounds, "--threads", s.threads)  # fmt: skip
    return {
        "prompt": d["prompt_tokens_per_second"],
        "generate": d["generate_tokens_per_second"],
        "share": d["read_bandwidth_share"],
        "bandwidth": d["memory_bytes_per_second"],
        "bytes": d["bytes_per_token"],
    }


def bench_json(name, *arguments):
    if not (BENCH / name).exists():
        raise Missing(f"build {name} first (JANG_BENCH=ON)")
    return json.loads(run([BENCH / name, *arguments]))


def machine_row(s):
    """What the machine can do at the moment: virtual ones change by factors within minutes."""
    d = bench_json("bench_kernels", "gemv", "--json", "--match", "none", "--threads", s.threads)
    rates = {"reads": d["read_bandwidth"], "int8": d["int8_peak"]}
    seen = f"reads {rates['reads'] / 1e9:.1f} GB/s, int8 {rates['int8'] / 1e9:.0f} Gop/s"
    return row("the machine just before", seen, **rates)


def medians(runs):
    return {k: statistics.median(r[k] for r in runs) for k in runs[0]}


def smol_model(s, what):
    if not s.smol.exists():
        raise Missing(f"{s.smol} is not there: scripts/fetch-model")
    return models.convert(s.smol, s.work / "smollm2" / what, what)


# ---- Decoding ---------------------------------------------------------------------------------

SHARES = {2: 0.70, 3: 0.70, 4: 0.85, 5: 0.75, 6: 0.75, 8: 0.85}


def share_row(name, bits, runs):
    m = medians(runs)
    best = max(r["share"] for r in runs)
    wanted = SHARES.get(bits)
    seen = (f"{m['generate']:.1f} tokens/s, {m['share']:.0%} of {m['bandwidth'] / 1e9:.1f} GB/s "
            f"(best run {best:.0%})")  # fmt: skip
    met = m["share"] >= wanted if wanted else None
    return row(name, seen, f"{wanted:.0%}" if wanted else "", met, runs=runs, bits=bits)


def decode_models(s):
    """(name, width or None, path) of all models that decode."""
    for shape in s.shapes:
        if shape == SMOL:
            for bits in (4, 8):
                yield f"SmolLM2 {bits} bits", None, smol_model(s, str(bits))
            continue
        for bits in WIDTHS if shape == "1b" else (4, 8):
            yield f"{shape} {bits} bits", bits, models.model_of(s.work, shape, str(bits))
        if shape == "1b":
            for profile in ("JANG_2S", "JANG_4M"):
                yield f"{shape} {profile}", None, models.model_of(s.work, shape, profile)


def decode(s):
    """Bytes of weights read for a token times tokens a second, over the bandwidth of reading."""
    chosen = []
    try:
        for model in decode_models(s):
            chosen.append(model)
    except Missing as why:
        yield missing(SMOL, why)
    warm(*(path for _name, _bits, path in chosen))
    runs = {name: [] for name, _bits, _path in chosen}
    for _ in range(s.rounds):
        for name, _bits, path in chosen:
            runs[name].append(jang_bench(s, path, 16, 32, 2))
    for name, bits, _path in chosen:
        yield share_row(name, bits, runs[name])
    if "1b JANG_2S" in runs:
        pairs = zip(runs["1b JANG_2S"], runs["1b JANG_4M"], strict=True)
        ratio = statistics.median(a["generate"] / b["generate"] for a, b in pairs)
        allowed = runs["1b JANG_4M"][0]["bytes"] / runs["1b JANG_2S"][0]["bytes"]
        yield row("JANG_2S beside JANG_4M", f"{ratio:.2f} x (bytes: {allowed:.2f} x)", "1.6 x",
                  ratio >= 1.6, ratio=ratio, bytes=allowed)  # fmt: skip


# ---- ik_llama.cpp -----------------------------------------------------------------------------

SPEEDS = ("prompt", "generate")
REPACKED = "+rtr"


def peer_list(s, shape):
    """(type as given, width, a function that measures) of the peer's types."""
    program = peers.build_ik(s.work, s.ik_source, s.ik_program)
    for kind in s.types:
        plain = kind.removesuffix(REPACKED)
        file = models.make_gguf(s.work / shape / f"{plain}.gguf", models.SHAPES[shape], plain)
        warm(file)
        yield kind, models.GGUF_BITS[plain], lambda f=file, r=kind != plain: peers.ik_speed(
            program, f, r, s.threads, 512, 32
        )


def compare(s, shape, list_of_peers):
    """Runs of jang by width, of peers by type, and the pairs' ratios: jang, peer, jang."""
    own, theirs, ratios = {}, {}, {}
    for _ in range(s.rounds):
        for kind, bits, measure in list_of_peers:
            model = models.model_of(s.work, shape, str(bits))
            before, peer = jang_bench(s, model, 512, 32), measure()
            after = jang_bench(s, model, 512, 32)
            own.setdefault(bits, []).extend((before, after))
            theirs.setdefault(kind, []).append(peer)
            pair = {k: (before[k] + after[k]) / 2 / peer[k] for k in SPEEDS}
            ratios.setdefault(kind, []).append(pair)
    return own, theirs, ratios


def peer_rows(shape, chosen, own, theirs, ratios):
    wanted = {"prompt": 1.0, "generate": 1.4}
    for bits, runs in own.items():
        m = medians(runs)
        yield row(f"{shape} {bits} bits", f"prompt {m['prompt']:.0f}, generate {m['generate']:.1f}",
                  runs=runs)  # fmt: skip
        of_width = [kind for kind, b, _measure in chosen if b == bits]
        ratio = {kind: medians(ratios[kind]) for kind in of_width}
        for kind in of_width:
            t = medians(theirs[kind])
            seen = (f"prompt {t['prompt']:.0f} (jang is {ratio[kind]['prompt']:.2f} x), "
                    f"generate {t['generate']:.1f} ({ratio[kind]['generate']:.2f} x)")  # fmt: skip
            yield row(f"{shape} ik {kind}", seen, runs=theirs[kind], ratios=ratios[kind])
        for k in SPEEDS:
            worst = min(ratio.values(), key=lambda r: r[k])[k]
            yield row(f"{shape} {bits} bits, {k}, beside ik's fastest", f"{worst:.2f} x",
                      f"{wanted[k]:.1f} x", worst >= wanted[k], ratio=worst)  # fmt: skip


def ik(s):
    """Prompts of 512 tokens and generating, beside ik_llama.cpp's types of the same width."""
    for shape in (shape for shape in s.shapes if shape != SMOL):
        try:
            chosen = list(peer_list(s, shape))
        except Missing as why:
            yield missing(f"{shape} ik_llama.cpp", why)
            continue
        warm(*(models.model_of(s.work, shape, str(bits)) for _kind, bits, _measure in chosen))
        yield from peer_rows(shape, chosen, *compare(s, shape, chosen))


# ---- Prompts ----------------------------------------------------------------------------------


def prompt(s):
    """Prompts of 512 tokens by width, and the products alone over the dot-product instruction."""
    chosen = {bits: models.model_of(s.work, "1b", str(bits)) for bits in WIDTHS}
    warm(*chosen.values())
    runs = {bits: [] for bits in WIDTHS}
    for _ in range(s.rounds):
        for bits, model in chosen.items():
            runs[bits].append(jang_bench(s, model, 512, 1)["prompt"])
    four = statistics.median(runs[4])
    for bits, speeds in runs.items():
        ratio = statistics.median(a / b for a, b in zip(speeds, runs[4], strict=True))
        yield row(f"1b {bits} bits", f"{statistics.median(speeds):.0f} tokens/s, {ratio:.2f} of 4 bits'",
                  "0.75", ratio >= 0.75, runs=speeds, four=four)  # fmt: skip
    shares = {}
    for _ in range(s.rounds):
        found = bench_json("bench_kernels", "gemm", "--json", "--best", "--seconds", "0.5", "--threads",
                           s.threads, "--match", "2048x2048 x 512")  # fmt: skip
        for r in found["results"]:
            if "share" in r and " g64 " in r["name"]:
                shares.setdefault(r["name"], []).append(r["share"])
    for name, found in shares.items():
        share = statistics.median(found)
        yield row(name, f"{share:.0%} of vpdpbusd", "60%", share >= 0.6, shares=found)


# ---- Batches and contexts ---------------------------------------------------------------------


def batch(s):
    """Eight sequences at once beside one."""
    for bits in (4, 8):
        model = models.model_of(s.work, "1b", str(bits))
        warm(model)
        d = bench_json("bench_decode", model, "--streams", 8, "--rounds", s.rounds, "--threads", s.threads)
        seen = f"{d['one']:.1f} and {d['many']:.1f} tokens/s, {d['ratio']:.2f} x"
        yield row(f"1b {bits} bits", seen, "4 x", d["ratio"] >= 4, **d)


def context(s):
    """A token after a long context beside one at the start, and attention alone."""
    for kind in ("f16", "q8", "q4"):
        d = bench_json("bench_attention", "--context", s.context, "--type", kind, "--rounds",
                       5 * s.rounds, "--threads", s.threads)["results"][0]  # fmt: skip
        seen = (f"{1e3 * d['seconds']:.1f} ms, {d['bytes_per_second'] / 1e9:.1f} GB/s, "
                f"{d['share']:.0%} of reading")  # fmt: skip
        wanted, met = ("90%", d["share"] >= 0.9) if kind == "f16" else ("", None)
        yield row(f"attention of 16 layers, {kind}, {s.context} tokens", seen, wanted, met, **d)
    model = models.model_of(s.work, "1b", "4")
    warm(model)
    d = bench_json("bench_decode", model, "--context", s.context, "--rounds", 3 * s.rounds,
                   "--threads", s.threads)  # fmt: skip
    more = d["seconds_long"] - d["seconds_short"]
    layer = models.LLAMA_1B
    kv = 4 * layer["num_hidden_layers"] * layer["num_key_value_heads"] * layer["head_dim"] * s.context
    share = kv / d["bytes_in_the_difference"]
    seen = (f"{1e3 * d['seconds_short']:.1f} and {1e3 * d['seconds_long']:.1f} ms: {1e3 * more:.1f} ms for "
            f"{kv / 1e6:.0f} MB, {share:.0%} of {d['bandwidth'] / 1e9:.1f} GB/s")  # fmt: skip
    yield row(f"1b 4 bits, {s.context} tokens", seen, "90%", share >= 0.9, share=share, **d)


# ---- Accuracy ---------------------------------------------------------------------------------


def kl_of(s, model, texts, tokens):
    """Mean divergence of the default path from --exact, with its standard error, in nats."""
    stored = s.work / "exact.logits"
    common = ["--max-tokens", tokens, "--threads", s.threads]
    for text in texts:
        common += ["--text", text]
    run([JANG, "eval", "kl", model, "--exact", "--reference", model, "--save-reference", stored,
               *common])  # fmt: skip
    try:
        found = jang_json("eval", "kl", model, "--reference-logits", stored, *common)
        return found[0]["texts"][-1]  # of several the last is all of them together
    finally:
        stored.unlink(missing_ok=True)


def kl_models(s):
    for profile in ("JANG_2S", "JANG_3M", "JANG_4M", "JANG_6M", "8"):
        try:
            yield f"SmolLM2 {profile}", smol_model(s, profile), s.texts
        except Missing as why:
            yield f"SmolLM2 {profile}", why, None
    for name in ("moe", "hybrid"):
        source, text = SHARED / "models" / name, SHARED / "models/eval.txt"
        for profile in ("JANG_2S", "JANG_4M"):
            if source.exists() and text.exists():
                model = models.convert(source, s.work / name / profile, profile)
                yield f"{name} {profile}", model, [text]


def kl(s):
    """The default path's distributions beside those of --exact."""
    for name, model, texts in kl_models(s):
        if texts is None:
            yield missing(name, model)
            continue
        found = kl_of(s, model, texts, 512)
        mean, error = found["kl"]["mean"], found["kl"]["error"]
        seen = f"{mean:.1e} +- {error:.0e}, {found['tokens']} tokens"
        yield row(name, seen, "1e-3", mean < 1e-3, kl=found["kl"], tokens=found["tokens"])


# ---- Loading ----------------------------------------------------------------------------------


def private_memory(pid):
    """Bytes of the process that no file backs, or that differ from their file."""
    rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = {k: 1024 * int(v) for k, v in re.findall(r"^(\w+):\s+(\d+) kB", rollup, re.M)}
    return {"dirty": found["Private_Dirty"], "clean": found["Private_Clean"], "anonymous": found["Anonymous"]}


def load_once(s, model):
    """Starts the program on a prompt that comes after loading; seconds from the process's start."""
    start = time.monotonic()
    command = [JANG, "run", "--model", model, "--raw", "-n", "16", "--temp", "0", "--threads", s.threads]
    process = subprocess.Popen([str(c) for c in command], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    said = b""
    while b"loaded in" not in said:
        piece = os.read(process.stderr.fileno(), 4096)
        if not piece:
            raise Missing(said.decode(errors="replace").strip()[-160:])
        said += piece
    loaded = time.monotonic() - start
    after_load = private_memory(process.pid)
    process.stdin.write(b"The capital of France is a city that")
    begin = time.monotonic()
    process.stdin.close()
    os.read(process.stdout.fileno(), 1)
    first = time.monotonic() - begin
    after_prompt = private_memory(process.pid)
    process.kill()
    process.wait()
    process.stdout.close()
    process.stderr.close()
    return {"loaded": loaded, "first": loaded + first, "private": after_load["dirty"],
            "private_then": after_prompt["dirty"], "mapped": after_prompt["clean"]}  # fmt: skip


def load(s):
    """From the process's start to the loaded model and the first token, files in the page cache."""
    for name, limit in (("SmolLM2 JANG_4M", 0.3), ("1b JANG_4M", 0.5)):
        try:
            smol = name.startswith("SmolLM2")
            model = smol_model(s, "JANG_4M") if smol else models.model_of(s.work, "1b", "JANG_4M")
            warm(model)
            runs = [load_once(s, model) for _ in range(2 * s.rounds + 1)]
        except Missing as why:
            yield missing(name, why)
            continue
        m = medians(runs)
        yield row(f"{name}, ready", f"{m['loaded']:.2f} s, first token after {m['first']:.2f} s",
                  f"{limit} s", m["loaded"] < limit, runs=runs)  # fmt: skip
        weights = sum(f.stat().st_size for f in model.glob("*.safetensors"))
        seen = (f"{m['private'] / 1e6:.0f} MB loaded, {m['private_then'] / 1e6:.0f} MB after a prompt, "
                f"of {weights / 1e6:.0f} MB of weights")  # fmt: skip
        yield row(f"{name}, private memory", seen, "a quarter of the weights, or 64 MB",
                  m["private_then"] < max(weights / 4, 64e6), weights=weights, **m)  # fmt: skip


# ---- Others -----------------------------------------------------------------------------------


def mlx(s):
    """mlx-lm on the same files, with a limit of time."""
    for name, n_prompt, n_generate in (("SmolLM2 4", 64, 8), ("1b 4", 64, 4)):
        try:
            smol = name.startswith("SmolLM2")
            model = smol_model(s, "4") if smol else models.model_of(s.work, "1b", "4")
            own = jang_bench(s, model, n_prompt, n_generate)
            peer = peers.mlx_speed(model, n_prompt, n_generate, s.mlx_seconds)
        except Missing as why:
            yield missing(f"{name} bits, {n_prompt} + {n_generate} tokens", why)
            continue
        seen = ", ".join(f"{k} {peer[k]:.1f} (jang {own[k]:.1f}, {own[k] / peer[k]:.0f} x)" for k in SPEEDS)
        yield row(f"{name} bits, {n_prompt} + {n_generate} tokens", seen, own=own, peer=peer)


PRODUCTS = re.compile(r"kern_(gemv|gemm|dense)|run_piece|fill_panel|unpack_panel")
WAITING = re.compile(r"worker_main|pool_run|pool_wait|sched|futex|schedule|finish_task")
APART = re.compile(r"read_chunk|measure_bandwidth|clear_page|folio|fault")


def outside(s):
    """Samples of perf while the 1b model generates, by what the processor was doing."""
    for bits in (4, 2):
        name = f"1b {bits} bits"
        data = s.work / "perf.data"
        model = models.model_of(s.work, "1b", str(bits))
        warm(model)
        try:
            run(["perf", "record", "-q", "-e", "cpu-clock", "-F", 1999, "-D", 1500, "-o", data,
                       JANG, "bench", "--model", model, "--prompt", 4, "--generate", 250, "--repeat", 1,
                       "--threads", s.threads])  # fmt: skip
            out = run(["perf", "report", "-i", data, "--no-children", "-F", "overhead,symbol",
                             "--stdio"]).decode()  # fmt: skip
        except Missing as why:
            yield missing(name, why)
            continue
        found = re.findall(r"^\s+([\d.]+)%\s+\[[.k]\]\s+(\S+)", out, re.M)
        counts = [(symbol, float(share)) for share, symbol in found if not APART.search(symbol)]
        total = sum(share for _symbol, share in counts)
        products = sum(share for symbol, share in counts if PRODUCTS.search(symbol)) / total
        waiting = sum(share for symbol, share in counts if WAITING.search(symbol)) / total
        rest = 1 - products - waiting
        seen = f"{rest:.1%} of the samples; products {products:.1%}, waiting {waiting:.1%}"
        yield row(f"{name}, outside of products", seen, "under 10%", rest < 0.1, symbols=counts[:20])
        data.unlink()


PARTS = {f.__name__: f for f in (decode, ik, prompt, batch, context, kl, load, mlx, outside)}
