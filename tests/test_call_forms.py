"""Every documented constructor, in every form of call that programs use, against the float64 reference."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from rule_cases import REFERENCES
from torch import Tensor

from neon import optimizers
from neon.optimizers import ExpSchedule, Optimizer, PolySchedule, PowerSchedule, Schedule, ShiftSchedule, StepSchedule

pytestmark = pytest.mark.usefixtures("batches_of_128")

STEPS, BATCH = 10, 128  # one step an epoch, so that schedules act
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}
REQUIRED = {"learning_rate": 0.1, "momentum_coef": 0.9}  # what has no default
HALVED = Schedule([2, 6], 0.5)
RATES = [1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]  # of HALVED, by epoch
CLIPS = [("gradient_clip_norm", None, 2.0), ("gradient_clip_value", None, 0.4), ("param_clip_value", None, 0.9)]
ROUNDED = ("stochastic_round", False, False)
MOMENTS = [("learning_rate", 0.001, 0.03), ("beta_1", 0.9, 0.8), ("beta_2", 0.999, 0.97), ("epsilon", 1e-8, 0.01)]

# class: its documented arguments in their order, each with its default (... where there is none) and another value
DOCUMENTED: dict[str, list[tuple[str, Any, Any]]] = {
    "GradientDescentMomentum": [
        ("learning_rate", ..., 0.2), ("momentum_coef", ..., 0.7), ROUNDED, ("wdecay", 0.0, 0.05),
        *CLIPS, ("name", None, "gdm"), ("schedule", Schedule(), HALVED), ("nesterov", False, True),
    ],
    "RMSProp": [
        ROUNDED, ("decay_rate", 0.95, 0.8), ("learning_rate", 2e-3, 0.03), ("epsilon", 1e-6, 0.01),
        *CLIPS, ("name", None, "rms"), ("schedule", Schedule(), HALVED),
    ],
    "Adagrad": [
        ROUNDED, ("learning_rate", 0.01, 0.2), ("epsilon", 1e-6, 0.02), *CLIPS, ("name", None, "ada"),
    ],
    "Adadelta": [
        ROUNDED, ("decay", 0.95, 0.7), ("epsilon", 1e-6, 0.02), ("param_clip_value", None, 0.9), ("name", None, "ada"),
    ],
    "Adam": [ROUNDED, *MOMENTS, *CLIPS, ("name", "adam", "other")],
    "ShiftAdaMax": [
        ROUNDED, ("learning_rate", 0.002, 0.03), *MOMENTS[1:], ("schedule", Schedule(), HALVED),
        ("name", "ShiftAdaMax", "shift"),
    ],
}  # fmt: skip
DOCUMENTED["RMSprop"] = DOCUMENTED["RMSProp"]


# -- a list of layers, and the reference beside it -------------------------------------------------


class Part:
    """A layer as the framework has them: plain tensors, gradients summed over the minibatch."""

    def __init__(self, *weights: Tensor) -> None:
        self.entries = [((w, torch.zeros_like(w)), list[Tensor]()) for w in weights]

    def get_params(self) -> Any:
        return self.entries[0] if len(self.entries) == 1 else self.entries


class Nothing:
    def get_params(self) -> Any:
        return []


class Row:
    """A container."""

    def __init__(self, *layers: Any) -> None:
        self.layers = list(layers)


class Data(NamedTuple):
    weights: list[np.ndarray]
    gradients: list[list[np.ndarray]]  # of each step, summed over the minibatch


def data(*shapes: tuple[int, ...], seed: int = 3) -> Data:
    """Numbers that are exact in float32."""
    rng = np.random.default_rng(seed)

    def numbers(scale: float) -> list[np.ndarray]:
        return [(scale * rng.standard_normal(shape)).astype(np.float32).astype(np.float64) for shape in shapes]

    return Data(numbers(0.5), [numbers(0.3 * BATCH) for _ in range(STEPS)])


SMALL = data((3, 4), (4,), (2, 3, 5), (1,))


def trained(opt: Optimizer, given: Data, dtype: torch.dtype) -> list[np.ndarray]:
    """The weights after ten steps of a list of layers: two tensors in one, the others below a container and a list."""
    weights = [torch.tensor(w, dtype=dtype) for w in given.weights]
    parts = [Part(*weights[:2]), *map(Part, weights[2:])]
    layers = [parts[0], Nothing(), Row(*parts[1:2]), [parts[2:]]]
    entries = [entry for part in parts for entry in part.entries]
    for epoch, gradients in enumerate(given.gradients):
        for ((_, grad), _), g in zip(entries, gradients, strict=True):
            grad.copy_(torch.as_tensor(g))
        opt.optimize(layers, epoch)
    return [w.double().numpy() for w in weights]


def expected(name: str, values: dict[str, Any], rates: list[float], given: Data) -> list[list[np.ndarray]]:
    """The same by the reference, after each step; its learning rate is set at each: `rates` times the first."""
    hyper = {k: v for k, v in values.items() if k not in ("stochastic_round", "name", "schedule")}
    rule = REFERENCES[name.replace("RMSprop", "RMSProp")](batch_size=BATCH, **hyper)
    first, weights, found = rule.learning_rate, list(given.weights), []
    for epoch, gradients in enumerate(given.gradients):
        rule.learning_rate = first * rates[epoch]
        rule.step(weights, gradients, epoch)
        found.append(list(weights))
    return found


def check(opt: Optimizer, name: str, values: dict[str, Any], rates: list[float], dtype: torch.dtype) -> None:
    found = trained(opt, SMALL, dtype)
    for w, wanted, start in zip(found, expected(name, values, rates, SMALL)[-1], SMALL.weights, strict=True):
        assert np.abs(w - start).max() > 1e-3  # it has moved
        np.testing.assert_allclose(w, wanted, rtol=0, atol=TOLERANCE[dtype])


# -- forms of a call -------------------------------------------------------------------------------


def defaults(name: str) -> dict[str, Any]:
    return {word: REQUIRED[word] if default is ... else default for word, default, _ in DOCUMENTED[name]}


def rates_of(values: dict[str, Any]) -> list[float]:
    return RATES if values.get("schedule") == HALVED else [1.0] * STEPS


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_order_and_the_defaults_are_the_documented_ones(name: str) -> None:
    found = list(inspect.signature(getattr(optimizers, name)).parameters.values())[: len(DOCUMENTED[name])]
    assert [p.name for p in found] == [word for word, _, _ in DOCUMENTED[name]]
    for p, (_, default, _) in zip(found, DOCUMENTED[name], strict=True):
        assert p.kind is p.POSITIONAL_OR_KEYWORD
        assert p.default == (p.empty if default is ... else None if p.name == "schedule" else default)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("stochastic_round", [False, True])
@pytest.mark.parametrize("name", DOCUMENTED)
def test_defaults_alone(name: str, stochastic_round: bool, dtype: torch.dtype) -> None:
    """Rounding of the parameters' own width changes nothing here."""
    required = [default for word, default in defaults(name).items() if word in REQUIRED and name.startswith("Grad")]
    more = {"stochastic_round": True} if stochastic_round else {}
    check(getattr(optimizers, name)(*required, **more), name, defaults(name), [1.0] * STEPS, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("form", ["positional", "by keyword", "half and half"])
@pytest.mark.parametrize("name", DOCUMENTED)
def test_all_arguments(name: str, form: str, dtype: torch.dtype) -> None:
    values = {word: other for word, _, other in DOCUMENTED[name]}
    place = {"positional": len(values), "by keyword": 0, "half and half": len(values) // 2}[form]
    words = list(values)
    opt = getattr(optimizers, name)(
        *(values[word] for word in words[:place]),
        **{word: values[word] for word in reversed(words[place:])},  # in another order than the documented one
    )
    assert opt.name == values["name"]
    check(opt, name, values, rates_of(values), dtype)


@pytest.mark.parametrize(
    ("name", "word"), [(name, word) for name, arguments in DOCUMENTED.items() for word, *_ in arguments]
)
def test_positional_up_to_each_argument(name: str, word: str) -> None:
    """All before it have their defaults, written out: a call that ends at any place."""
    values = defaults(name)
    before = list(values)[: list(values).index(word)]
    values[word] = next(other for known, _, other in DOCUMENTED[name] if known == word)
    missing = [w for w, default, _ in DOCUMENTED[name] if default is ... and w not in (*before, word)]
    opt = getattr(optimizers, name)(
        *(values[w] for w in (*before, word)),
        **{w: values[w] for w in missing},
    )
    check(opt, name, values, rates_of(values), torch.float64)


SCHEDULES: dict[str, tuple[Any, list[float]]] = {
    "constant": (Schedule(), [1.0] * STEPS),
    "by lists": (Schedule([2, 6], [0.06, 0.04]), [1.0] * 2 + [0.6] * 4 + [0.4] * 4),
    "every two epochs": (Schedule(2, 0.5), [0.5 ** (e // 2) for e in range(STEPS)]),
    "steps": (StepSchedule([1, 4], [0.05, 0.03]), [1.0] + [0.5] * 3 + [0.3] * 6),
    "power": (PowerSchedule(3, 0.1), [0.1 ** (e // 3) for e in range(STEPS)]),
    "exponential": (ExpSchedule(0.3), [1 / (1 + 0.3 * e) for e in range(STEPS)]),
    "polynomial": (PolySchedule(10, 0.7), [(1 - e / 10) ** 0.7 for e in range(STEPS)]),
    "shift": (ShiftSchedule(2, 1), [0.5 ** (e // 2) for e in range(STEPS)]),
}


@pytest.mark.parametrize("title", SCHEDULES)
@pytest.mark.parametrize("name", ["GradientDescentMomentum", "RMSProp", "ShiftAdaMax"])
def test_schedules_given_by_position(name: str, title: str) -> None:
    schedule, rates = SCHEDULES[title]
    values = defaults(name) | {"learning_rate": 0.1, "schedule": schedule}
    arguments = [values[word] for word in list(values)[: list(values).index("schedule") + 1]]
    check(getattr(optimizers, name)(*arguments), name, values, rates, torch.float64)


# calls as programs write them: what is given, and by position how much of it
PROGRAMS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("GradientDescentMomentum", (0.1, 0.9, False, 0.0, None, None, None, None, HALVED), {}),
    ("GradientDescentMomentum", (0.1, 0.9), {"wdecay": 0.0005, "schedule": HALVED, "stochastic_round": True}),
    ("GradientDescentMomentum", (1, 0), {"gradient_clip_norm": 5, "stochastic_round": False}),
    ("GradientDescentMomentum", (0.1,), {"momentum_coef": 0.9, "stochastic_round": False}),
    ("GradientDescentMomentum", (0.01, 0.9), {"gradient_clip_value": 5}),
    ("GradientDescentMomentum", (0.1, 0.9), {"gradient_clip_value": None, "nesterov": True}),
    ("RMSProp", (False,), {"gradient_clip_value": 5, "gradient_clip_norm": None}),
    ("RMSProp", (), {"decay_rate": 0.997, "learning_rate": 0.0005, "epsilon": 1e-8, "gradient_clip_value": 1}),
    ("RMSprop", (True, 0.95, 2e-3), {"schedule": HALVED}),
    ("Adagrad", (), {"learning_rate": 0.01, "gradient_clip_value": 15}),
    ("Adadelta", (False, 0.95), {"epsilon": 1e-6}),
    ("Adam", (), {"gradient_clip_norm": 15}),
    ("Adam", (), {"learning_rate": 0.0005, "beta_1": 0.5}),
    ("ShiftAdaMax", (), {"learning_rate": 0.01, "schedule": HALVED}),
]


@pytest.mark.parametrize("place", range(len(PROGRAMS)))
def test_calls_of_programs(place: int) -> None:
    name, given, more = PROGRAMS[place]
    words = [word for word, _, _ in DOCUMENTED[name]]
    values = defaults(name) | dict(zip(words, given, strict=False)) | more
    check(getattr(optimizers, name)(*given, **more), name, values, rates_of(values), torch.float64)


@pytest.mark.parametrize("name", [None, "several"])
def test_a_multi_optimizer_by_position_and_by_keyword(name: str | None) -> None:
    for make in (
        lambda opt: optimizers.MultiOptimizer({"default": opt}, name),
        lambda opt: optimizers.MultiOptimizer(optimizer_mapping={"default": opt}, name=name),
    ):
        opt = make(optimizers.Adam())
        assert opt.name == name
        check(opt, "Adam", defaults("Adam"), [1.0] * STEPS, torch.float64)


# -- ten bits, as a command line gives them --------------------------------------------------------

WIDE = data((40, 50), (2000,), (10, 20, 30), (1000,), seed=5)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_ten_bits(name: str) -> None:
    """A step moves a weight by less than a unit of its last bit from where it belongs, and by nothing on average.

    The gradients do not depend on the weights, so the errors of ten steps add up.
    """
    values = {word: other for word, _, other in DOCUMENTED[name]} | {"stochastic_round": 10}
    values |= {word: default for word, default, _ in DOCUMENTED[name] if word in ("wdecay", "param_clip_value")}
    found = trained(getattr(optimizers, name)(*values.values()), WIDE, torch.float32)
    units = [np.zeros_like(w) for w in WIDE.weights]
    steps = expected(name, values, rates_of(values), WIDE)
    for weights in steps:
        units = [unit + last_bit(np.abs(w) + unit) for unit, w in zip(units, weights, strict=True)]
    errors = []
    for w, wanted, unit in zip(found, steps[-1], units, strict=True):
        assert not (w.astype(np.float32).view(np.uint32) & (2**13 - 1)).any()  # of 23 bits ten are kept
        assert (np.abs(w - wanted) < unit).all()
        errors.append(((w - wanted) / unit).ravel())
    error = np.concatenate(errors)
    assert error.std() > 0.02  # it does round
    assert abs(error.mean()) < 4 * error.std() / np.sqrt(error.size)


def last_bit(size: np.ndarray) -> np.ndarray:
    """What the last of ten bits of a mantissa stands for."""
    return 2.0 ** (np.floor(np.log2(size)) - 10)
