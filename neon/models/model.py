"""Model: a network of layers that can be trained, measured, saved and loaded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from torch import Tensor

from neon.callbacks import Callbacks
from neon.layers.container import Sequential
from neon.layers.cost import GeneralizedCost
from neon.layers.layer import check_count
from neon.messages import shortened, shown
from neon.models.parameter_file import differences, known_params, moved, read_saved, write_whole
from neon.old_paths import names_of
from neon.optimizers.averages import refuse_while_averaged, stand_in_place
from neon.optimizers.param_list import param_entry
from neon.optimizers.update_counts import set_updates, updates_of
from neon.transforms import Cost

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Model"]

Dataset = Iterable[Any]
CostFunction = GeneralizedCost | Callable[[Tensor, Tensor], Tensor]


class Model(Sequential):
    """A network: neon's layers or any torch modules in a row.

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

    def __init__(self, layers: Sequential | Iterable[Any], name: str | None = None) -> None:
        super().__init__([layers] if isinstance(layers, Sequential) else layers, name)
        if not self.layers:
            raise ValueError("A Model needs at least one layer. Received: an empty list")

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
            cost: a cost of `neon.transforms`, also in a GeneralizedCost, or a function of
                (outputs, targets) that returns one value per sample or, as torch's losses do, their
                mean.
            optimizer: one of `neon.optimizers`, which gets gradients summed over the minibatch and
                its size as `be.bsz`; or any torch.optim.Optimizer (an attached one too), which gets
                gradients of the mean.
            num_epochs: how many more epochs, 0 or more.
            callbacks: a list of objects, as `neon.callbacks` describes them.

        Ctrl-C ends training with KeyboardInterrupt; the model stays as the last step left it.
        """
        check_count(self, "num_epochs", num_epochs, least=0)
        check_cost(cost)
        check_optimizer(optimizer)
        watching = callbacks if isinstance(callbacks, Callbacks) else Callbacks(callbacks or [])
        watching.cost = cost
        history: list[float] = []
        was_training = self.training
        self.train()
        try:
            watching.on_fit_begin(self, num_epochs)
            for _ in range(num_epochs):
                history.append(self.fit_epoch(dataset, cost, optimizer))
                self.epoch += 1
                if watching.on_epoch_end(self, self.epoch - 1, history[-1]):
                    break
        finally:
            self.train(was_training)
            watching.on_fit_end(self)
        return history

    def fit_epoch(self, dataset: Dataset, cost: CostFunction, optimizer: Any) -> float:
        """One pass over the dataset. Returns the mean cost."""
        if isinstance(optimizer, torch.optim.Optimizer) and hasattr(optimizer, "set_epoch"):
            optimizer.set_epoch(self.epoch)  # type: ignore[attr-defined]
        total, samples = torch.zeros((), dtype=torch.float32, device="cpu"), 0
        for inputs, targets in self.batches(dataset):
            costs = self.per_sample(cost, inputs, targets)
            self.zero_grad()
            self.update(optimizer, costs)
            # stays on the device: reading it every step would make a GPU wait
            total = total.to(costs.device) + costs.detach().sum()
            samples += len(costs)
        return float(total) / samples

    def update(self, optimizer: Any, costs: Tensor) -> None:
        """One step of the optimizer."""
        if isinstance(optimizer, torch.optim.Optimizer):
            costs.mean().backward()
            optimizer.step()
            return
        costs.sum().backward()
        bsz = optimizer.be.bsz
        optimizer.be.bsz = len(costs)
        try:
            optimizer.optimize(list(self.layers), self.epoch)
        finally:
            optimizer.be.bsz = bsz

    @overload
    def eval(self) -> Self: ...
    @overload
    def eval(self, dataset: Dataset, metric: CostFunction) -> float: ...
    def eval(self, dataset: Dataset | None = None, metric: CostFunction | None = None) -> Any:
        """The mean of a metric, or of a cost, over a dataset.

        Without arguments it is torch's `Module.eval()`: the model goes into evaluation mode.
        """
        if dataset is None and metric is None:
            return super().eval()
        if dataset is None or metric is None:
            raise TypeError("eval takes a dataset and a metric, such as eval(test, Accuracy())")
        check_cost(metric)
        total, samples = 0.0, 0
        with self.evaluating():
            for inputs, targets in self.batches(dataset):
                values = self.per_sample(metric, inputs, targets)
                total += float(values.sum())
                samples += len(values)
        return total / samples

    def get_outputs(self, dataset: Dataset) -> Tensor:
        """The outputs for every sample, in evaluation mode, in the order the dataset gives them."""
        with self.evaluating():
            return torch.cat([self(inputs) for inputs, _ in self.batches(dataset)])

    def per_sample(self, cost: CostFunction, inputs: Tensor, targets: Tensor) -> Tensor:
        """The cost or metric of each sample, shape (N,); from logits where the cost fuses with
        the last transform.
        """
        if isinstance(cost, GeneralizedCost):
            cost = cost.costfunc
        fuses_with = cost.fuses_with if isinstance(cost, Cost) else None
        if isinstance(cost, Cost) and fuses_with is not None and fuses_with == self.last_transform:
            return cost.from_logits(self.logits(inputs), targets)
        values = cost(self(inputs), targets)
        return values if values.ndim else values.expand(len(inputs))

    def batches(self, dataset: Dataset) -> Iterator[tuple[Tensor, Tensor]]:
        """The minibatches on the model's device, floating-point ones in its dtype."""
        like = next(self.parameters(), torch.empty(0, dtype=torch.float32, device="cpu"))
        batch = None
        for batch in dataset:
            if not isinstance(batch, (tuple, list)) or len(batch) != 2:
                raise TypeError(
                    "A dataset must give (inputs, targets) minibatches, as ArrayIterator(X, y) "
                    f"does. Received: a {type(batch).__name__}"
                )
            yield place(batch[0], like), place(batch[1], like)
        if batch is None:
            raise ValueError(
                "The dataset gave no minibatch. A generator gives them only once: pass a list, a "
                "DataLoader or an ArrayIterator instead."
            )

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode without gradients; the mode before it comes back afterwards."""
        was_training = self.training
        self.train(False)
        try:
            with torch.no_grad():
                yield
        finally:
            self.train(was_training)

    def save_params(self, path: str | os.PathLike[str]) -> None:
        """Write parameters, buffers, `epoch` and neon's optimizer states to a file.

        The counts of updates, which schedules in steps go by, are written with them. A torch optimizer's state is in
        its own `state_dict`. The file is complete or not there: a write that is interrupted leaves a previous file
        at `path` as it was.
        """
        if stand_in_place(state for value in self.parameters() for state in param_entry(value)[1]):
            refuse_while_averaged()
        params = known_params(self)
        entries = {name: param_entry(value) for name, value in self.named_parameters()}
        states = {name: kept for name, (_, kept) in entries.items()}
        updates = {name: updates_of(entry) for name, entry in entries.items()}
        write_whole({"params": params, "states": states, "updates": updates, "epoch": self.epoch}, Path(path))

    def load_params(self, path: str | os.PathLike[str]) -> None:
        """Read what `save_params` wrote into a model of the same layers.

        Raises ValueError if the file is not such a file or its parameters do not fit, and then
        changes nothing.
        """
        if stand_in_place(state for value in self.parameters() for state in param_entry(value)[1]):
            refuse_while_averaged()
        saved = read_saved(path)
        if found := list(differences(self, saved["params"])):
            raise ValueError(f"{path} does not fit this model: {shortened('; '.join(found), 360)}")
        self.load_state_dict(saved["params"])
        for name, parameter in self.named_parameters():
            states = saved["states"].get(name, [])
            entry = param_entry(parameter)
            entry[1][:] = [moved(state, parameter.device) for state in states]
            if name in saved.get("updates", {}):  # older files count the updates of states alone, on these
                set_updates(entry, saved["updates"][name])
        self.epoch = saved["epoch"]


def place(values: Any, like: Tensor) -> Tensor:
    tensor = values if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values), device="cpu")
    return tensor.to(like.device, like.dtype if tensor.is_floating_point() else tensor.dtype)


def check_cost(cost: object) -> None:
    if isinstance(cost, type) or not callable(cost):
        raise TypeError(
            f"A cost or metric must be an object to call, such as CrossEntropyMulti(). Received: {shown(cost)}"
        )


def check_optimizer(optimizer: object) -> None:
    if isinstance(optimizer, torch.optim.Optimizer):
        return
    if isinstance(optimizer, type) or not all(hasattr(optimizer, a) for a in ("optimize", "be")):
        raise TypeError(
            "An optimizer must be one of neon.optimizers, such as Adam(), or a "
            f"torch.optim.Optimizer. Received: {shown(optimizer)}"
        )


__getattr__ = names_of("neon.models", __name__)
