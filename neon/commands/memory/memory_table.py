"""The table that ``neon memory`` prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from torch import nn

from neon.commands.memory.bytes_taken import Bytes
from neon.commands.memory.formats_compared import AS_GIVEN, Form
from neon.commands.memory.sizes import shown_bytes
from neon.commands.output import new_table, print_line

if TYPE_CHECKING:
    import torch

    from neon.commands.memory.memory_command import Request


@dataclass(frozen=True)
class Row:
    """An optimizer in a format: its peaks in each way, None where it cannot be had so, for the reasons in `refused`."""

    optimizer: str
    form: Form
    step: Bytes | None
    in_backward: Bytes | None
    sharded_step: Bytes | None
    sharded_in_backward: Bytes | None
    refused: Sequence[str]

    def peaks(self, ranks: int) -> dict[str, Bytes | None]:
        """The peaks by the heads of their columns."""
        peaks = {"step()": self.step, "in_backward": self.in_backward}
        if ranks > 1:
            peaks |= {f"{ranks} ranks: step()": self.sharded_step, f"{ranks} ranks: in_backward": self.sharded_in_backward}
        return peaks


def print_rows(
    console: Console,
    request: Request,
    model: nn.Module,
    dtype: torch.dtype | None,
    rows: Sequence[Row],
    room: int | None,
) -> None:
    """Print what is counted, the table, what it leaves out, and why some of it cannot be had."""
    params = [*model.parameters()]
    frozen = sum(param.numel() for param in params if not param.requires_grad)
    dtypes = dtype or " and ".join(dict.fromkeys(str(param.dtype).removeprefix("torch.") for param in params))
    several = len({row.optimizer for row in rows}) > 1
    title = (
        f"{request.model}: {sum(param.numel() for param in params):,} weights in {len(params)} tensors, "
        f"{str(dtypes).removeprefix('torch.')}" + f", {frozen:,} of them frozen" * bool(frozen)
    )
    print_line(console, title)
    if not several:
        print_line(console, rows[0].optimizer)
    caption = (
        "Peaks of optimizer.step() and of updates within the backward pass (in_backward=True). Activations are left out"
        + ", and what fully_shard gathers; of ranks the first, which has most" * (request.ranks > 1)
        + "."
    )
    table = new_table("", caption)
    heads = ("optimizer",) if several else ("weights", "states")
    for head in heads:
        table.add_column(head, overflow="fold")
    peaks = [*rows[0].peaks(request.ranks)]
    for head in ("weights", "gradients", "states", "beside", *peaks):
        table.add_column(head, justify="right")
    if room is not None:
        table.add_column(f"fits {request.device_memory}")
    for row in rows:
        table.add_row(*_cells(row, request.ranks, room, several=several), style="bold" if _is_given(row, several) else "")
    console.print(table)
    for reason in dict.fromkeys(reason for row in rows for reason in row.refused):
        print_line(console, f"– {reason}")
    if not request.optimizers:
        print_line(console, "Give one of them by --optimizer to see it in every format.")


def _is_given(row: Row, several: bool) -> bool:
    return row.form.weights == AS_GIVEN and not several


def _cells(row: Row, ranks: int, room: int | None, *, several: bool) -> list[str]:
    step, peaks = row.step, row.peaks(ranks)
    parts = (None,) * 4 if step is None else (step.weights, step.gradients, step.states, step.beside)
    cells = [row.optimizer] if several else [row.form.weights, row.form.states]
    cells += ["–" if part is None else shown_bytes(part) for part in parts]
    cells += ["–" if peak is None else shown_bytes(peak.total) for peak in peaks.values()]
    if room is not None:
        fitting = [head for head, peak in peaks.items() if peak is not None and peak.total <= room]
        cells.append("all" if len(fitting) == len(peaks) else ", ".join(fitting) or "no")
    return cells
