"""What operations mean where no library's function is it: on floats and arrays of the host, and on torch's tensors."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

# Elements that share a number: the peak of a block, the scale of its codes.
BLOCK = 256
# torch has no 32-bit unsigned arithmetic on every device: words are kept in int64.
WORD = 0xFFFFFFFF

# -- the host's numbers ----------------------------------------------------------------------------

# What Python's functions raise where IEEE has an infinity or NaN.
RAISED = (ArithmeticError, ValueError, TypeError)


def on_host(on_floats: Callable[..., Any], on_arrays: Callable[..., Any], exact: bool) -> Callable[..., Any]:
    """An operation on floats or arrays, with IEEE's infinities and NaN.

    On single numbers Python's own functions are many times as quick as numpy's. One that is not correctly rounded is
    computed alike for one row and for many: numpy's differs.
    """

    def operation(*a: Any) -> Any:
        try:
            return on_floats(*a)
        except RAISED:
            with np.errstate(all="ignore"):
                result = on_arrays(*a)
            return result if np.ndim(result) else float(result)

    one_by_one = np.vectorize(operation, [np.float64])
    return operation if exact else lambda *a: one_by_one(*a) if any(map(np.ndim, a)) else operation(*a)


def power_of_two(x: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """2^rint(log2|x|), exactly: 0, infinity and NaN stay what they are."""
    magnitude = np.abs(np.asarray(x, np.float64))
    significand, exponent = np.frexp(magnitude)
    with np.errstate(over="ignore"):
        return np.where(
            (magnitude > 0) & np.isfinite(magnitude),
            np.ldexp(1.0, exponent - (2 * significand < np.sqrt(2.0))),
            magnitude,
        )


# -- tensors ---------------------------------------------------------------------------------------


@lru_cache
def has_float64(device: torch.device) -> bool:
    """Whether a device computes in float64, as numbers and sums do: Metal does not, nor do some GPUs of Intel's."""
    if device.type == "xpu":
        return bool(torch.xpu.get_device_properties(device).has_fp64)
    return device.type != "mps"


def rounded_once(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function that is not correctly rounded, of float32 by way of float64: so devices hardly ever differ."""

    def of_float32(*arguments: Tensor) -> Tensor:
        wide = arguments[0].dtype == torch.float64 or not has_float64(arguments[0].device)
        return function(*arguments) if wide else function(*(x.double() for x in arguments)).to(arguments[0].dtype)

    return of_float32


def power_of_two_of_tensor(x: Tensor) -> Tensor:
    """The same of a tensor."""
    magnitude = x.abs()
    significand = 2 * torch.frexp(magnitude).mantissa
    power = torch.where(magnitude == 0, magnitude, magnitude / significand)
    # The smallest number of the format above √2: a comparison that no rounding of √2 can spoil.
    above = 1.4142135623730951 if x.dtype == torch.float64 else 1.41421366
    rounded = torch.where(significand >= above, 2 * power, power)
    return torch.where(magnitude.isfinite(), rounded, magnitude)


def sqrt_of_tensor(x: Tensor) -> Tensor:
    """√x, correctly rounded."""
    # torch's square root on the CPU may come from a vector library that is not correctly rounded (with
    # MKL, 0.6 % of float32 results are one unit off); numpy's is the processor's own, as the kernels' is.
    if x.device.type != "cpu" or x.requires_grad:
        return torch.sqrt(x)
    with np.errstate(invalid="ignore"):
        return torch.from_numpy(np.asarray(np.sqrt(x.numpy())))


def block_peak(bits: Tensor) -> Tensor:
    """For each element the largest word of its block, as the float32 of these bits."""
    blocks = torch.nn.functional.pad(bits, (0, -bits.numel() % BLOCK)).view(-1, BLOCK)
    return of_blocks(blocks.amax(1), bits.numel()).to(torch.int32).view(torch.float32)


def of_blocks(values: Tensor, n: int) -> Tensor:
    """For each of n elements the value of its block."""
    return values.repeat_interleave(BLOCK)[:n]
