"""What is measured, line by line, what is aimed at, and what it gave: in the file, in the tables and in the figure."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from neon.commands.bench.timing import Turn
from neon.commands.errors import SettingsError, UsageError

DISTURBED_ABOVE = 0.1


@dataclass(frozen=True)
class Line:
    """One line of the result.

    Attributes:
        kind: which measurement, a key of `neon.commands.bench.kinds.KINDS`.
        rule: the class of neon.optimizers.
        shape: a key of `SHAPES`, or of a measurement's own networks.
        option: a key of `OPTIONS`.
        device: where the tensors are, as torch names it.
    """

    kind: str
    rule: str
    shape: str
    option: str = "plain"
    device: str = "cpu"

    def __str__(self) -> str:
        clip = "" if self.option == "plain" else f", clip by {self.option}"
        return f"{self.kind}: {self.shape}, {self.rule}{clip}"


@dataclass(frozen=True)
class Settings:
    """How each line is measured.

    Attributes:
        rounds: turns of each contender, instead of a line's own.
        compiled: whether torch.compile of torch's step is a contender too.
        again: whether a line that something else disturbed is measured once more.
    """

    rounds: int | None = None
    compiled: bool = False
    again: bool = True

    def __post_init__(self) -> None:
        if self.rounds is not None and (type(self.rounds) is not int or self.rounds < 2):
            raise SettingsError(f"rounds must be a whole number, at least 2; received {self.rounds!r}.")


@dataclass(frozen=True)
class Target:
    """A bound of the design on a figure, for the lines whose attributes are among the words of `where`."""

    bound: float
    figure: str
    what: str
    where: Mapping[str, str]

    @property
    def more_is_better(self) -> bool:
        """Whether the bound is the least that is good, or the most."""
        return self.figure in ("of the limit", "sweeps of the limit", "speed-up")

    def covers(self, line: Line) -> bool:
        return all(getattr(line, attribute) in words.split() for attribute, words in self.where.items())

    def met(self, value: float) -> bool:
        return value >= self.bound if self.more_is_better else value <= self.bound


def _target(bound: float, figure: str, what: str, **where: str) -> Target:
    return Target(bound, figure, what, where)


_LIMIT, _TORCH = "share of the memory limit", "against torch's best"
_FUSED = "GradientDescentMomentum Adagrad Adam AdamW"
TARGETS = (
    _target(0.9, "of the limit", f"large: {_LIMIT}", kind="step", shape="large"),
    _target(0.85, "of the limit", f"bfloat16 rounded at random: {_LIMIT}", kind="rounding"),
    _target(1.05, "of rounding to nearest", "bfloat16: random by nearest rounding's time", kind="rounding"),
    _target(0.8, "8 of 32 bits", "8-bit Adam, AdamW: time of 32-bit states", kind="states"),
    _target(1.0, "speed-up", f"large, SGD, Adagrad, Adam, AdamW: {_TORCH}", kind="step", shape="large", rule=_FUSED),
    _target(1.5, "speed-up", f"large, RMSProp: {_TORCH}", kind="step", shape="large", rule="RMSProp"),
    _target(5.0, "speed-up", f"large, Adadelta: {_TORCH}", kind="step", shape="large", rule="Adadelta"),
    _target(1.3, "speed-up", f"ResNet-50 and GPT-2, clip by norm: {_TORCH}", shape="resnet50 gpt2", option="norm"),
    _target(20.0, "speed-up", f"200 tensors of 64: {_TORCH}", kind="step", shape="tiny", device="cpu"),
    _target(50e-6, "seconds", "200 tensors of 64: a step", kind="step", shape="tiny", device="cpu"),
    _target(100e-6, "host seconds", "500 tensors on a GPU: the host", kind="step", shape="groups", device="cuda xpu"),
    _target(1.3, "of one group", "500 groups: time of one group", kind="step", shape="groups"),
    _target(0.7, "of torch's fused", "after a backward pass: time of torch's fused", kind="backward"),
    _target(1.0, "empty cache", "first step, empty kernel cache", kind="start"),
    _target(0.3, "filled cache", "first step, filled kernel cache", kind="start"),
    # None that grows with the model. A page here and there does not: a twentieth of a byte a parameter.
    _target(0.05, "neon plain", "extra memory: bytes a parameter", kind="memory"),
    _target(0.05, "neon norm", "extra memory, clip by norm: bytes a parameter", kind="memory"),
    _target(0.05, "neon value", "extra memory, clip by value: bytes a parameter", kind="memory"),
    _target(1.15, "of a plain step", "statistics, float32: time of a plain step", kind="statistics"),
    _target(1.1, "speed-up", f"GPT-2's hidden matrices: {_TORCH}", kind="matrices", shape="gpt2-hidden"),
    _target(1.2, "speed-up", f"768 by 3072: {_TORCH}", kind="matrices", shape="768x3072 3072x768"),
    _target(8.0, "speed-up", f"144 of 64 by 64: {_TORCH}", kind="matrices", shape="144-of-64x64"),
    _target(1.0, "of torch's error", "matrices: error by torch's", kind="matrices"),
    _target(1e-3, "of torch's error", "768 by 3072: error by torch's", kind="matrices", shape="768x3072 3072x768"),
    _target(0.9, "sweeps of the limit", f"matrices, sweeps alone: {_LIMIT}", kind="matrices", shape="gpt2-hidden"),
    # A page here and there, and what torch keeps for its products.
    _target(1.05, "of a bucket", "matrices: extra memory, buckets of 64 MiB", kind="matrices"),
)


@dataclass(frozen=True)
class Result:
    """One line, measured.

    Attributes:
        line: what was measured.
        seconds: for each contender, the median of a step and its quartiles.
        figures: the numbers that are compared with targets.
        details: what else explains the figures.
        busy_with_others: how many processors something else used meanwhile; None where nobody knows.
    """

    line: Line
    seconds: dict[str, dict[str, float]]
    figures: dict[str, float]
    details: dict[str, Any]
    busy_with_others: float | None

    @staticmethod
    def of(line: Line, turns: Mapping[str, list[Turn]], busy_with_others: float | None) -> Result:
        """What contenders took in their turns, neon first; most figures are for the caller to add."""
        seconds = {who: _spread([turn.seconds for turn in taken]) for who, taken in turns.items()}
        result = Result(line, seconds, {}, {}, busy_with_others)
        if line.device != "cpu":
            hosts = {who: statistics.median(turn.host for turn in taken) for who, taken in turns.items()}
            result.figures["host seconds"] = next(iter(hosts.values()))
            result.details["host_seconds"] = hosts
        return result

    @property
    def medians(self) -> dict[str, float]:
        return {who: spread["median"] for who, spread in self.seconds.items()}

    @property
    def disturbed(self) -> bool:
        """Whether something else used more than a tenth of a processor meanwhile, or nobody knows."""
        return self.busy_with_others is None or self.busy_with_others > DISTURBED_ABOVE

    def targets(self) -> list[tuple[Target, float]]:
        """The targets for this line, each with what was measured."""
        return [(t, self.figures[t.figure]) for t in TARGETS if t.covers(self.line) and t.figure in self.figures]

    def as_json(self) -> dict[str, Any]:
        targets = [
            {"figure": t.figure, "at_least" if t.more_is_better else "at_most": t.bound, "met": t.met(value)}
            for t, value in self.targets()
        ]
        return {**asdict(self), "targets": targets, "disturbed": self.disturbed}


def _spread(times: list[float]) -> dict[str, float]:
    low, median, high = statistics.quantiles(times, method="inclusive")
    return {"median": median, "lower_quartile": low, "upper_quartile": high, "rounds": len(times)}


@dataclass(frozen=True)
class Report:
    """All results of a run, with the machine that they are of."""

    device: dict[str, Any]
    results: list[Result]

    @property
    def disturbed(self) -> bool:
        return any(result.disturbed for result in self.results)

    def as_json(self) -> dict[str, Any]:
        lines = [result.as_json() for result in self.results]
        return {"device": self.device, "disturbed": self.disturbed, "lines": lines}

    @staticmethod
    def load(path: Path) -> Report:
        """Read what `as_json` gave.

        Raises:
            UsageError: the file is not there, or is of something else.
        """
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            results = [
                Result(Line(**one["line"]), one["seconds"], one["figures"], one["details"], one["busy_with_others"])
                for one in stored["lines"]
            ]
            return Report(stored["device"], results)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path} cannot be read as a result of neon bench: {error!r}.") from error
