"""test_facts_hybrid.py - plans for well-known recurrent and hybrid checkpoints, from their configs
and tensors' shapes alone: no tensor is left over or without a role. The weights are holes of a
sparse file, of which a plan reads none."""

import itertools
import json
import math
import struct

from common import GOLDEN, Suite, jang

FACTS = GOLDEN / "facts/hybrid.json"
LEFT_OUT = ("model.visual.",)


def names_of(tensor):
    for numbers in itertools.product(*tensor["numbers"]):
        parts = tensor["name"].split("*")
        yield parts[0] + "".join(str(n) + part for n, part in zip(numbers, parts[1:]))


def sparse_model(directory, facts):
    """Writes the model; returns the number of its parameters that a plan must have."""
    header, at, n_params = {}, 0, 0
    for tensor in facts["tensors"]:
        n = math.prod(tensor["shape"])
        for name in names_of(tensor):
            header[name] = {
                "dtype": "BF16",
                "shape": tensor["shape"],
                "data_offsets": [at, at + 2 * n],
            }
            at += 2 * n
            n_params += 0 if name.startswith(LEFT_OUT) else n
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(facts["config"]))
    with open(directory / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)
    return n_params


def main():
    suite = Suite()
    for i, (name, facts) in enumerate(json.loads(FACTS.read_text()).items()):
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
