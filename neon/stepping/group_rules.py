"""What parameter groups go by: the description of each key, and what the optimizer as a whole was asked for."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from neon.assignment.declared_parts import check_known, matrices_of
from neon.assignment.description import Description
from neon.assignment.matrix_checks import called
from neon.assignment.sites import Site, named_sites
from neon.engine.program.declared import OPTIMIZER, State
from neon.engine.program.lowering import wide_levels
from neon.engine.program.numbers import check_names, check_values
from neon.engine.program.options import DECAY, GUARD, SCALE
from neon.engine.program.trace import signature
from neon.engine.refusals.combinations import (
    check_calls,
    check_flat,
    check_group,
    check_leaf,
    check_scale,
    check_sums,
    check_together,
    check_zero,
)
from neon.engine.settings import Reach, Settings
from neon.engine.tensors.weight_matrices import ONE_MATRIX, Matrices
from neon.messages import listed, shortened
from neon.stepping.group_names import has_names
from neon.stepping.sharding import Partition, Replicas, is_shared

Group = Mapping[str, Any]
# Values that a group has where they are others than these: checkpoints of earlier versions do not have them.
_OF_LATE = {SCALE: 1, DECAY: None}


@dataclass(eq=False)
class GroupRules:
    """Read by steppers, checkpoints and tables. It knows no parameter and no optimizer, so nothing is held by it.

    `partition` is the process group over which parameters are divided, `sharers` the one over which matrices are
    shared out; the others are `AttachedOptimizer`'s.
    """

    description: Description
    skip_nonfinite: bool = False
    partition: Partition | None = None
    in_backward: bool = False
    capturable: bool = False
    gradient_clip_previous_norm: float | None = None
    sharers: Replicas | None = None
    norms_in_backward: bool = False
    statistics: bool = False

    def __post_init__(self) -> None:
        self._leaves = self.description.leaves()
        for key, (leaf, _) in self._leaves.items():
            check_leaf(key, leaf)
        check_together(
            {"partitioned": self.partition is not None, "share_matrices": self.sharers is not None, **vars(self)}
        )
        self.sites: Mapping[str, Site] = {}  # by the names of parameters, which they do not hold

    @property
    def leaves(self) -> Sequence[Description]:
        """The description of each key, in their order."""
        return [leaf for leaf, _ in self._leaves.values()]

    def leaf_of(self, group: Group) -> Description:
        """The description of a group."""
        return self._leaves[group["optimizer"]][0]

    def norms_of(self, group: Group) -> Sequence[Description]:
        """Those that clip by a norm over more than the group, from the outermost in."""
        return self._leaves[group["optimizer"]][1]

    def know(self, sites: Mapping[str, Site]) -> None:
        """Keep what is known of parameters by their names, where a rule of matrices asks for it."""
        asks = any(leaf.of_matrices for leaf in self.leaves)
        self.sites = {name: replace(s, param=None, entry=None) for name, s in sites.items()} if asks else {}

    def matrices(self, group: Group, name: str, param: Tensor) -> Matrices:
        """Of which matrices a parameter is made, as it matters to a rule of matrices."""
        leaf = self.leaf_of(group)
        if not leaf.of_matrices:
            return ONE_MATRIX
        if not has_names(group):
            check_known(called(leaf), leaf.parts, f"the group {shortened(repr(group['optimizer']))}")
        return matrices_of(leaf, self.sites.get(name) or named_sites([(name, param)])[0], param)

    def check_new(self, group: Group) -> None:
        """Refuse a key that the description does not have, and a multiplier of a rate that there is not."""
        if (key := group["optimizer"]) not in self._leaves:
            raise ValueError(
                f"param_group['optimizer'] must be one of {listed(map(repr, self._leaves))}. Received: "
                f"{shortened(repr(key))}."
            )
        leaf = self.leaf_of(group)
        check_names(group, leaf.group(), leaf._pairs)
        check_scale(key, leaf, group)

    def settings(self, group: Group, *, unscale: bool = False) -> Settings:
        """What the engine needs for the tensors of a group; values that no rule can run with are refused by name."""
        leaf, norms = self._leaves[group["optimizer"]]
        params = group["params"]
        shared = self.capturable and isinstance(params, list) and any(map(is_shared, params))
        check_group(self, group, norms, shared=shared)
        settings = leaf.settings(group, norms, unscale=unscale, guard=self.skip_nonfinite)
        check_sums(self, leaf, settings.program)
        check_calls(self, leaf, settings, shared=shared)
        if isinstance(params, list):
            check_flat(leaf, settings.program, params, partitioned=self.partition is not None)
        if self.partition is None:
            clips = bool(norms) or group["gradient_clip_norm"] is not None
            check_zero(leaf, ["gradient_clip_norm"] if clips else settings.program.wide)
        return settings

    def fill(self, group: dict[str, Any], others: Sequence[Group]) -> None:
        """Give a new group the values that it lacks; a number of all groups of an optimizer is that of the others."""
        leaf, norms = self._leaves[group["optimizer"]]
        for name, value in leaf.group().items():
            if name not in _OF_LATE or value != _OF_LATE[name]:
                group.setdefault(name, value)
        if self.gradient_clip_previous_norm is not None:
            group.setdefault("gradient_clip_previous_norm", self.gradient_clip_previous_norm)
            group.setdefault("previous_norm", 0.0)  # from the start: distributed checkpoints load what is there
        if norms:
            group.setdefault("outer_clip_norms", tuple(norm.gradient_clip_norm for norm in norms))
        if leaf._has_schedule:
            group.setdefault("scheduled_lr", float(group["lr"]))
            group.setdefault("updates", 0)
        beside = next((other for other in others if self.leaf_of(other) is leaf), {})
        for name, start in leaf.starts(group).items():
            of_all = self.numbers_kept(group)[name].of == OPTIMIZER
            group.setdefault(name, beside.get(name, start) if of_all else start)

    def numbers_kept(self, group: Group) -> Mapping[str, State]:
        """The numbers that persist of a group, as its rule declares them."""
        return signature(self.leaf_of(group).rule_of(group)).numbers_kept

    def has_value(self, group: Group, name: str) -> bool:
        """Whether a group has a value, a multiplier of its rate too, which it keeps where it is not 1 alone."""
        return name in group or (name == SCALE and SCALE in self.leaf_of(group).group())

    def apply_schedule(self, *groups: dict[str, Any], epoch: int | None = None) -> None:
        """Set the learning rates of groups to what their schedules, where they have any, say of now or of that epoch.

        Where one says what is no rate, all stay. A schedule starts from `scheduled_lr`; `initial_lr` belongs to
        torch's schedulers.
        """
        rates = []
        for group in groups:
            leaf, _ = self._leaves[group["optimizer"]]
            if leaf._has_schedule:
                now = group["epoch"] if epoch is None else epoch
                rate = leaf._scheduled_rate(group["scheduled_lr"], now, group["updates"])
                check_values({"lr": rate})
                rates.append((group, rate))
        for group, rate in rates:
            write_rate(group, rate)

    def shared_sums(self, groups: Sequence[Group]) -> dict[Reach, dict[int, Sequence[Hashable]]]:
        """The sums that all processes of a partition take part in by level, in one order for all of them."""
        if self.partition is None:
            return {}
        owners: dict[Any, None] = {}
        for key, (leaf, norms) in self._leaves.items():
            owners |= dict.fromkeys(norms)
            if any(g["optimizer"] == key and g["gradient_clip_norm"] is not None for g in groups):
                owners[leaf] = None
        shared: dict[int, dict[Hashable, None]] = {0: dict.fromkeys(map(id, owners))}
        if self.skip_nonfinite:
            shared[0][GUARD] = None
        for group in groups:
            leaf = self.leaf_of(group)
            for level, sums in wide_levels(self.settings(group).program).items():
                shared.setdefault(level, {}).update(dict.fromkeys((id(leaf), order) for order in sums))
        return {self.partition: {level: [*scopes] for level, scopes in shared.items()}}


def write_rate(group: dict[str, Any], lr: float) -> None:
    """Set the learning rate of a group, of a tensor the number in it."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(lr)
    elif lr != group["lr"]:
        group["lr"] = lr
