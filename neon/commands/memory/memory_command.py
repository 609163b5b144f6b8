"""Runs ``neon memory``: finds the model, counts what each optimizer takes in each format, prints a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from rich.console import Console
from torch import nn

from neon.commands.errors import SettingsError, SpecError
from neon.commands.memory.abstract_model import abstract_copy, find_model, known_dtype
from neon.commands.memory.bytes_taken import Bytes, Units, at_step, in_backward
from neon.commands.memory.formats_compared import AS_GIVEN, Form, every_form
from neon.commands.memory.memory_request import Request
from neon.commands.memory.memory_table import Row, print_rows
from neon.commands.memory.sharded_model import ranks_by_name, shard
from neon.commands.memory.sizes import read_bytes
from neon.commands.memory.torch_step import torch_step
from neon.commands.optimizer_text import OptimizerSpec, parse_optimizer
from neon.commands.output import print_line

DEFAULT_OPTIMIZERS = (
    "GradientDescentMomentum(0.01, 0.9)",
    "AdamW()",
    "AdamW(state_dtype='int8')",
    "Lion()",
    "Adafactor()",
    'MultiOptimizer({"default": AdamW(), "HiddenMatrix": Muon()})',
)
MOST_RANKS = 100_000  # torch makes a list of them for each of its groups
DEVICES = ("cpu", "cuda", "xpu")


def run_command(request: Request, console: Console) -> list[Row]:
    """Count, and print; returns the rows. A single optimizer is shown in each format, others as they are written.

    Raises:
        UsageError: something in the request cannot be used.
    """
    if not 1 <= request.ranks <= MOST_RANKS:
        raise SettingsError(f"--ranks must be from 1 to {MOST_RANKS:,}; received {request.ranks}.")
    if request.device not in DEVICES:
        raise SettingsError(f"unknown device {request.device!r}. Choose one of {', '.join(DEVICES)}.")
    room = None if request.device_memory is None else read_bytes("--device-memory", request.device_memory)
    dtype = known_dtype(request.dtype)
    specs = [parse_optimizer(text) for text in request.optimizers or DEFAULT_OPTIMIZERS]
    model = find_model(request.model)
    with ranks_by_name(request.ranks) if request.ranks > 1 else nullcontext() as mesh:
        counted = Counted(model, torch.device(request.device), mesh)
        rows = [*_rows(counted, specs, dtype, chosen=bool(request.optimizers))]
    print_rows(console, request, model, dtype, rows, room)
    if not request.optimizers:
        print_line(console, "Give one optimizer by --optimizer to see it in every format.")
    return rows


def _rows(
    counted: Counted, specs: Sequence[OptimizerSpec], dtype: torch.dtype | None, *, chosen: bool
) -> Iterator[Row]:
    """The rows of optimizers; of those that nobody has `chosen` only where they can be had."""
    for spec in specs:
        given = Form(AS_GIVEN, AS_GIVEN, dtype)
        row = counted.row(spec, given)
        if row.step is None and chosen:
            raise SpecError(f"{spec.text} cannot be had for this model: {row.refused[0]}")
        if row.step is not None:
            yield row
        if len(specs) == 1:
            yield from counted.row_of_torch(spec, row)
            yield from (counted.row(spec, form) for form in every_form())


class Counted:
    """A model, whose copies in each dtype, whole and sharded over a mesh, are made once."""

    def __init__(self, model: nn.Module, device: torch.device, mesh: Any = None) -> None:
        self._model, self._device, self._mesh = model, device, mesh
        self._whole: dict[torch.dtype | None, nn.Module] = {}
        self._sharded: dict[torch.dtype | None, tuple[nn.Module, Units]] = {}

    def row(self, spec: OptimizerSpec, form: Form) -> Row:
        """What an optimizer takes in a format, in each way that it can be had; and why in others it cannot."""
        refused: list[str] = []

        def had(count: Callable[..., Bytes], model: nn.Module, *others: Any) -> Bytes | None:
            try:
                return count(spec.build(), model, form.values, self._device, *others)
            except (TypeError, ValueError) as error:
                refused.append(" ".join(str(error).split()))
                return None

        if form.dtype not in self._whole:
            self._whole[form.dtype] = abstract_copy(self._model, form.dtype)
        whole = self._whole[form.dtype]
        step, backward = had(at_step, whole), had(in_backward, whole, None)
        if self._mesh is None:
            return Row(spec.text, form, step, backward, None, None, refused)
        if form.dtype not in self._sharded:
            copied = abstract_copy(self._model, form.dtype)
            try:
                self._sharded[form.dtype] = copied, shard(copied, self._mesh)
            except (ValueError, RuntimeError) as error:  # NotImplementedError is one
                return Row(spec.text, form, step, backward, None, None, [*refused, f"fully_shard: {error}"])
        sharded, units = self._sharded[form.dtype]
        return Row(spec.text, form, step, backward, had(at_step, sharded), had(in_backward, sharded, units), refused)

    def row_of_torch(self, spec: OptimizerSpec, given: Row) -> Iterator[Row]:
        """What the class of torch.optim with the same rule takes, beside a row of this model; none if there is none."""
        found = torch_step(spec.build(), abstract_copy(self._model, given.form.dtype), self._device)
        if found is not None and given.step is not None:
            name, states, beside = found
            form = replace(given.form, states=name)
            yield Row(spec.text, form, replace(given.step, states=states, beside=beside), None, None, None, ())
