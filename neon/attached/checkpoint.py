"""Checkpoints: what an optimizer loads of a saved state, or how the two differ."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from neon.assignment.wrappers import bare, bare_names
from neon.attached.differences import and_more, refuse, some
from neon.attached.saved_states import (
    NOT_OF_RULES,
    OF_TORCH,
    TRAINED,
    copied,
    wrong_auxiliary,
    wrong_count,
    wrong_state,
)
from neon.engine.program.formats.split import LOW_BITS
from neon.engine.program.options import AVERAGE, DECAY, SCALE
from neon.engine.program.spaces import OPTIMIZER
from neon.engine.program.trace import signature
from neon.messages import shortened, shown
from neon.stepping import exact_steps
from neon.stepping.group_names import named_parameters
from neon.stepping.group_rules import GroupRules
from neon.stepping.overrides import AVERAGED, KEY, NONE, as_text, of_group, overrides_of, values_over

# Values of rules that change their steps, each with what it is for a rule that knows nothing of it. Of others of neon's
# rules there is no such value.
_NEUTRAL = {
    "amsgrad": False, "centered": False, "nesterov": False, "lr_decay": 0, "momentum": 0, "dampening": 0,
    "initial_accumulator_value": 0, "weight_decay": 0,
}  # fmt: skip
# Values that torch's classes did not have from the start: their older checkpoints lack them.
_LATER = {"maximize", "foreach", "fused", "capturable", "differentiable", "decoupled_weight_decay", "units"}
# States that torch keeps without a count of the steps (SGD): they have had one at least.
_UNCOUNTED = {"momentum_buffer"}


def check_held(optimizer: Optimizer) -> None:
    """Refuse a state whose parameter is in no group: nothing would know whose it is."""
    held = {id(param) for group in optimizer.param_groups for param in group["params"]}
    for key in optimizer.state:
        if isinstance(key, Tensor) and id(key) not in held:
            raise ValueError(
                f"The optimizer has a state for a tensor of shape {tuple(key.shape)} that is in none of its groups. "
                "Was a parameter replaced? Take it away, optimizer.state.pop(tensor), or give it to the new parameter."
            ) from None


def loaded(optimizer: Optimizer, rules: GroupRules, state_dict: Any) -> dict[str, Any]:
    """The groups and states that the optimizer has once a checkpoint is loaded; it is not touched itself.

    Parameters are matched by name where both sides know names, else by place. Tensors are copies, on the
    parameter's device, in the precision and layout that they were saved in. Raises `ValueError` with
    differences where the checkpoint does not fit.
    """
    saved_groups, saved_states = _parts(state_dict)
    refuse(_other_groups(optimizer.param_groups, saved_groups))
    differences: list[str] = []
    loadings: list[_Loading] = []
    copies: dict[int, Any] = {}  # a tensor that is the rate of several groups is one again
    states: defaultdict[Any, Any] = defaultdict(dict)
    for place, (group, saved) in enumerate(zip(optimizer.param_groups, saved_groups, strict=True)):
        loading = _Loading(rules, f"group {place} ({shown(group['optimizer'], 40)})", group, saved, copies)
        differences += loading.values()
        for number, (name, param) in zip(loading.numbers, named_parameters(group), strict=False):
            kept = {key: value for key, value in (saved_states.get(number) or {}).items() if value is not None}
            if kept and loading.fits:
                differences += (f"{shortened(name, 60)}: {wrong}" for wrong in loading.state(name, param, kept))
                states[param] = kept
        differences += loading.averages(states)
        loadings.append(loading)
    listed = {number for saved in saved_groups for number in saved["params"]}
    for key, state in saved_states.items():
        if key not in listed and isinstance(key, int):
            differences.append(f"parameter {key} of the checkpoint has a state, but is in none of its groups")
        elif key not in listed:  # not a parameter's: as torch does
            states[key] = state
    differences += _several(rules, [loading.group for loading in loadings])
    differences += _none_made(optimizer, listed, saved_states)
    refuse(differences)
    for loading, saved in zip(loadings, saved_groups, strict=True):
        loading.group[KEY] = exact_steps.loaded_text(loading.group, saved, loading.numbers, saved_states)
    for param, state in states.items():
        if isinstance(param, Tensor):
            step = {
                key: torch.tensor(float(state[key]), device="cpu", dtype=torch.float32)
                for key in state.keys() & {"step"}
            }
            states[param] = {key: copied(value, param.device) for key, value in state.items()} | step
    return {"state": states, "param_groups": [loading.group for loading in loadings]}


def _several(rules: GroupRules, groups: list[dict[str, Any]]) -> Iterator[str]:
    """Numbers of an optimizer that its groups do not agree on."""
    found: dict[tuple[int, str], dict[float, int]] = defaultdict(dict)
    for place, group in enumerate(groups):
        for name, state in rules.numbers_kept(group).items():
            if state.of == OPTIMIZER and name in group:
                found[id(rules.leaf_of(group)), name].setdefault(float(group[name]), place)
    for (_, name), places in found.items():
        if len(places) > 1:
            each = ", ".join(f"{value!r} in group {place}" for value, place in places.items())
            yield f"{name} is one number of all groups of an optimizer; in the checkpoint it is {shortened(each, 120)}"


def _none_made(optimizer: Optimizer, listed: set[Any], states: Mapping[Any, Any]) -> Iterator[str]:
    """A checkpoint without states, where torch.distributed.checkpoint had none to load into: beside gradients."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    if (
        any(isinstance(key, str) for key in listed)
        and not any(states.values())
        and not any(optimizer.state.values())
        and any(param.grad is not None for param in params)
    ):
        for param in params:  # torch has left empty entries, beside which it would make no states the next time
            optimizer.state.pop(param, None)
        yield (
            "it has no states, and parameters here have gradients, beside which torch.distributed.checkpoint makes no "
            "states to load into. Call zero_grad() before get_optimizer_state_dict"
        )


