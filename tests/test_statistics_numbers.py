"""Statistics are the numbers by hand, of every rule, format and clip, on every backend; the bits are those without."""

from __future__ import annotations

import copy
from itertools import product
from typing import Any

import pytest
import torch
from pairs import crossed
from rule_cases import OPTIONS, RULES, gradients, make, weights
from seen_by_hand import assert_seen, by_hand, network, whole
from state_tensors import assert_same, tensors_of
from stored_formats import BITS, of_forms, of_rules, options

from neon.engine import use_backend
from neon.optimizers import (
    Adafactor,
    Adam,
    AdamW,
    MultiOptimizer,
    Muon,
    Prodigy,
)

pytestmark = pytest.mark.usefixtures("one_thread")
CLIPS = ("plain", "clip by value", "clip by norm", "both clips")


def looked_at(rule: str, option: str, dtype: torch.dtype, backend: str, **more: Any) -> None:
    """Three steps, of which all are looked at, beside three without: by hand, and to the bit."""
    params, others = weights(dtype, rule), weights(dtype, rule)
    clip = OPTIONS[option]
    with use_backend(backend):
        optimizer = make(rule, option, **more).attach(params, statistics=True, audit=False)
        other = make(rule, option, **more).attach(others, audit=False)
        for step in range(3):
            given = [*gradients(step, dtype, rule)]
            before = [whole(p, optimizer.state.get(p, {})) for p in params]
            for param, twin, grad in zip(params, others, given, strict=True):
                param.grad, twin.grad = grad, grad
            optimizer.step()
            other.step()
    after = [whole(p, optimizer.state[p]) for p in params]
    names = [f"group_0.{place}" for place in range(len(params))]
    norm, value = clip.get("gradient_clip_norm"), clip.get("gradient_clip_value")
    expected = by_hand(names, before, after, given, norms=[] if norm is None else [norm], value=value)
    assert_seen(optimizer.statistics(), expected)
    states = [
        [t for p in each.param_groups[0]["params"] for t in tensors_of(each.state[p])] for each in (optimizer, other)
    ]
    assert_same([*params, *states[0]], [*others, *states[1]])


@pytest.mark.parametrize(("rule", "option"), list(zip(RULES, CLIPS * len(RULES), strict=False)))
def test_every_rule_is_seen_as_it_is(rule: str, option: str) -> None:
    looked_at(rule, option, torch.float32, "numba")


CASES = [(*case, clip) for case in BITS for clip in CLIPS]


def of_rules_and_clips(*case: Any) -> tuple[Any, ...]:
    return *of_rules(*case[:-1]), case[-1]


def of_forms_and_clips(*case: Any) -> tuple[Any, ...]:
    return *of_forms(*case[:-1]), case[-1]


@pytest.mark.parametrize(
    ("rule", "form", "dtype", "rounds", "average", "clip"), crossed(CASES, of_rules_and_clips, of_forms_and_clips)
)
def test_every_rule_in_every_format_under_every_clip(
    rule: str, form: str, dtype: torch.dtype, rounds: bool | int, average: str | None, clip: str
) -> None:
    """By the backend that defines what others do; the bits of these are those of that."""
    looked_at(rule, clip, dtype, "eager", stochastic_round=rounds, **options(rule, form, average))


FORMATS = {
    "int8": {"state_dtype": "int8"},
    "mixed": {"state_dtype": {"exp_avg": "int8", "exp_avg_sq": "bfloat16"}},
    "at random": {"stochastic_round": True},
    "at random, int8": {"stochastic_round": True, "state_dtype": "int8"},
    "to nearest": {},
    "averaged": {"weight_average": 0.75},
}
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


EVERY = [case for case in product(FORMATS, DTYPES) if "random" not in case[0] or case[1] != torch.float64]


@pytest.mark.parametrize(("form", "dtype"), EVERY)
def test_every_format_compiled(form: str, dtype: torch.dtype) -> None:
    place = [*FORMATS].index(form) + DTYPES.index(dtype)
    looked_at("adam", CLIPS[place % 4], dtype, "numba", **FORMATS[form])


@pytest.mark.parametrize("rule", ["adafactor", "adam", "lars", "prodigy", "muon"])
def test_split_weights_rows_and_sums(rule: str) -> None:
    split = {"master": "split"} if rule == "adam" else {}
    looked_at(rule, "both clips", torch.bfloat16 if split else torch.float32, "numba", **split)


ON_DEVICES: dict[str, tuple[Any, torch.dtype]] = {
    "adam": (Adam(gradient_clip_norm=0.5, gradient_clip_value=0.01), torch.float32),
    "adam, int8, at random": (Adam(True, state_dtype="int8"), torch.bfloat16),
    "adam, float64": (Adam(), torch.float64),
    "adam, split": (Adam(master="split"), torch.bfloat16),
    "adafactor": (Adafactor(), torch.float32),
    "adafactor, clipped": (Adafactor(gradient_clip_value=0.01), torch.float16),
    "muon": (MultiOptimizer({"default": AdamW(), "0.weight": Muon(units="float32")}), torch.float32),
    "prodigy": (Prodigy(), torch.float32),
}


@pytest.mark.parametrize("case", ON_DEVICES)
def test_devices_see_what_the_processor_does(case: str) -> None:
    description, dtype = ON_DEVICES[case]
    tables = []
    for backend in ("triton", "eager"):
        model = network().to(dtype)
        with use_backend(backend):
            optimizer = copy.deepcopy(description).attach(model, statistics=True)
            for step in range(2):
                for number, param in enumerate(model.parameters()):
                    generator = torch.Generator().manual_seed(10 * step + number)
                    param.grad = torch.randn(param.shape, generator=generator).to(dtype)
                optimizer.step()
        tables.append(optimizer.statistics())
    assert_seen(*tables)
