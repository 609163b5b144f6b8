"""One process that is a group, for programs that shard or replicate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import distributed


@contextmanager
def one_process() -> Iterator[None]:
    """A process group of this process alone, where there is none."""
    begun = not distributed.is_initialized()
    if begun:
        distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        if begun:
            distributed.destroy_process_group()
