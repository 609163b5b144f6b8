"""Rules of matrices for tests of what is a matrix, and what an optimizer takes each parameter for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from neon.engine.tensors.weight_matrices import Matrices
from neon.optimizers import Optimizer
from neon.optimizers.matrix_functions import orthogonalize


def momentum_descent(w, g, momentum_buffer, *, lr=0.02, momentum=0.95):  # type: ignore[no-untyped-def]
    momentum_buffer = momentum * momentum_buffer + g
    return w - lr * orthogonalize(momentum_buffer, steps=0), momentum_buffer


class Whole(Optimizer):
    """A rule that says it works on matrices."""

    of_matrices = True
    rule = staticmethod(momentum_descent)

    def scale_of(self, shape: tuple[int, int], values: Mapping[str, Any]) -> float:
        rows, columns = shape
        return max(1, rows / columns) ** 0.5 if values["lr"] else 0


class Shaped(Whole):
    """A rule that has a step for vectors too."""

    @staticmethod
    def rule(w, g, momentum_buffer, *, lr=0.02, momentum=0.95, matrix):  # type: ignore[no-untyped-def]
        momentum_buffer = momentum * momentum_buffer + g
        return w - (
            lr * orthogonalize(momentum_buffer, steps=0) if matrix else 2 * lr * momentum_buffer
        ), momentum_buffer


def fill_gradients(target: nn.Module | list[Tensor]) -> None:
    for param in target.parameters() if isinstance(target, nn.Module) else target:
        param.grad = torch.ones_like(param)


def taken_for(optimizer: Any) -> dict[str, Matrices | None]:
    """What each parameter is taken for in a step, by its name: its matrices, None under a rule that has none."""
    for group in optimizer.param_groups:
        fill_gradients(group["params"])
    optimizer.step()
    groups = {id(param): group for group in optimizer.param_groups for param in group["params"]}
    planned = zip(optimizer._stepper._plan.items, optimizer._stepper._planned.params, strict=True)
    return {
        item.name: item.matrices if optimizer._rules.leaf_of(groups[id(param)]).of_matrices else None
        for item, param in planned
    }


def matrices(optimizer: Any) -> dict[str, Matrices]:
    """The same of those that have some."""
    return {name: found for name, found in taken_for(optimizer).items() if found is not None}
