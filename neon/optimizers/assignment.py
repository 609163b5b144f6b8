"""Where pickles of earlier versions look for what a parameter was assigned to."""

from __future__ import annotations

from neon.assignment.keys import Match

__all__ = ["Match"]
