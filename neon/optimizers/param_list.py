"""Parameter lists in neon's form: `((param, grad), states)` for each parameter of a list of layers."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.utils.weak import WeakTensorKeyDictionary

Entry = tuple[tuple[Tensor, Tensor | None], list[Tensor]]

# A torch parameter has no place for neon's list of states: it is kept beside it for as long as it lives.
_records: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def param_entry(parameter: Tensor) -> Entry:
    """What a layer's `get_params()` returns for one torch parameter.

    The parameter comes as an alias without autograd history, so that `param[:] = ...` writes in
    place; `states` is the same list at every call.
    """
    record = _records.get(parameter)
    alias, states = (None, []) if record is None else record
    if is_lazy(parameter):  # no memory yet: its layer has not seen a batch
        _records[parameter] = (None, states)
        return (parameter, None), states
    if alias is None or not _same_memory(alias, parameter):
        alias = parameter.detach()
        _records[parameter] = (alias, states)
    return (alias, parameter.grad), states


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride() and a.dtype == b.dtype


def layer_entries(layer: Any) -> list[Entry]:
    """The entries of one layer: what its `get_params()` returns, as a list of aliases that can be written."""
    found = layer.get_params()
    entries = [found] if isinstance(found, tuple) else found
    if not isinstance(entries, list) or not all(map(_is_entry, entries)):
        raise TypeError(
            f"get_params() of {type(layer).__name__} must return ((param, grad), states), with states a list, or "
            f"a list of such tuples, empty without parameters. Received: {found!r}."
        )
    return [((_writable(param), grad), states) for (param, grad), states in entries]


def _is_entry(entry: Any) -> bool:
    match entry:
        case (Tensor(), Tensor() | None), list():
            return True
    return False


def _writable(param: Tensor) -> Tensor:
    return param_entry(param)[0][0] if param.requires_grad and not is_lazy(param) else param
