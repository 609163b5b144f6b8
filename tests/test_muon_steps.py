"""Steps of matrices: each as if it were alone, whatever is beside it, in what order, layout, bucket or thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from matrix_steps import SHAPES, all_bits, each_alone, give, muon, run, state_of, weights
from stepped_parameters import bits
from torch import Tensor, nn

from neon.engine.arena import _arenas
from neon.engine.calls import stacks
from neon.optimizers import (
    Muon,
)

pytestmark = pytest.mark.usefixtures("one_thread")


# -- what is beside a matrix -----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["all together", "one at a time"])
def test_each_matrix_steps_as_if_it_were_alone(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "one at a time":
        monkeypatch.setattr(stacks, "BUCKET", 1)
    params = weights()
    alone = each_alone(lambda _: muon(), params, 3)
    opt = muon().attach(params)
    for step in range(3):
        give(params, step)
        opt.step()
    assert all_bits(opt, params) == alone


def test_gradients_that_come_and_go() -> None:
    without = {0: {1, 5}, 1: range(13), 2: {0, 2, 3}, 3: {1, 6, 7}, 4: set()}
    params = weights()
    alone = each_alone(lambda _: muon(), params, 5, without)
    opt = muon().attach(params)
    for step, missing in without.items():
        give(params, step, without=missing)
        opt.step()
    assert all_bits(opt, params) == alone


def test_frozen_layers_stay_and_groups_that_are_added_in_mid_run() -> None:
    params = weights()
    named = [(f"p{place}", p) for place, p in enumerate(params)]
    without = {0: range(8, 13), 1: [0, *range(8, 13)], 2: [0], 3: []}
    alone = each_alone(lambda place: muon(learning_rate=0.02 if place < 8 else 0.05), params, 4, without)
    opt = muon().attach(named[:8])
    give(params[:8], 0)
    opt.step()
    opt.freeze("p0")
    give(params[:8], 1)
    opt.step()
    opt.add_param_group({"params": named[8:], "lr": 0.05})
    give(params, 2)
    opt.step()
    opt.unfreeze("p0")
    give(params, 3)
    opt.step()
    assert all_bits(opt, params) == alone


@pytest.mark.parametrize("bucket", [1 << 26, 1 << 14, 1])
def test_many_groups_with_numbers_of_their_own(bucket: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "BUCKET", bucket)
    shapes = [(4 + place % 3, 6 - place % 2) for place in range(300)]
    params = weights(shapes)

    def options(group: int) -> dict[str, Any]:
        return {
            "lr": 0.01 + 0.001 * group, "ns_steps": group % 7, "momentum": 0.5 + 0.008 * group,
            "nesterov": group % 2 == 0, "eps": 10.0 ** -(group % 9), "weight_decay": 0.01 * group,
            "ns_coefficients": ((3.4445, -4.775, 2.0315), "quintic", (2.0, -1.5, 0.5, 3.0, -3.2, 1.2))[group % 3],
            "adjust_lr_fn": ("original", "match_rms_adamw", "spectral", "none")[group % 4],
        }  # fmt: skip

    names = {
        "lr": "learning_rate",
        "momentum": "momentum_coef",
        "eps": "epsilon",
        "weight_decay": "wdecay",
        "adjust_lr_fn": "scale",
    }
    opt = Muon().attach([{"params": params[6 * group : 6 * group + 6], **options(group)} for group in range(50)])
    alone = each_alone(
        lambda place: Muon(**{names.get(k, k): v for k, v in options(place // 6).items()}),
        params,
        3,
    )
    for step in range(3):
        give(params, step)
        opt.step()
    assert all_bits(opt, params) == alone


def test_dtypes_side_by_side() -> None:
    dtypes = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
    params = [p for dtype in dtypes for p in weights(SHAPES[:4], dtype)]
    alone = each_alone(lambda _: muon(), params, 3)
    opt = muon().attach(params)
    for step in range(3):
        give(params, step)
        opt.step()
    assert all_bits(opt, params) == alone


# -- how a matrix lies in memory -------------------------------------------------------------------


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: x.transpose(0, -1).contiguous().transpose(0, -1),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x,
    "every second column": lambda x: x.new_zeros(*x.shape[:-1], 2 * x.shape[-1])[..., ::2].copy_(x),
    "not aligned": lambda x: x.new_zeros(x.numel() + 1)[1:].view(x.shape).copy_(x),
}


@pytest.mark.parametrize("of", ["weights", "gradients", "both"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_change_no_bit(layout: str, of: str) -> None:
    lay_out = LAYOUTS[layout]
    plain = weights()
    expected = each_alone(lambda _: muon(), plain, 3)
    params: list[Any] = [nn.Parameter(lay_out(p.detach())) for p in plain] if of != "gradients" else plain
    opt = muon().attach(params)
    for step in range(3):
        give(params, step)
        if of != "weights":
            for p in params:
                p.grad = lay_out(p.grad)
        opt.step()
    found = [bits([p.detach().contiguous(), *(s.contiguous() for s in state_of(opt, p).values())]) for p in params]
    assert found == [[a, *b.values()] for a, b in expected]


def test_weights_that_are_replaced() -> None:
    params = weights()
    alone = each_alone(lambda _: muon(), params, 4)
    opt = muon().attach(params)
    for step, replaced in enumerate((lambda x: x, torch.clone, LAYOUTS["transposed"], LAYOUTS["not aligned"])):
        for p in params:
            p.data = replaced(p.data)
        give(params, step)
        opt.step()
    assert [a for a, _ in all_bits(opt, params)] == [a for a, _ in alone]


def test_gradients_that_are_expanded_or_negated_lazily() -> None:
    p: Any = nn.Parameter(torch.ones(6, 4))
    q: Any = nn.Parameter(torch.ones(6, 4))
    one, other = muon().attach([p]), muon().attach([q])
    for step in range(3):
        g = torch.tensor([1.0, -2.0, 3.0, 0.5]) * (step + 1)
        p.grad, q.grad = g.expand(6, 4), g.repeat(6, 1)
        one.step()
        other.step()
    p.grad, q.grad = torch._neg_view(q.grad), -q.grad  # type: ignore[reportPrivateImportUsage]
    one.step()
    other.step()
    assert torch.equal(p, q)


# -- numbers at the edge ---------------------------------------------------------------------------


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("bucket", [1 << 26, 1])
def test_what_is_not_finite_shows_in_its_parameter_alone(
    value: float, bucket: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacks, "BUCKET", bucket)
    params = weights()
    alone = each_alone(lambda _: muon(), params, 2)
    opt = muon().attach(params)
    for step in range(2):
        give(params, step)
        for place in (1, 4, 8):
            params[place].grad.view(-1)[0] = value
        opt.step()
    found = all_bits(opt, params)
    for place, p in enumerate(params):
        if place in (1, 4, 8):
            assert p.isnan().all()
        else:
            assert found[place] == alone[place]


def test_vectors_of_a_row_or_a_column_point_along_the_gradient() -> None:
    row, column, one = (nn.Parameter(torch.zeros(shape)) for shape in ((1, 9), (9, 1), (1, 1)))
    opt = Muon(learning_rate=1.0, wdecay=0.0, ns_coefficients="quintic", scale="none", units="float32").attach(
        [row, column, one]
    )
    g = torch.arange(1.0, 10.0)
    row.grad, column.grad, one.grad = g.view(1, 9), g.view(9, 1), torch.tensor([[-3.0]])
    opt.step()
    p = 1.0
    for a, b, c in ((4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037),
                    (2.8769, -3.1427, 1.2046), (2.8366, -3.0525, 1.2012)):  # fmt: skip
        p = a * p + b * p**3 + c * p**5
    torch.testing.assert_close(row.detach()[0], -p * g / g.norm(), rtol=1e-5, atol=0)
    torch.testing.assert_close(column.detach()[:, 0], -p * g / g.norm(), rtol=1e-5, atol=0)
    assert abs(one.item() - p) < 1e-5


@pytest.mark.parametrize("exponent", [-40, -20, 60, 100, 120])
def test_the_size_of_gradients_does_not_matter(exponent: int) -> None:
    """Below ε it would; squares beyond float32's range are no matter."""
    wide = [(16, 48), (48, 16), (8, 3, 3, 3)]
    params, others = weights(wide), weights(wide)
    one, other = (muon(wdecay=0.0, epsilon=1e-15, units="float32").attach(each) for each in (params, others))
    for step in range(3):
        give(params, step)
        give(others, step, 2.0**exponent)
        one.step()
        other.step()
    for p, q in zip(params, others, strict=True):
        torch.testing.assert_close(q, p, rtol=0, atol=1e-5 * p.abs().max().item())


