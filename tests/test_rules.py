"""Every rule crossed with options and dtypes: equal to the reference, the same bits on every backend and thread."""

from __future__ import annotations

import inspect
from typing import Any

import constructors
import numpy as np
import pytest
import reference
import torch
from pairs import crossed
from rule_cases import (
    CASES,
    OPTIONS,
    REFERENCES,
    RULES,
    STEPS,
    PlainLayer,
    Result,
    assert_same_bits,
    data,
    expect,
    gradients,
    make,
    make_reference,
    run,
    switches,
    weights,
)

import neon.optimizers
from neon.engine import use_backend

pytestmark = pytest.mark.usefixtures("one_thread")


def how_of(option: str) -> str:
    """A batch size exists in `optimize` alone; everything else is shown through `attach`."""
    return "optimize" if "batch_size" in OPTIONS[option] else "attach"


def worst_error(result: Result, rule: str, option: str) -> float:
    """The largest difference to the reference, relative to each tensor's largest magnitude."""
    expected = expect(rule, option)
    every = [*zip(result.tensors(), expected.tensors, expected.scales, strict=True)]
    in_float32 = every[0][0].dtype == torch.float32
    compared = len(result.weights) if in_float32 and not make_reference(rule, option).float32_states else len(every)
    worst = 0.0
    for got, want, scale in every[:compared]:
        assert got.shape == want.shape
        if want.size and scale:
            worst = max(worst, float(np.max(np.abs(got.double().numpy() - want))) / scale)
        else:
            assert not got.any()
    return worst


def test_every_exported_rule_has_a_reference() -> None:
    """A class of its name in reference.py, which takes the rule into every table of these tests."""
    assert {*constructors.RULES} <= {*REFERENCES}


EVERY = [(rule, option, dtype) for rule, option in CASES for dtype in (torch.float64, torch.float32)]


@pytest.mark.parametrize(
    ("rule", "option", "dtype"), crossed(EVERY, lambda rule, option, dtype: (rule, dtype, *switches(option))), ids=str
)
def test_reference_and_backends(rule: str, option: str, dtype: torch.dtype) -> None:
    """Eager, the definition, against the reference; then numba against eager, bit for bit."""
    eager = run(rule, option, dtype, backend="eager", how=how_of(option))
    error = worst_error(eager, rule, option)
    if dtype == torch.float64:
        # ShiftAdaMax's divisions are shifts: only the factor of a clip by norm is rounded otherwise
        exact = rule.startswith("shift") and "gradient_clip_norm" not in OPTIONS[option]
        assert error <= (0 if exact else make_reference(rule, option).float64_bound)
    else:
        assert error / 2**-23 <= make_reference(rule, option).float32_ulp
    # Every program is compiled once: float64 differs from float32 in one word of the source, and one
    # rule stands for all there, except without and with all options.
    if dtype == torch.float32 or rule == "adam" or option in ("plain", "all"):
        assert_same_bits(eager, run(rule, option, dtype, backend="numba", how=how_of(option)))


@pytest.mark.parametrize("option", [pytest.param("plain", marks=pytest.mark.crossing), "clip by norm"])
@pytest.mark.parametrize("rule", RULES)
def test_attach_and_optimize_are_one(rule: str, option: str, pytestconfig: pytest.Config) -> None:
    """Over three epochs at least; a norm is made of what a plain step is made of, and of more."""
    steps = STEPS if pytestconfig.getoption("all") else 7
    runs = [run(rule, option, torch.float32, backend="eager", how=how, steps=steps) for how in ("attach", "optimize")]
    assert_same_bits(*runs)


