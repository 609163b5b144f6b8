"""The drop-in classes beyond torch's database: options, memory and precision of states, and groups."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import numpy as np
import pytest
import reference
import torch
from drop_in_training import BOUND, SHARED, SIZED, STEPS, Case, assert_close, give, large, parameters, saved, train
from other_versions import skip_added_group
from torch import nn
from torch.nn.utils import clip_grad_value_, get_total_norm

import neon.torch
from neon.torch import SGD, Adagrad, Adam, AdamW, Lion, RMSprop

pytestmark = pytest.mark.usefixtures("one_thread")


# -- options ---------------------------------------------------------------------------------------


CLIPS: dict[str, Case] = {
    "norm": {"gradient_clip_norm": 4.0},  # the norms lie between 3.5 and 6.3
    "value": {"gradient_clip_value": 0.4},
    "norm, then value": {"gradient_clip_norm": 4.0, "gradient_clip_value": 0.4},
    "parameters": {"param_clip_value": 0.9},
}


def clip(params: list[nn.Parameter], options: Case) -> None:
    """What the options say, by torch's functions; of the norm exactly: torch adds 10⁻⁶ to it."""
    grads = [p.grad for p in params if p.grad is not None]
    if "gradient_clip_norm" in options:
        factor = min(1.0, options["gradient_clip_norm"] / float(get_total_norm(grads)))
        for grad in grads:
            grad.mul_(factor)
    if "gradient_clip_value" in options:
        clip_grad_value_(params, options["gradient_clip_value"])


@pytest.mark.usefixtures("exact_numbers")
@pytest.mark.parametrize("option", CLIPS)
@pytest.mark.parametrize("name", SHARED)
def test_clipping_goes_around_torchs_rule(name: str, option: str) -> None:
    options, arguments = CLIPS[option], {"lr": 0.1, **({} if name == "Rprop" else {"weight_decay": 0.1})}
    ours, theirs, plain = parameters(), parameters(), parameters()
    train(ours, getattr(neon.torch, name)(ours, **arguments, **options))
    train(plain, getattr(neon.torch, name)(plain, **arguments))
    other = getattr(torch.optim, name)(theirs, **arguments)
    for step in range(STEPS):
        give(theirs, step)
        clip(theirs, options)
        other.step()
        for p in theirs if "param_clip_value" in options else ():
            p.data.clamp_(-options["param_clip_value"], options["param_clip_value"])
    assert_close(ours, theirs)
    by_signs = name == "Rprop" and "param_clip_value" not in options  # which no clip of gradients changes
    assert all(map(torch.equal, ours, plain)) == by_signs


@pytest.mark.parametrize("option", ["plain", *CLIPS])
def test_lion(option: str) -> None:
    options = CLIPS.get(option, {})
    params = parameters()
    ref = reference.Lion(learning_rate=0.05, beta_1=0.8, beta_2=0.9, wdecay=0.3, **options)
    expected = [p.detach().numpy().copy() for p in params]
    opt = Lion(params, 0.05, (0.8, 0.9), 0.3, **options)
    for step in range(STEPS):
        give(params, step)
        ref.step(expected, [p.grad.numpy() for p in params if p.grad is not None])
        opt.step()
    for number, (p, w) in enumerate(zip(params, expected, strict=True)):
        np.testing.assert_allclose(p.detach().numpy(), w, rtol=0, atol=BOUND)
        np.testing.assert_allclose(opt.state[p]["exp_avg"].numpy(), ref.state[number][0], rtol=0, atol=BOUND)


def test_lion_goes_up_when_asked() -> None:
    up, down = parameters(), parameters()
    train(up, Lion(up, 0.05, maximize=True))
    opt = Lion(down, 0.05)
    for step in range(STEPS):
        give(down, step)
        for p in down:
            p.grad = -p.grad  # type: ignore[operator]
        opt.step()
    assert all(map(torch.equal, up, down))


@pytest.mark.parametrize("way", ["file", "pickle", "deepcopy"])
def test_lion_goes_on_elsewhere(way: str) -> None:
    params = parameters()
    opt = Lion(params, 0.05, weight_decay=0.3)
    train(params, opt, 3)
    if way == "file":
        file = io.BytesIO()
        torch.save({"params": params, "optimizer": opt.state_dict()}, file)
        saved = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
        others, resumed = saved["params"], Lion(saved["params"])
        resumed.load_state_dict(saved["optimizer"])
    else:
        copied = pickle.loads(pickle.dumps((params, opt))) if way == "pickle" else copy.deepcopy((params, opt))
        others, resumed = copied
    train(params, opt)
    train(others, resumed)
    assert all(map(torch.equal, params, others))


