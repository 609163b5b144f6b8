"""States that are one number of each tensor, and states that start at a value of their group."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from other_versions import needs_interpreter
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

import neon.torch
from neon.engine import use_backend
from neon.engine.program.spaces import ELEMENT
from neon.optimizers import ASGD, GROUP, TENSOR, WEIGHT, Adam, NAdam, Optimizer, Rprop, State
from neon.optimizers.functions import norm, sqrt, total

pytestmark = pytest.mark.usefixtures("one_thread")

BACKENDS = ["eager", "numba", pytest.param("triton", marks=needs_interpreter)]
SHAPES = [(3,), (70001,), (2, 5), (0,), ()]


class Normed(Optimizer):
    """Steps by g over a mean of ‖g‖², which each tensor has of its own, and counts what it has seen."""

    @staticmethod
    def rule(w, g, size: Any = State("start", of=TENSOR), sum_of_all: Any = State(of=TENSOR), *, lr=0.1, start=4.0):  # type: ignore[no-untyped-def]
        size = 0.5 * size + 0.5 * norm(g) * norm(g)
        return w - lr * g / sqrt(size + 1.0), size, sum_of_all + total(g)


def by_hand(weights: list[Any], gradients: list[list[Any]], lr: float = 0.1, start: float = 4.0) -> list[Any]:
    """Weights, sizes and sums after steps in float64; None stands for no gradient."""
    sizes, sums = [start] * len(weights), [0.0] * len(weights)
    for step in gradients:
        for i, g in enumerate(step):
            if g is not None:
                sizes[i] = sizes[i] / 2 + float(np.sum(g * g)) / 2
                sums[i] += float(np.sum(g))
                weights[i] = weights[i] - lr * g / np.sqrt(sizes[i] + 1)
    return [*zip(weights, sizes, sums, strict=True)]


def made(seed: int, absent: int | None = None) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [None if i == absent else rng.standard_normal(shape) for i, shape in enumerate(SHAPES)]


def give(params: list[Any], gradients: list[Any]) -> None:
    for p, g in zip(params, gradients, strict=True):
        p.grad = None if g is None else torch.tensor(g, dtype=p.dtype)


def run(opt: Any, params: list[Any], gradients: list[list[Any]]) -> None:
    for step in gradients:
        give(params, step)
        opt.step()


def bits(opt: Any, params: list[Any]) -> list[Any]:
    return [(p.tolist(), {k: v.tolist() for k, v in opt.state[p].items()}) for p in params]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("backend", BACKENDS)
def test_each_tensor_has_its_own(backend: str, dtype: torch.dtype) -> None:
    weights, gradients = made(0), [made(1), made(2, absent=1), made(3, absent=0), made(4)]
    params = [nn.Parameter(torch.tensor(w, dtype=dtype)) for w in weights]
    with use_backend(backend):
        opt = Normed().attach([{"params": params[:2]}, {"params": params[2:]}])
        run(opt, params, gradients)
    bound = 1e-13 if dtype == torch.float64 else 1e-6
    for p, (w, size, of_all) in zip(params, by_hand(weights, gradients), strict=True):
        state = opt.state[p]
        assert all(state[name].dtype == torch.float64 and state[name].shape == () for name in ("size", "sum_of_all"))
        assert float(state["size"]) == pytest.approx(size, rel=bound)
        assert float(state["sum_of_all"]) == pytest.approx(of_all, rel=bound, abs=1e3 * bound)
        np.testing.assert_allclose(p.detach().numpy(), w, rtol=bound, atol=bound)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_somebody_writes_counts(backend: str) -> None:
    p = nn.Parameter(torch.ones(3))
    with use_backend(backend):
        opt = Normed(lr=1.0).attach([p])
        run(opt, [p], [[np.ones(3)]])
        assert opt.state[p]["size"].item() == 3.5
        opt.state[p]["size"].fill_(9.0)  # in place
        run(opt, [p], [[np.zeros(3)]])
        assert opt.state[p]["size"].item() == 4.5
        opt.state[p]["size"] = torch.tensor(1.0)  # another tensor, of another dtype
        run(opt, [p], [[np.zeros(3)]])
        assert opt.state[p]["size"].item() == 0.5
        assert opt.state[p]["size"].dtype == torch.float64


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_that_goes_on_elsewhere_ends_with_the_same_bits(backend: str) -> None:
    gradients = [made(seed) for seed in range(1, 7)]
    with use_backend(backend):
        params = [nn.Parameter(torch.tensor(w, dtype=torch.bfloat16)) for w in made(0)]
        opt = Normed(stochastic_round=True).attach(params)
        run(opt, params, gradients[:3])
        file = io.BytesIO()
        torch.save(opt.state_dict(), file)
        again = [nn.Parameter(p.detach().clone()) for p in params]
        resumed = Normed(stochastic_round=True).attach(again)
        resumed.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
        others, copied = copy.deepcopy((params, opt))
        run(opt, params, gradients[3:])
        for other, theirs in ((resumed, again), (copied, others)):
            run(other, theirs, gradients[3:])
            assert bits(other, theirs) == bits(opt, params)


def test_a_step_that_is_left_out_changes_none() -> None:
    p = nn.Parameter(torch.ones(2))
    opt = Normed().attach([p], skip_nonfinite=True)
    run(opt, [p], [[np.ones(2)]])
    before = bits(opt, [p])
    run(opt, [p], [[np.full(2, np.inf)]])
    assert bits(opt, [p]) == before


@needs_interpreter
def test_a_device_that_leaves_a_step_out_changes_none() -> None:
    p = nn.Parameter(torch.ones(2))
    with use_backend("triton"):
        opt = Normed().attach([p])
        run(opt, [p], [[np.ones(2)]])
        opt.grad_scale, opt.found_inf = torch.ones(()), torch.zeros(())  # as a GradScaler has it
        run(opt, [p], [[np.ones(2)]])
        before = bits(opt, [p])
        opt.found_inf = torch.ones(())
        run(opt, [p], [[np.ones(2)]])
        assert [state["size"] for _, state in bits(opt, [p])] == [state["size"] for _, state in before]
        opt.found_inf = torch.zeros(())
        run(opt, [p], [[np.ones(2)]])
    assert opt.state[p]["size"].item() == ((2.0 + 1.0) / 2 + 1.0) / 2 + 1.0


def test_layers_have_them_in_their_lists() -> None:
    class Layer:
        def __init__(self) -> None:
            self.w, self.states = torch.ones(3), list[torch.Tensor]()

        def get_params(self) -> Any:
            return (self.w, torch.full((3,), 2.0)), self.states

    layer, p = Layer(), nn.Parameter(torch.ones(3))
    rule = Normed()
    attached = Normed().attach([p])
    for _ in range(3):
        rule.optimize([layer], 0)
        run(attached, [p], [[np.full(3, 2.0)]])
    assert torch.equal(layer.w, p.detach())
    assert [s.tolist() for s in layer.states] == [s.tolist() for k, s in attached.state[p].items() if k != "step"]


def test_in_the_backward_pass() -> None:
    results = []
    for in_backward in (False, True):
        net = nn.Linear(3, 2)
        with torch.no_grad():
            for p in net.parameters():
                p.fill_(0.5)
        opt = NAdam(0.1).attach(net, in_backward=in_backward)
        for step in range(3):
            opt.zero_grad()
            net(torch.full((4, 3), step + 1.0)).square().sum().backward()
            opt.step()
        results.append(bits(opt, [*net.parameters()]))
    assert results[0] == results[1]


@pytest.mark.parametrize("value", [None, "x", True, torch.ones(2), torch.tensor(0.5 + 1j), torch.tensor(True)])
def test_what_is_no_number_is_refused_by_name(value: Any) -> None:
    p = nn.Parameter(torch.ones(3))
    opt = Normed().attach({"p": p}.items())
    run(opt, [p], [[np.ones(3)]])
    before, opt.state[p]["size"] = p.detach().clone(), value
    with pytest.raises(
        (TypeError, ValueError), match=r"[Ss](ize|tate) of parameter 'p' (is one number|must be a tensor)"
    ):
        run(opt, [p], [[np.ones(3)]])
    assert torch.equal(p, before)
    opt.state[p]["size"] = 3.5
    run(opt, [p], [[np.ones(3)]])
    assert opt.state[p]["size"].item() == 3.25


# -- where states start ----------------------------------------------------------------------------


def test_a_state_starts_at_the_value_of_its_group_when_it_is_made() -> None:
    params = [nn.Parameter(torch.ones(2)) for _ in range(3)]
    opt = Rprop(0.5, lr_scale=0.5).attach([{"params": params[:1]}, {"params": params[1:], "lr": torch.tensor(0.125)}])
    run(opt, params, [[np.ones(2), np.ones(2), None]])
    opt.param_groups[1]["lr"] = 3.0
    run(opt, params, [[np.ones(2), np.ones(2), np.ones(2)]])
    sizes = [round(float(opt.state[p]["step_size"].unique()), 6) for p in params]
    assert sizes == [0.3, 0.075, 1.5]


@pytest.mark.parametrize("state_dtype", ["int8", "bfloat16"])
def test_a_state_of_few_bits_starts_there_too(state_dtype: str) -> None:
    p = nn.Parameter(torch.zeros(8192))
    opt = Rprop(0.5, state_dtype=state_dtype).attach([p])
    run(opt, [p], [[np.ones(8192)]])
    assert p.unique().tolist() == [-0.5]


def test_a_negative_start_is_refused_where_no_sign_is_kept() -> None:
    class Started(Optimizer):
        @staticmethod
        def rule(w, g, kept: Any = State("start"), *, lr=1.0, start=-1.0):  # type: ignore[no-untyped-def]
            kept = 0.5 * kept + abs(g)
            return w - lr * kept, kept

    p = nn.Parameter(torch.zeros(8192))
    with pytest.raises(ValueError, match="start must be at least 0 where states are in 8 bits"):
        Started(state_dtype="int8").attach([p])
    run(Started(state_dtype="bfloat16").attach([p]), [p], [[np.zeros(8192)]])
    assert p.unique().tolist() == [0.5]


@pytest.mark.parametrize("of", [TENSOR, GROUP])
def test_what_is_left_of_a_number_that_persists_may_be_negative(of: Any) -> None:
    class Differing(Optimizer):
        @staticmethod
        def rule(w, g, kept, number: Any = State(4.0, of=of), *, lr=1.0):  # type: ignore[no-untyped-def]
            kept = 0.5 * kept + (number - 5) * abs(g)
            return w - lr * kept, kept, number

    p = nn.Parameter(torch.zeros(8192))
    opt = Differing(state_dtype="int8").attach([p])
    run(opt, [p], [[np.ones(8192)]] * 2)
    assert p.unique().tolist() == [2.5]
    assert opt.state[p]["kept"].dtype == torch.int8


def test_a_new_rate_acts_one_step_late_in_asgd_and_the_rate_that_is_there_counts_at_first() -> None:
    p = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    opt = ASGD(lambd=0.0).attach([p])
    seen = []
    for rate in (1.0, 0.1, 0.01, 0.0):
        before = p.item()
        opt.param_groups[0]["lr"] = rate
        run(opt, [p], [[np.ones(1)]])
        seen.append(round(before - p.item(), 12))
    assert seen == [1.0, 1.0, 0.1, 0.01]


@pytest.mark.parametrize("name", ["NAdam", "ASGD"])
def test_bfloat16_resumes_to_the_bit_where_torchs_class_does_not(name: str) -> None:
    """torch casts the numbers of a checkpoint to the dtype of the weights."""
    gradients = [made(seed)[:2] for seed in range(1, 9)]
    ends: dict[str, list[Any]] = {}
    for library in (torch.optim, neon.torch):
        params = [nn.Parameter(torch.tensor(w, dtype=torch.bfloat16)) for w in made(0)[:2]]
        opt = getattr(library, name)(params, lr=0.3)
        run(opt, params, gradients[:4])
        again = [nn.Parameter(p.detach().clone()) for p in params]
        resumed = getattr(library, name)(again, lr=0.3)
        resumed.load_state_dict(opt.state_dict())
        for each, its in ((opt, params), (resumed, again)):
            run(each, its, gradients[4:])
        ends[library.__name__] = [bits(each, its) for each, its in ((opt, params), (resumed, again))]
    assert ends["neon.torch"][0] == ends["neon.torch"][1]
    assert ends["torch.optim"][0] != ends["torch.optim"][1]


# -- what is refused -------------------------------------------------------------------------------


def rule_of(state: Any, new: Any, *, more: Any = 0.0) -> type[Optimizer]:
    class Wrong(Optimizer):
        @staticmethod
        def rule(w, g, own: Any = state, other: Any = more, *, lr=0.1, step):  # type: ignore[no-untyped-def]
            return w - lr * own * g, new(own, g, step), other + own

    return Wrong


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (rule_of(State(of=TENSOR), lambda own, g, _: own + g), "own .* is one for each tensor, .* depends on g"),
        (
            rule_of(State(of=TENSOR), lambda own, _, step: own + step, more=State(of=GROUP)),
            "other .* is one for each group, .* depends on own",
        ),
        (rule_of(State(WEIGHT, of=TENSOR), lambda own, *_: own), "own .* must start at a number .* or at one of lr"),
        (
            rule_of(State("rate", of=TENSOR), lambda own, *_: own),
            "own .* must start at a number .* or at one of lr. Received: own='rate'",
        ),
    ],
)
def test_rules_that_make_no_sense_are_refused(wrong: type[Optimizer], message: str) -> None:
    p = nn.Parameter(torch.ones(2))
    with pytest.raises(TypeError, match=message):
        wrong().attach([p])


@pytest.mark.parametrize("of", [ELEMENT, TENSOR, GROUP])
@pytest.mark.parametrize("value", [None, (0.5, 0.9), "half", True])
def test_a_state_starts_at_a_number(of: Any, value: Any) -> None:
    class Started(Optimizer):
        @staticmethod
        def rule(w, g, kept: Any = State("start", of=of), *, lr=0.1, start=value):  # type: ignore[no-untyped-def]
            return w - lr * g, kept

    p = nn.Parameter(torch.ones(2))
    with pytest.raises(TypeError, match=r"start must be a number, for a state starts at it\. Received: start="):
        run(Started().attach([p]), [p], [[np.ones(2)]])
    assert p.tolist() == [1.0, 1.0]


def test_formats_and_views_of_one_number_are_refused() -> None:
    with pytest.raises(ValueError, match=r"state_dtype names 'mu_product'; that is one number of each tensor"):
        NAdam(state_dtype={"mu_product": "bfloat16"}).attach([nn.Parameter(torch.ones(2))])

    class Viewed(Normed):
        @staticmethod
        def view(w, size):  # type: ignore[no-untyped-def]
            return w * size

    with pytest.raises(TypeError, match=r"view .* must take the weight first, then states of rule"):
        Viewed().attach([nn.Parameter(torch.ones(2))])


@pytest.mark.parametrize("value", ["none", torch.ones(2), True, None])
def test_a_checkpoint_has_one_number(value: Any) -> None:
    p = nn.Parameter(torch.ones(2))
    opt = NAdam().attach([p])
    run(opt, [p], [[np.ones(2)]])
    saved = copy.deepcopy(opt.state_dict())
    saved["state"][0]["mu_product"] = value
    with pytest.raises(ValueError, match="mu_product"):
        opt.load_state_dict(saved)
    saved["state"][0]["mu_product"] = 0.25  # as torch had it once
    opt.load_state_dict(saved)
    assert opt.state[p]["mu_product"].item() == 0.25


def test_a_value_that_somebody_keeps_in_a_group_is_no_other_rules() -> None:
    """By the word of a number of MARS."""
    p = nn.Parameter(torch.ones(2))
    opt = Adam().attach([p])
    run(opt, [p], [[np.ones(2)]])
    opt.param_groups[0]["gamma"] = 0.5
    Adam().attach([p]).load_state_dict(opt.state_dict())


def test_a_checkpoint_of_nadam_is_not_taken_for_adams() -> None:
    p = nn.Parameter(torch.ones(2))
    nadam = NAdam().attach([p])
    run(nadam, [p], [[np.ones(2)]])
    with pytest.raises(ValueError, match="momentum_decay"):
        Adam().attach([p]).load_state_dict(nadam.state_dict())


@pytest.mark.parametrize("in_backward", [False, True])
@pytest.mark.parametrize("make", [lambda: Rprop(0.5), lambda: ASGD(0.5), lambda: Rprop(0.5, state_dtype="int8")])
def test_states_that_were_made_at_the_rate_0_of_a_rehearsal_start_at_the_real_one(make: Any, in_backward: bool) -> None:
    """So torch.distributed.checkpoint has states made; what it then loads into them stays."""
    ends = []
    for way in ("no rehearsal", "rehearsal", "loaded"):
        net = nn.Linear(4096, 2, bias=False)
        with torch.no_grad():
            net.weight.fill_(1.0)
        opt = make().attach(net, in_backward=in_backward)
        if way != "no rehearsal":
            get_optimizer_state_dict(net, opt)
        if way == "loaded":
            saved = copy.deepcopy(opt.state_dict())
            opt.load_state_dict(saved)
        for _ in range(2):
            net(torch.ones(1, 4096)).sum().backward()
            opt.step()
            opt.zero_grad()
        ends.append(net.weight.unique().tolist())
    assert ends[0] == ends[1] == ends[2]
    assert ends[0] != [1.0]
