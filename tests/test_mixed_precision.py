"""Loss scales, and steps that are left out because a gradient is not finite."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from constructors import OPTIMIZERS, RULES, describing
from pairs import crossed
from torch import nn

import neon.optimizers
import neon.torch
from neon.engine import use_backend
from neon.optimizers import Adam, AdamW, GradientDescentMomentum, MultiOptimizer, Optimizer, WarmupCosine

pytestmark = pytest.mark.usefixtures("one_thread")

MAPPING: dict[str, Any] = {
    "optimizer_mapping": {
        "default": MultiOptimizer({"default": Adam(), "b": GradientDescentMomentum(0.1, 0.9)}),
        "c": Adam(schedule=WarmupCosine(2, 9, unit="steps"), gradient_clip_norm=0.5),
    },
    "gradient_clip_norm": 1.5,
}
description = describing(MultiOptimizer=MAPPING)
# Over gradients of norm about 3: each of these bites.
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "norm": {"gradient_clip_norm": 1.0},
    "value": {"gradient_clip_value": 0.5},
    "both, decay": {"gradient_clip_norm": 2.0, "gradient_clip_value": 0.25, "wdecay": 0.1},
}
# A mapping has no clips by value and no decay.
NAMES = [(name, options) for name in OPTIMIZERS for options in OPTIONS if name in RULES or options == "plain"]


def switches(options: str) -> list[bool]:
    """What it switches on, of all there is: features that a crossing has two by two."""
    return [name in OPTIONS[options] for name in OPTIONS["both, decay"]]


def parameters(dtype: torch.dtype = torch.float32) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {n: nn.Parameter((torch.rand(3, 2, generator=generator) - 0.5).to(dtype)) for n in ("a", "b", "c")}


class Run:
    """Three parameters, and an optimizer of them that a GradScaler may drive."""

    def __init__(self, made: Optimizer, dtype: torch.dtype = torch.float32, **options: Any) -> None:
        self.params = parameters(dtype)
        self.optimizer: Any = made.attach(self.params.items(), **options)

    def give(self, step: int, scale: float = 1.0, wrong: float | None = None, where: str = "b") -> None:
        """The gradients of a step, times a scale; `wrong` takes the place of one number."""
        for number, (name, p) in enumerate(self.params.items()):
            generator = torch.Generator().manual_seed(10 * step + number)
            p.grad = (torch.randn(p.shape, generator=generator) * scale).to(p.dtype)
            if wrong is not None and name == where:
                p.grad[-1, -1] = wrong

    def scaled(self, scaler: Any, step: int, wrong: float | None = None, *, unscale: bool = False) -> None:
        """One step as users write it."""
        self.give(step, scaler.get_scale(), wrong)
        scaler.scale(torch.zeros(()))  # as the loss would be: the scaler makes its tensors then
        if unscale:
            scaler.unscale_(self.optimizer)
        scaler.step(self.optimizer)
        scaler.update()

    def plain(self, step: int) -> None:
        self.give(step)
        self.optimizer.step()

    def tensors(self) -> list[torch.Tensor]:
        """Copies of parameters and states, in order."""
        states = [self.optimizer.state[p] for p in self.params.values() if p in self.optimizer.state]
        found = (*self.params.values(), *(value for state in states for value in state.values()))
        return [t.detach().clone() for t in found]

    def groups(self) -> list[dict[str, Any]]:
        """Copies of the groups' values, counts among them."""
        return [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]


def assert_same(found: Run, expected: Run, tolerance: float = 0.0) -> None:
    torch.testing.assert_close(found.tensors(), expected.tensors(), rtol=tolerance, atol=tolerance)
    for mine, other in zip(found.groups(), expected.groups(), strict=True):
        assert mine == {k: pytest.approx(v, rel=tolerance, abs=0) if type(v) is float else v for k, v in other.items()}


def scaler_of(scale: float, **options: Any) -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", init_scale=scale, **{"growth_interval": 1000, **options})


