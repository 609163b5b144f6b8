"""The model that a user names, with shapes in the place of tensors: nothing is allocated for it."""

from __future__ import annotations

import copy
import inspect
import traceback
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from neon.commands.errors import UsageError
from neon.commands.references import one_line, resolve
from neon.engine.program.formats import weight_dtypes


class ModelError(UsageError):
    """A model that cannot be had, or of which there is nothing to count."""


def find_model(reference: str) -> nn.Module:
    """What ``module:name`` is or makes: a `torch.nn.Module`, or a class or function that gives one without arguments.

    It is called within ``torch.device("meta")``, where tensors have no memory.

    Raises:
        UnknownReferenceError: the reference leads nowhere.
        ModelError: what it leads to is no module and makes none, or nothing of it could be counted.
    """
    found = resolve(reference)
    model = found if isinstance(found, nn.Module) else _made(reference, found)
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"{reference} must be a torch.nn.Module, or a class or function that gives one without arguments; "
            f"received {type(model).__name__}."
        )
    lazy = [name for name, tensor in _named_tensors(model) if is_lazy(tensor)]
    if lazy:
        raise ModelError(
            f"{reference}: {lazy[0]} has no size before a first batch ({len(lazy)} such tensors). Have the function "
            "call the model on one before it returns it: on torch.empty(...) it costs nothing there."
        )
    for name, param in model.named_parameters():
        if param.requires_grad and param.dtype not in weight_dtypes():
            served = ", ".join(map(_spelled, weight_dtypes()))
            raise ModelError(f"{reference}: {name} has dtype {_spelled(param.dtype)}; trained weights are of {served}.")
    if not any(param.requires_grad for param in model.parameters()):
        raise ModelError(f"{reference}: the {type(model).__name__} has no trainable parameters.")
    return model


def _made(reference: str, maker: Any) -> Any:
    if not callable(maker):
        return maker
    try:
        inspect.signature(maker).bind()
    except TypeError as error:
        raise ModelError(
            f"{reference} is called without arguments: {error}. Give a function that calls it with some."
        ) from error
    try:
        with torch.device("meta"):
            return maker()
    except (Exception, SystemExit) as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}, line {frame.lineno}"
        raise ModelError(
            f"{reference}() failed on the meta device, where tensors have no values: {one_line(error)} ({place}). "
            'Where it needs values, write `with torch.device("cpu"):` within it: then its tensors are allocated once.'
        ) from error


def known_dtype(name: str | None) -> torch.dtype | None:
    """The dtype of weights by name, None where none is given.

    Raises:
        UsageError: weights have no such dtype.
    """
    dtypes = {_spelled(dtype): dtype for dtype in weight_dtypes()}
    if name is not None and name not in dtypes:
        raise UsageError(f"unknown dtype {name!r}. Choose one of {', '.join(dtypes)}.")
    return None if name is None else dtypes[name]


def abstract_copy(model: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    """The same model on meta, its floating numbers in a dtype, its ties kept.

    Raises:
        ModelError: it cannot be copied.
    """
    own = {id(tensor): _abstract(tensor, dtype) for _, tensor in _named_tensors(model)}
    try:
        return copy.deepcopy(model, own)
    except Exception as error:
        raise ModelError(
            f"a {type(model).__name__} cannot be copied, as counting asks for: {one_line(error)}. Leave out what "
            "it computes of its parameters before a first batch, such as torch.nn.utils.weight_norm."
        ) from error


def _abstract(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    wanted = dtype if tensor.dtype in weight_dtypes() else None  # what is quantized stays so
    made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=wanted or tensor.dtype, device="meta")
    return nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made


def _named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return chain(model.named_parameters(), model.named_buffers())


def _spelled(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
