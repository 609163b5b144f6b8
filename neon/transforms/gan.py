"""GANCost: what a generator and a discriminator that work against each other make small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from neon.arguments import keep_finite
from neon.messages import received
from neon.transforms.activation import Logistic
from neon.transforms.cost import Cost, with_scaled_gradient

# Each part of a cost: a sign, and what of the discriminator's output y: y itself, log y or log(1 − y).
_PARTS = {
    "original": {"dis_data": (-1, "log"), "dis_noise": (-1, "log of the rest"), "gen": (1, "log of the rest")},
    "modified": {"dis_data": (-1, "log"), "dis_noise": (-1, "log of the rest"), "gen": (-1, "log")},
    "wasserstein": {"dis_data": (1, "itself"), "dis_noise": (-1, "itself"), "gen": (1, "itself")},
}
_OF_LOGITS: dict[str, Callable[[Tensor], Tensor]] = {"log": F.logsigmoid, "log of the rest": lambda x: F.logsigmoid(-x)}
_OF_OUTPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "log": lambda y: y.clamp_min(torch.finfo(y.dtype).tiny).log(),
    "log of the rest": lambda y: (1 - y).clamp_min(torch.finfo(y.dtype).tiny).log(),
    "itself": lambda y: y,
}


@dataclass(frozen=True)
class GANCost(Cost):
    """The costs of a pair of networks, generator G and discriminator D, for one sample of data x and one of noise z.

        dis_data, dis_noise, gen
        original (Goodfellow et al. 2014):       −log D(x), −log(1 − D(G(z))),  log(1 − D(G(z)))
        modified (the same, with more gradient): −log D(x), −log(1 − D(G(z))), −log D(G(z))
        wasserstein (Arjovsky et al. 2017):       D(x),     −D(G(z)),           D(G(z))

    The discriminator makes `dis` = dis_data + dis_noise small, the generator `gen`. Original and modified are for
    discriminators that end in a Logistic; `from_logits` is the same of what goes into it, without its rounding.

    `cost_type` is what a call returns by default: "dis", "dis_data", "dis_noise" or "gen". `scale` (default 1)
    multiplies gradients and leaves values. Raises `ValueError` for other words.

    >>> GANCost()(torch.tensor([[0.5], [0.8]]), torch.tensor([[0.5], [0.1]]))
    tensor([1.3863, 0.3285])
    >>> GANCost(func="wasserstein")(None, torch.tensor([[2.0]]), "gen")
    tensor([2.])
    """

    scale: float = 1.0
    cost_type: str = "dis"
    func: str = "modified"

    def __post_init__(self) -> None:
        keep_finite(self, "scale")
        _parts(self.cost_type)
        if self.func not in _PARTS:
            raise ValueError(f"func must be one of {', '.join(map(repr, _PARTS))}. {received('func', self.func)}")
        object.__setattr__(self, "fuses_with", None if self.func == "wasserstein" else Logistic())

    def __call__(self, y_data: Any, y_noise: Any, cost_type: str | None = None) -> Tensor:
        """The cost of each sample, shape (N,), from outputs for data and for noise, one for each sample.

        What the part asked for does not need may be None.
        """
        return self._of(_OF_OUTPUTS, y_data, y_noise, cost_type)

    def from_logits(self, x: Any, t: Any, cost_type: str | None = None) -> Tensor:
        """The same, from what goes into the discriminator's Logistic for data and for noise."""
        return self._of(_OF_LOGITS, x, t, cost_type)

    def _of(self, functions: dict[str, Any], data: Any, noise: Any, cost_type: str | None) -> Tensor:
        terms = []
        for part in _parts(self.cost_type if cost_type is None else cost_type):
            sign, what = _PARTS[self.func][part]
            terms.append(sign * functions[what](_one_each(data if part == "dis_data" else noise)))
        return with_scaled_gradient(sum(terms[1:], terms[0]), self.scale)


def _parts(cost_type: Any) -> tuple[str, ...]:
    """The parts that a cost type adds up."""
    if cost_type == "dis":
        return ("dis_data", "dis_noise")
    if cost_type not in ("dis_data", "dis_noise", "gen"):
        raise ValueError(
            f"cost_type must be 'dis', 'dis_data', 'dis_noise' or 'gen'. {received('cost_type', cost_type)}"
        )
    return (cost_type,)


def _one_each(y: Any) -> Tensor:
    """The discriminator's output for each sample, shape (N,)."""
    if not isinstance(y, Tensor) or y.ndim == 0 or y.numel() != len(y):
        what = f"outputs of shape {tuple(y.shape)}" if isinstance(y, Tensor) else f"{y!r}"
        raise ValueError(f"A discriminator must give one output for each sample, (N, 1). Received: {what}")
    return y.flatten()
