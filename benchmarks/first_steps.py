"""What an audit costs in the first hundred steps of a training, and what is left of it afterwards.

    python benchmarks/first_steps.py      # about a minute

Each case trains a hundred steps, forward and backward pass and step, and then as many again, in processor time on one
thread. What is around the steps that are looked at is timed on its own; to it comes what the other steps count. The
last case has gradients that are there from the start, and makes steps alone. Figures are medians over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from neon.audit.first_steps import FirstSteps
from neon.audit.seen import LAST
from neon.optimizers import Adam

CLOCK = time.process_time


class Timed(FirstSteps):
    """Says how long it takes, but for the steps."""

    seconds = 0.0

    def around(self, step: Callable[[], Any], seen: Any) -> Any:
        def timed() -> Any:
            begun = CLOCK()
            result = step()
            self.seconds -= CLOCK() - begun
            return result

        begun = CLOCK()
        result = super().around(timed, seen)
        self.seconds += CLOCK() - begun
        return result


def mlp() -> tuple[nn.Module, torch.Tensor]:
    return nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    ), torch.randn(64, 64)


def transformer() -> tuple[nn.Module, torch.Tensor]:
    blocks = [nn.TransformerEncoderLayer(64, 4, 256, dropout=0.0, batch_first=True) for _ in range(16)]
    return nn.Sequential(*blocks), torch.randn(4, 16, 64)


def bfloat16() -> tuple[nn.Module, torch.Tensor]:
    model, inputs = transformer()
    return model.bfloat16(), inputs.bfloat16()


def tiny() -> tuple[nn.Module, None]:
    model = nn.ParameterList(torch.randn(4) for _ in range(200))
    for param in model:
        param.grad = torch.ones_like(param)
    return model, None


CASES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "MLP of 6 tensors": (mlp, {}),
    "the same, clipped by norm": (mlp, {"gradient_clip_norm": 1.0}),
    "transformer of 192 tensors": (transformer, {}),
    "the same, in bfloat16 to nearest": (bfloat16, {}),
    "the same, with states of 8 bits": (transformer, {"state_dtype": "int8"}),
    "steps alone, 200 tensors of 4 elements": (tiny, {}),
}


def measured(case: str) -> tuple[float, float]:
    """The seconds of the first hundred steps without an audit, and those of the audit."""
    make, options = CASES[case]
    model, inputs = make()
    optimizer = Adam(**options).attach(model)
    optimizer._first_steps = watching = Timed()
    begun = CLOCK()
    for _ in range(LAST):
        if inputs is not None:
            optimizer.zero_grad()
            model(inputs).float().square().mean().backward()
        optimizer.step()
    whole, counting = CLOCK() - begun, FirstSteps()
    assert optimizer._first_steps is None
    begun = CLOCK()
    for _ in range(1000):
        counting.record.steps = 2
        counting.is_due()
    audit = watching.seconds + LAST * (CLOCK() - begun) / 1000
    return whole - audit, audit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for case in CASES:
        found = [measured(case) for _ in range(rounds + 1)][1:]  # the first compiles, or reads code
        steps, audit = (statistics.median(column) * 1000 for column in zip(*found, strict=True))
        share = statistics.median(audit / steps for steps, audit in found)
        print(f"{case}: {steps:.0f} ms, and {audit:.1f} ms of the audit: {share:.1%}")


if __name__ == "__main__":
    main()
