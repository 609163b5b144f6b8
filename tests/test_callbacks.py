"""What watches fit, and what is left when it is interrupted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from plain_training import PlainDescent, random_batches, small_model

from neon.callbacks import Callbacks, ProgressBar
from neon.models import Model
from neon.transforms import CrossEntropyMulti


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
