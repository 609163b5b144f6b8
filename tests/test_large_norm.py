"""The norm of as many elements as a large layer has: accurate, and the same on any number of threads."""

from __future__ import annotations

import math

import numpy as np
import torch
from lowered_kernels import kernel_of

from neon.engine import use_backend
from neon.engine.batch import Item, Settings
from neon.engine.plan import Plan
from neon.optimizers import GradientDescentMomentum


def test_a_hundred_million_elements() -> None:
    piece = torch.randn(1_000_000, generator=torch.Generator().manual_seed(4))
    gradient = (torch.linspace(1e-3, 1e3, 100)[:, None] * piece).view(-1)
    exact = math.fsum(float(np.square(rows.numpy(), dtype=np.float64).sum()) for rows in gradient.split(1_000_000))
    rule = GradientDescentMomentum(0.0, 0.0, gradient_clip_norm=1.0)
    program = kernel_of(rule).program
    assert not program.states
    # The gradient is its own weight, which a rate of 0 leaves as it is: 400 MB in all.
    item = Item("w", gradient, {}, torch.zeros(()), 0, 0)
    before, found = torch.get_num_threads(), set()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            with use_backend("numba"):
                plan = Plan([item], [gradient], [Settings(program, rule.group(), ("all",))])
                plan.step([gradient])
            found |= set(plan.totals.values())
    finally:
        torch.set_num_threads(before)
    (total,) = found
    assert abs(total - exact) < 1e-12 * exact
