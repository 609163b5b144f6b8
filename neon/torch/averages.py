"""The averages of an attached optimizer's weights in the place of these."""

from __future__ import annotations

import sys
from collections import ChainMap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import Tensor, nn

from neon.engine.options import AVERAGE
from neon.optimizers.averages import in_place_of, refuse_while_averaged
from neon.torch.checkpoint import named_parameters
from neon.torch.overrides import overrides_of
from neon.torch.sharding import is_sharded, local

if TYPE_CHECKING:
    from neon.torch.optimizer import AttachedOptimizer


@contextmanager
def averages_in_place(optimizer: AttachedOptimizer, module: nn.Module | None) -> Iterator[None]:
    """Within the context the parameters have the values of their averages, and steps are refused."""
    if optimizer.averages_in_place:
        refuse_while_averaged()
    pairs = [*_averaged(optimizer)]
    if module is None and any(is_sharded(param) for param, _ in pairs):
        raise ValueError("Of distributed parameters the model may hold copies: give it, as in averaged(model).")
    try:
        with in_place_of((local(param), local(average)) for param, average in pairs):
            _gather_anew(module)
            optimizer.averages_in_place = True
            yield
    finally:
        optimizer.averages_in_place = False
        _gather_anew(module)


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
