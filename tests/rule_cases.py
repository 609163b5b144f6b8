"""The table that the tests of rules share: rules × options × dtypes, and how one case is run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from typing import Any

import numpy as np
import reference
import torch
from reference import REFERENCES, Array, Hyper
from state_tensors import assert_same

import neon.optimizers
from neon.engine import use_backend

STEPS = 20
EXPORTED = {name: made for name, made in REFERENCES.items() if made.shared and hasattr(neon.optimizers, name)}

# name: (class here and in `reference`, hyper-parameters under neon's names)
RULES: dict[str, tuple[str, Hyper]] = {
    case: (name, numbers)
    for name, made in EXPORTED.items()
    for case, numbers in ({name.lower(): {}} if "cases" not in vars(made) else made.cases).items()
}
TUNED: dict[str, tuple[str, Hyper]] = {
    case: (name, numbers) for name, made in EXPORTED.items() for case, numbers in vars(made).get("tuned", {}).items()
}

# Rules whose weights at evaluation are computed from the weights, of which 16 bits are too few.
VIEWED = {case for case, (name, _) in (RULES | TUNED).items() if name == "ScheduleFree"}
# Rules that say themselves what is evaluated, beside which there is no average.
WITH_VIEW = {case for case, (name, _) in (RULES | TUNED).items() if name in ("Lookahead", "ScheduleFree")}
# Rules that take matrices alone: vectors of the table are one row each for them.
OF_MATRICES = {case for case, (name, _) in (RULES | TUNED).items() if REFERENCES[name].matrices}
# Rules that go by how far weights have moved, which of 16 bits have to be rounded at random.
OF_DISTANCE = {case for case, (name, _) in (RULES | TUNED).items() if name == "Prodigy"}

# the gradients' norm is about 265, 80 and 26 in turn: a bound of 100 bites at one step in three
OPTIONS: dict[str, Hyper] = {
    "plain": {},
    "clip by value": {"gradient_clip_value": 0.5},
    "clip by norm": {"gradient_clip_norm": 100.0},
    "both clips": {"gradient_clip_value": 0.5, "gradient_clip_norm": 100.0},
    "weight decay": {"wdecay": 0.1},
    "parameter clip": {"param_clip_value": 0.9},
    "batch of 8": {"batch_size": 8},
    "all": {
        "batch_size": 8,
        "gradient_clip_value": -0.06,
        "gradient_clip_norm": 12.0,
        "wdecay": 0.1,
        "param_clip_value": -0.9,
    },
}

CASES = [(rule, option) for rule in RULES for option in OPTIONS]
CASES += [(rule, option) for rule in TUNED for option in ("plain", "all")]


def switches(option: str) -> list[bool]:
    """Which of all options it switches on: features that a crossing has two by two."""
    return [name in OPTIONS[option] for name in OPTIONS["all"]]


# 70001 elements cross the border of a chunk; the layouts are those that torch's modules hold
SHAPES: list[tuple[tuple[int, ...], str]] = [
    ((), "contiguous"),
    ((0,), "contiguous"),
    ((1,), "contiguous"),
    ((7,), "contiguous"),
    ((3, 5), "contiguous"),
    ((17, 33), "contiguous"),
    ((70001,), "contiguous"),
    ((5, 4), "transposed"),
    ((2, 3, 4, 5), "channels last"),
    ((6, 9), "gradient transposed"),
    ((4, 6), "gradient expanded"),
]
DISTINCT = 997  # so many different elements, repeated: few enough that none sits on a rounding tie


def lay_out(x: torch.Tensor, layout: str) -> torch.Tensor:
    """The same values under another layout."""
    if layout == "transposed":
        return x.t().contiguous().t()
    if layout == "channels last":
        return x.contiguous(memory_format=torch.channels_last)
    return x


@dataclass(frozen=True)
class Data:
    """Weights and, for every step, gradients; all of them exact in float32."""

    weights: list[Array]
    gradients: list[list[Array]]


@lru_cache(maxsize=1)
def data() -> Data:
    rng = np.random.default_rng(20240229)
    values = rng.standard_normal((STEPS + 1, DISTINCT)).astype(np.float32).astype(np.float64)
    values[1:, 0] = 0.0  # an element that never gets a gradient
    values[2::3] *= 0.25
    values[3::3] *= 0.125
    rows = [[np.resize(np.roll(row, 31 * i), shape) for i, (shape, _) in enumerate(SHAPES)] for row in values]
    for row in rows[1:]:
        row[-1][...] = row[-1].flat[0]  # the expanded gradient: one number for all
    return Data(rows[0], rows[1:])


def taken(x: Array, rule: str | None) -> Array:
    """A tensor as a rule takes it."""
    return np.atleast_2d(x) if rule in OF_MATRICES else x


def weights(dtype: torch.dtype, rule: str | None = None) -> list[torch.nn.Parameter]:
    """Fresh parameters, one for each of `SHAPES`, as the rule takes them."""
    return [
        torch.nn.Parameter(lay_out(torch.tensor(taken(w, rule), dtype=dtype), layout))
        for w, (_, layout) in zip(data().weights, SHAPES, strict=True)
    ]


def gradients(step: int, dtype: torch.dtype, rule: str | None = None) -> Iterator[torch.Tensor]:
    """Fresh gradients of a step, in their own layouts."""
    for g, (shape, layout) in zip(data().gradients[step], SHAPES, strict=True):
        tensor = torch.tensor(taken(g, rule), dtype=dtype)
        if layout == "gradient expanded":
            yield tensor[0, 0].expand(shape)
        elif layout == "gradient transposed":
            yield lay_out(tensor, "transposed")
        else:
            yield lay_out(tensor, layout)


class PlainLayer:
    """What `optimize` asks of a layer, and nothing more."""

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        self.parameters = parameters
        self.states: list[list[torch.Tensor]] = [[] for _ in parameters]

    def get_params(self) -> list[tuple[tuple[torch.Tensor, Any], list[torch.Tensor]]]:
        return [((p.detach(), p.grad), s) for p, s in zip(self.parameters, self.states, strict=True)]


def make(rule: str, option: str, **more: Any) -> Any:
    """neon's optimizer of a case; the batch size belongs to the backend and is left out."""
    name, hyper = (RULES | TUNED)[rule]
    chosen = {k: v for k, v in OPTIONS[option].items() if k != "batch_size"}
    return made(name, **{**hyper, **chosen, **more})


