"""What `neon bench --kinds matrices` compares: the same updates, passes without calls, memory of buckets."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from neon.commands import machine
from neon.commands.bench import matrix_steps, new_process
from neon.commands.bench.matrix_errors import SMALLEST, gradients, newton_schulz
from neon.commands.bench.matrix_steps import MATRICES, errors_of, memory_of, without_calls
from neon.commands.bench.results import Line
from neon.commands.bench.step_alone import attach
from neon.commands.bench.tensor_shapes import Shapes
from neon.commands.bench.work import AgreementError, make_work
from neon.engine.calls.called import CALLS

LINE = Line("matrices", "Muon", "768x3072")
pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_matrices_of_gpt2_are_those_of_its_blocks() -> None:
    assert len(MATRICES["gpt2-hidden"].tensors) == 48
    assert MATRICES["gpt2-hidden"].elements == 12 * 12 * 768**2


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (30, 30)])
def test_the_iteration_is_a_polynomial_of_singular_values(shape: tuple[int, int]) -> None:
    gradient = gradients(shape)["1e-3 to 1"].double()
    left, values, right = torch.linalg.svd(gradient, full_matrices=False)
    values /= gradient.norm()
    for _ in range(3):
        values = 3.4445 * values - 4.775 * values**3 + 2.0315 * values**5
    found = newton_schulz(gradient, (3.4445, -4.775, 2.0315), 3)
    assert torch.allclose(found, left * values @ right, rtol=0, atol=1e-12)


def test_gradients_have_their_spectra() -> None:
    for name, smallest in SMALLEST.items():
        values = torch.linalg.svdvals(gradients((24, 40))[name].double())
        assert values.max() == pytest.approx(1)
        assert values.min() == pytest.approx(smallest, rel=0.1)


def test_errors_are_about_those_of_bfloat16_at_the_most() -> None:
    errors = errors_of(LINE, Shapes(((48, 64), (64, 48)), rounds=0))
    assert {*errors} == {*SMALLEST, "at random"}
    for each in errors.values():
        assert 0 <= each["neon"] <= 1.1 * each["torch"] < 0.3


def test_other_work_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class OtherSteps(torch.optim.Muon):
        def __init__(self, params: object, lr: float, ns_steps: int) -> None:
            super().__init__(params, lr, ns_steps=ns_steps - 4)  # type: ignore[arg-type]

    monkeypatch.setitem(matrix_steps.PEERS, "Muon", OtherSteps)  # type: ignore[arg-type]
    with pytest.raises(AgreementError, match=r"torch is .* of an update from float64: not the same work"):
        errors_of(LINE, Shapes(((48, 64),), rounds=0))


def test_passes_alone_take_momentum_for_the_update_and_calls_come_back() -> None:
    work = make_work(Shapes(((48, 64),), rounds=0), states=1)
    [param] = work.params
    optimizer = attach(LINE, work)
    before, kept = param.detach().clone(), dict(CALLS)
    optimizer.state[param]["momentum_buffer"].zero_()
    assert param.grad is not None
    without_calls(optimizer.step)
    expected = (1 - 1e-4) * before - 1e-3 * (0.05 + 0.95 * 0.05) * param.grad
    assert torch.allclose(param, expected, rtol=1e-6, atol=1e-9)
    assert kept == CALLS


@pytest.mark.skipif(not machine.LINUX, reason="only Linux tells a process its peak memory")
def test_memory_is_measured_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    run = new_process.run
    monkeypatch.setattr(new_process, "run", lambda *what, **more: asked.append(what) or run(*what, **more))
    extra = memory_of(replace(LINE, shape="144-of-64x64"))
    assert [what[1:] for what in asked] == [("matrices", "Muon", "144-of-64x64")]
    assert {*extra} == {"neon", "torch"}
    assert 0 <= extra["neon"] < 24 << 20
    json.dumps(extra)
