"""neon's optimizers as their documentation uses them: constructors, schedules, a mapping, a rule by hand.

Run it: python examples/documented_snippets.py
"""

# ruff: noqa: N816 - the names are those of the documentation
from __future__ import annotations

import torch

from neon.backends import gen_backend
from neon.initializers import Gaussian
from neon.layers import Affine, Linear
from neon.models import Model
from neon.optimizers import (
    Adam,
    ExpSchedule,
    GradientDescentMomentum,
    MultiOptimizer,
    Optimizer,
    PolySchedule,
    PowerSchedule,
    RMSProp,
    Schedule,
    StepSchedule,
    get_param_list,
)
from neon.transforms import CrossEntropyMulti, Softmax

BATCH_SIZE = 32
be = gen_backend(batch_size=BATCH_SIZE, rng_seed=0)

# --- A mapping: the layer's name wins over its class, its class over the default. ---

layers = []
layers.append(Linear(nout=100, init=Gaussian(), name="layer_one"))
layers.append(Linear(nout=50, init=Gaussian(), name="layer_two"))
layers.append(Affine(nout=5, init=Gaussian(), activation=Softmax()))

optimizer_A = GradientDescentMomentum(0.01, 0.9, wdecay=0.0005, gradient_clip_value=5, name="optimizer_A")
optimizer_B = RMSProp(learning_rate=2e-3, gradient_clip_norm=1.0, name="optimizer_B")
optimizer_C = Adam(learning_rate=1e-3, name="optimizer_C")
mapping = {"default": optimizer_A, "Linear": optimizer_B, "layer_two": optimizer_C}
opt = MultiOptimizer(mapping)

print("Which layer goes to which optimizer\n")
print(opt.table(layers))

# --- Schedules: from the first learning rate and the epoch to the learning rate. ---

schedules = {
    "Schedule()": Schedule(),
    "Schedule([2, 6], 0.5)": Schedule(step_config=[2, 6], change=0.5),
    "Schedule([2, 6], [0.6, 0.4])": Schedule(step_config=[2, 6], change=[0.6, 0.4]),
    "StepSchedule([2, 6], [0.6, 0.4])": StepSchedule(step_config=[2, 6], change=[0.6, 0.4]),
    "PowerSchedule(2, 0.5)": PowerSchedule(step_config=2, change=0.5),
    "ExpSchedule(0.25)": ExpSchedule(decay=0.25),
    "PolySchedule(8, 2)": PolySchedule(total_epochs=8, power=2.0),
}
print("\nThe learning rate in epochs 0 to 8, from 1.0\n")
for written, schedule in schedules.items():
    rates = (schedule.get_learning_rate(1.0, epoch) for epoch in range(9))
    print(f"{written:34}", *(f"{rate:.3f}" for rate in rates))

# --- A rule by hand: subclass Optimizer, and loop over the parameters in `optimize`. ---


class HeavyBall(Optimizer):
    """Gradient descent with momentum, its loop written out (Polyak 1964)."""

    def __init__(self, learning_rate: float, momentum_coef: float, name: str | None = None) -> None:
        super().__init__(name=name)
        self.learning_rate = learning_rate
        self.momentum_coef = momentum_coef

    def optimize(self, layer_list, epoch) -> None:
        for (param, grad), states in get_param_list(layer_list):
            if len(states) == 0:
                states.append(self.be.zeros_like(grad))
            velocity = states[0]
            grad = grad / self.be.bsz
            velocity[:] = self.momentum_coef * velocity - self.learning_rate * grad
            param[:] = param + velocity


# --- The same network, trained by both: gradients are summed over the batch, as neon has it. ---

inputs = torch.linspace(-1, 1, BATCH_SIZE * 20).reshape(BATCH_SIZE, 20)
classes = torch.arange(BATCH_SIZE) * 5 // BATCH_SIZE


def final_cost(optimizer: Optimizer, steps: int = 200) -> float:
    """The mean cost after so many calls of `optimize`, from the same first weights."""
    torch.manual_seed(0)
    small = Gaussian(scale=0.1)
    model = Model([Linear(50, small, name="layer_two"), Affine(5, small, activation=Softmax())])
    cost = CrossEntropyMulti()
    for _ in range(steps):
        model.zero_grad()
        model.per_sample(cost, inputs, classes).sum().backward()
        optimizer.optimize(model.layers, epoch=0)
    return model.per_sample(cost, inputs, classes).mean().item()


print("\nThe mean cost after 200 steps\n")
by_hand = final_cost(HeavyBall(learning_rate=0.1, momentum_coef=0.9))
built_in = final_cost(GradientDescentMomentum(learning_rate=0.1, momentum_coef=0.9))
print(f"written by hand, HeavyBall:          {by_hand:.6f}")
print(f"built in, GradientDescentMomentum:   {built_in:.6f}")
print(f"difference: {abs(by_hand - built_in):.1e}")
