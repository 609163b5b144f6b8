"""How states and weights may be kept: the formats of every rule, and training in them."""

from __future__ import annotations

from typing import Any

import torch
from rule_cases import RULES, PlainLayer, gradients, make, weights
from state_tensors import tensors_of
from torch import Tensor

from neon.engine import use_backend
from neon.engine.program import formats

# Those of the table that have fewer bits than arithmetic, several of them at once, and split weights.
_TABLE = dict.fromkeys(form.name for form in formats.FORMATS.values())
FORMATS = [*(name for name in _TABLE if name not in ("float32", "float64")), "mixed", "split"]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def states_of(rule: str) -> list[str]:
    optimizer = make(rule, "plain")
    return [*optimizer.settings(optimizer.group()).program.states]


def features(rule: str, form: str, dtype: torch.dtype, rounds: bool | int) -> tuple[Any, ...]:
    """A case of `BITS`, with what a form is made of: a crossing has these two by two."""
    return rule, dtype, bool(rounds), "int8" if form in ("int8", "mixed", "split") else form, form == "split"


def options(rule: str, form: str) -> dict[str, Any]:
    if form == "split":
        return {"master": "split", "state_dtype": "int8"}
    if form == "mixed":  # the last state stays float32
        return {"state_dtype": dict(zip(states_of(rule)[:-1], ["int8", "bfloat16"], strict=False))}
    return {"state_dtype": form}


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
    params, opt = weights(dtype), make(rule, option, **more)
    layer = PlainLayer(params)
    with use_backend(backend):
        attached = opt.attach(params) if how == "attach" else None
        for step in range(steps):
            for param, grad in zip(params, gradients(step, dtype), strict=True):
                param.grad = grad
            if attached is None:
                opt.optimize([layer], 0)
            else:
                attached.step()
    kept = [s for states in layer.states for s in states]
    if attached is not None:
        kept = [t for p in params for t in tensors_of(attached.state[p])]
    return [*(p.detach() for p in params), *kept]


# Every rule in every format; weights' formats and rounding take turns. Adam's states meet all formats of weights.
ROUNDS = [False, True, 5, False]
BITS = [
    (rule, form, torch.bfloat16 if form == "split" else DTYPES[(i + j) % 3], form != "split" and ROUNDS[(i + j) % 4])
    for i, rule in enumerate(RULES)
    for j, form in enumerate(FORMATS)
    if states_of(rule) or form == "split"
]
BITS += [("adam", f, dtype, ROUNDS[i + j]) for i, f in enumerate(("int8", "mixed")) for j, dtype in enumerate(DTYPES)]
