"""Constructors as editors and programs see them: every option has its name, its type and its default."""

from __future__ import annotations

import inspect
from typing import Any, get_args

import pytest
from constructors import DROP_INS
from constructors import RULES as EXPORTED
from typing_extensions import get_type_hints

from neon.optimizers import Optimizer
from neon.torch import AttachedOptimizer
from neon.torch.described import RuleOptions

RULES = {"Optimizer": Optimizer, **EXPORTED}
OPTIONS = {
    name: parameter.default
    for name, parameter in inspect.signature(Optimizer.__init__).parameters.items()
    if name not in ("self", "name", "hyperparameters")
}
ATTACHED = {
    name: parameter.default
    for name, parameter in inspect.signature(AttachedOptimizer.__init__).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
}


def unpacked(cls: Any) -> set[str]:
    """What a type checker takes for the keyword arguments of `**options`."""
    hints = get_type_hints(cls.__init__)
    return {*get_type_hints(get_args(hints["options"])[0])} if "options" in hints else set()


OWN_DECAYS = {"AdamW": 0.01, "LAMB": 0.01, "Muon": 0.1, "SOAP": 0.01, "StableAdamW": 0.01}


@pytest.mark.parametrize("name", RULES)
def test_every_option_is_in_the_signature_of_a_rule(name: str) -> None:
    found = inspect.signature(RULES[name]).parameters
    assert {*OPTIONS} <= {*found}
    assert all(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in found.values())
    for option, default in OPTIONS.items():
        assert found[option].default == (OWN_DECAYS.get(name, default) if option == "wdecay" else default)
    if "__init__" in vars(RULES[name]) and name != "Optimizer":  # else the signature follows from the table
        written = {*inspect.signature(RULES[name].__init__).parameters} - {"self", "options"}
        assert {*found} == written | unpacked(RULES[name])
        assert not written & unpacked(RULES[name])


@pytest.mark.parametrize("name", DROP_INS)
def test_every_option_is_in_the_signature_of_a_drop_in(name: str) -> None:
    found = inspect.signature(DROP_INS[name]).parameters
    options = {option: OPTIONS[option] for option in RuleOptions.__annotations__} | ATTACHED
    for option, default in (options | {"state_dtype": "parameter"}).items():
        assert found[option].default == default, option
    written = {*inspect.signature(DROP_INS[name].__init__).parameters} - {"self", "options"}
    assert {*found} == written | unpacked(DROP_INS[name])


def test_what_every_option_is_for_is_written() -> None:
    assert all(f"`{option}" in (Optimizer.__doc__ or "") for option in OPTIONS if option != "seed")
