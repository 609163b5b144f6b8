"""How `benchmarks/gpu.py` measures: the device's clock and the host's, case by case, and what is written when."""

from __future__ import annotations

import faulthandler
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from gpu_table import Line, Target, table

from neon.commands.bench.tensor_shapes import Shapes
from neon.commands.bench.work import Work
from neon.engine.backends import triton_launch

LOST = 3  # the exit status that says: the device is lost to this process, another has to go on
ROUNDS = 15
TURN = 0.02  # seconds that a turn of several steps is to take
Step = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """What is measured, the seconds that have to be left for it, and after how many it is ended as one that hangs."""

    name: str
    measure: Callable[[Run], dict[str, Any]]
    seconds: float = 5.0
    limit: float = 60.0


class Run:
    """Where results go, what is kept from case to case, and what differs between a GPU and a rehearsal."""

    def __init__(self, out: Path, until: float, rehearse: bool) -> None:
        self.out, self.until, self.rehearse = out, until, rehearse
        self.device = torch.device("cpu") if rehearse else torch.device("cuda", torch.cuda.current_device())
        self.compiled: dict[str, float] = {}
        self.lines = out / "gpu.jsonl"
        kept = self.lines.read_text(encoding="utf-8") if self.lines.exists() else ""
        self.lines.write_text(kept and kept.rstrip("\n") + "\n", encoding="utf-8")  # its last line may be cut off
        self._work: tuple[Any, Work] | None = None

    # -- clocks ------------------------------------------------------------------------------------

    def synchronize(self) -> None:
        if not self.rehearse:
            torch.cuda.synchronize()

    def device_time(self, step: Step, steps: int, pause: float) -> float:
        """Seconds a step of the device, by its events; its queue is filled while it pauses."""
        self.synchronize()
        if self.rehearse:
            return self.host_time(step, steps)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        if hasattr(torch.cuda, "_sleep"):
            torch.cuda._sleep(int(min(pause, 0.2) * 2e9))  # in cycles, of which a second has 2e9 at most
        begin.record()
        for _ in range(steps):
            step()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3 / steps

    def host_time(self, step: Step, steps: int) -> float:
        """Seconds a step of the host, with nothing queued before and nothing waited for."""
        self.synchronize()
        start = time.perf_counter()
        for _ in range(steps):
            step()
        return (time.perf_counter() - start) / steps

    def measure(self, contenders: Mapping[str, Step], seconds: float = 1.0) -> dict[str, Any]:
        """Medians over rounds in which all take turns, and of the others' times by the first's in each round."""
        plans = {name: self._plan(step) for name, step in contenders.items()}
        device: dict[str, list[float]] = {name: [] for name in contenders}
        host: dict[str, list[float]] = {name: [] for name in contenders}
        start, names = time.perf_counter(), list(contenders)
        gc.collect()
        gc.disable()
        try:
            for number in range(2 if self.rehearse else ROUNDS):
                for name in names[number % len(names) :] + names[: number % len(names)]:
                    device[name].append(self.device_time(contenders[name], *plans[name]))
                    host[name].append(self.host_time(contenders[name], min(5, plans[name][0])))
                if number >= 2 and time.perf_counter() - start > seconds:
                    break
        finally:
            gc.enable()
        ours = device[names[0]]
        return {
            "device_s": {name: statistics.median(times) for name, times in device.items()},
            "host_s": {name: statistics.median(times) for name, times in host.items()},
            "times": {
                name: statistics.median(b / a for a, b in zip(ours, device[name], strict=True)) for name in names[1:]
            },
            "rounds": len(ours),
        }

    def _plan(self, step: Step) -> tuple[int, float]:
        """How many steps a turn has, and for how long the device has to pause until they are queued."""
        step()
        host = statistics.median(self.host_time(step, 1) for _ in range(1 if self.rehearse else 3))
        device = self.device_time(step, 1, 2 * host)
        steps = 1 if self.rehearse else max(1, min(20, int(TURN / max(host, device))))
        return steps, 1.5 * steps * host

    # -- memory ------------------------------------------------------------------------------------

    def work(self, name: str, shapes: Shapes, dtype: torch.dtype) -> Work:
        """Parameters and gradients, the same ones while name and type are the same."""
        if self._work is None or self._work[0] != (name, dtype):
            self.forget()
            self._work = (name, dtype), work_of(self.shrunk(shapes), dtype, self.device)
        return self._work[1]

    def shrunk(self, shapes: Shapes) -> Shapes:
        """The shapes; in a rehearsal a few of them, and tiny."""
        if not self.rehearse:
            return shapes
        return replace(shapes, tensors=tuple(tuple(min(n, 72) for n in shape) for shape in shapes.tensors[:4]))

    def forget(self) -> None:
        self._work = None
        gc.collect()
        if not self.rehearse:
            with suppress(RuntimeError):  # a lost device
                torch.cuda.empty_cache()

    @cached_property
    def buffers(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Two of a gibibyte, to copy between."""
        source, target = (torch.zeros(1 << (14 if self.rehearse else 28), device=self.device) for _ in range(2))
        return source, target

    def copy(self) -> None:
        source, target = self.buffers
        target.copy_(source)

    def of_copy(self, moved: float, seconds: float, found: Line) -> float:
        """Bytes by time, by what the copy of the same measurement reads and writes by its own time."""
        return moved / seconds / (2 * self.buffers[0].nbytes / found["device_s"]["copy"])

    # -- lines -------------------------------------------------------------------------------------

    def write(self, **line: Any) -> None:
        with self.lines.open("a", encoding="utf-8") as file:
            print(json.dumps(line), file=file, flush=True)

    def read(self) -> list[dict[str, Any]]:
        """What has been written, but for a line that was cut off."""
        lines = []
        for text in self.lines.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):
                lines.append(json.loads(text))
        return lines

    def results(self) -> dict[str, dict[str, Any]]:
        return {line["case"]: line for line in self.read() if "case" in line}


def work_of(shapes: Shapes, dtype: torch.dtype, device: torch.device) -> Work:
    """Parameters below 0.01 in size, gradients of either sign and 0.005 to 0.015 in size, each in memory of its own."""
    generator = torch.Generator(device).manual_seed(0)
    params, norms = [], []
    for shape in shapes.tensors:
        param, grad = (torch.empty(shape, dtype=dtype, device=device) for _ in range(2))
        param.uniform_(-0.01, 0.01, generator=generator)
        grad.uniform_(-0.01, 0.01, generator=generator).add_(torch.sign(grad), alpha=0.005)
        norms.append(grad.norm(dtype=torch.float32))
        params.append(param.requires_grad_())
        param.grad = grad
    return Work(params, [], params[0].detach(), {"norm": 0.5 * float(torch.stack(norms).norm())}, shapes.grouped)


def launches_of(step: Step) -> list[triton_launch.Launch]:
    """What a step launches; where that is nothing, its figures would not be Triton's."""
    launched: list[triton_launch.Launch] = []
    call = triton_launch.Launch.__call__

    def noting(launch: triton_launch.Launch) -> None:
        launched.append(launch)
        call(launch)

    triton_launch.Launch.__call__ = noting  # type: ignore[method-assign]
    try:
        step()
    finally:
        triton_launch.Launch.__call__ = call  # type: ignore[method-assign]
    if not launched:
        raise RuntimeError("no Triton kernel made this step, torch operations did: its figures are not reported")
    return launched


# -- case by case ----------------------------------------------------------------------------------


def measure_all(
    run: Run, cases: Sequence[Case], targets: Callable[[Line, Mapping[str, Line]], Iterator[Target]]
) -> int:
    """Every case that has not been begun, while there is time; returns the exit status."""
    listen(run)
    begun = {line["begun"] for line in run.read() if "begun" in line}
    for name in begun - {*run.results()}:
        run.write(case=name, error="the process ended while this was measured")
    left_out = []
    for case in cases:
        if case.name in begun:
            continue
        if run.until - time.time() < (1 if run.rehearse else case.seconds):
            left_out.append(case.name)
            continue
        take(run, case)
        text = table(run, targets, [])
        print(f"{run.until - time.time():4.0f} s left {text.splitlines()[-3]}", flush=True)
        if is_lost(run):
            return LOST
    run.write(left_out=left_out)
    text = table(run, targets, left_out)
    print(f"\n{text.partition('| case |')[0]}{text.splitlines()[-1]}", flush=True)  # each case has been printed
    return 0


def take(run: Run, case: Case) -> None:
    """Measure a case and write what it gave, or what it raised."""
    run.write(begun=case.name)
    run.compiled.clear()
    gc.collect()  # the states of the case before
    start = time.perf_counter()
    faulthandler.dump_traceback_later(
        min(case.limit, max(10.0, run.until - time.time() + 20)), exit=True, file=sys.__stderr__
    )
    try:
        found = case.measure(run)
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    finally:
        faulthandler.cancel_dump_traceback_later()
    run.write(case=case.name, **found, seconds=time.perf_counter() - start, compiled_s=dict(run.compiled))
    if "error" in found:
        run.forget()


def is_lost(run: Run) -> bool:
    """Whether the device answers no more: after an illegal access it does not, to this process."""
    try:
        run.synchronize()
    except RuntimeError:
        return True
    return False


def listen(run: Run) -> None:
    """Note how long each kernel is compiled, where this Triton tells."""
    try:
        from triton import knobs

        def heard(*, src: Any, times: Any, cache_hit: bool, **_: Any) -> None:
            if not cache_hit:
                name = f"{src.fn.__module__.rpartition('.')[2]}.{src.name}"
                run.compiled[name] = run.compiled.get(name, 0.0) + times.total / 1e6

        knobs.compilation.listener = heard
    except (ImportError, AttributeError) as error:
        print(f"Compile times are not told apart: {error!r}", flush=True)
