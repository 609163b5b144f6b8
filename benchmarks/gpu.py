"""neon on a GPU beside torch: what a step takes, the most telling figures first. `benchmarks/gpu.sh OUT` runs it.

    python benchmarks/gpu.py OUT                         # 440 seconds in all, with compilation and tests/test_gpu.py
    python benchmarks/gpu.py OUT --cases 'AdamW.*gpt2'   # the cases whose names fit
    python benchmarks/gpu.py OUT --rehearse              # tiny tensors on the processor, by Triton's interpreter

Each result is a line of OUT/gpu.jsonl as soon as it is measured; OUT/table.md sums up so far. A case that raises leaves
its error; what the clock leaves out is named. Device time is what events tell of steps that were queued while
the device paused; host time is the processor's around steps that nothing waits for. Figures of a step that no Triton
kernel made are refused. In bfloat16 torch keeps states in bfloat16, neon in float32, rounding weights at random.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import lru_cache, partial
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any

import torch
from gpu_matrices import matrix_cases, matrix_targets
from gpu_run import Case, Run, Step, launches_of, measure_all, work_of
from gpu_table import Line, Target
from gpu_tests import run_tests
from torch.nn.utils import clip_grad_norm_

from neon.commands.bench.tensor_shapes import SHAPES as MODELS
from neon.commands.bench.tensor_shapes import Shapes
from neon.commands.bench.torch_peers import PEERS, neon_optimizer, torch_optimizers
from neon.commands.bench.work import AgreementError, Work, bytes_moved, flat, largest_difference
from neon.engine import use_backend
from neon.engine.backends import serving, triton_launch

LARGE = Shapes(((8192, 8192),) * 4, rounds=0)  # no cache holds a tensor
SHAPES = {"large": LARGE, **{name: MODELS[name] for name in ("gpt2", "groups", "llama1b")}}
RULES = ("AdamW", "Adam", "GradientDescentMomentum", "RMSProp", "Lion")
OPTIONS = ("plain", "norm")
FORMATS: dict[str, tuple[torch.dtype, dict[str, Any]]] = {
    "float32": (torch.float32, {}),
    "bfloat16 at random": (torch.bfloat16, {"stochastic_round": True}),
    "int8 states": (torch.float32, {"state_dtype": "int8"}),
}
# Elements of a tile, elements of a program, warps: each is compared with what neon has.
OWN = triton_launch.TILE, triton_launch.PART, triton_launch.LAUNCH["num_warps"]
TILES = [(tile, 8192, 4) for tile in (512, 1024, 2048, 4096)]
WARPS = [(tile, 8192, 8) for tile in (1024, 2048)]
PARTS = [(1024, part, 4) for part in (4096, 16384, 65536)]
GRID = [sizes for sizes in (*TILES, *WARPS, *PARTS) if sizes != OWN]
TELLING = [
    ("large", "plain", "float32"),
    ("gpt2", "plain", "float32"),
    ("groups", "plain", "float32"),
    ("large", "plain", "bfloat16 at random"),
    ("large", "norm", "float32"),
    ("gpt2", "norm", "float32"),
]


def cases() -> list[Case]:
    """All of them, the most telling first."""
    ordered = [
        Case("probe", probe, seconds=0),
        Case("copy", measure_copy, seconds=0),
        *(step_case(shape, format, "AdamW", option) for shape, option, format in TELLING),
        Case("tests", run_tests, seconds=60, limit=200),
        Case("launches, large", partial(measure_launches, shape="large")),
        Case("graph, gpt2", partial(measure_graph, shape="gpt2")),
        Case("tensor rates, groups", measure_tensor_rates),
        Case("statistics, large", partial(measure_looks, shape="large")),
        Case("under a scaler, gpt2", partial(measure_scaled, shape="gpt2")),
        *matrix_cases("float32"),
        *(step_case(shape, format, "AdamW", option) for shape, format, option in product(SHAPES, FORMATS, OPTIONS)),
        *matrix_cases("bfloat16 at random"),
        *(step_case("large", "float32", rule, option) for rule, option in product(RULES, OPTIONS)),
        *(variant_case("float32", shape, sizes) for shape, sizes in product(("large", "gpt2"), GRID)),
        *(step_case(*each) for each in product(SHAPES, FORMATS, RULES, OPTIONS)),
        *(variant_case("bfloat16 at random", shape, sizes) for shape, sizes in product(("large", "gpt2"), GRID)),
    ]
    unique: dict[str, Case] = {}
    for case in ordered:
        unique.setdefault(case.name, case)
    return list(unique.values())


def targets(line: Line, results: Mapping[str, Line]) -> Iterator[Target]:
    """What the figures of a step are to reach."""
    if "matrices" in line:
        yield from matrix_targets(line)
    if "shape" not in line:
        return
    ours, times = line["device_s"]["neon"], line["times"]
    if line["shape"] == "large" and line["format"] != "int8 states":
        yield Target("of a copy's bandwidth", 0.9, line["of_copy"])
    if line["format"] == "float32" and "fused" in times:
        yield Target("times torch's fused", 1.0, times["fused"])
    elif line["format"] == "float32" and "foreach" in times:
        yield Target("times torch's foreach", 1.5, times["foreach"])
    plain = results.get(line["case"].replace(" norm,", " plain,"), {})
    if line["option"] == "norm" and "device_s" in plain:
        yield Target("clip by norm, of plain", 1.2, ours / plain["device_s"]["neon"], more_is_better=False)
    if line["shape"] == "groups":
        yield Target("500 groups, host µs", 100.0, 1e6 * line["host_s"]["neon"], more_is_better=False)


# -- what is here ----------------------------------------------------------------------------------


def probe(run: Run) -> dict[str, Any]:
    """What is here, and whether the smallest steps work: without them nothing else does."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    here: dict[str, Any] = {"python": sys.version.split()[0], "cuda": torch.version.cuda}
    here |= {name: version(name) for name in ("torch", "triton", "numpy", "numba", "llvmlite")}
    here |= {"C compiler": compiler, "Python.h": Path(sysconfig.get_paths()["include"], "Python.h").exists()}
    if not run.rehearse:
        card = torch.cuda.get_device_properties(run.device)
        here |= {"gpu": card.name, "capability": f"{card.major}.{card.minor}", "memory": card.total_memory}
        here |= {"processors": card.multi_processor_count, "L2": getattr(card, "L2_cache_size", None)}
    here["backend"] = "triton" if run.rehearse else serving(run.device).name
    run.write(here=here)
    print(here, flush=True)
    if here["backend"] != "triton":
        raise RuntimeError(f"{here['backend']} would serve {run.device}: is triton there, and TRITON_INTERPRET unset?")
    ours, theirs = (
        two_steps(device, name) for device, name in ((run.device, "triton"), (torch.device("cpu"), "eager"))
    )
    return {"elements unlike eager's": int((ours != theirs).sum())}


