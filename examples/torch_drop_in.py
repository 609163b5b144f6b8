"""A neon optimizer in a torch program: a torch scheduler, a checkpoint, the same bits after a resume.

Run it: python examples/torch_drop_in.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR

from neon.optimizers import AdamW, GradientDescentMomentum, MultiOptimizer

EPOCHS = 8

pixels, digits = load_digits(return_X_y=True)  # 1797 images of 8 x 8 pixels, values 0 to 16
split = train_test_split(pixels / 16, digits, test_size=0.2, stratify=digits, random_state=0)
train_x, test_x = (torch.tensor(x, dtype=torch.float32).reshape(-1, 1, 8, 8) for x in split[:2])
train_y, test_y = (torch.tensor(y) for y in split[2:])


class Training:
    """A model, its optimizer and its scheduler; everything here but one line is plain torch."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(256, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )
        momentum = GradientDescentMomentum(0.05, 0.9, name="momentum")
        adamw = AdamW(learning_rate=3e-3, wdecay=0.05)
        mapping = {"default": adamw, "Conv2d": momentum}
        self.optimizer = MultiOptimizer(mapping, gradient_clip_norm=1.0).attach(self.model)
        self.scheduler = CosineAnnealingLR(self.optimizer, T_max=EPOCHS)

    def epoch(self, epoch: int) -> None:
        """One pass over the training images, in an order that depends on the epoch alone."""
        order = torch.randperm(len(train_x), generator=torch.Generator().manual_seed(epoch))
        for batch in order.split(64):
            self.optimizer.zero_grad()
            cross_entropy(self.model(train_x[batch]), train_y[batch]).backward()
            self.optimizer.step()
        rates = ", ".join(f"{group['lr']:.5f}" for group in self.optimizer.param_groups)
        print(f"epoch {epoch}   learning rates {rates}   accuracy {self.accuracy():.3f}")
        self.scheduler.step()

    @torch.no_grad()
    def accuracy(self) -> float:
        return (self.model(test_x).argmax(1) == test_y).float().mean().item()

    def parts(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler}

    def save(self, path: Path) -> None:
        torch.save({name: part.state_dict() for name, part in self.parts().items()}, path)

    def load(self, path: Path) -> None:
        saved = torch.load(path, weights_only=True)
        for name, part in self.parts().items():
            part.load_state_dict(saved[name])


with tempfile.TemporaryDirectory() as folder:
    checkpoint = Path(folder) / "checkpoint.pt"

    print("Without interruption:")
    whole = Training(seed=0)
    for epoch in range(EPOCHS):
        if epoch == EPOCHS // 2:
            whole.save(checkpoint)
        whole.epoch(epoch)
    print(f"\n{whole.optimizer}\n")

    print("Resumed from the checkpoint, in other objects that began with other weights:")
    resumed = Training(seed=1)
    resumed.load(checkpoint)
    for epoch in range(EPOCHS // 2, EPOCHS):
        resumed.epoch(epoch)

pairs = zip(whole.model.parameters(), resumed.model.parameters(), strict=True)
same = all(torch.equal(a.view(torch.int32), b.view(torch.int32)) for a, b in pairs)
print(f"\nthe same bits: {same}")
print(f"accuracy: {resumed.accuracy():.4f}")
