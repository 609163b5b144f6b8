"""8-bit blocks: every code decodes to its value, encoding gives one of the two neighbours and is right on average."""

from __future__ import annotations

import pytest
import torch
from graph_values import value_of
from torch import Tensor

from neon.engine.program.formats.blocks import BLOCK, BLOCKS, SmallFloat
from neon.engine.program.graph import load, node

SIGNED, UNSIGNED = BLOCKS
FORMS = [SIGNED, UNSIGNED]
RANDOM = node("load_bits", label="random", kind="uint")
pytestmark = pytest.mark.usefixtures("one_thread")
TINY = 2.0**-149  # the smallest float32


def encoded(form: SmallFloat, x: Tensor, random: Tensor | int) -> tuple[Tensor, Tensor]:
    """The codes of a vector, and for each element the scale of its block."""
    leaves = {"x": x, "random": torch.as_tensor(random).expand(x.shape)}
    code, scale = form.encode("x", load("x"), RANDOM).values()
    return value_of(code, leaves) & 0xFF, value_of(scale, leaves)


def decoded(form: SmallFloat, code: Tensor, scale: Tensor) -> Tensor:
    return value_of(form.decode("x"), {"x": code, "x_scale": scale})


def through(form: SmallFloat, x: Tensor, random: Tensor | int = 0x12345678) -> Tensor:
    return decoded(form, *encoded(form, x, random))


def table(form: SmallFloat) -> Tensor:
    """What each of the 256 codes stands for, written anew: relative to the scale, in float64."""
    code = torch.arange(256)
    magnitude = code & 0x7F if form.signed else code
    exponent, fraction = magnitude >> 3, (magnitude & 7) / 8.0
    bias = 15 if form.signed else 31
    value = (1 + fraction).double() * 2.0 ** (exponent - bias).double()
    value = value - 2.0**-15 if form.signed else torch.where(magnitude == 0, 0.0, value)
    return torch.where(code > magnitude, -value, value)


def draws(n: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 2**32, (n,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("form", FORMS)
def test_every_code_decodes_to_its_value(form: SmallFloat) -> None:
    code = torch.arange(256)
    for scale in (1.0, 3.0, 2.0**-100):
        expected = (table(form) * scale).float()
        assert torch.equal(decoded(form, code, torch.full((256,), scale)), expected)
    assert table(form).max() == form.largest


@pytest.mark.parametrize("form", FORMS)
def test_every_code_survives_a_round_trip(form: SmallFloat) -> None:
    code, scale = torch.arange(256), torch.full((256,), 0.7)
    # Below its smallest number with a full fraction the format of second moments is never written.
    expected = code if form.signed else torch.where((code > 0) & (code < 8), 8, code)
    # The factor is 2^-22 short, so that the peak fits: of 2^20 random words the 8 least may go one code down.
    for random in (2**15, 0x12345678, 2**32 - 1):
        again, scales = encoded(form, decoded(form, code, scale), random)
        assert torch.equal(again, expected)
        torch.testing.assert_close(scales, scale, rtol=2.0**-22, atol=0)
    again, _ = encoded(form, decoded(form, code, scale), 0)
    assert ((expected - again >= 0) & (expected - again <= 1)).all()


@pytest.mark.parametrize("form", FORMS)
def test_encoding_gives_one_of_the_two_neighbours(form: SmallFloat) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(50 * BLOCK, generator=generator) * 2.0 ** torch.randint(-20, 1, (50 * BLOCK,), generator=generator)
    x = x if form.signed else x.abs().clamp(min=1e-6)
    for random in (draws(len(x), 2), 0, 2**32 - 1):
        code, scale = encoded(form, x, random)
        values, relative = table(form).sort().values, x.double() / scale.double()
        above = torch.searchsorted(values, relative).clamp(1, 255)
        got, slack = table(form)[code], 2.0**-21 * relative.abs()
        assert ((values[above - 1] - slack <= got) & (got <= values[above] + slack)).all()


@pytest.mark.parametrize("form", FORMS)
def test_rounding_is_right_on_average(form: SmallFloat) -> None:
    """Over all exponents, and where the signed format is evenly spaced; below the floor of the other, that is it."""
    blocks = -(-100_000 // (BLOCK - 1))
    lowest = -19 if form.signed else -30
    for exponent in range(lowest, 1):
        factor = 1.0937 if exponent % 2 else -1.71 if form.signed else 1.71
        value = torch.tensor(factor * 2.0**exponent)
        x = value.expand(blocks, BLOCK).clone()
        x[:, 0] = form.largest
        code, scale = encoded(form, x.flatten(), draws(x.numel(), exponent + 100))
        counts = code.view(blocks, BLOCK)[:, 1:].flatten().bincount(minlength=256)
        met = counts.nonzero().flatten()
        first, second = decoded(form, met, scale[: len(met)]).double().tolist()
        share = float(counts[met[1]] / counts.sum())
        chance = (float(value) - first) / (second - first)
        assert 0 < chance < 1
        assert abs(share - chance) < 4 * (chance * (1 - chance) / (blocks * (BLOCK - 1))) ** 0.5


def test_below_its_floor_a_second_moment_is_the_floor() -> None:
    x = torch.tensor([1.875, 2.0**-31, 2.0**-60, 2.0**-140, TINY, 0.0])
    for random in (0, 2**32 - 1):
        assert through(UNSIGNED, x, random).tolist()[1:] == [2.0**-30] * 3 + [2.0**-30, 0.0]


@pytest.mark.parametrize("form", FORMS)
def test_blocks_of_zeros_and_blocks_that_are_too_small(form: SmallFloat) -> None:
    zeros = torch.zeros(BLOCK)
    assert torch.equal(through(form, zeros), zeros)
    assert torch.equal(through(form, torch.full((BLOCK,), 2.0**-121)), zeros)
    assert torch.equal(through(form, torch.full((BLOCK,), TINY), 2**32 - 1), zeros)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("peak", [torch.finfo(torch.float32).max, 1.7e38, 2.0**127, 2.0**-119, 1.0000001, 0.3])
def test_peaks_are_kept(form: SmallFloat, peak: float) -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(BLOCK, generator=generator) * 0.5
    x[17] = 1.0
    x *= peak
    for random in (2**31, 2**32 - 1):
        result = through(form, x, random)
        assert result.isfinite().all()
        torch.testing.assert_close(result[17], x[17], rtol=2.0**-23, atol=0)
        assert ((result - x).abs() <= x / 8 + peak * 2.0**-17).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wrong", [float("nan"), -float("nan"), float("inf"), -1.0])
def test_what_is_no_number_spoils_its_block_and_no_other(form: SmallFloat, wrong: float) -> None:
    if form.signed and wrong == -1.0:
        wrong = -float("inf")
    x = torch.ones(3 * BLOCK)
    x[BLOCK + 5] = wrong
    spoilt, *others = through(form, x).view(3, BLOCK)[[1, 0, 2]]
    assert not spoilt.isfinite().any()
    assert all((other == 1).all() for other in others)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n", [1, 2, BLOCK - 1, BLOCK + 1, 3 * BLOCK + 17])
def test_the_last_block_may_be_short(form: SmallFloat, n: int) -> None:
    x = torch.full((n,), 1.0)
    x[-1] = 1e-3
    if n % BLOCK == 1:  # alone in its block, it is the block's peak
        torch.testing.assert_close(through(form, x), x, rtol=2.0**-23, atol=0)
    else:
        result = through(form, x)
        torch.testing.assert_close(result[:-1], x[:-1], rtol=2.0**-23, atol=0)
        assert 0 < abs(float(result[-1]) - 1e-3) < 1e-3 / 8
