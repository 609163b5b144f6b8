"""What a list of layers may hold, crossed with rules, options and ways to optimize, against the float64 reference."""

from __future__ import annotations

import gc
import pickle
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import reference
import torch
from rule_cases import RULES
from torch import Tensor, nn

import neon.optimizers
from neon.backends import gen_backend
from neon.initializers import Gaussian
from neon.layers import Affine, Linear
from neon.models import Model
from neon.optimizers import (
    Adadelta,
    Adagrad,
    Adam,
    GradientDescentMomentum,
    MultiOptimizer,
    Optimizer,
    RMSProp,
    ShiftAdaMax,
    get_param_list,
)
from neon.transforms import SumSquared, Tanh

BATCH, STEPS, CLIP = 8, 6, 20.0
SHAPES = ((64, 70), (70,), (5, 9, 100))  # two that are large enough for states of 8 bits


@pytest.fixture(autouse=True)
def _batches_of_eight() -> Iterator[None]:
    gen_backend(batch_size=BATCH, rng_seed=0)
    yield
    gen_backend(batch_size=1)


# -- contents: each makes layers of three weights with their gradients -----------------------------


class Plain:
    """One parameter or several, and a name only where one is given."""

    def __init__(self, *pairs: tuple[Tensor, Tensor], name: str | None = None) -> None:
        self.entries = [(pair, list[Tensor]()) for pair in pairs]
        if name is not None:
            self.name = name

    def get_params(self) -> Any:
        return self.entries[0] if len(self.entries) == 1 else self.entries


class Views(Plain):
    """New tensor objects at each call; `flat` says of what shape."""

    flat = False

    def get_params(self) -> Any:
        shape = (lambda t: t.view(-1)) if self.flat else (lambda t: t.data)
        return [((shape(w), shape(g)), states) for (w, g), states in self.entries]


class FlatViews(Views):
    flat = True


class Bare:
    """Nothing but get_params: no dict, and no weak references."""

    __slots__ = ("entry",)

    def __init__(self, pair: tuple[Tensor, Tensor]) -> None:
        self.entry = (pair, list[Tensor]())

    def get_params(self) -> Any:
        return self.entry


class Nothing:
    name = "nothing"

    def get_params(self) -> Any:
        return []


class Container:
    def __init__(self, layers: Any, name: str | None = None) -> None:
        self.layers, self.name = layers, name


