#!/usr/bin/env python3
"""Renders every template of a directory with a matrix of conversations in both engines.

usage: compare_shared.py BATCH_PROGRAM TEMPLATE_DIRECTORY [NAME_PART [STEP]]

Every rendering must be equal, and what raises there must raise here. With a STEP only each STEP-th
conversation is taken. Exits with 77 (skipped) when jinja2 or the directory is missing.
"""

import itertools
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../../scripts/fixtures"))
try:
    from template_reference import Engine, render
except ImportError as missing:
    print("skipped:", missing)
    sys.exit(77)
from template_conversations import contexts


def main():
    program, directory = sys.argv[1], sys.argv[2]
    if os.environ.get("JANG_SHARED"):
        directory = os.path.join(os.environ["JANG_SHARED"], "chat-templates")
    if not os.path.isdir(directory):
        print("skipped: no directory", directory)
        return 77
    engine = Engine(program)
    step = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    n, n_wrong, n_raised = 0, 0, 0
    for name in sorted(os.listdir(directory)):
        if len(sys.argv) > 3 and sys.argv[3] not in name:
            continue
        with open(os.path.join(directory, name), encoding="utf-8") as file:
            text = file.read()
        shown = 0
        for label, context in itertools.islice(contexts(), 0, None, step):
            wanted, expected = render(text, context)
            ok, got = engine.render(text, context)
            n += 1
            n_raised += not wanted
            if ok != wanted or (ok and got != expected):
                n_wrong += 1
                shown += 1
                if shown <= 3:
                    print("%s: %s\n  expected %r\n  got      %r" % (name, label, expected, got))
    print("%d renderings, %d of them raise, %d differ" % (n, n_raised, n_wrong))
    return 1 if n_wrong or n == 0 else 0


sys.exit(main())
