"""What `torch.amp.GradScaler` says of a step: by what to divide the gradients, and whether to leave the step out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor
from torch.optim import Optimizer

from neon.engine.backends.capture import check_not_captured
from neon.stepping.sharding import is_sharded


class Scaler(NamedTuple):
    """What `torch.amp.GradScaler` has put on the optimizer for a step, which is left out where `found` is not 0."""

    found: Any = None
    scale: Any = None

    def stops(self) -> bool:
        """Whether the step is to be left out, for which a device is waited for."""
        if isinstance(self.found, Tensor):
            check_not_captured([self.found.device])
        return bool(float(self.found))

    def inputs(self, *, on_device: bool) -> Mapping[str, Any]:
        """The scale that the step goes by; a tensor is not read where the device decides."""
        stays = on_device and isinstance(self.scale, Tensor) and self.scale.device == self.found.device
        return {"grad_scale": self.scale if stays else float(self.scale)}


_NO_SCALER = Scaler()


def scaler_of(optimizer: Optimizer) -> Scaler:
    """What a scaler has put on the optimizer, if one has."""
    given = vars(optimizer)
    return Scaler(_whole(given["found_inf"]), _whole(given.get("grad_scale"))) if "found_inf" in given else _NO_SCALER


def _whole(value: Any) -> Any:
    return value.full_tensor() if is_sharded(value) else value
