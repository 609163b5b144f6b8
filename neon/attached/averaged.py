"""The averages of an attached optimizer's weights in the place of these."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from neon.attached.saved_states import TRAINED
from neon.engine.program.options import AVERAGE
from neon.stepping.aside import Aside
from neon.stepping.group_names import named_parameters
from neon.stepping.in_place import in_place_of
from neon.stepping.overrides import AVERAGED, KEY, as_text, of_group, overrides_of, values_over
from neon.stepping.sharding import is_sharded, local, sharded_like


@contextmanager
def averages_in_place(optimizer: Optimizer, aside: Aside, module: nn.Module | None) -> Iterator[None]:
    """Within the context the parameters have the values of their averages, and steps are refused."""
    aside.check(optimizer.state)
    pairs = [*_averaged(optimizer)]
    if module is None and any(is_sharded(param) for param, _ in pairs):
        raise ValueError("Of distributed parameters the model may hold copies: give it, as in averaged(model).")
    try:
        with in_place_of((local(param), local(average)) for param, average in pairs) as weights:
            params = [param for param, _ in pairs]
            aside.put(dict(zip(params, map(sharded_like, params, weights), strict=True)))
            _regather(module)
            try:
                yield
            finally:
                aside.leave()
    finally:
        _regather(module)


def loaded_aside(states: Mapping[Any, Any]) -> Aside:
    """The trained weights of a checkpoint, which its states are relieved of: none where weights were in their place."""
    found = {
        param: state.pop(TRAINED) for param, state in states.items() if isinstance(param, Tensor) and TRAINED in state
    }
    return Aside(found)


def with_trained_weights(
    param_groups: list[dict[str, Any]], weights: Mapping[Tensor, Tensor], packed: dict[str, Any]
) -> dict[str, Any]:
    """A checkpoint that is made while averages stand in the place of weights, with these."""
    states, groups = dict(packed["state"]), []
    for group, saved in zip(param_groups, packed["param_groups"], strict=False):
        own = {n: weights[p] for p, n in zip(group["params"], saved["params"], strict=True) if p in weights}
        states |= {number: {**states[number], TRAINED: weight} for number, weight in own.items()}
        mark = {KEY: as_text(overrides_of(saved), {**of_group(saved), AVERAGED: True})} if own else {}
        groups.append(saved | mark)
    return packed | {"state": states, "param_groups": groups}


def _averaged(optimizer: Optimizer) -> Iterator[tuple[Tensor, Tensor]]:
    """The parameters that are averaged now, with their averages: one of before averaging was switched off is stale."""
    for group in optimizer.param_groups:
        overrides = overrides_of(group)
        for name, param in named_parameters(group):
            values, state = values_over(overrides.get(name), group), optimizer.state.get(param, {})
            if values["weight_average"] is not None and AVERAGE in state:
                yield param, state[AVERAGE]


def _regather(module: nn.Module | None) -> None:
    """Have what `fully_shard` has made of a module gather its parameters again before they are used."""
    sharding = sys.modules.get("torch.distributed.fsdp")
    if module is not None and sharding is not None:
        for part in module.modules():
            if isinstance(part, sharding.FSDPModule):
                sharding.FSDPModule.reshard(part)