# One element, one step, by hand: w = 0.5, g = 0.25 and zero states.
BY_HAND: dict[str, tuple[dict[str, Any], float]] = {
    "GradientDescentMomentum": ({"learning_rate": 0.2, "momentum_coef": 0.5}, 0.45),
    "RMSProp": (
        # μ = 0.75·0.0625 = 0.046875; √(μ + 0.015625) + 0.015625 = 0.265625; 0.17·0.25 / 0.265625
        {"decay_rate": 0.25, "learning_rate": 0.17, "epsilon": 0.015625},
        0.34,
    ),
    "Adagrad": ({"learning_rate": 0.5, "epsilon": 0.09375}, 0.5 - 0.125 / 0.39528470752104744),
    # μ_J = 0.03125; Δ² = 0.0625·ε / (μ_J + ε) = 0.0625 / 2
    "Adadelta": ({"decay": 0.5, "epsilon": 0.03125}, 0.5 - 0.17677669529663687),
    # m̂ = g and v̂ = g² at t = 1
    "Adam": ({"learning_rate": 0.1, "epsilon": 0.25}, 0.45),
    "AdamW": ({"learning_rate": 0.1, "epsilon": 0.25, "wdecay": 0.5}, 0.425),
    "Lion": ({"learning_rate": 0.1, "wdecay": 0.5}, 0.375),
    # m = 0.025; 1/v ≈ 4 = 2²; α/(1 − β₁) = 0.02 → 2⁻⁶: Δ = 0.025·4/64
    "ShiftAdaMax": ({}, 0.4984375),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_first_step_by_hand(name: str) -> None:
    hyper, expected = BY_HAND[name]
    p = torch.nn.Parameter(torch.tensor([0.5], dtype=torch.float64))
    p.grad = torch.tensor([0.25], dtype=torch.float64)
    getattr(neon.optimizers, name)(**hyper).attach([p]).step()
    assert p.item() == pytest.approx(expected, rel=1e-14)
    params = [np.array([0.5])]
    REFERENCES[name](**hyper).step(params, [np.array([0.25])])
    assert params[0][0] == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("how", ["attach", "optimize"])
@pytest.mark.parametrize("backend", ["eager", "numba"])
def test_each_tensor_counts_its_own_updates(backend: str, how: str) -> None:
    """Tensor i has a gradient at every (i+1)th step: Adam's t differs from one to the next."""
    params = weights(torch.float64)
    expected = [w.copy() for w in data().weights]
    opt, ref = make("adam, tuned", "plain"), make_reference("adam, tuned", "plain")
    layer = PlainLayer(params)
    with use_backend(backend):
        attached = opt.attach(params) if how == "attach" else None
        for step in range(12):
            on = [step % (i + 1) == i for i in range(len(params))]
            for p, g, here in zip(params, gradients(step, torch.float64), on, strict=True):
                p.grad = g if here else None
            opt.optimize([layer], 0) if attached is None else attached.step()
            rows = data().gradients[step]
            ref.step(expected, [g if here else None for g, here in zip(rows, on, strict=True)])
    assert len(set(ref.updates.values())) > 4
    for p, want in zip(params, expected, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", ["momentum", "rmsprop", "adagrad", "adadelta"])
def test_states_that_the_caller_put_there_are_honoured(rule: str) -> None:
    ref = make_reference(rule, "plain")
    p = torch.nn.Parameter(torch.tensor([0.5, -2.0], dtype=torch.float64))
    p.grad = torch.tensor([0.25, 1.5], dtype=torch.float64)
    layer = PlainLayer([p])
    ref.state[0] = [np.array([0.125 * (i + 1), 0.75]) for i in range(ref.keeps())]
    mine = [torch.tensor(s) for s in ref.state[0]]
    layer.states[0] += mine
    make(rule, "plain").optimize([layer], 0)
    expected = [np.array([0.5, -2.0])]
    ref.step(expected, [np.array([0.25, 1.5])])
    np.testing.assert_allclose(p.detach().numpy(), expected[0], rtol=1e-14)
    for got, own, want in zip(layer.states[0], mine, ref.state[0], strict=False):
        assert got is own
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-14)


@pytest.mark.parametrize("backend", ["eager", "numba"])
def test_numbers_in_a_group_take_effect_at_the_next_step(backend: str) -> None:
    p = torch.nn.Parameter(torch.tensor([0.5, -2.0], dtype=torch.float64))
    expected = [p.detach().numpy().copy()]
    ref = reference.Adam()
    with use_backend(backend):
        attached = neon.optimizers.Adam().attach([p])
        for step in range(8):
            group = attached.param_groups[0]
            ref.learning_rate = group["lr"] = 0.5 / (step + 1)
            ref.beta_1, ref.beta_2 = group["betas"] = (0.9 - 0.1 * step, 0.95 - 0.05 * step)
            ref.epsilon = group["eps"] = 10.0**-step
            ref.wdecay = group["weight_decay"] = 0.01 * step
            p.grad = torch.tensor([0.25 + step, 1.5], dtype=torch.float64)
            attached.step()
            ref.step(expected, [np.array([0.25 + step, 1.5])])
    np.testing.assert_allclose(p.detach().numpy(), expected[0], rtol=1e-12)


CLIPS = "gradient_clip_norm=None, gradient_clip_value=None, param_clip_value=None"
BETAS = "learning_rate={}, beta_1=0.9, beta_2=0.999, epsilon=1e-08"
# SPEC's table, to the letter: the order and the defaults of what can be given by position
SIGNATURES = {
    "GradientDescentMomentum": "learning_rate, momentum_coef, stochastic_round=False, wdecay=0.0, "
    f"{CLIPS}, name=None, schedule, nesterov=False",
    "RMSProp": "stochastic_round=False, decay_rate=0.95, learning_rate=0.002, epsilon=1e-06, "
    f"{CLIPS}, name=None, schedule",
    "Adagrad": f"stochastic_round=False, learning_rate=0.01, epsilon=1e-06, {CLIPS}, name=None",
    "Adadelta": "stochastic_round=False, decay=0.95, epsilon=1e-06, param_clip_value=None, name=None",
    "Adam": f"stochastic_round=False, {BETAS.format(0.001)}, {CLIPS}, name='adam'",
    "ShiftAdaMax": f"stochastic_round=False, {BETAS.format(0.002)}, schedule, name='ShiftAdaMax'",
    "Optimizer": "name=None",
    "MultiOptimizer": "optimizer_mapping, name=None",
    "Schedule": "step_config=None, change=1.0",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_documented_constructors(name: str) -> None:
    """Order and defaults as documented; what was added since is keyword-only."""
    shown = []
    for p in inspect.signature(getattr(neon.optimizers, name)).parameters.values():
        if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            plain = p.default is inspect.Parameter.empty or p.name == "schedule"
            shown.append(p.name if plain else f"{p.name}={p.default!r}")
    assert ", ".join(shown) == SIGNATURES[name]


def test_both_spellings_of_rmsprop() -> None:
    assert neon.optimizers.RMSprop is neon.optimizers.RMSProp
