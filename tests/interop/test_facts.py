"""test_facts.py - plans for well-known checkpoints, from their configs and tensors' shapes alone:
no tensor is left over or without a role, and towers and the like are left out, and nothing else.

The weights are holes of a sparse file: a plan reads none of them."""

import json
import math
import re
import struct

from common import GOLDEN, Suite, jang


def all_names(pattern):
    """What {0-2,5} in a pattern stands for, each with each."""
    match = re.search(r"\{([\d,-]+)\}", pattern)
    if not match:
        return [pattern]
    numbers = []
    for part in match[1].split(","):
        first, _, last = part.partition("-")
        numbers.extend(range(int(first), int(last or first) + 1))
    each = (pattern[: match.start()] + str(n) + pattern[match.end() :] for n in numbers)
    return [name for one in each for name in all_names(one)]


def sparse_model(directory, facts):
    """A directory with config.json and a model.safetensors of the right size that holds nothing."""
    header, at = {}, 0
    for pattern, shape in facts["tensors"].items():
        size = 2 * math.prod(shape)
        for name in all_names(pattern):
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
            at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(facts["config"]))
    with open(directory / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)
    return at


BYTES = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


def read_plan(text):
    """Parameters of each role, and what is left out: {what: (tensors, bytes)}."""
    params, left = {}, {}
    for line in text.splitlines():
        match = re.fullmatch(r"left out: (.*): (\d+) tensors, ([\d.]+) (\w+)", line)
        row = line.split()
        if match:
            left[match[1]] = int(match[2]), float(match[3]) * BYTES[match[4]]
        elif len(row) > 5 and row[4].isdigit():
            params[row[0]] = params.get(row[0], 0) + int(row[4])
    return params, left


def check_plan(suite, name, facts, directory):
    n_bytes = sparse_model(directory, facts)
    params, left = read_plan(
        jang("convert", "--model", directory, "--profile", "JANG_4M", "--plan")
    )
    counts = {what: n for what, (n, _) in left.items()}
    suite.check(f"{name}: what is left out", counts == facts["left_out"], f"{counts}")
    kept = n_bytes - sum(n for _, n in left.values())
    error = abs(2 * sum(params.values()) - kept)  # of what is left out, three digits are printed
    limit = sum(n for _, n in left.values()) / 190
    suite.check(f"{name}: no parameter left over", error <= limit, f"{error:.0f} bytes")
    suite.check(f"{name}: each tensor has a role", "other" not in params, f"{params.get('other')}")
    (directory / "model.safetensors").unlink()


def main():
    suite = Suite()
    for path in sorted((GOLDEN / "facts").iterdir()):
        for i, (name, facts) in enumerate(json.loads(path.read_text()).items()):
            with suite.case(name):
                check_plan(suite, name, facts, suite.directory / f"{path.stem}-{i}")
    suite.finish()


main()
