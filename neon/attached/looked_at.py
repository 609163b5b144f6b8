"""What an attached optimizer was seen to do: the table of the last step that was looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neon.assignment.sites import site_name
from neon.attached.evaluated import Evaluated
from neon.attached.layers_by_name import Layers
from neon.attached.observed import on_itself
from neon.attached.targets import Assigned
from neon.stepping.group_names import named_parameters, names_shown
from neon.stepping.looking import Looking

if TYPE_CHECKING:
    from neon.statistics.asked import Statistics
    from neon.statistics.table import StatisticsTable


class LookedAt(Evaluated):
    """The part of an attached optimizer that is looked at."""

    _assigned: Assigned
    _statistics: Statistics | None = None  # as it was asked for; of what was pickled before there were any, not
    _looking: Looking | None = None

    def _layers(self) -> Layers:
        return Layers(self, self._rules, self._assigned)

    @on_itself
    def statistics(self) -> StatisticsTable | None:
        """What the last step that was looked at did to each parameter; None where none was yet.

        Norms of gradient, weight and update, shares of elements that did not move or were clipped, factors of norms
        and rates, as `neon.statistics.Row` has them. A device is waited for. Where processes hold parts of parameters,
        they have put their sums together in the step: each may read by itself. Of parameters that are whole on one
        process, as under `ZeroRedundancyOptimizer`, that one has them.

        Raises:
            RuntimeError: statistics were not asked for.
        """
        from neon.statistics.seen_steps import table_of

        if self._looking is None:
            raise RuntimeError("No statistics are taken. Ask for them: attach(model, statistics=True).")
        self._stepper.close(self)
        return self._looking.last(lambda step, lines: table_of(step, lines, self._names_seen()))

    def _check_layers_seen(self) -> None:
        """Refuse layers that there are not."""
        for key in (self._statistics and self._statistics.layers) or ():
            self._layers().fitting(key)

    def _names_seen(self) -> dict[str | int, str]:
        """What the parameters are called that statistics are about, in the order of the model; see `names_shown`."""
        layers = None if self._statistics is None else self._statistics.layers
        every = names_shown(self.param_groups)
        if layers is not None:
            names = [name for group in self.param_groups for name, _ in named_parameters(group)]
            fitting = self._layers().fitting_any({*layers})
            every = {
                key: shown for key, shown in every.items() if (key if isinstance(key, str) else names[key]) in fitting
            }
        order: dict[Any, int] = {site_name(site): place for place, (site, _) in enumerate(self._assigned)}
        return dict(sorted(every.items(), key=lambda named: order.get(named[0], len(order))))