@pytest.mark.parametrize("name", [*SHARED, "Lion"])
def test_rounding_at_random(name: str) -> None:
    """Small steps on bfloat16 parameters are lost without it; a seed decides where they are kept."""
    runs = []
    rate = 0.1 if name == "Adadelta" else 1e-4
    for options in ({}, {"seed": 1}, {"seed": 1}, {"seed": 2}):
        params = [nn.Parameter(torch.full((200,), 1.0, dtype=torch.bfloat16))]
        opt = getattr(neon.torch, name)(params, rate, stochastic_round=bool(options), **options)
        for _ in range(3):
            params[0].grad = torch.ones_like(params[0])
            opt.step()
        runs.append(params[0])
    nearest, one, again, other = runs
    assert (nearest == 1).all()
    assert torch.equal(one, again)
    assert 0 < int((one != other).sum()) < 200


def test_options_of_the_attached_optimizer_arrive() -> None:
    params = parameters()
    before = copy.deepcopy(params)
    opt = AdamW(params, 0.1, skip_nonfinite=True)
    give(params, 0)
    params[1].grad[2] = torch.inf  # type: ignore[index]
    opt.step()
    assert opt.skipped_steps == 1
    assert all(map(torch.equal, params, before))
    with pytest.raises(ValueError, match="gradient_clip_previous_norm is for in_backward=True"):
        AdamW(params, gradient_clip_previous_norm=1.0)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("SGD", {"momentum": 0.9, "dampening": 0.5}),
        ("AdamW", {"amsgrad": True}),
        ("Adagrad", {"initial_accumulator_value": 0.5, "lr_decay": 0.5}),
    ],
)
def test_updates_in_the_backward_pass(name: str, arguments: Case) -> None:
    runs = []
    for in_backward in (True, False):
        params = parameters()
        opt = getattr(neon.torch, name)(params, 0.1, **arguments, in_backward=in_backward)
        for _ in range(3):
            sum((p * p).sin().sum() for p in params).backward()  # type: ignore[union-attr]
            assert (params[0].grad is None) is in_backward
            opt.step()
            opt.zero_grad()
        runs.append(params)
    assert all(map(torch.equal, *runs))


# -- memory and precision of states ----------------------------------------------------------------


def kept_bytes(opt: Any) -> int:
    return sum(value.nbytes for state in opt.state.values() for key, value in state.items() if key != "step")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", SIZED)
def test_states_need_no_more_memory_than_torchs(case: str, dtype: torch.dtype) -> None:
    name, arguments = SIZED[case]
    runs = {}
    for library in (neon.torch, torch.optim):
        params = large(dtype)
        train(params, opt := getattr(library, name)(params, **arguments), 2)
        runs[library] = opt
    assert kept_bytes(runs[neon.torch]) == kept_bytes(runs[torch.optim])
    [state] = runs[neon.torch].state.values()
    expected = torch.bfloat16 if dtype == torch.float16 else dtype
    assert {value.dtype for key, value in state.items() if key != "step"} == {expected}


@pytest.mark.parametrize("asked", ["float32", None])
def test_more_memory_for_states_is_asked_for(asked: Any) -> None:
    params = large(torch.bfloat16)
    train(params, opt := Adam(params, state_dtype=asked), 1)
    assert opt.state[params[0]]["exp_avg"].dtype == torch.float32


def test_a_split_weight_is_a_float32_weight() -> None:
    """Its states are as exact as it is, and its steps those of float32."""
    params = large(torch.bfloat16)
    full = [nn.Parameter(params[0].detach().float())]
    train(params, opt := AdamW(params, 0.01, master="split"), 0)
    other = AdamW(full, 0.01)
    for step in range(STEPS):
        give(params, step)
        full[0].grad = params[0].grad.float()  # type: ignore[union-attr]
        opt.step()
        other.step()
    assert opt.state[params[0]]["exp_avg"].dtype == torch.float32
    assert torch.equal(params[0], full[0].bfloat16())


def test_states_of_few_elements_are_float32() -> None:
    params = parameters(torch.bfloat16)
    train(params, opt := Adam(params), 1)
    assert {value.dtype for state in opt.state.values() for value in state.values()} == {torch.float32}


