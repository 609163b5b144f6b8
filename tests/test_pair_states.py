"""States with a number for each pair of rows or of columns: what they are, when they change, and what refuses them."""

from __future__ import annotations

import copy
import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from stepped_parameters import bits
from torch import Tensor, nn

from neon.engine import use_backend
from neon.engine.calls import stacks
from neon.optimizers import SOAP, Matrices, Optimizer, Shampoo
from neon.torch import AttachedOptimizer

pytestmark = pytest.mark.usefixtures("one_thread")

PAIRS = ("left", "right", "left_basis", "right_basis", "left_root", "right_root")
# Equal ones, a transposed one, a convolution, rows and columns, empty ones and a vector.
SHAPES = [(5, 7), (5, 7), (7, 5), (6, 3, 2, 2), (1, 9), (9, 1), (1, 1), (0, 4), (4, 0), (8,)]


def soap(**options: Any) -> SOAP:
    return SOAP(**{"frequency": 2, "epsilon": 1e-3, **options})


def shampoo(**options: Any) -> Shampoo:
    return Shampoo(**{"frequency": 2, "start": 2, "epsilon": 0.01, "learning_rate": 0.01, **options})


RULES: dict[str, Callable[..., Optimizer]] = {"SOAP": soap, "Shampoo": shampoo}
both = pytest.mark.parametrize("make", RULES.values(), ids=[*RULES])


def weights(shapes: Sequence[Sequence[int]] = SHAPES, dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    return [
        nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(place)).to(dtype))
        for place, shape in enumerate(shapes)
    ]


def gradient(place: int, step: int, like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(1000 * step + place)).to(like.dtype)


def give(params: Sequence[Tensor], step: int) -> None:
    for place, p in enumerate(params):
        p.grad = gradient(place, step, p)


def train(opt: AttachedOptimizer, params: Sequence[Tensor], steps: range) -> None:
    for step in steps:
        give(params, step)
        opt.step()


def kept(opt: AttachedOptimizer, params: Sequence[Tensor]) -> list[Any]:
    return [bits([p.detach().contiguous(), dict(opt.state.get(p, {}))]) for p in params]


def pairs(opt: AttachedOptimizer, p: Tensor) -> dict[str, Tensor]:
    return {name: state for name, state in opt.state[p].items() if name in PAIRS}


def alone(make: Callable[..., Optimizer], params: Sequence[nn.Parameter], steps: range) -> list[Any]:
    """The same parameters, each with an optimizer for itself."""
    found = []
    for place, p in enumerate(params):
        p = nn.Parameter(p.detach().clone())
        opt = make().attach([p])
        for step in steps:
            p.grad = gradient(place, step, p)
            opt.step()
        found += kept(opt, [p])
    return found


# -- shapes and formats ----------------------------------------------------------------------------


@both
def test_a_matrix_has_squares_of_its_sides(make: Callable[..., Optimizer]) -> None:
    params = weights()
    opt = make().attach(params)
    train(opt, params, range(1))
    for p in params:
        rows, columns = len(p), math.prod(p.shape[1:])
        expected = {(rows, rows), (columns, columns)} if p.dim() > 1 else set()
        assert {tuple(state.shape) for state in pairs(opt, p).values()} == expected
    assert [pairs(opt, p).keys() for p in params[-1:]] == [{}.keys()]


@both
def test_parts_have_squares_of_their_own(make: Callable[..., Optimizer]) -> None:
    whole = weights([(12, 4)])
    parts = [nn.Parameter(part.clone()) for part in whole[0].detach().chunk(3)]
    opt = make(parts={"fused": Matrices(3)}).attach([("fused", whole[0])])
    beside = make().attach(parts)
    for step in range(5):
        give(whole, step)
        for part, g in zip(parts, whole[0].grad.chunk(3), strict=True):  # type: ignore[union-attr]
            part.grad = g.clone()
        opt.step()
        beside.step()
    assert {name: tuple(state.shape) for name, state in pairs(opt, whole[0]).items()} == dict.fromkeys(
        pairs(beside, parts[0]), (3, 4, 4)
    )
    for place, part in enumerate(parts):
        for name, state in pairs(opt, whole[0]).items():
            assert torch.equal(state[place], beside.state[part][name])
    if make is soap:  # of Shampoo norms are of whole tensors
        assert torch.equal(whole[0].detach(), torch.cat([part.detach() for part in parts]))


@both
def test_parts_of_other_lengths_are_refused(make: Callable[..., Optimizer]) -> None:
    params = weights([(12, 4)])
    give(params, 0)
    opt = make(parts={"fused": (6, 3, 3)}).attach([("fused", params[0])])
    with pytest.raises(ValueError, match=r"'fused'.*of one length"):
        opt.step()


