"""Features of a run: checkpoints, schedules, changes in mid-run, rules of one's own; what neon has not."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from feature_table import (
    ELSEWHERE,
    backward,
    close,
    equal,
    feature,
    give,
    leaves,
    saved,
    saved_bytes,
    train,
    unchanged,
)
from features_in_a_step import follows
from peers import Library, NoOptionError
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR


@feature("A checkpoint of other shapes is refused, and changes nothing")
def refuses(lib: Library) -> bool:
    other, model = lib.network(outputs=8), lib.network()
    first, second = lib.make(other), lib.make(model)
    train(other, first, range(2))
    train(model, second, range(2))

    def load() -> None:
        try:
            second.load_state_dict(first.state_dict())
        except (ValueError, RuntimeError, KeyError):
            return
        raise AssertionError("it was loaded")

    return unchanged(model, second, load)


def resumes(lib: Library, model: nn.Module, *options: str, order: Callable[[Any], Any] = list) -> bool:
    optimizer = lib.make(model, *options)
    train(model, optimizer, range(3))
    resumed = copy.deepcopy(model)
    again = lib.make(order(list(resumed.named_parameters())), *options)
    again.load_state_dict(saved(optimizer))
    train(model, optimizer, range(3, 6))
    torch.manual_seed(1)
    train(resumed, again, range(3, 6))
    return equal(model, resumed)


@feature("A resumed run is bit for bit the uninterrupted one")
def resumes_exactly(lib: Library) -> bool:
    return resumes(lib, lib.network())


@feature("So is one of bfloat16 parameters that follow small updates, whatever torch's random state")
def resumes_bfloat16(lib: Library) -> bool:
    if not follows(lib):
        raise NoOptionError("they do not follow")
    return resumes(lib, lib.network(torch.bfloat16), "bfloat16")


@feature("So is one with moments in 8 bits")
def resumes_eight_bits(lib: Library) -> bool:
    return resumes(lib, lib.network(), "8 bits")


@feature("Named parameters in another order find their states")
def by_name(lib: Library) -> bool:
    # Of equal shapes: a fused step with the states of another shape has ended in a corrupted heap.
    return resumes(
        lib, lib.network(outputs=64), order=lambda named: named[len(named) // 2 :] + named[: len(named) // 2]
    )


@feature("`deepcopy` of model and optimizer keeps every option")
def copies(lib: Library) -> bool:
    model = lib.network()
    optimizer = lib.make(model, "flags")
    train(model, optimizer, range(3))
    model_copy, optimizer_copy = copy.deepcopy((model, optimizer))
    train(model, optimizer, range(3, 6))
    train(model_copy, optimizer_copy, range(3, 6))
    return equal(model, model_copy)


@feature("`OneCycleLR` cycles the rate, and β₁ or the momentum")
def one_cycle(lib: Library) -> bool:
    def run(cycle: bool) -> nn.Module:
        model = lib.network()
        optimizer = lib.make(model)
        train(model, optimizer, range(5), OneCycleLR(optimizer, 0.1, total_steps=6, cycle_momentum=cycle))
        return model

    return not close(run(True), run(False)) and not close(run(False), lib.network())


@feature("The rate may be a tensor, which a scheduler writes to")
def tensor_rate(lib: Library) -> bool:
    def run(lr: Any) -> nn.Module:
        model = lib.network()
        optimizer = lib.make(model, lr=lr)
        train(model, optimizer, range(4), LambdaLR(optimizer, lambda epoch: 0.5**epoch))
        return model

    return close(run(torch.tensor(0.01)), run(0.01))


@feature(
    "New values of lr, betas or momentum, and weight decay compile nothing (a step after a change takes under 50 ms)"
)
def recompiles_nothing(lib: Library) -> bool:
    model = lib.network()
    optimizer = lib.make(model)
    train(model, optimizer, range(3))
    seconds = []
    for change in range(5):
        for group in optimizer.param_groups:
            lr = 0.02 + 0.001 * change
            group["lr"] = group["lr"].fill_(lr) if isinstance(group["lr"], Tensor) else lr
            if "betas" in group:
                group["betas"] = (0.8 + 0.01 * change, 0.95 + 0.001 * change)
            else:
                group["momentum"] = 0.8 + 0.01 * change
            group["weight_decay"] = 0.2 + 0.01 * change
        give(model, change)
        start = time.perf_counter()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    return min(seconds) < 0.05


@feature("`torch.distributed.checkpoint`'s dummy step leaves the parameters as they were")
def dummy_step(lib: Library) -> bool:
    model, before = lib.network(), lib.network()
    get_optimizer_state_dict(model, lib.make(model))
    return equal(model, before)


@feature("Its round trip resumes bit for bit")
def distributed_checkpoint(lib: Library) -> bool:
    model = lib.network()
    optimizer = lib.make(model)
    train(model, optimizer, range(3))
    resumed = copy.deepcopy(model)
    again = lib.make(resumed)
    with tempfile.TemporaryDirectory() as folder:
        dcp.save(get_optimizer_state_dict(model, optimizer), checkpoint_id=folder, no_dist=True)
        states = get_optimizer_state_dict(resumed, again)
        dcp.load(states, checkpoint_id=folder, no_dist=True)
    set_optimizer_state_dict(resumed, again, states)
    train(model, optimizer, range(3, 6))
    train(resumed, again, range(3, 6))
    return equal(model, resumed)


@feature("The state loads with `weights_only=True`, and nothing in it is None")
def plain_state(lib: Library) -> bool:
    model = lib.network()
    optimizer = lib.make(model)
    train(model, optimizer, range(2))
    return None not in [leaf for leaf in leaves(saved(optimizer)["state"]) if not isinstance(leaf, Tensor)]


@feature("An option updates in the backward pass and lets each gradient go")
def in_backward(lib: Library) -> bool:
    model, reference = lib.network(), lib.network()
    optimizer = lib.way("in_backward")(model)
    plain = lib.make(reference, betas=(0.9, 0.999), weight_decay=0.01)
    for step in range(3):
        before = copy.deepcopy(model)
        backward(model, step)
        if any(p.grad is not None for p in model.parameters()) or equal(model, before):
            return False
        optimizer.step()
        backward(reference, step)
        plain.step()
        plain.zero_grad()
    return close(model, reference)


@feature("A layer's rate that is set in mid-run stays, whatever a scheduler writes")
def layer_rate(lib: Library) -> bool:
    model = lib.network()
    set_rate = lib.way("set a layer's rate")
    optimizer = lib.make(model)
    train(model, optimizer, range(2))
    set_rate(optimizer, model)
    before = copy.deepcopy(model)
    train(model, optimizer, range(2, 5), OneCycleLR(optimizer, 0.1, total_steps=6))
    return equal(model[0], before[0]) and not equal(model[1], before[1])


@feature("Layers are frozen by name in mid-run; the norm that is clipped by does not count them")
def freezes(lib: Library) -> bool:
    model, reference = lib.network(), lib.network()
    freeze = lib.way("freeze")
    optimizer = lib.make(model, "clip by norm")
    freeze(optimizer)
    train(model, optimizer, range(4))
    alone = lib.make([(f"1.{name}", p) for name, p in reference[1].named_parameters()], "clip by norm")
    train(reference, alone, range(4))
    return equal(model, reference)


@feature("A rule of one's own has the option of clipping by norm")
def own_rule(lib: Library) -> bool:
    model, reference = lib.network(), lib.network()
    train(model, lib.way("own rule")(model), range(4))
    momentum = [torch.zeros_like(p) for p in reference.parameters()]
    for step in range(4):
        give(reference, step, (1.0, 100.0, 0.01)[step % 3])
        clip_grad_norm_(reference.parameters(), 1.0)
        for p, m in zip(reference.parameters(), momentum, strict=True):
            m.lerp_(p.grad, 0.1)
            p.data.sub_(0.01 * (1 + p.grad.sign() * m.sign()) * p.grad)
    return close(model, reference)


@feature("A rule of one's own may have its state in 8 bits")
def own_rule_eight_bits(lib: Library) -> bool:
    model = lib.network()
    optimizer = lib.way("own rule in 8 bits")(model)
    train(model, optimizer, range(2))
    return saved_bytes(optimizer) < 3 * model[0].weight.numel()


@feature("Steps need no C compiler on the machine")
def without_compiler(lib: Library) -> bool:
    with tempfile.TemporaryDirectory() as empty:
        caches = {"NEON_CACHE_DIR": f"{empty}/neon", "TORCHINDUCTOR_CACHE_DIR": f"{empty}/torch"}
        kept = {name: value for name, value in os.environ.items() if name not in ("CC", "CXX", "CFLAGS", "CXXFLAGS")}
        child = [sys.executable, str(Path(__file__).with_name("features.py")), "--steps-of", lib.name]
        done = subprocess.run(child, env={**kept, **caches, "PATH": empty}, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return True


@feature("Complex parameters", ELSEWHERE)
def complex_parameters(lib: Library) -> bool:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(8, dtype=torch.complex64))
    real = nn.Parameter(torch.view_as_real(weight.detach().clone()))
    weight.grad = torch.randn(8, dtype=torch.complex64)
    real.grad = torch.view_as_real(weight.grad).clone()
    lib.make([("weight", weight)]).step()
    lib.make([("weight", real)]).step()
    return torch.allclose(torch.view_as_real(weight), real)


@feature("`differentiable=True`: autograd follows the step", ELSEWHERE)
def differentiable(lib: Library) -> bool:
    start = torch.ones(8, requires_grad=True)
    weight = start.clone()
    weight.grad = 2 * start
    lib.make([("weight", weight)], "differentiable", weight_decay=0.0).step()
    return torch.autograd.grad(weight.sum(), start)[0].isfinite().all().item()


@feature("Sparse gradients, by an Adam for them", ELSEWHERE)
def sparse(lib: Library) -> bool:
    embedding = nn.Embedding(8, 4, sparse=True)
    before = embedding.weight.detach().clone()
    optimizer = lib.way("sparse")(embedding.parameters())
    embedding(torch.tensor([1, 3])).sum().backward()
    optimizer.step()
    return (embedding.weight != before).any(1).nonzero().flatten().tolist() == [1, 3]
