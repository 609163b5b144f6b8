"""The GPU's kernels, run by Triton's interpreter: every rule, option, format and rounding against the eager backend."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from inspect import signature
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rule_cases
import torch
from other_versions import needs_interpreter, older, skip_exact_powers
from pairs import crossed
from rule_cases import CASES, RULES, after_special, assert_same_bits, assert_same_special, make, run, switches
from state_tensors import assert_same, new, tensors_of, trained, ulps
from stored_formats import BITS, of_forms, of_rules, options, train
from torch import Tensor

import neon.engine
import neon.torch
from neon.engine import backends, plan, use_backend
from neon.engine.backends import device_batch as device
from neon.engine.backends import triton_launch
from neon.engine.backends.device_batch import DeviceBatch
from neon.engine.batch import Batch
from neon.engine.program.kernel import CHUNK, LANES, Kernel
from neon.engine.program.meanings import has_float64
from neon.engine.program.slots import slots_of
from neon.engine.settings import Item
from neon.optimizers import Adam, GradientDescentMomentum, Lion, MultiOptimizer, Optimizer
from neon.optimizers.functions import exp, log, maximum, minimum, norm, power_of_two, sign, sqrt, where

pytestmark = [needs_interpreter, pytest.mark.usefixtures("one_thread")]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
# Fewer and smaller than the shared table's, for the interpreter is slow; several tiles of several programs even so.
SHAPES: list[tuple[tuple[int, ...], str]] = [
    ((0,), "contiguous"),
    ((2600,), "contiguous"),
    ((5, 4), "transposed"),
    ((6, 9), "gradient transposed"),
    ((4, 6), "gradient expanded"),  # data() takes the last for that
]


@pytest.fixture(scope="module", autouse=True)
def shapes() -> Iterator[None]:
    from triton.runtime.interpreter import interpreter_builder as interpreter

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rule_cases, "SHAPES", SHAPES)
        patch.setattr(triton_launch, "PART", 2048)
        # It looks for overflows, and without `debug` says nothing of what it finds.
        patch.setattr(interpreter, "options", replace(interpreter.options, sanitize_overflow=False))
        rule_cases.data.cache_clear()
        yield
    rule_cases.data.cache_clear()


@pytest.fixture
def two_shapes(pytestconfig: pytest.Config) -> Iterator[None]:
    """Several tiles, and a gradient that is expanded: where formats are looked at, layouts wait for `--all`."""
    with pytest.MonkeyPatch.context() as patch:
        if not pytestconfig.getoption("all"):
            patch.setattr(rule_cases, "SHAPES", [SHAPES[1], SHAPES[-1]])
        rule_cases.data.cache_clear()
        yield
    rule_cases.data.cache_clear()


UNDER = [(rule, option, torch.float32) for rule, option in CASES]
UNDER += [(rule, option, torch.float64) for rule, option in CASES if option in ("plain", "all")]


@pytest.mark.parametrize(
    ("rule", "option", "dtype"), crossed(UNDER, lambda rule, option, dtype: (rule, dtype, *switches(option)))
)
def test_every_rule_under_every_option(rule: str, option: str, dtype: torch.dtype) -> None:
    """Rules that count steps subtract powers from 1: another last bit, of an older numpy or 0.95², counts for more."""
    how = "attach" if dtype == torch.float64 else "optimize"
    eager, gpu = (run(rule, option, dtype, backend=backend, how=how, steps=2) for backend in ("eager", "triton"))
    counts_steps = bool({"step", "k"} & {*signature(make(rule, option)._widest_rule).parameters})
    own = bool(make(rule, option).settings(make(rule, option).group()).program.own_numbers)  # made of powers
    betas = [beta for beta in make(rule, option).group().get("betas", ()) if beta > 0]
    another = any(np.exp2(2 * np.log2(beta)) != beta**2 for beta in betas)  # as devices take powers of float64
    if dtype == torch.float64 and counts_steps and (another or own or older("numpy", "2")):
        torch.testing.assert_close(gpu.tensors(), eager.tensors(), rtol=1e-12, atol=1e-15)
    else:
        assert_same_bits(gpu, eager, numbers=4.0)


@pytest.mark.parametrize("rule", ["momentum", "adam", "adamw", "shift"])
def test_over_many_steps(rule: str) -> None:
    """Of float64 the powers of numbers are not the host's to the last bit; rounded to float32 they are."""
    for dtype, farthest in ((torch.float32, 0.0), (torch.float64, 4.0)):
        ends = [trained(backend, new(20, dtype=dtype), make(rule, "plain"), 20) for backend in ("eager", "triton")]
        assert max(map(ulps, *ends)) <= farthest


