"""What an optimizer over a model takes: weights, gradients and states as they are made, and what a step has beside."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from neon.commands.memory.sharded_model import places_of
from neon.engine.shapes_alone import taken
from neon.optimizers import Optimizer
from neon.stepping.planned import Planned
from neon.stepping.sharding import local

Units = Sequence[Collection[nn.Parameter]]


@dataclass(frozen=True)
class Bytes:
    """What is in memory at the peak of `optimizer.step()`, or of the updates within the backward pass.

    `weights` are parameters and buffers, `beside` what a step works in. Activations are left out.
    """

    weights: int
    gradients: int
    states: int
    beside: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.states + self.beside


def at_step(optimizer: Optimizer, model: nn.Module, values: Mapping[str, Any], device: torch.device) -> Bytes:
    """The peak of `optimizer.step()`; `values` take the place of those that groups have.

    Raises what attaching and planning raise where the optimizer cannot be had so.
    """
    planned = _planned(optimizer, model, values)
    items = [item for item, _ in planned.of_shapes_alone()]
    found = taken(items, [item.param.dtype for item in items], planned.settings, device)
    gradients = sum(map(_bytes, _trained(model)))
    return Bytes(_weights(model), gradients, _states(planned), found.kept + found.buffers + found.passing)


def in_backward(
    optimizer: Optimizer, model: nn.Module, values: Mapping[str, Any], device: torch.device, units: Units | None
) -> Bytes:
    """The same with `in_backward=True`, where a gradient lives until its parameter has been updated.

    Those of a unit arrive at the same time: of a module's own parameters, where none are given. That of a tied
    parameter waits from the first of its modules to the last, where torch has that one's share and the sum beside it.
    Of what is not updated gradients stay.
    """
    planned = _planned(optimizer, model, values, in_backward=True)
    alone = {
        id(param): taken([item], [item.param.dtype], planned.settings, device)
        for item, param in planned.of_shapes_alone()
    }
    tied = [param for param in _tied(model) if id(param) in alone and not units]
    waiting = sum(_bytes(param) for param in _trained(model) if id(param) not in alone) + sum(map(_bytes, tied))
    peaks = []
    for unit in units or [*_own_parameters(model)]:
        own = [param for param in unit if id(param) in alone]
        doubled = sum(_bytes(param) for param in own if any(param is other for other in tied))
        new = sum(map(_bytes, own)) - doubled
        passing = max((alone[id(param)].passing for param in own), default=0)
        peaks.append(max((waiting + new + 2 * doubled, 0), (waiting + new, passing), key=sum))
    alive, passing = max(peaks, key=sum)
    kept = sum(each.kept for each in alone.values()) + max((each.buffers for each in alone.values()), default=0)
    return Bytes(_weights(model), alive, _states(planned), kept + passing)


def _planned(optimizer: Optimizer, model: nn.Module, values: Mapping[str, Any], **options: bool) -> Planned:
    """What the first step plans, with states that are made and lie nowhere."""
    attached = optimizer.attach(model, **options)
    for group in attached.param_groups:
        group.update(values)
    for param in _trained(model):
        param.grad = torch.empty_like(param)
    return Planned(attached, attached._rules, unscale=False)


def _weights(model: nn.Module) -> int:
    return sum(map(_bytes, chain(model.parameters(), model.buffers())))


def _states(planned: Planned) -> int:
    return sum(_bytes(tensor) for item, _ in planned.of_shapes_alone() for tensor in item.kept.values())


def _trained(model: nn.Module) -> Iterator[nn.Parameter]:
    return (param for param in model.parameters() if param.requires_grad)


def _own_parameters(model: nn.Module) -> Iterator[list[nn.Parameter]]:
    for module in model.modules():
        yield [param for param in module.parameters(recurse=False) if param.requires_grad]


def _tied(model: nn.Module) -> Iterable[nn.Parameter]:
    """Parameters that the model has in several places."""
    places = places_of(model)
    return (param for param in _trained(model) if places[id(param)] > 1)


def _bytes(tensor: Tensor) -> int:
    return local(tensor).nbytes
