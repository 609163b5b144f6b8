"""The step right after a backward pass: torch's threads still spin, caches are full of something else.

They are full of what a training loop leaves in them: each turn is a few training steps, the last of which counts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from neon.commands.bench.results import Line, Result, Settings
from neon.commands.bench.step_alone import check_agreement, compare_with_torch
from neon.commands.bench.timing import Contender, interleaved, timed
from neon.commands.bench.torch_peers import neon_optimizer, torch_optimizers
from neon.commands.bench.work import flat, largest_difference


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


_STEPS = 3  # before the one that counts: after two, torch's figures and neon's change no more


@dataclass(frozen=True)
class Network:
    """A small network, the shape of its batch, and how often each contender has its turn."""

    make: Callable[[], nn.Module]
    batch: tuple[int, ...]
    rounds: int


NETWORKS = {"mlp": Network(mlp, (128, 64), 100), "conv": Network(convolutions, (32, 3, 32, 32), 60)}


def measure_backward(line: Line, settings: Settings) -> Result:
    """Each contender has a model of its own, from the same weights and on the same batch."""
    network = NETWORKS[line.shape]
    check_agreement(Line("step", line.rule, "large"), grouped=False, settings=settings)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, inputs = network.make(), torch.randn(network.batch)
        targets = torch.randint(10, network.batch[:1])
    ours, start = neon_optimizer(line.rule), list(model.parameters())
    models = {who: copy.deepcopy(model) for who in ("neon", *torch_optimizers(line.rule, [{"params": start}]))}
    contenders: dict[str, Contender] = {}
    for who, own in models.items():
        groups = [{"params": list(own.parameters())}]
        optimizer = ours.attach(groups) if who == "neon" else torch_optimizers(line.rule, groups)[who]
        contenders[who] = Contender(optimizer.step, partial(train, own, optimizer, inputs, targets))
        timed(contenders[who], 1)
    ends = {who: flat(list(trained.parameters())) for who, trained in models.items()}
    difference = largest_difference(flat(start), ends)
    result = Result.of(line, *interleaved(contenders, settings.rounds or network.rounds))
    compare_with_torch(result, difference)
    result.figures["of torch's fused"] = result.medians["neon"] / result.medians["fused"]
    return result


def train(model: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor) -> None:
    """Some training steps, and all of another but the optimizer's."""
    for _ in range(_STEPS):
        backward(model, inputs, targets)
        optimizer.step()
    backward(model, inputs, targets)


def backward(model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
    """New gradients, as a training loop makes them."""
    model.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(model(inputs), targets).backward()