@pytest.mark.usefixtures("small", "two_shapes")
@pytest.mark.parametrize(("rule", "form", "dtype", "rounds", "average"), crossed(BITS, of_rules, of_forms))
def test_every_rule_in_every_format(
    rule: str, form: str, dtype: torch.dtype, rounds: bool | int, average: str | None
) -> None:
    """Random bits are the same ones: what is rounded by them is equal bit for bit."""
    more = {**options(rule, form, average), "stochastic_round": rounds}
    eager, gpu = (train(rule, "attach", dtype, backend=backend, steps=2, **more) for backend in ("eager", "triton"))
    assert_same(eager, gpu, numbers=4.0)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("form", ["int8", "split"])
def test_every_option_in_few_bits(form: str) -> None:
    ends = [
        train("adam", "attach", torch.bfloat16, backend=backend, option="all", steps=2, **options("adam", form))
        for backend in ("eager", "triton")
    ]
    assert_same(*ends)


SPECIAL = [(rule, option) for rule in RULES for option in ("clip by value", "parameter clip", "plain")]


@pytest.mark.parametrize(("rule", "option"), crossed(SPECIAL, lambda rule, option: (rule, *switches(option))))
def test_special_values_come_out_alike(rule: str, option: str) -> None:
    assert_same_special(*(after_special(rule, option, backend, steps=2) for backend in ("eager", "triton")))


# -- reductions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_norms_are_the_same_to_the_last_bit(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = [1, LANES - 1, LANES + 1, 2047, 2049, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 17]
    grads = [torch.randn(n, generator=generator, dtype=dtype) * 10 ** (n % 7) for n in sizes]
    updates = []
    for backend in ("eager", "triton"):
        params = [torch.zeros(n, dtype=dtype, requires_grad=True) for n in sizes]
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad.clone()
        with use_backend(backend):
            GradientDescentMomentum(1.0, 0.0, gradient_clip_norm=1.0).attach(params).step()
        updates.append([param.detach() for param in params])
    assert_same(*updates)


class Everything(Optimizer):
    """A rule with every operation on numbers, a norm for each tensor, and one of what that has made."""

    @staticmethod
    def rule(w, g, a=1.0, b=0.0, *, lr=0.01, p=1.5, step=0):  # type: ignore[no-untyped-def]
        scaled = g / norm(g)
        a = where(g > 0, exp(-abs(g)) + a**p, minimum(a, 0.5) + log(1.0 + g * g))
        b = maximum(b, sign(scaled) * power_of_two(g)) / norm(scaled * 3.0 + w)
        return w - lr * step * (scaled + sqrt(a)) * lr ** (-b), a, b


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_rule_with_every_operation(dtype: torch.dtype) -> None:
    eager, gpu = (trained(backend, new(70, 2500, dtype=dtype), Everything()) for backend in ("eager", "triton"))
    # Of float64 torch's powers, exponentials and logarithms are themselves off by a unit, and add up over the steps.
    assert max(map(ulps, gpu, eager)) <= (16.0 if dtype == torch.float64 else 0.0)


def mixed(dtypes: list[torch.dtype]) -> list[Tensor]:
    return [p for i, dtype in enumerate(dtypes) for p in new(300, dtype=dtype, seed=i)]