# -- torch.amp.GradScaler --------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), crossed(NAMES, lambda name, options: (name, *switches(options))))
def test_a_scaled_step_is_the_step_without_a_scale(name: str, options: str) -> None:
    """Powers of two leave no trace, though the scale grows; 1/1000 is rounded."""
    exact, rough, expected = (Run(description(name, **OPTIONS[options])) for _ in range(3))
    power, thousand = scaler_of(1024.0, growth_interval=2), scaler_of(1000.0)
    for step in range(6):
        expected.plain(step)
        exact.scaled(power, step, unscale=step == 4)
        rough.scaled(thousand, step)
    assert power.get_scale() == 2.0**13
    assert_same(exact, expected)
    assert_same(rough, expected, 1e-6)
    assert not {"grad_scale", "found_inf"} & {*vars(exact.optimizer)}


def test_clipping_sees_what_torch_clips() -> None:
    """Against torch: unscale_, clip_grad_norm_, clip_grad_value_, step."""
    run, params = Run(description("Adam", gradient_clip_norm=1.0, gradient_clip_value=0.2)), parameters()
    torchs, scalers = torch.optim.Adam(params.values()), [scaler_of(512.0), scaler_of(512.0)]
    for step in range(5):
        run.scaled(scalers[0], step)
        for p, same in zip(params.values(), run.params.values(), strict=True):
            assert same.grad is not None
            p.grad = same.grad.clone()  # neon leaves gradients scaled, as they were given
        scalers[1].scale(torch.zeros(()))
        scalers[1].unscale_(torchs)
        nn.utils.clip_grad_norm_(params.values(), 1.0)
        nn.utils.clip_grad_value_(params.values(), 0.2)
        scalers[1].step(torchs)
        scalers[1].update()
    torch.testing.assert_close([*run.params.values()], [*params.values()], rtol=1e-7, atol=1e-9)


WRONG = [math.inf, -math.inf, math.nan]


@pytest.mark.parametrize(("name", "unscale", "wrong"), crossed(product(OPTIMIZERS, [False, True], WRONG)))
def test_an_infinity_leaves_everything_as_it_was(name: str, unscale: bool, wrong: float) -> None:
    run, expected, scaler = Run(description(name)), Run(description(name)), scaler_of(256.0)
    run.scaled(scaler, 0)
    expected.plain(0)
    run.scaled(scaler, 7, wrong, unscale=unscale)
    assert scaler.get_scale() == 128
    assert run.optimizer.skipped_steps == 1
    assert_same(run, expected)
    run.scaled(scaler, 1)
    expected.plain(1)
    assert_same(run, expected)


def test_an_infinity_in_the_first_step_makes_no_states() -> None:
    run = Run(description("Adam"))
    run.scaled(scaler_of(4.0), 0, math.inf)
    assert not run.optimizer.state


def test_a_scaler_that_comes_and_goes() -> None:
    run, expected, scaler = Run(description("MultiOptimizer")), Run(description("MultiOptimizer")), scaler_of(64.0)
    off = torch.amp.GradScaler("cpu", enabled=False)
    for step, how in enumerate(("scaled", "plain", "off", "scaled", "scaled", "plain")):
        expected.plain(step)
        if how == "plain":
            run.plain(step)
        else:
            run.scaled(scaler if how == "scaled" else off, step)
    assert_same(run, expected)


def test_two_optimizers_under_one_scaler() -> None:
    """Only the one that has an infinity stands still."""
    runs, expected, scaler = [Run(Adam()), Run(AdamW())], [Run(Adam()), Run(AdamW())], scaler_of(8.0)
    for step, wrong in enumerate((None, math.inf, None)):
        scale = scaler.get_scale()
        scaler.scale(torch.zeros(()))
        for run, alone, bad in zip(runs, expected, (None, wrong), strict=True):
            run.give(step, scale, bad)
            scaler.step(run.optimizer)
            if bad is None:
                alone.plain(step)
        scaler.update()
    assert scaler.get_scale() == 4
    for run, alone in zip(runs, expected, strict=True):
        assert_same(run, alone)


