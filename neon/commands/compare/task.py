"""What is compared: a network, its data and its loss, as one value."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from neon.commands.errors import TaskError, UnknownReferenceError
from neon.commands.references import one_line, resolve

T = TypeVar("T")
PROBE_SAMPLES = 8


def classification_accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Fraction of samples whose largest output, along axis 1, is at the target's class index.

    >>> classification_accuracy(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1])).item()
    0.5
    """
    if outputs.dim() < 2 or targets.shape != outputs.shape[:1] + outputs.shape[2:]:
        raise TaskError(
            "accuracy needs outputs of shape (samples, classes) and targets of shape (samples,) holding class "
            f"indices; received outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}. Give "
            "Task(accuracy=...) a function of your own: (outputs, targets) -> fraction between 0 and 1."
        )
    return (outputs.argmax(dim=1) == targets).float().mean()


@dataclass(frozen=True)
class Task:
    """A supervised problem on which optimizers are compared.

    Args:
        model: without arguments; returns a new ``torch.nn.Module``, its initial weights drawn
            from torch's, numpy's or Python's global random generator.
        train: (inputs, targets), two tensors with the same number of samples along axis 0.
        validation: the same, never trained on.
        loss: (outputs, targets) -> a scalar tensor, the mean over the samples.
        accuracy: (outputs, targets) -> the fraction of samples that are right, 0 to 1. The
            default compares the largest output with a class index.
        name: what the results call this task.

    Raises:
        TaskError: a part has the wrong type, or inputs and targets differ in length.
    """

    model: Callable[[], nn.Module]
    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    loss: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy
    accuracy: Callable[[Tensor, Tensor], Tensor | float] = classification_accuracy
    name: str = "task"

    def __post_init__(self) -> None:
        if isinstance(self.model, nn.Module):
            name = type(self.model).__name__
            raise TaskError(
                f"Task.model must make a new model at each call; received the module {name} itself. "
                f"Write model=lambda: {name}(...)."
            )
        for part, arguments in (
            ("model", "without arguments that returns a torch.nn.Module"),
            ("loss", "of (outputs, targets)"),
            ("accuracy", "of (outputs, targets)"),
        ):
            function = getattr(self, part)
            _require(callable(function), f"Task.{part} must be a function {arguments}", function)
        _require_pair("train", self.train)
        _require_pair("validation", self.validation)

    def new_model(self) -> nn.Module:
        """A model with initial weights.

        Raises:
            TaskError: the factory fails, or returns something that cannot be trained.
        """
        model = _attempt("Task.model()", self.model)
        _require(isinstance(model, nn.Module), "Task.model() must return a torch.nn.Module", model)
        if not any(p.requires_grad for p in model.parameters()):
            raise TaskError(
                f"Task.model() returned a {type(model).__name__} without trainable parameters; "
                "there is nothing to optimize."
            )
        return model

    def probe(self, model: nn.Module) -> float:
        """The loss of one forward pass on a few samples.

        Raises:
            TaskError: the model, the loss or the accuracy fails, or returns something of the wrong
                kind. Found here, it is found before anything is trained.
        """
        device = device_of(model)
        inputs, targets = (part[:PROBE_SAMPLES].to(device) for part in self.train)
        model.eval()
        with torch.no_grad():
            outputs = _attempt("the model's forward pass", model, inputs)
            loss = _attempt("Task.loss", self.loss, outputs, targets)
            accuracy = _attempt("Task.accuracy", self.accuracy, outputs, targets)
        single = isinstance(loss, Tensor) and loss.numel() == 1
        _require(single, "Task.loss must return a tensor with one element, the mean over the samples", loss)
        if not math.isfinite(loss.item()):
            raise TaskError(f"Task.loss of the initial weights is {loss.item()}: no optimizer can train this.")
        number = isinstance(accuracy, (int, float)) or (isinstance(accuracy, Tensor) and accuracy.numel() == 1)
        _require(number and 0.0 <= float(accuracy) <= 1.0, "Task.accuracy must return a number from 0 to 1", accuracy)
        return loss.item()


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first parameter; batches are moved there."""
    return next(model.parameters()).device


def load_task(reference: str) -> Task:
    """Import ``module:function`` and return the `Task` that the function makes.

    Raises:
        TaskError: the reference leads nowhere, or the function fails or returns something else.
    """
    try:
        function: Any = resolve(reference)
    except UnknownReferenceError as error:
        raise TaskError(f"--task: {error}") from error
    _require(callable(function), f"--task: {reference} must be a function that returns a neon.compare.Task", function)
    task = _attempt(f"--task: {reference}()", function)
    _require(isinstance(task, Task), f"--task: {reference}() must return a neon.compare.Task", task)
    return task


def _require(holds: bool, what: str, value: object) -> None:
    """Refuse a value, and describe it, unless the condition holds."""
    if not holds:
        raise TaskError(f"{what}; received {_describe(value)}.")


def _require_pair(part: str, pair: tuple[Tensor, Tensor]) -> None:
    is_pair = isinstance(pair, (tuple, list)) and len(pair) == 2 and all(isinstance(item, Tensor) for item in pair)
    _require(is_pair, f"Task.{part} must be a pair of tensors (inputs, targets)", pair)
    inputs, targets = pair
    if inputs.dim() == 0 or targets.dim() == 0 or len(inputs) != len(targets):
        raise TaskError(
            f"Task.{part} needs as many inputs as targets along axis 0; received shapes "
            f"{tuple(inputs.shape)} and {tuple(targets.shape)}."
        )
    if len(inputs) == 0:
        raise TaskError(f"Task.{part} holds no samples.")


def _attempt(what: str, function: Callable[..., T], *arguments: object) -> T:
    """Call the user's function; turn its exception into one line that says where it arose."""
    try:
        return function(*arguments)
    except TaskError:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}, line {frame.lineno}"
        raise TaskError(f"{what} failed: {one_line(error)} ({place}).") from error


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, (tuple, list)):
        inner = ", ".join(type(item).__name__ for item in value[:4])
        return f"a {type(value).__name__} of {len(value)} ({inner}{', …' * (len(value) > 4)})"
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '…'} ({type(value).__name__})"
