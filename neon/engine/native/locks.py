"""The lock of what is made once for all threads: nodes, kernels, machine code."""

from __future__ import annotations

import os
import threading

# Held while kernels are traced, compiled and put where all threads find them. One lock, so that there is one
# order; a fork waits for it, so that no child inherits it held.
compiling = threading.RLock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=compiling.acquire, after_in_parent=compiling.release, after_in_child=compiling.release)
