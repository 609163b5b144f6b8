"""The forms of weight decay around any rule, by hand in float64; what is refused; groups and checkpoints."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from rule_cases import PlainLayer
from torch import Tensor, nn

import neon.torch
from neon.engine.backends import use_backend
from neon.optimizers import (
    LAMB,
    Adafactor,
    Adam,
    AdamW,
    GradientDescentMomentum,
    Lion,
    MultiOptimizer,
    Optimizer,
    Prodigy,
    ScheduleFree,
    WarmupCosine,
)
from neon.optimizers.functions import sign, where
from neon.optimizers.weight_decay import is_decoupled

pytestmark = pytest.mark.usefixtures("one_thread")

Array = npt.NDArray[np.float64]
FORMS = ("coupled", "decoupled", "relative", "corrected", "cautious")
STEPS, FIRST = 20, 0.1
# The first is that of the group when it is made; later ones are lower, 0 and higher.
RATES = [0.1, 0.05, 0.0, 0.3, *(0.2 / t for t in range(1, STEPS - 3))]


class Own(Optimizer):
    """A rule of one's own without a decay."""

    @staticmethod
    def rule(w, g, mean=0.5, *, lr=0.1, share=0.25):  # type: ignore[no-untyped-def]
        mean = mean + share * (g - mean)
        return w - lr * mean / (1 + abs(mean)), mean


class Decaying(Optimizer):
    """A rule of one's own with a decay in an odd place, which a form takes the place of."""

    @staticmethod
    def rule(w, g, mean=0.5, *, lr=0.1, share=0.25, weight_decay=0.2):  # type: ignore[no-untyped-def]
        mean = mean + share * (g + 7 * weight_decay * w - mean)
        return (1 - weight_decay) * w - lr * mean / (1 + abs(mean)), mean


Step = Callable[[dict[str, Array], Array, Array, float, int], Array]


def adam_step(own: dict[str, Array], w: Array, g: Array, lr: float, t: int) -> Array:
    m = own["m"] = 0.8 * own.get("m", np.zeros_like(g)) + 0.2 * g
    v = own["v"] = 0.9 * own.get("v", np.zeros_like(g)) + 0.1 * g**2
    return -lr * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.9**t)) + 1e-3)


def lion_step(own: dict[str, Array], w: Array, g: Array, lr: float, t: int) -> Array:
    m = own.get("m", np.zeros_like(g))
    own["m"] = 0.9 * m + 0.1 * g
    return -lr * np.sign(0.8 * m + 0.2 * g)


def momentum_step(own: dict[str, Array], w: Array, g: Array, lr: float, t: int) -> Array:
    v = own["v"] = 0.7 * own.get("v", np.zeros_like(g)) - lr * g
    return v


def own_step(own: dict[str, Array], w: Array, g: Array, lr: float, t: int) -> Array:
    mean = own["mean"] = own.get("mean", np.full_like(g, 0.5)) * 0.75 + 0.25 * g
    return -lr * mean / (1 + np.abs(mean))


