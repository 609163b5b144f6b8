"""Schedules: from the initial learning rate and the epoch (or step) to the learning rate.

A schedule is a function of its argument alone: asking twice, or out of order, gives the same answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, TypeGuard

from torch import Tensor

from neon.arguments import (
    epoch_number,
    giving_rates,
    non_negative,
    number,
    plain,
    positive,
    positive_integer,
    unit_interval,
    whole_number,
)
from neon.messages import received

Unit = Literal["epochs", "steps"]


class Schedule:
    """A constant rate, or one that changes by steps.

    - `Schedule()`: α.
    - `Schedule(step_config=[2, 6], change=0.5)`: α · change once for each listed epoch reached.
    - `Schedule(step_config=2, change=0.5)`: α · change^⌊epoch / step_config⌋.
    - `Schedule(step_config=[2, 6], change=[0.6, 0.4])`: *set* to 0.6 from epoch 2, to 0.4 from epoch 6.

    An empty list of epochs, such as `list(range(10, args.epochs))` for a shorter run, leaves the rate constant.

    >>> [Schedule(step_config=[2, 6], change=0.5).get_learning_rate(1.0, e) for e in (0, 2, 6)]
    [1.0, 0.5, 0.25]
    """

    unit: Unit = "epochs"

    def __init__(self, step_config: int | Sequence[int] | None = None, change: float | Sequence[float] = 1.0) -> None:
        self.step_config = step_config = plain(step_config)
        self.change = change = plain(change)
        if step_config is None:
            if change != 1.0:
                raise ValueError(f"change needs a step_config. {received('change', change)}")
        elif _is_list(step_config):
            self.step_config = _epochs("step_config", step_config)
            if isinstance(change, Sequence):
                self.change = _rates("change", change, len(step_config))
            else:
                self.change = non_negative("change", change)
        else:
            self.step_config = positive_integer("step_config", step_config)
            self.change = non_negative("change", change)

    def get_learning_rate(self, learning_rate: float, epoch: float) -> float:
        """The rate at `epoch`, counted from 0 in this schedule's `unit`; a Python float.

        Raises `TypeError` or `ValueError` for what is no number, and for an epoch that is negative or not finite.
        """
        given = learning_rate.item() if isinstance(learning_rate, Tensor) else learning_rate
        return float(self._rate(number("learning_rate", given), epoch_number(epoch)))

    def _rate(self, learning_rate: float, epoch: float) -> float:
        config, change = self.step_config, self.change
        if config is None:
            return learning_rate
        if isinstance(config, int):
            return learning_rate * _power(change, epoch // config)  # type: ignore[arg-type]
        reached = [i for i, start in enumerate(config) if epoch >= start]
        if isinstance(change, Sequence):
            return change[reached[-1]] if reached else learning_rate
        return learning_rate * _power(change, len(reached))

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({arguments})"

    def __eq__(self, other: Any) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(repr(self))


def is_constant(schedule: Any) -> bool:
    """Whether the rate never changes; it is then left to whoever else sets it."""
    return type(schedule) is Schedule and not schedule.step_config


def _power(base: float, exponent: float) -> float:
    """base^exponent of numbers that are not negative; an infinity, which no step takes, where it is too large."""
    try:
        return base**exponent
    except OverflowError:
        return math.inf


def rate(schedule: Any, learning_rate: float, epoch: float, updates: int) -> float:
    """The learning rate, by the epoch or the number of updates: what the schedule counts in."""
    giving_rates("schedule", schedule)
    return plain(schedule.get_learning_rate(learning_rate, updates if counts_steps(schedule) else epoch))


def counts_steps(schedule: Any) -> bool:
    """Whether a schedule counts in steps; one of a user's own counts in epochs unless it says otherwise."""
    return getattr(schedule, "unit", "epochs") == "steps"


class StepSchedule(Schedule):
    """The rate is *set* to change[i] from epoch step_config[i] on; to multiply it, there is `PowerSchedule`.

    Raises `TypeError` for numbers in the place of lists, which look like torch's StepLR and mean something else.
    """

    def __init__(self, step_config: Sequence[int], change: Sequence[float]) -> None:
        epochs, rates = plain(step_config), plain(change)
        if not (_is_list(epochs) and _is_list(rates)):
            raise TypeError(
                "StepSchedule takes a list of epochs and a list of rates, which are set from these on. "
                f"{received('step_config', step_config)} {received('change', change)} StepSchedule([2], [0.5]) sets "
                "the rate to 0.5 from epoch 2; PowerSchedule(2, 0.5) multiplies it by 0.5 every 2 epochs, as torch's "
                "StepLR does."
            )
        super().__init__(epochs, rates)


class PowerSchedule(Schedule):
    """α · change^⌊epoch / step_config⌋: multiplied by `change` every `step_config` epochs."""

    def __init__(self, step_config: int, change: float) -> None:
        super().__init__(positive_integer("step_config", step_config), non_negative("change", change))


