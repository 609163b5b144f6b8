"""What generated Triton source needs beyond Triton: operations that are exact about their rounding, and exact sums."""
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def exponential(x):  # type: ignore[no-untyped-def]
    """eˣ by way of float64: Triton's own of float32 loses digits as |x| grows."""
    return tl.exp(x.to(tl.float64)).to(x.dtype)


@triton.jit
def logarithm(x):  # type: ignore[no-untyped-def]
    """The natural logarithm, by way of float64."""
    return tl.log(x.to(tl.float64)).to(x.dtype)


@triton.jit
def power(x, y):  # type: ignore[no-untyped-def]
    """xʸ by way of float64, with IEEE's special cases."""
    base, exponent = tl.broadcast(x.to(tl.float64), y.to(tl.float64))
    magnitude = tl.exp2(exponent * tl.log2(tl.abs(base)))
    halved = exponent * 0.5
    whole = tl.floor(exponent) == exponent
    odd = whole & (tl.floor(halved) != halved)
    negative = base.to(tl.int64, bitcast=True) < 0
    value = tl.where(negative & odd, -magnitude, magnitude)
    finite = tl.abs(base) < float("inf")
    value = tl.where((base < 0) & finite & (whole == 0), float("nan"), value)
    value = tl.where(exponent == 1, base, value)
    one = (exponent == 0) | (base == 1) | ((base == -1) & (tl.abs(exponent) == float("inf")))
    return tl.where(one, 1.0, value).to(x.dtype)


@triton.jit
def minimum(a, b):  # type: ignore[no-untyped-def]
    """The first where it is less or NaN, else the second."""
    return tl.where(a != a, a, tl.where(a < b, a, b))


@triton.jit
def maximum(a, b):  # type: ignore[no-untyped-def]
    """The first where it is greater or NaN, else the second."""
    return tl.where(a != a, a, tl.where(a > b, a, b))


@triton.jit
def sign(x):  # type: ignore[no-untyped-def]
    """−1, 0 or 1; NaN stays."""
    return tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, tl.where(x == 0, 0.0, x))).to(x.dtype)


@triton.jit
def power_of_two(x):  # type: ignore[no-untyped-def]
    """2^rint(log2|x|); 0, infinity and NaN stay. A subnormal is scaled up and back."""
    magnitude = tl.abs(x)
    if x.dtype == tl.float64:
        tiny = magnitude < 2.0**-1022
        word = tl.where(tiny, magnitude * 2.0**64, magnitude).to(tl.int64, bitcast=True)
        power = (word & 0x7FF0000000000000).to(tl.float64, bitcast=True)
        above = (word & 0x000FFFFFFFFFFFFF) >= 0x0006A09E667F3BCD  # the fraction of the smallest number above √2
    else:
        tiny = magnitude < 2.0**-126
        word = tl.where(tiny, magnitude * 2.0**64, magnitude).to(tl.int32, bitcast=True)
        power = (word & 0x7F800000).to(tl.float32, bitcast=True)
        above = (word & 0x007FFFFF) >= 0x003504F4
    power = tl.where(above, 2.0 * power, power)
    power = tl.where(tiny, power * 2.0**-64, power)
    return tl.where((magnitude > 0) & (magnitude < float("inf")), power, magnitude)


@triton.jit
def to_word(x):  # type: ignore[no-untyped-def]
    """A number from 0 below 2³² as a word, cut off; 0 for any other, of which devices make what they like."""
    return tl.where((x >= 0) & (x < 4294967296.0), x, 0.0).to(tl.uint32)


@triton.jit
def peak(words, inside):  # type: ignore[no-untyped-def]
    """The largest word of each block, the rows of a tile, as the float32 of these bits."""
    return tl.max(tl.where(inside, words, 0), axis=1, keep_dims=True).to(tl.float32, bitcast=True)


@triton.jit
def in_order(blocks, count):  # type: ignore[no-untyped-def]
    """The sum of the first rows, from the first to the last."""
    index = tl.arange(0, blocks.shape[0])[:, None]
    total = tl.zeros([blocks.shape[1]], tl.float64)
    for row in range(count):
        total += tl.sum(tl.where(index == row, blocks, 0.0), axis=0)  # all but one are zero: exact in any order
    return total


@triton.jit
def pairwise(lanes, LENGTH: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    """The sum of a power of two of numbers: the second half added to the first until one is left."""
    if LENGTH == 1:
        total = tl.sum(lanes, axis=0)
    else:
        total = pairwise(tl.sum(tl.reshape(lanes, [2, LENGTH // 2]), axis=0), LENGTH // 2)
    return total


@triton.jit
def pairwise_rows(lanes, ROWS: tl.constexpr, LENGTH: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    """The same of each row."""
    if LENGTH == 1:
        total = tl.sum(lanes, axis=1)
    else:
        halves = tl.sum(tl.reshape(lanes, [ROWS, 2, LENGTH // 2]), axis=1)
        total = pairwise_rows(halves, ROWS, LENGTH // 2)
    return total


@triton.jit
def larger(a, b):  # type: ignore[no-untyped-def]
    """The larger of two numbers; NaN if either is."""
    return tl.where((a > b) | (a != a), a, b)


@triton.jit
def largest(numbers):  # type: ignore[no-untyped-def]
    """The largest of a table of numbers."""
    return tl.reduce(tl.reduce(numbers, 1, larger), 0, larger)


@triton.jit
def two_sum(high, low, other_high, other_low):  # type: ignore[no-untyped-def]
    """The sum of two numbers that each are kept in two float64 (Knuth 1969, 4.2.2)."""
    total = high + other_high
    part = total - high
    error = (high - (total - part)) + (other_high - part)
    return total, low + other_low + error


@triton.jit
def sum_up(addresses, ends, by_size, totals, LANES: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    """One number for each program, of the float64 at some addresses in a fixed order.

    It is their sum, in twice their precision, or where `by_size` says so the largest.
    """
    scope = tl.program_id(0)
    first, last = tl.load(ends + scope), tl.load(ends + scope + 1)
    high, low = tl.zeros([LANES], tl.float64), tl.zeros([LANES], tl.float64)
    most = tl.zeros([LANES], tl.float64)
    for start in range(first, last, LANES):
        place = start + tl.arange(0, LANES)
        inside = place < last
        address = tl.load(addresses + place, mask=inside, other=0).to(tl.pointer_type(tl.float64))
        value = tl.load(address, mask=inside, other=0.0)
        high, low = two_sum(high, low, value, tl.zeros([LANES], tl.float64))
        most = larger(most, value)
    high, low = tl.reduce((high, low), 0, two_sum)
    # Of infinity and NaN there is no error that could be added.
    total = tl.where(tl.abs(high) < float("inf"), high + low, high)
    tl.store(totals + scope, tl.where(tl.load(by_size + scope) != 0, tl.reduce(most, 0, larger), total))


@triton.jit(do_not_specialize=["count"])
def count_up(exact, shown, places, stop, count, ROWS: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    """One more at each of some places of `exact`, which `shown` shows as float32, unless the step is left out."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < tl.where(tl.load(stop) == 0.0, count, 0)
    place = tl.load(places + row, mask=inside, other=0)
    counted = tl.load(exact + place, mask=inside, other=0.0) + 1.0
    tl.store(exact + place, counted, mask=inside)
    tl.store(shown + place, counted.to(tl.float32), mask=inside)
