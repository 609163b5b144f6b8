"""What a step did to each parameter and layer: gradients, weights, updates, what was clipped, what rounding lost."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from neon.statistics.table import Row, StatisticsTable

if TYPE_CHECKING:
    from neon.statistics.lightning_callback import LightningStatistics
    from neon.statistics.trainer_callback import TrainerStatistics

__all__ = ["LightningStatistics", "Row", "StatisticsTable", "TrainerStatistics"]

# What imports a trainer's package, and so only when it is asked for.
_OF_TRAINERS = {"LightningStatistics": "lightning_callback", "TrainerStatistics": "trainer_callback"}


def __getattr__(name: str) -> Any:
    if name not in _OF_TRAINERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_OF_TRAINERS[name]}"), name)
