"""Counts of updates past 2²⁴, where torch's float32 `step` leaves numbers out: what goes by them stays exact."""

from __future__ import annotations

import copy
import gc
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from other_versions import needs_interpreter
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

import neon.torch
from neon.engine.backends import use_backend
from neon.optimizers import GradientDescentMomentum, MultiOptimizer, Optimizer
from neon.stepping.exact_steps import exact_steps
from neon.stepping.overrides import KEY, as_text

pytestmark = pytest.mark.usefixtures("one_thread")
LIMIT = 2**24


class Model(nn.Module):
    """Weights whose rounding at random shows which update it was, and one that a rate with a decay shows."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Parameter(torch.ones(512, dtype=torch.bfloat16))
        self.wide = nn.Parameter(torch.ones(3, dtype=torch.float64))


def low_bits() -> Optimizer:
    return GradientDescentMomentum(1e-4, 0.9, stochastic_round=True)


def dropped_in(params: Any) -> Any:
    return neon.torch.Adagrad(params, lr=1e-3, lr_decay=0.5, stochastic_round=True)


MAKERS: dict[str, Callable[[Model], Any]] = {
    "module": lambda model: low_bits().attach(model),
    "parameters": lambda model: low_bits().attach(model.parameters()),
    "groups": lambda model: low_bits().attach([{"params": [p]} for p in model.parameters()]),
    "mapping": lambda model: MultiOptimizer({"default": low_bits(), "wide": low_bits()}).attach(model),
    "in_backward": lambda model: low_bits().attach(model, in_backward=True),
    "drop-in": lambda model: dropped_in(model.parameters()),
    "named drop-in": lambda model: dropped_in(model.named_parameters()),
}


def train(model: Model, optimizer: Any, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        (model.low.sum().double() + model.wide.sum()).backward()
        optimizer.step()


def begun(make: str) -> tuple[Model, Any]:
    """A run that stands before the last numbers that float32 holds; one of the parameters is a step behind."""
    model = Model()
    optimizer = MAKERS[make](model)
    train(model, optimizer, 1)
    for behind, p in enumerate(model.parameters()):
        optimizer.state[p]["step"].fill_(LIMIT - 2 - behind)
    train(model, optimizer, 4)
    return model, optimizer


Run = tuple[Model, Any]


def from_file(run: Run, make: str) -> Run:
    file = io.BytesIO()
    torch.save((run[0].state_dict(), run[1].state_dict()), file)
    file.seek(0)
    weights, states = torch.load(file, weights_only=True)
    model = Model()
    model.load_state_dict(weights)
    optimizer = MAKERS[make](model)
    optimizer.load_state_dict(states)
    return model, optimizer


def through_distributed_checkpoints(run: Run, make: str, *, flat: bool = False) -> Run:
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    states = copy.deepcopy(get_optimizer_state_dict(*run, options=options))
    model = Model()
    model.load_state_dict(run[0].state_dict())
    optimizer = MAKERS[make](model)
    set_optimizer_state_dict(model, optimizer, states, options=options)
    return model, optimizer


def loaded_again(run: Run, make: str) -> Run:
    run[1].load_state_dict(run[1].state_dict())
    return run


def planned_anew(run: Run, make: str) -> Run:
    run[1]._restart()
    return run


def with_a_new_group(run: Run, make: str) -> Run:
    run[1].add_param_group({"params": [nn.Parameter(torch.ones(2))]})
    return run


def with_clones_of_counts(run: Run, make: str) -> Run:
    for state in run[1].state.values():
        state["step"] = state["step"].clone()
    return run


def after_an_error(run: Run, make: str) -> Run:
    model, optimizer = run
    model.low.grad, model.wide.grad = torch.ones_like(model.low).to_sparse(), None
    with pytest.raises(ValueError, match="sparse"):
        optimizer.step()
    model.low.grad = None
    return run


def frozen_for_a_while(run: Run, make: str) -> Run:
    run[1].freeze("low")
    run[1]._restart()
    run[1].unfreeze("low")
    return run


DISTURBANCES: dict[str, Callable[..., Run]] = {
    "file": from_file,
    "distributed checkpoint": through_distributed_checkpoints,
    "flat distributed checkpoint": lambda run, make: through_distributed_checkpoints(run, make, flat=True),
    "loaded again": loaded_again,
    "deepcopy": lambda run, make: copy.deepcopy(run),
    "pickle": lambda run, make: pickle.loads(pickle.dumps(run)),
    "planned anew": planned_anew,
    "new group": with_a_new_group,
    "clones": with_clones_of_counts,
    "error": after_an_error,
    "frozen": frozen_for_a_while,
}


@pytest.mark.parametrize("disturb", DISTURBANCES)
@pytest.mark.parametrize("make", MAKERS)
def test_updates_past_the_numbers_of_float32_are_counted_exactly(make: str, disturb: str) -> None:
    if disturb == "frozen" and make in ("parameters", "groups", "drop-in"):
        pytest.skip("layers are frozen by name")
    undisturbed = begun(make)
    train(*undisturbed, 6)
    run = begun(make)
    for _ in range(6):
        run = DISTURBANCES[disturb](run, make)
        train(*run, 1)
    for found, expected in zip(run[0].parameters(), undisturbed[0].parameters(), strict=True):
        assert torch.equal(found, expected)
        shown = run[1].state[found]["step"]
        assert (shown.dtype, shown.shape) == (torch.float32, ())
        assert shown == undisturbed[1].state[expected]["step"]


def test_bits_are_fresh_at_each_update() -> None:
    model, optimizer = begun("module")
    seen = []
    for _ in range(4):
        optimizer.load_state_dict(optimizer.state_dict())
        model.low.data.fill_(1.0)
        optimizer.state[model.low][
            "velocity" if "velocity" in optimizer.state[model.low] else "momentum_buffer"
        ].zero_()
        train(model, optimizer, 1)
        seen.append(model.low.detach().clone())
    assert not any(torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])


def test_what_somebody_writes_to_step_counts() -> None:
    model, optimizer = begun("module")
    other, there = begun("module")
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        q.data.copy_(p)
        for state in (optimizer.state[p], there.state[q]):
            state["step"].fill_(7.0)
    optimizer._restart()
    optimizer.load_state_dict(optimizer.state_dict())
    train(model, optimizer, 2)
    train(other, there, 2)
    assert torch.equal(model.low, other.low)
    assert optimizer.state[model.low]["step"] == 9
    assert exact_steps(optimizer.state_dict()["param_groups"][0]) == {}


def test_checkpoints_name_what_float32_does_not_hold_and_nothing_else() -> None:
    model = Model()
    optimizer = MAKERS["module"](model)
    assert [group[KEY] for group in optimizer.param_groups] == ["{}"]
    train(model, optimizer, 2)
    assert [*map(exact_steps, optimizer.state_dict()["param_groups"])] == [{}]
    model, optimizer = begun("module")
    assert exact_steps(optimizer.state_dict()["param_groups"][0]) == {"wide": LIMIT + 1}
    train(model, optimizer, 1)
    assert exact_steps(optimizer.state_dict()["param_groups"][0]) == {"low": LIMIT + 3}


def test_a_checkpoint_without_exact_counts_goes_by_step() -> None:
    model, optimizer = begun("module")
    saved = copy.deepcopy(optimizer.state_dict())
    for group in saved["param_groups"]:
        group[KEY] = "{}"
    optimizer.load_state_dict(saved)
    train(model, optimizer, 1)
    assert [optimizer.state[p]["step"].item() for p in model.parameters()] == [LIMIT + 4, LIMIT]
    saved["state"][1]["step"] = LIMIT + 1  # a number of Python's is as exact as it is
    optimizer.load_state_dict(saved)
    train(model, optimizer, 1)
    assert optimizer.state[model.wide]["step"].item() == LIMIT + 2


def test_torchs_own_class_takes_such_a_checkpoint() -> None:
    model, optimizer = begun("drop-in")
    theirs = torch.optim.Adagrad(model.parameters())
    theirs.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    again = MAKERS["drop-in"](model)
    again.load_state_dict(theirs.state_dict())
    assert again.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]


@pytest.mark.parametrize("counts", [[], {"low": "many"}, "", 5])
def test_what_are_no_counts_is_refused(counts: Any) -> None:
    model, optimizer = begun("module")
    saved = optimizer.state_dict()
    saved["param_groups"][0][KEY] = as_text({}, {"exact_steps": counts})
    with pytest.raises(ValueError, match="exact_steps in a group's overrides must be whole numbers"):
        optimizer.load_state_dict(saved)
    train(model, optimizer, 1)


@needs_interpreter
def test_counts_on_a_device_go_on() -> None:
    """Steps that can be captured are counted there, where a float32 would stand still."""
    runs = []
    for backend in ("numba", "triton"):
        with use_backend(backend):
            p = nn.Parameter(torch.ones(300, dtype=torch.bfloat16))
            options = {"capturable": True} if backend == "triton" else {}
            optimizer = low_bits().attach([p], **options)

            def step(p: Any = p, optimizer: Any = optimizer) -> None:
                p.grad = torch.ones_like(p)
                optimizer.step()

            step()
            optimizer.state[p]["step"].fill_(LIMIT - 2)
            for _ in range(6):
                step()
            optimizer._restart()
            step()
            assert optimizer.state[p]["step"].item() == LIMIT + 4  # + 5, rounded
            optimizer.load_state_dict(optimizer.state_dict())
            step()
            runs.append((p.detach().clone(), optimizer.state[p]["step"].item()))
    assert torch.equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1] == LIMIT + 6


def test_layers_are_counted_exactly() -> None:
    def run(disturbed: bool) -> torch.Tensor:
        w = torch.ones(512, dtype=torch.bfloat16)
        entry: Any = ((w, torch.ones_like(w)), [])

        class Layer:
            def get_params(self) -> Any:
                return entry

        low_bits().optimize([Layer()], 0)
        entry[1][0]._neon_step.fill_(LIMIT - 1)
        optimizer = low_bits()
        for _ in range(6):
            (low_bits() if disturbed else optimizer).optimize([Layer()], 0)
        assert entry[1][0]._neon_step == LIMIT + 5
        return w

    assert torch.equal(run(True), run(False))


def test_rows_are_told_apart_past_32_bits() -> None:
    """Groups and counts that go into one kernel do not take each other's numbers."""
    params = [nn.Parameter(torch.ones(512, dtype=torch.bfloat16)) for _ in range(2)]
    optimizer = low_bits().attach([{"params": [params[0]], "lr": 0.5}, {"params": [params[1]], "lr": 1e-4}])
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    optimizer.state[params[0]]["step"].fill_(2.0**32)
    optimizer.state[params[1]]["step"].fill_(0.0)
    before = params[0].detach().clone()
    optimizer.step()
    assert (before - params[0]).mean() > 0.4


