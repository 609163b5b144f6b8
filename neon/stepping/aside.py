"""The trained weights of parameters that have the values of their averages, and what must not be done meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from neon.engine.program.options import AVERAGE
from neon.stepping.in_place import has_values_of, refuse_while_averaged
from neon.stepping.sharding import local


class Aside:
    """What an optimizer has put aside: nothing, while weights are in their places.

    `in_place` while averages are in the places of weights; not in a copy, nor after loading, where these are given
    back. `given` are parameters that have other values than their averages again.
    """

    in_place = False

    def __init__(self, weights: dict[Tensor, Tensor] | None = None) -> None:
        self.weights = weights or {}
        self.given: list[Tensor] = []

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "in_place"}

    def put(self, weights: dict[Tensor, Tensor]) -> None:
        """Averages stand in the places of these weights from now on."""
        self.weights, self.given, self.in_place = weights, [], True

    def leave(self) -> None:
        """The weights are back."""
        self.weights, self.given, self.in_place = {}, [], False

    def check(self, states: Mapping[Any, Any]) -> None:
        """Refuse to go on where averages stand in the place of weights, or came there with a model loaded too late."""
        if self.in_place:
            refuse_while_averaged()
        averages = [(param, states.get(param, {}).get(AVERAGE)) for param in self.given]
        if any(average is not None and has_values_of(local(p), local(average)) for p, average in averages):
            raise RuntimeError(
                "The model has averages for weights: it was saved within averaged(), and loaded after the optimizer, "
                "whose checkpoint has the weights. Load the model first, then the optimizer."
            )

    def check_step(self, states: Mapping[Any, Any]) -> None:
        """The same before a step, after which parameters have what it made of them."""
        self.check(states)
        self.given = []

    def give_back(self, states: Mapping[Any, Any]) -> None:
        """Put trained weights, of a checkpoint or of a copy, where they belong."""
        with torch.no_grad():
            for param, weight in self.weights.items():
                average = states.get(param, {}).get(AVERAGE)
                local(param).copy_(local(weight))
                if average is not None and not has_values_of(local(param), local(average)):
                    self.given.append(param)
        self.weights = {}
