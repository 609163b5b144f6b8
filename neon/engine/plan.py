"""The plan: which tensors go into which launch, kept from step to step while it still holds."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from operator import is_
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neon.engine.backends import forced
from neon.engine.batch import Batch, Item, Settings
from neon.engine.checks import check_gradient, check_parameter, check_rounding, check_states
from neon.engine.graph import Node
from neon.engine.kernel import Formats, lower
from neon.engine.scalars import Rows


class Plan:
    """Everything that a step needs and that does not change from step to step.

    `steps[i]` is a view that counts the updates of item i; all of them are one vector, so that one
    addition counts them all.
    """

    def __init__(self, items: Sequence[Item], grads: Sequence[Tensor], settings: Sequence[Settings]) -> None:
        self.items = list(items)
        for item in items:
            check_parameter(item.name, item.param)
            check_states(item)
            check_rounding(item, settings[item.group].width)
        self.check(grads)
        self.settings = list(settings)
        self._backend = forced()
        self._params = [item.param for item in items]
        self._states = [state for item in items for state in item.states]
        self._state_addresses = [s.data_ptr() for s in self._states]
        self._state_sizes = [s.numel() for s in self._states]
        self._addresses = [p.data_ptr() for p in self._params]
        counts = torch.tensor([float(item.step) for item in items], dtype=torch.float32)
        self.steps = list(counts.unbind())
        self._counts = counts
        self.totals: dict[Hashable, float] = {}
        self._steps = counts.numpy()
        self._expected_steps = self._steps.tobytes()
        self._contiguous = [p.is_contiguous() for p in self._params]
        self._strided = [(p, p.stride()) for p in self._params if not p.is_contiguous()]
        self._sizes = [p.numel() for p in self._params]
        self._grad_dtypes = [grad.dtype for grad in grads]
        self._batches = self._make_batches(grads)

    def _make_batches(self, grads: Sequence[Tensor]) -> list[Batch]:
        members: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for position, (item, grad) in enumerate(zip(self.items, grads, strict=True)):
            settings = self.settings[item.group]
            formats = Formats(item.param.dtype, grad.dtype, tuple(s.dtype for s in item.states), settings.width)
            members[settings.program, formats, item.param.device].append(position)
        return [
            Batch(lower(program, formats), [self.items[p] for p in positions], positions, self.settings)
            for (program, formats, _), positions in members.items()
        ]

    def holds(self, params: Sequence[Tensor], states: Sequence[Tensor | None], grads: Sequence[Tensor]) -> bool:
        """Whether the plan still describes these tensors."""
        return (
            len(params) == len(self._params)
            and len(states) == len(self._states)
            and all(map(is_, params, self._params))
            and all(map(is_, states, self._states))
            and list(map(Tensor.data_ptr, params)) == self._addresses
            and list(map(Tensor.numel, params)) == self._sizes
            and list(map(Tensor.is_contiguous, params)) == self._contiguous
            and all(p.stride() == stride for p, stride in self._strided)
            and [g.dtype for g in grads] == self._grad_dtypes
            and list(map(Tensor.data_ptr, self._states)) == self._state_addresses
            and list(map(Tensor.numel, self._states)) == self._state_sizes
            and self._steps.tobytes() == self._expected_steps
            and self._backend == forced()
        )

    def step(self, grads: Sequence[Tensor], elsewhere: Mapping[int, float] | None = None) -> None:
        """Update every parameter once.

        `elsewhere` gives sums of squares of gradients that this plan does not update but that count in a
        norm, by the id of the norm's owner.
        """
        # A kernel reads by address: a gradient that has become another size would be read past its end.
        if list(map(Tensor.numel, grads)) != self._sizes:
            self.check(grads)
        try:
            for batch in self._batches:
                batch.bind(grads, self._steps)
        except RuntimeError:  # torch has no address of a sparse tensor, say
            self.check(grads)
            raise
        with np.errstate(all="ignore"):
            self._launch(elsewhere or {})
        for batch in self._batches:
            batch.finish()
        # The kernels wrote through addresses: tell autograd, so that the use of a stale value is caught.
        torch.autograd.graph.increment_version(self._params)
        self._counts += 1
        self._expected_steps = self._steps.tobytes()

    def check(self, grads: Sequence[Tensor]) -> None:
        """Refuse, by name, gradients that do not fit their parameters."""
        for item, grad in zip(self.items, grads, strict=True):
            check_gradient(item, grad)

    def _launch(self, elsewhere: Mapping[int, float]) -> None:
        """Run all stages, those with reductions level by level, for their sums reach over launches."""
        sums: dict[Batch, dict[Node, Rows]] = {batch: {} for batch in self._batches}
        self.totals = {}
        levels = max((len(batch.kernel.stages) for batch in self._batches), default=0) - 1
        for level in range(levels):
            reducing = [b for b in self._batches if level < len(b.kernel.stages) - 1]
            for batch in reducing:
                batch.run(level, sums[batch])
            self._sum(reducing, level, elsewhere, sums)
        for batch in self._batches:
            batch.run(len(batch.kernel.stages) - 1, sums[batch])

    def _sum(
        self,
        batches: Sequence[Batch],
        level: int,
        elsewhere: Mapping[int, float],
        sums: dict[Batch, dict[Node, Rows]],
    ) -> None:
        """Sum the partials of each scope, over all launches that it reaches, exactly rounded."""
        parts: dict[Hashable, list[float]] = defaultdict(list)
        if level == 0:  # the norms that options clip by are all taken in the first pass
            for owner, value in elsewhere.items():
                parts[owner].append(value)
        for batch in batches:
            for partials, shares in zip(batch.passes[level].partials.T, batch.scopes[level], strict=True):
                for scope, chunks in shares.items():
                    parts[scope].extend(partials[chunks].tolist())
        self.totals |= {scope: _exact_sum(values) for scope, values in parts.items()}
        for batch in batches:
            for reduction in batch.kernel.stages[level].reductions:
                scopes = (batch.scope_of(position, reduction) for position in batch.first_of_row)
                sums[batch][reduction] = np.array([self.totals[scope] for scope in scopes])


def _exact_sum(values: list[float]) -> float:
    """Σ values rounded once, so that no order of summation shows."""
    try:
        return math.fsum(values)
    except OverflowError:
        return math.inf
