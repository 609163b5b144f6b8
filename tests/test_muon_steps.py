"""Steps of matrices: each as if it were alone, whatever is beside it, in what order, layout, bucket or thread."""

from __future__ import annotations

import copy
import inspect
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from stepped_parameters import bits
from torch import Tensor, nn

from neon.engine import use_backend
from neon.engine.calls import stacks
from neon.engine.calls.arena import _arenas
from neon.optimizers import (
    AdamW,
    Cautious,
    Centralized,
    Lookahead,
    MultiOptimizer,
    Muon,
    Optimizer,
    ScheduleFree,
    WarmupCosine,
)
from neon.optimizers.muon import muon as rule
from neon.torch import AttachedOptimizer

pytestmark = pytest.mark.usefixtures("one_thread")

# Equal ones, one transposed, some whose sides are no multiples of anything, a convolution, rows and columns.
SHAPES = [
    (16, 48),
    (16, 48),
    (48, 16),
    (5, 7),
    (5, 7),
    (7, 5),
    (8, 3, 3, 3),
    (1, 9),
    (9, 1),
    (1, 1),
    (33, 33),
    (0, 4),
    (4, 0),
]


def weights(shapes: Iterable[Sequence[int]] = SHAPES, dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    """Parameters whose values go by their places."""
    return [
        nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(place)).to(dtype))
        for place, shape in enumerate(shapes)
    ]


def gradient(place: int, step: int, like: Tensor, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * step + place)
    return (torch.randn(like.shape, generator=generator) * scale).to(like.dtype)


def give(params: Sequence[Tensor], step: int, scale: float = 1.0, without: Iterable[int] = ()) -> None:
    for place, p in enumerate(params):
        p.grad = None if place in without else gradient(place, step, p, scale)


def muon(**options: Any) -> Muon:
    return Muon(**{"learning_rate": 0.02, "momentum_coef": 0.9, **options})


def state_of(opt: AttachedOptimizer, p: Tensor) -> dict[str, Any]:
    return dict(opt.state.get(p, {}))


def all_bits(opt: AttachedOptimizer, params: Sequence[Tensor]) -> list[Any]:
    """Of every parameter itself and its states, in a form that equal values have alike whatever their layout."""
    return [bits([p.detach().contiguous(), state_of(opt, p)]) for p in params]


def each_alone(
    make: Callable[[int], Optimizer],
    params: Sequence[nn.Parameter],
    steps: int,
    without: Mapping[int, Iterable[int]] | None = None,
    grads: Callable[[int, int, Tensor], Tensor] = gradient,
) -> list[Any]:
    """The bits of the same parameters where each has an optimizer for itself."""
    found = []
    for place, p in enumerate(params):
        p = nn.Parameter(p.detach().clone())
        opt = make(place).attach([p])
        for step in range(steps):
            p.grad = None if place in (without or {}).get(step, ()) else grads(place, step, p)
            opt.step()
        found += all_bits(opt, [p])
    return found