class Module(nn.Module):
    def __init__(self, *pairs: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        for number, (w, g) in enumerate(pairs):
            parameter = nn.Parameter(w)
            parameter.grad = g
            self.register_parameter(f"w{number}", parameter)


Pairs = list[tuple[Tensor, Tensor]]


def shared(pairs: Pairs) -> list[Any]:
    """Each weight in two layers, which bring a quarter and three quarters of its gradient."""
    layers = [Plain((w, torch.empty_like(g)), name=f"{part}") for w, g in pairs for part in "ab"]
    for (_, g), a, b in zip(pairs, layers[::2], layers[1::2], strict=True):
        a.get_params, b.get_params = (
            lambda layer=layer, g=g, part=part: ((layer.entries[0][0][0], part * g), layer.entries[0][1])
            for layer, part in ((a, 0.25), (b, 0.75))
        )
    return layers


def twice(pairs: Pairs) -> list[Any]:
    layers = [Plain(pair) for pair in pairs]
    return [*layers, Container(layers), layers[0]]


CONTENTS: dict[str, Callable[[Pairs], list[Any]]] = {
    "plain tensors": lambda pairs: [Plain(pair) for pair in pairs],
    "several in one layer": lambda pairs: [Plain(*pairs)],
    "views made anew": lambda pairs: [Views(*pairs[:2]), Views(pairs[2])],
    "flat views made anew": lambda pairs: [FlatViews(pair) for pair in pairs],
    "a container": lambda pairs: [Container([Plain(pair) for pair in pairs])],
    "containers in containers": lambda pairs: [Container((Container([Plain(*pairs[:2])], "in"), Plain(pairs[2])))],
    "nested lists": lambda pairs: [[Plain(pairs[0]), [[Plain(pairs[1])], ()]], Plain(pairs[2])],
    "layers without parameters": lambda pairs: [Nothing(), *(x for pair in pairs for x in (Plain(pair), Nothing()))],
    "names": lambda pairs: [Plain(pair, name=f"layer {number}") for number, pair in enumerate(pairs)],
    "get_params alone": lambda pairs: [Bare(pair) for pair in pairs],
    "a layer twice": twice,
    "weights of two layers": shared,
    "modules of torch": lambda pairs: [Module(*pairs[:2]), nn.Sequential(Module(pairs[2]), nn.ReLU())],
    "of everything": lambda pairs: [Container([Bare(pairs[0]), Nothing()], "row"), [Views(pairs[1])], Module(pairs[2])],
}
WAYS: dict[str, Callable[[Any], Optimizer]] = {
    "alone": lambda opt: opt,
    "in a mapping": lambda opt: MultiOptimizer({"default": opt}),
    "in nested mappings": lambda opt: MultiOptimizer({"default": MultiOptimizer({"default": opt}, "inner")}),
}


class Run:
    """Weights in some dtype with the reference's beside them, and the same gradients for both."""

    def __init__(self, content: str, dtype: torch.dtype = torch.float64) -> None:
        self.rng = np.random.default_rng(17)
        self.expected = [self.numbers(shape, dtype) for shape in SHAPES]
        self.start = [w.copy() for w in self.expected]
        self.weights = [torch.tensor(w, dtype=dtype) for w in self.expected]
        self.grads = [torch.zeros_like(w) for w in self.weights]
        self.layers = CONTENTS[content](list(zip(self.weights, self.grads, strict=True)))

    def numbers(self, shape: tuple[int, ...], dtype: torch.dtype, scale: float = 0.5) -> np.ndarray:
        """Numbers that are exact in the dtype."""
        return torch.tensor(scale * self.rng.standard_normal(shape)).to(dtype).double().numpy()

    def steps(self, opt: Optimizer, rule: reference.Reference) -> Iterator[int]:
        for epoch in range(STEPS):
            gradients = [self.numbers(shape, grad.dtype, BATCH) for shape, grad in zip(SHAPES, self.grads, strict=True)]
            for grad, g in zip(self.grads, gradients, strict=True):
                grad.copy_(torch.tensor(g))
            opt.optimize(self.layers, epoch)
            rule.step(self.expected, gradients, epoch)
            yield epoch

    def check(self, tolerance: float = 1e-12) -> None:
        for w, wanted, start in zip(self.weights, self.expected, self.start, strict=True):
            assert np.abs(wanted - start).max() > 1e-4
            np.testing.assert_allclose(w.double().numpy(), wanted, rtol=0, atol=tolerance)


def made(rule: str, **options: Any) -> tuple[Any, reference.Reference]:
    """neon's optimizer, and the reference of it, which knows nothing of formats."""
    name, hyper = RULES[rule]
    known = {key: value for key, value in options.items() if key == "gradient_clip_norm"}
    return (
        getattr(neon.optimizers, name)(**hyper, **options),
        getattr(reference, name)(batch_size=BATCH, **hyper, **known),
    )


# -- rules and options -----------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("content", CONTENTS)
def test_every_rule_on_every_content(content: str, way: str, rule: str) -> None:
    """The norm of all gradients is about 100, so the bound bites."""
    opt, expected = made(rule, gradient_clip_norm=CLIP)
    run = Run(content)
    for _ in run.steps(WAYS[way](opt), expected):
        pass
    run.check()


@pytest.mark.parametrize("rule", ["descent", "momentum", "adam", "adadelta"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("content", CONTENTS)
def test_averages_of_weights(content: str, way: str, rule: str) -> None:
    leaf, expected = made(rule, weight_average=0.7)
    run, opt = Run(content), WAYS[way](leaf)
    averages = [w.copy() for w in run.expected]
    for _ in run.steps(opt, expected):
        averages = [a + 0.3 * (w - a) for a, w in zip(averages, run.expected, strict=True)]
    with opt.averaged(run.layers):
        for w, average in zip(run.weights, averages, strict=True):
            np.testing.assert_allclose(w.numpy(), average, rtol=0, atol=1e-12)
    run.check()


@pytest.mark.parametrize("rule", ["momentum", "rmsprop", "adam"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("content", CONTENTS)
def test_states_of_eight_bits(content: str, way: str, rule: str) -> None:
    """The weights lie within 8 % of their way from those of float64 states, the same for every content."""
    opt, expected = made(rule, state_dtype="int8")
    run, again = Run(content, torch.float32), Run("plain tensors", torch.float32)
    for _ in run.steps(WAYS[way](opt), expected):
        pass
    for _ in again.steps(made(rule, state_dtype="int8")[0], made(rule)[1]):
        pass
    moved = max(np.abs(w - start).max() for w, start in zip(run.expected, run.start, strict=True))
    run.check(0.08 * moved)
    if content != "flat views made anew":  # blocks are of rows, and a flat view has one
        assert all(map(torch.equal, run.weights, again.weights))
    states = {state.dtype for _, states in get_param_list(run.layers) for state in states}
    assert states & {torch.int8, torch.uint8}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("content", CONTENTS)
def test_rounding_at_random(content: str, rule: str) -> None:
    """Each step errs by less than a unit of the last bit of a bfloat16, and by nothing on average."""
    opt, expected = made(rule, stochastic_round=True)
    run = Run(content, torch.bfloat16)
    units = [np.zeros_like(w) for w in run.expected]
    for _ in run.steps(opt, expected):
        units = [
            unit + 2.0 ** (np.floor(np.log2(np.maximum(np.abs(w) + unit, 1e-30))) - 7)
            for unit, w in zip(units, run.expected, strict=True)
        ]
    errors = []
    for w, wanted, unit in zip(run.weights, run.expected, units, strict=True):
        error = (w.double().numpy() - wanted) / unit
        assert (np.abs(error) < 1.001).all()  # a weight decay, as of AdamW, sees what was rounded
        errors.append(error.ravel())
    error = np.concatenate(errors)
    assert error.std() > 0.05
    assert abs(error.mean()) < 4 * error.std() / np.sqrt(error.size)


# -- an optimizer by hand --------------------------------------------------------------------------


class ByHand(Optimizer):
    """Momentum, as the documentation has an optimizer written."""

    def optimize(self, layer_list: Any, epoch: int) -> None:
        for (param, grad), states in get_param_list(layer_list):
            if len(states) == 0:
                states.append(self.be.zeros_like(grad))
            states[0][:] = 0.9 * states[0] - 0.02 * (grad / self.be.bsz)
            param[:] = param + states[0]


# alone it knows no norm but its own
@pytest.mark.parametrize(
    ("way", "bound"), [(way, b) for way in WAYS for b in (None, CLIP) if b is None or way != "alone"]
)
@pytest.mark.parametrize("content", CONTENTS)
def test_an_optimizer_by_hand_on_every_content(content: str, way: str, bound: float | None) -> None:
    opt = WAYS[way](ByHand())
    if isinstance(opt, MultiOptimizer):
        opt.gradient_clip_norm = bound
    rule = reference.GradientDescentMomentum(
        learning_rate=0.02, momentum_coef=0.9, batch_size=BATCH, gradient_clip_norm=bound
    )
    run = Run(content)
    for _ in run.steps(opt, rule):
        pass
    run.check()


# -- three tensors where a rule has two states -----------------------------------------------------

SCRATCH = {"Adadelta": Adadelta, "ShiftAdaMax": ShiftAdaMax}


def three(rng: np.random.Generator, like: Tensor) -> list[Tensor]:
    return [torch.tensor(0.01 * rng.random(like.shape)).to(like) for _ in range(3)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SCRATCH)
def test_the_third_of_three_states_is_left_alone(name: str, way: str) -> None:
    run, opt = Run("plain tensors"), WAYS[way](SCRATCH[name]())
    rule = getattr(reference, name)(batch_size=BATCH)
    lists = [layer.get_params()[1] for layer in run.layers]
    for place, (states, w) in enumerate(zip(lists, run.weights, strict=True)):
        states.extend(three(run.rng, w))
        rule.state[place] = [state.numpy().copy() for state in states[:2]]
    held, thirds = [list(states) for states in lists], [states[2].clone() for states in lists]
    for epoch in run.steps(opt, rule):
        assert opt.updates == epoch + 1
        assert all(a is b for now, before in zip(lists, held, strict=True) for a, b in zip(now, before, strict=True))
        assert all(map(torch.equal, (states[2] for states in lists), thirds))
    run.check()
    for place, states in enumerate(lists):
        for state, wanted in zip(states[:2], rule.state[place], strict=True):
            np.testing.assert_allclose(state.numpy(), wanted, rtol=0, atol=1e-12)


def test_a_plan_stays_for_three_tensors_and_for_scales_beside_states(monkeypatch: pytest.MonkeyPatch) -> None:
    from neon.stepping import layer_lists as stepper

    built: list[Any] = []
    plan = stepper.Plan
    monkeypatch.setattr(stepper, "Plan", lambda *args: built.append(1) or plan(*args))
    for opt, states in ((Adadelta(), 3), (Adam(state_dtype="int8"), 0)):
        run = Run("plain tensors", torch.float32)
        for layer, w in zip(run.layers, run.weights, strict=True):
            layer.get_params()[1].extend(three(run.rng, w)[:states])
        built.clear()
        for _ in run.steps(opt, reference.Adadelta()):
            assert built == [1]
        states = run.layers[0].get_params()[1]
        states[-1] = states[-1].clone()  # another tensor in its place is seen
        opt.optimize(run.layers, 0)
        assert built == [1, 1]


@pytest.mark.parametrize("rule", [Adam, RMSProp, Adagrad, lambda: GradientDescentMomentum(0.1, 0.9)])
def test_other_rules_refuse_a_tensor_too_many(rule: Callable[[], Optimizer]) -> None:
    run = Run("plain tensors")
    states = run.layers[0].get_params()[1]
    states.extend(three(run.rng, run.weights[0]))
    with pytest.raises(ValueError, match=r"holds 3 tensors; .* keeps [12] "):
        rule().optimize(run.layers, 0)
    assert all(map(torch.equal, run.weights, map(torch.tensor, run.start)))


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("name", SCRATCH)
def test_lists_of_any_other_length_are_refused(name: str, count: int) -> None:
    run = Run("plain tensors")
    run.layers[0].get_params()[1].extend(torch.zeros_like(run.weights[0]) for _ in range(count))
    with pytest.raises(ValueError, match=rf"holds {count} tensors; .* keeps 2 \(exp_avg|square_avg"):
        SCRATCH[name]().optimize(run.layers, 0)


@pytest.mark.parametrize("option", [{"weight_average": 0.9}, {"master": "split"}])
@pytest.mark.parametrize("stepped", [False, True])
@pytest.mark.parametrize("name", SCRATCH)
def test_scratch_is_not_taken_for_an_average_or_low_bits(name: str, stepped: bool, option: dict[str, Any]) -> None:
    run = Run("plain tensors", torch.bfloat16)
    for layer, w in zip(run.layers, run.weights, strict=True):
        layer.get_params()[1].extend(three(run.rng, w))
    if stepped:
        SCRATCH[name]().optimize(run.layers, 0)
    before = [w.clone() for w in run.weights]
    with pytest.raises(ValueError, match=r"the last may be scratch; with weight_average or master .*empty list"):
        SCRATCH[name](**option).optimize(run.layers, 0)
    assert all(map(torch.equal, run.weights, before))
    for layer in run.layers:
        layer.get_params()[1].clear()
    for _ in range(3):  # the list of three that it makes itself is no such list
        SCRATCH[name](**option).optimize(run.layers, 0)


@pytest.mark.parametrize("name", SCRATCH)
def test_given_states_of_float32_stay_under_other_formats(name: str) -> None:
    """A format is that of new states; as for any other rule, states that are given keep their own."""
    run, again = Run("plain tensors", torch.float32), Run("plain tensors", torch.float32)
    for some, count in ((run, 3), (again, 2)):
        for layer, w in zip(some.layers, some.weights, strict=True):
            layer.get_params()[1].extend([torch.zeros_like(w) for _ in range(count)])
    for _ in run.steps(SCRATCH[name](state_dtype="int8"), reference.Adadelta()):
        pass
    for _ in again.steps(SCRATCH[name](), reference.Adadelta()):
        pass
    assert all(map(torch.equal, run.weights, again.weights))


@pytest.mark.parametrize("name", SCRATCH)
def test_a_model_is_saved_with_three_states_and_goes_on(name: str, tmp_path: Any) -> None:
    def model() -> Model:
        return Model([Affine(6, Gaussian(scale=0.3), activation=Tanh()), Linear(2, Gaussian(scale=0.3))])

    batches = [(torch.randn(BATCH, 3), torch.randn(BATCH, 2)) for _ in range(4)]
    through, first, second = model(), model(), model()
    for one in (through, first):
        torch.manual_seed(2)
        one(batches[0][0])  # which makes the weights
        for (w, _), states in one_list(one):
            states.extend(torch.full_like(w, value) for value in (0.01, 0.02, 9.0))
    through.fit(batches, SumSquared(), SCRATCH[name](), 2)
    first.fit(batches, SumSquared(), SCRATCH[name](), 1)
    first.save_params(tmp_path / "model.prm")
    second.load_params(tmp_path / "model.prm")
    opt = SCRATCH[name]()
    second.fit(batches, SumSquared(), opt, 1)
    assert opt.updates == 8
    assert all(map(torch.equal, second.parameters(), through.parameters()))
    assert [[states[2].unique().tolist() for _, states in one_list(second)]] == [[[9.0]] * 3]


def one_list(model: Model) -> list[Any]:
    return [entry for layer in model.layers for sub in getattr(layer, "layers", [layer]) for entry in entries(sub)]


def entries(layer: Any) -> list[Any]:
    found = layer.get_params()
    return [found] if isinstance(found, tuple) else found


# -- which layers an optimizer was given -----------------------------------------------------------


class Conv(Plain):
    pass


def plain(kind: type[Plain] = Plain, name: str | None = None) -> Any:
    return kind((torch.zeros(2), torch.ones(2)), name=name)


def test_map_list_has_the_layers_of_each_optimizer_in_order() -> None:
    a, b, hand = Adam(), RMSProp(), ByHand()
    opt = MultiOptimizer({"default": a, "Conv": b, "last": hand, "frozen": None})
    assert opt.map_list is None
    layers = [plain(), plain(Conv), [plain(name="frozen"), Nothing()], Container([plain(Conv)]), plain(name="last")]
    for _ in range(2):
        opt.optimize([*layers, layers[1]], 0)
        assert opt.map_list == {a: [layers[0]], b: [layers[1], layers[3].layers[0]], hand: [layers[4]]}
    with pytest.warns(UserWarning, match="no layer fits the keys 'last', 'frozen'"):
        opt.optimize(layers[1:2], 0)
    assert opt.map_list == {b: [layers[1]]}
    opt.optimize([], 0)
    assert opt.map_list == {}


def test_map_list_of_nested_mappings() -> None:
    """The outer one has the inner one's layers as a whole; under several keys they are one list."""
    a, b, c = Adam(), RMSProp(), Adadelta()
    inner = MultiOptimizer({"default": a, "Conv": b})
    outer = MultiOptimizer({"default": c, "one": inner, "two": inner})
    layers = [plain(name="one"), plain(Conv, name="two"), plain()]
    outer.optimize(layers, 0)
    assert outer.map_list == {inner: layers[:2], c: [layers[2]]}
    assert inner.map_list == {a: [layers[0]], b: [layers[1]]}
    inner.optimize([layers[1]], 0)
    assert inner.map_list == {b: [layers[1]]}


def test_map_list_has_layers_without_a_gradient_and_all_that_share_a_weight() -> None:
    a = Adam()
    opt = MultiOptimizer({"default": a})
    module, first = nn.Linear(2, 1), plain()
    second = Plain((first.entries[0][0][0], torch.ones(2)))
    opt.optimize([module, first, second], 0)
    assert opt.map_list == {a: [module, first, second]}


def test_map_list_keeps_no_layer_alive_and_is_not_copied() -> None:
    a = Adam()
    opt = MultiOptimizer({"default": a})
    layers: list[Any] = [plain(), Bare((torch.zeros(2), torch.ones(2)))]
    opt.optimize(layers, 0)
    gone, bare = weakref.ref(layers[0]), layers[1]
    layers.clear()
    gc.collect()
    assert gone() is None
    assert opt.map_list == {a: [bare]}
    assert pickle.loads(pickle.dumps(opt)).map_list is None


def test_a_step_that_is_refused_leaves_map_list() -> None:
    a = Adam()
    opt, layer = MultiOptimizer({"default": a}), plain()
    opt.optimize([layer], 0)
    with pytest.raises(ValueError, match="gradient"):
        opt.optimize([Plain((torch.zeros(2), torch.ones(3)))], 0)
    assert opt.map_list == {a: [layer]}


def test_another_mapping_holds_from_the_next_step_on() -> None:
    slow, fast = GradientDescentMomentum(1.0, 0.0), GradientDescentMomentum(100.0, 0.0)
    layers = [plain(name="one"), plain(name="two")]
    opt = MultiOptimizer({"default": slow})
    opt.optimize(layers, 0)
    opt.optimizer_mapping["one"] = fast
    opt.optimize(layers, 0)
    assert opt.map_list == {fast: [layers[0]], slow: [layers[1]]}
    opt.optimizer_mapping = {"default": fast}
    opt.optimize(layers, 0)
    assert opt.map_list == {fast: layers}
    assert [layer.entries[0][0][0][0].item() * -BATCH for layer in layers] == [201, 102]
    opt.optimizer_mapping = {"default": slow, "three": fast}
    with pytest.warns(UserWarning, match="'three'"):
        opt.optimize(layers, 0)
    with pytest.raises(ValueError, match="needs the key 'default'"):
        opt.optimizer_mapping = {"one": fast}
    assert opt.keys == ("default", "three")


class OneAlpha(Optimizer):
    """A rule with an alpha that no rule of the library could have."""

    @staticmethod
    def rule(w: Any, g: Any, *, lr: float = 0.1, alpha: float = 5.0) -> Any:
        return w - lr * alpha * g


def test_values_of_the_optimizer_before_are_forgotten() -> None:
    layer, opt = plain(), MultiOptimizer({"default": OneAlpha()})
    opt.optimize([layer], 0)
    opt.optimizer_mapping = {"default": RMSProp()}
    opt.optimize([layer], 0)
    opt.optimizer_mapping = {"default": Adagrad()}
    layer.entries[0][1].clear()
    opt.optimize([layer], 0)
    opt.optimizer_mapping = {"default": OneAlpha()}
    layer.entries[0][1].clear()
    opt.optimize([layer], 0)
