"""Checkpoints that are kept: every rule in every format, saved by a version of neon for all later ones to load.

As a script it writes those of the version at hand: python tests/kept_checkpoints.py tests/checkpoints/VERSION.pt.xz
Files of released versions are never written anew.
"""

from __future__ import annotations

import io
import lzma
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rule_cases import RULES, TUNED, make
from torch import nn

import neon.torch
from neon.initializers import Constant
from neon.layers import Affine
from neon.models import Model
from neon.optimizers import Adam, AdamW, GradientDescentMomentum, MultiOptimizer, WarmupCosine
from neon.transforms import CrossEntropyMulti, Softmax

FOLDER = Path(__file__).with_name("checkpoints")
STEPS = 3

# name: (dtype of the weights, options)
FORMATS: dict[str, tuple[torch.dtype, dict[str, Any]]] = {
    "float32": (torch.float32, {}),
    "float64": (torch.float64, {}),
    "bfloat16 rounded at random": (torch.bfloat16, {"stochastic_round": True}),
    "float16": (torch.float16, {}),
    "bfloat16 states": (torch.float32, {"state_dtype": "bfloat16"}),
    "8-bit states": (torch.float32, {"state_dtype": "int8"}),
    "split weights, 8-bit states": (torch.bfloat16, {"master": "split", "state_dtype": "int8"}),
    "averages": (torch.float32, {"weight_average": 0.5}),
}
DROP_INS: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.1},
    "SGD momentum": {"lr": 0.1, "momentum": 0.9},
    "Adam": {},
    "Adam amsgrad": {"amsgrad": True},
    "AdamW": {},
    "RMSprop": {},
    "RMSprop centered momentum": {"centered": True, "momentum": 0.9},
    "Adagrad": {},
    "Adagrad from 0.5": {"initial_accumulator_value": 0.5, "lr_decay": 0.1},
    "Adadelta": {},
    "Lion": {},
}


class Net(nn.Module):
    """A weight whose states may be in blocks of 8 bits, and a small one."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        values = torch.arange(4096) % 7 - 3
        self.weight = nn.Parameter((values / 4).view(16, 256).to(dtype))
        self.bias = nn.Parameter(torch.tensor([0.5, -0.25, 0.0], dtype=dtype))


def give(model: nn.Module, step: int) -> None:
    """The gradients of a step: few different numbers, exact in every format."""
    for number, param in enumerate(model.parameters()):
        values = (torch.arange(param.numel()) + step + number) % 5 - 2
        param.grad = (values / 8).view(param.shape).to(param.dtype)


def _described(rule: str, options: dict[str, Any]) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda model: make(rule, "plain", **options).attach(model)


def _drop_in(name: str, options: dict[str, Any]) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda model: getattr(neon.torch, name.split()[0])(model.parameters(), **DROP_INS[name], **options)


def _mapping(model: nn.Module) -> torch.optim.Optimizer:
    inner = MultiOptimizer({"default": GradientDescentMomentum(0.1, 0.9), "bias": Adam()})
    optimizer = MultiOptimizer(
        {"default": inner, "weight": AdamW(schedule=WarmupCosine(2, 8, unit="steps"))}, gradient_clip_norm=1.0
    ).attach(model)
    optimizer.set("lr", 0.25, layers="bias")
    optimizer.set("weight_decay", 0.5, layers="weight")
    return optimizer


def cases() -> dict[str, tuple[torch.dtype, Callable[[nn.Module], torch.optim.Optimizer]]]:
    """Every case: the dtype of its model, and what makes its optimizer."""
    found = {}
    for name, (dtype, options) in FORMATS.items():
        tuned = TUNED if name == "float32" else {}
        found |= {f"{rule}: {name}": (dtype, _described(rule, options)) for rule in (RULES | tuned)}
        found |= {f"neon.torch.{rule}: {name}": (dtype, _drop_in(rule, options)) for rule in DROP_INS}
    return found | {"mapping": (torch.float32, _mapping)}


def layer_model() -> Model:
    """A model of neon's layers, which has seen a batch."""
    return Model([Affine(nout=2, init=Constant(0.25), activation=Softmax())])


def layer_data() -> list[tuple[torch.Tensor, torch.Tensor]]:
    inputs = (torch.arange(16.0) % 5 - 2).view(4, 4)
    return [(inputs, torch.tensor([0, 1, 1, 0]))]


def fit(model: Model, epochs: int) -> None:
    model.fit(layer_data(), CrossEntropyMulti(), Adam(learning_rate=0.1), num_epochs=epochs)


def run(case: str) -> dict[str, Any]:
    """What a case saves after some steps, and the weights that it has, then and a step later."""
    dtype, made = cases()[case]
    model = Net(dtype)
    optimizer = made(model)
    for step in range(STEPS):
        give(model, step)
        optimizer.step()
    saved = {"model": _copies(model), "optimizer": _copied(optimizer.state_dict())}
    give(model, STEPS)
    optimizer.step()
    return saved | {"next": _copies(model)}


def _copies(model: nn.Module) -> dict[str, Any]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def _copied(value: Any) -> Any:
    """The value with tensors of their own memory: a file of views would hold all that they are views of."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return value.clone() if isinstance(value, torch.Tensor) else value


def kept() -> Iterator[tuple[str, dict[str, Any]]]:
    """The kept files, by version."""
    for path in sorted(FOLDER.glob("*.pt.xz")):
        with lzma.open(path) as file:
            yield path.name.removesuffix(".pt.xz"), torch.load(io.BytesIO(file.read()), weights_only=True)


def write(path: Path) -> None:
    model = layer_model()
    fit(model, 2)
    with tempfile.TemporaryDirectory() as folder:
        model.save_params(Path(folder, "model"))
        saved = bytearray(Path(folder, "model").read_bytes())
    fit(model, 1)
    contents = {case: run(case) for case in cases()}
    contents["layers"] = {"file": torch.frombuffer(saved, dtype=torch.uint8), "next": _copies(model)}
    buffer = io.BytesIO()
    torch.save(contents, buffer)
    path.write_bytes(lzma.compress(buffer.getvalue(), preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