# -- what is beside a matrix -----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["all together", "one at a time"])
def test_each_matrix_steps_as_if_it_were_alone(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "one at a time":
        monkeypatch.setattr(stacks, "BUCKET", 1)
    params = weights()
    alone = each_alone(lambda _: muon(), params, 3)
    opt = muon().attach(params)
    for step in range(3):
        give(params, step)
        opt.step()
    assert all_bits(opt, params) == alone


def test_gradients_that_come_and_go() -> None:
    without = {0: {1, 5}, 1: range(13), 2: {0, 2, 3}, 3: {1, 6, 7}, 4: set()}
    params = weights()
    alone = each_alone(lambda _: muon(), params, 5, without)
    opt = muon().attach(params)
    for step, missing in without.items():
        give(params, step, without=missing)
        opt.step()
    assert all_bits(opt, params) == alone


def test_frozen_layers_stay_and_groups_that_are_added_in_mid_run() -> None:
    params = weights()
    named = [(f"p{place}", p) for place, p in enumerate(params)]
    without = {0: range(8, 13), 1: [0, *range(8, 13)], 2: [0], 3: []}
    alone = each_alone(lambda place: muon(learning_rate=0.02 if place < 8 else 0.05), params, 4, without)
    opt = muon().attach(named[:8])
    give(params[:8], 0)
    opt.step()
    opt.freeze("p0")
    give(params[:8], 1)
    opt.step()
    opt.add_param_group({"params": named[8:], "lr": 0.05})
    give(params, 2)
    opt.step()
    opt.unfreeze("p0")
    give(params, 3)
    opt.step()
    assert all_bits(opt, params) == alone


@pytest.mark.parametrize("bucket", [1 << 26, 1 << 14, 1])
def test_many_groups_with_numbers_of_their_own(bucket: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "BUCKET", bucket)
    shapes = [(4 + place % 3, 6 - place % 2) for place in range(300)]
    params = weights(shapes)

    def options(group: int) -> dict[str, Any]:
        return {
            "lr": 0.01 + 0.001 * group, "ns_steps": group % 7, "momentum": 0.5 + 0.008 * group,
            "nesterov": group % 2 == 0, "eps": 10.0 ** -(group % 9), "weight_decay": 0.01 * group,
            "ns_coefficients": ((3.4445, -4.775, 2.0315), "quintic", (2.0, -1.5, 0.5, 3.0, -3.2, 1.2))[group % 3],
            "adjust_lr_fn": ("original", "match_rms_adamw", "spectral", "none")[group % 4],
        }  # fmt: skip

    names = {
        "lr": "learning_rate",
        "momentum": "momentum_coef",
        "eps": "epsilon",
        "weight_decay": "wdecay",
        "adjust_lr_fn": "scale",
    }
    opt = Muon().attach([{"params": params[6 * group : 6 * group + 6], **options(group)} for group in range(50)])
    alone = each_alone(
        lambda place: Muon(**{names.get(k, k): v for k, v in options(place // 6).items()}),
        params,
        3,
    )
    for step in range(3):
        give(params, step)
        opt.step()
    assert all_bits(opt, params) == alone


def test_dtypes_side_by_side() -> None:
    dtypes = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
    params = [p for dtype in dtypes for p in weights(SHAPES[:4], dtype)]
    alone = each_alone(lambda _: muon(), params, 3)
    opt = muon().attach(params)
    for step in range(3):
        give(params, step)
        opt.step()
    assert all_bits(opt, params) == alone


# -- how a matrix lies in memory -------------------------------------------------------------------


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: x.transpose(0, -1).contiguous().transpose(0, -1),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x,
    "every second column": lambda x: x.new_zeros(*x.shape[:-1], 2 * x.shape[-1])[..., ::2].copy_(x),
    "not aligned": lambda x: x.new_zeros(x.numel() + 1)[1:].view(x.shape).copy_(x),
}


@pytest.mark.parametrize("of", ["weights", "gradients", "both"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_change_no_bit(layout: str, of: str) -> None:
    lay_out = LAYOUTS[layout]
    plain = weights()
    expected = each_alone(lambda _: muon(), plain, 3)
    params = [nn.Parameter(lay_out(p.detach())) for p in plain] if of != "gradients" else plain
    opt = muon().attach(params)
    for step in range(3):
        give(params, step)
        if of != "weights":
            for p in params:
                p.grad = lay_out(p.grad)
        opt.step()
    found = [bits([p.detach().contiguous(), *(s.contiguous() for s in state_of(opt, p).values())]) for p in params]
    assert found == [[a, *b.values()] for a, b in expected]


def test_weights_that_are_replaced() -> None:
    params = weights()
    alone = each_alone(lambda _: muon(), params, 4)
    opt = muon().attach(params)
    for step, replaced in enumerate((lambda x: x, torch.clone, LAYOUTS["transposed"], LAYOUTS["not aligned"])):
        for p in params:
            p.data = replaced(p.data)
        give(params, step)
        opt.step()
    assert [a for a, _ in all_bits(opt, params)] == [a for a, _ in alone]


def test_gradients_that_are_expanded_or_negated_lazily() -> None:
    p, q = (nn.Parameter(torch.ones(6, 4)) for _ in range(2))
    one, other = muon().attach([p]), muon().attach([q])
    for step in range(3):
        g = torch.tensor([1.0, -2.0, 3.0, 0.5]) * (step + 1)
        p.grad, q.grad = g.expand(6, 4), g.repeat(6, 1)
        one.step()
        other.step()
    p.grad, q.grad = torch._neg_view(q.grad), -q.grad
    one.step()
    other.step()
    assert torch.equal(p, q)


# -- numbers at the edge ---------------------------------------------------------------------------


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("bucket", [1 << 26, 1])
def test_what_is_not_finite_shows_in_its_parameter_alone(
    value: float, bucket: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacks, "BUCKET", bucket)
    params = weights()
    alone = each_alone(lambda _: muon(), params, 2)
    opt = muon().attach(params)
    for step in range(2):
        give(params, step)
        for place in (1, 4, 8):
            params[place].grad.view(-1)[0] = value
        opt.step()
    found = all_bits(opt, params)
    for place, p in enumerate(params):
        if place in (1, 4, 8):
            assert p.isnan().all()
        else:
            assert found[place] == alone[place]


def test_vectors_of_a_row_or_a_column_point_along_the_gradient() -> None:
    row, column, one = (nn.Parameter(torch.zeros(shape)) for shape in ((1, 9), (9, 1), (1, 1)))
    opt = Muon(learning_rate=1.0, wdecay=0.0, ns_coefficients="quintic", scale="none", units="float32").attach(
        [row, column, one]
    )
    g = torch.arange(1.0, 10.0)
    row.grad, column.grad, one.grad = g.view(1, 9), g.view(9, 1), torch.tensor([[-3.0]])
    opt.step()
    p = 1.0
    for a, b, c in ((4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037),
                    (2.8769, -3.1427, 1.2046), (2.8366, -3.0525, 1.2012)):  # fmt: skip
        p = a * p + b * p**3 + c * p**5
    torch.testing.assert_close(row.detach()[0], -p * g / g.norm(), rtol=1e-5, atol=0)
    torch.testing.assert_close(column.detach()[:, 0], -p * g / g.norm(), rtol=1e-5, atol=0)
    assert abs(one.item() - p) < 1e-5


@pytest.mark.parametrize("exponent", [-40, -20, 60, 100, 120])
def test_the_size_of_gradients_does_not_matter(exponent: int) -> None:
    """Below ε it would; squares beyond float32's range are no matter."""
    wide = [(16, 48), (48, 16), (8, 3, 3, 3)]
    params, others = weights(wide), weights(wide)
    one, other = (muon(wdecay=0.0, epsilon=1e-15, units="float32").attach(each) for each in (params, others))
    for step in range(3):
        give(params, step)
        give(others, step, 2.0**exponent)
        one.step()
        other.step()
    for p, q in zip(params, others, strict=True):
        torch.testing.assert_close(q, p, rtol=0, atol=1e-5 * p.abs().max().item())


def test_no_gradient_at_all_is_weight_decay_alone() -> None:
    params = weights()
    before = [p.detach().clone() for p in params]
    opt = Muon(learning_rate=0.1, wdecay=0.5).attach(params)
    for p in params:
        p.grad = torch.zeros_like(p)
    opt.step()
    for p, old in zip(params, before, strict=True):
        torch.testing.assert_close(p.detach(), (1 - 0.1 * 0.5) * old, rtol=1e-7, atol=0)


# -- threads ---------------------------------------------------------------------------------------


def run(params: Sequence[nn.Parameter], opt: AttachedOptimizer, steps: Iterable[int]) -> list[Any]:
    for step in steps:
        give(params, step)
        opt.step()
    return all_bits(opt, params)


LARGE = [(256, 300), (256, 300), (300, 256), (512, 512), (96, 1024), (64, 64), (64, 64), (1, 100_000), (100_000, 1)]


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("units", ["float32", "bfloat16"])
def test_the_number_of_threads_changes_no_bit(units: str) -> None:
    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        params = weights(LARGE)
        found.append(run(params, muon(gradient_clip_norm=100.0, units=units).attach(params), range(2)))
    assert found[0] == found[1]
    assert found[0] == found[2]


@pytest.mark.parametrize("made", ["in its thread", "in one thread"])
def test_optimizers_that_step_at_the_same_time(made: str) -> None:
    """Memory for buffers is a thread's own, also where one thread has made both plans."""
    shapes = LARGE[:6]
    expected = run(params := weights(shapes), muon().attach(params), range(6))
    sets = [weights(shapes) for _ in range(4)]
    optimizers = [muon().attach(each) for each in sets]
    start = 0
    if made == "in one thread":
        start = 1
        for each, opt in zip(sets, optimizers, strict=True):
            run(each, opt, range(1))
    with ThreadPoolExecutor(4) as pool:
        found = [*pool.map(lambda pair: run(*pair, range(start, 6)), zip(sets, optimizers, strict=True))]
    assert found == [expected] * 4


def test_an_optimizer_that_goes_from_thread_to_thread() -> None:
    expected = run(params := weights(), muon().attach(params), range(6))
    params = weights()
    opt = muon().attach(params)
    for step in range(6):
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(run, params, opt, range(step, step + 1)).result()
    assert found == expected


# -- in mid-run ------------------------------------------------------------------------------------


CHANGES: dict[str, dict[str, Any]] = {
    "steps": {"ns_steps": 2},
    "steps, none": {"ns_steps": 0},
    "nesterov": {"nesterov": False},
    "scale": {"adjust_lr_fn": "match_rms_adamw"},
    "coefficients": {"ns_coefficients": (2.0, -1.5, 0.5)},
    "schedule": {"ns_coefficients": "polar_express_dion"},
    "longer": {"ns_coefficients": (2.0, -1.5, 0.5, 3.0, -3.2, 1.2)},
    "epsilon": {"eps": 10.0},
    "momentum": {"momentum": 0.0},
    "lr": {"lr": 0.5},
    "lr in a tensor": {"lr": torch.tensor(0.5)},
    "weight decay": {"weight_decay": 0.0},
}


@pytest.mark.parametrize("change", CHANGES)
def test_numbers_that_change_in_mid_run(change: str) -> None:
    """As an optimizer that has had the new numbers from the start, and the old one's momentum."""
    params = weights()
    opt = muon().attach(params)
    run(params, opt, range(2))
    others = copy.deepcopy(params)
    fresh = muon().attach(others)
    fresh.param_groups[0].update(copy.deepcopy(CHANGES[change]))
    saved = opt.state_dict()
    saved["param_groups"] = fresh.state_dict()["param_groups"]
    fresh.load_state_dict(saved)
    opt.param_groups[0].update(CHANGES[change])
    before = [p.detach().clone() for p in params]
    assert run(params, opt, range(2, 4)) == run(others, fresh, range(2, 4))
    assert any(not torch.equal(p, old) for p, old in zip(params, before, strict=True))


def test_a_rate_in_a_tensor_is_the_number() -> None:
    one, other = weights(), weights()
    number = muon(learning_rate=0.25).attach(one)
    tensor = muon().attach(other)
    tensor.param_groups[0]["lr"] = torch.tensor(0.25)
    assert run(one, number, range(3)) == run(other, tensor, range(3))


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "clip by norm": {"gradient_clip_norm": 1.0},
    "momentum in 8 bits": {"state_dtype": "int8"},
    "momentum in bfloat16": {"state_dtype": "bfloat16"},
    "average": {"weight_average": 0.9},
}
OF_16_BITS: dict[str, dict[str, Any]] = {
    "rounded at random": {"stochastic_round": True},
    "split": {"master": "split"},
}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("option", "dtype"),
    [
        *(
            (option, dtype)
            for option in OPTIONS
            for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64)
        ),
        *((option, torch.bfloat16) for option in OF_16_BITS),
        ("rounded at random", torch.float16),
    ],
)
def test_a_run_that_is_resumed(option: str, dtype: torch.dtype) -> None:
    given = OPTIONS.get(option) or OF_16_BITS.get(option, {})
    params = weights(dtype=dtype)
    opt = muon(**given).attach(params)
    run(params, opt, range(3))
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    others = copy.deepcopy(params)
    again = muon(**given).attach(others)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert run(others, again, range(3, 6)) == run(params, opt, range(3, 6))


# -- the backward pass, scalers, memory ------------------------------------------------------------


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 40, bias=False), nn.Tanh(), nn.Linear(40, 40, bias=False), nn.Tanh(),
                         nn.Linear(40, 6, bias=False))  # fmt: skip


