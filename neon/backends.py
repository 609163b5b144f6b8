"""The backend object that neon's optimizers and layers know as `be`: batch size, arrays, functions."""

from __future__ import annotations

from typing import Any

import torch

from neon.arguments import positive_integer

__all__ = ["Backend", "gen_backend"]


class Backend:
    """`bsz`, the batch size, and torch's functions by name: `be.zeros_like`, `be.sqrt`, `be.square`, ..."""

    def __init__(self, batch_size: int = 1) -> None:
        self.bsz = batch_size

    @property
    def bsz(self) -> int:
        """The number of samples in a minibatch, by which `optimize` divides summed gradients."""
        return self._bsz

    @bsz.setter
    def bsz(self, value: int) -> None:
        self._bsz = positive_integer("bsz", value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(torch, name)

    def __repr__(self) -> str:
        return f"Backend(batch_size={self.bsz})"


# The backend of every optimizer that is given none of its own.
default = Backend()


def gen_backend(batch_size: int = 1, rng_seed: int | None = None) -> Backend:
    """Set the batch size that all optimizers divide summed gradients by, and torch's seed if given."""
    default.bsz = batch_size
    if rng_seed is not None:
        torch.manual_seed(rng_seed)
    return default
