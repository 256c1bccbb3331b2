#!/usr/bin/env python3
"""Prints the speed of our tokenizer beside that of the Python package `tokenizers`.

    bench_tokenizer.py BENCH_TOKENIZER TEXT TOKENIZER.json...

TEXT is a file of natural text. Both run in one thread; times are processor time, the best of five.
"""

import os
import subprocess
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
import tokenizers  # noqa: E402


def best(call, times=5):
    found = float("inf")
    for _ in range(times):
        start = time.process_time()
        call()
        found = min(found, time.process_time() - start)
    return found * 1e3


def ours(program, *arguments):
    return subprocess.run([program, *arguments], check=True, capture_output=True,
                          text=True).stdout.split()


def main():
    program, text_path, *paths = sys.argv[1:]
    text = open(text_path, encoding="utf-8").read()
    megabytes = os.path.getsize(text_path) / 1e6
    print(f"{'tokenizer':24} {'load ms':>8} {'theirs':>8} {'times':>6}   "
          f"{'MB/s':>7} {'theirs':>7} {'times':>6}   ids")
    for path in paths:
        load = float(ours(program, path, "load")[0])
        took, n_ids = ours(program, path, "encode", text_path)
        their_load = best(lambda: tokenizers.Tokenizer.from_file(path), 2)
        theirs = tokenizers.Tokenizer.from_file(path)
        ids = theirs.encode_fast if hasattr(theirs, "encode_fast") else theirs.encode
        their_took = best(lambda: ids(text, add_special_tokens=False))
        same = len(theirs.encode(text, add_special_tokens=False).ids) == int(n_ids)
        name = os.path.basename(os.path.dirname(path)) or path
        print(f"{name:24} {load:8.1f} {their_load:8.1f} {their_load / load:5.1f}x   "
              f"{megabytes / float(took) * 1e3:7.1f} {megabytes / their_took * 1e3:7.1f} "
              f"{their_took / float(took):5.1f}x   {'equal' if same else 'DIFFER'}", flush=True)


if __name__ == "__main__":
    main()