def backward(model: nn.Module, step: int, scale: float = 1.0) -> None:
    x = torch.randn(8, 12, generator=torch.Generator().manual_seed(step)).to(next(model.parameters()).dtype)
    (scale * model(x).square().mean()).backward()


@pytest.mark.parametrize(
    "options", [{}, {"gradient_clip_value": 0.01}, {"state_dtype": "int8"}, {"weight_average": 0.9}]
)
@pytest.mark.usefixtures("small")
def test_updates_within_the_backward_pass(options: dict[str, Any]) -> None:
    model, other = network(), network()
    within, after = muon(**options).attach(model, in_backward=True), muon(**options).attach(other)
    for step in range(4):
        backward(model, step)
        assert all(p.grad is None for p in model.parameters())
        within.step()
        backward(other, step)
        after.step()
        after.zero_grad()
    assert all_bits(within, [*model.parameters()]) == all_bits(after, [*other.parameters()])


def test_updates_within_two_backward_passes_at_once() -> None:
    models = [network() for _ in range(5)]
    optimizers = [muon().attach(model, in_backward=True) for model in models]

    def trained(pair: tuple[nn.Module, AttachedOptimizer]) -> list[Any]:
        model, opt = pair
        for step in range(20):
            backward(model, step)
            opt.step()
        return all_bits(opt, [*model.parameters()])

    expected = trained((models[0], optimizers[0]))
    with ThreadPoolExecutor(4) as pool:
        found = [*pool.map(trained, zip(models[1:], optimizers[1:], strict=True))]
    assert found == [expected] * 4


