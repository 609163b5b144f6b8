"""torch's own database of optimizers, with the arguments that its tests give them."""

from __future__ import annotations

import importlib
import io
import sys
from typing import Any
from unittest.mock import MagicMock, patch

import torch


def database() -> list[Any]:
    """torch's database, without the machinery of its tests: that needs more packages, takes seconds to import, and
    forbids the whole process to set flags of `torch.backends`."""
    names = ("common_device_type", "common_methods_invocations", "common_utils")
    machinery: dict[str, Any] = {
        f"torch.testing._internal.{name}": MagicMock(_TestParametrizer=object) for name in names
    }
    with patch.dict(sys.modules, machinery):
        return importlib.import_module("torch.testing._internal.common_optimizers").optim_db


DATABASE = {info.name: info for info in database()}


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).detach().abs().max() / b.detach().abs().max().clamp_min(1e-30))


def through_a_file(state_dict: Any) -> Any:
    file = io.BytesIO()
    torch.save(state_dict, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=True)
