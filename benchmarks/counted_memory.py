"""What `neon memory` counts beside what torch's allocator gives: the table of docs/memory.md.

    python benchmarks/counted_memory.py        # some 3 GB and a minute

Each cell has the count and the peak of two steps in MiB, weights and gradients among it; the last line says how far
they are apart at most.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from itertools import accumulate, chain
from typing import Any

import torch
from torch import nn

from neon.commands.memory.formats_compared import Form
from neon.commands.memory.memory_command import Counted
from neon.commands.optimizer_text import parse_optimizer

# By the head of a column: the dtype of weights, and an optimizer.
COLUMNS = {
    "AdamW": (torch.float32, "AdamW()"),
    "bfloat16 states": (torch.float32, "AdamW(state_dtype='bfloat16')"),
    "int8 states": (torch.float32, "AdamW(state_dtype='int8')"),
    "bfloat16 weights, split": (torch.bfloat16, "AdamW(master='split')"),
    "Adafactor": (torch.float32, "Adafactor()"),
    "Muon, AdamW": (torch.float32, 'MultiOptimizer({"default": AdamW(), "HiddenMatrix": Muon()})'),
}


class Block(nn.Module):
    """A block of a transformer; nothing is computed with it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)


class Gpt2(nn.Module):
    """The weights of GPT-2 small, the head tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(50257, 768), nn.Embedding(1024, 768)
        self.blocks, self.norm = nn.ModuleList(Block(768) for _ in range(12)), nn.LayerNorm(768)
        self.head = nn.Linear(768, 50257, bias=False)
        self.head.weight = self.words.weight


class VisionTransformer(nn.Module):
    """The weights of ViT-B/16, the patches and the first block frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.places = nn.Conv2d(3, 768, 16, 16), nn.Parameter(torch.zeros(1, 197, 768))
        self.blocks, self.head = nn.ModuleList(Block(768) for _ in range(12)), nn.Linear(768, 1000)
        self.patches.requires_grad_(False)
        self.blocks[0].requires_grad_(False)


def bottleneck(inputs: int, width: int) -> nn.ModuleList:
    sides = [(inputs, width, 1), (width, width, 3), (width, 4 * width, 1)]
    sides += [(inputs, 4 * width, 1)] if inputs != 4 * width else []
    return nn.ModuleList(nn.Sequential(nn.Conv2d(a, b, k, bias=False), nn.BatchNorm2d(b)) for a, b, k in sides)


def resnet50() -> nn.Module:
    parts: list[nn.Module] = [nn.Conv2d(3, 64, 7, bias=False), nn.BatchNorm2d(64)]
    inputs = 64
    for width, count in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for _ in range(count):
            parts.append(bottleneck(inputs, width))
            inputs = 4 * width
    return nn.ModuleList([*parts, nn.Linear(2048, 1000)])


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 10))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "perceptron 784-4096-4096-10": perceptron,
    "ResNet-50": resnet50,
    "GPT-2 small, tied": Gpt2,
    "4 embeddings of 200,000 × 64": lambda: nn.ModuleList(nn.EmbeddingBag(200_000, 64) for _ in range(4)),
    "ViT-B/16, partly frozen": VisionTransformer,
}


def counted(make: Callable[[], nn.Module], dtype: torch.dtype, optimizer: str) -> int | None:
    """The count; None where the optimizer cannot be had."""
    with torch.device("meta"):
        model = make()
    step = Counted(model, torch.device("cpu")).row(parse_optimizer(optimizer), Form("", "", dtype)).step
    return None if step is None else step.total


def measured(make: Callable[[], nn.Module], dtype: torch.dtype, optimizer: str) -> int:
    """What weights and gradients take, and the peak of what the allocator gives in two steps."""
    model = make().to(dtype)
    trained = [param for param in model.parameters() if param.requires_grad]
    for param in trained:
        param.grad = torch.full_like(param, 1e-3)
    attached = parse_optimizer(optimizer).build().attach(model)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        attached.step()
        attached.step()
    profiler: Any = profile.profiler
    events = sorted(profiler.kineto_results.events(), key=lambda event: event.start_ns())
    given = [event.nbytes() for event in events if event.name() == "[memory]"]
    there = sum(tensor.nbytes for tensor in chain(model.parameters(), model.buffers(), trained))
    return there + max(accumulate(given), default=0)


def main() -> None:
    """Print the table, and how far counts are off."""
    furthest = dict.fromkeys(COLUMNS, 0.0)
    print(f"| | {' | '.join(COLUMNS)} |\n|---|{'---:|' * len(COLUMNS)}")
    for name, make in MODELS.items():
        cells = []
        for column, (dtype, optimizer) in COLUMNS.items():
            if (count := counted(make, dtype, optimizer)) is None:
                cells.append("–")
                continue
            bytes_ = measured(make, dtype, optimizer)
            gc.collect()
            furthest[column] = max(furthest[column], abs(count / bytes_ - 1))
            cells.append(f"{count / 2**20:.2f} / {bytes_ / 2**20:.2f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print(", ".join(f"{column}: {far:.3%}" for column, far in furthest.items()))


if __name__ == "__main__":
    main()
