"""Averages of weights in checkpoints, in copies, and saved while they stand in the place of the weights."""

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
from averaged_weights import DECAY, averages, learn, small_model
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

import neon.torch
from neon.initializers import Gaussian
from neon.layers import Affine
from neon.models import Model
from neon.optimizers import Adam, MultiOptimizer

pytestmark = pytest.mark.usefixtures("one_thread")


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
    with pytest.raises(ValueError, match=r"saved in evaluation .*, and the trained weights are not here"):
        set_optimizer_state_dict(fresh, resumed, into["opt"], options=options)
    with resumed.averaged():
        into = copy.deepcopy(parts(fresh, resumed))
    load(into)
    fresh.load_state_dict(into["model"])
    if flat:  # torch then looks for what the optimizer has by itself
        with pytest.raises(ValueError, match=r"in evaluation too, not flat"):
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
