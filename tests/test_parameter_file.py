"""Saving and loading a Model: complete, interrupted, and into the wrong network."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_training import PlainDescent, random_batches, small_model
from torch import Tensor

from neon.assignment.param_list import param_entry
from neon.initializers import GlorotUniform, Uniform
from neon.layers import LSTM, Affine, Layer, Reshape, Sequential
from neon.models import Model
from neon.optimizers import Adam, GradientDescentMomentum, Schedule, WarmupCosine
from neon.transforms import CrossEntropyMulti, Tanh


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def trained_model(batches: list[tuple[Tensor, Tensor]]) -> Model:
    model = small_model(batch_norm=True)
    model.fit(batches, CrossEntropyMulti(), PlainDescent(), num_epochs=2)
    return model


def test_saved_parameters_buffers_states_and_epoch_come_back(tmp_path: Path) -> None:
    batches = random_batches()
    model = trained_model(batches)
    model.save_params(tmp_path / "model.params")
    assert [path.name for path in tmp_path.iterdir()] == ["model.params"]

    fresh = small_model(batch_norm=True)
    fresh.load_params(tmp_path / "model.params")
    assert fresh.epoch == 2
    assert torch.equal(fresh.get_outputs(batches), model.get_outputs(batches))
    for one, other in zip(fresh.parameters(), model.parameters(), strict=True):
        (state,), (expected,) = param_entry(one)[1], param_entry(other)[1]
        assert torch.equal(state, expected)

    model.fit(batches, CrossEntropyMulti(), PlainDescent(), num_epochs=1)
    model.load_params(str(tmp_path / "model.params"))
    assert torch.equal(fresh.get_outputs(batches), model.get_outputs(batches))


def test_training_resumes_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    batches = random_batches()
    whole = small_model()
    whole.fit(batches, CrossEntropyMulti(), adam(), num_epochs=2)
    whole.save_params(tmp_path / "model.params")
    whole.fit(batches, CrossEntropyMulti(), adam(), num_epochs=2)

    resumed = small_model()
    resumed.load_params(tmp_path / "model.params")
    resumed.fit(batches, CrossEntropyMulti(), adam(), num_epochs=2)
    assert resumed.epoch == 4
    for one, other in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_file_of_another_model_is_refused_in_few_words(tmp_path: Path) -> None:
    trained_model(random_batches()).save_params(tmp_path / "model.params")
    large = Model(layers=[Affine(nout=3, init=Uniform()) for _ in range(60)])
    with pytest.raises(ValueError, match=r"does not fit this model: the file lacks .* in all\)") as error:
        large.load_params(tmp_path / "model.params")
    assert len(str(error.value).replace(str(tmp_path), "")) < 500


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_schedule_in_steps_goes_on_where_it_was(tmp_path: Path, momentum: float) -> None:
    """Also of a rule without states; and a file that is older than the counts in it counts by its states."""
    batches = random_batches()

    def descent() -> GradientDescentMomentum:
        return GradientDescentMomentum(0.5, momentum, schedule=WarmupCosine(4, 12, unit="steps"))

    whole = small_model()
    whole.fit(batches, CrossEntropyMulti(), descent(), num_epochs=2)
    whole.save_params(tmp_path / "model.params")
    older = torch.load(tmp_path / "model.params", weights_only=True)
    assert {*older.pop("updates").values()} == {2 * len(batches)}
    torch.save(older, tmp_path / "older.params")
    used = descent()
    whole.fit(batches, CrossEntropyMulti(), used, num_epochs=2)
    for name in ("model.params", *(["older.params"] if momentum else [])):
        resumed = small_model()
        resumed.load_params(tmp_path / name)
        resumed.fit(batches, CrossEntropyMulti(), used, num_epochs=2)  # the description has seen another model
        for one, other in zip(resumed.parameters(), whole.parameters(), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_loading_into_the_model_that_is_trained_takes_its_counts_back(tmp_path: Path, momentum: float) -> None:
    batches = random_batches()
    opt = GradientDescentMomentum(0.5, momentum, schedule=WarmupCosine(4, 12, unit="steps"))
    model = small_model()
    model.fit(batches, CrossEntropyMulti(), opt, num_epochs=2)
    model.save_params(tmp_path / "model.params")
    weights = []
    for _ in range(2):
        model.fit(batches, CrossEntropyMulti(), opt, num_epochs=2)
        weights.append([value.detach().clone() for value in model.parameters()])
        model.load_params(tmp_path / "model.params")
    assert all(map(torch.equal, *weights))


def test_random_bits_of_a_rule_without_states_go_on_where_they_were(tmp_path: Path) -> None:
    batches = random_batches()
    rounded = GradientDescentMomentum(0.1, 0.0, stochastic_round=4)
    whole, resumed = small_model(), small_model()
    whole.fit(batches, CrossEntropyMulti(), rounded, num_epochs=1)
    whole.save_params(tmp_path / "model.params")
    resumed.load_params(tmp_path / "model.params")
    for model in (whole, resumed):
        model.fit(batches, CrossEntropyMulti(), rounded, num_epochs=1)
    for one, other in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("in_file", [True, False])
@pytest.mark.parametrize("rule", [lambda: adam(), lambda: GradientDescentMomentum(0.5, 0.0, schedule=IN_STEPS)])
def test_weights_without_states_start_an_optimizer_anew(tmp_path: Path, rule: Any, in_file: bool) -> None:
    """Whether the file has none, or they are not loaded; also in a model that has states and counts of its own."""
    batches = random_batches()
    trained = small_model()
    trained.fit(batches, CrossEntropyMulti(), rule(), num_epochs=2)
    trained.save_params(tmp_path / "model.params", keep_states=in_file)
    saved = torch.load(tmp_path / "model.params", weights_only=True)
    assert bool(saved["states"]) == bool(saved["updates"]) == in_file

    fresh = small_model()
    fresh(batches[0][0])
    fresh.load_state_dict(trained.state_dict())
    fresh.epoch = 2
    fresh.fit(batches, CrossEntropyMulti(), rule(), num_epochs=1)
    trained.fit(batches, CrossEntropyMulti(), rule(), num_epochs=1)
    for model in (small_model(), trained):
        model.load_params(tmp_path / "model.params", load_states=not in_file)
        assert model.epoch == 2
        model.fit(batches, CrossEntropyMulti(), rule(), num_epochs=1)
        assert all(map(torch.equal, model.parameters(), fresh.parameters()))


IN_STEPS = WarmupCosine(4, 12, unit="steps")


def adam() -> Adam:
    """Its step depends on the states, on their count of updates and, by the schedule, the epoch."""
    return Adam(learning_rate=0.05, schedule=Schedule(step_config=[1, 3], change=0.5))


def test_loading_fills_the_states_list_that_an_optimizer_already_holds(tmp_path: Path) -> None:
    model = trained_model(random_batches())
    held: list[Any] = [param_entry(parameter)[1] for parameter in model.parameters()]
    saved = [states[0].clone() for states in held]
    model.save_params(tmp_path / "model.params")
    for states in held:
        states.clear()
    model.load_params(tmp_path / "model.params")
    for states, expected in zip(held, saved, strict=True):
        assert torch.equal(states[0], expected)


def fail(*_: Any, **__: Any) -> None:
    raise OSError("no space left on device")


def half_a_file(_: Any, file: Any) -> None:
    file.write(b"half of")
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("module", "function", "fault", "error"),
    [
        (torch, "save", half_a_file, KeyboardInterrupt),
        (os, "fsync", fail, OSError),
        (os, "replace", fail, OSError),
    ],
    ids=["write", "fsync", "replace"],
)
def test_an_interrupted_save_leaves_the_previous_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    function: str,
    fault: Callable[..., None],
    error: type[BaseException],
) -> None:
    path, batches = tmp_path / "model.params", random_batches()
    model = trained_model(batches)
    model.save_params(path)
    before = path.read_bytes()
    model.fit(batches, CrossEntropyMulti(), PlainDescent(), num_epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr(module, function, fault)
        with pytest.raises(error):
            model.save_params(path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.params"]
    assert path.read_bytes() == before
    model.save_params(path)
    assert path.read_bytes() != before


def test_saving_through_a_link_keeps_the_link(tmp_path: Path) -> None:
    link, target = tmp_path / "latest", tmp_path / "model.params"
    link.symlink_to(target)
    trained_model(random_batches()).save_params(link)
    assert link.is_symlink()
    assert target.is_file()


def another_model(*layers: Layer | Sequential) -> Model:
    return Model([Affine(8, GlorotUniform(), activation=Tanh()), *layers])


MISMATCHES = [
    (lambda: another_model(), "the model lacks 1.0.weight, 1.1.bias"),
    (lambda: small_model(outputs=4), r"1.0.weight has shape \(3, 8\) in the file, \(4, any\) here"),
    (lambda: small_model(name="head"), "the file lacks head.0.weight, head.1.bias; the model lack"),
    (lambda: another_model(Reshape((2, 4)), LSTM(2, Uniform())), "the file lacks 2.weight_ih_l0"),
]


@pytest.mark.parametrize("is_lazy", [True, False])
@pytest.mark.parametrize(("build", "message"), MISMATCHES)
def test_a_file_that_does_not_fit_changes_nothing(
    tmp_path: Path, build: Callable[[], Model], message: str, is_lazy: bool
) -> None:
    path, inputs = tmp_path / "model.params", torch.randn(2, 5)
    model = small_model()
    model(inputs)
    model.save_params(path)
    other = build()
    if not is_lazy:
        other(inputs)
        message = message.replace("any", "8")
    twin = copy.deepcopy(other)
    with pytest.raises(ValueError, match=message):
        other.load_params(path)
    torch.manual_seed(1)
    outputs = other(inputs)
    torch.manual_seed(1)
    assert torch.equal(twin(inputs), outputs)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.params"
    trained_model(random_batches()).save_params(path)
    whole = path.read_bytes()
    foreign = {
        "text": b"not a file of parameters",
        "empty": b"",
        **{f"cut short at {size}": whole[:size] for size in range(0, len(whole), 997)},
        "a pickle": pickle.dumps(Path("somewhere"), protocol=2),
    }
    for contents in foreign.values():
        path.write_bytes(contents)
        with pytest.raises(ValueError, match="is not a file that Model"):
            small_model().load_params(path)
    torch.save({"weight": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="is not a file that Model"):
        small_model().load_params(path)
    with pytest.raises(FileNotFoundError):
        small_model().load_params(tmp_path / "missing")
