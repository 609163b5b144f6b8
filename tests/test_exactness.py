"""What must not matter: threads, backend, numbers that change, where the tensors lie in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import product
from typing import Any

import pytest
import torch
from pairs import crossed
from rule_cases import (
    OF_MATRICES,
    RULES,
    PlainLayer,
    Result,
    after_special,
    assert_same_bits,
    assert_same_special,
    gradients,
    make,
    moments,
    switches,
    weights,
)
from torch.utils._python_dispatch import TorchDispatchMode

import neon.engine
from neon.engine import use_backend
from neon.engine.backends import eager
from neon.engine.program import meanings
from neon.engine.program.graph import CALL, REDUCTION, walk
from neon.optimizers import Optimizer
from neon.optimizers.functions import exp, log

pytestmark = pytest.mark.usefixtures("one_thread")

BACKENDS = ["eager", "numba"]


@pytest.mark.parametrize(("rule", "how", "backend"), crossed(product(RULES, ["attach", "optimize"], BACKENDS)))
def test_gradients_are_never_written_to(rule: str, how: str, backend: str) -> None:
    params = weights(torch.float32, rule)
    opt = make(rule, "all")
    layer = PlainLayer(params)
    with use_backend(backend):
        attached = opt.attach(params) if how == "attach" else None
        for step in range(2):
            held = list(gradients(step, torch.float32, rule))
            before = [g.clone() for g in held]
            for p, g in zip(params, held, strict=True):
                p.grad = g
            if attached is None:
                opt.optimize([layer], step)
            else:
                attached.step()
            for p, g, b in zip(params, held, before, strict=True):
                assert p.grad is g
                assert torch.equal(g, b)


@pytest.mark.parametrize("rule", RULES)
def test_changing_a_number_never_compiles(rule: str) -> None:
    """Every number of a group changes between steps, and the results follow."""
    params = weights(torch.float32, rule)
    with use_backend("numba"):
        attached = make(rule, "all").attach(params)
        group = attached.param_groups[0]
        group.update({"d": 2.0} if "d" in group and rule.startswith("adafactor") else {})  # no less than 1
        counts = []
        for step in range(6):
            for p, g in zip(params, gradients(step, torch.float32, rule), strict=True):
                p.grad = g
            attached.step()
            counts.append(neon.engine.compilations())
            changed = {k: _nudged(v) for k, v in group.items() if k != "params"}
            assert changed["lr"] != group["lr"]
            group.update(changed)
    assert counts == counts[:1] * len(counts)


@pytest.mark.parametrize("rule", RULES)
def test_zero_is_a_number_like_another(rule: str) -> None:
    """A rate that warms up from 0, a decay that is switched on later, a rate in a tensor."""
    p = torch.nn.Parameter(torch.ones(5, 1))
    with use_backend("numba"):
        attached = make(rule, "plain").attach([p])
        group, counts = attached.param_groups[0], []
        for lr, decay in [(0.0, 0.0), (0.1, 0.0), (0.1, 0.5), (torch.tensor(0.2), 0.5), (0.1, 0.0)]:
            group["lr"], group["weight_decay"] = lr, decay
            before = p.detach().clone()
            p.grad = torch.full((5, 1), 0.25)
            attached.step()
            if rule not in ("asgd", "rprop"):  # whose steps go by a rate of before
                assert torch.equal(p, before) == (float(lr) == 0.0)
            counts.append(neon.engine.compilations())
    assert counts == counts[:1] * len(counts)


def _nudged(value: Any) -> Any:
    """A number a little smaller; tuples by element; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(_nudged(v) for v in value)
    return value * 0.97 if type(value) is float else value


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rule", ["adam", "lion"])
def test_thread_count_does_not_change_a_bit(rule: str, backend: str) -> None:
    """Two million elements in three tensors: enough for torch and neon to split the work."""
    results = []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        results.append(_large_run(rule, backend))
    for other in results[1:]:
        assert_same_bits(results[0], other)


def _large_run(rule: str, backend: str) -> Result:
    generator = torch.Generator().manual_seed(3)
    params = [torch.nn.Parameter(torch.randn(n, generator=generator)) for n in (1_500_007, 65_536, 400_001)]
    with use_backend(backend):
        attached = make(rule, "clip by norm").attach(params)
        for _ in range(2):
            for p in params:
                p.grad = torch.randn(p.shape, generator=generator)
            attached.step()
    return Result([p.detach() for p in params], [moments(attached, p) for p in params])


