"""What generated numba source needs beyond Python: raw memory, an atomic counter, selection, 32-bit words."""
# pyright: reportIndexIssue=false, reportCallIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload, register_jitable


@intrinsic
def pointer(typingctx: Any, address: Any, dtype: Any) -> Any:
    """An address as a typed pointer."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(dtype.dtype)(address, dtype), generate


@intrinsic(prefer_literal=True)
def local(typingctx: Any, length: Any, dtype: Any) -> Any:
    """Memory for so many numbers on the stack of the function, aligned for vectors."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = context.get_value_type(signature.return_type)
        with builder.goto_entry_block():
            numbers = builder.alloca(ir.ArrayType(pointer.pointee, length.literal_value))
        numbers.align = 64
        return builder.bitcast(numbers, pointer)

    known = isinstance(length, types.IntegerLiteral)
    return (types.CPointer(dtype.dtype)(length, dtype), generate) if known else None


@intrinsic(prefer_literal=True)
def pairwise_sum(typingctx: Any, numbers: Any, length: Any) -> Any:
    """The sum of a power of two of float64 numbers: the second half added to the first until one is left."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        n, word = length.literal_value, ir.IntType(32)
        total = builder.load(builder.bitcast(args[0], ir.VectorType(ir.DoubleType(), n).as_pointer()), align=8)
        while n > 1:
            n //= 2
            halves = ([ir.Constant(word, first + i) for i in range(n)] for first in (0, n))
            masks = (ir.Constant(ir.VectorType(word, n), half) for half in halves)
            total = builder.fadd(*(builder.shuffle_vector(total, total, mask) for mask in masks))
        return builder.extract_element(total, ir.Constant(word, 0))

    return (types.float64(numbers, length), generate) if isinstance(length, types.IntegerLiteral) else None


@intrinsic(prefer_literal=True)
def put(typingctx: Any, numbers: Any, first: Any, lanes: Any, length: Any) -> Any:
    """Write what so many lanes hold to memory, from the place of the first one on, in one go."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        memory, place, lanes, _ = args
        vector = ir.VectorType(lanes.type.pointee, length.literal_value).as_pointer()
        held = builder.load(builder.bitcast(lanes, vector), align=1)
        builder.store(held, builder.bitcast(builder.gep(memory, [place]), vector), align=1)
        return context.get_dummy_value()

    known = isinstance(length, types.IntegerLiteral) and numbers == lanes
    return (types.none(numbers, types.int64, lanes, length), generate) if known else None


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
def floor(typingctx: Any, x: Any) -> Any:
    """The largest whole number that is not above x, of its type; numba's own knows no infinity."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = args[0].type
        name = f"llvm.floor.{'f32' if kind == ir.FloatType() else 'f64'}"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind]), name)
        return builder.call(function, args)

    return x(x), generate


@intrinsic
def multiply_add(typingctx: Any, a: Any, b: Any, total: Any) -> Any:
    """a·b + total in float64, of a and b that were float32: their product is exact, so one instruction has its bits."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = ir.DoubleType()
        kind = ir.FunctionType(number, [number] * 3)
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.fmuladd.f64"), args)

    return types.float64(types.float64, types.float64, types.float64), generate


@intrinsic
def call(typingctx: Any, function: Any, *arguments: Any) -> Any:
    """Call the C function at an address with words; its result as an int32, which is all that is sure of it."""
    return _called(types.int32, arguments)


@intrinsic
def call_word(typingctx: Any, function: Any, *arguments: Any) -> Any:
    """The same of a function whose result is a word, such as an address."""
    return _called(types.int64, arguments)


