"""What an attached optimizer holds: all its tensors, and which key of a mapping each parameter has."""

from __future__ import annotations

from typing import Any

import torch


def everything(optimizer: Any) -> list[torch.Tensor]:
    """Copies of parameters and states, in order."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    states = [value for p in params if p in optimizer.state for value in optimizer.state[p].values()]
    return [t.detach().clone() for t in (*params, *states)]


def assert_same(found: Any, expected: Any) -> None:
    torch.testing.assert_close(everything(found), everything(expected), rtol=0, atol=0)


def key_of(optimizer: Any) -> dict[str, str]:
    return {name: group["optimizer"] for group in optimizer.param_groups for name in group["param_names"]}
