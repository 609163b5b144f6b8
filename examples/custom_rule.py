"""A rule of your own in ten lines: Yogi, on a torch model, beside Adam.

The rule is written once, as its equations. neon compiles it into one pass over memory, and it has every
option that the built-in rules have.

Run it: python examples/custom_rule.py
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn.functional import cross_entropy

from neon.optimizers import Adam, Optimizer
from neon.optimizers.functions import sign, sqrt


class Yogi(Optimizer):
    """Yogi (Zaheer et al. 2018, algorithm 2, with Adam's corrections): the squares go up or down by a share of g²."""

    @staticmethod
    def rule(w, g, exp_avg, exp_avg_sq, *, lr=1e-2, betas=(0.9, 0.999), eps=1e-3, step):
        beta1, beta2 = betas
        exp_avg = beta1 * exp_avg + (1 - beta1) * g
        exp_avg_sq = exp_avg_sq - (1 - beta2) * sign(exp_avg_sq - g * g) * g * g
        mean, square = exp_avg / (1 - beta1**step), exp_avg_sq / (1 - beta2**step)
        return w - lr * mean / (sqrt(square) + eps), exp_avg, exp_avg_sq


pixels, digits = load_digits(return_X_y=True)  # 1797 images of 8 x 8 pixels, values 0 to 16
split = train_test_split(pixels / 16, digits, test_size=0.2, stratify=digits, random_state=0)
train_x, test_x = (torch.tensor(part, dtype=torch.float32) for part in split[:2])
train_y, test_y = (torch.tensor(part) for part in split[2:])


def accuracy_with(description: Optimizer, epochs: int = 15) -> float:
    """Train the same network from the same weights on the same batches; the test accuracy."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = description.attach(model)
    print(f"\n{description}")
    for epoch in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(train_x)).split(64):
            loss = cross_entropy(model(train_x[batch]), train_y[batch])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            total += loss.item() * len(batch)
        if epoch % 5 == 4:
            print(f"epoch {epoch:2}   training loss {total / len(train_x):.4f}")
    return (model(test_x).argmax(1) == test_y).float().mean().item()


adam = accuracy_with(Adam(learning_rate=3e-3, gradient_clip_norm=1.0))
yogi = accuracy_with(Yogi(lr=3e-3, gradient_clip_norm=1.0))
print(f"\nAdam accuracy: {adam:.4f}")
print(f"Yogi accuracy: {yogi:.4f}")
