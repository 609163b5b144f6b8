"""Parameters that never receive a gradient, though they are trainable and an optimizer has them."""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from neon.assignment.param_list import is_plain
from neon.audit.findings import Finding
from neon.audit.seen import LAST, Member, Record, Seen
from neon.engine.versions import has_compiled
from neon.messages import listed

# Of a graph so many nodes are looked at.
_MOST_NODES = 10_000
# The ends of graphs, and what hides a part of one until the backward pass.
_OF_PARAMETERS = ("AccumulateGrad", "CheckpointFunctionBackward")


def no_gradient(seen: Seen) -> Iterator[Finding]:
    """Parameters that have never had a gradient in a hundred steps.

    What there is elsewhere in the model, with gradients, may wait for its turn: experts of a mixture that get no token,
    a network that follows another, the last of blocks. By itself an audit names only parts whose output was seen to
    reach others without its graph.
    """
    if seen.asked:
        silent = _Silent(seen)
        names = [*silent.parameters] if seen.steps >= LAST else []
        if names:
            yield Finding(
                "no gradient", tuple(names), f"no gradient in {seen.steps:.0f} steps.",
                "Look for a detach() behind it, or freeze it: requires_grad_(False), or a key with None.",
            )  # fmt: skip
    elif seen.record is not None and seen.record.silent:
        reached = listed(dict.fromkeys(seen.record.silent.values()), 80)
        yield Finding(
            "no gradient", tuple(seen.record.silent), f"no gradient in {LAST} steps: its output reaches {reached} "
            "detached.", "Leave out the detach(), or freeze it: requires_grad_(False), or a key with None.",
        )  # fmt: skip


class Detached:
    """Looks, while hooks are on the model, for outputs of parts without gradients that reach others detached."""

    def __init__(self, seen: Seen) -> None:
        self._flow, self._hooks = _Flow(), []
        weakref.finalize(self, _remove, self._hooks).atexit = False
        silent = _Silent(seen)
        parts = [] if has_compiled() else [*silent.parts]
        for path, part in filter(_takes_hooks, parts):
            self._hooks.append(part.register_forward_hook(partial(_gives, self._flow, path), with_kwargs=True))
        for path, part in filter(_takes_hooks, silent.others if self._hooks else ()):
            self._hooks.append(part.register_forward_pre_hook(partial(_takes, self._flow, path), with_kwargs=True))

    def end(self, seen: Seen, record: Record) -> None:
        """Take the hooks away, and note what was found of parts that have no gradient still."""
        _remove(self._hooks)
        if self._flow.reached:
            still = {path for path, _ in _Silent(seen).parts}
            record.silent = {path: name for path, name in self._flow.reached.items() if path in still}


class _Flow:
    """The first outputs of parts, whose memory is kept so that nothing else comes there, and which part they reach.

    Copies of the model, and pickles, have an empty one.
    """

    def __init__(self) -> None:
        self.given: dict[int, tuple[str, Any]] = {}
        self.reached: dict[str, str] = {}

    def __reduce__(self) -> tuple[type[_Flow], tuple[()]]:
        return _Flow, ()


def _takes_hooks(part: tuple[str, nn.Module]) -> bool:
    """Whether there can be hooks on a part: torch refuses them on what it has scripted or traced."""
    return not isinstance(part[1], torch.jit.ScriptModule)


def _breaks_nothing(hook: Callable[..., None]) -> Callable[..., None]:
    """A hook that leaves compilers alone, and that nobody hears of where the model gives it what it cannot read."""

    @functools.wraps(hook)
    def call(*args: Any) -> None:
        if not torch.compiler.is_compiling():
            with contextlib.suppress(Exception):
                hook(*args)

    return call


