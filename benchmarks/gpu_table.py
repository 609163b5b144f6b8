"""The table of what `benchmarks/gpu.py` has measured, and whether it reaches the targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

Line = Mapping[str, Any]


class Run(Protocol):
    """What a run has written: every line, and of each case its last."""

    out: Path
    rehearse: bool

    def read(self) -> Sequence[Line]: ...
    def results(self) -> Mapping[str, Line]: ...


@dataclass(frozen=True)
class Target:
    """What a figure of a case is to reach."""

    what: str
    bound: float
    value: float
    more_is_better: bool = True

    @property
    def met(self) -> bool:
        return self.value >= self.bound if self.more_is_better else self.value <= self.bound


TIMES = ("device_s", "host_s", "times", "rounds")
QUIET = ("case", "shape", "matrices", "rule", "option", "format", "bytes", "seconds", "compiled_s", "here", *TIMES)


def table(run: Run, targets: Callable[[Line, Mapping[str, Line]], Iterator[Target]], left_out: Sequence[str]) -> str:
    """OUT/table.md: the targets, then a line for each case, in the order in which they were measured."""
    results, here = run.results(), next((line["here"] for line in run.read() if "here" in line), {})
    title = "A rehearsal on the processor: none of this is a GPU's" if run.rehearse else here.get("gpu", "A GPU")
    compiled = [seconds for line in results.values() for seconds in line.get("compiled_s", {}).values()]
    judged = {name: [*targets(line, results)] for name, line in results.items() if "error" not in line}
    lines = [f"# {title}", "", ", ".join(f"{name} {value}" for name, value in here.items()), ""]
    lines += [
        f"{len(compiled)} kernels compiled in {sum(compiled):.0f} s, {max(compiled, default=0):.1f} s at most.",
        "",
    ]
    lines += ["| target | met | worst |", "|---|---|---|", *_summary(judged), ""]
    lines += ["| case | device, ms | host, µs | figures | targets |", "|---|---|---|---|---|"]
    lines += [_row(line, judged.get(name, [])) for name, line in results.items()]
    text = "\n".join([*lines, "", f"Left out for want of time: {'; '.join(left_out) or 'nothing'}."])
    (run.out / "table.md.new").write_text(text + "\n", encoding="utf-8")
    (run.out / "table.md.new").replace(run.out / "table.md")
    return text


def _summary(judged: Mapping[str, Sequence[Target]]) -> Iterator[str]:
    every = [(target, name) for name, targets in judged.items() for target in targets]
    for what in dict.fromkeys(target.what for target, _ in every):
        these = sorted(((t.value, name, t) for t, name in every if t.what == what), key=lambda value: value[:2])
        value, name, target = these[0 if these[0][2].more_is_better else -1]
        sign = "≥" if target.more_is_better else "≤"
        met = sum(t.met for _, _, t in these)
        yield f"| {what} {sign} {target.bound:g} | {met} of {len(these)} | {value:.3g} ({name}) |"


def _row(line: Line, judged: Sequence[Target]) -> str:
    if "error" in line:
        return f"| {line['case']} | {line['error'].splitlines()[0][:200]} | | | |"
    device = ", ".join(f"{name} {1e3 * seconds:.4g}" for name, seconds in line.get("device_s", {}).items())
    host = ", ".join(
        f"{name} {1e6 * seconds:.0f}" for name, seconds in line.get("host_s", {}).items() if name != "copy"
    )
    figures = ", ".join(f"{name} {_written(value)}" for name, value in line.items() if name not in QUIET)
    reached = ", ".join(f"{t.what} {t.value:.3g}" + ("" if t.met else f" (not {t.bound:g})") for t in judged)
    return f"| {line['case']} | {device} | {host} | {figures} | {reached} |"


def _written(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_written(each)}" for name, each in value.items())
    if isinstance(value, list):
        return "; ".join(map(_written, value)) or "none"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
