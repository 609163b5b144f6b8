"""The arrays that a backend makes: torch tensors, float32 on the CPU whatever torch's own defaults are."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from neon.arguments import whole_number
from neon.messages import received


def torch_dtype(dtype: Any) -> torch.dtype:
    """torch's dtype for one of numpy's, of torch's, or a name of either; float32 for None."""
    if isinstance(dtype, torch.dtype):
        return dtype
    named = getattr(torch, dtype, None) if isinstance(dtype, str) else None
    if isinstance(named, torch.dtype):
        return named
    try:
        return torch.from_numpy(np.empty(0, np.float32 if dtype is None else dtype)).dtype
    except (TypeError, ValueError):
        raise TypeError(
            f"dtype must be one of torch's or of numpy's, such as np.float32, or None. {received('dtype', dtype)}"
        ) from None


def as_tensor(values: Any) -> Tensor:
    """A tensor as it is; an array or nested lists on the CPU, in any order of elements and bytes."""
    if isinstance(values, Tensor):
        return values
    found = np.asarray(values)
    if not found.dtype.isnative or any(stride < 0 for stride in found.strides):  # torch has no such
        found = found.astype(found.dtype.newbyteorder("="), order="C")
    return torch.as_tensor(found, device="cpu")


def array(values: Any, dtype: Any = None) -> Tensor:
    """A copy of numbers, an array or a tensor; a tensor's stays on its device."""
    wanted = torch_dtype(dtype)
    if isinstance(values, Tensor):
        return values.detach().to(wanted, copy=True)
    try:
        return as_tensor(values).to(wanted, copy=True)
    except (TypeError, ValueError):
        raise TypeError(
            f"ary must be a number, an array or a tensor, or a list of such of one shape. {received('ary', values)}"
        ) from None


def filled(value: float | None, *shape: Any, dtype: Any = None, device: Any = "cpu") -> Tensor:
    """A tensor of this shape, (2, 3) or 2, 3, full of one value; for None of anything."""
    if len(shape) == 2 and not isinstance(shape[1], (int, np.integer)):  # shape, dtype
        shape, dtype = shape[:1], shape[1]
    sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list, np.ndarray)) else shape
    empty = torch.empty([whole_number("shape", size) for size in sizes], dtype=torch_dtype(dtype), device=device)
    return empty if value is None else empty.fill_(value)


def filled_like(value: float | None, like: Any, dtype: Any = None) -> Tensor:
    """A tensor with the shape, dtype and device of another, or of an array, full of one value; for None of anything."""
    tensor = as_tensor(like)
    empty = torch.empty_like(tensor, dtype=tensor.dtype if dtype is None else torch_dtype(dtype), requires_grad=False)
    return empty if value is None else empty.fill_(value)
