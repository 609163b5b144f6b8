"""How a batch looks at a step: its last stage, which also sums what there is to see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neon.engine.batch import Batch
from neon.engine.observation import LARGEST, SUMS, Seen
from neon.engine.program.graph import Node
from neon.engine.program.kernel import Kernel


class Looks:
    """The last stage of an observed kernel over the tables of a batch, whose stages are the same up to that one.

    `looked` says whether the step that is being made is looked at.
    """

    looked = False

    def __init__(self, batch: Batch, kernel: Kernel, executable: Any) -> None:
        assert kernel.observed is not None
        assert tuple(kernel.observed.sums) == SUMS[1 : 1 + len(kernel.observed.sums)]
        self._batch, self._kernel, self._executable, self._sums = batch, kernel, executable, kernel.observed.sums
        with self._in_place():
            self._last = batch.make_pass(len(kernel.stages) - 1)
        partials, _ = batch.left_to_see(self._last)
        parts = len(partials) // max(1, len(batch.chunks))  # of a chunk, each with a line of its own
        chunks = map(batch.chunks_of, range(len(batch.items)))
        self._lengths = batch.placed_here(np.array([parts * (lines.stop - lines.start) for lines in chunks]))
        self._places, self._rows = batch.placed_here(batch.places_in_plan), batch.placed_here(batch.row_of)
        self._sizes = batch.placed_here(batch.sizes)
        scalars = kernel.stages[-1].scalars
        self._columns = {name: scalars.index(node) for name, node in kernel.observed.numbers.items()}

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        """Have the batch go by the observed kernel."""
        batch = self._batch
        plain = batch.kernel, batch.executable, batch.passes
        batch.kernel, batch.executable = self._kernel, self._executable
        try:
            yield
        finally:
            batch.kernel, batch.executable, batch.passes = plain

    def run(self, sums: dict[Node, Any]) -> Seen:
        """Launch the last stage, with what belongs before it; `sums` are the results of reductions."""
        batch = self._batch
        with self._in_place():
            batch.passes = [*batch.passes[:-1], self._last]
            batch.forget_numbers()
            batch.run(len(self._kernel.stages) - 1, sums)
            return self._seen()

    def _seen(self) -> Seen:
        partials, scalars = self._batch.left_to_see(self._last)
        sums = torch.zeros(len(self._lengths), len(SUMS), dtype=torch.float64, device=partials.device)
        sums[:, 0] = self._sizes
        sums[:, 1 : 1 + len(self._sums)] = self._of_tensors(partials, "sum")
        sums[:, LARGEST] = self._of_tensors(partials[:, LARGEST - 1].contiguous(), "max")
        numbers = scalars.index_select(0, self._rows)  # a copy, as all of it is: the tables are the next step's
        return Seen(self._places, sums, numbers, self._columns, "clipped" in self._sums, self._batch.reach)

    def _of_tensors(self, of_chunks: Tensor, kind: str) -> Tensor:
        """What those of its chunks come to for each tensor; of none 0."""
        return torch.segment_reduce(of_chunks, kind, lengths=self._lengths, initial=0, unsafe=True)
