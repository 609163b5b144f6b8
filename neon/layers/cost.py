"""GeneralizedCost, GeneralizedCostMask, GeneralizedGANCost: a cost function as a layer at the end of a network."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from neon.arguments import check_finite
from neon.messages import kind_of, shown
from neon.transforms import GANCost
from neon.transforms.cost import check_shaped_like


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


class GeneralizedCostMask(GeneralizedCost):
    """The mean over the minibatch of a cost where a mask of ones and zeros has ones, times `weights` (default 1).

    Targets are (targets, mask), two tensors shaped like the outputs. Outputs and targets are multiplied by
    it, so that what has zeros gives neither cost nor gradient in any cost that is 0 where both are 0.
    """

    def __init__(
        self, costfunc: Callable[[Tensor, Tensor], Tensor], weights: float = 1.0, name: str | None = None
    ) -> None:
        super().__init__(costfunc, name)
        self.weights = check_finite("GeneralizedCostMask", "weights", weights)

    def __call__(self, outputs: Tensor, targets: tuple[Tensor, Tensor]) -> Tensor:  # type: ignore[override]
        return self.per_sample(outputs, targets).mean()

    def per_sample(self, outputs: Tensor, targets: tuple[Tensor, Tensor]) -> Tensor:
        """The cost of each sample, shape (N,)."""
        if not isinstance(targets, (tuple, list)) or len(targets) != 2:
            raise TypeError(f"GeneralizedCostMask takes (targets, mask) as targets. Received: {kind_of(targets)}")
        wanted, mask = targets
        check_shaped_like("GeneralizedCostMask", "a mask", mask, outputs)  # never broadcast
        instead = ". Write class numbers as torch.nn.functional.one_hot(targets, classes)."
        check_shaped_like("GeneralizedCostMask", "targets", wanted, outputs, instead)
        return self.costfunc(outputs * mask, wanted * mask) * self.weights


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
