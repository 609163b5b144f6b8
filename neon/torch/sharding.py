"""Where pickles of earlier versions look for the processes of a partitioned optimizer."""

from __future__ import annotations

from neon.stepping.sharding import Partition

__all__ = ["Partition"]
