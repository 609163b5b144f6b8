"""Checkpoints that do not fit: each is refused whole, in words that say what differs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from checkpoint_runs import give
from constructors import DROP_INS, RULES, described, shaped
from stepped_parameters import bits, drop_in, one, parameters, saved_by, stepped, torchs
from torch import nn

import neon.torch
from neon.optimizers import (
    Adam,
    AdamW,
    GradientDescentMomentum,
    MultiOptimizer,
)
from neon.stepping.overrides import as_text
from neon.torch import AttachedOptimizer

pytestmark = pytest.mark.usefixtures("one_thread")


# Rules whose first checkpoint, without states, could be taken for another's.
FIRST = ["SGD", "Adam", "RMSprop", "Adagrad", "Adadelta", "Lion"]


@pytest.mark.parametrize("there", FIRST)
@pytest.mark.parametrize("here", FIRST)
def test_a_checkpoint_without_states_is_known_by_its_groups(here: str, there: str) -> None:
    def made(name: str) -> AttachedOptimizer:
        return getattr(neon.torch, name)([nn.Parameter(torch.ones(2))], lr=0.5)

    opt = made(here)
    if here == there:
        opt.load_state_dict(made(there).state_dict())
        return
    with pytest.raises(ValueError, match=r"has no \w+.* in the checkpoint|which \w+ does not have"):
        opt.load_state_dict(made(there).state_dict())


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta"])
def test_what_torch_and_earlier_versions_have_no_word_of_stays_as_it_is(name: str) -> None:
    """Options that came later than a checkpoint: those of neon's, and those that torch's classes were given in time."""
    opt = drop_in(name, gradient_clip_norm=1.0, weight_average=0.5, maximize=True)
    saved = getattr(torch.optim, name)([nn.Parameter(torch.ones(2))], lr=0.25).state_dict()
    for key in ("maximize", "foreach", "fused", "capturable", "differentiable", "decoupled_weight_decay"):
        saved["param_groups"][0].pop(key, None)
    saved["param_groups"][0]["params"] = [0, 1]
    opt.load_state_dict(saved)
    [group] = opt.param_groups
    kept = (group["lr"], group["gradient_clip_norm"], group["weight_average"], group["maximize"])
    assert kept == (0.25, 1.0, 0.5, True)


MAKERS: dict[str, Callable[[Any], AttachedOptimizer]] = {
    **{name: described(name).attach for name in RULES},
    **{f"torch.{name}": cls for name, cls in DROP_INS.items()},
    "torch.SGD with momentum": lambda params: neon.torch.SGD(params, momentum=0.9),
    "torch.Adam with amsgrad": lambda params: neon.torch.Adam(params, amsgrad=True),
    "torch.RMSprop with all": lambda params: neon.torch.RMSprop(params, centered=True, momentum=0.9),
}


@cache
def states_of(kind: str) -> tuple[AttachedOptimizer, dict[str, Any]]:
    """An optimizer after a step, and the state of its parameter, which nobody is to change."""
    param = nn.Parameter(torch.ones(shaped(kind.removeprefix("torch."), 2)))
    opt = MAKERS[kind]([param])
    param.grad = torch.ones_like(param)
    opt.step()
    return opt, dict(opt.state[param])


@pytest.mark.parametrize("here", MAKERS)
def test_states_of_another_rule_are_refused_whatever_the_groups_say(here: str) -> None:
    """Counted, or without a count as those of torch.optim.SGD."""
    opt, own = states_of(here)
    for there in MAKERS:
        theirs = states_of(there)[1]
        if own.keys() <= theirs.keys() or theirs.keys() == {"step"}:
            continue
        for state in (theirs, {key: value for key, value in theirs.items() if key != "step"}):
            saved = opt.state_dict() | {"state": {0: state}}
            with pytest.raises(ValueError, match=r"has no \w+.* in the checkpoint, only"):
                opt.load_state_dict(saved)


@pytest.mark.parametrize("momentum", [0.9, 0.5])
def test_momentum_of_torchs_is_not_taken_for_velocity(momentum: float) -> None:
    opt = stepped(GradientDescentMomentum(0.1, 0.9), named=False, w=(2,), v=(3,))
    with pytest.raises(ValueError, match=r"has no velocity in the checkpoint, only momentum_buffer"):
        opt.load_state_dict(torchs("SGD", momentum=momentum))
    with pytest.raises(ValueError, match=r"has no momentum_buffer in the checkpoint, only step, velocity"):
        drop_in("SGD", momentum=momentum).load_state_dict(opt.state_dict())


def test_a_layer_with_a_very_long_name_loads_by_its_own_values() -> None:
    def made() -> AttachedOptimizer:
        params = {f"{'x' * 80}.{name}": nn.Parameter(torch.ones(2)) for name in "ab"}
        opt = neon.torch.Adam([*params.items()], amsgrad=True)
        opt.set("amsgrad", False, layers=f"{'x' * 80}.a")
        for param in params.values():
            param.grad = torch.ones(2)
        opt.step()
        return opt

    opt, other = made(), made()
    opt.step()
    other.load_state_dict(opt.state_dict())
    assert bits(other.state_dict()) == bits(opt.state_dict())


def test_messages_about_groups_are_short() -> None:
    long = "x" * 5000
    param = nn.Parameter(torch.ones(2))
    mapping = MultiOptimizer({"default": Adam(), long: Adam()}, gradient_clip_norm=1.0)
    group = {"params": [("w", param)], "optimizer": long}
    opt = mapping.attach([group])
    opt.param_groups[0]["outer_clip_norms"] = ()
    with pytest.raises(ValueError, match="outer_clip_norms must have 1 bounds") as refused:
        opt._rules.settings(opt.param_groups[0])
    assert len(str(refused.value)) < 500
    opt.param_groups[0]["overrides"] = long
    with pytest.raises(ValueError, match="must be a JSON object") as refused:
        opt.step()
    assert len(str(refused.value)) < 500
    with pytest.raises(ValueError, match=r"has no 'state' and no 'param_groups'") as refused:
        opt.load_state_dict({f"{long}{i}": {} for i in range(50)} | {long: {"state": {}, "param_groups": []}})
    assert len(str(refused.value)) < 500


def grouped(*places: int) -> dict[str, Any]:
    """A checkpoint of one group for each parameter, in this order."""
    made = [*parameters({"w": (2,), "v": (3,)}).items()]
    opt = Adam().attach([{"params": [made[place]]} for place in places])
    opt.step()
    return opt.state_dict()


def mapped(first: str, second: str, norm: float | None = None) -> dict[str, Any]:
    mapping = MultiOptimizer({"default": Adam(), "v": Adam()}, gradient_clip_norm=norm)
    made = parameters({"w": (2,), "v": (3,)})
    opt = mapping.attach(
        [{"params": [("w", made["w"])], "optimizer": first}, {"params": [("v", made["v"])], "optimizer": second}]
    )
    opt.step()
    return opt.state_dict()


def changed(part: str, place: int, **values: Any) -> Callable[[], dict[str, Any]]:
    """A checkpoint of Adam's in which a group's or a parameter's values are others; `...` takes one out."""

    def make() -> dict[str, Any]:
        saved = saved_by(Adam(), w=(2,), v=(3,))
        merged = {**saved[part][place], **values}
        saved[part][place] = {k: v for k, v in merged.items() if v is not ...}
        return saved

    return make


