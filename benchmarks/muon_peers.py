"""The columns of features.py's table of Muon: neon's beside AdamW and alone, and torch's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from peers import Library, parts
from torch import Tensor, nn

# What is said when attaching, and of a mapping, and not of a rule.
_ATTACHED = ("skip_nonfinite", "in_backward")
_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "clip by norm": {"gradient_clip_norm": 1.0},
    "clip by value": {"gradient_clip_value": 0.5},
    "skip": {"skip_nonfinite": True},
    "bfloat16": {"stochastic_round": True},
    "split": {"master": "split"},
    "8 bits": {"state_dtype": "int8"},
    "lossless moments": {"state_dtype": "float32"},
    "flags": {"gradient_clip_norm": 1.0, "maximize": True, "nesterov": False},
}
_WAYS: Mapping[str, Callable[..., Any]] = {
    "set a layer's rate": lambda optimizer, _: optimizer.set("lr", 0.0, layers="0"),
    "freeze": lambda optimizer: optimizer.freeze("0"),
    "name": lambda optimizer: optimizer.last_nonfinite,
}
_OF_ONES = 64.0  # the update of a matrix of ones is one over its side, but for the polynomial


def with_adamw() -> Library:
    from neon.optimizers import AdamW, MultiOptimizer, Muon

    def make(
        named: Iterable[Any],
        *,
        lr: float | Tensor = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        gradient_clip_norm: float | None = None,
        nesterov: bool = True,
        **options: Any,
    ) -> torch.optim.Optimizer:
        attached = {name: options.pop(name) for name in _ATTACHED if name in options}
        numbers = {"learning_rate": float(lr), "wdecay": weight_decay, **options}
        adamw = AdamW(beta_1=betas[0], beta_2=betas[1], epsilon=eps, **numbers)
        muon = Muon(momentum_coef=betas[0], nesterov=nesterov, units="float32", **numbers)
        rules = MultiOptimizer({"default": adamw, "*weight": muon}, gradient_clip_norm=gradient_clip_norm)
        optimizer = rules.attach(list(named), **attached)
        if isinstance(lr, Tensor):
            for group in optimizer.param_groups:
                group["lr"] = lr.clone()
        return optimizer

    def rules(model: nn.Module) -> tuple[Any, list[Any]]:
        muon, adamw = Muon(learning_rate=0.01), AdamW(learning_rate=0.01)
        return (
            MultiOptimizer({"default": adamw, "*weight": muon}).attach(model),
            [lambda m: muon.attach(parts(m)[0]), lambda m: adamw.attach(parts(m)[1])],
        )

    return Library(
        "neon, Muon beside AdamW", "neon-optimizers", make, _OPTIONS,
        {**_WAYS, "rules": rules, "in_backward": lambda model: make(model.named_parameters(), in_backward=True)},
        moments=1, rate_of_ones=_OF_ONES,
    )  # fmt: skip


def alone() -> Library:
    from neon.torch import Muon

    def make(named: Iterable[Any], **given: Any) -> torch.optim.Optimizer:
        return Muon(named, **in_words_of_muon(given), units="float32")

    return Library(
        "neon, Muon", "neon-optimizers", make, _OPTIONS,
        {**_WAYS, "in_backward": lambda model: make(model.named_parameters(), **_PLAIN, in_backward=True)},
        biases=False, moments=1, rate_of_ones=_OF_ONES,
    )  # fmt: skip


def torchs() -> Library:
    return Library(
        "torch.optim.Muon", "torch", lambda named, **given: torch.optim.Muon(named, **in_words_of_muon(given)),
        {"flags": {"nesterov": False}}, biases=False, moments=1, rate_of_ones=_OF_ONES,
    )  # fmt: skip


_PLAIN = {"lr": 0.01, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}


def in_words_of_muon(given: Mapping[str, Any]) -> dict[str, Any]:
    """AdamW's arguments, with β₁ as the momentum."""
    return {name: value for name, value in given.items() if name != "betas"} | {"momentum": given["betas"][0]}


COLUMNS_OF_MUON: dict[str, Callable[[], Library]] = {
    "neon, Muon beside AdamW": with_adamw,
    "neon, Muon": alone,
    "torch.optim.Muon": torchs,
}
