"""Step counts on the host: how often each tensor has been updated, all of them in one vector."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from neon.engine.settings import Item

# Up to here float32 holds every whole number.
EXACT_IN_FLOAT32 = 2**24
_HOST = torch.device("cpu")

Exact = npt.NDArray[np.float64]


def known_counts(items: Sequence[Item]) -> tuple[Exact, npt.NDArray[np.float32]]:
    """The exact counts of items, and what their `step` shows of them.

    Past 2²⁴ float32 leaves numbers out. What it shows is therefore not what counts, unless somebody else has
    written to it: an exact count is believed as long as its rounding is what is shown.
    """
    written = np.array([float(item.step) for item in items], np.float64)
    shown = written.astype(np.float32)
    known = np.array([np.nan if item.count is None else item.count for item in items], np.float64)
    return np.where(known.astype(np.float32) == shown, known, written), shown


class Counts:
    """The counts of items in float64; `each` shows one as the float32 that torch's formats know as `step`.

    They are the host's. Tensors that are somebody's own stay, and are counted up where they are: those in memory
    that processes share, and those that were put into the states from outside.
    """

    kept_for_graphs = None  # no graph of a device counts on the host

    def __init__(self, items: Sequence[Item]) -> None:
        self._exact, self.shown = known_counts(items)
        # Each in a storage of its own, of which a checkpoint of one parameter writes one number.
        self.each = [
            item.step if is_somebodys(item.step, _HOST) else torch.from_numpy(self.shown[place, ...])
            for place, item in enumerate(items)
        ]
        self._others = [(place, step.numpy()) for place, step in enumerate(self.each) if step is items[place].step]
        for item, step in zip(items, self.each, strict=True):
            if step is not item.step:
                mark_movable(step)
        self.expected = self.shown.copy()

    @cached_property
    def exact(self) -> list[Tensor]:
        """The counts themselves, which stay exact, as tensors on the host."""
        return [torch.from_numpy(self._exact[i, ...]) for i in range(len(self._exact))]

    def set(self, place: int, count: float) -> None:
        """Go on from another count; `unchanged` is false until it is read."""
        self._exact[place] = self.shown[place] = count

    def unchanged(self) -> bool:
        """Whether nobody else has written to them since the last step."""
        if self._others and any(own != self.shown[place] for place, own in self._others):
            return False
        return self.shown.tobytes() == self.expected.tobytes()

    @property
    def are_own(self) -> bool:
        """Whether no count is a tensor that is somebody else's."""
        return not self._others

    def reread(self) -> None:
        """Go by what somebody else has written."""
        for place, own in self._others:
            self.shown[place] = own
        np.copyto(self._exact, self.shown, where=self._exact.astype(np.float32) != self.shown)
        self.expected[...] = self.shown

    def read(self) -> Exact:
        """Their exact values."""
        return self._exact

    def select(self, present: npt.NDArray[np.bool_]) -> None:
        """Have those counted, from now on, that a mask says."""
        self.increment = present.astype(np.float64)
        self._others_counted = [(place, own) for place, own in self._others if present[place]]

    def add_one(self) -> None:
        """Count an update."""
        np.add(self._exact, self.increment, self._exact)
        for place, own in self._others_counted:  # somebody's own: another process may have counted meanwhile
            own[...] = self._exact[place] if own == self.shown[place] else own + 1
        self.shown[...] = self._exact
        self.expected[...] = self.shown


def mark_movable(step: Tensor) -> Tensor:
    """Have plans put a tensor of their own in the place of this count, which nobody else holds.

    Noted with its memory, which goes when it goes: what weak references call then would swallow an interrupt.
    """
    notes_on(step)["_neon_movable"] = True
    return step


def is_somebodys(step: Tensor, device: torch.device) -> bool:
    """Whether a count is on this device, as torch keeps them, and others may hold it: it is counted in place."""
    if step is NONE_YET:
        return False
    if type(step) is not Tensor or step.device != device or step.dtype != torch.float32 or step.dim():
        return False
    if "_neon_movable" not in notes_on(step):
        return True
    return device == _HOST and step.untyped_storage().is_shared()


# The count of what has never been updated: a plan puts one of its own in its place.
NONE_YET = torch.zeros((), dtype=torch.float32, device="cpu")


def notes_on(tensor: Tensor) -> dict[str, Any]:
    """What is noted with a tensor's memory; nothing can be with that of a tensor within a transform of torch's."""
    try:
        return vars(tensor.untyped_storage())
    except NotImplementedError:
        return {}
