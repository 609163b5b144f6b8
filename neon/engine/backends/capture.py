"""Captures of steps in graphs of a device: whether there is one, what cannot be done in it, memory for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

# Graphs that can be captured with no step between them.
_GRAPHS = 8


def capturing(device: torch.device) -> bool:
    """Whether what is launched now goes into a graph of the device, to be replayed, and is not done."""
    return device.type in ("cuda", "xpu") and torch.get_device_module(device).is_current_stream_capturing()


def check_not_captured(devices: Iterable[torch.device]) -> None:
    """Refuse to wait for a device within a capture, as the making of a plan does."""
    if any(map(capturing, devices)):
        raise RuntimeError(
            "A step is being captured in a graph of the device, and the host would have to wait for it. Attach with "
            "capturable=True (no schedule where there is a GradScaler), and make a step, with gradients for the same "
            "parameters, before the capture."
        )


def _whole_lines(size: int) -> int:
    return -(-size // 64) * 64


class Reserve:
    """Host memory for what a graph copies from at each replay: within a capture none may be asked for.

    A graph keeps its part for good. What is left is for the next graph, until a step outside of graphs renews it.
    """

    def __init__(self, array_bytes: Iterable[int], device: torch.device) -> None:
        self._size = _GRAPHS * sum(map(_whole_lines, array_bytes))
        self._pinned = device.type != "cpu"
        self._used = 1
        self.renew()

    def renew(self) -> None:
        """Have all of it free again."""
        if self._used:
            self._memory = torch.empty(self._size, dtype=torch.uint8, device="cpu", pin_memory=self._pinned)
            self._used = 0

    def take(self, array: npt.NDArray[Any]) -> Tensor:
        """A copy of an array that stays."""
        first, self._used = self._used, self._used + _whole_lines(array.nbytes)
        if self._used > self._size:
            raise RuntimeError(
                f"Steps were captured in {_GRAPHS} graphs one after another, and there is no memory for what the next "
                "would copy from. Make a step outside of a graph before this capture."
            )
        part = self._memory[first : first + array.nbytes].view(torch.from_numpy(array).dtype)
        part.numpy()[...] = array
        return part
