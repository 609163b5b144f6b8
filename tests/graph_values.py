"""Evaluates graph nodes on vectors with the eager backend's table, for tests of formats and random bits."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from neon.engine.program.graph import Node, walk
from neon.engine.program.operations import OPERATIONS


def value_of(root: Node, leaves: Mapping[str, Tensor]) -> Tensor:
    """The value of a node; `leaves` maps labels of loads, and operations of other leaves, to vectors."""
    values: dict[Node, Tensor] = {}
    for node in walk([root]):
        if node.op == "const":
            dtype = torch.int64 if node.kind == "uint" else torch.float32
            values[node] = torch.tensor(node.label, dtype=dtype)
        elif node.op == "block_peak":
            (x,) = (values[a] for a in node.args)
            values[node] = OPERATIONS["block_peak"].torch(
                OPERATIONS["bits"].torch(x.abs() if node.label == "signed" else x)
            )
        elif node.args:
            values[node] = OPERATIONS[node.op].torch(*(values[a] for a in node.args))
        else:
            values[node] = leaves[node.label if node.label is not None else node.op]
    return values[root]