def test_a_scale_that_the_user_has_set() -> None:
    """torch multiplies its own into it, and takes both away after the step."""
    run, expected, scaler = Run(Adam()), Run(Adam()), scaler_of(8.0)
    run.give(0, 8.0 * 4.0)
    scaler.scale(torch.zeros(()))
    run.optimizer.grad_scale = torch.tensor(4.0)
    scaler.step(run.optimizer)
    expected.plain(0)
    assert_same(run, expected)


class ByGetattr:
    """A wrapper that hands on what it does not have itself."""

    def __init__(self, base: Any) -> None:
        self.base = base

    def __getattr__(self, name: str) -> Any:
        return getattr(self.base, name)

    def step(self, *args: Any) -> Any:
        return self.base.step(*args)


class ByProperty:
    """A wrapper that lists what it hands on."""

    def __init__(self, base: Any) -> None:
        self.base, self.step, self.param_groups = base, base.step, base.param_groups

    @property
    def _step_supports_amp_scaling(self) -> bool:
        return self.base._step_supports_amp_scaling


class ByBoth(ByGetattr):
    """A wrapper through which attributes are set, too."""

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.base, name, value) if "base" in vars(self) else super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self.base, name)


@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize(
    "wrapped", [ByGetattr, ByProperty, ByBoth, lambda base: ByGetattr(ByGetattr(base)), lambda base: base]
)
def test_gradients_are_unscaled_once_through_wrappers(wrapped: Any, unscale: bool) -> None:
    for make in (neon.torch.SGD, lambda params, lr: GradientDescentMomentum(lr, 0.0).attach(params)):
        weight = torch.nn.Parameter(torch.zeros(2))
        optimizer, scaler = wrapped(make([weight], lr=1.0)), scaler_of(1024.0)
        for expected in (-1.0, -1.0, -2.0):
            weight.grad = None
            scaler.scale(weight.sum()).backward()
            if expected == -1.0 and weight[0] != 0:
                weight.grad[0] = math.inf  # type: ignore[index]
            if unscale:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
            assert weight.tolist() == [expected, expected]


def test_a_closure_under_a_scaler_is_refused_by_torch() -> None:
    run = Run(Adam())
    with pytest.raises(RuntimeError, match="Closure use is not currently supported"):
        scaler_of(2.0).step(run.optimizer, closure=lambda: None)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_parameters_of_half_precision_with_a_scale(dtype: torch.dtype) -> None:
    """The scale is a power of two and no gradient is subnormal: what is divided out is exact."""
    scaled, plain, scaler = (
        Run(AdamW(learning_rate=0.01), dtype),
        Run(AdamW(learning_rate=0.01), dtype),
        scaler_of(16.0),
    )
    for step in range(5):
        plain.plain(step)
        scaled.scaled(scaler, step)
    assert_same(scaled, plain)


def test_autocast_to_float16_with_masters_of_float32() -> None:
    """A loop as users write it goes where torch's goes: after 30 steps they are apart by 4.6e-6 at most."""
    ends = []
    for make in (lambda m: torch.optim.Adam(m.parameters(), lr=0.01), lambda m: Adam(learning_rate=0.01).attach(m)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
        x, scaler, optimizer = torch.randn(32, 8), scaler_of(2.0**16, growth_interval=5), make(model)
        for _ in range(30):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.float16):
                loss = (model(x) - x.sum(1, keepdim=True)).float().square().mean()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        ends.append((scaler.get_scale(), [p.detach() for p in model.parameters()]))
    assert ends[0][0] == ends[1][0] != 2.0**16
    torch.testing.assert_close(ends[0][1], ends[1][1], rtol=0, atol=6e-6)


