"""Orthogonalisation of stacks of matrices: against numpy in float64, beside torch's function, alone and in stacks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.optim._muon import _zeropower_via_newtonschulz

from neon.engine.calls.orthogonalize import (
    LARGEST_GROWTH,
    WAYS,
    orthogonalize,
    processor,
    restarts,
    temporaries,
    way_of,
)

EPS = 1e-7
JORDAN = [(3.4445, -4.7750, 2.0315)] * 5
CUBIC = [(1.5, -0.5, 0.0)] * 10
# Polar Express (Amsel et al. 2025), with its factor of safety of 1.01: a/s, b/s³, c/s⁵.
POLAR = [
    (a / 1.01, b / 1.01**3, c / 1.01**5)
    for a, b, c in (
        (8.28721201814563, -23.595886519098837, 17.300387312530933),
        (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
        (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
        (3.3184196573706015, -2.488488024314874, 0.51004894012372),
        (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
        (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
        (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
        (1.875, -1.25, 0.375),
    )
]
SCHEDULES = {"jordan": JORDAN, "jordan twice": JORDAN * 2, "polar": POLAR[:5], "polar, 8 steps": POLAR, "cubic": CUBIC}
SHAPES = [(64, 64), (48, 200), (200, 48), (1, 40), (40, 1), (1, 1), (3, 5), (33, 31)]
CASES = [*SHAPES, (520, 530), (530, 520)]


def by_hand(x: torch.Tensor, schedule: list[tuple[float, float, float]]) -> np.ndarray:
    """The iteration in numpy's float64, on the matrix as it is."""
    x = x.double().numpy()
    x = x / max(np.linalg.norm(x), EPS)
    for a, b, c in schedule:
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x


def error(result: torch.Tensor, expected: np.ndarray) -> float:
    return float(np.linalg.norm(result.double().numpy() - expected) / np.linalg.norm(expected))