# Many rows of numbers; sums over several kernels, within each other, and to be added up by the host.
TOGETHER: dict[str, tuple[Any, Any]] = {
    "one norm over several formats": (lambda: mixed(DTYPES), Adam(gradient_clip_norm=1.0)),
    "norms within norms": (
        lambda: torch.nn.ParameterDict({f"{name}{i}": p for name in "ab" for i, p in enumerate(mixed(DTYPES[:2]))}),
        MultiOptimizer(
            {"default": Adam(gradient_clip_norm=0.1), "a*": Lion(learning_rate=1e-3, gradient_clip_norm=0.2)},
            gradient_clip_norm=0.3,
        ),
    ),
    "groups": (
        lambda: [
            {"params": [p], "lr": 0.1 / (i + 1)} for i, p in enumerate(new(*[3] * (triton_launch.NUMBER_ROWS + 2)))
        ],
        Adam(gradient_clip_norm=1.0),
    ),
    "guarded": (lambda: new(10, 300), lambda params: Adam(gradient_clip_norm=1.0).attach(params, skip_nonfinite=True)),
    "in the backward pass": (
        lambda: new(10, 300),
        lambda params: Adam().attach(params, in_backward=True, gradient_clip_previous_norm=0.5),
    ),
}


@pytest.mark.parametrize("case", TOGETHER)
def test_tensors_that_are_updated_together(case: str) -> None:
    if case in ("one norm over several formats", "norms within norms"):
        skip_exact_powers()
    ends = []
    for backend in ("eager", "triton"):
        make_target, optimizer = TOGETHER[case]
        target = make_target()
        generator = torch.Generator().manual_seed(1)
        with use_backend(backend):
            attached = optimizer.attach(target) if isinstance(optimizer, Optimizer) else optimizer(target)
            params = [p for group in attached.param_groups for p in group["params"]]
            for _ in range(2):
                noise = [torch.randn(p.shape, generator=generator).to(p.dtype) for p in params]
                sum((p * n).sum() for p, n in zip(params, noise, strict=True)).backward()  # type: ignore[union-attr]
                attached.step()
                attached.zero_grad()
        ends.append([*(p.detach() for p in params), *(t for p in params for t in tensors_of(attached.state[p]))])
    assert_same(*ends)


def test_a_step_that_is_skipped_changes_nothing() -> None:
    params = new(10, 300)
    with use_backend("triton"):
        opt = Adam(gradient_clip_norm=1.0).attach(params, skip_nonfinite=True)
        for bad in (False, True, False):
            for p in params:
                p.grad = torch.ones_like(p)
            if bad:
                params[1].grad[7] = math.nan
                before = [t.clone() for p in params for t in (p, *tensors_of(opt.state[p]))]
            opt.step()
            if bad:
                assert_same([t for p in params for t in (p, *tensors_of(opt.state[p]))], before)
    assert opt.skipped_steps == 1
    assert opt.last_nonfinite == "params[1] of 'default'"
    with use_backend("eager"):
        other = new(10, 300)
        for p in other:
            p.grad = torch.ones_like(p)
        again = Adam(gradient_clip_norm=1.0).attach(other)
        again.step()
        again.step()
    assert_same([p.detach() for p in params], [p.detach() for p in other])


def test_the_scale_of_a_grad_scaler_is_followed() -> None:
    ends = []
    for backend in ("eager", "triton"):
        params = new(300, 20)
        with use_backend(backend):
            opt = Adam(gradient_clip_norm=1.0).attach(params)
            for scale, infinite in ((8.0, 0.0), (8.0, 1.0), (4.0, 0.0)):
                opt.grad_scale, opt.found_inf = torch.tensor(scale), torch.tensor(infinite)
                for p in params:
                    p.grad = p.detach() * scale
                opt.step()
        assert opt.skipped_steps == 1
        ends.append([*(p.detach() for p in params), *(t for p in params for t in tensors_of(opt.state[p]))])
    assert_same(*ends)


# -- from step to step -----------------------------------------------------------------------------


