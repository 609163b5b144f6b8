"""Formats: every stored value decodes exactly, encoding rounds as the format does, rounding at random is fair."""

from __future__ import annotations

import pytest
import torch
from graph_values import value_of
from torch import Tensor

from neon.engine.program.formats import FORMATS
from neon.engine.program.formats.split import LOW_BITS, SPLIT
from neon.engine.program.graph import Node, load, node
from neon.engine.program.random_bits import dither_bits, random_bits, tensor_key

pytestmark = pytest.mark.usefixtures("one_thread")
HALVES = [torch.bfloat16, torch.float16]
X = load("x")
RANDOM = node("load_bits", label="random", kind="uint")


def words(dtype: torch.dtype) -> Tensor:
    """Every value of a 16-bit format."""
    return torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)


def encoded(x: Tensor, dtype: torch.dtype, random: Tensor | None = None) -> Tensor:
    graph = FORMATS[dtype].encode("x", X, None if random is None else RANDOM)["x"]
    leaves = {"x": x} | ({} if random is None else {"random": random})
    return value_of(graph, leaves).to(torch.int16).view(dtype)


def decoded(x: Tensor) -> Tensor:
    return value_of(FORMATS[x.dtype].decode("x"), {"x": x.view(torch.int16).to(torch.int64) & 0xFFFF})


def same(a: Tensor, b: Tensor) -> bool:
    """Equal, with NaN equal to NaN and the sign of zero told apart."""
    nan = a.isnan() & b.isnan()
    return bool(((a == b) & (a.signbit() == b.signbit()) | nan).all())


@pytest.mark.parametrize("dtype", HALVES)
def test_every_word_decodes_to_its_value(dtype: torch.dtype) -> None:
    assert same(decoded(words(dtype)), words(dtype).to(torch.float32))


@pytest.mark.parametrize("dtype", HALVES)
def test_every_word_survives_a_round_trip(dtype: torch.dtype) -> None:
    assert same(encoded(words(dtype).to(torch.float32), dtype), words(dtype))


@pytest.mark.parametrize("dtype", HALVES)
def test_nearest_rounding_is_torchs(dtype: torch.dtype) -> None:
    # random patterns over all exponents, and the exact midpoints between neighbours with their neighbours
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randint(-(2**31), 2**31, (300_000,), generator=generator).to(torch.int32).view(torch.float32)
    values = words(dtype).to(torch.float32)
    values = values[values.isfinite()].sort().values
    middles = (values[1:].double() + values[:-1].double()).div(2).float()
    around = [middles, torch.nextafter(middles, values[1:]), torch.nextafter(middles, values[:-1])]
    x = torch.cat([patterns, *around])
    assert same(encoded(x, dtype), x.to(dtype))


def exponents(dtype: torch.dtype) -> Tensor:
    """Values with long fractions across the binades of a format, subnormals too, of both signs."""
    lowest = -133 if dtype == torch.bfloat16 else -24
    highest = 127 if dtype == torch.bfloat16 else 15
    near_the_ends = [*range(lowest, lowest + 12), *range(highest - 2, highest + 1)]
    powers = torch.tensor(sorted({*near_the_ends, *range(lowest, highest, 9)}), dtype=torch.float64)
    return torch.cat([1.2345678 * 2.0**powers, -1.7 * 2.0**powers]).float()


@pytest.mark.parametrize("dtype", HALVES)
def test_rounding_at_random_is_right_on_average(dtype: torch.dtype) -> None:
    draws = 100_000
    generator = torch.Generator().manual_seed(1)
    for value in exponents(dtype):
        x = value.expand(draws).clone()
        random = torch.randint(0, 2**32, (draws,), generator=generator)
        rounded = encoded(x, dtype, random).double()
        low, high = rounded.min(), rounded.max()
        nearest = value.to(dtype)
        other = torch.nextafter(nearest, torch.tensor(torch.inf if nearest < value else -torch.inf, dtype=dtype))
        assert {low.item(), high.item()} == {nearest.double().item(), other.double().item()}
        gap = float(high - low)
        chance = float(value.double() - low) / gap
        error = float(rounded.mean() - value.double()) / gap
        assert abs(error) < 4 * (chance * (1 - chance) / draws) ** 0.5


