"""Kinds of tensors: what is found once for all that are alike, beside what torch and the addresses say of each."""

from __future__ import annotations

import gc
from itertools import combinations, product

import pytest
import torch
from torch import Tensor

from neon.engine.tensors.alike import Kind
from neon.engine.tensors.kept import Keeper
from neon.engine.tensors.overlap import sharing
from neon.optimizers import Adam
from neon.torch import AdamW


def views() -> list[Tensor]:
    """Views of one memory, of many shapes and strides."""
    memory = torch.arange(48.0)
    shapes = [(), (0,), (1,), (4,), (2, 3), (3, 1), (1, 3), (2, 0), (2, 1, 3), (2, 2, 2)]
    strides = [(shape, each) for shape in shapes for each in product((0, 1, 2, 3, 4), repeat=len(shape))]
    found = [memory.as_strided(*each) for each in strides]
    return [*found, memory.view(6, 8).T, memory.view(2, 3, 2, 4).contiguous(memory_format=torch.channels_last)]


def offsets(tensor: Tensor) -> list[int]:
    """Where each element lies, counted from the first."""
    indices = product(*map(range, tensor.shape))
    return [sum(i * st for i, st in zip(index, tensor.stride(), strict=True)) for index in indices]


@pytest.mark.parametrize("place", range(len(views())))
def test_a_kind_says_what_the_elements_say(place: int) -> None:
    tensor = views()[place]
    kind, at = Kind.of(tensor), offsets(tensor)
    assert kind.is_contiguous == tensor.is_contiguous()
    assert kind.elements == tensor.numel()
    assert kind.bytes == (4 * (max(at) + 1) if at else 0)
    assert kind.is_dense == (not at or sorted(at) == [*range(len(at))])
    if len(set(at)) < len(at):
        assert kind.overlaps_itself
    if kind.is_dense:
        assert not kind.overlaps_itself


def test_tensors_are_laid_out_alike_where_elements_lie_alike() -> None:
    for a, b in combinations(views(), 2):
        if a.numel():
            assert Kind.of(a).laid_out_like(Kind.of(b)) == (a.shape == b.shape and offsets(a) == offsets(b))


def test_kinds_are_told_apart() -> None:
    one = torch.zeros(2, 3)
    others = [one.double(), one.T, torch.zeros(3, 2), torch.zeros(2, 3, device="meta"), torch.zeros(2, 4)[:, :3]]
    assert len({Kind.of(tensor) for tensor in (one, *others)}) == 1 + len(others)
    assert Kind.of(torch.ones(2, 3, requires_grad=True)) is Kind.of(one)


def test_ranges_that_overlap_are_found_among_many() -> None:
    memory = torch.zeros(400)
    apart = [*memory[:100].view(10, 10)]
    assert sharing(apart) is None
    assert sharing([*apart, memory[95:99]]) == (10, 9)
    assert sharing([*apart, memory[100:100], memory[:0]]) is None
    columns = memory[200:].view(20, 10)
    assert sharing([*apart, columns[:, 0], columns[:, 1]]) is None
    assert sharing([*apart, columns[:, 1], columns[3]]) == (11, 10)


@pytest.mark.parametrize("start", [0.0, -0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_states_start_to_the_bit(start: float, dtype: torch.dtype) -> None:
    settings = Adam().settings(Adam().group())
    param = torch.ones(3, 2, dtype=dtype).T.requires_grad_()
    keeper = Keeper(settings.storage, settings.program, param, settings.values)
    [slot, _] = keeper.tensors(param, {})
    made = keeper._start_of(type(slot)(slot.name, slot.path, dtype, slot.space, start))(param)
    assert torch.equal(made.signbit(), torch.full_like(param, start).signbit())
    assert made.stride() == param.stride()
    assert not made.requires_grad


def test_what_is_refused_of_one_among_many_that_are_alike_is_named() -> None:
    params = [torch.nn.Parameter(torch.ones(4)) for _ in range(3)]
    named = [(f"layer_{place}", param) for place, param in enumerate(params)]
    optimizer = AdamW(named, lr=0.1)
    for param in params:
        param.grad = torch.ones(4)
    optimizer.step()
    state = optimizer.state[params[1]]
    state["exp_avg"] = state["exp_avg_sq"]
    before = [param.detach().clone() for param in params]
    with pytest.raises(ValueError, match="A state of parameter 'layer_1' shares memory with it or with another state"):
        optimizer.step()
    state["exp_avg"] = torch.zeros(5)
    with pytest.raises(ValueError, match=r"A state of parameter 'layer_1' has shape \(5,\)"):
        optimizer.step()
    state["exp_avg"] = torch.zeros(4)
    params[2].grad = torch.ones(4).to_sparse()
    with pytest.raises(ValueError, match="gradient of parameter 'layer_2'"):
        optimizer.step()
    assert all(map(torch.equal, before, params))


def test_steps_of_what_is_new_count_apart() -> None:
    params = [torch.nn.Parameter(torch.ones(4)) for _ in range(3)]
    optimizer = AdamW(params, lr=0.1)
    params[0].grad = torch.ones(4)
    optimizer.step()
    for param in params:
        param.grad = torch.ones(4)
    optimizer.step()
    steps = [optimizer.state[param]["step"] for param in params]
    assert [step.item() for step in steps] == [2.0, 1.0, 1.0]
    assert len({step.data_ptr() for step in steps}) == 3


def test_no_garbage_is_collected_while_a_plan_is_made() -> None:
    params = [torch.nn.Parameter(torch.ones(4)) for _ in range(2000)]
    optimizer = AdamW(params, lr=0.1)
    for param in params:
        param.grad = torch.ones(4)
    collections: list[str] = []
    gc.callbacks.append(lambda phase, _: collections.append(phase))
    try:
        optimizer.step()
    finally:
        gc.callbacks.pop()
    assert gc.isenabled()
    assert len(collections) < 20  # two for each; 20 objects a tensor would be 60 collections
