"""Layers and an optimizer that change at random between steps, so that two of a kind can be compared."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import torch
from plain_layers import Plain
from torch import Tensor, nn

from neon.assignment.sites import layer_sites
from neon.backends import default
from neon.initializers import Gaussian
from neon.layers import Affine, Bias, Linear, Sequential
from neon.optimizers import Adam, GradientDescentMomentum, MultiOptimizer, Optimizer, RMSProp, Schedule, WarmupCosine
from neon.stepping.update_counts import set_updates

SIDE = 3


class Named(Plain):
    """A layer that is no module, with a name."""

    name: str | None = None


class Giving(nn.Module):
    """A module that gives its parameters itself."""

    def __init__(self, made: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(SIDE, generator=made))
        self.states: list[Tensor] = []

    def get_params(self) -> Any:
        return (self.weight, self.weight.grad), self.states


class Box:
    """A container of layers."""

    def __init__(self, layers: list[Any], name: str | None = None) -> None:
        self.layers, self.name = layers, name


class Chosen(Optimizer):
    """An optimizer of one's own, which goes by what nobody else knows of."""

    turned = False

    @staticmethod
    def rule(w: Any, g: Any, *, lr: Any = 0.01) -> Any:
        return w - lr * g

    @staticmethod
    def other(w: Any, g: Any, *, lr: Any = 0.01) -> Any:
        return w + lr * g

    def select_rule(self, values: Any) -> Any:
        return self.other if Chosen.turned else self.rule


class Descent(Optimizer):
    """One whose rule is another from time to time."""

    rule = Chosen.rule


RULES = Chosen.rule, Chosen.other


class World:
    """A list of layers, the optimizer that steps over them, and a generator of numbers for both."""

    def __init__(self, seed: int, mapping: bool) -> None:
        self.numbers, self.epoch = torch.Generator().manual_seed(seed), 0
        torch.manual_seed(seed)
        self.layers: list[Any] = [self.layer(kind) for kind in ("linear", "affine", "torch", "plain", "giving") * 2]
        Chosen.turned, Descent.rule = False, staticmethod(RULES[0])
        self.optimizer: Optimizer = Adam()
        if mapping:
            self.optimizer = MultiOptimizer({
                "default": Adam(), "Bias": GradientDescentMomentum(0.1, 0.9), "b*": RMSProp(learning_rate=0.01),
                "Giving": Chosen(), "Named": Descent(),
            })  # fmt: skip
        self.gradients()

    def layer(self, kind: str) -> Any:
        if kind == "plain":
            return Named(self.random(SIDE), self.random(SIDE), torch.float32)
        if kind == "giving":
            return Giving(self.numbers)
        if kind == "torch":
            return nn.Linear(SIDE, SIDE)
        layer = {"linear": Linear, "affine": Affine}[kind](SIDE, Gaussian(scale=0.1))
        return layer.configure(SIDE)

    def random(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.numbers)

    # -- what is in the list ---------------------------------------------------------------------------

    def flat(self) -> list[Any]:
        found: list[Any] = []
        waiting = [*self.layers]
        while waiting:
            layer = waiting.pop(0)
            if isinstance(layer, (list, Box)):
                waiting[:0] = layer if isinstance(layer, list) else layer.layers
            elif layer not in found:
                found.append(layer)
        return found

    def modules(self) -> list[nn.Module]:
        return [layer for layer in self.flat() if isinstance(layer, nn.Module)]

    def parameters(self) -> list[nn.Parameter]:
        return [p for module in self.modules() for p in module.parameters()]

    def entries(self) -> list[Any]:
        return [site.entry for site in layer_sites(self.layers) if site.entry is not None]

    def leaves(self) -> list[Any]:
        return [leaf for leaf, _ in self.optimizer.leaves().values()]

    def gradients(self) -> None:
        for p in self.parameters():
            p.grad = self.random(*p.shape)
        for layer in self.flat():
            if isinstance(layer, Plain):
                layer.g = self.random(*layer.w.shape)


Change = Callable[[World, Random], None]
CHANGES: list[Change] = []


def change(function: Change) -> Change:
    CHANGES.append(function)
    return function


def _some(rng: Random, values: list[Any]) -> list[Any]:
    """One of them, if there is any."""
    return [values[rng.randrange(len(values))]] if values else []


@change
def nothing(world: World, rng: Random) -> None:
    pass


@change
def new_gradients(world: World, rng: Random) -> None:
    world.gradients()


@change
def gradients_come_and_go(world: World, rng: Random) -> None:
    for p in _some(rng, world.parameters()):
        p.grad = None if p.grad is not None else world.random(*p.shape)


@change
def a_gradient_that_does_not_fit(world: World, rng: Random) -> None:
    for layer in _some(rng, [layer for layer in world.flat() if isinstance(layer, Plain)]):
        layer.g = world.random(SIDE + 1)


@change
def a_gradient_of_a_plain_layer(world: World, rng: Random) -> None:
    for layer in _some(rng, [layer for layer in world.flat() if isinstance(layer, Plain)]):
        layer.g = rng.choice([None, world.random(*layer.w.shape), world.random(*layer.w.shape)])


