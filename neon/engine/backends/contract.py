"""What a backend is: who makes a kernel ready, and what it is asked about itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from neon.engine.batch import Batch
from neon.engine.program.kernel import Kernel


@dataclass(frozen=True)
class Backend:
    """How kernels are run: what a backend's file calls `BACKEND`, under the name that the table of backends has for it.

    - `prepare`: makes a kernel ready, as what its batches run; `batch`: the class of these. What can also `launch` a
      stage over chunks that are no batch's takes sums of gradients as these arrive.
    - `resident`: what keeps the counts of an optimizer on a device, and decides there which steps are left out. Where
      there is one, numbers that are tensors on the device are read there at each step.
    - `capturable`: whether its steps can be captured in a graph of the device.
    - `package`: what has to be installed for it; `serves`: whether it can serve a device here, if that is not sure.
      Where it cannot be had, eager does its work.
    """

    name: str
    prepare: Callable[[Kernel], Any]
    batch: Callable[..., Batch] = Batch
    resident: Callable[[torch.device], Any] | None = None
    capturable: bool = False
    package: str | None = None
    serves: Callable[[torch.device], bool] | None = None
