"""Where pickles of earlier versions look for the places of parameters."""

from __future__ import annotations

from neon.assignment.sites import Site

__all__ = ["Site"]
