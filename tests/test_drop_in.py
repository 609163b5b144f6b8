"""The drop-in classes beyond torch's database: signatures, values, options, groups, and what they refuse."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
from other_versions import skip_added_group
from torch import nn
from torch.nn.utils import clip_grad_value_, get_total_norm

import neon.torch
from neon.torch import SGD, Adagrad, Adam, AdamW, AttachedOptimizer, Lion, RMSprop
from neon.torch.described import GraphOptions, Options

pytestmark = pytest.mark.usefixtures("one_thread")

SHARED = ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta"]
STEPS = 8
BOUND = 2e-15  # float64, relative to the largest entry; seen: 8e-16

Case = dict[str, Any]


def parameters(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(3)
    return [
        nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype))
        for shape in ((3, 4), (4,), (), (2, 3))
    ]


def give(params: Any, step: int) -> None:
    for number, p in enumerate(params):
        generator = torch.Generator().manual_seed(100 * step + number)
        p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)


def train(params: Any, opt: Any, steps: int = STEPS) -> None:
    for step in range(steps):
        give(params, step)
        opt.step()


def assert_close(found: list[nn.Parameter], expected: list[nn.Parameter]) -> None:
    for p, q in zip(found, expected, strict=True):
        assert float((p - q).detach().abs().max()) <= BOUND * float(q.detach().abs().max())


@pytest.mark.parametrize("name", [*SHARED, "Lion"])
def test_it_is_rebuilt_from_its_defaults(name: str) -> None:
    """As wrappers do that shard an optimizer or hand it to other processes."""
    given = {"lr": 0.25, "weight_decay": 0.125, "maximize": True, "state_dtype": "bfloat16", "gradient_clip_value": 2.0}
    optimizer = getattr(neon.torch, name)(parameters(), **given)
    again = type(optimizer)(parameters(), **optimizer.defaults)
    assert again.defaults == optimizer.defaults
    values = [{k: v for k, v in o.param_groups[0].items() if k != "params"} for o in (optimizer, again)]
    assert values[0] == values[1]


def test_decay_of_adamw_is_decoupled() -> None:
    with pytest.raises(ValueError, match=r"decoupled_weight_decay=True\. Received: False\. Use Adam\."):
        AdamW(parameters(), decoupled_weight_decay=False)


# -- arguments -------------------------------------------------------------------------------------


def test_all_of_them_are_exported() -> None:
    assert set(neon.torch.__all__) == {*SHARED, "Lion", "AttachedOptimizer"}
    assert issubclass(AdamW, Adam)  # as in torch
    assert issubclass(Lion, AttachedOptimizer)


@pytest.mark.parametrize("name", SHARED)
def test_arguments_are_torchs(name: str) -> None:
    ours = dict(inspect.signature(getattr(neon.torch, name)).parameters)
    theirs = inspect.signature(getattr(torch.optim, name)).parameters
    more = [*ours][len(theirs) :]
    assert [*ours] == [*theirs, *more]
    assert all(ours[option].kind is inspect.Parameter.KEYWORD_ONLY for option in more)
    assert {*GraphOptions.__annotations__} <= {*ours} | ({"capturable"} - {*theirs})
    for key, parameter in theirs.items():
        assert (ours[key].kind, ours[key].default) == (parameter.kind, parameter.default), key


def test_options_are_the_attached_optimizers_and_the_rules() -> None:
    attached = {
        name
        for name, parameter in inspect.signature(AttachedOptimizer.__init__).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    rules = {"gradient_clip_value", "gradient_clip_norm", "param_clip_value", "stochastic_round", "state_dtype"}
    rules |= {"master", "weight_average", "lr_scale", "seed"}
    assert {*Options.__annotations__} == (attached | rules) - {"capturable"}  # torch's classes have that of their own
    with pytest.raises(TypeError, match=r"^Lion has no argument 'momentum'\. Its arguments: params, lr, betas, .*seed"):
        Lion(parameters(), momentum=0.9)  # type: ignore[call-arg]


def outcome(library: Any, name: str, **arguments: Any) -> type[Exception] | None:
    try:
        getattr(library, name)(parameters(), **arguments)
    except Exception as error:
        return type(error)
    return None


def numbers(name: str) -> list[str]:
    signature = inspect.signature(getattr(torch.optim, name))
    return [key for key, p in signature.parameters.items() if type(p.default) in (int, float)]


GIVEN: list[Any] = [-1.0, -1e-12, 0, 0.0, 1e-12, 0.5, 1, 1.0, 1.5, 100, torch.tensor(0.5), torch.tensor([-0.5])]


@pytest.mark.parametrize(("name", "argument"), [(name, argument) for name in SHARED for argument in numbers(name)])
def test_numbers_are_allowed_as_torch_allows_them(name: str, argument: str) -> None:
    given = [*GIVEN, *(() if argument == "dampening" else ("0.1", None, (0.9,)))]  # of that torch checks nothing
    found = {str(value): outcome(neon.torch, name, **{argument: value}) for value in given}
    assert found == {str(value): outcome(torch.optim, name, **{argument: value}) for value in given}
    if argument == "lr":
        assert found["-1.0"] is ValueError
        assert found["0.1"] is TypeError


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *(("Adam", {"betas": betas}) for betas in ((0.0, 0.0), [0.5, 0.9], (0.9, 1.0), (-0.1, 0.9), (0, 0.9), 0.9)),
        ("AdamW", {"betas": (torch.tensor([[0.9]]), torch.tensor([0.99]))}),
        *(("SGD", {"nesterov": True, **given}) for given in ({}, {"momentum": 1.5}, {"momentum": 1, "dampening": 1})),
        *(
            (name, {"fused": True, flag: True})
            for name in ("SGD", "Adam", "AdamW", "Adagrad")
            for flag in ("foreach", "differentiable")
        ),
        *((name, {"foreach": False, "fused": None} if name != "RMSprop" else {"foreach": True}) for name in SHARED[:5]),
    ],
)
def test_arguments_go_together_as_in_torch(name: str, arguments: Case) -> None:
    assert outcome(neon.torch, name, **arguments) == outcome(torch.optim, name, **arguments)


@pytest.mark.parametrize("argument", ["lr", "momentum"])
def test_arguments_are_checked_where_every_group_has_its_own_value(argument: str) -> None:
    for library in (neon.torch, torch.optim):
        with pytest.raises(ValueError, match=r"-0\.5"):
            library.RMSprop([{"params": parameters(), argument: 0.5}], **{argument: -0.5})


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_betas_in_tensors(name: str) -> None:
    one, other = parameters(), parameters()
    betas = (torch.tensor([0.5]), torch.tensor([[0.75]]))
    opt = getattr(neon.torch, name)(one, betas=betas)
    assert [beta.shape for beta in opt.param_groups[0]["betas"]] == [(), ()]  # torch's too
    train(one, opt)
    train(other, getattr(neon.torch, name)(other, betas=(0.5, 0.75)))
    assert all(map(torch.equal, one, other))


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


@pytest.mark.parametrize("option", CLIPS)
@pytest.mark.parametrize("name", SHARED)
def test_clipping_goes_around_torchs_rule(name: str, option: str) -> None:
    options, arguments = CLIPS[option], {"lr": 0.1, "weight_decay": 0.1}
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
    assert not all(map(torch.equal, ours, plain))


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

SIZED: dict[str, tuple[str, Case]] = {
    "SGD": ("SGD", {"momentum": 0.9}),
    "Adam": ("Adam", {}),
    "AMSGrad": ("AdamW", {"amsgrad": True}),
    "RMSprop": ("RMSprop", {"momentum": 0.9}),
    "Adagrad": ("Adagrad", {}),
    "Adadelta": ("Adadelta", {}),
}


def large(dtype: torch.dtype, seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(64, 96, generator=generator).to(dtype))]


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


def saved(opt: Any) -> Any:
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=True)


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


# -- what is refused -------------------------------------------------------------------------------


def sparse() -> None:
    layer = nn.Embedding(3, 2, sparse=True)
    layer(torch.tensor([1])).sum().backward()
    SGD(layer.parameters()).step()


def twice() -> None:
    [p, *_] = parameters()
    with pytest.warns(UserWarning, match="duplicate parameters"):
        opt = SGD([p, p])
    give([p], 0)
    opt.step()


def complex_() -> None:
    p = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    p.grad = torch.ones_like(p)
    Adam([p]).step()


def in_a_group(**values: Any) -> None:
    [p, *_] = parameters()
    SGD([{"params": [p], **values}])


# The beginning of a line in docs/pytorch.md, "What is refused": what torch.optim takes and these classes do not.
REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "`capturable=True`": (lambda: Adam(parameters(), capturable=True), ValueError, "^capturable=True asks for"),
    "`differentiable=True`": (
        lambda: RMSprop(parameters(), differentiable=True), ValueError, "^differentiable=True asks for",
    ),
    "NaN and infinities": (lambda: SGD(parameters(), torch.nan), ValueError, "^lr must be a finite number.*lr=nan"),
    "Flags that are not `True` or `False`": (
        lambda: Adam(parameters(), amsgrad=1), TypeError, "^amsgrad must be True or False.*amsgrad=1",  # type: ignore[arg-type]
    ),
    "Values of groups": (lambda: in_a_group(momentum=-0.9), ValueError, r"^momentum must be .*momentum=-0\.9"),
    "A parameter twice in a group": (twice, ValueError, "is the same parameter as"),
    "Sparse gradients": (sparse, ValueError, "gradient of parameter .* is sparse"),
    "Complex parameters": (complex_, TypeError, r"has dtype torch\.complex64"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what: str) -> None:
    attempt, error, message = REFUSED[what]
    with pytest.raises(error, match=message):
        attempt()


def test_the_documentation_lists_what_is_refused() -> None:
    text = (Path(__file__).parent.parent / "docs" / "pytorch.md").read_text(encoding="utf-8")
    section = text.split("\n## What is refused\n")[1].split("\n## ")[0]
    assert re.findall(r"^- (.*?)(?:: |, )", section, re.M) == [*REFUSED]


@pytest.mark.parametrize("flag", ["capturable", "differentiable"])
def test_what_is_refused_is_refused_everywhere(flag: str) -> None:
    params = parameters()
    train(params, opt := Adam(params[:2]))
    for attempt in (
        lambda: Adam([{"params": params, flag: True}]),
        lambda: opt.add_param_group({"params": params[2:], flag: True}),
        lambda: opt.load_state_dict(torch.optim.Adam(params[:2], **{flag: True}).state_dict()),
    ):
        before = copy.deepcopy(opt.state_dict())
        with pytest.raises(ValueError, match=f"{flag}=True asks for"):
            attempt()
        assert str(opt.state_dict()) == str(before)
