"""Checkpoints: whether a saved state belongs to the optimizer that is to take it up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

# Flags of torch's own rules that change their steps, and that the library's rules do not have.
_UNSERVED = ("amsgrad", "centered", "nesterov", "lr_decay")


def named_parameters(group: dict[str, Any]) -> list[tuple[str, Tensor]]:
    """The parameters of a group with their names, made up from their places where there are none."""
    names = group.get("param_names") or [f"params[{i}] of {group['optimizer']!r}" for i in range(len(group["params"]))]
    return list(zip(names, group["params"], strict=True))


def check_checkpoint(
    state_dict: dict[str, Any], groups: Sequence[dict[str, Any]], states: Sequence[tuple[str, ...]]
) -> None:
    """Refuse, before anything is taken up, states of another rule or of other parameters.

    `states` names the states that the rule of each group keeps. The number and the sizes of groups are
    torch's to check.
    """
    for group, saved, names in zip(groups, state_dict["param_groups"], states, strict=False):
        foreign = [flag for flag in _UNSERVED if saved.get(flag) and flag not in group]
        if foreign:
            raise ValueError(
                f"The checkpoint was saved with {', '.join(foreign)}, which the rule of group {group['optimizer']!r} "
                "does not have: its steps would not be the same. Load it into the optimizer that saved it."
            )
        for number, (name, param) in zip(saved["params"], named_parameters(group), strict=False):
            _check_state(state_dict["state"].get(number, {}), name, param, names)


def _check_state(state: dict[str, Any], name: str, param: Tensor, names: tuple[str, ...]) -> None:
    if not set(state) <= {"step", *names}:
        raise ValueError(
            f"The checkpoint holds the states {', '.join(state)} for {name!r}, whose rule keeps "
            f"{', '.join(names) or 'none'}. Load it into the optimizer that saved it."
        )
    for key, value in state.items():
        if isinstance(value, Tensor) and value.dim() and value.shape != param.shape:
            raise ValueError(
                f"The checkpoint's {key} for {name!r} has shape {tuple(value.shape)}; the parameter has shape "
                f"{tuple(param.shape)}. Load it for the model that it was saved with."
            )
