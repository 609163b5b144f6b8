"""Functions of stacks of matrices, beside numpy in float64; the same bits alone and in a stack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from neon.engine.calls.eigenbasis import eigenbasis, refined_basis, refined_in_place
from neon.engine.calls.inverse_root import inverse_root
from neon.engine.calls.turned import gram, restored, rotated

pytestmark = pytest.mark.usefixtures("one_thread")

DTYPES = (torch.float32, torch.float64)
SIZES = (1, 2, 5, 17, 33, 64)
ROUNDING = {torch.float32: 2**-23, torch.float64: 2**-52}


def matrices(n: int, rows: int, columns: int, dtype: torch.dtype = torch.float64, rank: int | None = None) -> Tensor:
    """Seeded, and of a rank where it is given; exact in float32 otherwise."""
    made = np.random.default_rng([n, rows, columns]).standard_normal((n, rows, columns)).astype(np.float32)
    if rank is not None:
        made = made[:, :, :rank] @ made[:, :rank, :]
    return torch.tensor(made, dtype=dtype)


def squares(n: int, size: int, dtype: torch.dtype, rank: int | None = None) -> Tensor:
    return gram(matrices(n, size, size + 3, dtype, rank), "rows")


CALLS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "gram of rows": lambda x, m: gram(x, "rows"),
    "gram of columns": lambda x, m: gram(x, "columns"),
    "rotated": lambda x, m: rotated(x, m),
    "rotated, both": lambda x, m: rotated(x, m, gram(x, "columns")),
    "restored": lambda x, m: restored(x, m, gram(x, "columns")),
    "eigenbasis": lambda x, m: eigenbasis(m),
    "eigenbasis with a floor": lambda x, m: eigenbasis(m, 0.01),
    "refined": lambda x, m: refined_basis(m, eigenbasis(m)),
    "refined with a floor": lambda x, m: refined_in_place(m, eigenbasis(m), 1e-3),
    "inverse root": lambda x, m: inverse_root(m, 4, 1e-3),
    "inverse root, of the largest": lambda x, m: inverse_root(m, 2, 1e-3, of="largest"),
}


def each_of(found: Any) -> tuple[Tensor, ...]:
    return (found,) if isinstance(found, Tensor) else found


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("call", CALLS)
def test_the_same_bits_alone_and_in_a_stack(call: str, dtype: torch.dtype) -> None:
    """torch.bmm fails this, 100 × 7 and 17 × 33: its kernel goes by the count, and its sums by the address."""
    for rows, columns in ((5, 3), (17, 33), (100, 7)):
        x, m = matrices(5, rows, columns, dtype), squares(5, rows, dtype)
        together = each_of(CALLS[call](x, m))
        for i in range(5):
            alone = each_of(CALLS[call](x[i : i + 1].clone(), m[i : i + 1].clone()))
            for whole, one in zip(together, alone, strict=True):
                assert torch.equal(whole[i], one[0])
                assert whole.dtype == one.dtype
        for whole, again in zip(together, each_of(CALLS[call](x.mT.contiguous().mT, m.mT)), strict=True):
            assert whole.shape == again.shape


@pytest.mark.parametrize("call", [name for name in CALLS if "basis" in name or "root" in name or "refined" in name])
def test_what_is_not_finite_stays_where_it_is(call: str) -> None:
    x, m = matrices(3, 5, 4), squares(3, 5, torch.float64)
    clean = each_of(CALLS[call](x, m))
    m[1, 2, 3], x[1, 0, 0] = torch.nan, torch.inf
    found = each_of(CALLS[call](x, m))
    for whole, before in zip(found, clean, strict=True):
        if whole.is_floating_point():
            assert whole[1].isnan().all()
        assert torch.equal(whole[0], before[0])
        assert torch.equal(whole[2], before[2])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_products(dtype: torch.dtype) -> None:
    x, left, right = (matrices(2, *shape, dtype) for shape in ((6, 4), (6, 6), (4, 4)))
    a, u, v = (t.double().numpy() for t in (x, left, right))
    turned_u, turned_v, turned_a = (t.transpose(0, 2, 1) for t in (u, v, a))
    close = {"rtol": 0, "atol": 200 * ROUNDING[dtype]}
    np.testing.assert_allclose(gram(x, "rows").double().numpy(), a @ turned_a, **close)
    np.testing.assert_allclose(gram(x, "columns").double().numpy(), turned_a @ a, **close)
    np.testing.assert_allclose(rotated(x, left).double().numpy(), turned_u @ a, **close)
    np.testing.assert_allclose(rotated(x, None, right).double().numpy(), a @ v, **close)
    np.testing.assert_allclose(rotated(x, left, right).double().numpy(), turned_u @ a @ v, **close)
    np.testing.assert_allclose(restored(x, left, right).double().numpy(), u @ a @ turned_v, **close)
    assert torch.equal(rotated(x), x)
    with pytest.raises(ValueError, match=r"over must be 'rows' or 'columns'. Received: over='both'"):
        gram(x, "both")  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_an_eigenbasis_is_orthogonal_and_turns_the_matrix_into_eigenvalues(size: int, dtype: torch.dtype) -> None:
    for rank in (None, 1, 0):
        m = squares(2, size, dtype, rank)
        q = eigenbasis(m)
        assert q.dtype == dtype
        want = np.linalg.eigvalsh(m.double().numpy())[:, ::-1]
        found, exact = rotated(m, q, q).double().numpy(), np.zeros((2, size, size))
        exact[:, range(size), range(size)] = want
        scale = max(want.max(), 1.0)
        np.testing.assert_allclose(found / scale, exact / scale, rtol=0, atol=8 * size * ROUNDING[dtype])
        unit = np.broadcast_to(np.eye(size), q.shape)
        np.testing.assert_allclose(gram(q, "columns"), unit, rtol=0, atol=8 * size * ROUNDING[dtype])


def test_a_zero_matrix_keeps_its_directions_apart() -> None:
    zero = torch.zeros(1, 4, 4)
    assert torch.equal(eigenbasis(zero)[0], torch.eye(4).flip(1))
    assert torch.equal(inverse_root(zero, 4, 0.0)[0], torch.eye(4))
    torch.testing.assert_close(inverse_root(zero, 4, 1e-4)[0], 10 * torch.eye(4))
    refined, order = refined_basis(zero, torch.eye(4)[None])
    assert torch.equal(refined[0].abs(), torch.eye(4))
    assert order.tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_with_a_floor_bases_of_null_spaces_differ_by_rounding_alone(dtype: torch.dtype) -> None:
    """Columns in another order have the same products, by other sums; null vectors are those of diag(2 … 1)."""
    for rows, columns in ((2, 1), (9, 5), (33, 17), (64, 1)):
        x = matrices(1, rows, columns, dtype)
        first, other = (eigenbasis(gram(a, "rows"), 1e-8).double().numpy()[0] for a in (x, x.flip(2)))
        np.testing.assert_allclose(np.abs(first), np.abs(other), rtol=0, atol=1000 * rows * ROUNDING[dtype])
        null = first[:, columns:]
        within = null.T @ np.diag(np.linspace(2.0, 1.0, rows)) @ null
        np.testing.assert_allclose(within, np.diag(within.diagonal()), rtol=0, atol=20 * rows * ROUNDING[dtype])
        np.testing.assert_allclose(x[0].double().numpy().T @ null, 0, atol=50 * rows * ROUNDING[dtype])
        plain = eigenbasis(gram(x, "rows"))[0, :, :columns].double().numpy()
        assert np.array_equal(first[:, :columns], plain)
    full = squares(2, 9, dtype)
    assert torch.equal(eigenbasis(full, 1e-8), eigenbasis(full))


def test_with_a_floor_refinement_leaves_null_vectors_where_they_are() -> None:
    m = squares(1, 6, torch.float64, rank=2)
    first = eigenbasis(m, 1e-8)
    kept = first
    for _ in range(5):
        kept = refined_in_place(m, kept, 1e-8)
    torch.testing.assert_close(kept.abs(), first.abs(), rtol=0, atol=1e-6)


def test_lapack_that_gives_up_is_asked_in_float64_and_with_more_on_the_diagonal(monkeypatch: Any) -> None:
    m, asked, eigh = squares(1, 5, torch.float32), [], torch.linalg.eigh

    def giving_up(a: Tensor) -> Any:
        asked.append((a.dtype, round(float((a - m[0]).diagonal()[0] / m.max()), 6)))
        if len(asked) < until:
            raise torch.linalg.LinAlgError("no end")  # pyright: ignore[reportPrivateImportUsage]
        return eigh(a)

    monkeypatch.setattr(torch.linalg, "eigh", giving_up)
    until = 4
    q = eigenbasis(m)
    assert asked == [(torch.float32, 0.0), (torch.float64, 0.0), (torch.float64, 0.0), (torch.float64, 1e-06)]
    assert q.dtype == torch.float32
    np.testing.assert_allclose(gram(q, "columns")[0], np.eye(5), atol=1e-5)
    until = 99
    assert eigenbasis(m).isnan().all()
    assert inverse_root(m, 4, 1e-3).isnan().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_refinement_is_power_iteration_in_the_order_of_rayleigh_quotients(dtype: torch.dtype) -> None:
    m = squares(2, 12, dtype)
    basis = eigenbasis(squares(3, 12, dtype)[1:])
    refined, order = refined_basis(m, basis)
    for i, at in enumerate(order):
        found, a, q = (t[i].double().numpy() for t in (refined, m, basis))
        quotients = np.diag(q.T @ a @ q)
        assert at.tolist() == np.argsort(-quotients, kind="stable").tolist()
        want = np.linalg.qr((a @ q)[:, at])[0]
        np.testing.assert_allclose(np.abs(found), np.abs(want), rtol=0, atol=2e4 * ROUNDING[dtype])
    in_place = refined_in_place(m, basis)
    for i in range(2):
        assert torch.equal(in_place[i][:, order[i]], refined[i])


def test_refinement_arrives_at_the_eigenvectors() -> None:
    q = torch.linalg.qr(matrices(1, 6, 6))[0]
    m = q @ torch.diag(torch.tensor([64.0, 32, 16, 8, 4, 1], dtype=torch.float64)) @ q.mT
    basis = torch.eye(6, dtype=torch.float64)[None]
    for _ in range(60):
        basis = refined_basis(m, basis)[0]
    torch.testing.assert_close(basis.abs(), eigenbasis(m).abs())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("of", ["one", "largest", "least"])
@pytest.mark.parametrize("exponent", [2, 4])
def test_inverse_roots(exponent: int, of: Any, dtype: torch.dtype) -> None:
    for rank in (None, 1):
        m = squares(2, 9, dtype, rank)
        values, vectors = np.linalg.eigh(m.double().numpy())
        factor = values[:, -1:] if of == "largest" else 1.0
        powers = (np.maximum(values, 0) + 0.25 * factor) ** (-1 / exponent)
        want = vectors * powers[:, None] @ vectors.transpose(0, 2, 1)
        found = inverse_root(m, exponent, 0.25, of=of).double().numpy()
        np.testing.assert_allclose(found, want, rtol=0, atol=2000 * ROUNDING[dtype])
    with pytest.raises(ValueError, match=r"of must be 'one', 'largest' or 'least'. Received: of='all'"):
        inverse_root(m, 2, 0.25, of="all")  # type: ignore[arg-type]


def test_a_matrix_below_zero_is_lifted_by_its_least_eigenvalue() -> None:
    m = torch.diag(torch.tensor([4.0, 0.0, -0.25], dtype=torch.float64))[None]
    lifted = torch.diag(torch.tensor([4.3125**-0.5, 0.3125**-0.5, 0.0625**-0.5], dtype=torch.float64))
    torch.testing.assert_close(inverse_root(m, 2, 0.0625, of="least")[0], lifted)
    torch.testing.assert_close(inverse_root(m, 2, 0.0625)[0, 2, 2].item(), 4.0)


def test_shapes_without_anything() -> None:
    nothing = torch.zeros(2, 0, 0)
    assert eigenbasis(nothing, 0.1).shape == refined_in_place(nothing, nothing, 0.1).shape == (2, 0, 0)
    assert inverse_root(nothing, 4, 0.1, of="largest").shape == (2, 0, 0)
    assert gram(torch.zeros(2, 0, 3), "columns").shape == (2, 3, 3)
