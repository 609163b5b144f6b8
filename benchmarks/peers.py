"""The columns of features.py: how each library makes an AdamW, and what it has of its own for a feature."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

Arguments = Mapping[str, Any]


class NoOptionError(Exception):
    """The library has nothing to try for a feature."""


@dataclass(frozen=True)
class Library:
    """A column: a library's AdamW, arguments for it by feature, and what is more than an argument.

    Of a rule in its place: whether it takes biases, how many moments it has, and by how many times a rate moves
    weights as AdamW's would, of gradients that are 1 everywhere in a matrix of 64 × 64.
    """

    name: str
    distribution: str
    adamw: Callable[..., torch.optim.Optimizer]
    options: Mapping[str, Arguments] = field(default_factory=dict)
    ways: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    biases: bool = True
    moments: int = 2
    rate_of_ones: float = 1.0

    def network(self, dtype: torch.dtype = torch.float32, outputs: int = 4) -> nn.Sequential:
        torch.manual_seed(0)
        layers = (nn.Linear(64, count, bias=self.biases) for count in (64, outputs))
        return nn.Sequential(*layers).to(dtype)

    def make(self, target: nn.Module | Iterable[Any], *features: str, **arguments: Any) -> torch.optim.Optimizer:
        """An AdamW over named parameters, with the options for some features."""
        given = {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}
        for feature in features:
            given |= self.option(feature)
        return self.adamw(
            list(target.named_parameters() if isinstance(target, nn.Module) else target), **(given | arguments)
        )

    def option(self, feature: str) -> Arguments:
        if feature not in self.options:
            raise NoOptionError(f"no option for {feature}")
        return self.options[feature]

    def way(self, feature: str) -> Callable[..., Any]:
        if feature not in self.ways:
            raise NoOptionError(f"no way to {feature}")
        return self.ways[feature]


def parts(model: nn.Module) -> tuple[list[Any], list[Any]]:
    """The named weights and the named biases."""
    named = list(model.named_parameters())
    return [n for n in named if n[1].ndim > 1], [n for n in named if n[1].ndim == 1]


def bare(named: Iterable[tuple[str, Any]]) -> list[Any]:
    return [parameter for _, parameter in named]


def neon() -> Library:
    from neon.optimizers import AdamW, GradientDescentMomentum, MultiOptimizer, Optimizer
    from neon.optimizers.functions import sign
    from neon.torch import AdamW as DropIn

    class AddSign(Optimizer):
        """Gradients that agree with their average count twice."""

        @staticmethod
        def rule(w, g, momentum_buffer, *, lr=0.01, momentum=0.9):  # type: ignore[no-untyped-def]
            momentum_buffer = momentum * momentum_buffer + (1 - momentum) * g
            return w - lr * (1 + sign(g) * sign(momentum_buffer)) * g, momentum_buffer

    def rules(model: nn.Module) -> tuple[Any, list[Any]]:
        one, other = AdamW(learning_rate=0.01), GradientDescentMomentum(0.01, 0.9)
        return (
            MultiOptimizer({"default": one, "Bias": other}).attach(model),
            [lambda m: one.attach(parts(m)[0]), lambda m: other.attach(parts(m)[1])],
        )

    return Library(
        "neon", "neon-optimizers", DropIn,
        options={
            "clip by norm": {"gradient_clip_norm": 1.0},
            "clip by value": {"gradient_clip_value": 0.5},
            "skip": {"skip_nonfinite": True},
            "bfloat16": {"stochastic_round": True},
            "split": {"master": "split"},
            "8 bits": {"state_dtype": "int8"},
            "lossless moments": {"state_dtype": "float32"},
            "flags": {"gradient_clip_norm": 1.0, "maximize": True, "amsgrad": True},
        },
        ways={
            "rules": rules,
            "in_backward": lambda model: DropIn(model.named_parameters(), lr=0.01, in_backward=True),
            "set a layer's rate": lambda optimizer, _: optimizer.set("lr", 0.0, layers="0"),
            "freeze": lambda optimizer: optimizer.freeze("0"),
            "name": lambda optimizer: optimizer.last_nonfinite,
            "own rule": lambda model: AddSign(gradient_clip_norm=1.0).attach(model),
            "own rule in 8 bits": lambda model: AddSign(state_dtype="int8").attach(model),
        },
    )  # fmt: skip


def torchs(name: str, **arguments: Any) -> Library:
    return Library(
        name, "torch", lambda params, **given: torch.optim.AdamW(params, **arguments, **given),
        options={"flags": {"maximize": True, "amsgrad": True}, "differentiable": {"differentiable": True}},
        ways={"sparse": lambda params: torch.optim.SparseAdam(params)},
    )  # fmt: skip


def optimi() -> Library:
    from optimi import AdamW, prepare_for_gradient_release  # type: ignore[import-not-found]

    def in_backward(model: nn.Module) -> Any:
        optimizer = AdamW(
            model.parameters(), lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, gradient_release=True
        )
        prepare_for_gradient_release(model, optimizer)
        return optimizer

    return Library(
        "optimi", "torch-optimi", AdamW,
        options={"bfloat16": {"kahan_sum": True}, "flags": {"decouple_lr": True, "weight_decay": 1e-4}},
        ways={"in_backward": in_backward},
    )  # fmt: skip


def pytorch_optimizer() -> Library:
    from pytorch_optimizer import FlashAdamW, Muon  # type: ignore[import-not-found]

    def muon(weights: list[Any], biases: list[Any]) -> Any:
        groups = [(weights, True), (biases, False)]
        return Muon([{"params": named, "use_muon": flag, "lr": 0.01} for named, flag in groups if named])

    return Library(
        "pytorch_optimizer", "pytorch-optimizer", FlashAdamW,
        options={
            "bfloat16": {"master_weight_bits": 32},
            "split": {"master_weight_bits": 32, "quantize": False},
            "lossless moments": {"quantize": False},
            "flags": {"maximize": True},
            "8 bits": {"quantize": True},
        },
        ways={
            "rules": lambda model: (
                muon(*parts(model)), [lambda m: muon(parts(m)[0], []), lambda m: muon([], parts(m)[1])]
            ),
        },
    )  # fmt: skip


def torchao() -> Library:
    from torchao.optim import AdamW8bit  # type: ignore[import-not-found]

    return Library(
        "torchao", "torchao", AdamW8bit,
        options={"bfloat16": {"bf16_stochastic_round": True}, "flags": {"amsgrad": True}, "8 bits": {}},
    )  # fmt: skip


def bitsandbytes() -> Library:
    from bitsandbytes.optim import AdamW, GlobalOptimManager  # type: ignore[import-not-found]

    def set_rate(_: Any, model: nn.Module) -> None:
        for parameter in model.get_submodule("0").parameters():
            GlobalOptimManager.get_instance().override_config(parameter, "lr", 0.0)

    return Library(
        "bitsandbytes", "bitsandbytes", AdamW,
        options={"flags": {"optim_bits": 8}, "8 bits": {"optim_bits": 8}},
        ways={"set a layer's rate": set_rate},
    )  # fmt: skip


def heavyball() -> Library:
    from heavyball import SGD, AdamW, SplitOpt, chainable, utils  # type: ignore[import-not-found]

    @chainable.zero_guard("momentum_buffer")
    @chainable.no_state
    def addsign(_group: Any, update: Any, _grad: Any, _param: Any, momentum_buffer: Any) -> Any:
        torch._foreach_lerp_(momentum_buffer, update, 0.1)
        return [g * (1 + g.sign() * m.sign()) for g, m in zip(update, momentum_buffer, strict=True)]

    def rules(model: nn.Module) -> tuple[Any, list[Any]]:
        def split(*specs: tuple[list[Any], Any]) -> Any:
            return SplitOpt([{"params": bare(named), "optimizer": kind, "lr": 0.01} for named, kind in specs])

        weights, biases = parts(model)
        return (
            split((weights, AdamW), (biases, SGD)),
            [lambda m: AdamW(bare(parts(m)[0]), lr=0.01), lambda m: SGD(bare(parts(m)[1]), lr=0.01)],
        )

    clip = {"gradient_clipping": utils.global_l2norm_clip}
    clip_value = {"gradient_clipping": lambda grads: [grad.clamp(-0.5, 0.5) for grad in grads]}
    return Library(
        "heavyball", "heavyball", lambda params, **given: AdamW(bare(params), **given),
        options={
            "clip by norm": clip, "clip by value": clip_value, "bfloat16": {}, "lossless moments": {}, "flags": clip,
            "split": {"param_ecc": "bf16+16"},
        },
        ways={
            "rules": rules,
            "own rule": lambda model: chainable.BaseOpt(
                list(model.parameters()), {"lr": 0.01, "weight_decay": 0.0, "warmup_steps": 0}, fns=(addsign,), **clip
            ),
        },
    )  # fmt: skip


COLUMNS: dict[str, Callable[[], Library]] = {
    "neon": neon,
    "torch.optim": lambda: torchs("torch.optim"),
    "torch.optim, fused": lambda: torchs("torch.optim, fused", fused=True),
    "optimi": optimi,
    "pytorch_optimizer": pytorch_optimizer,
    "torchao": torchao,
    "bitsandbytes": bitsandbytes,
    "heavyball": heavyball,
}
