"""What it saves to take the norms that steps clip by within the backward pass, on large models.

    python benchmarks/norms_in_backward.py --threads 2            # about two minutes
    python benchmarks/norms_in_backward.py --models 2048x6 --rounds 60
    python benchmarks/norms_in_backward.py --large 0 --models 256x48 512x24      # hooks for smaller ones too

AdamW in float32 trains a chain of linear layers (`1024x16`: 16 of 1024 × 1024) or a small GPT (`gpt`), plain,
clipped by norm, and clipped with `norms_in_backward`. Each has a copy of the model; in every round each has its
turn, in an order that rotates. Backward pass and step are timed apart. Ratios are medians over rounds of
ratios within a round. Writes a table, and benchmarks/results/norms-in-backward-DEVICE.json.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from neon.commands import machine
from neon.engine import early_sums
from neon.optimizers import AdamW

CONTENDERS: dict[str, Callable[[nn.Module], Any]] = {
    "plain": lambda model: AdamW().attach(model),
    "clipped": lambda model: AdamW(gradient_clip_norm=1.0).attach(model),
    "in backward": lambda model: AdamW(gradient_clip_norm=1.0).attach(model, norms_in_backward=True),
}


CLOCK = [time.perf_counter]


class GPT(nn.Module):
    """Six blocks of 768 with a vocabulary of 8192: 49 million parameters."""

    def __init__(self, width: int = 768, depth: int = 6, words: int = 8192) -> None:
        super().__init__()
        block = nn.TransformerEncoderLayer(width, 12, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.embedding, self.head = nn.Embedding(words, width), nn.Linear(width, words, bias=False)
        self.blocks = nn.TransformerEncoder(block, depth, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.head(self.blocks(self.embedding(x), mask=mask, is_causal=True))


def model_of(name: str, batch: int) -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    """A model, and the loss that it is trained by."""
    torch.manual_seed(0)
    if name == "gpt":
        words = torch.randint(8192, (max(1, batch // 64), 64))
        return GPT(), lambda model: nn.functional.cross_entropy(model(words).flatten(0, 1), words.flatten())
    width, depth = map(int, name.split("x"))
    x = torch.randn(batch, width)
    return nn.Sequential(*(nn.Linear(width, width) for _ in range(depth))), lambda model: model(x).square().mean()


def seconds(run: Callable[[], Any]) -> float:
    start = CLOCK[0]()
    run()
    return CLOCK[0]() - start


def rounds_of(name: str, batch: int, rounds: int) -> list[dict[str, tuple[float, float]]]:
    """The seconds of backward pass and step, for each contender in each round."""
    model, loss = model_of(name, batch)
    runs = []
    for contender, attach in CONTENDERS.items():
        trained = copy.deepcopy(model)
        runs.append((contender, trained, attach(trained)))
    found = []
    for turn in range(rounds + 3):
        times = {}
        for place in range(len(runs)):
            contender, trained, optimizer = runs[(place + turn) % len(runs)]
            value = loss(trained)
            backward = seconds(value.backward)
            times[contender] = backward, seconds(optimizer.step)
            optimizer.zero_grad()
        found.append(times)
    return found[3:]


def figures(found: list[dict[str, tuple[float, float]]]) -> dict[str, float]:
    """Milliseconds, and ratios, of what has been measured."""
    made = {}
    for contender in CONTENDERS:
        backward, step = (statistics.median(times[contender][place] for times in found) * 1e3 for place in (0, 1))
        made |= {f"backward, {contender}": backward, f"step, {contender}": step}
    steps = [{contender: step for contender, (_, step) in times.items()} for times in found]
    both = [{contender: sum(pair) for contender, pair in times.items()} for times in found]
    for title, each in (("step", steps), ("both", both)):
        for one, other in (("clipped", "plain"), ("in backward", "plain"), ("in backward", "clipped")):
            made[f"{title}, {one} / {other}"] = statistics.median(times[one] / times[other] for times in each)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["1024x16", "2048x6", "gpt"])
    parser.add_argument("--batch", type=int, default=64, help="rows of a batch; of a GPT words")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--processor-time", action="store_true", help="of one thread, where others use the machine too")
    parser.add_argument("--large", type=int, default=early_sums.LARGE, help="from how many elements on hooks are set")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    early_sums.LARGE = given.large
    if given.processor_time:
        torch.set_num_threads(1)
        CLOCK[0] = time.thread_time
    result = {name: figures(rounds_of(name, given.batch, given.rounds)) for name in given.models}
    table = Table("", *result)
    for title in next(iter(result.values())):
        table.add_row(title, *(f"{made[title]:.3f}" for made in result.values()))
    Console().print(table)
    device = machine.device()
    path = given.output / f"norms-in-backward-{machine.file_name(device)}.json"
    report = {"device": device, "threads": given.threads, "batch": given.batch, "models": result}
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
