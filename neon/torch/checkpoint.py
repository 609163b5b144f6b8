"""Checkpoints: what an optimizer takes up of a saved state, or how the two differ."""

from __future__ import annotations

import copy
from collections import ChainMap, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neon.engine.options import AVERAGE
from neon.engine.trace import signature
from neon.optimizers.optimizer import Optimizer
from neon.torch.overrides import KEY, NONE, as_text, overrides_of
from neon.torch.saved_states import wrong_beside, wrong_count, wrong_state

if TYPE_CHECKING:
    from neon.torch.optimizer import AttachedOptimizer

# Values of torch's rules that change their steps, each with what it is for a rule that knows nothing of it.
_NEUTRAL = {"amsgrad": False, "centered": False, "nesterov": False, "lr_decay": 0, "momentum": 0, "dampening": 0}
# What wrappers of torch's put into the names of parameters.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# States that torch keeps without a count of the steps (SGD): they have had one at least.
_UNCOUNTED = {"momentum_buffer"}
# What a state has beside the states of its rule.
_BESIDE = {"step", "scales", "low_bits", AVERAGE}
_SHOWN_LINES, _SHOWN_NAMES = 10, 3


def named_parameters(group: Mapping[str, Any]) -> list[tuple[str, Tensor]]:
    """The parameters of a group with their names, made up from their places where there are none."""
    if has_names(group):
        return list(zip(group["param_names"], group["params"], strict=True))
    if own := overrides_of(group):
        raise ValueError(
            f"The group of {group['optimizer']!r} has other parameters than those of its names, for some of which "
            f"values are set: {_some(own)}. Call unset or unfreeze before parameters are replaced."
        )
    return [(f"params[{i}] of {group['optimizer']!r}", param) for i, param in enumerate(group["params"])]


def has_names(group: Mapping[str, Any]) -> bool:
    """Whether the names are those of the parameters: wrappers put one flat tensor in the place of many."""
    return "param_names" in group and len(group["param_names"]) == len(group["params"])


def taken_up(optimizer: AttachedOptimizer, state_dict: Any) -> dict[str, Any]:
    """The groups and states that the optimizer has once it has taken up a checkpoint; it is not touched itself.

    Parameters are matched by name where both sides know names, else by place. Tensors are copies, on the
    parameter's device, in the precision and layout that they were saved in. Raises `ValueError` with every
    difference where the checkpoint does not fit.
    """
    saved_groups, saved_states = _parts(state_dict)
    _refuse(_other_groups(optimizer.param_groups, saved_groups))
    differences: list[str] = []
    groups: list[dict[str, Any]] = []
    states: defaultdict[Any, Any] = defaultdict(dict)
    for place, (group, saved) in enumerate(zip(optimizer.param_groups, saved_groups, strict=True)):
        taking = _Taking(optimizer, f"group {place} ({group['optimizer']!r})", group, saved)
        differences += taking.values()
        for number, (name, param) in zip(taking.numbers, named_parameters(group), strict=False):
            kept = {key: value for key, value in (saved_states.get(number) or {}).items() if value is not None}
            if kept and taking.fits:
                differences += taking.state(name, param, kept)
                states[param] = kept
        groups.append(taking.group)
    listed = {number for saved in saved_groups for number in saved["params"]}
    for key, state in saved_states.items():
        if key not in listed and isinstance(key, int):
            differences.append(f"parameter {key} of the checkpoint has a state, but is in none of its groups")
        elif key not in listed:  # not a parameter's: as torch does
            states[key] = copy.deepcopy(state)
    _refuse(differences)
    for param, state in states.items():
        if isinstance(param, Tensor):
            step = torch.tensor(float(state.get("step", 1)), dtype=torch.float32)
            own = {key: value for key, value in state.items() if key != "step"}
            states[param] = {"step": step, **mapped(lambda t, at=param.device: t.detach().to(at, copy=True), own)}
    return {"state": states, "param_groups": groups}


def mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """The value changed; of a dict, a new one of what is in it, changed."""
    if isinstance(value, Mapping):
        return {key: mapped(change, item) for key, item in value.items()}
    return change(value)


def _refuse(differences: Iterable[str]) -> None:
    lines = list(differences)
    if lines:
        more = [f"... and {len(lines) - _SHOWN_LINES} more"] if len(lines) > _SHOWN_LINES else []
        raise ValueError(
            "The checkpoint does not fit this optimizer. Nothing of it was loaded.\n"
            + "".join(f"  {line}\n" for line in [*lines[:_SHOWN_LINES], *more])
            + "Load it into an optimizer made as the one that saved it, over the same model; what has been renamed or "
            "left out since can be put right by optimizer.register_load_state_dict_pre_hook(hook)."
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
            f"{_some(state_dict)}." + (f" Load its part {inside[0]!r}." if inside else "")
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
            yield f"group {place} belongs to {key!r} in the checkpoint, to {group['optimizer']!r} here"
        elif ours and ours != theirs[place] and ours in theirs:
            yield f"group {place} here ({group['optimizer']!r}) is group {theirs.index(ours)} in the checkpoint"


class _Taking:
    """One group that is to take up a saved one: `group` as it will be, `numbers` the checkpoint's of its parameters."""

    def __init__(self, optimizer: AttachedOptimizer, label: str, group: dict[str, Any], saved: dict[str, Any]) -> None:
        self._optimizer, self._label, self._own, self._saved = optimizer, label, group, saved
        values = {key: copy.deepcopy(value) for key, value in saved.items() if key not in ("params", "param_names")}
        if isinstance(formats := values.get("state_dtype"), list):  # torch makes lists of tuples
            values["state_dtype"] = tuple(map(tuple, formats))
        self.group = {**group, **values}
        self.numbers: list[Any] = list(saved["params"])
        self.fits = False
        if "param_names" in saved:
            self.group.setdefault("param_names", _given_names(saved))

    def values(self) -> Iterator[str]:
        """What keeps the group from taking up the saved values and names."""
        yield from self._match()
        try:
            yield from self._rename_overrides()
            self._settings = self._optimizer.settings(self.group)
            for own in overrides_of(self.group).values():
                self._optimizer.settings(ChainMap(own, self.group))
            self._optimizer.apply_schedule(dict(self.group))
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
        overrides = overrides_of(self.group)
        self.group[KEY] = NONE
        ours = dict(zip(_names(self.group), self.group.get("param_names", ()), strict=False))
        lone = [name for name in overrides if _bare(name) not in ours and name not in ours]
        if lone:
            yield f"{self._label}: values are set for layers that are not here: {_some(lone, ours)}"
        elif overrides:
            self.group[KEY] = as_text({ours.get(_bare(n)) or ours[n]: own for n, own in overrides.items()})

    def _foreign(self) -> Iterator[str]:
        """Values of torch's rules with which this rule's steps would be others."""
        own, saved = (group.get("state_dtype") for group in (self._own, self.group))
        if isinstance(self.numbers[0], str) and own != saved and self._has_other_formats():
            yield (
                f"{self._label}: saved with state_dtype={saved!r}, this optimizer has {own!r}: "
                "torch.distributed.checkpoint loads into the states that there are. Make the optimizer with the same"
            )
        for flag, neutral in _NEUTRAL.items():
            if flag not in self._own and self._saved.get(flag, neutral) != neutral:
                yield f"{self._label}: saved with {flag}={self._saved[flag]!r}, which {self._rule} does not have"
        apart = "weight_decay" in signature(self._settings.program.rule).keywords
        if (
            self.group["weight_decay"]
            and "decoupled_weight_decay" not in self._own
            and self._saved.get("decoupled_weight_decay", apart) != apart
        ):
            there, here = ("through", "apart from") if apart else ("apart from", "through")
            yield f"{self._label}: its weight decay went {there} the averages; that of {self._rule} goes {here} them"

    def _has_other_formats(self) -> bool:
        """Whether a state would be of another dtype by the group's own values than by those of the checkpoint."""
        program, theirs = self._settings.program, self._settings.storage
        ours = self._optimizer.settings(self._own).storage
        return any(
            ours.dtype_of(state, program, param, param.numel()) != theirs.dtype_of(state, program, param, param.numel())
            for param in self._own["params"]
            for state in program.states
        )

    def _match(self) -> Iterator[str]:
        """Put the numbers in the order of the group's own parameters, if the names allow."""
        ours, theirs = _names(self._own), _names(self._saved)
        if ours and theirs and set(ours) == set(theirs):
            numbers = dict(zip(theirs, self.numbers, strict=True))
            self.numbers = [numbers[name] for name in ours]
        elif ours and theirs and not isinstance(self.numbers[0], str):
            for here, there, where in ((theirs, ours, "only in the checkpoint"), (ours, theirs, "only here")):
                lone = [name for name in here if name not in set(there)]
                if lone:
                    yield f"{self._label}, {where}: {_some(lone, there)}"
        elif len(self.numbers) != len(self._own["params"]):
            here = len(self._own["params"])
            yield f"{self._label}, parameters: {len(self.numbers)} in the checkpoint, {here} here"

    @property
    def _rule(self) -> str:
        return self._settings.program.name

    def state(self, name: str, param: Tensor, state: dict[str, Any]) -> Iterator[str]:
        """What keeps a parameter from taking up a saved state."""
        own = overrides_of(self.group).get(name)
        settings = self._optimizer.settings(ChainMap(own, self.group)) if own else self._settings
        program = settings.program
        leaf = type(self._optimizer._leaves[self.group["optimizer"]][0])
        # What is kept may depend on values: a momentum that is switched off keeps its velocity.
        known = {*program.states, *(signature(leaf.rule).states if leaf.rule else ())}
        varies = leaf.select_rule is not Optimizer.select_rule
        found = {key for key in state if key not in _BESIDE}
        missing = [key for key, start in program.states.items() if start is not None and key not in state]
        if "step" not in state and not found <= _UNCOUNTED and "step" in signature(program.rule).keywords:
            missing.append("step")
        if not found <= known:
            kept = ", ".join(program.states) or "none"
            yield f"{name}: holds the states {', '.join(state)} in the checkpoint; {self._rule} keeps {kept}"
        elif missing and (found or not varies):
            yield f"{name}: has no {' and no '.join(missing)} in the checkpoint, only {', '.join(state)}"
        else:
            yield from (f"{name}: {wrong}" for wrong in wrong_beside(state, param, settings.storage))
            for key, value in state.items():
                if key in ("scales", "low_bits"):
                    continue
                if wrong := wrong_count(value) if key == "step" else wrong_state(key, value, param, settings):
                    yield f"{name}: {key} {wrong}"
                    return  # the other states will be alike


def _names(group: Mapping[str, Any]) -> list[str]:
    """The names of a group's parameters, without the wrappers around the model; none where they do not tell apart."""
    given = _given_names(group)
    bare = list(map(_bare, given))
    found = bare if len(set(bare)) == len(bare) else given
    return found if len(set(found)) == len(group["params"]) else []


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _given_names(group: Mapping[str, Any]) -> list[str]:
    """Names in the order of the parameters; torch.distributed.checkpoint has put them in the place of numbers."""
    params = group["params"]
    return list(params) if all(isinstance(p, str) for p in params) else list(group.get("param_names", ()))


def _sizes(groups: Iterable[Mapping[str, Any]]) -> str:
    return ", ".join(f"{group.get('optimizer', 'unnamed')!r} of {len(group['params'])}" for group in groups)


def _some(names: Iterable[Any], others: Iterable[str] = ()) -> str:
    """A few names and how many more; each with the nearest of the others."""
    names, others = list(names), list(others)
    shown = []
    for name in names[:_SHOWN_NAMES]:
        near = get_close_matches(name, others, 1) if isinstance(name, str) else []
        shown.append(f"{name!r} (near {near[0]!r})" if near else repr(name))
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
