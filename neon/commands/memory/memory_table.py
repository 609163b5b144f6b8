"""The table that ``neon memory`` prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text
from torch import nn

from neon.commands.memory.bytes_taken import Bytes
from neon.commands.memory.formats_compared import AS_GIVEN, Form
from neon.commands.memory.sizes import in_unit, unit_for
from neon.commands.output import new_table, print_line

if TYPE_CHECKING:
    import torch

    from neon.commands.memory.memory_request import Request

# Characters: of a console that everything has room on, and of a label's word that is not broken.
_WIDE, _LONGEST = 10_000, 36


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
        whole = {"step()": self.step, "in\nbackward": self.in_backward}
        parts = {f"step()\nof {ranks}": self.sharded_step, f"backward\nof {ranks}": self.sharded_in_backward}
        return whole | parts if ranks > 1 else whole


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
    unit = unit_for(max(peak.total for row in rows for peak in row.peaks(request.ranks).values() if peak is not None))
    table = new_table("")
    labels = [row.optimizer if several else row.form.states for row in rows]
    longest = max(len(word) for label in labels for word in label.split())
    table.add_column("optimizer" if several else "weights, states", overflow="fold", min_width=min(longest, _LONGEST))
    for head in ("weights", "grads", "states", "beside", *rows[0].peaks(request.ranks)):
        table.add_column(head, justify="right", no_wrap=True)
    weights = AS_GIVEN
    for row in rows:
        if row.form.weights != weights:
            weights = row.form.weights
            table.add_section()
            table.add_row(weights)
        style = "bold" if row.form.states == AS_GIVEN and not several else ""
        label = row.optimizer if several else f"{'' if weights == AS_GIVEN else '  '}{row.form.states}"
        table.add_row(Text(label), *_cells(row, request.ranks, unit, room), style=style)
    for between in (1, 0):  # closer together where there is no room
        table.padding = (0, between, 0, 0)
        needed = console.measure(table, options=console.options.update(width=_WIDE))
        if needed.maximum <= console.width:
            break
    table.width = needed.with_maximum(max(console.width, needed.minimum)).maximum
    console.print(table, crop=False)
    left_out = "activations" + " and what fully_shard gathers" * (request.ranks > 1)
    print_line(
        console, f"In {unit}: the peaks of optimizer.step() and of updates with in_backward=True, without {left_out}."
    )
    if request.ranks > 1:
        print_line(console, f"Of {request.ranks} ranks the first is shown, which has most.")
    if room is not None:
        print_line(console, f"* fits in {request.device_memory}.")
    for reason in dict.fromkeys(reason for row in rows for reason in row.refused):
        print_line(console, f"– {reason}")


def _cells(row: Row, ranks: int, unit: str, room: int | None) -> list[str]:
    step = row.step
    parts = (None,) * 4 if step is None else (step.weights, step.gradients, step.states, step.beside)
    cells = ["–" if part is None else in_unit(part, unit) for part in parts]
    for peak in row.peaks(ranks).values():
        fits = room is not None and peak is not None and peak.total <= room
        cells.append("–" if peak is None else in_unit(peak.total, unit) + "*" * fits)
    return cells
