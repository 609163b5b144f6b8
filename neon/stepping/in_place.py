"""Averages of weights: put in the place of the weights for a while."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

# The averages that stand in the place of weights now, and the parameters that have their values, by identity.
_in_place: set[int] = set()


def stand_in_place(tensors: Iterable[Tensor]) -> bool:
    """Whether one of these is an average that stands in the place of its weight, or a parameter that has its values."""
    return bool(_in_place) and any(id(tensor) in _in_place for tensor in tensors)


@contextmanager
def in_place_of(pairs: Iterable[tuple[Tensor, Tensor]]) -> Iterator[list[Tensor]]:
    """Within the context each parameter of the pairs has the values of its average, and afterwards its own again.

    The weights, which it gives, are copied aside, and written where they are: whoever holds the parameters sees
    the averages. Raises `RuntimeError` where there is no average, and at the end if a parameter has been written
    to: the weights are put back all the same.
    """
    pairs = list(pairs)
    if not pairs:
        raise RuntimeError(
            "There is no average of weights: give the optimizer a decay, weight_average=0.999, and make a step."
        )
    weights = [param.detach().clone() for param, _ in pairs]
    formats, placed = [param.dtype for param, _ in pairs], {id(tensor) for pair in pairs for tensor in pair}

    def put_back() -> str:
        """Put the weights where they belong; says whether something else than averages was there."""
        _in_place.difference_update(placed)
        written = sum(not has_values_of(*pair, form) for pair, form in zip(pairs, formats, strict=True))
        for (param, _), weight in zip(pairs, weights, strict=True):
            param.detach().copy_(weight)
        return (
            f"Within averaged() {written} of {len(pairs)} parameters were written to. The weights of before are back: "
            "what was loaded into the model, load again, outside of averaged()."
        ) * bool(written)

    try:
        _in_place.update(placed)
        for param, average in pairs:
            param.detach().copy_(average)
        yield weights
    except BaseException:
        if message := put_back():
            warnings.warn(message, RuntimeWarning, stacklevel=4)
        raise
    if message := put_back():
        raise RuntimeError(message)


def has_values_of(param: Tensor, average: Tensor, form: torch.dtype | None = None) -> bool:
    """Whether a parameter has the values of its average, which were rounded to a format on the way."""
    with torch.no_grad():
        placed = average.to(param.device, form or param.dtype).to(param.dtype)
        return param.shape == placed.shape and torch.allclose(param, placed, rtol=0, atol=0, equal_nan=True)


def refuse_while_averaged() -> None:
    """Refuse what would take averages for the weights: a step, a load, or another `averaged`."""
    raise RuntimeError("The averages stand in the place of the weights: leave averaged() before you go on.")
