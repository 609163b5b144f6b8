"""Tasks small enough to be trained in a test, and a comparison of them in one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from neon.compare import Comparison, Result, Settings, Task, parse_optimizer


def blobs() -> Task:
    """Three clouds of points and a network with dropout and batch statistics."""
    generator = torch.Generator().manual_seed(7)
    labels = torch.arange(90) % 3
    points = torch.randn(90, 4, generator=generator) + 2.0 * nn.functional.one_hot(labels, 4)
    return Task(
        model=lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3)),
        train=(points[:60], labels[:60]),
        validation=(points[60:], labels[60:]),
        name="blobs",
    )


def train(
    directory: Path,
    *optimizers: str,
    task: Task | None = None,
    epochs: int = 4,
    seed: int = 0,
    watch: Callable[[Result, float], None] = lambda _result, _position: None,
) -> list[Result]:
    specs = [parse_optimizer(text) for text in optimizers]
    settings = Settings(epochs=epochs, batch_size=16, seed=seed)
    return Comparison(task or blobs(), specs, settings, directory).run(watch)


def untimed(result: Result) -> Result:
    return replace(result, step_us=[])


def line(slope: float) -> Task:
    """A line through the origin with squared error; "right" means within a tenth."""
    x = torch.linspace(-1, 1, 32).unsqueeze(1)
    return Task(
        model=lambda: nn.Linear(1, 1),
        train=(x, slope * x),
        validation=(x, slope * x),
        loss=nn.functional.mse_loss,
        accuracy=lambda outputs, targets: ((outputs - targets).abs() < 0.1).float().mean(),
        name="line",
    )
