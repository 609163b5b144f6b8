"""Steps that a device makes on its own: captured in graphs that are replayed, and what cannot be captured."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import pytest
import torch
from captured_steps import Graph, OfNorms, everything
from other_versions import needs_interpreter
from state_tensors import assert_same, new
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

import neon.torch
from neon.engine import use_backend
from neon.engine.backends import capture
from neon.optimizers import Adafactor, Adam, MultiOptimizer, Optimizer

pytestmark = [needs_interpreter, pytest.mark.usefixtures("one_thread")]


@pytest.mark.parametrize(
    "option",
    [{}, {"gradient_clip_norm": 1.0}, {"lr_scale": 0.3}, {"stochastic_round": 10, "state_dtype": "int8"}],
)
def test_captured_steps_follow_rate_count_and_gradients(
    option: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replayed, with the rate changed in its tensor: as steps one by one are by the eager backend."""
    rates = [0.1, 0.1, 0.2, 0.05]
    noise = [new(5000, 20, seed=9 + step) for step in range(len(rates) + 1)]
    graph, ends = Graph(monkeypatch), []
    for backend in ("eager", "triton"):
        params = new(5000, 20)
        grads = [torch.empty_like(p) for p in params]
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        with use_backend(backend):
            opt = Adam(**option).attach(params, capturable=backend == "triton")
            lr = opt.param_groups[0]["lr"] = torch.tensor(rates[0])
            for step, rate in enumerate([rates[0], *rates]):
                for g, values in zip(grads, noise[step], strict=True):
                    g.copy_(values.detach())
                lr.fill_(rate)
                if backend == "eager" or step < 2:
                    opt.step()
                    continue
                if step == 2:
                    with graph:
                        opt.step()
                else:
                    graph.replay()
        ends.append(everything(opt))
        assert [float(opt.state[p]["step"]) for p in params] == [5.0, 5.0]
    assert_same(*ends)
    # What the host then does itself goes on from what the replays have left.
    params[1].grad = None
    with use_backend("triton"):
        opt.step()
    assert [float(opt.state[p]["step"]) for p in params] == [6.0, 5.0]