def of_spectrum(rows: int, columns: int, kind: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows + columns)
    side = min(rows, columns)
    left, right = (
        torch.linalg.qr(torch.randn(n, side, dtype=torch.float64, generator=generator))[0] for n in (rows, columns)
    )
    index = torch.arange(side)
    values = {
        "wide": torch.logspace(-6, 0, side, dtype=torch.float64),
        "clusters": torch.where(index < 4, 1.0, 1e-3),
        "deficient": torch.where(index < side // 8, 1.0, 0.0),
        "equal": torch.ones(side),
    }[kind]
    return ((left * values.double()) @ right.T).float()


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", CASES, ids=str)
def test_it_is_the_iteration(shape, way):
    x = drawn(2, *shape)
    bound = 0.06 if way == "bfloat16" else 5e-5  # 0.045 and 2e-5 were measured
    for result, matrix in zip(orthogonalize(x, JORDAN, eps=EPS, way=way), x, strict=True):
        assert error(result, by_hand(matrix, JORDAN)) < bound


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", CASES, ids=str)
def test_float64_is_computed_in_float64(shape, way):
    x = drawn(2, *shape, dtype=torch.float64)
    results = orthogonalize(x, JORDAN, eps=EPS, way=way)
    assert results.dtype == torch.float64
    assert max(error(result, by_hand(matrix, JORDAN)) for result, matrix in zip(results, x, strict=True)) < 1e-13


@pytest.mark.parametrize("kind", ["wide", "clusters", "deficient", "equal"])
@pytest.mark.parametrize("shape", [(128, 128), (96, 384), (384, 96)], ids=str)
@pytest.mark.parametrize("name", SCHEDULES)
def test_no_way_is_farther_from_float64_than_torch(name, shape, kind):
    schedule, x = SCHEDULES[name], of_spectrum(*shape, kind)
    expected = by_hand(x, schedule)
    bound = error(of_torch(x, schedule), expected)
    errors = {way: error(orthogonalize(x[None], schedule, eps=EPS, way=way)[0], expected) for way in WAYS}
    assert errors["gram"] < bound / 100
    assert errors["float32"] < bound / 100
    # Equal singular values are shifted together by rounding: 0.4 to 1.6 of torch's error, at errors near 0.02.
    assert errors["bfloat16"] < bound * (2.5 if kind == "equal" else 1.05)


def of_torch(x: torch.Tensor, schedule: list[tuple[float, float, float]]) -> torch.Tensor:
    """torch's function, which takes one triple for all steps; the steps after the first are written out."""
    result = _zeropower_via_newtonschulz(x, schedule[0], 1, EPS)
    wide = result if x.shape[0] <= x.shape[1] else result.T
    for a, b, c in schedule[1:]:
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide if x.shape[0] <= x.shape[1] else wide.T


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", CASES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_matrix_has_the_same_bits_in_every_stack(shape, way, dtype):
    x = drawn(4 if max(shape) > 500 else 144, *shape, dtype=dtype)
    results = orthogonalize(x, JORDAN, eps=EPS, way=way)
    for i in (0, 3, len(x) - 1):
        assert torch.equal(orthogonalize(x[i : i + 1], JORDAN, eps=EPS, way=way)[0], results[i])
    shifted = torch.empty(x.numel() + 3, dtype=dtype)[3:].view(x.shape).copy_(x)
    assert torch.equal(orthogonalize(shifted, JORDAN, eps=EPS, way=way), results)
    strided = x.mT.contiguous().mT
    assert torch.equal(orthogonalize(strided, JORDAN, eps=EPS, way=way), results)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", [(64, 64), (33, 200), (530, 520)], ids=str)
def test_one_thread_and_two_give_the_same_bits(shape, way):
    x = drawn(2, *shape)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(orthogonalize(x, JORDAN, eps=EPS, way=way))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", [(16, 16), (8, 40), (520, 512)], ids=str)
def test_what_is_not_finite_stays_in_its_matrix(shape, way):
    x = drawn(4, *shape)
    whole = orthogonalize(x, JORDAN, eps=EPS, way=way)
    x[1, 2, 3], x[2, 0, 0] = torch.nan, -torch.inf
    result = orthogonalize(x, JORDAN, eps=EPS, way=way)
    assert result[1:3].isnan().all()
    assert torch.equal(result[::3], whole[::3])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("eps", [EPS, 0.0])
def test_zeros_give_zeros(way, eps):
    x = drawn(3, 20, 36)
    x[1] = 0
    result = orthogonalize(x, JORDAN, eps=eps, way=way)
    assert torch.equal(result[1], torch.zeros(20, 36))
    assert result.isfinite().all()


@pytest.mark.parametrize("way", WAYS)
def test_large_elements_do_not_overflow(way):
    x = drawn(3, 20, 36)
    whole = orthogonalize(x, JORDAN, eps=EPS, way=way)
    x[1] *= 2.0**120
    result = orthogonalize(x, JORDAN, eps=EPS, way=way)
    assert torch.equal(result[::2], whole[::2])
    torch.testing.assert_close(result[1], whole[1], rtol=0.05 if way == "bfloat16" else 1e-4, atol=0.01)


def test_a_norm_below_eps_is_divided_by_eps():
    x = drawn(1, 12, 30) * 1e-10
    result = orthogonalize(x, JORDAN, eps=EPS, way="float32")[0]
    assert error(result, by_hand(x[0], JORDAN)) < 1e-5


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", [(0, 8, 8), (3, 0, 8), (3, 8, 0), (0, 0, 0)], ids=str)
def test_empty_stacks_and_sides(shape, way):
    assert orthogonalize(torch.empty(shape), JORDAN, eps=EPS, way=way).shape == shape


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", [(24, 24), (24, 100), (512, 520)], ids=str)
def test_results_go_where_they_are_asked_for(shape, way):
    x = drawn(3, *shape)
    before = x.clone()
    expected = orthogonalize(x, JORDAN, eps=EPS, way=way)
    assert torch.equal(x, before)
    wide = torch.full((3, shape[0], shape[1] + 7), 2.0)
    out = wide[:, :, 5:-2]
    assert orthogonalize(x, JORDAN, eps=EPS, way=way, out=out) is out
    assert torch.equal(out, expected)
    assert (wide[:, :, :5] == 2).all()
    assert orthogonalize(x, JORDAN, eps=EPS, way=way, out=x) is x
    assert torch.equal(x, expected)


@pytest.mark.parametrize("way", WAYS)
def test_no_steps_leave_the_matrix_divided_by_its_norm(way):
    x = drawn(1, 12, 30)
    torch.testing.assert_close(orthogonalize(x, [], eps=EPS, way=way), x / x.norm(), rtol=0.01, atol=0)


def test_a_way_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="no way 'bf16' to orthogonalise; write one of gram, float32, bfloat16"):
        orthogonalize(drawn(1, 4, 4), JORDAN, eps=EPS, way="bf16")