ADAM: dict[str, Any] = {"learning_rate": FIRST, "beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3, "wdecay": 0.2}
RULES: dict[str, tuple[Callable[..., Optimizer], Step]] = {
    "adam": (lambda **o: Adam(**ADAM, **o), adam_step),
    "adamw": (lambda **o: AdamW(**ADAM, **o), adam_step),
    "lion": (lambda **o: Lion(learning_rate=FIRST, beta_1=0.8, beta_2=0.9, wdecay=0.2, **o), lion_step),
    "momentum": (lambda **o: GradientDescentMomentum(FIRST, 0.7, wdecay=0.2, **o), momentum_step),
    "own": (lambda **o: Own(lr=FIRST, wdecay=0.2, **o), own_step),
    "decaying": (lambda **o: Decaying(lr=FIRST, **o), own_step),
}  # fmt: skip


def by_hand(form: str, step: Step, own: dict[str, Array], w: Array, g: Array, lr: float, t: int) -> Array:
    """One step with λ = 0.2; the largest rate is the first."""
    if form == "coupled":
        return w + step(own, w, g + 0.2 * w, lr, t)
    change = step(own, w, g, lr, t)
    factor = {"decoupled": lr, "relative": lr / FIRST, "corrected": lr**2 / FIRST, "cautious": lr}[form]
    acts = np.sign(change) * np.sign(w) <= 0 if form == "cautious" else np.ones_like(w)
    return w + change - factor * 0.2 * acts * w


def gradient(step: int, shape: tuple[int, ...], place: int = 0) -> Array:
    return np.random.default_rng(1000 * step + place).standard_normal(shape)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rule", RULES)
def test_twenty_steps_are_those_of_the_equations(rule: str, form: str) -> None:
    """With a clip by norm, behind which a coupled decay stands."""
    make, step = RULES[rule]
    shapes = ((6, 5), (7,))
    ws = [gradient(0, shape, 1) for shape in shapes]
    params = [nn.Parameter(torch.tensor(w)) for w in ws]
    optimizer = make(decay_form=form, gradient_clip_norm=3.0).attach(params)
    owns: list[dict[str, Array]] = [{} for _ in shapes]
    for t, rate in enumerate(RATES, 1):
        optimizer.param_groups[0]["lr"] = rate
        gs = [gradient(t, shape, place) for place, shape in enumerate(shapes)]
        factor = min(1.0, 3.0 / math.sqrt(sum(float((g**2).sum()) for g in gs)))
        assert factor < 0.95
        for place, (param, g) in enumerate(zip(params, gs, strict=True)):
            param.grad = torch.tensor(g)
            ws[place] = by_hand(form, step, owns[place], ws[place], factor * g, rate, t)
        optimizer.step()
        for param, w in zip(params, ws, strict=True):
            np.testing.assert_allclose(param.detach().numpy(), w, rtol=0, atol=1e-14)
    assert ("max_lr" in optimizer.param_groups[0]) == (form in ("relative", "corrected"))
    assert optimizer.param_groups[0].get("max_lr", FIRST) == FIRST


# -- what is the same in other words ---------------------------------------------------------------


def net(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(70, 80), nn.Tanh(), nn.Linear(80, 3)).to(dtype)


def train(model: nn.Module, optimizer: Any, *steps: int) -> None:
    for step in steps:
        for place, param in enumerate(model.parameters()):
            param.grad = torch.tensor(gradient(step, tuple(param.shape), place)).to(param)
        optimizer.step()


def ends(description: Optimizer, dtype: torch.dtype = torch.float32, **ways: Any) -> list[Tensor]:
    model = net(dtype)
    train(model, description.attach(model, **ways), 1, 2, 3)
    return [param.detach() for param in model.parameters()]


def same(*found: list[Tensor]) -> bool:
    return all(all(map(torch.equal, found[0], other)) for other in found[1:])


def test_the_own_decay_of_a_rule_is_a_form_to_the_bit() -> None:
    decoupled = {"wdecay": 0.1, "decay_form": "decoupled"}
    assert same(ends(AdamW(wdecay=0.1)), ends(AdamW(**decoupled)), ends(Adam(**decoupled)))
    coupled = {"wdecay": 0.1, "decay_form": "coupled"}
    assert same(ends(Adam(wdecay=0.1)), ends(Adam(**coupled)), ends(AdamW(**coupled)))
    assert not same(ends(Adam(**coupled)), ends(Adam(**decoupled)))
    relative = ends(Adam(learning_rate=0.25, wdecay=0.1, decay_form="relative"))
    corrected = ends(Adam(learning_rate=0.25, wdecay=0.4, decay_form="corrected"))
    assert same(relative, corrected)


def test_drop_in_classes_have_forms() -> None:
    model = net()
    dropped: Any = neon.torch.Adam(model.parameters(), lr=1e-3, weight_decay=0.1, decay_form="decoupled")
    train(model, dropped, 1, 2, 3)
    assert same([*model.parameters()], ends(AdamW(wdecay=0.1)))


def test_whether_a_rule_is_decoupled_is_found_by_trying() -> None:
    made: list[Optimizer] = [AdamW(), Lion(), Adafactor(), Adam(), LAMB(), Prodigy(), Decaying(), Own()]
    found = [is_decoupled(each.select_rule(each.group()), each.group()) for each in made]
    assert found == [True, True, True, False, False, False, False, False]


def test_small_numbers_have_signs() -> None:
    """The product of change and weight is 0 in float32, and neither is."""
    w = nn.Parameter(torch.tensor([1e-30, 1e-30]))
    optimizer = GradientDescentMomentum(1e-20, 0.0, wdecay=1e19, decay_form="cautious").attach([w])
    w.grad = torch.tensor([1e-20, -1e-20])
    optimizer.step()
    expected = torch.tensor([0.9e-30, 1e-30])
    torch.testing.assert_close(w.detach(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("form", FORMS)
def test_backends_have_the_same_bits(form: str) -> None:
    found = []
    for backend in ("eager", "numba", "triton"):
        with use_backend(backend):
            found.append(
                ends(Adam(wdecay=0.1, decay_form=form, state_dtype="int8", stochastic_round=True), torch.bfloat16)
            )
    assert same(*found)


def test_what_is_not_finite_shows() -> None:
    for form in FORMS:
        w = nn.Parameter(torch.ones(3))
        optimizer = Adam(wdecay=0.1, decay_form=form).attach([w])
        w.grad = torch.tensor([1.0, math.nan, -1.0])
        optimizer.step()
        assert w.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("form", FORMS)
def test_in_backward(form: str) -> None:
    """The largest rate is kept, but nothing is made of many parameters."""
    ws = [nn.Parameter(torch.ones(3)) for _ in range(2)]
    one: Any = Adam(wdecay=0.1, decay_form=form).attach(ws[:1], in_backward=True)
    other = Adam(wdecay=0.1, decay_form=form).attach(ws[1:])
    for _ in range(3):
        one.param_groups[0]["lr"] *= 0.5
        other.param_groups[0]["lr"] *= 0.5
        for w in ws:
            (w**2).sum().backward()
        other.step()
        other.zero_grad()
    assert torch.equal(*ws)


def test_the_largest_rate_is_that_of_the_description() -> None:
    """A schedule, torch's warm-up and a cycle of its scheduler begin lower."""
    model = net()
    optimizer = AdamW(learning_rate=0.5, decay_form="relative", schedule=WarmupCosine(4, 10, unit="steps")).attach(
        model
    )
    train(model, optimizer, 1)
    assert optimizer.param_groups[0]["lr"] < 0.5 == optimizer.param_groups[0]["max_lr"]
    optimizer = AdamW(learning_rate=0.5, decay_form="relative").attach(model)
    torch.optim.lr_scheduler.LinearLR(optimizer, 0.1)
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["max_lr"]) == (0.05, 0.5)
    torch.optim.lr_scheduler.OneCycleLR(optimizer, 2.0, total_steps=10)
    train(model, optimizer, 1)
    assert optimizer.param_groups[0]["max_lr"] == 2.0


def test_layer_lists_take_the_same_steps() -> None:
    for form in FORMS:
        model, other = net(), net()
        layer = PlainLayer([*model.parameters()])
        listed, attached = (Adam(wdecay=0.1, decay_form=form) for _ in range(2))
        optimizer = attached.attach(other)
        for step in range(3):
            train(other, optimizer, step)
            for a, b in zip(model.parameters(), other.parameters(), strict=True):
                a.grad = b.grad
            listed.optimize([layer], 0)
        assert same([*model.parameters()], [*other.parameters()])


def test_in_mappings_and_groups_each_has_its_own() -> None:
    model = net()
    mapping = MultiOptimizer({"default": AdamW(decay_form="cautious"), "2": Adam()}).attach(model)
    assert [group.get("decay_form", "none") for group in mapping.param_groups] == ["cautious", "none"]
    ws = [nn.Parameter(torch.ones(3)) for _ in range(2)]
    groups: Any = [{"params": ws[:1], "decay_form": "coupled"}, {"params": ws[1:]}]
    optimizer = AdamW(wdecay=0.5, decay_form="relative").attach(groups)
    assert [(g["decay_form"], "max_lr" in g) for g in optimizer.param_groups] == [
        ("coupled", False),
        ("relative", True),
    ]
    for w in ws:
        w.grad = torch.zeros(3)
    optimizer.step()
    assert (ws[0][0].item(), ws[1][0].item()) == (pytest.approx(1 - 1e-3), 0.5)
    assert "decay_form='relative'" in repr(AdamW(decay_form="relative"))
    again = pickle.loads(pickle.dumps(AdamW(decay_form="relative")))
    assert again.decay_form == "relative"


@pytest.mark.parametrize("form", FORMS)
def test_a_checkpoint_resumes_to_the_bit(form: str) -> None:
    def made() -> tuple[nn.Module, Any]:
        model = net()
        return model, Adam(wdecay=0.1, decay_form=form, state_dtype="bfloat16").attach(model)

    model, optimizer = made()
    train(model, optimizer, 1)
    optimizer.param_groups[0]["lr"] = 1e-4
    fresh, resumed = made()
    fresh.load_state_dict(model.state_dict())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    copied, deep = copy.deepcopy((model, optimizer))
    for each in ((model, optimizer), (fresh, resumed), (copied, deep)):
        train(*each, 2, 3)
    assert same([*model.parameters()], [*fresh.parameters()], [*copied.parameters()])


def test_a_checkpoint_of_another_form_is_noticed() -> None:
    model = net()
    saved = {form: Adam(wdecay=0.1, decay_form=form).attach(model).state_dict() for form in (None, *FORMS)}
    for here in (None, *FORMS):
        for there, states in saved.items():
            optimizer = Adam(wdecay=0.1, decay_form=here).attach(model)
            if here == there:
                optimizer.load_state_dict(states)
                continue
            with pytest.raises(
                ValueError, match=f"saved with decay_form={there!r}, this optimizer has {here!r}|max_lr"
            ):
                optimizer.load_state_dict(states)


def test_schedule_free_around_other_rules() -> None:
    model = net()
    optimizer = ScheduleFree(Lion(wdecay=0.1, decay_form="cautious")).attach(model)
    train(model, optimizer, 1, 2)
    assert all(param.isfinite().all() for param in model.parameters())


class NoRate(Optimizer):
    @staticmethod
    def rule(w, g, *, speed=0.1):  # type: ignore[no-untyped-def]
        return w - speed * where(g > 0, sign(g), g)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no form": (lambda: AdamW(decay_form="L2"), "decay_form must be None or one of 'coupled', .*decay_form='L2'"),
    "no form of a group": (
        lambda: AdamW().attach([{"params": [nn.Parameter(torch.ones(2))], "decay_form": "L2"}]).step(),
        "decay_form must be None or one of",
    ),
    "no rate": (
        lambda: NoRate(decay_form="cautious").attach(net()), "decay_form 'cautious' is a decay by the learning rate"
    ),
    "a rate of its own": (
        lambda: Prodigy(decay_form="decoupled").attach(net()), "Prodigy decays by d·α.*decay_form cannot be had"
    ),
    "a decay at y": (
        lambda: ScheduleFree(AdamW(decay_form="cautious")), "ScheduleFree around AdamW decays at y"
    ),
    "twice": (
        lambda: ScheduleFree(Lion(decay_form="cautious"), decay_form="coupled"),
        "decay_form was given to Lion and to ScheduleFree around it",
    ),
    "for some layers": (
        lambda: AdamW(decay_form="cautious").attach(net()).set("decay_form", "coupled", layers="0"),
        "No parameter group has a value 'decay_form'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_had_is_refused_by_name(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises((TypeError, ValueError), match=message):
        make()
