"""What a list of layers may hold, crossed with rules, options and ways to optimize, against the float64 reference."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import reference
import rule_cases
import torch
from layer_contents import BATCH, CLIP, CONTENTS, WAYS, ByHand, Run
from pairs import crossed
from rule_cases import OF_MATRICES, REFERENCES, RULES, VIEWED, make_reference
from torch import Tensor

from neon.initializers import Gaussian
from neon.layers import Affine, Linear
from neon.models import Model
from neon.optimizers import (
    Adadelta,
    Adagrad,
    Adam,
    GradientDescentMomentum,
    MultiOptimizer,
    Optimizer,
    RMSProp,
    ShiftAdaMax,
    get_param_list,
)
from neon.transforms import SumSquared, Tanh

pytestmark = pytest.mark.usefixtures("batches_of_eight")


# -- contents: each makes layers of three weights with their gradients -----------------------------


def made(rule: str, **options: Any) -> tuple[Any, reference.Reference]:
    """neon's optimizer, and the reference of it, which knows nothing of formats."""
    name, hyper = RULES[rule]
    known = {key: value for key, value in options.items() if key in ("gradient_clip_norm", "epsilon_1")}
    return (
        rule_cases.made(name, **hyper, **options),
        REFERENCES[name](batch_size=BATCH, **hyper, **known),
    )


# -- rules and options -----------------------------------------------------------------------------


# Every rule by every way, and rules with and without states on every content, in float64 or rounded to bfloat16.
EVERY = crossed(
    (
        (content, way, rule, rounds)
        for content, way, rule, rounds in product(CONTENTS, WAYS, RULES, [False, True])
        if not (rule in VIEWED and rounds) and not (rule in OF_MATRICES and content == "flat views made anew")
    ),
    lambda content, way, rule, rounds: (rule, way, rounds),
    lambda content, way, rule, rounds: (content, way, rounds, make_reference(rule, "plain").keeps() > 0),
)


def of_every(*, rounds: bool) -> list[Any]:
    """Those cases that round, or those that do not."""
    return [pytest.param(*param.values[:3], marks=param.marks) for param in EVERY if param.values[3] is rounds]


@pytest.mark.parametrize(("content", "way", "rule"), of_every(rounds=False))
def test_every_rule_on_every_content(content: str, way: str, rule: str) -> None:
    """The norm of all gradients is about 100, so the bound bites."""
    opt, expected = made(rule, gradient_clip_norm=CLIP)
    run = Run(content, rule=rule)
    for _ in run.steps(WAYS[way](opt), expected):
        pass
    run.check()


@pytest.mark.parametrize(
    ("content", "way", "rule"), crossed(product(CONTENTS, WAYS, ["descent", "momentum", "adam", "adadelta"]))
)
def test_averages_of_weights(content: str, way: str, rule: str) -> None:
    leaf, expected = made(rule, weight_average=0.7)
    run, opt = Run(content), WAYS[way](leaf)
    averages = [w.copy() for w in run.expected]
    for _ in run.steps(opt, expected):
        averages = [a + 0.3 * (w - a) for a, w in zip(averages, run.expected, strict=True)]
    with opt.averaged(run.layers):
        for w, average in zip(run.weights, averages, strict=True):
            np.testing.assert_allclose(w.numpy(), average, rtol=0, atol=1e-12)
    run.check()


@pytest.mark.parametrize(("content", "way", "rule"), crossed(product(CONTENTS, WAYS, ["momentum", "rmsprop", "adam"])))
def test_states_of_eight_bits(content: str, way: str, rule: str) -> None:
    """The weights lie within 8 % of their way from those of float64 states, the same for every content."""
    opt, expected = made(rule, state_dtype="int8")
    run, again = Run(content, torch.float32), Run("plain tensors", torch.float32)
    for _ in run.steps(WAYS[way](opt), expected):
        pass
    for _ in again.steps(made(rule, state_dtype="int8")[0], made(rule)[1]):
        pass
    moved = max(np.abs(w - start).max() for w, start in zip(run.expected, run.start, strict=True))
    run.check(0.08 * moved)
    if content != "flat views made anew":  # blocks are of rows, and a flat view has one
        assert all(map(torch.equal, run.weights, again.weights))
    states = {state.dtype for _, states in get_param_list(run.layers) for state in states}
    assert states & {torch.int8, torch.uint8}


