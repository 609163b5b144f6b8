"""How states and weights may be kept: the formats of every rule, and training in them."""

from __future__ import annotations

from typing import Any

import torch
from rule_cases import OF_DISTANCE, RULES, VIEWED, WITH_VIEW, PlainLayer, gradients, make, weights
from state_tensors import tensors_of
from torch import Tensor

from neon.engine import use_backend
from neon.engine.program import formats
from neon.engine.program.spaces import PAIRS

# Those of the table that have fewer bits than arithmetic, several of them at once, and split weights.
_TABLE = dict.fromkeys(form.name for form in formats.FORMATS.values())
FORMATS = [*(name for name in _TABLE if name not in ("float32", "float64")), "mixed", "split"]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def states_of(rule: str) -> list[str]:
    optimizer = make(rule, "plain")
    return [*optimizer.settings(optimizer.group()).program.states]


def is_served(rule: str, form: str, dtype: torch.dtype, rounds: bool | int, average: str | None) -> bool:
    """Whether a rule can be had so."""
    whole = form == "split" or dtype == torch.float32
    if rule in WITH_VIEW and average is not None:
        return False
    if rule in VIEWED:
        return whole
    return rule not in OF_DISTANCE or rounds is not False or whole


def moments_of(rule: str) -> list[str]:
    """The states of a rule but those that few bits are not enough for: weights, single numbers, squares of matrices."""
    optimizer = make(rule, "plain")
    states = optimizer.settings(optimizer.group()).program.states
    return [
        name for name, state in states.items() if not (state.starts_as_weight or state.is_scalar or state.of in PAIRS)
    ]


def of_rules(rule: str, form: str, dtype: torch.dtype, rounds: bool | int, average: str | None) -> tuple[Any, ...]:
    """A case of `BITS` by what depends on a rule: a crossing has these two by two."""
    bits = {"float32": 32, "bfloat16": 16, "float16": 16}.get(form, 8)
    return rule, dtype, bool(rounds), bits, average


def of_forms(rule: str, form: str, dtype: torch.dtype, rounds: bool | int, average: str | None) -> tuple[Any, ...]:
    """The same by what does not."""
    return form, dtype, bool(rounds), average, bool(states_of(rule))


def options(rule: str, form: str, average: str | None = None) -> dict[str, Any]:
    """The arguments by which a rule keeps its states so, and the average of its weights in a format or none."""
    formats: Any = {"split": "int8"}.get(form, form)
    if form == "mixed":  # the last state stays float32
        formats = dict(zip(moments_of(rule)[:-1], ["int8", "bfloat16"], strict=False))
    if average is not None:
        named = formats if form == "mixed" else dict.fromkeys(moments_of(rule), formats)
        formats = {**named, "weight_average": average}
    more = {"weight_average": 0.75} if average is not None else {}
    return {"state_dtype": formats, **({"master": "split"} if form == "split" else {}), **more}


def train(
    rule: str,
    how: str,
    dtype: torch.dtype,
    *,
    backend: str = "numba",
    option: str = "plain",
    steps: int = 3,
    **more: Any,
) -> list[Tensor]:
    """The weights after some steps, and everything that is kept beside them."""
    params, opt = weights(dtype, rule), make(rule, option, **more)
    layer = PlainLayer(params)
    with use_backend(backend):
        attached = opt.attach(params, audit=False) if how == "attach" else None
        for step in range(steps):
            for param, grad in zip(params, gradients(step, dtype, rule), strict=True):
                param.grad = grad
            if attached is None:
                opt.optimize([layer], 0)
            else:
                attached.step()
    kept = [s for states in layer.states for s in states]
    if attached is not None:
        kept = [t for p in params for t in tensors_of(attached.state[p])]
    return [*(p.detach() for p in params), *kept]


# Every rule in every format; weights' formats, rounding and averages take turns. Adam's states meet all formats of
# weights.
ROUNDS = [False, True, 5, False]
AVERAGES = [None, "bfloat16", "float32"]
BITS = [
    (
        rule,
        form,
        torch.bfloat16 if form == "split" else DTYPES[(i + j) % 3],
        form != "split" and ROUNDS[(i + j) % 4],
        AVERAGES[(i // 3 + j) % 3],
    )
    for i, rule in enumerate(RULES)
    for j, form in enumerate(FORMATS)
    if states_of(rule) or form == "split"
]
BITS += [
    ("adam", form, dtype, ROUNDS[i + j], AVERAGES[i])
    for i, form in enumerate(("int8", "mixed"))
    for j, dtype in enumerate(DTYPES)
]
# An average of the weights beside states that stay whole, or none at all.
BITS += [(rule, "float32", torch.bfloat16, False, average) for rule in RULES for average in AVERAGES[1:]]
BITS = [case for case in BITS if is_served(*case)]
BITS += [
    (rule, form, torch.float32, False, None) for rule in RULES for form in FORMATS if rule in WITH_VIEW | OF_DISTANCE
]
