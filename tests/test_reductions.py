"""Reductions in rules: over a tensor or an optimizer, in one order on every backend, at the right levels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from other_versions import needs_interpreter

from neon.engine import use_backend
from neon.engine.program.kernel import CHUNK
from neon.engine.program.lowering import lower
from neon.engine.program.slots import Formats
from neon.engine.program.spaces import ELEMENT, GROUP, MATRIX, STEP
from neon.engine.program.trace import trace
from neon.optimizers import LAMB, OPTIMIZER, TENSOR, Adam, MultiOptimizer, Optimizer, Prodigy
from neon.optimizers import functions as f
from neon.optimizers.functions import dot, largest, mean, norm, total

# Empty, one element, part of a row of lanes, several blocks, several chunks.
SHAPES = [(0,), (), (37,), (71, 64), (CHUNK + 333,)]
BACKENDS = ["eager", "numba", pytest.param("triton", marks=needs_interpreter)]

# What each makes of a weight and a gradient, of one tensor's or of all.
MEANT = {
    "norm": lambda w, g: np.sqrt((g * g).sum()),
    "total": lambda w, g: g.sum(),
    "dot": lambda w, g: (w * g).sum(),
    "largest": lambda w, g: np.abs(g).max(initial=0.0),
    "mean": lambda w, g: g.sum() / len(g) if len(g) else np.nan,
}


def reduced(op: str, over: Any) -> Optimizer:
    """A rule whose new weight is the reduction, in every element."""

    class Reduced(Optimizer):
        @staticmethod
        def rule(w, g, *, lr=1.0):  # type: ignore[no-untyped-def]
            operands = (w, g) if op == "dot" else (g,)
            return 0.0 * w + lr * getattr(f, op)(*operands, over=over)

    return Reduced()


def tensors(dtype: torch.dtype, seed: int = 0) -> tuple[list[torch.nn.Parameter], list[Any], list[Any]]:
    """Parameters with gradients, and the values of both as they are stored, in float64."""
    generator = torch.Generator().manual_seed(seed)
    params = [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in SHAPES]
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator).to(dtype)
    return params, *(
        [t.detach().double().clone().numpy().reshape(-1) for t in ts] for ts in (params, [p.grad for p in params])
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("op", MEANT)
def test_a_reduction_is_that_of_the_whole_tensor_or_of_all(op: str, dtype: torch.dtype, backend: str) -> None:
    """What it is of float64, rounded once."""
    for over in (TENSOR, OPTIMIZER):
        params, weights, grads = tensors(dtype)
        with use_backend(backend):
            reduced(op, over).attach(params).step()
        for p, w, g in zip(params, weights, grads, strict=True):
            parts = (w, g) if over == TENSOR else (np.concatenate(weights), np.concatenate(grads))
            if p.numel():
                meant = torch.tensor(MEANT[op](*parts), dtype=torch.float64)
                known = meant.to(torch.float32 if dtype == torch.bfloat16 else dtype).to(dtype)
                torch.testing.assert_close(p.detach(), known.expand(p.shape), rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("op", MEANT)
@pytest.mark.parametrize("over", [TENSOR, OPTIMIZER], ids=str)
def test_backends_and_threads_give_the_same_bits(op: str, over: Any, two_threads: None) -> None:
    found = []
    for backend, threads in (("eager", 2), ("numba", 1), ("numba", 2)):
        torch.set_num_threads(threads)
        params, *_ = tensors(torch.float32)
        with use_backend(backend):
            reduced(op, over).attach(params).step()
        found.append([p.detach() for p in params])
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("special", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_shows(special: float, backend: str) -> None:
    for op, meant in (("largest", abs(special)), ("total", special), ("norm", abs(special))):
        p = torch.nn.Parameter(torch.ones(130))
        p.grad = torch.ones(130)
        p.grad[70] = special
        with use_backend(backend):
            reduced(op, TENSOR).attach([p]).step()
        torch.testing.assert_close(p.detach(), torch.full((130,), meant * 1.0), equal_nan=True)


def test_the_functions_compute_with_floats_and_tensors() -> None:
    x = torch.tensor([3.0, -4.0])
    assert [norm(x), total(x), largest(x), mean(x), dot(x, 2.0)] == [5.0, -1.0, 4.0, -0.5, -2.0]
    assert [norm(-2.0), total(-2.0), largest(-2.0), mean(-2.0), dot(-2.0, 3.0)] == [2.0, -2.0, 2.0, -2.0, -6.0]
    assert total(x).dtype == torch.float32


@pytest.mark.parametrize("over", ["tensor", GROUP, STEP, MATRIX, ELEMENT])
def test_what_no_sum_goes_over_is_refused(over: Any) -> None:
    """States may be one number of a GROUP; a sum over one would have been over all tensors of the step."""
    p = torch.nn.Parameter(torch.ones(2))
    refused = f"over must be ROWS, COLUMNS, TENSOR or OPTIMIZER, .* Received: over={over!r}"
    for op in MEANT:
        with pytest.raises(TypeError, match=refused):
            reduced(op, over).attach([p])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_rule_may_act_every_so_many_steps(backend: str) -> None:
    class Seldom(Optimizer):
        @staticmethod
        def rule(w, g, *, lr=1.0, every=3, step):  # type: ignore[no-untyped-def]
            return w + f.where(f.remainder(step, every) == 0, lr, 0.0) * g

    p = torch.nn.Parameter(torch.zeros(3))
    found = []
    with use_backend(backend):
        opt = Seldom().attach([p])
        for _ in range(7):
            p.grad = torch.ones(3)
            opt.step()
            found.append(p[0].item())
    assert found == [0, 0, 1, 1, 1, 2, 2]


def test_a_remainder_is_of_numbers() -> None:
    assert [f.remainder(7, 3), f.remainder(6.0, 3.0), f.remainder(2.0**53 - 1, 2.0**20)] == [1, 0, 2**20 - 1]
    with pytest.raises(TypeError, match="remainder is for numbers that a step has one of, such as step; g is one per"):
        trace(lambda w, g, *, lr: w - lr * f.remainder(g, 2), {"lr": 0.1}, ())


# -- levels and stores -----------------------------------------------------------------------------


def kernel(optimizer: Optimizer, state: torch.dtype = torch.float32, **flags: bool) -> Any:
    program = optimizer.settings(optimizer.group(), **flags).program
    return lower(program, Formats(torch.float32, torch.float32, (state,) * len(program.states)))


def passes(kernel: Any) -> list[tuple[set[str], set[str]]]:
    """What each pass reads and writes."""
    return [({load.label for load in stage.loads}, {*stage.stores}) for stage in kernel.stages]


def test_a_pass_that_reduces_stores_what_it_has_computed() -> None:
    """Each tensor is read once before and once after: none is computed twice."""
    assert passes(kernel(LAMB())) == [
        ({"w", "g", "exp_avg", "exp_avg_sq"}, {"exp_avg", "exp_avg_sq"}),
        ({"w", "exp_avg", "exp_avg_sq"}, {"w"}),
    ]
    assert passes(kernel(Prodigy())) == [
        ({"w", "g", "s", "p0"}, {"s"}),
        ({"w", "g", "exp_avg", "exp_avg_sq"}, {"w", "exp_avg", "exp_avg_sq"}),
    ]


def test_nothing_is_stored_early_that_loses_bits_or_could_be_refused() -> None:
    for found in (kernel(LAMB(), torch.bfloat16), kernel(LAMB(), guard=True)):
        assert [stores for _, stores in passes(found)] == [set(), {"w", "exp_avg", "exp_avg_sq"}]


def test_a_state_of_which_the_old_value_is_read_later_is_stored_late() -> None:
    class Late(Optimizer):
        @staticmethod
        def rule(w, g, m, *, lr=0.1):  # type: ignore[no-untyped-def]
            new = 0.9 * m + g
            return w - lr * (m / norm(new)), new

    assert [stores for _, stores in passes(kernel(Late()))] == [set(), {"w", "m"}]


@pytest.mark.parametrize("rule", [LAMB, Prodigy])
def test_early_stores_change_no_bit(rule: type[Optimizer]) -> None:
    """With what could be refused, they come last."""
    found = []
    for guard in (False, True):
        params, *_ = tensors(torch.float32)
        opt = rule().attach(params, skip_nonfinite=guard)
        for _ in range(3):
            opt.step()
        found.append([*params, *(value for p in params for value in opt.state[p].values())])
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("backend", BACKENDS)
def test_groups_that_clip_and_groups_that_do_not_share_a_sum(backend: str) -> None:
    """A norm is taken before: all the same what is summed over the optimizer is summed in one pass."""

    class Shared(Optimizer):
        @staticmethod
        def rule(w, g, *, lr=1.0):  # type: ignore[no-untyped-def]
            return 0.0 * w + lr * total(g, over=OPTIMIZER)

    one, two = (torch.nn.Parameter(torch.ones(n)) for n in (2, 3))
    with use_backend(backend):
        opt = Shared().attach([{"params": [one], "gradient_clip_norm": 1.0}, {"params": [two]}])
        one.grad, two.grad = torch.tensor([3.0, 4.0]), torch.ones(3)
        opt.step()
    # The norm of a group that clips is that of all tensors of the optimizer that are clipped: 5 here.
    torch.testing.assert_close(two.detach(), torch.full((3,), 0.6 + 0.8 + 3.0))
    torch.testing.assert_close(one.detach(), torch.full((2,), 0.6 + 0.8 + 3.0))


def test_two_optimizers_of_a_mapping_have_sums_of_their_own() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2, bias=False))
    rules = {"0": reduced("total", OPTIMIZER), "default": reduced("total", OPTIMIZER)}
    opt = MultiOptimizer(rules).attach(model)
    for value, p in enumerate(model.parameters(), 1):
        p.grad = torch.full_like(p, value)
    opt.step()
    assert [p.unique().tolist() for p in model.parameters()] == [[4.0], [8.0]]


def test_a_frozen_parameter_and_one_without_gradient_add_nothing() -> None:
    params = [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]
    opt = reduced("total", OPTIMIZER).attach([(str(i), p) for i, p in enumerate(params)])
    params[0].grad = params[1].grad = torch.ones(2)
    opt.freeze("1")
    opt.step()
    assert [p.tolist() for p in params] == [[2.0, 2.0], [1.0, 1.0], [1.0, 1.0]]


def test_many_small_tensors_are_one_launch_each_pass() -> None:
    """As elementwise rules: two launches for two hundred norms, and the same bits as one at a time."""
    together = [torch.nn.Parameter(torch.full((3,), float(i + 1))) for i in range(200)]
    alone = [torch.nn.Parameter(p.detach().clone()) for p in together]
    for p in (*together, *alone):
        p.grad = torch.ones(3)
    LAMB().attach(together).step()
    for p in alone:
        LAMB().attach([p]).step()
    assert all(map(torch.equal, together, alone))


def test_a_mask_over_its_mean_is_one_rule() -> None:
    """Cautious momentum (Liang et al. 2024): m where its sign is that of g, over the share of such elements."""

    class CautiousMomentum(Optimizer):
        @staticmethod
        def rule(w, g, m, *, lr=0.1):  # type: ignore[no-untyped-def]
            m = 0.5 * m + g
            mask = f.where(m * g > 0, 1.0, 0.0)
            return w - lr * m * mask / f.maximum(mean(mask), 1e-3), m

    p = torch.nn.Parameter(torch.zeros(4))
    opt = CautiousMomentum().attach([p])
    for grad in ([4.0, 4.0, -4.0, 4.0], [-1.0, 1.0, 1.0, 1.0]):
        p.grad = torch.tensor(grad)
        opt.step()
    # m is 1, 3, -1, 3 then: half of its elements agree.
    torch.testing.assert_close(p.detach(), torch.tensor([-0.4, -0.4 - 0.6, 0.4, -0.4 - 0.6]))


def test_clipped_adam_sums_as_before() -> None:
    """The kernel of a norm has one sum in one loop, and the first pass stores nothing."""
    assert passes(kernel(Adam(gradient_clip_norm=1.0)))[0] == ({"g"}, set())
