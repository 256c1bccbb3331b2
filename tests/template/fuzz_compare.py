#!/usr/bin/env python3
"""Renders random small templates in both engines and reports where they differ.

usage: fuzz_compare.py BATCH_PROGRAM [--seconds 60 | --count N] [--seed 1] [--show 5]

The templates depend on the seed alone; with --count so does how many there are.

Both must give the same text, or both must fail. Templates are made from a grammar that covers
expressions, filters, tests, methods, formats, statements and whitespace control, over values of
every type, right and wrong ones. Exits with 77 (skipped) when jinja2 is missing.
"""

import argparse
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
import warnings

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../../scripts/fixtures"))
from template_grammar import Maker

try:
    from template_reference import ENVIRONMENT
except ImportError as missing:
    print("skipped:", missing)
    sys.exit(77)

BATCH = 400
# A template may ask Python for a text of many GiB; our program limits itself.
MEMORY = 4 << 30
UNLIMITED = resource.getrlimit(resource.RLIMIT_AS)
warnings.simplefilter("ignore")


class TooSlow(Exception):
    pass


def on_alarm(signum, frame):
    raise TooSlow()


def reference(text, context):
    signal.setitimer(signal.ITIMER_REAL, 2)
    try:
        return True, ENVIRONMENT.from_string(text).render(**context)
    except TooSlow:
        return None, "slow"
    except (MemoryError, RecursionError):
        return None, "too large"
    except Exception as error:
        return False, "%s: %s" % (type(error).__name__, error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def run_batch(program, cases):
    lines = "".join(json.dumps({"template": t, "context": c}) + "\n" for t, c in cases)
    done = subprocess.run(
        [program],
        input=lines.encode(),
        stdout=subprocess.PIPE,
        timeout=300,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, UNLIMITED),
    )
    return [json.loads(line) for line in done.stdout.splitlines()], done.returncode


# jinja2 folds constants into Python's source by their repr(), which for these is no expression.
FOLDED = re.compile(r"NameError: name '(nan|inf)' is not defined")
# Before Python 3.12, sorted(reverse=...) took integers only; now it takes what bool() takes.
OLDER = re.compile("cannot be interpreted as an integer" if sys.version_info < (3, 12) else "(?!)")


def is_printable(text):
    """Whether a rendering can be compared: object addresses (a filter may have changed the word
    before them) and lone surrogates cannot."""
    return not re.search(
        r" (object )?(at|bt) 0x[0-9a-f]+|<built|<function|<bound|<module|[\ud800-\udfff]"
        r"|iterator object|TemplateDict|_PassArg|TemplateReference|BlockReference",
        text,
        re.I,
    )


def holds_object(reply):
    """Whether our engine wrote an object's text, which filters may have cut or split since."""
    return "text of an object" in reply.get("warning", "")


def compare(case, wanted, reply):
    ok, expected = wanted
    if ok is None or (ok and not is_printable(expected)):
        return None
    if ok is False and (FOLDED.match(expected) or OLDER.search(expected)):
        return None if "text" in reply else True
    if ok and reply.get("text") == expected:
        return True
    if not ok and "error" in reply:
        return True
    if "complex numbers are not supported" in reply.get("error", ""):
        return None
    return False


def main():
    options = argparse.ArgumentParser()
    options.add_argument("program")
    options.add_argument("--seconds", type=float, default=60)
    options.add_argument("--count", type=int)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--show", type=int, default=5)
    options = options.parse_args()
    signal.signal(signal.SIGALRM, on_alarm)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, UNLIMITED[1]))
    end = time.time() + options.seconds
    n, n_failed, n_skipped, n_object, n_wrong, batch = 0, 0, 0, 0, 0, 0
    while time.time() < end if options.count is None else n < options.count:
        cases = []
        for i in range(BATCH):
            maker = Maker(random.Random("%d/%d/%d" % (options.seed, batch, i)))
            context = maker.context()
            cases.append((maker.template(), context))
        batch += 1
        replies, code = run_batch(options.program, cases)
        for case, reply in zip(cases, replies):
            wanted = reference(*case)
            same = compare(case, wanted, reply)
            n += 1
            n_skipped += same is None
            n_failed += wanted[0] is False
            if same is False:
                n_object += holds_object(reply)
                n_wrong += not holds_object(reply)
                if n_wrong + n_object <= options.show:
                    print(
                        "TEMPLATE %r\nCONTEXT  %s\nexpected %r\ngot      %r\n"
                        % (case[0], json.dumps(case[1]), wanted, reply),
                        flush=True,
                    )
        if len(replies) < len(cases):
            n += len(cases) - len(replies)
            n_wrong += 1
            print(
                "CRASH (%d) on %r\nwith %s\n"
                % (code, cases[len(replies)][0], json.dumps(cases[len(replies)][1])),
                flush=True,
            )
    print(
        "%d templates, %d of them fail, %d cannot be compared, %d differ in an object's text, "
        "%d differ" % (n, n_failed, n_skipped, n_object, n_wrong)
    )
    return 1 if n_wrong else 0


sys.exit(main())
