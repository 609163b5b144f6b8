"""torch's wrappers around modules (torch.compile, DataParallel, checkpoints of activations): names see through them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

# Under what name a wrapper keeps what it wraps. Anybody may call a part of a model `module`: there the class tells.
_OWN_NAMES = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_NAMES = {*_OWN_NAMES, "module"}
_KEEP_MODULE = (DataParallel, DistributedDataParallel, AveragedModel)


def unwrapped(module: nn.Module) -> tuple[nn.Module, list[str]]:
    """What is inside all wrappers, and the names that lead to it."""
    names: list[str] = []
    while name := _inside(module):
        names.append(name)
        module = getattr(module, name)
    return module, names


def _inside(module: nn.Module) -> str | None:
    if isinstance(module, _KEEP_MODULE):
        return "module"
    return next((name for name in _OWN_NAMES if name in module._modules), None)


def bare(name: str) -> str:
    """A parameter's qualified name without what wrappers put into it."""
    return ".".join(part for part in name.split(".") if part not in _NAMES)


def bare_names(names: Sequence[str]) -> list[str]:
    """The names without what wrappers put into them, or as they are where that would make two alike."""
    found = [bare(name) for name in names]
    return found if len(set(found)) == len(found) and all(found) else list(names)
