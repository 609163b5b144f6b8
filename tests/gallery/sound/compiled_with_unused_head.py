"""A model that is compiled as one graph, with a head that no loss uses: hooks would break it, or compile it anew."""

from __future__ import annotations

import torch
from torch import nn

from neon.optimizers import Adam


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.pooler, self.head = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.layer(x).relu()
        return self.head(hidden), self.pooler(hidden)


def train():  # type: ignore[no-untyped-def]
    graphs = []

    def counted(graph, _inputs):  # type: ignore[no-untyped-def]
        graphs.append(graph)
        return graph

    inner = Encoder()
    model = torch.compile(inner, backend=counted, fullgraph=True)
    optimizer = Adam().attach(inner)
    for _ in range(103):
        optimizer.zero_grad()
        model(torch.randn(16, 8))[0].square().mean().backward()
        optimizer.step()
    assert len(graphs) == 1
    inner.pooler.requires_grad_(False)
    return optimizer, model
