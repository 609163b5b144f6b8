"""How states and weights are kept: every rule in every format, the same bits on every backend, and what is refused."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import pytest
import torch
from pairs import crossed
from rule_cases import RULES, SHAPES, make, make_reference
from state_tensors import assert_same, tensors_of
from stored_formats import BITS, FORMATS, of_forms, of_rules, options, states_of, train
from torch import Tensor

import neon.torch
from neon.engine.program.formats.blocks import BLOCK, BLOCKS
from neon.engine.program.options import Options
from neon.engine.program.signs import never_negative
from neon.engine.program.spaces import PAIRS
from neon.engine.program.trace import trace
from neon.engine.tensors import storage
from neon.engine.tensors.kept import Keeper
from neon.engine.tensors.weight_matrices import ONE_MATRIX, shape_of
from neon.optimizers import Adam, MultiOptimizer, Optimizer
from neon.optimizers.functions import norm

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("rule", "form", "dtype", "rounds", "average"), crossed(BITS, of_rules, of_forms))
def test_backends_have_the_same_bits(
    rule: str, form: str, dtype: torch.dtype, rounds: bool | int, average: str | None
) -> None:
    more = {**options(rule, form, average), "stochastic_round": rounds}
    eager, numba = (train(rule, "attach", dtype, backend=backend, **more) for backend in ("eager", "numba"))
    assert_same(eager, numba)
    formats = {t.dtype for t in numba}
    expected = {"bfloat16": torch.bfloat16, "float16": torch.float16, "split": torch.bfloat16}
    if form in expected and dtype != torch.float32:
        assert expected[form] in formats
    of_no_blocks = (
        "adafactor",
        "asgd",
        "normuon",
        "normuon_of_norm",
    )  # whose states are of rows and columns, or a weight and numbers, or beside such of rows
    if form in ("int8", "split") and states_of(rule) and rule not in of_no_blocks:
        assert formats & {form.dtype for form in BLOCKS}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("form", FORMATS)
def test_layer_lists_and_every_option_have_the_same_bits(form: str) -> None:
    more = options("adam", form)
    eager, numba = (
        train("adam", "optimize", torch.bfloat16, backend=backend, option="all", **more)
        for backend in ("eager", "numba")
    )
    assert_same(eager, numba)
    # What is kept is the same as where the optimizer is attached, which does not divide by the batch.
    layers, attached = (train("adam", how, torch.bfloat16, **more) for how in ("optimize", "attach"))
    assert_same(layers[: len(SHAPES)], attached[: len(SHAPES)])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("form", FORMATS)
def test_the_number_of_threads_changes_no_bit(form: str) -> None:
    one = train("adam", "attach", torch.bfloat16, **options("adam", form))
    torch.set_num_threads(2)
    two = train("adam", "attach", torch.bfloat16, **options("adam", form))
    torch.set_num_threads(1)
    assert_same(one, two)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_split_means_nothing_to_a_whole_weight(dtype: torch.dtype) -> None:
    assert_same(train("adam", "attach", dtype, master="split"), train("adam", "attach", dtype))


def test_a_mean_of_squares_does_not_stand_still() -> None:
    """It moves by a thousandth of itself: in all formats it follows float32, on average over its elements."""
    n = 1 << 14
    means = {}
    for form in ("float32", "bfloat16", "float16", "int8"):
        param = torch.zeros(n, requires_grad=True)
        optimizer = Adam(learning_rate=0.0, state_dtype=form).attach([param], audit=False)  # it is meant
        param.grad = torch.ones(n)
        optimizer.step()
        param.grad = torch.full((n,), 0.5)
        for _ in range(200):
            optimizer.step()
        state = optimizer.state[param]
        values = decoded(state, "exp_avg_sq")
        means[form] = float(values.double().mean())
    start = 0.001 * 0.999**200  # had nothing been added
    for form in ("bfloat16", "float16", "int8"):
        assert abs(means[form] - means["float32"]) < 0.01 * (means["float32"] - start)


def decoded(state: Any, name: str) -> Tensor:
    """A state as float32: of 8 bits, a small float without a sign times the scale of its block."""
    if state[name].dtype != torch.uint8:
        return state[name].float()
    code = state[name].to(torch.int32)
    value = (1 + (code & 7) / 8) * 2.0 ** ((code >> 3) - 31)
    return torch.where(code == 0, 0.0, value) * state["scales"][name].flatten().repeat_interleave(BLOCK)


# -- which format a state gets ---------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_what_is_never_negative_needs_no_sign(rule: str) -> None:
    optimizer = make(rule, "plain", state_dtype="int8")
    unsigned = make_reference(rule, "plain").never_negative
    programs = optimizer.settings(optimizer.group()).programs
    assert frozenset[str]().union(*map(never_negative, programs)) == unsigned
    param = torch.randn(64, 80, requires_grad=True)
    attached = optimizer.attach([param], audit=False)  # some work by rows, and keep no blocks
    param.grad = torch.randn(64, 80)
    attached.step()
    state = attached.state[param]
    rows = any(declared.of.is_narrow for declared in programs[0].states.values())
    for name, declared in programs[0].states.items():
        kept = torch.uint8 if name in unsigned else torch.int8
        wide = declared.starts_as_weight or rows or declared.of in PAIRS
        assert state[name].dtype == (torch.float64 if declared.is_scalar else torch.float32 if wide else kept)
        assert state[name].shape == shape_of(declared.of, param.shape, ONE_MATRIX)


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (lambda s, g, lr: s + (1 - lr) * g * g, True),
        (lambda s, g, lr: s + g**4 * abs(g) + g * lr * g, True),
        (lambda s, g, lr: s + g**3, False),
        (lambda s, g, lr: s + (norm(g) - norm(s)), False),  # a number, which the host computes, of either sign
        (lambda s, g, lr: reduce(lambda x, _: x * x + x, range(60), g * g), True),
        (lambda s, g, lr: reduce(lambda x, _: x * x + x, range(60), g), False),
    ],
)
def test_the_sign_of_an_expression(new: Any, expected: bool) -> None:
    def rule(w: Any, g: Any, s: Any, *, lr: Any) -> Any:
        return w, new(s, g, lr)

    assert ("s" in never_negative(trace(rule, {"lr": 0.1}, Options()))) == expected


# -- what a rule of one's own may make of its tensors ----------------------------------------------


def started(start: float, dtype: torch.dtype, param: Tensor) -> tuple[Tensor, ...]:
    """A new state of a rule, and its scales."""

    def rule(w, g, s=start, *, lr):  # type: ignore[no-untyped-def]
        return w - lr * g, (s * s if dtype == torch.uint8 else s - g)

    program = trace(rule, {"lr": 0.1}, Options())
    keeper = Keeper(storage.Storage("int8"), program, param, {}, size=storage.SMALL)
    return (*keeper.tensors(param, {}).values(),)


def test_a_state_starts_at_its_default() -> None:
    stored, scales = started(0.1, torch.uint8, torch.empty(2, 300))
    assert scales.shape == (3,)
    assert torch.equal(decoded({"s": stored[0, :256], "scales": {"s": scales[:1]}}, "s"), torch.full((256,), 0.1))
    negative, scales = started(-0.1, torch.int8, torch.empty(256))
    assert negative.unique().tolist() == [-1]  # the largest code, with the sign
    assert scales.tolist() == pytest.approx([0.1 / (1.875 - 2.0**-15)])


def test_small_states_stay_float32_and_those_of_float64_stay_float64() -> None:
    for n, dtype, expected in (
        (4095, torch.bfloat16, torch.float32),
        (4096, torch.bfloat16, torch.int8),
        (8192, torch.float64, torch.float64),
    ):
        param = torch.ones(n, dtype=dtype, requires_grad=True)
        optimizer = Adam(state_dtype="int8").attach([param])
        param.grad = torch.ones(n, dtype=dtype)
        optimizer.step()
        assert optimizer.state[param]["exp_avg"].dtype == expected


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"state_dtype": None}, 8.0),
        ({"state_dtype": "parameter"}, 4.0),
        ({"state_dtype": {"exp_avg": "parameter"}}, 6.0),
        ({"state_dtype": "bfloat16"}, 4.0),
        ({"state_dtype": torch.int8}, 2 + 8 / 256),
        ({"state_dtype": {"exp_avg": "bfloat16", "exp_avg_sq": "int8"}}, 3 + 4 / 256),
        ({"state_dtype": {"exp_avg_sq": torch.float16}}, 6.0),
        ({"state_dtype": "int8", "master": "split"}, 4 + 8 / 256),
    ],
)
def test_bytes_of_state_per_parameter(more: dict[str, Any], expected: float) -> None:
    for make_one in (
        lambda p: Adam(**more).attach([p]),
        lambda p: neon.torch.Adam([p], **more),
        lambda p: MultiOptimizer({"default": Adam(**more)}).attach([p]),
    ):
        param = torch.zeros(256, 64, dtype=torch.bfloat16, requires_grad=True)
        optimizer = make_one(param)
        param.grad = torch.ones_like(param)
        optimizer.step()
        kept = sum(t.nbytes for t in tensors_of(optimizer.state[param]) if t.ndim)
        assert kept / param.numel() == expected


@pytest.mark.parametrize(
    ("clip", "lost"), [({}, 255), ({"gradient_clip_norm": 1.0}, 0), ({"gradient_clip_value": 1.0}, 0)]
)
def test_a_square_that_is_infinite_costs_its_block_unless_gradients_are_clipped(clip: Any, lost: int) -> None:
    param = torch.zeros(8192, requires_grad=True)
    optimizer = Adam(state_dtype="int8", **clip).attach([param])
    for largest in (3e38, 1.0):
        param.grad = torch.ones_like(param)
        param.grad[300] = largest
        optimizer.step()
    assert param.isnan().sum() == param[256:512].isnan().sum() == lost


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"state_dtype": "int4"}, r"state_dtype must be one of 'float32', 'bfloat16', 'float16', 'int8'.*'int4'"),
        ({"state_dtype": torch.float64}, r"state_dtype must be one of .*torch\.float64"),
        ({"state_dtype": {"exp_avg": "int4"}}, r"state_dtype\['exp_avg'\] must be one of"),
        ({"state_dtype": {"exp_average": "int8"}}, "a state 'exp_average'; adam keeps exp_avg, exp_avg_sq.*spelling"),
        ({"master": "float32"}, r'master must be None or "split"\. Received: master=\'float32\''),
        ({"master": "split", "stochastic_round": True}, "nothing to round at random"),
        ({"master": "split", "stochastic_round": 5}, "nothing to round at random"),
    ],
)
def test_refusals(more: dict[str, Any], message: str) -> None:
    param = torch.zeros(3, dtype=torch.bfloat16, requires_grad=True)
    for start in (lambda: Adam(**more).attach([param]), lambda: neon.torch.Adam([param], **more)):
        with pytest.raises(ValueError, match=message):
            start()


@pytest.mark.parametrize("values", [{"master": "split", "stochastic_round": True}, {"state_dtype": {"sum": "int8"}}])
def test_a_group_is_refused_as_the_rule_is(values: dict[str, Any]) -> None:
    param = torch.zeros(3, requires_grad=True)
    with pytest.raises(ValueError, match=r"nothing to round|a state 'sum'"):
        Adam().attach([{"params": [param], **values}])


def test_a_state_that_has_the_name_of_scales_is_refused_in_eight_bits() -> None:
    class Scaled(Optimizer):
        @staticmethod
        def rule(w: Any, g: Any, v: Any, v_scale: Any, *, lr: Any = 0.1) -> Any:
            return w - lr * g, v + g, v_scale + 1.0

    param = torch.zeros(8192, requires_grad=True)
    optimizer = Scaled(state_dtype="bfloat16").attach([param])
    param.grad = torch.ones_like(param)
    optimizer.step()
    assert optimizer.state[param]["v_scale"].unique().tolist() == [1.0]
    with pytest.raises(ValueError, match="has a state 'v_scale', as the scales of 'v'"):
        Scaled(state_dtype="int8").attach([param])


@pytest.mark.parametrize("form", [torch.int8, {"exp_avg": torch.int8}, {"exp_avg": "int8"}], ids=str)
@pytest.mark.parametrize("how", ["group", "set", "layers"])
def test_a_group_takes_the_formats_that_a_rule_takes(how: str, form: Any) -> None:
    param = torch.zeros(8192, requires_grad=True)
    optimizer = Adam().attach({"w": param}.items())
    if how == "group":
        optimizer.param_groups[0]["state_dtype"] = form
    else:
        optimizer.set("state_dtype", form, layers="w" if how == "layers" else None)
    param.grad = torch.ones_like(param)
    optimizer.step()
    assert optimizer.state[param]["exp_avg"].dtype == torch.int8


def test_a_state_may_be_named_that_other_values_would_have() -> None:
    """A buffer without momentum, an average that is switched off: one dict for all groups, and through changes."""
    weight = torch.nn.Parameter(torch.ones(8192))
    formats = {"momentum_buffer": "int8", "weight_average": "bfloat16"}
    optimizer = neon.torch.SGD([weight], 0.1, momentum=0.0, state_dtype=formats)
    for momentum, kept in ((0.0, set()), (0.9, {"momentum_buffer"})):
        optimizer.param_groups[0]["momentum"] = momentum
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        assert {*optimizer.state[weight]} - {"step", "scales"} == kept
    assert optimizer.state[weight]["momentum_buffer"].dtype == torch.int8
    with pytest.raises(ValueError, match="state_dtype names a state 'exp_avg'"):
        neon.torch.SGD([weight], 0.1, state_dtype={"exp_avg": "int8"})


def test_negative_numbers_are_refused_where_no_sign_is_kept() -> None:
    class Sum(Optimizer):
        @staticmethod
        def rule(w: Any, g: Any, total: Any, *, lr: Any = 0.1, factor: Any = 1.0) -> Any:
            total = total + factor * (g * g)
            return w - lr * g / (1 + total), total

    weight = torch.nn.Parameter(torch.ones(8192))
    with pytest.raises(ValueError, match="factor must be at least 0 where states are in 8 bits"):
        Sum(factor=-1.0, state_dtype="int8").attach([weight])
    Sum(factor=-1.0, state_dtype="bfloat16").attach([weight])
    optimizer = Sum(state_dtype="int8").attach([weight])
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    for negative in (-1.0, np.float32(-1), np.int64(-1), torch.tensor(-1.0)):
        optimizer.param_groups[0]["factor"] = negative
        with pytest.raises(ValueError, match="factor must be at least 0"):
            optimizer.step()
    assert weight.isfinite().all()
