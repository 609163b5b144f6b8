"""Layers over sequences, (N, T, features): Recurrent, LSTM, and RecurrentLast to end them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from neon.initializers import Initializer
from neon.layers.layer import InferringLayer, Layer, check_count, check_init, describe
from neon.messages import shown
from neon.transforms import Rectlin, Tanh, Transform

__all__ = ["LSTM", "Recurrent", "RecurrentLast"]


class RecurrentLayer(InferringLayer):
    """What Recurrent and LSTM share: torch's module with an inferred number of inputs.

    The weights of each gate are initialized as a matrix of their own. torch adds up two biases,
    one beside each weight; both start at 0.
    """

    gates: int
    weight_ih_l0: UninitializedParameter
    weight_hh_l0: nn.Parameter
    bias_ih_l0: nn.Parameter
    bias_hh_l0: nn.Parameter

    def __init__(
        self,
        output_size: int,
        init: Initializer,
        init_inner: Initializer | None,
        name: str | None,
        **kwargs: Any,
    ) -> None:
        check_count(self, "output_size", output_size)
        super().__init__(name=name, input_size=1, hidden_size=output_size, batch_first=True, **kwargs)
        self.output_size = output_size
        self.init = check_init(self, init)
        self.init_inner = self.init if init_inner is None else check_init(self, init_inner, "init_inner")
        self.declare("weight_ih_l0", (self.gates * output_size, None))

    def features(self, x: Tensor) -> int:
        if x.ndim != 3:
            raise ValueError(
                f"{describe(self)} takes sequences (N, T, features). Received: inputs of shape {tuple(x.shape)}"
            )
        return x.shape[-1]

    @torch.no_grad()
    def initialize(self) -> None:
        for weight, init in ((self.weight_ih_l0, self.init), (self.weight_hh_l0, self.init_inner)):
            for gate in weight.chunk(self.gates):
                init.fill(gate)
        self.bias_ih_l0.zero_()
        self.bias_hh_l0.zero_()

    def initialize_parameters(self, x: Tensor) -> None:
        super().initialize_parameters(x)
        self.input_size = self.weight_ih_l0.shape[1]
        self.flatten_parameters()

    def flatten_parameters(self) -> None:
        """Let torch pack the weights for the GPU, once they exist."""
        if not self.is_waiting():
            super().flatten_parameters()  # type: ignore[misc]

    def forward(self, x: Tensor) -> Tensor:
        outputs, _ = super().forward(x)
        return outputs

    def extra_repr(self) -> str:
        return f"{self.output_size}, init={self.init}, init_inner={self.init_inner}"


class Recurrent(RecurrentLayer, nn.RNN):  # pyright: ignore[reportIncompatibleMethodOverride]
    """hₜ = f(W xₜ + U hₜ₋₁ + b), the whole sequence of h, shape (N, T, output_size).

    Args:
        output_size: the number of units.
        init: of W.
        init_inner: of U. Default: as `init`.
        activation: f, Tanh() (default) or Rectlin(), which torch has kernels for.
    """

    gates = 1

    def __init__(
        self,
        output_size: int,
        init: Initializer,
        init_inner: Initializer | None = None,
        activation: Transform = Tanh(),  # noqa: B008 - immutable
        name: str | None = None,
    ) -> None:
        nonlinearity = {Tanh(): "tanh", Rectlin(): "relu"}.get(activation)
        if nonlinearity is None:
            raise ValueError(f"Recurrent's activation must be Tanh() or Rectlin(). Received: {shown(activation)}")
        super().__init__(output_size, init, init_inner, name, nonlinearity=nonlinearity)


class LSTM(RecurrentLayer, nn.LSTM):  # pyright: ignore[reportIncompatibleMethodOverride]
    """Long short-term memory (Hochreiter and Schmidhuber 1997), with a forget gate.

        i, f, o = σ(W x + U h + b), each with its own W, U and b;  g = tanh(W x + U h + b)
        c ← f·c + i·g
        h ← o·tanh c

    Returns the whole sequence of h, shape (N, T, output_size).

    Args:
        output_size: the number of units.
        init: of each W.
        init_inner: of each U. Default: as `init`.
    """

    gates = 4

    def __init__(
        self,
        output_size: int,
        init: Initializer,
        init_inner: Initializer | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(output_size, init, init_inner, name)


class RecurrentLast(Layer):
    """The last step of a sequence: (N, T, features) becomes (N, features)."""

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 3:
            raise ValueError(
                f"{describe(self)} takes sequences (N, T, features). Received: inputs of shape {tuple(x.shape)}"
            )
        return x[:, -1]
