"""The step right after a backward pass: torch's threads still spin, caches are full of something else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neon.bench.rules import neon_optimizer, torch_optimizers
from neon.bench.spec import Line, Settings
from neon.bench.timing import Contender, Measured, interleaved
from neon.bench.work import flat, largest_difference


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


@dataclass(frozen=True)
class Network:
    """A small network, the shape of its batch, and how often each contender has its turn."""

    make: Callable[[], nn.Module]
    batch: tuple[int, ...]
    rounds: int


NETWORKS = {"mlp": Network(mlp, (128, 64), 100), "conv": Network(convolutions, (32, 3, 32, 32), 60)}


def measure_backward(line: Line, settings: Settings) -> Measured:
    """Each contender has a model of its own, from the same weights and on the same batch."""
    network = NETWORKS[line.shape]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, inputs = network.make(), torch.randn(network.batch)
        targets = torch.randint(10, network.batch[:1])
    contenders: dict[str, Contender] = {}
    models: dict[str, nn.Module] = {}

    def enter(who: str, make: Callable[[list[Tensor]], torch.optim.Optimizer]) -> None:
        models[who] = copy.deepcopy(model)
        optimizer = make(list(models[who].parameters()))
        contenders[who] = Contender(optimizer.step, lambda: backward(models[who], inputs, targets))

    enter("neon", neon_optimizer(line.rule).attach)
    for who in torch_optimizers(line.rule, [{"params": list(model.parameters())}]):
        enter(who, lambda params, who=who: torch_optimizers(line.rule, [{"params": params}])[who])
    for contender in contenders.values():
        assert contender.prepare
        contender.prepare()
        contender.step()
    ends = {who: flat(list(trained.parameters())) for who, trained in models.items()}
    difference = largest_difference(flat(list(model.parameters())), ends)
    measured = interleaved(contenders, settings.rounds or network.rounds)
    medians = measured.medians
    peers = [who for who in medians if who != "neon"]
    best = min(peers, key=medians.__getitem__)
    measured.figures["seconds"] = medians["neon"]
    measured.figures["speed-up"] = medians[best] / medians["neon"]
    measured.figures["of torch's fused"] = medians["neon"] / medians["fused"]
    measured.details.update({"difference_in_updates": difference, "torch_best": best})
    return measured


def backward(model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
    """New gradients, as a training loop makes them."""
    model.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(model(inputs), targets).backward()