@pytest.mark.filterwarnings("ignore::neon.audit.AuditWarning")  # of the rate of 0
def test_a_mean_of_squares_in_16_bits_follows_gradients_that_shrink() -> None:
    """Rounded to nearest, as torch has it, it stands still."""
    found = {}
    for library in (neon.torch, torch.optim):
        params = large(torch.bfloat16)
        opt = library.Adam(params, 0.0, betas=(0.9, 0.999))
        for step in range(1200):
            params[0].grad = torch.full_like(params[0], 1.0 if step < 200 else 0.125)
            opt.step()
        found[library] = float(opt.state[params[0]]["exp_avg_sq"].float().mean())
    exact = 0.125**2 * (1 - 0.999**1000) + (1 - 0.999**200) * 0.999**1000
    assert found[neon.torch] == pytest.approx(exact, rel=0.01)
    assert found[torch.optim] > 1.5 * exact


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_centered_average_is_not_nan_where_gradients_hardly_vary(dtype: torch.dtype) -> None:
    params = large(dtype)
    opt = RMSprop(params, 1e-3, centered=True, momentum=0.5)
    for step in range(40):
        noise = torch.randn(64, 96, generator=torch.Generator().manual_seed(step))
        params[0].grad = (1 + 0.05 * noise).to(dtype)
        opt.step()
    assert params[0].isfinite().all()
    dtypes = {key: value.dtype for key, value in opt.state[params[0]].items()}
    assert dtypes["square_avg"] == dtypes["grad_avg"] == torch.float32
    assert dtypes["momentum_buffer"] == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", SIZED)
def test_checkpoints_of_any_precision_load_as_they_are(case: str, dtype: torch.dtype) -> None:
    name, arguments = SIZED[case]
    makers: dict[str, Any] = {
        "torch": lambda params: getattr(torch.optim, name)(params, **arguments),
        "float32": lambda params: getattr(neon.torch, name)(params, **arguments, state_dtype="float32"),
        "before": lambda params: getattr(neon.torch, name)(params, **arguments, state_dtype=None),
        "default": lambda params: getattr(neon.torch, name)(params, **arguments),
    }
    for way, make in makers.items():
        params = large(dtype)
        train(params, opt := make(params), 2)
        other = [nn.Parameter(params[0].detach().clone())]
        resumed = getattr(neon.torch, name)(other, **arguments)
        resumed.load_state_dict(saved(opt))
        for key, value in opt.state[params[0]].items():
            assert torch.equal(resumed.state[other[0]][key], value), way
            assert resumed.state[other[0]][key].dtype == value.dtype, way
        before = {key: value.dtype for key, value in resumed.state[other[0]].items()}
        train(other, resumed, 2)
        assert before | {"step": torch.float32} == {key: v.dtype for key, v in resumed.state[other[0]].items()}, way
        if way != "torch":
            train(params, opt, 2)
            assert torch.equal(params[0], other[0]), way
        back = getattr(torch.optim, name)(other, **arguments)
        back.load_state_dict(saved(resumed))
        train(other, back, 1)


def test_a_group_says_what_its_states_are() -> None:
    opt = Adam(large(torch.bfloat16))
    assert opt.param_groups[0]["state_dtype"] == opt.defaults["state_dtype"] == "parameter"
    opt.load_state_dict(saved(opt))
    old = saved(opt)
    old["param_groups"][0]["state_dtype"] = None  # before there was "parameter"
    opt.load_state_dict(old)
    train(opt.param_groups[0]["params"], opt, 1)
    assert next(iter(opt.state.values()))["exp_avg"].dtype == torch.float32


# -- groups ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "common", "first", "second", "third"),
    [
        ("Adam", {}, {"amsgrad": True}, {"maximize": True}, {"decoupled_weight_decay": True, "weight_decay": 0.5}),
        ("AdamW", {"amsgrad": True}, {"amsgrad": False}, {"betas": (0.5, 0.75)}, {"decoupled_weight_decay": False}),
        ("SGD", {"momentum": 0.9}, {"momentum": 0}, {"nesterov": True}, {"dampening": 0.5}),
        ("RMSprop", {"momentum": 0.5}, {"centered": True}, {"momentum": 0, "centered": True}, {"momentum": 0}),
        ("Adagrad", {"lr_decay": 0.5}, {"lr_decay": 0}, {"eps": 0.1}, {"lr": 0.3, "foreach": True}),
        ("Adadelta", {}, {"rho": 0.5}, {"eps": 0.1}, {"lr": 0.3, "foreach": True}),
    ],
)
def test_groups_may_have_flags_of_their_own(name: str, common: Case, first: Case, second: Case, third: Case) -> None:
    skip_added_group(name)
    runs = []
    for library in (neon.torch, torch.optim):
        params = parameters()
        groups = [{"params": params[:1]}, {"params": params[1:2], **first}, {"params": params[2:3], **second}]
        opt = getattr(library, name)(groups, **common)
        train(params[:3], opt, 2)
        opt.add_param_group({"params": params[3:], **third})
        train(params, opt)
        assert all(opt.param_groups[1][key] == value for key, value in first.items())
        runs.append((params, opt))
    (ours, mine), (theirs, other) = runs
    assert_close(ours, theirs)
    for p, q in zip(ours, theirs, strict=True):
        assert {*mine.state[p]} - {"step"} == {*other.state[q]} - {"step"}


