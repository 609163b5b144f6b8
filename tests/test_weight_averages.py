"""Averages of weights: the published recurrence for every rule and format, and what stands in the place of what."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from rule_cases import RULES, PlainLayer, gradients, make, weights
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import swa_utils

import neon.torch
from neon.engine import use_backend
from neon.engine.backends import compilations
from neon.initializers import Gaussian
from neon.layers import Affine
from neon.models import Model
from neon.optimizers import Adam, GradientDescentMomentum, MultiOptimizer

pytestmark = pytest.mark.usefixtures("one_thread")

DECAY, STEPS = 0.75, 6
# Of the largest entry: one rounding of the average a step.
BOUNDS = {torch.float64: 1e-15, torch.float32: 4e-7}


def averages(optimizer: Any) -> list[Tensor]:
    return [optimizer.state[p]["weight_average"] for group in optimizer.param_groups for p in group["params"]]


def trained(
    rule: str, dtype: torch.dtype, backend: str = "numba", **options: Any
) -> tuple[list[nn.Parameter], Any, list[list[Tensor]]]:
    """Parameters, their optimizer, and the weights before the first step and after each."""
    params = weights(dtype)
    path = [[p.detach().clone() for p in params]]
    with use_backend(backend):
        optimizer = make(rule, "plain", **options).attach(params)
        for step in range(STEPS):
            for param, grad in zip(params, gradients(step, dtype), strict=True):
                param.grad = grad
            optimizer.step()
            path.append([p.detach().clone() for p in params])
    return params, optimizer, path


def small_model() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2))


def learn(model: nn.Module, optimizer: Any, steps: int = 1) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        model(torch.full((3, 5), 0.1 * (step + 1))).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", RULES)
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


# -- saving and loading while averages stand there -------------------------------------------------

MADE: dict[str, Callable[[nn.Module], Any]] = {
    "attached": lambda model: Adam(learning_rate=0.1, weight_average=DECAY).attach(model),
    "drop-in": lambda model: neon.torch.Adam(model.parameters(), lr=0.1, weight_average=DECAY),
    "a mapping": lambda model: MultiOptimizer(
        {"default": Adam(learning_rate=0.1), "2": Adam(learning_rate=0.1, weight_average=DECAY)}
    ).attach(model),
    "split weights, short averages": lambda model: Adam(
        learning_rate=0.1, weight_average=DECAY, master="split", state_dtype={"weight_average": "float16"}
    ).attach(model.bfloat16()),
    "in the backward pass": lambda model: Adam(learning_rate=0.1, weight_average=DECAY).attach(model, in_backward=True),
}


def made(kind: str, steps: int = 3) -> tuple[nn.Sequential, Any]:
    model = small_model()
    optimizer = MADE[kind](model)
    for step in range(steps):
        train(model, optimizer, step)
    return model, optimizer


def train(model: nn.Module, optimizer: Any, step: int) -> None:
    optimizer.zero_grad()
    for number, param in enumerate(model.parameters()):
        grad = torch.randn(param.shape, generator=torch.Generator().manual_seed(100 * step + number)).to(param)
        (param * grad).sum().backward()
    optimizer.step()


def contents(model: nn.Module, optimizer: Any) -> list[Tensor]:
    params = [*model.parameters()]
    return [tensor.clone() for param in params for tensor in (param.detach(), *optimizer.state[param].values())]


def through_files(model: nn.Module, optimizer: Any, kind: str, first: str) -> tuple[nn.Module, Any]:
    file = io.BytesIO()
    with optimizer.averaged():
        torch.save((model.state_dict(), optimizer.state_dict()), file)
    file.seek(0)
    weights, states = torch.load(file, weights_only=True)
    fresh, resumed = made(kind, 1 if first == "in mid-run" else 0)
    fresh.load_state_dict(weights)
    resumed.load_state_dict(states)
    return fresh, resumed


def through_pickle(model: nn.Module, optimizer: Any, *_: Any) -> tuple[nn.Module, Any]:
    with optimizer.averaged():
        pickled = pickle.dumps((model, optimizer))
    return pickle.loads(pickled)


def through_deepcopy(model: nn.Module, optimizer: Any, *_: Any) -> tuple[nn.Module, Any]:
    with optimizer.averaged():
        return copy.deepcopy((model, optimizer))


WAYS = {
    "files": through_files,
    "files in mid-run": through_files,
    "pickle": through_pickle,
    "deepcopy": through_deepcopy,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", MADE)
def test_what_is_saved_while_averages_stand_there_goes_on_with_the_weights(kind: str, way: str) -> None:
    """As a trainer saves after validation: the model has the averages, the optimizer the weights, to the bit."""
    model, optimizer = made(kind)
    before = contents(model, optimizer)
    resumed = WAYS[way](model, optimizer, kind, way.removeprefix("files "))
    assert all(map(torch.equal, contents(model, optimizer), before))
    assert all(map(torch.equal, contents(*resumed), before))
    for each in ((model, optimizer), resumed):
        train(*each, 3)
    assert all(map(torch.equal, contents(*resumed), contents(model, optimizer)))


def test_the_model_that_is_saved_there_has_the_averages() -> None:
    model, optimizer = made("attached")
    with optimizer.averaged():
        saved = copy.deepcopy(model.state_dict())
        states = optimizer.state_dict()
    assert all(map(torch.equal, saved.values(), averages(optimizer)))
    assert all(map(torch.equal, model.parameters(), (s["trained_weight"] for s in states["state"].values())))
    assert all("trained_weight" not in state for state in optimizer.state_dict()["state"].values())


def test_a_model_that_is_loaded_after_its_optimizer_is_not_trained_on_from_its_averages() -> None:
    model, optimizer = made("attached")
    with optimizer.averaged():
        weights, states = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    fresh, resumed = made("attached", 0)
    resumed.load_state_dict(states)
    fresh.load_state_dict(weights)
    for refused in (resumed.step, resumed.state_dict):
        with pytest.raises(RuntimeError, match=r"Load the model first, then the optimizer\."):
            refused()
    resumed.load_state_dict(states)
    assert all(map(torch.equal, fresh.parameters(), model.parameters()))
    with torch.no_grad():
        next(fresh.parameters()).zero_()  # other weights, on purpose
    train(fresh, resumed, 3)


@pytest.mark.parametrize("flat", [False, True], ids=["by name", "flat"])
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_distributed_checkpoints_of_averages_in_place(flat: bool, tmp_path: Path) -> None:
    """They load what the dict to load into has: without the weights it is refused, with them it goes on."""
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    model, optimizer = made("attached")

    def parts(model: nn.Module, optimizer: Any) -> dict[str, Any]:
        return {"model": model.state_dict(), "opt": get_optimizer_state_dict(model, optimizer, options=options)}

    def load(into: dict[str, Any]) -> None:
        dcp.load(into, checkpoint_id=tmp_path, no_dist=True)

    with optimizer.averaged():
        dcp.save(parts(model, optimizer), checkpoint_id=tmp_path, no_dist=True)
    fresh, resumed = made("attached", 0)
    into = parts(fresh, resumed)
    load(into)
    with pytest.raises(ValueError, match=r"saved within averaged\(\), and the trained weights are not here"):
        set_optimizer_state_dict(fresh, resumed, into["opt"], options=options)
    with resumed.averaged():
        into = copy.deepcopy(parts(fresh, resumed))
    load(into)
    fresh.load_state_dict(into["model"])
    if flat:  # torch then looks for what the optimizer has by itself
        with pytest.raises(ValueError, match=r"within averaged\(\) too, not flat"):
            set_optimizer_state_dict(fresh, resumed, into["opt"], options=options)
        return
    set_optimizer_state_dict(fresh, resumed, into["opt"], options=options)
    assert all(map(torch.equal, contents(fresh, resumed), contents(model, optimizer)))


def test_the_optimizer_is_not_loaded_while_averages_stand_there() -> None:
    model, optimizer = made("attached")
    before = contents(model, optimizer)
    with optimizer.averaged(), pytest.raises(RuntimeError, match=r"leave averaged\(\) before"):
        optimizer.load_state_dict(optimizer.state_dict())
    assert all(map(torch.equal, contents(model, optimizer), before))


@pytest.mark.parametrize("error", [None, KeyError], ids=["", "and an error"])
@pytest.mark.parametrize("write", [lambda p: p.data.add_(1), lambda p: p.detach().copy_(p + 1)], ids=["data", "copy"])
def test_what_is_loaded_into_the_model_there_is_not_undone_without_a_word(write: Any, error: Any) -> None:
    model, optimizer = made("attached")
    before = contents(model, optimizer)

    def evaluate() -> None:
        with optimizer.averaged():
            write(model[0].weight)
            if error is not None:
                raise error("of the evaluation")

    message = r"Within averaged\(\) 1 of 4 parameters were written to\. .* load again, outside of averaged"
    if error is None:
        with pytest.raises(RuntimeError, match=message):
            evaluate()
    else:
        with pytest.raises(KeyError, match="of the evaluation"), pytest.warns(RuntimeWarning, match=message):
            evaluate()
    assert all(map(torch.equal, contents(model, optimizer), before))
    train(model, optimizer, 3)


def test_averages_that_are_not_numbers_or_were_rounded_on_the_way_are_nobodys_writing() -> None:
    model, optimizer = made("attached")
    averages(optimizer)[0][0, 0] = torch.nan
    averages(optimizer)[1].fill_(torch.inf)
    with optimizer.averaged():
        model.double()
        model.load_state_dict(copy.deepcopy(model.state_dict()))  # what stands there already
    with optimizer.averaged():
        model.float()


def test_a_shallow_copy_knows_that_averages_stand_there() -> None:
    model, optimizer = made("attached")
    before = contents(model, optimizer)
    with optimizer.averaged():
        shallow = copy.copy(optimizer)
        with pytest.raises(RuntimeError, match=r"leave averaged\(\) before"):
            shallow.step()
    assert all(map(torch.equal, contents(model, optimizer), before))
    train(model, shallow, 3)
    copy.deepcopy(shallow).step()


def test_two_optimizers_may_have_their_averages_in_place_together() -> None:
    model = small_model()
    optimizers = [Adam(learning_rate=0.1, weight_average=DECAY).attach(model[place]) for place in (0, 2)]
    for optimizer in optimizers:
        train(model, optimizer, 0)
    before = [param.detach().clone() for param in model.parameters()]
    with optimizers[0].averaged(), optimizers[1].averaged():
        saved = copy.deepcopy([model.state_dict(), *(optimizer.state_dict() for optimizer in optimizers)])
    assert all(map(torch.equal, model.parameters(), before))
    for part, state in zip((model, *optimizers), saved, strict=True):
        part.load_state_dict(state)
    assert all(map(torch.equal, model.parameters(), before))


def test_parameter_files_wait_for_the_weights_of_layer_lists(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Model(layers=[Affine(nout=2, init=Gaussian())])
    optimizer = Adam(learning_rate=0.1, weight_average=DECAY)
    model(torch.ones(3, 5)).square().sum().backward()
    optimizer.optimize([model], 0)
    model.save_params(tmp_path / "weights")
    before = [param.detach().clone() for param in model.parameters()]
    with optimizer.averaged([model]):
        with pytest.raises(RuntimeError, match=r"leave averaged\(\) before"):
            model.save_params(tmp_path / "averages")
        with pytest.raises(RuntimeError, match=r"leave averaged\(\) before"):
            model.load_params(tmp_path / "weights")
    assert all(map(torch.equal, model.parameters(), before))
    with pytest.raises(RuntimeError, match="parameters were written to"), optimizer.averaged([model]):
        next(model.parameters()).data.zero_()
    assert all(map(torch.equal, model.parameters(), before))
    model.load_params(tmp_path / "weights")


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


def test_averages_are_in_checkpoints() -> None:
    """Stopped and resumed, a run ends at the same bits; of a checkpoint without them they begin at the weights."""
    model = small_model()
    optimizer = Adam(weight_average=DECAY).attach(model)
    learn(model, optimizer, 2)
    file = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict()), file)
    learn(model, optimizer, 2)
    file.seek(0)
    resumed = small_model()
    again = Adam(weight_average=DECAY).attach(resumed)
    kept, states = torch.load(file, weights_only=True)
    resumed.load_state_dict(kept)
    again.load_state_dict(states)
    learn(resumed, again, 2)
    assert all(map(torch.equal, averages(again), averages(optimizer)))

    for state in states["state"].values():
        del state["weight_average"]
    again.load_state_dict(states)
    again.param_groups[0]["weight_average"] = 0.0
    learn(resumed, again)
    assert all(map(torch.equal, averages(again), resumed.parameters()))


def test_averages_of_8_bits_in_a_checkpoint_are_refused() -> None:
    model = small_model()
    optimizer = Adam(weight_average=DECAY).attach(model)
    learn(model, optimizer)
    saved = optimizer.state_dict()
    saved["state"][0]["weight_average"] = torch.zeros(8, 5, dtype=torch.int8)
    with pytest.raises(ValueError, match=r"weight_average has dtype torch\.int8"):
        optimizer.load_state_dict(saved)
