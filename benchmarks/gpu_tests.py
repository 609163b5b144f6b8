"""tests/test_gpu.py, run on the GPU by `benchmarks/gpu.py`: what each test came to, also where the device is lost."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpu_run import Run

ROOT = Path(__file__).resolve().parents[1]
OUTCOMES = ("FAILED", "ERROR", "SKIPPED", "LOST")  # lost: the process ended while it ran
DEVICE_LOST = 3  # the exit status of tests/test_gpu.py that says so


def run_tests(run: Run) -> dict[str, Any]:
    """tests/test_gpu.py in another process, and in a new one what is left of it where that process ended early."""
    log, ended, all_run = run.out.resolve() / "tests.txt", {}, False
    stop = min(time.time() + 150, run.until - 5)
    log.write_text("")
    while not all_run and time.time() < stop:
        before = dict(ended)
        found, all_run = tests_once(log, stop, ended)
        ended |= found
        if ended == before:
            break
    wrong = [name.partition("::")[2] for name, how in ended.items() if how not in ("PASSED", "SKIPPED")]
    counts = {how: list(ended.values()).count(how) for how in ("PASSED", *OUTCOMES)}
    kept = log.with_name("differences.txt")
    differences = re.findall(r"\S+, \S+, \S+, step.*", kept.read_text()) if kept.exists() else []
    end = log.read_text().splitlines()[-1:]
    return {**counts, "all run": all_run, "wrong": wrong, "differences": differences, "end": end}


def tests_once(log: Path, stop: float, done: Mapping[str, str]) -> tuple[dict[str, str], bool]:
    """How each test ended of those that were begun, and whether all were."""
    command = [sys.executable, "-m", "pytest", "tests/test_gpu.py", "-v", "--color=no", "--tb=short", "-W", "default"]
    command += ["-p", "no:cacheprovider", "--capture=sys", f"--junitxml={log.with_suffix('.xml')}"]
    command += [f"--log-file={log.with_name('differences.txt')}", "--log-file-mode=a", "--log-file-level=ERROR"]
    command += [f"--deselect={name}" for name in done]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    before, status = len(log.read_text()), None
    with log.open("a") as file, suppress(subprocess.TimeoutExpired):
        status = subprocess.run(  # noqa: S603
            command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, env=environment, timeout=stop - time.time()
        ).returncode
    text = log.read_text()[before:]
    ended = dict.fromkeys(re.findall(r"^(tests/test_gpu\.py::\S+)", text, re.MULTILINE), "LOST")
    ended |= dict(re.findall(r"^(tests/test_gpu\.py::\S+) (PASSED|FAILED|ERROR|SKIPPED)", text, re.MULTILINE))
    if status == DEVICE_LOST:  # by a test that has failed: the next one found it so, and has not been run
        ended = {name: how for name, how in ended.items() if how != "LOST"}
    return ended, status in (0, 1, 5) and re.search(r"^=+ .* in [\d.]+s.* =+$", text, re.MULTILINE) is not None
