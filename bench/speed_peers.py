"""speed_peers - other programs on the same models: ik_llama.cpp, built here if need be, and mlx-lm.

Everything that is fetched or built lies in the work directory, outside of the tree. A peer that is
not there raises Missing, whose text says why; the report then has a row with it.
"""

import json
import os
import sys

from speed_run import Missing, run, say

IK_URL = "https://github.com/ikawrakow/ik_llama.cpp"
IK_COMMIT = "8337e4cd3861406fc04e0854b1409cd1b027fbc9"  # 15 August 2026
IK_OPTIONS = ["-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DLLAMA_CURL=OFF",
              "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_BUILD_TESTS=OFF",
              "-DGGML_IQK_FA_ALL_QUANTS=OFF"]  # fmt: skip


# ---- ik_llama.cpp -----------------------------------------------------------------------------


def fetch_ik(source):
    """A checkout of IK_COMMIT."""
    if not (source / "CMakeLists.txt").exists():
        say(f"fetching ik_llama.cpp into {source}")
        source.mkdir(parents=True, exist_ok=True)
        for step in (["init", "-q"], ["fetch", "-q", "--depth", "1", IK_URL, IK_COMMIT],
                     ["checkout", "-q", "FETCH_HEAD"]):  # fmt: skip
            run(["git", "-C", source, *step], seconds=900)


def build_ik(work, source, program):
    """Path of llama-bench: program, or one built from source (fetched where it is None)."""
    if program:
        if not program.exists():
            raise Missing(f"{program} is not there")
        return program
    build = work / "ik-build"
    program = build / "bin/llama-bench"
    if not program.exists():
        if source is None:
            source = work / "ik-source"
            fetch_ik(source)
        say(f"building ik_llama.cpp in {build}, some ten minutes")
        run(["cmake", "-S", source, "-B", build, *IK_OPTIONS])
        run(["cmake", "--build", build, "-j", os.cpu_count(), "--target", "llama-bench"])
    return program


def ik_speed(program, model, repacked, threads, n_prompt, n_generate):
    """Tokens a second of a prompt and of generating. repacked: in its interleaved form (_R4, _R8)."""
    out = run([program, "-m", model, "-p", n_prompt, "-n", n_generate, "-t", threads, "-r", 1,
               "-fa", 1, "-rtr", int(repacked), "-o", "json"])  # fmt: skip
    rows = json.loads(out[out.index(b"[") :])
    return {"prompt" if row["n_prompt"] else "generate": row["avg_ts"] for row in rows}


# ---- mlx-lm -----------------------------------------------------------------------------------

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


def mlx_speed(model, n_prompt, n_generate, seconds):
    """The same of mlx-lm, if this Python has it, within so many seconds."""
    out = run([sys.executable, "-c", MLX, model, n_prompt, n_generate], seconds)
    return json.loads(out.splitlines()[-1])
