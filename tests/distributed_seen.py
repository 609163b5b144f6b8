"""What ranks see of their steps: statistics that all of them have put together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from distributed_models import RULES, STEPS, data_parallel, net, spread, train
from torch import Tensor
from torch.distributed.optim import ZeroRedundancyOptimizer

import neon.torch
from neon.statistics import Row

COLUMNS = (
    "elements", "gradient_norm", "weight_norm", "update_norm", "largest_gradient", "unmoved", "lost", "clip_factors",
    "learning_rate",
)  # fmt: skip


def _numbers_of(table: Iterable[Row] | None) -> dict[str, Tensor]:
    """A table of statistics as numbers to compare."""
    assert table is not None
    return {
        f"{row.parameter} {name}": torch.tensor(value, dtype=torch.float64)
        for row in table
        for name in COLUMNS
        if (value := getattr(row, name)) is not None
    }


def seen(way: str, rule: str) -> Any:
    """Statistics of every second step, which all ranks have, whoever reads them."""
    model = net()
    run = spread(way, model)
    opt = RULES[rule]().attach(model, statistics=2)
    train(run, opt, range(STEPS))
    return _numbers_of(opt.statistics())


def seen_sharing() -> Any:
    """Replicas that share out the work on matrices."""
    model = net()
    run = spread("data parallel", model)
    opt = RULES["orthogonal"]().attach(model, statistics=2, share_matrices=dist.get_world_size() > 1)
    train(run, opt, range(STEPS))
    return _numbers_of(opt.statistics())


def seen_in_backward(way: str) -> Any:
    """The same as each gradient arrives."""
    model = net()
    run = spread(way, model)
    opt = RULES["adam"]().attach(model, statistics=2, in_backward=True)
    train(run, opt, range(STEPS))
    return _numbers_of(opt.statistics())


def seen_without_gradients() -> Any:
    """A step for which no rank has a gradient leaves the ranks together."""
    model = net()
    run = spread("sharded", model)
    opt = RULES["adam"]().attach(model, statistics=True)
    for step in range(STEPS):
        train(run, opt, [step])
        if step == 1:
            opt.zero_grad()
            opt.step()
    return _numbers_of(opt.statistics())


def seen_by_one() -> Any:
    """One rank alone reads; for all parameters of a mesh a step that is looked at exchanges one tensor more."""
    model = net()
    run = spread("sharded", model)
    opt = RULES["adam"]().attach(model, statistics=2)
    exchanged = []
    for step in range(STEPS):
        with mock.patch.object(dist, "all_gather", wraps=dist.all_gather) as gathered:
            train(run, opt, [step])
        exchanged.append(gathered.call_count if dist.get_world_size() > 1 else step % 2)
    found = [_numbers_of(opt.statistics()) if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(found)
    assert found[0] is not None
    return {**found[0], "exchanged": torch.tensor(exchanged)}


def seen_by_zero() -> Any:
    """Each rank sees the parameters that it updates: together they are all."""
    model = net()
    run = data_parallel(model)
    named = [*model.named_parameters()]
    chosen = partial(neon.torch.AdamW, lr=0.05, gradient_clip_norm=0.5, partitioned=True, statistics=True)
    zero = ZeroRedundancyOptimizer(model.parameters(), optimizer_class=chosen)
    train(run, zero, range(STEPS))
    names = {id(param): name for name, param in named}
    own = [names[id(param)] for group in zero.optim.param_groups for param in group["params"]]
    table = zero.optim.statistics()
    rows = [replace(row, parameter=name) for row, name in zip(table or (), own, strict=True)]
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, rows)
    found = sorted((row for rows in gathered for row in rows), key=lambda row: row.parameter)
    assert [row.parameter for row in found] == sorted(names.values())
    return _numbers_of(found)