# -- what is saved of one parameter ----------------------------------------------------------------


def size(value: Any) -> int:
    file = io.BytesIO()
    torch.save(value, file)
    return len(file.getvalue())


@pytest.mark.parametrize("capturable", [False, pytest.param(True, marks=needs_interpreter)])
def test_the_saved_state_of_a_parameter_holds_one_count(capturable: bool) -> None:
    sizes = []
    for many in (1, 300):
        params = [nn.Parameter(torch.ones(())) for _ in range(many)]
        with use_backend("triton" if capturable else "numba"):
            optimizer = low_bits().attach(params, **({"capturable": True} if capturable else {}))
            for p in params:
                p.grad = torch.ones_like(p)
            optimizer.step()
        sizes.append(
            [size(optimizer.state_dict()["state"][0]), *([] if capturable else [size(optimizer.state[params[0]])])]
        )
    assert sizes[0] == sizes[1]


def test_a_count_that_is_put_in_by_hand_stays() -> None:
    [param] = params = [torch.ones(3, requires_grad=True)]
    opt = neon.torch.Adam(params)
    param.grad = torch.ones(3)
    opt.step()
    own = torch.tensor(9.0)
    opt.state[param]["step"] = own
    opt.step()
    opt.step()
    assert own.item() == 11.0
    assert opt.state[param]["step"] is own


@pytest.mark.parametrize("how", ["restarted", "loaded", "copied", "pickled"])
def test_counts_that_nobody_else_holds_are_counted_together(how: str) -> None:
    """One by one are only those that were put in from outside: they cost time in every step."""
    optimizer: Any = neon.torch.Adam([torch.ones(3, requires_grad=True) for _ in range(3)])

    def step() -> None:
        for p in optimizer.param_groups[0]["params"]:
            p.grad = torch.ones(3)
        optimizer.step()
        gc.collect()

    step()
    if how == "restarted":
        optimizer._restart()
    elif how == "loaded":
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    else:
        optimizer = copy.deepcopy(optimizer) if how == "copied" else pickle.loads(pickle.dumps(optimizer))
    step()
    assert not optimizer._stepper._plan.counts._others
    assert [state["step"].item() for state in optimizer.state.values()] == [2.0, 2.0, 2.0]
