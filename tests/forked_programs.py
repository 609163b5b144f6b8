"""Runs programs one after the other, each in a fork of a process that has imported what is slow to import.

Asked by a line of JSON each, on its standard input: a program with its arguments, and a file for what it writes.
It answers by the program's exit status.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import signal
import sys
import traceback
from pathlib import Path

LIMIT = 120  # seconds, after which a program is ended
# The last but one is imported by torch's first step.
SLOW = ("torch", "numba", "neon.models", "neon.torch", "torch._dynamo", "sklearn.datasets")


def run(program: str, arguments: list[str]) -> int:
    """The exit status of the program, run as by `python program arguments`."""
    sys.argv, sys.path[0] = [program, *arguments], str(Path(program).parent)
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as done:
        return 0 if done.code is None else done.code if isinstance(done.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def in_fork(program: str, arguments: list[str], written: str) -> int:
    """The same in a child; all that it writes goes to a file."""
    child = os.fork()
    if child == 0:
        with Path(written).open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            signal.alarm(LIMIT)
            status = run(program, arguments)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    for name in SLOW:
        importlib.import_module(name)
    for line in sys.stdin:
        print(in_fork(*json.loads(line)), flush=True)
