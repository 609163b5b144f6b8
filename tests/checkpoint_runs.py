"""Runs that are saved in the middle. As a script it resumes them in a process of its own: checkpoint_runs.py FOLDER."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from constructors import DROP_INS, RULES, described, without_vectors
from torch import nn

import neon.optimizers
import neon.torch
from neon.optimizers import (
    Adam,
    AdamW,
    GradientDescentMomentum,
    MultiOptimizer,
    Optimizer,
    RMSProp,
    Schedule,
    WarmupStableDecay,
)
from neon.torch import AttachedOptimizer

SAVED, END = 3, 6  # after how many steps a run is saved, and where it ends


class Net(nn.Module):
    """Several dtypes and layouts in one model."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 2)
        self.conv.weight.data = self.conv.weight.data.to(memory_format=torch.channels_last)
        self.scale = nn.Parameter(torch.randn((), dtype=torch.float64))
        self.low = nn.Parameter(torch.randn(4, 3).bfloat16())
        self.turned = nn.Parameter(torch.arange(6.0).view(2, 3).t())
        self.empty = nn.Parameter(torch.zeros(0, 3))


def net() -> Net:
    torch.manual_seed(3)
    return Net()


def give(model: nn.Module, step: int, scale: float = 1.0, backward: bool = False) -> None:
    """The gradients of a step, the same in every run."""
    for number, p in enumerate(model.parameters()):
        generator = torch.Generator().manual_seed(1000 * step + number)
        grad = torch.randn(p.shape, generator=generator).to(p.dtype) * scale
        if backward:
            p.backward(grad)
        else:
            p.grad = grad


@dataclass
class Run:
    """A model in training, and what is saved with it."""

    model: nn.Module
    opt: AttachedOptimizer
    others: list[Any] = field(default_factory=list)  # torch's schedulers and loss scalers

    def train(self, steps: range) -> Run:
        for step in steps:
            self.opt.set_epoch(step // 2)
            scaler = next((o for o in self.others if isinstance(o, torch.amp.GradScaler)), None)
            if scaler is None:
                give(self.model, step, backward=self.opt.in_backward)
                if step == 1:
                    next(self.model.parameters()).grad = None  # so that its count differs
                self.opt.step()
            else:
                scaler.scale(torch.zeros(()))  # the scale exists from here on
                give(self.model, step, scale=float("inf") if step == 1 else scaler.get_scale())
                scaler.step(self.opt)
                scaler.update()
            for other in self.others:
                if other is not scaler:
                    other.step()
        return self

    def tensors(self) -> list[torch.Tensor]:
        """Parameters and states."""
        params = list(self.model.parameters())
        states = [v for p in params for _, v in sorted(self.opt.state[p].items())]
        return [*(p.detach() for p in params), *states]

    def groups(self) -> list[dict[str, Any]]:
        return [{k: v for k, v in group.items() if k != "params"} for group in self.opt.param_groups]

    def save(self, file: Path) -> None:
        parts = {"model": self.model, "optimizer": self.opt, **{str(i): o for i, o in enumerate(self.others)}}
        torch.save({name: part.state_dict() for name, part in parts.items()}, file)

    def load(self, file: Path) -> Run:
        saved = torch.load(file, weights_only=True)
        for name, part in {"model": self.model, "optimizer": self.opt, **dict(enumerate(self.others))}.items():
            part.load_state_dict(saved[str(name)])
        return self


class SignMomentum(Optimizer):
    """A rule of a user's own, with a state that does not start at zero and the count of steps."""

    @staticmethod
    def rule(w: Any, g: Any, average: Any, size: Any = 0.1, *, lr: Any = 0.01, decay: Any = 0.9, step: Any) -> Any:
        average = decay * average + (1 - decay) * g
        size = decay * size + (1 - decay) * g * g
        return w - lr * average / (size + 1 / step), average, size


IN_STEPS = WarmupStableDecay(2, 1, 3, floor=0.5, unit="steps")


def rules() -> dict[str, Callable[..., Optimizer]]:
    """Every rule that the library exports, and one that it does not know."""
    return {"a rule of one's own": SignMomentum, **{name: partial(described, name) for name in RULES}}


def mapping() -> MultiOptimizer:
    inner = MultiOptimizer({"default": Adam(learning_rate=0.1), "low": rules()["Lion"]()}, gradient_clip_norm=0.5)
    shared = RMSProp(learning_rate=0.1, gradient_clip_norm=1.0, schedule=Schedule([1, 2], 0.5))
    keys = {"default": inner, "conv": shared, "turned": shared, "scale": None}
    return MultiOptimizer(keys, gradient_clip_norm=3.0)


def _one_cycle(opt: AttachedOptimizer) -> list[Any]:
    return [torch.optim.lr_scheduler.OneCycleLR(opt, 0.1, total_steps=END + 1)]


def _scaler(opt: AttachedOptimizer) -> list[Any]:
    return [torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=2)]


Make = Callable[[Net], AttachedOptimizer]


def _attached(name: str, rule: Callable[..., Optimizer]) -> Make:
    options = {"stochastic_round": True, "gradient_clip_norm": 2.0, "schedule": IN_STEPS, "wdecay": 0.1}
    return lambda model: rule(**options).attach(without_vectors(name, model))


def _drop_in(name: str) -> Make:
    numbers = {"SGD": {"momentum": 0.9, "dampening": 0.5}, "RMSprop": {"momentum": 0.9, "centered": True}}
    decay = {} if name == "Rprop" else {"weight_decay": 0.1}
    options: Any = {"stochastic_round": True, **decay, **numbers.get(name, {})}
    return lambda model: getattr(neon.torch, name)(without_vectors(name, model).named_parameters(), 0.1, **options)


def _rounded(model: Net) -> AttachedOptimizer:
    del model.scale  # rounding is to at most 32 bits
    return GradientDescentMomentum(0.1, 0.0, 10, schedule=IN_STEPS).attach(model)


def _layers_with_values_of_their_own(model: Net) -> AttachedOptimizer:
    opt = AdamW(stochastic_round=True, schedule=IN_STEPS).attach(model)
    opt.set("lr", 0.5, layers="conv")
    opt.freeze("turned")
    return opt


RUNS: dict[str, Make] = {
    **{name: _attached(name, rule) for name, rule in rules().items()},
    **{f"torch.{name}": _drop_in(name) for name in DROP_INS},
    "rounded to 10 bits": _rounded,
    "in epochs": lambda model: AdamW(schedule=Schedule([1, 2], 0.25)).attach(model),
    "a mapping": lambda model: mapping().attach(model),
    "layers with values of their own": _layers_with_values_of_their_own,
    "in the backward pass": lambda model: Adam(schedule=IN_STEPS).attach(
        model, in_backward=True, gradient_clip_previous_norm=1.0
    ),
    "torch's scheduler": lambda model: AdamW(stochastic_round=True).attach(model),
    "torch's loss scaler": lambda model: Adam(gradient_clip_norm=1.0, schedule=IN_STEPS).attach(model),
}
OTHERS = {"torch's scheduler": _one_cycle, "torch's loss scaler": _scaler}


def fresh(name: str) -> Run:
    model = net()
    if name == "torch.Muon":  # which takes two dimensions alone, as torch's does
        del model.conv
    opt = RUNS[name](model)
    return Run(model, opt, OTHERS.get(name, lambda _: [])(opt))


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    for number, name in enumerate(RUNS):
        run = fresh(name).load(folder / f"{number}.pt").train(range(SAVED, END))
        torch.save((run.tensors(), run.groups()), folder / f"{number} resumed.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