@change
def a_layer_is_added(world: World, rng: Random) -> None:
    made = world.layer(rng.choice(["linear", "affine", "torch", "plain", "giving"]))
    world.layers.insert(rng.randrange(len(world.layers) + 1), made)
    world.gradients()


@change
def a_layer_is_replaced(world: World, rng: Random) -> None:
    if world.layers:
        world.layers[rng.randrange(len(world.layers))] = world.layer(rng.choice(["linear", "torch", "plain"]))
        world.gradients()


@change
def a_layer_is_removed(world: World, rng: Random) -> None:
    if len(world.layers) > 3:
        world.layers.pop(rng.randrange(len(world.layers)))


@change
def layers_are_reordered(world: World, rng: Random) -> None:
    rng.shuffle(world.layers)


@change
def layers_are_put_into_a_list(world: World, rng: Random) -> None:
    world.layers[1:3] = [world.layers[1:3]]


@change
def layers_are_put_into_a_container(world: World, rng: Random) -> None:
    box = Box(world.layers[1:3], rng.choice([None, "b1", "a1"]))
    world.layers[1:3] = [box] if all(not isinstance(layer, (list, Box)) for layer in box.layers) else box.layers


@change
def a_list_is_opened(world: World, rng: Random) -> None:
    for inner in [layer for layer in world.layers if isinstance(layer, (list, Box))][:1]:
        place = next(place for place, layer in enumerate(world.layers) if layer is inner)
        world.layers[place : place + 1] = inner if isinstance(inner, list) else inner.layers


@change
def one_layer_is_there_twice(world: World, rng: Random) -> None:
    world.layers.append(world.layers[rng.randrange(len(world.layers))])


@change
def a_container_of_torchs(world: World, rng: Random) -> None:
    modules = [layer for layer in world.layers[:2] if isinstance(layer, nn.Module)]
    if len(modules) == 2:
        world.layers[:2] = [rng.choice([nn.Sequential, lambda *given: Sequential(given)])(*modules)]


@change
def a_module_within_is_replaced(world: World, rng: Random) -> None:
    for outer in _some(rng, [m for m in world.modules() if m._modules]):
        name = rng.choice([*outer._modules])
        outer._modules[name] = world.layer(rng.choice(["linear", "torch"]))
        world.gradients()


@change
def modules_within_are_reordered(world: World, rng: Random) -> None:
    for outer in _some(rng, [m for m in world.modules() if m._modules]):
        name = rng.choice([*outer._modules])
        outer._modules[name] = outer._modules.pop(name)


@change
def a_name(world: World, rng: Random) -> None:
    for layer in _some(rng, [layer for layer in world.flat() if hasattr(layer, "name")]):
        layer.name = rng.choice([None, "a1", "b1", "".join(["b", "2"])])


@change
def a_class(world: World, rng: Random) -> None:
    for layer in _some(rng, [layer for layer in world.flat() if type(layer) in (Linear, Bias)]):
        layer.__class__ = type(rng.choice(["Bias", "Other"]), (type(layer),), {})


@change
def a_parameter_is_replaced(world: World, rng: Random) -> None:
    for module in _some(rng, [m for m in world.modules() if "weight" in m._parameters]):
        module.weight = nn.Parameter(world.random(*module.weight.shape))
        module.weight.grad = world.random(*module.weight.shape)


@change
def parameters_change_places(world: World, rng: Random) -> None:
    layers = [m for m in world.modules() if type(m) is nn.Linear]
    if len(layers) > 1:
        layers[0].weight, layers[1].weight = layers[1].weight, layers[0].weight


@change
def a_parameter_moves(world: World, rng: Random) -> None:
    for p in _some(rng, world.parameters()):
        p.data = p.data.clone()


@change
def a_parameter_has_another_shape(world: World, rng: Random) -> None:
    for p in _some(rng, [p for p in world.parameters() if p.dim() == 2]):
        p.data = p.data.view(1, -1)
        p.grad = world.random(*p.shape)


@change
def a_parameter_is_tied(world: World, rng: Random) -> None:
    layers = [m for m in world.modules() if type(m) is nn.Linear]
    if len(layers) > 1:
        layers[0].weight = layers[1].weight


@change
def a_parameter_is_frozen(world: World, rng: Random) -> None:
    for p in _some(rng, world.parameters()):
        p.requires_grad_(not p.requires_grad)


@change
def a_plain_parameter_is_replaced(world: World, rng: Random) -> None:
    for layer in _some(rng, [layer for layer in world.flat() if isinstance(layer, Plain)]):
        layer.w = rng.choice([layer.w.clone(), layer.w.detach(), world.random(SIDE)])


@change
def two_plain_layers_share_memory(world: World, rng: Random) -> None:
    layers = [layer for layer in world.flat() if isinstance(layer, Plain)]
    if len(layers) > 1:
        layers[0].w.data = layers[1].w.data


