"""What an optimizer is to those who assign and step parameters: a rule with its numbers, or a mapping of such."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from neon.engine.settings import Settings

if TYPE_CHECKING:
    from neon.assignment.sites import Site


class Description(Protocol):
    """What rooms above describe and rooms below step; it owns no tensors. `neon.optimizers.Optimizer` is one.

    `_optimizers_by_key` has the descriptions by key of one that gives layers different ones, None of one with a rule;
    `gradient_clip_norm` is the bound of the norm over all that it holds.
    """

    name: str | None
    schedule: Any
    gradient_clip_norm: float | None
    rule: Any
    scratch: int
    _mapped: Any  # the layers of the last step, of a mapping

    @property
    def _optimizers_by_key(self) -> Mapping[str, Any] | None: ...

    @property
    def _by_hand(self) -> bool:
        """Whether it has an `optimize` written by hand in the place of a rule."""
        ...

    @property
    def _rule_varies(self) -> bool:
        """Whether values of a group choose among several rules."""
        ...

    @property
    def _has_schedule(self) -> bool:
        """Whether its rate changes by a schedule; otherwise it is left to whoever else sets it."""
        ...

    @property
    def _counts_steps(self) -> bool:
        """Whether its schedule counts in steps, not in epochs."""
        ...

    @property
    def _backend_batch_size(self) -> int:
        """The number of samples over which the gradients of layer lists are summed."""
        ...

    @property
    def default_key(self) -> str:
        """The label, among `leaves`, of the description for parameters that nothing is known of."""
        ...

    def _scheduled_rate(self, learning_rate: float, epoch: float, updates: int) -> float:
        """The learning rate that the schedule makes of the initial one."""
        ...

    def match(self, site: Site) -> Any:
        """Which description a site gets, as a `Match`."""
        ...

    def leaves(self) -> dict[str, tuple[Any, tuple[Any, ...]]]:
        """Every description with a rule below this one, by label, with the owners of wider norms."""
        ...

    def hyperparameters(self) -> dict[str, Any]:
        """The rule's keyword arguments by torch's names."""
        ...

    def group(self) -> dict[str, Any]:
        """A parameter group's values under torch's names."""
        ...

    def settings(
        self,
        values: Mapping[str, Any],
        outer: tuple[Hashable, ...] = (),
        *,
        batch_mean: bool = False,
        unscale: bool = False,
        guard: bool = False,
    ) -> Settings:
        """What the engine needs for tensors with these values; `outer` are owners of wider norms."""
        ...

    def optimize(self, layer_list: Any, epoch: int) -> None:
        """Update every parameter of a list of layers once."""
        ...
