"""Coefficients and scales of orthogonalized updates, by name.

A step of the iteration is X ← aX + b(XXᵀ)X + c(XXᵀ)²X, of X ← M/max(‖M‖, ε) at first; a schedule is (a, b, c) of each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Triple = tuple[float, float, float]

_SIMPLE = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024
_SAFETY = 1.02  # by which dion divides M besides: in the first step's coefficients here

# The names are NVIDIA's (Emerging-Optimizers), and so are the digits but for dion's. Its "aol" is left out: it is made
# for matrices that are scaled otherwise, and turns singular values around that are more than 0.88 of ‖M‖.
SCHEDULES: dict[str, tuple[Triple, ...]] = {
    "simple": (_SIMPLE,),
    "quintic": (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
    "polar_express": (  # Amsel et al. 2025, each but the last divided by 1.01 to its power
        (8.2051, -22.9019, 16.4607),
        (4.0664, -2.8612, 0.5184),
        (3.9096, -2.8234, 0.5250),
        (3.2856, -2.4153, 0.4853),
        (2.2779, -1.6198, 0.3985),
        (1.8726, -1.2307, 0.3585),
        (1.8564, -1.2132, 0.3568),
        (1.8750, -1.2500, 0.3750),
    ),
    "polar_express_dion": (  # of the same, for five steps and a safety of 0.02
        (8.156554524902461 / _SAFETY, -22.48329292557795 / _SAFETY**3, 15.878769915207462 / _SAFETY**5),
        (4.042929935166739, -2.808917465908714, 0.5000178451051316),
        (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
        (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
        (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
    ),
    "cans": (  # Grishina et al. 2025
        (8.4703, -25.1081, 18.6293),
        (4.1828, -3.1087, 0.5806),
        (3.9619, -2.9541, 0.5630),
        (3.2866, -2.4647, 0.5074),
        (2.2737, -1.6447, 0.4162),
    ),
    "deepseekv4": (_SIMPLE,) * 8 + ((2.0, -1.5, 0.5),) * 2,
    "cubic5": (
        (3.3656576, -3.3420992, 0.0),
        (2.5744352, -1.4957376, 0.0),
        (2.5368962, -1.4312570, 0.0),
        (2.4418906, -1.2764040, 0.0),
        (2.2230472, -0.9630650, 0.0),
    ),
}
# Those that begin anew after their last step, as NVIDIA's do; of others the last step is repeated.
CYCLES = frozenset({"quintic"})

# By the rows and columns of a matrix.
SCALES: dict[str, Callable[[int, int], float]] = {
    "original": lambda rows, columns: math.sqrt(max(1.0, rows / columns)),
    "match_rms_adamw": lambda rows, columns: 0.2 * math.sqrt(max(rows, columns)),
    "spectral": lambda rows, columns: math.sqrt(max(rows, columns)),
    "spectral_unclamped": lambda rows, columns: math.sqrt(rows / columns),
    "none": lambda _rows, _columns: 1.0,
}


def schedule(coefficients: str | Sequence[float], steps: int | None = None) -> list[Triple]:
    """The coefficients of each step: of a schedule by name, or of numbers, three for each step.

    None asks for the schedule's own number of steps. Fewer cut it; for more its last step is repeated, or it begins
    anew (`CYCLES`).

    >>> schedule((2.0, -1.5, 0.5), 2)
    [(2.0, -1.5, 0.5), (2.0, -1.5, 0.5)]
    >>> [a for a, _, _ in schedule("quintic", 6)], [a for a, _, _ in schedule("cans", 6)]
    ([4.0848, 3.9505, 3.7418, 2.8769, 2.8366, 4.0848], [8.4703, 4.1828, 3.9619, 3.2866, 2.2737, 2.2737])
    """
    if isinstance(coefficients, str):
        known = SCHEDULES[coefficients]
    else:
        numbers = [*map(float, coefficients)]
        known = tuple(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True))
    count, cycles = len(known), isinstance(coefficients, str) and coefficients in CYCLES
    return [known[i % count if cycles else min(i, count - 1)] for i in range(count if steps is None else steps)]
