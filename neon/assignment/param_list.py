"""Parameter lists in neon's form: `((param, grad), states)` for each parameter of a list of layers."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.weak import WeakTensorKeyDictionary

from neon.engine.tensors.overlap import address
from neon.messages import kind_of, shortened

Entry = tuple[tuple[Tensor, Tensor | None], list[Tensor]]

# A torch parameter has no place for neon's list of states: it is kept beside it for as long as it lives.
_records: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
# Tensors of other classes may stand for memory elsewhere.
_PLAIN = (Tensor, nn.Parameter)


class Aliases:
    """How many aliases of parameters have been made: whoever keeps one looks whether there are others since."""

    made = 0


def param_entry(parameter: Tensor) -> Entry:
    """What a layer's `get_params()` returns for one torch parameter.

    The parameter comes as an alias without autograd history, so that `param[:] = ...` writes in
    place; `states` is the same list at every call.
    """
    alias, states = _record(parameter)
    return (parameter, None) if alias is None else (alias, parameter.grad), states


def _record(parameter: Tensor) -> tuple[Tensor | None, list[Tensor]]:
    """The alias of a parameter, None while it is lazy and has no memory, and its list of states."""
    record = _records.get(parameter)
    alias, states = (None, []) if record is None else record
    if is_lazy(parameter):  # its layer has not seen a batch
        alias = None
    elif alias is not None and _same_memory(alias, parameter):
        return alias, states
    else:
        attributes = {} if alias is None else vars(alias)  # the count of updates among them
        alias = parameter.detach()
        vars(alias).update(attributes)
        Aliases.made += 1
    _records[parameter] = (alias, states)
    return alias, states


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride() and a.dtype == b.dtype


# -- one parameter in several layers ---------------------------------------------------------------


def is_plain(tensor: Tensor) -> bool:
    """Whether its address says where its numbers are, as a DTensor's or a freed one's does not."""
    return type(tensor) in _PLAIN and tensor.layout is torch.strided and address(tensor) != 0


def memory(tensor: Tensor) -> Hashable:
    """What views of one tensor have in common: the memory where that is known, else the object itself."""
    if is_plain(tensor) and tensor.numel():
        return address(tensor), tensor.shape, tensor.stride(), tensor.dtype, tensor.device
    return id(tensor)


def joined(entries: list[Entry]) -> Entry:
    """One entry for all uses of one parameter, with the sum of the gradients that they bring; none is written to.

    A gradient that several uses give is one gradient: each has added its part to it.
    """
    (param, _), states = entries[0]
    grads = [*{memory(grad): grad for (_, grad), _ in entries if grad is not None}.values()]
    used = next((found for _, found in entries if found), states)
    return (param, _sum(param, grads) if grads else None), used


def _sum(param: Tensor, grads: list[Tensor]) -> Tensor:
    total = grads[0]
    for grad in grads:
        if grad.shape != param.shape or grad.device != param.device:
            return grad  # what does not fit is refused, not spread over the parameter
        if grad is not total:
            with torch.no_grad():
                total = total + grad
    return total


# -- what layers give ------------------------------------------------------------------------------


def is_neons(layer: Any) -> bool:
    """Whether it is one of neon's own layers. Their module is not imported for those who have none."""
    module = sys.modules.get("neon.layers.layer")
    return module is not None and isinstance(layer, module.Layer)


class Given:
    """What layers have given in one step, by their ids: one that was asked early is not asked again."""

    def __init__(self) -> None:
        self.found: dict[int, Any] = {}
        self._early: dict[int, Any] = {}

    def ask_early(self, layer: Any) -> Any:
        """What a layer's `get_params()` returns, before the walk comes to it."""
        self._early[id(layer)] = found = layer.get_params()
        return found

    def of(self, layer: Any, get_params: Callable[[], Any]) -> Any:
        """The same as the walk comes to it."""
        key = id(layer)
        self.found[key] = found = self._early.pop(key) if key in self._early else get_params()
        return found


def layer_entries(layer: Any, given: Given | None = None) -> list[Entry] | None:
    """The entries of one layer: what its `get_params()` returns, as a list of aliases that can be written.

    None where there is no such method, or where a torch module calls something else by that name.
    """
    if isinstance(layer, type) or not hasattr(layer, "get_params"):
        return None
    get_params: Any = layer.get_params
    if not callable(get_params):
        if isinstance(layer, nn.Module):
            return None
        raise TypeError(f"get_params of {_described(layer)} must be a method. Received: {kind_of(get_params)}.")
    is_module = isinstance(layer, nn.Module) and not is_neons(layer)
    try:
        found = get_params() if given is None else given.of(layer, get_params)
    except TypeError:
        if is_module and _needs_arguments(get_params):
            return None
        raise
    entries = [found] if isinstance(found, tuple) else found
    if is_module and not _is_in_neons_form(entries):
        return None
    if not isinstance(entries, list) or not all(map(_is_entry, entries)):
        raise TypeError(
            f"get_params() of {_described(layer)} must return ((param, grad), states), with states a list, or a list "
            f"of such tuples, empty without parameters. Received: {kind_of(found)}."
            + (" Of a numpy array, give torch.from_numpy(array): its memory is the same." if _has_array(found) else "")
        )
    return [((writable(param), grad), states) for (param, grad), states in entries]


def _needs_arguments(method: Any) -> bool:
    try:
        inspect.signature(method).bind()
    except TypeError:
        return True
    except ValueError:  # it has no signature
        return False
    return False


def _is_entry(entry: Any) -> bool:
    match entry:
        case (Tensor(), Tensor() | None), list():
            return True
    return False


def _is_in_neons_form(entries: Any) -> bool:
    """Whether it is meant for neon's optimizers, be it wrong: a list of ((...), ...), or an empty one."""
    if not isinstance(entries, list):
        return False
    pairs = [entry for entry in entries if isinstance(entry, tuple) and len(entry) == 2]
    return not entries or any(isinstance(pair, tuple) for pair, _ in pairs)


def _described(layer: Any) -> str:
    name = getattr(layer, "name", None)
    kind = shortened(type(layer).__name__)
    return f"{kind} {shortened(name)!r}" if isinstance(name, str) else kind


def _has_array(value: Any, depth: int = 3) -> bool:
    if isinstance(value, (tuple, list)):
        return depth > 0 and any(_has_array(item, depth - 1) for item in value)
    return type(value).__module__ == "numpy"


def writable(param: Tensor) -> Tensor:
    alias = _record(param)[0] if param.requires_grad else None
    return param if alias is None else alias
