"""Costs and metrics: one value per sample, shape (N,), from outputs and targets.

Values of the steps of a sequence are added up (costs) or averaged (metrics). Classes and features
lie in the last dimension. Outputs and targets that are images, (N, channels, height, width), are read as vectors, as
Linear reads them: an image that was rebuilt can have a vector of pixels as its target, and (N, classes, 1, 1) classes.

A cost works on a network's final outputs, after Softmax or Logistic, as neon's documentation has
it. Rounded to floats, those lose what a logarithm needs: a probability of 1e-50 is 0 in float32,
and from there no gradient flows. `Model` therefore gives a cost that `fuses_with` the network's
last transform the values *before* it (`from_logits`), where torch's fused losses lose nothing.
Called by hand on outputs, a cost bounds its logarithms: finite always, exact until they underflow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from neon.arguments import flag, keep_finite, positive_integer
from neon.backends import NervanaObject
from neon.old_paths import names_of
from neon.transforms.activation import Logistic, Softmax, Transform

__all__ = [
    "Accuracy", "Cost", "CrossEntropyBinary", "CrossEntropyMulti", "MeanSquared", "Metric", "Misclassification",
    "SumSquared", "TopKMisclassification",
]  # fmt: skip


class Cost:
    """What training makes small. `y`: outputs, `t`: targets; returns one value per sample.

    To write one, define `__call__`. If it also has an exact form on what goes into a certain transform, name that
    transform in `fuses_with` and define `from_logits`. A `bprop` is not called: gradients are autograd's.
    """

    be = NervanaObject.be
    fuses_with: Transform | None = None

    def __call__(self, y: Tensor, t: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define __call__(self, y, t)")

    def from_logits(self, x: Tensor, t: Tensor) -> Tensor:
        """The same as `self(self.fuses_with(x), t)`, without its rounding."""
        raise NotImplementedError(f"{type(self).__name__} has no form on logits")


@dataclass(frozen=True)
class CrossEntropyMulti(Cost):
    """−Σᵢ tᵢ log yᵢ over the classes, for outputs of a Softmax.

    Targets are class numbers, shape (N,) or (N, T), or probabilities (one-hot) shaped like `y`.

    Args:
        scale: multiplies the gradient, and leaves the value as it is. Any finite number, default 1.
        usebits: logarithms to base 2, in value and gradient. Default False.

    >>> cost = CrossEntropyMulti()
    >>> cost(torch.tensor([[0.25, 0.75], [1.0, 0.0]]), torch.tensor([1, 0]))
    tensor([0.2877, -0.0000])
    >>> cost.from_logits(torch.tensor([[200.0, 0.0]]), torch.tensor([1]))
    tensor([200.])
    >>> CrossEntropyMulti(usebits=True)(torch.tensor([[0.25, 0.75]]), torch.tensor([0]))
    tensor([2.])
    """

    scale: float = 1
    usebits: bool = False

    fuses_with = Softmax()

    def __post_init__(self) -> None:
        keep_finite(self, "scale")
        flag("CrossEntropyMulti's usebits", self.usebits)

    def __call__(self, y: Tensor, t: Tensor) -> Tensor:
        tiny = torch.finfo(y.dtype).tiny
        return self.of_logarithms(vectors(y).clamp_min(tiny).log(), t)

    def from_logits(self, x: Tensor, t: Tensor) -> Tensor:
        return self.of_logarithms(torch.log_softmax(vectors(x), -1), t)

    def of_logarithms(self, log_y: Tensor, t: Tensor) -> Tensor:
        t = class_targets(log_y, t, type(self).__name__)
        if t.ndim < log_y.ndim:
            values = sum_per_sample(-log_y.gather(-1, t.unsqueeze(-1)).squeeze(-1))
        else:
            values = sum_per_sample(-(t * log_y).sum(-1))
        return with_scaled_gradient(values / math.log(2) if self.usebits else values, self.scale)


@dataclass(frozen=True)
class CrossEntropyBinary(Cost):
    """−Σᵢ (tᵢ log yᵢ + (1−tᵢ) log(1−yᵢ)) over the features, for outputs of a Logistic.

    Targets lie in [0, 1] and are shaped like `y`; for one output, (N,) does for (N, 1). `scale` (any finite number,
    default 1) multiplies the gradient, and leaves the value as it is.

    >>> CrossEntropyBinary()(torch.tensor([[0.25], [0.5]]), torch.tensor([1, 0]))
    tensor([1.3863, 0.6931])
    """

    scale: float = 1

    fuses_with = Logistic()

    def __post_init__(self) -> None:
        keep_finite(self, "scale")

    def __call__(self, y: Tensor, t: Tensor) -> Tensor:
        return self.of_values(F.binary_cross_entropy, y, t)

    def from_logits(self, x: Tensor, t: Tensor) -> Tensor:
        return self.of_values(F.binary_cross_entropy_with_logits, x, t)

    def of_values(self, entropy: Callable[..., Tensor], x: Tensor, t: Tensor) -> Tensor:
        x, t = alike(x, t, type(self).__name__)
        return with_scaled_gradient(sum_per_sample(entropy(x, t, reduction="none")), self.scale)


@dataclass(frozen=True)
class SumSquared(Cost):
    """½ Σᵢ (yᵢ − tᵢ)² over the features.

    >>> SumSquared()(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]]))
    tensor([2.5000])
    """

    def __call__(self, y: Tensor, t: Tensor) -> Tensor:
        y, t = alike(y, t, type(self).__name__)
        return sum_per_sample((y - t).square().sum(-1) / 2)


@dataclass(frozen=True)
class MeanSquared(Cost):
    """½ meanᵢ (yᵢ − tᵢ)² over the features.

    >>> MeanSquared()(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]]))
    tensor([1.2500])
    """

    def __call__(self, y: Tensor, t: Tensor) -> Tensor:
        y, t = alike(y, t, type(self).__name__)
        return sum_per_sample((y - t).square().mean(-1) / 2)


class Metric:
    """What is reported of a network. `y`: outputs, `t`: targets; returns one value per sample, or their mean."""

    be = NervanaObject.be

    def __call__(self, y: Tensor, t: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define __call__(self, y, t)")


@dataclass(frozen=True)
class Misclassification(Metric):
    """1 where the most probable class is not the target's, else 0; averaged over a sequence.

    Targets as for CrossEntropyMulti. A single output is a probability: class 1 above ½. `steps` is taken and means
    nothing: the outputs show how many steps a sequence has.

    >>> Misclassification()(torch.tensor([[0.3, 0.7], [0.6, 0.4]]), torch.tensor([1, 1]))
    tensor([0., 1.])
    """

    steps: int = field(default=1, compare=False, repr=False)

    def __post_init__(self) -> None:
        positive_integer(f"{type(self).__name__}'s steps", self.steps)

    def __call__(self, y: Tensor, t: Tensor) -> Tensor:
        y = vectors(y)
        if y.shape[-1] == 1:
            y, t = alike(y, t, type(self).__name__)
            wrong = (y > 0.5) != (t > 0.5)
        else:
            t = class_targets(y, t, type(self).__name__)
            wrong = y.argmax(-1) != (t if t.ndim < y.ndim else t.argmax(-1))
        return wrong.float().flatten(1).mean(1) if wrong.ndim > 1 else wrong.float()


@dataclass(frozen=True)
class Accuracy(Misclassification):
    """1 where the most probable class is the target's, else 0; averaged over a sequence."""

    def __call__(self, y: Tensor, t: Tensor) -> Tensor:
        return 1 - super().__call__(y, t)


