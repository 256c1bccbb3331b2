#!/usr/bin/env python3
"""speed_report - what the CPU backend promises and what it does, as a table and as JSON.

    bench/speed_report.py --work DIR [--only decode,ik,...] [--json FILE] [--list] [OPTIONS]

Makes the models it needs in DIR (some 9 GB: the shapes of Llama-3.2-1B and of four layers of
Llama-3-8B with random weights, each width, GGUF files of ik_llama.cpp's types; SmolLM2 is fetched by
scripts/fetch-model), measures one part after the other, and prints for each figure what was wanted.
ik_llama.cpp is fetched at a fixed commit and built in DIR, unless --ik-source or --ik-bench name a
checkout or a llama-bench. mlx-lm is asked if this Python has it. What is missing gets a row that says so.

With --json the rows are kept in FILE, each with its time and commit, and those that are not measured now
stay as FILE has them: the parts may be run one at a time, and a part shape by shape, for a minute or two
each. --table prints FILE and measures nothing.
Programs that are compared take turns; figures are medians over --rounds. Run it on a machine that does
nothing else. Plain Python 3, Linux; build with JANG_BENCH=ON first.
"""

import argparse
import datetime
import itertools
import json
import os
import pathlib
import platform
import re
import subprocess
import sys

import speed_peers
from speed_models import GGUF_TYPES, JANG, ROOT, SHAPES
from speed_parts import PARTS, REPACKED, SMOL, Setting, machine_row, missing
from speed_run import Missing, say

TYPES = ["Q4_0", "Q4_0+rtr", "Q4_K", "Q4_K+rtr", "IQ4_KS", "IQ4_KS+rtr", "Q8_0", "Q8_0+rtr"]
TEXTS = ["README.md", "docs/quantization.md", "docs/server.md", "docs/format.md"]
SMOL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def names(allowed, allow_repacked=False):
    """A list of names separated by commas, for argparse."""

    def parse(value):
        for name in value.split(","):
            if (name.removesuffix(REPACKED) if allow_repacked else name) not in allowed:
                raise argparse.ArgumentTypeError(f"{name}: not one of {', '.join(allowed)}")
        return value.split(",")

    return parse


def arguments():
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "jang"
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--work", type=pathlib.Path, help="where models and peers are made and kept")
    p.add_argument("--only", type=names(PARTS), default=list(PARTS), help=", ".join(PARTS))
    p.add_argument("--json", type=pathlib.Path, help="rows are kept here, part by part")
    p.add_argument("--table", action="store_true", help="print what --json holds, measure nothing")
    p.add_argument("--list", action="store_true", help="say what the parts are")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--rounds", type=int, default=3)
    shapes = [*SHAPES, SMOL]
    p.add_argument("--shapes", type=names(shapes), default=shapes, help=", ".join(shapes))
    p.add_argument("--types", type=names(GGUF_TYPES, True), default=TYPES,
                   help=f"ik_llama.cpp's, with {REPACKED} repacked (default {','.join(TYPES)})")  # fmt: skip
    p.add_argument("--context", type=int, default=16384, help="tokens before one (default 16384)")
    p.add_argument("--text", type=pathlib.Path, action="append", help="for kl, instead of the documents")
    p.add_argument("--smol", type=pathlib.Path, default=cache / SMOL_FILE)
    p.add_argument("--ik-source", type=pathlib.Path, help="a checkout of ik_llama.cpp")
    p.add_argument("--ik-bench", type=pathlib.Path, help="its llama-bench, built already")
    p.add_argument("--mlx-seconds", type=float, default=120, help="limit for mlx-lm (default 120)")
    return p, p.parse_args()


def machine():
    info = pathlib.Path("/proc/cpuinfo").read_text()
    name = re.search(r"model name\s*:\s*(.*)", info)
    memory = re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text())
    return {
        "processor": name.group(1) if name else platform.machine(),
        "cores": os.cpu_count(),
        "memory": 1024 * int(memory.group(1)),
        "system": f"{platform.system()} {platform.release()}",
    }


def commit():
    out = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True)
    return out.stdout.decode().strip()


def measure(setting, name, before):
    """The part's rows, each in the place of what was there under its name; one that fails says so."""
    rows = {r["what"]: r for r in before}
    try:
        for r in itertools.chain([machine_row(setting)], PARTS[name](setting)):
            say(f"{name}: {r['what']}: {r['seen']}")
            when = datetime.datetime.now().isoformat(timespec="minutes")
            rows[r["what"]] = r | {"when": when, "commit": commit()}
    except Missing as why:
        rows[name] = missing(name, why)
    return list(rows.values())


def print_table(report):
    verdict = {True: "yes", False: "no", None: ""}
    for name in (n for n in PARTS if n in report["parts"]):
        says = PARTS[name].__doc__.strip()
        print(f"\n**{name}.** {says}\n\n| | seen | wanted | met |\n|---|---|---|---|")
        for r in report["parts"][name]:
            print(f"| {r['what']} | {r['seen']} | {r['wanted']} | {verdict[r['met']]} |")


def main():
    parser, a = arguments()
    if a.list:
        for name, part in PARTS.items():
            print(f"{name:10} {part.__doc__.strip()}")
        return 0
    report = {"parts": {}}
    if a.json and a.json.exists():
        report = json.loads(a.json.read_text())
    if not a.table:
        if not a.work:
            parser.error("--work DIR says where to keep models and peers")
        if not JANG.exists():
            parser.error("build first: cmake --preset release && cmake --build --preset release")
        a.work.mkdir(parents=True, exist_ok=True)
        texts = a.text or [ROOT / t for t in TEXTS]
        setting = Setting(a.work.resolve(), a.threads, a.rounds, a.shapes, a.types, a.context, texts, a.smol,
                          a.ik_source, a.ik_bench, a.mlx_seconds)  # fmt: skip
        report |= {"machine": machine(), "threads": a.threads, "ik_llama.cpp": speed_peers.IK_COMMIT}
        for name in a.only:
            report["parts"][name] = measure(setting, name, report["parts"].get(name, []))
            if a.json:
                a.json.write_text(json.dumps(report, indent=1) + "\n")
    print_table(report)
    return 0


sys.exit(main())
