"""Orthogonalisation of stacks of matrices by Newton-Schulz iteration, the call that Muon stands on.

    X ← X / max(‖X‖_F, ε)
    X ← a·X + (b·A + c·A²)·X,   A = X·Xᵀ   for each (a, b, c) of a schedule

A matrix's result does not depend on the stack it is in. Every matrix is copied to one layout: contiguous, its sides
rounded up to multiples of 16. The zeros there change nothing, and the order of a product's sums no longer depends on
addresses and hardly on threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from neon.engine.calls.products import halved, symmetric_product
from neon.engine.calls.ways import WAYS, processor, way_of

__all__ = ["orthogonalize", "processor", "temporaries", "way_of"]

Step = tuple[float, float, float]

SIDE_UNIT = 16
GROUP_BYTES = 4 << 20  # small matrices of a CPU run in groups that stay in its caches
PACKED = 512 << 10  # about what oneDNN packs at most for a product of bfloat16 on two threads of a Zen 4, or a quarter
LARGEST_GROWTH = 500.0  # Keller Jordan's five steps have 485


def orthogonalize(x: Tensor, schedule: Sequence[Step], *, eps: float, way: str, out: Tensor | None = None) -> Tensor:
    """Orthogonalise each matrix of a stack (n, rows, columns) of float32 or float64.

    `schedule` has one (a, b, c) a step; `way` is one of WAYS, and float64 stays float64 in each. The result is in x's
    dtype, in `out` if given, which may be x itself. Zero matrices give zeros. NaN or infinity in a matrix makes that
    matrix's result NaN, and no other's.

    >>> x = torch.tensor([[[3.0, 0.0], [0.0, 4.0]]])
    >>> orthogonalize(x, [(2.0, -1.5, 0.5)] * 2, eps=1e-7, way="float32").round(decimals=4)
    tensor([[[1.0016, 0.0000],
             [0.0000, 1.0000]]])
    """
    if way not in WAYS:
        raise ValueError(f"There is no way {way!r} to orthogonalise; write one of {', '.join(WAYS)}.")
    if out is None:
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
    if x.numel() == 0:
        return out
    n, rows, columns = x.shape
    if rows > columns and padded(rows) == padded(columns):  # the Gram matrix of columns has full rank, that of rows not
        orthogonalize(x.mT, schedule, eps=eps, way=way, out=out.mT)
        return out
    group = group_of(n, rows, columns, x.element_size(), x.device)
    for start in range(0, n, group):
        part = slice(start, start + group)
        orthogonalize_group(x[part], schedule, eps, way, out[part])
    return out


def orthogonalize_group(x: Tensor, schedule: Sequence[Step], eps: float, way: str, out: Tensor) -> None:
    unit = normalised(x, eps)
    if way == "bfloat16" and x.dtype == torch.float32:
        unit = unit.bfloat16()
    fits = out.is_contiguous() and (out.shape, out.dtype) == (unit.shape, unit.dtype)
    spare = out if fits else torch.empty_like(unit)
    result = (iterated_by_gram if way == "gram" else iterated)(unit, schedule, spare)
    if result is not out:
        out.copy_(result[:, : x.shape[1], : x.shape[2]])


def group_of(n: int, rows: int, columns: int, itemsize: int, device: torch.device | str) -> int:
    """How many matrices are computed at a time: all on a GPU, one if products are halved, else what fits the caches."""
    if torch.device(device).type != "cpu":
        return n
    rows, columns = padded(rows), padded(columns)
    if halved(min(rows, columns), device):
        return 1
    return max(1, min(n, GROUP_BYTES // (rows * columns * itemsize)))


def padded(side: int) -> int:
    return -(-side // SIDE_UNIT) * SIDE_UNIT


def normalised(x: Tensor, eps: float) -> Tensor:
    """Copy matrices to contiguous memory, with padded sides, each divided by max(its norm, eps)."""
    n, rows, columns = x.shape
    shape = n, padded(rows), padded(columns)
    if shape == x.shape and x.is_contiguous() and x.data_ptr() % 64 == 0:
        return divided(x, eps, torch.empty_like(x))
    unit = x.new_zeros(shape)
    unit[:, :rows, :columns] = x
    return divided(unit, eps, unit)


def divided(x: Tensor, eps: float, out: Tensor) -> Tensor:
    """out ← x / max(‖x‖_F, eps), also where the sum of squares overflows."""
    eps = max(eps, torch.finfo(x.dtype).tiny)  # zeros stay zeros
    if x.device.type != "cpu":  # the host does not wait to see whether one does
        return divided_twice(x, eps, out)
    norm = frobenius(x)
    large = torch.nonzero(~norm.flatten().isfinite()).flatten().tolist()
    kept = {i: x[i : i + 1].clone() for i in large}
    torch.div(x, norm.clamp(min=eps), out=out)
    for i, matrix in kept.items():
        divided_twice(matrix, eps, out[i : i + 1])
    return out


def divided_twice(x: Tensor, eps: float, out: Tensor) -> Tensor:
    """The same, by the largest element first."""
    largest = torch.linalg.vector_norm(x, torch.inf, dim=(-2, -1), keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    torch.div(x, largest, out=out)
    return out.div_(torch.maximum(frobenius(out), eps / largest))


def frobenius(x: Tensor) -> Tensor:
    """Norms (n, 1, 1), by rows first: torch would share a single long sum out to threads, and its bits with them."""
    of_rows = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.linalg.vector_norm(of_rows, dim=-2, keepdim=True)


def iterated(x: Tensor, schedule: Sequence[Step], spare: Tensor) -> Tensor:
    """Iterate on the matrices themselves; the result is in x or in `spare`, both of which are overwritten."""
    gram, update = squares(x, 2)
    for a, b, c in schedule:
        symmetric_product(gram, gram, update, plus=of_gram(x, gram), beta=b, alpha=c)
        torch.baddbmm(x, *sided(update, x), beta=a, out=spare)
        x, spare = spare, x
    return x


def iterated_by_gram(x: Tensor, schedule: Sequence[Step], other: Tensor) -> Tensor:
    """Iterate on A = X·Xᵀ; the result is in x or in `other`, both of which are overwritten.

    With Z = b·A + c·A² a step is X ← a·X + Z·X, hence A ← (a·I + Z)·A·(a·I + Z). All are polynomials of one symmetric
    matrix: they commute, every product is symmetric, and so is Q, the product of all a·I + Z, which X is multiplied by
    once. Products with a on Z's diagonal instead of a·A added to them have three times the error.
    """
    gram, update, factor, spare = squares(x, 4)
    for steps in restarts(schedule):
        of_gram(x, gram)
        for k, (a, b, c) in enumerate(steps):
            symmetric_product(gram, gram, update, plus=gram, beta=b, alpha=c)
            if k == 0:
                factor.copy_(update).diagonal(dim1=-2, dim2=-1).add_(a)
            else:
                symmetric_product(factor, update, spare, plus=factor, beta=a)
                factor, spare = spare, factor
            if k + 1 < len(steps):
                symmetric_product(gram, update, spare, plus=gram, beta=a)
                symmetric_product(spare, update, gram, plus=spare, beta=a)
        torch.bmm(*sided(factor, x), out=other)
        x, other = other, x
    return x


def restarts(schedule: Sequence[Step]) -> Iterator[Sequence[Step]]:
    """Split a schedule where rounding of the Gram matrix would have grown too far: there X is formed anew.

    A small singular value grows by a in a step, and the rounding errors of its square by a².
    """
    start, growth = 0, 1.0
    for k, (a, _, _) in enumerate(schedule):
        growth *= abs(a)
        if growth > LARGEST_GROWTH and k > start:
            yield schedule[start:k]
            start, growth = k, abs(a)
    if start < len(schedule):
        yield schedule[start:]


def squares(x: Tensor, count: int) -> tuple[Tensor, ...]:
    side = min(x.shape[1:])
    return tuple(x.new_empty(len(x), side, side) for _ in range(count))


def of_gram(x: Tensor, out: Tensor) -> Tensor:
    """out ← X·Xᵀ, or Xᵀ·X where that is smaller."""
    return symmetric_product(x, x.mT, out) if x.shape[1] <= x.shape[2] else symmetric_product(x.mT, x, out)


def sided(square: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The square and x, in the order of their product."""
    return (square, x) if x.shape[1] <= x.shape[2] else (x, square)


def temporaries(
    n: int, rows: int, columns: int, way: str, itemsize: int = 4, device: torch.device | str = "cpu"
) -> int:
    """Bytes that orthogonalize allocates at most beside its result, for matrices of `itemsize` bytes an element."""
    group = min(n, group_of(n, rows, columns, itemsize, device)) if rows and columns else 0
    matrix, square = padded(rows) * padded(columns), min(padded(rows), padded(columns)) ** 2
    if way == "bfloat16" and itemsize == 4:  # the normalised matrix in both, then two narrow ones
        narrow = 2 * (2 * matrix + 2 * square)
        if torch.device(device).type == "cpu":
            narrow += min(narrow // 4, PACKED)
        return group * max((itemsize + 2) * matrix, narrow)
    fits = matrix == rows * columns  # then the result is the second one that is iterated on
    return group * itemsize * ((1 if fits else 2) * matrix + (4 if way == "gram" else 2) * square)
