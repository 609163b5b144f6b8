"""Optimizers that were pickled whole, by earlier versions too."""

from __future__ import annotations

from typing import Any

from neon.stepping.aside import Aside
from neon.stepping.group_rules import GroupRules


def of_this_version(state: dict[str, Any]) -> dict[str, Any]:
    """What was pickled whole, also by versions that kept their options as attributes of the optimizer."""
    state = {"_first_steps": None, "_record": None, **state}
    if "_rules" in state:
        return state
    old = {"skip_nonfinite": False, "partition": None, "in_backward": False, "capturable": False} | state
    rules = GroupRules(
        old["description"], old["skip_nonfinite"], old["partition"], old["in_backward"], old["capturable"],
        old.get("_previous_norm"),
    )  # fmt: skip
    gone = {"_leaves", "partition", "_previous_norm", "skip_nonfinite", "skipped_steps", "in_backward", "capturable",
            "aside", "assigned"}  # fmt: skip
    kept = {name: value for name, value in state.items() if name not in gone}
    skipped = state.get("_skipped", state.get("skipped_steps", 0))
    return {
        **kept,
        "_skipped": skipped,
        "_rules": rules,
        "_aside": state.get("aside") or Aside(),
        "_assigned": state["assigned"],
    }
