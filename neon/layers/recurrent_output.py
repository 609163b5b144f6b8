"""Layers that end a sequence, (N, T, features): RecurrentSum, RecurrentMean, RecurrentLast."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from neon.layers.layer import Layer
from neon.layers.shapes import Sizes
from neon.layers.steps import sequences, zeros_in_steps


class RecurrentOutput(Layer):
    """What they share: they take what a recurrent layer takes. `of_steps` makes (N, features) of (N, T, features)."""

    of_steps: Callable[[Tensor], Tensor]

    def forward(self, x: Tensor) -> Tensor:
        return self.of_steps(sequences(self, x))

    def blank(self, sizes: Sizes) -> Tensor:
        return zeros_in_steps(super().blank((1,)), sizes)


class RecurrentSum(RecurrentOutput):
    """The sum of the steps of a sequence: (N, T, features) becomes (N, features)."""

    of_steps = staticmethod(lambda x: x.sum(1))


class RecurrentMean(RecurrentOutput):
    """The mean of the steps of a sequence: (N, T, features) becomes (N, features)."""

    of_steps = staticmethod(lambda x: x.mean(1))


class RecurrentLast(RecurrentOutput):
    """The last step of a sequence: (N, T, features) becomes (N, features)."""

    of_steps = staticmethod(lambda x: x[:, -1])
