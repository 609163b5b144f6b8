"""What generated numba source needs beyond Python: raw pointers, an atomic counter, selection, bit casts."""
# pyright: reportIndexIssue=false, reportCallIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic


@intrinsic
def pointer(typingctx: Any, address: Any, dtype: Any) -> Any:
    """An address as a typed pointer, for `carray`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(dtype.dtype)(address, dtype), generate


@intrinsic
def take_next(typingctx: Any, address: Any) -> Any:
    """Read the int64 at an address and add one to it, atomically: each caller gets another number."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        where = builder.inttoptr(args[0], word.as_pointer())
        return builder.atomic_rmw("add", where, ir.Constant(word, 1), "monotonic")

    return types.int64(types.int64), generate


@intrinsic
def select(typingctx: Any, condition: Any, a: Any, b: Any) -> Any:
    """a where the condition holds, else b, without a branch that would keep a loop from vectorising."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(*args)

    return (a(types.boolean, a, a), generate) if a == b else None


@intrinsic
def call(typingctx: Any, function: Any, handle: Any, answer: Any) -> Any:
    """Call the C function at an address: int32 function(void* handle, void* answer)."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.IntType(32), [word, word])
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])

    return types.int32(types.int64, types.int64, types.int64), generate


def _bit_cast(source: Any, target: Any) -> Any:
    @intrinsic
    def cast(typingctx: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.bitcast(args[0], context.get_value_type(target))

        return target(source), generate

    return cast


bits = _bit_cast(types.float32, types.uint32)
from_bits = _bit_cast(types.uint32, types.float32)
_bits64 = _bit_cast(types.float64, types.uint64)
_from_bits64 = _bit_cast(types.uint64, types.float64)


@njit
def minimum(a, b):  # type: ignore[no-untyped-def]
    """The smaller; NaN if either is."""
    return select((a < b) | (a != a), a, b)


@njit
def maximum(a, b):  # type: ignore[no-untyped-def]
    """The larger; NaN if either is."""
    return select((a > b) | (a != a), a, b)


@njit
def sign(x):  # type: ignore[no-untyped-def]
    """−1, 0 or 1; NaN stays."""
    zero, one = type(x)(0), type(x)(1)
    return select(x > zero, one, select(x < zero, -one, select(x == zero, zero, x)))


_FRACTION = np.uint64(0x000FFFFFFFFFFFFF)
_EXPONENT = np.uint64(0x7FF0000000000000)
_ABOVE_ROOT_TWO = np.uint64(0x0006A09E667F3BCD)  # the fraction of the smallest float64 above √2


@njit(error_model="numpy")
def power_of_two(x):  # type: ignore[no-untyped-def]
    """2^rint(log2|x|) as a float64; 0, infinity and NaN stay. A subnormal is scaled up and back."""
    magnitude = abs(np.float64(x))
    tiny = magnitude < 2.0**-1022
    word = _bits64(select(tiny, magnitude * 2.0**64, magnitude))
    power = _from_bits64(word & _EXPONENT)
    power = select((word & _FRACTION) >= _ABOVE_ROOT_TWO, 2.0 * power, power)
    power = select(tiny, power * 2.0**-64, power)
    return select((magnitude > 0.0) & (magnitude < np.inf), power, magnitude)
