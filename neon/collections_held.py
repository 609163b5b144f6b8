"""The garbage collector, held back where many objects are made that stay: plans, machine code, modules."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collections_held() -> Iterator[None]:
    """Within it nothing is collected: objects that stay would have the collector go through all of torch's, often.

    Once is 40 ms after `import torch`, as long as the import of `neon.optimizers` itself.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
