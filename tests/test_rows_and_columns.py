"""Rules with values for rows and columns: what they compute, what they keep, and what is refused."""

from __future__ import annotations

import math
from typing import Any
from weakref import WeakValueDictionary

import pytest
import torch
from torch import Tensor

from neon.engine import arena, beside
from neon.engine.backends import use_backend
from neon.optimizers import COLUMNS, ROWS, TENSOR, WEIGHT, Adafactor, Optimizer, State
from neon.optimizers.functions import dot, largest, maximum, mean, norm, sqrt, total

SHAPES: list[tuple[int, ...]] = [(1, 1), (3, 4), (70, 130), (5, 1), (1, 200), (3, 4, 5), (6, 5, 3, 3), (200, 700)]
BACKENDS = ["eager", "numba", "triton"]


def balanced(w, g, size=State(of=ROWS), peak=State(0.5, of=COLUMNS), speed=0.0, *, lr, share):  # type: ignore[no-untyped-def]
    """Every reduction, over rows, columns, matrices and the tensor, of elements and of values for rows and columns."""
    size = size + share * (norm(g, over=ROWS) - size)
    peak = maximum(0.9 * peak, largest(g, over=COLUMNS))
    speed = 0.5 * speed + g / (size + peak)
    of_matrix = largest(size, over=COLUMNS) + dot(peak, peak, over=ROWS) + total(mean(w, over=ROWS), over=COLUMNS)
    inner = dot(speed, w, over=COLUMNS) / (1 + norm(speed, over=TENSOR))
    return w - lr * (speed + 0.1 * inner) / sqrt(1 + of_matrix * of_matrix), size, peak, speed


class Balanced(Optimizer):
    rule = staticmethod(balanced)


def run(backend: str, shape: tuple[int, ...], dtype: torch.dtype, **options: Any) -> tuple[list[Tensor], list[Tensor]]:
    """The weight and the states after three steps, and the same by the rule itself on tensors."""
    generator = torch.Generator().manual_seed(sum(shape))
    w, *grads = (torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(4))
    expected = [w, torch.zeros((*shape[:-1], 1)), torch.full((*shape[:-2], 1, shape[-1]), 0.5), torch.zeros(shape)]
    expected = [tensor.to(dtype) for tensor in expected]
    param = torch.nn.Parameter(w.clone())
    with use_backend(backend):
        optimizer = Balanced(lr=0.1, share=0.3, **options).attach([param])
        for grad in grads:
            param.grad = grad.clone()
            optimizer.step()
            expected = [*balanced(expected[0], grad, *expected[1:], lr=0.1, share=0.3)]
    return [param.detach(), *(optimizer.state[param][name] for name in ("size", "peak", "speed"))], expected


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_rule_is_what_it_is_on_tensors(shape: tuple[int, ...]) -> None:
    for dtype, bound in ((torch.float64, 1e-13), (torch.float32, 1e-5)):
        found, expected = run("numba", shape, dtype)
        torch.testing.assert_close(found, expected, rtol=bound, atol=bound)