def version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def two_steps(device: torch.device, backend: str) -> torch.Tensor:
    param = torch.linspace(-1, 1, 5000).to(device).requires_grad_()
    param.grad = torch.linspace(1, -2, 5000).to(device)
    with use_backend(backend):
        optimizer = neon_optimizer("AdamW", "norm", 1.0).attach([param])
        optimizer.step()
        optimizer.step()
    return param.detach().cpu()


def measure_copy(run: Run) -> dict[str, Any]:
    """The bandwidth that all else is measured by, in bytes read and written."""
    memory = run.buffers[0]
    found = run.measure({"copy": run.copy, "scale in place": partial(memory.mul_, 1.0)})
    return found | {"GB/s": {name: 2e-9 * memory.nbytes / seconds for name, seconds in found["device_s"].items()}}


# -- steps -----------------------------------------------------------------------------------------


def step_case(shape: str, format: str, rule: str, option: str) -> Case:
    measure = partial(measure_step, shape=shape, format=format, rule=rule, option=option)
    return Case(f"{rule} {option}, {format}, {shape}", measure, seconds=10 if shape == "llama1b" else 5)


def neon_on(work: Work, rule: str, option: str = "plain", format: str = "float32") -> Any:
    description = neon_optimizer(rule, option, work.bounds.get(option), **FORMATS[format][1])
    return description.attach(work.groups(description.group()["lr"]))


def torch_on(work: Work, rule: str, option: str) -> dict[str, Step]:
    """A step of torch's fused and foreach optimizers, with its clipping; none where it has no such rule."""
    optimizers = torch_optimizers(rule, work.groups(neon_optimizer(rule).group()["lr"]))

    def step(optimizer: torch.optim.Optimizer) -> None:
        if option == "norm":
            clip_grad_norm_(work.params, work.bounds["norm"])
        optimizer.step()

    return {name: partial(step, optimizer) for name, optimizer in optimizers.items() if name != "loop"}


