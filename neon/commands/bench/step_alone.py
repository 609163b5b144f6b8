"""A step alone: neon beside torch over the same parameters and gradients, beside the limit of memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

from neon.commands.bench.results import Line, Result, Settings
from neon.commands.bench.tensor_shapes import SHAPES, Shapes
from neon.commands.bench.timing import SCALES, Contender, interleaved, scaling
from neon.commands.bench.torch_peers import COMPILED, CONFIGURATIONS, OPTIONS, neon_optimizer, torch_optimizers
from neon.commands.bench.work import AgreementError, Work, after_steps, bytes_moved, flat, largest_difference, make_work
from neon.torch import AttachedOptimizer

SMALL = Shapes(((100, 77), (1000,)), rounds=0)
ONE_GROUP = "one group"


def measure_step(line: Line, settings: Settings) -> Result:
    """A rule with an option, over one model's tensors."""
    shapes = SHAPES[line.shape]
    difference = check_agreement(line, shapes.grouped, settings)
    work = make_work(shapes, states=states_of(line.rule), device=line.device)
    ours = attach(line, work)
    peers = torch_contenders(line, work, settings)
    steps = {"neon": Contender(ours.step), **peers}
    if work.grouped:
        steps[ONE_GROUP] = Contender(attach(line, replace(work, grouped=False)).step)
    result = take_turns(line, settings, work, steps)
    compare_with_torch(result, difference)
    if work.grouped:
        result.figures["of one group"] = result.medians["neon"] / result.medians[ONE_GROUP]
    if shapes.past_cache:
        moved = bytes_moved(ours, work.params, line.option)
        compare_with_limit(result, work, dict.fromkeys(["neon", *peers], moved))
    return result


def take_turns(line: Line, settings: Settings, work: Work, steps: Mapping[str, Contender]) -> Result:
    """What steps over some work take, beside scaling of its memory where that is too large for any cache."""
    shapes = SHAPES[line.shape]
    limit = scaling(work.memory) if shapes.past_cache else {}
    turns = interleaved({**steps, **limit}, settings.rounds or shapes.rounds, shapes.steps, line.device)
    if not all(bool(param.isfinite().all()) for param in work.params):
        raise AgreementError("parameters have become infinite: the work is not what it was")
    return Result.of(line, *turns)


def compare_with_torch(result: Result, difference: float) -> None:
    """Neon beside the fastest of torch's configurations; what torch.compile makes of one is told apart."""
    medians = result.medians
    result.figures["seconds"] = medians["neon"]
    best = min((who for who in medians if who in CONFIGURATIONS), key=medians.__getitem__, default=None)
    if best is not None:
        result.figures["speed-up"] = medians[best] / medians["neon"]
        result.details.update({"difference_in_updates": difference, "torch_best": best})
    if COMPILED in medians:
        result.figures["over compiled"] = medians[COMPILED] / medians["neon"]


def compare_with_limit(result: Result, work: Work, moved: Mapping[str, int]) -> None:
    """What each moves a second, by what scaling the same memory in place moves: all of it, read and written.

    `moved` has the bytes of a step for each contender; the share of the first is a figure.
    """
    limit = 2 * work.memory.nbytes / min(result.medians[who] for who in SCALES if who in result.medians)
    shares = {who: count / result.medians[who] / limit for who, count in moved.items()}
    result.figures["of the limit"] = shares[next(iter(moved))]
    elements = sum(param.numel() for param in work.params)
    per_parameter = {who: count / elements for who, count in moved.items()}
    result.details.update({"bytes_a_parameter": per_parameter, "limit_gb_s": limit / 1e9, "shares_of_limit": shares})


def states_of(rule: str) -> int:
    """How many tensors a rule keeps of each parameter."""
    optimizer = neon_optimizer(rule)
    program = optimizer.settings(optimizer.group()).program
    return len(program.states) - len(program.own_numbers)


def attach(line: Line, work: Work, *, statistics: bool = False, **options: Any) -> AttachedOptimizer:
    """Neon's optimizer of a line over some work, as it is once its first steps are over."""
    optimizer = neon_optimizer(line.rule, line.option, work.bounds.get(line.option), **options)
    attached = optimizer.attach(work.groups(optimizer.group()["lr"]), statistics=statistics, audit=False)
    work.share(attached)
    return attached


def torch_contenders(line: Line, work: Work, settings: Settings) -> dict[str, Contender]:
    """Torch's clipping and step in each configuration; on request also compiled."""
    groups = work.groups(neon_optimizer(line.rule).group()["lr"])
    option, bound = OPTIONS[line.option], work.bounds.get(line.option)
    foreach = option.foreach_when_large or not SHAPES[line.shape].past_cache

    def step_of(optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
        if option.theirs is None:
            return optimizer.step
        return lambda clip=option.theirs: (clip(work.params, bound, foreach=foreach), optimizer.step())

    optimizers = torch_optimizers(line.rule, groups)
    if settings.compiled and optimizers:
        torch.compiler.reset()  # or what earlier lines compiled counts against a limit, and this one runs eagerly
        optimizers[COMPILED] = torch_optimizers(line.rule, groups)["foreach"]
    for optimizer in optimizers.values():
        work.share(optimizer)
    steps = {who: step_of(optimizer) for who, optimizer in optimizers.items()}
    if COMPILED in steps:
        steps[COMPILED] = torch.compile(steps[COMPILED])
    return {who: Contender(step) for who, step in steps.items()}


def check_agreement(line: Line, grouped: bool, settings: Settings) -> float:
    """Three steps of each contender from the same start; the largest difference as a fraction of an update."""
    shapes = replace(SMALL, grouped=grouped)

    def trained(who: str) -> torch.Tensor:
        work = make_work(shapes, device=line.device)
        step = attach(line, work).step if who == "neon" else torch_contenders(line, work, settings)[who].step
        return after_steps(work, step, 3)

    start = make_work(shapes, device=line.device)
    names = ["neon", *torch_contenders(line, start, settings)]
    return largest_difference(flat(start.params), {who: trained(who) for who in names})
