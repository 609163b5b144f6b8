"""What layers over sequences share: weights of several gates, a loop over the steps, and what is carried on."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neon.arguments import flag
from neon.initializers import Initializer
from neon.layers.layer import InferringLayer, Transformation, check_count, check_dims, check_init, check_transform
from neon.layers.shapes import Sizes, floating

# After a step: h, or h and c, each (N, output_size).
States = tuple[Tensor, ...]


class RecurrentLayer(InferringLayer):
    """What Recurrent, LSTM and GRU share: parameters that are called as torch calls them, and a loop over the steps.

    The weights of each gate are initialized as a matrix of their own. Two biases are added up, one beside each weight;
    both start at 0. Inputs are sequences (N, T, features). Images, (N, channels, height, width), are read as the
    documented framework reads them: width steps of channels · height features.

    With `reset_cells` False, which the documented framework has by default, a minibatch starts from where the last one
    of its size ended, without gradient. With True it starts from zeros, as minibatches in any order want it. Training
    and evaluation go on from their own; `train` and `eval` forget what evaluation has carried, `forget` all of it.
    `state_dict` has nothing of it.
    """

    gates: int
    handed_on: int = 1  # tensors that a step gives to the next
    weight_ih_l0: nn.Parameter
    weight_hh_l0: nn.Parameter
    bias_ih_l0: nn.Parameter
    bias_hh_l0: nn.Parameter

    def __init__(
        self,
        output_size: int,
        init: Initializer,
        init_inner: Initializer | None,
        activation: Transformation,
        reset_cells: bool,
        name: str | None,
        **torchs: Any,
    ) -> None:
        output_size = check_count(self, "output_size", output_size)
        super().__init__(name=name, **torchs)
        self.output_size = output_size
        self.init = check_init(self, init)
        self.init_inner = self.init if init_inner is None else check_init(self, init_inner, "init_inner")
        self.activation = check_transform(self, activation, "activation")
        self.reset_cells = flag(f"{type(self).__name__}'s reset_cells", reset_cells)
        self.carried: dict[bool, States] = {}
        self.declare("weight_ih_l0", (self.gates * output_size, None))

    def features(self, x: Tensor) -> int:
        return sequences(self, x).shape[-1]

    @torch.no_grad()
    def initialize(self) -> None:
        for weight, init in ((self.weight_ih_l0, self.init), (self.weight_hh_l0, self.init_inner)):
            for gate in weight.chunk(self.gates):
                init.fill(gate)
        self.bias_ih_l0.zero_()
        self.bias_hh_l0.zero_()

    def forward(self, x: Tensor) -> Tensor:
        x = floating(sequences(self, x), self.weight_hh_l0)
        outputs, last = self.run(x, self.start(x))
        if not self.reset_cells:
            kept = self.weight_hh_l0.dtype  # autocast may compute in another
            self.carried[self.training] = tuple(state.detach().to(kept, copy=True) for state in last)
        return outputs

    def run(self, x: Tensor, states: States | None) -> tuple[Tensor, States]:
        """All h and the last states, beginning from `states`, or from zeros for None: a loop over the steps."""
        states = states or (x.new_zeros(len(x), self.output_size),) * self.handed_on
        outputs = []
        for inputs in F.linear(x, self.weight_ih_l0, self.bias_ih_l0).unbind(1):
            states = self.step(inputs, *states)
            outputs.append(states[0])
        return torch.stack(outputs, 1), states

    @abstractmethod
    def step(self, inputs: Tensor, *states: Tensor) -> States:
        """One step; `inputs` is W x + b of all gates, shape (N, gates · output_size)."""

    def start(self, x: Tensor) -> States | None:
        """What the last minibatch left, where it fits."""
        found = () if self.reset_cells else self.carried.get(self.training, ())
        like = self.weight_hh_l0
        if not found or any(s.shape[0] != len(x) or s.device != x.device or s.dtype != like.dtype for s in found):
            return None
        # what inference_mode has made must be copied before autograd can use it
        return tuple((s.clone() if s.is_inference() else s).to(x.dtype) for s in found)

    def forget(self) -> None:
        """Start the next minibatch from zeros."""
        self.carried.clear()

    def train(self, mode: bool = True) -> Self:
        self.carried.pop(False, None)
        return super().train(mode)

    def configure(self, in_obj: Any) -> Self:
        carried = self.carried.copy()
        try:
            return super().configure(in_obj)
        finally:
            self.carried = carried

    def blank(self, sizes: Sizes) -> Tensor:
        return zeros_in_steps(super().blank((1,)), sizes)

    def extra_repr(self) -> str:
        gates = f", gate_activation={self.gate_activation}" if hasattr(self, "gate_activation") else ""
        carried = "" if self.reset_cells else ", reset_cells=False"
        inits = f"init={self.init}, init_inner={self.init_inner}"
        return f"{self.output_size}, {inits}, activation={self.activation}{gates}{carried}"


def sequences(layer: nn.Module, x: Tensor) -> Tensor:
    """Inputs as sequences (N, T, features): images as `width` steps of channels · height features."""
    if x.ndim == 4:
        return x.flatten(1, 2).mT
    check_dims(layer, x, "sequences (N, T, features)", 3)
    return x


def zeros_in_steps(like: Tensor, sizes: Sizes) -> Tensor:
    """A sequence of zeros from a shape that may be that of vectors (one step) or images."""
    *features, steps = sizes if len(sizes) > 1 else (*sizes, 1)
    return like.new_zeros((1, steps, math.prod(features)))
