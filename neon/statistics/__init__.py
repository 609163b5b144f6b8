"""What a step did to each parameter and layer: gradients, weights, updates, what was clipped, what rounding lost."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from neon.statistics.asked import Statistics

if TYPE_CHECKING:
    from neon.statistics.lightning_callback import LightningStatistics
    from neon.statistics.table import Row, StatisticsTable
    from neon.statistics.trainer_callback import TrainerStatistics

__all__ = ["LightningStatistics", "Row", "Statistics", "StatisticsTable", "TrainerStatistics"]

# What optimizers do not need to be made, by the module that has it; the last two import a trainer's package.
_LATER = {
    "Row": "row",
    "StatisticsTable": "table",
    "LightningStatistics": "lightning_callback",
    "TrainerStatistics": "trainer_callback",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
