"""What ``neon bench`` does, from its options to the files it leaves."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numba
import torch
from rich.console import Console

from neon.commands import machine
from neon.commands.bench.bar_figure import save_bars
from neon.commands.bench.kinds import KINDS, Kind
from neon.commands.bench.measured_tables import LEGEND, tables, written
from neon.commands.bench.results import DISTURBED_ABOVE, Line, Report, Result, Settings
from neon.commands.bench.tensor_shapes import SHAPES
from neon.commands.bench.time_left import TimeLeft
from neon.commands.bench.torch_peers import OPTIONS
from neon.commands.errors import SettingsError
from neon.commands.figures import require_matplotlib
from neon.commands.library import exported_rules, works_on_matrices
from neon.commands.output import print_line, print_written, require_writable, write_json

QUICK_ROUNDS = 3
DEVICES = ("cpu", "cuda", "xpu")
# The rules of a run that says nothing of rules; `every` stands for all.
MEASURED = (
    "GradientDescentMomentum", "RMSProp", "Adagrad", "Adadelta", "Adam", "AdamW", "AdEMAMix", "Adafactor", "LAMB",
    "Lion", "Prodigy", "ShiftAdaMax",
)  # fmt: skip
EVERY = "every"
# A quick run: a few rules and shapes of each kind, of the options these, and two minutes less what begin and end take.
QUICK_SECONDS = 110.0
QUICK_OPTIONS = ("plain", "norm")
PACE_OF_ALL_ROUNDS = 3.0  # a line with all its rounds by one with those of a quick run


@dataclass(frozen=True)
class Request:
    """The options of the command; None stands for all, or with `quick` for a few. Of rules it stands for `MEASURED`.

    Args:
        kinds, rules, shapes, options: names, separated by commas.
        rounds: turns of each contender, at least 2; None: as many as the line needs.
        threads: of torch and of numba; None: as many as torch uses by itself.
        compiled: whether torch.compile of torch's step is a contender too.
        quick: fewer rules, shapes, options and rounds; what does not fit into two minutes is left out.
        device: where the tensors are; on a GPU steps alone are measured, and rounding.
        output: the directory for results and figure.
    """

    kinds: str | None = None
    rules: str | None = None
    shapes: str | None = None
    options: str | None = None
    rounds: int | None = None
    threads: int | None = None
    compiled: bool = False
    quick: bool = False
    output: Path = Path("benchmarks/results")
    device: str = "cpu"

    @property
    def whole(self) -> bool:
        """Whether everything is measured, as often as it needs."""
        return not self.quick and {self.kinds, self.rules, self.shapes, self.options, self.rounds} == {None}

    def lines(self) -> list[Line]:
        """What is to be measured: what each kind is made for, as far as it is chosen."""
        known = {"kinds": KINDS, "rules": exported_rules(), "shapes": SHAPES, "options": OPTIONS}
        default = known | {"rules": MEASURED} | ({"options": QUICK_OPTIONS} if self.quick else {})
        kinds, rules, shapes, options = (
            choose(name, getattr(self, name), names, default[name]) for name, names in known.items()
        )
        return [
            Line(kind, rule, shape, option, self.device)
            for kind, made_for in ((kind, KINDS[kind]) for kind in kinds)
            if self.device in (made_for.devices or DEVICES)
            for shape in self._shapes_of(made_for, shapes)
            if self.device != "cpu" or shape not in SHAPES or not SHAPES[shape].on_gpu
            for rule in self._rules_of(made_for, rules)
            for option in made_for.options or options
        ]

    def _shapes_of(self, kind: Kind, chosen: Sequence[str]) -> Sequence[str]:
        """The shapes that a kind is made for, or those chosen; a quick run leaves some out unless they are named."""
        shapes = kind.shapes or chosen
        if not self.quick or kind.quick_shapes is None or self.shapes is not None:
            return shapes
        return [shape for shape in shapes if shape in kind.quick_shapes]

    def _rules_of(self, kind: Kind, chosen: Sequence[str]) -> list[str]:
        """Of the rules chosen those that a kind is made for; where none was chosen by name, all of these at the least.

        A kind that names none is made for all but those of matrices, and those that it says it is not made for.
        """
        if self.quick and self.rules is None:
            return [*kind.quick_rules]
        if kind.rules is None:
            others = [rule for rule in chosen if rule not in kind.not_rules]
            return [rule for rule in others if not works_on_matrices(exported_rules()[rule])]
        named = [rule for rule in chosen if rule in kind.rules]
        return named if named or self.rules is not None else [*kind.rules]

    def settings(self) -> Settings:
        rounds = QUICK_ROUNDS if self.quick and self.rounds is None else self.rounds
        return Settings(rounds, self.compiled, again=not self.quick)


def choose(option: str, text: str | None, known: Collection[str], default: Collection[str]) -> tuple[str, ...]:
    """Read "Adam,Lion" into names, in the order in which they are known.

    >>> choose("rules", "Lion, Adam", ["Adam", "AdamW", "Lion"], [])
    ('Adam', 'Lion')

    Raises:
        SettingsError: a name is not known, or there is none.
    """
    if text is None or text == EVERY:
        return tuple(name for name in known if text or name in default)
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"Write some of {','.join(known)}."
            raise SettingsError(f"{option} has no {name!r}. {hint}")
    return tuple(name for name in known if name in names)


def run_command(request: Request, console: Console) -> Report:
    """Check everything, measure line by line, write results and figure, print the tables.

    Raises:
        UsageError: something in the request cannot be used; nothing was measured.
    """
    require_matplotlib("neon bench")
    _require(request.device)
    settings, chosen = request.settings(), request.lines()
    if not chosen:
        raise SettingsError("nothing is left to measure: no kind has these rules, shapes and options on this device.")
    if settings.compiled:
        _require_compiler()
    with _threads(request.threads):
        require_writable(request.output)
        device = machine.device(request.device)
        _say_who_is_busy(console)
        results = _measure_all(request, settings, chosen, console)
    report = Report(device, results)
    name = machine.file_name(device) + f"-{request.threads}threads" * (request.threads is not None)
    name += "-part" * (not request.whole) + "-busy" * report.disturbed
    path = request.output / f"{name}.json"
    write_json(path, report.as_json())
    save_bars(path.with_suffix(".svg"), report)
    show(report, console)
    print_written(console, [path, path.with_suffix(".svg")])
    return report


def _say_who_is_busy(console: Console) -> None:
    """Before a run rather than after it: whoever can, ends the other work first."""
    others = machine.busy_now()
    if others is not None and others > DISTURBED_ABOVE:
        print_line(
            console,
            f"Something else uses {others:.1f} of {os.cpu_count()} processors: what is measured now is not to be "
            "relied on. End it first (Ctrl-C leaves this run), or read ratios alone.",
        )


def _measure_all(request: Request, settings: Settings, chosen: Sequence[Line], console: Console) -> list[Result]:
    """Line by line, each printed when it is there; a quick run leaves out what would take it beyond its time."""
    results, left_out = [], []
    pace, limit = 1.0 if settings.rounds else PACE_OF_ALL_ROUNDS, QUICK_SECONDS if request.quick else math.inf
    left = TimeLeft(console, chosen, pace, limit)
    with left.showing():
        for number, line in enumerate(chosen, start=1):
            if not left.fits(line):
                left.leave_out(line)
                left_out.append(line)
                continue
            with left.measuring(line):
                results.append(result := measure(line, settings))
            figures = ", ".join(f"{name} {written(name, value)}" for name, value in result.figures.items())
            left.print(f"{number}/{len(chosen)} {line}: {figures}{' (disturbed)' * result.disturbed}")
    if left_out:
        print_line(console, f"Left out, to end within two minutes: {'; '.join(map(str, left_out))}.")
    return results


def redraw(path: Path, console: Console) -> None:
    """Print the tables and draw the figure of a stored run again."""
    require_matplotlib("neon bench")
    report = Report.load(path)
    show(report, console)
    save_bars(path.with_suffix(".svg"), report)


def measure(line: Line, settings: Settings) -> Result:
    """Measure a line; once more, as a rule, if something else used the processors, and keep what was less disturbed."""
    result = KINDS[line.kind].measure(line, settings)
    if not settings.again or not result.busy_with_others or not result.disturbed:
        return result
    return min(result, KINDS[line.kind].measure(line, settings), key=lambda result: result.busy_with_others or 0.0)


def show(report: Report, console: Console) -> None:
    for table in tables(report):
        console.print(table)
    console.print(LEGEND, highlight=False)
    if report.disturbed:
        console.print("[bold red]Something else used the processors meanwhile (*): not to be relied on.")


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Let torch and numba use so many threads inside the block."""
    before = torch.get_num_threads(), numba.get_num_threads()
    most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    if count is None:
        count = before[0]
    elif not 1 <= count <= most:
        raise SettingsError(f"threads must be 1 to {most}, the processors here; received {count}.")
    try:
        torch.set_num_threads(count)
        numba.set_num_threads(min(count, most))
        yield
    finally:
        torch.set_num_threads(before[0])
        numba.set_num_threads(before[1])


def _require(device: str) -> None:
    if device not in DEVICES:
        raise SettingsError(f"device must be one of {', '.join(DEVICES)}; received {device!r}.")
    if device != "cpu" and not getattr(torch, device).is_available():
        raise SettingsError(f"torch finds no device {device!r} here.")


def _require_compiler() -> None:
    try:
        torch.compile(lambda x: x + 1)(torch.ones(1))
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise SettingsError(f"--compiled needs torch.compile, and so a C++ compiler: {reason}.") from error
