"""What a terminal, or a file, shows of characters that its encoding does not have."""

from __future__ import annotations

import codecs
import sys
import unicodedata

# What stands for a character where neither its name nor its parts say it.
_SPELLED = {
    "←": "<-", "→": "->", "≥": ">=", "≤": "<=", "≠": "!=", "−": "-", "–": "-", "·": "*", "×": "x", "√": "sqrt",
    "‖": "||", "∞": "inf", "µ": "u", "═": "=", "─": "-", "│": "|", "½": "1/2",
}  # fmt: skip
_HANDLER = "neon.spelled"


def spelled(text: str) -> str:
    """The text in ASCII: Greek letters by name, digits and letters out of the line in it, "?" for the rest.

    >>> spelled("β₂·v + (1−β₂)·g² ≤ 45 µs …")
    'beta2*v + (1-beta2)*g2 <= 45 us ...'
    """
    return "".join(_letter(character) for character in text)


def _letter(character: str) -> str:
    if character.isascii() or character in _SPELLED:
        return _SPELLED.get(character, character)
    alphabet, *words = unicodedata.name(character, "?").split()
    if alphabet == "GREEK":
        return words[-1].lower() if character.islower() else words[-1].capitalize()
    parts = unicodedata.normalize("NFKD", character)
    plain = "".join(part for part in parts if part.isascii() or not unicodedata.combining(part))
    if plain.isascii():
        return plain
    return "?" if plain == character else spelled(plain)


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return spelled(error.object[error.start : error.end]), error.end


def spell_what_cannot_be_shown() -> None:
    """Have standard output and standard error spell such characters, where printing them would raise an error."""
    codecs.register_error(_HANDLER, _spell)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_HANDLER)  # type: ignore[union-attr]
