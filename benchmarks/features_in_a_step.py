"""Features of a step: several rules, clipping, scaling, weights and moments in few bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from feature_table import backward, close, equal, feature, give, leaves, same, saved_bytes, train, unchanged
from peers import Library
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim.lr_scheduler import LambdaLR


@feature("Two rules for different layers in one object, which a scheduler of torch's drives")
def rules(lib: Library) -> bool:
    model, reference = lib.network(), lib.network()
    optimizer, alone = lib.way("rules")(model)
    each = [make(reference) for make in alone]
    train(model, optimizer, range(4), LambdaLR(optimizer, lambda epoch: 0.5**epoch))
    schedulers = [LambdaLR(one, lambda epoch: 0.5**epoch) for one in each]
    for step in range(4):
        give(reference, step, (1.0, 100.0, 0.01)[step % 3])
        for item in (*each, *schedulers):
            item.step()
    return equal(model, reference)


def clips(lib: Library, option: str, by_hand: Callable[[Any], Any]) -> bool:
    own, reference, unclipped = lib.network(), lib.network(), lib.network()
    train(own, lib.make(own, option), range(4))
    plain = lib.make(reference)
    for step in range(4):
        give(reference, step, (1.0, 100.0, 0.01)[step % 3])
        by_hand(reference.parameters())
        plain.step()
    train(unclipped, lib.make(unclipped), range(4))
    return close(own, reference) and not close(own, unclipped)


@feature("An option clips by the norm of all gradients, as `clip_grad_norm_` and a step")
def clips_by_norm(lib: Library) -> bool:
    return clips(lib, "clip by norm", lambda params: clip_grad_norm_(params, 1.0))


@feature("An option clips by value, as `clip_grad_value_` and a step")
def clips_by_value(lib: Library) -> bool:
    return clips(lib, "clip by value", lambda params: clip_grad_value_(params, 0.5))


def scaled(lib: Library, *options: str) -> tuple[nn.Module, Any, torch.amp.GradScaler]:
    model = lib.network()
    return model, lib.make(model, *options), torch.amp.GradScaler("cpu", init_scale=1024.0)


@feature("Under `GradScaler` that option clips the unscaled gradients")
def clips_unscaled(lib: Library) -> bool:
    model, optimizer, scaler = scaled(lib, "clip by norm")
    reference = lib.network()
    plain = lib.make(reference, "clip by norm")
    for step in range(4):
        backward(model, step, scaler.scale)
        scaler.step(optimizer)
        scaler.update()
        backward(reference, step)
        plain.step()
        optimizer.zero_grad()
        plain.zero_grad()
    return close(model, reference)


@feature("A step of `GradScaler`'s with infinite gradients changes nothing, step counts included")
def scaler_skips(lib: Library) -> bool:
    model, optimizer, scaler = scaled(lib)
    backward(model, 0, scaler.scale)
    scaler.step(optimizer)
    scaler.update()
    backward(model, 1, lambda loss: scaler.scale(loss) * float("inf"))
    return unchanged(model, optimizer, lambda: scaler.step(optimizer))


@feature("Without a scaler, an option lets a step with a gradient that is not finite change nothing")
def skips(lib: Library) -> bool:
    model = lib.network()
    optimizer = lib.make(model, "skip")
    train(model, optimizer, range(2))
    give(model, 2)
    model[1].weight.grad[2, 2] = float("nan")
    return unchanged(model, optimizer, optimizer.step)


@feature("The layer of that gradient is named")
def names(lib: Library) -> bool:
    model = lib.network()
    named = lib.way("name")
    optimizer = lib.make(model, "skip")
    give(model, 0)
    model[1].weight.grad[2, 2] = float("inf")
    optimizer.step()
    return named(optimizer) == "1.weight"


@feature("bfloat16 weights follow updates of a thirtieth of their spacing")
def follows(lib: Library) -> bool:
    options = ["bfloat16"] if "bfloat16" in lib.options else []

    def moved(dtype: torch.dtype, *options: str) -> float:
        weight = nn.Parameter(torch.full((64, 64), 1.5, dtype=dtype))  # the spacing in bfloat16 is 1/128
        optimizer = lib.make([("weight", weight)], *options, lr=lib.rate_of_ones / 128 / 32, weight_decay=0.0)
        for _ in range(512):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
        return 1.5 - weight.double().mean().item()

    expected = moved(torch.float32)
    return 0.05 < expected < 0.2 and abs(moved(torch.bfloat16, *options) - expected) < 0.1 * expected


@feature("The moments of bfloat16 parameters are float32, and come back so from `load_state_dict`")
def float32_moments(lib: Library) -> bool:
    model = lib.network(torch.bfloat16)
    options = ["lossless moments"] if "lossless moments" in lib.options else []
    first, second = lib.make(model, *options), lib.make(model, *options)
    train(model, first, range(2))
    states = [t for t in leaves(first.state_dict()["state"]) if isinstance(t, Tensor) and t.shape == (64, 64)]
    second.load_state_dict(first.state_dict())
    full = sum(t.dtype == torch.float32 for t in states) >= lib.moments
    return full and same(first.state_dict()["state"], second.state_dict()["state"])


@feature("bfloat16 weights are at each step the nearest to those of the same run in float32")
def split(lib: Library) -> bool:
    model, reference = lib.network(torch.bfloat16), lib.network().bfloat16().float()
    full = ["lossless moments"] if "lossless moments" in lib.options else []
    optimizer, plain = lib.make(model, "split"), lib.make(reference, *full)
    for step in range(30):
        give(model, step)
        for p, q in zip(reference.parameters(), model.parameters(), strict=True):
            p.grad = q.grad.float()
        optimizer.step()
        plain.step()
        for p, q in zip(reference.parameters(), model.parameters(), strict=True):
            nearest = (p.bfloat16().float() - p).abs()
            if ((q.float() - p).abs() > nearest + 1e-6).any():  # a ten thousandth of what a step moves a weight by
                return False
    return True


@feature("Moments in 8 bits")
def eight_bits(lib: Library) -> bool:
    model = lib.network()
    optimizer = lib.make(model, "8 bits")
    train(model, optimizer, range(2))
    return saved_bytes(optimizer) < (1 + 2 * lib.moments) * model[0].weight.numel()
