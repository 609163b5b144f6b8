"""A model as one of several processes has it under `fully_shard`, of which there is only this one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import distributed, nn

from neon.commands.errors import SettingsError


@contextmanager
def ranks_by_name(ranks: int) -> Iterator[Any]:
    """The mesh of so many processes, of which this is the first, and the others do not exist: nothing is sent.

    Raises:
        SettingsError: there are no processes here, or real ones.
    """
    if not distributed.is_available():
        raise SettingsError("--ranks needs a torch with torch.distributed, which this one lacks. Leave it out.")
    if distributed.is_initialized():
        raise SettingsError("--ranks counts for processes by name, and a process group is there. Make none on import.")
    from torch.distributed.device_mesh import init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
    try:
        yield init_device_mesh("cpu", (ranks,))
    finally:
        distributed.destroy_process_group()


def shard(model: nn.Module, mesh: Any) -> list[list[nn.Parameter]]:
    """Shard a model over a mesh: each block, and what is left with the root. Gives the parameters of each unit.

    Blocks are the entries of `ModuleList` and `Sequential` that are in none of another block, and have no parameter
    that is tied to one outside: units would break the tie.
    """
    from torch.distributed.fsdp import fully_shard

    places = places_of(model)
    blocks = [block for block in _blocks(model) if places_of(block).items() <= places.items()]
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    units = [[*block.parameters()] for block in blocks]
    within = {id(param) for unit in units for param in unit}
    return [*units, [param for param in model.parameters() if id(param) not in within]]


def places_of(module: nn.Module) -> Counter[int]:
    """How often a module has each parameter."""
    return Counter(id(param) for _, param in module.named_parameters(remove_duplicate=False))


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and any(True for _ in child.parameters()):
            yield child
        else:
            yield from _blocks(child)