def test_no_gradient_at_all_is_weight_decay_alone() -> None:
    params = weights()
    before = [p.detach().clone() for p in params]
    opt = Muon(learning_rate=0.1, wdecay=0.5).attach(params)
    for p in params:
        p.grad = torch.zeros_like(p)
    opt.step()
    for p, old in zip(params, before, strict=True):
        torch.testing.assert_close(p.detach(), (1 - 0.1 * 0.5) * old, rtol=1e-7, atol=0)


# -- threads ---------------------------------------------------------------------------------------


LARGE = [(256, 300), (256, 300), (300, 256), (512, 512), (96, 1024), (64, 64), (64, 64), (1, 100_000), (100_000, 1)]


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("units", ["float32", "bfloat16"])
def test_the_number_of_threads_changes_no_bit(units: str) -> None:
    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        params = weights(LARGE)
        found.append(run(params, muon(gradient_clip_norm=100.0, units=units).attach(params), range(2)))
    assert found[0] == found[1]
    assert found[0] == found[2]


@pytest.mark.parametrize("made", ["in its thread", "in one thread"])
def test_optimizers_that_step_at_the_same_time(made: str) -> None:
    """Memory for buffers is a thread's own, also where one thread has made both plans."""
    shapes = LARGE[:6]
    expected = run(params := weights(shapes), muon().attach(params), range(6))
    sets = [weights(shapes) for _ in range(4)]
    optimizers = [muon().attach(each) for each in sets]
    start = 0
    if made == "in one thread":
        start = 1
        for each, opt in zip(sets, optimizers, strict=True):
            run(each, opt, range(1))
    with ThreadPoolExecutor(4) as pool:
        found = [*pool.map(lambda each, opt: run(each, opt, range(start, 6)), sets, optimizers)]
    assert found == [expected] * 4


def test_an_optimizer_that_goes_from_thread_to_thread() -> None:
    expected = run(params := weights(), muon().attach(params), range(6))
    params = weights()
    opt, found = muon().attach(params), []
    for step in range(6):
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(run, params, opt, range(step, step + 1)).result()
    assert found == expected


# -- memory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("units", ["float32", "bfloat16"])
def test_a_step_takes_no_more_memory_than_a_bucket(units: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffers and temporaries of 40 matrices, which are 10 MB; the bucket is of 4."""
    monkeypatch.setattr(stacks, "BUCKET", 4 << 20)
    params = weights([(256, 256)] * 40)
    opt = muon(ns_steps=1, units=units).attach(params)
    give(params, 0)
    before = sum(arena.memory.nbytes for arena in _arenas.values())
    opt.step()
    buffers = sum(arena.memory.nbytes for arena in _arenas.values()) - before
    assert 0 < buffers + peak_of(opt.step) <= 4 << 20


def peak_of(step: Callable[[], Any]) -> int:
    """The most bytes that torch has allocated at a time within a step."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    profiler: Any = profile.profiler
    events: list[Any] = [e for e in profiler.kineto_results.events() if e.name() == "[memory]"]
    most = held = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    assert held == 0
    return most
