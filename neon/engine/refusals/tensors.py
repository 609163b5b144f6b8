"""What the engine refuses, by name, before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neon.engine.program.formats import FORMATS, weight_dtypes
from neon.engine.program.slots import Slot
from neon.engine.program.spaces import PAIRS, TENSOR
from neon.engine.program.trace import PER_STEP, Program
from neon.engine.tensors.alike import Form, Kind
from neon.engine.tensors.overlap import address
from neon.messages import kind_of, quoted, shortened, shown

if TYPE_CHECKING:
    from neon.engine.program.kernel import Kernel
    from neon.engine.settings import Item, Settings


def _listed() -> str:
    return ", ".join(map(str, weight_dtypes()))


def _fault_of_memory(tensor: Tensor) -> str | None:
    """What is wrong with what has no memory that a kernel could address, or whose memory does not hold its values."""
    if tensor.numel() and address(tensor) == 0:
        return (
            f" has no memory of its own (a {type(tensor).__name__}) on device {tensor.device}; give a plain dense "
            "tensor."
        )
    return " is a lazily negated view; call .resolve_neg() on it first." if tensor.is_neg() else None


def check_parameter(name: str, param: Tensor) -> Kind:
    """Refuse parameters that no kernel can update; says of which kind one is."""
    if param.layout is not torch.strided:
        raise ValueError(f"Parameter {quoted(name)} has layout {param.layout}; only dense tensors are updated.")
    if param.dtype not in weight_dtypes():
        raise TypeError(
            f"Parameter {quoted(name)} has dtype {param.dtype}; the dtypes served are {_listed()}. "
            "Of a complex parameter, keep torch.view_as_real(parameter) as the parameter."
        )
    if fault := _fault_of_memory(param):
        raise ValueError(f"Parameter {quoted(name)}{fault}")
    kind = Kind.of(param)
    if kind.overlaps_itself:
        raise ValueError(
            f"Parameter {quoted(name)} is an expanded tensor, whose elements share memory. Clone it first."
        )
    return kind


def check_sides(name: str, param: Tensor, program: Program) -> None:
    """Refuse a parameter without rows and columns where the rule has values for these."""
    if program.calls and param.dim() < 2:
        raise ValueError(
            f"The rule {shortened(program.name)} is one for matrices; parameter {quoted(name)} is none: its shape is "
            f"{shown(tuple(param.shape))}. Give it an optimizer of its own, such as AdamW."
        )
    if program.by_rows and param.dim() < 2:
        raise ValueError(
            f"The rule {shortened(program.name)} has values for rows and columns; parameter {quoted(name)} has none: "
            f"its shape is {shown(tuple(param.shape))}. Give it an optimizer of its own, or the rule the keyword "
            "`matrix`, which is True for tensors of two dimensions and more, and False for others."
        )


def check_items(items: Sequence[Item], settings: Sequence[Settings]) -> None:
    """Refuse parameters and what is kept of them; each item is told its form, by which it is known again.

    What goes by the form alone is looked at once.
    """
    forms: dict[Any, Form] = {}
    for item in items:
        tensors = (item.param, *item.kept.values())
        kinds = _kinds(tensors)
        width = settings[item.group].width
        key = (width, item.part, item.reach, item.matrices, item.sharers, *map(id, item.kept), *kinds)
        if key not in forms or not _are_sound(tensors):
            check_parameter(item.name, item.param)
            _check_kept(item)
            _check_rounding(item, width)
            forms.setdefault(key, Form(kinds))
        item.form = forms[key]


def _kinds(tensors: Iterable[Tensor]) -> tuple[Kind, ...]:
    """The kinds of dense tensors; none where one is something else, which is to be refused by name."""
    try:
        return tuple(map(Kind.of, tensors))
    except (AttributeError, RuntimeError):
        return ()


def _are_sound(tensors: Sequence[Tensor]) -> bool:
    """Whether each has memory that holds its values, at an address of its own."""
    try:
        addresses = {*map(Tensor.data_ptr, tensors)}
    except RuntimeError:
        return False
    return 0 not in addresses and len(addresses) == len(tensors) and not any(map(Tensor.is_neg, tensors))


def _check_kept(item: Item) -> None:
    """Refuse states and auxiliary tensors that do not fit their parameter."""
    for slot, tensor in item.kept.items():
        (_check_state if slot.auxiliary_of is None else _check_auxiliary)(item, slot, tensor)
    tensors = [item.param, *(tensor for slot, tensor in item.kept.items() if slot.auxiliary_of is None)]
    tensors = [tensor for tensor in tensors if tensor.numel()]
    if item.param.numel() and len({tensor.data_ptr() for tensor in tensors}) < len(tensors):
        raise ValueError(
            f"A state of parameter {quoted(item.name)} shares memory with it or with another state; give each its own "
            "tensor."
        )


def _check_state(item: Item, slot: Slot, state: Tensor) -> None:
    param = item.param
    if not isinstance(state, Tensor):
        raise TypeError(f"A state of parameter {quoted(item.name)} must be a tensor. Received: {kind_of(state)}.")
    if slot.space is TENSOR:
        if state.dim() or state.dtype != torch.float64:
            raise ValueError(
                f"{slot.name} of parameter {quoted(item.name)} is one number: a float64 tensor of shape (). It has "
                f"shape {shown(tuple(state.shape))} and dtype {state.dtype}. Take it out of the state to start it anew."
            )
        return
    shape = item.shape_of(slot.space)
    if tuple(state.shape) != shape or state.device != param.device or state.dtype not in FORMATS:
        raise ValueError(
            f"A state of parameter {quoted(item.name)} has shape {shown(tuple(state.shape))}, dtype {state.dtype}, "
            f"device {state.device}; it needs the parameter's shape {shown(shape)} and device "
            f"{param.device}, and one of the dtypes {_listed()}."
        )
    if fault := _fault_of_memory(state):
        raise ValueError(f"A state of parameter {quoted(item.name)}{fault}")
    if slot.space in PAIRS and state.dtype != (torch.float64 if param.dtype == torch.float64 else torch.float32):
        raise ValueError(
            f"{slot.name} of parameter {quoted(item.name)} has dtype {state.dtype}; it is computed with as it lies, in "
            "float32, or in float64 for float64 parameters. Take it out of the state to start it anew."
        )
    if slot.block > 1 and any(other.space.is_narrow for other in item.kept):
        raise ValueError(
            f"A state of parameter {quoted(item.name)} has dtype {state.dtype}, in blocks that would cut its rows, "
            "beside states of rows and columns. Take the state out of optimizer.state to start it anew."
        )
    if slot.block > 1 and param.dtype == torch.float64:
        raise ValueError(
            f"A state of parameter {quoted(item.name)} has dtype {state.dtype}, the parameter is float64, and so "
            "are its states. Take the state out of optimizer.state to start it anew."
        )


def _check_auxiliary(item: Item, slot: Slot, tensor: Tensor) -> None:
    """Refuse what is not as large as the kernel takes it to be, such as scales of blocks."""
    param, what = item.param, "The low bits" if slot.auxiliary_of == "w" else f"The {slot.path[0]} of a state"
    needed = (slot.space.shape(param.shape), slot.dtype, param.device)
    kept = (tuple(tensor.shape), tensor.dtype, tensor.device) if isinstance(tensor, Tensor) else tensor
    if kept != needed:
        raise ValueError(
            f"{what} of parameter {quoted(item.name)}: shape, dtype and device must be "
            f"{shown(needed)}. Received: {shown(kept)}."
        )
    if fault := _fault_of_memory(tensor):
        raise ValueError(f"{what} of parameter {quoted(item.name)}{fault}")


def check_gradient(item: Item, grad: Tensor) -> None:
    """Refuse gradients that do not fit their parameter."""
    if grad.layout is not torch.strided:
        raise ValueError(
            f"The gradient of parameter {quoted(item.name)} is sparse ({grad.layout}); only dense gradients are taken. "
            "Build its layer with sparse=False, or call .to_dense() on the gradient."
        )
    if grad.shape != item.param.shape or grad.device != item.param.device:
        raise ValueError(
            f"The gradient of parameter {quoted(item.name)} has shape {shown(tuple(grad.shape))} on {grad.device}; the "
            f"parameter has shape {shown(tuple(item.param.shape))} on {item.param.device}."
        )
    if grad.dtype not in weight_dtypes():
        raise TypeError(
            f"The gradient of parameter {quoted(item.name)} has dtype {grad.dtype}; the dtypes served are {_listed()}."
        )
    if grad.numel() and address(grad) == 0:
        raise ValueError(f"The gradient of parameter {quoted(item.name)}{_fault_of_memory(grad)}")


def check_capturable(device: torch.device, capturable: bool) -> None:
    """Refuse devices whose steps no graph can hold, as their backend says."""
    if not capturable:
        raise ValueError(
            "capturable=True asks for steps that can be captured in a graph of the device. That needs parameters on a "
            f"device that Triton serves, such as cuda; some are on {device}. Leave it out."
        )


def check_steady_calls(kernel: Kernel) -> None:
    """Refuse functions of matrices whose numbers change with the step for graphs of a device, which have no host."""
    found = [n for stage in kernel.stages if stage.calls for n in stage.host.inputs if n.label in PER_STEP]
    if found:
        raise ValueError(
            f"{shortened(kernel.program.name)} works on matrices by the {found[0].label}, which the host has to know, "
            "and a graph that is replayed has no host: capturable=True cannot be had. Leave it out."
        )


def _check_rounding(item: Item, width: int | None) -> None:
    """Refuse a rounding width for parameters that are wider than the arithmetic of words."""
    if width and item.param.dtype == torch.float64:
        raise ValueError(
            f"stochastic_round={width} rounds parameters of at most 32 bits; parameter {quoted(item.name)} is float64. "
            "Use stochastic_round=False, or float32 parameters."
        )


def check_once(named: Iterable[tuple[str, Tensor]]) -> None:
    """Refuse a parameter that is listed twice: it would be updated twice, by states that do not know of each other."""
    names: dict[int, str] = {}
    for name, param in named:
        if id(param) in names:
            raise ValueError(
                f"{shortened(name)} is the same parameter as {shortened(names[id(param)])}. List each parameter once, "
                "in one group."
            )
        names[id(param)] = name
