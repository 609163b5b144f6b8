"""Memory that batches work in one after another: one piece for each thread and device, as large as any needs it."""

from __future__ import annotations

import threading
from weakref import WeakValueDictionary

import torch
from torch import Tensor

# Bytes that the tensors of one launch have beside them, where more than one of them does: more are no quicker together.
BUCKET = 64 << 20
# Where something begins in an arena is a multiple of this many bytes, as vectors of processors like it.
ALIGNED = 64


class Arena:
    """Memory that all plans of a thread use one after another; it goes when none of them is left."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.memory = torch.empty(0, dtype=torch.uint8, device=device)

    def reserve(self, size: int) -> None:
        """Have so many bytes at least; what was there is lost then."""
        if self.memory.numel() < size:
            self.memory = torch.empty(0, dtype=torch.uint8, device=self._device)  # let go of the smaller one first
            with torch.inference_mode(mode=False):
                self.memory = torch.empty(size, dtype=torch.uint8, device=self._device)

    def cut(self, first: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor that begins at a byte."""
        count = torch.Size(shape).numel() * dtype.itemsize
        with torch.inference_mode(mode=False):  # steps outside of that mode write to it too
            return self.memory[first : first + count].view(dtype).view(shape)

    def behind(self, first: int) -> Arena:
        """What is left of it from a byte on."""
        rest = Arena(self._device)
        rest.memory = self.memory[first:]
        return rest


_arenas: WeakValueDictionary[tuple[int, torch.device], Arena] = WeakValueDictionary()


def arena_of(device: torch.device) -> Arena:
    """The arena of this thread on a device."""
    key = (threading.get_ident(), device)
    found = _arenas.get(key)
    return found if found is not None else _arenas.setdefault(key, Arena(device))