def sums(rule: str) -> bool:
    """Whether a rule has sums over elements, by which one that is not finite shows in all; a count of them is none.

    Products of matrices are sums.
    """
    optimizer = make(rule, "plain")
    program = optimizer.settings(optimizer.group()).program
    found = [node for node in walk(program.outputs.values()) if node.op == REDUCTION]
    if any(node.op == CALL for node in walk(program.outputs.values())):
        return True
    return any(operand.op not in ("where", "const") for node in found for operand in node.args)


CLIPPED = ["clip by value", "parameter clip", "plain"]


@pytest.mark.parametrize(
    ("rule", "option"), crossed(product(RULES, CLIPPED), lambda rule, option: (rule, *switches(option)))
)
def test_special_values_come_out_alike(rule: str, option: str) -> None:
    """NaN, infinities, signed zeros, denormal and huge numbers, as weight and as gradient."""
    assert_same_special(*(after_special(rule, option, backend, steps=3) for backend in BACKENDS))


@pytest.mark.parametrize(
    ("rule", "option", "backend"),
    crossed(
        product(RULES, ["clip by norm", *CLIPPED], BACKENDS),
        lambda rule, option, backend: (rule, backend, *switches(option)),
    ),
)
def test_a_nan_is_not_hidden(rule: str, option: str, backend: str) -> None:
    """A gradient that is NaN makes its weight NaN, and all others where a sum is taken: it never looks right."""
    p = torch.nn.Parameter(torch.ones(1, 3))
    p.grad = torch.tensor([[0.5, math.nan, 0.5]])
    with use_backend(backend):
        make(rule, option).attach([p]).step()
    others = option == "clip by norm" or sums(rule) or rule in OF_MATRICES
    assert p[0].isnan().tolist() == [others, True, others]


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_lies_between_the_elements_of_a_view_stays(backend: str) -> None:
    """A parameter that is every other element of a larger tensor: its neighbours are not ours."""
    base = torch.arange(2000, dtype=torch.float32)
    p = torch.nn.Parameter(base[::2])
    q = torch.nn.Parameter(torch.arange(0, 2000, 2, dtype=torch.float32))
    results = []
    for parameter in (p, q):
        with use_backend(backend):
            attached = make("adam", "plain").attach([parameter])
            for step in range(3):
                parameter.grad = torch.cos(torch.arange(1000.0) + step)
                attached.step()
        results.append(parameter.detach())
    assert torch.equal(*results)
    assert torch.equal(base[1::2], torch.arange(1, 2000, 2, dtype=torch.float32))


@pytest.mark.parametrize("rule", RULES)
def test_a_gradient_may_be_the_weight_itself(rule: str) -> None:
    """Each element's values are all computed before the first is stored, in vector code too."""
    results = []
    for backend in BACKENDS:
        p = torch.nn.Parameter(torch.linspace(-1, 1, 1000).view((10, 100) if rule in OF_MATRICES else -1))
        with use_backend(backend):
            attached = make(rule, "plain").attach([p])
            for _ in range(3):
                p.grad = p.detach()
                attached.step()
        results.append(Result([p.detach()], [moments(attached, p)]))
    assert_same_bits(*results)


class Curved(Optimizer):
    """A rule with the functions that other devices compute by way of float64."""

    @staticmethod
    def rule(w: Any, g: Any, *, lr: float = 0.1) -> Any:
        return w - lr * exp(-abs(g)) * log(1.0 + g * g) ** 1.5


class InFloat32(TorchDispatchMode):
    """Refuses what a device without float64 could not compute."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.overloadpacket in (torch.ops.aten.exp, torch.ops.aten.log, torch.ops.aten.pow):
            assert args[0].dtype == torch.float32
        return function(*args, **kwargs or {})


def test_a_device_without_float64_is_served() -> None:
    """Some of Intel's GPUs: functions are computed in float32, sums where there is float64."""
    ends = []
    for narrow in (False, True):
        params = weights(torch.float32)
        with use_backend("eager"), pytest.MonkeyPatch.context() as patch:
            if narrow:
                for module in (eager, meanings):
                    patch.setattr(module, "has_float64", lambda device: False)
            optimizer = Curved(gradient_clip_norm=1.0).attach(params)
            for p in params:
                p.grad = p.detach() * 0.3
            with InFloat32() if narrow else nullcontext():
                optimizer.step()
        ends.append([p.detach() for p in params])
    torch.testing.assert_close(*ends, rtol=1e-6, atol=1e-7)
