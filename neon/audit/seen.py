"""What the checks of an audit look at: what an optimizer has, what a model has, what the first steps have shown."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.optim import Optimizer

from neon.assignment.keys import Match
from neon.assignment.sites import Site, site_name
from neon.assignment.wrappers import bare, unwrapped
from neon.engine.program.options import SCALE
from neon.stepping.group_names import has_names, named_parameters
from neon.stepping.group_rules import GroupRules
from neon.stepping.overrides import KEY, NONE, overrides_of, values_over

# How many steps are watched.
LAST = 100


class Member(NamedTuple):
    """A parameter that an optimizer has, under which name, in which group, and by what values it goes."""

    name: str
    param: Any
    place: int
    values: Mapping[str, Any]

    @property
    def bare_name(self) -> str:
        """The name without what wrappers put into it."""
        return bare(self.name)

    @property
    def is_frozen(self) -> bool:
        """Whether it is to stay as it is."""
        return bool(self.values.get("frozen")) or not self.param.requires_grad


@dataclass(eq=False)
class Record:
    """What the first steps of an optimizer have shown.

    `norms` are the least and the most that a norm was of its bound, by what is clipped by it; `clipped` the least share
    of elements that were cut, and `largest` the most that one was of its bound, by the places of groups; `lost` the
    share of updates that rounding lost, by the ids of parameters, and `silent` the parts whose output
    reached another one detached. `failure` is why there was no more to see.
    """

    steps: int = 0
    rates: Sequence[float | None] = ()  # of the first step
    late_rates: Sequence[float | None] = ()  # of the last but one
    norms: dict[str, tuple[float, float]] = field(default_factory=dict)
    clipped: dict[int, float] = field(default_factory=dict)
    largest: dict[int, float] = field(default_factory=dict)
    lost: dict[int, float] | None = None
    silent: dict[str, str] = field(default_factory=dict)
    failure: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether all of them have been made."""
        return self.steps >= LAST


