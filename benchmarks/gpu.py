"""neon on a GPU beside torch: what a step takes, the most telling figures first. `benchmarks/gpu.sh OUT` runs it.

    python benchmarks/gpu.py OUT                       # 450 seconds in all, compilation and tests/test_gpu.py included
    python benchmarks/gpu.py OUT --cases 'AdamW.*gpt2'   # the cases whose names fit, in the same order
    python benchmarks/gpu.py OUT --rehearse            # tiny tensors on the processor, by Triton's interpreter

Each result is a line of OUT/gpu.jsonl as soon as it is measured, with what has been compiled for it; OUT/table.md sums up
so far. A case that raises leaves its error; one that ends the process is skipped with --resume. Cases that the clock
leaves no time for are named. Device time is what events tell around steps that were queued behind a pause, so that the
device never waits for the host; host time is the processor's clock around steps that nothing waits for.
Figures of steps that no Triton kernel made are refused. What torch keeps in bfloat16, neon keeps in float32 ("at random").
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from neon.bench.rules import PEERS, neon_optimizer, torch_optimizers
from neon.bench.shapes import SHAPES as MODELS
from neon.bench.shapes import Shapes
from neon.bench.work import Work, bytes_moved, flat, largest_difference
from neon.engine import use_backend
from neon.engine.backends import serving, triton

ROOT = Path(__file__).resolve().parents[1]
LOST = 3  # the exit status that says: the device is lost to this process, start another with --resume
ROUNDS, SECONDS_A_TURN = 15, 0.02
COPY = 1 << 30  # bytes
REHEARSAL = {"rounds": 2, "copy": 1 << 16, "dimension": 20, "tensors": 6}

SHAPES = {
    "large": Shapes(((8192, 8192),) * 4, rounds=ROUNDS),  # no cache holds a tensor
    "gpt2": MODELS["gpt2"],
    "groups": MODELS["groups"],
    "llama1b": MODELS["llama1b"],
}
RULES = ("AdamW", "Adam", "GradientDescentMomentum", "RMSProp", "Lion")
OPTIONS = ("plain", "norm")
FORMATS: dict[str, tuple[torch.dtype, dict[str, Any]]] = {
    "float32": (torch.float32, {}),
    "bfloat16 at random": (torch.bfloat16, {"stochastic_round": True}),
    "int8 states": (torch.float32, {"state_dtype": "int8"}),
}
# A tile's elements, a program's elements, warps; the first is what is compared with.
GRID = [(1024, 8192, 4), (512, 8192, 4), (2048, 8192, 4), (4096, 8192, 4), (1024, 8192, 8), (2048, 8192, 8)]
GRID += [(4096, 8192, 8), (1024, 4096, 4), (1024, 16384, 4), (1024, 65536, 4)]


@dataclass(frozen=True)
class Case:
    """What is measured, the seconds that have to be left for it, and after how many it is ended as one that hangs."""

    name: str
    measure: Callable[[Run], dict[str, Any]]
    seconds: float = 6.0
    limit: float = 60.0


# -- the device and its clock ----------------------------------------------------------------------


class Run:
    """Where results go, and what differs between a GPU and a rehearsal on the processor."""

    def __init__(self, out: Path, until: float, rehearse: bool) -> None:
        self.out, self.until, self.rehearse = out, until, rehearse
        self.device = torch.device("cpu") if rehearse else torch.device("cuda", torch.cuda.current_device())
        self.compiled: dict[str, float] = {}
        self.copied = 0.0  # bytes a second that a copy reads and writes
        self._work: tuple[Any, Work] | None = None

    def write(self, **line: Any) -> None:
        with (self.out / "gpu.jsonl").open("a") as file:
            print(json.dumps(line), file=file, flush=True)

    def synchronize(self) -> None:
        if not self.rehearse:
            torch.cuda.synchronize()

    def device_time(self, step: Callable[[], Any], steps: int, pause: float) -> float:
        """Seconds a step of the device, whose queue is filled while it pauses."""
        self.synchronize()
        if self.rehearse:
            return self.host_time(step, steps)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        if pause and hasattr(torch.cuda, "_sleep"):
            torch.cuda._sleep(int(min(pause, 0.2) * 2e9))  # in cycles, at 2 GHz or less
        begin.record()
        for _ in range(steps):
            step()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3 / steps

    def host_time(self, step: Callable[[], Any], steps: int) -> float:
        """Seconds a step of the host, with nothing queued before it."""
        self.synchronize()
        start = time.perf_counter()
        for _ in range(steps):
            step()
        return (time.perf_counter() - start) / steps

    def measure(self, contenders: Mapping[str, Callable[[], Any]], seconds: float = 2.0) -> dict[str, Any]:
        """Medians over rounds in which all take turns, and of each round's times the first's by the others'."""
        counts = {}
        for name, step in contenders.items():
            step()
            host = statistics.median(self.host_time(step, 1) for _ in range(3))
            device = self.device_time(step, 1, 2 * host)
            steps = 1 if self.rehearse else max(1, min(20, int(SECONDS_A_TURN / max(host, device))))
            counts[name] = steps, 1.5 * steps * host
        turns: dict[str, list[float]] = {name: [] for name in contenders}
        hosts: dict[str, list[float]] = {name: [] for name in contenders}
        start, names = time.perf_counter(), list(contenders)
        gc.collect()
        gc.disable()
        try:
            for number in range(REHEARSAL["rounds"] if self.rehearse else ROUNDS):
                for name in names[number % len(names) :] + names[: number % len(names)]:
                    turns[name].append(self.device_time(contenders[name], *counts[name]))
                    hosts[name].append(self.host_time(contenders[name], min(5, counts[name][0])))
                if number >= 2 and time.perf_counter() - start > seconds:
                    break
        finally:
            gc.enable()
        pairs = {
            name: statistics.median(theirs / ours for theirs, ours in zip(turns[name], turns[names[0]], strict=True))
            for name in names[1:]
        }
        return {
            "device_s": {name: statistics.median(times) for name, times in turns.items()},
            "host_s": {name: statistics.median(times) for name, times in hosts.items()},
            "times_of_first": pairs,
            "rounds": len(turns[names[0]]),
        }

    def work(self, shape: str, dtype: torch.dtype) -> Work:
        """Parameters and gradients, kept from case to case while they are the same."""
        if self._work is None or self._work[0] != (shape, dtype):
            self.forget()
            self._work = (shape, dtype), work_of(self.shapes(shape), dtype, self.device)
        return self._work[1]

    def shapes(self, name: str) -> Shapes:
        full = SHAPES[name]
        if not self.rehearse:
            return full
        small = full.tensors[: REHEARSAL["tensors"]]
        return replace(full, tensors=tuple(tuple(min(n, REHEARSAL["dimension"]) for n in shape) for shape in small))

    def forget(self) -> None:
        self._work = None
        gc.collect()
        if not self.rehearse:
            torch.cuda.empty_cache()


