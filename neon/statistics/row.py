"""What one step did to one parameter, or to the parameters of a layer together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from neon.engine.program.reductions import largest


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What one step did to one parameter; in a table by layer, to all parameters of a layer together.

    Attributes:
        parameter: its name; in a table by layer, the layer's.
        layer: the module's name, which is the parameter's without its last part; "" for those of the model itself.
        elements: how many there are.
        gradient_norm: of the gradient, unscaled and before clipping.
        weight_norm: of the stored weight, before the step.
        update_norm: of the stored weight after the step minus that before it.
        largest_gradient: the largest |g|.
        unmoved: share of the elements, 0 to 1, whose stored weight is the same after the step.
        lost: share of the elements whose stored weight is the same although their gradient is not zero.
        clipped: share of the elements that were clipped by value; None where the optimizer does not clip by value.
        clip_factors: what each clip by norm multiplied the gradient by, the outermost first; () where there is none.
        learning_rate: with `lr_scale` and schedule; None where the rule has none.
    """

    parameter: str
    layer: str
    elements: int
    gradient_norm: float
    weight_norm: float
    update_norm: float
    largest_gradient: float
    unmoved: float
    lost: float
    clipped: float | None = None
    clip_factors: tuple[float, ...] = ()
    learning_rate: float | None = None

    @property
    def update_to_weight(self) -> float:
        """The update's norm over the weight's: 0 where both are 0, inf where only the weight's is."""
        if self.weight_norm == 0:
            return self.update_norm if self.update_norm == 0 or math.isnan(self.update_norm) else math.inf
        return self.update_norm / self.weight_norm

    @property
    def clip_factor(self) -> float | None:
        """What all clips by norm together multiplied the gradient by; None where there is none."""
        return math.prod(self.clip_factors) if self.clip_factors else None


# What the layer of the model's own parameters is called where it is shown; its name is "".
THE_MODEL = "(model)"
# The columns of everything that is written, in their order.
COLUMNS = (
    "step",
    "parameter",
    "layer",
    "elements",
    "gradient_norm",
    "weight_norm",
    "update_norm",
    "update_to_weight",
    "largest_gradient",
    "unmoved",
    "lost",
    "clipped",
    "clip_factor",
    "clip_factors",
    "learning_rate",
)


# -- by layer --------------------------------------------------------------------------------------


def together(layer: str, rows: Sequence[Row]) -> Row:
    """The row of a layer: see `StatisticsTable.by_layer`."""
    elements = sum(row.elements for row in rows)

    def share(of: Callable[[Row], float | None]) -> float:
        found = math.fsum(row.elements * (of(row) or 0.0) for row in rows)
        return found / elements if elements else 0.0

    rates = {row.learning_rate for row in rows}
    return Row(
        parameter=layer,
        layer=layer,
        elements=elements,
        gradient_norm=_norm(row.gradient_norm for row in rows),
        weight_norm=_norm(row.weight_norm for row in rows),
        update_norm=_norm(row.update_norm for row in rows),
        largest_gradient=largest([row.largest_gradient for row in rows]),
        unmoved=share(lambda row: row.unmoved),
        lost=share(lambda row: row.lost),
        clipped=None if all(row.clipped is None for row in rows) else share(lambda row: row.clipped),
        clip_factors=min((row.clip_factors for row in rows if row.clip_factors), key=_strength, default=()),
        learning_rate=rates.pop() if len(rates) == 1 else None,
    )


def _norm(norms: Iterable[float]) -> float:
    """The root of the sum of squares, which neither overflows nor hides a NaN behind an infinity.

    >>> _norm([3.0, 4.0]), _norm([float("inf"), float("nan")])
    (5.0, nan)
    """
    norms = list(norms)
    return math.nan if any(map(math.isnan, norms)) else math.hypot(*norms)


def _strength(factors: tuple[float, ...]) -> float:
    product = math.prod(factors)
    return -math.inf if math.isnan(product) else product
