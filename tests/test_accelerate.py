"""Attached optimizers under accelerate, and its wrapper with a scaler of losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from training_runs import OPTIMIZERS, Make, assert_same, batches, by_hand, contents, network, warm_up

import neon.torch
from neon.optimizers import AdamW, ScheduleFree

pytest.importorskip("accelerate", reason="accelerate is not installed")
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState, GradientState

pytestmark = pytest.mark.usefixtures("one_thread", "alone")

every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


@pytest.fixture
def alone() -> Iterator[None]:
    """accelerate keeps the settings of a process in one place, which the next Accelerator must find empty."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def train(
    make: Make,
    epochs: int = 2,
    clip: Callable[[Accelerator, Any], Any] = lambda accelerator, params: None,
    load: Path | None = None,
    save: Path | None = None,
    **options: Any,
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The model and the optimizer, without their wrappers, after a training as accelerate's guide writes it."""
    accelerator = Accelerator(cpu=True, **options)
    plain = network()
    made = make(plain)
    model, optimizer, loader, scheduler = accelerator.prepare(plain, made, batches(), warm_up(made))
    if load:
        accelerator.load_state(str(load))
    for _ in range(epochs):
        for points, labels in loader:
            with accelerator.accumulate(model), accelerator.autocast():
                accelerator.backward(cross_entropy(model(points), labels))
                if accelerator.sync_gradients:
                    clip(accelerator, model.parameters())
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
    if save:
        accelerator.save_state(str(save))
    return plain, made


# By accelerate, and by hand.
CLIPS: dict[str, tuple[Callable[[Accelerator, Any], Any], Callable[[Any], Any]]] = {
    "norm": (lambda a, params: a.clip_grad_norm_(params, 0.1), lambda params: nn.utils.clip_grad_norm_(params, 0.1)),
    "value": (
        lambda a, params: a.clip_grad_value_(params, 0.02),
        lambda params: nn.utils.clip_grad_value_(params, 0.02),
    ),
}


@every_optimizer
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("clip", "hand_clip"), CLIPS.values(), ids=CLIPS)
def test_it_equals_a_loop(make: Make, accumulate: int, precision: torch.dtype, clip: Any, hand_clip: Any) -> None:
    mixed = "bf16" if precision == torch.bfloat16 else "no"
    found = train(make, clip=clip, gradient_accumulation_steps=accumulate, mixed_precision=mixed)
    expected = by_hand(make, schedule=warm_up, accumulate=accumulate, clip=hand_clip, precision=precision)
    assert_same(found, expected)


@every_optimizer
def test_resumed_run_equals_a_whole_one(make: Make, tmp_path: Path) -> None:
    whole = train(make, epochs=4)
    train(make, epochs=2, save=tmp_path)
    assert_same(train(make, epochs=2, load=tmp_path), whole)


def test_a_state_that_is_saved_while_averages_stand_there_has_the_weights(tmp_path: Path) -> None:
    def make(model: nn.Module) -> torch.optim.Optimizer:
        return neon.torch.AdamW(model.parameters(), lr=0.02, weight_average=0.5)

    accelerator = Accelerator(cpu=True)
    plain = network()
    made = make(plain)
    model, optimizer, loader = accelerator.prepare(plain, made, batches())
    for points, labels in loader:
        accelerator.backward(cross_entropy(model(points), labels))
        optimizer.step()
        optimizer.zero_grad()
    before = contents(plain, made)
    with made.averaged():
        accelerator.save_state(str(tmp_path))
    for param in plain.parameters():
        nn.init.zeros_(param)
    accelerator.load_state(str(tmp_path))
    torch.testing.assert_close(contents(plain, made), before, rtol=0, atol=0)


@every_optimizer
def test_wrapper_with_a_scaler(make: Make) -> None:
    """accelerate scales no losses on a CPU; the wrapper that does it elsewhere is given a scaler here."""
    Accelerator(cpu=True)
    model = network()
    made = make(model)
    scaler = torch.amp.GradScaler("cpu")
    optimizer = AcceleratedOptimizer(made, scaler=scaler)
    for points, labels in [*batches(), *batches()]:
        scaler.scale(cross_entropy(model(points), labels)).backward()
        optimizer.step()
        optimizer.zero_grad()
    # A scale is a power of two: nothing is rounded.
    assert_same((model, made), by_hand(make))
    before = contents(model, made)
    scaler.scale(cross_entropy(model(points), labels) * torch.inf).backward()
    optimizer.step()
    torch.testing.assert_close(contents(model, made), before, rtol=0, atol=0)
    assert not optimizer.step_was_skipped  # accelerate cannot know: as with torch's fused steps, `step` was called


def test_its_wrapper_hands_on_eval_and_train() -> None:
    accelerator = Accelerator(cpu=True)
    plain = network()
    made = ScheduleFree(AdamW(learning_rate=0.1)).attach(plain)
    model, optimizer, loader = accelerator.prepare(plain, made, batches())
    for points, labels in loader:
        accelerator.backward(cross_entropy(model(points), labels))
        optimizer.step()
        optimizer.zero_grad()
    before = [p.detach().clone() for p in plain.parameters()]
    optimizer.eval()
    assert not any(map(torch.equal, plain.parameters(), before))
    with pytest.raises(RuntimeError, match=r"call train\(\) before"):
        optimizer.step()
    optimizer.train()
    assert all(map(torch.equal, plain.parameters(), before))
