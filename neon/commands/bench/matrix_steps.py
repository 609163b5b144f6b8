"""Rules of matrices: Muon beside torch.optim.Muon over hidden matrices, its sweeps alone, and how exact both are."""

from __future__ import annotations

import inspect
import json
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from neon.commands.bench import new_process
from neon.commands.bench.matrix_errors import update_errors
from neon.commands.bench.results import Line, Result, Settings
from neon.commands.bench.step_alone import attach, states_of
from neon.commands.bench.tensor_shapes import Shapes
from neon.commands.bench.timing import SCALES, Contender, interleaved, scaling
from neon.commands.bench.torch_peers import neon_optimizer
from neon.commands.bench.work import AgreementError, Work, make_work
from neon.engine.arena import BUCKET
from neon.engine.calls.called import CALLS, Call
from neon.engine.program.lowering import lower
from neon.engine.program.slots import Formats

MATRICES = {
    # GPT-2 small's, as torch's linear layers have them.
    "gpt2-hidden": Shapes(12 * ((2304, 768), (768, 768), (3072, 768), (768, 3072)), rounds=5),
    "3072x768": Shapes(((3072, 768),), rounds=15, past_cache=False),
    "768x3072": Shapes(((768, 3072),), rounds=15, past_cache=False),
    "144-of-64x64": Shapes(((64, 64),) * 144, rounds=15, past_cache=False),
}
PEERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {"Muon": torch.optim.Muon}
WRONG = 0.7  # of an update: a matrix that has nothing to do with it is 1.4 away


def measure_matrices(line: Line, settings: Settings) -> Result:
    """A step over matrices, with the same coefficients and as many iterations as torch's.

    Speed-up is the median over rounds of torch's time by neon's.
    """
    shapes = MATRICES[line.shape]
    errors = errors_of(line, shapes)
    work = make_work(shapes, states=states_of(line.rule), device=line.device)
    ours, theirs = attach(line, work), torch_peer(line.rule, work)
    steps = {"neon": Contender(ours.step), "torch": Contender(theirs.step)}
    if shapes.past_cache:
        steps |= {"sweeps": Contender(partial(without_calls, ours.step)), **scaling(work.memory)}
    turns, busy = interleaved(steps, settings.rounds or shapes.rounds, shapes.steps, line.device)
    if not all(bool(param.isfinite().all()) for param in work.params):
        raise AgreementError("parameters have become infinite: the work is not what it was")
    result = Result.of(line, turns, busy)
    pairs = zip(turns["neon"], turns["torch"], strict=True)
    result.figures["seconds"] = result.medians["neon"]
    result.figures["speed-up"] = statistics.median(theirs.seconds / ours.seconds for ours, theirs in pairs)
    if shapes.past_cache:
        _compare_sweeps(result, line, work)
    worst = max(errors, key=lambda spectrum: errors[spectrum]["neon"])
    result.figures.update({"error": errors[worst]["neon"], "torch's error": errors[worst]["torch"]})
    result.figures["of torch's error"] = max(each["neon"] / each["torch"] for each in errors.values())
    result.details.update({"errors": errors, "extra_bytes": (extra := memory_of(line))})
    if extra:
        result.figures["of a bucket"] = extra["neon"] / BUCKET
    return result


def memory_of(line: Line) -> dict[str, float]:
    """Bytes that raise a process's peak in its first steps, beyond parameters, gradients and states."""
    what = ("neon.commands.bench.memory", line.kind, line.rule, line.shape)
    return json.loads(new_process.run(*what, MALLOC_MMAP_THRESHOLD_="65536"))


def errors_of(line: Line, shapes: Shapes) -> dict[str, dict[str, float]]:
    """By spectrum, how far whole updates are from those of float64, the worst of the shapes."""
    found: dict[str, dict[str, float]] = {}
    for shape in dict.fromkeys(shapes.tensors):
        steps = {"neon": partial(attach, line), "torch": partial(torch_peer, line.rule)}
        for spectrum, errors in update_errors(shape, steps, neon_optimizer(line.rule).group(), line.device).items():
            known = found.setdefault(spectrum, errors)
            found[spectrum] = {who: max(error, known[who]) for who, error in errors.items()}
    for errors in found.values():
        for who, error in errors.items():
            if not error < WRONG:
                raise AgreementError(f"{who} is {error:.1e} of an update from float64: not the same work")
    return found


def torch_peer(rule: str, work: Work) -> torch.optim.Optimizer:
    """Torch's optimizer with neon's numbers, its states where neon's are."""
    numbers = neon_optimizer(rule).group()
    known = inspect.signature(PEERS[rule]).parameters
    optimizer = PEERS[rule](work.params, **{word: value for word, value in numbers.items() if word in known})
    work.share(optimizer)
    return optimizer


@contextmanager
def _calls_left_out() -> Iterator[None]:
    """Functions of matrices give back what they are given."""
    before = dict(CALLS)
    CALLS.update({name: Call(lambda x, *_, **__: x, call.temporaries, call.in_place) for name, call in before.items()})
    try:
        yield
    finally:
        CALLS.update(before)


def without_calls(step: Callable[[], Any]) -> None:
    """The passes over elements of a step, with their buffers as they are."""
    with _calls_left_out():
        step()


def _compare_sweeps(result: Result, line: Line, work: Work) -> None:
    """What the passes move a second, by what scaling the same memory in place moves."""
    program = neon_optimizer(line.rule).settings(neon_optimizer(line.rule).group()).program
    kernel = lower(program, Formats(torch.float32, torch.float32, (torch.float32,) * len(program.states)))
    elements = sum(param.numel() for param in work.params)
    limit = 2 * work.memory.nbytes / min(result.medians[who] for who in SCALES if who in result.medians)
    moved = kernel.bytes_moved * elements
    result.figures["sweeps of the limit"] = moved / result.medians["sweeps"] / limit
    result.figures["sweeps of a step"] = result.medians["sweeps"] / result.medians["neon"]
    result.details.update({"bytes_a_parameter": kernel.bytes_moved, "limit_gb_s": limit / 1e9})
