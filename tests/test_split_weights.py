"""A bfloat16 weight with its other 16 bits beside it is a float32; without them, small updates are lost."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from rule_cases import RULES, PlainLayer, gradients, lay_out, make, weights
from torch import Tensor

from neon.optimizers import Adam, GradientDescentMomentum, Optimizer

pytestmark = pytest.mark.usefixtures("one_thread")


def joined(weight: Tensor, low: Tensor) -> Tensor:
    """The float32 of a split weight."""
    high = weight.contiguous().view(torch.int16).to(torch.int32) << 16
    return (high + low.contiguous().view(torch.int16).to(torch.int32)).view(torch.float32)


def nearest_bfloat16(x: Tensor) -> Tensor:
    """The nearest bfloat16, and of two as near the one away from zero: its other half is then 16 bits with a sign."""
    return ((x.view(torch.int32) + 0x8000) >> 16).to(torch.int16).view(torch.bfloat16)


@pytest.mark.parametrize("rule", RULES)
def test_a_split_weight_has_the_trajectory_of_float32(rule: str) -> None:
    split = weights(torch.bfloat16, rule)
    whole = [p.detach().float().requires_grad_() for p in split]
    halves, full = make(rule, "plain", master="split").attach(split), make(rule, "plain").attach(whole)
    for step in range(6):
        for p, q, grad in zip(split, whole, gradients(step, torch.bfloat16, rule), strict=True):
            p.grad, q.grad = grad, lay_out(grad.float(), "contiguous")
        halves.step()
        full.step()
        for p, q in zip(split, whole, strict=True):
            state = halves.state[p]
            assert torch.equal(joined(p.detach(), state["low_bits"]), q)
            assert torch.equal(p.detach(), nearest_bfloat16(q.detach()))
            assert state["low_bits"].dtype == p.dtype
            for name in full.state[q].keys() - {"step"}:
                assert torch.equal(state[name], full.state[q][name])
    assert any(halves.state[p]["low_bits"].view(torch.int16).any() for p in split)


STEPS, RATE = 400, 2.0**-14  # half a bfloat16's unit at 1 is 2^-9 above it and 2^-10 below


def descended(n: int, **more: Any) -> tuple[Tensor, Tensor]:
    """Weights of one that go down by RATE at each step, in bfloat16 and in float32."""
    ends = []
    for dtype, chosen in ((torch.bfloat16, more), (torch.float32, {})):
        param = torch.ones(n, dtype=dtype, requires_grad=True)
        param.grad = torch.ones(n, dtype=dtype)
        optimizer = GradientDescentMomentum(RATE, 0.0, **chosen).attach([param])
        for _ in range(STEPS):
            optimizer.step()
        low = optimizer.state[param].get("low_bits")
        ends.append(param.detach() if low is None else joined(param.detach(), low))
    return ends[0], ends[1]


@pytest.mark.filterwarnings("ignore::neon.audit.AuditWarning")  # of what is shown
def test_rounded_to_nearest_a_weight_stands_still_and_the_two_cures_follow_float32() -> None:
    n = 4096
    nearest, exact = descended(n)
    assert torch.equal(nearest, torch.ones_like(nearest))
    assert float(exact[0]) == 1 - STEPS * RATE
    assert torch.equal(*descended(n, master="split"))
    rounded, _ = descended(n, stochastic_round=True)
    # Each step adds at most RATE · 2^-8 to the variance: of a draw that is 2^-8 or nothing, with mean RATE.
    deviation = (STEPS * RATE * 2.0**-8 / n) ** 0.5
    assert abs(float(rounded.double().mean() - exact[0])) < 4 * deviation


@pytest.mark.parametrize("how", ["attach", "optimize"])
def test_float16_weights_cannot_be_split(how: str) -> None:
    param = torch.nn.Parameter(torch.ones(3, dtype=torch.float16))
    param.grad = torch.ones_like(param)
    opt = Adam(master="split")
    attached = opt.attach([("head.weight", param)])
    with pytest.raises(TypeError, match=r"is float16; master='split' keeps the other bits of bfloat16 weights alone"):
        attached.step() if how == "attach" else opt.optimize([PlainLayer([param])], 0)
    assert not attached.state
    assert torch.equal(param.detach(), torch.ones_like(param))


def test_a_rule_without_states_counts_its_steps_in_each_copy() -> None:
    class Counting(Optimizer):
        @staticmethod
        def rule(w: Any, g: Any, *, step: int = 0) -> Any:
            return w + step

    param = torch.nn.Parameter(torch.zeros(3, dtype=torch.bfloat16))
    param.grad = torch.zeros_like(param)
    layer, optimizer = PlainLayer([param]), Counting(master="split")
    for _ in range(3):
        optimizer = copy.deepcopy(optimizer)
        optimizer.optimize([layer], 0)
    assert param.tolist() == [6.0] * 3
