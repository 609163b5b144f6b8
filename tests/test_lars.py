"""LARS where others fail: the ratio with states of 8 bits, tensors without a gradient, rates and norms of 0."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from state_tensors import assert_same, tensors_of
from torch import Tensor

from neon.engine import use_backend
from neon.optimizers import LARS

SIDE = 96  # 9216 elements: states of so many are kept in blocks of 8 bits
SCALES = (1e-3, 1.0, 1e3)


def trained(steps: int, scales: tuple[float, ...] = SCALES, **options: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Weights of before and after; the gradients of each have a size of its own."""
    generator = torch.Generator().manual_seed(5)
    params = [torch.nn.Parameter(torch.randn(SIDE, SIDE, generator=generator)) for _ in scales]
    before = [param.detach().clone() for param in params]
    optimizer = LARS(**options).attach(params)
    for _ in range(steps):
        for param, scale in zip(params, scales, strict=True):
            param.grad = scale * torch.randn(SIDE, SIDE, generator=generator)
        optimizer.step()
    return before, [param.detach() for param in params]


@pytest.mark.parametrize("backend", ["eager", "numba"])
@pytest.mark.parametrize("state_dtype", [None, "bfloat16", "int8"])
def test_each_tensor_moves_by_a_share_of_its_size_in_every_format(backend: str, state_dtype: str | None) -> None:
    """The first step is η·‖w‖ long, whatever the gradient's size is."""
    with use_backend(backend):
        before, after = trained(1, learning_rate=0.5, trust_coefficient=0.02, state_dtype=state_dtype)
    for old, new in zip(before, after, strict=True):
        assert (new - old).norm().item() == pytest.approx(0.5 * 0.02 * old.norm().item(), rel=1e-4)


def test_states_of_8_bits_go_the_way_of_float32() -> None:
    """Of ten steps; what is lost is that of the buffer, some percent."""
    before, exact = trained(10)
    _, found = trained(10, state_dtype="int8")
    for start, there, here in zip(before, exact, found, strict=True):
        assert (here - there).norm() < 0.05 * (there - start).norm()


@pytest.mark.parametrize("state_dtype", [None, "int8"])
def test_a_weight_without_a_gradient_stays_as_it_is(state_dtype: str | None) -> None:
    """With decay and a full buffer too; its buffer stays as well."""
    params = [torch.nn.Parameter(torch.full((SIDE, SIDE), size)) for size in (1.0, 2.0)]
    optimizer = LARS(wdecay=0.1, state_dtype=state_dtype).attach(params)
    for param in params:
        param.grad = torch.ones(SIDE, SIDE)
    optimizer.step()
    kept = [tensor.detach().clone() for tensor in (params[1], *tensors_of(optimizer.state[params[1]]))]
    moved = params[0].detach().clone()
    params[1].grad = None
    optimizer.step()
    assert not torch.equal(params[0], moved)
    assert_same([params[1].detach(), *tensors_of(optimizer.state[params[1]])], kept)


@pytest.mark.parametrize("trust_clip", [False, True])
def test_norms_and_rates_of_0(trust_clip: bool) -> None:
    """Weights of 0 take the gradient as it is, gradients of 0 change nothing, nor does a rate of 0."""
    params = [torch.nn.Parameter(torch.tensor(values)) for values in ([0.0, 0.0], [3.0, 4.0], [3.0, 4.0])]
    groups = [{"params": params[:2], "lr": 0.5}, {"params": params[2:], "lr": 0.0}]
    optimizer = LARS(epsilon=0.0, trust_clip=trust_clip).attach(groups)
    for param, values in zip(params, ([1.0, -2.0], [0.0, 0.0], [1.0, 1.0]), strict=True):
        param.grad = torch.tensor(values)
    optimizer.step()
    assert [param.tolist() for param in params] == [[-0.5, 1.0], [3.0, 4.0], [3.0, 4.0]]


def test_vectors_that_are_left_alone_are_plain_momentum() -> None:
    """Neither ratio nor decay: 1 − 0.5·2, and then 0.9 of the buffer besides."""
    vector = torch.nn.Parameter(torch.ones(2))
    optimizer = LARS(0.5, wdecay=0.3, adapt_vectors=False).attach([vector])
    for expected in (0.0, -1.9):
        vector.grad = torch.full((2,), 2.0)
        optimizer.step()
        assert vector.tolist() == pytest.approx([expected] * 2, abs=1e-6)