def test_the_gram_matrix_is_made_anew_before_its_errors_grow():
    assert [len(steps) for steps in restarts(JORDAN)] == [5]
    assert [len(steps) for steps in restarts(JORDAN * 2)] == [5, 5]
    assert [len(steps) for steps in restarts(POLAR)] == [4, 4]
    assert [len(steps) for steps in restarts([(2 * LARGEST_GROWTH, 0.0, 0.0)] * 2)] == [1, 1]
    assert list(restarts([])) == []


def test_the_way_depends_on_shape_dtype_device_and_processor():
    assert processor() in ("float32", "bfloat16", "amx")
    names = {
        (shape, kind): way_of(1, *shape, torch.float32, "cpu", kind)
        for shape in ((768, 768), (768, 3072), (3072, 768))
        for kind in ("float32", "bfloat16", "amx")
    }
    assert {kind: names[(768, 768), kind] for kind in ("float32", "bfloat16", "amx")} == {
        "float32": "float32",
        "bfloat16": "bfloat16",
        "amx": "bfloat16",
    }
    for shape in ((768, 3072), (3072, 768)):
        assert [names[shape, kind] for kind in ("float32", "bfloat16", "amx")] == ["gram", "gram", "bfloat16"]
    assert way_of(1, 768, 3072, torch.float32, "cuda", "float32") == "bfloat16"
    assert way_of(1, 768, 3072, torch.float64, "cuda", "bfloat16") == "gram"
    assert way_of(1, 768, 768, torch.float64, "cpu", "bfloat16") == "float32"
    for n in (0, 1, 144):
        assert way_of(n, 64, 64, torch.float32, "cpu", "bfloat16") == "bfloat16"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", [(2, 512, 528), (300, 64, 64), (7, 33, 65)], ids=str)
def test_temporaries_are_what_is_allocated(shape, way):
    x, most, held = drawn(*shape), 0, 0
    out = torch.empty_like(x)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        orthogonalize(x, JORDAN, eps=EPS, way=way, out=out)
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    assert 0.4 * temporaries(*shape, way) < most < 1.05 * temporaries(*shape, way) + 10_000


@pytest.mark.parametrize("way", ["gram", "float32"])
@pytest.mark.parametrize("shape", [(9, 1), (16, 3), (30, 20), (64, 50)])
def test_tall_matrices_are_as_exact_as_wide_ones(shape: tuple[int, int], way: str) -> None:
    """Also where both sides round up to the same: the larger Gram matrix is singular, and errors grow there."""
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(5))
    tall, wide = (orthogonalize(each, JORDAN, eps=EPS, way=way) for each in (x, x.mT.contiguous()))
    assert torch.equal(tall, wide.mT)
    assert error(tall[0], by_hand(x[0], JORDAN)) < 4e-6
