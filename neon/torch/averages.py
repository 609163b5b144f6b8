"""The averages of an attached optimizer's weights in the place of these."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import Tensor, nn

from neon.engine.options import AVERAGE
from neon.optimizers.averages import in_place_of
from neon.torch.sharding import is_sharded, local

if TYPE_CHECKING:
    from neon.torch.optimizer import AttachedOptimizer


@contextmanager
def averages_in_place(optimizer: AttachedOptimizer, module: nn.Module | None) -> Iterator[None]:
    """Within the context the parameters have the values of their averages, and steps are refused."""
    pairs = [(p, state[AVERAGE]) for p, state in optimizer.state.items() if isinstance(p, Tensor) and AVERAGE in state]
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


def _gather_anew(module: nn.Module | None) -> None:
    """Have what `fully_shard` has made of a module gather its parameters again before they are used."""
    sharding = sys.modules.get("torch.distributed.fsdp")
    if module is not None and sharding is not None:
        for part in module.modules():
            if isinstance(part, sharding.FSDPModule):
                sharding.FSDPModule.reshard(part)
