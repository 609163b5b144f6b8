"""What a step takes on the host: instructions and cache misses, which noise does not move, and times.

    python benchmarks/host.py                                   # about ten minutes
    python benchmarks/host.py --build ../another/checkout       # and its neon beside this one
    python benchmarks/host.py --cases mlp,200 --no-times
    python benchmarks/host.py --cases "mlp, Adam" --functions   # where the instructions go
    python benchmarks/host.py --store                           # their table for an MLP under Adam, into docs/design.md

A case is one step right after a backward pass. It is counted under valgrind's callgrind, one thread, in a process for
each build and one for torch. Contenders train until CPython has specialized its byte code; then caches are simulated
(32 kB for instructions, 32 kB for data, a last level of 1 MB, whatever this machine has) for five training steps more.
In each of the last three the step is counted, from its call to its return. Their median is shown, less what counting
itself takes. The elementwise kernels stand apart: valgrind knows no AVX-512, so they are not those that run elsewhere.
Everything else is the host's: CPython, numpy, torch, what neon compiles that is no kernel. Two checkouts of the same
code, counted in one run, differ by at most 0.4 %.

Times are of the same steps outside valgrind. Each build has a process of its own that waits for its turn; in a turn
each contender makes three steps, each after a backward pass. Shown are the medians of rounds, and of the ratios of
neon's time to a contender's in the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import callgrind
from callgrind import Counts
from host_steps import CASES, NOTHING
from rich.console import Console
from rich.table import Table

from neon.commands import machine
from neon.commands.errors import SettingsError
from neon.commands.output import new_table, print_line

HERE = Path(__file__).resolve().parents[1]
STEPS = Path(__file__).with_name("host_steps.py")
PAGE = HERE / "docs" / "design.md"
STORED = "mlp, Adam"
BEGIN, END = "<!-- measured: benchmarks/host.py -->", "<!-- end of host -->"
TORCH = {"fused": "torch, fused", "foreach": "torch, foreach"}
NEON, OTHER = "neon", "neon of --build"

KERNELS, COMPILED = "kernels", "compiled by neon, no kernels"
_ONE_OBJECT = 1 << 14  # bytes; so near to each other are the functions of one object file alone
# Where an instruction belongs: the first line whose patterns the object's file name and the function's name begin with.
PLACES = (
    ("CPython: byte code", r"(lib)?python3", r"_PyEval_EvalFrame"),
    ("CPython: calls and frames", r"(lib)?python3",
     r".*([Vv]ector[Cc]all|[Ff]rame|[Cc]function_|_Call|[Mm]ethod_|initialize_locals|CheckFunctionResult|PyCMethod)"),
    ("CPython: attributes and dicts", r"(lib)?python3",
     r".*([Aa]ttr|_PyType_Lookup|[Dd]ict|unicode|_get$|descr|GetMethod|insert|hash|property)"),
    ("CPython: objects made and freed", r"(lib)?python3",
     r".*([Aa]lloc|[Dd]ealloc|[Ff]ree|_GC_|NewReference|_[Nn]ew|[Cc]lear|[Dd]el$)"),
    ("CPython: the rest", r"(lib)?python3", ""),
    ("ctypes", r"_ctypes|libffi", ""),
    ("numpy", r"_multiarray_umath", ""),
    ("torch, Python's side", r"libtorch_python", ""),
    ("torch, C++", r"libtorch|libc10|libshm|libgomp|libmkl", ""),
    ("C library, loader", r"", ""),
)  # fmt: skip
_TORCH_KERNELS = re.compile(r".*(callback_fn<|fused_\w+_(kernel|step)|mkl_vml_kernel)")


@dataclass(frozen=True)
class Step:
    """What one step took, by place and function; kernels apart."""

    functions: Mapping[tuple[str, str], Counts]

    def total(self, *, kernels: bool) -> Counts:
        """Of kernels, or of everything else."""
        found = (counts for (place, _), counts in self.functions.items() if (place == KERNELS) == kernels)
        return sum(found, Counts())

    def by_place(self) -> dict[str, Counts]:
        places = dict.fromkeys([*(name for name, *_ in PLACES), COMPILED, KERNELS], Counts())
        for (place, _), counts in self.functions.items():
            places[place] += counts
        return {place: counts for place, counts in places.items() if counts.instructions > 0}


# -- processes -------------------------------------------------------------------------------------


def _environment(build: Path) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(build), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def _command(how: str, cases: Sequence[str], who: Sequence[str]) -> list[str]:
    return [sys.executable, str(STEPS), how, json.dumps(cases), json.dumps(who)]


def counted(build: Path, cases: Sequence[str], who: Sequence[str]) -> dict[tuple[str, str], Step]:
    """For each case and contender the step with the median of instructions; with nothing in it for who does nothing."""
    with tempfile.TemporaryDirectory(prefix="neon-host-") as folder:
        command = [*callgrind.command(Path(folder)), *_command("count", cases, who)]
        environment = {**_environment(build), **callgrind.ENVIRONMENT}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)  # noqa: S603
        if done.returncode:
            log = Path(folder, "log")
            raise SettingsError(
                f"valgrind ended with {done.returncode}: {log.read_text() if log.exists() else 'no log'}"
            )
        compiled = {int(address): kernel for address, kernel in json.loads(done.stdout.splitlines()[-1]).items()}
        steps: dict[tuple[str, str], list[Step]] = defaultdict(list)
        for profile in callgrind.profiles(Path(folder)):
            case, one, _ = profile.label.split("/")
            functions: dict[tuple[str, str], Counts] = defaultdict(Counts)
            for (file, function), counts in profile.functions.items():
                functions[place_of(file, function, compiled), function] += counts
            steps[case, one].append(Step(functions))
    medians = {
        key: sorted(taken, key=lambda step: step.total(kernels=False).instructions)[len(taken) // 2]
        for key, taken in steps.items()
    }
    nothing = medians.pop((NOTHING, NOTHING))
    return {key: _less(step, nothing) for key, step in medians.items()}


def _less(step: Step, nothing: Step) -> Step:
    return Step({name: counts - nothing.functions.get(name, Counts()) for name, counts in step.functions.items()})


def place_of(file: str, function: str, compiled: Mapping[int, bool]) -> str:
    """The place of a function; what neon compiles has no name, and goes by its nearest known address."""
    if file in ("", "???") and re.fullmatch("0x[0-9a-f]+", function):
        address = int(function, 16)
        nearest = min(compiled, key=lambda known: abs(known - address), default=None)
        if nearest is not None and abs(nearest - address) < _ONE_OBJECT:
            return KERNELS if compiled[nearest] else COMPILED
    if _TORCH_KERNELS.match(function):
        return KERNELS
    return next(name for name, files, names in PLACES if re.match(files, file) and re.match(names, function))


class Clock:
    """A process that waits for its turn."""

    def __init__(self, build: Path, cases: Sequence[str], who: Sequence[str]) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(  # noqa: S603
            _command("time", cases, who), text=True, env=_environment(build), **pipes
        )

    def __enter__(self) -> Clock:
        self._answer()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout
        answer = self._process.stdout.readline()
        if not answer:
            raise SettingsError(f"a process that measures times has ended with {self._process.wait()}")
        return answer

    def turn(self, case: str) -> dict[str, float]:
        """The seconds of a step, the median of a turn, of each contender."""
        assert self._process.stdin
        print(case, file=self._process.stdin, flush=True)
        return {who: statistics.median(taken) for who, taken in json.loads(self._answer()).items()}


def times(builds: Mapping[str, Path], cases: Sequence[str], rounds: int) -> dict[str, dict[str, list[float]]]:
    """By case, the seconds of each contender in each round."""
    found: dict[str, dict[str, list[float]]] = {case: defaultdict(list) for case in cases}
    with ExitStack() as stack:
        clocks = {
            name: stack.enter_context(Clock(build, cases, ["neon", *(TORCH if name == NEON else ())]))
            for name, build in builds.items()
        }
        for number in range(-1, rounds):  # the first round warms up
            for case in cases:
                for name in list(clocks)[:: -1 if number % 2 else 1]:
                    for who, seconds in clocks[name].turn(case).items():
                        if number >= 0:
                            found[case][TORCH.get(who, name)].append(seconds)
    return found


# -- tables ----------------------------------------------------------------------------------------


def overview(
    cases: Sequence[str],
    steps: Mapping[tuple[str, str], Step],
    seconds: Mapping[str, Mapping[str, Sequence[float]]],
) -> Table:
    """A row for each case and contender: counts of the host, of kernels, times; and neon by this contender."""
    table = new_table("A step right after a backward pass: the host's work, kernels apart, one thread")
    for column in ("case", "whose"):
        table.add_column(column, no_wrap=True)
    columns = (
        "instructions",
        "neon's by it",
        "I1 misses",
        "D1 misses",
        "LL misses",
        "of kernels",
        "µs",
        "neon's by it",
    )
    for column in columns:
        table.add_column(column, justify="right")
    for case in cases:
        names = [
            name for name in (NEON, OTHER, *TORCH.values()) if (case, name) in steps or name in seconds.get(case, ())
        ]
        for name in names:
            cells = [""] * len(columns)
            if step := steps.get((case, name)):
                host, ours = step.total(kernels=False), steps[case, NEON].total(kernels=False)
                cells[0], *cells[2:5] = (f"{value:,}" for value in host.values)
                cells[1] = "" if name == NEON else f"{ours.instructions / host.instructions:.2f}"
                cells[5] = f"{step.total(kernels=True).instructions:,}"
            if taken := seconds.get(case, {}).get(name):
                cells[6] = f"{statistics.median(taken) * 1e6:.1f}"
                pairs = zip(seconds[case][NEON], taken, strict=True)
                cells[7] = "" if name == NEON else f"{statistics.median(a / b for a, b in pairs):.2f}"
            table.add_row(case if name == NEON else "", name, *cells, end_section=name == names[-1])
    return table


def by_function(case: str, name: str, step: Step, most: int) -> Table:
    """Where the instructions of a step go: by place, and of each place the functions that take most."""
    total = step.total(kernels=False)
    table = new_table(f"{case}, {name}: {total.instructions:,} instructions beside kernels")
    table.add_column("where", no_wrap=True, overflow="ellipsis", max_width=60)
    for column in ("instructions", "share", "I1 misses", "D1 misses", "LL misses"):
        table.add_column(column, justify="right")
    for place, counts in step.by_place().items():
        table.add_row(*_cells(place, counts, total, place == KERNELS), style="bold")
        inside = Counter({f: c.instructions for (where, f), c in step.functions.items() if where == place})
        for function, _ in inside.most_common(most):
            table.add_row(*_cells(f"  {function}", step.functions[place, function], total, place == KERNELS))
    return table


def _cells(place: str, counts: Counts, total: Counts, kernels: bool) -> Iterator[str]:
    yield place
    yield f"{counts.instructions:,}"
    yield "" if kernels else f"{counts.instructions / total.instructions:.0%}"
    yield from (f"{value:,}" for value in counts.values[1:])


def markdown(step: Step, peers: Mapping[str, Step]) -> str:
    """The places of a step as a table for a page; torch's totals below."""
    total = step.total(kernels=False)
    rows = [_cells(place, counts, total, place == KERNELS) for place, counts in step.by_place().items()]
    rows.append(_cells("neon, all but kernels", total, total, False))
    for name, peer in peers.items():
        rows.append(_cells(f"{name}, all but kernels", peer.total(kernels=False), total, False))
    head = "| where | instructions | share | I1 misses | D1 misses | LL misses |\n| --- |" + " ---: |" * 5
    return "\n".join([head, *(f"| {' | '.join(row)} |" for row in rows)])


