"""Averages of weights: put in the place of the weights for a while."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor


@contextmanager
def in_place_of(pairs: Iterable[tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Within the context each parameter of the pairs has the values of its average, and afterwards its own again.

    The weights are copied aside, and written where they are: whoever holds the parameters sees the averages.
    Raises `RuntimeError` where there is no average.
    """
    pairs = list(pairs)
    if not pairs:
        raise RuntimeError(
            "There is no average of weights: give the optimizer a decay, weight_average=0.999, and make a step."
        )
    weights = [param.detach().clone() for param, _ in pairs]
    try:
        for param, average in pairs:
            param.detach().copy_(average)
        yield
    finally:
        for (param, _), weight in zip(pairs, weights, strict=True):
            param.detach().copy_(weight)


def refuse_while_averaged() -> None:
    """Refuse a step, or another `averaged`, that would take averages for the weights."""
    raise RuntimeError("The averages stand in the place of the weights: leave averaged() before you go on.")
