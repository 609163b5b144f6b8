"""Muon (Jordan et al. 2024), as torch has it and as other libraries do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from neon.arguments import flag, non_negative, plain, positive, unit_interval, whole_number
from neon.engine.calls.coefficients import SCALES, SCHEDULES
from neon.engine.calls.ways import PROCESSORS, processor
from neon.engine.program.numbers import Number
from neon.messages import listed, received
from neon.optimizers.asgd import finite
from neon.optimizers.matrix_functions import orthogonalize
from neon.optimizers.optimizer import Optimizer


def muon(  # type: ignore[no-untyped-def]
    w, g, momentum_buffer,
    *, lr, momentum, weight_decay, nesterov, ns_coefficients, eps, ns_steps, adjust_lr_fn, units=None,
):  # fmt: skip
    """One step of Muon (Jordan et al. 2024): momentum, of each matrix that with all singular values near 1.

        momentum_buffer ← μ·momentum_buffer + (1−μ)·g
        u = momentum_buffer                            or, with `nesterov`, (1−μ)·g + μ·momentum_buffer
        O = s·p(u/max(‖u‖, ε))                         the polynomial p of the singular values; s by rows and columns
        w ← (1 − lr·λ)·w − lr·O

    p is `ns_steps` times aX + b(XXᵀ)X + c(XXᵀ)²X, with (a, b, c) of `ns_coefficients`, and s is `adjust_lr_fn`; `units`
    says for what processor the way there is chosen, which changes O by rounding alone.

    >>> numbers = dict(lr=0.1, momentum=0.9, weight_decay=0.5, ns_coefficients=(2.0, -1.5, 0.5), eps=0.5, ns_steps=1)
    >>> w, momentum_buffer = muon(2.0, 0.5, 0.1, **numbers, nesterov=False, adjust_lr_fn="original")
    >>> round(w, 8), round(momentum_buffer, 8)
    (1.84720675, 0.14)
    >>> round(muon(2.0, 0.5, 0.1, **numbers, nesterov=True, adjust_lr_fn="match_rms_adamw")[0], 8)
    1.88717439
    """
    momentum_buffer = momentum * momentum_buffer + (1 - momentum) * g
    update = (1 - momentum) * g + momentum * momentum_buffer if nesterov else momentum_buffer
    scale = adjust_lr_fn or "original"
    update = orthogonalize(update, ns_coefficients, eps=eps, steps=ns_steps, scale=scale, units=units)
    return (1 - lr * weight_decay) * w - lr * update, momentum_buffer


def coefficients(name: str, value: Any) -> str | tuple[float, ...]:
    """The name of a schedule, or three numbers for each of its steps."""
    found = plain(value)
    if isinstance(found, str):
        if found not in SCHEDULES:
            raise ValueError(f"{name} must be numbers, or one of {listed(SCHEDULES)}. {received(name, value)}")
        return found
    if not isinstance(found, (tuple, list)) or not found or len(found) % 3:
        raise ValueError(
            f"{name} must be the name of a schedule ({listed(SCHEDULES)}) or three numbers for each of its steps, such "
            f"as (2.0, -1.5, 0.5). {received(name, value)}"
        )
    return tuple(finite(f"{name}[{place}]", item) for place, item in enumerate(found))


def step_count(name: str, value: Any) -> int:
    """A whole number from 0 to 99."""
    if whole_number(name, value) > 99:
        raise ValueError(f"{name} must be less than 100. {received(name, value)}")
    return plain(value)


def scale_name(name: str, value: Any) -> str:
    """The name of a factor by rows and columns."""
    if not isinstance(value, str) or value not in SCALES:
        raise ValueError(f"{name} must be one of {listed(SCALES)}. {received(name, value)}")
    return value


def processor_units(name: str, value: Any) -> str | None:
    """None, or what a processor multiplies quickly."""
    if value not in (None, *PROCESSORS):
        raise ValueError(f"{name} must be None, for the processor at hand, or one of {listed(PROCESSORS)}. "
                         f"{received(name, value)}")  # fmt: skip
    return value


def with_units(values: dict[str, Any]) -> dict[str, Any]:
    """Values of a group with what the processor at hand is quick in, where they ask for that."""
    return values | {"units": values["units"] or processor()}


# By package, in what it differs from torch's defaults.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "torch": {},
    "keller_jordan": {"learning_rate": 0.02, "wdecay": 0.0},
    "moonshot": {"scale": "match_rms_adamw"},
    "dion": {
        "learning_rate": 0.01, "wdecay": 0.01, "nesterov": False, "ns_coefficients": "polar_express_dion",
        "epsilon": 1e-8, "scale": "spectral_unclamped",
    },
    "nvidia": {
        "learning_rate": 3e-4, "wdecay": 0.01, "nesterov": False, "ns_coefficients": "quintic", "epsilon": 1e-15,
        "scale": "spectral",
    },
    "timm": {
        "learning_rate": 0.02, "wdecay": 0.0, "nesterov": False, "ns_coefficients": "quintic",
        "scale": "match_rms_adamw",
    },
}  # fmt: skip


class Muon(Optimizer):
    """Muon (Jordan et al. 2024), for hidden matrices: momentum, with singular values that are all near 1.

        m' = μm + (1−μ)g;  u = (1−μ)g + μm', without `nesterov` m';  O = s·p(u/max(‖u‖, ε));  θ' = (1−αλ)θ − αO

    p is a polynomial of the singular values, that of `ns_coefficients` applied `ns_steps` times, and s a factor by
    rows and columns. A convolution is the matrix of its first dimension by all others, by whose shape s goes; `parts`
    says which weights are several matrices. Tensors of fewer than two dimensions are refused, and embeddings and output
    heads too, unless a key names them: `MultiOptimizer({"default": AdamW(), "HiddenMatrix": Muon()})` has another rule
    for all of these. The defaults are torch's; `Muon.preset("moonshot")` has another package's, and `PRESETS` lists
    them. Others add ε to ‖u‖, or keep m as a sum, 1/(1−μ) times as large: as long as μ stays, their steps are the same
    but for that ε. Groups have the `units` ("amx", "bfloat16", "float32") of the processor that they were made on, so
    that a run goes on elsewhere in the same way. The other options are `Optimizer`'s. Raises `ValueError` or
    `TypeError` for others.
    """

    of_matrices = True
    rule = staticmethod(muon)
    learning_rate = Number(1e-3, non_negative, "lr", "α ≥ 0")
    wdecay = Number(0.1, non_negative, "weight_decay", "λ ≥ 0")  # type: ignore[assignment]
    momentum_coef = Number(0.95, unit_interval, "momentum", "μ in [0, 1]")
    nesterov = Number(True, flag, meaning="Nesterov's form")
    ns_coefficients = Number(SCHEDULES["simple"][0], coefficients, meaning="(a, b, c) of each step, or a name for them")
    epsilon = Number(1e-7, positive, "eps", "ε > 0, the least ‖u‖ that is divided by")
    ns_steps = Number(5, step_count, meaning="how many steps, 0 to 99: a shorter schedule goes on")
    scale = Number("original", scale_name, "adjust_lr_fn", "s: √max(1, R/C) of R rows and C columns, or another name's")
    units = Number(None, processor_units, meaning="what a processor is quick in; None: that at hand", optional=True)

    def group(self) -> dict[str, Any]:
        return with_units(super().group())

    def scale_of(self, shape: tuple[int, int], values: Mapping[str, Any]) -> float:
        return SCALES[values["adjust_lr_fn"]](*shape)

    @classmethod
    def preset(cls, name: str, **arguments: Any) -> Self:
        """With the numbers of a package, where `arguments` do not say otherwise.

        "torch"; "keller_jordan"; "moonshot" (Liu et al. 2025); "dion" (Polar Express, Amsel et al. 2025); "nvidia" and
        "timm" (both with five triples in turn).

        >>> Muon.preset("moonshot", learning_rate=0.02).scale
        'match_rms_adamw'
        """
        if name not in PRESETS:
            raise ValueError(f"{cls.__name__} has no preset of this name. {received('name', name)} There are "
                             f"{listed(PRESETS)}.")  # fmt: skip
        return cls(**{**PRESETS[name], **arguments})
