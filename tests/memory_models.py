"""Five models whose memory is counted and measured: each with a batch, small beside its weights.

`python memory_models.py RANK FOLDER NAME OPTIMIZER ...` trains them under fully_shard on two ranks and prints bytes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from neon.commands.optimizer_text import parse_optimizer
from neon.engine import arena


class Block(nn.Module):
    """A block of a transformer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(self.first(x)).chunk(3, -1)
        x = x + self.out(nn.functional.scaled_dot_product_attention(query, key, value))
        return x + self.down(nn.functional.gelu(self.up(self.second(x))))


class Language(nn.Module):
    """A transformer whose head is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(3001, 96), nn.Embedding(32, 96)
        self.blocks = nn.ModuleList(Block(96) for _ in range(2))
        self.head = nn.Linear(96, 3001, bias=False)
        self.head.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.words(x) + self.places(torch.arange(x.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Vision(nn.Module):
    """A transformer over patches, whose patches are frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.places = nn.Conv2d(3, 128, 8, 8), nn.Parameter(torch.zeros(1, 4, 128))
        self.blocks, self.head = nn.ModuleList(Block(128) for _ in range(2)), nn.Linear(128, 1000)
        self.patches.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT + self.places
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 10))


def convolutional() -> nn.Module:
    first = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU())
    return nn.Sequential(*first, nn.Conv2d(64, 256, 3), nn.Flatten(), nn.Linear(256, 1000))


def recommender() -> nn.Module:
    return nn.Sequential(nn.EmbeddingBag(20_000, 48), nn.Linear(48, 100))


# By name: the model, and a batch for it.
MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "perceptron": (perceptron, lambda: torch.ones(1, 784)),
    "convolutional": (convolutional, lambda: torch.ones(2, 3, 5, 5)),
    "recommender": (recommender, lambda: torch.ones(1, 3, dtype=torch.long)),
    "language": (Language, lambda: torch.ones(1, 3, dtype=torch.long)),
    "vision": (Vision, lambda: torch.ones(1, 3, 16, 16)),
}
language, vision = Language, Vision


def backward(model: nn.Module, name: str) -> None:
    """A backward pass over the batch."""
    batch = MODELS[name][1]()
    dtype = next(param for param in model.parameters() if param.requires_grad).dtype
    model(batch.to(dtype) if batch.is_floating_point() else batch).float().square().mean().backward()


def kept_bytes(value: Any) -> int:
    """The bytes of tensors, in dicts and lists too; of DTensors those that are here, without counts of steps."""
    if isinstance(value, DTensor):
        value = value.to_local()
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(kept_bytes(each) for key, each in value.items() if key != "step")
    return sum(map(kept_bytes, value)) if isinstance(value, Iterable) else 0


def given_by_torch(*work: Callable[[], Any]) -> list[int]:
    """How many bytes torch's allocator has given within some work, and, below 0, taken back, in their order."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        for each in work:
            each()
    profiler: Any = profile.profiler
    events: list[Any] = [event for event in profiler.kineto_results.events() if event.name() == "[memory]"]
    return [event.nbytes() for event in sorted(events, key=lambda each: each.start_ns())]


def peak_of(*work: Callable[[], Any]) -> int:
    """The most bytes at a time that there are of these."""
    return max(accumulate(given_by_torch(*work)), default=0)


def kept_by_first_step(optimizer: torch.optim.Optimizer) -> int:
    """What torch's allocator has given and not taken back, with memory to work in that no other optimizer has left."""
    arena._arenas.clear()
    return sum(given_by_torch(optimizer.step))


def steps(name: str, optimizer: str) -> dict[str, int]:
    """The bytes of a rank after a first step, and the peak of others.

    Each is the least of several, for gloo's threads free what they have been given when they will, where nobody counts.
    """
    from torch.distributed.fsdp import fully_shard

    model = MODELS[name][0]()
    for block in getattr(model, "blocks", ()):
        fully_shard(block)
    fully_shard(model)
    backward(model, name)
    gradients = [param.grad for param in model.parameters() if param.grad is not None]
    optimizers = [parse_optimizer(optimizer).build().attach(model) for _ in range(16)]
    kept = min(map(kept_by_first_step, optimizers))
    attached = optimizers[-1]
    weights, states = kept_bytes([*model.parameters(), *model.buffers()]), kept_bytes(attached.state)
    found = {"weights": weights, "gradients": kept_bytes(gradients), "states": states}
    peak = min(peak_of(attached.step) for _ in range(4))
    return found | {"total": found["weights"] + found["gradients"] + kept + peak}


def main(rank: str, folder: str, *cases: str) -> None:
    """Cases on one of two ranks: names and optimizers in turn."""
    from torch.distributed import destroy_process_group, init_process_group

    init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=int(rank), world_size=2)
    print(json.dumps([steps(*case) for case in zip(cases[::2], cases[1::2], strict=True)]))
    destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