@dataclass(frozen=True)
class TopKMisclassification(Metric):
    """Three numbers a sample, (N, 3): −log y of the target's class, and 1 where it is not the most probable class, and
    where it is not among the `k` most probable; averaged over a sequence. `Model.eval` gives an array of three means.

    Targets as for CrossEntropyMulti; of probabilities, the most probable class. The logarithm is 50 at most. Of classes
    that are equally probable, the target's has an equal chance to be among the first.

    >>> TopKMisclassification(k=2)(torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([1]))
    tensor([[1.2040, 1.0000, 0.0000]])
    """

    k: int

    def __post_init__(self) -> None:
        positive_integer("TopKMisclassification's k", self.k)

    @property
    def metric_names(self) -> list[str]:
        """What the three numbers are."""
        return ["LogLoss", "Top1Misclass", f"Top{self.k}Misclass"]

    def __call__(self, y: Tensor, t: Tensor) -> Tensor:
        y = vectors(y)
        t = class_targets(y, t, type(self).__name__)
        found = y.gather(-1, (t if t.ndim < y.ndim else t.argmax(-1)).unsqueeze(-1))
        above, equal = (y > found).sum(-1), (y == found).sum(-1)
        places = torch.stack([1 - above, self.k - above], -1)  # for the classes that are as probable as the target's
        right = (places.to(y.dtype) / equal.unsqueeze(-1)).clamp(0, 1) * (equal > 0).unsqueeze(-1)  # NaN equals nothing
        values = torch.cat([-found.log().clamp_min(-50), 1 - right], -1)
        return values.flatten(1, -2).mean(1) if values.ndim > 2 else values


def with_scaled_gradient(values: Tensor, scale: float) -> Tensor:
    """The values, with `scale` times their gradient."""
    return values if scale == 1 else values + (scale - 1) * (values - values.detach())


def sum_per_sample(values: Tensor) -> Tensor:
    """Shape (N, ...) to (N,)."""
    return values.flatten(1).sum(1) if values.ndim > 1 else values


def vectors(x: Tensor) -> Tensor:
    """Images as vectors: (N, channels, height, width) to (N, channels · height · width)."""
    return x.flatten(1) if x.ndim == 4 else x


def alike(y: Tensor, t: Tensor, owner: str) -> tuple[Tensor, Tensor]:
    """Outputs and targets as vectors, the targets in the outputs' dtype. Never broadcast: (N, 1) against (N,) would
    quietly make (N, N).
    """
    y, t = vectors(y), vectors(t)
    if y.shape[-1:] == (1,) and t.shape == y.shape[:-1]:
        t = t.unsqueeze(-1)
    check_shaped_like(owner, "targets", t, y)
    return y, t.to(y.dtype)


def check_shaped_like(owner: str, what: str, given: Tensor, outputs: Tensor, instead: str = "") -> None:
    """Refuse what has another shape than the outputs."""
    if given.shape != outputs.shape:
        raise ValueError(
            f"{owner} takes {what} shaped like the outputs, {tuple(outputs.shape)}. "
            f"Received: {what} of shape {tuple(given.shape)}{instead}"
        )


def class_targets(y: Tensor, t: Tensor, owner: str) -> Tensor:
    """The targets, checked: class numbers for each sample (and step), or shaped like `y`."""
    t = vectors(t)
    if t.shape == y.shape:
        return t
    if t.shape == y.shape[:-1] and not (t.is_floating_point() or t.is_complex()):
        return t.long()
    raise ValueError(
        f"{owner} takes integer class numbers of shape {tuple(y.shape[:-1])}, or probabilities of "
        f"shape {tuple(y.shape)}. Received: {t.dtype} targets of shape {tuple(t.shape)}"
    )


__getattr__ = names_of("neon.transforms", __name__)
