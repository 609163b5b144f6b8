"""Muon: presets, schedules of coefficients, and the drop-in class beside torch.optim's, which iterates in bfloat16."""

from __future__ import annotations

import copy
import inspect
from functools import partial
from typing import Any

import pytest
import reference_muon
import torch
from drop_in_training import saved
from torch import nn
from torch_database import DATABASE, distance, through_a_file

import neon.torch
from neon.engine.calls.coefficients import SCALES, SCHEDULES, schedule
from neon.engine.calls.ways import PROCESSORS, processor
from neon.optimizers import Muon
from neon.optimizers.muon import PRESETS

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    given.desc: given.kwargs for given in DATABASE["Muon"].optim_inputs_func("cpu")
} | {
    "Tensor lr": {"lr": torch.tensor(0.001, dtype=torch.float64)},  # in float32 torch multiplies the decay in it
    "without Nesterov's form": {"nesterov": False},
    "Moonshot's scale": {"adjust_lr_fn": "match_rms_adamw"},
    "no momentum": {"momentum": 0.0, "weight_decay": 0.0},
    "a large eps": {"eps": 3.0},
    "no steps": {"ns_steps": 0},
}
STEPS = 12
# The largest difference of a tensor, relative to its largest entry; seen: 2.2e-6 and 1.1e-15.
BOUNDS = {torch.float32: 4e-6, torch.float64: 5e-15}


def matrices(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(3)
    shapes = ((3, 4), (4, 3), (1, 5), (6, 6), (33, 17))
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)) for shape in shapes]


def train(params: list[nn.Parameter], opt: Any, steps: range = range(STEPS)) -> list[nn.Parameter]:
    for step in steps:
        for number, p in enumerate(params):
            generator = torch.Generator().manual_seed(100 * step + number)
            p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)
        opt.step()
    return params


@pytest.fixture
def in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own lines, with the cast to bfloat16 left out."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)


def assert_close(ours: Any, mine: Any, theirs: Any, other: Any) -> None:
    for p, q in zip(ours, theirs, strict=True):
        assert distance(p, q) <= BOUNDS[q.dtype]
        assert {*mine.state[p]} - {"step"} == {*other.state[q]} - {"step"} == {"momentum_buffer"}
        assert distance(mine.state[p]["momentum_buffer"], other.state[q]["momentum_buffer"]) <= BOUNDS[q.dtype]


# -- the rule --------------------------------------------------------------------------------------


def test_presets_are_numbers_that_arguments_overrule() -> None:
    assert Muon.preset("torch").hyperparameters() == Muon().hyperparameters()
    for name, numbers in PRESETS.items():
        made = Muon.preset(name, learning_rate=0.5, gradient_clip_norm=1.0)
        expected = {**numbers, "learning_rate": 0.5}
        assert {word: getattr(made, word) for word in expected} == expected
        assert made.gradient_clip_norm == 1.0
    with pytest.raises(
        ValueError, match=r"Muon has no preset of this name\. Received: name='kimi'\. There are torch, "
    ):
        Muon.preset("kimi")


def test_the_defaults_are_torchs() -> None:
    theirs = inspect.signature(torch.optim.Muon).parameters
    ours = Muon().group()
    expected = {name: p.default for name, p in theirs.items() if name not in ("params", "adjust_lr_fn")}
    assert {name: ours[name] for name in expected} == expected
    assert ours["adjust_lr_fn"] == "original"


@pytest.mark.parametrize("name", reference_muon.SCHEDULES)
def test_schedules_are_those_of_the_reference(name: str) -> None:
    divisor, cycles, steps = reference_muon.SCHEDULES[name]
    first = tuple(number / divisor**power for number, power in zip(steps[0], (1, 3, 5), strict=True))
    assert SCHEDULES[name] == (first, *steps[1:])
    assert schedule(name, 7)[5:] == (schedule(name)[:2] if cycles else [steps[-1]] * 2)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_brings_singular_values_near_1(name: str) -> None:
    """Of 0.02 and more after all of its steps; of "simple" and "cubic5" they swing by as much."""
    values = torch.linspace(0.02, 1.0, 500, dtype=torch.float64)
    for a, b, c in schedule(name, 5 if name == "simple" else None):
        values = a * values + b * values**3 + c * values**5
    assert values.min() > 0.6
    assert values.max() < 1.4


