"""speed_run - how the speed report starts programs, and what it says when one is not there."""

import os
import subprocess
import sys


class Missing(Exception):
    """Something that a figure needs is not there; the text says what, for the report's row."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(command, seconds=None):
    """Standard output of a command; Missing where it fails or takes longer."""
    command = [str(c) for c in command]
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise Missing(f"not finished after {seconds:g} s") from None
    except OSError as error:
        raise Missing(f"{command[0]}: {error.strerror}") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise Missing(f"{os.path.basename(command[0])}: {lines[-1][:160]}")
    return done.stdout
