"""Layers that are connected to every feature: Linear, Bias, LookupTable."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn import functional as F

from neon.arguments import flag
from neon.initializers import Initializer
from neon.layers.layer import InferringLayer, ParameterLayer, check_count, check_dims, check_init, describe
from neon.layers.shapes import Sizes, floating
from neon.messages import shown
from neon.transforms.cost import vectors


class Linear(InferringLayer):
    """y = x Wᵀ, with W of shape (nout, inputs) and no bias.

    (N, inputs) becomes (N, nout); each step of a sequence, (N, T, inputs), is treated alike and
    becomes (N, T, nout); an image, (N, channels, height, width), is flattened first, so that a
    Linear or an Affine can follow a convolution directly. `bsum` and `parallelism` are taken and mean nothing.
    """

    weight: Parameter
    told = ("nout", "init")

    def __init__(
        self,
        nout: int,
        init: Initializer,
        name: str | None = None,
        *,
        bsum: bool = False,
        parallelism: str = "Disabled",
    ) -> None:
        super().__init__(name=name)
        self.nout = check_count(self, "nout", nout)
        self.init = check_init(self, init)
        self.declare("weight", (nout, None))

    def features(self, x: Tensor) -> int:
        wanted = "vectors (N, inputs), sequences (N, T, inputs) or images (N, channels, height, width)"
        check_dims(self, x, wanted, 2, 3, 4)
        return vectors(x).shape[-1]

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(floating(vectors(x), self.weight), self.weight)


class Bias(InferringLayer):
    """y = x + b, with one b per feature: per channel of an image, (N, channels, height, width)."""

    bias: Parameter
    told = ("init",)

    def __init__(self, init: Initializer, name: str | None = None) -> None:
        super().__init__(name=name)
        self.init = check_init(self, init)
        self.declare("bias", (None,))

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.bias[:, None, None] if x.ndim == 4 else self.bias)


class LookupTable(ParameterLayer):
    """A learned vector for each of `vocab_size` indices: integers of shape (N, T) become
    (N, T, embedding_dim). The gradient is dense.

    Args:
        vocab_size: the number of indices.
        embedding_dim: the size of a vector.
        init: of the weight, (vocab_size, embedding_dim).
        update: False keeps the vectors as they are: optimizers leave them alone, decay of weights too. Default True.
        pad_idx: an index in [0, vocab_size) whose vector is 0 and stays so. Default None: there is none.
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_dim: int,
        init: Initializer,
        update: bool = True,
        pad_idx: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        vocab_size = check_count(self, "vocab_size", vocab_size)
        embedding_dim = check_count(self, "embedding_dim", embedding_dim)
        self.init = check_init(self, init)
        self.update = flag("LookupTable's update", update)
        self.pad_idx = None if pad_idx is None else check_count(self, "pad_idx", pad_idx, least=0)
        if self.pad_idx is not None and self.pad_idx >= vocab_size:
            raise ValueError(
                f"LookupTable's pad_idx must be less than its vocab_size, {vocab_size}. Received: {shown(pad_idx)}"
            )
        self.weight = Parameter(torch.empty(vocab_size, embedding_dim), requires_grad=self.update)
        with torch.no_grad():
            self.init.fill(self.weight)
            if self.pad_idx is not None:
                self.weight[self.pad_idx] = 0

    def blank(self, sizes: Sizes) -> Tensor:
        """Indices: every value of a sample is a step."""
        return torch.zeros((1, math.prod(sizes)), dtype=torch.int64, device=self.weight.device)

    def forward(self, x: Tensor) -> Tensor:
        if x.is_floating_point() or x.is_complex():
            raise TypeError(f"{describe(self)} takes integer indices. Received: {x.dtype} inputs")
        return F.embedding(x.long(), self.weight, padding_idx=self.pad_idx)

    def extra_repr(self) -> str:
        vocab_size, embedding_dim = self.weight.shape
        return f"vocab_size={vocab_size}, embedding_dim={embedding_dim}, init={self.init}"