def test_a_scaler_divides_and_leaves_out() -> None:
    model, other = network(), network()
    scaled, plain = muon(gradient_clip_norm=0.1).attach(model), muon(gradient_clip_norm=0.1).attach(other)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(4):
        if step == 2:  # a step that is left out
            kept = all_bits(scaled, [*model.parameters()])
            scaler.scale(model(torch.full((1, 12), torch.inf)).sum()).backward()
            scaler.step(scaled)
            assert all_bits(scaled, [*model.parameters()]) == kept
            assert scaled.skipped_steps == 1
            scaler.update(1024.0)
            scaled.zero_grad()
        x = torch.randn(8, 12, generator=torch.Generator().manual_seed(step))
        scaler.scale(model(x).square().mean()).backward()
        scaler.step(scaled)
        scaler.update()
        scaled.zero_grad()
        backward(other, step)
        plain.step()
        plain.zero_grad()
    assert all_bits(scaled, [*model.parameters()]) == all_bits(plain, [*other.parameters()])


def test_a_gradient_that_is_not_finite_leaves_the_step_out() -> None:
    model = network()
    opt = MultiOptimizer({"default": muon(), "4": AdamW()}).attach(model, skip_nonfinite=True)
    backward(model, 0)
    opt.step()
    kept = all_bits(opt, [*model.parameters()])
    backward(model, 1)
    model[2].weight.grad[3, 3] = torch.nan
    opt.step()
    assert all_bits(opt, [*model.parameters()]) == kept
    assert (opt.skipped_steps, opt.last_nonfinite) == (1, "2.weight")