def made(name: str, **arguments: Any) -> Any:
    """neon's optimizer of a class of `reference`, by the arguments of that."""
    found = getattr(neon.optimizers, name)
    if not issubclass(found, neon.optimizers.Transform):
        return found(**arguments)
    words = ("learning_rate", "beta_1", "beta_2", "epsilon", "wdecay")
    first = {"learning_rate": 0.0025, "wdecay": 0.0} if name == "ScheduleFree" else {}
    inner: dict[str, Any] = first | {k: arguments.pop(k) for k in words if k in arguments}
    return found(neon.optimizers.AdamW(**inner), **arguments)


def make_reference(rule: str, option: str, **more: Any) -> reference.Reference:
    name, hyper = (RULES | TUNED)[rule]
    return REFERENCES[name](**{**hyper, **OPTIONS[option], **more})


@dataclass
class Result:
    """Where a run ended: the tensors, and of each its states in SPEC's order."""

    weights: list[torch.Tensor]
    states: list[list[torch.Tensor]]

    def tensors(self) -> list[torch.Tensor]:
        return [*self.weights, *(s for states in self.states for s in states)]


def run(rule: str, option: str, dtype: torch.dtype, *, backend: str, how: str, steps: int = STEPS) -> Result:
    """`steps` updates by neon, the epoch moving on every third step."""
    params = weights(dtype, rule)
    opt = make(rule, option)
    bsz = opt.be.bsz
    layer = PlainLayer(params)
    with use_backend(backend):
        attached = opt.attach(params) if how == "attach" else None
        opt.be.bsz = int(OPTIONS[option].get("batch_size", 1))
        try:
            for step in range(steps):
                for p, g in zip(params, gradients(step, dtype, rule), strict=True):
                    p.grad = g
                if attached is None:
                    opt.optimize([layer], step // 3)
                else:
                    attached.set_epoch(step // 3)
                    attached.step()
        finally:
            opt.be.bsz = bsz
    by_hand = make_reference(rule, option)
    counts = [len(by_hand.first_states(p.detach().double().numpy())) for p in params]
    states = layer.states if attached is None else [moments(attached, p) for p in params]
    return Result([p.detach() for p in params], [s[:count] for s, count in zip(states, counts, strict=True)])


def moments(attached: torch.optim.Optimizer, p: torch.Tensor) -> list[torch.Tensor]:
    """The states of an attached parameter, without the count of its steps."""
    return [s for name, s in attached.state[p].items() if name != "step"]


@dataclass
class Expected:
    """Where the reference ended, and the largest magnitude each tensor had on the way."""

    tensors: list[Array]
    scales: list[float]


@lru_cache(maxsize=1)
def expect(rule: str, option: str) -> Expected:
    """The same run by the reference, in float64."""
    ref = make_reference(rule, option)
    params = [taken(w, rule).copy() for w in data().weights]
    tensors = list(params)
    scales = [np.abs(w).max(initial=0.0) for w in params]
    for step in range(STEPS):
        ref.step(params, [taken(g, rule) for g in data().gradients[step]], step // 3)
        tensors = params + [s for i in range(len(params)) for s in ref.state[i]]
        sizes = [np.abs(x).max(initial=0.0) for x in tensors]
        scales = [max(pair) for pair in zip_longest(scales, sizes, fillvalue=0.0)]
    return Expected(tensors, scales)


def assert_same_bits(a: Result, b: Result, *, numbers: float = 0.0) -> None:
    """The same bits; float64 tensors of one number may differ by so many units in the last place."""
    assert_same(a.tensors(), b.tensors(), numbers=numbers)


SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, 1e-40, -1e-40, 3e38, -3e38, 1e-20, 1.0]


def after_special(rule: str, option: str, backend: str, *, steps: int) -> list[torch.Tensor]:
    """A weight and its states after steps with every pair of special values as weight and gradient."""
    every = torch.tensor(SPECIAL).repeat(len(SPECIAL))
    shape = (1, -1) if rule in OF_MATRICES else (-1,)
    p = torch.nn.Parameter(every.view(shape))
    with use_backend(backend):
        attached = make(rule, option).attach([p])
        for _ in range(steps):
            p.grad = torch.tensor(SPECIAL).repeat_interleave(len(SPECIAL)).view(shape)
            attached.step()
    return [p.detach(), *moments(attached, p)]


def assert_same_special(a: list[torch.Tensor], b: list[torch.Tensor]) -> None:
    """The same bits, so that −0 is not 0; those of a NaN are the processor's own affair."""
    for x, y in zip(a, b, strict=True):
        if x.dtype == torch.float64:  # one number
            torch.testing.assert_close(x, y, rtol=1e-15, atol=0, equal_nan=True)
            continue
        assert torch.equal(x.isnan(), y.isnan())
        assert torch.equal(x.nan_to_num(7.0).view(torch.int32), y.nan_to_num(7.0).view(torch.int32))
