"""The lines of names.py: a rule, how a library makes it, what is to be known, its equation, and neon's form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial as of

import names_equations as e

NOT = "not in neon"
CYCLED = 0.1, 0.1, 0.01, 0.01


@dataclass(frozen=True)
class Line:
    """`make`, `also` and `neon` are expressions, in which p is a list of one parameter and `schedule` gives `rates`."""

    rule: str
    make: str
    says: str
    equation: Callable
    neon: str = NOT  # with ≈ before it where it differs by the place of a tiny ε
    also: tuple[str, ...] = ()  # others that do the same, but for the place of a tiny ε
    rates: tuple[float, ...] = ()  # written before each step
    steps: int = 4
    small: float = 1.0  # a factor of gradients
    zero: bool = False  # weights of 0
    matrix: bool = False
    copies: int = 1  # how often the four weights are repeated
    rounds: bool = False  # whether the library keeps a number in float32
    unit: bool = True  # whether the first step in units of the rate says something

    @property
    def library(self) -> str:
        return library(self.make)


def library(make: str) -> str:
    return make.split(".")[0]


LINES = [
    Line("SGD, momentum", "torch.optim.SGD(p, lr=0.1, momentum=0.9)",
         "The rate stands outside the buffer: a rate that falls acts at once on all of the momentum.",
         of(e.sgd, mu=0.9), "neon.torch.SGD(p, lr=0.1, momentum=0.9)",
         ("optax.sgd(schedule, momentum=0.9)",), rates=CYCLED),
    Line("SGD, momentum", "keras.optimizers.SGD(0.1, momentum=0.9)",
         "The rate stands inside the velocity: momentum gathered at a high rate goes on at that rate.",
         of(e.sgd, mu=0.9, rate_within=True), "GradientDescentMomentum(0.1, 0.9)", rates=CYCLED),
    Line("SGD, decay", "keras.optimizers.SGD(0.1, weight_decay=0.1)",
         "Decay is decoupled, w −= lr·λ·w, in SGD and in every other optimizer of keras.",
         of(e.sgd, lr=0.1, decoupled=0.1),
         "GradientDescentMomentum(0.1, 0.0, wdecay=0.1, decay_form='decoupled')"),
    Line("SGD, Nesterov", "bitsandbytes.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True)",
         "`nesterov` is taken and ignored, and so is `dampening`: plain momentum.",
         of(e.sgd, lr=0.1, mu=0.9), "neon.torch.SGD(p, lr=0.1, momentum=0.9)",
         ("bitsandbytes.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5)",)),
    Line("SGD, Nesterov", "timm.optim.create_optimizer_v2(p, 'sgd', lr=0.1)",
         "'sgd' is Nesterov's form with momentum 0.9; the plain one is called 'momentum'.",
         of(e.sgd, lr=0.1, mu=0.9, nesterov=True), "neon.torch.SGD(p, lr=0.1, momentum=0.9, nesterov=True)"),

    Line("RMSprop", "torch.optim.RMSprop(p)",
         "Mean over 100 steps (α 0.99), so that the first step is 10 rates long; ε outside the root.",
         of(e.rmsprop, lr=0.01, alpha=0.99, outside=1e-8), "neon.torch.RMSprop(p)"),
    Line("RMSprop", "keras.optimizers.RMSprop()",
         "Mean over 10 steps: the first is 3.2 rates; ε 1e-7 inside the root. The default rate is a tenth of torch's.",
         of(e.rmsprop, lr=0.001, alpha=0.9, inside=1e-7),
         "≈ RMSProp(decay_rate=0.9, learning_rate=0.001, epsilon=1e-7)"),
    Line("RMSprop", "optax.rmsprop(0.01)",
         "α 0.9; ε inside the root unless `eps_in_sqrt=False`.",
         of(e.rmsprop, lr=0.01, alpha=0.9, inside=1e-8),
         "≈ RMSProp(decay_rate=0.9, learning_rate=0.01, epsilon=1e-8)"),
    Line("RMSprop", "timm.optim.RMSpropTF(p)",
         "TensorFlow's: the mean of squares starts at 1, so that first steps are short; ε inside the root.",
         of(e.rmsprop, lr=0.01, alpha=0.9, inside=1e-10, start=1.0)),
    Line("RMSprop, momentum", "torch.optim.RMSprop(p, lr=0.1, momentum=0.9)",
         "The rate stands outside the buffer.",
         of(e.rmsprop, alpha=0.99, outside=1e-8, mu=0.9), "neon.torch.RMSprop(p, lr=0.1, momentum=0.9)", rates=CYCLED),
    Line("RMSprop, momentum", "keras.optimizers.RMSprop(0.1, momentum=0.9)",
         "The rate stands inside the buffer, as in TensorFlow.",
         of(e.rmsprop, alpha=0.9, inside=1e-7, mu=0.9, rate_within=True),
         also=("optax.rmsprop(schedule, momentum=0.9)",), rates=CYCLED),
    Line("RMSprop, momentum", "bitsandbytes.optim.RMSprop(p, lr=0.1, momentum=0.9)",
         "`momentum` is taken and ignored.",
         of(e.rmsprop, lr=0.1, alpha=0.99, outside=1e-8), "neon.torch.RMSprop(p, lr=0.1)"),

    Line("Adagrad", "torch.optim.Adagrad(p)",
         "The sum starts at 0: the first step is one rate, however small the gradient; ε 1e-10 outside the root.",
         of(e.adagrad, lr=0.01, outside=1e-10), "neon.torch.Adagrad(p)"),
    Line("Adagrad", "keras.optimizers.Adagrad()",
         "The sum starts at 0.1: small gradients make small steps; ε 1e-7 inside the root.",
         of(e.adagrad, lr=0.001, start=0.1, inside=1e-7),
         "≈ neon.torch.Adagrad(p, lr=0.001, initial_accumulator_value=0.1, eps=1e-7)", ("optax.adagrad(0.001)",)),

    Line("Adadelta", "torch.optim.Adadelta(p)",
         "Rate 1, as in the paper; ρ 0.9, ε 1e-6.",
         of(e.adadelta, lr=1.0, rho=0.9, eps=1e-6), "neon.torch.Adadelta(p)", ("optax.adadelta(1.0)",)),
    Line("Adadelta", "keras.optimizers.Adadelta()",
         "The default rate is 0.001, a thousandth of the paper's, ρ 0.95, ε 1e-7: it hardly moves. Give it 1.0.",
         of(e.adadelta, lr=0.001, rho=0.95, eps=1e-7),
         "Adadelta(decay=0.95, epsilon=1e-7, learning_rate=0.001)"),

    Line("Adam", "torch.optim.Adam(p)",
         "ε is added to the corrected root. Gradients of a millionth.",
         of(e.adam, lr=0.001), "Adam()", ("optax.adam(0.001)",), small=1e-6),
    Line("Adam", "keras.optimizers.Adam()",
         "ε 1e-7 is added to the root that is not corrected: at first it acts as 3.2e-6. Gradients of a millionth.",
         of(e.adam, lr=0.001, eps=1e-7, raw_eps=True), small=1e-6),
    Line("Adam", "optimi.Adam(p, lr=0.001)",
         "β₂ 0.99 and ε 1e-6, of all of its rules, in place of 0.999 and 1e-8. Gradients of a millionth.",
         of(e.adam, lr=0.001, b2=0.99, eps=1e-6), "Adam(beta_2=0.99, epsilon=1e-6)", small=1e-6),
    Line("Adam, decay", "torch.optim.Adam(p, weight_decay=0.1)",
         "λ·w is added to the gradient, and passes through both means.",
         of(e.adam, lr=0.001, decay=0.1), "Adam(wdecay=0.1)"),
    Line("Adam, decay", "bitsandbytes.optim.Adam(p, weight_decay=0.1)",
         "The decay is decoupled: Adam is AdamW there, but for the default of 0.",
         of(e.adam, lr=0.001, decoupled=0.1), "AdamW(wdecay=0.1)"),
    Line("AdamW", "torch.optim.AdamW(p)",
         "λ 0.01, times the rate.",
         of(e.adam, lr=0.001, decoupled=0.01), "AdamW()",
         ("timm.optim.AdamWLegacy(p)", "bitsandbytes.optim.AdamW(p)")),
    Line("AdamW", "optax.adamw(0.001)",
         "λ 0.0001: a hundredth of torch's default.",
         of(e.adam, lr=0.001, decoupled=0.0001), "AdamW(wdecay=0.0001)"),
    Line("AdamW", "keras.optimizers.AdamW()",
         "λ 0.004, and keras's ε.",
         of(e.adam, lr=0.001, eps=1e-7, raw_eps=True, decoupled=0.004), "≈ AdamW(wdecay=0.004, epsilon=1e-7)"),
    Line("AdamW", "optimi.AdamW(p, lr=0.001, weight_decay=1e-5, decouple_lr=True)",
         "With `decouple_lr` the decay is λ·lr/max_lr, not times the rate itself: write λ a thousand times smaller.",
         of(e.adam, lr=0.001, b2=0.99, eps=1e-6, absolute=1e-5),
         "AdamW(beta_2=0.99, epsilon=1e-6, wdecay=1e-5, decay_form='relative')"),

    Line("NAdam", "torch.optim.NAdam(p)",
         "Momentum by Dozat's schedule, 0.96^(0.004·t): about half of β₁ at first.",
         of(e.nadam, lr=0.002, momentum_decay=0.004), "NAdam()",
         ("timm.optim.create_optimizer_v2(p, 'nadam', lr=0.002)",), rounds=True),
    Line("NAdam", "keras.optimizers.Nadam()",
         "The schedule is 0.96^t, torch's with `momentum_decay=1`: 250 times faster. ε 1e-7.",
         of(e.nadam, lr=0.001, eps=1e-7, momentum_decay=1.0),
         "NAdam(learning_rate=0.001, epsilon=1e-7, momentum_decay=1.0)"),
    Line("NAdam", "optax.nadam(0.001)",
         "No schedule, β₁ throughout; the mean corrected by 1−β₁^(t+1), the gradient by 1−β₁^t.",
         of(e.nadam, lr=0.001)),
    Line("NAdam", "timm.optim.NAdamW(p)",
         "No schedule, and both terms corrected by 1−β₁^t: the first step is nearly two rates.",
         of(e.nadam, lr=0.001, look_ahead=False, decoupled=0.01)),

    Line("RAdam", "torch.optim.RAdam(p)",
         "Five steps go by the mean of gradients, undivided: lr·m̂, long where gradients are large.",
         of(e.radam, lr=0.001), "RAdam()", ("optax.radam(0.001)",), steps=8),
    Line("RAdam", "pytorch_optimizer.RAdam(p)",
         "Five steps are left out: no weight moves before the sixth (`degenerated_to_sgd=False`).",
         of(e.radam, lr=0.001, early=0.0), steps=8),

    Line("AdaMax", "torch.optim.Adamax(p)",
         "Rate 0.002; ε 1e-8 within the maximum, max(β₂u, |g|+ε). Gradients of a millionth.",
         of(e.adamax, lr=0.002, within=1e-8), "AdaMax()",
         ("pytorch_optimizer.AdaMax(p, lr=0.002)", "optax.adamax(0.002)"), small=1e-6),
    Line("AdaMax", "keras.optimizers.Adamax()",
         "Rate 0.001; ε 1e-7 outside, m̂/(u+ε). Gradients of a millionth.",
         of(e.adamax, lr=0.001, outside=1e-7), small=1e-6),

    Line("ASGD", "torch.optim.ASGD(p, lr=0.1)",
         "A step takes the rate that the step before has left: a new `lr` acts one step late.",
         e.asgd, "neon.torch.ASGD(p, lr=0.1)", rates=CYCLED, rounds=True),
    Line("Rprop", "torch.optim.Rprop(p)",
         "The first step is the rate; where a gradient turns, the step is halved and not made.",
         of(e.rprop, lr=0.01), "neon.torch.Rprop(p)"),
    Line("Rprop", "optax.rprop(0.01)",
         "Each move is made one step late: the first step moves nothing, the second as the first gradient said.",
         of(e.rprop, lr=0.01, late=True)),

    Line("Adafactor", "torch.optim.Adafactor(p)",
         "Rate min(0.01, 1/√t), times max(0.001, rms(w)); ε₁, the eps of the dtype, compared with means, not added.",
         of(e.adafactor, rate=lambda t: min(0.01, t**-0.5), eps1=2.0**-52), "Adafactor()", matrix=True, unit=False),
    Line("Adafactor", "transformers.Adafactor(p, weight_decay=0.1)",
         "The same rate; ε₁ 1e-30 is added to g²; the decay is times rms(w) too.",
         of(e.adafactor, rate=lambda t: min(0.01, t**-0.5), decay=lambda t, a: 0.1 * a * min(0.01, t**-0.5)),
         matrix=True, unit=False),
    Line("Adafactor", "transformers.Adafactor(p)",
         "The same without decay.",
         of(e.adafactor, rate=lambda t: min(0.01, t**-0.5)),
         "Adafactor(epsilon_1=1e-30, eps_in_squares=True)", matrix=True, unit=False),
    Line("Adafactor", "timm.optim.Adafactor(p)",
         "As transformers, but sides under 16 are not factored.",
         of(e.adafactor, rate=lambda t: min(0.01, t**-0.5), factored=False), matrix=True, unit=False),
    Line("Adafactor", "keras.optimizers.Adafactor()",
         "As transformers, with the rate 0.001: steps of a tenth.",
         of(e.adafactor, rate=lambda t: min(0.001, t**-0.5)),
         "Adafactor(learning_rate=0.001, epsilon_1=1e-30, eps_in_squares=True)", matrix=True, unit=False),
    Line("Adafactor", "pytorch_optimizer.AdaFactor(p, lr=0.5, momentum_dtype=torch.float64)",
         "Momentum 0.9 by default, not corrected: the first step is a tenth of torch's. It is kept in bfloat16 unless "
         "`momentum_dtype` says otherwise. `lr` is not read (`relative_step`).",
         of(e.adafactor, rate=lambda t: min(0.01, t**-0.5), momentum=0.9, cap=0.999),
         "Adafactor(epsilon_1=1e-30, eps_in_squares=True, momentum_coef=0.9)", matrix=True, unit=False),
    Line("Adafactor", "optax.adafactor(0.01, min_dim_size_to_factor=2, weight_decay_rate=0.01)",
         "The decay is not times the rate: 0.01 takes a hundredth of the weights at each step. The rate "
         "is no maximum.",
         of(e.adafactor, rate=lambda _: 0.01, decay=lambda *_: 0.01), matrix=True, unit=False),
    Line("Adafactor", "optax.adafactor()",
         "Without a rate each step is rms(w) long. Sides under 128 are not factored.",
         of(e.adafactor, rate=lambda _: 1.0, factored=False), matrix=True, unit=False),

    Line("LAMB", "timm.optim.Lamb(p)",
         "Gradients are first clipped to the norm 1 over all tensors; ε 1e-6, λ 0.01.",
         of(e.lamb, lr=0.001, decay=0.01, clip=1.0), "LAMB(gradient_clip_norm=1.0)"),
    Line("LAMB", "timm.optim.Lamb(p, weight_decay=0.0)",
         "Without decay there is no trust ratio (`always_adapt=False`): clipped Adam.",
         of(e.lamb, lr=0.001, adapt=False, clip=1.0), "Adam(epsilon=1e-6, gradient_clip_norm=1.0)"),
    Line("LAMB", "optax.lamb(0.001)",
         "No clipping, λ 0, always a trust ratio.",
         of(e.lamb, lr=0.001), "LAMB(wdecay=0.0)", ("keras.optimizers.Lamb()",)),
    Line("LAMB", "keras.optimizers.Lamb(weight_decay=0.1)",
         "The decay is outside of the ratio: w −= lr·λ·w, and then LAMB without decay.",
         of(e.lamb, lr=0.001, eps=1e-7, decoupled=0.1), "≈ LAMB(epsilon=1e-7, wdecay=0.1, decay_form='decoupled')"),
    Line("LAMB", "pytorch_optimizer.Lamb(p)",
         "The ratio already undoes the length of what it divides, and then the correction divides once more: the first "
         "step is 10 times ‖w‖·lr. `max_grad_norm=1.0` does nothing without `pre_norm=True`.",
         of(e.lamb_of_raw_means, lr=0.001)),
    Line("LAMB", "pytorch_optimizer.Lamb(p)",
         "‖w‖ counts as at most 10: here it is 22.",
         of(e.lamb_of_raw_means, lr=0.001), copies=64),
    Line("LAMB", "bitsandbytes.optim.LAMB(p)",
         "The ratio only shortens: min(1, ‖w‖/‖m/√v‖), of means that are not corrected.",
         of(e.lamb_that_bounds, lr=0.001)),
    Line("LAMB", "bitsandbytes.optim.LAMB(p)",
         "Weights of 0 never move: a step is at most as long as they are.",
         of(e.lamb_that_bounds, lr=0.001), zero=True),
    Line("LAMB", "bitsandbytes.optim.LAMB8bit(p)",
         "From 4096 elements on there is no ratio at all: AdamW in 8 bits.",
         of(e.adam, lr=0.001), "≈ Adam(state_dtype='int8')", copies=1024, steps=1),

    Line("LARS", "timm.optim.Lars(p, lr=1.0)",
         "Without decay there is no ratio (`always_adapt=False`), and no momentum by default: plain SGD.",
         of(e.lars, lr=1.0, adapt=False), "LARS(momentum_coef=0.0, always_adapt=False)"),
    Line("LARS", "timm.optim.Lars(p, lr=1.0, momentum=0.9, weight_decay=0.1)",
         "The paper's ratio, 0.001·‖w‖/(‖g‖+λ‖w‖); the rate outside the buffer.",
         of(e.lars, lr=1.0, mu=0.9, decay=0.1, eps=1e-8), "LARS(wdecay=0.1)"),
    Line("LARS", "optax.lars(1.0, weight_decay=0.1)",
         "The ratio is 0.001·‖w‖/‖g+λw‖, in every tensor, biases too; momentum 0.9, with the rate inside.",
         of(e.lars, lr=1.0, mu=0.9, decay=0.1, of_sum=True, rate_within=True)),
    Line("LARS", "pytorch_optimizer.LARS(p, lr=1.0, weight_decay=0.1)",
         "Vectors have neither a ratio nor a decay.",
         of(e.lars, lr=1.0, mu=0.9, adapt=False), "LARS(wdecay=0.1, adapt_vectors=False)"),
    Line("LARS", "bitsandbytes.optim.LARS(p, lr=1.0, momentum=0.9)",
         "Steps are cut to 0.02·‖w‖·lr and never stretched: no ratio. Weights of 0 never move.",
         of(e.lars_that_bounds, lr=1.0)),

    Line("Lion", "timm.optim.Lion(p)",
         "Rate 0.0001, no decay.",
         of(e.lion, lr=0.0001), "Lion()", ("pytorch_optimizer.Lion(p)", "bitsandbytes.optim.Lion(p)")),
    Line("Lion", "optax.lion(0.0001)",
         "λ 0.001 by default.",
         of(e.lion, lr=0.0001, decoupled=0.001), "Lion(wdecay=0.001)"),
    Line("Lion", "keras.optimizers.Lion()",
         "Rate 0.001, ten times the others'.",
         of(e.lion, lr=0.001), "Lion(learning_rate=0.001)"),

    Line("Adan", "timm.optim.Adan(p, weight_decay=0.1)",
         "The paper's: β are what is kept (0.98, 0.92, 0.99), the decay divides by 1 + lr·λ.",
         of(e.adan, lr=0.001, decay=0.1), "Adan(wdecay=0.1)", ("pytorch_optimizer.Adan(p, weight_decay=0.1)",)),
    Line("Adan", "optimi.Adan(p, lr=0.001)",
         "λ 0.02 and ε 1e-6 by default.",
         of(e.adan, lr=0.001, eps=1e-6, decay=0.02), "Adan(epsilon=1e-6, wdecay=0.02)"),
    Line("Adan", "optax.adan(0.001)",
         "The difference of gradients weighs 0.08 where the paper has 0.92, in the step and in the squares; ε 1e-8 in "
         "the root besides.",
         of(e.adan, lr=0.001, share=0.08, root=1e-8)),

    Line("ADOPT", "timm.optim.Adopt(p)",
         "The first step moves nothing, the second 0.1 rates at most: its mean is not corrected. Clip (t−1)^0.333.",
         of(e.adopt, lr=0.001, clip=lambda t: (t - 1) ** 0.333), "ADOPT(clip_exponent=0.333)"),
    Line("ADOPT", "optax.contrib.adopt(0.001)",
         "Clipped by (t−1)^¼, as in the authors' code.",
         of(e.adopt, lr=0.001, clip=lambda t: (t - 1) ** 0.25), "ADOPT()"),
    Line("ADOPT", "pytorch_optimizer.ADOPT(p)",
         "Clipped by t^¼: the second step, which the authors clip by 1, by 1.19.",
         of(e.adopt, lr=0.001, clip=lambda t: t**0.25)),

    Line("AdaBelief", "timm.optim.AdaBelief(p)",
         "RAdam's rectification by default: five steps of lr·m̂, undivided, as in the authors' code.",
         of(e.adabelief, lr=0.001, rectified=True), "AdaBelief(rectify=True)", steps=8),
    Line("AdaBelief", "pytorch_optimizer.AdaBelief(p)",
         "Not rectified: the paper's algorithm.",
         of(e.adabelief, lr=0.001), "AdaBelief()", ("optax.adabelief(0.001)",)),

    Line("StableAdamW", "pytorch_optimizer.StableAdamW(p)",
         "β₂ 0.99, λ 0.01; the decay is shortened with the step. optimi has ε 1e-6.",
         of(e.adam, lr=0.001, b2=0.99, decoupled=0.01, stable=True, stable_decay=True), "StableAdamW(epsilon=1e-8)",
         ("optimi.StableAdamW(p, lr=0.001)",)),
    Line("StableAdamW", "timm.optim.AdamWLegacy(p, clipping_threshold=1.0)",
         "β₂ 0.999; the decay is not shortened.",
         of(e.adam, lr=0.001, decoupled=0.01, stable=True),
         "≈ StableAdamW(beta_2=0.999, epsilon=1e-8, clip_decay=False)"),

    Line("MARS", "timm.optim.Mars(p)",
         "The first gradient is not corrected; β₁ 0.9 (the paper: 0.95). c is clipped to the norm 1 in each tensor.",
         of(e.mars, lr=0.003, b1=0.9, first=False), "MARS(beta_1=0.9)", matrix=True),
    Line("MARS", "pytorch_optimizer.MARS(p)",
         "The first gradient is corrected by its difference from 0: by 1.475.",
         of(e.mars, lr=0.003, b1=0.95, raw_eps=True, root=1e-15), "≈ MARS(first_difference=True)", matrix=True),
    Line("MARS", "pytorch_optimizer.MARS(p, lr=0.0001)",
         "Vectors step by AdamW with the rate 0.003 and λ 0.1, whatever `lr` and `weight_decay` are: `lr_1d`, "
         "`weight_decay_1d`.",
         of(e.adam, lr=0.003, b2=0.95, decoupled=0.1, raw_eps=True, root=1e-15),
         "≈ AdamW(learning_rate=0.003, beta_2=0.95, wdecay=0.1)"),

    Line("Signum", "optax.signum(0.001)",
         "The sign of a mean with β 0.9.",
         of(e.signum, lr=0.001), "Signum(learning_rate=0.001)", ("pytorch_optimizer.SignSGD(p)",)),
    Line("Signum", "pytorch_optimizer.SignSGD(p, weight_decay=0.1)",
         "The name SignSGD has momentum 0.9; the decay is decoupled.",
         of(e.signum, lr=0.001, decoupled=0.1), "Signum(learning_rate=0.001, wdecay=0.1)"),

    Line("Prodigy", "prodigyopt.Prodigy(p)",
         "No correction by default: the first step is 3.2 times d₀.",
         e.prodigy, "Prodigy()", ("pytorch_optimizer.Prodigy(p)",)),
    Line("Prodigy", "optax.contrib.prodigy()",
         "Adam's corrections always: the first step is d₀.",
         of(e.prodigy, corrected=True), "Prodigy(use_bias_correction=True)"),

    Line("Schedule-Free", "schedulefree.AdamWScheduleFree(p, lr=0.01, weight_decay=0.1)",
         "The decay of y is a part of the step of z; the average weighs by the squares of the largest rate.",
         of(e.schedule_free, decay=0.1),
         "ScheduleFree(AdamW(learning_rate=0.01, wdecay=0.1))", rates=(0.01, 0.02, 0.01, 0.01)),
    Line("Schedule-Free", "optax.contrib.schedule_free_adamw(0.01, weight_decay=0.1)",
         "As schedulefree, while the rate stays.",
         of(e.schedule_free, lr=0.01, decay=0.1), "ScheduleFree(AdamW(learning_rate=0.01, wdecay=0.1))"),
    Line("Schedule-Free", "keras.optimizers.ScheduleFreeAdamW(0.01, weight_decay=0.1)",
         "The decay shrinks y alone, and z does not know; shares are 1/t whatever the rate.",
         of(e.schedule_free, decay_of_y=0.1, counted=True), rates=(0.01, 0.02, 0.01, 0.01)),

    Line("Lookahead", "pytorch_optimizer.Lookahead(torch.optim.SGD(p, lr=1.0), k=2)",
         "Slow weights begin where training begins; k 5 by default.",
         of(e.lookahead, k=2), "Lookahead(GradientDescentMomentum(1.0, 0.0), k=2)", unit=False),
    Line("Lookahead", "timm.optim.Lookahead(torch.optim.SGD(p, lr=1.0), k=2)",
         "Slow weights begin where the first k steps have led, which therefore count in full; k 6 by default.",
         of(e.lookahead, k=2, late=True), unit=False),

    Line("Cautious", "timm.optim.Lion(p, caution=True)",
         "What agrees in sign with the gradient is stretched by n/kept, as in the authors' code.",
         of(e.lion, lr=0.0001, cautious=lambda same: same / max(same.mean(), 1e-3)), "Cautious(Lion())"),
    Line("Cautious", "pytorch_optimizer.Lion(p, cautious=True)",
         "Stretched by n/(kept+1): a first step in which all agree is shortened, of a scalar to a half.",
         of(e.lion, lr=0.0001, cautious=lambda same: same * same.size / (same.sum() + 1))),
]  # fmt: skip
