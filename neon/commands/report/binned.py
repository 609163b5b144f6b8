"""Grids of many steps in as many columns as a figure can show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Columns of a heat map, at most: each has two or more of its pixels.
MOST_COLUMNS = 300


@dataclass(frozen=True)
class Binned:
    """A grid whose columns stand for one or more steps, each for as many as the next (the last one for fewer).

    Attributes:
        values: the median over a column's steps of the values that are finite and above 0; NaN where there are none.
        nan, infinite: whether one of a column's steps has such a value.
        zero: whether all values of a column that are no NaN and not infinite are 0.
        absent: whether no step of a column has updated the row.
        steps: the first step of each column.
        width: how many steps a column stands for.
    """

    values: NDArray[np.float64]
    nan: NDArray[np.bool_]
    infinite: NDArray[np.bool_]
    zero: NDArray[np.bool_]
    absent: NDArray[np.bool_]
    steps: NDArray[np.int64]
    width: int


def binned(
    grid: NDArray[np.float64], there: NDArray[np.bool_], steps: NDArray[np.int64], most: int = MOST_COLUMNS
) -> Binned:
    """Put neighbouring steps together where there are more than `most`.

    A median is not moved by one step in which a norm explodes, so neither is the scale of colours; it is the same of
    numbers and of their logarithms, but for the mean that an even number of them takes, which is that of logarithms.
    """
    width = -(-len(steps) // most)
    columns = -(-len(steps) // width)
    filled = ((0, 0), (0, columns * width - len(steps)))
    shape = (len(grid), columns, width)
    there = np.pad(there, filled).reshape(shape)
    values = np.pad(grid, filled).reshape(shape)
    positive = there & np.isfinite(values) & (values > 0)
    logarithms = np.log(values, where=positive, out=np.full(shape, np.nan))
    any_positive = positive.any(axis=2)
    medians = np.full(shape[:2], np.nan)
    medians[any_positive] = np.exp(np.nanmedian(logarithms[any_positive], axis=1))
    return Binned(
        values=medians,
        nan=np.any(there & np.isnan(values), axis=2),
        infinite=np.any(there & np.isinf(values), axis=2),
        zero=np.any(there & (values == 0), axis=2) & ~any_positive,
        absent=~np.any(there, axis=2),
        steps=steps[::width],
        width=width,
    )
