"""A deep network sees its layers wake up: what the steps do to each of them, written as it trains.

Ten tanh layers learn to read digits, by gradient descent with a rate that warms up for 60 steps and falls on a cosine.
For some 140 steps gradients vanish on their way down, and the head learns almost alone; then all layers wake. From step
300 to 400 one of them is frozen.

Run it:   python examples/watch_updates.py run.jsonl
See it:   neon report run.jsonl
"""

from __future__ import annotations

import sys
import tempfile
from collections import OrderedDict
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn.functional import cross_entropy

from neon.optimizers import GradientDescentMomentum, WarmupCosine

DEPTH, STEPS, EVERY = 10, 900, 3
FROZEN = range(300, 400)

torch.manual_seed(0)
file = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()) / "run.jsonl"
pixels, digits = load_digits(return_X_y=True)  # 1797 images of 8 x 8 pixels, values 0 to 16
split = train_test_split(pixels / 16, digits, test_size=0.2, stratify=digits, random_state=0)
images, held_images, labels, held_labels = map(torch.tensor, split)
images, held_images = images.float(), held_images.float()

layers = OrderedDict[str, nn.Module]()
for number in range(DEPTH):
    layers[f"layer_{number}"] = nn.Linear(64, 64)
    layers[f"tanh_{number}"] = nn.Tanh()
model = nn.Sequential(layers | {"head": nn.Linear(64, 10)})

rule = GradientDescentMomentum(0.1, 0.9, gradient_clip_norm=1.0, schedule=WarmupCosine(60, STEPS, unit="steps"))
optimizer = rule.attach(model, statistics=EVERY)

for step in range(1, STEPS + 1):
    if step == FROZEN.start:
        optimizer.freeze("layer_5")
    if step == FROZEN.stop:
        optimizer.unfreeze("layer_5")
    chosen = torch.randint(len(images), (64,))
    optimizer.zero_grad()
    loss = cross_entropy(model(images[chosen]), labels[chosen])
    loss.backward()
    optimizer.step()
    if step % EVERY == 0 and (table := optimizer.statistics()):
        table.by_layer().to_jsonl(file)
    if step % 100 == 0:
        print(f"step {step}   loss {loss.item():.3f}")

print(f"\nWhat the last step did to each parameter; by layer, all steps are in {file}:\n\n{optimizer.statistics()}\n")
print(f"accuracy: {(model(held_images).argmax(1) == held_labels).float().mean():.4f}")
