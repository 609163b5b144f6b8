"""A step alone: neon beside torch over the same parameters and gradients, beside the limit of memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from neon.bench.rules import COMPILED, CONFIGURATIONS, OPTIONS, neon_optimizer, torch_optimizers
from neon.bench.shapes import SHAPES, Shapes
from neon.bench.spec import Line, Settings
from neon.bench.timing import SCALES, Contender, Measured, interleaved, scaling
from neon.bench.work import AgreementError, Traffic, Work, flat, gradients, largest_difference, make_work
from neon.torch import AttachedOptimizer

SMALL = ((100, 77), (1000,))
ONE_GROUP = "one group"


def measure_step(line: Line, settings: Settings) -> Measured:
    """A rule with an option, over one model's tensors."""
    shapes = SHAPES[line.shape]
    difference = check_agreement(line, shapes.grouped, settings)
    work = make_work(shapes)
    ours = attach(line, work)
    peers = torch_contenders(line, work, settings)
    steps = {"neon": Contender(ours.step), **peers}
    if work.grouped:
        steps[ONE_GROUP] = Contender(attach(line, Work(work.params, work.bounds, grouped=False)).step)
    ours.step()  # makes the states
    traffic = Traffic.of(ours, work.params, line.option)
    if shapes.past_cache:
        steps |= scaling(traffic.touched)
    measured = interleaved(steps, settings.rounds or shapes.rounds, shapes.steps)
    _check_finite(work)
    compare_with_torch(measured, difference)
    if work.grouped:
        measured.figures["of one group"] = measured.medians["neon"] / measured.medians[ONE_GROUP]
    if shapes.past_cache:
        compare_with_limit(measured, traffic, ["neon", *peers], shapes.elements)
    return measured


def measure_rounding(line: Line, settings: Settings) -> Measured:
    """bfloat16 parameters and gradients with float32 states: rounded to nearest, and at random."""
    shapes = SHAPES[line.shape]
    _check_rounding(line)
    work = make_work(shapes, torch.bfloat16)
    roundings = {"to nearest": False, "at random": True}
    attached = {who: attach(line, work, stochastic_round=how) for who, how in roundings.items()}
    for optimizer in attached.values():
        optimizer.step()
    traffic = Traffic.of(attached["at random"], work.params, line.option)
    steps = {who: Contender(optimizer.step) for who, optimizer in attached.items()}
    measured = interleaved(steps | scaling(traffic.touched), settings.rounds or shapes.rounds)
    _check_finite(work)
    compare_with_limit(measured, traffic, ["at random", "to nearest"], shapes.elements)
    measured.figures["of rounding to nearest"] = measured.medians["at random"] / measured.medians["to nearest"]
    return measured


def compare_with_torch(measured: Measured, difference: float) -> None:
    """Neon beside the fastest of torch's configurations; what torch.compile makes of one is told apart."""
    medians = measured.medians
    measured.figures["seconds"] = medians["neon"]
    best = min((who for who in medians if who in CONFIGURATIONS), key=medians.__getitem__, default=None)
    if best is not None:
        measured.figures["speed-up"] = medians[best] / medians["neon"]
        measured.details.update({"difference_in_updates": difference, "torch_best": best})
    if COMPILED in medians:
        measured.figures["over compiled"] = medians[COMPILED] / medians["neon"]


def compare_with_limit(measured: Measured, traffic: Traffic, names: list[str], elements: int) -> None:
    """What each moves a second, by what scaling in place moves: all that the step touches, read and written."""
    limit = 2 * traffic.touched / min(measured.medians[who] for who in SCALES)
    shares = {who: traffic.moved / measured.medians[who] / limit for who in names}
    measured.figures["of the limit"] = shares[names[0]]
    measured.details.update(
        {"bytes_a_parameter": traffic.moved / elements, "limit_gb_s": limit / 1e9, "shares_of_limit": shares}
    )


def attach(line: Line, work: Work, **options: Any) -> AttachedOptimizer:
    """Neon's optimizer of a line over some work."""
    optimizer = neon_optimizer(line.rule, line.option, work.bounds.get(line.option), **options)
    return optimizer.attach(work.groups(optimizer.group()["lr"]))


def torch_contenders(line: Line, work: Work, settings: Settings) -> dict[str, Contender]:
    """Torch's clipping and step in each configuration; on request also compiled."""
    groups = work.groups(neon_optimizer(line.rule).group()["lr"])
    option, bound = OPTIONS[line.option], work.bounds.get(line.option)
    foreach = option.foreach_when_large or not SHAPES[line.shape].past_cache

    def step_of(optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
        if option.theirs is None:
            return optimizer.step
        return lambda clip=option.theirs: (clip(work.params, bound, foreach=foreach), optimizer.step())

    steps = {who: step_of(optimizer) for who, optimizer in torch_optimizers(line.rule, groups).items()}
    if settings.compiled and steps:
        torch.compiler.reset()  # or what earlier lines compiled counts against a limit, and this one runs eagerly
        steps[COMPILED] = torch.compile(step_of(torch_optimizers(line.rule, groups)["foreach"]))
    return {who: Contender(step) for who, step in steps.items()}


def check_agreement(line: Line, grouped: bool, settings: Settings) -> float:
    """Three steps of each contender from the same start; the largest difference as a fraction of an update.

    Each step has other gradients: with equal ones the averages of Adam, say, would not show.
    """
    shapes = Shapes(SMALL, rounds=0, grouped=grouped)

    def trained(who: str) -> torch.Tensor:
        work = make_work(shapes)
        step = attach(line, work).step if who == "neon" else torch_contenders(line, work, settings)[who].step
        kept = [grad.clone() for grad in gradients(work.params)]
        for number in range(3):
            for param, grad in zip(work.params, kept, strict=True):
                param.grad = grad.roll(number)
            step()
        return flat(work.params)

    names = ["neon", *torch_contenders(line, make_work(shapes), settings)]
    return largest_difference(flat(make_work(shapes).params), {who: trained(who) for who in names})


def _check_rounding(line: Line) -> None:
    """Rounded either way, a weight ends at one of two neighbours, 2⁻⁷ of it apart at the most."""
    ends = []
    for how in (False, True):
        work = make_work(Shapes(SMALL, rounds=0), torch.bfloat16)
        attach(line, work, stochastic_round=how).step()
        ends.append(flat(work.params))
    nearest, random = ends
    if not bool(((nearest - random).abs() <= 2**-7 * nearest.abs()).all()):
        raise AgreementError("rounding at random ends further from rounding to nearest than one unit")


def _check_finite(work: Work) -> None:
    if not all(bool(param.isfinite().all()) for param in work.params):
        raise AgreementError("parameters have become infinite: the work is not what it was")
