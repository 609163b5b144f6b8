"""Muon on a GPU beside torch.optim.Muon: the hidden matrices of `neon bench --kinds matrices`, time and error."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from gpu_run import Case, Run, launches_of
from gpu_table import Line, Target

from neon.commands.bench.matrix_errors import update_errors
from neon.commands.bench.matrix_steps import MATRICES, torch_peer
from neon.commands.bench.torch_peers import neon_optimizer
from neon.commands.bench.work import Work

FORMATS: dict[str, tuple[torch.dtype, dict[str, Any]]] = {
    "float32": (torch.float32, {}),
    "bfloat16 at random": (torch.bfloat16, {"stochastic_round": True}),
}


def matrix_cases(format: str) -> list[Case]:
    """A case for each model of matrices, with weights in a format."""
    measure = partial(measure_matrices, format=format)
    return [Case(f"Muon, {format}, {shape}", partial(measure, shape=shape), seconds=8) for shape in MATRICES]


def matrix_targets(line: Line) -> Iterator[Target]:
    """What the figures of a step over matrices are to reach."""
    yield Target("times torch's Muon", 2.0, line["times"]["torch"])
    if "of torch's error" in line:
        yield Target("Muon's error by torch's", 1.0, line["of torch's error"], more_is_better=False)


def measure_matrices(run: Run, shape: str, format: str) -> dict[str, Any]:
    """A step with torch's coefficients and as many iterations; whole updates against float64, at the worst spectrum."""
    dtype, options = FORMATS[format]
    work = run.work(shape, MATRICES[shape], dtype)
    optimizer = neon_on(work, **options)
    launches = len(launches_of(optimizer.step))
    found: dict[str, Any] = {"matrices": shape, "format": format, "launches": launches}
    found |= run.measure({"neon": optimizer.step, "torch": torch_peer("Muon", work).step})
    if not all(bool(param.isfinite().all()) for param in work.params):
        raise RuntimeError(f"parameters have become infinite, so this is not the work it was: {found['device_s']}")
    return found | (errors_of(run, work) if format == "float32" else {})


def neon_on(work: Work, **options: Any) -> Any:
    return neon_optimizer("Muon", **options).attach(work.params)


def errors_of(run: Run, work: Work) -> dict[str, Any]:
    """The largest errors over shapes and spectra, and the largest ratio of the two."""
    makers = {"neon": neon_on, "torch": partial(torch_peer, "Muon")}
    numbers = neon_optimizer("Muon").group()
    shapes = dict.fromkeys(tuple(param.shape) for param in work.params)
    errors = [e for s in shapes for e in update_errors(s, makers, numbers, str(run.device)).values()]
    return {
        "neon's error": max(each["neon"] for each in errors),
        "torch's error": max(each["torch"] for each in errors),
        "of torch's error": max(each["neon"] / each["torch"] for each in errors),
    }