def store(table: str) -> None:
    """Write the table into the page, in the place of the one that is there."""
    page = PAGE.read_text(encoding="utf-8")
    pattern = f"(?s)({re.escape(BEGIN)}).*?({re.escape(END)})"
    PAGE.write_text(re.sub(pattern, lambda found: f"{found[1]}\n\n{table}\n\n{found[2]}", page), encoding="utf-8")


# -- the command -----------------------------------------------------------------------------------


def chosen(text: str) -> list[str]:
    """The cases in which one of the words occurs, which are separated by commas; a whole name is one case."""
    if text in CASES:
        return [text]
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if not any(word in case for case in CASES):
            raise SettingsError(f"no case has {word!r} in its name. Cases: {'; '.join(CASES)}.")
    return [case for case in CASES if any(word in case for word in words)]


def main(given: argparse.Namespace) -> None:
    console = Console(width=None if sys.stdout.isatty() else 150)
    say = partial(print_line, console)
    cases = [STORED] if given.store else chosen(given.cases)
    builds = {NEON: HERE} | ({OTHER: given.build.resolve()} if given.build else {})
    for build in builds.values():
        if not (build / "neon" / "__init__.py").is_file():
            raise SettingsError(f"{build} is no checkout of neon: it has no neon/__init__.py.")
    reason, steps, seconds = callgrind.missing(), {}, {}
    if reason and (given.store or not given.times):
        raise SettingsError(f"nothing can be counted: {reason}.")
    if reason:
        say(f"Times alone: {reason}.")
    watch = machine.Watch()
    if given.times and not given.store:
        seconds = times(builds, cases, given.rounds)
    others = watch.busy_with_others()
    for name, build in ({**builds, "torch": HERE} if not reason else {}).items():
        say(f"Counting the steps of {name}, {len(cases)} cases ...")
        for (case, who), step in counted(build, cases, [*TORCH] if name == "torch" else ["neon"]).items():
            steps[case, TORCH.get(who, name)] = step
    console.print(overview(cases, steps, seconds))
    if given.functions:
        for (case, name), step in steps.items():
            console.print(by_function(case, name, step, given.most))
    if seconds and others is not None:
        say(f"Processors busy with something else while times were measured: {others:.2f}")
    if given.store:
        peers = {name: steps[STORED, name] for name in TORCH.values()}
        store(markdown(steps[STORED, NEON], peers))
        say(f"Written: {PAGE}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="", help="words in the names of cases, separated by commas; default: all")
    parser.add_argument("--build", type=Path, help="another checkout, whose neon is measured beside this one")
    parser.add_argument("--rounds", type=int, default=30, help="turns of each build on the clock")
    parser.add_argument("--no-times", dest="times", action="store_false", help="count alone")
    parser.add_argument("--functions", action="store_true", help="where the instructions of each step go")
    parser.add_argument("--most", type=int, default=8, help="functions of each place that --functions shows")
    parser.add_argument("--store", action="store_true", help=f"write where those of {STORED!r} go into docs/design.md")
    try:
        main(parser.parse_args())
    except SettingsError as error:
        sys.exit(f"host.py: {error}")