@both
def test_they_are_in_the_precision_of_the_arithmetic(make: Callable[..., Optimizer]) -> None:
    for dtype, expected in (
        (torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float64, torch.float64)
    ):  # fmt: skip
        for options in ({}, {"state_dtype": "int8"}, {"state_dtype": "bfloat16"}):
            params = weights([(80, 64)], dtype)
            opt = make(**options).attach(params)
            train(opt, params, range(3))
            assert {state.dtype for state in pairs(opt, params[0]).values()} == {expected}


@both
@pytest.mark.parametrize("form", ["int8", "bfloat16", "float32"])
def test_a_format_for_them_is_refused(make: Callable[..., Optimizer], form: str) -> None:
    with pytest.raises(ValueError, match=r"state_dtype names 'left'; that is one of pairs of rows.* Leave it out\."):
        make(state_dtype={"left": form}).attach(weights())


# -- each matrix as if it were alone ---------------------------------------------------------------


@both
@pytest.mark.parametrize("bucket", [1 << 26, 1])
def test_each_matrix_steps_as_if_it_were_alone(
    make: Callable[..., Optimizer], bucket: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacks, "BUCKET", bucket)
    params = weights()
    expected = alone(make, params, range(5))
    opt = make().attach(params)
    train(opt, params, range(5))
    assert kept(opt, params) == expected


@both
def test_a_nan_stays_in_its_matrix(make: Callable[..., Optimizer]) -> None:
    params = weights([(5, 7)] * 3)
    expected = alone(make, params, range(4))
    opt = make().attach(params)
    for step in range(4):
        give(params, step)
        if step == 1:
            params[1].grad[2, 3] = math.nan  # type: ignore[index]
        opt.step()
    found = kept(opt, params)
    assert (found[0], found[2]) == (expected[0], expected[2])
    assert params[1].isnan().any()


@both
def test_groups_with_frequencies_of_their_own(make: Callable[..., Optimizer]) -> None:
    params = weights([(5, 7)] * 4)
    opt = make().attach([{"params": [p], "frequency": place + 1} for place, p in enumerate(params)])
    train(opt, params, range(7))
    for place, p in enumerate(weights([(5, 7)] * 4)):
        one = make(frequency=place + 1).attach([p])
        for step in range(7):
            p.grad = gradient(place, step, p)
            one.step()
        assert kept(one, [p]) == kept(opt, [params[place]])


@both
def test_gradients_that_come_later_begin_then(make: Callable[..., Optimizer]) -> None:
    params = weights([(5, 7)] * 2)
    late = nn.Parameter(params[1].detach().clone())
    opt, one = make().attach(params), make().attach([late])
    for step in range(6):
        give(params, step)
        if step < 3:
            params[1].grad = None
        else:
            late.grad = params[1].grad.clone()  # type: ignore[union-attr]
            one.step()
        opt.step()
    assert kept(opt, [params[1]]) == kept(one, [late])


@both
def test_the_layout_of_a_convolution_changes_no_bit(make: Callable[..., Optimizer]) -> None:
    plain, last = weights([(6, 3, 2, 2)]), weights([(6, 3, 2, 2)])
    last[0].data = last[0].data.contiguous(memory_format=torch.channels_last)
    first, second = make().attach(plain), make().attach(last)
    train(first, plain, range(5))
    train(second, last, range(5))
    assert torch.equal(plain[0], last[0])
    for name, state in pairs(first, plain[0]).items():
        assert torch.equal(state, second.state[last[0]][name])


@both
def test_backends_and_gradients_in_backward_have_the_same_bits(make: Callable[..., Optimizer]) -> None:
    found = []
    for backend, in_backward in (("eager", False), ("numba", False), ("numba", True)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))
        with use_backend(backend):
            opt = make().attach(model, in_backward=in_backward)
            for step in range(5):
                torch.manual_seed(step)
                opt.zero_grad()
                model(torch.randn(3, 6)).square().sum().backward()
                opt.step()
        found.append(kept(opt, [*model.parameters()]))
    assert found[0] == found[1] == found[2]


# -- steps that do not count -----------------------------------------------------------------------


def scaled_steps(make: Callable[..., Optimizer], found: Sequence[bool], **options: Any) -> Iterator[tuple[Any, Any]]:
    """An optimizer that is told of infinities at some steps, beside one that takes the others alone."""
    params, others = weights([(5, 7), (5, 7)]), weights([(5, 7), (5, 7)])
    opt, beside = make(**options).attach(params), make(**options).attach(others)
    for step, bad in enumerate(found):
        give(params, step)
        give(others, step)
        opt.grad_scale, opt.found_inf = None, torch.tensor(float(bad))
        opt.step()
        if not bad:
            beside.step()
        yield kept(opt, params), kept(beside, others)


