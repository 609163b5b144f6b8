"""Muon beside torch, timm, pytorch_optimizer, dion and muon-optimizer, which is Keller Jordan's file.

Packages iterate in bfloat16, and are wrong by a few per cent of their own steps for it. Theirs is compared in the
weight's format: their own lines, with the cast left out. What remains is rounding, and what they have otherwise: some
add ε to the norm, which is why it is 1e-30 in these rows. A row `as it is` shows how far the bfloat16 is from that.

NVIDIA's Emerging-Optimizers asks for Python 3.12 and takes float32 alone; Moonshot's is a script. timm has the
coefficients of the one and the scale of the other, pytorch_optimizer that scale too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from agreement_cases import ADAMW, DECAYS, Numbers, in_torch_words, of_timm, replace, rows, up_and_down
from torch import Tensor

import neon.optimizers

OWN = {"momentum_coef": "momentum", "scale": "adjust_lr_fn"}
Groups = list[dict[str, Any]]


def words(numbers: Numbers) -> Numbers:
    found = {OWN.get(word, word): number for word, number in in_torch_words(numbers).items()}
    return {word: number for word, number in found.items() if word != "units"}


@contextmanager
def no_bfloat16() -> Iterator[None]:
    """Casts to bfloat16 make a copy in the format that there is."""
    cast, to = Tensor.bfloat16, Tensor.to

    def kept(self: Tensor, *args: Any, **named: Any) -> Tensor:
        if torch.bfloat16 in (*args, named.get("dtype")):
            return self.clone(memory_format=named.get("memory_format", torch.preserve_format))
        return to(self, *args, **named)

    Tensor.bfloat16, Tensor.to = Tensor.clone, kept  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        Tensor.bfloat16, Tensor.to = cast, to  # type: ignore[method-assign]


class Exact:
    """An optimizer whose steps are made without a cast to bfloat16."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer, self.param_groups, self.state = optimizer, optimizer.param_groups, optimizer.state

    def step(self) -> None:
        with no_bfloat16():
            self.optimizer.step()


def exact(make: Callable[[Groups, Numbers], Any], groups: Groups, numbers: Numbers) -> Any:
    return Exact(make(groups, numbers))


def torchs(groups: Groups, numbers: Numbers) -> Any:
    return torch.optim.Muon(groups, **numbers)


def timms(groups: Groups, numbers: Numbers) -> Any:
    """All tensors by Muon, narrow ones too, which it would give to AdamW."""
    named = {**numbers, "adjust_lr_fn": numbers["adjust_lr_fn"].replace("spectral_unclamped", "rms_to_rms")}
    return of_timm("Muon", "muon")([{**group, "use_muon": True} for group in groups], **named)


def pytorch_optimizers(groups: Groups, numbers: Numbers, *, foreach: bool = False) -> Any:
    from pytorch_optimizer import Muon  # type: ignore[import-not-found]

    named = {**numbers, "use_adjusted_lr": numbers["adjust_lr_fn"] == "match_rms_adamw"}
    named["ns_coeffs"] = named.pop("ns_coefficients")
    del named["adjust_lr_fn"], named["eps"]
    return Muon([{**group, "use_muon": True} for group in groups], **named, foreach=foreach)


def dions(groups: Groups, numbers: Numbers) -> Any:
    """Its functions are compiled one by one, for each format and shape: here they are called as they are written."""
    with patch.object(torch, "compile", lambda *function, **_: function[0] if function else lambda given: given):
        from dion import Muon  # type: ignore[import-not-found]

    scales = {"spectral_unclamped": "spectral_norm", "match_rms_adamw": "rms_norm", "none": None}
    named = {**numbers, "mu": numbers["momentum"], "adjust_lr": scales[numbers["adjust_lr_fn"]]}
    named |= {"epsilon": numbers["eps"], "use_polar_express": numbers["ns_coefficients"] == "polar_express_dion"}
    for word in ("momentum", "adjust_lr_fn", "eps", "ns_coefficients"):
        del named[word]
    return Muon(groups, **named, flatten=True)


def jordans(groups: Groups, numbers: Numbers) -> Any:
    module: ModuleType = __import__("muon")
    assert numbers["nesterov"]
    named = {word: numbers[word] for word in ("lr", "weight_decay", "momentum")}
    return module.SingleDeviceMuon(groups, **named)


