"""What an audit says: findings, each with its remedy, and notes on what is as it should be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

from neon.messages import listed

# Names in one finding, in characters.
_ROOM = 120


class AuditWarning(UserWarning):
    """What an optimizer says by itself of its first steps, once."""


@dataclass(frozen=True)
class Finding:
    """One fault: its kind, the parameters or groups that it concerns, what is so, and what to do."""

    kind: str
    concerns: tuple[str, ...]
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.kind}: {listed(self.concerns, _ROOM)}: {self.text} {self.remedy}"


class Audit(Sequence[Finding]):
    """The findings of an audit, in the order of the checks: false where there are none.

    `notes` say what is no fault: how many parameters are updated or frozen, what has not been watched.
    """

    def __init__(self, findings: Sequence[Finding], notes: Sequence[str] = ()) -> None:
        self.findings, self.notes = tuple(findings), tuple(notes)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of the findings, each once."""
        return tuple(dict.fromkeys(finding.kind for finding in self.findings))

    def __len__(self) -> int:
        return len(self.findings)

    @overload
    def __getitem__(self, place: int) -> Finding: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Finding, ...]: ...
    def __getitem__(self, place: int | slice) -> Finding | tuple[Finding, ...]:
        return self.findings[place]

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __str__(self) -> str:
        found = [f"- {finding}" for finding in self.findings] or ["Nothing is found."]
        return "\n".join([*found, *self.notes])

    def __repr__(self) -> str:
        return f"Audit({len(self)} finding{'s' * (len(self) != 1)}: {listed(self.kinds)})"

    def __rich__(self) -> Any:
        """A table for a terminal."""
        from rich.table import Table

        table = Table("kind", "concerns", "what is so", "remedy", caption=" ".join(self.notes) or None)
        for finding in self.findings:
            table.add_row(finding.kind, listed(finding.concerns, _ROOM), finding.text, finding.remedy)
        return table
