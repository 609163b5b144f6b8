"""Trains one network with one optimizer, an epoch at a time, and keeps each, so that it can stop and go on."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import pickle
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from neon.commands.compare.curves import FINISHED, Result
from neon.commands.compare.randomness import batch_order, seeded
from neon.commands.compare.task import Task, device_of
from neon.commands.errors import SettingsError, SpecError
from neon.commands.optimizer_text import OptimizerSpec
from neon.commands.output import write_json
from neon.commands.references import one_line
from neon.torch import AttachedOptimizer
from neon.whole_files import write_atomically

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


@dataclass(frozen=True)
class Run:
    """One optimizer on its way from the initial weights through the epochs; an interruption loses at most one of them.

    Kept are ``<name>-<digest>.json`` (configuration and curves) and, while it trains, ``<name>-<digest>.pt`` (model,
    optimizer, curves). The digest is of the whole configuration: what other settings gave is never taken for this.

    Attributes:
        task, spec, settings: what is trained, by which optimizer, and how.
        start: the network with its initial weights, which stay as they are.
        loss: the loss of these weights.
        directory: where the two files are.
        config: everything that decides the bits of a run: two equal ones mean equal results.
    """

    task: Task
    spec: OptimizerSpec
    settings: Settings
    start: nn.Module
    loss: float
    directory: Path
    config: Mapping[str, str | int]

    def stored(self) -> Result | None:
        """The stored result if it is complete and of this configuration."""
        try:
            kept = json.loads(self._file(".json").read_text(encoding="utf-8"))
            result = Result(**kept["result"])
        except (OSError, ValueError, KeyError, TypeError):  # absent or damaged: train it again
            return None
        return result if result.done and kept["config"] == self.config else None

    def discard(self) -> None:
        """Forget what is stored."""
        self._file(".json").unlink(missing_ok=True)
        self._file(".pt").unlink(missing_ok=True)

    def train(self, watch: Watcher) -> Result:
        """Train from the last stored epoch to the end or to divergence."""
        if (stored := self.stored()) is not None:
            watch(stored, stored.epochs)
            return stored
        model = copy.deepcopy(self.start)
        optimizer = attach(self.spec, model)
        result = self._resume(model, optimizer)
        watch(result, result.epochs)
        while not result.done:
            with seeded(self.settings.seed, "epoch", result.epochs):
                self._train_epoch(model, optimizer, result, watch)
            if not result.done and result.epochs == self.settings.epochs:
                result.status = FINISHED
            if result.done:
                result.weights_sha256 = digest_of(model.state_dict().values())
            self._keep(model, optimizer, result)
            watch(result, result.epochs)
        return result

    def _file(self, ending: str) -> Path:
        digest = hashlib.sha256(json.dumps(self.config, sort_keys=True).encode()).hexdigest()[:12]
        return self.directory / f"{self.spec.name}-{digest}{ending}"

    def _resume(self, model: nn.Module, optimizer: AttachedOptimizer) -> Result:
        """Load model and optimizer as they were after the last whole epoch, if there is one; return the curves so far.

        Warns if there is a file that cannot be read, as the training then starts over.
        """
        path, new = self._file(".pt"), Result(self.spec.text)
        if not path.exists():
            return new
        try:
            kept = torch.load(path, weights_only=True)
            if kept["config"] != self.config:
                return new
            result = Result(**kept["result"])
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
            warnings.warn(f"cannot resume from {path} ({one_line(error)}); starting over", RuntimeWarning, stacklevel=2)
            return new
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        return result

    def _keep(self, model: nn.Module, optimizer: AttachedOptimizer, result: Result) -> None:
        """First what a resume needs, then the curves for people to read; a checkpoint is of no use after the end."""
        curves = {"config": self.config, "result": asdict(result)}
        if not result.done:
            checkpoint = curves | {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            write_atomically(self._file(".pt"), lambda file: torch.save(checkpoint, file))
        write_json(self._file(".json"), curves)
        if result.done:
            self._file(".pt").unlink(missing_ok=True)

    def _train_epoch(self, model: nn.Module, optimizer: AttachedOptimizer, result: Result, watch: Watcher) -> None:
        inputs, targets = self.task.train
        epoch = result.epochs
        batches = batch_order(len(inputs), self.settings.seed, epoch).split(self.settings.batch_size)
        optimizer.set_epoch(epoch)
        model.train()
        total, step_us = 0.0, []
        for index, batch in enumerate(batches):
            loss, microseconds = self._step(model, optimizer, inputs[batch], targets[batch])
            total += loss * len(batch)
            step_us.append(microseconds)
            if not math.isfinite(loss):
                break
            watch(result, epoch + (index + 1) / len(batches))
        with optimizer.evaluating():
            validation_loss, accuracy = evaluate(self.task, model)
        # Weights that were thrown far out can leave every unit dead and the loss finite.
        exploded = not abs(validation_loss) <= EXPLODED * max(abs(self.loss), 1.0)
        if exploded or not (math.isfinite(total) and all(bool(param.isfinite().all()) for param in model.parameters())):
            result.status = f"diverged at epoch {epoch + 1}"
            return
        result.train_loss.append(total / len(inputs))
        result.validation_loss.append(validation_loss)
        result.accuracy.append(accuracy)
        result.step_us.append(round(median(step_us), 3))

    def _step(
        self, model: nn.Module, optimizer: AttachedOptimizer, inputs: Tensor, targets: Tensor
    ) -> tuple[float, float]:
        """One update; the loss before it and the time of the optimizer's part."""
        device = device_of(model)
        loss = self.task.loss(model(inputs.to(device)), targets.to(device))
        value = loss.item()
        if not math.isfinite(value):
            return value, 0.0
        optimizer.zero_grad()
        loss.backward()
        _wait_for(device)
        start = time.perf_counter_ns()
        optimizer.step()
        _wait_for(device)
        return value, (time.perf_counter_ns() - start) / 1000


def attach(spec: OptimizerSpec, model: nn.Module) -> AttachedOptimizer:
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


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":  # a launch returns before its work is done
        torch.cuda.synchronize(device)