@pytest.mark.parametrize(("content", "way", "rule"), of_every(rounds=True))
def test_rounding_at_random(content: str, way: str, rule: str) -> None:
    """Each step errs by less than a unit of the last bit of a bfloat16, and by nothing on average."""
    numbers = {"epsilon_1": 1e-3} if rule == "adafactor" else {}  # by default that of bfloat16
    opt, expected = made(rule, stochastic_round=True, **numbers)
    run = Run(content, torch.bfloat16, rule)
    units = [np.zeros_like(w) for w in run.expected]
    for _ in run.steps(WAYS[way](opt), expected):
        units = [
            unit + 2.0 ** (np.floor(np.log2(np.maximum(np.abs(w) + unit, 1e-30))) - 7)
            for unit, w in zip(units, run.expected, strict=True)
        ]
    errors = []
    for w, wanted, unit in zip(run.weights, run.expected, units, strict=True):
        error = (w.double().numpy() - wanted) / unit
        assert (np.abs(error) < 1.001).all()  # a weight decay, as of AdamW, sees what was rounded
        errors.append(error.ravel())
    error = np.concatenate(errors)
    assert error.std() > 0.05
    assert abs(error.mean()) < 4 * error.std() / np.sqrt(error.size)


# -- an optimizer by hand --------------------------------------------------------------------------


# alone it knows no norm but its own
@pytest.mark.parametrize(
    ("way", "bound"), [(way, b) for way in WAYS for b in (None, CLIP) if b is None or way != "alone"]
)
@pytest.mark.parametrize("content", CONTENTS)
def test_an_optimizer_by_hand_on_every_content(content: str, way: str, bound: float | None) -> None:
    opt = WAYS[way](ByHand())
    if isinstance(opt, MultiOptimizer):
        opt.gradient_clip_norm = bound
    rule = reference.GradientDescentMomentum(
        learning_rate=0.02, momentum_coef=0.9, batch_size=BATCH, gradient_clip_norm=bound
    )
    run = Run(content)
    for _ in run.steps(opt, rule):
        pass
    run.check()


# -- three tensors where a rule has two states -----------------------------------------------------


SCRATCH = {"Adadelta": Adadelta, "ShiftAdaMax": ShiftAdaMax}


def three(rng: np.random.Generator, like: Tensor) -> list[Tensor]:
    return [torch.tensor(0.01 * rng.random(like.shape)).to(like) for _ in range(3)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SCRATCH)
def test_the_third_of_three_states_is_left_alone(name: str, way: str) -> None:
    run, opt = Run("plain tensors"), WAYS[way](SCRATCH[name]())
    rule = REFERENCES[name](batch_size=BATCH)
    lists = [layer.get_params()[1] for layer in run.layers]
    for place, (states, w) in enumerate(zip(lists, run.weights, strict=True)):
        states.extend(three(run.rng, w))
        rule.state[place] = [state.numpy().copy() for state in states[:2]]
    held, thirds = [list(states) for states in lists], [states[2].clone() for states in lists]
    for epoch in run.steps(opt, rule):
        assert opt.updates == epoch + 1
        assert all(a is b for now, before in zip(lists, held, strict=True) for a, b in zip(now, before, strict=True))
        assert all(map(torch.equal, (states[2] for states in lists), thirds))
    run.check()
    for place, states in enumerate(lists):
        for state, wanted in zip(states[:2], rule.state[place], strict=True):
            np.testing.assert_allclose(state.numpy(), wanted, rtol=0, atol=1e-12)


def test_a_plan_stays_for_three_tensors_and_for_scales_beside_states(monkeypatch: pytest.MonkeyPatch) -> None:
    from neon.stepping import layer_lists as stepper

    built: list[Any] = []
    plan = stepper.Plan
    monkeypatch.setattr(stepper, "Plan", lambda *args: built.append(1) or plan(*args))
    for opt, states in ((Adadelta(), 3), (Adam(state_dtype="int8"), 0)):
        run = Run("plain tensors", torch.float32)
        for layer, w in zip(run.layers, run.weights, strict=True):
            layer.get_params()[1].extend(three(run.rng, w)[:states])
        built.clear()
        for _ in run.steps(opt, reference.Adadelta()):
            assert built == [1]
        states = run.layers[0].get_params()[1]
        states[-1] = states[-1].clone()  # another tensor in its place is seen
        opt.optimize(run.layers, 0)
        assert built == [1, 1]


