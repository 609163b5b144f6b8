"""How states and weights are kept: every rule in every format, the same bits on every backend, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import Any

import pytest
import torch
from graph_values import value_of
from rule_cases import RULES, SHAPES, PlainLayer, gradients, make, weights
from torch import Tensor

import neon.torch
from neon.engine import use_backend
from neon.engine.program.formats.blocks import BLOCK, BLOCK_CODECS, scale_name
from neon.engine.program.options import Options
from neon.engine.program.signs import never_negative
from neon.engine.program.trace import signature, trace
from neon.engine.tensors import slots as storage
from neon.optimizers import Adam, MultiOptimizer, Optimizer
from neon.optimizers.functions import maximum, norm, sqrt

pytestmark = pytest.mark.usefixtures("one_thread")

FORMATS = ["int8", "bfloat16", "float16", "mixed", "split"]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# Which states are never negative, by class: these have no bit for a sign.
NEVER_NEGATIVE = {
    "descent": set(), "momentum": set(), "nesterov": set(), "rmsprop": {"square_avg"}, "adagrad": {"sum"},
    "adadelta": {"square_avg", "acc_delta"}, "adam": {"exp_avg_sq"}, "adamw": {"exp_avg_sq"}, "lion": set(),
    "shift": {"exp_inf"}, "ademamix": {"exp_avg_sq"},
}  # fmt: skip


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have tensors of any size in the format that was asked for."""
    monkeypatch.setattr(storage, "SMALL", 0)


def states_of(rule: str) -> list[str]:
    optimizer = make(rule, "plain")
    return [*optimizer.settings(optimizer.group()).program.states]


def options(rule: str, form: str) -> dict[str, Any]:
    if form == "split":
        return {"master": "split", "state_dtype": "int8"}
    if form == "mixed":  # the last state stays float32
        return {"state_dtype": dict(zip(states_of(rule)[:-1], ["int8", "bfloat16"], strict=False))}
    return {"state_dtype": form}


def tensors_of(state: Any) -> Iterator[Tensor]:
    """All tensors of a parameter's state, those of the dict of scales too."""
    for value in state.values():
        yield from tensors_of(value) if isinstance(value, dict) else [value]


def train(
    rule: str,
    how: str,
    dtype: torch.dtype,
    *,
    backend: str = "numba",
    option: str = "plain",
    steps: int = 3,
    **more: Any,
) -> list[Tensor]:
    """The weights after some steps, and everything that is kept beside them."""
    params, opt = weights(dtype), make(rule, option, **more)
    layer = PlainLayer(params)
    with use_backend(backend):
        attached = opt.attach(params) if how == "attach" else None
        for step in range(steps):
            for param, grad in zip(params, gradients(step, dtype), strict=True):
                param.grad = grad
            if attached is None:
                opt.optimize([layer], 0)
            else:
                attached.step()
    kept = [s for states in layer.states for s in states]
    if attached is not None:
        kept = [t for p in params for t in tensors_of(attached.state[p])]
    return [*(p.detach() for p in params), *kept]


def assert_same(a: list[Tensor], b: list[Tensor]) -> None:
    for x, y in zip(a, b, strict=True):
        assert x.dtype == y.dtype
        if x.dtype == torch.bfloat16:  # it may be the low bits of a weight, which as numbers may be NaN
            x, y = x.view(torch.int16), y.view(torch.int16)
        assert torch.equal(x, y), f"{(x != y).sum().item()} of {x.numel()} elements differ"


