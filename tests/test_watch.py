"""What a step asks before it trusts what it knows: where tensors are, what gradients are like, what was written to."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.__future__ import set_swap_module_params_on_conversion
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from neon.engine import plan, versions
from neon.engine.tensors import watch
from neon.engine.tensors.watch import Likeness, Watch
from neon.optimizers import Adam, GradientDescentMomentum, MultiOptimizer, Optimizer, WarmupCosine
from neon.stepping.watched import Watched


def set_data(tensor: Tensor, data: Tensor) -> None:
    tensor.data = data


# name -> what is done to a tensor of shape (4, 6) that a watch remembers
MOVES: dict[str, Callable[[Tensor], Any]] = {
    "other memory": lambda t: set_data(t, t.clone()),
    "fewer rows of the same memory": lambda t: set_data(t, t.data[:2]),
    "transposed in the same memory": lambda t: set_data(t, t.data.view(6, 4).t()),
    "another type in the same memory": lambda t: set_data(t, t.data.view(torch.int32)),
    "half the precision": lambda t: set_data(t, t.data.half()),
    "grown": lambda t: t.data.resize_(400, 400),
    "emptied": lambda t: t.data.untyped_storage().resize_(0),
}


@pytest.fixture(params=["native", "python"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of asking."""
    if request.param == "python":
        monkeypatch.setattr(watch, "_native", lambda: None)
    else:
        assert watch._native() is not None, "torch's stable interface was not found: the quick way goes untested"
    return request.param


