"""What an optimizer is to those who assign and step parameters: a rule with its numbers, or a mapping of such."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from neon.engine.settings import Settings

if TYPE_CHECKING:
    from neon.assignment.sites import Site


class Description(Protocol):
    """What `neon.optimizers.Optimizer`, which says what each of these is, is to the rooms below it; it has no tensors.

    Only a MultiOptimizer has `_optimizers_by_key`; `gradient_clip_norm` bounds the norm over all that it holds.
    """

    name: str | None
    schedule: Any
    gradient_clip_norm: float | None
    scratch: int
    _mapped: Any  # the layers of the last step, of a mapping

    @property
    def _optimizers_by_key(self) -> Mapping[str, Any] | None: ...
    @property
    def _by_hand(self) -> bool: ...
    @property
    def _pairs(self) -> list[tuple[str, str]]: ...
    @property
    def _widest_rule(self) -> Any: ...
    @property
    def _rule_varies(self) -> bool: ...
    @property
    def _has_schedule(self) -> bool: ...
    @property
    def _counts_steps(self) -> bool: ...
    @property
    def _backend_batch_size(self) -> int: ...
    @property
    def default_key(self) -> str: ...
    def _scheduled_rate(self, learning_rate: float, epoch: float, updates: int) -> float: ...
    def match(self, site: Site) -> Any: ...
    def leaves(self) -> dict[str, tuple[Any, tuple[Any, ...]]]: ...
    def hyperparameters(self) -> dict[str, Any]: ...
    def group(self) -> dict[str, Any]: ...
    def rule_of(self, values: Mapping[str, Any]) -> Any: ...
    def starts(self, values: Mapping[str, Any]) -> dict[str, float]: ...
    def settings(
        self,
        values: Mapping[str, Any],
        outer: tuple[Hashable, ...] = (),
        *,
        batch_mean: bool = False,
        unscale: bool = False,
        guard: bool = False,
    ) -> Settings: ...
    def optimize(self, layer_list: Any, epoch: int) -> None: ...