def work_of(shapes: Shapes, dtype: torch.dtype, device: torch.device) -> Work:
    """Parameters below 0.01 in size, gradients of either sign and 0.005 to 0.015 in size."""
    generator = torch.Generator(device).manual_seed(0)
    params = []
    for shape in shapes.tensors:
        param, grad = (torch.empty(shape, dtype=dtype, device=device) for _ in range(2))
        param.uniform_(-0.01, 0.01, generator=generator)
        grad.uniform_(-0.01, 0.01, generator=generator).add_(torch.sign(grad), alpha=0.005)
        params.append(param.requires_grad_())
        param.grad = grad
    norms = torch.stack([param.grad.norm(dtype=torch.float32) for param in params])  # type: ignore[union-attr]
    return Work(params, [], params[0].detach(), {"norm": 0.5 * float(norms.norm())}, shapes.grouped)


# -- steps -----------------------------------------------------------------------------------------


def neon_on(work: Work, rule: str, option: str, format: str = "float32", **attached: Any) -> Any:
    description = neon_optimizer(rule, option, work.bounds.get(option), **FORMATS[format][1])
    return description.attach(work.groups(description.group()["lr"]), **attached)


def torch_on(work: Work, rule: str, option: str) -> dict[str, Callable[[], Any]]:
    """A step of torch's fused and foreach optimizers, with its clipping; none where it has no such rule."""
    optimizers = torch_optimizers(rule, work.groups(neon_optimizer(rule).group()["lr"]))

    def step(optimizer: torch.optim.Optimizer) -> None:
        if option == "norm":
            clip_grad_norm_(work.params, work.bounds["norm"])
        optimizer.step()

    return {name: partial(step, optimizer) for name, optimizer in optimizers.items() if name != "loop"}


