"""Muon's first update of matrices that are sharded by rows, beside that of one process.

    python benchmarks/sharded_muon.py    # half a minute

For torch.optim.Muon and neon.torch.Muon, on 2, 3 and 4 gloo processes of this machine, it prints the largest relative
difference of an update, with gradients at random and of rank 2.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

import neon.torch

SHAPES = [(64, 256), (256, 64), (64, 64), (30, 50), (50, 30), (7, 100), (100, 7), (5, 7), (3, 4)]
CLASSES = {"torch": torch.optim.Muon, "neon": neon.torch.Muon}


def gradient(number: int, rank: int | None) -> Tensor:
    """A whole gradient, the same everywhere, perhaps of low rank."""
    rows, columns = SHAPES[number]
    generator = torch.Generator().manual_seed(number)
    if rank is None:
        return torch.randn(rows, columns, generator=generator)
    return torch.randn(rows, rank, generator=generator) @ torch.randn(rank, columns, generator=generator)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def update(name: str, number: int, rank: int | None, lay: Callable[[Tensor], Tensor]) -> Tensor | str:
    """What the first step of rate 1 adds to a weight of zeros, or what it raises."""
    p = nn.Parameter(lay(torch.zeros(SHAPES[number])))
    p.grad = lay(gradient(number, rank))
    try:
        CLASSES[name]([p], lr=1.0, weight_decay=0.0).step()
    except RuntimeError as error:
        return str(error).split(":")[0]
    return whole(p).detach()


def updates(lay: Callable[[Tensor], Tensor]) -> dict[Any, Tensor | str]:
    """All first updates."""
    cases = [(name, number, rank) for name in CLASSES for rank in (None, 2) for number in range(len(SHAPES))]
    return {case: update(*case, lay) for case in cases}


def sharded(process: int, size: int, folder: str) -> None:
    """The same on one of some processes; the first keeps them."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting{size}", rank=process, world_size=size)
    mesh = init_device_mesh("cpu", (size,))
    found = updates(lambda tensor: distribute_tensor(tensor, mesh, [Shard(0)], src_data_rank=None))
    if process == 0:
        torch.save(found, f"{folder}/{size}.pt")
    dist.destroy_process_group()


def main() -> None:
    """Print a line for each class, number of processes and kind of gradient."""
    torch.set_num_threads(1)
    alone = updates(lambda tensor: tensor)
    with tempfile.TemporaryDirectory() as folder:
        for size in (2, 3, 4):
            mp.spawn(sharded, (size, folder), size)  # type: ignore[attr-defined]
            found = torch.load(Path(folder) / f"{size}.pt")
            for name in CLASSES:
                for rank in (None, 2):
                    differences, raised = {}, []
                    for number, shape in enumerate(SHAPES):
                        one, other = alone[name, number, rank], found[name, number, rank]
                        if isinstance(other, str):
                            raised.append(shape)
                        else:
                            differences[shape] = ((one - other).norm() / one.norm()).item()
                    worst = max(differences, key=differences.__getitem__)
                    kind = "at random" if rank is None else f"of rank {rank}"
                    line = f"{name:5} {size} processes, gradients {kind:9}: {differences[worst]:.3f} {worst}"
                    print(line + (f"; raises for {raised}" if raised else ""))


if __name__ == "__main__":
    main()
