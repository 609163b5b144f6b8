"""What ranks do with rules that call functions of matrices: all bits are those of one process, wherever parts lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from distributed_models import everything, strays
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import _StridedShard
from torch.nn.parallel import DistributedDataParallel

from neon.engine.program.spaces import COLUMN_PAIRS, COLUMNS, ROW_PAIRS, ROWS
from neon.optimizers import SOAP, Adam, Cautious, Matrices, Muon, NorMuon, Optimizer, Shampoo, State
from neon.optimizers.functions import equal, remainder, sqrt
from neon.optimizers.matrix_functions import basis_of, gram, orthogonalize, restored, rotated


class Orthogonal(Optimizer):
    """Momentum, orthogonalized: a rule that calls one function of matrices."""

    @staticmethod
    def rule(w: Any, g: Any, momentum_buffer: Any, *, lr: Any = 0.1, momentum: Any = 0.9) -> Any:
        momentum_buffer = momentum_buffer + (1 - momentum) * (g - momentum_buffer)
        return 0.99 * w - lr * orthogonalize(g + momentum * (momentum_buffer - g)), momentum_buffer


class Twice(Optimizer):
    """Two calls one behind the other, and an elementwise rule between them that needs their results."""

    @staticmethod
    def rule(w: Any, g: Any, exp_avg: Any, *, lr: Any = 0.1) -> Any:
        first = orthogonalize(g, steps=2)
        exp_avg = 0.9 * exp_avg + 0.1 * first * first
        return w - lr * orthogonalize(orthogonalize(first + exp_avg, steps=1)) - lr * first, exp_avg


class Turned(Optimizer):
    """Adam without its first moment, in eigenbases of means of g·gᵀ and gᵀ·g: states of pairs, and calls of calls."""

    @staticmethod
    def rule(  # type: ignore[no-untyped-def]
        w, g, exp_avg_sq, left=State(of=ROW_PAIRS), right=State(of=COLUMN_PAIRS),
        rows=State(of=ROW_PAIRS), columns=State(of=COLUMN_PAIRS), *, lr=0.1, step
    ):  # fmt: skip
        left, right = left + 0.1 * (gram(g, ROWS) - left), right + 0.1 * (gram(g, COLUMNS) - right)
        first, due = equal(step, 1), equal(remainder(step, 2), 0)
        rows, columns = basis_of(left, rows, first, due), basis_of(right, columns, first, due)
        turned = rotated(g, rows, columns)
        exp_avg_sq = 0.9 * exp_avg_sq + 0.1 * turned * turned
        return (
            w - lr * restored(turned / (sqrt(exp_avg_sq) + 1e-3), rows, columns),
            exp_avg_sq,
            left,
            right,
            rows,
            columns,
        )


# Of which a process has the squares of some.
STACKED = {"rows 0": 4, "rows 4": 2}
RULES: dict[str, Callable[[], Optimizer]] = {
    "plain": Orthogonal,
    "clipped": lambda: Cautious(Orthogonal(gradient_clip_norm=1.0, state_dtype="int8", weight_average=0.9)),
    "twice": Twice,
    "turned": Turned,
    # Parts that no shard has whole, of lengths, along either side, and stacked.
    "parts": lambda: Muon(
        0.1,
        units="float32",
        parts={"rows 0": 4, "rows 1": (2, 2, 1), "columns 1": Matrices((3, 4), dim=1), "rows 4": 2},
    ),
    "normuon": lambda: NorMuon(0.1, units="float32"),
    "soap": lambda: SOAP(0.1, frequency=2, parts=STACKED),
    "shampoo": lambda: Shampoo(0.1, frequency=2, start=2, parts=STACKED),
}

# How each kind of parameter lies on a line of all ranks, or on a grid of two rows where there are that many.
LINE: dict[str, Any] = {"rows": [Shard(0)], "columns": [Shard(1)], "copies": [Replicate()]}
GRID: dict[str, Any] = {
    "copies of rows": [Replicate(), Shard(0)],
    "rows and columns": [Shard(0), Shard(1)],
    "columns and rows": [Shard(1), Shard(0)],
    "rows of rows": [Shard(0), Shard(0)],
    "strided": [None, Shard(0)],  # as fully_shard cuts what tensor parallelism has cut
}
# Uneven rows, fewer rows than ranks, one row, one column, convolutions, equal ones, rows of whole blocks.
SHAPES = [(8, 16), (5, 7), (4, 3, 3, 3), (3, 4), (16, 8), (8, 16), (1, 9), (9, 1), (8, 16), (30, 20), (2, 6), (64, 256)]


def values(number: int, step: int, rank: int | None = None) -> Tensor:
    """A whole gradient (or, for step -1, a parameter), the same everywhere, of that rank as a matrix."""
    shape = SHAPES[number]
    generator = torch.Generator().manual_seed(1000 * step + 1000 + number)
    if rank is None:
        return torch.randn(shape, generator=generator)
    rows, columns = (torch.randn(side, rank, generator=generator) for side in (shape[0], torch.Size(shape[1:]).numel()))
    return (rows @ columns.T).view(shape)


def layouts() -> dict[str, Callable[[Tensor], Tensor]]:
    """How to lay a tensor; all are plain on one rank."""
    world = dist.get_world_size()
    if world == 1:
        return dict.fromkeys((*LINE, *GRID), lambda tensor: tensor)
    line = init_device_mesh("cpu", (world,))
    grid = init_device_mesh("cpu", (2, world // 2) if world % 2 == 0 else (1, world), mesh_dim_names=("a", "b"))
    strided: list[Any] = [_StridedShard(0, split_factor=grid.size(1)), Shard(0)]
    found: dict[str, Any] = {name: (line, cut) for name, cut in LINE.items()}
    found |= {name: (grid, strided if None in cut else cut) for name, cut in GRID.items()}
    return {
        name: lambda tensor, at=at: distribute_tensor(tensor, at[0], at[1], src_data_rank=None)
        for name, at in found.items()
    }


def spread(few: bool) -> tuple[dict[str, Callable[[Tensor], Tensor]], dict[str, tuple[int, Any]]]:
    """The layouts, and the parameters by name: of each layout some."""
    numbers = {"rows": (0, 1, 2, 4), "columns": (1,), "rows and columns": (0,), "strided": (0,)}
    if not few:
        numbers = {"rows": (*range(len(SHAPES)),), "columns": (1, 2, 4, 7)} | dict.fromkeys(
            ("copies", *GRID), (0, 1, 2)
        )
        numbers["strided"] = (0, 2)  # of uneven ones torch itself does not know how they lie
    return layouts(), {f"{name} {number}": (number, name) for name in numbers for number in numbers[name]}


def matrices(rule: str, steps: int, rank: int | None, bucket: int) -> Any:
    """Steps with gradients that are given, perhaps of low rank; some are missing everywhere for a while."""
    lay, kinds = spread(few=rank is not None)
    params = {name: nn.Parameter(lay[layout](values(number, -1))) for name, (number, layout) in kinds.items()}
    opt = RULES[rule]().attach(params.items())
    with patch("neon.engine.calls.owners.BUCKET", bucket), patch("neon.engine.calls.stacks.BUCKET", bucket):
        for step in range(steps):
            for name, (number, layout) in kinds.items():
                missing = step % 4 == 1 and number in (0, 5)
                params[name].grad = None if missing else lay[layout](values(number, step, rank))
            opt.step()
    model = nn.ParameterDict(params)
    pairs = ("left", "right", "rows", "columns", "_basis", "_root")
    return {"strays": [s for s in strays(model, opt) if not s.endswith(pairs)], **everything(model, opt)}


class Model(nn.Module):
    """Matrices alone, whose gradients are given."""

    def __init__(self, *numbers: int) -> None:
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(values(number, -1)) for number in numbers])

    def forward(self, step: int) -> Tensor:
        return torch.stack([(w * values(i, step)).sum() for i, w in enumerate(self.weights)]).sum()


def missing() -> Any:
    """A gradient that one rank lacks alone is zeros there: in the first step, and later."""
    found = []
    for lacks in (True, False):
        lay, kinds = spread(few=True)
        params = {name: nn.Parameter(lay[layout](values(number, -1))) for name, (number, layout) in kinds.items()}
        opt = Orthogonal(gradient_clip_norm=1.0).attach(params.items())
        for step in range(4):
            for name, (number, layout) in kinds.items():
                params[name].grad = grad = lay[layout](values(number, step))
                here = (step + number) % dist.get_world_size() == dist.get_rank() and step != 1
                if here and lacks:
                    params[name].grad = None
                elif here:
                    grad.to_local().zero_()  # type: ignore[attr-defined]
            opt.step()
        found.append(everything(nn.ParameterDict(params), opt))
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
    return found[0]


def shared() -> Any:
    """Whole matrices under DistributedDataParallel, whose work ranks share out: the bits are those of each alone."""
    several = dist.get_world_size() > 1
    found = {}
    for share in (False, several):
        model = Model(0, 1, 2, 3, 4, 5)
        run = DistributedDataParallel(model) if several else model
        opt = Twice(gradient_clip_norm=1.0).attach(model, share_matrices=share)
        with patch("neon.engine.calls.owners.BUCKET", 1_000):
            for step in range(3):
                run(step).backward()
                opt.step()
                opt.zero_grad()
        found[share] = everything(model, opt)
    assert all(torch.equal(value, found[several][name]) for name, value in found[False].items())
    return found[several]


def refused_matrices() -> Any:
    """What cannot be had of matrices that ranks hold together, refused by name on all of them."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    whole = nn.Parameter(torch.ones(4, 4))

    def refused(act: Callable[[], Any]) -> str:
        try:
            act()
        except (ValueError, RuntimeError) as error:
            return str(error)
        return "nothing"

    def stepped(placement: Any) -> Callable[[], Any]:
        def step() -> None:
            p = nn.Parameter(distribute_tensor(torch.ones(4, 4), mesh, [placement], src_data_rank=None))
            p.grad = distribute_tensor(torch.ones(4, 4), mesh, [placement], src_data_rank=None)
            Orthogonal().attach([p]).step()

        return step

    def unlike() -> None:
        whole.grad = torch.ones(4, 4) if dist.get_rank() else None
        Orthogonal().attach({"w": whole}.items(), share_matrices=True).step()

    flat = FullyShardedDataParallel(Model(0, 1), device_id=torch.device("cpu"), use_orig_params=True)
    return {
        "flat": refused(lambda: Orthogonal().attach(flat)),
        "placements": refused(stepped(_StridedShard(0, split_factor=2))),
        "unlike": refused(unlike),
        "elementwise": refused(lambda: Adam().attach([whole], share_matrices=True)),
        "partitioned": refused(lambda: Orthogonal().attach([whole], share_matrices=True, partitioned=True)),
        "in backward": refused(lambda: Orthogonal().attach([whole], share_matrices=True, in_backward=True)),
    }
