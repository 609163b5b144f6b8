"""Functions of whole matrices that rules call: how programs are cut around them, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lowered_kernels import kernel_of
from other_versions import needs_interpreter
from torch import Tensor, nn

from neon.engine import use_backend
from neon.engine.calls import stacks
from neon.optimizers import (
    COLUMN_PAIRS,
    OPTIMIZER,
    ROW_PAIRS,
    ROWS,
    SOAP,
    Cautious,
    Muon,
    NorMuon,
    Optimizer,
    Prodigy,
    State,
)
from neon.optimizers.functions import mean, norm, total
from neon.optimizers.matrix_functions import basis_of, gram, orthogonalize, restored, rotated

pytestmark = pytest.mark.usefixtures("one_thread")

BACKENDS = ["eager", "numba", pytest.param("triton", marks=needs_interpreter)]
SHAPES = [(8, 5), (5, 8), (8, 5), (4, 3, 2, 2), (16, 16), (1, 7), (0, 3), (300, 40)]
STEPS = 4


def chained(w, g, m=0.0, *, lr=0.1):  # type: ignore[no-untyped-def]
    """A call of a call, whose operand is read again behind both."""
    m = 0.5 * m + g
    once = orthogonalize(m)
    twice = orthogonalize(once, steps=2)
    return w - lr * (once + 2 * twice * m), m


def in_turn(w, g, m=0.0, *, lr=0.1):  # type: ignore[no-untyped-def]
    """Calls with elements between them, sums of tensors behind them, and a state that is stored last."""
    u = orthogonalize(g)
    v = orthogonalize(u * u - 0.5 * g)
    m = 0.5 * m + v / (1 + norm(u))
    return w - lr * (m + mean(abs(v)) * u), m


def of_one_gradient(w, g, *, lr=0.1):  # type: ignore[no-untyped-def]
    """Two calls on the same elements, and neither sees what the other has made of them."""
    return w - lr * (orthogonalize(g) - 0.5 * orthogonalize(g, steps=1))


ROW_STATE: Any = State(of=ROW_PAIRS)
COLUMN_STATE: Any = State(of=COLUMN_PAIRS)


def of_pairs(w, g, left=ROW_STATE, basis=ROW_STATE, right=COLUMN_STATE, *, lr=0.1, step):  # type: ignore[no-untyped-def]
    """Pairs in arithmetic, kept from call to call."""
    left = 0.5 * left + 0.25 * gram(g, over=ROWS)
    basis = basis_of(left, basis, step == 1, step > 1, 1e-8)
    right = right - 0.5 * right
    return w - lr * restored(rotated(g, basis), basis), left, basis, right


RULES = {rule.__name__: rule for rule in (chained, in_turn, of_one_gradient, of_pairs)}


def optimizer_of(rule: Any, **options: Any) -> Optimizer:
    return type(rule.__name__, (Optimizer,), {"rule": staticmethod(rule)})(**options)


def weights() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(3)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def gradients(step: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def trained(optimizer: Optimizer, backend: str) -> list[Tensor]:
    params = weights()
    with use_backend(backend):
        attached = optimizer.attach(params)
        for step in range(1, STEPS + 1):
            for param, grad in zip(params, gradients(step), strict=True):
                param.grad = grad
            attached.step()
    return [param.detach() for param in params]


def by_definition(rule: Any) -> list[Tensor]:
    """The rule called with tensors, one after another."""
    found = [param.detach().clone() for param in weights()]
    kept: list[Any] = [None] * len(found)
    for step in range(1, STEPS + 1):
        for place, (w, g) in enumerate(zip(found, gradients(step), strict=True)):
            more = {"step": step} if rule is of_pairs else {}
            matrix = g.reshape(len(g), -1) if g.numel() else g
            rows, columns = len(g), matrix.shape[1]
            if kept[place] is None:
                squares = [torch.eye(rows) * 0, torch.eye(rows) * 0, torch.eye(columns) * 0]
                kept[place] = squares if rule is of_pairs else [] if rule is of_one_gradient else [torch.zeros_like(g)]
            result = rule(w, g, *kept[place], **more)
            found[place], *kept[place] = result if isinstance(result, tuple) else (result,)
    return found


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_rule_that_calls_is_what_it_is_on_tensors(rule: Any, backend: str) -> None:
    for got, want in zip(trained(optimizer_of(rule), backend), by_definition(rule), strict=True):
        torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_every_backend_gives_the_same_bits_in_buckets_of_any_size(rule: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    want = trained(optimizer_of(rule), "eager")
    for room in (stacks.BUCKET, 5000, 1):
        monkeypatch.setattr(stacks, "BUCKET", room)
        assert all(map(torch.equal, trained(optimizer_of(rule), "numba"), want))


# -- how programs are cut --------------------------------------------------------------------------


def passes(optimizer: Optimizer) -> list[tuple[list[str], list[str]]]:
    """What each pass over elements reads, and what it stores; a call has a line of its own."""
    found = []
    for stage in kernel_of(optimizer).stages:
        if stage.calls is not None:
            found.append(([], [*stage.calls.buffers, *stage.calls.stores]))
        elif not stage.narrow:
            found.append((sorted(str(load.label) for load in stage.loads), [*stage.stores]))
    return found


def test_muon_is_two_sweeps_around_a_call() -> None:
    assert passes(Muon()) == [
        (["g", "momentum_buffer"], ["buffer0", "momentum_buffer"]),
        ([], ["buffer0"]),
        (["buffer0", "w"], ["w"]),
    ]
    assert kernel_of(Muon()).bytes_moved == 28


def test_a_clip_by_norm_is_one_reading_more() -> None:
    assert passes(Muon(gradient_clip_norm=1.0))[1:] == passes(Muon())
    assert kernel_of(Muon(gradient_clip_norm=1.0)).bytes_moved == 32


def test_states_in_blocks_are_stored_before_the_call() -> None:
    assert passes(Muon(state_dtype="int8"))[0][1] == ["buffer0", "momentum_buffer", "momentum_buffer_scale"]


def test_normuon_sums_rows_between_the_call_and_the_weight() -> None:
    assert [stored for _, stored in passes(NorMuon())] == [["buffer0", "momentum_buffer"], ["buffer0"], [], ["w"]]


def test_soap_needs_two_buffers_and_three_passes() -> None:
    kernel = kernel_of(SOAP())
    assert kernel.buffers == ("buffer0", "buffer1")
    assert [stage.is_pass for stage in kernel.stages] == [True, False, True, False, True]


def test_no_call_leaves_anything_behind_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[stacks.Stacks] = []
    run = stacks.Stacks.run
    monkeypatch.setattr(stacks.Stacks, "run", lambda self, *given: (made.append(self), run(self, *given))[1])
    params = weights()
    attached = optimizer_of(of_pairs).attach(params)
    for param, grad in zip(params, gradients(1), strict=True):
        param.grad = grad
    attached.step()
    assert made
    assert not any(known for each in made for known in each._known)


# -- what is refused -------------------------------------------------------------------------------


def of_all(w, g, *, lr=0.1):  # type: ignore[no-untyped-def]
    return w - lr * orthogonalize(g) / total(orthogonalize(g), over=OPTIMIZER)


def of_rows(w, g, *, lr=0.1):  # type: ignore[no-untyped-def]
    return w - lr * orthogonalize(mean(g, over=ROWS))


def of_both(w, g, *, lr=0.1):  # type: ignore[no-untyped-def]
    return w - lr * gram(g, over=ROWS) * g


def of_elements(w, g, left=State(of=ROW_PAIRS), *, lr=0.1):  # type: ignore[no-untyped-def]
    return w - lr * g, g


def of_weights(w, g, left=State("weight", of=ROW_PAIRS), *, lr=0.1):  # type: ignore[no-untyped-def]
    return w - lr * g, left


REFUSED = {
    of_all: "total over the optimizer cannot be taken of what orthogonalize makes of single matrices",
    of_rows: "orthogonalize takes matrices and numbers",
    of_both: "cannot combine values of the pairs of rows, the elements",
    of_elements: "the new left of the rule of_elements is one for each of the elements",
    of_weights: "cannot start as the WEIGHT",
}


@pytest.mark.parametrize("rule", REFUSED, ids=lambda rule: rule.__name__)
def test_what_no_kernel_can_do_is_refused_by_name(rule: Any) -> None:
    with pytest.raises(TypeError, match=f"(?i){REFUSED[rule]}"):
        optimizer_of(rule).attach(weights()).step()


def test_transforms_that_sum_over_all_tensors_are_refused() -> None:
    with pytest.raises(TypeError):
        Prodigy(Muon())
    Cautious(Muon()).attach(weights())  # a sum of each tensor is had


def test_vectors_are_refused_by_name() -> None:
    vector = nn.Parameter(torch.ones(3))
    vector.grad = torch.ones(3)
    with pytest.raises(ValueError, match=r"chained is one for matrices; parameter .* is none: its shape is \(3,\)"):
        optimizer_of(chained).attach([("v", vector)]).step()
