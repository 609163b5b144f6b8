"""What weights are at evaluation (their views), put in the place of the weights for a while."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from neon.engine.plan import Plan
from neon.engine.settings import Item, Settings

# How to have the weights back, by the ids of parameters in whose place their views stand now, and of their states.
_in_place: dict[int, str] = {}
_WAYS_BACK = {"eval()": "call train()"}


def places_taken() -> dict[int, str]:
    """What has put views there, by the ids of tensors: empty while all weights are in their places."""
    return _in_place


@dataclass(eq=False)
class Viewed:
    """A parameter, or the part that is here, with what its view is computed from: `settings.view`.

    `held` are all states of the parameter, by which others know it too.
    """

    item: Item
    settings: Settings
    held: Sequence[Tensor] = ()


class Mark:
    """What a tensor holds, told by the sum of its bits."""

    def __init__(self, tensor: Tensor) -> None:
        self._dtype, self._shape, self._sum = tensor.dtype, tensor.shape, _sum_of_bits(tensor)

    def fits(self, tensor: Tensor) -> bool | None:
        """Whether a tensor holds the same, perhaps in more bits; None where it has less, and nobody can tell."""
        if tensor.shape != self._shape:
            return False
        if tensor.dtype.itemsize < self._dtype.itemsize:
            return None
        return _sum_of_bits(tensor.detach().to(self._dtype)) == self._sum


def _sum_of_bits(tensor: Tensor) -> tuple[int, int]:
    """The sums of whole words of 64 bits, which are 30 times as quick as those of shorter ones, and of what is left."""
    line = tensor.detach().contiguous().view(-1)
    if line.stride(0) != 1 or line.storage_offset() * line.itemsize % 8:
        line = line.clone(memory_format=torch.contiguous_format)
    memory = line.view(torch.uint8)
    whole = len(memory) // 8 * 8
    return int(memory[:whole].view(torch.int64).sum()), int(memory[whole:].sum())


class InPlace:
    """Views in the place of weights, from when it is made until they are `put_back`; `weights` are aside meanwhile.

    They are written where the weights are: whoever holds the parameters sees them. `way` is what has asked for it.
    """

    def __init__(self, viewed: Sequence[Viewed], way: str) -> None:
        self.way = way
        self._params = [each.item.param for each in viewed]
        self._held = [each.held for each in viewed]
        self.weights = [param.detach().clone() for param in self._params]
        try:
            _show(viewed, self.weights)
        except BaseException:
            self._restore()
            raise
        self.marks = [*map(Mark, self._params)]
        placed = {id(tensor) for param, held in zip(self._params, self._held, strict=True) for tensor in (param, *held)}
        _in_place.update(dict.fromkeys(placed, way))
        self._forget = weakref.finalize(self, _forget, placed)

    def put_back(self) -> str:
        """Put the weights where they belong; says whether something else than their views was there."""
        self._forget()
        written = sum(mark.fits(p) is False for mark, p in zip(self.marks, self._params, strict=True))
        self._restore()
        return (
            f"Within {self.way} {written} of {len(self._params)} parameters were written to. The weights of before are "
            f"back: what was loaded into the model, load again, outside of {self.way}."
        ) * bool(written)

    def _restore(self) -> None:
        with torch.no_grad():
            for param, weight in zip(self._params, self.weights, strict=True):
                param.detach().copy_(weight)


def _forget(placed: Iterable[int]) -> None:
    for tensor in placed:
        _in_place.pop(tensor, None)


def _show(viewed: Sequence[Viewed], weights: Sequence[Tensor]) -> None:
    """Write what weights are at evaluation into their places; `weights` are copies of these."""
    places: dict[Settings, int] = {}
    items, copies = [], []
    for each, weight in zip(viewed, weights, strict=True):
        assert each.settings.view is not None
        root, item = each.settings.view.outputs["w"], each.item
        state = next((t for slot, t in item.kept.items() if (root.op, root.label) == ("load", slot.name)), None)
        if state is not None and state.is_floating_point():  # a state as it stands: no kernel is needed
            item.param.detach().copy_(state.detach())
        else:
            item.group = places.setdefault(each.settings, len(places))
            # The low bits of a split weight go with the weight, and stay as they are.
            item.kept = {slot: t.clone() if slot.auxiliary_of == "w" else t for slot, t in item.kept.items()}
            items.append(item)
            copies.append(weight)
    if items:  # no view reads a gradient: the copies stand for them
        Plan(items, copies, [_of_view(settings) for settings in places]).step(copies)


def _of_view(settings: Settings) -> Settings:
    """The settings of the view: rounded to nearest, whatever steps are."""
    assert settings.view is not None
    return Settings(settings.view, settings.values, seed=settings.seed, storage=settings.storage)


@contextmanager
def in_place_of(viewed: Sequence[Viewed], way: str) -> Iterator[None]:
    """Within the context the parameters have the values of their views, and afterwards their own again, to the bit.

    Raises `RuntimeError` at the end if a parameter has been written to: the weights are put back all the same.
    """
    shown = InPlace(viewed, way)
    with back_at_the_end(shown.put_back):
        yield


@contextmanager
def back_at_the_end(put_back: Callable[[], str]) -> Iterator[None]:
    """Puts weights back at the end; what that says is an error, or beside another error a warning."""
    try:
        yield
    except BaseException:
        if message := put_back():
            warnings.warn(message, RuntimeWarning, stacklevel=5)
        raise
    if message := put_back():
        raise RuntimeError(message)


def way_in_place(tensors: Iterable[Tensor]) -> str | None:
    """What has put a view into the place of one of these, or of the weight that one is a state of; None otherwise."""
    return next((_in_place[id(tensor)] for tensor in tensors if id(tensor) in _in_place), None) if _in_place else None


def refuse_in_place(way: str) -> NoReturn:
    """Refuse what would take views for the weights: a step, a load, or another `averaged`."""
    raise RuntimeError(
        "What the weights are at evaluation stands in their place: "
        f"{_WAYS_BACK.get(way, f'leave {way}')} before you go on."
    )


def refuse_without_views() -> NoReturn:
    """Refuse to evaluate averages where there are none."""
    raise RuntimeError(
        "There is no average of weights: give the optimizer a decay, weight_average=0.999, and make a step."
    )
