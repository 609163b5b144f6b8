"""What the tests of Model share: an optimizer, a small network, a few minibatches."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from neon.assignment.param_list import param_entry
from neon.initializers import GlorotUniform
from neon.layers import Affine
from neon.models import Model
from neon.transforms import Softmax, Tanh


class PlainDescent:
    """The least that fit asks of one of neon's optimizers, with a record of how it was called."""

    def __init__(self, learning_rate: float = 0.1) -> None:
        self.learning_rate = learning_rate
        self.be = SimpleNamespace(bsz=7)
        self.calls: list[tuple[int, int]] = []

    def optimize(self, layer_list: list[Any], epoch: int) -> None:
        self.calls.append((epoch, self.be.bsz))
        for layer in layer_list:
            for parameter in layer.parameters():
                entry: Any = param_entry(parameter)
                (param, grad), states = entry
                param -= self.learning_rate * grad / self.be.bsz
                states[:] = [grad.clone()]


def small_model(outputs: int = 3, **kwargs: Any) -> Model:
    layers = [
        Affine(8, GlorotUniform(), activation=Tanh()),
        Affine(outputs, GlorotUniform(), activation=Softmax(), **kwargs),
    ]
    return Model(layers)


def random_batches(samples: int = 10, batch_size: int = 4) -> list[tuple[Tensor, Tensor]]:
    inputs, targets = torch.randn(samples, 5), torch.arange(samples) % 3
    return list(zip(inputs.split(batch_size), targets.split(batch_size), strict=True))