# Every rule in every format; weights' formats and rounding take turns. Adam's states meet all formats of weights.
ROUNDS = [False, True, 5, False]
BITS = [
    (rule, form, torch.bfloat16 if form == "split" else DTYPES[(i + j) % 3], form != "split" and ROUNDS[(i + j) % 4])
    for i, rule in enumerate(RULES)
    for j, form in enumerate(FORMATS)
    if states_of(rule) or form == "split"
]
BITS += [("adam", f, dtype, ROUNDS[i + j]) for i, f in enumerate(("int8", "mixed")) for j, dtype in enumerate(DTYPES)]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("rule", "form", "dtype", "rounds"), dict.fromkeys(BITS))
def test_backends_have_the_same_bits(rule: str, form: str, dtype: torch.dtype, rounds: bool | int) -> None:
    more = {**options(rule, form), "stochastic_round": rounds}
    eager, numba = (train(rule, "attach", dtype, backend=backend, **more) for backend in ("eager", "numba"))
    assert_same(eager, numba)
    formats = {t.dtype for t in numba}
    expected = {"bfloat16": torch.bfloat16, "float16": torch.float16, "split": torch.bfloat16}
    if form in expected and dtype != torch.float32:
        assert expected[form] in formats
    if form in ("int8", "split") and states_of(rule):
        assert formats & {*BLOCK_CODECS}


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
        optimizer = Adam(learning_rate=0.0, state_dtype=form).attach([param])
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
    optimizer = make(rule, "plain")
    assert never_negative(optimizer.settings(optimizer.group()).program) == NEVER_NEGATIVE[rule]
    param = torch.randn(64, 80, requires_grad=True)
    attached = make(rule, "plain", state_dtype="int8").attach([param])
    param.grad = torch.randn(64, 80)
    attached.step()
    state = attached.state[param]
    for name in states_of(rule):
        assert state[name].dtype == (torch.uint8 if name in NEVER_NEGATIVE[rule] else torch.int8)
        assert state[name].shape == param.shape


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


class OfItsOwn(Optimizer):
    """A norm over the tensor, a state that starts at 0.1, one that is signed and one that may be a negative zero."""

    @staticmethod
    def rule(w, g, size=0.1, velocity=0.0, top=0.0, *, lr=0.01):  # type: ignore[no-untyped-def]
        size = 0.9 * size + 0.1 * sqrt(g * g)
        velocity = 0.9 * velocity + g / (norm(g) + size)
        top = maximum(0.9 * top, g)
        return w - lr * velocity / (sqrt(size) + top * top), size, velocity, top


# -- what a rule of one's own may make of its tensors ----------------------------------------------


class Kept(Optimizer):
    """The weight of before the step."""

    @staticmethod
    def rule(w, g, old, *, lr=0.1):  # type: ignore[no-untyped-def]
        return w - lr * g, w


class Swapped(Optimizer):
    """Every tensor is another's new value."""

    @staticmethod
    def rule(w, g, a=1.0, b=2.0, c=-0.5, *, lr=0.1):  # type: ignore[no-untyped-def]
        return w - lr * g, b, c, a


class Shifted(Optimizer):
    """The last gradients."""

    @staticmethod
    def rule(w, g, g1, g2, *, lr=0.1):  # type: ignore[no-untyped-def]
        return w - lr * (g + g1 + g2), g, g1


class OfNumbers(Optimizer):
    """States that are one number for the tensor: of the step, of a norm, a constant; and one that stays."""

    @staticmethod
    def rule(w, g, rate=0.0, size=0.0, three=0.0, still=0.25, *, lr=0.1, step):  # type: ignore[no-untyped-def]
        return w - rate * g / (1 + size), lr / sqrt(step), norm(g), 3.0, still


class Rolling(Optimizer):
    """Norms of states before and after they change, and one within another."""

    @staticmethod
    def rule(w, g, m, v, *, lr=0.1):  # type: ignore[no-untyped-def]
        before = norm(m)
        m, v = 0.9 * m + g, 0.9 * v + g * g
        return w - lr * m / (before + norm(m - v / norm(v)) + 1.0), m, v


class Unmoved(Optimizer):
    """Norms of a state that is not stored."""

    @staticmethod
    def rule(w, g, m=1.0, *, lr=0.1):  # type: ignore[no-untyped-def]
        return w - lr * g / norm(m), m


class Nothing(Optimizer):
    """No change at all."""

    @staticmethod
    def rule(w, g, m=0.5, *, lr=0.1):  # type: ignore[no-untyped-def]
        return w, m


class Number(Optimizer):
    """A weight that is one number."""

    @staticmethod
    def rule(w, g, m=0.5, *, lr=0.1):  # type: ignore[no-untyped-def]
        return lr, m + w


