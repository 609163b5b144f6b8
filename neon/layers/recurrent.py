"""Layers over sequences, (N, T, features): Recurrent, LSTM and GRU."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from neon.arguments import plain
from neon.initializers import Initializer
from neon.layers.layer import Transformation, check_transform
from neon.layers.steps import RecurrentLayer, States
from neon.old_paths import names_of
from neon.transforms import Logistic, Rectlin, Tanh

__all__ = ["GRU", "LSTM", "Recurrent"]


class TorchsRecurrentLayer(RecurrentLayer):
    """What Recurrent and LSTM share: torch's module, whose kernel runs where it computes the same as the loop."""

    torchs: Any  # the class that has the kernel
    has_kernel: bool

    def __init__(self, output_size: int, *args: Any, **torchs: Any) -> None:
        super().__init__(output_size, *args, input_size=1, hidden_size=plain(output_size), batch_first=True, **torchs)

    def initialize_parameters(self, x: Tensor) -> None:
        super().initialize_parameters(x)
        self.input_size = self.weight_ih_l0.shape[1]
        self.flatten_parameters()

    def flatten_parameters(self) -> None:
        """Let torch pack the weights for the GPU, once they exist."""
        if not self.is_waiting():
            super().flatten_parameters()  # type: ignore[misc]

    def run(self, x: Tensor, states: States | None) -> tuple[Tensor, States]:
        if not self.has_kernel:
            return super().run(x, states)
        h = None if states is None else tuple(state[None] for state in states)  # torch numbers its layers first
        outputs, last = self.torchs.forward(self, x, h if h is None or self.handed_on > 1 else h[0])
        return outputs, tuple(state[0] for state in (last if isinstance(last, tuple) else (last,)))


class Recurrent(TorchsRecurrentLayer, nn.RNN):  # pyright: ignore[reportIncompatibleMethodOverride]
    """hₜ = f(W xₜ + U hₜ₋₁ + b), the whole sequence of h, shape (N, T, output_size).

    Args:
        output_size: the number of units.
        init: of W.
        init_inner: of U. Default: as `init`.
        activation: f, by default Tanh(). torch has kernels for Tanh() and Rectlin(); others are a loop over the steps.
        reset_cells: True (default) starts each minibatch from zeros, False from where the last one of its size ended
            (the documented framework's default).
    """

    torchs = nn.RNN
    gates = 1

    def __init__(
        self,
        output_size: int,
        init: Initializer,
        init_inner: Initializer | None = None,
        activation: Transformation = Tanh(),  # noqa: B008 - immutable
        reset_cells: bool = True,
        name: str | None = None,
    ) -> None:
        kernels = [kind for transform, kind in ((Tanh(), "tanh"), (Rectlin(), "relu")) if transform == activation]
        kind = kernels[0] if kernels else "tanh"  # torch's module wants one, used or not
        super().__init__(output_size, init, init_inner, activation, reset_cells, name, nonlinearity=kind)
        self.has_kernel = bool(kernels)

    def step(self, inputs: Tensor, *states: Tensor) -> States:
        (h,) = states
        return (self.activation(inputs + F.linear(h, self.weight_hh_l0, self.bias_hh_l0)),)


class LSTM(TorchsRecurrentLayer, nn.LSTM):  # pyright: ignore[reportIncompatibleMethodOverride]
    """Long short-term memory (Hochreiter and Schmidhuber 1997), with a forget gate.

        i, f, o = σ(W x + U h + b), each with its own W, U and b;  g = φ(W x + U h + b)
        c ← f·c + i·g
        h ← o·φ(c)

    Returns the whole sequence of h, shape (N, T, output_size). The parameters hold i, f, g, o in torch's order.

    Args:
        output_size, init, init_inner, reset_cells: as Recurrent has them, with each W and U initialized apart.
        activation: φ, by default Tanh().
        gate_activation: σ, by default Logistic(). torch has a kernel for these two; others are a loop over the steps.
    """

    torchs = nn.LSTM
    gates = 4
    handed_on = 2

    def __init__(
        self,
        output_size: int,
        init: Initializer,
        init_inner: Initializer | None = None,
        activation: Transformation = Tanh(),  # noqa: B008 - immutable
        gate_activation: Transformation = Logistic(),  # noqa: B008 - immutable
        reset_cells: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(output_size, init, init_inner, activation, reset_cells, name)
        self.gate_activation = check_transform(self, gate_activation, "gate_activation")
        self.has_kernel = activation == Tanh() and gate_activation == Logistic()

    def step(self, inputs: Tensor, *states: Tensor) -> States:
        h, c = states
        i, f, g, o = (inputs + F.linear(h, self.weight_hh_l0, self.bias_hh_l0)).chunk(4, -1)
        c = self.gate_activation(f) * c + self.gate_activation(i) * self.activation(g)
        return self.gate_activation(o) * self.activation(c), c


class GRU(RecurrentLayer):
    """A gated recurrent unit (Cho et al. 2014).

        r, z = σ(W x + U h + b), each with its own W, U and b
        ĥ = φ(W x + U (r·h) + b)
        h ← (1 − z)·h + z·ĥ

    Returns the whole sequence of h, shape (N, T, output_size). `torch.nn.GRU` is another function: it resets after the
    product, φ(W x + b + r·(U h + b)), and takes z the other way round. So this is a loop over the steps. The parameters
    hold r, z and the candidate ĥ in this order.

    Args:
        output_size, init, init_inner, reset_cells: as Recurrent has them, with each W and U initialized apart.
        activation: φ, by default Tanh().
        gate_activation: σ, by default Logistic().
    """

    gates = 3

    def __init__(
        self,
        output_size: int,
        init: Initializer,
        init_inner: Initializer | None = None,
        activation: Transformation = Tanh(),  # noqa: B008 - immutable
        gate_activation: Transformation = Logistic(),  # noqa: B008 - immutable
        reset_cells: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(output_size, init, init_inner, activation, reset_cells, name)
        self.gate_activation = check_transform(self, gate_activation, "gate_activation")
        rows = self.gates * self.output_size
        self.declare("weight_hh_l0", (rows, self.output_size))
        self.declare("bias_ih_l0", (rows,))
        self.declare("bias_hh_l0", (rows,))

    def step(self, inputs: Tensor, *states: Tensor) -> States:
        (h,) = states
        sizes = (2 * self.output_size, self.output_size)
        gates, candidate = inputs.split(sizes, -1)
        weight, weight_of_candidate = self.weight_hh_l0.split(sizes)
        bias, bias_of_candidate = self.bias_hh_l0.split(sizes)
        r, z = self.gate_activation(gates + F.linear(h, weight, bias)).chunk(2, -1)
        candidate = self.activation(candidate + F.linear(r * h, weight_of_candidate, bias_of_candidate))
        return ((1 - z) * h + z * candidate,)


__getattr__ = names_of("neon.layers", __name__)
