"""Sides: the matrices of a tensor, and how passes over elements cut them into chunks of whole rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from neon.engine.program.kernel import CHUNK
from neon.engine.program.spaces import COLUMNS, MATRIX, ROWS, TENSOR, Space
from neon.engine.tensors.weight_matrices import Matrices

# A chunk has so many rows at least where a matrix is cut, and no matrix is cut into more parts than this.
_LEAST_ROWS, _MOST_PARTS = 64, 256


class Sides(NamedTuple):
    """How many matrices the last two dimensions of a tensor make, of how many rows and columns, cut after `height`."""

    matrices: int
    rows: int
    columns: int
    height: int

    @classmethod
    def of(cls, shape: Sequence[int], matrices: Matrices | None = None) -> Sides:
        """The sides of a tensor; they depend on its shape alone, and so does the order of its sums.

        The matrices are those that are given, all of one shape and in order, else those of its last two dimensions.
        """
        *others, rows, columns = shape if matrices is None else matrices.shapes(shape)[0]
        height = max(_LEAST_ROWS, -(-CHUNK // max(columns, 1)), -(-rows // _MOST_PARTS))
        return cls(math.prod(others), rows, columns, min(height, max(rows, 1)))

    @property
    def elements(self) -> int:
        """How many elements there are."""
        return self.matrices * self.rows * self.columns

    @property
    def length(self) -> int:
        """How many sums of rows and columns there are."""
        return self.matrices * (self.rows + self.columns * self.parts)

    def uncut(self) -> Sides:
        """The same with all rows of a matrix in one chunk."""
        return self._replace(height=max(self.rows, 1))

    @property
    def parts(self) -> int:
        """How many chunks a matrix is cut into."""
        return max(1, -(-self.rows // self.height))

    def count(self, space: Space) -> int:
        """How many values there are of a space."""
        counts = {TENSOR: 1, MATRIX: self.matrices}
        counts |= {ROWS: self.matrices * self.rows, COLUMNS: self.matrices * self.columns}
        return counts[space]

    def shape(self, space: Space) -> tuple[int, int, int]:
        """The values of a space beside the elements as (matrices, rows, columns)."""
        shapes = {TENSOR: (1, 1, 1), MATRIX: (self.matrices, 1, 1)}
        shapes |= {ROWS: (self.matrices, self.rows, 1), COLUMNS: (self.matrices, 1, self.columns)}
        return shapes[space]

    def chunks(self) -> npt.NDArray[np.int64]:
        """Where chunks begin, and how many elements they have: parts of a matrix, or several whole ones."""
        size = self.rows * self.columns
        if not self.matrices * size:
            return np.empty((0, 2), np.int64)
        if self.parts == 1:
            step = max(1, CHUNK // size) * size
            starts = np.arange(0, self.matrices * size, step)
            return np.stack((starts, np.minimum(step, self.matrices * size - starts)), 1)
        firsts = np.arange(0, self.rows, self.height)
        lengths = np.minimum(self.height, self.rows - firsts) * self.columns
        starts = (np.arange(self.matrices)[:, None] * size + firsts * self.columns).ravel()
        return np.stack((starts, np.tile(lengths, self.matrices)), 1)
