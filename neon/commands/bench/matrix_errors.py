"""How far whole updates of matrices are from an iteration in float64, by the spectrum of the gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from neon.commands.bench.tensor_shapes import Shapes
from neon.commands.bench.work import Work, make_work

# From 1 down to these, each singular value as many times less as the one before; one at random has no such law.
SMALLEST = {"1e-6 to 1": 1e-6, "1e-3 to 1": 1e-3, "1": 1.0}
RANDOM = "at random"


def update_errors(
    shape: Sequence[int],
    optimizers: Mapping[str, Callable[[Work], torch.optim.Optimizer]],
    numbers: Mapping[str, Any],
    device: str = "cpu",
) -> dict[str, dict[str, float]]:
    """By spectrum and optimizer, the distance of a first update from float64's, by the size of that (Frobenius)."""
    found: dict[str, dict[str, float]] = {}
    for spectrum, gradient in gradients(shape).items():
        gradient = gradient.to(device)
        exact = newton_schulz(gradient.double(), numbers["ns_coefficients"], numbers["ns_steps"])
        exact *= max(1.0, shape[0] / shape[1]) ** 0.5
        found[spectrum] = {}
        for who, make in optimizers.items():
            work = make_work(Shapes((tuple(shape),), rounds=0), device=device)
            optimizer = make(work)
            [group], [param] = optimizer.param_groups, work.params
            group["lr"], group["weight_decay"] = 1.0, 0.0
            param.detach().zero_()
            param.grad = gradient
            optimizer.step()
            found[spectrum][who] = float((-param.detach() - exact).norm() / exact.norm())
    return found


def gradients(shape: Sequence[int]) -> dict[str, Tensor]:
    """One of each spectrum in float32, whose directions are random, the same in every call."""
    generator = torch.Generator().manual_seed(0)
    side = min(shape)
    drawn = [torch.randn(n, side, generator=generator, dtype=torch.float64) for n in shape]
    left, right = (torch.linalg.qr(each)[0] for each in drawn)
    found = {
        name: (left * torch.logspace(0, torch.tensor(low).log10().item(), side, dtype=torch.float64)) @ right.T
        for name, low in SMALLEST.items()
    }
    found[RANDOM] = torch.randn(tuple(shape), generator=generator, dtype=torch.float64)
    return {name: gradient.float() for name, gradient in found.items()}


def newton_schulz(x: Tensor, coefficients: Sequence[float], steps: int) -> Tensor:
    """X ← aX + (bA + cA²)X with A = XXᵀ, of X = x/‖x‖, as it is written."""
    a, b, c = coefficients
    x = x / x.norm()
    if x.shape[0] > x.shape[1]:
        return newton_schulz(x.T, coefficients, steps).T
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x
