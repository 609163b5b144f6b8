"""What a model can be trained with: refused before anything is changed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neon.backends.arrays import as_tensor
from neon.layers.cost import GeneralizedCost, GeneralizedGANCost
from neon.messages import shown
from neon.transforms import GANCost


def check_cost(cost: object) -> None:
    if isinstance(cost, type) or not callable(cost):
        raise TypeError(
            f"A cost or metric must be an object to call, such as CrossEntropyMulti(). Received: {shown(cost)}"
        )
    if isinstance(cost, (GANCost, GeneralizedGANCost)):
        raise TypeError(f"A GANCost compares two outputs, and trains a GAN: GAN(layers, noise_dim). Received: {cost!r}")


def adversarial_cost(cost: Any) -> GANCost:
    """The GANCost that a GAN is trained with."""
    found = cost.costfunc if isinstance(cost, GeneralizedCost) else cost
    if not isinstance(found, GANCost):
        raise TypeError(
            "A GAN's cost must be a GANCost, such as GeneralizedGANCost(costfunc=GANCost(func='modified')). "
            f"Received: {shown(cost)}"
        )
    return found


def check_optimizer(optimizer: object) -> None:
    if isinstance(optimizer, torch.optim.Optimizer):
        return
    if isinstance(optimizer, type) or not all(hasattr(optimizer, a) for a in ("optimize", "be")):
        raise TypeError(
            "An optimizer must be one of neon.optimizers, such as Adam(), or a "
            f"torch.optim.Optimizer. Received: {shown(optimizer)}"
        )


def values_of_samples(values: Any, samples: int) -> Tensor:
    """What a cost or metric returned, as one value for each sample; a single number is their mean.

    The documented framework has samples last: what sums over axis 0 there would sum over samples here, and is refused.
    """
    values = as_tensor(values)
    if values.ndim == 0:
        return values.expand(samples)
    if len(values) % samples:
        raise ValueError(
            f"A cost or metric must return one value for each of the {samples} samples, or their mean. Received: "
            f"values of shape {tuple(values.shape)}. Samples are the first dimension: sum over axis=1."
        )
    return values
