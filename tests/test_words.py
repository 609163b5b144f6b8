"""One word for one thing: words that neon had for what the field calls otherwise occur in no file and on no page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What must not be written, and what to write; whole words, in names of the code too.
WORDS = {
    "companions?": "auxiliary tensor",
    "(stands?|stood|standing|lies|lay|lying) beside": "auxiliary tensor",
    "brought": "step inputs, or another verb",
    "(take|takes|taken|taking|took) up": "load",
    "codecs?": "format",
    "gather(s|ed)? anew": "re-gather",
    "draws? between": "tie",
    "ranges? (that )?meet": "overlap",
    "settles?|settled": "decide",
}
# Python's own module of that name, and an amount.
ALLOWED = re.compile(r"import codecs|codecs\.register_error|took up to")
PAGES = [*(ROOT / "neon").rglob("*.py"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]


def written(text: str) -> str:
    """A text without what is allowed, on one line, with the words of names apart."""
    return re.sub(r"\s+|_", " ", ALLOWED.sub("", text))


@pytest.mark.parametrize("word", WORDS)
def test_nobody_writes(word: str) -> None:
    pattern = re.compile(rf"(?<![a-z])({word})(?![a-z])", re.IGNORECASE)
    found = {
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in PAGES
        for match in pattern.finditer(written(path.read_text(encoding="utf-8")))
    }
    assert not found, f"write: {WORDS[word]}"


@pytest.mark.parametrize(
    "text", ["a companion", "taken_up(state)", "it took\nup", "Codec", "stands beside", "brought=None", "ranges meet"]
)
def test_the_list_finds(text: str) -> None:
    assert any(re.search(rf"(?<![a-z])({word})(?![a-z])", written(text), re.IGNORECASE) for word in WORDS)