STATES = {"Muon": (("momentum_buffer",), ())}
WORDS = {"Muon": words}
MATRICES = ((1, 1), (1, 7), (3, 5), (33, 17), (24, 24), (5, 1))
FLATTENED = (*MATRICES, (6, 3, 2, 2), (5, 2, 9))
JORDAN = {
    "learning_rate": 0.02, "momentum_coef": 0.95, "wdecay": 0.1, "nesterov": True,
    "ns_coefficients": (3.4445, -4.775, 2.0315), "epsilon": 1e-30, "scale": "original", "units": "float32",
}  # fmt: skip
QUINTIC = JORDAN | {"nesterov": False, "ns_coefficients": "quintic", "scale": "match_rms_adamw"}
# dion multiplies the rate with the scale in float32
DION = JORDAN | {"nesterov": False, "ns_coefficients": "polar_express_dion", "scale": "spectral_unclamped"}
DION |= {"learning_rate": 2.0**-6}
TORCH = replace(
    ADAMW, rule="Muon", package="torch", make=partial(exact, torchs), shapes=MATRICES, numbers=JORDAN,
    float32_ulp=120.0, by=lambda numbers: neon.optimizers.Muon(**numbers),
)  # fmt: skip
TIMM = replace(TORCH, package="timm", make=partial(exact, timms), shapes=FLATTENED, numbers=QUINTIC)
PYTORCH_OPTIMIZER = replace(TIMM, package="pytorch_optimizer", make=partial(exact, pytorch_optimizers), numbers=JORDAN)
OF_DION = replace(TIMM, package="dion", make=partial(exact, dions), float64_bound=1e-7, float32_ulp=250.0, numbers=DION)
OF_JORDAN = replace(
    TORCH, package="muon-optimizer", make=partial(exact, jordans), float64_bound=2e-5, float32_ulp=200.0
)
# How far apart they are then.
AS_IT_IS = {"float64_bound": 0.05, "float32_ulp": 0.05 * 2**23}


def of_all(*without: str) -> dict[str, Numbers]:
    found: dict[str, Numbers] = {
        "defaults": {},
        "no_decay": {"wdecay": 0.0},
        "momentum": {"momentum_coef": 0.5},
        "weights_of_0": {"zeros": True, "float32_ulp": 1200.0},
        "up_and_down": {"rates": up_and_down},
        "two_groups": {"groups": DECAYS},
        "gradients_missing": {"absent": True},
    }
    return {name: change for name, change in found.items() if name not in without}


IN_NO_REGISTRY = rows(
    OF_DION, **of_all("up_and_down"), nesterov={"nesterov": True}, rms_norm={"scale": "match_rms_adamw"},
    no_scale={"scale": "none", "float64_bound": 1e-12}, quintic={"ns_coefficients": "quintic"},
    as_it_is={"make": dions, **AS_IT_IS},
)  # fmt: skip
CASES = [
    *rows(
        TORCH, **of_all(), no_nesterov={"nesterov": False}, no_momentum={"momentum_coef": 0.0},
        match_rms_adamw={"scale": "match_rms_adamw"}, steps={"ns_steps": 3},
        coefficients={"ns_coefficients": (3.4, -4.7, 2.0)}, eps={"epsilon": 0.5},
        as_it_is={"make": torchs, **AS_IT_IS},
    ),
    *rows(
        TIMM, **of_all(), nesterov={"nesterov": True}, one_triple={"ns_coefficients": JORDAN["ns_coefficients"]},
        steps={"ns_steps": 3}, original={"scale": "original"}, rms_to_rms={"scale": "spectral_unclamped"},
        as_it_is={"make": timms, **AS_IT_IS},
    ),
    *rows(
        PYTORCH_OPTIMIZER, **of_all(), no_nesterov={"nesterov": False}, Moonshots={"scale": "match_rms_adamw"},
        foreach={"make": partial(exact, partial(pytorch_optimizers, foreach=True))},
        as_it_is={"make": pytorch_optimizers, **AS_IT_IS},
    ),
    *(IN_NO_REGISTRY if find_spec("dion") is not None else ()),
    *rows(OF_JORDAN, **of_all("gradients_missing"), as_it_is={"make": jordans, **AS_IT_IS}),
]  # fmt: skip