# -- transforms, options, memory -------------------------------------------------------------------


def by_hand(
    params: Sequence[Tensor],
    steps: int,
    changed: Callable[[int, Tensor, Tensor, Tensor], Tensor] = lambda place, w, g, new: new,
    seen: Callable[[int, Tensor, Tensor], Tensor] = lambda place, w, g: g,
    **numbers: Any,
) -> list[Tensor]:
    """Weights after steps of the rule itself, called with tensors: `seen` makes its gradient, `changed` the weight."""
    group = muon(**numbers).group()
    given = {name: group[name] for name in inspect.signature(rule).parameters if name in group}
    weights, buffers = [p.detach().clone() for p in params], [torch.zeros_like(p) for p in params]
    for step in range(steps):
        for place, w in enumerate(weights):
            g = gradient(place, step, w)
            new, buffers[place] = rule(w, seen(place, w, g), buffers[place], **given)
            weights[place] = changed(place, w, g, new)
    return weights


def cautiously(_: int, w: Tensor, g: Tensor, new: Tensor) -> Tensor:
    change = new - w
    mask = (change * g < 0).to(w)
    return w + change * mask / max(mask.mean().item(), 1e-3) if w.numel() else w


def centralized(_: int, w: Tensor, g: Tensor) -> Tensor:
    return g - g.flatten(1).mean(1).view(-1, *[1] * (w.dim() - 1)) if w.numel() else g


