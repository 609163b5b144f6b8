"""Why states of 8 bits are kept as they are: how far moments come back from other blocks and other codes.

    python benchmarks/blocks.py    # a few seconds

The moments are Adam's after 200 steps on handwritten digits, float32, of the layers whose states would be in
blocks. Each is rounded at random into 8 bits and read again. Errors are root mean squares over weights: of the
first moment m relative to m, and of the step m/√v that is made of it relative to steps; of the second v that of
the factor 1/√v. Lost are second moments that became zero, by whose root a step would be divided.
"""

from __future__ import annotations

import torch
from low_precision_training import digits_problem
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from neon.commands.compare.digits import digits
from neon.engine.program.formats import blocks
from neon.engine.program.formats.blocks import BLOCK, SmallFloat
from neon.optimizers import Adam

BLOCKS = (64, 128, 256, 512, 1024)
LINEAR = "linear"
FLOATS = dict(zip(("float, with a sign", "float, without"), blocks.BLOCKS, strict=True))


def moments(steps: int = 200) -> tuple[list[Tensor], list[Tensor]]:
    """The first and the second moments of the large layers."""
    torch.manual_seed(0)
    images, labels = digits().train
    model = digits_problem().model()
    optimizer = Adam(learning_rate=1e-3).attach(model)
    for _ in range(steps):
        batch = torch.randint(len(images), (64,))
        optimizer.zero_grad()
        cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()
    large = [optimizer.state[p] for p in model.parameters() if p.numel() >= 4096]
    return [s["exp_avg"].flatten() for s in large], [s["exp_avg_sq"].flatten() for s in large]


def in_blocks(x: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """A vector as rows of blocks, and the largest magnitude of each."""
    rows = pad(x, (0, -len(x) % block)).view(-1, block)
    return rows, rows.abs().amax(1, keepdim=True).clamp(min=2.0**-120)


def by_float(x: Tensor, block: int, form: SmallFloat) -> Tensor:
    """Through the engine's small floats, written anew with a float32's bits."""
    rows, peak = in_blocks(x, block)
    offset = 2.0 ** (1 - (1 << form.exponent)) if form.signed else 0.0
    value = rows.abs() * (form.largest * (1 - 2.0**-22) / peak) + offset
    if not form.signed:
        value = torch.where(value > 0, value.clamp(min=2.0**-30), value)
    dropped = 23 - form.mantissa
    bits = value.view(torch.int32) + torch.randint(1 << dropped, value.shape, dtype=torch.int32)
    kept = (bits >> dropped << dropped).view(torch.float32) - offset
    kept = torch.where(rows == 0, 0.0, kept) * torch.sign(rows) * (peak / form.largest)
    return kept.flatten()[: len(x)]


def by_steps(x: Tensor, block: int, *, signed: bool) -> Tensor:
    """Through equal steps from zero to the largest of the block."""
    rows, peak = in_blocks(x, block)
    most = 127 if signed else 255
    return ((rows / peak * most + torch.rand_like(rows)).floor().clamp(-most, most) / most * peak).flatten()[: len(x)]


def through(x: Tensor, block: int, code: str, *, signed: bool) -> Tensor:
    return by_steps(x, block, signed=signed) if code == LINEAR else by_float(x, block, FLOATS[code])


def main() -> None:
    torch.set_num_threads(1)
    first, second = (torch.cat(parts) for parts in moments())
    table = Table("block", "code", title=f"Adam's moments in 8 bits; the engine's block: {BLOCK}")
    for column in ("m", "m/√v by m", "1/√v by v", "v lost"):
        table.add_column(column, justify="right")
    positive = second > 0
    for block in BLOCKS:
        for code in (*FLOATS, LINEAR):
            wrong, step = "–", "–"
            if code != "float, without":
                error, scale = (through(first, block, code, signed=True) - first)[positive], second[positive].sqrt()
                wrong = f"{float(error.norm() / first.norm()):.4f}"
                step = f"{float((error / scale).norm() / (first[positive] / scale).norm()):.4f}"
            kept = through(second, block, code, signed=False)[positive]
            there = kept > 0
            factor = (second[positive][there] / kept[there]).sqrt() - 1
            root = float(factor.square().mean().sqrt())
            table.add_row(str(block), code, wrong, step, f"{root:.3f}", f"{float((~there).float().mean()):.2%}")
    Console().print(table)


if __name__ == "__main__":
    main()
