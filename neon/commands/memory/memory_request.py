"""What ``neon memory`` is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """What the command was asked for, as it was written."""

    model: str
    optimizers: Sequence[str] = ()
    dtype: str | None = None
    ranks: int = 1
    device_memory: str | None = None
    device: str = "cuda"