def _called(result: Any, arguments: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        function, given = args[0], cgutils.unpack_tuple(builder, args[1])
        kind = ir.FunctionType(context.get_value_type(result), [ir.IntType(64)] * len(given))
        return builder.call(builder.inttoptr(function, kind.as_pointer()), given)

    words = types.StarArgTuple([types.int64] * len(arguments))
    return result(types.int64, words), generate


@intrinsic(prefer_literal=True)
def python(typingctx: Any, name: Any, *arguments: Any) -> Any:
    """Call a function of Python's C interface by its name, with words; its result is one too."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        given, word = cgutils.unpack_tuple(builder, args[1]), ir.IntType(64)
        kind = ir.FunctionType(word, [word] * len(given))
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name.literal_value), given)

    words = types.StarArgTuple([types.int64] * len(arguments))
    return (types.int64(name, words), generate) if isinstance(name, types.StringLiteral) else None


def _word_operation(instruction: str) -> Any:
    """An operation on 32-bit words that stays 32 bits wide: numba's own operators widen them to 64."""

    @intrinsic
    def operation(typingctx: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return getattr(builder, instruction)(*args)

        return types.uint32(types.uint32, types.uint32), generate

    return operation


add32, mul32, and32, or32, xor32, shl32, shr32 = map(
    _word_operation, ("add", "mul", "and_", "or_", "xor", "shl", "lshr")
)


def _bit_cast(source: Any, target: Any) -> Any:
    @intrinsic
    def cast(typingctx: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.bitcast(args[0], context.get_value_type(target))

        return target(source), generate

    return cast


bits = _bit_cast(types.float32, types.uint32)
from_bits = _bit_cast(types.uint32, types.float32)
bits64 = _bit_cast(types.float64, types.uint64)
from_bits64 = _bit_cast(types.uint64, types.float64)


def _extreme(comparison: str) -> Any:
    """The first operand where it compares so with the second, or is NaN; else the second."""

    @intrinsic
    def extreme(typingctx: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            x, y = args
            first = builder.or_(builder.fcmp_ordered(comparison, x, y), builder.fcmp_unordered("uno", x, x))
            return builder.select(first, x, y)

        return (a(a, a), generate) if a == b else None

    return extreme


minimum, maximum = _extreme("<"), _extreme(">")


@register_jitable
def largest(numbers, length):  # type: ignore[no-untyped-def]
    """The largest of so many words."""
    found = numbers[0]
    for place in range(1, length):
        found = select(found < numbers[place], numbers[place], found)
    return found


def _bound(comparison: str) -> Any:
    """The bound, a number other than 0, where it compares so with x; else x, which may be NaN."""

    @intrinsic
    def bounded(typingctx: Any, x: Any, bound: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.select(builder.fcmp_ordered(comparison, args[1], args[0]), args[1], args[0])

        return (x(x, x), generate) if x == bound else None

    return bounded


at_least, at_most = _bound(">"), _bound("<")


@register_jitable
def sign(x):  # type: ignore[no-untyped-def]
    """−1, 0 or 1; NaN stays."""
    return select(x == type(x)(0), type(x)(0), select(x == x, type(x)(math.copysign(type(x)(1), x)), x))


def power_of_two(x):  # type: ignore[no-untyped-def]
    """2^rint(log2|x|); 0, infinity and NaN stay. A subnormal is scaled up and back."""


def _power_of_two(to_bits, to_real, add, both, exponent, up_to_next, least):  # type: ignore[no-untyped-def]
    """The function for numbers with these bits of an exponent; `up_to_next` carries into them from √2 on."""
    real = type(least)
    up, down = real(2.0**64), real(2.0**-64)

    def function(x):  # type: ignore[no-untyped-def]
        magnitude = abs(x)
        tiny = magnitude < least
        power = to_real(both(add(to_bits(select(tiny, magnitude * up, magnitude)), up_to_next), exponent))
        return select(x == x, select(tiny, power * down, power), magnitude)

    return function


_POWERS = {
    types.float32: _power_of_two(
        bits, from_bits, add32, and32, np.uint32(0x7F800000), np.uint32(0x00800000 - 0x003504F4),
        np.float32(2.0**-126),
    ),
    types.float64: _power_of_two(
        bits64, from_bits64, operator.add, operator.and_, np.uint64(0x7FF0000000000000),
        np.uint64(0x0010000000000000 - 0x0006A09E667F3BCD), np.float64(2.0**-1022),
    ),
}  # fmt: skip


@overload(power_of_two, jit_options={"error_model": "numpy"})
def _overloaded(x):  # type: ignore[no-untyped-def]
    return _POWERS.get(x)
