"""Bytes as a person writes and reads them."""

from __future__ import annotations

import re

from neon.commands.errors import SettingsError

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_WRITTEN = {"MB": 10**6, "GB": 10**9, "TB": 10**12, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def shown_bytes(count: int) -> str:
    """A number of bytes, in three digits and the unit that fits.

    >>> [shown_bytes(count) for count in (0, 1000, 1536, 10 * 2**20, 1023 * 2**20, 24 * 2**30)]
    ['0 B', '1000 B', '1.50 KiB', '10.0 MiB', '1023 MiB', '24.0 GiB']
    """
    size, unit = float(count), 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    digits = 0 if unit == 0 or size >= 100 else 1 if size >= 10 else 2
    return f"{size:.{digits}f} {_UNITS[unit]}"


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
