"""What an attached optimizer shows at evaluation: the views of its weights in the place of these."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from neon.attached.observed import on_itself
from neon.attached.saved_states import TRAINED
from neon.engine.interrupts import Uninterrupted
from neon.engine.settings import Settings
from neon.stepping.aside import Aside, Views
from neon.stepping.exact_steps import exact_steps
from neon.stepping.group_names import keys_of, named_parameters
from neon.stepping.group_rules import GroupRules
from neon.stepping.group_states import Items
from neon.stepping.groups import GroupStepper
from neon.stepping.in_place import InPlace, Viewed, back_at_the_end, refuse_in_place, refuse_without_views
from neon.stepping.overrides import AVERAGED, KEY, as_text, of_group, overrides_of, values_over
from neon.stepping.sharding import Reaches, is_sharded, sharded_like

_EVAL = "eval()"


class Evaluated(Optimizer):
    """The part of an attached optimizer that shows what weights are at evaluation."""

    _rules: GroupRules
    _aside: Aside
    _stepper: GroupStepper
    _module: weakref.ref[nn.Module] | None = None  # what it is attached to, where that is a module

    @on_itself
    def eval(self) -> None:
        """Let the model compute with what its weights are at evaluation, until `train`.

        That is the average of the weights, with `weight_average`, or what a rule says itself, as Schedule-Free does.
        The weights are kept aside. Without such a view, before the first step, and where views are in place already,
        nothing happens. A model that is saved here has the views; a checkpoint of the optimizer has the weights too,
        and gives them back when it is loaded, after the model. Raises `RuntimeError` for a step or a load of the
        optimizer's before `train`.
        """
        if self._aside.in_place is None:
            self._show(None, _EVAL)

    @on_itself
    def train(self) -> None:
        """Put the weights back in their place, to the bit, after `eval`; nothing happens where they are.

        Raises `RuntimeError` where parameters were written to meanwhile, as by loading the model: the weights of
        before are back then.
        """
        shown = self._aside.in_place
        if shown is None:
            return
        if shown.way != _EVAL:
            refuse_in_place(shown.way)
        message = self._hide(None)
        if message:
            raise RuntimeError(message)

    @on_itself
    def evaluating(self, module: nn.Module | None = None) -> AbstractContextManager[None]:
        """A context in which the model computes with what its weights are at evaluation, as between `eval` and `train`.

            with optimizer.evaluating():
                accuracy = evaluate(model)

        Where views are in place already, it leaves them there. `module` is the model: needed under `fully_shard`
        alone, where it may hold whole weights of before, and only if the optimizer was not attached to it.
        """
        return self._shown(module, "evaluating()")

    @on_itself
    def averaged(self, module: nn.Module | None = None) -> AbstractContextManager[None]:
        """The same, for those who rely on it: raises `RuntimeError` where no weight has an average or another view.

        The averages are rounded to nearest where they are wider. Parameters without one (not updated yet) stay.
        """
        return self._shown(module, "averaged()")

    @contextmanager
    def _shown(self, module: nn.Module | None, way: str) -> Iterator[None]:
        within = self._aside.in_place
        if within is not None and (way == "evaluating()" or within.way == _EVAL):
            yield
            return
        self._show(module, way)
        if way == "averaged()" and self._aside.in_place is None:
            refuse_without_views()
        with back_at_the_end(lambda: self._hide(module)):
            yield

    def _show(self, module: nn.Module | None, way: str) -> None:
        self._stepper.close(self)
        self._aside.check()
        viewed = dict(views(self, self._rules))
        if not viewed:
            return
        if self._gathered(module) is None and any(map(is_sharded, viewed)):
            raise ValueError(
                "Of distributed parameters the model may hold copies: give it, as in averaged(model) or "
                "evaluating(model), or attach the optimizer to the model itself."
            )
        with Uninterrupted():  # no weight is lost between the two
            shown = InPlace([*viewed.values()], way)
            self._aside.put(dict(zip(viewed, map(sharded_like, viewed, shown.weights), strict=True)), shown)
        _regather(self._gathered(module))

    def _hide(self, module: nn.Module | None) -> str:
        """Puts the weights back; says whether something else than views was there."""
        try:
            with Uninterrupted():
                return self._aside.put_back()
        finally:
            _regather(self._gathered(module))

    def _gathered(self, module: nn.Module | None) -> nn.Module | None:
        return module if module is not None or self._module is None else self._module()


def views(optimizer: Optimizer, rules: GroupRules) -> Views:
    """The parameters that are something else at evaluation, with what that is computed from.

    A state of before an option was switched off is stale: it counts for nothing.
    """
    reaches, items = Reaches(rules.partition), Items(optimizer.state)
    for group in optimizer.param_groups:
        overrides, counts, known = overrides_of(group), exact_steps(group), dict[str, Settings]()
        for (name, param), key in zip(named_parameters(group), keys_of(group), strict=True):
            state, own = optimizer.state.get(param, {}), overrides.get(name)
            if not state:
                continue
            if repr(own) not in known:
                known[repr(own)] = rules.settings(values_over(own, group))
            settings = known[repr(own)]
            if settings.view is not None and settings.view.states.keys() <= state.keys():
                of_view = Settings(settings.view, settings.values, storage=settings.storage)
                reach, matrices = reaches.of(name, param), rules.matrices(group, name, param)
                item = items.make(name, param, 0, 0, of_view, reach, matrices=matrices)
                item.count = counts.get(key, float(item.step)) - 1  # an update later it is what it is now
                item.step = torch.tensor(item.count, dtype=torch.float32, device="cpu")
                yield param, Viewed(item, settings)


def loaded_aside(states: Mapping[Any, Any]) -> Aside:
    """The trained weights of a checkpoint, which its states are relieved of: none where weights were in their place."""
    found = {
        param: state.pop(TRAINED) for param, state in states.items() if isinstance(param, Tensor) and TRAINED in state
    }
    return Aside(found)


def with_trained_weights(
    param_groups: list[dict[str, Any]], weights: Mapping[Tensor, Tensor], packed: dict[str, Any]
) -> dict[str, Any]:
    """A checkpoint that is made while views stand in the place of weights, with these."""
    states, groups = dict(packed["state"]), []
    for group, saved in zip(param_groups, packed["param_groups"], strict=False):
        own = {n: weights[p] for p, n in zip(group["params"], saved["params"], strict=True) if p in weights}
        states |= {number: {**states[number], TRAINED: weight} for number, weight in own.items()}
        mark = {KEY: as_text(overrides_of(saved), {**of_group(saved), AVERAGED: True})} if own else {}
        groups.append(saved | mark)
    return packed | {"state": states, "param_groups": groups}


def _regather(module: nn.Module | None) -> None:
    """Have what `fully_shard` has made of a module gather its parameters again before they are used."""
    sharding = sys.modules.get("torch.distributed.fsdp")
    if module is not None and sharding is not None:
        for part in module.modules():
            if isinstance(part, sharding.FSDPModule):
                sharding.FSDPModule.reshard(part)