def _parts(state_dict: Any) -> tuple[list[dict[str, Any]], dict[Any, Any]]:
    """The groups and the states of a checkpoint, if it is one."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"load_state_dict takes what state_dict() gave, a dict. Received: {type(state_dict).__name__}.")
    missing = [key for key in ("state", "param_groups") if key not in state_dict]
    if missing:
        inside = [k for k, v in state_dict.items() if isinstance(v, Mapping) and {"state", "param_groups"} <= {*v}]
        raise ValueError(
            f"The checkpoint has no {' and no '.join(map(repr, missing))}: it is not what state_dict() gave. Its keys: "
            f"{some(state_dict)}." + (f" Load its part {shown(inside[0])}." if inside else "")
        )
    return state_dict["param_groups"], state_dict["state"]


def _other_groups(groups: list[dict[str, Any]], saved: list[dict[str, Any]]) -> Iterator[str]:
    """Groups of another number, or in another order."""
    if len(groups) != len(saved):
        there, here = (f"({_sizes(found)})" for found in (saved, groups))
        yield f"parameter groups: {len(saved)} in the checkpoint {there}, {len(groups)} here {here}"
        return
    theirs = [set(_names(group)) for group in saved]
    for place, group in enumerate(groups):
        key, ours = saved[place].get("optimizer", group["optimizer"]), set(_names(group))
        if key != group["optimizer"]:
            there, here = (shown(name, 60) for name in (key, group["optimizer"]))
            yield f"group {place} belongs to {there} in the checkpoint, to {here} here"
        elif ours and ours != theirs[place] and ours in theirs:
            key = shown(group["optimizer"], 60)
            yield f"group {place} here ({key}) is group {theirs.index(ours)} in the checkpoint"


class _Loading:
    """One group and the saved one that it loads: `group` as it will be, `numbers` those of the parameters."""

    def __init__(
        self, rules: GroupRules, label: str, group: dict[str, Any], saved: dict[str, Any], copies: dict[int, Any]
    ) -> None:
        self._rules, self._label, self._own, self._saved = rules, label, group, saved
        values = {k: copy.deepcopy(value, copies) for k, value in saved.items() if k not in ("params", "param_names")}
        for key in {key for key, value in group.items() if isinstance(value, tuple)} | {"state_dtype"}:
            values |= {key: _tuples(values[key])} if key in values else {}  # torch makes lists of tuples
        self.group = {**group, **values}
        self.numbers: list[Any] = list(saved["params"])
        self._by_name = any(isinstance(number, str) for number in self.numbers)  # torch.distributed.checkpoint's
        self._averaged = False
        self.fits = False
        if "param_names" in saved:
            self.group.setdefault("param_names", _given_names(saved))

    def values(self) -> Iterator[str]:
        """What keeps the saved values and names."""
        yield from self._match()
        yield from self._missing()
        try:
            yield from self._rename_overrides()
            self._settings = self._rules.settings(self.group)
            for own in overrides_of(self.group).values():
                self._rules.settings(values_over(own, self.group))
            self._rules.apply_schedule(dict(self.group))
        except (TypeError, ValueError) as error:
            yield f"{self._label}: {error}"
            return
        self.fits = True
        yield from self._foreign()
        norms, bounds = (len(g.get("outer_clip_norms", ())) for g in (self._own, self.group))
        if norms != bounds:
            yield f"{self._label}, norms over several optimizers: {bounds} in the checkpoint, {norms} here"

    def _rename_overrides(self) -> Iterator[str]:
        """Values set for layers go by the names that their parameters have here."""
        overrides, itself = overrides_of(self.group), of_group(self.group)
        self._averaged = AVERAGED in itself
        scale = self._own.get(SCALE, 1.0)
        if SCALE not in self._saved and (saved := itself.get(SCALE, scale)) != scale:
            self.group[SCALE] = saved
        self.group[KEY] = NONE
        ours = dict(zip(_names(self.group), self.group.get("param_names", ()), strict=False))
        lone = [name for name in overrides if bare(name) not in ours and name not in ours]
        if lone:
            yield f"{self._label}: values are set for layers that are not here: {some(lone, ours)}"
        elif overrides:
            self.group[KEY] = as_text({ours.get(bare(n)) or ours[n]: own for n, own in overrides.items()})

    def _missing(self) -> Iterator[str]:
        """Values of the rule that the checkpoint lacks, or has of another group: they would stay as they were made."""
        leaf = self._rules.leaf_of(self._own)
        lone = [
            name
            for name in dict.fromkeys([*leaf.hyperparameters(), "weight_decay", *self._rules.numbers_kept(self._own)])
            if name not in self._saved and name not in _LATER
            and (_NEUTRAL.get(name) is None or self._own[name] != _NEUTRAL[name])
        ]  # fmt: skip
        if lone:
            yield f"{self._label}: has no {', '.join(lone)} in the checkpoint" + (
                ". Of other groups than those that were saved torch.distributed.checkpoint fills some: make the same"
                if self._by_name
                else ""
            )
        theirs = list(map(bare, self._saved.get("param_names", ())))
        strange = [name for name in self.numbers if bare(name) not in theirs] if self._by_name and theirs else []
        if strange and (len(strange) < len(self.numbers) or len(self.numbers) > len(theirs)):
            yield (
                f"{self._label}: its values are those of a group of the checkpoint without {some(strange)}: of several "
                "groups torch.distributed.checkpoint makes one. Make the optimizer with the groups that were saved"
            )

    def _foreign(self) -> Iterator[str]:
        """Values of torch's rules with which this rule's steps would be others."""
        own, saved = (group.get("state_dtype") for group in (self._own, self.group))
        if self._by_name and own != saved and self._has_other_formats():
            yield (
                f"{self._label}: saved with state_dtype={saved!r}, this optimizer has {own!r}: "
                "torch.distributed.checkpoint loads into the states that there are. Make the optimizer with the same"
            )
        there, here = (group.get(DECAY) for group in (self._saved, self._own))
        if there != here:
            yield f"{self._label}: saved with {DECAY}={there!r}, this optimizer has {here!r}. Make it with the same"
        leaf = self._rules.leaf_of(self._own)
        usual = signature(leaf.rule_of(self._own)).keywords  # what a number always is here that no group has
        words = [rule for rule in leaf._names_of_rules()[1] if rule <= self._saved.keys()]  # of rules that it may be of
        for flag in sorted({*_NEUTRAL, *(word for rule in words for word in rule)} - {*self._own}):
            neutral = _NEUTRAL.get(flag, usual.get(flag))
            if self._saved.get(flag, neutral) != neutral:
                yield f"{self._label}: saved with {flag}={self._saved[flag]!r}, which {self._rule} does not have"
        apart = "weight_decay" in self._settings.program.keywords and self.group.get(DECAY) != "coupled"
        if (
            self.group["weight_decay"]
            and "decoupled_weight_decay" not in self._own
            and self._saved.get("decoupled_weight_decay", apart) != apart
        ):
            there, here = ("through", "apart from") if apart else ("apart from", "through")
            yield f"{self._label}: its weight decay went {there} the averages; that of {self._rule} goes {here} them"

    def _has_other_formats(self) -> bool:
        """Whether a state would be of another dtype by the group's own values than by those of the checkpoint."""
        program_of, theirs = self._settings.program_of, self._settings.storage
        ours = self._rules.settings(self._own).storage
        return any(
            ours.dtype_of(state, program, param, param.numel()) != theirs.dtype_of(state, program, param, param.numel())
            for param in self._own["params"]
            for program in [program_of(param)]
            for state in program.states
        )

    def _match(self) -> Iterator[str]:
        """Put the numbers in the order of the group's own parameters, if the names allow."""
        ours, theirs = _names(self._own), _names(self._saved)
        if ours and theirs and set(ours) == set(theirs):
            numbers = dict(zip(theirs, self.numbers, strict=True))
            self.numbers = [numbers[name] for name in ours]
        elif ours and theirs and not self._by_name:
            for here, there, where in ((theirs, ours, "only in the checkpoint"), (ours, theirs, "only here")):
                lone = [name for name in here if name not in set(there)]
                if lone:
                    yield f"{self._label}, {where}: {some(lone, there)}"
        elif len(self.numbers) != len(self._own["params"]):
            here = len(self._own["params"])
            yield f"{self._label}, parameters: {len(self.numbers)} in the checkpoint, {here} here"

    @property
    def _rule(self) -> str:
        return self._settings.program.name

    def state(self, name: str, param: Tensor, state: dict[str, Any]) -> Iterator[str]:
        """What keeps a saved state from being loaded; what others keep there is theirs."""
        own = overrides_of(self.group).get(name)
        settings = self._rules.settings(values_over(own, self.group)) if own else self._settings
        matrices = self._rules.matrices(self._own, name, param)
        program = settings.program_of(param, matrices)
        leaf = self._rules.leaf_of(self.group)
        # What is kept may depend on values: a momentum that is switched off keeps its velocity.
        known = {*program.states, *(signature(rule).tensors if (rule := leaf._widest_rule) else ())}
        found = (known - {AVERAGE}) & state.keys()
        missing = [key for key in program.states if key != AVERAGE and key not in state]
        if "step" not in state and not found <= _UNCOUNTED and "step" in program.keywords:
            missing.append("step")
        others = ((OF_TORCH | leaf._names_of_rules()[0]) - known) & state.keys()  # another rule's
        if missing and (found or others or ("step" in state and not leaf._rule_varies)):
            yield f"has no {' and no '.join(missing)} in the checkpoint, only {', '.join(map(str, state))}"
            return
        if found:
            state.setdefault("step", 1)
        ours = {key: value for key, value in state.items() if key in known or key in NOT_OF_RULES}
        yield from wrong_auxiliary(ours, param, settings)
        for key, value in ours.items():
            if key in ("scales", LOW_BITS, TRAINED):
                continue
            if wrong := wrong_count(value) if key == "step" else wrong_state(key, value, param, settings, matrices):
                yield f"{key} {wrong}"
                return  # the other states will be alike
        for key in program.own_numbers:
            if key in state:
                state[key] = torch.tensor(float(state[key]), dtype=torch.float64, device="cpu")

    def averages(self, states: Mapping[Any, Mapping[str, Any]]) -> Iterator[str]:
        """What is missing of a group that was saved while averages stood in the weights' place."""
        if self._averaged and not any(TRAINED in states.get(param, ()) for param in self._own["params"]):
            yield (
                f"{self._label}: saved in evaluation (averaged(), evaluating() or eval()), and the trained weights are "
                "not here. For torch.distributed.checkpoint take the dict to load into in evaluation too, not flat"
            )


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value


def _names(group: Mapping[str, Any]) -> list[str]:
    """The names of a group's parameters, without the wrappers around the model; none where they do not tell apart."""
    given = _given_names(group)
    found = bare_names(given)
    return found if len(set(found)) == len(group["params"]) else []


def _given_names(group: Mapping[str, Any]) -> list[str]:
    """Names in the order of the parameters; torch.distributed.checkpoint has put them in the place of numbers."""
    params = group["params"]
    return list(params) if all(isinstance(p, str) for p in params) else list(group.get("param_names", ()))


def _sizes(groups: list[dict[str, Any]]) -> str:
    few = [f"{shown(group.get('optimizer', 'unnamed'), 20)} of {len(group['params'])}" for group in groups[:3]]
    return and_more(few, len(groups))
