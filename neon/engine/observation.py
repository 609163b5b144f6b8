"""What a step was seen to do: sums over each parameter, and numbers of its group, on the host or a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from neon.engine.settings import Item, Reach, Sharing

# What is known of a parameter, in the order of columns: how many elements, then the sums of a kernel in their order, of
# which the last may be missing. Those of its parts are added up, but for one: of the largest the largest counts.
SUMS: tuple[str, ...] = ("elements", "gradient", "weight", "update", "largest", "unmoved", "lost", "clipped")
LARGEST = SUMS.index("largest")


class Seen(NamedTuple):
    """What one batch has seen: the places of its members among the items of the plan, with a line for each of them.

    `sums` has the columns of `SUMS`; `columns` says where in `numbers` the factors of norms and the rate are. `clips`:
    whether values are clipped. `reach` is that of the members.
    """

    places: Tensor
    sums: Tensor
    numbers: Tensor
    columns: Mapping[str, int]
    clips: bool
    reach: Reach | None


class Line(NamedTuple):
    """What was seen of one parameter, by its name and its number among all: sums by name, and numbers."""

    name: str
    number: int
    sums: dict[str, float]
    numbers: dict[str, float]
    clips: bool


class Observation:
    """One step of a plan as its batches saw it. What processes hold parts of is put together at once, by all of them.

    A device is waited for when it is read, and not before; `stop` is the number by which it left the step out.
    """

    def __init__(self, items: Sequence[Item], seen: Sequence[Seen], stop: Tensor | None) -> None:
        self._members, self._seen = [(item.name, item.index) for item in items], seen
        self._stop = None if stop is None else stop.clone()
        for reach in dict.fromkeys(item.reach for item in items):
            if reach is not None and reach.alike:
                _put_together(cast("Sharing", reach), items, [each for each in seen if each.reach is reach])

    @property
    def left_out(self) -> bool:
        """Whether the device left the step out."""
        return self._stop is not None and bool(self._stop.item())

    def lines(self) -> list[Line]:
        """What was seen of each parameter that took part, in the order of the plan."""
        found: dict[int, Line] = {}
        for seen in self._seen:
            rows = zip(seen.places.tolist(), seen.sums.tolist(), _shortest(seen.numbers), strict=True)
            for place, sums, numbers in rows:
                named = {name: numbers[column] for name, column in seen.columns.items()}
                name, number = self._members[place]
                found[place] = Line(name, number, dict(zip(SUMS, sums, strict=True)), named, seen.clips)
        return [found[place] for place in sorted(found)]


def _shortest(numbers: Tensor) -> list[list[float]]:
    """Numbers as floats; of float32 the shortest decimal that is one: 0.001 and not 0.0010000000474974513."""
    if numbers.dtype == torch.float64:
        return numbers.tolist()
    return [[float(str(number)) for number in row] for row in numbers.cpu().numpy()]


def _put_together(reach: Sharing, items: Sequence[Item], seen: Sequence[Seen]) -> None:
    """Have the sums of parameters be those of all processes that hold parts of these, by one exchange for all.

    Where none of them had a gradient here, others may wait for this process.
    """
    device = next(item.param.device for item in items if item.reach is reach)
    table = torch.zeros(len(items), len(SUMS), dtype=torch.float64, device=device)
    for each in seen:
        table[each.places.to(device)] = each.sums.to(device)
    parts = torch.stack(reach.gather_tensors(table.flatten(), [table.numel()] * reach.size)).view(-1, *table.shape)
    whole = parts.sum(0)
    whole[:, LARGEST] = parts[..., LARGEST].amax(0)
    for each in seen:
        each.sums.copy_(whole[each.places.to(device)])
