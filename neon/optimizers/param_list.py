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
    if alias is None or alias.data_ptr() != parameter.data_ptr() or alias.shape != parameter.shape:
        alias = parameter.detach()
        _records[parameter] = (alias, states)
    return (alias, parameter.grad), states


def layer_entries(layer: Any) -> list[Entry]:
    """The entries of one layer: what its `get_params()` returns, as a list."""
    found = layer.get_params()
    if isinstance(found, tuple):
        found = [found]
    for entry in found:
        if not (isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[1], list) and len(entry[0]) == 2):
            raise TypeError(
                f"get_params() of {type(layer).__name__} must return ((param, grad), states), with states a "
                f"list, or a list of such tuples. Received: {type(entry).__name__}."
            )
    return list(found)