def test_scales() -> None:
    found = {name: (scale(6, 24), scale(24, 6)) for name, scale in SCALES.items()}
    assert found == {
        "original": (1.0, 2.0), "match_rms_adamw": pytest.approx((0.2 * 24**0.5,) * 2), "spectral": (24**0.5,) * 2,
        "spectral_unclamped": (0.5, 2.0), "none": (1.0, 1.0),
    }  # fmt: skip


def test_a_run_goes_on_in_the_way_in_which_it_began() -> None:
    """Whatever processor it is resumed on, unless told otherwise."""
    runs = {}
    for units in PROCESSORS:
        [p, *_] = matrices(torch.float32)[3:]
        opt = Muon(units=units).attach([p])
        other = Muon(units="amx").attach([p])
        other.load_state_dict(through_a_file(opt.state_dict()))
        assert other.param_groups[0]["units"] == opt.param_groups[0]["units"] == units
        runs[units] = train([p], opt, range(1))[0].detach()
    assert Muon().group()["units"] == neon.torch.Muon(matrices()).param_groups[0]["units"] == processor()
    assert torch.equal(runs["amx"], runs["bfloat16"])
    assert not torch.equal(runs["bfloat16"], runs["float32"])
    with pytest.raises(
        ValueError, match=r"^units must be None, for the processor at hand, or one of amx, bfloat16, float32"
    ):
        Muon(units="avx")


def test_a_convolution_is_the_matrix_of_its_filters() -> None:
    kernel = nn.Parameter(torch.randn(6, 3, 2, 2))
    flat = nn.Parameter(kernel.detach().reshape(6, 12).clone())
    optimizers = [Muon(0.1, scale="match_rms_adamw").attach([p]) for p in (kernel, flat)]
    for step in range(3):
        flat.grad = torch.randn(6, 12, generator=torch.Generator().manual_seed(step))
        kernel.grad = flat.grad.view(6, 3, 2, 2)
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(kernel.view(6, 12), flat)


@pytest.mark.parametrize("shape", [(), (3,)])
def test_vectors_are_refused_by_name(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"Muon updates matrices, and these parameters are none: norm\.weight\. Give"):
        Muon().attach([("norm.weight", nn.Parameter(torch.ones(shape)))])


def test_gradients_of_zero_move_nothing_but_by_decay() -> None:
    w = nn.Parameter(torch.ones(3, 4))
    optimizer = Muon(0.1, wdecay=0.5).attach([w])
    w.grad = torch.zeros(3, 4)
    optimizer.step()
    assert torch.equal(w, torch.full((3, 4), 0.95))


# -- the drop-in class -----------------------------------------------------------------------------


@pytest.mark.usefixtures("in_full")
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("label", CONFIGURATIONS)
def test_the_steps_are_those_of_torchs_lines(label: str, dtype: torch.dtype) -> None:
    ours, theirs = matrices(dtype), matrices(dtype)
    mine, other = (
        library.Muon(params, **copy.deepcopy(CONFIGURATIONS[label]))
        for library, params in ((neon.torch, ours), (torch.optim, theirs))
    )
    assert {key: mine.param_groups[0][key] for key in other.defaults} == other.defaults
    train(ours, mine)
    train(theirs, other)
    assert_close(ours, mine, theirs, other)


