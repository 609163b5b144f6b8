"""Averages of weights: the published recurrence for every rule and format, and what stands in the place of what."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from averaged_weights import DECAY, STEPS, averages, learn, small_model
from rule_cases import RULES, WITH_VIEW, PlainLayer, gradients, make, weights
from torch import Tensor, nn
from torch.optim import swa_utils

import neon.torch
from neon.engine import use_backend
from neon.engine.backends import compilations
from neon.optimizers import Adam, GradientDescentMomentum, MultiOptimizer

pytestmark = pytest.mark.usefixtures("one_thread")


# Of the largest entry: one rounding of the average a step.
BOUNDS = {torch.float64: 1e-15, torch.float32: 4e-7}


def trained(
    rule: str, dtype: torch.dtype, backend: str = "numba", **options: Any
) -> tuple[list[nn.Parameter], Any, list[list[Tensor]]]:
    """Parameters, their optimizer, and the weights before the first step and after each."""
    params = weights(dtype, rule)
    path = [[p.detach().clone() for p in params]]
    with use_backend(backend):
        optimizer = make(rule, "plain", **options).attach(params)
        for step in range(STEPS):
            for param, grad in zip(params, gradients(step, dtype, rule), strict=True):
                param.grad = grad
            optimizer.step()
            path.append([p.detach().clone() for p in params])
    return params, optimizer, path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", [rule for rule in RULES if rule not in WITH_VIEW])
def test_average_of_each_rule_follows_the_recurrence_and_leaves_weights_alone(rule: str, dtype: torch.dtype) -> None:
    """ā ← ā + (1−β)(θ − ā) in float64 over the weights that were there, from the first ones on."""
    _, optimizer, path = trained(rule, dtype, weight_average=DECAY)
    for position, average in enumerate(averages(optimizer)):
        expected = path[0][position].double()
        for after in path[1:]:
            expected += (1 - DECAY) * (after[position].double() - expected)
        assert average.dtype == dtype
        size = max((float(w[position].abs().max()) for w in path if w[position].numel()), default=0.0)
        torch.testing.assert_close(average.double(), expected, rtol=0, atol=BOUNDS[dtype] * size)
    plain = trained(rule, dtype)[2]
    assert all(map(torch.equal, path[-1], plain[-1]))


def test_average_equals_that_of_torch() -> None:
    """swa_utils.AveragedModel with an exponential average, taken from before the first step."""
    model = small_model()
    optimizer = Adam(weight_average=0.9).attach(model)
    torchs = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9))
    torchs.update_parameters(model)
    for _ in range(20):
        learn(model, optimizer)
        torchs.update_parameters(model)
    for ours, theirs in zip(averages(optimizer), torchs.module.parameters(), strict=True):
        size = float(theirs.detach().abs().max())
        torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=1.2e-7 * size)


@pytest.mark.parametrize("kept", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("options", [{}, {"stochastic_round": True}, {"master": "split"}], ids=str)
def test_backends_average_alike(options: dict[str, Any], kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neon.engine.tensors.storage.SMALL", 0)
    options = {"weight_average": DECAY, "state_dtype": {"weight_average": kept}} | options
    runs = [trained("adam", torch.bfloat16, backend, **options)[1] for backend in ("numba", "eager")]
    for compiled, eager in zip(*map(averages, runs), strict=True):
        assert compiled.dtype == getattr(torch, kept)
        assert torch.equal(compiled, eager)


def test_what_is_averaged_is_not_rounded() -> None:
    """Steps of a 64th of a bfloat16's spacing are lost to the weight, to nearest; the average has the last of them."""
    weight = nn.Parameter(torch.ones(4096, dtype=torch.bfloat16))
    optimizer = GradientDescentMomentum(2.0**-14, 0.0, weight_average=0.0).attach([weight])
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert torch.equal(weight, torch.ones_like(weight))
    assert torch.equal(averages(optimizer)[0], torch.full((4096,), 1 - 2.0**-14))


