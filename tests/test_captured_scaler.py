"""Steps under a scaler that the host does not ask: what it found stays on the device, in graphs too."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from captured_steps import Alone, Graph, everything, give
from other_versions import needs_interpreter
from state_tensors import assert_same, new

import neon.torch
from neon.engine import use_backend
from neon.optimizers import Adam, AdamW, GradientDescentMomentum, MultiOptimizer, WarmupCosine

pytestmark = [needs_interpreter, pytest.mark.usefixtures("one_thread")]


@pytest.mark.parametrize(
    "option",
    [
        {},
        {"gradient_clip_norm": 1.0},
        {"stochastic_round": 10, "state_dtype": "int8"},
        {"weight_average": 0.9, "wdecay": 0.1},
    ],
)
@pytest.mark.parametrize("unscaled", [False, True])
def test_a_step_is_left_out_without_the_host(
    option: dict[str, Any], unscaled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = []
    for backend in ("eager", "triton"):
        params = new(5000, 20)
        with use_backend(backend):
            opt = AdamW(**option).attach(params)
            for step, infinite in enumerate((1.0, 0.0, 0.0, 1.0, 0.0, 2.0, 1.0, 0.0)):
                give(params, step)
                opt.found_inf = torch.tensor([infinite]) if step % 2 else torch.tensor(infinite)
                opt.grad_scale = None if unscaled else torch.tensor(2.0**step)
                for p in params:
                    p.grad *= 1.0 if unscaled else 2.0**step
                if infinite:
                    params[1].grad[3] = math.nan if step % 2 else math.inf
                if backend == "triton" and step > 1:
                    with Alone(monkeypatch):
                        opt.step()
                else:
                    opt.step()
                if step == 0:
                    assert not opt.state
            assert opt.skipped_steps == 4
            assert [float(opt.state[p]["step"]) for p in params] == [4.0, 4.0]
            ends.append(everything(opt))
            twins = copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))
            opt.load_state_dict(copy.deepcopy(opt.state_dict()))
            assert [made.skipped_steps for made in (opt, *twins)] == [4, 4, 4]
            opt.skipped_steps = 0
            assert opt.skipped_steps == 0
    assert_same(*ends)


def test_a_real_scaler_and_a_run_that_is_resumed() -> None:
    ends = []
    for backend in ("eager", "triton"):
        params = new(300, 20)
        with use_backend(backend):
            opt: Any = neon.torch.Adam(params, lr=0.01)
            scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
            for step in range(9):
                scale = scaler.scale(torch.ones(()))
                for p, g in zip(params, new(300, 20, seed=step), strict=True):
                    p.grad = g.detach() * scale
                if step in (2, 5):
                    params[0].grad[7] = math.inf
                scaler.step(opt)
                scaler.update()
                if step == 4:
                    saved = copy.deepcopy(opt.state_dict())
                    opt = neon.torch.Adam(params, lr=0.5)
                    opt.load_state_dict(saved)
            assert opt.skipped_steps == 1
            ends.append([*everything(opt), torch.tensor(scaler.get_scale())])
    assert_same(*ends)


def test_a_scaler_in_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, ends = Graph(monkeypatch), []
    for backend in ("eager", "triton"):
        params = new(300, 20)
        grads = [torch.empty_like(p) for p in params]
        found, scale = torch.zeros(()), torch.ones(())
        with use_backend(backend):
            opt = Adam().attach(params, capturable=backend == "triton")
            for p, g in zip(params, grads, strict=True):
                p.grad = g
            for step, infinite in enumerate((0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0)):
                found.fill_(infinite)
                scale.fill_(2.0**step)
                for g, values in zip(grads, new(300, 20, seed=step), strict=True):
                    g.copy_(math.inf if infinite else values.detach() * 2.0**step)
                opt.found_inf, opt.grad_scale = found, scale
                if backend == "eager" or step < 2:
                    opt.step()
                elif step == 2:
                    with graph:
                        opt.step()
                else:
                    graph.replay()
            del opt.found_inf, opt.grad_scale
            assert opt.skipped_steps == 2
            give(params, 9)
            opt.step()  # no scaler: nothing is left out any more
            ends.append(everything(opt))
    assert_same(*ends)


def test_a_graph_without_a_scaler_goes_on_after_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a scaler has found outside of a graph leaves out that step, and no replay."""
    graph, ends = Graph(monkeypatch), []
    for backend in ("eager", "triton"):
        [param] = params = new(300)
        param.grad = torch.ones(300)
        with use_backend(backend):
            opt = Adam().attach(params, capturable=backend == "triton")
            opt.step()
            if backend == "triton":
                with graph:
                    opt.step()
            else:
                opt.step()
            opt.found_inf = torch.tensor(1.0)
            opt.step()
            del opt.found_inf
            graph.replay() if backend == "triton" else opt.step()
            assert opt.skipped_steps == 1
        ends.append(everything(opt))
    assert_same(*ends)


@pytest.mark.parametrize("option", ["a schedule", "the first step"])
def test_what_a_scaler_found_is_not_read_in_a_capture(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [param] = params = new(300)
    with use_backend("triton"):
        schedule = {"schedule": WarmupCosine(2, 9, unit="steps")} if option == "a schedule" else {}
        opt = AdamW(**schedule).attach(params, capturable=True)
        for step in range(3):
            param.grad, opt.found_inf = torch.ones(300), torch.tensor(0.0)
            if step == 2 or option == "the first step":
                with pytest.raises(RuntimeError, match="no schedule where there is a GradScaler"), Graph(monkeypatch):
                    opt.step()
                return
            opt.step()


def test_the_host_decides_what_it_has_to_know() -> None:
    """A schedule counts the steps that were taken; who was not finite has a name."""
    for options in ({"schedule": WarmupCosine(2, 9, unit="steps")}, {}):
        params = new(20)
        with use_backend("triton"):
            opt = AdamW(**options).attach(params, skip_nonfinite=not options)
            for step, infinite in enumerate((0.0, 0.0, 1.0, 0.0)):
                opt.found_inf = torch.tensor(infinite)
                give(params, step)
                if step == 3 and not options:
                    params[0].grad[0] = math.nan
                opt.step()
        if options:
            assert (opt.param_groups[0]["updates"], opt.skipped_steps) == (3, 1)
        else:
            assert (opt.skipped_steps, opt.last_nonfinite) == (2, "params[0] of 'default'")


def test_a_scaler_that_comes_to_a_run_and_goes() -> None:
    ends = []
    for backend in ("eager", "triton"):
        params = new(300, 20)
        with use_backend(backend):
            opt = MultiOptimizer({"default": Adam(), "b": GradientDescentMomentum(0.1, 0.9)}).attach(
                list(zip("ab", params, strict=True))
            )
            for step, found in enumerate((None, 0.0, 1.0, 0.0, None, 1.0, None)):
                give(params, step)
                if found is not None:
                    opt.found_inf = torch.tensor(found)
                opt.step()
                vars(opt).pop("found_inf", None)
            assert opt.skipped_steps == 2
            ends.append(everything(opt))
    assert_same(*ends)