class ExpSchedule(Schedule):
    """α / (1 + decay · epoch), decay ≥ 0."""

    def __init__(self, decay: float) -> None:
        self.decay = non_negative("decay", decay)

    def _rate(self, learning_rate: float, epoch: float) -> float:
        return learning_rate / (1.0 + self.decay * epoch)


class PolySchedule(Schedule):
    """α (1 − epoch / total_epochs)^power, 0 from `total_epochs` on."""

    def __init__(self, total_epochs: int, power: float) -> None:
        self.total_epochs = positive_integer("total_epochs", total_epochs)
        self.power = positive("power", power)

    def _rate(self, learning_rate: float, epoch: float) -> float:
        return learning_rate * max(0.0, 1.0 - epoch / self.total_epochs) ** self.power


class ShiftSchedule(Schedule):
    """α · 2^(−shift_size · ⌊epoch / interval⌋)."""

    def __init__(self, interval: int, shift_size: int = 1) -> None:
        self.interval = positive_integer("interval", interval)
        self.shift_size = positive_integer("shift_size", shift_size)

    def _rate(self, learning_rate: float, epoch: float) -> float:
        return learning_rate * 2.0 ** (-self.shift_size * (epoch // self.interval))


class WarmupCosine(Schedule):
    """A linear rise over `warmup`, then half a cosine down to floor · α at `total` (Loshchilov & Hutter 2017).

        t < warmup:  α · (t + 1) / warmup
        then:        α · (floor + (1 − floor) · ½ (1 + cos(π · (t − warmup) / (total − warmup))))

    `warmup`, `total` and t count epochs, or steps with `unit="steps"`; `floor` is a fraction of α in [0, 1].

    >>> [round(WarmupCosine(2, 6).get_learning_rate(1.0, t), 4) for t in (0, 1, 2, 4, 6)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """

    def __init__(self, warmup: int, total: int, floor: float = 0.0, unit: Unit = "epochs") -> None:
        self.warmup = whole_number("warmup", warmup)
        self.total = positive_integer("total", total)
        self.floor = unit_interval("floor", floor)
        self.unit = _unit(unit)
        if self.total <= self.warmup:
            raise ValueError(
                f"total must be greater than warmup. {received('total', total)} {received('warmup', warmup)}"
            )

    def _rate(self, learning_rate: float, epoch: float) -> float:
        if epoch < self.warmup:
            return learning_rate * (epoch + 1) / self.warmup
        done = min(1.0, (epoch - self.warmup) / (self.total - self.warmup))
        cosine = 0.5 * (1 + math.cos(math.pi * done))
        return learning_rate * (self.floor + (1 - self.floor) * cosine)


class WarmupStableDecay(Schedule):
    """A linear rise, a constant stretch, a linear fall to floor · α (Hu et al. 2024, MiniCPM).

        t < warmup:            α · (t + 1) / warmup
        then for `stable`:     α
        then over `decay`:     α · (1 − (1 − floor) · k / decay), k counted from the start of the fall

    All counts are epochs, or steps with `unit="steps"`; `floor` is a fraction of α in [0, 1].

    >>> [WarmupStableDecay(2, 2, 4).get_learning_rate(1.0, t) for t in (0, 1, 3, 4, 6, 8)]
    [0.5, 1.0, 1.0, 1.0, 0.5, 0.0]
    """

    def __init__(self, warmup: int, stable: int, decay: int, floor: float = 0.0, unit: Unit = "epochs") -> None:
        self.warmup = whole_number("warmup", warmup)
        self.stable = whole_number("stable", stable)
        self.decay = positive_integer("decay", decay)
        self.floor = unit_interval("floor", floor)
        self.unit = _unit(unit)

    def _rate(self, learning_rate: float, epoch: float) -> float:
        if epoch < self.warmup:
            return learning_rate * (epoch + 1) / self.warmup
        done = min(1.0, max(0.0, (epoch - self.warmup - self.stable) / self.decay))
        return learning_rate * (1 - (1 - self.floor) * done)


def _is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _unit(value: Any) -> Unit:
    if value not in ("epochs", "steps"):
        raise ValueError(f"unit must be 'epochs' or 'steps'. {received('unit', value)}")
    return value


def _epochs(name: str, values: Sequence[Any]) -> list[int]:
    epochs = [whole_number(name, value) for value in values]
    if any(a >= b for a, b in pairwise(epochs)):
        raise ValueError(f"{name} must list epochs in increasing order. {received(name, list(values))}")
    return epochs


def _rates(name: str, values: Sequence[Any], count: int) -> list[float]:
    rates = [non_negative(name, number(name, value)) for value in values]
    if len(rates) != count:
        raise ValueError(
            f"{name} must hold one rate for each epoch of step_config ({count}). {received(name, list(values))}"
        )
    return rates
