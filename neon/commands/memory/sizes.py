"""Bytes as a person writes and reads them."""

from __future__ import annotations

import re

from neon.commands.errors import SettingsError

_UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_WRITTEN = {"MB": 10**6, "GB": 10**9, "TB": 10**12, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def unit_for(largest: int) -> str:
    """The unit in which a table of sizes is written: the largest one that leaves the largest size two digits.

    >>> [unit_for(size) for size in (0, 15 * 2**20, 9 * 2**30, 10 * 2**30)]
    ['KiB', 'MiB', 'MiB', 'GiB']
    """
    return next((unit for unit, size in reversed(_UNITS.items()) if largest >= 10 * size), "KiB")


def in_unit(count: int, unit: str) -> str:
    """A number of bytes in a unit.

    >>> [in_unit(count, "MiB") for count in (100, 20 * 2**20 + 2**19, 1000 * 2**20, 9.5 * 2**30)]
    ['0.00', '20.5', '1,000', '9,728']
    """
    size = count / _UNITS[unit]
    return f"{size:,.{0 if size >= 100 else 1 if size >= 10 else 2}f}"


def read_bytes(option: str, text: str) -> int:
    """The bytes that "24GB", "24 GiB" or "80000MB" means.

    >>> read_bytes("--device-memory", "24GB"), read_bytes("--device-memory", "1.5 GiB")
    (24000000000, 1610612736)

    Raises:
        SettingsError: it is something else, or nothing.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", text)
    size = 0.0 if found is None else float(found[1]) * _WRITTEN.get(found[2], 0)
    if not size:
        raise SettingsError(f"{option} must be a size such as 24GB, 24GiB or 800MB; received {text!r}.")
    return int(size)