@pytest.mark.parametrize("label", CONFIGURATIONS)
def test_the_bfloat16_of_torch_costs_per_cents_of_a_step(label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And ours no more than a few either, nothing where a processor is quick in float32."""
    given = {**CONFIGURATIONS[label], "weight_decay": 0.0}
    runs = {"torch": matrices(torch.float32), **{units: matrices(torch.float32) for units in PROCESSORS}}
    for name, params in runs.items():
        made = torch.optim.Muon if name == "torch" else partial(neon.torch.Muon, units=name)
        train(params, made(params, **copy.deepcopy(given)))
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    exact, start = matrices(), matrices()
    train(exact, torch.optim.Muon(exact, **copy.deepcopy(given)))
    for name, params in runs.items():
        errors = [
            (p.double() - q).detach().norm() / (q - w).detach().norm()
            for p, q, w in zip(params, exact, start, strict=True)
        ]
        assert max(errors) < (2e-4 if name == "float32" else 0.05)
        assert name == "float32" or max(errors) > 5e-4


def test_the_buffer_is_the_average_of_gradients_where_torch_divides_it_by_its_norm() -> None:
    """Of bfloat16 without Nesterov's form, in place; a step later the average is another."""
    norms = {}
    for library in (neon.torch, torch.optim):
        p = nn.Parameter(torch.ones(64, 96, dtype=torch.bfloat16))
        opt = library.Muon([p], nesterov=False, momentum=0.5)
        p.grad = torch.full_like(p, 2.0)
        opt.step()
        norms[library] = float(opt.state[p]["momentum_buffer"].float().norm())
    assert norms[neon.torch] == pytest.approx(float(torch.full((64, 96), 1.0).norm()), rel=1e-3)
    if torch.__version__ < "2.15":
        assert norms[torch.optim] == pytest.approx(1.0, rel=0.02)


@pytest.mark.usefixtures("in_full")
@pytest.mark.parametrize("label", CONFIGURATIONS)
def test_checkpoints_go_both_ways(label: str) -> None:
    theirs, ours, back = matrices(), matrices(), matrices()
    other = torch.optim.Muon(theirs, **copy.deepcopy(CONFIGURATIONS[label]))
    mine = neon.torch.Muon(ours, lr=0.5)
    train(theirs, other, range(4))
    for p, q in zip(ours, theirs, strict=True):
        p.data.copy_(q.data)
    mine.load_state_dict(through_a_file(other.state_dict()))
    train(ours, mine, range(4, 8))
    train(theirs, other, range(4, 8))
    assert_close(ours, mine, theirs, other)
    again = torch.optim.Muon(back, lr=0.5)
    for p, q in zip(back, ours, strict=True):
        p.data.copy_(q.data)
    again.load_state_dict(through_a_file(mine.state_dict()))
    train(back, again, range(8, 12))
    train(ours, mine, range(8, 12))
    assert_close(ours, mine, back, again)


@pytest.mark.usefixtures("in_full")
def test_groups_have_values_of_their_own() -> None:
    runs = []
    for library in (neon.torch, torch.optim):
        params = matrices()
        opt = library.Muon([{"params": params[:1]}, {"params": params[1:3], "nesterov": False, "momentum": 0.5}])
        train(params[:3], opt, range(2))
        opt.add_param_group({"params": params[3:], "lr": 0.1, "ns_steps": 3, "adjust_lr_fn": "match_rms_adamw"})
        scheduler = torch.optim.lr_scheduler.StepLR(opt, 2)
        for step in range(2, 8):
            train(params, opt, range(step, step + 1))
            scheduler.step()
        runs += [params, opt]
    assert_close(*runs)


@pytest.mark.parametrize("error", DATABASE["Muon"].optim_error_inputs_func("cpu", torch.float32))
def test_what_torch_refuses_is_refused_with_the_same_type(error: Any) -> None:
    given = error.optimizer_error_input
    if error.error_on.name != "CONSTRUCTION_ERROR":
        return
    for library in (torch.optim, neon.torch):
        params = [nn.Parameter(torch.randn(1, 1))] if given.params is None else copy.copy(given.params)
        with pytest.raises(error.error_type):
            library.Muon(params, **given.kwargs)


def test_a_group_of_others_than_matrices_is_refused_and_not_added() -> None:
    named = {"a": nn.Parameter(torch.ones(2, 2)), "b": nn.Parameter(torch.ones(4, 2, 2))}
    opt = neon.torch.Muon([("first", nn.Parameter(torch.ones(2, 2)))])
    with pytest.raises(ValueError, match=r"Muon takes parameters of two dimensions\. 'b' has shape \(4, 2, 2\): give"):
        opt.add_param_group({"params": [*named.items()]})
    assert len(opt.param_groups) == 1


def test_a_group_may_have_a_schedule_by_name_and_torchs_scale_of_2_14() -> None:
    [p, *_] = matrices()
    opt = neon.torch.Muon([p], 0.1, ns_coefficients="quintic", adjust_lr_fn="spectral_unclamped")  # type: ignore[arg-type]
    by_hand = reference_muon.Muon(learning_rate=0.1, ns_coefficients="quintic", scale="spectral_unclamped")
    expected = [p.detach().numpy().copy()]
    p.grad = torch.ones_like(p)
    opt.step()
    by_hand.step(expected, [p.grad.numpy()])
    torch.testing.assert_close(p.detach(), torch.tensor(expected[0]), rtol=1e-13, atol=1e-13)
    assert saved(opt)["param_groups"][0]["ns_coefficients"] == "quintic"