# -- skip_nonfinite --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "wrong"),
    crossed(
        ((*name, wrong) for name, wrong in product(NAMES, WRONG)),
        lambda name, options, wrong: (name, wrong, *switches(options)),
    ),
)
def test_a_gradient_that_is_not_finite_changes_nothing(name: str, options: str, wrong: float) -> None:
    """Not even at the first step; the next is as if it had not been, by either backend."""
    ends = []
    for backend in ("numba", "eager"):
        with use_backend(backend):
            run = Run(description(name, **OPTIONS[options]), skip_nonfinite=True)
            expected = Run(description(name, **OPTIONS[options]))
            for step, bad in enumerate((wrong, None, wrong, None, None)):
                if bad is None:
                    run.plain(step)
                    expected.plain(step)
                else:
                    run.give(step, wrong=bad, where="b" if step else "c")
                    run.optimizer.step()
                    assert run.optimizer.last_nonfinite == ("b" if step else "c")
                    assert_same(run, expected)
            assert run.optimizer.skipped_steps == 2
            assert_same(run, expected)
            ends.append(run)
    torch.testing.assert_close(ends[0].tensors(), ends[1].tensors(), rtol=0, atol=0)


@pytest.mark.parametrize("form", ["module", "groups", "mapping", "drop-in"])
def test_a_skipped_first_step_leaves_no_states(form: str) -> None:
    """An average begins at the weights of the first step that is taken; a parameter that comes later, at its own."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2, bias=False))
    first, later = (layer.weight for layer in model)
    rule = Adam(weight_average=0.5)
    optimizer: Any = {
        "module": lambda: rule.attach(model, skip_nonfinite=True),
        "groups": lambda: rule.attach([{"params": [first]}, {"params": [later]}], skip_nonfinite=True),
        "mapping": lambda: MultiOptimizer({"default": rule, "1": AdamW(weight_average=0.5)}).attach(
            model, skip_nonfinite=True
        ),
        "drop-in": lambda: neon.torch.Adam(model.parameters(), weight_average=0.5, skip_nonfinite=True),
    }[form]()

    def step(param: torch.nn.Parameter, weight: float, gradient: float) -> None:
        with torch.no_grad():
            param.fill_(weight)
        param.grad = torch.full_like(param, gradient)
        optimizer.step()

    step(first, 5.0, math.nan)
    assert optimizer.state_dict()["state"] == {}
    step(first, 0.0, 0.0)
    assert optimizer.state[first]["weight_average"].tolist() == [[0.0, 0.0], [0.0, 0.0]]
    step(later, 5.0, math.inf)
    assert later not in optimizer.state
    step(later, 1.0, 0.0)
    assert optimizer.skipped_steps == 2
    assert [optimizer.state[p]["step"].item() for p in (first, later)] == [2, 1]
    assert optimizer.state[later]["weight_average"].unique().tolist() == [pytest.approx(1.0, abs=0.01)]


def test_the_first_in_order_is_named() -> None:
    """Over groups, formats and rules, each of which is a launch of its own."""
    params = [("z", torch.zeros(2)), ("bias", torch.zeros(2).half()), ("b", torch.zeros(2)), ("a", torch.zeros(3))]
    named = [(name, nn.Parameter(data)) for name, data in params]
    made = MultiOptimizer({"default": Adam(gradient_clip_norm=1.0), "bias": AdamW(), "b": Adam()})
    optimizer: Any = made.attach(named, skip_nonfinite=True)
    order = [name for group in optimizer.param_groups for name in group["param_names"]]
    assert order == ["z", "a", "bias", "b"]
    for first in range(4):
        for _, p in named:
            p.grad = torch.ones_like(p)
        for name in order[first:]:
            grad = dict(named)[name].grad
            assert grad is not None
            grad[-1] = math.nan
        optimizer.step()
        assert optimizer.last_nonfinite == order[first]
    assert optimizer.skipped_steps == 4
    assert not any(p.any() for _, p in named)


PLACES: dict[str, Callable[[torch.dtype], tuple[torch.Tensor, torch.Tensor]]] = {
    "last of a chunk": lambda d: (torch.zeros(65536 * 2 + 3, dtype=d), torch.arange(65536 * 2 + 3) == 65535),
    "first of a chunk": lambda d: (torch.zeros(65536 * 2 + 3, dtype=d), torch.arange(65536 * 2 + 3) == 65536),
    "last": lambda d: (torch.zeros(65536 * 2 + 3, dtype=d), torch.arange(65536 * 2 + 3) == 65536 * 2 + 2),
    "expanded": lambda d: (torch.zeros(5, 4, dtype=d), torch.tensor([False, True]).repeat(2).expand(5, 4)),
    "transposed": lambda d: (torch.zeros(4, 5, dtype=d).t(), torch.arange(20).view(5, 4) == 3),
    "0-dim": lambda d: (torch.zeros((), dtype=d), torch.tensor(data=True)),
}


@pytest.mark.parametrize("norm", [None, 1.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("where", PLACES)
def test_any_element_counts(where: str, dtype: torch.dtype, norm: float | None) -> None:
    data, mask = PLACES[where](dtype)
    p = nn.Parameter(data)
    optimizer: Any = Adam(gradient_clip_norm=norm).attach([p], skip_nonfinite=True)
    bad = torch.where(mask, torch.tensor(math.inf, dtype=dtype), torch.tensor(1.0, dtype=dtype))
    p.grad = bad[:1].expand(bad.shape) if where == "expanded" else bad
    optimizer.step()
    assert (optimizer.skipped_steps, bool(p.any())) == (1, False)
    p.grad = torch.ones_like(p)
    optimizer.step()
    assert (optimizer.skipped_steps, bool(p.all())) == (1, True)


@pytest.mark.parametrize("name", ["default", "norm", "outer norm"])
@pytest.mark.parametrize(("dtype", "size"), [(torch.float64, 1e200), (torch.float32, 3e38), (torch.float16, 6e4)])
def test_large_gradients_are_finite(name: str, dtype: torch.dtype, size: float) -> None:
    """Their squares need not be: what is large is not skipped."""
    p = nn.Parameter(torch.zeros(3, dtype=dtype))
    made: Optimizer = GradientDescentMomentum(1.0, 0.0, gradient_clip_norm=2.0 if name == "norm" else None)
    if name == "outer norm":
        made = MultiOptimizer({"default": made}, gradient_clip_norm=2.0)
    optimizer: Any = made.attach([p], skip_nonfinite=True)
    p.grad = torch.full_like(p, size)
    optimizer.step()
    assert (optimizer.skipped_steps, optimizer.last_nonfinite) == (0, None)


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_keep_the_counters(how: str) -> None:
    run = Run(Adam(), skip_nonfinite=True)
    run.give(0, wrong=math.nan)
    run.optimizer.step()
    twin = copy.deepcopy(run.optimizer) if how == "deepcopy" else pickle.loads(pickle.dumps(run.optimizer))
    assert (twin.skipped_steps, twin.last_nonfinite, twin.skip_nonfinite) == (1, "b", True)
    for p in twin.param_groups[0]["params"]:
        p.grad = torch.full_like(p, math.nan)
    twin.step()
    assert (twin.skipped_steps, run.optimizer.skipped_steps) == (2, 1)


def test_schedules_do_not_count_what_is_skipped() -> None:
    run = Run(AdamW(schedule=WarmupCosine(2, 9, unit="steps")), skip_nonfinite=True)
    run.plain(0)
    before = run.groups()
    run.give(1, wrong=math.inf)
    run.optimizer.step()
    assert run.groups() == before


def test_a_scaler_beside_skip_nonfinite() -> None:
    """The scaler looks first, and knows no name; without it, the step looks itself."""
    run, scaler = Run(Adam(), skip_nonfinite=True), scaler_of(4.0)
    run.scaled(scaler, 0, math.inf)
    assert (run.optimizer.skipped_steps, run.optimizer.last_nonfinite) == (1, None)
    run.give(0, wrong=math.inf)
    run.optimizer.step()
    assert (run.optimizer.skipped_steps, run.optimizer.last_nonfinite) == (2, "b")
