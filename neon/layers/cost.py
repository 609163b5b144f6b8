"""GeneralizedCost: a cost function as a layer at the end of a network."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from neon.messages import shown

__all__ = ["GeneralizedCost"]


class GeneralizedCost:
    """The mean over the minibatch of a cost of `neon.transforms`, such as CrossEntropyMulti()."""

    def __init__(self, costfunc: Callable[[Tensor, Tensor], Tensor], name: str | None = None) -> None:
        if isinstance(costfunc, type) or not callable(costfunc):
            raise TypeError(
                "GeneralizedCost's costfunc must be a cost to call, such as CrossEntropyMulti(). "
                f"Received: {shown(costfunc)}"
            )
        self.costfunc = costfunc
        self.name = name

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.costfunc(outputs, targets).mean()

    def __repr__(self) -> str:
        return f"GeneralizedCost({self.costfunc!r})"
