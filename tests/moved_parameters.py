"""Mappings of plain descents, how far a step moves each parameter, and the rows of printed tables."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from neon.optimizers import GradientDescentMomentum, MultiOptimizer, Optimizer


def sgd(rate: float, **options: Any) -> GradientDescentMomentum:
    return GradientDescentMomentum(rate, 0.0, **options)


def multi(rates: dict[str, float | None], **options: Any) -> MultiOptimizer:
    return MultiOptimizer({key: rate and sgd(rate) for key, rate in {"default": 1.0, **rates}.items()}, **options)


def give_gradients(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)


def moves(module: nn.Module, step: Callable[[], Any]) -> dict[str, float]:
    """How far one step moves each parameter; it must move all of its elements alike."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    step()
    found = {}
    for name, parameter in module.named_parameters():
        assert parameter.unique().numel() == 1
        found[name] = round(-parameter.flatten()[0].item(), 6)
    return found


def moved(module: nn.Module, opt: Optimizer, how: str) -> dict[str, float]:
    give_gradients(module)
    return moves(module, opt.attach(module).step if how == "attach" else lambda: opt.optimize([module], 0))


def rows(text: str) -> list[list[str]]:
    """The lines of a printed table, in columns, without the head."""
    return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()[2:]]
