"""The option `parts` of rules of matrices: what of a parameter is a matrix, declared by key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from neon.assignment.description import Description
from neon.assignment.keys import check_key, strongest_key
from neon.assignment.sites import Site
from neon.engine.tensors.weight_matrices import ONE_MATRIX, Matrices, Parts
from neon.messages import received, shown


def checked_parts(name: str, value: Any) -> Parts:
    """The option as it is kept: `ValueError` or `TypeError` for what says nothing of matrices."""
    if not isinstance(value, Mapping):
        return _checked(name, value)
    for key in value:
        check_key(name, key)
    return {key: _checked(f"{name}[{key!r}]", declared) for key, declared in value.items()}


def _checked(name: str, value: Any) -> Any:
    if value is None or isinstance(value, Matrices):
        return value
    value = tuple(value) if isinstance(value, list) else value
    if not isinstance(value, (int, tuple)):
        raise TypeError(
            f"{name} must be a number of equal parts, their lengths, a Matrices(...), or a dict of these by names of "
            f"layers, such as {{'attn.qkv': 3}}. {received(name, value)}"
        )
    try:
        Matrices(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return value


def matrices_of(optimizer: Description, site: Site, param: Tensor) -> Matrices:
    """Of which matrices a parameter is made: as declared, else as its layer has them, else it is one.

    Numbers and lengths cut along the outputs, wherever the layer has these. It does not matter to rules that work on
    elements, of vectors alone too. Raises `ValueError` where what is declared does not fit.
    """
    if not optimizer.of_matrices or (optimizer._serves_vectors and param.dim() < 2):
        return ONE_MATRIX
    found = _declared_of(optimizer, site)
    found.check(site.names[0] if site.names else site.label, param.shape)
    return found


def _declared_of(optimizer: Description, site: Site) -> Matrices:
    parts = optimizer.parts
    own = site.role.matrices or Matrices()
    key = strongest_key(parts, site) if isinstance(parts, Mapping) else None
    declared = parts if not isinstance(parts, Mapping) else None if key is None else parts[key[2]]
    if declared is None or isinstance(declared, Matrices):
        return own if declared is None else declared
    return replace(own, parts=declared, dim=int(own.inputs_first))


def check_known(kind: str, parts: Parts, label: str) -> None:
    """Refuse parts by name for parameters that have none."""
    if isinstance(parts, Mapping) and parts:
        one = next(iter(parts))
        raise ValueError(
            f"{kind} has parts by name, such as {shown(one, 60)}, and {label} has parameters without names. Attach a "
            "module or its named_parameters(), or give one value for all: parts=3."
        )
