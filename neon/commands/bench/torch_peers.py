"""Every rule of the library as neon and as torch has it, with the same numbers; the options around a rule."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from neon.commands.library import example_numbers, exported_rules
from neon.optimizers import Optimizer


@dataclass(frozen=True)
class Peer:
    """A rule that torch has too: neon's numbers, which its groups have in torch's words, and torch's class."""

    ours: Mapping[str, Any]
    theirs: Callable[..., torch.optim.Optimizer]


# ε is so small that where it stands (inside the root, or outside) does not show.
PEERS = {
    "GradientDescentMomentum": Peer({"learning_rate": 0.1, "momentum_coef": 0.9}, torch.optim.SGD),
    "Adagrad": Peer({"learning_rate": 0.01, "epsilon": 1e-12}, torch.optim.Adagrad),
    "RMSProp": Peer({"learning_rate": 1e-3, "decay_rate": 0.95, "epsilon": 1e-12}, torch.optim.RMSprop),
    "Adadelta": Peer({"decay": 0.95, "epsilon": 1e-6}, torch.optim.Adadelta),
    "Adam": Peer({"learning_rate": 1e-3}, torch.optim.Adam),
    "AdamW": Peer({"learning_rate": 1e-3}, torch.optim.AdamW),
    "NAdam": Peer({"learning_rate": 1e-3}, torch.optim.NAdam),
    "RAdam": Peer({"learning_rate": 1e-3}, torch.optim.RAdam),
    "AdaMax": Peer({"learning_rate": 1e-3}, torch.optim.Adamax),
    "ASGD": Peer({"learning_rate": 0.1}, torch.optim.ASGD),
    "Rprop": Peer({"learning_rate": 1e-3}, torch.optim.Rprop),
}
CONFIGURATIONS = {"fused": {"fused": True}, "foreach": {"foreach": True}, "loop": {"foreach": False, "fused": False}}
COMPILED = "compiled"


@dataclass(frozen=True)
class Option:
    """What is done to the gradients before a step: neon's argument for it, torch's function in its fastest form."""

    ours: str | None = None
    theirs: Callable[..., Any] | None = None
    foreach_when_large: bool = True


OPTIONS = {
    "plain": Option(),
    "norm": Option("gradient_clip_norm", clip_grad_norm_),
    # With foreach a clamp passes over memory twice, which takes a loop's time twice over where memory is the limit.
    "value": Option("gradient_clip_value", clip_grad_value_, foreach_when_large=False),
}


def neon_optimizer(rule: str, option: str = "plain", bound: float | None = None, **options: Any) -> Optimizer:
    """Neon's description of a rule; one without a peer has its own defaults."""
    kind, argument = exported_rules()[rule], OPTIONS[option].ours
    numbers = PEERS[rule].ours if rule in PEERS else example_numbers(kind)
    clip = {} if argument is None else {argument: bound}
    return kind(**numbers, **clip, **options)


def torch_optimizers(rule: str, groups: Any) -> dict[str, torch.optim.Optimizer]:
    """Torch's optimizer in each configuration that it has; none where torch has no such rule."""
    if rule not in PEERS:
        return {}
    theirs = PEERS[rule].theirs
    known = inspect.signature(theirs).parameters
    numbers = {word: value for word, value in neon_optimizer(rule).group().items() if word in known}
    return {
        name: theirs([dict(group) for group in groups], **numbers, **{k: v for k, v in arguments.items() if k in known})
        for name, arguments in CONFIGURATIONS.items()
        if name in known or name == "loop"
    }
