"""Step counts: how often each tensor has been updated, all of them in one vector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from neon.engine.settings import Item


class Counts:
    """The counts of items: a `vector`, of which `each` is a view that torch's formats know as `step`.

    It is the host's, unless steps are to be captured in a graph of the device, whose replays the host
    does not see: then it is `on_device`, and read back only when a plan is made or gradients come and go.
    """

    def __init__(self, items: Sequence[Item], on_device: bool) -> None:
        self.on_device = on_device
        devices = {item.param.device for item in items} if on_device else set()
        if len(devices) > 1:
            named = ", ".join(sorted(map(str, devices)))
            raise ValueError(f"capturable=True needs all parameters on one device; they are on {named}.")
        counts = [float(item.step) for item in items]
        self.vector = torch.tensor(counts, dtype=torch.float32, device=devices.pop() if devices else "cpu")
        self.each = list(self.vector.unbind())
        self._host = None if on_device else self.vector.numpy()
        self._expect()

    def stand(self) -> bool:
        """Whether nobody else has written to them since the last step."""
        if self._host is None:
            return self.vector._version == self._expected
        return self._host.tobytes() == self._expected

    def _expect(self) -> None:
        self._expected = self.vector._version if self._host is None else self._host.tobytes()

    def read(self) -> npt.NDArray[np.float32]:
        """Their values, for which a device is waited for."""
        return self.vector.cpu().numpy() if self._host is None else self._host

    def select(self, present: npt.NDArray[np.bool_]) -> None:
        """Have those counted, from now on, that a mask says."""
        self._counted = slice(None) if present.all() else present
        if self._host is None:
            self._increment = torch.from_numpy(present.astype(np.float32)).to(self.vector.device)

    def add_one(self) -> None:
        """Count an update."""
        if self._host is None:
            self.vector.add_(self._increment)
        else:
            self._host[self._counted] += 1
        self._expect()