def two() -> AttachedOptimizer:
    made = [*parameters({"w": (2,), "v": (3,)}).items()]
    return Adam().attach([{"params": [item]} for item in made])


def two_of_a_mapping() -> AttachedOptimizer:
    mapping = MultiOptimizer({"default": Adam(), "v": Adam()})
    return mapping.attach(list(parameters({"w": (2,), "v": (3,)}).items()))


def in_backward() -> AttachedOptimizer:
    made = parameters({"w": (2,), "v": (3,)})
    return Adam().attach(list(made.items()), in_backward=True, gradient_clip_previous_norm=1.0)


def with_values(layers: str, **values: Any) -> dict[str, Any]:
    """A checkpoint in which a layer has values of its own."""
    saved = saved_by(Adam(), w=(2,), v=(3,))
    saved["param_groups"][0]["overrides"] = as_text({layers: values})
    return saved


Refusal = tuple[Callable[[], Any], Callable[[], AttachedOptimizer], str]
REFUSED: dict[str, Refusal] = {
    "fewer groups": (
        lambda: saved_by(Adam(), w=(2,), v=(3,)),
        two,
        r"parameter groups: 1 in the checkpoint \('default' of 2\), 2 here \('default' of 1, 'default' of 1\)",
    ),
    "more groups": (lambda: grouped(0, 1), one, "parameter groups: 2 in the checkpoint .*, 1 here"),
    "a smaller group": (
        lambda: saved_by(Adam(), named=False, w=(2,)),
        one,
        r"group 0 \('default'\), parameters: 1 in the checkpoint, 2 here",
    ),
    "groups in another order": (lambda: grouped(1, 0), two, r"group 0 here \('default'\) is group 1 in the checkpoint"),
    "another key": (
        lambda: mapped("v", "default"),
        two_of_a_mapping,
        "group 0 belongs to 'v' in the checkpoint, to 'default' here",
    ),
    "names": (
        lambda: saved_by(Adam(), w=(2,), **{f"layers.{i}.w": (3,) for i in range(5)}),
        lambda: stepped(Adam(), w=(2,), v=(3,), **{"layer.0.w": (3,)}),
        r"\('default'\), only in the checkpoint: 'layers.0.w' \(near 'layer.0.w'\), .* and 2 more\n.* here: 'v',",
    ),
    "shapes": (
        lambda: saved_by(Adam(), v=(3, 3), w=(2,)),
        one,
        r"  v: exp_avg has shape \(3, 3\) in the checkpoint; the parameter has shape \(3,\)\nLoad",
    ),
    "another rule": (
        lambda: saved_by(GradientDescentMomentum(0.1, 0.9), w=(2,), v=(3,)),
        one,
        "w: has no exp_avg and no exp_avg_sq in the checkpoint, only step, velocity",
    ),
    "another rule of torch's": (lambda: torchs("SGD", momentum=0.9), one, "momentum=0.9, which adam does not have"),
    "amsgrad": (lambda: torchs("Adam", amsgrad=True), one, "saved with amsgrad=True, which adam does not have"),
    "decay apart": (
        lambda: torchs("AdamW", weight_decay=0.1),
        one,
        "its weight decay went apart from the averages; that of adam goes through them",
    ),
    "decay through": (
        lambda: torchs("Adam", weight_decay=0.1),
        lambda: stepped(AdamW(), w=(2,), v=(3,)),
        "its weight decay went through the averages; that of adamw goes apart from them",
    ),
    "a rate": (changed("param_groups", 0, lr=-1.0), one, r"group 0 \('default'\): lr must be a finite .* lr=-1.0"),
    "betas": (
        changed("param_groups", 0, betas=(0.9, float("nan"))),
        one,
        r"betas\[1\] must be .*Received: betas\[1\]=nan",
    ),
    "an option": (changed("param_groups", 0, stochastic_round="yes"), one, "stochastic_round must be"),
    "no average": (
        changed("state", 1, exp_avg_sq=...),
        one,
        "v: has no exp_avg_sq in the checkpoint, only step, exp_avg",
    ),
    "no count": (changed("state", 0, step=...), one, "w: has no step in the checkpoint, only exp_avg, exp_avg_sq"),
    "a count alone": (
        changed("state", 0, exp_avg=..., exp_avg_sq=...),
        one,
        "w: has no exp_avg and no exp_avg_sq in the checkpoint, only step",
    ),
    "a negative count": (changed("state", 0, step=-1), one, "w: step is -1 in the checkpoint; it must be a number"),
    "many counts": (changed("state", 0, step=torch.zeros(2)), one, "w: step is tensor"),
    "integers": (
        changed("state", 0, exp_avg=torch.zeros(2, dtype=torch.int64)),
        one,
        "w: exp_avg has dtype torch.int64",
    ),
    "a number": (changed("state", 0, exp_avg=0.5), one, "w: exp_avg is 0.5 in the checkpoint; it must be a tensor"),
    "an average of one number": (changed("state", 0, exp_avg=torch.tensor(0.5)), one, r"w: exp_avg has shape \(\)"),
    "a group without values": (
        lambda: {"state": {}, "param_groups": [{"params": [0, 1]}]},
        one,
        r"group 0 \('default'\): has no lr, betas, eps in the checkpoint",
    ),
    "a group without a rate": (changed("param_groups", 0, lr=...), one, "has no lr in the checkpoint"),
    "a group without a flag that is set here": (
        lambda: torchs("Adam", amsgrad=...),
        lambda: drop_in("Adam", amsgrad=True),
        "has no amsgrad in the checkpoint",
    ),
    "very many groups": (
        lambda: {"state": {}, "param_groups": [{"params": [place]} for place in range(468)]},
        two,
        r"parameter groups: 468 in the checkpoint \('unnamed' of 1, .* of 1 and 465 more\), 2 here",
    ),
    "very long names": (
        lambda: saved_by(Adam(), **{f"{'x' * 5000}{i}": (2,) for i in range(2)}),
        one,
        r"only in the checkpoint: 'x{10,}.*\n.*only here: 'w', 'v'",
    ),
    "a very long value": (
        changed("state", 0, step="1" * 5000),
        one,
        r"w: step is '1{10,}\.\.\.1+.*must be a number of steps",
    ),
    "a norm more": (
        lambda: mapped("default", "v", 1.0),
        two_of_a_mapping,
        r"group 1 \('v'\), norms over several optimizers: 1 in the checkpoint, 0 here",
    ),
    "a norm that comes too late": (
        lambda: saved_by(Adam(gradient_clip_norm=1.0), w=(2,), v=(3,)),
        in_backward,
        r"group 0 \('default'\): gradient_clip_norm cannot be had with in_backward=True",
    ),
    "the norm of the step before": (
        lambda: in_backward().state_dict(),
        one,
        r"group 0 \('default'\): gradient_clip_previous_norm is for in_backward=True",
    ),
    "values of a layer that is not here": (
        lambda: with_values("vv", lr=0.5),
        one,
        r"group 0 \('default'\): values are set for layers that are not here: 'vv' \(near 'v'\)",
    ),
    "a layer's value": (lambda: with_values("v", lr=-1.0), one, "lr must be a finite .* lr=-1.0"),
    "a state of nobody's": (
        lambda: {**saved_by(Adam(), w=(2,), v=(3,)), "state": {7: {"step": 1}}},
        one,
        "parameter 7 of the checkpoint has a state, but is in none of its groups",
    ),
    "all of a checkpoint": (
        lambda: {"model": {}, "optimizer": saved_by(Adam(), w=(2,))},
        one,
        r"has no 'state' and no 'param_groups': .* keys: 'model', 'optimizer'\. Load its part 'optimizer'\.",
    ),
    "no groups": (lambda: {"state": {}}, one, "has no 'param_groups': it is not what"),
    "no dict": (list, one, r"what state_dict\(\) gave, a dict\. Received: list\."),
    "very much": (
        lambda: saved_by(Adam(), **{f"p{i}": (3,) for i in range(40)}),
        lambda: stepped(Adam(), **{f"p{i}": (2,) for i in range(40)}),
        r"Nothing of it was loaded\.\n(  p\d+: exp_avg has .*\n){3}  \.\.\. and 37 more\nLoad it into",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_whole(case: str) -> None:
    make, here, message = REFUSED[case]
    opt = here()
    twin = copy.deepcopy(opt)
    before = bits(opt.state_dict())
    with pytest.raises(TypeError if case == "no dict" else ValueError, match=message) as refused:
        opt.load_state_dict(make())
    assert len(str(refused.value)) < 500
    assert bits(opt.state_dict()) == before
    ends = []
    for each in (opt, twin):
        params = [p for group in each.param_groups for p in group["params"]]
        give(nn.ParameterList(params), 3)
        each.step()
        ends.append(bits([params, each.state_dict()]))
    assert ends[0] == ends[1]


def test_the_states_of_every_rule_are_known_by_their_names() -> None:
    for name in RULES:
        optimizer = described(name)
        assert {*optimizer.settings(optimizer.group()).program.states} <= optimizer._names_of_rules()[0], name


@pytest.mark.parametrize(("rule", "word"), [("Prodigy", "beta3"), ("LAMB", "trust_clip")])
def test_what_has_all_states_of_adam_is_not_taken_for_it(rule: str, word: str) -> None:
    saved = stepped(described(rule), w=(2,), v=(3,)).state_dict()
    with pytest.raises(ValueError, match=f"saved with .*{word}=.*, which adamw does not have"):
        stepped(AdamW(), w=(2,), v=(3,)).load_state_dict(saved)
