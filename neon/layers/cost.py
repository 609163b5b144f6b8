"""GeneralizedCost, GeneralizedGANCost: a cost function as a layer at the end of a network."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from neon.messages import shown
from neon.transforms import GANCost

__all__ = ["GeneralizedCost", "GeneralizedGANCost"]


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
        return f"{type(self).__name__}({self.costfunc!r})"


class GeneralizedGANCost(GeneralizedCost):
    """The mean over the minibatch of a GANCost, which trains a `neon.models.GAN`."""

    def __init__(self, costfunc: GANCost, name: str | None = None) -> None:
        if not isinstance(costfunc, GANCost):
            raise TypeError(
                "GeneralizedGANCost's costfunc must be a GANCost, such as GANCost(func='modified'). "
                f"Received: {shown(costfunc)}"
            )
        super().__init__(costfunc, name)

    def __call__(self, outputs: Tensor, targets: Tensor, cost_type: str | None = None) -> Tensor:
        """The mean cost, from the discriminator's outputs for data and for noise."""
        return self.costfunc(outputs, targets, cost_type).mean()  # type: ignore[call-arg]