class Seen:
    """An optimizer beside models; `asked` where somebody has asked for the audit.

    `attached` says whether the models are what the optimizer was attached to; `assigned` is how their parameters were
    assigned then.
    """

    def __init__(
        self,
        optimizer: Any,
        rules: GroupRules,
        assigned: Sequence[tuple[Site, Match]],
        models: Sequence[nn.Module],
        record: Record | None,
        *,
        asked: bool = False,
        attached: bool = True,
    ) -> None:
        self.optimizer, self.rules, self.models, self.record = optimizer, rules, models, record
        self.asked, self.attached, self.assigned = asked, attached, assigned
        self.groups: list[dict[str, Any]] = optimizer.param_groups

    # -- the optimizer's side ----------------------------------------------------------------------

    @cached_property
    def members(self) -> list[Member]:
        """Every parameter of the optimizer, by the model's name where it has none of its own."""
        found = []
        for place, group in enumerate(self.groups):
            named = has_names(group)
            own = overrides_of(group) if named else {}
            for name, param in named_parameters(group if named else {**group, KEY: NONE}):
                shown = name if named else self.name_of.get(id(param), name)
                found.append(Member(shown, param, place, values_over(own.get(name), group)))
        return found

    def members_of(self, place: int) -> list[Member]:
        """Those of a group."""
        return self._by_place.get(place, [])

    @cached_property
    def _by_place(self) -> dict[int, list[Member]]:
        found: dict[int, list[Member]] = {}
        for member in self.members:
            found.setdefault(member.place, []).append(member)
        return found

    @property
    def totals(self) -> Mapping[Any, float]:
        """The sums of the last step by the ids of those whose norms they are; where graphs are captured, none."""
        return {} if self.rules.capturable else self.optimizer._stepper.totals

    @cached_property
    def held(self) -> dict[int, Member]:
        """The same by the ids of parameters."""
        return {id(member.param): member for member in self.members}

    @cached_property
    def by_name(self) -> dict[str, Member]:
        """Those that have names of their own, without what wrappers put into these."""
        return {member.bare_name: member for member in self.members if has_names(self.groups[member.place])}

    @cached_property
    def at_first(self) -> dict[str, Any]:
        """The parameters that the optimizer was attached to, by bare name."""
        return {bare(site_name(site)): site.param for site, _ in self.assigned if site.param is not None}

    @cached_property
    def left_alone(self) -> set[Any]:
        """The names and ids of the parameters that a key None leaves as they are."""
        none = [site for site, match in self.assigned if site.param is not None and match.optimizer is None]
        return {name for site in none for name in (id(site.param), *map(bare, site.names[:1]))}

    def group_name(self, place: int) -> str:
        """What findings call a group."""
        return f"group {place} ({self.groups[place]['optimizer']!r})"

    def rate(self, place: int, values: Mapping[str, Any] | None = None) -> float | None:
        """The rate that a group, or a layer of it with values of its own, steps by.

        None where the rule has none, or nobody may wait for it.
        """
        values = self.groups[place] if values is None else values
        given = [values.get("lr"), values.get(SCALE, 1.0)]
        if "lr" not in self.rules.leaf_of(self.groups[place]).group() or not all(map(self.can_read, given)):
            return None
        return float(given[0]) * float(given[1])

    @property
    def rates(self) -> list[float | None]:
        """The rate of each group."""
        return [self.rate(place) for place in range(len(self.groups))]

    def can_read(self, value: Any) -> bool:
        """Whether a number is there without waiting for a device; who asks for an audit waits."""
        return value is not None and (self.asked or not isinstance(value, Tensor) or value.device.type == "cpu")

    def has_stepped(self, member: Member) -> bool:
        """Whether the optimizer has ever updated it."""
        return bool(self.optimizer.state.get(member.param))

    @property
    def steps(self) -> float:
        """How many updates the parameters have had at most."""
        states = (state for state in self.optimizer.state.values() if isinstance(state, dict))
        return max((float(state["step"]) for state in states if "step" in state), default=0.0)

    # -- the model's side --------------------------------------------------------------------------

    @cached_property
    def named(self) -> list[tuple[str, Any]]:
        """Every parameter of the models, under all of its names, without what wrappers put into these."""
        several = len(self.models) > 1
        return [
            (f"{place}.{bare(name)}" if several else bare(name), param)
            for place, model in enumerate(self.models)
            for name, param in unwrapped(model)[0].named_parameters(remove_duplicate=False)
            if param.is_leaf
        ]

    @cached_property
    def strangers(self) -> list[tuple[str, Any]]:
        """Those that are trainable and that the optimizer has not, by their first names."""
        found = [(name, param) for name, param in self.named if param.requires_grad and id(param) not in self.held]
        return [(name, param) for name, param in found if self.name_of[id(param)] == name]

    @cached_property
    def by_model_name(self) -> dict[str, Any]:
        """Every parameter of the models by each of its names."""
        return dict(self.named)

    @cached_property
    def name_of(self) -> dict[int, str]:
        """The first name of each by its id."""
        return {id(param): name for name, param in reversed(self.named)}

    @cached_property
    def is_gathered(self) -> bool:
        """Whether modules may hold whole parameters in the place of the shards that they have, as under FSDP."""
        sharding = sys.modules.get("torch.distributed.fsdp")
        kinds = () if sharding is None else (sharding.FSDPModule, sharding.FullyShardedDataParallel)
        return bool(kinds) and any(isinstance(part, kinds) for model in self.models for part in model.modules())

    @cached_property
    def others(self) -> list[Optimizer]:
        """All other optimizers that are alive: asked for where something is suspicious, for it takes 0.05 s."""
        return [other for other in alive(Optimizer) if hasattr(other, "param_groups") and not self.is_it(other)]

    @cached_property
    def is_hidden(self) -> bool:
        """Whether a `gc.freeze()` hides the optimizer, and so others of that time, and schedulers."""
        return bool(gc.get_freeze_count()) and not any(each is self.optimizer for each in alive(Optimizer))

    def is_it(self, optimizer: Any) -> bool:
        """Whether this is the optimizer, or what a trainer has put around it."""
        return getattr(optimizer, "param_groups", None) is self.groups


def alive(kind: type) -> Iterator[Any]:
    """The objects of a class that are alive. Proxies, whose class is something else than their type, are left alone."""
    return (each for each in gc.get_objects() if issubclass(type(each), kind))
