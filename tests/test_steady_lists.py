"""Steps over layers of which nothing has changed go by what the last has found, and miss no change."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import torch
from changing_layers import CHANGES, World

from neon.backends import default
from neon.stepping import layer_lists

_STEP_AS_BEFORE = layer_lists.LayerStepper._step_as_before
pytestmark = pytest.mark.usefixtures("one_thread")


class Both:
    """Two worlds that change alike: one in which steps may go by what the last has found, one in which none does."""

    def __init__(self, seed: int, mapping: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        self.worlds = World(seed, mapping), World(seed, mapping)
        self.steady, self.batch_size = 0, 1
        before = _STEP_AS_BEFORE

        def counted(stepper: Any, *given: Any) -> bool:
            if stepper is self.worlds[1].optimizer._layer_stepper():
                for known in stepper._numbers._known.values():
                    known._asked = []
                return False
            found = before(stepper, *given)
            self.steady += found
            return found

        monkeypatch.setattr(layer_lists.LayerStepper, "_step_as_before", counted)

    def change(self, change: Any, seed: int) -> None:
        said = []
        for world in self.worlds:
            default.bsz = self.batch_size
            torch.manual_seed(seed)
            said.append(_said(change, world, Random(seed)))
        self.batch_size = default.bsz
        assert said[0] == said[1]

    def step(self) -> None:
        said = [_said(world.optimizer.optimize, world.layers, world.epoch) for world in self.worlds]
        assert said[0] == said[1]
        ours, theirs = (world.entries() for world in self.worlds)
        assert len(ours) == len(theirs)
        for ((a, _), states), ((b, _), others) in zip(ours, theirs, strict=True):
            assert torch.equal(a, b)
            assert len(states) == len(others)
            assert all(map(torch.equal, states, others))
        if not said[0]:  # after an error it shows what was before, as long as the layers of then are there
            assert self.worlds[0].optimizer.updates == self.worlds[1].optimizer.updates
            assert _mapped(self.worlds[0]) == _mapped(self.worlds[1])


def _said(function: Any, *given: Any) -> list[str]:
    """The error and the warnings of a call."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            function(*given)
        except (TypeError, ValueError, RuntimeError) as error:
            return [f"{type(error).__name__}: {error}", *(str(each.message) for each in told)]
    return [str(each.message) for each in told]


def _mapped(world: World) -> Any:
    found: Any = getattr(world.optimizer, "map_list", None)
    flat = world.flat()
    places = {id(layer): place for place, layer in enumerate(flat)}
    return found and [[places.get(id(layer), -1) for layer in layers] for layers in found.values()]


@pytest.fixture(params=[True, False], ids=["mapping", "alone"])
def both(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Both]:
    """Two worlds after a few steps, of which the last has gone by what those before had found."""

    def made(seed: int) -> Both:
        both = Both(seed, request.param, monkeypatch)
        for _ in range(4):
            both.step()
        assert both.steady > 0
        return both

    return made


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_no_change_is_missed(change: Any, both: Callable[[int], Both]) -> None:
    for seed in range(2):
        worlds = both(seed)
        for number in range(2):
            worlds.change(change, 2 * seed + number)
            for _ in range(3):
                worlds.step()


@pytest.mark.parametrize("seed", range(5))
def test_no_changes_together_are_missed(seed: int, both: Callable[[int], Both]) -> None:
    rng, worlds = Random(seed), both(seed)
    for _ in range(20):
        for _ in range(rng.choice([1, 2, 3])):
            worlds.change(rng.choice(CHANGES), rng.randrange(10**6))
        for _ in range(rng.randrange(1, 4)):
            worlds.step()
