"""What of an optimizer stays on its device, where graphs that are replayed go on with it: counts, steps left out."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from neon.engine.backends import capture
from neon.engine.backends.triton_launch import NUMBER_ROWS, Launch
from neon.engine.counts import Exact, is_somebodys, known_counts, mark_movable, notes_on
from neon.engine.settings import Item


class Block:
    """Counts that were made together: exact ones in float64, and as the float32 that torch's formats know as `step`."""

    def __init__(self, exact: Exact, shown: npt.NDArray[np.float32], device: torch.device) -> None:
        self.exact = torch.from_numpy(exact).to(device)
        self.shown = mark_movable(torch.from_numpy(shown).to(device))
        notes_on(self.shown)["_neon_block"] = weakref.ref(self)
        self._expected = self.shown._version

    def unchanged(self) -> bool:
        """Whether nobody else has written to them; what neon's own kernel writes shows in no version."""
        return self.shown._version == self._expected

    def reread(self) -> None:
        """Go by what somebody else has written."""
        rounded = self.exact.to(torch.float32)
        torch.where(rounded == self.shown, self.exact, self.shown.double(), out=self.exact)
        self._expected = self.shown._version


class Resident:
    """What all plans of one optimizer, and graphs that were captured of them, go by on a device.

    `stop` is not 0 where the step is left out; `skipped` counts such steps.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stop = torch.zeros(1, dtype=torch.float32, device=device)
        self.skipped = torch.zeros(1, dtype=torch.float64, device=device)
        self._in_graphs = False  # whether any graph goes on with what lies here
        self._left_out = False  # whether anybody has ever said that a step is to be left out
        self._last: DeviceCounts | None = None  # keeps the blocks that the next plan goes on with

    def follow(self, found: Tensor | None) -> None:
        """Leave out the step that begins if a number on the device, `found`, is not 0; graphs look at each replay."""
        capturing = capture.capturing(self.device)
        self._in_graphs |= capturing
        if found is not None:
            self.stop.copy_(found.detach().reshape(1))
            self.skipped.add_(self.stop != 0.0)
            self._left_out = True
        elif self._left_out or capturing:
            self.stop.zero_()

    def counts(self, items: Sequence[Item]) -> DeviceCounts:
        """The counts of these items, with what was written to them.

        Those that graphs may go on with stay where they are. Else new ones have all lie together: that is one launch.
        """
        each, places = [item.step for item in items], [self._place_of(item.step) for item in items]
        new = [number for number, place in enumerate(places) if place is None]
        if new:
            exact, shown = known_counts([items[number] for number in new])
            if not self._in_graphs:
                kept = [number for number, place in enumerate(places) if place is not None]
                rest = self._lying([each[number] for number in kept], [places[number] for number in kept]).read()
                exact, shown = np.append(exact, rest), np.append(shown, rest.astype(np.float32))
                new += kept
            block = Block(exact, shown, self.device)
            for offset, (number, step) in enumerate(zip(new, block.shown.unbind(), strict=True)):
                places[number] = block, offset
                if not is_somebodys(each[number], self.device):
                    each[number] = step
        self._last = self._lying(each, places)
        return self._last

    def _place_of(self, step: Tensor) -> tuple[Block, int] | None:
        """The block on this device that a count lies in, and where; None for what lies elsewhere."""
        noted = notes_on(step).get("_neon_block") if step.device == self.device else None
        block = None if noted is None else noted()
        return None if block is None else (block, int(step.storage_offset()))

    def _lying(self, each: list[Tensor], places: Sequence[Any]) -> DeviceCounts:
        counts = DeviceCounts(self, each, places)
        if not counts.unchanged():
            counts.reread()
        return counts


class DeviceCounts:
    """The counts of a plan's items, each a place in a block.

    They are read back only when a plan is made, gradients come and go, or states are saved. Tensors that are
    somebody's own, put into the states from outside, follow what their places show.
    """

    def __init__(self, resident: Resident, each: list[Tensor], places: Sequence[tuple[Block, int]]) -> None:
        self.resident, self.each = resident, each
        self._blocks = list({id(block): block for block, _ in places}.values())
        self._places = places
        self.addresses = np.array([block.exact.data_ptr() + 8 * place for block, place in places], np.int64)
        self._launches: list[Launch] = []
        shown = [block.shown[place] for block, place in places]
        followed = [(step, own) for step, own in zip(each, shown, strict=True) if step.data_ptr() != own.data_ptr()]
        self._others, self._shown = [step for step, _ in followed], [own for _, own in followed]
        self._versions = [-1] * len(followed)

    def unchanged(self) -> bool:
        """Whether nobody else has written to them since the last step."""
        return all(block.unchanged() for block in self._blocks) and self._versions == self._versions_now()

    def _versions_now(self) -> list[int]:
        return [step._version for step in self._others]

    def reread(self) -> None:
        """Go by what somebody else has written."""
        for step, own in zip(self._others, self._shown, strict=True):
            own.copy_(step)
        self._versions = self._versions_now()
        for block in self._blocks:
            block.reread()

    def read(self) -> Exact:
        """Their exact values, for which the device is waited for."""
        values = {id(block): block.exact.cpu().numpy() for block in self._blocks}
        return np.array([values[id(block)][place] for block, place in self._places], np.float64)

    def select(self, present: npt.NDArray[np.bool_]) -> None:
        """Have those counted, from now on, that a mask says."""
        chosen: dict[int, list[int]] = {id(block): [] for block in self._blocks}
        for (block, place), counted in zip(self._places, present, strict=True):
            if counted:
                chosen[id(block)].append(place)
        self._launches = [self._launch(block, chosen[id(block)]) for block in self._blocks if chosen[id(block)]]

    def _launch(self, block: Block, places: Sequence[int]) -> Launch:
        from neon.engine.backends.triton_intrinsics import count_up

        taken = torch.from_numpy(np.array(places, np.int64)).to(self.resident.device)
        tables = (block.exact, block.shown, taken, self.resident.stop, len(places))
        return Launch(count_up, (-(-len(places) // NUMBER_ROWS),), tables, ROWS=NUMBER_ROWS)

    def add_one(self) -> None:
        """Count an update, unless it was left out."""
        for launch in self._launches:
            launch()
        for step, own in zip(self._others, self._shown, strict=True):
            step.copy_(own)
        self._versions = self._versions_now()

    @property
    def kept_for_graphs(self) -> Any:
        """What a graph that counts works on."""
        return (self.resident, self._blocks, self._launches, self._others)
