"""Names see through torch's wrappers, whatever was wrapped when, and users may call their own parts `module`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from optimizer_contents import key_of
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from neon.optimizers import Adam, GradientDescentMomentum, MultiOptimizer


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.LayerNorm(2), nn.Linear(2, 1)))


NAMES = [name for name, _ in model().named_parameters()]


def checkpointed(net: nn.Sequential) -> nn.Module:
    """The layers wrapped, not the model."""
    return nn.Sequential(*(checkpoint_wrapper(layer) for layer in net))


def distributed(net: nn.Module) -> nn.Module:
    """DistributedDataParallel without the processes that its constructor wants."""
    wrapped = object.__new__(nn.parallel.DistributedDataParallel)
    nn.Module.__init__(wrapped)
    wrapped.module = net
    return wrapped


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "compiled": lambda net: torch.compile(net, backend="eager"),
    "data parallel": nn.DataParallel,
    "distributed data parallel": distributed,
    "checkpointed": checkpoint_wrapper,
    "layers checkpointed": checkpointed,
    "compiled, data parallel": lambda net: nn.DataParallel(torch.compile(net, backend="eager")),  # type: ignore[arg-type]
    "averaged": lambda net: torch.optim.swa_utils.AveragedModel(net),
}
# A key, and what it fits.
KEYS = {
    "0": NAMES[:2],
    "1.0": NAMES[2:4],
    "1.1.bias": NAMES[5:],
    "1.*": NAMES[2:],
    "re:1\\.[01]\\.weight": [NAMES[2], NAMES[4]],
    "Bias": [NAMES[1], NAMES[3], NAMES[5]],
    "LayerNorm": NAMES[2:4],
}


def descent(rate: float = 1.0) -> GradientDescentMomentum:
    return GradientDescentMomentum(rate, 0.0)


def moved(optimizer: Any, net: nn.Module) -> list[float]:
    """How far a step of ones moves each parameter."""
    before = [p.detach().clone() for p in net.parameters()]
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    return [round((b - p).flatten()[0].item(), 4) for b, p in zip(before, net.parameters(), strict=True)]


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("target", ["module", "named parameters", "layers"])
def test_keys_fit_as_if_nothing_were_wrapped(wrapper: str, key: str, target: str) -> None:
    if target == "named parameters" and key == "LayerNorm":
        pytest.skip("names alone have no classes")
    wrapped = WRAPPERS[wrapper](model())
    opt = MultiOptimizer({"default": descent(), key: descent(3.0)})
    if target == "layers":
        found = moved(type("Step", (), {"step": lambda self: opt.optimize([wrapped], 0)})(), wrapped)
    else:
        found = moved(opt.attach(wrapped if target == "module" else wrapped.named_parameters()), wrapped)
    assert found == [3 if name in KEYS[key] else 1 for name in NAMES]


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_groups_have_the_names_of_the_model_within(wrapper: str) -> None:
    optimizer = Adam().attach(WRAPPERS[wrapper](model()))
    assert key_of(MultiOptimizer({"default": Adam()}).attach(WRAPPERS[wrapper](model()))) == dict.fromkeys(
        NAMES, "default"
    )
    assert optimizer.param_groups[0]["param_names"] == NAMES


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("named", [False, True])
def test_layers_are_set_and_frozen_by_the_names_within(wrapper: str, key: str, named: bool) -> None:
    if named and key == "LayerNorm":
        pytest.skip("names alone have no classes")
    net = WRAPPERS[wrapper](model())
    optimizer = descent().attach(net.named_parameters() if named else net)
    optimizer.set("lr", 3.0, layers=key)
    assert moved(optimizer, net) == [3 if name in KEYS[key] else 1 for name in NAMES]
    optimizer.freeze(key)
    assert moved(optimizer, net) == [0 if name in KEYS[key] else 1 for name in NAMES]


@pytest.mark.parametrize("wrapper", [name for name in WRAPPERS if name != "averaged"])
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_a_new_head_takes_the_place_of_the_old_one(wrapper: str, named: bool, first: bool) -> None:
    """Attached before it was wrapped, or the other way round."""
    net = model()
    wrapped = WRAPPERS[wrapper](net)
    before, after = (wrapped, net) if first else (net, wrapped)
    optimizer = MultiOptimizer({"default": descent(), "1.1": descent(2.0)}).attach(
        before.named_parameters() if named else before
    )
    optimizer.freeze("1.0")
    kept = key_of(optimizer)
    net[1][1] = nn.Linear(2, 1)  # type: ignore[index, operator]
    optimizer.add_layers(after.named_parameters() if named else after)
    assert key_of(optimizer) == kept
    assert moved(optimizer, net) == [1, 1, 0, 0, 2, 2]


def test_names_with_the_wrapper_fit_too() -> None:
    """So keys were written while wrappers showed."""
    for wrapper, key in (("data parallel", "module.1.1"), ("compiled", "_orig_mod.1.*"), ("compiled", "_orig_mod.1")):
        net = WRAPPERS[wrapper](model())
        for target in (net, net.named_parameters()):
            found = MultiOptimizer({"default": Adam(), key: Adam()}).attach(target)
            assert {name[-8:] for group in found.param_groups[1:] for name in group["param_names"]} >= {"1.weight"}


class Own(nn.Module):
    """`module` and `weight` are parts of a user's."""

    def __init__(self) -> None:
        super().__init__()
        self.module, self.weight = nn.Linear(1, 1), nn.Parameter(torch.ones(1))


@pytest.mark.parametrize("named", [False, True])
def test_a_part_may_be_called_module(named: bool) -> None:
    net = Own()
    optimizer = MultiOptimizer({"default": descent(), "module": descent(2.0), "weight": descent(3.0)}).attach(
        net.named_parameters() if named else net
    )
    assert key_of(optimizer) == {"weight": "weight", "module.weight": "module", "module.bias": "module"}
    optimizer.set("lr", 4.0, layers="weight")
    assert moved(optimizer, net) == [4, 2, 2]
    net.module = nn.Linear(1, 1)
    optimizer.add_layers(net.named_parameters() if named else net)
    assert moved(optimizer, net) == [4, 2, 2]
    assert [*map(len, (group["params"] for group in optimizer.param_groups))] == [2, 1]
