"""A training of seconds and its loop written by hand, which trainers have to equal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import DataLoader, TensorDataset

import neon.torch
from neon.optimizers import Adam, AdamW, GradientDescentMomentum, MultiOptimizer, Muon, Prodigy, RMSProp

Make = Callable[[nn.Module], torch.optim.Optimizer]


def many_rules() -> MultiOptimizer:
    """A norm over all of them, and one of a rule's own."""
    return MultiOptimizer(
        {
            "default": Adam(learning_rate=0.01, gradient_clip_norm=0.5),
            "Bias": RMSProp(learning_rate=0.01),
            "2": GradientDescentMomentum(0.1, 0.9, wdecay=1e-3),
        },
        gradient_clip_norm=0.8,
    )


def sums() -> MultiOptimizer:
    """Two that find the size of their steps from all of their tensors, beside a plain rule."""
    return MultiOptimizer(
        {"default": Prodigy(d0=0.01), "Bias": Adam(learning_rate=0.01), "2": Prodigy(d0=0.02, growth_rate=2.0)}
    )


def hidden_matrices() -> MultiOptimizer:
    return MultiOptimizer(
        {"default": AdamW(learning_rate=0.01), "HiddenMatrix": Muon(learning_rate=0.02)}, gradient_clip_norm=0.8
    )


OPTIMIZERS: dict[str, Make] = {
    "one rule": lambda model: AdamW(learning_rate=0.02, wdecay=0.1).attach(model),
    "many rules": lambda model: many_rules().attach(model),
    "sums over tensors": lambda model: sums().attach(model),
    "hidden matrices": lambda model: hidden_matrices().attach(model),
    "drop-in class": lambda model: neon.torch.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True),
}


def network() -> nn.Module:
    """Two layers, the same in every run."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))


def batches() -> DataLoader[Any]:
    """Six minibatches of three classes, in one order."""
    labels = torch.arange(96) % 3
    points = torch.randn(96, 8, generator=torch.Generator().manual_seed(2)) + nn.functional.one_hot(labels, 8)
    return DataLoader(TensorDataset(points, labels), batch_size=16)


# Of the learning rate, at each of twelve steps: up over four, then down.
FACTORS = [min((step + 1) / 4, 1 / (1 + 0.1 * step)) for step in range(12)]


def warm_up(optimizer: torch.optim.Optimizer) -> LRScheduler:
    return LambdaLR(optimizer, lambda step: FACTORS[step % 12])


def by_hand(
    make: Make,
    *,
    schedule: Callable[[torch.optim.Optimizer], LRScheduler] | None = None,
    accumulate: int = 1,
    clip: Callable[[Any], Any] = lambda params: None,
    precision: torch.dtype = torch.float32,
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The model and its optimizer after two epochs of a plain loop."""
    model = network()
    optimizer = make(model)
    scheduler = schedule(optimizer) if schedule else None
    scaler = torch.amp.GradScaler("cpu", enabled=precision == torch.float16)
    for number, (points, labels) in enumerate([*batches(), *batches()], 1):
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            loss = cross_entropy(model(points), labels)
        scaler.scale(loss / accumulate).backward()
        if number % accumulate == 0:
            scaler.unscale_(optimizer)
            clip(model.parameters())
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            if scheduler:
                scheduler.step()
    return model, optimizer


def contents(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Parameters and states by name, and the numbers of groups that persist."""
    found = dict(model.named_parameters())
    found |= {
        f"{name}: {key}": value for name, param in [*found.items()] for key, value in optimizer.state[param].items()
    }
    for place, group in enumerate(optimizer.param_groups):
        numbers = {name: group[name] for name in ("d", "d_max", "d_numerator", "k") if name in group}
        found |= {f"group {place}: {name}": torch.tensor(value) for name, value in numbers.items()}
    return {name: value.detach().clone() for name, value in found.items()}


def assert_same(
    found: tuple[nn.Module, torch.optim.Optimizer],
    expected: tuple[nn.Module, torch.optim.Optimizer],
    tolerance: float = 0.0,
) -> None:
    """Equal parameters and states: bit for bit, where no tolerance is given."""
    torch.testing.assert_close(contents(*found), contents(*expected), rtol=tolerance, atol=tolerance)
