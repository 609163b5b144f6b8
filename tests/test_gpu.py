"""On a GPU, what the interpreter cannot show: every rule beside the processor's, without a wait, and in a graph."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch
from gpu_steps import FORMATS, SIZES, steps
from pairs import crossed
from rule_cases import RULES
from seen_by_hand import assert_seen
from torch import Tensor

from neon.engine import use_backend
from neon.engine.backends import serving
from neon.optimizers import Adam

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="There is no GPU here."),
    pytest.mark.skipif("TRITON_INTERPRET" in os.environ, reason="Triton is to interpret: unset TRITON_INTERPRET"),
]
WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@pytest.fixture(autouse=True)
def device_answers() -> Iterator[None]:
    """What fails on the device fails in its own test; after an illegal access no other can pass, and none may hang."""
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        pytest.exit(f"the device is lost since an earlier test: {error}", returncode=3)
    faulthandler.dump_traceback_later(60, exit=True, file=sys.__stderr__)
    try:
        yield
        torch.cuda.synchronize()
    finally:
        faulthandler.cancel_dump_traceback_later()


def assert_same_bits(ours: Tensor, theirs: Tensor, where: str) -> None:
    """As words, so that a NaN is itself: the low bits of a split weight may look like one."""
    assert ours.dtype == theirs.dtype
    a, b = (t.reshape(-1).view(WORDS[t.element_size()]) for t in (ours, theirs))
    wrong = a != b
    if wrong.any():
        far = (in_order(a) - in_order(b)).abs().max().item()
        x, y = (t.reshape(-1)[wrong][0].item() for t in (ours, theirs))
        text = (
            f"{where}: {wrong.sum().item()} of {a.numel()} {ours.dtype} differ, by {far} units in the last place at "
            f"most; the first: {x!r} on the device, {y!r} on the processor"
        )
        logging.getLogger(__name__).error(text)  # for a --log-file, even if the process does not live to report
        pytest.fail(text, pytrace=False)


def in_order(words: Tensor) -> Tensor:
    """Whole numbers that are in the order of the floats that have these words, so that neighbours are 1 apart."""
    if words.dtype == torch.uint8:
        return words.long()
    lowest = torch.iinfo(words.dtype).min
    return torch.where(words < 0, lowest - words.long(), words.long())


def compare(rule: str, option: str, format: str, start: int = 0) -> None:
    with use_backend("eager"):
        expected = [*steps(rule, option, format, "cpu")]
    found = steps(rule, option, format, "cuda", start)
    for number, (ours, theirs) in enumerate(zip(found, expected, strict=True), start=1):
        for place, (x, y) in enumerate(zip(ours, theirs, strict=True)):
            assert_same_bits(x, y, f"{rule}, {option}, {format}, step {number}, tensor {place}")


def test_triton_serves_the_device() -> None:
    assert serving(torch.device("cuda")).name == "triton"


@pytest.mark.parametrize(("rule", "option", "format"), crossed(product(RULES, ["plain", "all"], FORMATS)))
def test_every_rule_is_the_processors(rule: str, option: str, format: str) -> None:
    compare(rule, option, format)


@pytest.mark.parametrize("format", FORMATS)
def test_weights_that_are_not_aligned_are_the_processors(format: str) -> None:
    compare("adam", "all", format, start=1)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
@pytest.mark.parametrize("clip", [None, 1.0])
def test_no_step_waits_for_the_device(clip: float | None) -> None:
    params = [torch.randn(n, device="cuda", requires_grad=True) for n in SIZES]
    opt = Adam(gradient_clip_norm=clip).attach(params)
    for step in range(5):
        for p in params:
            p.grad = torch.randn_like(p)
        torch.cuda.set_sync_debug_mode("error" if step > 1 else "default")
        try:
            opt.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
@pytest.mark.parametrize(
    "options", [{}, {"gradient_clip_norm": 1.0, "gradient_clip_value": 0.01}, {"state_dtype": "int8"}]
)
def test_statistics_are_the_processors_and_no_step_waits_for_them(options: dict[str, Any]) -> None:
    params = [torch.randn(n, device="cuda", requires_grad=True) for n in SIZES]
    others = [p.detach().cpu().requires_grad_() for p in params]
    opt, other = (Adam(**options).attach(each, statistics=True) for each in (params, others))
    for step in range(5):
        for p, e in zip(params, others, strict=True):
            e.grad = torch.randn(e.shape)
            p.grad = e.grad.cuda()
        torch.cuda.set_sync_debug_mode("error" if step > 1 else "default")
        try:
            opt.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        with use_backend("eager"):
            other.step()
    found, expected = opt.statistics(), other.statistics()
    assert found is not None
    assert expected is not None
    assert_seen(found, expected)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
@pytest.mark.parametrize("unscaled", [False, True])
def test_no_step_under_a_scaler_waits_for_the_device(unscaled: bool) -> None:
    """Steps are left out on the device, and counted there."""
    params = [torch.randn(n, device="cuda", requires_grad=True) for n in SIZES]
    expected = [p.detach().cpu().requires_grad_() for p in params]
    opt, reference = Adam(weight_average=0.9).attach(params), Adam(weight_average=0.9).attach(expected)
    scaler = torch.amp.GradScaler("cuda", init_scale=1024.0, growth_interval=3)
    for step in range(8):
        scale = scaler.get_scale()
        for p, e in zip(params, expected, strict=True):
            e.grad = torch.randn(e.shape)
            p.grad = (e.grad * scale).cuda()
        if step in (3, 6):
            params[1].grad[5] = torch.inf  # type: ignore[index]
        scaler.scale(torch.zeros((), device="cuda"))
        if unscaled:
            scaler.unscale_(opt)
        torch.cuda.set_sync_debug_mode("error" if step > 1 else "default")
        try:
            scaler.step(opt)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        scaler.update()
        if step not in (3, 6):
            with use_backend("eager"):
                reference.step()
    assert (opt.skipped_steps, scaler.get_scale()) == (2, 512.0)
    for p, e in zip(params, expected, strict=True):
        assert float(opt.state[p]["step"]) == 6.0
        torch.testing.assert_close(p.detach().cpu(), e.detach(), rtol=1e-6, atol=1e-7)
        averages = opt.state[p]["weight_average"].cpu(), reference.state[e]["weight_average"]
        torch.testing.assert_close(*averages, rtol=1e-6, atol=1e-7)


def test_a_graph_under_a_scaler_counts_on_with_steps_of_other_plans() -> None:
    params = [torch.randn(n, device="cuda", requires_grad=True) for n in SIZES]
    expected = [p.detach().cpu().requires_grad_() for p in params]
    opt, reference = Adam().attach(params, capturable=True), Adam().attach(expected)
    graph, stream, own = torch.cuda.CUDAGraph(), torch.cuda.Stream(), [torch.zeros_like(p) for p in params[:2]]
    found, scale = torch.zeros((), device="cuda"), torch.ones((), device="cuda")
    for step in range(8):
        captured = step in (2, 3, 5, 6)  # these update two of three parameters
        infinite, factor = float(step in (3, 4, 7)), 2.0**step
        found.fill_(infinite)
        scale.fill_(factor)
        for place, (p, e) in enumerate(zip(params, expected, strict=True)):
            e.grad = torch.randn(e.shape)
            p.grad = (e.grad * factor).cuda()
            if captured or step == 1:
                if place == 2:
                    p.grad = e.grad = None
                else:
                    p.grad = own[place].copy_(p.grad)
        if step == 4:
            opt._restart()
        if not infinite:
            with use_backend("eager"):
                reference.step()
        opt.found_inf, opt.grad_scale = found, scale
        if step == 2:
            torch.cuda.synchronize()
            with torch.cuda.graph(graph, stream=stream):
                opt.step()
        if captured:
            graph.replay()
        else:
            opt.step()
    assert opt.skipped_steps == 3
    for p, e in zip(params, expected, strict=True):
        assert float(opt.state[p]["step"]) == float(reference.state[e]["step"])
        torch.testing.assert_close(p.detach().cpu(), e.detach(), rtol=1e-6, atol=1e-7)


def test_a_captured_step_follows_its_rate() -> None:
    params = [torch.randn(n, device="cuda", requires_grad=True) for n in SIZES]
    expected = [p.detach().cpu().requires_grad_() for p in params]
    opt = Adam().attach(params, capturable=True)
    opt.param_groups[0]["lr"] = torch.tensor(0.1, device="cuda")
    for p, e in zip(params, expected, strict=True):
        p.grad, e.grad = torch.ones_like(p), torch.ones_like(e)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            opt.step()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        opt.step()
    with use_backend("eager"):
        other = Adam(learning_rate=0.1).attach(expected)
        for rate in (0.1, 0.1, 0.1, 0.2, 0.05):
            other.param_groups[0]["lr"] = rate
            other.step()
    for rate in (0.2, 0.05):
        opt.param_groups[0]["lr"].fill_(rate)
        graph.replay()
    for p, e in zip(params, expected, strict=True):
        torch.testing.assert_close(p.detach().cpu(), e.detach(), rtol=1e-6, atol=1e-7)
        assert float(opt.state[p]["step"]) == 5.0


def test_steps_between_replays_leave_a_graph_its_gradients() -> None:
    """Steps outside of it have others, and another rate; after one with a gradient less, its tables are still there."""
    params = [torch.randn(n, device="cuda", requires_grad=True) for n in SIZES]
    expected = [p.detach().cpu().requires_grad_() for p in params]
    own, other = ([torch.randn_like(p) for p in params] for _ in range(2))
    rule = Adam(gradient_clip_norm=1.0)
    optimizers = rule.attach(params, capturable=True), rule.attach(expected)
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()

    def give(grads: list[Tensor], rate: float) -> None:
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = rate
        for p, e, g in zip(params, expected, grads, strict=True):
            p.grad, e.grad = g, g.cpu()

    for step, (grads, rate) in enumerate([(own, 0.1)] * 3 + [(other, 0.5), (own, 0.1), (other, 0.5), (own, 0.1)]):
        give(grads, rate)
        with use_backend("eager"):
            optimizers[1].step()
        if step == 2:
            with torch.cuda.graph(graph, stream=stream):
                optimizers[0].step()
        if step in (2, 4, 6):
            give(other, 0.5)
            graph.replay()
        else:
            optimizers[0].step()
    for p, e in zip(params, expected, strict=True):
        torch.testing.assert_close(p.detach().cpu(), e.detach(), rtol=1e-6, atol=1e-7)
    params[0].grad = None
    optimizers[0].step()
    torch.randn(1 << 20, device="cuda")  # takes what has been let go
    graph.replay()
    torch.cuda.synchronize()
    for p in params:
        assert bool(p.isfinite().all())