def test_average_of_split_weights_is_that_of_float32_weights() -> None:
    low, high = (nn.Parameter(torch.linspace(-1, 1, 5000).bfloat16().to(d)) for d in (torch.bfloat16, torch.float32))
    optimizers = [
        Adam(master="split", weight_average=DECAY).attach([low]),
        Adam(weight_average=DECAY).attach([high]),
    ]
    for step in range(STEPS):
        low.grad = torch.linspace(1, 2 + step, 5000).bfloat16()
        high.grad = low.grad.float()
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(*(averages(optimizer)[0] for optimizer in optimizers))


def test_one_format_of_all_states_is_not_the_averages() -> None:
    weight = nn.Parameter(torch.ones(8192))
    optimizer = Adam(state_dtype="int8", weight_average=DECAY).attach([weight])
    weight.grad = torch.ones(8192)
    optimizer.step()
    state = optimizer.state[weight]
    assert (state["exp_avg"].dtype, state["weight_average"].dtype) == (torch.int8, torch.float32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_average": 1.0}, r"weight_average must be in the interval \[0, 1\)"),
        ({"weight_average": "0.9"}, "weight_average must be a number"),
        ({"weight_average": 0.9, "state_dtype": {"weight_average": "int8"}}, "8 bits are too few of a weight"),
    ],
    ids=str,
)
def test_options_that_cannot_be_had_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Adam(**options).attach(small_model())


# -- in the place of the weights -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("in_backward", [False, True])
def test_averages_take_the_place_of_weights_for_a_while(in_backward: bool, dtype: torch.dtype) -> None:
    model = small_model()
    optimizer = Adam(learning_rate=0.1, weight_average=DECAY).attach(model, in_backward=in_backward)
    learn(model, optimizer, 3)
    model.to(dtype)
    before = [p.detach().clone() for p in model.parameters()]

    def evaluate() -> None:
        with optimizer.averaged():
            for param, average, weight in zip(model.parameters(), averages(optimizer), before, strict=True):
                assert torch.equal(param, average.to(dtype))
                assert not torch.equal(param, weight)
            raise KeyError("of the evaluation")

    with pytest.raises(KeyError, match="of the evaluation"):
        evaluate()
    assert all(map(torch.equal, model.parameters(), before))
    learn(model.float(), optimizer)


def test_steps_are_refused_while_averages_stand_there() -> None:
    model = small_model()
    optimizer = Adam(weight_average=DECAY).attach(model)
    learn(model, optimizer)
    with optimizer.averaged():
        with pytest.raises(RuntimeError, match=r"leave averaged\(\) before"):
            optimizer.step()
        with pytest.raises(RuntimeError, match=r"leave averaged\(\) before"), optimizer.averaged():
            pass
        with pytest.raises(RuntimeError, match=r"leave averaged\(\) before"):
            optimizer.step()
        copied = copy.deepcopy(optimizer)
    optimizer.step()
    copied.step()


def test_backward_passes_that_update_are_refused_while_averages_stand_there() -> None:
    model = small_model()
    optimizer = Adam(weight_average=DECAY).attach(model, in_backward=True)
    learn(model, optimizer)
    twin_model, twin = copy.deepcopy((model, optimizer))
    with optimizer.averaged(), pytest.raises(RuntimeError, match=r"leave averaged\(\) before"):
        model(torch.ones(1, 5)).sum().backward()
    assert all(param.grad is None for param in model.parameters())
    learn(model, optimizer)
    learn(twin_model, twin)  # to which nothing of the kind has happened
    assert all(map(torch.equal, model.parameters(), twin_model.parameters()))


def test_without_averages_there_is_nothing_to_evaluate() -> None:
    model = small_model()
    optimizer = Adam().attach(model)
    learn(model, optimizer)
    with pytest.raises(RuntimeError, match="give the optimizer a decay, weight_average="), optimizer.averaged():
        pass


def test_of_a_mapping_only_what_is_averaged_is_replaced() -> None:
    model = small_model()
    mapping = {"default": Adam(learning_rate=0.1), "2": GradientDescentMomentum(0.1, 0.9, weight_average=DECAY)}
    optimizer = MultiOptimizer(mapping).attach(model)
    learn(model, optimizer, 3)
    before = copy.deepcopy(model)
    with optimizer.averaged():
        same = [torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True)]
    assert same == [True, True, False, False]