@_breaks_nothing
def _gives(flow: _Flow, path: str, _module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
    """The hook of a part that has no gradient: note where its output is, if that is made of its parameters."""
    if path not in {name for name, _ in flow.given.values()}:
        inputs = [*_tensors(args), *_tensors(kwargs)]
        for tensor in _tensors(output):
            if tensor.requires_grad and _has_parameters(tensor, inputs):
                storage = tensor.untyped_storage()
                flow.given[storage.data_ptr()] = path, storage


def _has_parameters(output: Tensor, inputs: Sequence[Tensor]) -> bool:
    """Whether the graph of an output has parameters before it comes to the inputs, which may be handed on."""
    known = {get_gradient_edge(tensor).node for tensor in inputs if tensor.requires_grad}
    ahead: list[Any] = [get_gradient_edge(output).node]
    while ahead and len(known) < _MOST_NODES:
        if (node := ahead.pop()) not in known:
            if type(node).__name__ in _OF_PARAMETERS:
                return True
            known.add(node)
            ahead += [before for before, _ in node.next_functions if before is not None]
    return False


@_breaks_nothing
def _takes(flow: _Flow, path: str, _module: nn.Module, args: Any, kwargs: Any) -> None:
    """The hook of all others: whether what comes in is such an output, without its graph."""
    for tensor in (*_tensors(args), *_tensors(kwargs)) if torch.is_grad_enabled() else ():
        found = None if tensor.requires_grad else flow.given.get(tensor.untyped_storage().data_ptr())
        if found is not None:
            flow.reached.setdefault(found[0], path or "the model")


def _tensors(value: Any, levels: int = 4) -> Iterator[Tensor]:
    """The tensors that a layer takes or gives, where one knows their memory; what holds itself ends some levels in."""
    if isinstance(value, Tensor):
        if is_plain(value):
            yield value
    elif levels and isinstance(value, (tuple, list, Mapping)):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(each, levels - 1)


def _remove(hooks: list[Any]) -> None:
    while hooks:
        hooks.pop().remove()


class _Silent:
    """The trainable parameters without a gradient ever, but for those that stand elsewhere in the model too."""

    def __init__(self, seen: Seen) -> None:
        never = {id(member.param) for member in waiting(seen)}
        self._never = never if len(never) < len(seen.members) else set()
        self._models = seen.models

    @property
    def parameters(self) -> Sequence[str]:
        """Their names."""
        named = {id(p): _joined(path, name) for path, part in self.parts for name, p in part.named_parameters()}
        return [name for param, name in named.items() if param in self._never]

    @property
    def parts(self) -> Iterator[tuple[str, nn.Module]]:
        """The largest parts of the models that have such parameters alone, and of which there is no other like them."""
        for model in self._models if self._never else ():
            every = dict(model.named_modules())
            silent = dict.fromkeys(path for path, part in every.items() if self._is_silent(part))
            known = {_structure(part) for path, part in every.items() if path not in silent}
            for path in silent:
                within = path and path.rpartition(".")[0] in silent
                if not within and _structure(every[path]) not in known:
                    yield path, every[path]

    @property
    def others(self) -> Iterator[tuple[str, nn.Module]]:
        """The parts that have other parameters."""
        for model in self._models:
            for path, part in model.named_modules():
                if any(id(param) not in self._never for param in part.parameters()):
                    yield path, part

    def _is_silent(self, part: nn.Module) -> bool:
        params = [param for param in part.parameters() if param.requires_grad]
        return bool(params) and all(id(param) in self._never for param in params)


def _structure(part: nn.Module) -> tuple[Any, ...]:
    """What a part has in common with others of its kind."""
    return type(part), *((name, tuple(param.shape)) for name, param in part.named_parameters())


def _joined(path: str, name: str) -> str:
    return ".".join(filter(None, (path, name)))


def waiting(seen: Seen) -> Sequence[Member]:
    """Trainable parameters of the optimizer that have had no gradient yet; those of which nothing is here have none."""
    found = (member for member in seen.members if not member.is_frozen and member.param.grad is None)
    return [member for member in found if member.param.numel() and not seen.has_stepped(member)]
