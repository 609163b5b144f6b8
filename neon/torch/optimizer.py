"""Where pickles of earlier versions look for the attached optimizer."""

from __future__ import annotations

from neon.attached.attached_optimizer import AttachedOptimizer

__all__ = ["AttachedOptimizer"]
