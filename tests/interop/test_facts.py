"""test_facts.py - plans for well-known checkpoints, from their configs and tensors' shapes alone.

The weights are holes of a sparse file: a plan reads none of them."""

import json
import re
import struct

from common import GOLDEN, Suite, jang


def all_names(name, n_layers):
    """What * (all layers) and {a-b} (the numbers from a to b) in a name stand for."""
    name = name.replace(".*.", f".{{0-{n_layers - 1}}}.")
    match = re.search(r"\{(\d+)-(\d+)\}", name)
    if not match:
        return [name]
    numbers = range(int(match[1]), int(match[2]) + 1)
    each = (name[: match.start()] + str(i) + name[match.end() :] for i in numbers)
    return [full for one in each for full in all_names(one, n_layers)]


def sparse_model(directory, facts):
    """A directory with config.json and a model.safetensors of the right size that holds nothing."""
    header, at = {}, 0
    for pattern, shape in facts["tensors"].items():
        size = 2
        for n in shape:
            size *= n
        for name in all_names(pattern, facts["config"]["num_hidden_layers"]):
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
            at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(facts["config"]))
    with open(directory / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)
    return at // 2


def main():
    suite = Suite()
    everything = {}
    for kind in ("dense", "experts"):  # hybrid.json is test_facts_hybrid.py's
        everything.update(json.loads((GOLDEN / f"facts/{kind}.json").read_text()))
    for i, (name, facts) in enumerate(everything.items()):
        with suite.case(name):
            directory = suite.directory / f"facts-{i}"
            n_params = sparse_model(directory, facts)
            plan = jang("convert", "--model", directory, "--profile", "JANG_4M", "--plan")
            rows = [line.split() for line in plan.splitlines()]
            counted = sum(int(row[4]) for row in rows[1:] if len(row) > 5 and row[4].isdigit())
            suite.check(f"{name}: no parameter left over", counted == n_params, f"{counted}")
            strange = [row for row in rows if row[:1] == ["other"]]
            suite.check(f"{name}: each tensor has a role", not strange, f"{strange}")
            (directory / "model.safetensors").unlink()
    suite.finish()


main()
