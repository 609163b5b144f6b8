"""A small transformer: rates that fall with depth, no decay on norms and biases, a warm-up and a cosine.

The mapping says which optimizer a layer has, `set` the values of layers over it, by keys that need not be those of
the mapping: a layer may have the decay of its class and the rate of its place at once.

Run it: python examples/transformer_rates.py
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, scaled_dot_product_attention
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from neon.optimizers import AdamW

WIDTH, HEADS, DEPTH = 32, 4, 4
EPOCHS, BATCH, WARMUP, FALL = 12, 64, 30, 0.8

pixels, digits = load_digits(return_X_y=True)  # 1797 images of 8 x 8 pixels: sentences of 8 rows
split = train_test_split(pixels / 16, digits, test_size=0.2, stratify=digits, random_state=0)
train_x, test_x = (torch.tensor(x, dtype=torch.float32).reshape(-1, 8, 8) for x in split[:2])
train_y, test_y = (torch.tensor(y) for y in split[2:])


class Block(nn.Module):
    """Attention and a small network, each behind a norm and beside the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH)
        self.fc1 = nn.Linear(WIDTH, 2 * WIDTH)
        self.fc2 = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.qkv(self.norm1(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))
        return x + self.fc2(gelu(self.fc1(self.norm2(x))))


class Transformer(nn.Module):
    """Classifies images by the mean over their rows."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, WIDTH)
        self.positions = nn.Parameter(0.02 * torch.randn(8, WIDTH))
        self.blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.embed(x) + self.positions)).mean(1))


torch.manual_seed(0)
model = Transformer()

optimizer = AdamW(learning_rate=4e-3, wdecay=0.05, gradient_clip_norm=1.0).attach(model)
for layers in ("Bias", "LayerNorm", "positions"):
    optimizer.set("weight_decay", 0.0, layers=layers)
for depth in range(DEPTH):
    optimizer.set("lr_scale", FALL ** (DEPTH - depth), layers=f"blocks.{depth}")
for layers in ("embed", "positions"):
    optimizer.set("lr_scale", FALL ** (DEPTH + 1), layers=layers)

steps = EPOCHS * -(-len(train_x) // BATCH)
warmup = LinearLR(optimizer, start_factor=1 / WARMUP, total_iters=WARMUP)
cosine = CosineAnnealingLR(optimizer, T_max=steps - WARMUP)
scheduler = SequentialLR(optimizer, [warmup, cosine], milestones=[WARMUP])

for epoch in range(EPOCHS):
    losses = []
    for batch in torch.randperm(len(train_x)).split(BATCH):
        optimizer.zero_grad()
        loss = cross_entropy(model(train_x[batch]), train_y[batch])
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    mean = sum(losses) / len(losses)
    print(f"epoch {epoch:2}   learning rate {optimizer.param_groups[0]['lr']:.5f}   loss {mean:.3f}")
    if epoch == EPOCHS // 2:
        print(f"\n{optimizer}\n")

with torch.no_grad():
    accuracy = (model(test_x).argmax(1) == test_y).float().mean().item()
print(f"accuracy: {accuracy:.4f}")