def launches_of(step: Callable[[], Any]) -> list[triton.Launch]:
    """What a step launches; it is no figure of ours where that is nothing."""
    launched: list[triton.Launch] = []
    call = triton.Launch.__call__

    def noting(launch: triton.Launch) -> None:
        launched.append(launch)
        call(launch)

    triton.Launch.__call__ = noting  # type: ignore[method-assign]
    try:
        step()
    finally:
        triton.Launch.__call__ = call  # type: ignore[method-assign]
    if not launched:
        raise RuntimeError("torch operations made this step, and no Triton kernel: its figures are not reported")
    return launched


def measure_step(run: Run, shape: str, rule: str, option: str, format: str) -> dict[str, Any]:
    """A rule with an option in a format, beside torch's and beside a copy."""
    work = run.work(shape, FORMATS[format][0])
    optimizer = neon_on(work, rule, option, format)
    start = time.perf_counter()
    launches = launches_of(optimizer.step)
    run.synchronize()
    first = time.perf_counter() - start
    contenders = {"neon": optimizer.step}
    if format != "int8 states":
        contenders |= torch_on(work, rule, option)
    if run.shapes(shape).past_cache:
        contenders["copy"] = copy_step(run)
    found = run.measure(contenders)
    found |= {"shape": shape, "rule": rule, "option": option, "format": format}
    found |= {"first_step_s": first, "launches": len(launches), "bytes": bytes_moved(optimizer, work.params, option)}
    if "copy" in contenders:
        found["of_copy"] = found["bytes"] / found["device_s"]["neon"] / (2 * run_copy(run) / found["device_s"]["copy"])
    if format == "float32" and rule in PEERS:
        found["difference_in_updates"] = agreement(run.device, rule, option)
    if not all(bool(param.isfinite().all()) for param in work.params):
        run.forget()
        raise RuntimeError("parameters have become infinite: the work is not what it was")
    return found


@lru_cache
def agreement(device: torch.device, rule: str, option: str) -> float:
    """How far torch's optimizers end from neon after three small steps, as a fraction of an update."""
    shapes = Shapes(((100, 77), (1000,)), rounds=0)
    start, ends = flat(work_of(shapes, torch.float32, device).params), {}
    for name in ("neon", *torch_on(work_of(shapes, torch.float32, device), rule, option)):
        work = work_of(shapes, torch.float32, device)
        step = neon_on(work, rule, option).step if name == "neon" else torch_on(work, rule, option)[name]
        kept = [param.grad.clone() for param in work.params]  # type: ignore[union-attr]
        for number in range(3):
            for param, grad in zip(work.params, kept, strict=True):
                param.grad = grad.roll(number)
            step()
        ends[name] = flat(work.params)
    return largest_difference(start, ends)


def run_copy(run: Run) -> int:
    return REHEARSAL["copy"] if run.rehearse else COPY