@pytest.mark.parametrize("option", ["in_backward", "norms_in_backward", "skip_nonfinite", "statistics", None])
@pytest.mark.parametrize("sharded", [False, True])
def test_a_plan_lasts(sharded: bool, option: str | None, alone: DeviceMesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is asked for, and where `to_local` gives another view of a parameter each time."""
    made, check = [], plan.check_items
    monkeypatch.setattr(plan, "check_items", lambda *args: made.append(check(*args)))
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2))
    if sharded:
        fully_shard(model, mesh=alone)
    optimizer = Adam().attach(model, **({} if option is None else {option: True}))
    for _ in range(4):
        model(torch.ones(3, 6)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert len(made) == (4 if option == "in_backward" else 1)


@pytest.mark.parametrize("move", MOVES)
def test_a_watch_sees_every_move(way: str, move: str) -> None:
    tensors = [torch.zeros(3), torch.zeros(4, 6), torch.zeros(0)]
    remembered = Watch(tensors)
    assert remembered.unchanged()
    MOVES[move](tensors[1])
    assert not remembered.unchanged()


def test_a_watch_sees_other_strides_of_what_is_not_contiguous(way: str) -> None:
    tensor = torch.zeros(4, 4, 4).permute(2, 1, 0)
    remembered = Watch([tensor])
    set_data(tensor, tensor.data.permute(1, 0, 2))
    assert not tensor.is_contiguous()
    assert not remembered.unchanged()


def test_a_watch_does_not_mind_new_values_and_lets_go(way: str) -> None:
    tensor = nn.Parameter(torch.zeros(5))
    remembered = Watch([tensor])
    with torch.no_grad():
        tensor += 1
    tensor.requires_grad_(False)
    assert remembered.unchanged()
    left = weakref.ref(tensor)
    del tensor, remembered
    assert left() is None


UNLIKE = {
    "another size": torch.zeros(7),
    "as many elements in another shape": torch.zeros(2, 3),
    "another type": torch.zeros(6, dtype=torch.float64),
    "strided": torch.zeros(12)[::2],
    "negated lazily": torch.zeros(6)._neg_view(),
    "sparse": torch.zeros(6).to_sparse(),
    "on another device": torch.zeros(6, device="meta"),
    "missing": None,
}


@pytest.mark.parametrize("other", UNLIKE)
def test_likeness(other: str) -> None:
    assert versions._guards_work(), "torch's guards were not found: the quick way goes untested"
    likeness = Likeness([torch.zeros(3), torch.zeros(6)])
    assert likeness.holds([torch.ones(3), torch.ones(6)])
    assert not likeness.holds([torch.ones(3), UNLIKE[other]])


def test_likeness_without_torchs_guards_never_says_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "_guards_work", lambda: False)
    assert not Likeness([torch.zeros(3)]).holds([torch.zeros(3)])


WRITES: dict[str, Callable[[Any], Any]] = {
    "[]": lambda d: d.__setitem__("lr", 2),
    "del": lambda d: d.__delitem__("lr"),
    "update": lambda d: d.update(lr=2),
    "|=": lambda d: d.__ior__({"lr": 2}),
    "setdefault": lambda d: d.setdefault("new", 2),
    "pop": lambda d: d.pop("lr"),
    "popitem": lambda d: d.popitem(),
    "clear": lambda d: d.clear(),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_watched_dict_tells_of_every_write_and_of_no_reading(write: str) -> None:
    changes: set[int] = set()
    watched = Watched.of({"lr": 1}, changes)
    assert (watched["lr"], watched.get("x"), [*watched.items()], watched == {"lr": 1}) == (1, None, [("lr", 1)], True)
    assert repr(watched) == "{'lr': 1}"
    assert not changes
    WRITES[write](watched)
    assert changes == {id(watched)}
    expected = {"lr": 1}
    WRITES[write](expected)
    assert watched == expected


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))])
def test_copies_of_a_watched_dict_are_plain(copied: Callable[[Any], Any]) -> None:
    assert type(copied(Watched.of({"lr": 1}, set()))) is dict
    assert type(copied(Watched.of({"a": {}}, set(), dict))) is defaultdict


def test_a_watched_dict_tells_after_it_is_written_to() -> None:
    """What reads it in the midst of a write has not seen all of it."""
    changes: set[int] = set()
    watched = Watched.of({}, changes)

    def values() -> Iterator[tuple[str, int]]:
        yield "lr", 1
        changes.clear()

    watched.update(values())
    assert changes == {id(watched)}


def pair(*options: Any, **keywords: Any) -> tuple[nn.Linear, torch.optim.Optimizer, nn.Linear, torch.optim.Optimizer]:
    """Two equal layers with equal optimizers, two steps on."""
    torch.manual_seed(0)
    layers = [nn.Linear(4, 3), nn.Linear(4, 3)]
    layers[1].load_state_dict(layers[0].state_dict())
    made = [Adam(*options, learning_rate=0.1, **keywords).attach(layer.parameters()) for layer in layers]
    for layer, optimizer in zip(layers, made, strict=True):
        for seed in (1, 2):
            step(layer, optimizer, seed)
    return layers[0], made[0], layers[1], made[1]


def step(layer: nn.Linear, optimizer: torch.optim.Optimizer, seed: int) -> None:
    torch.manual_seed(seed)
    for param in layer.parameters():
        param.grad = torch.randn_like(param)
    optimizer.step()


def renewed(layer: nn.Linear, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """An optimizer that has not seen a step and knows only what a checkpoint says."""
    fresh = Adam(learning_rate=0.1).attach(layer.parameters())
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    return fresh


def rate_in_place(optimizer: Any) -> None:
    optimizer.param_groups[0]["lr"].fill_(0.3)


# name -> what a user does between two steps
INTERVENTIONS: dict[str, Callable[[nn.Linear, Any], Any]] = {
    "nothing": lambda layer, o: None,
    "another rate": lambda layer, o: o.param_groups[0].update(lr=0.3),
    "clipping begins": lambda layer, o: o.param_groups[0].__setitem__("gradient_clip_norm", 0.01),
    "other betas": lambda layer, o: o.param_groups[0].__setitem__("betas", (0.5, 0.6)),
    "the count": lambda layer, o: o.state[layer.weight]["step"].fill_(7),
    "a state replaced": lambda layer, o: o.state[layer.weight].__setitem__("exp_avg", torch.ones(3, 4)),
    "a state moved": lambda layer, o: set_data(o.state[layer.weight]["exp_avg"], torch.ones(3, 4)),
    "a state written to": lambda layer, o: o.state[layer.weight]["exp_avg_sq"].fill_(0.5),
    "a state forgotten": lambda layer, o: o.state.pop(layer.weight),
    "a parameter moved": lambda layer, o: set_data(layer.weight, torch.ones(3, 4)),
    "a parameter in double precision": lambda layer, o: layer.double(),
}


@pytest.mark.parametrize("intervention", INTERVENTIONS)
def test_what_a_user_changes_between_steps_is_seen(intervention: str) -> None:
    """The step is the one of an optimizer that was made after the change, and so cannot go by what it knew before."""
    layer, optimizer, twin, twin_optimizer = pair()
    INTERVENTIONS[intervention](layer, optimizer)
    INTERVENTIONS[intervention](twin, twin_optimizer)
    twin_optimizer = renewed(twin, twin_optimizer)
    for seed in (3, 4):
        step(layer, optimizer, seed)
        step(twin, twin_optimizer, seed)
    assert torch.equal(layer.weight, twin.weight)
    assert torch.equal(layer.bias, twin.bias)


def test_a_rate_in_a_tensor_is_read_at_every_step_and_checked() -> None:
    layer, optimizer, twin, twin_optimizer = pair()
    optimizer.param_groups[0]["lr"] = torch.tensor(0.1, dtype=torch.float64)
    for rate in (0.3, 0.7):
        optimizer.param_groups[0]["lr"].fill_(rate)
        twin_optimizer.param_groups[0]["lr"] = rate
        step(layer, optimizer, 3)
        step(twin, twin_optimizer, 3)
        assert torch.equal(layer.weight, twin.weight)
    optimizer.param_groups[0]["lr"].fill_(-1.0)
    with pytest.raises(ValueError, match="lr must be a finite number of at least 0"):
        step(layer, optimizer, 4)
    assert torch.equal(layer.weight, twin.weight)


def test_a_refused_value_is_refused_again_and_its_correction_is_taken() -> None:
    layer, optimizer, twin, twin_optimizer = pair()
    optimizer.param_groups[0]["lr"] = -1.0
    for _ in range(2):
        with pytest.raises(ValueError, match="lr must be a finite number of at least 0"):
            step(layer, optimizer, 3)
    optimizer.param_groups[0]["lr"] = 0.1
    step(layer, optimizer, 3)
    step(twin, twin_optimizer, 3)
    assert torch.equal(layer.weight, twin.weight)


def test_a_list_in_a_group_is_read_at_every_step_and_checked() -> None:
    layer, twin = nn.Linear(4, 3), nn.Linear(4, 3)
    twin.load_state_dict(layer.state_dict())
    one, other = (
        MultiOptimizer({"default": GradientDescentMomentum(0.1, 0.9)}, gradient_clip_norm=bound).attach(module)
        for bound, module in ((5.0, layer), (0.1, twin))
    )
    bounds: list[Any] = [5.0]
    one.param_groups[0]["outer_clip_norms"] = bounds
    step(layer, one, 1)
    bounds[0] = 0.1
    layer.load_state_dict(twin.state_dict())
    one.state.clear()
    step(layer, one, 2)
    step(twin, other, 2)
    assert torch.equal(layer.weight, twin.weight)
    bounds[0] = None
    with pytest.raises(TypeError, match=r"outer_clip_norms\[0\] must be a number. Received: .*None"):
        step(layer, one, 3)
    assert torch.equal(layer.weight, twin.weight)


class Half(Optimizer):
    """Half the sum of two factors of the gradient, in a tuple."""

    @staticmethod
    def rule(w: Any, g: Any, *, factors: Any = (1.0, 1.0)) -> Any:
        return w - (factors[0] + factors[1]) * g / 2


def test_a_tensor_in_a_tuple_is_read_at_every_step() -> None:
    param = nn.Parameter(torch.zeros(1))
    optimizer = Half().attach([param])
    factor = torch.tensor(1.0)
    optimizer.param_groups[0]["factors"] = (factor, 1.0)
    for value, expected in ((1.0, -1.0), (1.0, -2.0), (7.0, -6.0)):
        factor.fill_(value)
        param.grad = torch.ones(1)
        optimizer.step()
        assert param.item() == expected


def ended() -> tuple[nn.Linear, Any]:
    """A layer whose optimizer has made three steps, so that the next asks in the quick way."""
    layer, optimizer, _, _ = pair()
    step(layer, optimizer, 3)
    return layer, optimizer


def test_a_gradient_without_memory_is_refused_by_name() -> None:
    layer, optimizer = ended()
    before = layer.bias.detach().clone()
    layer.weight.grad, layer.bias.grad = torch.ones(3, 4), torch.ones(3)
    layer.weight.grad.untyped_storage().resize_(0)
    with pytest.raises(ValueError, match="has no memory of its own"):
        optimizer.step()
    assert torch.equal(layer.bias, before)


@pytest.mark.parametrize("when", [0, 1, 2])
@pytest.mark.parametrize("how", ["one", "all"])
def test_a_group_that_is_replaced_follows_its_schedule(how: str, when: int) -> None:
    layer = nn.Linear(4, 3)
    optimizer = Adam(learning_rate=1.0, schedule=WarmupCosine(4, 10, unit="steps")).attach(layer.parameters())
    rates = []
    for number in range(4):
        if number == when and how == "one":
            optimizer.param_groups[0] = dict(optimizer.param_groups[0])
        elif number == when:
            optimizer.param_groups = [dict(group) for group in optimizer.param_groups]
        step(layer, optimizer, number)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [0.25, 0.5, 0.75, 1.0]
    assert optimizer.param_groups[0]["updates"] == 4


def test_a_parameter_that_is_listed_twice_is_refused() -> None:
    layer, optimizer = ended()
    before = layer.weight.detach().clone()
    optimizer.param_groups[0]["params"].append(layer.weight)
    with pytest.raises(ValueError, match=r"params\[2\] .* is the same parameter as params\[0\]"):
        step(layer, optimizer, 4)
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize("move", [lambda t: t.share_memory_(), lambda t: set_data(t, torch.tensor(3.0))])
def test_a_count_that_is_moved_goes_on(move: Callable[[Tensor], Any]) -> None:
    layer, optimizer = ended()
    move(optimizer.state[layer.weight]["step"])
    step(layer, optimizer, 4)
    assert optimizer.state[layer.weight]["step"].item() == 4


def test_the_states_stay_the_object_that_they_are() -> None:
    layer = nn.Linear(4, 3)
    optimizer: Any = Adam().attach(layer.parameters())
    states = optimizer.state
    step(layer, optimizer, 1)
    own = states[layer.weight]
    states["of somebody else"] = 3
    own["besides"] = torch.ones(2)
    step(layer, optimizer, 2)
    assert optimizer.state is states
    assert states[layer.weight] is own
    assert own["step"].item() == 2
    assert optimizer.state_dict()["state"]["of somebody else"] == 3


def test_a_shallow_copy_leaves_the_groups_of_the_original_alone() -> None:
    layer, optimizer = ended()
    group = optimizer.param_groups[0]
    copy.copy(optimizer)
    assert optimizer.param_groups[0] is group
    group["lr"] = 0.0
    before = layer.weight.detach().clone()
    step(layer, optimizer, 4)
    assert torch.equal(layer.weight, before)


def test_model_and_optimizer_go_with_their_last_reference() -> None:
    gc.disable()
    try:
        layer, optimizer = ended()
        left = weakref.ref(layer.weight), weakref.ref(optimizer)
        del layer, optimizer
        assert [reference() for reference in left] == [None, None]
    finally:
        gc.enable()


def test_a_parameter_that_holds_its_optimizer_can_be_collected() -> None:
    layer, optimizer = ended()
    vars(layer.weight)["optimizer"] = optimizer
    left = weakref.ref(layer.weight)
    del layer, optimizer
    gc.collect()
    assert left() is None


def test_parameters_that_are_swapped() -> None:
    """`torch.utils.swap_tensors` refuses tensors that somebody else refers to in C++."""
    layer, optimizer = ended()
    layer.zero_grad()
    set_swap_module_params_on_conversion(True)
    try:
        layer.double()
    finally:
        set_swap_module_params_on_conversion(False)
    before = layer.weight.detach().clone()
    step(layer, optimizer, 4)
    assert layer.weight.dtype == torch.float64
    assert not torch.equal(layer.weight, before)


# Which of three parameters have gradients, step by step: alone, in turns, one that comes late, none at all.
PATTERNS = {
    "in turns": ["110", "011", "110", "011", "101"],
    "one comes late": ["110", "110", "111", "111", "001"],
    "one stops": ["111", "110", "110", "110", "111"],
    "none at times": ["111", "000", "111", "000", "010"],
}


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_gradients_that_come_and_go(pattern: str, clip: float | None) -> None:
    """As with one optimizer that is made anew, from a checkpoint, for each step."""
    torch.manual_seed(0)
    params = [nn.Parameter(torch.randn(size)) for size in (5, 70000, 3)]
    twins = [nn.Parameter(p.detach().clone()) for p in params]
    rule = Adam(learning_rate=0.1, gradient_clip_norm=clip)
    optimizer, twin = rule.attach(params), rule.attach(twins)
    for present in PATTERNS[pattern]:
        for there, param, other in zip(present, params, twins, strict=True):
            param.grad = torch.randn_like(param) if there == "1" else None
            other.grad = None if param.grad is None else param.grad.clone()
        optimizer.step()
        anew = rule.attach(twins)
        anew.load_state_dict(twin.state_dict())
        anew.step()
        twin = anew
        for param, other in zip(params, twins, strict=True):
            assert torch.equal(param, other)
    assert [int(optimizer.state[p]["step"]) for p in params] == [
        sum(present[place] == "1" for present in PATTERNS[pattern]) for place in range(3)
    ]


def test_no_gradient_is_kept_after_a_step() -> None:
    layer, optimizer, _, _ = pair()
    gradients = []
    for seed in (3, 4):
        step(layer, optimizer, seed)
        gradients.append(weakref.ref(layer.weight.grad))
        layer.zero_grad()
    assert [gradient() for gradient in gradients] == [None, None]
