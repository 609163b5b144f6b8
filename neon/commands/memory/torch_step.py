"""What the class of torch.optim that has a rule takes: its own step, run over tensors on meta."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from neon.commands.bench.torch_peers import PEERS
from neon.optimizers import Optimizer


class Living(TorchDispatchMode):
    """Counts the bytes of the storages that operations make, from when they are made until they are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.held = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {id(tensor.untyped_storage()) for tensor in _tensors((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            if id(storage) not in self._known | given:
                self._known.add(id(storage))
                self.held += storage.nbytes()
                weakref.finalize(storage, self._let_go, id(storage), storage.nbytes())
        self.most = max(self.most, self.held)
        return result

    def _let_go(self, known: int, size: int) -> None:
        self._known.discard(known)
        self.held -= size


def torch_step(optimizer: Optimizer, model: nn.Module, device: torch.device) -> tuple[str, int, int] | None:
    """The name of torch's class, the bytes of its states and of what its step makes beside them; None: nobody knows.

    Its step is the one that torch takes by itself: all tensors at a time (foreach) on GPUs, a loop on a CPU. One that
    reads numbers of its states cannot be run there.
    """
    peer = PEERS.get(type(optimizer).__name__)
    if peer is None:
        return None
    known = inspect.signature(peer.theirs).parameters
    numbers = {word: value for word, value in optimizer.group().items() if word in known}
    params = [param for param in model.parameters() if param.requires_grad]
    theirs = peer.theirs(params, **numbers, foreach=device.type != "cpu")
    for param in params:
        param.grad = torch.empty_like(param)
    with Living() as living:
        try:
            theirs.step()
        except RuntimeError:
            return None
    kept = [tensor for state in theirs.state.values() for tensor in _tensors(state) if tensor.device.type == "meta"]
    states = sum(tensor.nbytes for tensor in kept)
    with Living() as living:  # with states, of which none is made any more
        theirs.step()
    return f"torch.optim.{type(theirs).__name__}", states, living.most


def _tensors(tree: Any) -> Sequence[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