@lru_cache(maxsize=1)
def copy_step(run: Run) -> Callable[[], Any]:
    source, target = (torch.zeros(run_copy(run) // 4, device=run.device) for _ in range(2))
    return partial(target.copy_, source)


# -- other cases -----------------------------------------------------------------------------------


def probe(run: Run) -> dict[str, Any]:
    """What is here, and whether the smallest step works: all else needs it."""
    found: dict[str, Any] = {"python": sys.version.split()[0]}
    for name in ("torch", "triton", "numpy", "numba", "llvmlite"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    header = Path(sysconfig.get_paths()["include"], "Python.h")
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    found |= {"c_compiler": compiler, "python_h": header.exists(), "cuda": torch.version.cuda}
    if not run.rehearse:
        card = torch.cuda.get_device_properties(run.device)
        found |= {"gpu": card.name, "memory": card.total_memory, "l2": getattr(card, "L2_cache_size", None)}
        found |= {"capability": f"{card.major}.{card.minor}", "processors": card.multi_processor_count}
    found["backend"] = serving(run.device.type)
    run.write(here=found)
    print(json.dumps(found), flush=True)
    if found["backend"] != "triton":
        raise RuntimeError(
            f"{found['backend']} would serve {run.device.type}: is triton there, TRITON_INTERPRET unset?"
        )
    weights = []
    for device, backend in ((run.device, "triton"), (torch.device("cpu"), "eager")):
        param = torch.linspace(-1, 1, 5000).to(device).requires_grad_()
        param.grad = torch.linspace(1, -2, 5000).to(device)
        with use_backend(backend):
            optimizer = neon_optimizer("AdamW", "norm", 1.0).attach([param])
            (launches_of if backend == "triton" else lambda step: step())(optimizer.step)
            optimizer.step()
        weights.append(param.detach().cpu())
    return {**found, "elements_unlike_eager": int((weights[0] != weights[1]).sum())}


def measure_copy(run: Run) -> dict[str, Any]:
    """The bandwidth that all else is measured by, in bytes read and written."""
    memory = torch.zeros(run_copy(run) // 4, device=run.device)
    found = run.measure({"copy": copy_step(run), "scale in place": partial(memory.mul_, 1.0)})
    return found | {"gb_a_second": {name: 2e-9 * memory.nbytes / s for name, s in found["device_s"].items()}}


def measure_launches(run: Run, shape: str, option: str, format: str) -> dict[str, Any]:
    """Each launch of AdamW's step, alone: of a clip by norm the sweep in float64 that sums squares is apart."""
    work = run.work(shape, FORMATS[format][0])
    optimizer = neon_on(work, "AdamW", option, format)
    optimizer.step()
    named: dict[str, Callable[[], Any]] = {}
    for launch in launches_of(optimizer.step):
        function = launch._function
        named[getattr(function, "__name__", None) or function.fn.__name__] = launch
    found = run.measure({"step": optimizer.step, **named, "copy": copy_step(run)})
    if option == "norm":
        grads = sum(param.grad.nbytes for param in work.params if param.grad is not None)
        copy = 2 * run_copy(run) / found["device_s"]["copy"]
        found["sum_of_squares_of_copy"] = grads / found["device_s"]["stage_0"] / copy
    return found


def measure_tensor_rates(run: Run) -> dict[str, Any]:
    """AdamW with a learning rate for each of 500 groups, a tensor on the device."""
    work = run.work("groups", torch.float32)
    groups = [{**g, "lr": torch.tensor(g["lr"], device=run.device)} for g in work.groups(1e-3)]
    optimizer = neon_optimizer("AdamW").attach([dict(group) for group in groups])
    launches = launches_of(optimizer.step)
    contenders = {"neon": optimizer.step, "neon, numbers": neon_on(work, "AdamW", "plain").step}
    contenders["fused"] = torch.optim.AdamW([dict(group) for group in groups], fused=True).step
    return run.measure(contenders) | {"launches": len(launches)}


def measure_graph(run: Run, shape: str) -> dict[str, Any]:
    """The replay of a captured AdamW step, beside torch's capturable and fused."""
    work = run.work(shape, torch.float32)
    groups = work.groups(1e-3)
    optimizers = {
        "neon": neon_optimizer("AdamW").attach([dict(g) for g in groups], capturable=True),
        "fused": torch.optim.AdamW([dict(g) for g in groups], fused=True, capturable=True),
    }
    steps = {f"{name}, not captured": optimizer.step for name, optimizer in optimizers.items()}
    return run.measure({name: captured(run, optimizer.step) for name, optimizer in optimizers.items()} | steps)


def captured(run: Run, step: Callable[[], Any]) -> Callable[[], Any]:
    if run.rehearse:
        return step
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph, stream=stream):
        step()
    return graph.replay


@contextmanager
def constants(tile: int, part: int, warps: int) -> Iterator[None]:
    """Other sizes of tiles and parts, and other warps, for what is planned and launched first inside the block."""
    before = triton.TILE, triton.PART, triton.LAUNCH
    triton.TILE, triton.PART, triton.LAUNCH = tile, part, {**before[2], "num_warps": warps}
    try:
        yield
    finally:
        triton.TILE, triton.PART, triton.LAUNCH = before


def measure_variant(run: Run, shape: str, format: str, variant: tuple[int, int, int]) -> dict[str, Any]:
    """AdamW's step by kernels of other sizes, in pairs with those of the first of the grid."""
    work = run.work(shape, FORMATS[format][0])
    steps = {}
    for name, sizes in (("neon", GRID[0]), ("variant", variant)):
        with constants(*sizes):
            optimizer = neon_on(work, "AdamW", "plain", format)
            launches_of(optimizer.step)
            optimizer.step()
        steps[name] = optimizer.step
    return run.measure(steps, seconds=0.7)


def run_tests(run: Run) -> dict[str, Any]:
    """tests/test_gpu.py, in another process, and again without what has been run where that process ended early."""
    done: dict[str, str] = {}
    stop = min(time.time() + 150, run.until - 20)
    (run.out / "tests.txt").write_text("")
    for _ in range(4):
        begun, ended = tests_once(run.out / "tests.txt", stop, list(done))
        done |= begun
        if ended:
            break
    counts = {how: list(done.values()).count(how) for how in ("PASSED", "FAILED", "ERROR", "SKIPPED", "LOST")}
    failed = [name for name, how in done.items() if how in ("FAILED", "ERROR", "LOST")]
    differences = re.findall(r"^E +AssertionError: (.*differ.*)", (run.out / "tests.txt").read_text(), re.M)
    return {"tests": counts, "not_passed": failed, "differences": differences, "all_run": ended}


def tests_once(log: Path, stop: float, done: Sequence[str]) -> tuple[dict[str, str], bool]:
    """Which tests were begun and how they ended, and whether the run came to its end."""
    before = log.read_text()
    command = [sys.executable, "-m", "pytest", "tests/test_gpu.py", "-v", "-W", "default", "-p", "no:cacheprovider"]
    command += ["--color=no", "--tb=short", "--capture=sys", f"--junitxml={log.with_suffix('.xml')}"]
    command += [f"--deselect={name}" for name in done]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    ended = False
    with log.open("a") as file:
        try:
            status = subprocess.run(  # noqa: S603
                command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, env=environment, timeout=stop - time.time()
            ).returncode
            ended = status in (0, 1, 5) and "the device is lost" not in log.read_text()[len(before) :]
        except subprocess.TimeoutExpired:
            ended = True  # no time is left for another run
    text = log.read_text()[len(before) :]
    begun = dict.fromkeys(re.findall(r"^(tests/test_gpu\.py::[^\s]+)", text, re.M), "LOST")
    begun |= dict(re.findall(r"^(tests/test_gpu\.py::[^\s]+) (PASSED|FAILED|ERROR|SKIPPED)", text, re.M))
    return begun, ended


# -- the order, the clock, the table ---------------------------------------------------------------


def step_case(shape: str, rule: str, option: str, format: str) -> Case:
    seconds = 10.0 if shape == "llama1b" else 6.0
    name = f"{rule} {option}, {format}, {shape}"
    return Case(name, partial(measure_step, shape=shape, rule=rule, option=option, format=format), seconds)


def cases() -> list[Case]:
    """All of them, the most telling first."""
    telling = [("large", "plain", "float32"), ("gpt2", "plain", "float32"), ("groups", "plain", "float32")]
    telling += [("large", "plain", "bfloat16 at random"), ("large", "norm", "float32"), ("gpt2", "norm", "float32")]
    variants = [
        Case(
            f"grid {tile}, {part}, {warps}: {format}, {shape}",
            partial(measure_variant, shape=shape, format=format, variant=(tile, part, warps)),
            seconds=4,
        )
        for format, shape, (tile, part, warps) in product(list(FORMATS)[:2], ("large", "gpt2"), GRID[1:])
    ]
    others = [
        *(step_case(shape, "AdamW", option, f) for shape, f, option in product(SHAPES, FORMATS, OPTIONS)),
        *(step_case("large", rule, "plain", "float32") for rule in RULES),
        *variants,
        *(step_case(s, r, o, f) for s, f, r, o in product(SHAPES, FORMATS, RULES, OPTIONS)),
    ]
    ordered = [
        Case("probe", probe, seconds=0),
        Case("copy", measure_copy, seconds=0),
        *(step_case(shape, "AdamW", option, format) for shape, option, format in telling),
        Case("tests", run_tests, seconds=60, limit=200),
        Case("launches, float32, large", partial(measure_launches, shape="large", option="norm", format="float32")),
        Case("graph, gpt2", partial(measure_graph, shape="gpt2")),
        Case("tensor rates, groups", measure_tensor_rates),
        *others,
    ]
    return list({case.name: case for case in reversed(ordered)}.values())[::-1]


def targets(line: Mapping[str, Any], all: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, float, float, bool]]:
    """What a line is to reach: the words, the bound, the value, and whether more is better."""
    if "shape" not in line:
        return
    ours, peers = line["device_s"]["neon"], line["times_of_first"]
    if line["shape"] == "large" and line["format"] != "int8 states":
        yield "of copy", 0.9, line["of_copy"], True
    if line["format"] == "float32" and ("fused" in peers or "foreach" in peers):
        name = "fused" if "fused" in peers else "foreach"
        yield f"times {name}", 1.0 if name == "fused" else 1.5, peers[name], True
    plain = all.get(line["case"].replace(" norm,", " plain,"), {})
    if line["option"] == "norm" and "device_s" in plain:
        yield "norm by plain", 1.2, ours / plain["device_s"]["neon"], False
    if line["shape"] == "groups" and line["option"] == "plain":
        yield "host µs", 100.0, 1e6 * line["host_s"]["neon"], False


def described(line: Mapping[str, Any], all: Mapping[str, Mapping[str, Any]]) -> str:
    """A result in a line of a table."""
    cells = [line["case"]]
    if "error" in line:
        return f"| {line['case']} | {line['error'].splitlines()[0][:160]} | | | |"
    times = {name: f"{name} {1e3 * s:.4g}" for name, s in line.get("device_s", {}).items()}
    cells.append(", ".join(times.values()))
    cells.append(", ".join(f"{name} {1e6 * s:.0f}" for name, s in line.get("host_s", {}).items() if name != "copy"))
    figures = {name: line[name] for name in FIGURES if name in line}
    cells.append(", ".join(f"{n} {v:.3g}" if isinstance(v, float) else f"{n} {v}" for n, v in figures.items()))
    judged = [
        f"{what} {value:.3g} ({'met' if (value >= bound) == more else f'MISSED: {bound:g}'})"
        for what, bound, value, more in targets(line, all)
    ]
    return "| " + " | ".join([*cells, ", ".join(judged)]) + " |"


FIGURES = ("of_copy", "times_of_first", "launches", "first_step_s", "difference_in_updates", "sum_of_squares_of_copy")
FIGURES += ("gb_a_second", "elements_unlike_eager", "tests", "not_passed", "differences", "all_run")


def read(out: Path) -> tuple[dict[str, dict[str, Any]], list[str], dict[str, Any]]:
    """The results so far, the cases that were begun, and what is here."""
    path, lines = out / "gpu.jsonl", []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:  # cut off as it was written
            continue
    here = next((line["here"] for line in lines if "here" in line), {})
    return {l["case"]: l for l in lines if "case" in l}, [l["begun"] for l in lines if "begun" in l], here


def write_table(out: Path, left_out: Sequence[str], rehearse: bool) -> None:
    results, _, here = read(out)
    title = "A rehearsal on the processor: these are no figures of a GPU" if rehearse else here.get("gpu", "no GPU")
    versions = ", ".join(f"{name} {here.get(name)}" for name in ("python", "torch", "cuda", "triton", "numpy"))
    compiled = [seconds for line in results.values() for seconds in line.get("compiled_s", {}).values()]
    lines = [
        f"# {title}",
        f"\n{versions}\n",
        f"{len(compiled)} kernels compiled in {sum(compiled):.0f} s, the slowest in {max(compiled, default=0):.1f} s.\n",
        "| case | device, ms | host, µs | figures | targets |",
        "|---|---|---|---|---|",
        *(described(line, results) for line in results.values()),
        f"\nLeft out for want of time: {'; '.join(left_out) or 'nothing'}.",
    ]
    whole = out / "table.md.new"
    whole.write_text("\n".join(lines) + "\n")
    whole.replace(out / "table.md")


def take(run: Run, case: Case) -> None:
    """Measure a case and write what it gave, or what it raised."""
    run.write(begun=case.name)
    run.compiled.clear()
    start = time.perf_counter()
    faulthandler.dump_traceback_later(case.limit, exit=True)
    try:
        found = case.measure(run)
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}"}
        run.forget()
    finally:
        faulthandler.cancel_dump_traceback_later()
    found |= {"seconds": time.perf_counter() - start, "compiled_s": dict(run.compiled)}
    run.write(case=case.name, **found)
    print(
        f"{run.until - time.time():4.0f} s left {described({'case': case.name, **found}, read(run.out)[0])}", flush=True
    )


def is_lost(run: Run) -> bool:
    """Whether the device answers no more: after an illegal access a process has to begin anew."""
    try:
        run.synchronize()
    except Exception:
        return True
    return False


def listen(run: Run) -> None:
    """Note how long each kernel is compiled, where this Triton tells."""
    try:
        from triton import knobs

        def heard(*, src: Any, times: Any, cache_hit: bool, **_: Any) -> None:
            if not cache_hit:
                name = f"{getattr(src.fn, '__module__', '')}.{src.name}"
                run.compiled[name] = run.compiled.get(name, 0.0) + times.total / 1e6

        knobs.compilation.listener = heard
    except (ImportError, AttributeError) as error:
        print(f"Compile times are not told apart: {error!r}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the folder for results")
    parser.add_argument("--seconds", type=float, default=450.0, help="for everything together")
    parser.add_argument("--until", type=float, help="the same as a time in seconds since 1970")
    parser.add_argument("--cases", default="", help="a regular expression that names of cases are to fit")
    parser.add_argument("--rehearse", action="store_true", help="tiny tensors on the processor")
    parser.add_argument("--resume", action="store_true", help="go on after a run whose process ended")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.rehearse:
        os.environ["TRITON_INTERPRET"] = "1"
    elif not torch.cuda.is_available():
        torch.cuda.init()  # says why
        raise SystemExit("torch finds no GPU. Try --rehearse.")
    if not options.resume:
        (options.out / "gpu.jsonl").unlink(missing_ok=True)
    run = Run(options.out, options.until or time.time() + options.seconds, options.rehearse)
    with use_backend("triton"):
        return measure_all(run, [case for case in cases() if re.search(options.cases, case.name)])


def measure_all(run: Run, chosen: Sequence[Case]) -> int:
    listen(run)
    results, begun, _ = read(run.out)
    for name in begun:
        if name not in results:
            run.write(case=name, error="the process ended while this was measured")
    left_out = []
    for case in chosen:
        if case.name in begun:
            continue
        if run.until - time.time() < case.seconds:
            left_out.append(case.name)
            continue
        take(run, case)
        write_table(run.out, left_out, run.rehearse)
        if case.name == "probe" and "error" in read(run.out)[0]["probe"]:
            return 1
        if is_lost(run):
            return LOST
    run.write(left_out=left_out)
    write_table(run.out, left_out, run.rehearse)
    print((run.out / "table.md").read_text(), flush=True)
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # a lost device would keep the process from ending by itself
