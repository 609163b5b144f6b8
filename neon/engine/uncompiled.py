"""What `torch.compile` leaves alone."""
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

Method = TypeVar("Method", bound=Callable[..., Any])


def uncompiled(method: Method) -> Method:
    """A function that breaks a compiled graph cleanly, with all that it calls.

    As `torch.compiler.disable`, which would import the compiler (1 s) and cost a call each time.
    """
    dynamo = torch._C._dynamo.eval_frame
    skip = dynamo._FrameAction.SKIP
    dynamo.set_code_exec_strategy(method.__code__, dynamo._FrameExecStrategy(skip, skip))
    method._torchdynamo_disable = True  # type: ignore[attr-defined]
    method._torchdynamo_disable_msg = "neon's steps are machine code already"  # type: ignore[attr-defined]
    return method
