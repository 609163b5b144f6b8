"""torch's global defaults, of dtype and of device: they reach nothing that neon makes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from other_versions import needs_interpreter
from torch import nn

import neon.torch
from neon.backends import gen_backend
from neon.data import ArrayIterator
from neon.engine import use_backend
from neon.initializers import Constant
from neon.layers import Affine
from neon.models import Model
from neon.optimizers import Adam, AdamW, GradientDescentMomentum, MultiOptimizer
from neon.transforms import MeanSquared

pytestmark = pytest.mark.usefixtures("one_thread")


@contextmanager
def default(**to: Any) -> Iterator[None]:
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    try:
        if "dtype" in to:
            torch.set_default_dtype(to["dtype"])
        if "device" in to:
            torch.set_default_device(to["device"])
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_default_device(device if device.type != "cpu" else None)


# On meta nothing has a value: what is made there by mistake is noticed.
DEFAULTS: dict[str, dict[str, Any]] = {
    "float64": {"dtype": torch.float64},
    "bfloat16": {"dtype": torch.bfloat16},
    "meta": {"device": "meta"},
}


def weights() -> list[nn.Parameter]:
    generator = torch.Generator("cpu").manual_seed(0)
    return [
        nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu").to(dtype))
        for shape, dtype in (((64, 128), torch.float32), ((5,), torch.float32), ((64, 128), torch.bfloat16))
    ]


def train(params: list[Any], optimizer: Any, steps: int = 3) -> None:
    for step in range(steps):
        for number, p in enumerate(params):
            generator = torch.Generator("cpu").manual_seed(10 * step + number)
            p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float32, device="cpu").to(p.dtype)
        optimizer.step()


def everything(value: Any) -> list[Any]:
    """The tensors in it, each with its type and device."""
    if isinstance(value, torch.Tensor):
        words = value.detach().reshape(-1).view(torch.uint8)  # low bits may be those of NaN
        return [(value.dtype, value.shape, value.device.type, words.tolist())]
    if isinstance(value, Mapping):
        return [entry for key in value for entry in everything(value[key])]
    return [entry for item in value for entry in everything(item)] if isinstance(value, (list, tuple)) else []


def attached(**options: Any) -> Callable[[], Any]:
    def run() -> Any:
        params = weights()
        optimizer: Any = AdamW(weight_average=0.9, **options).attach(params)
        train(params, optimizer)
        other = AdamW(weight_average=0.9, **options).attach(params)
        other.load_state_dict(optimizer.state_dict())
        train(params, copy.deepcopy(other))
        train(params, other)
        with other.averaged():
            averages = [p.detach().clone() for p in params]
        return [params, averages, other.state_dict()]

    return run


def mapping() -> Any:
    params = weights()
    names = ("a", "b", "c")
    rule = MultiOptimizer(
        {"default": Adam(gradient_clip_norm=1.0), "b": GradientDescentMomentum(0.1, 0.9)}, gradient_clip_norm=2.0
    )
    optimizer: Any = rule.attach(zip(names, params, strict=True), skip_nonfinite=True)
    train(params, optimizer)
    return [params, optimizer.state_dict()]


def in_backward() -> Any:
    params = weights()
    optimizer: Any = Adam().attach(params, in_backward=True, gradient_clip_previous_norm=0.5)
    for _ in range(3):
        sum((p.float() ** 2).sum() for p in params).backward()  # type: ignore[union-attr]
        optimizer.step()
    return [params, optimizer.state_dict()]


def dropped_in() -> Any:
    found = []
    for name in ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Lion"):
        params = weights()
        optimizer = getattr(neon.torch, name)(params, state_dtype="int8")
        if name == "Adagrad":
            optimizer.share_memory()
        train(params, optimizer)
        found.append([params, optimizer.state_dict()])
    return found


def with_a_scaler() -> Any:
    params = weights()[:2]
    optimizer = neon.torch.AdamW(params)
    optimizer.grad_scale = torch.tensor(4.0, dtype=torch.float32, device="cpu")  # type: ignore[attr-defined]
    optimizer.found_inf = torch.tensor(0.0, dtype=torch.float32, device="cpu")  # type: ignore[attr-defined]
    train(params, optimizer)
    return [params, optimizer.state_dict()]


def layers() -> Any:
    params = [p.data for p in weights()]
    entries: list[Any] = [((p, torch.full_like(p, 0.5)), []) for p in params]

    class Layer:
        def get_params(self) -> Any:
            return entries

    rule = Adam(state_dtype="int8", weight_average=0.9, gradient_clip_norm=1.0)
    for _ in range(3):
        rule.optimize([Layer()], 0)
    with rule.averaged([Layer()]):
        averages = [p.clone() for p in params]
    return [params, averages, [states for _, states in entries]]


RUNS: dict[str, Callable[[], Any]] = {
    "attached": attached(),
    "8 bits": attached(state_dtype="int8"),
    "bfloat16 states": attached(state_dtype="bfloat16"),
    "rounded at random": attached(stochastic_round=True),
    "split": attached(master="split"),
    "mapping": mapping,
    "in_backward": in_backward,
    "drop-in": dropped_in,
    "scaler": with_a_scaler,
    "layers": layers,
}


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("to", DEFAULTS)
def test_a_run_is_as_without(to: str, name: str) -> None:
    expected = everything(RUNS[name]())
    with default(**DEFAULTS[to]):
        found = everything(RUNS[name]())
    assert found == expected


@needs_interpreter
@pytest.mark.parametrize("to", DEFAULTS)
def test_steps_on_a_device_are_as_without(to: str) -> None:
    def run() -> list[Any]:
        with use_backend("triton"):
            params = weights()[1:2]
            optimizer: Any = Adam(gradient_clip_norm=1.0).attach(params, capturable=True)
            train(params, optimizer)
            return everything([params, optimizer.state_dict()])

    expected = run()
    with default(**DEFAULTS[to]):
        assert run() == expected


@pytest.mark.parametrize("to", DEFAULTS)
def test_a_model_is_fitted_on_data_as_it_is(to: str) -> None:
    """A model's own parameters are torch's, of whatever type that makes; here they are made before."""
    gen_backend(batch_size=4)
    x = np.linspace(-1.0, 1.0, 24, dtype=np.float32).reshape(12, 2)
    ends = []
    for place in ("before", "within"):
        model = Model(layers=[Affine(nout=1, init=Constant(0.1))])
        model(torch.zeros(1, 2))
        with default(**(DEFAULTS[to] if place == "within" else {})):
            history = model.fit(ArrayIterator(x, x[:, :1] * 3), optimizer=Adam(), num_epochs=2, cost=MeanSquared())
        ends.append((everything([*model.parameters()]), history))
    assert ends[0] == ends[1]
