"""What a plan of parameter groups was made for, and whether groups and states are still the same."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate, chain
from typing import Any

from torch.optim import Optimizer

from neon.engine.plan import Plan
from neon.engine.refusals.tensors import check_once
from neon.engine.settings import Item, Settings
from neon.engine.tensors.watch import same_objects
from neon.stepping.exact_steps import exact_steps
from neon.stepping.group_names import keys_of, named_parameters
from neon.stepping.group_rules import GroupRules
from neon.stepping.group_states import Items, Placed, count_of, put_states, still_has
from neon.stepping.numbers_alone import NumbersAlone
from neon.stepping.overrides import KEY, Rows
from neon.stepping.sharding import Reaches, can_be_sharded, is_abstract, is_sharded, local, local_gradients


class Planned:
    """Groups, states and parameters as they were when a plan was made for what has a gradient or a state.

    States that were missing are made, and lie nowhere before `put_in_place`. `settings` has a row for each group, and
    for layers with values of their own.
    """

    def __init__(self, optimizer: Optimizer, rules: GroupRules, *, unscale: bool) -> None:
        groups, states = optimizer.param_groups, optimizer.state
        self._rules, self._unscale = rules, unscale
        members = [(place, *named) for place, group in enumerate(groups) for named in named_parameters(group)]
        check_once((name, param) for _, name, param in members)
        counts = [count for group in groups for count in map(exact_steps(group).get, keys_of(group))]
        rows, reaches, items = Rows(groups), Reaches(rules.partition), Items(states, rules.sharers)
        updated = [
            (order, row, name, param)
            for order, (place, name, param) in enumerate(members)
            if (row := rows.of(place, name)) is not None
        ]
        self._places = places = [place for place, _ in rows.listed]
        self.settings = settings = [rules.settings(values, unscale=unscale) for _, values in rows.listed]
        made: list[tuple[Item, Any]] = []
        for order, row, name, param in updated:
            if param.grad is not None or "step" in states.get(param, ()):
                reach, matrices = reaches.of(name, param), rules.matrices(groups[places[row]], name, param)
                item = items.make(name, param, row, order, settings[row], reach, counts[order], matrices)
                made.append((item, param))
        # With shapes alone, as memory is estimated by, states are made and that is all; beside others they are refused.
        whole, abstract = ([], made) if all(is_abstract(param) for _, param in made) else (made, [])
        self.items = [item for item, _ in whole]
        self.params: list[Any] = [param for _, param in whole]
        self.in_place = False  # whether all states lie where they belong
        self._made = whole, abstract
        self._every = [param for *_, param in members]
        self.sharded = can_be_sharded() and any(map(is_sharded, self._every))
        planned = {id(param) for _, param in made}
        self.without = [param for *_, param in updated if id(param) not in planned]
        self.states: Any = optimizer.state
        self._slots: list[tuple[Any, Placed]] = []
        self._known: dict[int, NumbersAlone] = {}  # of rows whose values have changed before
        self.groups = [*groups]
        self._lists = [group["params"] for group in groups]
        self._overrides = [group.get(KEY) for group in groups]

    def of_shapes_alone(self) -> list[tuple[Item, Any]]:
        """The parameters that have shapes alone, each behind its item; none once their states are put in place."""
        return [*self._made[1]]

    def gradients(self) -> list[Any]:
        """The gradients of the planned parameters, of the parts that are here."""
        grads = [param.grad for param in self.params]
        return local_gradients(self.params, grads) if self.sharded else grads

    def lists(self) -> list[tuple[list[Any], list[Any]]]:
        """The list of parameters that each group has, and what was in it."""
        ends = [*accumulate(map(len, self._lists))]
        return [(each, self._every[end - len(each) : end]) for each, end in zip(self._lists, ends, strict=True)]

    def by_group(self, numbers: Mapping[int, Mapping[str, float]]) -> dict[int, Mapping[str, float]]:
        """New numbers by the places of groups, not of rows."""
        found: dict[int, Mapping[str, float]] = {}
        for row, new in numbers.items():
            found.setdefault(self._places[row], new)
        return found

    # -- whether it is still so --------------------------------------------------------------------

    def has_states_in_place(self) -> bool:
        """Whether what was written to states leaves the tensors of the plan in their places."""
        return all(still_has(self.states.get(param), slots) for param, slots in self._slots)

    def has_groups(self, plan: Plan, changed: set[int]) -> bool:
        """Whether groups that were written to, by their ids, keep their parameters and what the values mean."""
        return all(
            group["params"] is params and group.get(KEY) == own
            for group, params, own in zip(self.groups, self._lists, self._overrides, strict=True)
            if id(group) in changed
        ) and all(
            self._means_the_same(row, settings)
            for row, (settings, place) in enumerate(zip(plan.settings, self._places, strict=True))
            if id(self.groups[place]) in changed
        )

    def has_new_numbers_alone(self, plan: Plan, changed: set[int]) -> bool:
        """Whether groups that were written to, by their ids, have changed before, and differ in plain numbers now."""
        with_rows = {id(self.groups[place]) for place in self._places}  # not those of frozen layers alone
        return changed <= with_rows and all(
            row in self._known and self._known[row].are_new(settings.values)
            for row, (settings, place) in enumerate(zip(plan.settings, self._places, strict=True))
            if id(self.groups[place]) in changed
        )

    def _means_the_same(self, row: int, settings: Settings) -> bool:
        """Whether the values of a row, some of which are new, mean what they did."""
        alike = settings.alike(self._rules.settings(settings.values, unscale=self._unscale))
        if alike:
            self._known[row] = NumbersAlone(self._rules.leaf_of(settings.values), settings)
        return alike

    def has_parameters(self, plan: Plan) -> bool:
        """Whether the groups list the same parameters, and none that had no gradient has one now."""
        listed = self._lists[0] if len(self._lists) == 1 else [*chain.from_iterable(self._lists)]
        same = same_objects(listed, self._every)
        if same and self.sharded:
            same = same_objects([*map(local, self.params)], plan.params)
        return same and not (self.without and any(param.grad is not None for param in self.without))

    # -- once a step is sure to be made ------------------------------------------------------------

    def put_in_place(self, optimizer: Optimizer, plan: Plan, changes: set[int]) -> None:
        """Put the states of a new plan in place: nothing was refused, and the step was not left out."""
        whole, abstract = self._made
        states, settings = optimizer.state, plan.settings
        self._slots = [
            (param, put_states(states, param, item, step, settings[item.group], changes))
            for (item, param), step in zip(whole, plan.steps, strict=True)
        ]
        for item, param in abstract:
            put_states(states, param, item, count_of(item), settings[item.group], changes)
        self.in_place, self._made = True, ((), ())
