"""The plans of a stepper over layer lists: one for each list of layers, as long as these live."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from neon.assignment.seen_layers import Glance
from neon.engine.counts import Counts
from neon.engine.plan import Plan
from neon.engine.settings import Item
from neon.engine.tensors.watch import same_objects
from neon.engine.versions import uncompiled
from neon.stepping.steady_lists import SteadyLayers
from neon.stepping.update_counts import Moves, keep_update_count, update_count

# So many plans of different layers are kept: of the halves of a generative pair, of parts that are stepped by turns.
_MOST = 8


class LayerPlan:
    """A plan with the keys of the mapping that it goes by.

    `held` is what the lists of states held after its last step, in order: all of it, states or not.
    """

    def __init__(self, plan: Plan, keys: list[str]) -> None:
        self.plan = plan
        self.keys = keys
        self.held: list[Any] = []
        self.layers: dict[int, weakref.ref[Any] | None] = {}  # by their id; None for what has no weak references
        self.steady: SteadyLayers | None = None  # once the plan has held
        self._moves = -1  # of counts, when those of the plan were looked at last
        self.take_counts()

    def take_counts(self) -> None:
        """Count the plan's tensors from where others have counted them to: another optimizer, a file."""
        if self._moves == Moves.made:
            return
        counts = self.plan.counts
        assert isinstance(counts, Counts)
        for place, (item, own) in enumerate(zip(self.plan.items, counts.exact, strict=True)):
            count = update_count(_holder(item))
            if count is not own:
                counts.set(place, float(count))
                keep_update_count(_holder(item), own)
        self._moves = Moves.made

    @property
    def updates(self) -> int:
        """The number of updates that its parameters have had."""
        return max((int(update_count(_holder(item))) for item in self.plan.items), default=0)


class LayerPlans:
    """Plans for lists of layers. They hold parameters, so each goes with the first of its layers that is gone."""

    def __init__(self) -> None:
        self._kept: list[LayerPlan] = []

    @property
    def updates(self) -> int:
        """The number of updates that the layers of the last step have had; 0 where there was none."""
        return self._kept[-1].updates if self._kept else 0

    def take(self, params: Sequence[Tensor]) -> LayerPlan | None:
        """The plan for these parameters, if there is one, which is kept no longer: a step may break it."""
        for kept in reversed(self._kept):
            if same_objects(params, kept.plan.params):
                self.let_go(kept)
                return kept
        return None

    def fitting(self, glance: Glance) -> tuple[LayerPlan, SteadyLayers] | None:
        """The plan whose last step has read the same of its layers, with what that has found."""
        for kept in reversed(self._kept):
            if kept.steady is not None and kept.steady.fits(glance):
                return kept, kept.steady
        return None

    def forget_steady(self) -> None:
        """Have the next steps find everything anew."""
        for kept in self._kept:
            kept.steady = None

    def let_go(self, plan: LayerPlan) -> None:
        """Keep a plan no longer."""
        self._kept[:] = [other for other in self._kept if other is not plan]

    def keep(self, plan: LayerPlan, layers: Sequence[Any]) -> None:
        """Keep a plan until one of its layers is gone or comes in another plan."""
        if not plan.layers:
            mine, own = weakref.ref(plan), {id(layer): layer for layer in layers}
            self._kept[:] = [other for other in self._kept if not other.layers.keys() & own.keys()][1 - _MOST :]
            let_go = partial(_let_go, self._kept, mine)
            plan.layers = {
                key: weakref.ref(layer, let_go) if type(layer).__weakrefoffset__ else None for key, layer in own.items()
            }
        self.keep_again(plan)

    def keep_again(self, plan: LayerPlan) -> None:
        """Keep a plan of the same layers as before, as the last that was stepped."""
        self._kept.append(plan)


@uncompiled
def _let_go(plans: list[LayerPlan], gone: Callable[[], LayerPlan | None], _layer: Any = None) -> None:
    """Remove a plan, which a layer that was collected meanwhile may have removed already."""
    plans[:] = [kept for kept in plans if kept is not gone()]


def _holder(item: Item) -> Tensor:
    """The tensor that keeps the count of an item's updates: that of its states that comes first, if it has any."""
    return next(iter(item.kept.values()), item.param)
