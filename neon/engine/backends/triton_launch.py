"""How functions that Triton compiles are launched."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

# Elements that a program holds in registers at a time, and those that it updates: whole blocks of 8-bit states.
TILE, PART = 1024, 8192
# Rows of the table of numbers that one program computes.
NUMBER_ROWS = 128
# Sums are rounded as they are written: a multiplication and an addition are two operations.
LAUNCH = {"num_warps": 4, "enable_fp_fusion": False}


class Launch:
    """A function with the tables that it works on: what is done once is not done at each step."""

    def __init__(self, function: Any, grid: tuple[int, ...], arguments: Sequence[Any], **constants: Any) -> None:
        self._function, self._grid = function, (*grid, 1, 1)[:3]
        self._arguments, self._constants = arguments, constants
        self._device = arguments[0].device.index
        self._compiled: Any = None

    def __call__(self) -> None:
        """Launch it, on the current stream of the device that the tables are on."""
        if self._device is None or self._device == torch.accelerator.current_device_index():
            self._run()
        else:
            with torch.accelerator.device_index(self._device):
                self._run()

    def _run(self) -> None:
        if self._compiled is None:
            # What has been compiled is called past Triton's search for it, and with addresses: of tensors it would ask
            # the driver where they are. The interpreter compiles nothing.
            self._compiled = self._function[self._grid](*self._arguments, **self._constants, **LAUNCH)
            if self._compiled is not None:
                given = (a.data_ptr() if isinstance(a, Tensor) else a for a in self._arguments)
                self._compiled = partial(self._compiled[self._grid], *given, *self._constants.values())
        else:
            self._compiled()