def measure_step(run: Run, shape: str, format: str, rule: str, option: str) -> dict[str, Any]:
    """A rule with an option in a format, beside torch's, and beside a copy where memory is the limit."""
    work = run.work(shape, SHAPES[shape], FORMATS[format][0])
    optimizer = neon_on(work, rule, option, format)
    start = time.perf_counter()
    launches = len(launches_of(optimizer.step))
    run.synchronize()
    first = time.perf_counter() - start
    peers = torch_on(work, rule, option) if format != "int8 states" else {}
    copy: dict[str, Step] = {"copy": run.copy} if SHAPES[shape].past_cache else {}
    moved = bytes_moved(optimizer, work.params, option)
    found: dict[str, Any] = {"shape": shape, "format": format, "rule": rule, "option": option, "bytes": moved}
    found |= run.measure({"neon": optimizer.step, **peers, **copy})
    found |= {"launches": launches, "first step, s": first}
    if copy:
        found["of_copy"] = run.of_copy(moved, found["device_s"]["neon"], found)
    if format == "float32" and rule in PEERS:
        found["unlike torch, of an update"] = unlike_torch(run.device, rule, option)
    if not all(bool(param.isfinite().all()) for param in work.params):
        raise RuntimeError(f"parameters have become infinite, so this is not the work it was: {found['device_s']}")
    return found


@lru_cache
def unlike_torch(device: torch.device, rule: str, option: str) -> float | str:
    """How far torch's optimizers end from neon after three small steps, as a fraction of an update."""
    shapes, ends = Shapes(((100, 77), (1000,)), rounds=0), {}
    start = work_of(shapes, torch.float32, device)
    for name in ("neon", *torch_on(start, rule, option)):
        work = work_of(shapes, torch.float32, device)
        step = neon_on(work, rule, option).step if name == "neon" else torch_on(work, rule, option)[name]
        kept = [param.grad for param in work.params if param.grad is not None]
        for number in range(3):
            for param, grad in zip(work.params, kept, strict=True):
                param.grad = grad.roll(number)
            step()
        ends[name] = flat(work.params)
    try:
        return largest_difference(flat(start.params), ends)
    except AgreementError as error:
        return f"NOT THE SAME WORK: {error}"


# -- beside steps ----------------------------------------------------------------------------------


def measure_launches(run: Run, shape: str) -> dict[str, Any]:
    """Each launch of AdamW's step with a clip by norm, alone: the sweep that sums squares, in float64, is apart."""
    work = run.work(shape, SHAPES[shape], torch.float32)
    optimizer = neon_on(work, "AdamW", "norm")
    optimizer.step()
    named: dict[str, Step] = {}
    for launch in launches_of(optimizer.step):
        function = launch._function
        named[getattr(function, "__name__", None) or function.fn.__name__] = launch
    found = run.measure({"step": optimizer.step, **named, "copy": run.copy})
    grads = sum(param.grad.nbytes for param in work.params if param.grad is not None)
    return found | {"sweep of squares, of a copy": run.of_copy(grads, found["device_s"]["stage_0"], found)}


def measure_tensor_rates(run: Run) -> dict[str, Any]:
    """AdamW with a learning rate for each of 500 groups, a tensor on the device."""
    work = run.work("groups", SHAPES["groups"], torch.float32)

    def groups() -> list[dict[str, Any]]:
        return [{**group, "lr": torch.tensor(group["lr"], device=run.device)} for group in work.groups(1e-3)]

    optimizer = neon_optimizer("AdamW").attach(groups())
    launches = len(launches_of(optimizer.step))
    steps = {"neon": optimizer.step, "neon, numbers": neon_on(work, "AdamW").step}
    return run.measure(steps | {"fused": torch.optim.AdamW(groups(), fused=True).step}) | {"launches": launches}


def measure_scaled(run: Run, shape: str) -> dict[str, Any]:
    """AdamW with what a GradScaler puts on an optimizer, beside steps without."""
    work = run.work(shape, SHAPES[shape], torch.float32)
    optimizers = {"neon": neon_on(work, "AdamW"), "fused": torch.optim.AdamW(work.groups(1e-3), fused=True)}
    for optimizer in optimizers.values():
        optimizer.found_inf = torch.zeros((), device=run.device)
        optimizer.grad_scale = torch.ones((), device=run.device)
    steps = {name: optimizer.step for name, optimizer in optimizers.items()}
    return run.measure(steps | {"neon, no scaler": neon_on(work, "AdamW").step})


