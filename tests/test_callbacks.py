"""What watches fit, and what is left when it is interrupted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from plain_training import PlainDescent, random_batches, small_model

from neon.callbacks import Callbacks, ProgressBar
from neon.models import Model
from neon.transforms import Accuracy, CrossEntropyMulti


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

    given = {"eval_freq": 2, "serialize": 0, "history": 1, "save_path": None, "output_file": None, "model_file": None}
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
        ({"serialize": 1}, TypeError, r"takes no serialize: .*save_params\(path\) .*serialize=1"),
        ({"output_file": "out.h5"}, TypeError, "takes no output_file: fit returns the costs"),
        (
            {"eval_sett": []},
            TypeError,
            "no argument 'eval_sett'. Its arguments: callbacks, eval_set, metric",
        ),
        ({"eval_set": [], "eval_freq": 0}, ValueError, "eval_freq must be at least 1"),
        ({"metric": 3}, ValueError, "metric and eval_freq are of an eval_set"),
        ({"progress_bar": "yes"}, TypeError, "progress_bar must be True or False"),
    ],
)
def test_what_cannot_be_served_says_what_to_write(given: dict[str, Any], error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        Callbacks([], **given)


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
