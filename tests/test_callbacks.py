"""What watches fit, and what is left when it is interrupted."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_training import PlainDescent, random_batches, small_model

from neon.callbacks.callbacks import Callback, Callbacks, ProgressBar
from neon.data import ArrayIterator
from neon.initializers import Gaussian
from neon.layers import Affine, Dropout
from neon.models import Model
from neon.optimizers import Adam, GradientDescentMomentum, Schedule
from neon.transforms import Accuracy, CrossEntropyMulti, Rectlin, Softmax


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class Recorder:
    def __init__(self, stop_after: int = 10) -> None:
        self.stop_after = stop_after
        self.seen: list[Any] = []

    def on_fit_begin(self, _model: Model, num_epochs: int) -> None:
        self.seen.append(num_epochs)

    def on_epoch_end(self, _model: Model, epoch: int, _cost: float) -> bool:
        self.seen.append(epoch)
        return epoch + 1 == self.stop_after

    def on_fit_end(self, _model: Model) -> None:
        self.seen.append("end")


def test_callbacks_watch_and_stop() -> None:
    first, second = Recorder(), Recorder(stop_after=2)
    callbacks = Callbacks([first, object(), second])
    history = small_model().fit(random_batches(), CrossEntropyMulti(), PlainDescent(), 5, callbacks=callbacks)
    assert len(history) == 2
    assert first.seen == second.seen == [5, 0, 1, "end"]


def test_an_eval_set_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    """As programs of the documented framework ask for it, with whatever their arguments are by default."""
    model, batches, held_out, seen = small_model(), random_batches(), random_batches(), []

    class Watch:
        def on_evaluation(self, _model: Model, epoch: int, value: float) -> None:
            assert not any(p.grad is None for p in _model.parameters())
            seen.append((epoch, value))

    given: dict[str, Any] = {"eval_freq": 2, "serialize": 0, "history": 1, "save_path": None, "output_file": None}
    given |= {"model_file": None, "train_set": batches, "log_token": "", "multicost": False}
    callbacks = Callbacks(model, eval_set=held_out, progress_bar=True, **given)
    callbacks.callbacks.append(Watch())
    model.fit(batches, cost=CrossEntropyMulti(), optimizer=PlainDescent(), num_epochs=4, callbacks=callbacks)
    assert callbacks.eval_costs[-1] == model.eval(held_out, CrossEntropyMulti())
    assert seen == [*zip([1, 3], callbacks.eval_costs, strict=True)]
    assert f"evaluation {callbacks.eval_costs[-1]:.4g}" in capsys.readouterr().out
    assert model.training


def test_a_metric_of_ones_own_and_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    model, batches = small_model(), random_batches()
    callbacks = Callbacks([], eval_set=batches, metric=Accuracy())
    model.fit(batches, CrossEntropyMulti(), PlainDescent(), 2, callbacks=callbacks)
    assert callbacks.eval_costs[-1] == model.eval(batches, Accuracy())
    assert len(callbacks.eval_costs) == 2
    assert [type(callback) for callback in Callbacks(model).callbacks] == [ProgressBar]
    assert not Callbacks(model, progress_bar=False).callbacks
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"serialize": 1}, ValueError, "serialize needs a save_path, the file to save to. Received: serialize=1"),
        ({"output_file": "out.h5"}, TypeError, "takes no output_file: fit returns the costs.*output_file='out.h5'"),
        ({"multicost": True}, TypeError, "takes no multicost"),
        ({"save_path": "no/such/folder/model.prm"}, ValueError, "save_path must be the path of a file in a folder"),
        ({"save_path": 3}, TypeError, "save_path must be the path of a file"),
        ({"save_path": "model.prm", "serialize": -1}, ValueError, "serialize must be at least 0"),
        ({"history": 1.5}, TypeError, "history must be a whole number"),
        (
            {"eval_sett": []},
            TypeError,
            "no argument 'eval_sett'. Its arguments: callbacks, train_set, eval_set, metric",
        ),
        ({"eval_set": [], "eval_freq": 0}, ValueError, "eval_freq must be at least 1"),
        ({"metric": 3}, ValueError, "metric and eval_freq are of an eval_set"),
        ({"progress_bar": "yes"}, TypeError, "progress_bar must be True or False"),
    ],
)
def test_what_cannot_be_served_says_what_to_write(given: dict[str, Any], error: Any, words: str) -> None:
    with pytest.raises(error, match=words) as raised:
        Callbacks([], **given)
    assert len(str(raised.value)) <= 500


@pytest.mark.parametrize(
    ("action", "error", "words"),
    [
        (lambda c: c.add_early_stop_callback(3), TypeError, r"stop_func must be a function of \(state, cost\)"),
        (lambda c: c.add_early_stop_callback(lambda s, v: (s, True)), ValueError, r"EarlyStop.*eval_set=\.\.\."),
        (lambda c: c.add_save_best_state_callback("best.prm"), ValueError, "SaveBestStateCallback goes by the costs"),
        (lambda c: c.add_callback(ProgressBar), TypeError, "must be an object, such as ProgressBar"),
        (lambda c: c.add_callback(ProgressBar(), insert_pos=-1), ValueError, "insert_pos must be at least 0"),
    ],
)
def test_what_cannot_be_added_is_refused(action: Any, error: Any, words: str) -> None:
    callbacks = Callbacks([])
    with pytest.raises(error, match=words):
        action(callbacks)
    assert not callbacks.callbacks


def saved(model: Model, path: Path) -> bool:
    """Whether a file has the parameters of a model."""
    twin = small_model()
    twin.load_params(path)
    return all(map(torch.equal, twin.parameters(), model.parameters()))


@pytest.mark.parametrize(("serialize", "files"), [(0, [1, 2, 3, 4, 5]), (1, [1, 2, 3, 4, 5]), (2, [2, 4])])
def test_the_model_is_saved_every_so_many_epochs(tmp_path: Path, serialize: int, files: list[int]) -> None:
    path, model, seen = tmp_path / "model.prm", small_model(), []

    class Watch:
        def on_epoch_end(self, _model: Model, epoch: int, _cost: float) -> None:
            if path.exists() and saved(model, path):
                seen.append(epoch + 1)

    callbacks = Callbacks(model, save_path=str(path), serialize=serialize, progress_bar=False)
    callbacks.add_callback(Watch())
    model.fit(random_batches(), CrossEntropyMulti(), PlainDescent(), 5, callbacks=callbacks)
    assert seen == files
    assert [file.name for file in tmp_path.iterdir()] == ["model.prm"]


def test_the_newest_files_are_kept_under_their_epochs(tmp_path: Path) -> None:
    model, path = small_model(), tmp_path / "model.prm"
    callbacks = Callbacks(model, save_path=path, serialize=2, history=2, progress_bar=False)
    model.fit(random_batches(), CrossEntropyMulti(), PlainDescent(), 7, callbacks=callbacks)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.prm", "model_3.prm", "model_5.prm"]
    assert os.readlink(path) == "model_5.prm"
    twin = small_model()
    twin.load_params(path)
    assert twin.epoch == 6


def test_a_training_goes_on_from_a_model_file_to_the_total_of_epochs(tmp_path: Path) -> None:
    """With the bits of one that was not interrupted, states and schedule included."""

    def rule() -> Adam:
        return Adam(learning_rate=0.05, schedule=Schedule(step_config=[2, 4], change=0.5))

    batches, recorder = random_batches(), Recorder()
    whole = small_model()
    whole(batches[0][0])
    first = copy.deepcopy(whole)
    whole.fit(batches, CrossEntropyMulti(), rule(), num_epochs=5)
    callbacks = Callbacks(first, save_path=tmp_path / "model.prm", progress_bar=False)
    first.fit(batches, CrossEntropyMulti(), rule(), num_epochs=3, callbacks=callbacks)
    resumed = small_model()
    callbacks = Callbacks(resumed, model_file=tmp_path / "model.prm", progress_bar=False)
    callbacks.add_callback(recorder)
    history = resumed.fit(batches, CrossEntropyMulti(), rule(), num_epochs=5, callbacks=callbacks)
    assert len(history) == 2
    assert recorder.seen == [2, 3, 4, "end"]
    assert all(map(torch.equal, resumed.parameters(), whole.parameters()))
    assert resumed.fit(batches, CrossEntropyMulti(), rule(), num_epochs=2, callbacks=callbacks) == []


def test_a_training_that_goes_on_shuffles_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    def batches() -> ArrayIterator:
        return ArrayIterator(*random_samples, batch_size=8)

    random_samples = torch.randn(40, 6), torch.randint(0, 3, (40,))
    whole = small_model()
    whole.initialize(6)
    first, resumed = copy.deepcopy(whole), copy.deepcopy(whole)
    whole.fit(batches(), CrossEntropyMulti(), Adam(), num_epochs=5)
    first.fit(batches(), CrossEntropyMulti(), Adam(), num_epochs=3)
    first.save_params(tmp_path / "model.prm")
    training = batches()
    callbacks = Callbacks(resumed, model_file=tmp_path / "model.prm", progress_bar=False)
    resumed.fit(training, CrossEntropyMulti(), Adam(), num_epochs=5, callbacks=callbacks)
    assert all(map(torch.equal, resumed.parameters(), whole.parameters()))
    assert training.passes == 5


def test_random_numbers_go_on_from_a_model_file(tmp_path: Path) -> None:
    """Dropout draws the masks that it would have drawn in a training without a pause."""

    def made() -> Model:
        hidden = Affine(16, Gaussian(scale=0.1), activation=Rectlin())
        return Model([hidden, Dropout(0.5), Affine(3, Gaussian(), activation=Softmax())])

    def trained(model: Model, epochs: int, **given: Any) -> dict[str, Any]:
        callbacks = Callbacks(model, progress_bar=False, **given)
        data = [(torch.linspace(-1, 1, 40).reshape(8, 5), torch.arange(8) % 3)] * 4
        model.fit(data, CrossEntropyMulti(), GradientDescentMomentum(0.1, 0.9), epochs, callbacks=callbacks)
        return model.state_dict()

    torch.manual_seed(0)
    whole = trained(made(), 4)
    torch.manual_seed(0)
    trained(made(), 2, save_path=tmp_path / "model.prm")
    torch.manual_seed(5)
    resumed = trained(made(), 4, model_file=tmp_path / "model.prm")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    before = torch.get_rng_state()
    made().load_params(tmp_path / "model.prm")  # by itself it leaves them alone
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_file_that_does_not_fit_leaves_all_as_it_was(tmp_path: Path) -> None:
    model, other, recorder = small_model(), small_model(outputs=4), Recorder()
    for one in (model, other):
        one(random_batches()[0][0])
    other.save_params(tmp_path / "model.prm")
    before = copy.deepcopy(model.state_dict())
    callbacks = Callbacks([recorder], model_file=tmp_path / "model.prm")
    with pytest.raises(ValueError, match="does not fit this model"):
        model.fit(random_batches(), CrossEntropyMulti(), PlainDescent(), 3, callbacks=callbacks)
    assert recorder.seen == []
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("metric", [None, Accuracy()])
def test_training_stops_early_and_keeps_the_best_by_the_cost(tmp_path: Path, metric: Any) -> None:
    """Whatever the metric is: one that is to be large would be taken for one that is to be small."""
    model, batches, costs = small_model(), random_batches(), []

    class Rate:
        """Goes the wrong way from the third epoch on."""

        def on_epoch_end(self, _model: Model, epoch: int, _cost: float) -> None:
            optimizer.learning_rate = 0.1 if epoch < 1 else -0.1

    def until_it_rises(state: float | None, cost: float) -> tuple[float, bool]:
        costs.append(cost)
        return (cost, False) if state is None else (min(cost, state), cost > state)

    optimizer = PlainDescent(0.1)
    callbacks = Callbacks(model, eval_set=batches, metric=metric, progress_bar=False)
    callbacks.add_early_stop_callback(until_it_rises)
    callbacks.add_save_best_state_callback(str(tmp_path / "best.prm"))
    callbacks.add_callback(Rate(), insert_pos=0)
    history = model.fit(batches, CrossEntropyMulti(), optimizer, 10, callbacks=callbacks)
    assert len(history) == 3
    assert costs[2] > costs[1] < costs[0]
    assert costs[2] == model.eval(batches, CrossEntropyMulti())
    assert callbacks.eval_costs[2] == model.eval(batches, CrossEntropyMulti() if metric is None else metric)
    best = small_model()
    best.load_params(tmp_path / "best.prm")
    assert best.epoch == 2
    assert best.eval(batches, CrossEntropyMulti()) == costs[1]


def test_a_stop_function_must_return_a_pair() -> None:
    callbacks = Callbacks([], eval_set=random_batches())
    callbacks.add_early_stop_callback(lambda s, v: True)  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match=r"must return \(state, whether to stop\). Received: True"):
        small_model().fit(random_batches(), CrossEntropyMulti(), PlainDescent(), 1, callbacks=callbacks)


class Documented(Callback):
    """A callback as programs of the documented framework write it."""

    def __init__(self, stop_after: int = 10, **frequencies: Any) -> None:
        super().__init__(**frequencies)
        self.stop_after = stop_after

    def on_train_begin(self, callback_data: dict[str, Any], model: Any, epochs: int) -> None:
        callback_data["seen"] = [("train", epochs)]

    def on_epoch_begin(self, callback_data: dict[str, Any], model: Any, epoch: int) -> None:
        callback_data["seen"].append(("begin", epoch))

    def on_minibatch_begin(self, callback_data: dict[str, Any], model: Any, epoch: int, minibatch: int) -> None:
        self.weights = [value.detach().clone() for value in model.parameters()]

    def on_minibatch_end(self, callback_data: dict[str, Any], model: Any, epoch: int, minibatch: int) -> None:
        assert not any(map(torch.equal, self.weights, model.parameters()))
        callback_data["seen"].append((epoch, minibatch))

    def on_epoch_end(self, callback_data: dict[str, Any], model: Any, epoch: int) -> None:
        callback_data["seen"].append(("end", epoch))
        model.finished = epoch + 1 == self.stop_after

    def on_train_end(self, callback_data: dict[str, Any], model: Any) -> None:
        callback_data["seen"].append("end")


def test_callbacks_of_the_documented_framework_are_called_in_its_form() -> None:
    callbacks, model, batches = Callbacks([]), small_model(), random_batches()[:2]
    model(batches[0][0])
    callbacks.add_callback(Documented(stop_after=2))
    for _ in range(2):  # what ended one training does not end the next
        model.epoch = 0
        history = model.fit(batches, CrossEntropyMulti(), PlainDescent(), 3, callbacks=callbacks)
        assert len(history) == model.epoch_index == 2
        assert callbacks.callback_data["seen"] == [
            ("train", 3),
            *[("begin", 0), (0, 0), (0, 1), ("end", 0)],
            *[("begin", 1), (1, 0), (1, 1), ("end", 1)],
            "end",
        ]


def test_frequencies_of_callbacks_of_the_documented_framework() -> None:
    callbacks, batches = Callbacks([]), random_batches(12, 2)
    callbacks.add_callback(Documented(epoch_freq=2, minibatch_freq=[0, 3]))
    model = small_model()
    model.initialize(batches)
    model.fit(batches, CrossEntropyMulti(), PlainDescent(), 3, callbacks=callbacks)
    expected = [("train", 3), (0, 0), (0, 3), ("begin", 1), (1, 0), (1, 3), ("end", 1), (2, 0), (2, 3), "end"]
    assert callbacks.callback_data["seen"] == expected


def test_minibatches_are_not_watched_where_nobody_asks() -> None:
    class Silent(Callback):
        def on_epoch_end(self, callback_data: dict[str, Any], model: Any, epoch: int) -> None:
            pass

    callbacks = Callbacks([Silent(), Recorder(), ProgressBar()])
    assert not callbacks.methods("on_minibatch_begin") + callbacks.methods("on_minibatch_end")
    assert len(Callbacks([Documented(minibatch_freq=None)]).methods("on_minibatch_end")) == 1


@pytest.mark.parametrize("given", [3, "abc", [ProgressBar]], ids=str)
def test_what_is_no_callback_is_refused(given: Any) -> None:
    with pytest.raises(TypeError, match=r"must be a list of objects|must be an object, such as ProgressBar"):
        Callbacks(given)


def test_the_progress_bar_shows_epochs_and_cost(capsys: pytest.CaptureFixture[str]) -> None:
    model = small_model()
    (_, cost) = model.fit(random_batches(), CrossEntropyMulti(), PlainDescent(), 2, callbacks=[ProgressBar()])
    shown = capsys.readouterr().out
    assert "epoch 2/2" in shown
    assert f"cost {cost:.4g}" in shown


def test_an_interrupted_fit_leaves_the_model_and_the_optimizer_usable() -> None:
    class InterruptedData:
        def __iter__(self) -> Any:
            yield random_batches()[0]
            raise KeyboardInterrupt

    class InterruptedDescent(PlainDescent):
        def optimize(self, layer_list: list[Any], epoch: int) -> None:
            raise KeyboardInterrupt

    model, optimizer, recorder = small_model().eval(), InterruptedDescent(), Recorder()
    with pytest.raises(KeyboardInterrupt):
        model.fit(InterruptedData(), CrossEntropyMulti(), PlainDescent(), 3, callbacks=[recorder])
    assert recorder.seen == [3, "end"]
    with pytest.raises(KeyboardInterrupt):
        model.fit(random_batches(), CrossEntropyMulti(), optimizer, num_epochs=3)
    assert optimizer.be.bsz == 7
    assert model.epoch == 0
    assert not model.training
    model.fit(random_batches(), CrossEntropyMulti(), PlainDescent(), num_epochs=1)
    assert model.epoch == 1


def test_each_callback_is_told_of_the_end_whatever_another_raises() -> None:
    class Fails:
        def on_fit_end(self, _model: Model) -> None:
            raise OSError("the disk is full")

    recorder, model = Recorder(), small_model()
    with pytest.raises(OSError, match="the disk is full"):
        model.fit(random_batches(), CrossEntropyMulti(), PlainDescent(), 1, callbacks=[Fails(), recorder])
    assert recorder.seen == [1, 0, "end"]


def test_a_file_with_the_number_of_an_epoch_keeps_the_model_of_that_epoch(tmp_path: Path) -> None:
    """A later training that keeps one file wrote through the link, into "model_3.prm"."""
    model, path, elsewhere = small_model(), tmp_path / "model.prm", tmp_path / "elsewhere.prm"
    for history in (2, 1, 1):
        callbacks = Callbacks(model, save_path=path, history=history, progress_bar=False)
        model.fit(random_batches(), CrossEntropyMulti(), PlainDescent(), 2, callbacks=callbacks)
    twin = small_model()
    for file, epoch in ((tmp_path / "model_1.prm", 2), (path, 6)):
        twin.load_params(file)
        assert twin.epoch == epoch
    path.unlink()
    path.symlink_to(elsewhere.name)  # a link of the user's own stays
    callbacks = Callbacks(model, save_path=path, progress_bar=False)
    model.fit(random_batches(), CrossEntropyMulti(), PlainDescent(), 1, callbacks=callbacks)
    assert path.is_symlink()
    twin.load_params(elsewhere)
    assert twin.epoch == 7


@pytest.mark.parametrize(("wrong", "error"), [(0, ValueError), (1.5, TypeError), ("2", TypeError), ([1.5], TypeError)])
def test_a_frequency_is_a_whole_number(wrong: Any, error: Any) -> None:
    with pytest.raises(error, match="epoch_freq must be"):
        Callback(epoch_freq=wrong)
    with pytest.raises(error, match="minibatch_freq must be"):
        Callback(minibatch_freq=wrong)