def test_amsgrad_may_be_switched_on_in_mid_run() -> None:
    """torch needs the new state put there by hand."""
    ours, theirs = parameters(), parameters()
    mine, other = Adam(ours, 0.1), torch.optim.Adam(theirs, 0.1)
    train(ours, mine)
    train(theirs, other)
    mine.param_groups[0]["amsgrad"] = other.param_groups[0]["amsgrad"] = True
    for q in theirs:
        other.state[q]["max_exp_avg_sq"] = torch.zeros_like(q)
    train(ours, mine)
    train(theirs, other)
    assert_close(ours, theirs)


def test_adagrads_sums_start_where_their_group_says() -> None:
    params = parameters()
    opt = Adagrad([{"params": params[:1]}, {"params": params[1:], "initial_accumulator_value": 2.0}], 0.1, eps=0.0)
    train(params, opt, 1)
    for p, start in zip(params, (0.0, 2.0, 2.0, 2.0), strict=True):
        assert torch.equal(opt.state[p]["sum"], start + p.grad.square())  # type: ignore[union-attr]
    opt.state.clear()
    train(params[1:2], opt, 1)
    assert torch.equal(opt.state[params[1]]["sum"], 2.0 + params[1].grad.square())  # type: ignore[union-attr]


@pytest.mark.parametrize("stepped", [False, True])
def test_adagrads_sums_may_be_shared_by_processes(stepped: bool) -> None:
    ours, theirs = parameters(), parameters()
    mine, other = (
        Adagrad(ours, 0.1, initial_accumulator_value=0.5),
        torch.optim.Adagrad(theirs, 0.1, initial_accumulator_value=0.5),
    )
    for params, opt in ((ours, mine), (theirs, other)):
        train(params, opt, 2 * stepped)
        opt.share_memory()
        assert all(opt.state[p]["sum"].is_shared() for p in params)
        shared = [opt.state[p]["sum"].data_ptr() for p in params]
        train(params, opt)
        assert [opt.state[p]["sum"].data_ptr() for p in params] == shared
    assert_close(ours, theirs)


def test_sums_that_are_shared_start_where_their_layer_says_and_frozen_ones_not_at_all() -> None:
    def sums(*, share: bool) -> dict[str, float | None]:
        params = dict(zip("abc", parameters(), strict=False))
        opt: Any = Adagrad([*params.items()], 0.1, eps=0.0)
        opt.set("initial_accumulator_value", 0.5, layers="b")
        opt.freeze("c")
        if share:
            opt.share_memory()
        for param in params.values():
            param.grad = torch.zeros_like(param)
        opt.step()
        return {name: opt.state[p]["sum"].mean().item() if opt.state.get(p) else None for name, p in params.items()}

    assert sums(share=True) == sums(share=False) == {"a": 0.0, "b": 0.5, "c": None}


def test_a_module_and_named_parameters() -> None:
    module = nn.Linear(2, 3)
    for target in (module, module.named_parameters(), [{"params": module.named_parameters()}]):
        assert SGD(target).param_groups[0]["param_names"] == ["weight", "bias"]  # type: ignore[arg-type]


def test_adamw_decays_apart_whoever_saved_the_checkpoint() -> None:
    params = parameters()
    saved = {}
    for name, library in (("neon", neon.torch), ("torch", torch.optim)):
        other = library.Adam(params, weight_decay=0.1)
        train(params, other, 1)
        saved[name] = copy.deepcopy(other.state_dict())
    for state_dict in saved.values():
        opt = AdamW(params)
        opt.load_state_dict(state_dict)
        assert opt.param_groups[0]["decoupled_weight_decay"] is True
        assert opt.param_groups[0]["weight_decay"] == 0.1
