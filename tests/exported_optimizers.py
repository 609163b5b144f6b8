"""Every exported optimizer over the same parameters, and what tests do with it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from constructors import OPTIMIZERS, RULES, described
from torch import nn


def _apart(name: str) -> bool:
    """Whether each parameter of a rule is updated by itself: it has no number of many, and no sum over them."""
    optimizer = described(name)
    return not optimizer.settings(optimizer.group()).program.wide


APART = [name for name in RULES if _apart(name)]
every = pytest.mark.parametrize("name", OPTIMIZERS)
# Without the mapping, whose norm reaches over groups: where one comes or goes, all others move otherwise.
every_rule = pytest.mark.parametrize("name", RULES)
every_rule_apart = pytest.mark.parametrize("name", APART)


def parameters(seed: int = 0) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return {n: nn.Parameter(torch.rand(3, 2, generator=generator) - 0.5) for n in ("a", "b", "c")}


def attached(name: str) -> tuple[list[nn.Parameter], Any]:
    params = parameters()
    return [*params.values()], described(name).attach(params.items())


def give(params: list[Any], step: int) -> None:
    for number, p in enumerate(params):
        generator = torch.Generator().manual_seed(10 * step + number)
        p.grad = torch.randn(p.shape, generator=generator)


def train(params: list[Any], optimizer: Any, steps: range) -> None:
    for step in steps:
        give(params, step)
        optimizer.step()


def everything(optimizer: Any) -> list[torch.Tensor]:
    """Copies of parameters and states, in order."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    states = [optimizer.state[p] for p in params if p in optimizer.state]
    return [t.detach().clone() for t in (*params, *(state[key] for state in states for key in sorted(state)))]


def assert_same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert len(found) == len(expected)
    assert all(map(torch.equal, found, expected))
