"""The averages of an attached optimizer's weights in the place of these."""

from __future__ import annotations

import sys
from collections import ChainMap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from neon.attached.checkpoint import named_parameters
from neon.attached.saved_states import TRAINED
from neon.engine.program.options import AVERAGE
from neon.stepping.in_place import in_place_of, refuse_while_averaged, stands
from neon.stepping.overrides import AVERAGED, KEY, as_text, of_group, overrides_of
from neon.stepping.sharding import is_sharded, local, sharded_like

if TYPE_CHECKING:
    from neon.attached.attached_optimizer import AttachedOptimizer


class Aside:
    """The trained weights of parameters that have the values of their averages.

    `standing` while these stand there; not in a copy, nor after loading, where the weights are given back.
    """

    standing = False

    def __init__(self, weights: dict[Tensor, Tensor]) -> None:
        self.weights = weights
        self.given: list[Tensor] = []  # parameters that have other values than their averages again

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "standing"}


@contextmanager
def averages_in_place(optimizer: AttachedOptimizer, module: nn.Module | None) -> Iterator[None]:
    """Within the context the parameters have the values of their averages, and steps are refused."""
    check_weights(optimizer)
    pairs = [*_averaged(optimizer)]
    if module is None and any(is_sharded(param) for param, _ in pairs):
        raise ValueError("Of distributed parameters the model may hold copies: give it, as in averaged(model).")
    try:
        with in_place_of((local(param), local(average)) for param, average in pairs) as weights:
            params = [param for param, _ in pairs]
            kept = zip(params, map(sharded_like, params, weights), strict=True)
            optimizer.aside = aside = Aside(dict(kept))
            aside.standing = True
            _gather_anew(module)
            try:
                yield
            finally:
                aside.standing, aside.weights = False, {}
                optimizer.aside = None
    finally:
        _gather_anew(module)


def check_weights(optimizer: AttachedOptimizer) -> None:
    """Refuse to go on where averages stand in the place of weights, or came there with a model loaded too late."""
    aside = optimizer.aside
    if aside is None:
        return
    if aside.standing:
        refuse_while_averaged()
    averages = {param: optimizer.state.get(param, {}).get(AVERAGE) for param in aside.given}
    if any(average is not None and stands(local(param), local(average)) for param, average in averages.items()):
        raise RuntimeError(
            "The model has averages for weights: it was saved within averaged(), and loaded after the optimizer, whose "
            "checkpoint has the weights. Load the model first, then the optimizer."
        )


def give_back(optimizer: AttachedOptimizer, aside: Aside) -> None:
    """Put trained weights, of a checkpoint or of a copy, where they belong."""
    with torch.no_grad():
        for param, weight in aside.weights.items():
            average = optimizer.state.get(param, {}).get(AVERAGE)
            local(param).copy_(local(weight))
            if average is not None and not stands(local(param), local(average)):
                aside.given.append(param)
    aside.weights = {}


def loaded_aside(states: Mapping[Any, Any]) -> Aside | None:
    """The trained weights of a checkpoint, which its states are relieved of; None where weights were in their place."""
    found = {
        param: state.pop(TRAINED) for param, state in states.items() if isinstance(param, Tensor) and TRAINED in state
    }
    return Aside(found) if found else None


def with_trained_weights(optimizer: AttachedOptimizer, packed: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint that is made while averages stand in the place of weights, with these."""
    assert optimizer.aside is not None
    weights, states, groups = optimizer.aside.weights, dict(packed["state"]), []
    for group, saved in zip(optimizer.param_groups, packed["param_groups"], strict=False):
        own = {n: weights[p] for p, n in zip(group["params"], saved["params"], strict=True) if p in weights}
        states |= {number: {**states[number], TRAINED: weight} for number, weight in own.items()}
        mark = {KEY: as_text(overrides_of(saved), {**of_group(saved), AVERAGED: True})} if own else {}
        groups.append(saved | mark)
    return packed | {"state": states, "param_groups": groups}


def _averaged(optimizer: AttachedOptimizer) -> Iterator[tuple[Tensor, Tensor]]:
    """The parameters that are averaged now, with their averages: one of before averaging was switched off is stale."""
    for group in optimizer.param_groups:
        overrides = overrides_of(group)
        for name, param in named_parameters(group):
            values, state = ChainMap(overrides.get(name, {}), group), optimizer.state.get(param, {})
            if values["weight_average"] is not None and AVERAGE in state:
                yield param, state[AVERAGE]


def _gather_anew(module: nn.Module | None) -> None:
    """Have what `fully_shard` has made of a module gather its parameters again before they are used."""
    sharding = sys.modules.get("torch.distributed.fsdp")
    if module is not None and sharding is not None:
        for part in module.modules():
            if isinstance(part, sharding.FSDPModule):
                sharding.FSDPModule.reshard(part)