@pytest.mark.parametrize("backend", BACKENDS[1:])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_backends_give_the_same_bits(shape: tuple[int, ...], backend: str) -> None:
    for dtype in (torch.float32, torch.float64):
        ours, theirs = (run(name, shape, dtype, gradient_clip_norm=1.0)[0] for name in (backend, "eager"))
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_make_no_difference(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = run("numba", (900, 700), torch.float32)[0]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(found, run("eager", (900, 700), torch.float32)[0], strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_not_finite_stays_in_its_row_and_column(backend: str) -> None:
    class Scaled(Optimizer):
        @staticmethod
        def rule(w, g, row=State(of=ROWS), *, lr):  # type: ignore[no-untyped-def]
            row = largest(g, over=ROWS)
            return w - lr * row * total(g, over=COLUMNS), row

    param = torch.nn.Parameter(torch.zeros(3, 4))
    param.grad = torch.ones(3, 4)
    param.grad[1, 2] = torch.nan
    with use_backend(backend):
        optimizer = Scaled(lr=1.0).attach([param])
        optimizer.step()
    wrong = torch.zeros(3, 4, dtype=torch.bool)
    wrong[1], wrong[:, 2] = True, True
    assert torch.equal(param.isnan(), wrong)
    assert optimizer.state[param]["row"].flatten().isnan().tolist() == [False, True, False]


FORMS: dict[str, Any] = {
    "rows beside the largest of columns": lambda w, g: norm(g, over=ROWS) + largest(g, over=COLUMNS),
    "the largest of rows beside columns": lambda w, g: largest(g, over=ROWS) - total(g, over=COLUMNS) * w,
    "sums and elements": lambda w, g: g - total(g, over=ROWS) + norm(g, over=ROWS),
    "sums of both": lambda w, g: total(w, over=ROWS) + total(g, over=COLUMNS) * g,
    "the largest of both": lambda w, g: largest(w, over=ROWS) * g + largest(g, over=COLUMNS),
}


@pytest.mark.parametrize("backend", BACKENDS[1:])
@pytest.mark.parametrize("form", FORMS)
def test_sums_that_elements_are_computed_with_are_rounded_once(form: str, backend: str) -> None:
    """Of float32 they are kept in float64, and the largest in numba as bits."""

    class Direct(Optimizer):
        @staticmethod
        def rule(w, g, *, lr):  # type: ignore[no-untyped-def]
            return w - lr * FORMS[form](w, g)

    for dtype, bound in ((torch.float32, 1e-5), (torch.float64, 1e-13)):
        found = []
        for each in ("eager", backend):
            generator = torch.Generator().manual_seed(3)
            w, g = (torch.randn(70, 130, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
            param = torch.nn.Parameter(w.clone())
            param.grad = g
            with use_backend(each):
                Direct(lr=0.125).attach([param]).step()
            found.append(param.detach())
        assert torch.equal(*found)
        torch.testing.assert_close(found[0], w - 0.125 * FORMS[form](w, g), rtol=bound, atol=bound)


def test_skipped_steps_leave_states_alone() -> None:
    param = torch.nn.Parameter(torch.ones(2, 3))
    optimizer = Balanced(lr=0.1, share=0.3).attach([param], skip_nonfinite=True)
    param.grad = torch.ones(2, 3)
    optimizer.step()
    before = [tensor.clone() for tensor in (param.detach(), *optimizer.state[param].values())]
    param.grad[0, 0] = torch.inf
    optimizer.step()
    assert optimizer.skipped_steps == 1
    assert all(torch.equal(a, b) for a, b in zip(before, (param, *optimizer.state[param].values()), strict=True))


def test_a_vector_has_no_rows() -> None:
    optimizer = Balanced(lr=0.1, share=0.3).attach([torch.nn.Parameter(torch.ones(3))])
    optimizer.param_groups[0]["params"][0].grad = torch.ones(3)
    with pytest.raises(ValueError, match=r"has values for rows and columns; parameter .* has none: .* `matrix`"):
        optimizer.step()


def _elements(w, g, row=State(of=ROWS), *, lr):  # type: ignore[no-untyped-def]
    return w - lr * g, row + g


def _twice(w, g, row=State(of=ROWS), *, lr):  # type: ignore[no-untyped-def]
    return w - lr * g, total(row, over=ROWS)


def _all_rows(w, g, row=State(of=ROWS), *, lr):  # type: ignore[no-untyped-def]
    return w - lr * total(row, over=TENSOR), row


def _as_weight(w, g, row=State(WEIGHT, of=ROWS), *, lr):  # type: ignore[no-untyped-def]
    return w - lr * g, row


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (_elements, r"The state row of the rule _elements is one number for each of the rows, but its new value"),
        (_twice, r"total over the rows needs values that differ along it\. Received: one for each of the rows"),
        (_all_rows, r"total over the tensor needs values that differ along it\. .* Reduce values of elements"),
        (_as_weight, r"The state row of the rule _as_weight has one number for each of the rows, and cannot start"),
    ],
)
def test_what_has_no_meaning_is_refused(rule: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        type("Made", (Optimizer,), {"rule": staticmethod(rule)})(lr=0.1).attach([torch.nn.Parameter(torch.ones(2, 2))])


def several(
    monkeypatch: pytest.MonkeyPatch, backend: str, *, room: int, left: int, guarded: bool = False, **options: Any
) -> Any:
    """The weights after two steps over tensors of small shapes, and the optimizer.

    What is kept beside tensors takes so much `room` in one launch; before each step `left` fills the memory for it.
    """
    monkeypatch.setattr(beside, "BUCKET", room)
    monkeypatch.setattr(arena, "_arenas", WeakValueDictionary())
    generator = torch.Generator().manual_seed(0)
    small = [shape for shape in SHAPES if math.prod(shape) < 1000]
    params = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in small * 2]
    with use_backend(backend):
        optimizer = Balanced(lr=0.1, share=0.3, **options).attach(params, skip_nonfinite=guarded)
        for _ in range(2):
            for param in params:
                param.grad = torch.randn(param.shape, generator=generator)
            for each in arena._arenas.values():
                each.memory.fill_(left)
            optimizer.step()
    return [param.detach() for param in params], optimizer


@pytest.mark.parametrize("backend", BACKENDS)
def test_memory_of_sums_is_shared(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Launch after launch in the same memory, whatever lay there, the bits are those of one launch."""
    whole, _ = several(monkeypatch, backend, room=1 << 26, left=0)
    found, optimizer = several(monkeypatch, backend, room=1 << 11, left=255)
    assert all(map(torch.equal, found, whole))
    batches = optimizer._stepper._plan.batches
    assert len(batches) > 3
    assert max(batch.room.shared for batch in batches) == arena.arena_of(torch.device("cpu")).memory.numel()
    assert not any(batch.room.own for batch in batches)


@pytest.mark.parametrize("options", [{"gradient_clip_norm": 1.0}, {"guarded": True}])
def test_what_waits_for_others_has_memory_of_its_own(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of weights are summed in the pass that sums for a norm, or for what refuses a step."""
    whole, _ = several(monkeypatch, "eager", room=1 << 26, left=0, **options)
    found, optimizer = several(monkeypatch, "numba", room=1 << 11, left=255, **options)
    assert all(map(torch.equal, found, whole))
    [batch] = optimizer._stepper._plan.batches
    assert batch.room.own
    assert not batch.room.shared


def test_sums_behind_a_norm_share_their_memory() -> None:
    param = torch.nn.Parameter(torch.ones(3, 4))
    optimizer = Adafactor(gradient_clip_norm=1.0).attach([param])
    param.grad = torch.ones(3, 4)
    optimizer.step()
    [batch] = optimizer._stepper._plan.batches  # type: ignore[union-attr]
    assert batch.room.shared
    assert not batch.room.own
