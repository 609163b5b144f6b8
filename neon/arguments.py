"""Checks of arguments: each names the argument, the value received and what is allowed."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

from neon.messages import received, shown

_PLAIN = (float, int, bool, str, type(None))
# Whole numbers are below this: as large as a seed may be, and any of them is a float too.
_MOST = 2**64


def plain(value: Any) -> Any:
    """numpy's numbers, and other kinds of real numbers, as Python's, in lists and tuples too; the rest as it is.

    An array of one number without dimensions is that number, one with a single dimension a list.
    """
    if type(value) in _PLAIN:  # nearly always
        return value
    if isinstance(value, (tuple, list)):
        items = [*map(plain, value)]
        return value if all(map(_same, items, value)) else items if isinstance(value, list) else tuple(items)
    if isinstance(value, np.ndarray):
        return plain(value[()] if value.ndim == 0 else [*value]) if value.ndim < 2 else value
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, np.timedelta64):  # a whole number to `numbers`, but one with a unit
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return _float(value)
    return str.__str__(value) if isinstance(value, str) else value  # an Enum's own str() has its name


def _float(value: Any) -> float:
    """The nearest float; an infinity where the number is too large for one."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _same(one: Any, other: Any) -> bool:
    return one is other


def number(name: str, value: Any) -> float:
    """A real number, as a float; booleans are not numbers here."""
    if type(value) is float:  # nearly always; asking for a kind of number takes longer
        return value
    found = plain(value)
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        raise TypeError(f"{name} must be a number. {received(name, value)}")
    return _float(found)


def within(name: str, value: Any, low: float, high: float, allowed: str) -> float:
    """A finite number in [low, high]."""
    result = number(name, value)
    if not (low <= result <= high and math.isfinite(result)):
        raise ValueError(f"{name} must be {allowed}. {received(name, value)}")
    return result


def non_negative(name: str, value: Any) -> float:
    """A finite number ≥ 0: a learning rate, a weight decay."""
    return within(name, value, 0, math.inf, "a finite number of at least 0")


def positive(name: str, value: Any) -> float:
    """A finite number > 0: an ε that divides."""
    return within(name, value, math.ulp(0.0), math.inf, "a finite number greater than 0")


def unit_interval(name: str, value: Any) -> float:
    """A number in [0, 1]: a decay, a momentum."""
    return within(name, value, 0, 1, "in the interval [0, 1]")


def beta(name: str, value: Any) -> float:
    """A number in [0, 1): the decay of an average."""
    return within(name, value, 0, math.nextafter(1, 0), "in the interval [0, 1)")


def between(name: str, value: Any) -> float:
    """A number in (0, 1): what it shares out to both sides."""
    return within(name, value, math.ulp(0.0), math.nextafter(1, 0), "in the interval (0, 1)")


def average_decay(name: str, value: Any) -> float | None:
    """None, or the decay of an average, in [0, 1)."""
    return None if value is None else beta(name, value)


def clip_bound(name: str, value: Any, *, norm: bool = False) -> float | None:
    """None, or a bound that is neither 0 nor NaN; a bound of a norm is also positive."""
    if value is None:
        return None
    result = number(name, value)
    if math.isnan(result) or result == 0 or (norm and result < 0):
        allowed = "a number greater than 0" if norm else "a number other than 0"
        raise ValueError(f"{name} must be None (no clipping) or {allowed}. {received(name, value)}")
    return result


def flag(name: str, value: Any) -> bool:
    """True or False."""
    found = plain(value)
    if not isinstance(found, bool):
        raise TypeError(f"{name} must be True or False. {received(name, value)}")
    return found


def whole_number(name: str, value: Any, least: int = 0) -> int:
    """A whole number ≥ least."""
    found = plain(value)
    if isinstance(found, bool) or not isinstance(found, int):
        raise TypeError(f"{name} must be a whole number. {received(name, value)}")
    if found < least:
        raise ValueError(f"{name} must be at least {least}. {received(name, value)}")
    if found >= _MOST:
        raise ValueError(f"{name} must be less than 2**64. {received(name, value)}")
    return found


def epoch_number(value: Any) -> Any:
    """An epoch: a finite number ≥ 0, whole as it is given."""
    non_negative("epoch", value)
    return plain(value)


def positive_integer(name: str, value: Any) -> int:
    """A whole number ≥ 1."""
    return whole_number(name, value, least=1)


def rounding(name: str, value: Any) -> bool | int:
    """True or False, or a width in mantissa bits from 1 to 23."""
    found = plain(value)
    if isinstance(found, bool):
        return found
    if not isinstance(found, int):
        meant = "a learning rate, name it: learning_rate=..."
        if not isinstance(found, float):
            meant = "parameters, give them to attach(parameters) or to a class of neon.torch."
        raise TypeError(
            f"{name} must be True, False or a width in mantissa bits. {received(name, value)} "
            f"If this was meant as {meant}"
        )
    if not 1 <= found <= 23:
        raise ValueError(f"{name} must be True, False or a width of 1 to 23 mantissa bits. {received(name, value)}")
    return found


def optional_name(name: str, value: Any) -> str | None:
    """A string, or None."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} must be a string or None. {received(name, value)}")
    return value


def giving_rates(name: str, value: Any) -> Any:
    """What gives learning rates, as a schedule does."""
    if isinstance(value, type) or not callable(getattr(value, "get_learning_rate", None)):
        raise TypeError(f"{name} must have get_learning_rate(learning_rate, epoch). {received(name, value)}")
    return value


def master_format(name: str, value: Any) -> str | None:
    """None, or "split"."""
    if value not in (None, "split"):
        raise ValueError(f'{name} must be None or "split". {received(name, value)}')
    return value


def keep_finite(owner: object, *arguments: str) -> None:
    """Check that the attributes of an immutable object are finite numbers, and keep them as Python's."""
    for argument in arguments:
        value = check_finite(type(owner).__name__, argument, getattr(owner, argument))
        object.__setattr__(owner, argument, value)


def check_finite(owner: str, argument: str, value: object) -> Any:
    """The value, a finite number, as Python's."""
    found = plain(value)
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        raise TypeError(f"{owner}'s {argument} must be a number. Received: {shown(value)}")
    if not math.isfinite(found):
        raise ValueError(f"{owner}'s {argument} must be finite. Received: {shown(value)}")
    return found