@change
def states_are_emptied(world: World, rng: Random) -> None:
    for _, states in _some(rng, world.entries()):
        states.clear()


@change
def states_are_replaced(world: World, rng: Random) -> None:
    for _, states in _some(rng, world.entries()):
        states[:] = [state * 2 for state in states]


@change
def a_list_of_states_is_replaced(world: World, rng: Random) -> None:
    for layer in _some(rng, [layer for layer in world.flat() if isinstance(layer, (Plain, Giving))]):
        layer.states = rng.choice([list, layer.states.copy])()


@change
def states_change_places(world: World, rng: Random) -> None:
    lists = [states for (param, _), states in world.entries() if param.shape == (SIDE,) and len(states) == 2]
    if len(lists) > 1:
        lists[0][:], lists[1][:] = lists[1][:], lists[0][:]


@change
def counts(world: World, rng: Random) -> None:
    for entry in _some(rng, world.entries()):
        set_updates(entry, rng.randrange(9))


@change
def another_optimizer_steps(world: World, rng: Random) -> None:
    flat = [layer for layer in world.flat() if isinstance(layer, nn.Linear)]
    for layer in _some(rng, flat):
        Adam(learning_rate=0.1).optimize([layer], 0)


@change
def part_of_the_layers_is_stepped(world: World, rng: Random) -> None:
    world.optimizer.optimize(world.layers[: rng.randrange(1, 4)], world.epoch)


@change
def the_epoch(world: World, rng: Random) -> None:
    world.epoch += rng.randrange(1, 3)


@change
def the_batch_size(world: World, rng: Random) -> None:
    default.bsz = rng.randrange(1, 9)


@change
def a_number(world: World, rng: Random) -> None:
    for leaf in _some(rng, world.leaves()):
        leaf.learning_rate = rng.choice([0.0, 0.01, 0.02, -1.0])


@change
def an_option(world: World, rng: Random) -> None:
    name, value = rng.choice([
        ("gradient_clip_norm", 0.5), ("gradient_clip_norm", None), ("gradient_clip_value", 0.1), ("wdecay", 0.1),
        ("param_clip_value", 1.0), ("lr_scale", 0.5), ("seed", 3), ("maximize", True),
    ])  # fmt: skip
    for leaf in _some(rng, world.leaves()):
        setattr(leaf, name, value)


@change
def a_norm_over_all(world: World, rng: Random) -> None:
    world.optimizer.gradient_clip_norm = rng.choice([None, 0.5, 0.7])


@change
def a_rule(world: World, rng: Random) -> None:
    Descent.rule = staticmethod(rng.choice(RULES))


@change
def a_rule_that_is_chosen(world: World, rng: Random) -> None:
    Chosen.turned = rng.choice([True, False])


@change
def a_number_within(world: World, rng: Random) -> None:
    for leaf in world.leaves():
        if isinstance(leaf, Chosen):
            leaf._hyperparameters["lr"] = rng.choice([0.1, 0.2, -0.0])


@change
def formats_of_states(world: World, rng: Random) -> None:
    for leaf in world.leaves():
        if isinstance(leaf, Adam) and isinstance(leaf.state_dtype, dict):
            leaf.state_dtype["exp_avg"] = "none"  # which is refused
        elif isinstance(leaf, Adam):
            leaf.state_dtype = {"exp_avg": torch.float32}


@change
def a_schedule(world: World, rng: Random) -> None:
    for leaf in _some(rng, world.leaves()):
        leaf.schedule = rng.choice([Schedule(), Schedule([1, 3], 0.5), WarmupCosine(2, 50, unit="steps")])


@change
def a_schedule_from_within(world: World, rng: Random) -> None:
    for leaf in _some(rng, world.leaves()):
        leaf.schedule = Schedule([1, 2], 0.5)
        leaf.schedule.change = rng.choice([0.25, 0.1])


@change
def a_key(world: World, rng: Random) -> None:
    mapping: Any = getattr(world.optimizer, "optimizer_mapping", {"default": None})
    key = rng.choice(["a1", "b1", "Linear", "Named", "*2"])
    if key in mapping:
        del mapping[key]
    else:
        mapping[key] = rng.choice(
            [
                None,
                Adam(learning_rate=0.02),
                MultiOptimizer({"default": Adam(learning_rate=0.03)}, gradient_clip_norm=1.0),
            ]
        )


@change
def another_mapping(world: World, rng: Random) -> None:
    mapping: Any = getattr(world.optimizer, "optimizer_mapping", {"default": None})
    keys = [*mapping]
    rng.shuffle(keys)
    if isinstance(world.optimizer, MultiOptimizer):
        world.optimizer.optimizer_mapping = {key: mapping[key] for key in keys}


@change
def an_optimizer_of_the_mapping(world: World, rng: Random) -> None:
    mapping: Any = getattr(world.optimizer, "optimizer_mapping", {"default": None})
    mapping[rng.choice([*mapping])] = rng.choice([Adam(), GradientDescentMomentum(0.01, 0.9)])