@pytest.mark.parametrize("clip", [None, 1.0])
def test_steps_between_replays_leave_a_graph_its_gradients(clip: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph brings along the addresses and numbers that it was captured with; so does a step that is not in it."""
    graph, ends = Graph(monkeypatch), []
    for backend in ("eager", "triton"):
        params = new(5000, 20)
        own, other = new(5000, 20, seed=1), new(5000, 20, seed=2)
        with use_backend(backend):
            opt = Adam(gradient_clip_norm=clip).attach(params, capturable=backend == "triton")
            for step, (grads, rate) in enumerate([(own, 0.1)] * 3 + [(other, 0.5), (own, 0.1), (other, 0.5)]):
                opt.param_groups[0]["lr"] = rate
                for p, g in zip(params, grads, strict=True):
                    p.grad = g.detach()
                if backend == "triton" and step == 2:
                    with graph:
                        opt.step()
                elif backend == "triton" and step == 4:
                    for p, g in zip(params, other, strict=True):
                        p.grad = g.detach()
                    graph.replay()
                else:
                    opt.step()
        ends.append(everything(opt))
    assert_same(*ends)


@pytest.mark.parametrize("tensor_rate", [False, True])
def test_a_graph_keeps_the_tables_that_it_works_on(tensor_rate: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    params = new(300, 20)
    with use_backend("triton"):
        opt = Adam(gradient_clip_norm=1.0).attach(params, capturable=True)
        if tensor_rate:
            opt.param_groups[0]["lr"] = torch.tensor(0.1)
        for _ in range(2):
            for p in params:
                p.grad = torch.ones_like(p)
            monkeypatch.setattr(capture, "capturing", lambda device: len(opt.state) > 0)
            opt.step()
        [batch] = opt._stepper._plan.batches  # type: ignore[union-attr]
        launches = [launch for made in batch.passes for launch in (*made.launches, made.evaluate) if launch is not None]
        tables = [weakref.ref(t) for launch in launches for t in launch._arguments if isinstance(t, Tensor)]
        read = [weakref.ref(t) for t in batch._tensors.read]  # the rate, where it goes, and which it is
        assert len(read) == (3 if tensor_rate else 0)
        tables += read
        del batch, launches
        monkeypatch.setattr(capture, "capturing", lambda device: False)
        params[1].grad = None
        opt.step()
        opt._restart()
        opt.step()
    gc.collect()
    assert all(table() is not None for table in tables)


def test_a_step_is_not_captured_unless_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "capturing", lambda device: True)
    [param] = params = new(300)
    before, param.grad = param.detach().clone(), torch.ones(300)
    with use_backend("triton"), pytest.raises(RuntimeError, match="capturable=True"):
        Adam().attach(params).step()
    assert torch.equal(param, before)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Lion"])
def test_every_class_can_be_captured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of torch's classes SGD needs no word for it; here every class takes the word."""
    params = new(300)
    with use_backend("triton"):
        opt = getattr(neon.torch, name)(params, capturable=True)
        params[0].grad = torch.ones(300)
        opt.step()
        before = params[0].detach().clone()
        monkeypatch.setattr(capture, "capturing", lambda device: True)
        opt.step()
    assert not torch.equal(params[0], before)
    with pytest.raises(TypeError, match="capturable must be True or False"):
        getattr(neon.torch, name)(params, capturable=1)


@pytest.mark.parametrize("option", ["skip_nonfinite", "partitioned", "in_backward"])
def test_what_the_host_decides_cannot_be_captured(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} cannot be had with capturable=True"):
        Adam().attach(new(3), capturable=True, **{option: True})


def test_the_processor_captures_nothing() -> None:
    message = "capturable=True asks for steps .* a device that Triton serves, such as cuda; some are on cpu"
    with pytest.raises(ValueError, match=message):
        Adam().attach(new(3), capturable=True)
    with use_backend("triton"):
        opt = Adam().attach(params := new(3), capturable=True)
    params[0].grad = torch.ones(3)
    with pytest.raises(ValueError, match=message):
        opt.step()


@pytest.mark.parametrize("capturable", [False, True])
def test_a_resumed_run_goes_on_with_the_same_bits(capturable: bool) -> None:
    def run(params: list[Tensor], steps: range, saved: Any = None) -> tuple[list[Tensor], Any]:
        opt = Adam(gradient_clip_norm=1.0, stochastic_round=True).attach(params, capturable=capturable)
        if saved is not None:
            opt.load_state_dict(saved)
        for step in steps:
            for p, g in zip(params, new(300, 20, dtype=torch.bfloat16, seed=step), strict=True):
                p.grad = g.detach()
            opt.step()
        return [p.detach().clone() for p in params], copy.deepcopy(opt.state_dict())

    with use_backend("triton"):
        whole, _ = run(new(300, 20, dtype=torch.bfloat16), range(4))
        half, saved = run(new(300, 20, dtype=torch.bfloat16), range(2))
        resumed, _ = run([p.requires_grad_() for p in half], range(2, 4), saved)
    assert_same(whole, resumed)


def test_torchs_classes_by_name_can_be_captured() -> None:
    ends = []
    for library in (neon.torch, torch.optim):
        [param] = params = new(300)
        with use_backend("triton"):
            opt = library.Adam(params, torch.tensor(0.1), capturable=library is neon.torch)
            for _ in range(2):
                param.grad = torch.ones(300)
                opt.step()
        ends.append(param.detach())
    torch.testing.assert_close(*ends, rtol=1e-6, atol=1e-7)
    assert "capturable" in opt.state_dict()["param_groups"][0]


# -- a scaler whose findings stay on the device ----------------------------------------------------


@pytest.mark.parametrize("when", ["attached", "added", "set", "around"])
def test_a_norm_over_processes_cannot_be_captured(when: str, alone: DeviceMesh) -> None:
    sharded = torch.nn.Parameter(distribute_tensor(torch.ones(3, 2), alone, [Shard(0)]))
    whole = torch.nn.Parameter(distribute_tensor(torch.ones(3, 2), alone, [Replicate()]))
    message = "gradient_clip_norm cannot be had with capturable=True for parameters of which other processes"
    rule: Any = Adam(gradient_clip_norm=None if when in ("set", "around") else 1.0)
    if when == "around":
        rule = MultiOptimizer({"default": rule}, gradient_clip_norm=1.0)
    with use_backend("triton"):
        rule.attach([whole], capturable=True)
        if when in ("attached", "around"):
            with pytest.raises(ValueError, match=message):
                rule.attach([sharded], capturable=True)
        elif when == "added":
            opt = rule.attach([whole], capturable=True)
            with pytest.raises(ValueError, match=message):
                opt.add_param_group({"params": iter([sharded])})
            assert len(opt.param_groups) == 1
        else:
            opt = rule.attach([sharded], capturable=True)
            sharded.grad = torch.ones_like(sharded)
            opt.step()
            opt.param_groups[0]["gradient_clip_norm"] = 1.0
            with pytest.raises(ValueError, match=message):
                opt.step()


@pytest.mark.parametrize("rule", [OfNorms(), Adafactor()], ids=repr)
def test_norms_of_a_rule_over_processes_cannot_be_captured(rule: Optimizer, alone: DeviceMesh) -> None:
    for placement in (Replicate(), Shard(0)):
        param = torch.nn.Parameter(distribute_tensor(torch.ones(3, 2), alone, [placement]))
        param.grad = torch.ones_like(param)
        with use_backend("triton"):
            opt = rule.attach([param], capturable=True)
            if placement == Replicate():
                opt.step()
                continue
            with pytest.raises(ValueError, match="norms of whole tensors cannot be had with capturable=True"):
                opt.step()
            assert not opt.state
