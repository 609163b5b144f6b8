"""Model: a network of layers that can be trained, measured, saved and loaded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self, overload

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from neon.backends import NervanaObject
from neon.callbacks import Callbacks
from neon.layers.container import Sequential
from neon.layers.cost import GeneralizedCost, GeneralizedCostMask
from neon.layers.layer import check_count
from neon.layers.shapes import undone_on_error
from neon.messages import received
from neon.models.minibatches import Dataset, first_inputs, minibatches, place
from neon.models.model_checks import check_cost, check_optimizer, values_of_samples
from neon.models.parameter_file import load, save
from neon.not_built import instead_of
from neon.old_paths import names_of
from neon.transforms import Cost, TopKMisclassification

__all__ = ["Model"]

CostFunction = GeneralizedCost | Callable[[Tensor, Tensor], Tensor]


class Model(Sequential):
    """A network: neon's layers or any torch modules in a row.

    Of the documented framework's arguments `dataset`, `weights_only` and `optimizer` mean nothing here: `fit` has its
    own. Layers are written, not read from a file: `load_params` then fills them.

    A dataset is anything to iterate over, once an epoch, that gives (inputs, targets) minibatches
    with the samples first: a list of them, a torch DataLoader, a `neon.data.ArrayIterator`.
    Minibatches are moved to the model's device; floating-point ones take on its dtype.

    `epoch` counts the epochs the model has been trained for. It is what an optimizer's schedule is
    asked with, and is saved with the parameters, so that a second `fit` goes on where the first
    stopped. Set it to 0 to start a schedule over.

    >>> from neon.initializers import Gaussian
    >>> from neon.layers import Affine
    >>> from neon.transforms import Rectlin, Softmax
    >>> model = Model([Affine(nout=100, init=Gaussian(), activation=Rectlin()),
    ...                Affine(nout=10, init=Gaussian(), activation=Softmax(), name="head")])
    >>> model(torch.ones(5, 64)).shape
    torch.Size([5, 10])
    >>> [name for name, parameter in model.named_parameters()]
    ['0.0.weight', '0.1.bias', 'head.0.weight', 'head.1.bias']
    """

    epoch: int = 0
    be = NervanaObject.be
    # A callback ends training by setting it, after the epoch.
    finished: bool = False

    def __init__(
        self,
        layers: Sequential | Iterable[Any],
        name: str | None = None,
        *,
        dataset: Any = None,
        weights_only: bool = False,
        optimizer: Any = None,
    ) -> None:
        if isinstance(layers, (str, bytes, dict)) or hasattr(layers, "__fspath__"):
            raise TypeError(
                "A Model is made of layers, not of a file. "
                f"{received('layers', layers)} Write the layers, then model.load_params(path)."
            )
        super().__init__([layers] if isinstance(layers, Sequential) else layers, name)
        if not self.layers:
            raise ValueError("A Model needs at least one layer. Received: an empty list")

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError as error:
            raise AttributeError(instead_of(name, "Model") or str(error)) from None

    @property
    def epoch_index(self) -> int:
        """`epoch`, as the documented framework calls it."""
        return self.epoch

    @property
    def layers_to_optimize(self) -> list[nn.Module]:
        """What an optimizer's `optimize` takes: the layers."""
        return list(self.layers)

    def initialize(self, dataset: Any, cost: CostFunction | None = None) -> None:
        """Give parameters that have none yet their shapes and first values; nothing else changes.

        `fit`, or a first call, does the same.

        Args:
            dataset: minibatches, as the class describes them; or what has the `shape` of one input, or such a shape:
                features, (features, T) or (channels, height, width).
            cost: means nothing here; it is checked.
        """
        if cost is not None:
            self.check_cost(cost)
        if any(map(is_lazy, (*self.parameters(), *self.buffers()))):
            with undone_on_error(self), self.evaluating():
                self(first_inputs(dataset, self.example()))

    def fprop(self, x: Any, inference: bool = False) -> Tensor:
        """The outputs for a minibatch of inputs: as in training, or as in evaluation and without gradients."""
        with self.evaluating() if inference else self.in_mode(training=True):
            return self(place(x, self.example()))

    def fit(
        self,
        dataset: Dataset,
        cost: CostFunction,
        optimizer: Any,
        num_epochs: int,
        callbacks: Callbacks | Iterable[Any] | None = None,
    ) -> list[float]:
        """Train for `num_epochs` epochs and return the mean cost of each.

        Args:
            dataset: minibatches, as the class describes them.
            cost: a cost of `neon.transforms`, also in a GeneralizedCost, or a function of (outputs, targets) that
                returns one value per sample or, as torch's losses do, their mean.
            optimizer: one of `neon.optimizers`, which gets gradients summed over the minibatch and its size as
                `be.bsz`; or any torch.optim.Optimizer (an attached one too), which gets gradients of the mean.
            num_epochs: how many more epochs, 0 or more.
            callbacks: a list of objects, as `neon.callbacks` describes them.

        Ctrl-C ends training with KeyboardInterrupt; the model stays as the last step left it.

        With `Callbacks(model_file=...)`, that file is loaded first, and `num_epochs` counts the epochs in it too.
        """
        check_count(self, "num_epochs", num_epochs, least=0)
        self.check_cost(cost)
        check_optimizer(optimizer)
        watching = callbacks if isinstance(callbacks, Callbacks) else Callbacks(callbacks or [])
        watching.cost = cost
        if hasattr(optimizer, "evaluating"):
            attached = isinstance(optimizer, torch.optim.Optimizer)
            watching.evaluating = lambda: optimizer.evaluating(self if attached else list(self.layers))
        remaining = watching.resume(self, num_epochs, dataset)
        history: list[float] = []
        self.finished = False
        try:
            with self.in_mode(training=True):
                watching.on_fit_begin(self, remaining)
                for _ in range(remaining):
                    watching.call("on_epoch_begin", self, self.epoch)
                    history.append(self.fit_epoch(dataset, cost, optimizer, watching))
                    self.epoch += 1
                    if watching.on_epoch_end(self, self.epoch - 1, history[-1]) or self.finished:
                        break
        finally:
            watching.on_fit_end(self)
        return history

    def fit_epoch(
        self, dataset: Dataset, cost: CostFunction, optimizer: Any, callbacks: Callbacks | None = None
    ) -> float:
        """One pass over the dataset. Returns the mean cost."""
        self.begin_epoch(optimizer)
        begin, end = (callbacks or Callbacks()).minibatch_hooks()
        total, samples = torch.zeros((), dtype=torch.float32, device="cpu"), 0
        for minibatch, (inputs, targets) in enumerate(self.batches(dataset)):
            for hook in begin:
                hook(self, self.epoch, minibatch)
            costs = self.per_sample(cost, inputs, targets)
            self.zero_grad()
            self.update(optimizer, costs)
            # stays on the device: reading it every step would make a GPU wait
            total = total.to(costs.device) + costs.detach().sum()
            samples += len(costs)
            for hook in end:
                hook(self, self.epoch, minibatch)
        return float(total) / samples

    def begin_epoch(self, optimizer: Any) -> None:
        """Tell an attached optimizer the epoch, for its schedules."""
        if isinstance(optimizer, torch.optim.Optimizer) and hasattr(optimizer, "set_epoch"):
            optimizer.set_epoch(self.epoch)  # type: ignore[attr-defined]

    def update(self, optimizer: Any, costs: Tensor, part: nn.Module | None = None) -> None:
        """One step of the optimizer; with a `part`, gradients reach the parameters of that part alone."""
        inputs = None if part is None else [value for value in part.parameters() if value.requires_grad]
        if inputs == []:
            return
        if isinstance(optimizer, torch.optim.Optimizer):
            costs.mean().backward(inputs=inputs)
            optimizer.step()
            return
        costs.sum().backward(inputs=inputs)
        bsz = optimizer.be.bsz
        optimizer.be.bsz = len(costs)
        try:
            optimizer.optimize(list(self.layers), self.epoch)
        finally:
            optimizer.be.bsz = bsz

    @overload
    def eval(self) -> Self: ...
    @overload
    def eval(self, dataset: Dataset, metric: TopKMisclassification) -> np.ndarray: ...  # pyright: ignore[reportOverlappingOverload]
    @overload
    def eval(self, dataset: Dataset, metric: CostFunction) -> float: ...
    def eval(self, dataset: Dataset | None = None, metric: CostFunction | None = None) -> Any:
        """The mean of a metric, or of a cost, over a dataset; of a TopKMisclassification an array of three means.

        A dataset that has `in_order()`, as an ArrayIterator does, is read by that: its orders of training stay as they
        are.

        Without arguments it is torch's `Module.eval()`: the model goes into evaluation mode.
        """
        if dataset is None and metric is None:
            return super().eval()
        if dataset is None or metric is None:
            raise TypeError("eval takes a dataset and a metric, such as eval(test, Accuracy())")
        self.check_cost(metric)
        total, samples = torch.zeros((), dtype=torch.float64, device="cpu"), 0
        several = isinstance(metric, TopKMisclassification)
        with self.evaluating():
            for inputs, targets in self.batches(dataset, in_order=True):
                values = self.per_sample(metric, inputs, targets)
                total = total + (values.sum(0) if several else values.sum()).to("cpu", torch.float64)
                samples += len(values)
        return (total / samples).numpy() if several else float(total) / samples

    def get_outputs(self, dataset: Dataset) -> Tensor:
        """The outputs for every sample, in evaluation mode, in the dataset's order: of an ArrayIterator that of X."""
        with self.evaluating():
            return torch.cat([self(inputs) for inputs, _ in self.batches(dataset, in_order=True)])

    def per_sample(self, cost: CostFunction, inputs: Tensor, targets: Any) -> Tensor:
        """The cost or metric of each sample, shape (N,); from logits where the cost fuses with the last transform."""
        if isinstance(cost, GeneralizedCostMask):
            return cost.per_sample(self(inputs), targets)
        if isinstance(cost, GeneralizedCost):
            cost = cost.costfunc
        fuses_with = cost.fuses_with if isinstance(cost, Cost) else None
        if isinstance(cost, Cost) and fuses_with is not None and fuses_with == self.last_transform:
            return cost.from_logits(self.logits(inputs), targets)
        return values_of_samples(cost(self(inputs), targets), len(inputs))

    def check_cost(self, cost: Any) -> None:
        """Refuse what is no cost or metric for this model."""
        check_cost(cost)

    def batches(self, dataset: Dataset, *, in_order: bool = False) -> Iterator[tuple[Tensor, Any]]:
        """The minibatches on the model's device, floating-point ones in its dtype."""
        return minibatches(dataset, self.example(), in_order=in_order)

    def example(self) -> Tensor:
        """A tensor on the model's device and in its dtype."""
        return next(self.parameters(), torch.empty(0, dtype=torch.float32, device="cpu"))

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode without gradients; the mode before it comes back afterwards."""
        with self.in_mode(training=False), torch.no_grad():
            yield

    @contextmanager
    def in_mode(self, *, training: bool) -> Iterator[None]:
        """Training or evaluation mode; each layer has afterwards the one that it had."""
        modes = [(part, part.training) for part in self.modules()]
        self.train(training)
        try:
            yield
        finally:
            self.train(modes[0][1])
            for part, mode in modes:
                part.training = mode

    def save_params(self, path: str | os.PathLike[str], keep_states: bool = True) -> None:
        """Write parameters, buffers, `epoch`, the states of torch's random numbers and, with `keep_states`, neon's
        optimizer states to a file.

        The counts of updates, which schedules in steps go by, are written with the states. A torch optimizer's state
        is in its own `state_dict`. The file is complete or not there: a write that is interrupted leaves a previous
        file at `path` as it was.
        """
        save(self, path, keep_states=keep_states)

    def load_params(
        self, path: str | os.PathLike[str], load_states: bool = True, *, random_state: bool = False
    ) -> None:
        """Read what `save_params` wrote into a model of the same layers.

        With `random_state`, torch's random numbers go on from where they were then.

        With `load_states` False, or from a file without states, optimizers start anew: the states that the model's
        parameters had are let go.

        Raises ValueError if the file is not such a file or its parameters do not fit, and then changes nothing.
        """
        load(self, path, load_states=load_states, random_state=random_state)


__getattr__ = names_of("neon.models", __name__)
