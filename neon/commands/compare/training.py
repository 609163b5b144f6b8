"""Trains one network with one optimizer, an epoch at a time, so that it can stop and go on."""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from neon.commands.compare.curves import FINISHED, Result
from neon.commands.compare.randomness import batch_order, seeded
from neon.commands.compare.run_files import RunStore
from neon.commands.compare.task import Task, device_of
from neon.commands.errors import SettingsError, SpecError
from neon.commands.optimizer_text import OptimizerSpec

EVALUATION_BATCH = 512
EXPLODED = 1000.0
MAX_SEED = 2**63 - 1

# Called after each batch with the result so far and the position in epochs, such as 3.25.
Watcher = Callable[[Result, float], None]


@dataclass(frozen=True)
class Settings:
    """How every optimizer is trained.

    Args:
        epochs: passes over the training samples, at least 1.
        batch_size: samples per step, at least 1; the last batch of an epoch may be smaller.
        seed: of the initial weights, the order of the batches and dropout, 0 to 2⁶³ − 1.
    """

    epochs: int = 20
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (("epochs", 1), ("batch_size", 1), ("seed", 0)):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= MAX_SEED:
                raise SettingsError(f"{name} must be a whole number, at least {low}; received {value!r}.")


class Runner:
    """One optimizer on its way through the epochs, from the initial weights of `model`, whose loss is `loss`."""

    def __init__(self, task: Task, model: nn.Module, loss: float, spec: OptimizerSpec, settings: Settings) -> None:
        self._task, self._settings = task, settings
        self._highest_loss = EXPLODED * max(abs(loss), 1.0)
        self._model = copy.deepcopy(model)
        self._optimizer = attach(spec, self._model)
        self.result = Result(optimizer=spec.text)

    def run(self, store: RunStore, watch: Watcher) -> Result:
        """Train from the last stored epoch to the end or to divergence."""
        if (checkpoint := store.load_checkpoint()) is not None:
            self._model.load_state_dict(checkpoint["model"])
            self._optimizer.load_state_dict(checkpoint["optimizer"])
            self.result = checkpoint["result"]
        watch(self.result, self.result.epochs)
        while not self.result.done:
            epoch = self.result.epochs
            with seeded(self._settings.seed, "epoch", epoch):
                self._train_epoch(epoch, watch)
            if not self.result.done and self.result.epochs == self._settings.epochs:
                self.result.status = FINISHED
            if self.result.done:
                self.result.weights_sha256 = digest_of(self._model.state_dict().values())
                store.save_final(self.result)
            else:
                store.save_epoch(self.result, self._model.state_dict(), self._optimizer.state_dict())
            watch(self.result, self.result.epochs)
        return self.result

    def _train_epoch(self, epoch: int, watch: Watcher) -> None:
        inputs, targets = self._task.train
        order = batch_order(len(inputs), self._settings.seed, epoch)
        batches = order.split(self._settings.batch_size)
        self._optimizer.set_epoch(epoch)
        self._model.train()
        total, step_us = 0.0, []
        for index, batch in enumerate(batches):
            loss, microseconds = self._step(inputs[batch], targets[batch])
            total += loss * len(batch)
            step_us.append(microseconds)
            if not math.isfinite(loss):
                break
            watch(self.result, epoch + (index + 1) / len(batches))
        validation_loss, accuracy = evaluate(self._task, self._model)
        # Weights that were thrown far out can leave every unit dead and the loss finite.
        exploded = not abs(validation_loss) <= self._highest_loss
        if exploded or not (math.isfinite(total) and _finite(self._model)):
            self.result.status = f"diverged at epoch {epoch + 1}"
            return
        self.result.train_loss.append(total / len(inputs))
        self.result.validation_loss.append(validation_loss)
        self.result.accuracy.append(accuracy)
        self.result.step_us.append(round(median(step_us), 3))

    def _step(self, inputs: Tensor, targets: Tensor) -> tuple[float, float]:
        """One update; the loss before it and the time of the optimizer's part."""
        device = device_of(self._model)
        loss = self._task.loss(self._model(inputs.to(device)), targets.to(device))
        value = loss.item()
        if not math.isfinite(value):
            return value, 0.0
        self._optimizer.zero_grad()
        loss.backward()
        _wait_for(device)
        start = time.perf_counter_ns()
        self._optimizer.step()
        _wait_for(device)
        return value, (time.perf_counter_ns() - start) / 1000


def attach(spec: OptimizerSpec, model: nn.Module):
    """Attach a new optimizer to a model.

    Raises:
        SpecError: it does not fit the model, such as a MultiOptimizer's key that matches nothing.
    """
    try:
        return spec.build().attach(model)
    except (TypeError, ValueError) as error:
        raise SpecError(f"{spec.text} does not fit the model: {error}") from error


@torch.no_grad()
def evaluate(task: Task, model: nn.Module) -> tuple[float, float]:
    """Loss and accuracy on the validation samples."""
    model.eval()
    device = device_of(model)
    inputs, targets = task.validation
    loss = accuracy = 0.0
    for x, y in zip(inputs.split(EVALUATION_BATCH), targets.split(EVALUATION_BATCH), strict=True):
        outputs, y = model(x.to(device)), y.to(device)
        loss += float(task.loss(outputs, y)) * len(x)
        accuracy += float(task.accuracy(outputs, y)) * len(x)
    return loss / len(inputs), accuracy / len(inputs)


def digest_of(tensors) -> str:
    """SHA-256 of dtypes, shapes and bits."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _finite(model: nn.Module) -> bool:
    return all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":  # a launch returns before its work is done
        torch.cuda.synchronize(device)