def test_layer_lists_are_averaged_too() -> None:
    params = weights(torch.float32)
    layer, optimizer = PlainLayer(params), make("adam", "plain", weight_average=DECAY)
    _, attached, path = trained("adam", torch.float32, weight_average=DECAY)
    for step in range(STEPS):
        for param, grad in zip(params, gradients(step, torch.float32), strict=True):
            param.grad = grad
        optimizer.optimize([layer], 0)
    with optimizer.averaged([layer]):
        assert all(map(torch.equal, params, averages(attached)))
        with pytest.raises(RuntimeError, match=r"leave averaged\(\) before"):
            optimizer.optimize([layer], 0)
        with pytest.raises(RuntimeError, match=r"leave averaged\(\) before"), optimizer.averaged([layer]):
            pass
        with pytest.raises(RuntimeError, match=r"leave averaged\(\) before"):
            optimizer.optimize([layer], 0)
    assert all(map(torch.equal, params, path[-1]))


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("kept", [DECAY, None])
def test_another_optimizer_over_the_same_layers_waits_for_their_weights(kept: float | None, mapped: bool) -> None:
    halves = [weights(torch.float32) for _ in range(2)]
    params, layers = [*halves[0], *halves[1]], [*map(PlainLayer, halves)]
    optimizer, other = make("adam", "plain", weight_average=DECAY), make("adam", "plain", weight_average=kept)
    other = MultiOptimizer({"default": other}) if mapped else other
    for param, grad in zip(params, 2 * [*gradients(0, torch.float32)], strict=True):
        param.grad = grad
    optimizer.optimize(layers, 0)
    before = [param.detach().clone() for param in params]
    for own in (layers, layers[:1]):
        with optimizer.averaged(own):
            for each in (other, optimizer):
                with pytest.raises(RuntimeError, match=r"leave averaged\(\) before"):
                    each.optimize(layers, 0)
                with pytest.raises(RuntimeError, match=r"leave averaged\(\) before"), each.averaged(layers):
                    pass
        assert all(map(torch.equal, params, before))
    with optimizer.averaged(layers[:1]), optimizer.averaged(layers[1:]):
        pass
    assert all(map(torch.equal, params, before))


def test_layer_lists_whose_states_have_no_average_yet_have_none() -> None:
    params = weights(torch.float32)
    layer, optimizer = PlainLayer(params), make("adam", "plain")
    for param, grad in zip(params, gradients(0, torch.float32), strict=True):
        param.grad = grad
    optimizer.optimize([layer], 0)
    optimizer.weight_average = DECAY
    with pytest.raises(RuntimeError, match="There is no average"), optimizer.averaged([layer]):
        pass


def test_averages_that_are_no_longer_kept_take_no_place() -> None:
    model = small_model()
    optimizer = Adam(learning_rate=0.1, weight_average=DECAY).attach(model)
    learn(model, optimizer)
    optimizer.set("weight_average", None, layers="2")
    learn(model, optimizer)
    before = copy.deepcopy(model)
    with optimizer.averaged():
        same = [torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True)]
    assert same == [False, False, True, True]


# -- values and checkpoints ------------------------------------------------------------------------


def test_decay_is_a_value_like_any_other() -> None:
    model = small_model()
    optimizer = neon.torch.Adam(model.parameters(), weight_average=DECAY)
    learn(model, optimizer)
    kernels = compilations()
    optimizer.param_groups[0]["weight_average"] = 0.0
    learn(model, optimizer)
    assert compilations() == kernels
    assert all(map(torch.equal, averages(optimizer), model.parameters()))


def test_averaging_begins_at_the_weights_in_mid_run() -> None:
    model = small_model()
    optimizer = Adam(learning_rate=0.1).attach(model)
    learn(model, optimizer, 2)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.param_groups[0]["weight_average"] = 0.5
    learn(model, optimizer)
    for start, average, weight in zip(before, averages(optimizer), model.parameters(), strict=True):
        torch.testing.assert_close(average, (start + weight.detach()) / 2, rtol=0, atol=3e-8)
