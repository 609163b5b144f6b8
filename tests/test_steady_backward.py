"""Updates in the backward pass go by what was found for a parameter before, and miss nothing that is written."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import torch
from optimizer_contents import everything
from torch import nn

from neon.optimizers import Adam, GradientDescentMomentum, MultiOptimizer, Schedule, WarmupCosine
from neon.stepping.in_backward import BackwardStepper

pytestmark = pytest.mark.usefixtures("one_thread")
_RUN_AS_BEFORE = BackwardStepper._run_as_before


class World:
    """A network that is trained, with its optimizer."""

    def __init__(self, seed: int, scheduled: bool, clip: float | None) -> None:
        torch.manual_seed(seed)
        self.model: Any = nn.Sequential(*(nn.Sequential(nn.Linear(3, 3), nn.Tanh()) for _ in range(3)))
        adam = Adam(weight_average=0.9, schedule=WarmupCosine(2, 50, unit="steps") if scheduled else Schedule())
        self.optimizer: Any = MultiOptimizer({"default": adam, "Bias": GradientDescentMomentum(0.1, 0.9)}).attach(
            self.model, in_backward=True, gradient_clip_previous_norm=clip
        )
        self.written: Callable[[], None] | None = None  # while gradients arrive
        self.number = 0

    @property
    def group(self) -> Any:
        return self.optimizer.param_groups[0]

    @property
    def param(self) -> Any:
        return self.group["params"][1]

    @property
    def state(self) -> Any:
        return self.optimizer.state[self.param]

    def step(self) -> None:
        self.number += 1
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(self.number))
        hook = None
        if self.written is not None:
            written, self.written = self.written, None
            hook = self.model[1][0].weight.register_hook(lambda _: written())
        (self.model(x) - x.flip(1)).square().sum().backward()
        if hook is not None:
            hook.remove()
        self.optimizer.step()


Change = Callable[[World, Random], Any]


def _in_the_pass(world: World, rng: Random) -> None:
    world.written = lambda: world.group.update(lr=0.02)


def _a_list(world: World, rng: Random) -> None:
    if isinstance(world.group["betas"], list):
        world.group["betas"][0] = 0.7
    else:
        world.group["betas"] = [0.8, 0.9]


def _a_tensor(world: World, rng: Random) -> None:
    if isinstance(world.group["lr"], torch.Tensor):
        world.group["lr"].mul_(0.5)
    else:
        world.group["lr"] = torch.tensor(0.01)


def _moved(world: World, rng: Random) -> None:
    world.param.data = world.param.data.clone()


def _a_state(world: World, rng: Random) -> None:
    world.state["exp_avg"] = world.state["exp_avg"] * 2


def _a_new_parameter(world: World, rng: Random) -> None:
    torch.manual_seed(len(world.model))
    world.model.add_module(f"new{len(world.model)}", nn.Linear(3, 3))
    world.optimizer.add_layers(world.model)


def _another_group(world: World, rng: Random) -> None:
    own = nn.Parameter(torch.ones(3))
    world.model.register_parameter(f"own{len(world.optimizer.param_groups)}", own)
    world.optimizer.add_param_group({"params": [own]})
    own.grad = torch.ones(3)


def _other_parameters(world: World, rng: Random) -> None:
    world.model[0][0].weight = new = nn.Parameter(torch.ones(3, 3))
    world.group["params"][0] = new


def _a_copy_of_a_group(world: World, rng: Random) -> None:
    world.optimizer.param_groups[0] = dict(world.group)


def _a_copy_of_states(world: World, rng: Random) -> None:
    world.optimizer.state = defaultdict(dict, world.optimizer.state)


def _loaded(world: World, rng: Random) -> None:
    world.optimizer.load_state_dict(copy.deepcopy(world.optimizer.state_dict()))


def _evaluated(world: World, rng: Random) -> None:
    with world.optimizer.averaged():
        world.model(torch.ones(1, 3))


def _of_another_kind(world: World, rng: Random) -> None:
    world.param.data = world.param.data.t()


CHANGES: dict[str, Change] = {
    "nothing": lambda world, rng: None,
    "a rate": lambda world, rng: world.group.update(lr=rng.choice([0.01, 0.02, 0.03])),
    "a rate in the pass": _in_the_pass,
    "a decay": lambda world, rng: world.group.__setitem__("weight_decay", 0.1),
    "an option": lambda world, rng: world.group.__setitem__("gradient_clip_value", rng.choice([0.01, None])),
    "a list": _a_list,
    "a tensor": _a_tensor,
    "an epoch": lambda world, rng: world.optimizer.set_epoch(rng.randrange(9)),
    "values of layers": lambda world, rng: world.optimizer.set("lr", 0.05, layers="1.0"),
    "frozen layers": lambda world, rng: world.optimizer.freeze("1.0"),
    "moved": _moved,
    "a state": _a_state,
    "a state is gone": lambda world, rng: world.optimizer.state.pop(world.param, None),
    "part of a state is gone": lambda world, rng: world.state.pop("exp_avg", None),
    "a count": lambda world, rng: world.state["step"].fill_(7.0),
    "a norm": lambda world, rng: world.group.update(previous_norm=0.25) if "previous_norm" in world.group else None,
    "a new parameter": _a_new_parameter,
    "another group": _another_group,
    "other parameters": _other_parameters,
    "a copy of a group": _a_copy_of_a_group,
    "a copy of states": _a_copy_of_states,
    "loaded": _loaded,
    "evaluated": _evaluated,
    "of another kind": _of_another_kind,
}


def _said(function: Any, *given: Any) -> str:
    try:
        function(*given)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.fixture
def as_before(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether updates went by what was found before; none does of an optimizer that has `anew` set."""
    told: list[bool] = []

    def run(stepper: Any, optimizer: Any, param: Any) -> bool:
        if getattr(optimizer, "anew", False):
            for known in stepper._groups.values():
                known.settings.clear()
            return False
        told.append(_RUN_AS_BEFORE(stepper, optimizer, param))
        return told[-1]

    monkeypatch.setattr(BackwardStepper, "_run_as_before", run)
    return told


@pytest.mark.filterwarnings("ignore:The gradient of parameter:RuntimeWarning")
@pytest.mark.parametrize("scheduled", [False, True])
@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("seed", [0])
@pytest.mark.parametrize(
    "names", [*([name] for name in CHANGES), [*CHANGES]], ids=lambda names: names[0] if len(names) == 1 else "all"
)
def test_nothing_that_is_written_is_missed(
    names: list[str], seed: int, clip: float | None, scheduled: bool, as_before: list[bool]
) -> None:
    worlds = World(seed, scheduled, clip), World(seed, scheduled, clip)
    worlds[1].optimizer.anew = True
    rng = Random(seed)
    for number in range(4 if len(names) == 1 else 30):
        change, draw = CHANGES[rng.choice(names)], rng.randrange(10**6)
        said = [_said(change, world, Random(draw)) for world in worlds] if number else ["", ""]
        assert said[0] == said[1]
        for _ in range(2):
            said = [_said(world.step) for world in worlds]
            assert said[0] == said[1]
            ours, theirs = (everything(world.optimizer) for world in worlds)
            assert len(ours) == len(theirs)
            assert all(map(torch.equal, ours, theirs))
        if said[0]:
            break
    assert any(as_before)
