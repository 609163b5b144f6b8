"""What a list of layers may hold: contents of three weights, beside the float64 reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import reference
import torch
from rule_cases import taken
from torch import Tensor, nn

from neon.optimizers import (
    MultiOptimizer,
    Optimizer,
    get_param_list,
)

BATCH, STEPS, CLIP = 8, 6, 20.0
SHAPES = ((64, 70), (70,), (5, 9, 100))  # two that are large enough for states of 8 bits


class Plain:
    """One parameter or several, and a name only where one is given."""

    def __init__(self, *pairs: tuple[Tensor, Tensor], name: str | None = None) -> None:
        self.entries = [(pair, list[Tensor]()) for pair in pairs]
        if name is not None:
            self.name = name

    def get_params(self) -> Any:
        return self.entries[0] if len(self.entries) == 1 else self.entries


class Views(Plain):
    """New tensor objects at each call; `flat` says of what shape."""

    flat = False

    def get_params(self) -> Any:
        shape = (lambda t: t.view(-1)) if self.flat else (lambda t: t.data)
        return [((shape(w), shape(g)), states) for (w, g), states in self.entries]


class FlatViews(Views):
    flat = True


class Bare:
    """Nothing but get_params: no dict, and no weak references."""

    __slots__ = ("entry",)

    def __init__(self, pair: tuple[Tensor, Tensor]) -> None:
        self.entry = (pair, list[Tensor]())

    def get_params(self) -> Any:
        return self.entry


class Nothing:
    name = "nothing"

    def get_params(self) -> Any:
        return []


class Container:
    def __init__(self, layers: Any, name: str | None = None) -> None:
        self.layers, self.name = layers, name


class Module(nn.Module):
    def __init__(self, *pairs: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        for number, (w, g) in enumerate(pairs):
            parameter = nn.Parameter(w)
            parameter.grad = g
            self.register_parameter(f"w{number}", parameter)


Pairs = list[tuple[Tensor, Tensor]]


def shared(pairs: Pairs) -> list[Any]:
    """Each weight in two layers, which bring a quarter and three quarters of its gradient."""
    layers = [Plain((w, torch.empty_like(g)), name=f"{part}") for w, g in pairs for part in "ab"]
    for (_, g), a, b in zip(pairs, layers[::2], layers[1::2], strict=True):
        a.get_params, b.get_params = (
            lambda layer=layer, g=g, part=part: ((layer.entries[0][0][0], part * g), layer.entries[0][1])
            for layer, part in ((a, 0.25), (b, 0.75))
        )
    return layers


def twice(pairs: Pairs) -> list[Any]:
    layers = [Plain(pair) for pair in pairs]
    return [*layers, Container(layers), layers[0]]


CONTENTS: dict[str, Callable[[Pairs], list[Any]]] = {
    "plain tensors": lambda pairs: [Plain(pair) for pair in pairs],
    "several in one layer": lambda pairs: [Plain(*pairs)],
    "views made anew": lambda pairs: [Views(*pairs[:2]), Views(pairs[2])],
    "flat views made anew": lambda pairs: [FlatViews(pair) for pair in pairs],
    "a container": lambda pairs: [Container([Plain(pair) for pair in pairs])],
    "containers in containers": lambda pairs: [Container((Container([Plain(*pairs[:2])], "in"), Plain(pairs[2])))],
    "nested lists": lambda pairs: [[Plain(pairs[0]), [[Plain(pairs[1])], ()]], Plain(pairs[2])],
    "layers without parameters": lambda pairs: [Nothing(), *(x for pair in pairs for x in (Plain(pair), Nothing()))],
    "names": lambda pairs: [Plain(pair, name=f"layer {number}") for number, pair in enumerate(pairs)],
    "get_params alone": lambda pairs: [Bare(pair) for pair in pairs],
    "a layer twice": twice,
    "weights of two layers": shared,
    "modules of torch": lambda pairs: [Module(*pairs[:2]), nn.Sequential(Module(pairs[2]), nn.ReLU())],
    "of everything": lambda pairs: [Container([Bare(pairs[0]), Nothing()], "row"), [Views(pairs[1])], Module(pairs[2])],
}
WAYS: dict[str, Callable[[Any], Optimizer]] = {
    "alone": lambda opt: opt,
    "in a mapping": lambda opt: MultiOptimizer({"default": opt}),
    "in nested mappings": lambda opt: MultiOptimizer({"default": MultiOptimizer({"default": opt}, "inner")}),
}


class Run:
    """Weights in some dtype with the reference's beside them, and the same gradients for both."""

    def __init__(self, content: str, dtype: torch.dtype = torch.float64, rule: str | None = None) -> None:
        self.rng = np.random.default_rng(17)
        self.shapes = [taken(np.empty(shape), rule).shape for shape in SHAPES]
        self.expected = [self.numbers(shape, dtype) for shape in self.shapes]
        self.start = [w.copy() for w in self.expected]
        self.weights = [torch.tensor(w, dtype=dtype) for w in self.expected]
        self.grads = [torch.zeros_like(w) for w in self.weights]
        self.layers = CONTENTS[content](list(zip(self.weights, self.grads, strict=True)))

    def numbers(self, shape: tuple[int, ...], dtype: torch.dtype, scale: float = 0.5) -> np.ndarray:
        """Numbers that are exact in the dtype."""
        return torch.tensor(scale * self.rng.standard_normal(shape)).to(dtype).double().numpy()

    def steps(self, opt: Optimizer, rule: reference.Reference) -> Iterator[int]:
        for epoch in range(STEPS):
            shapes = zip(self.shapes, self.grads, strict=True)
            gradients = [self.numbers(shape, grad.dtype, BATCH) for shape, grad in shapes]
            for grad, g in zip(self.grads, gradients, strict=True):
                grad.copy_(torch.tensor(g))
            opt.optimize(self.layers, epoch)
            rule.step(self.expected, gradients, epoch)
            yield epoch

    def check(self, tolerance: float = 1e-12) -> None:
        for w, wanted, start in zip(self.weights, self.expected, self.start, strict=True):
            assert np.abs(wanted - start).max() > 1e-4
            np.testing.assert_allclose(w.double().numpy(), wanted, rtol=0, atol=tolerance)


class ByHand(Optimizer):
    """Momentum, as the documentation has an optimizer written."""

    def optimize(self, layer_list: Any, epoch: int) -> None:
        for (param, grad), states in get_param_list(layer_list):
            if len(states) == 0:
                states.append(self.be.zeros_like(grad))
            states[0][:] = 0.9 * states[0] - 0.02 * (grad / self.be.bsz)
            param[:] = param + states[0]