AROUND: dict[str, tuple[Callable[[Optimizer], Optimizer], dict[str, Any]]] = {
    "Cautious": (Cautious, {"changed": cautiously}),
    "Centralized": (Centralized, {"seen": centralized}),
    "both": (lambda inner: Cautious(Centralized(inner)), {"changed": cautiously, "seen": centralized}),
    "none": (lambda inner: inner, {}),
}


@pytest.mark.parametrize("bucket", [1 << 26, 1])
@pytest.mark.parametrize("around", AROUND)
def test_transforms_around(around: str, bucket: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of each tensor over what matrices have become, too."""
    monkeypatch.setattr(stacks, "BUCKET", bucket)
    make, hand = AROUND[around]
    params = weights(dtype=torch.float64)
    expected = by_hand(params, 4, wdecay=0.0, **hand)
    with use_backend("eager"):
        others = [nn.Parameter(p.detach().clone()) for p in params]
        eager = run(others, make(muon(wdecay=0.0)).attach(others), range(4))
    assert run(params, make(muon(wdecay=0.0)).attach(params), range(4)) == eager
    for p, wanted in zip(params, expected, strict=True):
        torch.testing.assert_close(p.detach(), wanted, rtol=0, atol=1e-12)


def test_lookahead_around() -> None:
    params = weights()
    twins = [nn.Parameter(p.detach().clone()) for p in params]
    slow = [p.detach().clone() for p in params]
    opt, plain = Lookahead(muon(), k=2, alpha=0.5).attach(params), muon().attach(twins)
    for step in range(4):
        run(params, opt, range(step, step + 1))
        run(twins, plain, range(step, step + 1))
        for p, s in zip(twins, slow, strict=True):
            if step % 2:
                s.add_(0.5 * (p.detach() - s))
                p.data.copy_(s)
    for p, q in zip(params, twins, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-6)


def test_schedule_free_has_a_momentum_of_its_own() -> None:
    with pytest.raises(TypeError, match="ScheduleFree and Muon, which it is around, both have the number momentum"):
        ScheduleFree(Muon())


DECAYS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    # What the rule sees for a gradient, and what of the weight is subtracted, without lr·λ.
    "coupled": (lambda w, g: g + 0.3 * w, lambda w, change: 0 * w),
    "decoupled": (lambda w, g: g, lambda w, change: w),
    "relative": (lambda w, g: g, lambda w, change: w / 0.02),
    "corrected": (lambda w, g: g, lambda w, change: w),
    "cautious": (lambda w, g: g, lambda w, change: w * (change * w <= 0)),
}


@pytest.mark.parametrize("form", DECAYS)
def test_forms_of_weight_decay(form: str) -> None:
    sees, decays = DECAYS[form]
    params = weights(dtype=torch.float64)
    expected = by_hand(
        params,
        4,
        changed=lambda _, w, g, new: new - 0.02 * 0.3 * decays(w, new - w),
        seen=lambda _, w, g: sees(w, g),
        wdecay=0.0,
    )
    run(params, muon(wdecay=0.3, decay_form=form).attach(params), range(4))
    for p, wanted in zip(params, expected, strict=True):
        torch.testing.assert_close(p.detach(), wanted, rtol=0, atol=1e-12)


def clipped_by_norm(params: Sequence[Tensor]) -> None:
    norm = sum(p.grad.square().sum() for p in params if p.grad is not None) ** 0.5
    for p in params:
        p.grad = p.grad * min(1.0, 3.0 / norm)


def clipped_by_value(params: Sequence[Tensor]) -> None:
    torch.nn.utils.clip_grad_value_(params, 0.25)


def negated(params: Sequence[Tensor]) -> None:
    for p in params:
        p.grad = -p.grad


BEFORE: dict[str, tuple[dict[str, Any], Callable[[Sequence[Tensor]], None]]] = {
    "clip by norm": ({"gradient_clip_norm": 3.0}, clipped_by_norm),
    "clip by value": ({"gradient_clip_value": 0.25}, clipped_by_value),
    "maximize": ({"maximize": True}, negated),
}


@pytest.mark.parametrize("option", BEFORE)
def test_what_is_made_of_gradients_first(option: str) -> None:
    options, make = BEFORE[option]
    params, others = weights(dtype=torch.float64), weights(dtype=torch.float64)
    opt, plain = muon(**options).attach(params), muon().attach(others)
    for step in range(4):
        run(params, opt, range(step, step + 1))
        give(others, step)
        make(others)
        plain.step()
    for p, q in zip(params, others, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-12)


def test_rates_by_layer_by_schedule_and_weights_that_are_clipped() -> None:
    params, others = weights(), weights()
    schedule = WarmupCosine(2, 6, unit="steps")
    opt = muon(schedule=schedule, lr_scale=0.5, param_clip_value=1.0).attach(params)
    plain = muon(param_clip_value=1.0).attach(others)
    for step in range(4):
        run(params, opt, range(step, step + 1))
        plain.param_groups[0]["lr"] = 0.5 * opt.param_groups[0]["lr"]
        run(others, plain, range(step, step + 1))
    assert [bits(p.detach()) for p in params] == [bits(p.detach()) for p in others]
    assert all((p.abs() <= 1).all() for p in params)


def test_the_norm_of_the_step_before() -> None:
    model, other = network().double(), network().double()
    opt = muon().attach(model, in_backward=True, gradient_clip_previous_norm=0.05)
    plain, previous = muon().attach(other), None
    for step in range(4):
        backward(model, step)
        opt.step()
        backward(other, step)
        norms = [p.grad.norm().item() for p in other.parameters()]
        for p, own in zip(other.parameters(), norms, strict=True):
            p.grad *= min(1.0, 0.05 / (own if previous is None else previous))
        previous = sum(norm**2 for norm in norms) ** 0.5
        plain.step()
        plain.zero_grad()
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-12)


@pytest.mark.parametrize("units", ["float32", "bfloat16"])
def test_a_step_takes_no_more_memory_than_a_bucket(units: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffers and temporaries of 40 matrices, which are 10 MB; the bucket is of 4."""
    monkeypatch.setattr(stacks, "BUCKET", 4 << 20)
    params = weights([(256, 256)] * 40)
    opt = muon(ns_steps=1, units=units).attach(params)
    give(params, 0)
    before = sum(arena.memory.nbytes for arena in _arenas.values())
    opt.step()
    buffers = sum(arena.memory.nbytes for arena in _arenas.values()) - before
    assert 0 < buffers + peak_of(opt.step) <= 4 << 20


def peak_of(step: Callable[[], Any]) -> int:
    """The most bytes that torch has allocated at a time within a step."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    most = held = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    assert held == 0
    return most
