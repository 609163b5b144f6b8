"""Parameters that never receive a gradient, though they are trainable and an optimizer has them."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from neon.audit.findings import Finding
from neon.audit.seen import LAST, Member, Record, Seen

_REMEDY = "Look for a detach() or no_grad() in between; what is meant to stay can say so: requires_grad_(False)."


def no_gradient(seen: Seen) -> Iterator[Finding]:
    """Parameters that have never had a gradient in a hundred steps.

    What there is elsewhere in the model, with gradients, may wait for its turn: experts of a mixture that get no token,
    a network that follows another, the last of blocks. By itself an audit names only layers that were called.
    """
    if seen.asked:
        silent = _Silent(seen)
        names = [name for name, _ in silent.parameters] if silent and seen.steps >= LAST else []
        if names:
            yield Finding("no gradient", tuple(names), f"no gradient in {seen.steps:.0f} steps.", _REMEDY)
    elif seen.record is not None and seen.record.silent:
        yield Finding(
            "no gradient", tuple(seen.record.silent), f"called in the forward pass, and no gradient in {LAST} steps: "
            "no loss depends on it.", _REMEDY,
        )  # fmt: skip


class Calls:
    """Which of some layers are called with gradients enabled, while hooks are on them."""

    def __init__(self, seen: Seen) -> None:
        silent = _Silent(seen)
        layers = [*silent.layers] if silent else []
        self._called = [_Called(name) for name, _ in layers]
        pairs = zip(layers, self._called, strict=True)
        self._hooks = [layer.register_forward_pre_hook(called) for (_, layer), called in pairs]
        weakref.finalize(self, _remove, self._hooks).atexit = False

    def end(self, seen: Seen, record: Record) -> None:
        """Take the hooks away, and note the layers that were called and have no gradient still."""
        _remove(self._hooks)
        called = [each.name for each in self._called if each.was_called]
        if called:
            still = {name for name, _ in _Silent(seen).layers}
            record.silent = tuple(name for name in called if name in still)


class _Called:
    """A hook, which holds nothing: the module may be copied or saved with it."""

    def __init__(self, name: str) -> None:
        self.name, self.was_called = name, False

    def __call__(self, module: nn.Module, args: Any) -> None:
        self.was_called = self.was_called or torch.is_grad_enabled()


def _remove(hooks: list[Any]) -> None:
    while hooks:
        hooks.pop().remove()


class _Silent:
    """The trainable parameters without a gradient ever, but for those that stand elsewhere in the model too."""

    def __init__(self, seen: Seen) -> None:
        never = {id(member.param) for member in waiting(seen)}
        self._never = never if len(never) < len(seen.members) else set()
        self._models = seen.models

    def __bool__(self) -> bool:
        return bool(self._never)

    @property
    def parameters(self) -> Iterator[tuple[str, Any]]:
        """They, by name."""
        found = {}
        for path, part in self._parts:
            for name, param in part.named_parameters():
                if id(param) in self._never:
                    found[id(param)] = _joined(path, name), param
        return iter(found.values())

    @property
    def layers(self) -> Iterator[tuple[str, nn.Module]]:
        """The layers that have nothing else, and nothing in them."""
        for path, part in self._parts:
            for name, layer in part.named_modules():
                own = [*layer.parameters(recurse=False)]
                if own and not layer._modules and all(id(param) in self._never for param in own):
                    yield _joined(path, name), layer

    @property
    def _parts(self) -> Iterator[tuple[str, nn.Module]]:
        """The largest parts of the models that have such parameters alone, and of which there is no other like them."""
        if not self._never:
            return
        for model in self._models:
            every = dict(model.named_modules())
            silent = dict.fromkeys(path for path, part in every.items() if self._is_silent(part))
            known = {_structure(part) for path, part in every.items() if path not in silent}
            for path in silent:
                within = path and path.rpartition(".")[0] in silent
                if not within and _structure(every[path]) not in known:
                    yield path, every[path]

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