def changes(params: list[Tensor], opt: Any, generator: torch.Generator) -> Iterator[None]:
    """Steps between which something changes that the tables on the device have to follow."""

    def step(*without: int) -> None:
        for i, p in enumerate(params):
            p.grad = None if i in without else torch.randn(p.shape, generator=generator)
        opt.step()

    step()
    step(1)
    step(0)
    yield step()
    opt.param_groups[0]["lr"] = 0.5
    yield step()
    opt.param_groups[0]["lr"] = torch.tensor(0.25)
    step()
    opt.param_groups[0]["lr"].fill_(0.125)
    yield step()
    opt.load_state_dict(opt.state_dict())
    yield step()
    opt.state[params[0]]["step"].fill_(50.0)
    step()
    yield step()
    params[1].data = params[1].detach()[1:].clone()[3:]  # off the 16 bytes
    opt.state.clear()
    step()
    yield step()


@pytest.mark.parametrize("option", [{}, {"gradient_clip_norm": 1.0}, {"stochastic_round": 10}])
def test_what_changes_between_steps_is_followed(option: dict[str, Any]) -> None:
    ends: list[list[list[Tensor]]] = []
    for backend in ("eager", "triton"):
        params = new(40, 300)
        with use_backend(backend):
            opt = Adam(learning_rate=0.1, **option).attach(params)
            run = changes(params, opt, torch.Generator().manual_seed(2))
            ends.append([[t.detach().clone() for p in params for t in (p, *tensors_of(opt.state[p]))] for _ in run])
    for eager, gpu in zip(*ends, strict=True):
        assert_same(eager, gpu)


@pytest.mark.parametrize("rule", ["adam", "momentum"])
def test_changing_a_number_never_compiles(rule: str) -> None:
    params, counts = new(300), set()
    with use_backend("triton"):
        attached = make(rule, "all").attach(params)
        for step in range(3):
            params[0].grad = torch.ones(300)
            attached.step()
            counts.add(neon.engine.compilations())
            attached.param_groups[0].update(lr=0.1 * step, weight_decay=0.1 * step, gradient_clip_norm=3.0 + step)
    assert len(counts) == 1


