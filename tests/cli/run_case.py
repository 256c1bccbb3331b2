#!/usr/bin/env python3
"""run_case.py - runs a transcript of commands and compares what they print.

    run_case.py --jang PROGRAM [--examples DIR] [--models DIR] [--update] CASE...

A case is a text file:

    # comment
    needs FILE           skip the case unless the file is there; `needs no-root`: unless run by a
                         user whom permissions hold back
    $ command            given to sh in a fresh directory; `jang` and the examples are on PATH,
                         $MODELS is tests/models of the build
    > line               expected line of standard output
    ! line               expected line of standard error
    = 2                  expected exit status; 0 where it is not given

In an expected line <*> stands for any text. A line that is just <...> stands for any number of
lines. The environment is bare: HOME and XDG_STATE_HOME lie in the fresh directory, which is removed
after the case. --update rewrites the expectations of cases without patterns. Exit status 77: every
case was skipped.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile

TIMEOUT = 120  # seconds a command may take


class Step:
    def __init__(self, command, line):
        self.command, self.line = command, line
        self.out, self.err, self.status = [], [], 0


def parse(path):
    """Returns (files the case needs, steps)."""
    needs, steps = [], []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        mark, _, rest = line.partition(" ")
        if not line or mark.startswith("#"):
            continue
        if mark == "needs":
            needs.append(rest)
        elif mark == "$":
            steps.append(Step(rest, number))
        elif mark == ">" and steps:
            steps[-1].out.append(rest)
        elif mark == "!" and steps:
            steps[-1].err.append(rest)
        elif mark == "=" and steps:
            steps[-1].status = int(rest)
        else:
            sys.exit(f"{path}:{number}: not a line of a case: {line}")
    return needs, steps


def matches(expected, lines):
    """Whether the lines are those expected."""
    pattern = ""
    for line in expected:
        if line == "<...>":
            pattern += r"(?:[^\n]*\n)*"
        else:
            pattern += ".*".join(re.escape(part) for part in line.split("<*>")) + "\n"
    return re.fullmatch(pattern, "".join(line + "\n" for line in lines)) is not None


def environment(options, directory):
    programs = directory / "bin"
    programs.mkdir()
    (programs / "jang").symlink_to(options.jang)
    if options.examples:
        for example in options.examples.glob("example_*"):
            (programs / example.name).symlink_to(example)
    kept = ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS", "LSAN_OPTIONS", "JANG_ISA",
            "LD_LIBRARY_PATH")
    names = {name: os.environ[name] for name in kept if name in os.environ}
    return names | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "MODELS": str(options.models),
        "HOME": str(directory / "home"),
        "XDG_STATE_HOME": str(directory / "state"),
        "LC_ALL": "C.UTF-8",
        "TERM": "dumb",
    }


def to_lines(data):
    text = data.decode("utf-8", "replace")
    lines = text.split("\n")
    if lines[-1] == "":
        return lines[:-1]
    lines[-1] += "<no line feed>"
    return lines


def run_step(step, work, env):
    """Runs one command; returns (stdout lines, stderr lines, exit status)."""
    done = subprocess.run(["sh", "-c", step.command], cwd=work, env=env, stdin=subprocess.DEVNULL,
                          capture_output=True, timeout=TIMEOUT, check=False)
    return to_lines(done.stdout), to_lines(done.stderr), done.returncode


def run_case(path, options):
    """Returns None (passed), a reason to skip, or raises AssertionError with the difference."""
    needs, steps = parse(path)
    for name in needs:
        if name == "no-root":
            if os.geteuid() == 0:
                return "run by root"
        elif not pathlib.Path(name.replace("$MODELS", str(options.models))).exists():
            return f"{name} is not there"
    with tempfile.TemporaryDirectory(prefix="jang-cli-") as name:
        directory = pathlib.Path(name)
        env = environment(options, directory)
        work = directory / "work"
        work.mkdir()
        for step in steps:
            out, err, status = run_step(step, work, env)
            if options.update:
                step.out, step.err, step.status = out, err, status
            elif not (matches(step.out, out) and matches(step.err, err) and status == step.status):
                raise AssertionError(report(path, step, out, err, status))
    if options.update:
        rewrite(path, steps)
    return None


def shown(out, err, status):
    lines = [f"> {line}" for line in out] + [f"! {line}" for line in err]
    return "\n".join(lines + ([f"= {status}"] if status else [])) + "\n"


def report(path, step, out, err, status):
    return (f"{path}:{step.line}: $ {step.command}\n--- expected\n"
            f"{shown(step.out, step.err, step.status)}--- got\n{shown(out, err, status)}")


def rewrite(path, steps):
    text = path.read_text()
    if "<*>" in text or "<...>" in text:
        print(f"{path}: has patterns, not rewritten")
        return
    lines, at = [], iter(steps)
    for line in text.splitlines():
        if line.startswith("$ "):
            step = next(at)
            lines += [line] + shown(step.out, step.err, step.status).splitlines()
        elif line[:2] not in ("> ", "! ", "= ") and line not in (">", "!"):
            lines.append(line)
    path.write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--jang", type=pathlib.Path, required=True)
    parser.add_argument("--examples", type=pathlib.Path)
    parser.add_argument("--models", type=pathlib.Path, help="default: tests/models beside jang")
    parser.add_argument("--update", action="store_true")
    parser.add_argument("cases", nargs="+", type=pathlib.Path)
    options = parser.parse_args()
    options.jang = options.jang.resolve()
    options.models = options.models or options.jang.parent / "tests/models"
    failed = skipped = 0
    for path in options.cases:
        try:
            reason = run_case(path, options)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            failed += 1
            print(f"FAIL {path.name}\n{error}")
            continue
        skipped += reason is not None
        print(f"skip {path.name}: {reason}" if reason else f"ok   {path.name}")
    if failed:
        sys.exit(1)
    sys.exit(77 if skipped == len(options.cases) else 0)


if __name__ == "__main__":
    main()
