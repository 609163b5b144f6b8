"""Which matrices a weight is made of: stacks with each element once, in any layout, and back."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from neon.engine.tensors.weight_matrices import Matrices

CASES = {
    "one matrix": (Matrices(), (6, 4), [(1, 6, 4)]),
    "a convolution": (Matrices(), (8, 3, 2, 5), [(1, 8, 30)]),
    "query, key and value": (Matrices(3), (6, 4), [(3, 2, 4)]),
    "lengths": (Matrices((4, 1, 1)), (6, 4), [(1, 4, 4), (2, 1, 4)]),
    "lengths that come back": (Matrices((1, 4, 1)), (6, 4), [(1, 1, 4), (1, 4, 4), (1, 1, 4)]),
    "along columns": (Matrices(3, dim=1), (4, 6), [(3, 4, 2)]),
    "inputs first": (Matrices(inputs_first=True), (4, 6), [(1, 6, 4)]),
    "inputs first in parts": (Matrices(3, dim=1, inputs_first=True), (4, 6), [(3, 2, 4)]),
    "inputs first in lengths": (Matrices((4, 2), dim=1, inputs_first=True), (4, 6), [(1, 4, 4), (1, 2, 4)]),
    "experts": (Matrices(stacked=True), (5, 6, 4), [(5, 6, 4)]),
    "experts of gate and up": (Matrices(2, stacked=True), (5, 6, 4), [(10, 3, 4)]),
    "experts along columns": (Matrices((1, 3), dim=1, stacked=True), (5, 6, 4), [(5, 6, 1), (5, 6, 3)]),
    "experts with inputs first": (Matrices(2, 1, stacked=True, inputs_first=True), (5, 4, 6), [(10, 3, 4)]),
    "groups of a convolution": (Matrices(2), (8, 3, 2, 5), [(2, 4, 30)]),
    "channels of a convolution": (Matrices(3, dim=1), (8, 6, 2, 2), [(3, 8, 8)]),
    "no elements": (Matrices(3), (0, 4), [(3, 0, 4)]),
}


def transposed(x: Tensor) -> Tensor:
    return x.transpose(0, 1).contiguous().transpose(0, 1)


def strided(x: Tensor) -> Tensor:
    wide = torch.zeros(*x.shape[:-1], 2 * x.shape[-1])
    wide[..., ::2] = x
    return wide[..., ::2]


def reversed_dimensions(x: Tensor) -> Tensor:
    """As channels_last has it, or a transposed matrix."""
    order = (0, *range(x.dim() - 1, 0, -1))
    return x.permute(order).contiguous().permute(order)


LAYOUTS: list[Callable[[Tensor], Tensor]] = [torch.clone, transposed, strided, reversed_dimensions]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_stacks_have_each_element_once_and_go_back(
    case: tuple[Matrices, tuple[int, ...], list[tuple[int, int, int]]], layout: Callable[[Tensor], Tensor]
) -> None:
    matrices, shape, stacks = case
    matrices.check("weight", shape)
    weight = layout(torch.arange(float(torch.Size(shape).numel())).reshape(shape))
    assert matrices.shapes(shape) == stacks
    found = matrices.gather(weight)
    assert [tuple(stack.shape) for stack in found] == stacks
    assert torch.equal(torch.cat([stack.flatten() for stack in found]).sort().values, weight.flatten().sort().values)
    back = layout(torch.zeros(shape))
    matrices.scatter(found, back)
    assert torch.equal(back, weight)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_stacks_are_views_of_contiguous_weights_where_they_can_be(
    case: tuple[Matrices, tuple[int, ...], list[tuple[int, int, int]]],
) -> None:
    matrices, shape, _ = case
    weight = torch.zeros(shape)
    copies = matrices.stacked and matrices.dim > 0 and isinstance(matrices.parts, int)  # two strides for one count
    for stack in matrices.gather(weight):
        stack += 1
    assert torch.equal(weight, torch.full(shape, 0.0 if copies else 1.0))


def test_some_stacks_alone_are_written() -> None:
    weight = torch.zeros(6, 2)
    Matrices((4, 1, 1)).scatter([None, torch.ones(2, 1, 2)], weight)
    assert weight.sum(1).tolist() == [0, 0, 0, 0, 2, 2]


def test_parts_are_what_separate_weights_would_be() -> None:
    q, k, v = (torch.randn(n, 4) for n in (6, 2, 2))
    one, two = Matrices((6, 2, 2)).gather(torch.cat([q, k, v]))
    assert torch.equal(one[0], q)
    assert torch.equal(two, torch.stack([k, v]))
    conv1d = torch.cat([torch.randn(4, 3) for _ in range(3)], 1)
    (stack,) = Matrices(3, dim=1, inputs_first=True).gather(conv1d)
    assert torch.equal(stack[1], conv1d[:, 3:6].T)


def test_heads_are_parts_of_parts() -> None:
    qkv = torch.randn(36 * 2, 5)
    (stack,) = Matrices(36).gather(qkv)
    assert torch.equal(stack[12 + 4], qkv.chunk(3)[1].chunk(12)[4])


def test_a_stack_is_cut_within_each_matrix() -> None:
    experts = torch.randn(3, 8, 5)
    (stack,) = Matrices(2, stacked=True).gather(experts)
    assert torch.equal(stack[3], experts[1, 4:])


@pytest.mark.parametrize(
    ("matrices", "shape", "message"),
    [
        (Matrices(3), (10, 4), "'w' has shape .10, 4.: dimension 0, of length 10, is not divided by 3. Give another"),
        (Matrices(3, dim=1), (9, 4), "dimension 1, of length 4, is not divided by 3"),
        (Matrices((4, 4)), (10, 4), "is not cut by the lengths .4, 4., which add up to 8. Give lengths .* up to 10"),
        (Matrices(2, stacked=True), (4, 3, 4), "dimension 1, of length 3, is not divided by 2"),
        (Matrices(), (10,), "'w' has shape .10,., which is not a matrix"),
        (Matrices(), (), "has shape .., which is not a matrix"),
        (Matrices(stacked=True), (10, 4), "not a stack of matrices, which has three dimensions"),
        (Matrices(2, dim=2), (10, 4), "there is no dimension 2 to cut it along"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(matrices: Matrices, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        matrices.check("w", shape)


@pytest.mark.parametrize("parts", [0, -1, 1.5, "3", (), (2, 0), True, None])
def test_parts_are_counts(parts: object) -> None:
    with pytest.raises(ValueError, match="parts must be a number of equal parts, such as 3, or their lengths"):
        Matrices(parts)  # type: ignore[arg-type]


def test_other_values_are_refused() -> None:
    with pytest.raises(ValueError, match="dim must be a dimension"):
        Matrices(dim=-1)
    with pytest.raises(TypeError, match="stacked must be True or False"):
        Matrices(stacked=1)  # type: ignore[arg-type]


def test_it_is_a_value() -> None:
    one = Matrices([4, 1], dim=1, inputs_first=True)  # type: ignore[arg-type]
    assert repr(one) == "Matrices((4, 1), dim=1, inputs_first=True)"
    assert one == Matrices((4, 1), 1, inputs_first=True) == pickle.loads(pickle.dumps(one)) == copy.deepcopy(one)
    assert len({one, Matrices(3), Matrices(3)}) == 2
    assert repr(Matrices()) == "Matrices()"
