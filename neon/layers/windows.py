"""Windows, strides, padding and dilation in the forms that the documented framework takes: int, pair or dict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from neon.arguments import plain
from neon.layers.layer import check_count
from neon.messages import listed, shown

# For each argument the keys of height and width, what a missing one is, and the least that is allowed.
_KEYS = {
    "fshape": ("R", "S", None, 1),
    "strides": ("str_h", "str_w", 1, 1),
    "padding": ("pad_h", "pad_w", 0, 0),
    "dilation": ("dil_h", "dil_w", 1, 1),
}
# Depth and channels, with the value at which a window has none of them.
_OTHER_DIRECTIONS = {"T": 1, "J": 1, "str_d": 1, "str_c": 1, "pad_d": 0, "pad_c": 0, "dil_d": 1}


def check_pair(layer: nn.Module, argument: str, value: Any, missing: tuple[int, int] | None = None) -> tuple[int, int]:
    """An int for both directions, (height, width), or a dict such as {"str_h": 2, "str_w": 2}.

    What a dict lacks is `missing`, by default 1, 0 and 1 for strides, padding and dilation.
    """
    _, _, usual, least = _KEYS[argument]
    value = plain(value)
    if isinstance(value, Mapping):
        pair = _from_dict(layer, argument, value, missing or (usual, usual))
    else:
        pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2:
        raise ValueError(
            f"{type(layer).__name__}'s {argument} must be an int or (height, width). Received: {shown(value)}"
        )
    height, width = (check_count(layer, argument, size, least) for size in pair)
    return height, width


def _from_dict(layer: nn.Module, argument: str, given: Mapping[str, Any], missing: tuple[Any, ...]) -> tuple[Any, ...]:
    keys = _KEYS[argument][:2]
    for key, value in given.items():
        is_other = key in _OTHER_DIRECTIONS
        if key not in keys and not (is_other and value == _OTHER_DIRECTIONS[key]):
            depth = " Images have two dimensions here." * is_other
            raise ValueError(
                f"{type(layer).__name__}'s {argument} has the keys {listed(keys)}. Received: {shown(key)} in "
                f"{shown(given)}.{depth} Leave it out."
            )
    sizes = tuple(given.get(key, size) for key, size in zip(keys, missing, strict=True))
    if None in sizes:
        raise ValueError(f"{type(layer).__name__}'s {argument} needs {listed(keys)}. Received: {shown(given)}")
    return sizes


def check_filters(layer: nn.Module, fshape: Any, last: str) -> tuple[int, int, int]:
    """(height, width, number of filters), or a dict with the keys R, S and `last`."""
    sizes = fshape
    if isinstance(fshape, Mapping):
        number = {key: value for key, value in fshape.items() if key == last}
        window = {key: value for key, value in fshape.items() if key != last}
        sizes = (*_from_dict(layer, "fshape", window, (None, None)), *number.values())
    if not isinstance(sizes, (tuple, list)) or len(sizes) != 3:
        raise ValueError(
            f"{type(layer).__name__}'s fshape must be (height, width, number of filters), such as "
            f"(3, 3, 64). Received: {shown(fshape)}"
        )
    height, width, filters = (check_count(layer, "fshape", size) for size in sizes)
    return height, width, filters
