"""The trained weights of parameters in whose place their views stand, and what must not be done meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from neon.stepping.in_place import InPlace, Mark, Viewed, refuse_in_place
from neon.stepping.sharding import local

# Parameters with what their views are computed from.
Views = Iterable[tuple[Tensor, Viewed]]


class Aside:
    """What an optimizer has put aside: nothing, while weights are in their places.

    `in_place` while views are in the places of weights; not in a copy, nor after loading, where these are given
    back. `given` are parameters that have other values than their views again, with marks of these.
    """

    in_place: InPlace | None = None

    def __init__(self, weights: dict[Tensor, Tensor] | None = None) -> None:
        self.weights = weights or {}
        self.given: dict[Tensor, Mark] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "in_place"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        given = state.get("given")
        vars(self).update(state, given=given if isinstance(given, dict) else {})  # earlier versions had a list

    def put(self, weights: dict[Tensor, Tensor], in_place: InPlace) -> None:
        """Views stand in the places of these weights from now on."""
        self.weights, self.given, self.in_place = weights, {}, in_place

    def put_back(self) -> str:
        """The weights are put back; says whether something else than views was there."""
        shown, self.weights, self.given = self.in_place, {}, {}
        self.in_place = None
        return "" if shown is None else shown.put_back()

    def check(self) -> None:
        """Refuse to go on where views stand in the place of weights, or came there with a model loaded too late."""
        if self.in_place is not None:
            refuse_in_place(self.in_place.way)
        if any(mark.fits(local(param)) for param, mark in self.given.items()):
            raise RuntimeError(
                "The model has for weights what these are at evaluation, such as averages: it was saved there, and "
                "loaded after the optimizer, whose checkpoint has the weights. Load the model first, then the "
                "optimizer."
            )

    def check_step(self) -> None:
        """The same before a step, after which parameters have what it made of them."""
        self.check()
        self.given = {}

    def give_back(self, views: Callable[[], Views]) -> None:
        """Put trained weights, of a checkpoint or of a copy, where they belong, and mark what their views would be."""
        if not self.weights:
            return
        with torch.no_grad():
            for param, weight in self.weights.items():
                local(param).copy_(local(weight))
        viewed = {param: each for param, each in views() if param in self.weights}
        shown = InPlace([*viewed.values()], "load_state_dict()")
        shown.put_back()
        marks = dict(zip(viewed, shown.marks, strict=True))
        self.given = {param: mark for param, mark in marks.items() if not mark.fits(local(param))}
        self.weights = {}