@pytest.mark.parametrize("offset", [0, 1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_of_any_alignment(offset: int, dtype: torch.dtype) -> None:
    ends = []
    for backend in ("eager", "triton"):
        base = new(3000, dtype=dtype)[0].detach()
        ends.append(trained(backend, [base[offset:].requires_grad_()], Adam(stochastic_round=True)))
        assert torch.equal(base[:offset], new(3000, dtype=dtype)[0][:offset])
    assert_same(*ends)


def test_tensors_of_more_than_two_to_the_31_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their memory is only reserved: of the chunks, but the last two are computed, by both kernels."""
    size = 2**31 + CHUNK + 1000
    make_chunks = Batch._make_chunks

    def last_two(batch: Batch, sizes: Any) -> None:
        make_chunks(batch, sizes)
        batch.chunks = batch.chunks[-2:]
        batch._chunk_ranges = [slice(0, 2)]

    monkeypatch.setattr(Batch, "_make_chunks", last_two)
    ends = []
    for backend in ("numba", "triton"):
        param, grad = (torch.empty(size, dtype=torch.bfloat16) for _ in range(2))
        (values, grads) = new(CHUNK + 1000, CHUNK + 1000, dtype=torch.bfloat16)
        param[2**31 :], grad[2**31 :] = values.detach(), grads.detach()
        param.requires_grad_().grad = grad
        with use_backend(backend):
            GradientDescentMomentum(0.1, 0.0, True).attach([param]).step()
        ends.append(param.detach()[2**31 :].clone())
    assert not torch.equal(ends[0], values)
    assert torch.equal(*ends)


# -- who runs what ---------------------------------------------------------------------------------


def test_devices_have_their_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = [torch.device(kind) for kind in ("cpu", "cuda", "xpu", "mps", "meta")]
    widths = {"has_fp64": True}
    monkeypatch.setattr(torch.xpu, "get_device_properties", lambda device: SimpleNamespace(**widths))
    has_float64.cache_clear()

    def served_by() -> list[str]:
        return [backends.serving(device).name for device in devices]

    assert served_by() == ["numba", "eager", "eager", "eager", "eager"]  # in the interpreter
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert served_by() == ["numba", "triton", "triton", "eager", "eager"]
    widths["has_fp64"] = False
    has_float64.cache_clear()
    assert served_by() == ["numba", "triton", "eager", "eager", "eager"]
    has_float64.cache_clear()
    monkeypatch.setattr(backends, "_installed", lambda package: package != "triton")
    assert served_by() == ["numba", "eager", "eager", "eager", "eager"]
    with use_backend("triton"), pytest.raises(ModuleNotFoundError, match="pip install triton"):
        backends.serving(torch.device("cpu"))


@pytest.mark.parametrize("clip", [None, 1.0])
def test_devices_may_meet_in_one_optimizer(clip: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel each by Triton and by numba; where a norm goes over both, the host adds up."""
    make_batch = plan.Plan._make_batch

    def of_its_backend(made: plan.Plan, device: torch.device, kernel: Kernel, positions: Any) -> Batch:
        name = "triton" if kernel.formats.w in (torch.float32, torch.bfloat16) else "numba"
        with monkeypatch.context() as patch:
            patch.setattr(plan, "serving", lambda device: backends.named(name))
            return make_batch(made, device, kernel, positions)

    expected = trained("eager", mixed(DTYPES), Adam(gradient_clip_norm=clip))
    monkeypatch.setattr(plan.Plan, "_make_batch", of_its_backend)
    params = mixed(DTYPES)
    opt = Adam(gradient_clip_norm=clip).attach(params)
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)
        opt.step()
    made = opt._stepper._plan.batches  # type: ignore[union-attr]
    assert [isinstance(batch, DeviceBatch) for batch in made] == [True, False, True, False]  # in the order of DTYPES
    assert_same([*(p.detach() for p in params), *(t for p in params for t in tensors_of(opt.state[p]))], expected)


class Twice:
    """Two processes that hold the same."""

    alike = True

    def gather(self, values: list[float]) -> list[list[float]]:
        return [values, values]


def test_sums_may_go_over_processes() -> None:
    ends = []
    for backend in ("eager", "triton"):
        optimizer, params, states = Adam(gradient_clip_norm=1.0), new(300, 20), new(300, 20, 300, 20, seed=1)
        settings = optimizer.settings(optimizer.group())
        own = [s.detach().abs() for s in states]
        slots = slots_of(settings.program, (torch.float32,) * 2)
        kept = [dict(zip(slots, (own[i], own[i + 2]), strict=True)) for i in range(2)]
        items = [Item(str(i), p, kept[i], torch.tensor(0.0), 0, i, Twice()) for i, p in enumerate(params)]
        grads = [p.detach().clone() for p in params]
        with use_backend(backend):
            made = plan.Plan(items, grads, [settings])
            made.step(grads)
            made.step(grads)
        ends.append([*(p.detach() for p in params), *own])
        assert [*made.totals.values()] == pytest.approx([2 * sum(float(g.square().sum()) for g in grads)])
    assert_same(*ends)


def test_nothing_is_read_back_within_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under clip by norm too: neither the host's numbers nor its sums are asked for."""
    params = new(300, 20)
    with use_backend("triton"):
        opt = Adam(gradient_clip_norm=1.0).attach(params)
        for p in params:
            p.grad = torch.ones_like(p)
        opt.step()
        opt.step()
        monkeypatch.setattr(device.DevicePass, "partials", None)
        monkeypatch.setattr(DeviceBatch, "_put", None)
        sent: list[Any] = []
        monkeypatch.setattr(DeviceBatch, "_send", lambda batch, array, table: sent.append(array))
        opt.step()
        assert not sent
        opt.param_groups[0]["lr"] = 0.1
        opt.step()
        assert len(sent) == 1