@both
@pytest.mark.parametrize("found", [(True, False, False, True, False, False), (False, True, True, False, False)])
def test_steps_that_a_scaler_leaves_out_change_nothing(make: Callable[..., Optimizer], found: tuple[bool, ...]) -> None:
    for ours, others in scaled_steps(make, found):
        assert ours == others


@both
def test_gradients_that_are_not_finite_are_left_out(make: Callable[..., Optimizer]) -> None:
    params, others = weights([(5, 7)] * 2), weights([(5, 7)] * 2)
    opt, beside = make().attach(params, skip_nonfinite=True), make().attach(others)
    for step in range(6):
        give(params, step)
        give(others, step)
        if step in (0, 3):
            params[1].grad[0, 0] = math.inf  # type: ignore[index]
        else:
            beside.step()
        opt.step()
    assert kept(opt, params) == kept(beside, others)


# -- sides that are too long -----------------------------------------------------------------------


@both
def test_sides_beyond_max_size_have_none(make: Callable[..., Optimizer]) -> None:
    params = weights([(5, 7)])
    opt = make(max_size=5).attach(params)
    train(opt, params, range(3))
    assert {name.split("_")[0] for name in pairs(opt, params[0])} == {"left"}


@both
def test_the_table_names_them(make: Callable[..., Optimizer]) -> None:
    shown = str(make(max_size=5).attach([("a", weights([(5, 7)])[0]), ("b", weights([(8, 7)])[0])]))
    assert re.search(r"^a .* 5x7, 7 columns left alone$", shown, re.MULTILINE)
    assert re.search(r"^b .* 8x7, 8 rows and 7 columns left alone$", shown, re.MULTILINE)


@both
def test_a_side_that_gets_a_basis_in_mid_run_begins_at_the_identity(make: Callable[..., Optimizer]) -> None:
    params = weights([(5, 7)])
    opt = make(max_size=5, frequency=3).attach(params)
    train(opt, params, range(4))
    opt.param_groups[0]["max_size"] = 7
    before = params[0].detach().clone()
    train(opt, params, range(4, 5))
    fresh = "right_basis" if make is soap else "right_root"
    assert torch.equal(opt.state[params[0]][fresh], torch.eye(7))
    assert not torch.equal(before, params[0])
    train(opt, params, range(5, 8))
    assert not torch.equal(opt.state[params[0]][fresh], torch.eye(7))
    opt.param_groups[0]["max_size"] = 4
    before = copy.deepcopy(pairs(opt, params[0]))
    train(opt, params, range(8, 10))
    assert bits([pairs(opt, params[0])]) == bits([before])


# -- checkpoints -----------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("saved", [1, 2, 3])
def test_save_and_load_in_mid_run(make: Callable[..., Optimizer], saved: int) -> None:
    params = weights()
    opt = make().attach(params)
    train(opt, params, range(saved))
    stored = io.BytesIO()
    torch.save({"weights": [p.detach() for p in params], "optimizer": opt.state_dict()}, stored)
    train(opt, params, range(saved, 6))
    stored.seek(0)
    loaded = torch.load(stored, weights_only=True)
    others = [nn.Parameter(p.clone()) for p in loaded["weights"]]
    again = make().attach(others)
    again.load_state_dict(loaded["optimizer"])
    train(again, others, range(saved, 6))
    assert kept(again, others) == kept(opt, params)


@both
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state[:, :-1], r"a: left has shape \(5, 4\) in the checkpoint; .* asks for shape \(5, 5\)"),
        (lambda state: state.unsqueeze(0), r"a: left has shape \(1, 5, 5\) in the checkpoint; .* shape \(5, 5\)"),
        (lambda state: state.double(), "left of parameter 'a'.*torch.float64.*float32"),
        (lambda state: state.bfloat16(), "left of parameter 'a'.*torch.bfloat16.*float32"),
    ],
    ids=["shape", "dimensions", "float64", "bfloat16"],
)
def test_states_of_another_shape_or_format_are_refused(
    make: Callable[..., Optimizer], change: Callable[[Tensor], Tensor], message: str
) -> None:
    params = weights([(5, 7)])
    opt = make().attach([("a", params[0])])
    train(opt, params, range(2))
    saved = opt.state_dict()
    saved["state"] = copy.deepcopy(saved["state"])
    state = next(iter(saved["state"].values()))
    state["left"] = change(state["left"])

    def go_on() -> None:
        opt.load_state_dict(saved)
        train(opt, params, range(2, 3))

    with pytest.raises(ValueError, match=message):
        go_on()