@pytest.mark.parametrize("dtype", HALVES)
def test_rounding_at_random_keeps_what_is_representable(dtype: torch.dtype) -> None:
    x = words(dtype).to(torch.float32)
    for random in (0, 2**32 - 1, 0x12345678):
        assert same(encoded(x, dtype, torch.full(x.shape, random)), words(dtype))


@pytest.mark.parametrize("dtype", HALVES)
def test_rounding_at_random_never_makes_an_infinity(dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    x = torch.tensor([largest * 1.001, -largest * 1.001, torch.finfo(torch.float32).max])
    assert encoded(x, dtype, torch.full(x.shape, 2**32 - 1)).tolist() == [largest, -largest, largest]


@pytest.mark.parametrize("width", [1, 10, 22])
def test_width_in_mantissa_bits(width: int) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(100_000, generator=generator)
    random = torch.randint(0, 2**32, x.shape, generator=generator)
    rounded = value_of(FORMATS[torch.float32].encode("x", X, RANDOM, width)["x"], {"x": x, "random": random})
    dropped = rounded.view(torch.int32) & ((1 << (23 - width)) - 1)
    assert not dropped.any()
    ulp = 2.0 ** (torch.frexp(x).exponent - 1 - width).double()
    assert ((rounded.double() - x.double()).abs() < ulp).all()
    assert abs(((rounded.double() - x.double()) / ulp).mean()) < 4 * 0.5 / x.numel() ** 0.5


def drawn(
    seed: int, parameter: int, step: int | Tensor, n: int = 200_000, bits: Node | None = None, x: Tensor | None = None
) -> Tensor:
    """A word for each of n elements; at every step, where `step` is a column of steps."""
    leaves = {
        "index": torch.arange(n),
        "index_high": torch.tensor(0),
        "tensor_key": torch.tensor(tensor_key(seed, parameter)),
        "step_word": torch.as_tensor(step),
    } | ({} if x is None else {"x": x})
    return value_of(random_bits() if bits is None else bits, leaves)


def test_random_bits_are_fair_and_unrelated() -> None:
    streams = [drawn(0, 0, 1), drawn(0, 0, 2), drawn(0, 1, 1), drawn(1, 0, 1)]
    n = streams[0].numel()
    for stream in streams:
        for bit in range(32):
            ones = ((stream >> bit) & 1).double().mean()
            assert abs(ones - 0.5) < 5 * 0.5 / n**0.5
        units = stream.double() / 2**32
        neighbours = torch.corrcoef(torch.stack([units[1:], units[:-1]]))[0, 1]
        assert abs(neighbours) < 5 / n**0.5
    correlations = torch.corrcoef(torch.stack([s.double() for s in streams])) - torch.eye(4)
    assert correlations.abs().max() < 5 / n**0.5
    # no stream is another one shifted: common words are as rare as chance makes them
    common = len(set(streams[0].tolist()) & set(streams[1].tolist()))
    expected = n * n / 2**32
    assert abs(common - expected) < 6 * expected**0.5


STREAMS = {"weights": random_bits(), **{f"stream {k}": dither_bits(k) for k in (1, 2, 3)}}
DRAWS = 20_000


def test_every_bit_of_a_seed_counts() -> None:
    """And every bit of the number of a parameter."""
    for base in (0, 1, 7, 2**31, 2**32 - 1, 2**63):
        others = [(base ^ 1 << bit, 3) for bit in range(64)] + [(base, 3 ^ 1 << bit) for bit in range(32)]
        keys = {tensor_key(seed, parameter) for seed, parameter in [(base, 3), *others]}
        assert len(keys) == 1 + len(others)


@pytest.mark.parametrize("shard", [0, 1])
def test_keys_of_seeds_parameters_and_shards_are_unrelated(shard: int) -> None:
    """Two are alike as rarely as chance makes them: of 40,000 words, once in five times."""
    keys = {tensor_key(seed, parameter, shard) for seed in range(200) for parameter in range(200)}
    assert len(keys) >= 40_000 - 2
    assert len(keys & {tensor_key(seed, parameter, 2) for seed in range(200) for parameter in range(200)}) <= 3


@pytest.mark.parametrize("bits", STREAMS.values(), ids=STREAMS)
def test_from_step_to_step_the_bits_of_an_element_are_fair(bits: Node) -> None:
    words = drawn(0, 0, torch.arange(1, DRAWS + 1)[:, None], 32, bits)
    units = words.double() / 2**32
    assert ((units.mean(0) - 0.5).abs() < 4 * (1 / 12 / DRAWS) ** 0.5).all()
    shares = torch.histc(units.float(), 64, 0, 1).double() / units.numel()
    assert ((shares - 1 / 64).abs() < 4 * (1 / 64 / units.numel()) ** 0.5).all()
    after = torch.corrcoef(torch.stack([units[1:].flatten(), units[:-1].flatten()]))[0, 1]
    assert abs(after) < 4 / units.numel() ** 0.5


@pytest.mark.parametrize("lag", [0, 1, 255])
def test_streams_are_unrelated(lag: int) -> None:
    """At one element and at neighbours, for a state may read what another was rounded by."""
    words = [drawn(0, 0, torch.arange(1, 2001)[:, None], 300, bits).double() for bits in STREAMS.values()]
    for i, first in enumerate(words):
        for second in words[:i]:
            pair = torch.stack([first[:, lag:].flatten(), second[:, : 300 - lag].flatten()])
            assert abs(torch.corrcoef(pair)[0, 1]) < 4 / pair.shape[1] ** 0.5


@pytest.mark.parametrize("stream", [1, 2, 3])
def test_neighbours_are_spread_evenly(stream: int) -> None:
    """In each block, and better than at random: no quarter of the range is left out or crowded."""
    words = drawn(0, 0, torch.arange(1, 201)[:, None], 256, dither_bits(stream))
    counts = torch.stack([(words >> 30 == quarter).sum(1) for quarter in range(4)])
    assert ((counts - 64).abs() <= 24).all()
    assert counts.double().var() < 256 / 4 * 3 / 4


@pytest.mark.parametrize("stream", [1, 2, 3])
@pytest.mark.parametrize("dtype", HALVES)
def test_over_steps_every_element_of_a_state_is_right_on_average(dtype: torch.dtype, stream: int) -> None:
    x = exponents(dtype)
    steps = torch.arange(1, DRAWS + 1)[:, None]
    graph = FORMATS[dtype].encode("x", X, dither_bits(stream))["x"]
    rounded = drawn(3, 2, steps, len(x), graph, x).to(torch.int16).view(dtype).double()
    low, high = rounded.min(0).values, rounded.max(0).values
    chance = (x.double() - low) / (high - low)
    error = (rounded.mean(0) - x.double()) / (high - low)
    assert ((chance > 0) & (chance < 1)).all()
    assert (error.abs() < 4 * (chance * (1 - chance) / DRAWS).sqrt()).all()


# -- a float32 in two halves -----------------------------------------------------------------------


def test_split_weights_lose_no_bit() -> None:
    generator = torch.Generator().manual_seed(4)
    patterns = torch.randint(-(2**31), 2**31, (300_000,), generator=generator).to(torch.int32).view(torch.float32)
    high = torch.arange(2**16) << 16
    ties = torch.cat([high + low for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF)])  # of every bfloat16, NaN too
    x = torch.cat([patterns, ties.to(torch.int32).view(torch.float32)])
    w, low = (value_of(node, {"x": x}) for node in SPLIT.encode("w", X, None).values())
    assert int(w.max()) < 2**16
    assert int(low.max()) < 2**16
    # What lies beside it is kept as int16 and read as a word again: a decoder must not care which.
    low = low.to(torch.int16).to(torch.int64) & 0xFFFF
    assert same(value_of(SPLIT.decode("w"), {"w": w, LOW_BITS: low}), x)
    number = x.isfinite()
    kept, nearest = w.to(torch.int16).view(torch.bfloat16), x.to(torch.bfloat16)
    gap = (kept.double() - x.double()).abs()[number]
    assert torch.equal(gap, (nearest.double() - x.double()).abs()[number])
    assert torch.equal(kept.isnan(), x.isnan())