OWN = [Kept, Swapped, Shifted, OfNumbers, Rolling, Unmoved, Nothing, Number]
# How far a stored number may be from what it stands for, of the largest in its block.
ERRORS = {"float32": 0.0, "bfloat16": 2.0**-7, "float16": 2.0**-10, "int8": 2.0**-3}


def stored_values(state: Any) -> dict[str, Tensor]:
    """A parameter's states as float32."""
    values = {}
    for name, stored in state.items():
        if name in state.get("scales", {}):
            codec = BLOCK_CODECS[stored.dtype]
            scales = state["scales"][name].flatten().repeat_interleave(BLOCK)[: stored.numel()]
            leaves = {name: stored.view(torch.uint8).to(torch.int64).flatten(), scale_name(name): scales}
            values[name] = value_of(codec.decode(name), leaves)
        elif name not in ("scales", "step", "low_bits"):
            values[name] = stored.float().flatten().clone()
    return values


def numbers(kind: Any, step: int) -> dict[str, Any]:
    return {"lr": 0.1} | ({"step": step} if "step" in signature(kind.rule).keywords else {})


@pytest.mark.parametrize(
    ("form", "dtype"),
    [("float32", DTYPES[0]), ("bfloat16", DTYPES[1]), ("float16", DTYPES[2]), ("int8", DTYPES[0]), ("int8", DTYPES[1])],
)
@pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.__name__)
def test_rules_of_ones_own_keep_what_they_return(kind: Any, form: str, dtype: torch.dtype) -> None:
    """Each state in each format is near what the rule returns for tensors, and has the same bits on every backend."""
    starts = {name: torch.full((5000,), start) for name, start in signature(kind.rule).states.items()}
    ends = []
    for backend in ("eager", "numba"):
        generator = torch.Generator().manual_seed(5)
        param = (torch.randn(5000, generator=generator) + 3).to(dtype).requires_grad_()
        with use_backend(backend):
            optimizer = kind(state_dtype=form).attach([param])
            for step in (1, 2, 3):
                param.grad = torch.randn(5000, generator=generator).to(dtype)
                before = stored_values(optimizer.state[param]) or starts
                expected = kind.rule(
                    param.detach().float().clone(), param.grad.float(), **before, **numbers(kind, step)
                )
                optimizer.step()
        found = [param.detach().float(), *stored_values(optimizer.state[param]).values()]
        for value, wanted in zip(found, expected, strict=True):
            wanted = torch.as_tensor(wanted, dtype=torch.float32).expand(5000)
            error = max(ERRORS[form], 2.0**-20 if dtype == torch.float32 else 2.0**-7)
            assert ((value - wanted).abs() <= error * wanted.abs().max()).all()
        ends.append([param.detach(), *tensors_of(optimizer.state[param])])
    assert_same(*ends)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_rule_of_ones_own_in_eight_bits(dtype: torch.dtype) -> None:
    ends = []
    for backend in ("eager", "numba"):
        generator = torch.Generator().manual_seed(5)
        param = torch.randn(70_001, generator=generator).to(dtype).requires_grad_()
        with use_backend(backend):
            optimizer = OfItsOwn(lr=0.1, state_dtype="int8").attach([param])
            for _ in range(3):
                param.grad = torch.randn(70_001, generator=generator).to(dtype)
                optimizer.step()
        ends.append([param.detach(), *tensors_of(optimizer.state[param])])
        state = optimizer.state[param]
        assert [state[name].dtype for name in ("size", "velocity", "top")] == [torch.uint8, torch.int8, torch.int8]
    assert_same(*ends)


def test_a_state_starts_at_its_default() -> None:
    stored, scales = storage.new_state(0.1, torch.uint8, torch.empty(2, 300))
    assert scales is not None
    assert scales.shape == (3,)
    assert torch.equal(decoded({"s": stored[0, :256], "scales": {"s": scales[:1]}}, "s"), torch.full((256,), 0.1))
    negative, scales = storage.new_state(-0.1, torch.int8, torch.empty(256))
    assert negative.unique().tolist() == [-1]  # the largest code, with the sign
    assert scales is not None
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
    optimizer.param_groups[0]["factor"] = -1.0
    with pytest.raises(ValueError, match="factor must be at least 0"):
        optimizer.step()