def measure_looks(run: Run, shape: str) -> dict[str, Any]:
    """AdamW's step that is looked at, beside one that is not."""
    work = run.work(shape, SHAPES[shape], torch.float32)
    optimizers = {
        name: neon_optimizer("AdamW").attach(work.groups(1e-3), statistics=statistics, audit=False)
        for name, statistics in (("neon, looked at", True), ("neon", False))
    }
    found = run.measure({name: optimizer.step for name, optimizer in optimizers.items()})
    return found | {"of a plain step": found["device_s"]["neon, looked at"] / found["device_s"]["neon"]}


def measure_graph(run: Run, shape: str) -> dict[str, Any]:
    """The replay of a captured AdamW step, beside torch's capturable and fused, and beside steps outside of a graph."""
    work = run.work(shape, SHAPES[shape], torch.float32)

    def optimizers() -> dict[str, Any]:
        return {
            "neon": neon_optimizer("AdamW").attach(work.groups(1e-3), capturable=True),
            "fused": torch.optim.AdamW(work.groups(1e-3), lr=1e-3, fused=True, capturable=True),
        }

    steps = {name: captured(run, optimizer.step) for name, optimizer in optimizers().items()}
    return run.measure(steps | {f"{name}, no graph": optimizer.step for name, optimizer in optimizers().items()})


def captured(run: Run, step: Step) -> Step:
    """What replays a step."""
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


def variant_case(format: str, shape: str, sizes: tuple[int, int, int]) -> Case:
    name = "grid, tile {}, part {}, {} warps, ".format(*sizes) + f"{format}, {shape}"
    return Case(name, partial(measure_variant, format=format, shape=shape, sizes=sizes), seconds=4)


def measure_variant(run: Run, format: str, shape: str, sizes: tuple[int, int, int]) -> dict[str, Any]:
    """AdamW's step by a kernel of other sizes, in pairs with neon's own."""
    work = run.work(shape, SHAPES[shape], FORMATS[format][0])
    steps = {}
    for name, own in (("neon", OWN), ("this", sizes)):
        with kernels_of(*own):
            optimizer = neon_on(work, "AdamW", format=format)
            launches_of(optimizer.step)
        steps[name] = optimizer.step
    found = run.measure(steps, seconds=0.6)
    return found | {"time, of neon's": found["times"]["this"]}


@contextmanager
def kernels_of(tile: int, part: int, warps: int) -> Iterator[None]:
    """Kernels that are planned and launched first inside the block have other sizes."""
    before = triton_launch.TILE, triton_launch.PART, triton_launch.LAUNCH
    triton_launch.TILE, triton_launch.PART, triton_launch.LAUNCH = tile, part, {**before[2], "num_warps": warps}
    try:
        yield
    finally:
        triton_launch.TILE, triton_launch.PART, triton_launch.LAUNCH = before


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the folder for results")
    parser.add_argument("--seconds", type=float, default=440.0, help="for everything together")
    parser.add_argument("--until", type=float, help="the same as a time, in seconds since 1970")
    parser.add_argument("--cases", default="", help="a regular expression that names of cases are to fit")
    parser.add_argument("--rehearse", action="store_true", help="tiny tensors on the processor")
    parser.add_argument("--resume", action="store_true", help="go on after a run whose process ended")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in () if options.resume else ("gpu.jsonl", "table.md", "differences.txt"):
        (options.out / name).unlink(missing_ok=True)
    if options.rehearse:
        os.environ["TRITON_INTERPRET"] = "1"
    elif not torch.cuda.is_available():
        try:
            torch.cuda.init()  # says why
        except (AssertionError, RuntimeError) as error:
            print(f"There is no GPU that torch can use: {error} With --rehearse the processor takes its place.")
            return 2
    run = Run(options.out, options.until or time.time() + options.seconds, options.rehearse)
    chosen = [case for case in cases() if re.search(options.cases, case.name)]
    with use_backend("triton") if options.rehearse else nullcontext():
        return measure_all(run, chosen, targets)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # a lost device would keep the process from ending by itself
