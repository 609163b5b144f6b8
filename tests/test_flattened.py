"""Rules that see a tensor of many dimensions as one matrix: what they compute, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from neon.engine.backends import use_backend
from neon.optimizers import COLUMNS, ROWS, Optimizer, State, Transform
from neon.optimizers.functions import mean, norm


class Balanced(Optimizer):
    """Of one matrix: values for rows, for columns and for both."""

    @staticmethod
    def rule(w, g, *, lr=0.1, flattened):  # type: ignore[no-untyped-def]
        if not flattened:
            return w - lr * g
        scale = norm(g, over=ROWS) + norm(g, over=COLUMNS) + norm(mean(w, over=ROWS), over=COLUMNS)
        return w - lr * (g - mean(g, over=ROWS)) / scale


def by_hand(w: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    if w.dim() < 2:
        return w - 0.1 * g
    v, x = w.flatten(1), g.flatten(1)
    scale = x.norm(dim=1, keepdim=True) + x.norm(dim=0, keepdim=True) + v.mean(1).norm()
    return (v - 0.1 * (x - x.mean(1, keepdim=True)) / scale).view(w.shape)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("backend", ["eager", "numba", "triton"])
def test_a_convolution_is_one_matrix(backend: str, layout: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(1)
    for shape in [(70, 16, 3, 3), (3, 2, 4, 2, 5), (5, 1, 1), (4, 6), (7,), ()]:
        w, g = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
        if len(shape) == 4:
            w = w.contiguous(memory_format=layout)
        param = torch.nn.Parameter(w.clone())
        param.grad = g.clone()
        with use_backend(backend):
            Balanced().attach([param]).step()
        torch.testing.assert_close(param.detach(), by_hand(w, g), rtol=1e-13, atol=1e-13)


class Kept(Optimizer):
    @staticmethod
    def rule(w, g, row=State(of=ROWS), *, lr=0.1, flattened):  # type: ignore[no-untyped-def]
        return w - lr * g, row


class OfRows(Optimizer):
    """Rows without a state, and without asking for the dimensions."""

    @staticmethod
    def rule(w, g, *, lr=0.1):  # type: ignore[no-untyped-def]
        return w - lr * (g - mean(g, over=ROWS))


class Flat(Transform):
    @staticmethod
    def around(inner, w, g, *, flattened):  # type: ignore[no-untyped-def]
        return inner(w, g - mean(g, over=ROWS) if flattened else g)


class NotFlat(Transform):
    @staticmethod
    def around(inner, w, g):  # type: ignore[no-untyped-def]
        return inner(w, g - mean(g, over=ROWS))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (Kept, "keeps states of rows or columns, and asks for tensors that are flattened"),
        (lambda: Flat(OfRows()), "Of flat and ofrows, .*one sees a tensor of many dimensions as one matrix"),
        (lambda: NotFlat(Balanced()), "Of notflat and balanced, .*one sees a tensor of many dimensions as one matrix"),
    ],
)
def test_what_would_mean_two_things_is_refused(made: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        made().attach([torch.nn.Parameter(torch.ones(2, 3, 4))])


def test_two_that_are_flattened_are_one() -> None:
    w = torch.nn.Parameter(torch.ones(2, 3, 4))
    w.grad = torch.arange(24.0).view(2, 3, 4)
    Flat(Balanced()).attach([w]).step()
    assert w.isfinite().all()