@pytest.mark.parametrize("rule", [Adam, RMSProp, Adagrad, lambda: GradientDescentMomentum(0.1, 0.9)])
def test_other_rules_refuse_a_tensor_too_many(rule: Callable[[], Optimizer]) -> None:
    run = Run("plain tensors")
    states = run.layers[0].get_params()[1]
    states.extend(three(run.rng, run.weights[0]))
    with pytest.raises(ValueError, match=r"holds 3 tensors; .* keeps [12] "):
        rule().optimize(run.layers, 0)
    assert all(map(torch.equal, run.weights, map(torch.tensor, run.start)))


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("name", SCRATCH)
def test_lists_of_any_other_length_are_refused(name: str, count: int) -> None:
    run = Run("plain tensors")
    run.layers[0].get_params()[1].extend(torch.zeros_like(run.weights[0]) for _ in range(count))
    with pytest.raises(ValueError, match=rf"holds {count} tensors; .* keeps 2 \(exp_avg|square_avg"):
        SCRATCH[name]().optimize(run.layers, 0)


@pytest.mark.parametrize("option", [{"weight_average": 0.9}, {"master": "split"}])
@pytest.mark.parametrize("stepped", [False, True])
@pytest.mark.parametrize("name", SCRATCH)
def test_scratch_is_not_taken_for_an_average_or_low_bits(name: str, stepped: bool, option: dict[str, Any]) -> None:
    run = Run("plain tensors", torch.bfloat16)
    for layer, w in zip(run.layers, run.weights, strict=True):
        layer.get_params()[1].extend(three(run.rng, w))
    if stepped:
        SCRATCH[name]().optimize(run.layers, 0)
    before = [w.clone() for w in run.weights]
    with pytest.raises(ValueError, match=r"the last may be scratch; with weight_average or master .*empty list"):
        SCRATCH[name](**option).optimize(run.layers, 0)
    assert all(map(torch.equal, run.weights, before))
    for layer in run.layers:
        layer.get_params()[1].clear()
    for _ in range(3):  # the list of three that it makes itself is no such list
        SCRATCH[name](**option).optimize(run.layers, 0)


@pytest.mark.parametrize("name", SCRATCH)
def test_given_states_of_float32_stay_under_other_formats(name: str) -> None:
    """A format is that of new states; as for any other rule, states that are given keep their own."""
    run, again = Run("plain tensors", torch.float32), Run("plain tensors", torch.float32)
    for some, count in ((run, 3), (again, 2)):
        for layer, w in zip(some.layers, some.weights, strict=True):
            layer.get_params()[1].extend([torch.zeros_like(w) for _ in range(count)])
    for _ in run.steps(SCRATCH[name](state_dtype="int8"), reference.Adadelta()):
        pass
    for _ in again.steps(SCRATCH[name](), reference.Adadelta()):
        pass
    assert all(map(torch.equal, run.weights, again.weights))


@pytest.mark.parametrize("name", SCRATCH)
def test_a_model_is_saved_with_three_states_and_goes_on(name: str, tmp_path: Any) -> None:
    def model() -> Model:
        return Model([Affine(6, Gaussian(scale=0.3), activation=Tanh()), Linear(2, Gaussian(scale=0.3))])

    batches = [(torch.randn(BATCH, 3), torch.randn(BATCH, 2)) for _ in range(4)]
    through, first, second = model(), model(), model()
    for one in (through, first):
        torch.manual_seed(2)
        one(batches[0][0])  # which makes the weights
        for (w, _), states in one_list(one):
            states.extend(torch.full_like(w, value) for value in (0.01, 0.02, 9.0))
    through.fit(batches, SumSquared(), SCRATCH[name](), 2)
    first.fit(batches, SumSquared(), SCRATCH[name](), 1)
    first.save_params(tmp_path / "model.prm")
    second.load_params(tmp_path / "model.prm")
    opt = SCRATCH[name]()
    second.fit(batches, SumSquared(), opt, 1)
    assert opt.updates == 8
    assert all(map(torch.equal, second.parameters(), through.parameters()))
    assert [[states[2].unique().tolist() for _, states in one_list(second)]] == [[[9.0]] * 3]


def one_list(model: Model) -> list[Any]:
    return [entry for layer in model.layers for sub in getattr(layer, "layers", [layer]) for entry in entries(sub)]


def entries(layer: Any) -> list[Any]:
    found = layer.get_params()
    return [found] if isinstance(found, tuple) else found
